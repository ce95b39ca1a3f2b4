"""Installs, removes and shows the guard; the shell that runs what `planning` decided.

The connection is a superuser's, or one of a role that may make roles and owns the tables: that one has row limits and
truncates guarded, and no event triggers. Nothing waits long for a lock: a table that is busy is tried again, then
reported, and a later run does what is left.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import psycopg
from msgspec import Struct
from psycopg import errors as pg

from collectors import texts
from collectors.guard import catalogue, planning
from collectors.guard.catalogue import Connection, State
from collectors.guard.mark import key_of
from collectors.guard.names import SCHEMA
from collectors.guard.wanted import Config, Login, Wanted
from collectors.installation import planning as beacon
from collectors.installation.install import VERSION_MIN, Failure, Report
from collectors.installation.steps import Options, Statement
from detectors.policy.policies import Bundle
from pgwitness.core.errors import NotInOrder
from pgwitness.core.privacy import pads

LoginOf = Callable[[str, str, str], Login]
"""Says who logs in as a role: cluster, database, role."""

LIMITS = (
    ("roles and databases", "no trigger sees CREATE ROLE, ALTER ROLE, GRANT of a role, databases and tablespaces"),
    ("reads", "no trigger sees SELECT and COPY TO, settings, functions that are called, large objects"),
    ("subscriptions", "what a subscription of logical replication applies fires no statement trigger"),
    ("superusers", "a superuser switches event triggers and triggers off; that is told, not stopped"),
)
"""What no guard in a database covers."""


class Guard(Struct, frozen=True, kw_only=True):
    """What is to be installed: policies, who logs in as which role, how it fails, and the installation's key.

    Without the key nothing that was approved can pass.
    """

    bundle: Bundle
    login: LoginOf
    config: Callable[[str], Config]
    key: bytes | None = None

    def pads(self) -> tuple[bytes, bytes] | None:
        """Return the pads of the key of marks."""
        return pads(key_of(self.key)) if self.key is not None else None

    def wanted(self, cluster: str, state: State) -> Wanted:
        """Return what the policies ask for in a database."""
        logins = [self.login(cluster, state.database, role) for role in state.logins]
        return Wanted(self.bundle, logins, self.config(cluster))


class Status(Struct, frozen=True, kw_only=True):
    """How the guard stands: `ok`, `missing`, `differs`, or `limit` for what it does not cover."""

    subject: str
    state: str
    problem: str | None = None
    fix: str | None = None


AGAIN = "pgwitness db install --guard"


def install(connection: Connection, cluster: str, guard: Guard, options: Options | None = None) -> Report:
    """Install what is missing or differs; running it again is harmless. What could not be done stands in the report."""
    options = options or Options()
    state = _state(connection, guard)
    wanted = guard.wanted(cluster, state)
    done, left = _run(connection, planning.install(state, wanted), options)
    fill = guard.pads()
    if fill is not None and state.filled is not True and not any(one.what == planning.GROUND for one in left):
        left += _filled(connection, fill, options)
    notes = [f"policy {one.policy} is not covered {one.why}" for one in wanted.uncovered]
    if fill is None:
        notes.append("without the installation's key (privacy.key_file) nothing that was approved passes the guard")
    if not state.superuser:
        notes.append("without a superuser there are no event triggers: drops and other DDL pass, new tables are bare")
    return Report(database=state.database, done=tuple(done), left=tuple(left), notes=tuple(notes))


def uninstall(connection: Connection, guard: Guard, options: Options | None = None) -> Report:
    """Remove everything of the guard from the database, and its role where no other database needs it."""
    options = options or Options()
    state = _state(connection, guard)
    done, left = _run(connection, planning.uninstall(state), options)
    notes = ("role pgwitness_guard stays: other databases of this cluster need it",) if state.elsewhere else ()
    return Report(database=state.database, done=tuple(done), left=tuple(left), notes=notes)


def status(connection: Connection, cluster: str, guard: Guard) -> list[Status]:
    """Say whether the guard is as the policies want it, and what it cannot cover; nothing where none is installed."""
    state = _state(connection, guard)
    if not state.schema:
        return []
    wanted = guard.wanted(cluster, state)
    found = [
        Status(subject=subject, state="differs", problem=problem, fix=AGAIN)
        for subject, problem in planning.differences(state, wanted)
    ] or [Status(subject="guard", state="ok")]
    found += [
        Status(
            subject=f"guard: policy {one.policy}",
            state="limit",
            problem=f"not covered {one.why}",
            fix="use the gateway",
        )
        for one in wanted.uncovered
    ]
    unknown = [login.role for login in wanted.logins if login.kind is None]
    if unknown:
        names = ", ".join(unknown[:5])
        found.append(
            Status(
                subject="guard: who logs in",
                state="limit",
                problem=f"the role alone does not tell who that is: {names}",
                fix="a role for each kind of principal, or guard.on_unknown",
            )
        )
    found += [
        Status(subject=f"guard: {subject}", state="limit", problem=problem, fix="the gateway, and alerts")
        for subject, problem in LIMITS
    ]
    return found


def installed(connection: Connection) -> bool:
    """Return whether a database has anything of the guard."""
    row = connection.execute("SELECT to_regnamespace(%s) IS NOT NULL", [SCHEMA]).fetchone()
    return row is not None and bool(row[0])


def printed_each(databases: Iterable[tuple[str, str, Connection]], guard: Guard, options: Options) -> Iterator[str]:
    """Write what `install` would run as a migration file, database by database, without the key."""
    for cluster, database, connection in databases:
        state = _state(connection, guard)
        plan = planning.install(state, guard.wanted(cluster, state))
        connect = beacon.connect(connection.info.get_parameters(), same=False)
        key = f"-- The key is not printed. Run `{AGAIN}` after this file: until then nothing approved passes.\n"
        yield f"{connect}\n-- cluster {cluster}, database {database}\n{beacon.render(plan, options)}{key}"


def _state(connection: Connection, guard: Guard) -> State:
    connection.autocommit = True
    texts.keep_texts(connection)
    version = connection.info.server_version
    if version < VERSION_MIN:
        raise NotInOrder(f"PostgreSQL {version // 10_000} is not supported; pgwitness needs 15 or newer")
    return catalogue.read(connection, guard.pads())


def _run(connection: Connection, plan: list[Statement], options: Options) -> tuple[list[Statement], list[Failure]]:
    done: list[Statement] = []
    left: list[Failure] = []
    for name, group in itertools.groupby(plan, lambda one: one.group):
        statements = list(group)
        failure = _transaction(connection, name, statements, options)
        if failure is None:
            done += statements
            continue
        left.append(failure)
        if name in (planning.ROLE, planning.GROUND):
            break
    return done, left


def _transaction(connection: Connection, name: str, plan: list[Statement], options: Options) -> Failure | None:
    """Run one group; a busy table is tried again, each time waiting `lock_timeout_ms` at most."""
    for attempt in range(options.attempts):
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = '{int(options.lock_timeout_ms)}ms'")
                for statement in plan:
                    _execute(connection, statement)
            return None
        except (pg.LockNotAvailable, pg.DeadlockDetected):
            if attempt + 1 == options.attempts:
                why = f"its lock was not to be had within {options.lock_timeout_ms} ms, {options.attempts} times"
                return Failure(name, why, "run it again when the other transaction has ended; what is done stays done")
        except pg.UndefinedTable as error:
            return Failure(name, _text(error), "it was dropped meanwhile; run it again")
        except pg.InsufficientPrivilege as error:
            return Failure(name, _text(error), "run it as a superuser (--dsn)")
        except psycopg.DatabaseError as error:
            if connection.broken:
                raise
            return Failure(name, _text(error), "correct what it names, then run it again")
    return None


def _execute(connection: Connection, statement: Statement) -> None:
    written = texts.statement(connection, statement.sql)
    if not statement.optional:
        connection.execute(written)
        return
    try:
        with connection.transaction():
            connection.execute(written)
    except pg.InsufficientPrivilege:
        pass


def _filled(connection: Connection, fill: tuple[bytes, bytes], options: Options) -> list[Failure]:
    """Put the pads where the guard finds them: what a statement holds may stand in the log, data of COPY does not."""
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = '{int(options.lock_timeout_ms)}ms'")
            connection.execute(f"DELETE FROM {SCHEMA}.pads")
            with connection.cursor().copy(f"COPY {SCHEMA}.pads (inner_pad, outer_pad) FROM STDIN") as copy:
                copy.write_row(fill)
    except (pg.LockNotAvailable, pg.InsufficientPrivilege, pg.UndefinedTable) as error:
        return [Failure("key", _text(error), "run it again, as a superuser (--dsn)")]
    return []


def _text(error: psycopg.Error) -> str:
    return texts.shown(error.diag.message_primary or str(error))
