"""`pgwitness db`: what a source database needs, put in and taken out again.

Installing needs more rights than collecting: `--dsn` names a connection of an administrator; its password comes
from PGPASSFILE or the environment, never from the argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from pgwitness.cli.options import cluster_option, common, configuration, json_option
from pgwitness.cli.output import Row, console, emit, say
from pgwitness.errors import ConfigurationError

if TYPE_CHECKING:
    import psycopg

    from collectors.beacon.install import Report
    from collectors.beacon.planning import Options

P = ParamSpec("P")
R = TypeVar("R")


def where(function: Callable[P, R]) -> Callable[P, R]:
    """Add the options that choose databases and the connection to use for them."""
    function = click.option(
        "--dsn", metavar="DSN", help="Connect as an administrator with this, without a password in it."
    )(function)
    function = click.option(
        "--database", "databases", multiple=True, metavar="NAME", help="Only this database; may be repeated."
    )(function)
    return cluster_option(function)


@click.group()
def db() -> None:
    """Install, check, pause or remove what a source database needs."""


def each(
    config_path: Path, clusters: tuple[str, ...], databases: tuple[str, ...], dsn: str | None
) -> Iterator[tuple[str, str, psycopg.Connection[tuple[object, ...]]]]:
    """Connect to every database that is meant, one after the other: cluster, database, connection.

    Raises `ConfigurationError` when a database is not configured or the DSN holds a password.
    """
    from collectors.connection import connect

    config = configuration(config_path, clusters)
    if dsn is not None:
        _no_password(dsn)
    known = {name for cluster in config.clusters.values() for name in cluster.databases}
    if unknown := sorted(set(databases) - known):
        raise ConfigurationError(f"{config_path}: clusters.*.databases: {', '.join(unknown)} is not configured")
    for name, cluster in config.clusters.items():
        for database in cluster.databases:
            if databases and database not in databases:
                continue
            with connect(cluster, dsn, database, application_name="pgwitness db") as connection:
                yield name, database, connection


def _no_password(dsn: str) -> None:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        given = conninfo_to_dict(dsn)
    except ProgrammingError as error:
        raise ConfigurationError(f"--dsn: {error}".strip()) from error
    if "password" in given:
        raise ConfigurationError("--dsn: a password in an argument can be read by everybody here; use PGPASSFILE")


def tables_option(function: Callable[P, R]) -> Callable[P, R]:
    """Add `--tables GLOB`."""
    return click.option(
        "--tables",
        "globs",
        metavar="GLOB",
        multiple=True,
        help="Only tables like this (`public.*`, `orders`); may be repeated.",
    )(function)


@db.command(short_help="Install role, publications and beacon.")
@where
@tables_option
@click.option("--role", default="pgwitness", show_default=True, help="The collectors' login role.")
@click.option(
    "--lock-timeout", default="2s", show_default=True, metavar="DURATION", help="How long to wait for a table's lock."
)
@click.option("--print", "only_print", is_flag=True, help="Print the SQL as a migration and change nothing.")
@json_option
@common
def install(
    dsn: str | None,
    databases: tuple[str, ...],
    clusters: tuple[str, ...],
    globs: tuple[str, ...],
    role: str,
    lock_timeout: str,
    only_print: bool,
    as_json: bool,
    config_path: Path,
) -> None:
    """Install role, publications and beacon, table by table under a lock timeout.

    May be run again at any time: what is there stays, and what could not be done is tried again. Exits 1 when
    something is left to do, and says what.
    """
    from collectors.beacon import install as beacon

    options = _options(globs, role=role, lock_timeout=lock_timeout)
    if only_print:
        for cluster, database, connection in each(config_path, clusters, databases, dsn):
            click.echo(f"-- cluster {cluster}, database {database}")
            click.echo(beacon.printed(connection, options))
        return
    with steps("installing") as step:
        reports = [
            (cluster, beacon.install(connection, options, step))
            for cluster, _, connection in each(config_path, clusters, databases, dsn)
        ]
    _tell(reports, as_json)


@db.command(short_help="Remove what install made.")
@where
@tables_option
@json_option
@common
def uninstall(
    dsn: str | None,
    databases: tuple[str, ...],
    clusters: tuple[str, ...],
    globs: tuple[str, ...],
    as_json: bool,
    config_path: Path,
) -> None:
    """Remove the beacon from the tables and, with the last table, everything of pgwitness in the database.

    That is evidence too: the removal writes itself down first. Exits 1 when something is left, and says what.
    """
    from collectors.beacon import install as beacon

    with steps("removing") as step:
        reports = [
            (cluster, beacon.uninstall(connection, _options(globs), step))
            for cluster, _, connection in each(config_path, clusters, databases, dsn)
        ]
    _tell(reports, as_json)


@db.command(short_help="Show table by table what is installed.")
@where
@tables_option
@json_option
@common
def status(
    dsn: str | None,
    databases: tuple[str, ...],
    clusters: tuple[str, ...],
    globs: tuple[str, ...],
    as_json: bool,
    config_path: Path,
) -> None:
    """Show table by table what is installed and published; exits 1 when something is missing or switched off."""
    from collectors.beacon import install as beacon

    rows: list[Row] = []
    for cluster, database, connection in each(config_path, clusters, databases, dsn):
        found = beacon.status(connection, _options(globs))
        state = "ok" if found.working else "wrong"
        rows.append(_line(cluster, database, "(database)", state, None, found.problem, found.fix))
        rows += [
            _line(cluster, database, table.table, table.beacon, table.published, table.problem, table.fix)
            for table in found.tables
        ]
    emit(rows, as_json=as_json, empty="no database is configured")
    if any(row["problem"] for row in rows):
        raise click.exceptions.Exit(1)


@db.command(short_help="Switch every beacon off at once, or on again.")
@where
@click.option("--resume", is_flag=True, help="Switch them on again.")
@json_option
@common
def pause(
    dsn: str | None,
    databases: tuple[str, ...],
    clusters: tuple[str, ...],
    resume: bool,
    as_json: bool,
    config_path: Path,
) -> None:
    """Switch every beacon of the databases off at once, without a lock on any table; --resume switches them on again.

    Both are evidence too.
    """
    from collectors.beacon import install as beacon

    reports = [
        (cluster, beacon.pause(connection, paused=not resume))
        for cluster, _, connection in each(config_path, clusters, databases, dsn)
    ]
    _tell(reports, as_json)


def _options(globs: tuple[str, ...], *, role: str = "pgwitness", lock_timeout: str = "2s") -> Options:
    from collectors.beacon.planning import Options
    from pgwitness.units import Duration

    try:
        timeout_ms = int(Duration.parse(lock_timeout) * 1000)
    except ValueError as error:
        raise ConfigurationError(f"--lock-timeout: {error}") from error
    return Options(tables=globs or ("*",), role=role, lock_timeout_ms=timeout_ms)


@contextmanager
def steps(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show on stderr which step of how many is being taken."""
    shown = console(stderr=True)
    with shown.status(what) if shown.is_terminal else nullcontext() as status:

        def step(name: str, number: int, of: int) -> None:
            if status is not None:
                status.update(f"{what} {number}/{of}: {name}")

        yield step


def _tell(reports: list[tuple[str, Report]], as_json: bool) -> None:
    """Print what was done and what is left; exits 1 when something is."""
    rows: list[Row] = []
    for cluster, report in reports:
        done = len(report.done)
        rows.append(_line(cluster, report.database, "", "ok", None, None, None) | {"done": done})
        rows += [
            _line(cluster, report.database, failure.what, "left", None, failure.why, failure.fix) | {"done": 0}
            for failure in report.left
        ]
        for note in report.notes:
            say(f"{cluster}/{report.database}: {note}")
    emit(rows, as_json=as_json, columns=["cluster", "database", "table", "state", "done", "problem", "fix"])
    if any(report.left for _, report in reports):
        raise click.exceptions.Exit(1)


def _line(
    cluster: str,
    database: str,
    table: str,
    state: str,
    published: str | None,
    problem: str | None,
    fix: str | None,
) -> dict[str, object]:
    return {
        "cluster": cluster,
        "database": database,
        "table": table,
        "state": state,
        "published": published,
        "problem": problem,
        "fix": fix,
    }
