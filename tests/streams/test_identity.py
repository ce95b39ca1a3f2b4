"""`identities.yaml`: rules, names, assurance, and errors that name the rule."""

from __future__ import annotations

import pytest

from pgwitness.errors import ConfigurationError
from streams.identity import NOBODY, Facts, Identities
from tests.streams.records import IDENTITIES


def facts(role: str | None = "app", application: str | None = "web", **others: str | None) -> Facts:
    """Facts of a plausible session."""
    given = {"cluster": "prod-1", "database": "shop", "client_addr": "10.1.2.3"} | others
    return Facts(role=role, application=application, **given)


def named(text: str, **given: str | None) -> tuple[str | None, str, str | None]:
    """Principal, assurance and rule that a file gives."""
    name = Identities.parse(text).name(facts(**given))
    return name.principal, name.assurance, name.rule


def test_first_match_wins() -> None:
    """The first rule that matches names the session; what the client says of itself is only asserted."""
    assert named(IDENTITIES, application="bot-7") == ("billing-bot", "asserted", "bot")
    assert named(IDENTITIES, application="web") == ("app", "role_only", "app")
    assert named(IDENTITIES, role="p_ann") == ("p_ann", "role_only", "people")


def test_no_rule_names_nobody() -> None:
    """A session that no rule matches has no principal and no assurance."""
    assert Identities.parse(IDENTITIES).name(facts(role="stranger")) == NOBODY


def test_verified_needs_an_authenticated_role() -> None:
    """Only a rule without the application's word, and a role from a certificate or GSSAPI, is verified."""
    assert named(IDENTITIES, role="p_ann", auth_method="cert")[1] == "verified"
    assert named(IDENTITIES, role="p_ann", auth_method="scram-sha-256")[1] == "role_only"
    assert named(IDENTITIES, application="bot-7", auth_method="cert")[1] == "asserted"


def test_the_clients_word_in_a_name_is_asserted() -> None:
    """A principal that is taken from the application's name is the client's own word, whatever the rule matches."""
    text = "rules: [{match: {role: app}, principal: '{application}'}]"
    assert named(text, auth_method="cert")[:2] == ("web", "asserted")


def test_networks_and_the_local_socket() -> None:
    """Addresses match by network; the Unix socket is `local` and in no network."""
    text = "rules: [{match: {client_addr: [10.1.0.0/16, local]}, principal: inside}]"
    assert named(text)[0] == "inside"
    assert named(text, client_addr="local")[0] == "inside"
    assert named(text, client_addr="10.2.0.1")[0] is None
    assert named(text, client_addr="not an address")[0] is None


def test_database_and_cluster_match_by_glob() -> None:
    """Cluster and database narrow a rule."""
    text = "rules: [{match: {cluster: 'prod-*', database: [shop, billing], role: '*'}, principal: x}]"
    assert named(text)[0] == "x"
    assert named(text, cluster="test")[0] is None
    assert named(text, database="other")[0] is None


def test_an_unknown_fact_names_nobody_when_it_matters() -> None:
    """Statistics know no application: when that would decide between two principals, nobody is named."""
    assert named(IDENTITIES, application=None, client_addr=None) == (None, "none", None)
    assert named(IDENTITIES, role="p_ann", application=None, client_addr=None)[0] == "p_ann"


def test_an_unknown_fact_that_cannot_change_the_name_does_no_harm() -> None:
    """Two rules for the same principal need not be told apart."""
    text = "rules: [{match: {role: a, application: x}, principal: p}, {match: {role: a}, principal: p}]"
    assert named(text, role="a", application=None)[0] == "p"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rules: [", "not YAML"),
        ("- a", "expected a mapping"),
        ("rules: 3", "expected a mapping"),
        ("rule: []", "unknown key 'rule'"),
        ("rules: [{principal: x}]", "rule 1: Object missing required field `match`"),
        ("rules: [{match: {role: a}}]", "rule 1: Object missing required field `principal`"),
        ("rules: [{id: q, match: {rolle: a}, principal: x}]", "rule 1 (q): Object contains unknown field `rolle`"),
        ("rules: [{match: {}, principal: x}]", "`match` is empty"),
        ("rules: [{match: {role: a}, principal: x, kind: robot}]", "Invalid enum value 'robot'"),
        ("rules: [{match: {client_addr: 10.0.0}, principal: x}]", "rule 1: "),
        ("rules: [{id: a, match: {role: a}, principal: x}, {id: a, match: {role: b}, principal: y}]", "used twice"),
    ],
)
def test_errors_name_file_and_rule(text: str, says: str) -> None:
    """A file that cannot be used is refused with its name, the rule and what is wrong."""
    with pytest.raises(ConfigurationError) as caught:
        Identities.parse(text, "conf/identities.yaml")
    assert str(caught.value).startswith("conf/identities.yaml: ")
    assert says in str(caught.value)


def test_an_empty_file_has_no_rules() -> None:
    """Without rules nobody is named, which is no error."""
    assert Identities.parse("").name(facts()) == NOBODY
