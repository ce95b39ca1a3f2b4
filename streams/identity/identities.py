"""Who a session is: `identities.yaml`, its rules, and the name they give to the facts of a session.

The file is a list of rules; the first that matches wins:

    rules:
      - id: billing-bot                 # optional; `rule-N` otherwise
        match:
          role: app                     # login role: a glob, or a list of globs
          application: "billing-*"      # what the client says of itself
          client_addr: 10.0.0.0/8       # a network, or a list of networks; `local` is the Unix socket
          database: shop                # globs; of the server, not of the client
          cluster: "prod-*"
          certificate: {dn: "/CN=bot-*", issuer: "*", serial: "7"}   # of the client, as pg_stat_ssl shows it
          claim: {iss: "https://idp*", fields.ticket: "*"}  # of a verified token; `actor` is who acts now
          comment: {agent: "triage-*"}                     # tags of a comment behind the statement; or `comment.agent:`
        principal: billing-bot
        kind: agent                     # human | agent | service | unknown
        on_behalf_of: finance-team      # optional
        peer_group: bots                # optional; whose habits are compared with whose
        owner: payments                 # optional; whom to ask
        networks: [10.4.0.0/16]         # optional; where it moves: an address there is no new place

In `principal`, `on_behalf_of` and `peer_group`, `{role}` and `{application}` stand for the session's own, `{sub}` and
`{actor}` for a verified token's, `{agent}` and `{on_behalf_of}` for a comment's. How far a name can be trusted follows
from the facts that the rule used (`streams.identity.proof`). A fact that nobody knows (statistics know no application,
only the log knows comments) makes every rule that asks for it undecided: if such a rule stands before the first match
and would name somebody else, nobody is named.

Pure: text in, names out. `streams.fold.sessions.attribution` is who asks, `streams.identity.reach` says which rules can
never win.
"""

from __future__ import annotations

import hashlib
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Literal, get_args

import msgspec
import yaml
from msgspec import Struct

from pgwitness.core import yamltext
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import Assurance, Certificate, PrincipalKind
from pgwitness.core.sql.tags import KEYS
from streams.identity import proof

NAMES_MAX = 10_000
"""Combinations of facts whose name is remembered."""

_FILLED = ("agent", "on_behalf_of")
"""Tags of a comment that may stand in a name."""

Network = IPv4Network | IPv6Network
Globbed = Literal["cluster", "database", "role", "application"]
GLOBBED: tuple[Globbed, ...] = get_args(Globbed)

Claims = tuple[tuple[str, str], ...]
"""Verified claims as sorted pairs of path and value."""

NO_CERTIFICATE = Certificate("", "", "")
"""What a session is known to have that showed no certificate: no rule that asks for one matches it."""


class Facts(Struct, frozen=True):
    """What is known of a session. None is *not known*; an empty application is known to be empty.

    `client_addr` is `local` for a session over the Unix socket. `claims` are those of a verified
    token, none without one; `comment` are the tags of the one statement that is named. A `certificate` whose names are
    None was too long for PostgreSQL to show.
    """

    cluster: str
    database: str | None
    role: str | None
    application: str | None
    client_addr: str | None
    auth_method: str | None = None
    claims: Claims | None = ()
    certificate: Certificate | None = NO_CERTIFICATE
    comment: Claims | None = None


class Named(Struct, frozen=True):
    """Who a session is. `principal` is None when no rule can say; `rule` is then None too.

    `network` is the one of the rule's networks that the session's address lies in. `claimed`: a verified claim is what
    named it; `commented`: a comment had a part in it.
    """

    principal: str | None
    kind: PrincipalKind
    on_behalf_of: str | None
    peer_group: str | None
    owner: str | None
    assurance: Assurance
    rule: str | None
    claimed: bool = False
    commented: bool = False
    network: str | None = None


NOBODY = Named(None, "unknown", None, None, None, "none", None)


class _Shown(Struct, frozen=True, forbid_unknown_fields=True):
    dn: str | list[str] | None = None
    issuer: str | list[str] | None = None
    serial: str | list[str] | None = None


class _Match(Struct, frozen=True, forbid_unknown_fields=True):
    role: str | list[str] | None = None
    application: str | list[str] | None = None
    client_addr: str | list[str] | None = None
    database: str | list[str] | None = None
    cluster: str | list[str] | None = None
    certificate: _Shown | None = None
    claim: dict[str, str | list[str]] | None = None
    comment: dict[str, str | list[str]] | None = None


class _RuleEntry(Struct, frozen=True, forbid_unknown_fields=True):
    match: _Match
    principal: str
    kind: PrincipalKind = "unknown"
    id: str | None = None
    on_behalf_of: str | None = None
    peer_group: str | None = None
    owner: str | None = None
    networks: str | list[str] = []


class _Document(Struct, frozen=True, forbid_unknown_fields=True):
    rules: list[_RuleEntry] = []


class Rule:
    """One rule, compiled: patterns by fact, networks parsed."""

    def __init__(self, entry: _RuleEntry, number: int) -> None:
        self.entry = entry
        self.id = entry.id or f"rule-{number}"
        self.patterns: list[tuple[Globbed, tuple[str, ...]]] = [
            (fact, _several(patterns)) for fact in GLOBBED if (patterns := getattr(entry.match, fact)) is not None
        ]
        self.certificate: list[tuple[str, tuple[str, ...]]] = [
            (name, _several(patterns))
            for name in ("dn", "issuer", "serial")
            if entry.match.certificate is not None and (patterns := getattr(entry.match.certificate, name)) is not None
        ]
        self.claims = {path: _several(patterns) for path, patterns in (entry.match.claim or {}).items()}
        self.comment = {tag: _several(patterns) for tag, patterns in (entry.match.comment or {}).items()}
        if unknown := sorted(set(self.comment) - set(KEYS)):
            raise ValueError(f"comment.{unknown[0]} is no tag that is read; there are {', '.join(KEYS)}")
        texts = (entry.principal, entry.on_behalf_of or "", entry.peer_group or "")
        self.tags = {*self.comment, *(tag for tag in _FILLED if any("{" + tag + "}" in text for text in texts))}
        self.addresses = _several(entry.match.client_addr) if entry.match.client_addr is not None else None
        self.used = self._used()
        self.networks: list[Network] = [
            ip_network(address, strict=False) for address in self.addresses or () if address != "local"
        ]
        self.moves_in: list[Network] = [ip_network(network, strict=False) for network in _several(entry.networks)]

    def _used(self) -> frozenset[proof.Fact]:
        """List the facts that the name hangs on; a pattern that everything matches uses none."""
        entry = self.entry
        used: set[proof.Fact] = {fact for fact, patterns in self.patterns if "*" not in patterns}
        if self.addresses is not None:
            used.add("client_addr")
        if self.certificate:
            used.add("certificate")
        if self.claims:
            used.add("claim")
        if self.comment:
            used.add("comment")
        texts = " ".join((entry.principal, entry.on_behalf_of or "", entry.peer_group or ""))
        named: dict[str, proof.Fact] = {
            "{role}": "role", "{application}": "application", "{sub}": "claim", "{actor}": "claim",
            "{agent}": "comment", "{on_behalf_of}": "comment",
        }  # fmt: skip
        return frozenset(used | {fact for name, fact in named.items() if name in texts})

    def matches(self, facts: Facts) -> bool | None:
        """Return whether the rule matches; None when that hangs on a fact that nobody knows."""
        undecided = False
        for fact, patterns in self.patterns:
            value: str | None = getattr(facts, fact)
            if value is None:
                undecided = True
            elif not any(fnmatchcase(value, pattern) for pattern in patterns):
                return False
        if self.addresses is not None:
            if facts.client_addr is None:
                undecided = True
            elif not self._from(facts.client_addr):
                return False
        for asserted, wanted in ((facts.claims, self.claims), (facts.comment, self.comment)):
            if wanted and asserted is None:
                undecided = True
            elif wanted and not _asserted(dict(asserted or ()), wanted):
                return False
        if self.certificate:
            shown = self._shown(facts.certificate)
            if shown is False:
                return False
            undecided = undecided or shown is None
        return None if undecided else True

    def _shown(self, certificate: Certificate | None) -> bool | None:
        if certificate is None:
            return None
        if certificate == NO_CERTIFICATE:
            return False
        undecided = False
        for name, patterns in self.certificate:
            value: str | None = getattr(certificate, name)
            if value is None:
                undecided = True
            elif not any(fnmatchcase(value, pattern) for pattern in patterns):
                return False
        return None if undecided else True

    def _from(self, address: str) -> bool:
        if address == "local":
            return "local" in (self.addresses or ())
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self.networks)

    def network(self, address: str | None) -> str | None:
        """Return the network that the principal moves in and an address lies in, None when it lies in none."""
        if not self.moves_in or address is None or address == "local":
            return None
        try:
            parsed = ip_address(address)
        except ValueError:
            return None
        return next((str(network) for network in self.moves_in if parsed in network), None)

    def name(self, facts: Facts) -> Named:
        """Name the session; the rule is known to match."""
        entry = self.entry
        return Named(
            principal=_fill(entry.principal, facts),
            kind=entry.kind,
            on_behalf_of=_fill(entry.on_behalf_of, facts) if entry.on_behalf_of else None,
            peer_group=_fill(entry.peer_group, facts) if entry.peer_group else None,
            owner=entry.owner,
            assurance=proof.assurance(self.used, facts.auth_method, facts.client_addr),
            rule=self.id,
            claimed=bool(self.claims),
            commented=bool(self.tags),
            network=self.network(facts.client_addr),
        )


class Identities:
    """The rules of one file. `sha256` is of its text, so that a change can be seen."""

    def __init__(self, content: str, rules: list[Rule]) -> None:
        self.content = content
        self.sha256 = hashlib.sha256(content.encode()).hexdigest()
        self.rules = tuple(rules)
        self._names: dict[Facts, Named] = {}
        self.tags = frozenset().union(*(rule.tags for rule in rules))
        """The tags of comments that any rule asks for."""

    @classmethod
    def parse(cls, text: str, source: str = "identities.yaml") -> Identities:
        """Read the file's text. Raise `ConfigurationError` naming `source`, the rule and what is wrong with it."""
        try:
            tree: Any = yamltext.load(text)
        except yaml.YAMLError as error:
            raise ConfigurationError(f"{source}: not YAML: {' '.join(str(error).split())}") from error
        if tree is None:
            tree = {}
        entries = tree.get("rules") or [] if isinstance(tree, dict) else None  # `rules:` and nothing: none yet
        if not isinstance(entries, list):
            raise ConfigurationError(f"{source}: expected a mapping with a list `rules:`")
        if unknown := sorted(str(key) for key in tree if key != "rules"):
            raise ConfigurationError(f"{source}: unknown key {unknown[0]!r}; there is only `rules`")
        rules: list[Rule] = []
        seen: set[str] = set()
        for number, item in enumerate(entries, 1):
            label = f"{source}: rule {number}"
            if isinstance(item, dict) and isinstance(item.get("id"), str):
                label += f" ({item['id']})"
            try:
                rule = Rule(msgspec.convert(_undotted(item), _RuleEntry), number)
            except (msgspec.ValidationError, ValueError) as error:
                raise ConfigurationError(f"{label}: {error}") from error
            if not (rule.patterns or rule.claims or rule.certificate or rule.comment) and rule.addresses is None:
                raise ConfigurationError(f"{label}: `match` is empty; name at least one fact, such as `role: '*'`")
            if rule.id in seen:
                raise ConfigurationError(f"{label}: the id {rule.id!r} is used twice; ids tell rules apart")
            seen.add(rule.id)
            rules.append(rule)
        return cls(text, rules)

    def name(self, facts: Facts) -> Named:
        """Name a session by its facts; the same facts always get the same name."""
        named = self._names.get(facts)
        if named is None:
            named = self._name(facts)
            if len(self._names) >= NAMES_MAX:
                self._names.clear()
            self._names[facts] = named
        return named

    def _name(self, facts: Facts) -> Named:
        undecided: list[Rule] = []
        for rule in self.rules:
            matches = rule.matches(facts)
            if matches is None:
                undecided.append(rule)
            elif matches:
                named = rule.name(facts)
                if all(other.entry.principal == rule.entry.principal for other in undecided):
                    return named
                return NOBODY
        return NOBODY


def _several(patterns: str | list[str]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _asserted(asserted: dict[str, str], wanted: dict[str, tuple[str, ...]]) -> bool:
    return all(
        path in asserted and any(fnmatchcase(asserted[path], pattern) for pattern in patterns)
        for path, patterns in wanted.items()
    )


def _undotted(item: Any) -> Any:
    """Read `comment.agent: x` as `comment: {agent: x}`."""
    match = item.get("match") if isinstance(item, dict) else None
    if not isinstance(match, dict):
        return item
    dotted = {str(key): value for key, value in match.items() if str(key).startswith("comment.")}
    if not dotted:
        return item
    rest = {key: value for key, value in match.items() if key not in dotted}
    tags = {key.removeprefix("comment."): value for key, value in dotted.items()}
    return item | {"match": rest | {"comment": {**rest.get("comment", {}), **tags}}}


def _fill(text: str, facts: Facts) -> str:
    claims = dict(facts.claims or ())
    text = text.replace("{role}", facts.role or "").replace("{application}", facts.application or "")
    text = text.replace("{sub}", claims.get("sub", "")).replace("{actor}", claims.get("actor", ""))
    tags = dict(facts.comment or ())
    return text.replace("{agent}", tags.get("agent", "")).replace("{on_behalf_of}", tags.get("on_behalf_of", ""))
