"""Comments through the fold: what they tell of an agent, whom a rule lets them name, and that a lie is told."""

from __future__ import annotations

from typing import Any

import pytest

from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import Event, RawEvent, Token
from streams.fold.fold import Fold
from streams.identity.identities import Identities as Rules
from tests.streams.log_records import statement
from tests.streams.records import IDENTITIES, SECOND_US, batch, beacon, read, sample, tick, transaction

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TAGS = {
    "agent": "triage-bot", "agent_instance": "7", "client": "portal", "conversation_id": "c9", "model": "m-1",
    "on_behalf_of": "ada", "service": "billing", "tool": "sql", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
}  # fmt: skip
CLAIMS = {"sub": "maria", "actors": ["support-agent", "portal"], "agent": {"name": "support", "model": "m-4"}}
RULES = """
rules:
  - {id: bots, match: {role: app, comment.agent: "*-bot"}, principal: "agent:{agent}", kind: agent, peer_group: agents}
  - {id: cfo, match: {comment: {agent: cfo}}, principal: cfo, kind: human}
  - {id: app, match: {role: app}, principal: app, kind: service}
  - {id: people, match: {role: "p_*"}, principal: "{role}", kind: human}
  - {id: agent, match: {role: a_triage}, principal: triage, kind: agent, on_behalf_of: ada}
"""


class Feed:
    """A fold and the offset of its next record."""

    def __init__(self, rules: str = RULES) -> None:
        self.fold = Fold(0, Rules.parse(rules), 2 * SECOND_US)

    def __call__(self, *events: RawEvent) -> list[Event]:
        return self.fold.apply(self.fold.next_offset, read(batch(*events, source="log")))


def conflicts(events: list[Event]) -> list[Event]:
    """The findings that a comment lies."""
    return [event for event in events if event.operation == "identity_conflict"]


def test_a_comment_names_the_agent() -> None:
    """Agent, delegation and trace stand beside the statement and its transaction; no rule, no name from it."""
    events = Feed(IDENTITIES)(statement(1, xid=7, application="web", tags=TAGS), transaction(10, xid=7))
    for event in events:
        assert (event.principal, event.assurance, event.on_behalf_of) == ("app", "role_only", None)
        assert event.trace_id == TRACE
        assert event.detail["agent"] == {
            "said_by": "comment", "name": "triage-bot", "instance": "7", "model": "m-1", "tool": "sql",
            "conversation": "c9", "traceparent": TAGS["traceparent"],
            "delegation": ["ada", "portal", "triage-bot", "billing"],
        }  # fmt: skip
    assert [event.kind for event in events] == ["statement", "change"]


def test_a_rule_may_name_by_a_comment() -> None:
    """What a comment names is asserted, on behalf of whom the comment says."""
    events = Feed()(statement(1, xid=7, tags=TAGS), transaction(10, xid=7))
    for event in events:
        assert (event.principal, event.principal_kind, event.on_behalf_of) == ("agent:triage-bot", "agent", "ada")
        assert (event.assurance, event.identity_rule, event.peer_group) == ("asserted", "bots", "agents")
    (other,) = Feed()(statement(1))
    assert (other.principal, other.assurance) == ("app", "role_only")


def test_every_line_of_a_transaction_may_name_it() -> None:
    """A comment that one line of a transaction had stays with it, also when the next has none."""
    events = Feed()(statement(1, xid=7, tags=TAGS), statement(2, xid=7), transaction(10, xid=7))
    assert [event.principal for event in events] == ["agent:triage-bot", "app", "agent:triage-bot"]


@pytest.mark.parametrize("fields", [{"role": "p_ann"}, {"role": "app", "auth_method": "cert"}])
def test_a_comment_renames_neither_a_person_nor_the_verified(fields: dict[str, Any]) -> None:
    """Whoever writes `agent='cfo'` under a person's or an authenticated role stays who that role is."""
    (event,) = Feed()(statement(1, tags={"agent": "cfo"}, trust="certain", **fields))
    assert event.principal == {"p_ann": "p_ann"}.get(fields["role"], "app")
    (shared,) = Feed()(statement(1, tags={"agent": "cfo"}))
    assert (shared.principal, shared.assurance) == ("cfo", "asserted")


def test_where_comments_are_not_known_nobody_is_named_wrongly() -> None:
    """A beacon and a sample know no comment: behind a role that comments tell apart they name nobody."""
    events = Feed()(sample(9), transaction(9, xid=9), transaction(10, beacons=[beacon()]))
    assert [event.principal for event in events] == [None, None]


@pytest.mark.parametrize(
    ("role", "tags", "wrong"),
    [
        ("p_ann", {"on_behalf_of": "p_bob"}, ["on_behalf_of"]),
        ("p_ann", {"on_behalf_of": "p_ann", "agent": "copilot"}, []),
        ("a_triage", {"agent": "cfo-bot"}, ["agent"]),
        ("a_triage", {"agent": "cfo-bot", "on_behalf_of": "cfo"}, ["agent", "on_behalf_of"]),
        ("a_triage", {"agent": "triage", "on_behalf_of": "ada"}, []),
        ("app", {"agent": "cfo-bot", "on_behalf_of": "cfo"}, []),
        ("stranger", {"agent": "cfo-bot", "on_behalf_of": "cfo"}, []),
    ],
)
def test_a_comment_that_contradicts_the_role_is_a_finding(role: str, tags: dict[str, str], wrong: list[str]) -> None:
    """An agent is no other agent, a person acts for nobody else; a shared service may run any agent."""
    found = conflicts(Feed()(statement(1, role=role, tags=tags)))
    assert [event.detail["contradicts"] for event in found] == ([wrong] if wrong else [])


@pytest.mark.parametrize("first", ["log", "wal", "restart"])
@pytest.mark.parametrize(
    ("token", "tags", "wrong"),
    [
        (Token("verified", "t", CLAIMS), {"agent": "cfo-bot", "on_behalf_of": "cfo"}, ["agent", "on_behalf_of"]),
        (Token("verified", "t", CLAIMS), {"agent": "support", "on_behalf_of": "maria"}, []),
        (Token("verified", "t", CLAIMS), {"agent": "support-agent", "client": "portal"}, []),
        (Token("signature", "t", CLAIMS), {"agent": "cfo-bot", "on_behalf_of": "cfo"}, []),
        (None, {"agent": "cfo-bot"}, []),
    ],
)
def test_a_comment_that_contradicts_a_verified_claim_is_a_finding(
    token: Token | None, tags: dict[str, str], wrong: list[str], first: str
) -> None:
    """Whichever comes first, the lie is told once, with both sides, and the change stays the claim's."""
    feed = Feed(IDENTITIES)
    feed(statement(1))
    line = statement(2, xid=7, tags=tags, application="web")
    change = transaction(10, xid=7 + (1 << 32), covered=True, beacons=[beacon(token=token)])
    if first == "restart":
        events = feed(change)
        feed.fold = Fold.restore(feed.fold.snapshot(), 2 * SECOND_US)
        events += feed(line)
    else:
        events = feed(line) + feed(change) if first == "log" else feed(change) + feed(line)
    events += feed(statement(3, xid=7, tags=tags, application="web"), tick(3))
    found = conflicts(events)
    assert [event.detail["contradicts"] for event in found] == ([wrong] if wrong else [])
    if wrong:
        assert found[0].detail["comment"] == tags
        assert found[0].detail["stronger"] == {"principal": "support-agent", "on_behalf_of": "maria"}
    (made,) = [event for event in events if event.kind == "change"]
    assert made.on_behalf_of == ("maria" if token is not None and token.verdict == "verified" else None)


def test_rules_ask_for_known_tags_only() -> None:
    """A misspelt tag is a broken file, not a rule that never matches; a rule of comments alone is a rule."""
    with pytest.raises(ConfigurationError, match=r"comment\.agnet is no tag"):
        Rules.parse("rules: [{match: {comment.agnet: a}, principal: b}]")
    assert Rules.parse("rules: [{match: {comment: {agent: a}, comment.tool: b}, principal: b}]").tags == {
        "agent",
        "tool",
    }
