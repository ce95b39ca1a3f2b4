"""`identities.yaml`: rules, names, assurance, and errors that name the rule."""

from __future__ import annotations

import pytest

from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import Certificate
from streams.identity.identities import NO_CERTIFICATE, NOBODY, Facts, Identities
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


PROOFS = [
    ("role: app", "app", "cert", "verified"),
    ("role: app", "app", "gss", "verified"),
    ("role: app", "app", "sspi", "verified"),
    ("role: app", "app", "peer", "verified"),
    ("role: app", "app", "oauth", "verified"),
    ("role: app", "app", "scram-sha-256", "role_only"),
    ("role: app", "app", "md5", "role_only"),
    ("role: app", "app", "password", "role_only"),
    ("role: app", "app", "ldap", "role_only"),
    ("role: app", "app", "trust", "role_only"),
    ("role: app", "app", "ident", "role_only"),
    ("role: app", "app", None, "role_only"),
    ("role: '*'", "{role}", "cert", "verified"),
    ("role: '*'", "{role}", None, "role_only"),
    ("role: '*'", "somebody", "cert", "role_only"),
    ("role: app, database: shop, cluster: 'prod-*'", "app", "cert", "verified"),
    ("database: shop", "app", "cert", "role_only"),
    ("role: app, client_addr: 10.0.0.0/8", "app", "cert", "role_only"),
    ("client_addr: 10.0.0.0/8", "app", "cert", "role_only"),
    ("role: app, application: web", "app", "cert", "asserted"),
    ("role: app, application: '*'", "app", "cert", "verified"),
    ("role: app", "{application}", "cert", "asserted"),
    ("certificate: {dn: /CN=ann}", "ann", None, "verified"),
    ("certificate: {issuer: '/CN=our ca', serial: '7'}", "ann", None, "verified"),
    ("certificate: {dn: /CN=ann}, role: app", "ann", "scram-sha-256", "verified"),
    ("certificate: {dn: /CN=ann}, role: app", "ann", "trust", "role_only"),
    ("certificate: {dn: /CN=ann}, role: app", "ann", None, "role_only"),
    ("certificate: {dn: /CN=ann}, application: web", "ann", None, "asserted"),
    ("claim: {sub: ann}", "ann", None, "verified"),
    ("claim: {sub: ann}", "{sub}", "trust", "verified"),
    ("claim: {sub: ann}, role: app", "ann", "scram-sha-256", "verified"),
    ("claim: {sub: ann}, role: app", "ann", "trust", "role_only"),
    ("claim: {sub: ann}, role: app", "ann", None, "role_only"),
    ("claim: {sub: ann}", "{role}", None, "role_only"),
    ("claim: {sub: ann}, client_addr: 10.0.0.0/8", "ann", "cert", "role_only"),
    ("claim: {sub: ann}, application: web", "ann", "cert", "asserted"),
]


@pytest.mark.parametrize(("match", "principal", "method", "assurance"), PROOFS)
def test_verified_needs_every_fact_authenticated(
    match: str, principal: str, method: str | None, assurance: str
) -> None:
    """A name is as good as the weakest fact its rule used; a pattern that everything matches uses none."""
    rules = Identities.parse(f"rules: [{{match: {{{match}}}, principal: '{principal}'}}]")
    given = Facts(
        "prod-1", "shop", "app", "web", "10.1.2.3", method, (("sub", "ann"),), Certificate("/CN=ann", "/CN=our ca", "7")
    )
    assert rules.name(given).assurance == assurance


def test_the_unix_socket_is_the_servers_own_word() -> None:
    """Coming through the socket weakens no name, and proves none."""
    assert (
        named(
            "rules: [{match: {role: app, client_addr: local}, principal: a}]", client_addr="local", auth_method="peer"
        )[1]
        == "verified"
    )
    assert (
        named("rules: [{match: {client_addr: local}, principal: a}]", client_addr="local", auth_method="peer")[1]
        == "role_only"
    )


CERTIFIED = "rules: [{match: {certificate: {dn: '/CN=ann*'}}, principal: ann}, {match: {role: '*'}, principal: other}]"


@pytest.mark.parametrize(
    ("shown", "principal"),
    [
        (Certificate("/CN=ann", "/CN=ca", "7"), "ann"),
        (Certificate("/CN=bob", "/CN=ca", "7"), "other"),
        (NO_CERTIFICATE, "other"),
        (Certificate(None, None, "7"), None),
        (None, None),
    ],
)
def test_certificates_name(shown: Certificate | None, principal: str | None) -> None:
    """A rule matches the certificate that was shown; one whose name is not known decides nothing."""
    given = Facts("c", "d", "app", "web", "10.1.2.3", certificate=shown)
    assert Identities.parse(CERTIFIED).name(given).principal == principal


def test_networks_and_the_local_socket() -> None:
    """Addresses match by network; the Unix socket is `local` and in no network."""
    text = "rules: [{match: {client_addr: [10.1.0.0/16, local]}, principal: inside}]"
    assert named(text)[0] == "inside"
    assert named(text, client_addr="local")[0] == "inside"
    assert named(text, client_addr="10.2.0.1")[0] is None
    assert named(text, client_addr="not an address")[0] is None


def test_where_a_principal_moves_is_said_and_names_nobody() -> None:
    """The first listed network that an address lies in; none is none, and what is no network is refused."""
    rule = "rules: [{match: {role: app}, principal: app, networks: [10.4.0.0/16, 10.0.0.0/8, 'fd00:1::/48']}]"
    rules = Identities.parse(rule)
    places = {"10.4.9.9": "10.4.0.0/16", "10.5.0.1": "10.0.0.0/8", "fd00:1::7": "fd00:1::/48"}
    for address in (*places, "192.0.2.1", "local", None, "no address"):
        found = rules.name(facts(client_addr=address))
        assert (found.principal, found.assurance) == ("app", "role_only")
        assert found.network == places.get(address or "")
    with pytest.raises(ConfigurationError, match="rule 1"):
        Identities.parse("rules: [{match: {role: app}, principal: app, networks: [somewhere]}]")


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
        ("rules: []\nrules: [{match: {role: a}, principal: x}]", "the key 'rules' stands here a second time"),
        ("rules: [{match: {role: a}, match: {role: b}, principal: x}]", "the key 'match' stands here a second time"),
        ("- a", "expected a mapping"),
        ("rules: 3", "expected a mapping"),
        ("rule: []", "unknown key 'rule'"),
        ("rules: [{principal: x}]", "rule 1: Object missing required field `match`"),
        ("rules: [{match: {role: a}}]", "rule 1: Object missing required field `principal`"),
        ("rules: [{id: q, match: {rolle: a}, principal: x}]", "rule 1 (q): Object contains unknown field `rolle`"),
        ("rules: [{match: {}, principal: x}]", "`match` is empty"),
        ("rules: [{match: {certificate: {}}, principal: x}]", "`match` is empty"),
        ("rules: [{match: {certificate: {cn: a}}, principal: x}]", "unknown field `cn`"),
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
    assert Identities.parse("# none yet\nrules:\n").name(facts()) == NOBODY
