"""The SQL of the beacon: the schema `pgwitness`, its function and its triggers, as texts and functions of names.

tests/collectors/test_beacon_ways_round.py tries on PostgreSQL 15 and 18 what is claimed here. The function runs as its
owner with a fixed search_path, so nobody's own functions or operators get between; the guard that lets it speak once
in a transaction is a parameter that ordinary roles may not set; and everything that can fail stands in one block that
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

TOKEN_CHARACTERS_MAX = 8_192
"""How long a token may be; a longer one is cut and will not verify."""

STAMP = "(extract(epoch FROM transaction_timestamp()) * 1000000)::int8::text"
"""What ties a token to its transaction: a session has one transaction at a time, each with its own start."""

TOKEN = (
    f"CASE WHEN token <> '' AND split_part(token, ':', 1) = {STAMP}"
    f" THEN nullif(left(substr(token, strpos(token, ':') + 1), {TOKEN_CHARACTERS_MAX}), '') END"
)
"""The token of this transaction; one that an earlier transaction left in the session is none."""

SYSTEM_USER_MIN = 160_000
"""The first version that tells a session how it authenticated."""


def authenticated(version: int) -> str:
    """Give the last element of a message where the server has it: method and identity, null for `trust`."""
    return ", SYSTEM_USER" if version >= SYSTEM_USER_MIN else ""


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

CREATE_SEQUENCES = (
    f"CREATE UNLOGGED SEQUENCE {SCHEMA}.session_start",
    f"CREATE UNLOGGED SEQUENCE {SCHEMA}.session_login",
)
"""Not counted with: `currval` is memory of a session that only the sequence's owner can write."""

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


def beacon_body(guarded: bool, version: int) -> str:
    """Give the body of the trigger function; without a guard it speaks with each statement.

    It first leaves where there is nothing to say: a transaction that has written nothing has no id, and is given none;
    one that has spoken has closed the guard. That costs less here than in a WHEN clause, which PostgreSQL reads from
    its stored text anew with each statement (docs/explanation/beacon.md says what costs how much).

    When the session began and who logged in (whom SET SESSION AUTHORIZATION does not change) is in pg_stat_activity,
    which costs more than all the rest: it is read once a session and kept as the session's own `currval` of two
    sequences, which nobody else may touch; a session without it learns it from the error and tries again. Under SET
    ROLE the function speaks with each statement and leaves the guard open, so that every change of role within a
    transaction is told, also the change back.
    """
    closed = f" OR current_setting('{GUARD}') = 'on' AND current_setting('role') = 'none'" if guarded else ""
    once = "CASE current_setting('role') WHEN 'none' THEN 'on' ELSE 'off' END"
    close = f"\n            ignored := set_config('{GUARD}', {once}, true);" if guarded else ""
    return f"""
DECLARE
    fresh boolean;
    token text;
    started int8;
    login int8;
    inner_pad bytea;
    outer_pad bytea;
    message bytea;
    ignored text;
    lsn pg_lsn;
BEGIN
    IF pg_current_xact_id_if_assigned() IS NULL{closed} THEN
        RETURN NULL;
    END IF;
    LOOP
        BEGIN
            token := current_setting('pgwitness.token', true);
            IF fresh THEN
                SELECT
                    setval('{SCHEMA}.session_start'::regclass, (extract(epoch FROM s.backend_start) * 1000000)::int8),
                    setval('{SCHEMA}.session_login'::regclass, s.usesysid::int8)
                INTO started, login FROM pg_stat_get_activity(pg_backend_pid()) AS s WHERE s.usesysid IS NOT NULL;
            END IF;
            SELECT k.inner_pad, k.outer_pad, convert_to(json_build_array(
                'beacon/1', k.system_id, current_database(), pg_current_xact_id()::text::int8, pg_backend_pid(),
                CASE WHEN fresh THEN coalesce(started, 0) ELSE currval('{SCHEMA}.session_start'::regclass) END,
                coalesce(pg_get_userbyid(
                    CASE WHEN fresh THEN login ELSE currval('{SCHEMA}.session_login'::regclass) END::oid
                ), session_user),
                CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END,
                current_setting('application_name'), host(inet_client_addr()), inet_client_port(),
                nullif(left(current_setting('pgwitness.claim', true), {CLAIM_CHARACTERS_MAX}), ''),
                {TOKEN}{authenticated(version)}
            )::text, 'UTF8') INTO inner_pad, outer_pad, message
            FROM {SCHEMA}.key AS k WHERE NOT k.paused AND has_function_privilege(3578::oid, 'EXECUTE');
            IF NOT FOUND THEN
                RETURN NULL;
            END IF;
            message := sha256(outer_pad || sha256(inner_pad || message)) || message;{close}
            EXIT;
        EXCEPTION
            WHEN object_not_in_prerequisite_state THEN
                IF fresh THEN
                    RETURN NULL;
                END IF;
                fresh := true;
            WHEN OTHERS THEN
                RETURN NULL;
        END;
    END LOOP;
    lsn := pg_logical_emit_message(true, 'pgwitness.beacon', message);
    RETURN NULL;
END
"""


def beacon_bodies(guarded: bool) -> set[str]:
    """Give the bodies that an installation makes on some version: an upgraded server keeps the one it had."""
    return {beacon_body(guarded, version) for version in (0, SYSTEM_USER_MIN)}


def create_beacon(guarded: bool, version: int) -> str:
    """Create or replace the trigger function. STABLE spares a snapshot with each statement inside it."""
    return (
        f"CREATE OR REPLACE FUNCTION {SCHEMA}.beacon() RETURNS trigger LANGUAGE plpgsql STABLE SECURITY DEFINER\n"
        f"SET search_path = pg_catalog, pg_temp AS $pgwitness${beacon_body(guarded, version)}$pgwitness$"
    )


CLAIM_BODY = f"""
BEGIN
    PERFORM set_config('pgwitness.token',
        {STAMP} || ':' || coalesce(left(token, {TOKEN_CHARACTERS_MAX + 1}), ''), true);
END
"""

CREATE_CLAIM = (
    f"CREATE OR REPLACE FUNCTION {SCHEMA}.claim(token text) RETURNS void LANGUAGE plpgsql\n"
    f"SET search_path = pg_catalog, pg_temp AS $pgwitness${CLAIM_BODY}$pgwitness$"
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


def create_trigger(table: str) -> list[str]:
    """Put the beacon on a table (its name quoted and qualified); replaces one that is there."""
    return [
        f"CREATE OR REPLACE TRIGGER {TRIGGER} AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}\n"
        f"FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.beacon()",
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {TRIGGER}",
    ]


def create_publication(name: str, operations: str) -> str:
    """Create an empty publication; tables are added one by one."""
    return (
        f"CREATE PUBLICATION {quote_identifier(name)} "
        f"WITH (publish = '{operations}', publish_via_partition_root = true)"
    )
