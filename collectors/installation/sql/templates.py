"""What an installation puts into a database beside the functions that speak (`emission`): names, tables, triggers.

The schema `pgwitness` belongs to a role that cannot log in; the key in it is read by that role and by the collectors'
alone. Texts and functions of names; nothing is run here.
"""

from __future__ import annotations

SCHEMA = "pgwitness"
SCHEMA_OF_GUARD = "pgwitness_guard"
"""What `collectors.guard` keeps in a database; never covered: what it writes there is nobody's doing."""
SCHEMA_OF_MASKS = "pgwitness_masks"
OWNER_OF_MASKS = "pgwitness_masks"
"""What `collectors.masking` keeps in a database; never covered: a key lies there."""
MASKS_AT_WORK = "pgwitness_masks_puts_its_views_aside_and_back_for_the_clients_own_command"
"""What the guard (`emission.GUARD`), which only a superuser sets, holds while views that mask stand aside or come back.

It is longer than the name of a role can be, which is what the beacon puts there.
"""
OWNER = "pgwitness_owner"
"""Owns the schema, cannot log in, and is the only role that may set the guard."""
TRIGGER = "pgwitness_beacon"
BEACON, BEACON_EACH, BEACON_TREE = "beacon", "beacon_each", "beacon_tree"
BEACONS = (BEACON, BEACON_EACH, BEACON_TREE)
"""The triggers' functions: one that speaks once in a transaction, one for each statement, one for what lies below."""
TREE = "tree"
"""The trigger's argument where rows lie in tables below: its beacon speaks when it wrote there and nobody publishes it.

Inserts are not looked at: they are published of every table in the WAL.
"""
MIXED = "mixed"
"""The same where not even every insert is published (an unlogged partition, a root that is not listed), or where the
table has rows of its own that are not published: its beacon speaks with each statement, and looks below each time."""
PUBLICATION = "pgwitness"
PUBLICATION_INSERTS = "pgwitness_inserts"
SECRETS = ("session_secret_1", "session_secret_2")
"""Sequences that nothing counts with: `currval` is memory of a session that only their owner can write or read."""

CREATE_SCHEMA = f"CREATE SCHEMA IF NOT EXISTS {SCHEMA} AUTHORIZATION {OWNER}"

CREATE_COVERED = f"""\
CREATE UNLOGGED TABLE {SCHEMA}.covered (
    relation regclass PRIMARY KEY,
    installed_at timestamptz NOT NULL DEFAULT now(),
    installed_by text NOT NULL DEFAULT session_user
)"""
"""UNLOGGED, because a subscriber of somebody's publication FOR ALL TABLES would stop at rows of a table it has not."""

CONTROL_BODY = f"""
DECLARE
    message text;
BEGIN
    PERFORM {SCHEMA}.renew_key();
    SELECT encode(sha256(k.outer_pad || sha256(k.inner_pad || convert_to(p.payload, 'SQL_ASCII'))), 'hex') || p.payload
    INTO message
    FROM {SCHEMA}.key AS k,
        LATERAL (SELECT json_build_array(
            'control/1', k.system_id, current_database(), pg_current_xact_id()::text::int8, operation, session_user
        )::text AS payload OFFSET 0) AS p
    ORDER BY k.number DESC LIMIT 1;
    PERFORM pg_logical_emit_message(true, 'pgwitness.control', message);
END
"""

CREATE_CONTROL = (
    f"CREATE OR REPLACE FUNCTION {SCHEMA}.control(operation text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER\n"
    f"SET search_path = pg_catalog, pg_temp AS $pgwitness${CONTROL_BODY}$pgwitness$"
)


def create_secret(name: str) -> str:
    """Create one of the sequences; a secret is any 64 bits."""
    return f"CREATE UNLOGGED SEQUENCE {SCHEMA}.{name} MINVALUE {-(2**63)}"


def create_trigger(table: str, argument: str = "") -> list[str]:
    """Put the beacon on a table (its name quoted and qualified); replaces one that is there.

    With an argument (`publishing`) it may speak more than once in a transaction.
    """
    name = BEACON if not argument else BEACON_TREE if argument in (TREE, MIXED) else BEACON_EACH
    called = f"{name}('{argument}')" if argument else f"{name}()"
    return [
        f"CREATE OR REPLACE TRIGGER {TRIGGER} AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}\n"
        f"FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.{called}",
        f"ALTER TABLE ONLY {table} ENABLE ALWAYS TRIGGER {TRIGGER}",
    ]
