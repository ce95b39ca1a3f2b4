"""Claims through the fold: who a verified token names, and that nothing else is believed."""

from __future__ import annotations

from typing import Any

import pytest

from detectors.actions import of_change
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import Ddl, Event, Token
from streams.fold.fold import Fold
from streams.identity.identities import Identities as Rules
from tests.streams.records import IDENTITIES, SECOND_US, batch, beacon, read, sample, transaction
from tests.streams.test_fold_ddl import statistics

CLAIMS = {
    "iss": "https://idp",
    "sub": "maria",
    "actors": ["support-agent", "portal"],
    "agent": {"model": "m-4", "tool": "refund", "conversation": "c-9"},
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}


def token(verdict: str = "verified", **claims: Any) -> Token:
    """Make what the collector found of a token."""
    return Token(verdict, "t-1", CLAIMS | claims)


def told(*events: Any, rules: str = IDENTITIES) -> list[Event]:
    """Send events as one record to a fresh fold."""
    return Fold(0, Rules.parse(rules), 2 * SECOND_US).apply(0, read(batch(*events)))


def change(said: Token | None, rules: str = IDENTITIES, method: str | None = "scram-sha-256") -> Event:
    """Return the change of a transaction with a token; its session authenticated by `method`."""
    session = sample(9, auth_method=method)
    events = told(session, transaction(10, covered=True, beacons=[beacon(token=said)]), rules=rules)
    (found,) = [event for event in events if event.kind == "change"]
    return found


def test_a_verified_token_names_the_delegation() -> None:
    """Behind a shared role the one who acts is named, for whom, verified; delegation and trace stand beside it."""
    found = change(token())
    assert (found.principal, found.principal_kind, found.on_behalf_of) == ("support-agent", "agent", "maria")
    assert (found.assurance, found.certainty, found.identity_rule) == ("verified", "exact", "claim")
    assert found.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    agent = found.detail["agent"]
    assert isinstance(agent, dict)
    assert agent["delegation"] == ["maria", "portal", "support-agent"]
    assert (agent["model"], agent["tool"], agent["conversation"], agent["token_id"]) == ("m-4", "refund", "c-9", "t-1")
    assert "finding" not in found.detail


def test_a_token_without_actors_names_its_subject() -> None:
    """A person's own token names the person, on nobody's behalf."""
    found = change(Token("verified", "t", {"sub": "maria", "kind": "human"}))
    assert (found.principal, found.principal_kind, found.on_behalf_of) == ("maria", "human", None)


@pytest.mark.parametrize("verdict", ["signature", "expired", "audience", "unsigned", "malformed"])
def test_a_refused_token_names_nobody_and_is_a_finding(verdict: str) -> None:
    """The change is named as if there were no token, and the refusal is evidence with its reason, once."""
    part = transaction(10, n_rows=1, last=False, beacons=[beacon(token=token(verdict))])
    rest = transaction(10, n_rows=1, first=1, part=1, beacons=[beacon(token=token(verdict))])
    events = told(part, rest)
    without = change(None)
    changes = [event for event in events if event.kind == "change"]
    assert {(e.principal, e.assurance, e.on_behalf_of) for e in changes} == {
        (without.principal, without.assurance, without.on_behalf_of)
    }
    assert all(e.detail["finding"] == "claim_refused" and "agent" not in e.detail for e in changes)
    (refusal,) = [event for event in events if event.kind == "control"]
    assert (refusal.operation, refusal.detail["reason"], refusal.outcome) == ("claim_refused", verdict, "denied")
    assert refusal.principal == without.principal


def test_where_nobody_can_judge_nothing_is_believed_or_refused() -> None:
    """Without keys a token leaves its id and no finding, and names nobody."""
    (found,) = told(transaction(10, beacons=[beacon(token=token("no_keys"))]))
    assert found.principal == change(None).principal
    assert found.detail["token"] == {"verdict": "no_keys", "token_id": "t-1"}


RULES = """
rules:
  - id: agents
    match: {claim: {iss: "https://idp*", agent.model: "*"}, role: app}
    principal: "agent:{actor}"
    kind: agent
    peer_group: agents
    owner: support
  - id: liar
    match: {claim: {sub: maria}, application: web}
    principal: maria-by-web
    kind: human
  - id: app
    match: {role: app}
    principal: app
    kind: service
"""


def test_rules_match_on_claims() -> None:
    """A rule that asks for a claim names by it, verified; together with the application's name only asserted."""
    found = change(token(), RULES)
    assert (found.principal, found.identity_rule, found.assurance) == ("agent:support-agent", "agents", "verified")
    assert (found.on_behalf_of, found.peer_group, found.detail["owner"]) == ("maria", "agents", "support")
    other = change(token(iss="https://other"), RULES)
    assert (other.principal, other.identity_rule, other.assurance) == ("maria-by-web", "liar", "asserted")
    assert change(token(), RULES, "trust").assurance == "role_only"
    by_beacon = transaction(10, covered=True, beacons=[beacon(token=token(), auth_method="scram-sha-256")])
    assert [event.assurance for event in told(by_beacon, rules=RULES)] == ["verified"]
    forged = change(token("signature"), RULES)
    assert (forged.principal, forged.identity_rule) == ("app", "app")


def test_statistics_do_not_know_claims() -> None:
    """Behind a role that claims tell apart statistics name nobody rather than the wrong one."""
    (found,) = told(statistics(1, role="app", statement="SELECT 1"), rules=RULES)
    assert found.principal is None


def test_a_rule_of_claims_alone_is_a_rule() -> None:
    """`match` with nothing but a claim is enough; an empty one is not."""
    assert Rules.parse("rules: [{match: {claim: {sub: a}}, principal: b}]")
    with pytest.raises(ConfigurationError, match="empty"):
        Rules.parse("rules: [{match: {claim: {}}, principal: b}]")


def test_ddl_is_named_by_its_token() -> None:
    """A transaction of DDL alone is named by the token that came with it."""
    made = Ddl(number=0, ordinal=0, tag="CREATE VIEW", beacon=beacon(token=token()))
    (found,) = told(transaction(10, n_rows=0, ddl=[made]))
    assert (found.kind, found.principal, found.on_behalf_of, found.assurance) == (
        "ddl",
        "support-agent",
        "maria",
        "verified",
    )


def test_policies_see_what_a_token_carries() -> None:
    """Age, rest of its life and further claims of a verified token reach the action; those of a comment do not."""
    fields = {"ticket": "CHG-1", "roles": ["a"]}
    found = change(token(iat=1.5, exp=10**9 * 9, fields=fields))
    action = of_change(found, "public.orders", "update", 1, {})
    second = found.occurred_at_us // SECOND_US
    assert (action.claim_verified, action.claim_age, action.claim_left) == (True, second - 1, 9 * 10**9 - second)
    assert action.claim_fields == fields
    for said in (token(verdict="expired", fields=fields), token(verdict="no_keys", fields=fields), None):
        nothing = of_change(change(said), "public.orders", "update", 1, {})
        assert (nothing.claim_verified, nothing.claim_age, nothing.claim_fields) == (False, -1, {})


def test_rules_match_further_claims() -> None:
    """A rule may ask for a field of the token by its name."""
    rules = """
rules:
  - {match: {claim: {fields.ticket: "CHG-*"}}, principal: "change {sub}", kind: agent}
"""
    assert change(token(fields={"ticket": "CHG-1"}), rules).principal == "change maria"
    assert change(token(fields={"ticket": "INC-1"}), rules).principal == "support-agent"
