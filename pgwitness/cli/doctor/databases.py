"""The doctor on source databases: what can be captured there, what is wrong, which policies can never fire."""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING

from pgwitness.cli.doctor import serverlog
from pgwitness.cli.doctor.lines import Line, attempt, line
from pgwitness.core.errors import PgwitnessError, Unreachable

if TYPE_CHECKING:
    from collectors.guard.install import Guard
    from collectors.installation.capabilities import Capability, Finding, Matrix
    from collectors.masking.install import Masks
    from detectors.policy.policy import Policy
    from pgwitness.core.config import Cluster, Config

SUBJECTS = {"reads": "query_stats", "writes": "change", "logins": "session", "role changes": "posture", "ddl": "ddl"}
"""Which kind of event each subject of the matrix comes as; DDL only where it tells of itself."""


def examine(name: str, cluster: Cluster, findings: list[Line]) -> tuple[list[Line], frozenset[str]]:
    """Examine a cluster: the rows of its matrix, and the kinds of events that come of it.

    What is wrong goes into `findings`.
    """
    rows: list[Line] = []
    kinds = {"control", "gap"} | (serverlog.KINDS if cluster.log is not None else set())
    try:
        base = _matrix(cluster, None, None)
    except Unreachable as error:
        findings.append(_unreachable(name, str(error)))
        return rows, frozenset()
    facts = base.facts
    findings.append(line(name, "PostgreSQL", "ok", f"version {facts.version // 10_000}, role {facts.user}"))
    skew = f"{facts.skew_ms:+.1f} ms from this host's, asked in {facts.round_trip_ms:.1f} ms"
    findings.append(line(name, "clocks", "ok", skew))
    # Statistics are read in the DSN's own database, for the whole server.
    findings += [_found(name, item) for item in base.findings if item.subject.startswith("pg_stat_statements")]
    findings += _log(name, cluster, facts.settings)
    seen: set[tuple[str, str]] = set()
    for database in cluster.databases:
        try:
            matrix = _matrix(cluster, database, base)
        except Unreachable as error:
            findings.append(line(f"{name}/{database}", "PostgreSQL", "unreachable", str(error)))
            continue
        for item in matrix.findings:
            if item.subject.startswith("pg_stat_statements") or (item.subject, item.problem) in seen:
                continue
            if item.subject not in ("beacon", "publications"):  # the server's own are the same in each database
                seen.add((item.subject, item.problem))
            findings.append(_found(f"{name}/{database}", item))
        kinds |= {SUBJECTS[item.subject] for item in matrix.capabilities if _comes(item)}
        shown = matrix.capabilities
        if cluster.log is not None:
            shown = tuple(serverlog.added(shown, cluster.log, matrix.facts.settings))
        rows += [
            {
                "cluster": name,
                "database": database,
                "subject": item.subject,
                "captured": item.captured,
                "certainty": item.certainty,
                "how": item.how,
            }
            for item in shown
        ]
    for number, dsn in enumerate(cluster.replicas, 1):
        attempt(name, f"replica {number}", findings, lambda dsn=dsn: _replica(cluster, dsn))  # type: ignore[misc]
    return rows, frozenset(kinds)


def masks(config: Config, findings: list[Line]) -> None:
    """Say of each audience whether its views are as configured, and by which ways it reads more than they show."""
    from collectors.masking.install import Masks
    from pgwitness.core.privacy import load_key

    if not config.masks:
        return
    try:
        wanted = Masks(audiences=config.masks, privacy=config.privacy, key=load_key(config.privacy.key_file))
    except PgwitnessError:
        return  # the check of the files says so
    for name, cluster in config.clusters.items():
        for database in cluster.databases:
            findings += _masked(f"{name}/{database}", cluster, database, wanted)


def _masked(where: str, cluster: Cluster, database: str, wanted: Masks) -> list[Line]:
    import psycopg

    from collectors.connection import connect
    from collectors.masking.install import status

    try:
        with connect(cluster, database=database, application_name="pgwitness doctor") as connection:
            found = status(connection, wanted)
    except Unreachable:
        return []  # it is said where the database is examined
    except (PgwitnessError, psycopg.Error) as error:
        return [line(where, "masks", "error", str(error).strip())]
    states = {"ok": "ok", "limit": "warning"}
    return [line(where, one.subject, states.get(one.state, "error"), one.problem or "", one.fix or "") for one in found]


def guard(config: Config, findings: list[Line]) -> None:
    """Say of each database with a guard whether it is as the policies want it, and what it does not cover."""
    from pgwitness.cli.guarding import guard_of
    from pgwitness.core.privacy import load_key

    key = None
    with contextlib.suppress(PgwitnessError):  # the check of the files says so
        key = load_key(config.privacy.key_file)
    try:
        wanted = guard_of(config, key)
    except PgwitnessError:
        return
    for name, cluster in config.clusters.items():
        for database in cluster.databases:
            findings += _guarded(name, cluster, database, wanted)


def _guarded(name: str, cluster: Cluster, database: str, wanted: Guard) -> list[Line]:
    import psycopg

    from collectors.connection import connect
    from collectors.guard.install import installed, status

    where = f"{name}/{database}"
    try:
        with connect(cluster, database=database, application_name="pgwitness doctor") as connection:
            found = status(connection, name, wanted) if installed(connection) else []
    except Unreachable:
        return []  # it is said where the database is examined
    except (PgwitnessError, psycopg.Error) as error:
        return [line(where, "guard", "error", str(error).strip())]
    states = {"ok": "ok", "limit": "info"}
    return [line(where, one.subject, states.get(one.state, "error"), one.problem or "", one.fix or "") for one in found]


def _unreachable(name: str, said: str) -> Line:
    """Tell a server that has not got our role from one that does not answer: that is mended here."""
    if re.search(r'role "[^"]*" does not exist', said):
        fix = "pgwitness db install --dsn of an administrator: it makes the role"
        return line(name, "PostgreSQL", "error", said, fix)
    return line(name, "PostgreSQL", "unreachable", said)


def _log(name: str, cluster: Cluster, settings: dict[str, str]) -> list[Line]:
    """Say what the server's log cannot tell as it is configured."""
    from collectors.log.advice import advice
    from collectors.log.sample import look
    from collectors.log.surroundings import ask, others

    if cluster.log is None:
        return []
    found = advice(cluster.log, settings.get("log_line_prefix"), settings.get("log_timezone"), settings)
    try:
        found += look(cluster.log)
        if settings.get("log_error_verbosity") != "verbose":
            found += others(cluster.log, ask(cluster, cluster.dsn))
    except Unreachable:
        pass  # it is said where it is asked for more
    return [line(name, item.subject, "warning", item.problem, item.fix) for item in found]


def _matrix(cluster: Cluster, database: str | None, base: Matrix | None) -> Matrix:
    import msgspec

    from collectors.connection import connect
    from collectors.installation.capabilities import assess, inspect

    with connect(cluster, database=database, application_name="pgwitness doctor") as connection:
        facts = inspect(connection, lambda: time.time_ns() // 1000)
    if base is not None:
        facts = msgspec.structs.replace(facts, statements_extension=base.facts.statements_extension)
    return assess(facts)


def _found(where: str, item: Finding) -> Line:
    return line(where, item.subject, item.severity, item.problem, item.fix)


def _replica(cluster: Cluster, dsn: str) -> str:
    from collectors.connection import connect, instance_name

    connect(cluster, dsn, application_name="pgwitness doctor").close()
    return instance_name(dsn)


def _comes(item: Capability) -> bool:
    """Say whether its kind of event comes; DDL that is known from statistics comes as theirs."""
    return item.captured and (item.subject != "ddl" or item.certainty == "exact")


def silent(config: Config, cluster: str, kinds: frozenset[str]) -> list[Line]:
    """List the policies that cannot match anything that comes from a cluster, and what they would need."""
    from detectors.policy.policies import Bundle

    try:
        bundle = Bundle.load(config.policies.path)
    except PgwitnessError:
        return []  # the check of the files says so
    without = frozenset() if config.clusters[cluster].log is not None else serverlog.ONLY
    return [
        {"cluster": cluster, "policy": policy.id, "needs": needs, "captured": sorted(kinds)}
        for policy in bundle.policies.values()
        if (needs := _lacking(policy, kinds, without))
    ]


def _lacking(policy: Policy, kinds: frozenset[str], without: frozenset[str]) -> list[str]:
    """Give what a policy needs and does not get: kinds of events, or operations of a kind; empty when it can fire."""
    there = [kind for kind in policy.document.kinds if kind in kinds]
    if not there:
        return list(policy.document.kinds)
    for condition in policy.conditions:
        guards = {kind: condition.guard(kind) for kind in there}
        if not any(guard.possible and not (guard.operations or {""}) <= without for guard in guards.values()):
            return [f"{kind} {operation}" for kind in there for operation in sorted(guards[kind].operations or ())]
        counted = {name for guard in guards.values() for name, _ in guard.least if name in serverlog.COUNTED}
        if without and counted:
            return [serverlog.COUNTED[name] for name in sorted(counted)]
    return []
