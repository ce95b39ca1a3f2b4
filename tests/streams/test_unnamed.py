"""Sessions without a name: counted by kind, and named by the rule that is suggested."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.identity.identities import Facts, Identities
from streams.identity.unnamed import Seen, Unnamed, rule_for, sort_out

RULES = "rules:\n- {match: {role: app, application: web}, principal: web, id: web}\n"


def seen(role: str, application: str, sessions: int = 1, database: str = "shop") -> Seen:
    """Sessions over the Unix socket."""
    return Seen(Facts("prod", database, role, application, "local"), sessions)


def test_who_has_no_name_is_counted_by_kind() -> None:
    """Sessions of one kind count together, over databases; the most frequent come first, the named are left out."""
    given = [seen("app", "web", 9), seen("app", "psql"), seen("bob", "", 3), seen("app", "psql", 4, "billing")]
    answer = sort_out(Identities.parse(RULES), given)
    assert [(one.role, one.application, one.sessions) for one in answer.unnamed] == [("app", "psql", 5), ("bob", "", 3)]
    assert answer.rules == {"web"}
    assert isinstance(answer.unnamed[0], Unnamed)


text = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["a\nb", "\x85𐀀", "*", "[a-z]", "{role}", "a: b", "- x", "#", "~", "no", "0x1", "é"]),
)
addresses = st.one_of(st.none(), st.just("local"), st.ip_addresses().map(str), st.just("fe80::1%eth0"), text)


@given(st.one_of(st.none(), text), st.one_of(st.none(), text), addresses)
def test_the_rule_names_just_these_sessions(role: str | None, application: str | None, address: str | None) -> None:
    """Whatever a client calls itself, the suggested line is a rule, and names the session without braces filled in."""
    suggested = rule_for(role, application, address)
    assert "\n" not in suggested
    identities = Identities.parse(f"rules:\n{suggested}\n")
    if role is not None:
        named = identities.name(Facts("c", "d", role, application or "", address))
        assert named.rule == "rule-1"
        assert named.principal in (application, role, "somebody")
        other = Facts("c", "d", role + "x", application or "", address)
        assert identities.name(other).rule is None


def test_an_application_that_looks_like_a_pattern_matches_itself_only() -> None:
    """The stars and brackets of a name are letters."""
    identities = Identities.parse("rules:\n" + rule_for("app", "job[1]*", "10.0.0.4"))
    assert identities.name(Facts("c", "d", "app", "job[1]*", "10.0.0.4")).principal == "job[1]*"
    for application in ("job1", "job[1]**", "job1x"):
        assert identities.name(Facts("c", "d", "app", application, "10.0.0.4")).principal is None
