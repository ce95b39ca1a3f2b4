"""The SQL of the beacon: the schema `pgwitness`, its functions and its triggers, as texts and functions of names.

tests/collectors/test_beacon_ways_round.py tries on PostgreSQL 15 and 18 what is claimed here. The trigger's function
only decides whether to speak, with every name written out. The function that speaks runs as its owner with a fixed
search_path, so nobody's own functions or operators get between; the guard that lets it speak once in a transaction is
a parameter that ordinary roles may not set; and everything that can fail stands in one block that swallows every
error, with the message itself behind it: emitted inside the block it would take a second transaction id.
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
    f"CREATE UNLOGGED SEQUENCE {SCHEMA}.session_start MINVALUE 0",
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


def beacon_body(guarded: bool) -> str:
    """Give the body of the trigger function; without a guard it speaks with each statement.

    It leaves where there is nothing to say: a transaction that has written nothing has no id, and is given none;
    one that has spoken has closed the guard. That costs less here than in a WHEN clause, which PostgreSQL reads from
    its stored text anew with each statement, and less in a function with the caller's rights and path than in one with
    its owner's (docs/explanation/beacon.md says what costs how much). So it runs with the caller's: every name and
    operator is written with its schema, and what speaks is only called where it is there and may be called, because
    an error of this function would be the application's.
    """
    closed = (
        f"\n        OR pg_catalog.current_setting('{GUARD}') OPERATOR(pg_catalog.=) 'on'"
        "\n            AND pg_catalog.current_setting('role') OPERATOR(pg_catalog.=) 'none'"
    )
    return f"""
DECLARE
    ignored text;
BEGIN
    IF pg_catalog.pg_current_xact_id_if_assigned() IS NULL{closed if guarded else ""} THEN
        RETURN NULL;
    END IF;
    IF (CASE WHEN pg_catalog.has_schema_privilege(pg_catalog.to_regnamespace('{SCHEMA}'), 'USAGE')
        THEN pg_catalog.has_function_privilege(pg_catalog.to_regprocedure('{SCHEMA}.emit_beacon()'), 'EXECUTE') END)
    THEN
        ignored := {SCHEMA}.emit_beacon();
    END IF;
    RETURN NULL;
END
"""


def emit_body(guarded: bool, version: int) -> str:
    """Give the body of the function that speaks, with its owner's rights and a path of its own.

    Whoever may write may call it: it says of its caller only what is so, and says it again if it is asked again.

    When the session began and who logged in (whom SET SESSION AUTHORIZATION does not change) is in pg_stat_activity,
    which costs more than all the rest: it is read once a session and kept as the session's own `currval` of two
    sequences, which nobody else may touch; a session without it learns it from the error and tries again. Where the
    owner may not see it, the session's start stays 0 and its login the session's user. Under SET ROLE the guard stays
    open, so that every change of role within a transaction is told, also the change back.

    The query has no variable of the function in it: with one, PostgreSQL plans it anew in each transaction. It gives
    no row where the beacon is paused or its owner has no right to write messages.
    """
    close = f", set_config('{GUARD}', (current_setting('role') = 'none')::text, true)" if guarded else ", NULL"
    return f"""
DECLARE
    fresh boolean;
    message bytea;
    ignored text;
    lsn pg_lsn;
BEGIN
    LOOP
        BEGIN
            IF fresh THEN
                PERFORM
                    setval('{SCHEMA}.session_start'::regclass,
                        coalesce((extract(epoch FROM s.backend_start) * 1000000)::int8, 0)),
                    setval('{SCHEMA}.session_login'::regclass,
                        coalesce(s.usesysid, to_regrole(quote_ident(session_user))::oid)::int8)
                FROM (SELECT) AS one LEFT JOIN pg_stat_get_activity(pg_backend_pid()) AS s ON true;
            END IF;
            SELECT sha256(p.outer_pad || sha256(p.inner_pad || p.payload)) || p.payload{close}
            INTO message, ignored
            FROM (
                SELECT k.inner_pad, k.outer_pad, convert_to(json_build_array(
                    'beacon/1', k.system_id, current_database(), pg_current_xact_id()::text::int8, pg_backend_pid(),
                    currval('{SCHEMA}.session_start'::regclass),
                    pg_get_userbyid(currval('{SCHEMA}.session_login'::regclass)::oid),
                    CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END,
                    current_setting('application_name'), host(inet_client_addr()), inet_client_port(),
                    nullif(left(current_setting('pgwitness.claim', true), {CLAIM_CHARACTERS_MAX}), ''),
                    CASE WHEN current_setting('pgwitness.token', true) <> '' THEN {SCHEMA}.claimed() END
                    {authenticated(version)}
                )::text, 'UTF8') AS payload
                FROM {SCHEMA}.key AS k WHERE NOT k.paused AND has_function_privilege(3578::oid, 'EXECUTE')
                OFFSET 0
            ) AS p;
            EXIT;
        EXCEPTION
            WHEN object_not_in_prerequisite_state THEN
                IF fresh THEN
                    RETURN;
                END IF;
                fresh := true;
            WHEN OTHERS THEN
                RETURN;
        END;
    END LOOP;
    IF message IS NOT NULL THEN
        lsn := pg_logical_emit_message(true, 'pgwitness.beacon', message);
    END IF;
END
"""


def create_beacon(guarded: bool) -> str:
    """Create or replace the trigger function. STABLE spares a snapshot with each statement inside it."""
    return (
        f"CREATE OR REPLACE FUNCTION {SCHEMA}.beacon() RETURNS trigger LANGUAGE plpgsql STABLE\n"
        f"AS $pgwitness${beacon_body(guarded)}$pgwitness$"
    )


def create_emit(guarded: bool, version: int) -> str:
    """Create or replace the function that speaks for the transaction."""
    return (
        f"CREATE OR REPLACE FUNCTION {SCHEMA}.emit_beacon() RETURNS void LANGUAGE plpgsql STABLE SECURITY DEFINER\n"
        f"SET search_path = pg_catalog, pg_temp AS $pgwitness${emit_body(guarded, version)}$pgwitness$"
    )


CLAIMED_BODY = f"""
DECLARE
    token text := current_setting('pgwitness.token', true);
BEGIN
    RETURN {TOKEN};
END
"""

CREATE_CLAIMED = (
    f"CREATE OR REPLACE FUNCTION {SCHEMA}.claimed() RETURNS text LANGUAGE plpgsql STABLE\n"
    f"SET search_path = pg_catalog, pg_temp AS $pgwitness${CLAIMED_BODY}$pgwitness$"
)
"""A function of its own, so that transactions without a token do not pay for the expression."""


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

BODIES = {
    "beacon": {beacon_body(guarded) for guarded in (True, False)},
    "emit_beacon": {emit_body(guarded, version) for guarded in (True, False) for version in (0, SYSTEM_USER_MIN)},
    "claimed": {CLAIMED_BODY},
}
"""What each function of the beacon may consist of: with and without the guard; an upgraded server keeps what it had."""

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
