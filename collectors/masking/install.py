"""Installs, removes and shows masks; the shell that runs what `planning` decided, in one transaction.

The connection belongs to a superuser, or to a role that owns the tables and may make roles and schemas. Nothing here
waits long for a lock: a busy table leaves everything as it was, and is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import psycopg
from msgspec import Struct
from psycopg import errors as pg

from collectors import texts
from collectors.installation import planning as beacon
from collectors.installation.install import VERSION_MIN, Failure, Report
from collectors.installation.steps import Options, Statement
from collectors.masking import catalogue, planning, reach
from collectors.masking.catalogue import Connection, State
from collectors.masking.expressions import ENCODINGS
from collectors.masking.names import OWNER, PADS, check, role_of, view_schema
from collectors.masking.planning import GROUP, Few, Trouble, Wanted
from collectors.masking.upkeep import EVENT_TRIGGERS
from pgwitness.core.config import Audience, Privacy
from pgwitness.core.errors import NotInOrder
from pgwitness.core.privacy import pads

WITHOUT_KEY = (
    "-- The key is not printed. Run `pgwitness db install --masks` after this file: until then tokens are null."
)


class Masks(Struct, frozen=True, kw_only=True):
    """What is to be installed: the audiences, the rules of the lake and the key of its tokens."""

    audiences: Mapping[str, Audience]
    privacy: Privacy
    key: bytes

    def here(self, database: str) -> dict[str, Audience]:
        """Give the audiences of a database."""
        return {name: one for name, one in self.audiences.items() if not one.databases or database in one.databases}


class Status(Struct, frozen=True, kw_only=True):
    """How an audience stands, or what it reads beside its views: what is wrong, and the fix.

    `state` is `ok`, `missing` or `differs`; `leak` of a way to masked values; `limit` of what no fault is.
    """

    subject: str
    state: str
    problem: str | None = None
    fix: str | None = None


def install(connection: Connection, masks: Masks, options: Options | None = None) -> Report:
    """Install what is missing; running it again is harmless. What could not be done stands in the report."""
    options = options or Options()
    state, audiences = _state(connection, masks)
    refused = [trouble for name, one in audiences.items() for trouble in planning.refusals(state, name, one)]
    if refused:
        return Report(database=state.database, left=tuple(_failure(trouble) for trouble in refused))
    try:
        known = few(connection, state, audiences, masks.privacy, options)
    except (pg.LockNotAvailable, pg.QueryCanceled, pg.InsufficientPrivilege) as error:
        fix = "run it again when nobody holds the table, as a superuser or its owner (--dsn); nothing has changed"
        return Report(database=state.database, left=(Failure("values of columns", _text(error), fix),))
    views = _wanted(state, audiences, masks.privacy, known)
    plan = planning.install(state, audiences, views)
    # Somebody who may not see the pads cannot have set them up wrong.
    fill = pads(masks.key) if audiences and state.filled is False else None
    failure = _transaction(connection, plan, options, fill) if plan or fill else None
    if failure is not None:
        return Report(database=state.database, left=(failure,))
    found = [way for name in audiences for way in reach.ways(connection, seen(state, masks, name, views[name]))]
    return Report(
        database=state.database,
        done=tuple(plan),
        left=tuple(Failure(way.what, way.why, way.fix) for way in found if way.weight == "leak"),
        notes=(
            *_notes(state, audiences, views),
            *(f"{way.what}: {way.why}; {way.fix}" for way in found if way.weight != "leak"),
        ),
    )


def uninstall(connection: Connection, masks: Masks, options: Options | None = None) -> Report:
    """Remove every view, grant and schema of masking from the database, and the roles that no database needs."""
    state, _ = _state(connection, masks)
    plan = planning.uninstall(state)
    failure = _transaction(connection, plan, options or Options(), None) if plan else None
    there = [role for role in (OWNER, *state.roles) if _exists(connection, role)]
    ours = {OWNER, *(role.name for role in state.roles.values() if role.ours)}
    return Report(
        database=state.database,
        done=tuple(plan) if failure is None else (),
        left=(failure,) if failure else (),
        notes=tuple(f"role {role} stays: something still needs it" for role in there if role in ours),
    )


def suspend(connection: Connection, masks: Masks, options: Options | None = None) -> Report:
    """Take every view away, so that none stands in the way of a migration; `install` puts them back."""
    state, _ = _state(connection, masks)
    plan = planning.suspend(state)
    failure = _transaction(connection, plan, options or Options(), None) if plan else None
    left = (failure,) if failure else ()
    return Report(database=state.database, done=() if failure else tuple(plan), left=left)


def printed_each(databases: Iterable[tuple[str, str, Connection]], masks: Masks, options: Options) -> Iterator[str]:
    """Write what `install` would run as a migration file, database by database, without the key."""
    for cluster, database, connection in databases:
        state, audiences = _state(connection, masks)
        for name, one in audiences.items():
            for trouble in planning.refusals(state, name, one):
                raise NotInOrder(f"{database}: {trouble.what}: {trouble.why}; {trouble.fix}")
        known = few(connection, state, audiences, masks.privacy, options)
        views = _wanted(state, audiences, masks.privacy, known)
        plan = planning.install(state, audiences, views)
        connect = beacon.connect(connection.info.get_parameters(), same=False)
        key = f"{WITHOUT_KEY}\n" if state.filled is False else ""
        yield f"{connect}\n-- cluster {cluster}, database {database}\n{beacon.render(plan, options)}{key}"


def status(connection: Connection, masks: Masks) -> list[Status]:
    """Say of each audience of the database whether its views are as configured, and which tables it does not see."""
    state, audiences = _state(connection, masks)
    found = []
    kept = {(view.schema, view.name): (view.mark or {}).get("few", []) for view in state.views}
    for name, one in audiences.items():
        known: Few = {
            (table.oid, column): True
            for table in state.tables
            if table.schema in one.schemas
            for column in kept.get((view_schema(one, table.schema), table.name), [])
        }
        views = planning.wanted(state, one, masks.privacy, known)
        found += [_stands(state, name, one, views)]
        found += [
            Status(subject=f"{trouble.what} for {name}", state="limit", problem=trouble.why, fix=trouble.fix)
            for trouble in planning.left_out(state, one)
        ]
        found += [
            Status(
                subject=f"{way.what} for {name}",
                state="leak" if way.weight == "leak" else "limit",
                problem=way.why,
                fix=way.fix,
            )
            for way in reach.ways(connection, seen(state, masks, name, views))
        ]
    return found


def seen(state: State, masks: Masks, name: str, views: list[Wanted]) -> reach.Seen:
    """Give what an audience is to see of the database's tables: what is masked, and what is clear."""
    audience = masks.audiences[name]
    shown = [(view.table.oid, column.number, kind) for view in views for column, kind, _ in view.columns]
    hidden = [
        (table.oid, column.number)
        for table in state.tables
        if table.roles and table.schema in audience.schemas
        for column in table.columns
    ]
    everywhere = [one for one in masks.audiences.values() if role_of(name, one) == role_of(name, audience)]
    return reach.Seen(
        role=role_of(name, audience),
        masked=(*((oid, number) for oid, number, kind in shown if kind != "clear"), *hidden),
        clear=tuple((oid, number) for oid, number, kind in shown if kind == "clear"),
        databases=tuple(database for one in everywhere for database in one.databases),
    )


_AGAIN = "pgwitness db install --masks"
_ENABLE = "; ".join(f"ALTER EVENT TRIGGER {name} ENABLE" for name in EVENT_TRIGGERS)


def _stands(state: State, name: str, audience: Audience, views: list[Wanted]) -> Status:
    subject = f"masks {name}"
    if refused := planning.refusals(state, name, audience):
        first = refused[0]  # the others show when it is mended
        return Status(subject=subject, state="differs", problem=f"{first.what}: {first.why}", fix=first.fix)
    if role_of(name, audience) not in state.roles or not state.pads:
        return Status(subject=subject, state="missing", problem="not installed", fix=_AGAIN)
    if state.filled is False:
        return Status(subject=subject, state="differs", problem="its tokens are not those of the lake", fix=_AGAIN)
    if state.functions and not planning.keeps_up(state) and state.registered is not None:
        problem = "its views are in the way of DROP COLUMN and ALTER TYPE: the event triggers are off"
        return Status(subject=subject, state="differs", problem=problem, fix=_ENABLE)
    there = {(view.schema, view.name): view for view in state.views}
    wrong = [
        view.table.qualified
        for view in views
        if (found := there.get((view.schema, view.table.name))) is None or not planning.current(found, view)
    ]
    if wrong:
        problem = f"{len(wrong)} of {len(views)} views are not as configured, such as that of {wrong[0]}"
        return Status(subject=subject, state="differs", problem=problem, fix=_AGAIN)
    return Status(subject=subject, state="ok")


_LOOK_MS_MAX = 30_000
"""How long a look at the first rows of a table may take."""


def few(
    connection: Connection, state: State, audiences: Mapping[str, Audience], privacy: Privacy, options: Options
) -> Few:
    """Say which columns that would be tokens have few values: by statistics, else by the first rows.

    Raises `psycopg.Error` where a table cannot be read, or not soon.
    """
    found: dict[tuple[int, str], bool] = {}
    asked: dict[int, set[str]] = {}
    by_oid = {table.oid: table for table in state.tables}
    for audience in audiences.values():
        for view in planning.wanted(state, audience, privacy, {}):
            for column, kind, made in view.columns:
                if kind != "token" or made.startswith("NULL::"):
                    continue
                if column.distinct is None or column.rows is None:
                    asked.setdefault(view.table.oid, set()).add(column.name)
                else:
                    found[view.table.oid, column.name] = planning.has_few(column.distinct, column.rows)
    for oid, names in asked.items():
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = '{int(options.lock_timeout_ms)}ms'")
            connection.execute(f"SET LOCAL statement_timeout = '{_LOOK_MS_MAX}ms'")
            counts = catalogue.sampled(connection, by_oid[oid], sorted(names))
        found |= {(oid, name): planning.has_few(*counted) for name, counted in counts.items()}
    return found


def _wanted(state: State, audiences: Mapping[str, Audience], privacy: Privacy, known: Few) -> dict[str, list[Wanted]]:
    return {name: planning.wanted(state, one, privacy, known) for name, one in audiences.items()}


def beside(connection: Connection, masks: Masks, name: str) -> list[reach.Way]:
    """List the ways by which an audience gets at what is masked for it."""
    state, audiences = _read(connection, masks)
    return reach.ways(connection, seen(state, masks, name, planning.wanted(state, audiences[name], masks.privacy, {})))


def _state(connection: Connection, masks: Masks) -> tuple[State, dict[str, Audience]]:
    connection.autocommit = True
    texts.keep_texts(connection)
    version = connection.info.server_version
    if version < VERSION_MIN:
        raise NotInOrder(f"PostgreSQL {version // 10_000} is not supported; pgwitness needs 15 or newer")
    return _read(connection, masks)


def _read(connection: Connection, masks: Masks) -> tuple[State, dict[str, Audience]]:
    check(dict(masks.audiences))
    audiences = masks.here(connection.info.dbname)
    schemas = sorted({schema for one in audiences.values() for schema in one.schemas})
    views = sorted({view_schema(one, schema) for one in audiences.values() for schema in one.schemas})
    roles = [role_of(name, one) for name, one in audiences.items()]
    return catalogue.read(connection, schemas, views, roles, pads(masks.key)), audiences


def _notes(state: State, audiences: Mapping[str, Audience], views: Mapping[str, list[Wanted]]) -> Iterator[str]:
    for name, audience in audiences.items():
        role = role_of(name, audience)
        if role not in state.roles:
            yield f"role {role} has no password yet: set one with \\password {role}"
        yield from (f"{one.what}: {one.why}; {one.fix}" for one in planning.left_out(state, audience))
        nulled = [f"{view.table.qualified}.{column}" for view in views[name] for column in view.few]
        if nulled:
            yield f"{name} sees nulls for columns of few values, which tokens would give away: {', '.join(nulled)}"
    if audiences and not state.superuser and not planning.keeps_up(state):
        yield (
            "without a superuser there are no event triggers: PostgreSQL refuses the application's DROP COLUMN and"
            " ALTER TYPE while the views are there; run `pgwitness db masks suspend` before such a migration, and"
            " `pgwitness db install --masks` behind it"
        )
    if state.encoding not in ENCODINGS:
        yield f"in a database in {state.encoding} there are no tokens: null stands for them"


def _failure(trouble: Trouble) -> Failure:
    return Failure(trouble.what, trouble.why, trouble.fix)


def _exists(connection: Connection, role: str) -> bool:
    row = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone()
    return row is not None


def _transaction(
    connection: Connection, plan: list[Statement], options: Options, fill: tuple[bytes, bytes] | None
) -> Failure | None:
    """Run a plan as a whole; a busy table is tried again, each time waiting `lock_timeout_ms` at most."""
    at: Statement | None = None
    for attempt in range(options.attempts):
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = '{int(options.lock_timeout_ms)}ms'")
                for at in plan:
                    _run(connection, at)
                if fill is not None:
                    _fill(connection, fill)
            return None
        except (pg.LockNotAvailable, pg.DeadlockDetected):
            if attempt + 1 == options.attempts:
                why = f"a lock was not to be had within {options.lock_timeout_ms} ms, {options.attempts} times"
                return Failure(_what(at), why, "run it again when the other transaction has ended; nothing has changed")
        except pg.InsufficientPrivilege as error:
            fix = "run it as a superuser, or as the owner of the tables with CREATEROLE (--dsn); nothing has changed"
            return Failure(_what(at), _text(error), fix)
        except psycopg.DatabaseError as error:
            if connection.broken:
                raise
            return Failure(_what(at), _text(error), "correct what it names, then run it again; nothing has changed")
    return None


def _run(connection: Connection, statement: Statement) -> None:
    sql = texts.statement(connection, statement.sql)
    if not statement.optional:
        connection.execute(sql)
        return
    try:
        with connection.transaction():
            connection.execute(sql)
    except (pg.InsufficientPrivilege, pg.DependentObjectsStillExist):
        pass


def _fill(connection: Connection, fill: tuple[bytes, bytes]) -> None:
    """Put the pads where the views find them.

    What a statement holds may stand in the server's log, data of COPY does not; and what is written to an unlogged
    table that becomes a logged one is decoded by no replication slot.
    """
    connection.execute(f"ALTER TABLE {PADS} SET UNLOGGED")
    connection.execute(f"DELETE FROM {PADS}")
    with connection.cursor().copy(f"COPY {PADS} (inner_pad, outer_pad) FROM STDIN") as copy:
        copy.write_row(fill)
    connection.execute(f"ALTER TABLE {PADS} SET LOGGED")


def _what(statement: Statement | None) -> str:
    return (statement.table if statement is not None else None) or GROUP


def _text(error: psycopg.Error) -> str:
    return texts.shown(error.diag.message_primary or str(error))
