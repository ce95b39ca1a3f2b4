"""What there is of the guard in a database: read from its catalogues, by whoever may read them."""

from __future__ import annotations

from typing import Any

import psycopg
from msgspec import Struct

from collectors.guard.names import OWNER, SCHEMA, TRIGGER
from collectors.guard.relations import DIFFERING, TABLE
from collectors.guard.sql import CREATE_TABLES

Connection = psycopg.Connection[tuple[Any, ...]]


class Table(Struct, frozen=True, kw_only=True):
    """A table that is to be guarded. `triggers` are ours on it: their digests, None for one that is not enabled."""

    name: str
    triggers: dict[str, str | None]


class State(Struct, frozen=True, kw_only=True):
    """A database as the guard found it.

    `tables` are those that are to be guarded, `strays` others with a trigger of ours. `made` are the guard's own
    tables, `kept` those that an extension keeps out of dumps. `functions` have their bodies, `owned` those that belong
    to the guard's role. `event_triggers` have `A` where they fire always. `filled`: the pads are those of this key;
    None where who asks may not read them. `logins` are the roles that may log in.
    `renamed` are tables that the guard knows by another name, or by none, with that.
    """

    database: str
    superuser: bool
    owner: bool
    stats: bool
    schema: bool
    schema_owned: bool
    made: frozenset[str]
    kept: frozenset[str]
    functions: dict[str, str]
    owned: frozenset[str]
    event_triggers: dict[str, str]
    tables: tuple[Table, ...]
    strays: tuple[Table, ...]
    filled: bool | None
    logins: tuple[str, ...]
    elsewhere: bool
    renamed: tuple[tuple[str, str | None], ...] = ()


_SERVER = """\
SELECT current_database()::text, (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user),
    o.oid IS NOT NULL, coalesce(pg_has_role(o.oid, 'pg_read_all_stats', 'USAGE'), false),
    (SELECT coalesce(n.nspowner = o.oid, false) FROM pg_namespace AS n WHERE n.nspname = %(schema)s),
    EXISTS (SELECT FROM pg_shdepend AS d WHERE d.refobjid = o.oid AND d.dbid NOT IN (0,
        (SELECT b.oid FROM pg_database AS b WHERE b.datname = current_database())))
FROM (SELECT) AS one LEFT JOIN pg_roles AS o ON o.rolname = %(owner)s"""

_MADE = """\
SELECT c.relname::text, EXISTS (SELECT FROM pg_depend AS d
    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = %(schema)s AND c.relkind = 'r'"""

_FUNCTIONS = """\
SELECT p.proname::text, p.prosrc, pg_get_userbyid(p.proowner) = %(owner)s
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = %(schema)s"""

_EVENT_TRIGGERS = """\
SELECT e.evtname::text, e.evtenabled::text FROM pg_event_trigger AS e JOIN pg_proc AS p ON p.oid = e.evtfoid
    JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = %(schema)s"""

_TABLES = f"""\
SELECT format('%%I.%%I', n.nspname, c.relname), {TABLE}, t.names, t.digests
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
    SELECT array_agg(t.tgname::text ORDER BY t.tgname) AS names, array_agg(
        CASE WHEN tgenabled = 'A' AND f.nspname = %(schema)s THEN encode(t.tgargs, 'escape') END ORDER BY t.tgname
    ) AS digests, count(*) AS enabled
    FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid JOIN pg_namespace AS f ON f.oid = p.pronamespace
    WHERE t.tgrelid = c.oid AND (f.nspname = %(schema)s OR starts_with(t.tgname::text, %(trigger)s))
) AS t ON true
WHERE {TABLE} OR t.names IS NOT NULL ORDER BY 1"""


def read(connection: Connection, pads: tuple[bytes, bytes] | None) -> State:
    """Read the state of the connection's database."""
    given = {"schema": SCHEMA, "owner": OWNER, "trigger": TRIGGER}
    with connection.transaction():
        connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
        server = connection.execute(_SERVER, given).fetchone()
        assert server is not None
        made: dict[str, bool] = dict(connection.execute(_MADE, given).fetchall())
        functions = connection.execute(_FUNCTIONS, given).fetchall()
        event_triggers: dict[str, str] = dict(connection.execute(_EVENT_TRIGGERS, given).fetchall())
        rows = connection.execute(_TABLES, given).fetchall()
        logins = connection.execute("SELECT rolname::text FROM pg_roles WHERE rolcanlogin ORDER BY 1").fetchall()
    return State(
        database=server[0],
        superuser=server[1],
        owner=server[2],
        stats=server[3],
        schema=server[4] is not None,
        schema_owned=server[4] is True,
        elsewhere=server[5],
        made=frozenset(made),
        kept=frozenset(name for name, kept in made.items() if kept),
        functions={name: body for name, body, _ in functions},
        owned=frozenset(name for name, _, owned in functions if owned),
        event_triggers=event_triggers,
        tables=tuple(_table(row) for row in rows if row[1]),
        strays=tuple(_table(row) for row in rows if not row[1]),
        filled=_filled(connection, pads) if set(CREATE_TABLES) <= set(made) else False,
        logins=tuple(name for (name,) in logins),
        renamed=_renamed(connection) if "known" in made and "named" in {name for name, _, _ in functions} else (),
    )


def _table(row: tuple[Any, ...]) -> Table:
    digests = [value.removesuffix("\\000") if value is not None else None for value in row[3] or ()]
    return Table(name=row[0], triggers=dict(zip(row[2] or (), digests, strict=True)))


def _filled(connection: Connection, pads: tuple[bytes, bytes] | None) -> bool | None:
    """Say whether the pads are there and right; None where who asks may not read them, or there is no key."""
    if pads is None:
        return None
    try:
        with connection.transaction():
            rows = connection.execute(f"SELECT inner_pad, outer_pad FROM {SCHEMA}.pads").fetchall()
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable):
        return None
    return [(bytes(one), bytes(other)) for one, other in rows] == [pads]


def _renamed(connection: Connection) -> tuple[tuple[str, str | None], ...]:
    """List the tables whose names are not those that the guard knows; none where who asks may not read them."""
    try:
        with connection.transaction():
            return tuple(connection.execute(DIFFERING).fetchall())
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable):
        return ()
