"""Rules that can never win: what is said of them is certain, whatever the session."""

from __future__ import annotations

import random
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgwitness.core.events import Certificate
from streams.identity.identities import NO_CERTIFICATE, Facts, Identities
from streams.identity.reach import globs_within, unreachable


def shadowed(*rules: str) -> dict[str, tuple[str, ...]]:
    """Return what can never win and why not; each rule is its `match`, its principal a letter of its own."""
    text = "rules:\n" + "".join(f"- {{match: {{{rule}}}, principal: p{n}}}\n" for n, rule in enumerate(rules, 1))
    return {found.rule: found.shadowed_by for found in unreachable(Identities.parse(text))}


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        (("role: app", "role: app"), {"rule-2": ("rule-1",)}),
        (("role: 'a*'", "role: 'app*', application: x"), {"rule-2": ("rule-1",)}),
        (("role: app, application: x", "role: app"), {}),
        (("role: 'app*'", "role: 'a*'"), {}),
        (("role: a", "role: b", "role: [a, b]"), {"rule-3": ("rule-1", "rule-2")}),
        (("role: a", "role: [a, b]"), {}),
        (("role: [a, b], application: x", "role: [a, b], application: [x, y]"), {}),
        (("role: '*'", "application: x"), {"rule-2": ("rule-1",)}),
        (("application: '*'", "role: app"), {"rule-2": ("rule-1",)}),
        (("cluster: '*'", "role: app"), {"rule-2": ("rule-1",)}),
        (("cluster: 'prod-*'", "role: app"), {}),
        (("client_addr: 10.0.0.0/8", "client_addr: [10.1.0.0/16, 10.2.3.4]"), {"rule-2": ("rule-1",)}),
        (("client_addr: 10.1.0.0/16", "client_addr: 10.0.0.0/8"), {}),
        (("client_addr: 0.0.0.0/0", "client_addr: local"), {}),
        (("client_addr: 0.0.0.0/0", "client_addr: '::/0'"), {}),
        (("client_addr: [0.0.0.0/0, '::/0', local]", "role: app"), {}),
        (("claim: {sub: '*'}", "claim: {sub: a, iss: b}"), {"rule-2": ("rule-1",)}),
        (("claim: {sub: '*'}", "claim: {iss: b}"), {}),
        (("claim: {sub: '*'}", "role: app"), {}),
        (("certificate: {dn: '/CN=a*'}", "certificate: {dn: /CN=ab, serial: '7'}"), {"rule-2": ("rule-1",)}),
        (("certificate: {dn: '*'}", "role: app"), {}),
        (("certificate: {dn: '*'}", "certificate: {issuer: x}"), {}),
        (("role: app", "role: []"), {"rule-2": ()}),
    ],
)
def test_what_can_never_win(rules: tuple[str, ...], found: dict[str, tuple[str, ...]]) -> None:
    """A rule is out of reach when rules before it match all it matches, and only then."""
    assert shadowed(*rules) == found


def test_a_fact_that_nobody_knows_leaves_the_same_name_in_reach() -> None:
    """Statistics know no application: a rule for the same principal that does not ask for it still names there."""
    text = "rules: [{match: {application: '*'}, principal: a}, {match: {role: app}, principal: a}]"
    assert unreachable(Identities.parse(text)) == []
    named = Identities.parse(text).name(Facts("c", "d", "app", None, None, claims=None, certificate=None))
    assert (named.principal, named.rule) == ("a", "rule-2")


def test_it_says_what_to_do() -> None:
    """The finding names the rules and the way out."""
    (found,) = unreachable(
        Identities.parse("rules: [{match: {role: '*'}, principal: a}, {match: {role: b}, principal: b}]")
    )
    assert "rule-1" in found.why
    assert found.fix == "move rule rule-2 before rule-1, or remove it"


def test_hostile_patterns_are_bounded() -> None:
    """Endless patterns and lists cost nothing, and nothing is said of them."""
    assert not globs_within("*a" * 5_000, "*b" * 5_000)
    roles = [f"r{n}" for n in range(5_000)]
    assert shadowed(f"role: {roles}", f"role: {roles}, application: [a, b]") == {}


globs = st.text(alphabet="ab[]!-*?", max_size=6)


@given(globs, globs, st.lists(st.text(alphabet="ab[]!-*?", max_size=6), max_size=20))
def test_what_lies_within_is_matched(inner: str, outer: str, values: list[str]) -> None:
    """No value is matched by a pattern and not by the one it is said to lie within."""
    if globs_within(inner, outer):
        assert all(fnmatchcase(value, outer) for value in [*values, inner] if fnmatchcase(value, inner))


VALUES = {
    "role": [None, "app", "apple", "bot"],
    "application": [None, "", "x", "xy"],
    "database": [None, "shop", "billing"],
    "client_addr": [None, "local", "10.1.2.3", "10.9.9.9", "::1"],
}
PATTERNS = {
    "role": ["*", "app", "app*", "a*", "bot"],
    "application": ["*", "x", "x*", "?*"],
    "database": ["*", "shop", "bill*"],
    "client_addr": ["local", "10.0.0.0/8", "10.1.0.0/16", "::/0"],
}


@settings(max_examples=100)
@given(st.randoms(use_true_random=False))
def test_no_rule_that_is_out_of_reach_ever_names(chance: random.Random) -> None:
    """Over every combination of facts, known and unknown, a rule that was said never to win never does."""
    lines = []
    for number in range(5):
        asked = chance.sample(sorted(PATTERNS), chance.randint(1, 2))
        match = {fact: chance.sample(PATTERNS[fact], chance.randint(1, 2)) for fact in asked}
        lines.append(f"- {{match: {match}, principal: p{chance.randint(1, 3)}, id: r{number}}}\n")
    identities = Identities.parse("rules:\n" + "".join(lines))
    never = {found.rule for found in unreachable(identities)}
    for role in VALUES["role"]:
        for application in VALUES["application"]:
            for database in VALUES["database"]:
                for address in VALUES["client_addr"]:
                    named = identities.name(Facts("c", database, role, application, address))
                    assert named.rule not in never


@pytest.mark.parametrize("certificate", [None, NO_CERTIFICATE, Certificate("/CN=ab", "/CN=ca", "7"), Certificate()])
def test_certificates_that_are_not_known_do_no_harm(certificate: Certificate | None) -> None:
    """Whatever is known of a certificate, a rule behind one that asks for less of it never wins."""
    rules = (
        "- {match: {certificate: {dn: '/CN=*'}}, principal: a}\n- {match: {certificate: {dn: /CN=ab}}, principal: b}\n"
    )
    identities = Identities.parse("rules:\n" + rules)
    assert [found.rule for found in unreachable(identities)] == ["rule-2"]
    assert identities.name(Facts("c", "d", "app", "x", "local", certificate=certificate)).rule != "rule-2"
