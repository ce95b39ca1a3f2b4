"""The SQL of the key: the table it lies in, the functions that make it, and who may read it; nothing is run here.

The table is UNLOGGED, so that neither the WAL nor another replication slot, nor a publication FOR ALL TABLES, carries
it: after a crash and on a promoted standby it is empty, and `renew_key` makes another one. Row security hides its rows
from pg_read_all_data and keeps pg_write_all_data from changing them; it is not forced, because a session with
`row_security = off` would then make the beacon fail. A key is made in the database by `fresh_key`, so that it is
never part of a statement, and is known by its number: that of the *generation* of the functions that speak. They name
the generation in the parameter in which a session keeps its introduction, so that a new one makes every open session
introduce itself again, at no cost and without a lock.
"""

from __future__ import annotations

import re

from collectors.installation.sql.templates import BEACONS, SCHEMA, TRIGGER
from pgwitness.core.events import quote_identifier

SESSION = "'pgwitness.session'"
"""The parameter of the first generation, as the functions name it; of a later one its number follows."""
KEYS_KEPT = 4
"""The key in force and those before it, by which a collector verifies WAL that it has not read yet."""

READ_KEY = f"""\
        BEGIN
            LOCK TABLE {SCHEMA}.key IN ACCESS SHARE MODE NOWAIT;
            SELECT k.inner_pad, k.outer_pad, k.system_id, k.number INTO inner_pad, outer_pad, system_id, number
            FROM {SCHEMA}.key AS k ORDER BY k.number DESC LIMIT 1;
        EXCEPTION WHEN OTHERS THEN
            inner_pad := NULL;
            system_id := NULL;
        END;"""
"""Reads the newest key, or at once none: pg_write_all_data may lock any table, and nobody may wait for that."""

CREATE_KEY = f"""\
CREATE UNLOGGED TABLE {SCHEMA}.key (
    number int PRIMARY KEY,
    key bytea NOT NULL CHECK (length(key) = 32),
    inner_pad bytea NOT NULL CHECK (length(inner_pad) = 64),
    outer_pad bytea NOT NULL CHECK (length(outer_pad) = 64),
    system_id text NOT NULL,
    made_lsn pg_lsn NOT NULL,
    made_xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    made_at timestamptz NOT NULL DEFAULT clock_timestamp()
)"""

FRESH_KEY_BODY = f"""
BEGIN
    INSERT INTO {SCHEMA}.key (number, key, inner_pad, outer_pad, system_id, made_lsn)
    SELECT wanted, fresh.key, pad.inner_pad, pad.outer_pad, control.system_identifier::text, pg_current_wal_insert_lsn()
    FROM (SELECT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) AS key) AS fresh,
        LATERAL (
            SELECT
                decode(string_agg(lpad(to_hex(byte # 54), 2, '0'), '' ORDER BY place), 'hex') AS inner_pad,
                decode(string_agg(lpad(to_hex(byte # 92), 2, '0'), '' ORDER BY place), 'hex') AS outer_pad
            FROM generate_series(0, 63) AS place,
                LATERAL (SELECT CASE WHEN place < 32 THEN get_byte(fresh.key, place) ELSE 0 END AS byte) AS padded
        ) AS pad,
        pg_control_system() AS control
    ON CONFLICT (number) DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM {SCHEMA}.key WHERE number <= wanted - {KEYS_KEPT};
    RETURN true;
END
"""
"""The pads are those of HMAC (RFC 2104). False where somebody else has made that key in the meantime."""

RENEW_KEY_BODY = f"""
DECLARE
    wanted int := coalesce(nullif(split_part({SESSION}, '_', 2), ''), '1')::int;
BEGIN
    IF EXISTS (SELECT FROM {SCHEMA}.key AS k, pg_control_system() AS control
        WHERE k.number = wanted AND k.system_id = control.system_identifier::text) THEN
        RETURN false;
    END IF;
    DELETE FROM {SCHEMA}.key WHERE number = wanted;
    IF NOT {SCHEMA}.fresh_key(wanted) THEN
        RETURN false;
    END IF;
    INSERT INTO {SCHEMA}.covered (relation)
    SELECT t.tgrelid FROM pg_trigger AS t
    WHERE t.tgname = '{TRIGGER}' AND t.tgfoid IN
        ({", ".join(f"to_regprocedure('{SCHEMA}.{name}()')" for name in BEACONS)})
    ON CONFLICT (relation) DO NOTHING;
    PERFORM {SCHEMA}.control('renew_key');
    RETURN true;
END
"""
"""What a crash took away is made anew: the key and the registry, the latter from the triggers that are there. True
where something was made. The row of another cluster (pg_upgrade, a restore of files elsewhere) counts as lost."""

CREATE_FRESH_KEY = (
    f"CREATE OR REPLACE FUNCTION {SCHEMA}.fresh_key(wanted int) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER\n"
    f"SET search_path = pg_catalog, pg_temp AS $pgwitness${FRESH_KEY_BODY}$pgwitness$"
)

CREATE_RENEW_KEY = (
    f"CREATE OR REPLACE FUNCTION {SCHEMA}.renew_key() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER\n"
    f"SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' AS $pgwitness${RENEW_KEY_BODY}$pgwitness$"
)

BODIES = {"fresh_key": {FRESH_KEY_BODY}, "renew_key": {RENEW_KEY_BODY}}

COPY_KEY = f"""\
INSERT INTO {SCHEMA}.key (number, key, inner_pad, outer_pad, system_id, made_lsn)
SELECT 1, key, inner_pad, outer_pad, system_id, '0/0' FROM {SCHEMA}.key_before"""
"""Takes over the key of an installation whose table was in the WAL and in dumps, to verify what it has signed."""


def hide(table: str) -> str:
    """Hide a table's rows from everybody but its owner, superusers and the roles that have a policy."""
    return f"ALTER TABLE {SCHEMA}.{table} ENABLE ROW LEVEL SECURITY"


def show(table: str, role: str) -> list[str]:
    """Let a role read a hidden table."""
    quoted = quote_identifier(role)
    return [
        f"DROP POLICY IF EXISTS {quoted} ON {SCHEMA}.{table}",
        f"CREATE POLICY {quoted} ON {SCHEMA}.{table} FOR SELECT TO {quoted} USING (true)",
    ]


def generation_of(body: str) -> int:
    """Read the generation in a function's body; 1 where it names none."""
    found = re.search(r"'pgwitness\.session_(\d+)'", body)
    return int(found[1]) if found else 1


def of_generation(body: str, generation: int) -> str:
    """Write a function, or a statement that makes one, for a generation."""
    return body if generation == 1 else body.replace(SESSION, f"'pgwitness.session_{generation}'")


def plain(body: str) -> str:
    """Give a body as it would be in the first generation, to compare it."""
    return re.sub(r"'pgwitness\.session_\d+'", SESSION, body)


def keep(extension: str) -> str:
    """Write the statement that makes everything of ours a member of an extension, which no dump contains.

    One whose rights have changed since is taken out and put in again: a dump would write the difference.
    """
    return _each_thing(f"""
        IF NOT thing.fresh THEN
            EXECUTE format('ALTER EXTENSION {quote_identifier(extension)} DROP %s %s', thing.kind, thing.name);
        END IF;
        IF NOT thing.member OR NOT thing.fresh THEN
            EXECUTE format('ALTER EXTENSION {quote_identifier(extension)} ADD %s %s', thing.kind, thing.name);
        END IF;""")


THINGS = f"""\
SELECT o.kind, o.name, e.extname::text AS extension, e.oid IS NOT NULL AS member,
    e.oid IS NULL OR o.acl IS NOT DISTINCT FROM i.initprivs AS fresh
FROM (
    SELECT CASE c.relkind WHEN 'r' THEN 'TABLE' WHEN 'S' THEN 'SEQUENCE' ELSE 'VIEW' END AS kind,
        c.oid::regclass::text AS name, 'pg_class'::regclass AS class, c.oid, c.relacl AS acl, 2 AS place
    FROM pg_class AS c WHERE c.relnamespace = to_regnamespace('{SCHEMA}') AND c.relkind IN ('r', 'S', 'v')
        AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
            AND d.deptype IN ('a', 'i') AND d.refclassid = 'pg_class'::regclass)
    UNION ALL
    SELECT 'FUNCTION', p.oid::regprocedure::text, 'pg_proc'::regclass, p.oid, p.proacl, 3
    FROM pg_proc AS p WHERE p.pronamespace = to_regnamespace('{SCHEMA}')
    UNION ALL
    SELECT 'SCHEMA', quote_ident(n.nspname), 'pg_namespace'::regclass, n.oid, n.nspacl, 1
    FROM pg_namespace AS n WHERE n.nspname = '{SCHEMA}'
    UNION ALL
    SELECT 'EVENT TRIGGER', quote_ident(e.evtname), 'pg_event_trigger'::regclass, e.oid, NULL, 4
    FROM pg_event_trigger AS e JOIN pg_proc AS p ON p.oid = e.evtfoid
    WHERE p.pronamespace = to_regnamespace('{SCHEMA}')
) AS o
LEFT JOIN pg_depend AS d ON d.classid = o.class AND d.objid = o.oid AND d.objsubid = 0
    AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
LEFT JOIN pg_extension AS e ON e.oid = d.refobjid
LEFT JOIN pg_init_privs AS i ON i.classoid = o.class AND i.objoid = o.oid AND i.objsubid = 0 AND i.privtype = 'e'
ORDER BY o.place"""
"""What of ours can be a member of an extension, whether it is, and whether its rights are those it had then."""


def _each_thing(action: str) -> str:
    return (
        "DO $pgwitness$\nDECLARE\n    thing record;\nBEGIN\n    FOR thing IN\n        "
        + THINGS.replace("\n", "\n        ")
        + f"\n    LOOP{action}\n    END LOOP;\nEND\n$pgwitness$"
    )


RELEASE = _each_thing("""
        IF thing.member THEN
            EXECUTE format('ALTER EXTENSION %I DROP %s %s', thing.extension, thing.kind, thing.name);
        END IF;""")
"""Takes everything of ours out of the extension that holds it: a member cannot be dropped."""


def drop_function(signature: str) -> str:
    """Take one of our functions out of the extension that holds it, and drop it, where it is there."""
    return (
        "DO $pgwitness$\nDECLARE\n    held text;\nBEGIN\n"
        "    SELECT x.extname INTO held FROM pg_depend AS d JOIN pg_extension AS x ON x.oid = d.refobjid\n"
        f"    WHERE d.classid = 'pg_proc'::regclass AND d.objid = to_regprocedure('{SCHEMA}.{signature}')\n"
        "        AND d.deptype = 'e';\n"
        "    IF held IS NOT NULL THEN\n"
        f"        EXECUTE format('ALTER EXTENSION %I DROP FUNCTION {SCHEMA}.{signature}', held);\n"
        "    END IF;\n"
        f"    DROP FUNCTION IF EXISTS {SCHEMA}.{signature};\nEND\n$pgwitness$"
    )


def release_event_trigger(name: str) -> str:
    """Take one of our event triggers out of the extension that holds it, and drop it, where it is there."""
    return (
        "DO $pgwitness$\nDECLARE\n    held text;\nBEGIN\n"
        "    SELECT x.extname INTO held FROM pg_event_trigger AS e\n"
        "    JOIN pg_depend AS d ON d.classid = 'pg_event_trigger'::regclass AND d.objid = e.oid AND d.deptype = 'e'\n"
        f"    JOIN pg_extension AS x ON x.oid = d.refobjid WHERE e.evtname = '{name}';\n"
        "    IF held IS NOT NULL THEN\n"
        f"        EXECUTE format('ALTER EXTENSION %I DROP EVENT TRIGGER {name}', held);\n"
        "    END IF;\n"
        f"    DROP EVENT TRIGGER IF EXISTS {name};\nEND\n$pgwitness$"
    )
