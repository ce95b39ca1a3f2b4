"""The SQL by which views stand aside for the application's DDL and come back behind it; nothing is run here.

A view over a table makes PostgreSQL refuse `DROP COLUMN`, `ALTER TYPE` and `DROP TABLE` of it, and serves old names
after a rename. So at the start of such a command an event trigger drops the views that it may concern, and at its end
another one makes them anew, from a registry: a column is known by its number while its table is the same, and by its
name where another table takes the name. What the registry does not know is not shown, until masks are installed again.

The functions run as the superuser who installed them, since the application's role may touch neither views nor grants.
What they run are the registry's expressions, with names quoted; row security keeps pg_write_all_data out of it. Where a
view cannot be made again it stays away, and the application's command goes on.
"""

from __future__ import annotations

from collectors.installation.sql.emission import GUARD
from collectors.installation.sql.templates import MASKS_AT_WORK
from collectors.masking.names import MARK, OWNER, SCHEMA, quoted, text

VIEWS = f"{SCHEMA}.views"
COLUMNS = f"{SCHEMA}.columns"
EVENT_TRIGGERS = {
    "pgwitness_masks_start": ("ddl_command_start", "stand_aside"),
    "pgwitness_masks_end": ("ddl_command_end", "come_back"),
}
_BEFORE = (
    "ALTER TABLE", "ALTER TYPE", "DROP TABLE", "DROP SCHEMA", "DROP TYPE", "DROP DOMAIN", "DROP EXTENSION",
    "DROP OWNED",
)  # fmt: skip
_BEHIND = (
    *_BEFORE, "CREATE TABLE", "CREATE TABLE AS", "SELECT INTO", "ALTER SCHEMA", "CREATE EXTENSION", "ALTER EXTENSION",
    "DROP FUNCTION", "DROP ROUTINE", "DROP COLLATION",
)  # fmt: skip

CREATE_VIEWS = f"""\
CREATE TABLE {VIEWS} (
    view_schema name NOT NULL,
    schema name NOT NULL,
    name name NOT NULL,
    relid regclass NOT NULL,
    shown name,
    reader name NOT NULL,
    mark text NOT NULL,
    PRIMARY KEY (view_schema, name)
)"""
"""A view by the table that it is asked for: `relid` is the one that it is over, `shown` its name while it is there.

Tables and types are kept as `regclass` and `regtype`, which a dump holds by name: their numbers are others where it is
restored.
"""

CREATE_COLUMNS = f"""\
CREATE TABLE {COLUMNS} (
    view_schema name NOT NULL,
    view_name name NOT NULL,
    attnum int2 NOT NULL,
    attname name NOT NULL,
    atttypid regtype NOT NULL,
    made text NOT NULL,
    clear boolean NOT NULL,
    ruled boolean NOT NULL,
    reads boolean NOT NULL,
    FOREIGN KEY (view_schema, view_name) REFERENCES {VIEWS} ON DELETE CASCADE ON UPDATE CASCADE
)"""
"""How a view shows a column: `made` is its SQL with `@column@` for the name; a column is `clear`, or needs its type.

`ruled` is one that a rule masks, whatever its relatives are.
"""

STAND_ASIDE = f"""\
CREATE OR REPLACE FUNCTION {SCHEMA}.stand_aside() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET {GUARD} = '{MASKS_AT_WORK}' AS $pgwitness$
DECLARE  -- the parameter tells the beacon whose commands these are
    said text := lower(coalesce(current_query(), '') COLLATE "C");
    plain boolean := said !~ '\\m(do|call|execute|select|perform|extension)\\M|u&"'
        AND said ~ ('\\m' || replace(lower(tg_tag), ' ', '\\M.*\\m') || '\\M');
    words text[] := regexp_split_to_array(said, '[^a-z0-9_]+');
    gone record;
BEGIN
    IF tg_tag = 'ALTER TABLE' AND plain AND (said ~ '\\mconcurrently\\M'
        OR said !~ '\\m(drop|type|rename|schema)\\M') THEN
        RETURN;
    END IF;
    IF tg_tag = 'ALTER TYPE' AND plain AND said !~ '\\mattribute\\M' THEN
        RETURN;  -- such as a value of an enum
    END IF;
    IF session_user IN (SELECT v.reader FROM {VIEWS} AS v) THEN
        RETURN;  -- an audience has temporary tables alone, and must not lock others out of a view by dropping one
    END IF;
    FOR gone IN
        WITH RECURSIVE tree (relid) AS (
            SELECT v.relid FROM {VIEWS} AS v LEFT JOIN pg_class AS c ON c.oid = v.relid
            WHERE NOT plain OR tg_tag NOT IN ('ALTER TABLE', 'DROP TABLE')
                OR CASE WHEN c.relname COLLATE "C" ~ '^[A-Za-z0-9_]+$' THEN lower(c.relname COLLATE "C") = ANY (words)
                    ELSE strpos(lower(current_query()), lower(c.relname)) > 0 OR c.relname ~ '"' END
            UNION SELECT CASE WHEN i.inhparent = t.relid THEN i.inhrelid ELSE i.inhparent END
            FROM tree AS t JOIN pg_inherits AS i ON t.relid IN (i.inhparent, i.inhrelid))
        SELECT v.view_schema, v.name, v.shown FROM {VIEWS} AS v
        WHERE v.shown IS NOT NULL AND v.relid IN (SELECT relid FROM tree) ORDER BY 1, 3
    LOOP
        EXECUTE format('DROP VIEW IF EXISTS %I.%I CASCADE', gone.view_schema, gone.shown);
        UPDATE {VIEWS} AS v SET shown = NULL WHERE v.view_schema = gone.view_schema AND v.name = gone.name;
    END LOOP;
END
$pgwitness$"""
"""Drops the views that a command may concern. Of a command that is not the client's own text everything may be meant.

Commands that take no strong lock of the table, such as VALIDATE CONSTRAINT, are let pass: they must wait for no reader.
"""

_TAINTED = f"""\
k.clear AND a.attnum = k.attnum AND NOT a.attisdropped AND (a.attname <> k.attname
    OR a.attgenerated <> '' AND EXISTS (SELECT FROM pg_attrdef AS f JOIN pg_depend AS d
            ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass
        WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum AND d.refobjid = a.attrelid
            AND d.refobjsubid NOT IN (0, a.attnum) AND NOT EXISTS (SELECT FROM {COLUMNS} AS o
                WHERE (o.view_schema, o.view_name) = (k.view_schema, k.view_name) AND o.attnum = d.refobjsubid
                    AND o.clear))
    OR EXISTS (WITH RECURSIVE below (relid) AS (
            SELECT i.inhrelid FROM pg_inherits AS i WHERE i.inhparent = a.attrelid
            UNION SELECT i.inhrelid FROM below AS b JOIN pg_inherits AS i ON i.inhparent = b.relid)
        SELECT FROM below AS b JOIN {VIEWS} AS w ON w.relid = b.relid
            JOIN {VIEWS} AS m ON (m.view_schema, m.name) = (k.view_schema, k.view_name) AND m.reader = w.reader
            JOIN {COLUMNS} AS o ON (o.view_schema, o.view_name) = (w.view_schema, w.name)
        WHERE o.attname = a.attname AND o.ruled))"""
"""Whether a clear column `k`, which is `a` now, may hold what is masked: it took another name, which a rule may mask,
is computed from a column that is not clear, or shows rows of a child table in which a rule masks it."""

COME_BACK = f"""\
CREATE OR REPLACE FUNCTION {SCHEMA}.come_back() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET {GUARD} = '{MASKS_AT_WORK}' AS $pgwitness$
DECLARE  -- the parameter tells the beacon whose commands these are
    due record;
    columns text;
    granted text;
BEGIN
    FOR due IN
        WITH RECURSIVE tree (relid) AS (
            SELECT e.objid FROM pg_event_trigger_ddl_commands() AS e
            WHERE e.classid = 'pg_class'::regclass AND e.command_tag = 'ALTER TABLE'
            UNION SELECT i.inhparent FROM tree AS t JOIN pg_inherits AS i ON i.inhrelid = t.relid)
        SELECT v.view_schema, v.name, v.shown, v.relid FROM {VIEWS} AS v
        WHERE v.shown IS NOT NULL AND v.relid IN (SELECT relid FROM tree) ORDER BY 1, 3
    LOOP
        CONTINUE WHEN NOT EXISTS (SELECT FROM {COLUMNS} AS k JOIN pg_attribute AS a ON a.attrelid = due.relid
            WHERE k.view_schema = due.view_schema AND k.view_name = due.name AND {_TAINTED});
        EXECUTE format('DROP VIEW IF EXISTS %I.%I CASCADE', due.view_schema, due.shown);
        UPDATE {VIEWS} AS v SET shown = NULL WHERE v.view_schema = due.view_schema AND v.name = due.name;
    END LOOP;
    FOR due IN
        SELECT v.*, by_name.oid IS NOT NULL AND by_name.oid <> v.relid AS adopted,
            coalesce(by_name.oid, by_relid.oid) AS target, coalesce(by_name.relname, by_relid.relname) AS table_name
        FROM {VIEWS} AS v JOIN pg_namespace AS n ON n.nspname = v.schema
        LEFT JOIN pg_class AS by_name ON by_name.relnamespace = n.oid AND by_name.relname = v.name
            AND by_name.relkind IN ('r', 'p')
        LEFT JOIN pg_class AS by_relid ON by_relid.relnamespace = n.oid AND by_relid.oid = v.relid
            AND by_relid.relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM {VIEWS} AS o
                WHERE o.view_schema = v.view_schema AND o.name = by_relid.relname AND o.name <> v.name)
        WHERE coalesce(by_name.oid, by_relid.oid) IS NOT NULL
            AND (v.shown IS NULL OR v.shown <> coalesce(by_name.relname, by_relid.relname)
                OR by_name.oid <> v.relid OR tg_tag LIKE 'DROP %' AND to_regclass(format('%I.%I', v.view_schema,
                    v.shown)) IS NULL)
            AND NOT EXISTS (SELECT FROM pg_policy AS p, pg_class AS c WHERE c.oid = coalesce(by_name.oid, by_relid.oid)
                AND c.relrowsecurity AND p.polrelid = c.oid AND p.polroles <> '{{0}}')
        ORDER BY 1, 3
    LOOP
        BEGIN
            IF due.shown IS NOT NULL THEN
                EXECUTE format('DROP VIEW IF EXISTS %I.%I CASCADE', due.view_schema, due.shown);
            END IF;
            IF due.adopted THEN
                UPDATE {COLUMNS} AS k SET attnum = coalesce((SELECT a.attnum FROM pg_attribute AS a
                    WHERE a.attrelid = due.target AND a.attname = k.attname AND NOT a.attisdropped), 0)
                WHERE k.view_schema = due.view_schema AND k.view_name = due.name;
            END IF;
            LOOP  -- what is computed from a column that ceases to be clear ceases to be so, too
                UPDATE {COLUMNS} AS k SET clear = false, reads = false, atttypid = 0 FROM pg_attribute AS a
                WHERE k.view_schema = due.view_schema AND k.view_name = due.name AND a.attrelid = due.target
                    AND {_TAINTED};
                EXIT WHEN NOT FOUND;
                due.mark := '{MARK}{{}}';  -- it is not as configured, which the next installation shall see
            END LOOP;
            SELECT string_agg(format('%s AS %I', CASE WHEN k.clear OR k.atttypid = a.atttypid
                    THEN replace(k.made, '@column@', quote_ident(a.attname))
                    ELSE 'NULL::' || format_type(a.atttypid, NULL) END, a.attname), ', ' ORDER BY a.attnum),
                string_agg(quote_ident(a.attname), ', ') FILTER (WHERE k.reads AND (k.clear OR k.atttypid = a.atttypid))
            INTO columns, granted
            FROM {COLUMNS} AS k JOIN pg_attribute AS a ON a.attrelid = due.target AND a.attnum = k.attnum
                AND NOT a.attisdropped JOIN pg_type AS t ON t.oid = a.atttypid
            WHERE (k.clear OR k.atttypid = a.atttypid OR t.typtype <> 'd')
                AND k.view_schema = due.view_schema AND k.view_name = due.name;
            IF granted IS NULL THEN  -- rows are counted only for who may read a column
                SELECT quote_ident(a.attname) INTO granted FROM pg_attribute AS a
                WHERE a.attrelid = due.target AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum LIMIT 1;
            END IF;
            IF granted IS NOT NULL THEN
                EXECUTE format('GRANT SELECT (%s) ON %I.%I TO {OWNER}', granted, due.schema, due.table_name);
            END IF;
            EXECUTE format('CREATE VIEW %I.%I AS SELECT %s FROM %I.%I AS t', due.view_schema, due.table_name,
                coalesce(columns, ''), due.schema, due.table_name);
            IF EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e'
                    AND d.objid = to_regclass(format('%I.%I', due.view_schema, due.table_name))) THEN
                RAISE 'the script of an extension would own it: it comes back behind CREATE EXTENSION';
            END IF;
            EXECUTE format('ALTER VIEW %I.%I OWNER TO {OWNER}', due.view_schema, due.table_name);
            EXECUTE format('COMMENT ON VIEW %I.%I IS %L', due.view_schema, due.table_name, due.mark);
            EXECUTE format('GRANT SELECT ON %I.%I TO %I', due.view_schema, due.table_name, due.reader);
            UPDATE {VIEWS} AS v SET relid = due.target, shown = due.table_name, mark = due.mark
            WHERE v.view_schema = due.view_schema AND v.name = due.name;
        EXCEPTION WHEN OTHERS THEN
            RAISE LOG 'pgwitness: the view of % could not be made again; run pgwitness db install --masks', due.name;
        END;
    END LOOP;
    UPDATE {VIEWS} AS v SET relid = 0 WHERE v.relid <> 0::oid AND v.shown IS NULL
        AND NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = v.relid);  -- its number may become another table's
END
$pgwitness$"""
"""Makes views again that are away, over the table that has the name they are asked for, else the one they were over."""


def create() -> list[tuple[str, str]]:
    """List the statements, with their reasons, that put registry, functions and event triggers in place."""
    plan = [
        (CREATE_VIEWS, "which views there are, to make them again behind the application's DDL"),
        (CREATE_COLUMNS, "how they show columns"),
        (f"CREATE INDEX ON {COLUMNS} (view_schema, view_name)", "found in a database of thousands of tables, too"),
        (f"ALTER TABLE {VIEWS} ENABLE ROW LEVEL SECURITY", "pg_write_all_data must not write what is run"),
        (f"ALTER TABLE {COLUMNS} ENABLE ROW LEVEL SECURITY", "the same"),
        *functions(),
    ]
    for name, (event, function) in EVENT_TRIGGERS.items():
        tags = ", ".join(f"'{tag}'" for tag in (_BEFORE if event == "ddl_command_start" else _BEHIND))
        sql = f"CREATE EVENT TRIGGER {name} ON {event} WHEN TAG IN ({tags}) EXECUTE FUNCTION {SCHEMA}.{function}()"
        plan.append((sql, "the application's DDL shall go on as without masks"))
    return plan


def functions() -> list[tuple[str, str]]:
    """List the statements that make the functions of the event triggers."""
    return [
        (STAND_ASIDE, "drops the views that a command may concern"),
        (COME_BACK, "makes them again"),
        (f"REVOKE ALL ON FUNCTION {SCHEMA}.stand_aside(), {SCHEMA}.come_back() FROM PUBLIC", "nobody calls them"),
    ]


def drop() -> list[tuple[str, str]]:
    """List the statements that take all of it away."""
    return [
        *((f"DROP EVENT TRIGGER IF EXISTS {name}", "views stand in nobody's way") for name in EVENT_TRIGGERS),
        (f"DROP FUNCTION IF EXISTS {SCHEMA}.stand_aside(), {SCHEMA}.come_back()", "the same"),
        (f"DROP TABLE IF EXISTS {COLUMNS}, {VIEWS}", "the same"),
    ]


def forget(view_schema: str, name: str) -> str:
    """Write the statement that takes a view out of the registry."""
    return f"DELETE FROM {VIEWS} WHERE view_schema = {text(view_schema)} AND {text(name)} IN (name, shown)"


def remember(view_schema: str, schema: str, name: str, oid: int, reader: str, mark: str) -> str:
    """Write the statement that puts a view into the registry."""
    values = ", ".join([text(view_schema), text(schema), text(name), str(oid), text(name), text(reader), text(mark)])
    return f"INSERT INTO {VIEWS} VALUES ({values})"


def remember_columns(view_schema: str, name: str, columns: list[tuple[int, str, str, bool, bool]]) -> str:
    """Write the statement that says how a view shows columns.

    Of each: number, name, SQL over the table `t`, whether it is clear, whether a rule masks it.
    """
    rows = ",\n    ".join(
        f"({number}, {text(made.replace(f't.{quoted(column)}', 't.@column@'))}, {str(clear).lower()},"
        f" {str(ruled).lower()}, {reads(made)})"
        for number, column, made, clear, ruled in columns
    )
    return f"""\
INSERT INTO {COLUMNS}
SELECT v.view_schema, v.name, a.attnum, a.attname, a.atttypid, k.made, k.clear, k.ruled, k.reads
FROM (VALUES
    {rows}) AS k (attnum, made, clear, ruled, reads), {VIEWS} AS v, pg_attribute AS a
WHERE v.view_schema = {text(view_schema)} AND v.name = {text(name)} AND a.attrelid = v.relid AND a.attnum = k.attnum"""


def reads(made: str) -> str:
    """Say in SQL whether an expression reads its column."""
    return str(not made.startswith("NULL::")).lower()
