"""`pgwitness doctor`: what can be seen here, how surely, what is wrong and how to mend it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgwitness.cli.options import cluster_option, common, configuration, json_option
from pgwitness.cli.output import console, emit, json_list, say
from pgwitness.errors import NotInOrder, PgwitnessError, Unreachable

if TYPE_CHECKING:
    from collectors.beacon.capabilities import Finding, Matrix
    from pgwitness.config import Cluster, Config

Line = dict[str, object]
SUBJECTS = {"reads": "query_stats", "writes": "change", "logins": "session", "role changes": "posture", "ddl": "ddl"}
"""Which kind of event each subject of the matrix comes as; DDL only where it tells of itself."""

LOST_SHARE_MAX = 0.01
"""Calls that may be missing in the log before it is said: a text that holds several statements is one line of it."""
LOST_LINES = """
SELECT cluster, instance, CAST(sum(calls) AS BIGINT), CAST(sum(missing) AS BIGINT)
FROM statements_covered(CAST(now() AS DATE) - 1, CAST(now() AS DATE)) WHERE status = 'logged' GROUP BY ALL ORDER BY ALL
"""


@click.command(short_help="Check what can be captured, what is wrong, and how to mend it.")
@cluster_option
@json_option
@common
def doctor(clusters: tuple[str, ...], as_json: bool, config_path: Path) -> None:
    """Say what can be captured and how surely, what is wrong with the exact fix, and which policies can never fire.

    Checks databases, broker, topics, lake, clocks, key, identities and policies. Exits 1 when something is wrong, 3
    when the only trouble is a server that cannot be reached.
    """
    config = configuration(config_path, clusters)
    capabilities: list[Line] = []
    findings: list[Line] = []
    silent: list[Line] = []
    with console(stderr=True).status("examining"):
        for name, cluster in config.clusters.items():
            rows = _cluster(name, cluster, findings)
            capabilities += rows
            if rows:
                silent += _silent(config, name, _subjects(rows))
        for check in (_kafka, _lake, _files):
            check(config, findings)
    if as_json:
        click.echo(
            json_list(
                [{"section": "capability", **row} for row in capabilities]
                + [{"section": "check", **row} for row in findings]
                + [{"section": "policy", **row} for row in silent]
            )
        )
    else:
        emit(capabilities, as_json=False, title="What can be captured")
        emit(findings, as_json=False, title="What was checked")
        emit(silent, as_json=False, title="Policies that can never fire")
        if not any(row["state"] in ("error", "unreachable") for row in findings):
            say("everything that was checked is in order")
    states = {row["state"] for row in findings}
    raise click.exceptions.Exit(1 if "error" in states else 3 if "unreachable" in states else 0)


def _line(where: str, what: str, state: str, found: str = "", fix: str = "") -> Line:
    return {"where": where, "what": what, "state": state, "found": found, "fix": fix}


def _try(where: str, what: str, findings: list[Line], check: Callable[[], str]) -> None:
    """Run a check that raises what is wrong; an error's text holds its own remedy, after the colon or semicolon."""
    try:
        findings.append(_line(where, what, "ok", check()))
    except Unreachable as error:
        findings.append(_line(where, what, "unreachable", str(error)))
    except PgwitnessError as error:
        findings.append(_line(where, what, "error", str(error)))


def _cluster(name: str, cluster: Cluster, findings: list[Line]) -> list[Line]:
    """Examine a cluster: the rows of its matrix; what is wrong goes into `findings`."""
    rows: list[Line] = []
    try:
        base = _matrix(cluster, None, None)
    except Unreachable as error:
        findings.append(_line(name, "PostgreSQL", "unreachable", str(error)))
        return rows
    facts = base.facts
    findings.append(_line(name, "PostgreSQL", "ok", f"version {facts.version // 10_000}, role {facts.user}"))
    skew = f"{facts.skew_ms:+.1f} ms from this host's, asked in {facts.round_trip_ms:.1f} ms"
    findings.append(_line(name, "clocks", "ok", skew))
    # Statistics are read in the DSN's own database, for the whole server.
    findings += [_found(name, item) for item in base.findings if item.subject.startswith("pg_stat_statements")]
    seen: set[tuple[str, str]] = set()
    for database in cluster.databases:
        try:
            matrix = _matrix(cluster, database, base)
        except Unreachable as error:
            findings.append(_line(f"{name}/{database}", "PostgreSQL", "unreachable", str(error)))
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
        _try(name, f"replica {number}", findings, lambda dsn=dsn: _replica(cluster, dsn))  # type: ignore[misc]
    return rows


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
    return _line(where, item.subject, item.severity, item.problem, item.fix)


def _replica(cluster: Cluster, dsn: str) -> str:
    from collectors.connection import connect, instance_name

    connect(cluster, dsn, application_name="pgwitness doctor").close()
    return instance_name(dsn)


def _subjects(rows: list[Line]) -> set[str]:
    """Name what is captured; DDL that is known from statistics comes as their kind of event."""
    return {
        str(row["subject"])
        for row in rows
        if row["captured"] and (row["subject"] != "ddl" or row["certainty"] == "exact")
    }


def _silent(config: Config, cluster: str, subjects: set[str]) -> list[Line]:
    """List the policies all of whose kinds of events cannot come from a cluster."""
    from detectors.policies import Bundle

    captured = {SUBJECTS[subject] for subject in subjects & set(SUBJECTS)} | {"control", "gap"}
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


def _kafka(config: Config, findings: list[Line]) -> None:
    from pgwitness.cli import kafka
    from streams import admin

    try:
        kafka.reach(config)
        found = admin.check(config)
    except Unreachable as error:
        findings.append(_line("kafka", "broker", "unreachable", str(error)))
        return
    findings.append(_line("kafka", "broker", "ok", config.kafka.bootstrap))
    wrong = [item for item in found if not item.in_order]
    findings += [
        _line("kafka", item.topic, "error", f"{item.state}: {item.detail}", "pgwitness topics apply") for item in wrong
    ]
    if not wrong:
        findings.append(_line("kafka", "topics", "ok", f"{len(found)} topics"))


def _lake(config: Config, findings: list[Line]) -> None:
    def check() -> str:
        from sinks.catalogue import connect

        path = config.lake.path
        place = next(folder for folder in (path, *path.parents) if folder.exists())
        if not os.access(place, os.W_OK):
            raise NotInOrder(
                f"{place} cannot be written to by this user; give the worker's user the right, or set lake.path"
            )
        if not (path / "views.sql").exists():
            return f"{path}: none yet, the worker makes it"
        connection = connect(path)
        try:
            row = connection.execute("SELECT count(*), max(captured_at) FROM events").fetchone()
        finally:
            connection.close()
        assert row is not None
        return f"{path}: {row[0]:,} events, the last of {row[1]}" if row[0] else f"{path}: empty"

    _try("lake", "lake", findings, check)
    if (config.lake.path / "views.sql").exists():
        findings += _lost_lines(config)


def _lost_lines(config: Config) -> list[Line]:
    """Say of each server that logs its statements how much of what statistics counted is missing from its log."""
    from sinks.catalogue import connect

    try:
        connection = connect(config.lake.path)
    except PgwitnessError:
        return []  # the check of the lake says so
    try:
        rows = connection.execute(LOST_LINES).fetchall()
    finally:
        connection.close()
    lines = []
    for cluster, instance, calls, missing in rows:
        lost = missing > LOST_SHARE_MAX * calls
        found = f"{missing:,} of {calls:,} calls since yesterday ({missing / calls:.1%}) are not in the log"
        fix = "see the view statement_coverage for which; look for gaps of the log, settings of sessions, sampling"
        where = f"{cluster} {instance}"
        lines.append(_line(where, "server log", "warning" if lost else "ok", found, fix if lost else ""))
    return lines


def _files(config: Config, findings: list[Line]) -> None:
    def key() -> str:
        from pgwitness.privacy import load_key

        load_key(config.privacy.key_file)
        return str(config.privacy.key_file)

    def identities() -> str:
        from streams.identity_file import IdentityFile

        IdentityFile(config.identities.file).load()
        return str(config.identities.file)

    def policies() -> str:
        from detectors.policies import Bundle

        bundle = Bundle.load(config.policies.path)
        failures = bundle.run_tests()
        if failures:
            first = failures[0]
            raise NotInOrder(f"{first.policy}: test {first.test!r} {first.problem}; correct the policy or its test")
        return f"{len(bundle.policies)} policies, their tests hold"

    _try("files", "masking key", findings, key)
    _try("files", "identities", findings, identities)
    _try("files", "policies", findings, policies)
