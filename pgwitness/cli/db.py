"""`pgwitness db`: what a source database needs, put in and taken out again.

Installing needs more rights than collecting: `--dsn` names a connection of an administrator; its password comes
from PGPASSFILE or the environment, never from the argument.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from pgwitness.cli.options import cluster_option, common, configuration, json_option
from pgwitness.cli.output import Row, console, emit, say
from pgwitness.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collectors.guard.install import Guard
    from collectors.installation.catalogue import Connection
    from collectors.installation.install import Progress, Report
    from collectors.installation.level import Limit
    from collectors.installation.steps import Options
    from collectors.masking.install import Masks

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Target:
    """Which databases are meant, and as whom to connect to them."""

    config_path: Path
    clusters: tuple[str, ...]
    databases: tuple[str, ...]
    dsn: str | None

    def each(self) -> Iterator[tuple[str, str, Connection]]:
        """Connect to every database that is meant, one after the other: cluster, database, connection.

        Raises `ConfigurationError` when a database is not configured or the DSN holds a password.
        """
        from msgspec.structs import replace

        from collectors.connection import connect

        config = configuration(self.config_path, self.clusters)
        key = _key(config.privacy.key_file)
        if self.dsn is not None:
            _no_password(self.dsn)
        known = {name for cluster in config.clusters.values() for name in cluster.databases}
        if unknown := sorted(set(self.databases) - known):
            raise ConfigurationError(
                f"{self.config_path}: clusters.*.databases: {', '.join(unknown)} is not configured"
            )
        for name, cluster in config.clusters.items():
            for database in cluster.databases:
                if self.databases and database not in self.databases:
                    continue
                # The password in the configuration is the collectors'; `--dsn` logs in as libpq does.
                meant = cluster if self.dsn is None else replace(cluster, password_file=None)
                with connect(
                    meant, self.dsn, database, application_name="pgwitness db", key=key, command=True
                ) as connection:
                    yield name, database, connection

    def masks(self) -> Masks:
        """Give the audiences that are configured, with the key of their tokens.

        Raises `ConfigurationError` where there is no key: without it a token would not be the lake's.
        """
        from collectors.masking.install import Masks
        from pgwitness.core.privacy import load_key

        config = configuration(self.config_path, self.clusters)
        return Masks(audiences=config.masks, privacy=config.privacy, key=load_key(config.privacy.key_file))

    def guard(self) -> Guard:
        """Give what the guard is to hold sessions to: the policies, and who `identities.yaml` says logs in as a role.

        Raises `ConfigurationError` where either cannot be used.
        """
        from pgwitness.cli.guarding import guard_of

        config = configuration(self.config_path, self.clusters)
        return guard_of(config, _key(config.privacy.key_file))

    def statistics(self) -> tuple[str, ...] | None:
        """Name the databases in which `collect stats` reads, those of the clusters' DSNs; None where one names none."""
        from psycopg.conninfo import conninfo_to_dict

        from collectors.connection import conninfo

        config = configuration(self.config_path, self.clusters)
        given = [conninfo_to_dict(conninfo(cluster, None, None, "")) for cluster in config.clusters.values()]
        names = [one.get("dbname") for one in given]
        return tuple(map(str, names)) if all(names) else None

    def run(self, what: str, action: Callable[[Connection, Progress], Report], *, as_json: bool) -> None:
        """Act on every database and print what was done and what is left; exits 1 when something is."""
        config = configuration(self.config_path, self.clusters)
        if _key(config.privacy.key_file) is None:
            say(
                f"{config.privacy.key_file} cannot be read: without the installation's key the collectors take what"
                " this does for somebody's doing, and alert"
            )
        with _steps(what) as step:
            reports = [(cluster, action(connection, step)) for cluster, _, connection in self.each()]
        _tell(reports, as_json)

    def run_each(self, what: str, action: Callable[[str, Connection], Report], *, as_json: bool) -> None:
        """Act on every database by its cluster's name, and print what was done and what is left; as `run`."""
        with _steps(what):
            reports = [(cluster, action(cluster, connection)) for cluster, _, connection in self.each()]
        _tell(reports, as_json)


def targeted(function: Callable[..., R]) -> Callable[..., R]:
    """Add the options that choose databases and the connection to use for them; they come as one `Target`."""

    @functools.wraps(function)
    def command(
        config_path: Path, clusters: tuple[str, ...], databases: tuple[str, ...], dsn: str | None, **rest: Any
    ) -> R:
        return function(Target(config_path, clusters, databases, dsn), **rest)

    chosen = click.option(
        "--database", "databases", multiple=True, metavar="NAME", help="Only this database; may be repeated."
    )(cluster_option(common(command)))
    return click.option(
        "--dsn", metavar="DSN", help="Connect as an administrator with this, without a password in it."
    )(chosen)


def tables_option(function: Callable[P, R]) -> Callable[P, R]:
    """Add `--tables GLOB`."""
    return click.option(
        "--tables",
        "globs",
        metavar="GLOB",
        multiple=True,
        help="Only tables like this (`public.*`, `orders`); may be repeated.",
    )(function)


@click.group()
def db() -> None:
    """Install, check, pause or remove what a source database needs."""


def masks_option(function: Callable[P, R]) -> Callable[P, R]:
    """Add `--masks`."""
    return click.option(
        "--masks", "of_masks", is_flag=True, help="The views and roles of `[masks]`, and nothing of the beacon."
    )(function)


def guard_option(function: Callable[P, R]) -> Callable[P, R]:
    """Add `--guard`."""
    return click.option(
        "--guard", "of_guard", is_flag=True, help="The triggers that refuse by the policies, and nothing of the beacon."
    )(function)


@db.command(short_help="Install role, publications and beacon, masks, or the guard.")
@tables_option
@masks_option
@guard_option
@click.option("--role", default="pgwitness", show_default=True, help="The collectors' login role.")
@click.option(
    "--lock-timeout", default="2s", show_default=True, metavar="DURATION", help="How long to wait for a table's lock."
)
@click.option("--print", "only_print", is_flag=True, help="Print the SQL as a migration and change nothing.")
@json_option
@targeted
def install(
    target: Target,
    globs: tuple[str, ...],
    of_masks: bool,
    of_guard: bool,
    role: str,
    lock_timeout: str,
    only_print: bool,
    as_json: bool,
) -> None:
    """Install role, publications and beacon, table by table under a lock timeout; with --masks the views that mask,
    with --guard the triggers that refuse.

    May be run again at any time: what is there stays, and what could not be done is tried again. Who is no superuser
    installs what it may, and is told what that cannot see. Exits 1 when something is left to do, and says what.
    """
    from collectors.installation import install as beacon

    _one_of(of_masks, of_guard)
    if of_guard:
        _install_guard(target, _options(globs, lock_timeout=lock_timeout), only_print=only_print, as_json=as_json)
        return
    if of_masks:
        _install_masks(target, _options(globs, lock_timeout=lock_timeout), only_print=only_print, as_json=as_json)
        return
    options = _options(globs, role=role, lock_timeout=lock_timeout, statistics=target.statistics())
    if only_print:
        for part in beacon.printed_each(target.each(), options):
            click.echo(part)
        return
    target.run("installing", lambda connection, step: beacon.install(connection, options, step), as_json=as_json)


def _install_masks(target: Target, options: Options, *, only_print: bool, as_json: bool) -> None:
    from collectors.masking import install as masking

    masks = target.masks()
    if not masks.audiences:
        raise ConfigurationError(f"{target.config_path}: masks: no audience is configured; add [masks.NAME]")
    if options.tables != ("*",):
        raise click.UsageError("--masks has views over every table of masks.*.schemas; --tables is for the beacon")
    if only_print:
        for part in masking.printed_each(target.each(), masks, options):
            click.echo(part)
        return
    target.run("masking", lambda connection, _: masking.install(connection, masks, options), as_json=as_json)


def _one_of(of_masks: bool, of_guard: bool) -> None:
    if of_masks and of_guard:
        raise click.UsageError("--masks and --guard are two installations; run one after the other")


def _install_guard(target: Target, options: Options, *, only_print: bool, as_json: bool) -> None:
    from collectors.guard import install as guarding

    guard = target.guard()
    if options.tables != ("*",):
        raise click.UsageError("--guard is for every table, policies say which are meant; --tables is for the beacon")
    if only_print:
        for part in guarding.printed_each(target.each(), guard, options):
            click.echo(part)
        return
    target.run_each(
        "guarding", lambda cluster, connection: guarding.install(connection, cluster, guard, options), as_json=as_json
    )


@db.command(short_help="Remove what install made.")
@tables_option
@masks_option
@guard_option
@json_option
@targeted
def uninstall(target: Target, globs: tuple[str, ...], of_masks: bool, of_guard: bool, as_json: bool) -> None:
    """Remove the beacon from the tables and, with the last table, everything of it in the database; or masks, or guard.

    That is evidence too: the removal writes itself down first. Exits 1 when something is left, and says what.
    """
    from collectors.installation import install as beacon

    options = _options(globs)
    _one_of(of_masks, of_guard)
    if of_guard:
        from collectors.guard import install as guarding

        guard = target.guard()
        target.run("removing", lambda connection, _: guarding.uninstall(connection, guard, options), as_json=as_json)
        return
    if of_masks:
        from collectors.masking import install as masking

        masks = target.masks()
        target.run("removing", lambda connection, _: masking.uninstall(connection, masks, options), as_json=as_json)
        return
    target.run("removing", lambda connection, step: beacon.uninstall(connection, options, step), as_json=as_json)


@db.command(short_help="Switch every beacon off at once, or on again.")
@click.option("--resume", is_flag=True, help="Switch them on again.")
@json_option
@targeted
def pause(target: Target, resume: bool, as_json: bool) -> None:
    """Switch every beacon of the databases off at once, without a lock on any table; --resume switches them on again.

    Both are evidence too.
    """
    from collectors.installation import install as beacon

    target.run("pausing", lambda connection, _: beacon.pause(connection, paused=not resume), as_json=as_json)


@db.group()
def masks() -> None:
    """Take the views that mask out of the way."""


@masks.command(short_help="Take every view away until masks are installed again.")
@json_option
@targeted
def suspend(target: Target, as_json: bool) -> None:
    """Take every view that masks away, for a migration where there are no event triggers that do it.

    Meanwhile an audience sees nothing at all. `pgwitness db install --masks` puts the views back.
    """
    from collectors.masking import install as masking

    wanted = target.masks()
    target.run("suspending", lambda connection, _: masking.suspend(connection, wanted), as_json=as_json)


@db.command("rotate-key", short_help="Replace the key of the beacon by another one.")
@json_option
@targeted
def rotate_key(target: Target, as_json: bool) -> None:
    """Replace the key of the beacon, because somebody may have read it; without a lock on any table.

    Open sessions use the new one from their next transaction on. That is evidence too: it is written into the WAL, and
    what was signed before it is verified by the key before.
    """
    from collectors.installation import install as beacon

    target.run("making a key", lambda connection, _: beacon.rotate_key(connection), as_json=as_json)


@db.command(short_help="Make ready for pg_upgrade.")
@json_option
@targeted
def release(target: Target, as_json: bool) -> None:
    """Take what is of pgwitness out of the extension that keeps it out of dumps: pg_upgrade fails without it.

    The beacon goes on. After the upgrade `db install` makes another key and puts everything back.
    """
    from collectors.installation import install as beacon

    target.run("releasing", lambda connection, _: beacon.release(connection), as_json=as_json)


@db.command(short_help="Print what another database needs before it takes a dump of this one.")
@click.option("--print", "only_print", is_flag=True, required=True, help="Print it; nothing is connected to.")
@common
def stub(only_print: bool, config_path: Path) -> None:
    """Print the line that a database without pgwitness needs before it takes a dump of one that has it.

    The triggers of the beacon stand in every dump, and call a function that is in none: this makes one that does
    nothing. Where pgwitness is installed it changes nothing.
    """
    from collectors.installation.stub import STUB

    click.echo(STUB)


@db.command(short_help="Show table by table what is installed.")
@tables_option
@json_option
@targeted
def status(target: Target, globs: tuple[str, ...], as_json: bool) -> None:
    """Show table by table what is installed and published, and what this level of installation cannot see.

    Exits 1 when something is missing or switched off.
    """
    from collectors.installation import install as beacon

    rows: list[Row] = []
    for cluster, database, connection in target.each():
        found = beacon.status(connection, _options(globs))
        state = "ok" if found.working else "wrong"
        rows.append(_line(cluster, database, "(database)", state, None, found.problem, found.fix))
        rows += [_limit(cluster, database, limit) for limit in found.limits]
        rows += [
            _line(cluster, database, table.table, table.beacon, table.published, table.problem, table.fix)
            for table in found.tables
        ]
        rows += _masked(target, cluster, database, connection)
        rows += _guarded(target, cluster, database, connection)
    emit(rows, as_json=as_json, empty="no database is configured")
    if any(row["problem"] and row["state"] != LIMIT for row in rows):
        raise click.exceptions.Exit(1)


def _masked(target: Target, cluster: str, database: str, connection: Connection) -> list[Row]:
    """Say how the audiences of a database stand; nothing where none is configured."""
    from collectors.masking import install as masking

    if not configuration(target.config_path, target.clusters).masks:
        return []
    return [
        _line(cluster, database, f"({one.subject})", one.state, None, one.problem, one.fix)
        for one in masking.status(connection, target.masks())
    ]


def _guarded(target: Target, cluster: str, database: str, connection: Connection) -> list[Row]:
    """Say how the guard of a database stands; nothing where none is installed."""
    from collectors.guard import install as guarding

    if not guarding.installed(connection):
        return []
    return [
        _line(cluster, database, f"({one.subject})", one.state, None, one.problem, one.fix)
        for one in guarding.status(connection, cluster, target.guard())
    ]


LIMIT = "limit"
"""The state of a row that tells what an installation cannot see: it is no fault."""


def _key(path: Path) -> bytes | None:
    """Give the installation's key, by which the collectors know that a command did it; None where it is not there."""
    from pgwitness.core.privacy import load_key

    try:
        return load_key(path)
    except (ConfigurationError, OSError):
        return None


def _no_password(dsn: str) -> None:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        given = conninfo_to_dict(dsn)
    except ProgrammingError as error:
        raise ConfigurationError(f"--dsn: {error}".strip()) from error
    if "password" in given:
        raise ConfigurationError("--dsn: a password in an argument can be read by everybody here; use PGPASSFILE")


def _options(
    globs: tuple[str, ...],
    *,
    role: str = "pgwitness",
    lock_timeout: str = "2s",
    statistics: tuple[str, ...] | None = None,
) -> Options:
    from collectors.installation.steps import Options
    from pgwitness.core.units import Duration

    try:
        timeout_ms = int(Duration.parse(lock_timeout) * 1000)
    except ValueError as error:
        raise ConfigurationError(f"--lock-timeout: {error}") from error
    return Options(tables=globs or ("*",), role=role, lock_timeout_ms=timeout_ms, statistics=statistics)


@contextmanager
def _steps(what: str) -> Iterator[Progress]:
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
        rows += [_limit(cluster, report.database, limit) | {"done": 0} for limit in report.limits]
        for note in report.notes:
            say(f"{cluster}/{report.database}: {note}")
    emit(rows, as_json=as_json, columns=["cluster", "database", "table", "state", "done", "problem", "fix"])
    if any(report.left for _, report in reports):
        raise click.exceptions.Exit(1)


def _limit(cluster: str, database: str, limit: Limit) -> dict[str, object]:
    return _line(cluster, database, f"({limit.subject})", LIMIT, None, f"not seen: {limit.lost}", limit.fix)


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
