"""What collectors and `pgwitness db status` ask a source database about the beacon; reads only.

The collectors' own role may do all of this (`SELECT` on pgwitness.key and pgwitness.covered).
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Literal

import psycopg
from msgspec import Struct
from psycopg import errors as pg

from collectors.beacon.keyring import Key
from collectors.installation import catalogue, publishing
from collectors.installation.catalogue import Connection, State, Table
from collectors.installation.level import Limit, limits
from collectors.installation.sql import covering, ddl_templates, emission, templates
from collectors.installation.steps import Options
from pgwitness.core.events import qualified

UNREADABLE = (psycopg.ProgrammingError, psycopg.DataError, pg.ObjectNotInPrerequisiteState, pg.FeatureNotSupported)
"""Errors of a table that is not there, not ours to read, not what it should be, or on a standby."""

BeaconState = Literal["installed", "disabled", "missing", "outdated", "absent"]
"""`installed`: it speaks. `disabled`: switched off on the table. `missing`: registered, but the trigger is gone.
`outdated`: an older form, or not ENABLE ALWAYS. `absent`: never installed."""


DdlState = Literal["yes", "partly", "no"]
"""Whether DDL tells of itself: both event triggers do, one of them is off or altered, or there are none."""


class TableStatus(Struct, frozen=True, kw_only=True):
    """One table: its beacon, how it is published, what is wrong with it and the fix."""

    table: str
    beacon: BeaconState
    published: str
    root: str | None = None
    problem: str | None = None
    fix: str | None = None


class BeaconStatus(Struct, frozen=True, kw_only=True):
    """The beacon in one database. `working` is false where no beacon can be verified; `problem` and `fix` say why.

    `ddl` says whether DDL tells of itself, `covers` whether new tables get their beacon where they are made.
    `readers` are roles beside superusers that can read the key although its rows are hidden. `limits` are what the
    level of the installation cannot see.
    """

    database: str
    installed: bool
    paused: bool
    guarded: bool
    working: bool
    problem: str | None = None
    fix: str | None = None
    readers: tuple[str, ...] = ()
    ddl: DdlState = "no"
    covers: bool = False
    limits: tuple[Limit, ...] = ()
    tables: tuple[TableStatus, ...] = ()


def load_keys(connection: Connection) -> list[Key] | None:
    """Read the keys that the database has, newest first; none where they are lost, not installed, or not ours to read.

    None while somebody holds a lock on them, which nobody is to wait for.

    An earlier installation has one, without the place where it was made.
    """
    for query in (_KEYS, f"SELECT key, 1, 0, 0, 0 FROM {templates.SCHEMA}.key"):
        try:
            # Alone it is one round trip: in a flood of forgeries the keys are read twenty times a second.
            with nullcontext() if _idle(connection) else connection.transaction():
                cursor = connection.execute(f"SET LOCAL lock_timeout = '50ms'; {query}")
                cursor.nextset()
                rows = cursor.fetchall()
        except pg.LockNotAvailable:
            return None
        except UNREADABLE:
            continue
        return [
            Key(key=bytes(key), number=number, made_lsn=int(lsn), made_xid=xid, made_at_us=at_us)
            for key, number, lsn, xid, at_us in rows
        ]
    return []


_KEYS = f"""
SELECT key, number, made_lsn - '0/0', made_xid::text::int8, (extract(epoch FROM made_at) * 1000000)::int8
FROM {templates.SCHEMA}.key ORDER BY number DESC
"""


def renew_key(connection: Connection) -> bool:
    """Have a lost key made anew in the database; false where there is none to be had, or it is not ours to ask for."""
    row = connection.execute(
        "SELECT NOT pg_is_in_recovery() AND has_function_privilege(p.oid, 'EXECUTE') FROM pg_proc AS p"
        " JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = %s AND p.proname = 'renew_key'"
        " AND has_schema_privilege(n.oid, 'USAGE')",
        (templates.SCHEMA,),
    ).fetchone()
    if row is None or not row[0]:
        return False
    try:
        made = connection.execute(f"SELECT {templates.SCHEMA}.renew_key()").fetchone()
    except psycopg.DatabaseError:
        _rolled_back(connection)
        return False
    return made is not None and bool(made[0])


def load_key(connection: Connection) -> bytes | None:
    """Read the key of the database's beacon; None where none is installed or our role may not read it."""
    keys = load_keys(connection)
    return keys[0].key if keys else None


def paused(connection: Connection) -> bool:
    """Say whether every beacon of the database is switched off; false where none is installed."""
    row = connection.execute(f"SELECT {emission.PAUSED}").fetchone()
    return row is not None and bool(row[0])


def covered_tables(connection: Connection) -> set[str]:
    """Read which tables carry a beacon by the registry, named as events name them; a partition, and its root.

    Nothing while the beacon is paused: what is missing then is explained by the pause. A table whose trigger somebody
    disabled or dropped is still in it, so that its writes are a finding.
    """
    if paused(connection):
        return set()
    try:
        rows = connection.execute(
            "SELECT n.nspname, c.relname"
            f" FROM {templates.SCHEMA}.covered AS r JOIN pg_class AS c ON c.oid = r.relation"
            " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        ).fetchall()
    except UNREADABLE:
        _rolled_back(connection)
        return set()
    return {qualified(schema, name) for schema, name in rows}


def status(connection: Connection, options: Options) -> BeaconStatus:
    """Compare what stands in the database with what an installation makes."""
    state = catalogue.read(connection, options.role)
    is_paused = paused(connection)
    problem, fix = _problem(connection, state, is_paused)
    tables = tuple(_table(state, table) for table in state.tables if options.chosen(table))
    return BeaconStatus(
        database=state.database,
        installed="beacon" in state.functions,
        paused=is_paused,
        guarded=state.guarded,
        working=problem is None,
        problem=problem,
        fix=fix,
        readers=_readers(connection),
        ddl=_ddl(state, is_paused),
        covers=_covers(state),
        limits=limits(state, options.role),
        tables=tables,
    )


def _readers(connection: Connection) -> tuple[str, ...]:
    """Name the roles that row security does not stop from reading the key: whoever reads it can forge beacons."""
    found = connection.execute(
        "SELECT r.rolname::text FROM pg_roles AS r, pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = 'key' AND r.rolbypassrls AND NOT r.rolsuper"
        " AND has_table_privilege(r.oid, c.oid, 'SELECT') AND has_schema_privilege(r.oid, n.oid, 'USAGE') ORDER BY 1",
        (templates.SCHEMA,),
    ).fetchall()
    return tuple(name for (name,) in found)


def _covers(state: State) -> bool:
    """Say whether new tables get their beacon where they are made."""
    inserts = state.publications.get(templates.PUBLICATION_INSERTS)
    acts = all(state.event_triggers.get(name) == "A" for name in covering.EVENTS)
    return acts and inserts is not None and inserts.asked == ("*",)


def _ddl(state: State, is_paused: bool) -> DdlState:
    if not state.event_triggers:
        return "no"
    ours = {ddl_templates.ddl_body(version=version) for version in (0, emission.SYSTEM_USER_MIN)}
    whole = all(state.event_triggers.get(name) == "A" for name in ddl_templates.EVENT_TRIGGERS)
    return "yes" if whole and not is_paused and state.functions.get("ddl") in ours else "partly"


def _problem(connection: Connection, state: State, is_paused: bool) -> tuple[str | None, str | None]:
    again = "pgwitness db install"
    if not state.schema:
        return "no beacon is installed", again
    if "key" not in state.relations or load_key(connection) is None:
        return "the key is gone, or this role may not read it", again
    if wrong := _wrong_function(state) or _wrong_publications(state):
        return wrong, again
    if not state.owner_able or not set(templates.SECRETS) <= set(state.relations):
        return "the owner's role may not use what it owns or write messages, or what it remembers is gone", again
    if not state.open:
        return "not everybody may call pgwitness.claim(), so that tokens are refused", again
    if not state.key_whole:
        return "the key is of another cluster (pg_upgrade, or a restore) or of another generation", again
    if is_paused:
        return "the beacon is paused", "pgwitness db pause --resume"
    if state.functions["beacon"] == emission.beacon_body(True):
        if state.guard_setting != "":
            guard = f"{emission.GUARD} is set by default, which can silence the guarded beacon"
            return guard, f"ALTER SYSTEM RESET {emission.GUARD}; SELECT pg_reload_conf(), or {again}"
        if not state.guard_granted:
            fix = f"GRANT SET ON PARAMETER {emission.GUARD} TO {templates.OWNER}"
            return "the owner's role may no longer set the guard, so that the beacon is silent", fix
    return None, None


def _wrong_publications(state: State) -> str | None:
    stored = state.version >= publishing.GENERATED_MIN
    for name, operations in publishing.PUBLICATIONS.items():
        found = state.publications.get(name)
        if found is None:
            return f"publication {name} is gone: its {operations} are not read"
        if (found.operations, found.by_root, found.stored) != (operations, True, stored):
            return f"publication {name} is not in the form that an installation gives it"
    return None


def _wrong_function(state: State) -> str | None:
    if not set(templates.BEACONS) & set(state.functions):
        return "the function pgwitness.beacon() is gone, and the triggers with it"
    for name, bodies in emission.BODIES.items():
        if name not in state.functions:
            return f"the function pgwitness.{name}() is gone, so that the beacon is silent"
        if state.functions[name] not in bodies:
            return f"the function pgwitness.{name}() is not the one that was installed"
    return None


def _table(state: State, table: Table) -> TableStatus:
    name = table.qualified
    beacon: BeaconState
    problem: str | None = None
    fix: str | None = f"pgwitness db install --tables {name}"
    if table.trigger is None:
        beacon = "missing" if table.registered else "absent"
        problem = "its trigger was dropped" if table.registered else "no beacon is installed on it"
        if not table.owned:
            fix = f"{fix}, as a superuser or as {table.owner}, who owns it"
    elif table.trigger == "D":
        beacon, problem = "disabled", "its trigger was disabled by the owner of the table"
        fix = f"ALTER TABLE {name} ENABLE ALWAYS TRIGGER {templates.TRIGGER}"
    elif table.trigger != "A" or not table.registered or table.conditional or table.form == "?":
        beacon, problem = "outdated", "its trigger is not in the form that an installation makes"
    else:
        beacon, fix = "installed", None
        problem, fix = _unpublished(state, table)
    return TableStatus(
        table=name, beacon=beacon, published=_published(state, table), root=table.root, problem=problem, fix=fix
    )


def _published(state: State, table: Table) -> str:
    """Say which changes of a table are read."""
    if not table.logged:
        return "nothing"
    inserts = state.publications.get(templates.PUBLICATION_INSERTS)
    listed = templates.PUBLICATION_INSERTS in table.publications or table.root is not None
    read = "insert,truncate" if inserts is not None and (inserts.all_tables or listed) else ""
    updates = "update,delete" if table.published else ""
    lent = "; identity FULL is lent" if table.lent else ""
    return (",".join(part for part in (read, updates) if part) or "nothing") + lent


def _unpublished(state: State, table: Table) -> tuple[str | None, str | None]:
    """Say why not all changes of a table are read, and what helps; nothing where they are."""
    if table.lent:
        lost = "its identity is gone; it was lent REPLICA IDENTITY FULL, which writes whole rows into the WAL"
        return lost, f"add a primary key to {table.qualified}: it gets back what it had"
    if not table.logged:
        return (
            "it is unlogged: its rows are in no WAL, and counted by the beacon",
            f"ALTER TABLE {table.qualified} SET LOGGED",
        )
    if table.keyed or table.root is not None:
        return None, None
    problem = "no usable replica identity: only inserts and truncates are read"
    if table.partitioned:
        problem = "a partition has no usable replica identity: of that one only inserts and truncates are read"
    return problem, f"add a primary key, or ALTER TABLE {table.qualified} REPLICA IDENTITY FULL; the collector sees it"


def _idle(connection: Connection) -> bool:
    """Say whether the next statement is a transaction of its own."""
    return connection.autocommit and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def _rolled_back(connection: Connection) -> None:
    """Leave the connection usable after an error inside a transaction that it had open."""
    if connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
        connection.rollback()
