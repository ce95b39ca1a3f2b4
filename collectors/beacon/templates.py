"""The SQL of the beacon: the schema `pgwitness`, its function and its triggers, as texts and functions of names.

What holds here was tried on PostgreSQL 15 and 18 (docs/explanation/beacon.md). The function runs as its owner with a
fixed search_path, so nobody's own functions or operators get between; the guard that lets it speak once in a
transaction is a parameter that ordinary roles may not set; and everything that can fail stands in one block that
swallows every error, with the message itself behind it: emitted inside the block it would take a second transaction id.
"""

from __future__ import annotations

from pgwitness.events import quote_identifier

SCHEMA = "pgwitness"
OWNER = "pgwitness_owner"
"""Owns the schema, cannot log in, and is the only role that may set the guard."""
TRIGGER = "pgwitness_beacon"
PUBLICATION = "pgwitness"
PUBLICATION_INSERTS = "pgwitness_inserts"
GUARD = "log_replication_commands"
"""Only walsenders read it and only superusers set it; elsewhere it means nothing."""

CLAIM_CHARACTERS_MAX = 1000
"""How much of `pgwitness.claim` a beacon carries, in characters."""

CREATE_SCHEMA = f"CREATE SCHEMA IF NOT EXISTS {SCHEMA} AUTHORIZATION {OWNER}"

CREATE_KEY = f"""\
CREATE TABLE {SCHEMA}.key (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    key bytea NOT NULL CHECK (length(key) = 32),
    inner_pad bytea NOT NULL CHECK (length(inner_pad) = 64),
    outer_pad bytea NOT NULL CHECK (length(outer_pad) = 64),
    system_id text NOT NULL,
    paused boolean NOT NULL DEFAULT false
)"""

CREATE_COVERED = f"""\
CREATE TABLE {SCHEMA}.covered (
    relation regclass PRIMARY KEY,
    publication text,
    installed_at timestamptz NOT NULL DEFAULT now(),
    installed_by text NOT NULL DEFAULT session_user
)"""

INSERT_KEY = f"""\
INSERT INTO {SCHEMA}.key (key, inner_pad, outer_pad, system_id)
SELECT fresh.key, pad.inner_pad, pad.outer_pad, control.system_identifier::text
FROM (SELECT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) AS key) AS fresh,
    LATERAL (
        SELECT
            decode(string_agg(lpad(to_hex(byte # 54), 2, '0'), '' ORDER BY place), 'hex') AS inner_pad,
            decode(string_agg(lpad(to_hex(byte # 92), 2, '0'), '' ORDER BY place), 'hex') AS outer_pad
        FROM generate_series(0, 63) AS place,
            LATERAL (SELECT CASE WHEN place < 32 THEN get_byte(fresh.key, place) ELSE 0 END AS byte) AS padded
    ) AS pad,
    pg_control_system() AS control
ON CONFLICT (single) DO NOTHING"""
"""The key is made in the database and leaves it only to the collectors; the pads are those of HMAC (RFC 2104)."""

REFRESH_KEY = f"""\
UPDATE {SCHEMA}.key SET system_id = control.system_identifier::text FROM pg_control_system() AS control"""
"""After pg_upgrade or a restore elsewhere the key's row still names the cluster it came from."""


def beacon_body(guarded: bool) -> str:
    """Give the body of the trigger function; without a guard it speaks with each statement.

    The session's user is the one who logged in, also after SET SESSION AUTHORIZATION, which shows as a role.
    Under SET ROLE it speaks with each statement as well and leaves the guard open, so that every change of role
    within a transaction is told, also the change back.
    """
    once = "CASE current_setting('role') WHEN 'none' THEN 'on' ELSE 'off' END"
    close = f"\n        guard := set_config('{GUARD}', {once}, true);" if guarded else ""
    return f"""
DECLARE
    message bytea;
    guard text;
    lsn pg_lsn;
BEGIN
    BEGIN
        SELECT sha256(k.outer_pad || sha256(k.inner_pad || p.payload)) || p.payload INTO message
        FROM {SCHEMA}.key AS k,
            LATERAL (SELECT convert_to(json_build_array(
                'beacon/1', k.system_id, current_database(), pg_current_xact_id()::text::int8, pg_backend_pid(),
                coalesce((extract(epoch FROM s.backend_start) * 1000000)::int8, 0),
                coalesce(pg_get_userbyid(s.usesysid), session_user),
                CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END,
                current_setting('application_name'), host(inet_client_addr()), inet_client_port(),
                nullif(left(current_setting('pgwitness.claim', true), {CLAIM_CHARACTERS_MAX}), '')
            )::text, 'UTF8') AS payload FROM pg_stat_get_activity(pg_backend_pid()) AS s OFFSET 0) AS p
        WHERE NOT k.paused AND has_function_privilege(3578::oid, 'EXECUTE');{close}
    EXCEPTION WHEN OTHERS THEN
        RETURN NULL;
    END;
    IF message IS NOT NULL THEN
        lsn := pg_logical_emit_message(true, 'pgwitness.beacon', message);
    END IF;
    RETURN NULL;
END
"""


def create_beacon(guarded: bool) -> str:
    """Create or replace the trigger function. STABLE spares a snapshot with each statement inside it."""
    return (
        f"CREATE OR REPLACE FUNCTION {SCHEMA}.beacon() RETURNS trigger LANGUAGE plpgsql STABLE SECURITY DEFINER\n"
        f"SET search_path = pg_catalog, pg_temp AS $pgwitness${beacon_body(guarded)}$pgwitness$"
    )


CONTROL_BODY = f"""
DECLARE
    message bytea;
BEGIN
    SELECT sha256(k.outer_pad || sha256(k.inner_pad || p.payload)) || p.payload INTO message
    FROM {SCHEMA}.key AS k,
        LATERAL (SELECT convert_to(json_build_array(
            'control/1', k.system_id, current_database(), pg_current_xact_id()::text::int8, operation, session_user
        )::text, 'UTF8') AS payload OFFSET 0) AS p;
    PERFORM pg_logical_emit_message(true, 'pgwitness.control', message);
END
"""

CREATE_CONTROL = (
    f"CREATE OR REPLACE FUNCTION {SCHEMA}.control(operation text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER\n"
    f"SET search_path = pg_catalog, pg_temp AS $pgwitness${CONTROL_BODY}$pgwitness$"
)


def when_clause(guarded: bool) -> str:
    """Give the trigger's condition: a transaction that has written nothing has no id, and is given none."""
    assigned = "pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL"
    if not guarded:
        return assigned
    closed = f"pg_catalog.current_setting('{GUARD}') = 'off' OR pg_catalog.current_setting('role') <> 'none'"
    return f"({closed}) AND {assigned}"


def create_trigger(table: str, guarded: bool) -> list[str]:
    """Put the beacon on a table (its name quoted and qualified); replaces one that is there."""
    return [
        f"CREATE OR REPLACE TRIGGER {TRIGGER} AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}\n"
        f"FOR EACH STATEMENT WHEN ({when_clause(guarded)}) EXECUTE FUNCTION {SCHEMA}.beacon()",
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {TRIGGER}",
    ]


def create_publication(name: str, operations: str) -> str:
    """Create an empty publication; tables are added one by one."""
    return (
        f"CREATE PUBLICATION {quote_identifier(name)} "
        f"WITH (publish = '{operations}', publish_via_partition_root = true)"
    )
