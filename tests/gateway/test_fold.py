"""What the fold makes of a gateway: outcomes by how their transaction ends, sessions joined to their beacon."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from collectors.gateway.session.actions import Moment
from collectors.gateway.session.session import Session
from collectors.gateway.spool.records import Begun, Closed, Ended, Opened, Record, Said, Started
from collectors.gateway.spool.shipping import Shipment
from collectors.gateway.wire.frames import frame
from detectors.gatekeeper import Verdict
from detectors.policy.details import wrong
from pgwitness.core.events import Event, RawBatch, Token
from streams.fold.fold import Fold
from streams.identity.identities import Identities
from tests.gateway.passing import judged
from tests.streams.folding import GRACE_US
from tests.streams.records import BACKEND_US, START_US, batch, beacon, tick, transaction

OPENED = Opened(
    session=1, at_us=START_US, cluster="shop", instance="db:5432", role="app", database="shop", client_addr="10.1.1.1",
    client_port=5000, auth_method="scram-sha-256", pid=41, backend_start_us=BACKEND_US, server_port=7000,
)  # fmt: skip


VERDICT = Verdict(effect="deny", policies=["no_drop"], message="refused", why="why", hint="ask", bundle="b")


def test_a_decision_is_an_event_before_its_statement_ends() -> None:
    """What was refused is told as a decision, and its statement as denied, with the policies; each once."""
    us = START_US + 1_000
    said = Said("DROP TABLE t")
    begun = Begun(session=1, at_us=us, number=1, way="query", said=said, verdict=VERDICT)
    ended = Ended(session=1, at_us=us + 5, number=1, outcome="denied", sqlstate="42501")
    records: list[Record] = [Started(session=0, at_us=START_US), OPENED, begun, ended]
    client = Client()
    client.records = records
    events = Fold(0, Identities.parse("rules: []\n"), GRACE_US).apply(0, client.raw())
    told = [event for event in events if event.kind != "session"]
    found = [(event.kind, event.operation, event.outcome, event.relations) for event in told]
    assert found == [("decision", "deny", "denied", ["t"]), ("statement", "drop_table", "denied", ["t"])]
    for event in told:
        decision = event.detail["decision"]
        assert decision == {"effect": "deny", "policies": ["no_drop"], "message": "refused", "bundle": "b"}
        assert not wrong(event.kind, event.detail)
    assert told[0].event_id != told[1].event_id


class Client:
    """Sends statements through a session, one after the other or as a pipeline, and keeps its records."""

    def __init__(self) -> None:
        self.session = Session(1, {}, judged)
        self.records: list[Record] = [Started(session=0, at_us=START_US), OPENED]
        self.us = START_US

    def run(self, text: str, answer: bytes, status: str = "I") -> None:
        """Send a simple query."""
        self.us += 1_000
        now = Moment(self.us, self.us * 1_000)
        self.records += self.session.client(frame(b"Q", text.encode() + b"\0"), now).records
        self.records += self.session.server(answer + frame(b"Z", status.encode()), now).records

    def send(self, text: str) -> None:
        """Send a simple query that is never answered."""
        self.records += self.session.client(frame(b"Q", text.encode() + b"\0"), Moment(self.us, 0)).records

    def end(self) -> None:
        """End the session."""
        self.records += [*self.session.lost(Moment(self.us, 0)), Closed(session=1, at_us=self.us)]

    def raw(self) -> RawBatch:
        """What is sent of it."""
        shipment = Shipment("spool")
        events = [one for place, record in enumerate(self.records, 1) for one in shipment.take(place, record)]
        return batch(*[event for _, _, event in events], source="gateway")


def done(tag: str) -> bytes:
    """A command is complete."""
    return frame(b"C", tag.encode() + b"\0")


FAILED = frame(b"E", b"SERROR\0C23505\0\0")


def outcomes(client: Client) -> dict[str | None, str]:
    """What the fold says came of each statement."""
    fold = Fold(0, Identities.parse("rules: []\n"), GRACE_US)
    events = fold.apply(0, client.raw())
    events += Fold.restore(fold.snapshot(), GRACE_US).apply(1, batch(tick(1_000)))
    assert len({event.event_id for event in events}) == len(events)
    return {event.statement: event.outcome for event in events if event.kind == "statement"}


def test_a_transaction_decides_what_came_of_its_statements() -> None:
    """COMMIT, ROLLBACK, ROLLBACK TO and an error that is left standing say what lasts; what was read was read."""
    client = Client()
    client.run("BEGIN", done("BEGIN"), "T")
    client.run("DELETE FROM a", done("DELETE 1"), "T")
    client.run("SELECT b FROM a", done("SELECT 1"), "T")
    client.run("SAVEPOINT s", done("SAVEPOINT"), "T")
    client.run("DELETE FROM c", done("DELETE 1"), "T")
    client.run("DELETE FROM d", FAILED, "E")
    client.run("ROLLBACK TO s", done("ROLLBACK"), "T")
    client.run("COMMIT", done("COMMIT"))
    client.run("BEGIN", done("BEGIN"), "T")
    client.run("DELETE FROM e", done("DELETE 1"), "T")
    client.run("ROLLBACK", done("ROLLBACK"))
    client.run("BEGIN", done("BEGIN"), "T")
    client.run("DELETE FROM f", done("DELETE 1"), "T")
    client.run("DELETE FROM g", FAILED, "E")
    client.run("COMMIT", done("ROLLBACK"))
    client.run("BEGIN", done("BEGIN"), "T")
    client.run("DELETE FROM h", done("DELETE 1"), "T")
    client.run("COMMIT", FAILED)
    client.run("DELETE FROM i", done("DELETE 1"))
    client.run("BEGIN", done("BEGIN"), "T")
    client.run("DELETE FROM j", done("DELETE 1"), "T")
    client.end()
    found = outcomes(client)
    assert {name[-1]: outcome for name, outcome in found.items() if name is not None and "DELETE" in name} == {
        "a": "success", "c": "rolled_back", "d": "failure", "e": "rolled_back", "f": "rolled_back", "g": "failure",
        "h": "rolled_back", "i": "success", "j": "rolled_back",
    }  # fmt: skip
    assert found["SELECT b FROM a"] == "success"


def test_a_transaction_may_fail_without_a_statement() -> None:
    """A Parse that fails makes the COMMIT behind it a ROLLBACK, though every statement that ran succeeded."""
    for last, status in (("COMMIT", "I"), ("COMMIT AND CHAIN", "T")):
        client = Client()
        client.run("BEGIN", done("BEGIN"), "T")
        client.run("DELETE FROM a", done("DELETE 1"), "T")
        now = Moment(client.us, 0)
        client.session.client(frame(b"P", b"\0nonsense\0\0\0") + frame(b"S"), now)
        client.session.server(frame(b"E", b"SERROR\0C42601\0\0") + frame(b"Z", b"E"), now)
        client.run(last, done("ROLLBACK"), status)
        client.run("DELETE FROM b", done("DELETE 1"), status)
        client.run("COMMIT", done("COMMIT"))
        found = outcomes(client)
        assert (found["DELETE FROM a"], found["DELETE FROM b"]) == ("rolled_back", "success")


def test_texts_of_several_statements_are_told_part_by_part() -> None:
    """A text that ends transactions in its midst has one outcome where its parts agree, else nobody claims to know."""
    client = Client()
    client.run("DELETE FROM a; ROLLBACK", done("DELETE 1") + done("ROLLBACK"))
    client.run("DELETE FROM b; COMMIT; DELETE FROM b", done("DELETE 1") + done("COMMIT") + done("DELETE 1"))
    client.run("DELETE FROM c; ROLLBACK; DELETE FROM c", done("DELETE 1") + done("ROLLBACK") + done("DELETE 1"))
    client.run("DELETE FROM d; COMMIT; SELECT 1 / 0", done("DELETE 1") + done("COMMIT") + FAILED)
    client.run("BEGIN", done("BEGIN"), "T")
    client.run("DELETE FROM e", done("DELETE 1"), "T")
    client.run("COMMIT AND CHAIN", done("COMMIT"), "T")
    client.run("DELETE FROM f", done("DELETE 1"), "T")
    client.run("ROLLBACK; DELETE FROM g", done("ROLLBACK") + done("DELETE 1"))
    found = outcomes(client)
    assert [outcome for text, outcome in found.items() if text is not None and "DELETE" in text] == [
        "rolled_back", "success", "unknown", "unknown", "success", "rolled_back", "success",
    ]  # fmt: skip


def test_a_commit_without_an_answer_is_unknown() -> None:
    """When the connection is lost during COMMIT, nobody knows whether what it was to commit lasts."""
    client = Client()
    client.run("BEGIN", done("BEGIN"), "T")
    client.run("DELETE FROM a", done("DELETE 1"), "T")
    client.send("COMMIT")
    client.end()
    assert outcomes(client) == {"BEGIN": "success", "DELETE FROM a": "unknown", "COMMIT": "unknown"}


def test_a_crash_leaves_the_last_statement_unknown() -> None:
    """What a gateway that was killed had under way is complete with the next one's start; nothing comes twice."""
    client = Client()
    client.run("DELETE FROM a", done("DELETE 1"))
    client.send("DELETE FROM b")
    client.records.append(Started(session=0, at_us=client.us + 1_000))
    assert outcomes(client) == {"DELETE FROM a": "success", "DELETE FROM b": "unknown"}
    fold = Fold(0, Identities.parse("rules: []\n"), GRACE_US)
    assert len(fold.apply(0, client.raw())) == 4
    assert fold.apply(1, client.raw()) == []


def folded(*batches: RawBatch) -> list[Event]:
    """Fold, with a rule that knows people by where they come from."""
    rules = "rules:\n- id: desk\n  match: { role: app, client_addr: 10.1.1.0/24 }\n  principal: ada\n  kind: human\n"
    fold = Fold(0, Identities.parse(rules), GRACE_US)
    return [event for offset, one in enumerate(batches) for event in fold.apply(offset, one)]


def test_a_beacon_meets_the_session_that_the_gateway_logged_in() -> None:
    """The server sees the gateway's address; the change is told under the client's own, and named by it."""
    client = Client()
    written = transaction(10, covered=True, beacons=[beacon(client_addr="10.9.9.9", client_port=7000)])
    change = next(event for event in folded(client.raw(), batch(written)) if event.kind == "change")
    assert (change.principal, change.client_addr, change.client_port) == ("ada", "10.1.1.1", 5000)
    assert (change.binding, change.certainty) == ("beacon", "exact")


def test_another_port_is_another_session() -> None:
    """A pooler behind the gateway runs what it does in backends of its own: nothing is joined to those."""
    client = Client()
    other = beacon(client_addr="10.9.9.9", client_port=7001)
    later = replace(beacon(client_addr="10.9.9.9", client_port=7000), backend_start_us=BACKEND_US + 1)
    for one in (other, later):
        events = folded(client.raw(), batch(transaction(10, covered=True, beacons=[one])))
        change = next(event for event in events if event.kind == "change")
        assert (change.principal, change.client_addr) == (None, "10.9.9.9")


def token(**claims: object) -> Token:
    """What the gateway found of a token that logged in."""
    given = {"sub": "maria", "actors": ["triage"], "agent": {"name": "triage", "tools": ["sql"]}, **claims}
    return Token("verified", "t-1", given)


def test_a_token_that_logged_in_names_all_that_its_session_does() -> None:
    """Statements, reads too, and what it commits are the agent's, for its person, verified; also after a restart."""
    client = Client()
    client.records[1] = replace(OPENED, token=token(), auth_method="oauth")
    client.run("SELECT b FROM a", done("SELECT 1"))
    client.end()
    fold = Fold(0, Identities.parse("rules: [{match: {role: app}, principal: app}]\n"), GRACE_US)
    raw = client.raw()
    first = msgspec.structs.replace(raw, events=raw.events[:1])
    events = fold.apply(0, first)
    fold = Fold.restore(fold.snapshot(), GRACE_US)
    events += fold.apply(1, msgspec.structs.replace(raw, events=raw.events[1:]))
    written = transaction(10, covered=True, beacons=[beacon(client_addr="10.9.9.9", client_port=7000)])
    events += fold.apply(2, batch(written))
    assert {event.kind for event in events} >= {"session", "statement", "change"}
    for event in events:
        assert (event.principal, event.principal_kind, event.on_behalf_of) == ("triage", "agent", "maria"), event
        assert event.assurance == "verified"
        assert event.detail["agent"]["tools"] == ["sql"]  # type: ignore[index, call-overload]


def test_a_token_that_was_refused_names_nobody() -> None:
    """The name that its client gave stands there as claimed, with what was found of the token."""
    client = Client()
    refused = Token("expired", "t-2", {"sub": "cfo"})
    client.records[1] = replace(OPENED, token=refused, auth_method=None, sqlstate="28000", pid=0, backend_start_us=0)
    fold = Fold(0, Identities.parse("rules: [{match: {role: app}, principal: app}]\n"), GRACE_US)
    event = fold.apply(0, client.raw())[0]
    assert (event.operation, event.principal, event.outcome) == ("login_failed", None, "denied")
    assert event.detail["token"] == {"verdict": "expired", "token_id": "t-2"}
    assert event.detail["claimed"] == {"name": "app", "principal": "app", "proven": False}


def test_who_is_logged_in_as_an_audience_stays_who_it_is() -> None:
    """All that its session does is told of the role that it has proven to be, under that of its login; also later."""
    client = Client()
    client.records[1] = replace(OPENED, role="support", user="ann")
    client.run("SELECT b FROM a", done("SELECT 1"))
    client.end()
    rules = "rules: [{match: {role: ann}, principal: ann}, {match: {role: support}, principal: nobody}]\n"
    fold = Fold(0, Identities.parse(rules), GRACE_US)
    raw = client.raw()
    events = fold.apply(0, msgspec.structs.replace(raw, events=raw.events[:1]))
    fold = Fold.restore(fold.snapshot(), GRACE_US)
    events += fold.apply(1, msgspec.structs.replace(raw, events=raw.events[1:]))
    written = transaction(10, covered=True, beacons=[beacon(client_addr="10.9.9.9", client_port=7000)])
    events += fold.apply(2, batch(written))
    assert {event.kind for event in events} >= {"session", "statement", "change"}
    assert {event.principal for event in events} == {"ann"}
    assert {event.role for event in events if event.kind != "change"} == {"support"}
