"""`pgwitness db`: what a source database needs, put in and taken out again.

Installing needs more rights than collecting: `--dsn` names a connection of an administrator; its password comes
from PGPASSFILE or the environment, never from the argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from pgwitness.cli.options import cluster_option, common, configuration, json_option
from pgwitness.cli.output import Row, emit
from pgwitness.errors import ConfigurationError, NotInOrder

if TYPE_CHECKING:
    import psycopg

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


@db.command()
@where
@click.option("--tables", metavar="GLOB", multiple=True, help="Only tables like this (`public.*`); may be repeated.")
@click.option("--print", "only_print", is_flag=True, help="Print the SQL for a migration and change nothing.")
@json_option
@common
def install(
    dsn: str | None,
    databases: tuple[str, ...],
    clusters: tuple[str, ...],
    tables: tuple[str, ...],
    only_print: bool,
    as_json: bool,
    config_path: Path,
) -> None:
    """Install role, publications and beacon; may be run again at any time and goes on where it was interrupted."""
    from collectors.beacon import install as beacon

    rows: list[Row] = []
    for cluster, database, connection in each(config_path, clusters, databases, dsn):
        report = beacon.install(connection, beacon.Options())
        rows.append({"cluster": cluster, "database": database, "report": str(report)})
    emit(rows, as_json=as_json)


@db.command()
@where
@json_option
@common
def uninstall(
    dsn: str | None, databases: tuple[str, ...], clusters: tuple[str, ...], as_json: bool, config_path: Path
) -> None:
    """Remove everything that install made."""
    raise NotInOrder("not wired yet")


@db.command()
@where
@json_option
@common
def status(
    dsn: str | None, databases: tuple[str, ...], clusters: tuple[str, ...], as_json: bool, config_path: Path
) -> None:
    """Show table by table what is installed; exits 1 when something is missing or switched off."""
    raise NotInOrder("not wired yet")


@db.command()
@where
@json_option
@common
def pause(
    dsn: str | None, databases: tuple[str, ...], clusters: tuple[str, ...], as_json: bool, config_path: Path
) -> None:
    """Switch every beacon off at once; that is evidence too. `--resume` switches them on again."""
    raise NotInOrder("not wired yet")
