"""The event triggers that keep DDL harmless: new tables get their beacon, one that loses its key stays writable.

`keep` runs at the end of each command that makes or changes tables, and of each that drops an object. It never waits
and never fails: what it does stands in a subtransaction of its own, and it touches no table but those that the command
itself holds exclusively. Five things:

- a table that is new, or logged again, gets the beacon's trigger (in the form that speaks with each statement, until
  the job has put the table into the update publication), and its row in the registry; so does a new partition of a
  covered table, whatever was asked for;
- a table in the update publication that has lost its usable identity is lent `REPLICA IDENTITY FULL`, so that its
  updates go on and are read; when its key is back, it gets back what it had. What it had stands in a comment on the
  trigger;
- a new partition that is unlogged gets the trigger, too, in the form that says of its rows that nobody reads them;
- what FULL cannot help (a virtual generated column, `REPLICA IDENTITY NOTHING`) leaves the update publication. That is
  the one `ALTER PUBLICATION` in an application's transaction, and another such command waits for its end. From then on
  its beacon speaks with each statement, as that of an unlogged table does;
- what such a transaction has taken out, and can be published after all, is put back in.

`logged` runs before ALTER TABLE … SET UNLOGGED, which PostgreSQL refuses for a listed table: it takes it off the list,
by what the command's text seems to say. Where that was something else (a literal, another command of the same text),
`keep` puts the table back at the end of the command. It locks the table first, as the command will, so that the job
does not list it in between.
Nothing runs at the start of a command that may not be in a transaction block, such as DROP INDEX CONCURRENTLY.

The functions belong to whoever installed, a superuser: another one's table takes that. They run no code but
PostgreSQL's own. tests/collectors/test_covering.py tries on PostgreSQL what is claimed here.
"""

from __future__ import annotations

from collectors.installation import publishing
from collectors.installation.publishing import EACH, LENT, PARTITION, PUBLISH_CONTROL, TAKEN
from collectors.installation.sql.key_templates import release_event_trigger
from collectors.installation.sql.templates import (
    MIXED,
    PUBLICATION,
    PUBLICATION_INSERTS,
    SCHEMA,
    SCHEMA_OF_GUARD,
    SCHEMA_OF_MASKS,
    TREE,
    TRIGGER,
)

TAGS = (
    "ALTER EXTENSION", "ALTER TABLE", "CREATE SCHEMA", "CREATE TABLE", "CREATE TABLE AS", "SELECT INTO",
)  # fmt: skip
"""The commands at whose end tables may be new or changed. What a drop takes along, sql_drop tells."""

FUNCTIONS = {"pgwitness_keep": "keep", "pgwitness_keep_drop": "keep", "pgwitness_logged": "logged"}
_TAGS = ", ".join(f"'{tag}'" for tag in TAGS)
_WHEN = {
    "pgwitness_keep": f"ddl_command_end WHEN TAG IN ({_TAGS})",
    "pgwitness_keep_drop": "sql_drop",
    "pgwitness_logged": "ddl_command_start WHEN TAG IN ('ALTER TABLE')",
}
EVENTS = {name: when.partition(" ")[0] for name, when in _WHEN.items()}
"""Our event triggers and what they wait for. By their names they run after those that tell of the command."""

ASKED_ALL = f"""NOT EXISTS (SELECT FROM pg_publication AS p WHERE p.pubname = '{PUBLICATION_INSERTS}'
            AND obj_description(p.oid, 'pg_publication') NOT LIKE '%"*"%')"""
"""Whether all tables were asked for, so that new ones are covered, too: the publication's comment holds the globs."""


def _held(table: str) -> str:
    return f"""EXISTS (SELECT FROM pg_locks AS h WHERE h.pid = pg_backend_pid() AND h.locktype = 'relation'
            AND h.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
            AND h.relation = {table} AND h.mode = 'AccessExclusiveLock' AND h.granted)"""


_HELD = _held("found.oid")

_ALTERED = f"""EXISTS (SELECT FROM pg_locks AS h JOIN pg_publication AS p ON p.oid = h.objid
            WHERE h.pid = pg_backend_pid() AND h.locktype = 'object' AND h.classid = 'pg_publication'::regclass
            AND h.mode = 'AccessExclusiveLock' AND h.granted AND p.pubname = '{PUBLICATION}')"""
"""Whether this transaction has altered the update publication, which until its end nobody else can."""

TAKEN_OUT = "pgwitness.taken"
"""A parameter in which a transaction remembers the OIDs of tables that our triggers have taken out of the publication.
Whoever sets it has tables published that can be."""

_TAKE = f"""PERFORM pg_catalog.set_config('{TAKEN_OUT}', pg_catalog.concat_ws(',',
                            pg_catalog.current_setting('{TAKEN_OUT}', true), found.oid), true);"""

_MEMBER = """EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                AND d.deptype = 'e')"""


def _speaks(table: str, argument: str) -> str:
    """Write the statements, inside `keep`, that give a table our trigger with an argument (both SQL expressions)."""
    return f"""EXECUTE format('CREATE OR REPLACE TRIGGER {TRIGGER} AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s'
                    ' FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.%s', {table}, {publishing.called(argument)});
                EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER {TRIGGER}', {table});"""


_FRESH = (
    f"CASE WHEN found.relkind = 'p' THEN '{TREE}' WHEN found.listed_root IS NULL THEN '{EACH}' ELSE '{PARTITION}' END"
)
"""The form of a new table's trigger; others cannot inherit from it yet."""

KEEP_BODY = rf"""
DECLARE
    tables oid[];
    found record;
    wanted_all boolean;
    busy boolean := false;
    altered boolean := false;
    fresh boolean := tg_tag IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA');
BEGIN
    BEGIN
        -- pg_write_all_data may lock any table: nobody is to wait for that.
        LOCK TABLE {SCHEMA}.covered IN ROW EXCLUSIVE MODE NOWAIT;
    EXCEPTION WHEN OTHERS THEN
        busy := true;
    END;
    BEGIN
        IF tg_event = 'sql_drop' THEN
            IF NOT busy AND EXISTS (SELECT FROM pg_event_trigger_dropped_objects() AS d
                WHERE d.object_type = 'table' AND NOT d.is_temporary) THEN
                DELETE FROM {SCHEMA}.covered AS k USING pg_event_trigger_dropped_objects() AS d
                WHERE d.object_type = 'table' AND d.objid = k.relation;
            END IF;
            IF tg_tag IN ({_TAGS}) THEN
                RETURN; -- the end of the command is near, and names the table
            END IF;
            SELECT array_agg(c.oid) INTO tables FROM pg_event_trigger_dropped_objects() AS d
            JOIN pg_namespace AS n ON n.nspname = d.address_names[1]
            JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = d.address_names[2]
            WHERE d.object_type IN ('table constraint', 'table column') AND (d.original OR d.normal)
                AND NOT d.is_temporary;
            IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() AS d WHERE d.object_type = 'index'
                AND (d.original OR d.normal) AND NOT d.is_temporary) THEN
                -- Nothing tells of which table the index was, but the command holds that one exclusively.
                SELECT tables || array_agg(h.relation) INTO tables FROM pg_locks AS h
                WHERE h.pid = pg_backend_pid() AND h.locktype = 'relation' AND h.mode IN
                    ('AccessExclusiveLock', 'ShareUpdateExclusiveLock');
            END IF;
        ELSE
            SELECT array_agg(DISTINCT c.objid) INTO tables FROM pg_event_trigger_ddl_commands() AS c
            WHERE c.classid = 'pg_class'::regclass AND c.object_type IN ('table', 'table column')
                AND c.schema_name IS DISTINCT FROM 'pg_temp';
        END IF;
        IF tables IS NULL THEN
            RETURN;
        END IF;
        altered := {_ALTERED};
        IF altered THEN
            -- What this transaction has taken out may be another table than the command's.
            SELECT tables || array_agg(c.oid) INTO tables FROM pg_class AS c
            WHERE c.oid::text = ANY (string_to_array(current_setting('{TAKEN_OUT}', true), ','));
        END IF;
        IF NOT fresh THEN
            -- What is changed in a table is changed in those that inherit from it; ATTACH names the parent alone.
            WITH RECURSIVE below AS (
                SELECT t.oid FROM unnest(tables) AS t (oid)
                UNION SELECT i.inhrelid FROM below AS b JOIN pg_inherits AS i ON i.inhparent = b.oid
            ) SELECT array_agg(b.oid) INTO tables FROM below AS b;
        END IF;
        wanted_all := {ASKED_ALL};
    EXCEPTION WHEN OTHERS THEN
        RETURN;
    END;
    FOR found IN
        SELECT c.oid, c.relname, format('%I.%I', n.nspname, c.relname) AS name, c.relkind, c.relreplident,
            c.relpersistence = 'u' AS unlogged, c.relispartition AS partition, {publishing.form("t")} AS form,
            (SELECT i.inhparent FROM pg_inherits AS i WHERE c.relispartition AND i.inhrelid = c.oid) AS above,
            wanted_all OR NOT busy AND EXISTS (SELECT FROM {SCHEMA}.covered AS k WHERE c.relispartition
                AND k.relation IN (SELECT a.relid FROM pg_partition_ancestors(c.oid) AS a)) AS wanted,
            t.tgenabled, substring(obj_description(t.oid, 'pg_trigger') FROM '^{LENT}([di])$') AS lent, p.listed,
            r.oid AS listed_root,
            {publishing.usable("c", installed=True)} AS usable, {publishing.primary("c")} AS keyed,
            EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attgenerated = 'v') AS virtual
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        LEFT JOIN pg_trigger AS t ON t.tgrelid = c.oid AND t.tgname = '{TRIGGER}'
        LEFT JOIN (SELECT u.oid, x.prrelid, true AS listed FROM pg_publication AS u
            JOIN pg_publication_rel AS x ON x.prpubid = u.oid WHERE u.pubname = '{PUBLICATION}') AS p
            ON p.prrelid = c.oid
        LEFT JOIN pg_class AS r ON c.relispartition AND r.oid = pg_partition_root(c.oid) AND EXISTS (
            SELECT FROM pg_publication AS u JOIN pg_publication_rel AS x ON x.prpubid = u.oid
            WHERE u.pubname = '{PUBLICATION}' AND x.prrelid = r.oid)
        WHERE c.oid = ANY (tables) AND c.relkind IN ('r', 'p')
            AND (c.relpersistence = 'p' OR c.relpersistence = 'u' AND (t.oid IS NOT NULL OR c.relispartition))
            AND n.nspname NOT IN ('pg_catalog', 'information_schema', '{SCHEMA}', '{SCHEMA_OF_GUARD}',
                '{SCHEMA_OF_MASKS}')
            AND n.nspname !~ '^pg_(toast|temp)'
            AND (p.listed OR t.oid IS NOT NULL OR NOT {_MEMBER})
        ORDER BY c.oid
    LOOP
        BEGIN
            IF found.unlogged THEN
                IF (found.form <> '{TAKEN}' AND found.tgenabled = 'A' OR found.form IS NULL AND found.wanted)
                    AND (fresh OR {_HELD}) THEN
                    {_speaks("found.name", f"'{TAKEN}'")}
                    IF found.wanted AND NOT busy THEN
                        INSERT INTO {SCHEMA}.covered (relation) VALUES (found.oid) ON CONFLICT (relation) DO NOTHING;
                    END IF;
                END IF;
                IF {_held("found.above")} AND EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = found.above
                    AND t.tgname = '{TRIGGER}' AND t.tgenabled = 'A' AND {publishing.form("t")} = '{TREE}') THEN
                    {_speaks("found.above::regclass", f"'{MIXED}'")}
                END IF;
                CONTINUE;
            END IF;
            IF found.tgenabled IS NULL AND found.wanted AND NOT busy AND (fresh OR {_HELD})
                AND NOT EXISTS (SELECT FROM {SCHEMA}.covered AS k WHERE k.relation = found.oid) THEN
                {_speaks("found.name", _FRESH)}
                INSERT INTO {SCHEMA}.covered (relation) VALUES (found.oid) ON CONFLICT (relation) DO NOTHING;
            END IF;
            IF fresh AND tg_tag IN ('CREATE TABLE AS', 'SELECT INTO') THEN
                -- Its first rows are older than its trigger, which therefore speaks for them now.
                EXECUTE format('DELETE FROM ONLY %s WHERE false', found.name);
            END IF;
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
        BEGIN
            IF found.relkind = 'r' AND NOT found.usable AND (found.listed OR found.listed_root IS NOT NULL) THEN
                IF found.relreplident IN ('d', 'i') AND NOT found.virtual AND (fresh OR {_HELD}) THEN
                    EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY FULL', found.name);
                    BEGIN
                        EXECUTE format('COMMENT ON TRIGGER {TRIGGER} ON %s IS %L', found.name,
                            concat('{LENT}', found.relreplident));
                    EXCEPTION WHEN OTHERS THEN
                        NULL; -- its trigger was dropped: it stays lent
                    END;
                ELSE
                    PERFORM {SCHEMA}.control('{PUBLISH_CONTROL}');
                    IF found.listed THEN
                        {_TAKE}
                        EXECUTE format('ALTER PUBLICATION {PUBLICATION} DROP TABLE ONLY %s', found.name);
                    END IF;
                    IF found.listed_root IS NOT NULL THEN
                        EXECUTE format('ALTER PUBLICATION {PUBLICATION} DROP TABLE ONLY %s',
                            found.listed_root::regclass);
                    END IF;
                    IF found.form <> '{TAKEN}' AND found.tgenabled = 'A' AND {_HELD} THEN
                        {_speaks("found.name", f"'{TAKEN}'")}
                    END IF;
                END IF;
            ELSIF altered AND found.relkind = 'r' AND NOT found.partition AND found.usable AND found.listed IS NULL
                AND found.oid::text = ANY (string_to_array(current_setting('{TAKEN_OUT}', true), ',')) THEN
                EXECUTE format('ALTER PUBLICATION {PUBLICATION} ADD TABLE ONLY %s', found.name);
            ELSIF found.lent IS NOT NULL AND (found.relreplident <> 'f' OR current_query() ~* concat('\y',
                regexp_replace(found.relname, '\W', '.', 'g'), '"?\s+replica\s+identity\s+full\y')) THEN
                -- Somebody has chosen an identity: it stays, and nothing is lent any more.
                EXECUTE format('COMMENT ON TRIGGER {TRIGGER} ON %s IS NULL', found.name);
            ELSIF found.lent IS NOT NULL AND found.keyed AND {_HELD} THEN
                EXECUTE format('COMMENT ON TRIGGER {TRIGGER} ON %s IS NULL', found.name);
                EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY DEFAULT', found.name);
            END IF;
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END LOOP;
EXCEPTION WHEN OTHERS THEN
    NULL;
END
"""

_NAME = r'(?:"(?:[^"]|"")+"|[^\s;."\x27()]+)'

LOGGED_BODY = rf"""
DECLARE
    stack pg_catalog.text;
    found pg_catalog.record;
    listed pg_catalog.text;
    patience pg_catalog.text := pg_catalog.current_setting('lock_timeout');
BEGIN
    GET DIAGNOSTICS stack = PG_CONTEXT;
    stack := pg_catalog.concat(pg_catalog.current_query(), E';\n', stack);
    IF stack OPERATOR(pg_catalog.!~*) 'unlogged|SQL function' THEN
        RETURN;
    END IF;
    -- The text of a function in SQL stands in no context.
    stack := pg_catalog.concat(stack, E';\n', (
        SELECT pg_catalog.string_agg(p.prosrc, E';\n') FROM pg_catalog.pg_proc AS p
        WHERE p.proname OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT m.name[1]::pg_catalog.name
            FROM pg_catalog.regexp_matches(stack, 'SQL function "([^"]+)"', 'g') AS m (name)))
    ));
    stack := pg_catalog.concat(stack, E';\n', pg_catalog.regexp_replace(
        pg_catalog.regexp_replace(stack, '/\*.*?\*/', ' ', 'g'), '--[^\n]*', ' ', 'g'));
    IF NOT stack OPERATOR(pg_catalog.~*) 'set\s+unlogged' THEN
        RETURN;
    END IF;
    FOR found IN
        SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
        FROM pg_catalog.regexp_matches(stack, 'alter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?'
            '({_NAME}(?:\s*\.\s*{_NAME})?)[^;]*?\sset\s+unlogged', 'gi') AS m (name)
        JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(m.name[1])
        JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
        WHERE pg_catalog.pg_has_role(session_user, c.relowner, 'USAGE')
            OR CASE WHEN pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) 'none'
                THEN pg_catalog.pg_has_role(
                    pg_catalog.current_setting('role')::pg_catalog.name, c.relowner, 'USAGE') END
    LOOP
        BEGIN
            -- As patient as the command itself, which locks it more strictly next.
            EXECUTE pg_catalog.format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', found.name);
            PERFORM pg_catalog.set_config('lock_timeout', '500ms', true);
            FOR listed IN
                SELECT p.pubname FROM pg_catalog.pg_publication_rel AS r
                JOIN pg_catalog.pg_publication AS p ON p.oid OPERATOR(pg_catalog.=) r.prpubid
                WHERE r.prrelid OPERATOR(pg_catalog.=) found.oid
                    AND (p.pubname OPERATOR(pg_catalog.=) '{PUBLICATION}' OR
                        p.pubname OPERATOR(pg_catalog.=) '{PUBLICATION_INSERTS}')
            LOOP
                PERFORM {SCHEMA}.control('{PUBLISH_CONTROL}');
                {_TAKE}
                EXECUTE pg_catalog.format('ALTER PUBLICATION %I DROP TABLE ONLY %s', listed, found.name);
            END LOOP;
            PERFORM pg_catalog.set_config('lock_timeout', patience, true);
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END LOOP;
EXCEPTION WHEN OTHERS THEN
    NULL;
END
"""
"""It reads the path of whoever alters the table, to know which one is meant: so every name here has its schema."""

BODIES = {"keep": KEEP_BODY, "logged": LOGGED_BODY}

_PATHS = {"keep": "SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' ", "logged": ""}


def create_function(name: str) -> str:
    """Create or replace one of the event triggers' functions.

    The time it waits for a publication is shorter than deadlock_timeout, so that giving up never costs the other side.
    """
    return (
        f"CREATE OR REPLACE FUNCTION {SCHEMA}.{name}() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER\n"
        f"{_PATHS[name]}SET standard_conforming_strings = 'on' SET client_min_messages = 'error'\n"
        f"AS $pgwitness${BODIES[name]}$pgwitness$"
    )


def create_event_trigger(name: str) -> list[str]:
    """Create one of our event triggers, anew where it is there in another form."""
    return [
        release_event_trigger(name),
        f"CREATE EVENT TRIGGER {name} ON {_WHEN[name]} EXECUTE FUNCTION {SCHEMA}.{FUNCTIONS[name]}()",
        f"ALTER EVENT TRIGGER {name} ENABLE ALWAYS",
    ]
