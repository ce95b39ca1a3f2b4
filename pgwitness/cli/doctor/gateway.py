"""The doctor on the gateway: who is let in and how, the roles it logs in as, and ways round it in `pg_hba.conf`."""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pgwitness.cli.doctor.lines import Line, attempt, line
from pgwitness.core.errors import NotInOrder

if TYPE_CHECKING:
    from collectors.gateway.auth.admission import Admission
    from pgwitness.core.config import Config
    from pgwitness.core.config.gateway import GatewayDatabase

_RULES = (
    "SELECT line_number, type, database, user_name, address, netmask, auth_method FROM pg_catalog.pg_hba_file_rules"
    " WHERE error IS NULL ORDER BY line_number"
)
_ROLES = (
    "SELECT rolname, rolcanlogin, rolsuper OR rolreplication OR rolcreaterole OR rolbypassrls FROM pg_catalog.pg_roles"
    " WHERE rolname = ANY(%s)"
)
_NOBODY = "pgwitness asks whether verifiers can be read"
_UNSEEN = (
    "GRANT SELECT ON pg_hba_file_rules and EXECUTE ON FUNCTION pg_hba_file_rules() to it, or see yourself that "
    "only the gateway's address may come in"
)


@dataclass(frozen=True)
class Rule:
    """A rule of `pg_hba.conf`, as the server has read it."""

    number: int
    kind: str
    databases: tuple[str, ...]
    users: tuple[str, ...]
    address: str | None
    netmask: str | None
    method: str


def gateway(config: Config, findings: list[Line]) -> None:
    """Check each database of the gateway; nothing where there is none."""
    for name, database in config.gateway.databases.items():
        where = f"gateway {name}"
        findings.append(_encrypted(config, where))
        if database.cluster not in config.clusters:
            findings.append(line(where, "cluster", "error", f"no cluster {database.cluster!r} is configured"))
            continue
        admission: list[Admission] = []
        attempt(where, "logins", findings, partial(_admission, config, name, database, admission))
        if not admission:
            continue
        if admission[0].users is not None:
            attempt(where, "users", findings, partial(_users, admission[0]))
        if admission[0].tokens is not None:
            attempt(where, "keys of tokens", findings, partial(_keys, admission[0]))
        attempt(where, "roles", findings, partial(_roles, config, database))
        _ways_round(config, database, where, findings)


def _encrypted(config: Config, where: str) -> Line:
    if config.gateway.tls is not None:
        return line(where, "TLS", "ok", str(config.gateway.tls.cert_file))
    fix = "add [gateway.tls], so that passwords are bound to the gateway's certificate and nothing is read on the way"
    return line(where, "TLS", "warning", "clients come in the open", fix)


def _admission(config: Config, name: str, database: GatewayDatabase, found: list[Admission]) -> str:
    from collectors.gateway.service import admission_of
    from collectors.gateway.upstream import Place
    from pgwitness.core.privacy import load_key, tokenizer

    Place.parse(database.upstream)
    found.append(admission_of(config, name, database, tokenizer(load_key(config.privacy.key_file))))
    return ", ".join(database.auth)


def _users(admission: Admission) -> str:
    assert admission.users is not None
    asyncio.run(admission.users.verifier(_NOBODY))
    return "verifiers can be read"


def _keys(admission: Admission) -> str:
    assert admission.tokens is not None
    found = asyncio.run(admission.tokens.keys())
    return f"{len(found)} for {', '.join(sorted({key.algorithm for key in found}))}"


def _roles(config: Config, database: GatewayDatabase) -> str:
    """Ask whether the roles that tokens and audiences log in as are there, and are no more than they need to be."""
    from collectors.gateway.auth.rolefile import Roles

    audiences = {one.role or name for name, one in config.masks.items() if one.match is not None}
    wanted = Roles(database.roles_file).names if database.roles_file is not None else []
    if lacking := sorted(audiences - set(wanted)):
        raise NotInOrder(
            f"roles_file has no password of {', '.join(lacking)}: whom masks.*.match fits is refused; add a line "
            '"role" "password"'
        )
    if database.roles_file is None:
        return "clients are their own roles"
    found = {name: (login, mighty) for name, login, mighty in _asked(config, database, _ROLES, (wanted,))}
    if absent := [name for name in wanted if not found.get(name, (False, False))[0]]:
        raise NotInOrder(f"{database.roles_file}: {', '.join(absent)} cannot log in at the server; CREATE ROLE … LOGIN")
    if mighty := [name for name in wanted if found[name][1]]:
        raise NotInOrder(
            f"{', '.join(mighty)}: a superuser, or may replicate, make roles or pass over row security; whoever has "
            "a token that opens it gets round the gateway: use a role without these"
        )
    return ", ".join(wanted)


def _ways_round(config: Config, database: GatewayDatabase, where: str, findings: list[Line]) -> None:
    import psycopg

    try:
        attempt(where, "pg_hba.conf", findings, partial(_hba, config, database))
    except psycopg.errors.InsufficientPrivilege:
        findings.append(line(where, "pg_hba.conf", "warning", "our role may not read the server's rules", _UNSEEN))


def _hba(config: Config, database: GatewayDatabase) -> str:
    rows = _asked(config, database, _RULES, ())
    rules = [
        Rule(row[0], row[1], tuple(row[2] or ()), tuple(row[3] or ()), row[4], row[5], row[6] or "") for row in rows
    ]
    ours = {str(row[0]) for row in _asked(config, database, "SELECT current_user", ())}
    wide = round_it(rules, ours)
    if wide:
        numbers = ", ".join(str(rule.number) for rule in wide)
        raise NotInOrder(
            f"line {numbers} of pg_hba.conf: lets clients of whole networks in, past the gateway, where nothing is "
            "refused; name the gateway's own address there, or reject the others"
        )
    return f"{len(rules)} rules; each that lets clients in names one host"


def _asked(config: Config, database: GatewayDatabase, query: str, given: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    from collectors.connection import connect

    with connect(config.clusters[database.cluster]) as connection:
        return connection.execute(query, given).fetchall()


def round_it(rules: list[Rule], ours: set[str]) -> list[Rule]:
    """Return the rules by which clients of more than one host come in past a gateway.

    `ours` are the roles of pgwitness itself, which come from elsewhere. A rule behind one that rejects the whole of
    its network, for everybody, lets nobody in.
    """
    found: list[Rule] = []
    rejected: list[Any] = []
    for rule in rules:
        if rule.kind == "local" or rule.databases == ("replication",):
            continue
        network = _network(rule)
        if rule.method == "reject":
            if network is not None and "all" in rule.databases and "all" in rule.users and rule.kind == "host":
                rejected.append(network)
            continue
        if set(rule.users) <= ours or _one_host(rule, network):
            continue
        if network is not None and any(_within(network, other) for other in rejected):
            continue
        found.append(rule)
    return found


def _network(rule: Rule) -> Any:
    """Return the network of a rule, `all` for every one, None where it is a name or this server's own."""
    if rule.address is None or rule.address == "all":
        return "all"
    try:
        return ipaddress.ip_network(f"{rule.address}/{rule.netmask}" if rule.netmask else rule.address, strict=False)
    except ValueError:
        return _v6(rule)


def _v6(rule: Rule) -> Any:
    """Read a mask of IPv6, which `ipaddress` knows as a number of bits only."""
    try:
        bits = int(ipaddress.IPv6Address(rule.netmask or "")).bit_count()
        return ipaddress.ip_network(f"{rule.address}/{bits}", strict=False)
    except ValueError:
        return None


def _one_host(rule: Rule, network: Any) -> bool:
    if network == "all":
        return False
    if network is None:  # a name is one host's unless it begins with a dot; samehost is the server itself
        return rule.address != "samenet" and not (rule.address or "").startswith(".")
    return bool(network.is_loopback or network.num_addresses == 1)


def _within(network: Any, other: Any) -> bool:
    if other == "all":
        return True
    return bool(network != "all" and network.version == other.version and network.subnet_of(other))
