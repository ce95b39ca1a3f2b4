"""The SQL of the event triggers with which DDL speaks for itself in the WAL; `covering` has those that act.

What makes the beacon hold (`emission`) holds here: a SECURITY DEFINER function that first of all takes a search_path of
its own and last of all gives the client's back (it tells in which schemas the client's names were looked for, which a
setting of the function would hide; outside of the two every name is written with its schema), a MAC over all it says,
the message behind the block that swallows every error, so that no DDL ever fails because of it. Where the whole message
cannot be made (bytes that are no UTF-8), one without statement and objects says that there was DDL.

Commands that views which mask run inside the client's own (`collectors.masking.upkeep`) say so: by a parameter that
only a superuser sets, which their functions have while they run.

tests/collectors/test_beacon_ddl.py tries on PostgreSQL 15 and 18 what is claimed here.
"""

from __future__ import annotations

from collectors.installation import publishing
from collectors.installation.sql.emission import CLAIM, GUARD, PAUSED, TOKEN, authenticated
from collectors.installation.sql.key_templates import READ_KEY, release_event_trigger
from collectors.installation.sql.templates import MASKS_AT_WORK, SCHEMA, TRIGGER

EVENT_TRIGGERS = {"pgwitness_ddl": "ddl_command_end", "pgwitness_drop": "sql_drop"}
"""Our event triggers and what they wait for."""

STATEMENT_CHARACTERS_MAX = 32_768
"""A longer statement is in the message as its hash only."""
OBJECTS_MAX = 100
"""Objects named in one message; their number is always told."""
IDENTITY_CHARACTERS_MAX = 500

_MADE = f"""
            WITH listed AS (
                SELECT c.object_type, c.object_identity, c.command_tag, r.oid, r.relation,
                    row_number() OVER () AS place,
                    CASE WHEN k.relation IS NOT NULL THEN coalesce((
                        SELECT t.tgenabled FROM pg_trigger AS t WHERE t.tgrelid = r.oid AND t.tgname = '{TRIGGER}'
                            AND {publishing.ours("t")}), '-') END AS beacon
                FROM pg_event_trigger_ddl_commands() AS c
                LEFT JOIN LATERAL (
                    SELECT p.oid, p.relkind, format('%I.%I', n.nspname, p.relname) AS relation
                    FROM pg_class AS p JOIN pg_namespace AS n ON n.oid = p.relnamespace
                    WHERE p.oid = CASE c.classid
                        WHEN 'pg_class'::regclass THEN
                            coalesce((SELECT i.indrelid FROM pg_index AS i WHERE i.indexrelid = c.objid), c.objid)
                        WHEN 'pg_trigger'::regclass THEN (SELECT x.tgrelid FROM pg_trigger AS x WHERE x.oid = c.objid)
                        WHEN 'pg_policy'::regclass THEN (SELECT x.polrelid FROM pg_policy AS x WHERE x.oid = c.objid)
                        WHEN 'pg_rewrite'::regclass THEN (SELECT x.ev_class FROM pg_rewrite AS x WHERE x.oid = c.objid)
                        WHEN 'pg_constraint'::regclass THEN
                            (SELECT x.conrelid FROM pg_constraint AS x WHERE x.oid = c.objid)
                        WHEN 'pg_statistic_ext'::regclass THEN
                            (SELECT x.stxrelid FROM pg_statistic_ext AS x WHERE x.oid = c.objid)
                        WHEN 'pg_publication_rel'::regclass THEN
                            (SELECT x.prrelid FROM pg_publication_rel AS x WHERE x.oid = c.objid)
                        END
                ) AS r ON true
                LEFT JOIN {SCHEMA}.covered AS k ON k.relation = r.oid
                WHERE NOT c.in_extension AND c.schema_name IS DISTINCT FROM 'pg_temp'
            )
            SELECT count(*), (SELECT count(*) FROM pg_event_trigger_ddl_commands()),
                json_agg(json_build_array(object_type, left(object_identity, {IDENTITY_CHARACTERS_MAX}), relation,
                    beacon) ORDER BY place) FILTER (WHERE place <= {OBJECTS_MAX})
            INTO total, every, objects FROM listed;"""

_MADE_WHILE_BUSY = _MADE.replace(f"{SCHEMA}.covered", "(SELECT NULL::oid AS relation)")
"""The same while somebody locks the registry, which pg_write_all_data may: nobody waits for it."""

_DROPPED = f"""
            WITH listed AS (
                SELECT d.object_type, d.object_identity, CASE
                    WHEN d.object_type IN ('table', 'view', 'materialized view', 'foreign table', 'table column',
                        'table constraint', 'trigger', 'rule', 'policy', 'default value', 'publication relation')
                    THEN quote_ident(d.address_names[1]) || '.' || quote_ident(d.address_names[2]) END AS relation,
                    row_number() OVER (ORDER BY NOT d.original, d.object_type <> 'table', d.object_type = 'trigger',
                        d.object_identity COLLATE "C") AS place
                FROM pg_event_trigger_dropped_objects() AS d
                WHERE NOT d.is_temporary AND d.schema_name IS DISTINCT FROM 'pg_toast'
                    AND (d.original OR d.normal OR d.object_type NOT IN ('type', 'default value', 'rule'))
            )
            SELECT count(*), count(*), json_agg(json_build_array(object_type,
                left(object_identity, {IDENTITY_CHARACTERS_MAX}), relation, NULL)
                ORDER BY place) FILTER (WHERE place <= {OBJECTS_MAX})
            INTO total, every, objects FROM listed;"""


_PATH = r"""
            path := (
                SELECT json_agg(n.nspname ORDER BY e.place)
                FROM (
                    SELECT 0 AS place, 'pg_temp' AS name, CASE WHEN EXISTS (
                        SELECT FROM pg_class AS x WHERE x.relnamespace = pg_my_temp_schema())
                        THEN pg_my_temp_schema() ELSE 0::oid END AS temporary
                    UNION ALL
                    SELECT r.place, CASE WHEN r.found[1] IS NULL THEN lower(r.found[2])
                        WHEN r.found[1] = '$user' THEN coalesce(nullif(role_set, 'none'), session_user)
                        ELSE replace(r.found[1], '""', '"') END, 0
                    FROM regexp_matches(looked_for, '"((?:[^"]|"")*)"|([^,"[:space:]]+)', 'g')
                        WITH ORDINALITY AS r(found, place)
                ) AS e JOIN pg_namespace AS n ON n.oid = e.temporary OR n.nspname = e.name
                WHERE e.temporary <> 0 OR e.place > 0
                    AND has_schema_privilege(coalesce(nullif(role_set, 'none'), session_user), n.oid, 'USAGE')
            );"""
"""The schemas in which the client's names were looked for: those of its search_path that are there and open to it."""


def ddl_body(*, version: int) -> str:
    """Give the body of the event triggers' function."""
    authentication = authenticated(version) or ", ''"
    return f"""
DECLARE
    looked_for pg_catalog.text := pg_catalog.current_setting('search_path');
    role_set pg_catalog.text;
    token pg_catalog.text;
    started pg_catalog.int8;
    login pg_catalog.oid;
    inner_pad pg_catalog.bytea;
    outer_pad pg_catalog.bytea;
    system_id pg_catalog.text;
    number pg_catalog.int4;
    busy pg_catalog.bool := false;
    total pg_catalog.int8;
    every pg_catalog.int8;
    objects pg_catalog.json;
    path pg_catalog.json;
    statement pg_catalog.text;
    digest pg_catalog.text;
    message pg_catalog.text;
    lsn pg_catalog.pg_lsn;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    <<telling>>
    BEGIN
    role_set := current_setting('role');
    token := current_setting('pgwitness.token', true);
    statement := current_query();
    BEGIN
        IF {PAUSED} OR NOT has_function_privilege(3577::oid, 'EXECUTE') THEN
            EXIT telling;
        END IF;
{READ_KEY}
        IF tg_event = 'sql_drop' THEN{_DROPPED}
            IF total = 0 THEN
                EXIT telling;
            END IF;
        ELSE
            BEGIN
                LOCK TABLE {SCHEMA}.covered IN ROW EXCLUSIVE MODE NOWAIT;
            EXCEPTION WHEN OTHERS THEN
                busy := true;
            END;
            IF busy THEN{_MADE_WHILE_BUSY}
            ELSE{_MADE}
            END IF;
            IF total = 0 AND (every > 0 OR tg_tag ~ '^(DROP|CREATE) ' AND tg_tag <> 'DROP OWNED'
                OR tg_tag = 'ALTER TABLE' AND statement NOT ILIKE '%tablespace%'
                OR pg_current_xact_id_if_assigned() IS NULL) THEN
                EXIT telling;
            END IF;
        END IF;
        SELECT (extract(epoch FROM s.backend_start) * 1000000)::int8, s.usesysid INTO started, login
        FROM pg_stat_get_activity(pg_backend_pid()) AS s;
        BEGIN{_PATH}
        EXCEPTION WHEN OTHERS THEN
            path := NULL;
        END;
        FOR attempt IN 1..2 LOOP
            BEGIN
                IF attempt = 2 THEN
                    objects := NULL;
                    path := NULL;
                    statement := NULL;
                END IF;
                digest := encode(sha256(convert_to(statement, 'SQL_ASCII')), 'hex');
                IF length(statement) > {STATEMENT_CHARACTERS_MAX} THEN
                    statement := NULL;
                END IF;
                message := json_build_array(
                    'ddl/1', coalesce(system_id, ''), current_database(), pg_current_xact_id()::text::int8,
                    pg_backend_pid(), coalesce(started, 0), coalesce(pg_get_userbyid(login), session_user),
                    CASE role_set WHEN 'none' THEN session_user ELSE role_set END,
                    current_setting('application_name'), host(inet_client_addr()), inet_client_port(),
                    {CLAIM},
                    {TOKEN},
                    tg_event, tg_tag, total, coalesce(objects, '[]'::json), statement, digest{authentication}, path,
                    current_setting('{GUARD}') = '{MASKS_AT_WORK}'
                )::text;
                EXIT;
            EXCEPTION WHEN OTHERS THEN
                message := NULL;
            END;
        END LOOP;
        message := coalesce(encode(sha256(outer_pad || sha256(inner_pad || convert_to(message, 'SQL_ASCII'))), 'hex'),
            repeat('0', 64)) || message;
    EXCEPTION WHEN OTHERS THEN
        EXIT telling;
    END;
    IF message IS NULL THEN
        EXIT telling;
    END IF;
    lsn := pg_logical_emit_message(true, 'pgwitness.ddl', message);
    END;
    PERFORM pg_catalog.set_config('search_path', looked_for, true);
END
"""


def create_ddl(*, version: int) -> str:
    """Create or replace the event triggers' function."""
    return (
        f"CREATE OR REPLACE FUNCTION {SCHEMA}.ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER\n"
        f"SET quote_all_identifiers = off AS $pgwitness${ddl_body(version=version)}$pgwitness$"
    )


def create_event_trigger(name: str) -> list[str]:
    """Create one of our event triggers, anew where it is there in another form."""
    return [
        release_event_trigger(name),
        f"CREATE EVENT TRIGGER {name} ON {EVENT_TRIGGERS[name]} EXECUTE FUNCTION {SCHEMA}.ddl()",
        f"ALTER EVENT TRIGGER {name} ENABLE ALWAYS",
    ]
