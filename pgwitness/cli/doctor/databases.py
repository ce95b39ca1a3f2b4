"""The doctor on source databases: what can be captured there, what is wrong, which policies can never fire."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pgwitness.cli.doctor.lines import Line, attempt, line
from pgwitness.errors import PgwitnessError, Unreachable

if TYPE_CHECKING:
    from collectors.beacon.capabilities import Finding, Matrix
    from pgwitness.config import Cluster, Config

SUBJECTS = {"reads": "query_stats", "writes": "change", "logins": "session", "role changes": "posture", "ddl": "ddl"}
"""Which kind of event each subject of the matrix comes as; DDL only where it tells of itself."""


def examine(name: str, cluster: Cluster, findings: list[Line]) -> list[Line]:
    """Examine a cluster: the rows of its matrix; what is wrong goes into `findings`."""
    rows: list[Line] = []
    try:
        base = _matrix(cluster, None, None)
    except Unreachable as error:
        findings.append(line(name, "PostgreSQL", "unreachable", str(error)))
        return rows
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
        rows += [
            {
                "cluster": name,
                "database": database,
                "subject": item.subject,
                "captured": item.captured,
                "certainty": item.certainty,
                "how": item.how,
            }
            for item in matrix.capabilities
        ]
    for number, dsn in enumerate(cluster.replicas, 1):
        attempt(name, f"replica {number}", findings, lambda dsn=dsn: _replica(cluster, dsn))  # type: ignore[misc]
    return rows


def _log(name: str, cluster: Cluster, settings: dict[str, str]) -> list[Line]:
    """Say what the server's log cannot tell as it is configured."""
    from collectors.log.advice import advice

    if cluster.log is None:
        return []
    found = advice(cluster.log, settings.get("log_line_prefix"), settings.get("log_timezone"))
    return [line(name, item.subject, "warning", item.problem, item.fix) for item in found]


def _matrix(cluster: Cluster, database: str | None, base: Matrix | None) -> Matrix:
    import msgspec

    from collectors.beacon.capabilities import assess, inspect
    from collectors.connection import connect

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


def subjects(rows: list[Line]) -> set[str]:
    """Name what is captured; DDL that is known from statistics comes as their kind of event."""
    return {
        str(row["subject"])
        for row in rows
        if row["captured"] and (row["subject"] != "ddl" or row["certainty"] == "exact")
    }


def silent(config: Config, cluster: str, captured_subjects: set[str]) -> list[Line]:
    """List the policies all of whose kinds of events cannot come from a cluster."""
    from detectors.policy.policies import Bundle

    captured = {SUBJECTS[subject] for subject in captured_subjects & set(SUBJECTS)} | {"control", "gap"}
    try:
        bundle = Bundle.load(config.policies.path)
    except PgwitnessError:
        return []  # the check of the files says so
    return [
        {
            "cluster": cluster,
            "policy": policy.id,
            "needs": list(policy.document.kinds),
            "captured": sorted(captured),
        }
        for policy in bundle.policies.values()
        if not captured & set(policy.document.kinds)
    ]
