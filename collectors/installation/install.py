"""Installs, removes, pauses and shows the beacon; the shell that runs what `planning` decided.

The connection belongs to who may do it: a superuser, or a role that owns the tables and may create roles and
publications; what that may not do is left out, and `level` says what it costs. Nothing here waits long for a lock: a
table that is busy is tried again and then reported, the others go on, and a later run does what is left.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator

import psycopg
from msgspec import Struct
from msgspec.structs import replace
from psycopg import errors as pg

from collectors import texts
from collectors.installation import catalogue, keeping, planning, removal, source
from collectors.installation.catalogue import Connection, State, Table
from collectors.installation.level import Limit, limits
from collectors.installation.sql import key_templates
from collectors.installation.steps import LAST, Options, Statement
from pgwitness.core.errors import NotInOrder
from pgwitness.core.events import quote_identifier

VERSION_MIN = 150_000

Progress = Callable[[str, int, int], None]
"""Told before each transaction: what it does, its number from 1, how many there are."""


class Failure(Struct, frozen=True):
    """What could not be done, why, and what the operator should do."""

    what: str
    why: str
    fix: str


class Report(Struct, frozen=True, kw_only=True):
    """What a run did. `done` are the statements run; `left` what failed; `notes` what the operator should know.

    `limits` are what this level of installation cannot see.
    """

    database: str
    done: tuple[Statement, ...] = ()
    left: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    guarded: bool = True
    limits: tuple[Limit, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return not self.left


def install(connection: Connection, options: Options | None = None, progress: Progress | None = None) -> Report:
    """Install what is missing; running it again is harmless, and goes on after an error or a busy table.

    Raises `NotInOrder` where the server is too old. What failed stands in the report, with its fix.
    """
    options = options or Options()
    state = _state(connection, options)
    report = _run(connection, state, planning.install(state, options), options, progress)
    report = _noted(report, _install_notes(state, options))
    return replace(report, limits=limits(catalogue.read(connection, options.role), options.role))


def uninstall(connection: Connection, options: Options | None = None, progress: Progress | None = None) -> Report:
    """Remove the beacon from the chosen tables and, when none is left, all of pgwitness from the database.

    Where an older transaction is still open, or a table stays busy, the rest stays; a later run removes it.
    """
    options = options or Options()
    state = _state(connection, options)
    if not removal.whole(state, options):
        chosen = removal.tables(state, options, announced=True)
        return _run(connection, state, chosen and [*chosen, *removal.left_out(state, options)], options, progress)
    report = _run(connection, state, removal.silence(state), options, progress)
    if report.complete and state.event_triggers:
        report = replace(report, left=_older_left(connection, options.wait_ms / 1000))
    for plan in (removal.tables, removal.ground):
        if report.complete:
            state = catalogue.read(connection, options.role)
            then = _run(connection, state, plan(state, options), options, progress)
            report = replace(then, done=report.done + then.done)
    notes = [
        f"slot {name} is in use and stays: stop the collector, then SELECT pg_drop_replication_slot('{name}')"
        for name, active in state.slots
        if active
    ]
    notes += [f"role {role} stays: other databases of this cluster need it" for role in state.elsewhere]
    return _noted(report, notes)


_OLDER = """\
SELECT a.pid::text || ' (' || coalesce(a.usename, '?') || ' ' || coalesce(a.application_name, '') || ')',
    a.pid::text || '/' || coalesce(a.xact_start::text, '')
FROM pg_stat_activity AS a
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'
    AND (a.backend_xid IS NOT NULL OR a.state = 'active')
UNION ALL SELECT 'prepared transaction ' || p.gid, 'prepared/' || p.gid FROM pg_prepared_xacts AS p
WHERE p.database = current_database()"""


def _older_left(connection: Connection, wait_s: float) -> tuple[Failure, ...]:
    """Wait for the transactions that are open now: they may have tables of their own with our trigger on them."""
    older = dict(_activity(connection))
    deadline = time.monotonic() + wait_s
    while older and time.monotonic() < deadline:
        time.sleep(0.05)
        still = dict(_activity(connection))
        older = {key: who for key, who in older.items() if key in still}
    if not older:
        return ()
    fix = "run it again when they have ended; until then the beacon goes on speaking, and nothing is broken"
    return (Failure("open transactions", f"they are older than the removal: {', '.join(older.values())}", fix),)


def _activity(connection: Connection) -> list[tuple[str, str]]:
    return [(key, who) for who, key in connection.execute(_OLDER).fetchall()]


def pause(connection: Connection, options: Options | None = None, *, paused: bool = True) -> Report:
    """Switch every beacon of the database off at once, or on again; the switch itself is written into the WAL."""
    options = options or Options()
    state = _state(connection, options)
    if "beacon" not in state.functions:
        raise NotInOrder(f"no beacon is installed in database {state.database}; run `pgwitness db install`")
    return _run(connection, state, planning.pause(state, paused=paused), options, None)


def rotate_key(connection: Connection, options: Options | None = None) -> Report:
    """Replace the key of the database by another one, which open sessions use from their next transaction on.

    It is written into the WAL; collectors verify what was said before it under the key before.
    """
    options = options or Options()
    state = _state(connection, options)
    if "introduce" not in state.functions or keeping.moves(state):
        raise NotInOrder(f"no beacon of this version is installed in {state.database}; run `pgwitness db install`")
    return _run(connection, state, planning.rotate_key(state), options, None)


def release(connection: Connection, options: Options | None = None) -> Report:
    """Take everything of ours out of the extension that holds it, so that pg_upgrade finds it."""
    options = options or Options()
    state = _state(connection, options)
    plan = [Statement(key_templates.RELEASE, keeping.GROUP, "pg_upgrade leaves out what plpgsql holds")]
    return _run(connection, state, plan if state.schema else [], options, None)


def printed(connection: Connection, options: Options | None = None) -> str:
    """Write what `install` would run as one migration file, without running it."""
    options = options or Options()
    return planning.render(planning.install(_state(connection, options), options), options)


def printed_each(databases: Iterable[tuple[str, str, Connection]], options: Options) -> Iterator[str]:
    """Write one migration file for several databases (cluster, name, connection), part by part, as psql runs it.

    What is the cluster's own, its roles, is made once; each part but an only one connects to its database.
    """
    before: str | None = None
    made: set[str] = set()
    held: tuple[str, str] | None = None  # the first part, until it is known whether it is the only one
    for cluster, database, connection in databases:
        plan = planning.install(_state(connection, options), options)
        if cluster != before:
            made = set()
        plan = [statement for statement in plan if statement.group != "roles" or statement.sql not in made]
        made |= {statement.sql for statement in plan if statement.group == "roles"}
        text = f"-- cluster {cluster}, database {database}\n{planning.render(plan, options)}"
        connect = planning.connect(connection.info.get_parameters(), same=cluster == before)
        if before is None:
            held = f"{connect}\n{text}", text
        else:
            if held is not None:
                yield held[0]
                held = None
            yield f"{connect}\n{text}"
        before = cluster
    if held is not None:
        yield held[1]


def status(connection: Connection, options: Options | None = None) -> source.BeaconStatus:
    """Show the beacon's state, table by table; any role that may read the registry can ask."""
    return source.status(connection, options or Options())


def _state(connection: Connection, options: Options) -> State:
    connection.autocommit = True
    texts.keep_texts(connection)
    version = connection.info.server_version
    if version < VERSION_MIN:
        raise NotInOrder(f"PostgreSQL {version // 10_000} is not supported; pgwitness needs 15 or newer")
    return catalogue.read(connection, options.role)


def _run(
    connection: Connection, state: State, plan: list[Statement], options: Options, progress: Progress | None
) -> Report:
    groups = [(name, list(statements)) for name, statements in itertools.groupby(plan, lambda s: s.group)]
    done: list[Statement] = []
    left: list[Failure] = []
    for number, (name, statements) in enumerate(groups, 1):
        if name == LAST and not done:
            continue
        if progress is not None:
            progress(name, number, len(groups))
        run, failure = _transaction(connection, state, name, statements, options)
        if failure is None:
            done += run
            continue
        left.append(failure)
        if statements[0].table is None and name in ("roles", "schema", "publications"):
            break
    return Report(database=state.database, done=tuple(done), left=tuple(left), guarded=state.guarded)


def _transaction(
    connection: Connection, state: State, name: str, statements: list[Statement], options: Options
) -> tuple[list[Statement], Failure | None]:
    """Run one group; a busy table is tried again, each time waiting `lock_timeout_ms` at most. Gives what was run."""
    for attempt in range(options.attempts):
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = '{int(options.lock_timeout_ms)}ms'")
                return [statement for statement in statements if _ran(connection, statement)], None
        except (pg.LockNotAvailable, pg.DeadlockDetected):
            if attempt + 1 == options.attempts:
                return [], Failure(
                    name,
                    f"its lock was not to be had within {options.lock_timeout_ms} ms, {options.attempts} times:"
                    f" held by {_holders(connection, statements)}",
                    "run it again when that transaction has ended; what is done stays done",
                )
        except pg.UndefinedTable as error:
            return [], Failure(name, _text(error), "it was dropped meanwhile; run it again")
        except pg.InsufficientPrivilege as error:
            return [], Failure(name, _text(error), _way_out(state, name, statements))
        except psycopg.DatabaseError as error:
            if connection.broken:
                raise
            return [], Failure(name, _text(error), "correct what it names, then run it again")
    return [], None


def _ran(connection: Connection, statement: Statement) -> bool:
    """Run a statement; False when it was denied, and the rest can do without it."""
    if not statement.optional:
        connection.execute(texts.statement(connection, statement.sql))
        return True
    try:
        with connection.transaction():
            connection.execute(texts.statement(connection, statement.sql))
    except (pg.InsufficientPrivilege, pg.DependentObjectsStillExist):
        return False
    return True


def _way_out(state: State, name: str, statements: list[Statement]) -> str:
    """Say which statement a more powerful role could run, so that who was denied can go on."""
    user = quote_identifier(state.user)
    table = next((table for table in state.tables if table.qualified == statements[0].table), None)
    if table is not None and not table.owned:
        owner = quote_identifier(table.owner)
        return f"GRANT {owner} TO {user}, then run it again; or run it as {owner} (--dsn)"
    if name == "roles":
        sqls = "; ".join(statement.sql.replace("CURRENT_USER", user) for statement in statements)
        return f"as a superuser: {sqls}; then run it again"
    if name in ("schema", "publications") and not state.may_create:
        return f"GRANT CREATE ON DATABASE {quote_identifier(state.database)} TO {user}, then run it again"
    if name.startswith("slot "):
        return f"as a superuser, or a role that may read the WAL: {statements[0].sql}"
    return "run it as a superuser, or as the owner of the table with CREATEROLE (--dsn)"


def _holders(connection: Connection, statements: Iterable[Statement]) -> str:
    """Name the sessions that hold a lock on the group's table."""
    table = next((s.table for s in statements if s.table), None)
    if table is None:
        return "another session"
    rows = connection.execute(
        "SELECT DISTINCT l.pid, coalesce(a.usename, '?'), coalesce(a.application_name, '')"
        " FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid"
        " WHERE l.relation = to_regclass(%s) AND l.granted AND l.pid <> pg_backend_pid()"
        " AND l.mode <> 'AccessShareLock'",
        (table,),
    ).fetchall()
    return ", ".join(f"pid {pid} ({user} {application})".replace(" )", ")") for pid, user, application in rows) or "?"


def _text(error: psycopg.Error) -> str:
    return (error.diag.message_primary or str(error)).strip()


def _noted(report: Report, notes: list[str]) -> Report:
    return replace(report, notes=tuple(notes))


def _install_notes(state: State, options: Options) -> list[str]:
    notes = []
    if state.wal_level != "logical":
        notes.append(
            f"wal_level is {state.wal_level}: ALTER SYSTEM SET wal_level = 'logical', then restart the server;"
            " the beacon is written, but no collector can read it before"
        )
    if (state.may_see_ddl or state.event_triggers) and planning.asked(state, options) != ("*",):
        notes.append("tables made from now on get their beacon with the next `pgwitness db install`")
    if state.collector is None:
        notes.append(f"role {options.role} was made without a password: set one (psql: \\password {options.role})")
    notes += [_unkeyed(table) for table in state.tables if options.chosen(table) and not table.keyed and not table.root]
    return notes


def _unkeyed(table: Table) -> str:
    return (
        f"{table.qualified} has no usable replica identity: only its inserts and truncates are read;"
        f" add a primary key, or ALTER TABLE {table.qualified} REPLICA IDENTITY FULL: the collector sees it"
    )
