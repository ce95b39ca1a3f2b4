"""The fold and the server's log: whose a statement is, which transactions it names, what is dropped."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from detectors.judge import Judge
from detectors.policy.policies import Bundle
from pgwitness.core.events import Count, Event, LogPlace, RawEvent, Session
from pgwitness.core.topics import lane_of, partition_of
from streams.fold.fold import Fold
from streams.fold.sessions.server_log import XIDS_MAX
from streams.identity.identities import Identities as Rules
from tests.outcomes.sessions import setting
from tests.streams.log_records import SESSION_US, statement
from tests.streams.records import (
    BACKEND_US,
    IDENTITIES,
    SECOND_US,
    START_US,
    batch,
    beacon,
    read,
    sample,
    tick,
    transaction,
)

GRACE_US = 2 * SECOND_US


class Feed:
    """A fold and the offset of its next record."""

    def __init__(self, fold: Fold | None = None) -> None:
        self.fold = fold or Fold(3, Rules.parse(IDENTITIES), GRACE_US)

    def __call__(self, *events: RawEvent) -> list[Event]:
        return self.fold.apply(self.fold.next_offset, read(batch(*events, source="log")))


@pytest.fixture
def feed() -> Feed:
    """A fold with a grace period of two seconds."""
    return Feed()


def test_a_statement_is_its_sessions(feed: Feed) -> None:
    """A line of the log is that session's own, named by role, application and address."""
    (event,) = feed(statement(1, xid=77, query_id=5, row_count=3))
    assert (event.kind, event.binding, event.certainty) == ("statement", "log", "strong")
    assert (event.principal, event.assurance, event.on_behalf_of) == ("billing-bot", "asserted", "finance")
    assert event.session_id == f"db:5432/{SESSION_US // SECOND_US:x}.29"
    assert (event.operation, event.relations, event.duration_ms) == ("update", ["public.orders"], 1.5)
    assert (event.xid, event.query_id, event.row_count, event.outcome) == (77, 5, 3, "success")
    assert (event.detail["source"], event.detail["where"]) == ("duration", "present")


def test_it_is_the_same_session_everywhere(feed: Feed) -> None:
    """The log knows a session's start to the second, which is what the session id holds."""
    (told,) = feed(statement(1))
    feed(sample(9))
    (change,) = feed(transaction(10, beacons=[beacon(backend_start_us=SESSION_US + 123_456)]))
    assert told.session_id == change.session_id


@pytest.mark.parametrize(("trust", "certainty"), [("certain", "exact"), ("likely", "strong"), ("claimed", "weak")])
@pytest.mark.parametrize("first", ["log", "wal"])
def test_a_transaction_belongs_to_the_statement_with_its_id(feed: Feed, trust: str, certainty: str, first: str) -> None:
    """The server wrote session and transaction id in one line; into a text log others can write lines, though."""
    line, change = statement(1, at_s=0.5, xid=77, trust=trust), transaction(10, xid=77)
    events = feed(line) + feed(change) if first == "log" else feed(change) + feed(line)
    (bound,) = [event for event in events if event.kind == "change"]
    assert (bound.principal, bound.binding, bound.certainty) == ("billing-bot", "log", certainty)
    assert bound.client_addr == "10.0.0.7"
    assert len(events) == 2
    assert feed.fold.held == 0


@pytest.mark.parametrize(("trust", "certainty"), [("certain", "exact"), ("likely", "strong"), ("claimed", "weak")])
def test_a_statement_is_its_lines_session_as_far_as_lines_can_be_believed(
    feed: Feed, trust: str, certainty: str
) -> None:
    """Only a line that is certain to be the server's own is exact, and one that anybody can have written is weak."""
    (told,) = feed(statement(1, trust=trust))
    assert (told.kind, told.principal, told.certainty) == ("statement", "billing-bot", certainty)


def test_ids_of_the_log_have_no_epoch(feed: Feed) -> None:
    """The WAL's ids have 64 bits, the log's 32: they meet modulo 2^32, over a restart of the worker too."""
    feed(statement(1, xid=77))
    (early,) = feed(transaction(10, xid=77 + (5 << 32)))
    assert early.binding == "log"
    feed(transaction(11, xid=78 + (5 << 32)))
    again = Feed(Fold.restore(feed.fold.snapshot(), GRACE_US))
    again.fold.rehydrate(2, read(batch(transaction(11, xid=78 + (5 << 32)), source="log")))
    late = again(statement(2, xid=78))
    assert [event.kind for event in late] == ["change", "statement"]
    assert late[0].binding == "log"


def test_a_statement_without_an_id_names_no_transaction(feed: Feed) -> None:
    """Without an id nothing is guessed: the change goes on as nobody's."""
    feed(transaction(10, xid=77), statement(1), statement(2, xid=78), statement(3, xid=77, database="other"))
    (event,) = feed(tick(3))
    assert (event.principal, event.certainty) == (None, "none")


def test_each_transaction_keeps_its_own_application(feed: Feed) -> None:
    """Behind a pooler one server session serves many: the line with the id counts, not the session's last one."""
    feed(statement(1, xid=77, application="bot-7"), statement(2, xid=78, application="web"))
    first, second = feed(transaction(10, xid=77), transaction(11, xid=78))
    assert (first.principal, second.principal) == ("billing-bot", "app")


def test_a_beacon_outranks_the_log(feed: Feed) -> None:
    """What the transaction itself says is not overruled."""
    feed(statement(1, xid=77))
    (event,) = feed(transaction(10, xid=77, beacons=[beacon(user="p_ann", application="psql")]))
    assert (event.binding, event.principal) == ("beacon", "p_ann")


def test_a_covered_table_without_a_beacon_is_emitted_with_the_name_that_the_log_has(feed: Feed) -> None:
    """Who switched the beacon off is named by the log: the change is theirs, and the missing beacon a finding."""
    feed(statement(1, xid=77))
    (event,) = feed(transaction(10, xid=77, covered=True))
    assert (event.detail["finding"], event.principal, event.binding) == ("beacon_missing", "billing-bot", "log")


def test_a_write_past_the_beacon_waits_for_the_log(feed: Feed) -> None:
    """The WAL is mostly ahead of the log: who wrote past the beacon is named by the line that comes after it."""
    feed(statement(1, xid=70))
    assert feed(transaction(10, xid=77, covered=True)) == []
    change, line = feed(statement(2, at_s=0.5, xid=77))
    assert (change.kind, change.principal, change.detail["finding"]) == ("change", "billing-bot", "beacon_missing")
    assert line.kind == "statement"


def test_a_write_past_the_beacon_that_no_line_names_is_a_shadow_write(feed: Feed) -> None:
    """After the grace period, over a restart of the worker too; and at once where no log is read."""
    (event,) = feed(transaction(9, xid=76, covered=True))
    assert (event.principal, event.detail) == (None, {"finding": "shadow_write"})
    feed(statement(1, xid=70))
    feed(transaction(10, xid=77, covered=True))
    again = Feed(Fold.restore(feed.fold.snapshot(), GRACE_US))
    again.fold.rehydrate(2, read(batch(transaction(10, xid=77, covered=True), source="log")))
    (event,) = again(tick(3))
    assert (event.principal, event.detail) == (None, {"finding": "shadow_write"})


def test_lines_sent_again_are_dropped(feed: Feed) -> None:
    """Within a log places only grow, also over a restart; another log, or another instance, has its own."""
    assert len(feed(statement(1), statement(5), statement(5, index=1))) == 3
    assert feed(statement(1), statement(5), statement(5, index=1)) == []
    assert feed.fold.dropped == 3
    again = Feed(Fold.restore(feed.fold.snapshot(), GRACE_US))
    assert again(statement(5)) == []
    assert len(again(statement(5, index=2), statement(6), statement(1, log="a-2"))) == 3


def test_the_same_line_has_the_same_id(feed: Feed) -> None:
    """An event of the log is named by the server's own name of its line, wherever it is read from."""
    first = feed(statement(1))[0]
    other = Feed()(statement(9, log="b-1", place=LogPlace("b-1", 9, 0, "6b035d50.29/a-1/1")))[0]
    assert first.event_id == other.event_id
    nameless = [statement(1, log=log, place=LogPlace(log, 1)) for log in ("c-1", "c-2")]
    assert len({event.event_id for event in feed(*nameless)}) == 2


def test_sessions_of_the_log(feed: Feed) -> None:
    """Connects, failed logins and ends are sessions bound by the log, sent again they are dropped."""
    given: dict[str, Any] = {
        "captured_at_us": START_US, "occurred_at_us": START_US, "pid": 41, "backend_start_us": SESSION_US,
        "role": "p_ann", "database": "shop", "application": "psql", "trust": "certain",
    }  # fmt: skip
    events = [
        Session(operation="connect", place=LogPlace("a-1", 1), auth_method="cert", identity="cn=ann", **given),
        Session(operation="disconnect", place=LogPlace("a-1", 2), auth_method="cert", duration_ms=5.0, **given),
        Session(operation="login_failed", place=LogPlace("a-1", 3), sqlstate="28P01", **given),
        Session(operation="login_failed", place=LogPlace("a-1", 4), sqlstate="53300", **given),
    ]
    made = feed(*events)
    assert [event.operation for event in made] == ["connect", "disconnect", "login_failed", "login_failed"]
    assert {(event.kind, event.binding, event.role) for event in made} == {("session", "log", "p_ann")}
    assert [event.principal for event in made] == ["p_ann", "p_ann", None, None]
    assert made[2].detail["claimed"] == {"name": "p_ann", "principal": "p_ann", "proven": False}
    assert [event.certainty for event in made] == ["exact", "exact", "weak", "weak"]
    assert (made[0].assurance, made[0].detail["identity"], made[1].duration_ms) == ("verified", "cn=ann", 5.0)
    assert [event.outcome for event in made] == ["success", "success", "denied", "failure"]
    assert feed(*events) == []
    given |= {"trust": "claimed", "auth_method": "cert", "format": "stderr"}
    (imitable,) = feed(Session(operation="connect", place=LogPlace("a-1", 5), **given))
    assert (imitable.binding, imitable.certainty, imitable.assurance) == ("log", "weak", "role_only")


@pytest.mark.parametrize(
    ("method", "principal"), [(None, None), ("trust", None), ("scram-sha-256", "p_ann"), ("cert", "p_ann")]
)
def test_a_refused_login_is_nobodys_unless_it_had_proven_its_name(
    feed: Feed, method: str | None, principal: str | None
) -> None:
    """A name can be claimed by anybody; who has authenticated before the server refused him has proven it."""
    refused = Session(
        operation="login_failed", place=LogPlace("a-1", 1), sqlstate="53300", auth_method=method, role="p_ann",
        captured_at_us=START_US, occurred_at_us=START_US, pid=41, backend_start_us=SESSION_US, client_addr="10.9.9.9",
    )  # fmt: skip
    (event,) = feed(refused)
    assert (event.principal, event.role, event.client_addr) == (principal, "p_ann", "10.9.9.9")
    assert event.assurance == ("none" if principal is None else "asserted")


def test_who_takes_on_another_identity_is_who_logged_in(feed: Feed) -> None:
    """The beacon tells the session user, whom SET SESSION AUTHORIZATION changes; the log tells who logged in."""
    login = Session(
        operation="connect", place=LogPlace("a-1", 1), role="p_ann", captured_at_us=START_US, occurred_at_us=START_US,
        pid=41, backend_start_us=BACKEND_US,
    )  # fmt: skip
    feed(login)
    (event,) = feed(transaction(100, beacons=[beacon("p_bob")]))
    assert (event.principal, event.role, event.effective_role) == ("p_ann", "p_ann", "p_bob")
    assert event.detail["became"] == "p_bob"


def test_an_imitated_line_is_a_finding_and_nothing_else(feed: Feed) -> None:
    """It names who wrote it, and neither its transaction id nor its text is believed."""
    line = statement(1, xid=77, source="imitated", imitates="duration", lines=1, statement=None, role="p_ann")
    (told,) = feed(line)
    assert (told.kind, told.operation, told.principal, told.xid) == ("control", "log_imitated", "p_ann", 77)
    assert (told.detail["finding"], told.detail["imitates"], told.detail["lines"]) == ("log_imitated", "duration", 1)
    assert feed(line) == []
    feed(transaction(10, xid=77))
    (change,) = feed(tick(3))
    assert (change.kind, change.principal, change.certainty) == ("change", None, "none")


def test_a_claimed_line_takes_no_transaction_from_a_better_one(feed: Feed) -> None:
    """Who can write a line into a text log may know an id; what a line that is likely the server's has named stays."""
    feed(statement(1, xid=77), statement(2, xid=77, role="p_boss", pid=9, trust="claimed"))
    (change,) = feed(transaction(10, xid=77))
    assert (change.principal, change.certainty) == ("billing-bot", "strong")


@pytest.mark.parametrize(("trust", "assurance"), [("certain", "verified"), ("likely", "role_only")])
def test_nobody_is_verified_by_a_line_that_is_not_certain(feed: Feed, trust: str, assurance: str) -> None:
    """How a session authenticated proves something only where the server is certain to have written that."""
    (told,) = feed(statement(1, role="p_ann", auth_method="cert", trust=trust))
    assert (told.principal, told.assurance, told.auth_method) == ("p_ann", assurance, "cert")


def test_an_unknown_application_names_nobody_wrongly(feed: Feed) -> None:
    """A log without %a does not say that there was no application: a rule that asks for one stays undecided."""
    (event,) = feed(statement(1, application=None))
    assert event.principal is None


def test_memory_is_bounded_and_shared(feed: Feed) -> None:
    """Ids are forgotten oldest first, and a checkpoint holds each session once."""
    for start in range(0, XIDS_MAX + 500, 500):
        feed(*(statement(number + 1, xid=number) for number in range(start, start + 500)))
    state = msgspec.json.decode(feed.fold.snapshot())["clusters"]["shop"]
    assert len(state["log_xids"]) == XIDS_MAX
    assert state["log_xids"][0][0] == 500
    assert len(state["log_sessions"]) == 1


def test_an_older_checkpoint_is_taken_up(feed: Feed) -> None:
    """A checkpoint of a release that knew no log restores."""
    feed(sample(77))
    state = msgspec.json.decode(feed.fold.snapshot())
    for cluster in state["clusters"].values():
        for key in ("logs", "log_sessions", "log_xids"):
            del cluster[key]
    restored = Feed(Fold.restore(msgspec.json.encode(state), GRACE_US))
    assert restored(transaction(10, xid=77))[0].binding == "activity"


def test_text_that_could_not_be_read_leaves_its_hash(feed: Feed) -> None:
    """What pgAudit found stands in for what the parser could not."""
    audit = {"type": "OBJECT", "class": "WRITE", "command": "CREATE TABLE AS", "object_name": "public.secrets"}
    (event,) = feed(statement(1, source="pgaudit", statement=None, statement_hash="tok_1", audit=audit))
    assert (event.operation, event.relations) == ("create_table_as", ["public.secrets"])
    assert (event.statement, event.detail["statement_hash"], event.detail["audit"]) == (None, "tok_1", audit)


GUESSED = """rules:
  - match: {role: "pw_*", application: "app*"}
    principal: "{application}"
    kind: service
"""


def test_a_login_brings_those_that_were_refused_before_it() -> None:
    """A refused login has no application yet and is judged elsewhere; the one that succeeds has their number."""
    names = [f"pw_{number}" for number in range(1, 7)]
    for partitions in (2, 4):
        places = [(lane_of(None, "shop", name), lane_of(f"app{name[3:]}", "shop", name)) for name in names]
        assert any(partition_of(one, partitions) != partition_of(other, partitions) for one, other in places)
    feed = Feed(Fold(3, Rules.parse(GUESSED), 0))
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None)
    for place, name in enumerate(names):
        *refused, told = feed(*[login(100 * place + n, name, refused=n < 5, at_s=n) for n in range(6)])
        assert {event.principal for event in refused} == {None}
        assert (told.principal, told.detail["refused_before"]) == (f"app{name[3:]}", 5)
        assert (told.detail["refused_within_s"], told.detail["refused_from"]) == (5, ["10.9.9.9"])
        assert judge.judge(told).policies == ["login_after_failures"]
        (again,) = feed(login(100 * place + 50, name, refused=False, at_s=9))
        assert "refused_before" not in again.detail


@pytest.mark.parametrize("sampled_after", range(6))
def test_a_sample_of_the_login_takes_no_refusals_from_its_line(sampled_after: int) -> None:
    """The activity shows the login while the log's refusals before it are still on their way: the line has them all.

    The next login has none of them, whoever of the two told of the first, nor has a sample that comes last.
    """
    feed = Feed(Fold(3, Rules.parse(GUESSED), 0))
    refused = [login(number, "pw_1", refused=True, at_s=number) for number in range(1, 6)]
    if sampled_after:
        feed(*refused[:sampled_after])
    (shown,) = feed(sampled("pw_1", at_s=6))
    assert shown.detail.get("refused_before", 0) == sampled_after
    feed.fold = Fold.restore(feed.fold.snapshot(), 0)
    *_, told = feed(*refused[sampled_after:], login(6, "pw_1", refused=False, at_s=6))
    assert told.detail["refused_before"] == 5
    for last in (sampled("pw_1", at_s=7), login(7, "pw_1", refused=False, at_s=7)):
        (next_one,) = feed(last)
        assert "refused_before" not in next_one.detail


def test_logins_that_overtake_each_other_count_their_own() -> None:
    """Samples of two logins come before the log has told of either; each line counts what was before it, once."""
    feed = Feed(Fold(3, Rules.parse(GUESSED), 0))
    feed(sampled("pw_1", at_s=4), login(1, "pw_1", refused=True, at_s=1), sampled("pw_1", at_s=8))
    lines = [login(2, "pw_1", refused=True, at_s=2), login(3, "pw_1", refused=False, at_s=4)]
    lines += [login(number, "pw_1", refused=True, at_s=number) for number in (5, 6, 7)]
    told = feed(*lines, login(8, "pw_1", refused=False, at_s=8))
    assert [event.detail["refused_before"] for event in told if event.operation == "connect"] == [2, 3]


def test_refusals_are_of_their_role_and_of_the_last_minutes() -> None:
    """Another role's, those of an hour ago, and refusals for want of room do not count; a restart forgets none."""
    feed = Feed(Fold(3, Rules.parse(GUESSED), 0))
    feed(login(1, "pw_1", refused=True), login(2, "pw_2", refused=True, at_s=4_000))
    feed(login(3, "pw_1", refused=True, at_s=4_000, sqlstate="53300"))
    feed.fold = Fold.restore(feed.fold.snapshot(), 0)
    assert "refused_before" not in feed(login(4, "pw_1", refused=False, at_s=4_001))[0].detail
    assert feed(login(5, "pw_2", refused=False, at_s=4_001))[0].detail["refused_before"] == 1


def login(place: int, role: str, *, refused: bool, at_s: int = 0, sqlstate: str = "28P01") -> Session:
    """A login that the log tells; of a refused one the server does not know the application."""
    at_us = START_US + at_s * SECOND_US
    return Session(
        operation="login_failed" if refused else "connect",
        place=LogPlace("a-1", place),
        sqlstate=sqlstate if refused else None,
        application="" if refused else f"app{role[3:]}",
        captured_at_us=at_us, occurred_at_us=at_us, pid=41 + at_s, backend_start_us=SESSION_US, role=role,
        database="shop", client_addr="10.9.9.9", trust="certain",
    )  # fmt: skip


def sampled(role: str, *, at_s: int) -> Session:
    """The same login as the activity shows it: its start is told to the microsecond."""
    at_us = START_US + at_s * SECOND_US
    return Session(
        operation="connect", application=f"app{role[3:]}", captured_at_us=at_us, occurred_at_us=at_us, pid=41 + at_s,
        backend_start_us=SESSION_US + 123_456, role=role, database="shop", client_addr="10.9.9.9",
    )  # fmt: skip


@pytest.mark.parametrize("xid", [10, 77])
def test_counts_of_no_relation_are_refused_beside_a_log(feed: Feed, xid: int) -> None:
    """A transaction that counts rows of what it does not name is told, named by the log or not; the next goes on."""
    feed(
        setting("log_min_duration_statement", "0"),
        statement(1, xid=77),
        statement(2, statement="INSERT INTO public.orders VALUES ($1)"),
    )
    for number, counts in enumerate(([Count(0, "i", 1)], [Count(-1, "i", 1)], [Count(0, "x", 1)])):
        broken = transaction(20 + number, xid=xid, relations=[], counts=counts)
        assert feed.fold.apply(feed.fold.next_offset, read(batch(broken))) == []
        (problem,) = feed.fold.refused
        assert (problem.cause, "names relation" in problem.why) == ("nonsense", True)
    events = feed.fold.apply(feed.fold.next_offset, read(batch(transaction(30, xid=77), tick(60))))
    assert [(event.lsn, event.binding) for event in events if event.kind == "change"] == [(30, "log")]
