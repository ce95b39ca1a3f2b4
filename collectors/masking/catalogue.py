"""Reads from the catalogues what masking has to know of a database, and what it has put there; changes nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import psycopg
from msgspec import Struct

from collectors.masking.names import MARK, OWNER, SCHEMA, quoted
from collectors.texts import statement
from pgwitness.core.events import qualified

Connection = psycopg.Connection[tuple[Any, ...]]


class Column(Struct, frozen=True, kw_only=True):
    """A column of a table.

    `base` is its type's name, of a domain that of what it is made over; `other` where the type is not PostgreSQL's own
    (but `citext` and `enum`). `kept` is that type as SQL writes it, with its length, and `type_bare` without. `made_of`
    are the numbers of the columns that a generated one is computed from. `granted`: the views' owner may read it.
    `distinct` is how many values it has, by statistics, and `rows` how many rows; None where nobody has looked.
    """

    name: str
    number: int
    base: str
    kept: str
    type_bare: str
    made_of: tuple[int, ...] = ()
    granted: bool = False
    distinct: float | None = None
    rows: float | None = None


class Table(Struct, frozen=True, kw_only=True):
    """A table, ordinary or partitioned. `roles` are those that its row security has policies for, beside everybody.

    `policies_read` are columns of other tables, by oid and name, that its row security looks at.
    """

    oid: int
    schema: str
    name: str
    owner: str
    columns: tuple[Column, ...]
    roles: tuple[str, ...] = ()
    policies_read: tuple[tuple[int, str], ...] = ()

    @property
    def qualified(self) -> str:
        """The table's name as events carry it and rules name it."""
        return qualified(self.schema, self.name)

    @property
    def sql(self) -> str:
        """The table's name in SQL."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"


class View(Struct, frozen=True, kw_only=True):
    """A relation in a schema of views: its mark as `planning` wrote it, None for what is not ours."""

    schema: str
    name: str
    owner: str
    mark: dict[str, Any] | None
    readable: bool


class Role(Struct, frozen=True, kw_only=True):
    """A login role that is there: what it may do by itself, and what it is a member of. `ours`: we made it."""

    name: str
    login: bool
    powers: tuple[str, ...]
    member_of: tuple[str, ...]
    ours: bool
    settings: tuple[str, ...]


class State(Struct, frozen=True, kw_only=True):
    """A database as masking found it.

    `tree` are pairs of a table and its parent; `names` the names of all tables in it. `schemas` are those of views
    that are ours, by name: their audience. `taken` are schemas that have such a name, not ours. `pads`: the table
    of the pads is there, and `filled` that it holds the pads of this key as far as who asks can see, None where it
    cannot. Of the upkeep: `functions` by name with their bodies, `event_triggers` that are enabled, and `registered`
    views by schema and table, with the oid of that and the view's name while it is there; None where there is no
    registry, or who asks may not read it.
    """

    database: str
    encoding: str
    user: str
    superuser: bool
    owner: bool
    owner_powers: tuple[str, ...]
    member: bool
    pads: bool
    filled: bool | None
    tables: tuple[Table, ...]
    tree: tuple[tuple[int, int], ...]
    names: dict[int, str]
    schemas: dict[str, str]
    taken: tuple[str, ...]
    views: tuple[View, ...]
    roles: dict[str, Role]
    missing: tuple[str, ...]
    functions: dict[str, str] = {}
    event_triggers: tuple[str, ...] = ()
    registered: dict[tuple[str, str], tuple[int, str | None]] | None = None


_SERVER = """\
SELECT current_database(), getdatabaseencoding(), current_user, r.rolsuper, o.oid IS NOT NULL,
    array_remove(ARRAY[CASE WHEN o.rolsuper THEN 'SUPERUSER' END, CASE WHEN o.rolbypassrls THEN 'BYPASSRLS' END,
        CASE WHEN o.rolcanlogin THEN 'LOGIN' END, CASE WHEN o.rolreplication THEN 'REPLICATION' END,
        CASE WHEN EXISTS (SELECT FROM pg_auth_members AS m WHERE m.member = o.oid) THEN 'membership' END], NULL),
    coalesce(pg_has_role(r.oid, o.oid, 'USAGE'), false), EXISTS (SELECT FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = %(schema)s AND c.relname = 'pads')
FROM pg_roles AS r LEFT JOIN pg_roles AS o ON o.rolname = %(owner)s WHERE r.rolname = current_user"""

_POLICIES_READ = """\
SELECT DISTINCT p.polrelid, d.refobjid, a.attname::text FROM pg_policy AS p
JOIN pg_class AS c ON c.oid = p.polrelid AND c.relrowsecurity
JOIN pg_depend AS d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass
    AND d.refobjid <> p.polrelid
JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE p.polcmd IN ('r', '*')"""

_TABLES = f"""\
SELECT c.oid, n.nspname::text, c.relname::text, pg_get_userbyid(c.relowner)::text,
    CASE WHEN c.relrowsecurity THEN ARRAY(SELECT DISTINCT pg_get_userbyid(r.oid)::text
        FROM pg_policy AS p, unnest(p.polroles) AS r (oid) WHERE p.polrelid = c.oid AND r.oid <> 0 ORDER BY 1) END
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND (n.nspname = ANY (%(schemas)s) OR EXISTS (
        SELECT FROM pg_attribute AS a, aclexplode(a.attacl) AS x JOIN pg_roles AS o ON o.oid = x.grantee
        WHERE a.attrelid = c.oid AND o.rolname = %(owner)s) OR c.oid IN (SELECT r.oid FROM ({_POLICIES_READ})
        AS r (of, oid, name) JOIN pg_class AS f ON f.oid = r.of JOIN pg_namespace AS g ON g.oid = f.relnamespace
        WHERE g.nspname = ANY (%(schemas)s)))
    AND NOT EXISTS (SELECT FROM pg_depend AS d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 2, 3"""

_COLUMNS = """\
WITH RECURSIVE base (oid, type, typmod) AS (
    SELECT t.oid, t.oid, -1 FROM pg_type AS t WHERE t.typtype <> 'd'
    UNION ALL SELECT t.oid, base.type, CASE WHEN base.typmod = -1 THEN t.typtypmod ELSE base.typmod END
    FROM base JOIN pg_type AS t ON t.typtype = 'd' AND t.typbasetype = base.oid)
SELECT a.attrelid, a.attname::text, a.attnum, CASE WHEN b.typtype = 'e' THEN 'enum'
        WHEN bn.nspname = 'pg_catalog' OR b.typname = 'citext' AND EXISTS (SELECT FROM pg_depend AS d
            JOIN pg_extension AS e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
            WHERE d.classid = 'pg_type'::regclass AND d.objid = b.oid AND e.extname = 'citext')
        THEN b.typname::text ELSE 'other' END,
    format_type(base.type, CASE WHEN base.oid = base.type THEN a.atttypmod ELSE base.typmod END),
    format_type(base.type, NULL),
    ARRAY(SELECT DISTINCT d.refobjsubid FROM pg_attrdef AS f JOIN pg_depend AS d
        ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
        WHERE a.attgenerated <> '' AND f.adrelid = a.attrelid AND f.adnum = a.attnum
            AND d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid
            AND d.refobjsubid NOT IN (0, a.attnum)),
    EXISTS (SELECT FROM aclexplode(a.attacl) AS x WHERE x.grantee = o.oid AND x.privilege_type = 'SELECT'),
    CASE WHEN s.n_distinct < 0 THEN -s.n_distinct * c.reltuples * (1 - s.null_frac) ELSE s.n_distinct END,
    CASE WHEN s.n_distinct IS NOT NULL THEN c.reltuples * (1 - s.null_frac) END
FROM pg_attribute AS a JOIN base ON base.oid = a.atttypid JOIN pg_type AS b ON b.oid = base.type
    JOIN pg_namespace AS bn ON bn.oid = b.typnamespace
    JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_roles AS o ON o.rolname = %(owner)s
    LEFT JOIN pg_stats AS s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname
        AND s.inherited = (c.relkind = 'p') AND c.reltuples > 0 AND s.n_distinct <> 0
WHERE a.attrelid = ANY (%(oids)s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, 3"""

_TREE = """\
SELECT i.inhrelid, i.inhparent, cn.nspname::text, c.relname::text, pn.nspname::text, p.relname::text
FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid JOIN pg_namespace AS cn ON cn.oid = c.relnamespace
    JOIN pg_class AS p ON p.oid = i.inhparent JOIN pg_namespace AS pn ON pn.oid = p.relnamespace
WHERE c.relkind IN ('r', 'p', 'f')"""

_SCHEMAS = """\
SELECT n.nspname::text, obj_description(n.oid, 'pg_namespace'), n.nspname = ANY (%(schemas)s)
FROM pg_namespace AS n"""

_VIEWS = """\
SELECT n.nspname::text, c.relname::text, pg_get_userbyid(c.relowner)::text, obj_description(c.oid, 'pg_class'),
    EXISTS (SELECT FROM aclexplode(c.relacl) AS x JOIN pg_roles AS r ON r.oid = x.grantee
        WHERE r.rolname = ANY (%(roles)s) AND x.privilege_type = 'SELECT')
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (%(schemas)s) AND c.relkind NOT IN ('i', 'I', 't', 'c') ORDER BY 1, 2"""

_ROLES = """\
SELECT r.rolname::text, r.rolcanlogin, array_remove(ARRAY[CASE WHEN r.rolsuper THEN 'SUPERUSER' END,
        CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END, CASE WHEN r.rolreplication THEN 'REPLICATION' END,
        CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END], NULL),
    ARRAY(SELECT pg_get_userbyid(m.roleid)::text FROM pg_auth_members AS m WHERE m.member = r.oid ORDER BY 1),
    coalesce(shobj_description(r.oid, 'pg_authid') LIKE %(mark)s, false),
    ARRAY(SELECT unnest(s.setconfig) FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase
        WHERE s.setrole = r.oid AND d.datname = current_database())
FROM pg_roles AS r WHERE r.rolname = ANY (%(roles)s) OR shobj_description(r.oid, 'pg_authid') LIKE %(mark)s"""


_FUNCTIONS = """\
SELECT p.proname::text, p.prosrc FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s"""

_EVENT_TRIGGERS = """\
SELECT e.evtname::text FROM pg_event_trigger AS e JOIN pg_proc AS p ON p.oid = e.evtfoid
    JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = %(schema)s AND e.evtenabled <> 'D'"""


def read(
    connection: Connection,
    schemas: Sequence[str],
    views: Sequence[str],
    roles: Sequence[str],
    pads: tuple[bytes, bytes],
) -> State:
    """Read the state of the connection's database: of `schemas`, of the schemas of views over them, of login roles."""
    parameters = {
        "schemas": list(schemas),
        "owner": OWNER,
        "schema": SCHEMA,
        "roles": list(roles),
        "mark": f"{MARK}%",
    }
    with connection.transaction():
        # What the catalogue writes as SQL is then qualified but for PostgreSQL's own.
        connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
        server = connection.execute(_SERVER, parameters).fetchone()
        assert server is not None
        tables = connection.execute(_TABLES, parameters).fetchall()
        columns: dict[int, list[Column]] = {row[0]: [] for row in tables}
        for row in connection.execute(_COLUMNS, parameters | {"oids": [row[0] for row in tables]}).fetchall():
            columns[row[0]].append(_column(row))
        looked_at: dict[int, list[tuple[int, str]]] = {}
        for of, oid, name in connection.execute(_POLICIES_READ).fetchall():
            looked_at.setdefault(of, []).append((oid, name))
        tree = connection.execute(_TREE).fetchall()
        marked = connection.execute(_SCHEMAS, parameters | {"schemas": list(views)}).fetchall()
        ours = {name: said.removeprefix(MARK) for name, said, _ in marked if said and said.startswith(MARK)}
        there = {name for name, _, _ in marked}
        shown = connection.execute(_VIEWS, parameters | {"schemas": [*views, *ours]}).fetchall()
        found = connection.execute(_ROLES, parameters).fetchall()
        functions = connection.execute(_FUNCTIONS, parameters).fetchall()
        event_triggers = connection.execute(_EVENT_TRIGGERS, parameters).fetchall()
    names = {row[0]: qualified(row[2], row[3]) for row in tree} | {row[1]: qualified(row[4], row[5]) for row in tree}
    return State(
        database=server[0],
        encoding=server[1],
        user=server[2],
        superuser=server[3],
        owner=server[4],
        owner_powers=tuple(server[5]),
        member=server[6],
        pads=server[7],
        filled=_filled(connection, pads) if server[7] else False,
        tables=tuple(_table(row, columns[row[0]], looked_at.get(row[0], [])) for row in tables),
        tree=tuple((row[0], row[1]) for row in tree),
        names=names,
        schemas=ours,
        taken=tuple(name for name, _, wanted in marked if wanted and name not in ours),
        views=tuple(
            View(schema=row[0], name=row[1], owner=row[2], mark=_mark(row[3]), readable=row[4]) for row in shown
        ),
        roles={row[0]: _role(row) for row in found},
        missing=tuple(schema for schema in schemas if schema not in there),
        functions=dict(functions),
        event_triggers=tuple(name for (name,) in event_triggers),
        registered=_registered(connection) if functions else None,
    )


def _column(row: tuple[Any, ...]) -> Column:
    return Column(
        name=row[1],
        number=row[2],
        base=row[3],
        kept=row[4],
        type_bare=row[5],
        made_of=tuple(row[6]),
        granted=row[7],
        distinct=row[8],
        rows=row[9],
    )


def _table(row: tuple[Any, ...], columns: list[Column], looked_at: list[tuple[int, str]]) -> Table:
    return Table(
        oid=row[0],
        schema=row[1],
        name=row[2],
        owner=row[3],
        roles=tuple(row[4] or ()),
        columns=tuple(columns),
        policies_read=tuple(looked_at),
    )


def _role(row: tuple[Any, ...]) -> Role:
    return Role(
        name=row[0],
        login=row[1],
        powers=tuple(row[2]),
        member_of=tuple(row[3]),
        ours=row[4],
        settings=tuple(row[5]),
    )


def _mark(said: str | None) -> dict[str, Any] | None:
    if not said or not said.startswith(MARK):
        return None
    try:
        found = json.loads(said.removeprefix(MARK))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _filled(connection: Connection, pads: tuple[bytes, bytes]) -> bool | None:
    """Say whether the pads are there and right; None where who asks may not read them."""
    inner, outer = pads
    try:
        with connection.transaction():
            connection.execute("SET LOCAL row_security = off")
            rows = connection.execute(f"SELECT inner_pad, outer_pad FROM {SCHEMA}.pads").fetchall()
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable):
        return None
    return [(bytes(one), bytes(other)) for one, other in rows] == [(inner, outer)]


def _registered(connection: Connection) -> dict[tuple[str, str], tuple[int, str | None]] | None:
    try:
        with connection.transaction():
            connection.execute("SET LOCAL row_security = off")
            rows = connection.execute(
                f"SELECT view_schema::text, name::text, relid::oid, shown::text FROM {SCHEMA}.views"
            ).fetchall()
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable):
        return None
    return {(schema, name): (oid, shown) for schema, name, oid, shown in rows}


ROWS_MAX = 10_000
"""Of a table that was never analysed so many rows are looked at."""


_COLUMNS_AT_ONCE = 50
"""A row that is selected has 1,664 columns at most; and planning takes longer than the square of the aggregates."""


def sampled(connection: Connection, table: Table, columns: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Count the values of text columns and the rows that have one, among the first rows of a table."""
    found: dict[str, tuple[int, int]] = {}
    for start in range(0, len(columns), _COLUMNS_AT_ONCE):
        found |= _sampled(connection, table, columns[start : start + _COLUMNS_AT_ONCE])
    return found


def _sampled(connection: Connection, table: Table, columns: Sequence[str]) -> dict[str, tuple[int, int]]:
    counts = ", ".join(f'count(DISTINCT c{n} COLLATE "C"), count(c{n})' for n in range(len(columns)))
    texts = ", ".join(f"{quoted(column)}::text AS c{n}" for n, column in enumerate(columns))
    sql = f"SELECT {counts} FROM (SELECT {texts} FROM {table.sql} LIMIT {ROWS_MAX}) AS r"
    row = connection.execute(statement(connection, sql)).fetchone()
    assert row is not None
    return {column: (row[2 * n], row[2 * n + 1]) for n, column in enumerate(columns)}
