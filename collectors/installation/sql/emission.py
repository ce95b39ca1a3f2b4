"""The SQL with which a transaction says who makes it: the triggers' function and what it calls the first time.

A message is text in the database's own encoding, because other slots show it to their clients: a code of 64 hexadecimal
digits, then fields joined by U+001F (`verifier` verifies it):

    xid, session_user, role, application, claims, relation, statement, inserted, updated, deleted, session

`relation` is the OID of the table whose trigger speaks, `statement` what ran on it, and the three numbers are the rows
of it that the session's statistics count and have not handed on yet: those of this transaction, and those of the
session's transactions in the seconds before it, rolled back ones too (`collectors.wal.assembly.unpublished` tells them
apart). A trigger with an argument (`beacon_each('each')`) speaks with each statement, for a table of which not
everything is published. On a table with others below it (`beacon_tree('tree')`) it speaks where those hold what it
wrote and are not published (`below`): of each it says the same in a message of its own, whose `statement` ends in
`BELOW`.

`session` is made once a session by `introduce`: what does not change in it (cluster, database, pid, start, who logged
in, address), as JSON under an HMAC of the database's key. It lies in a parameter that the client can read and overwrite
(`pgwitness.session`); another one than its own does not verify, because with it goes a secret of the session, derived
from the key and the HMAC, that lies where the client can do neither: as the session's own `currval` of two sequences.
The code is the SHA-256 of the fields before `session`, as bytes, between the two halves of that secret. Bytes are taken
as if the database had no encoding (`SQL_ASCII`): nothing is converted, so no text that it holds can fail. A transaction
needs neither the key's row nor anything else from a table, and the collector can verify each message by itself.

tests/collectors/test_beacon_ways_round.py tries on PostgreSQL what is claimed here; docs/explanation/beacon.md says
what costs how much and why it has this form.
"""

from __future__ import annotations

from collectors.beacon.mac import PREFIX
from collectors.installation.sql import below, key_templates
from collectors.installation.sql.key_templates import READ_KEY, SESSION
from collectors.installation.sql.templates import (
    BEACON,
    BEACON_EACH,
    BEACON_TREE,
    BEACONS,
    MIXED,
    PUBLICATION,
    SCHEMA,
    SECRETS,
    TREE,
)

GUARD = "backtrace_functions"
"""Names functions of the server whose errors are logged with a backtrace; only superusers set it. A transaction that
has spoken leaves in it, until its end, the role in which it did."""
CLAIM_CHARACTERS_MAX = 1000
"""How much of `pgwitness.claim` a beacon carries, in characters."""
TOKEN_CHARACTERS_MAX = 8_192
"""How long a token may be; a longer one is cut and will not verify."""

STAMP = "(extract(epoch FROM transaction_timestamp()) * 1000000)::int8::text"
"""What ties a token to its transaction: a session has one transaction at a time, each with its own start."""

_SEPARATORS = r"E'\x1e\x1f'"

CLAIM = (
    f"nullif(left(translate(current_setting('pgwitness.claim', true), {_SEPARATORS}, ''), {CLAIM_CHARACTERS_MAX}), '')"
)
"""What the client claims. A lone separator stands there when it gave a token and claimed nothing."""

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


SETTINGS = (
    "auto_explain.log_min_duration", "compute_query_id", "log_error_verbosity", "log_min_duration_statement",
    "log_min_error_statement", "log_min_messages", "log_statement", "pg_stat_statements.track",
    "pg_stat_statements.track_utility", "pgaudit.log", "session_replication_role", "track_activities",
)  # fmt: skip
"""Settings by which a session keeps other witnesses from seeing it: superusers set them, and who was granted that."""

_OWN_SETTINGS = f"""(
                            SELECT json_object_agg(s.name, left(s.setting, 40) ORDER BY s.name) FROM pg_settings AS s
                            WHERE s.name IN ({", ".join(f"'{name}'" for name in SETTINGS)})
                                AND s.source IN ('database', 'user', 'database user', 'client', 'session')
                                AND (s.source <> 'session' OR s.setting <> s.reset_val))"""
"""Those of `SETTINGS` that are this session's own; reading them all costs a fifth of a millisecond."""

_MAY_SET = f"""(
                            EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = session_user AND r.rolsuper)
                            OR EXISTS (SELECT FROM pg_parameter_acl AS p
                                WHERE p.parname IN ({", ".join(f"'{name}'" for name in SETTINGS)})
                                    AND has_parameter_privilege(session_user, p.parname, 'SET')))"""

SILENCED_PREFIX = "pgwitness.silenced"
"""Under it stands what a beacon that could make no message says all the same; nothing proves who wrote it."""

WROTE = """TG_RELID, TG_OP, pg_catalog.pg_stat_get_xact_tuples_inserted(TG_RELID),
            pg_catalog.pg_stat_get_xact_tuples_updated(TG_RELID),
            pg_catalog.pg_stat_get_xact_tuples_deleted(TG_RELID)"""
"""What the transaction wrote when it spoke: table, statement, and rows as the session's statistics have them."""


def _said(role: str, *more: str) -> str:
    """Write what a transaction says of itself, and `more`; it ends where the session goes on."""
    return (
        "pg_catalog.concat_ws(E'\\x1f', pg_catalog.pg_current_xact_id(), session_user,\n"
        f"            {role},\n"
        f"            pg_catalog.current_setting('application_name'), {', '.join(more)}, '')"
    )


def _message(said: str) -> str:
    """Write the message; null in a session that has lost its introduction, an error in one that has had none."""
    one, other = (f"pg_catalog.currval('{SCHEMA}.{name}'::pg_catalog.regclass)" for name in SECRETS)
    session = f"pg_catalog.current_setting({SESSION}, true)"
    return (
        "pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(\n"
        f"            pg_catalog.concat_ws(E'\\x1f', {one}, {said},\n"
        f"                {other}), 'SQL_ASCII')), 'hex')\n"
        f"            OPERATOR(pg_catalog.||) {said} OPERATOR(pg_catalog.||)\n"
        f"                CASE WHEN {session} OPERATOR(pg_catalog.<>) ''\n"
        f"                THEN {session} END"
    )


ROLE = "pg_catalog.current_setting('role')"

PAUSE = "\n    RETURN NEW; -- paused"
"""The first statement of the triggers' function while every beacon is paused; nothing else of it is reached then."""

PAUSED = f"""coalesce((SELECT strpos(p.prosrc, '{PAUSE.strip()}') > 0 FROM pg_catalog.pg_proc AS p
            WHERE p.proname = 'beacon' AND p.pronamespace = to_regnamespace('{SCHEMA}')), false)"""
"""Asks whether every beacon of the database is paused: the function says so itself, to whoever asks."""


def beacon_body(guarded: bool, name: str = BEACON, *, paused: bool = False) -> str:
    """Give the body of one of the triggers' functions (`templates`); without a guard it speaks with each statement.

    It runs as its owner, but with the path of whoever writes, because a path of its own would cost more than all that
    it decides: so every name, type and operator is written with its schema, and nothing is written that PostgreSQL
    resolves by path unseen (NULLIF, CASE with an operand, IN, casts to unqualified types).

    Each expression is prepared once in a transaction, and those of this function for each table: hence few of them.
    First the one that spares a statement that has changed nothing all others; then the guard, one comparison: it is
    closed for the role in which the transaction has spoken, so that a change of role is told, and the change back.

    What can fail stands in one block. The message itself stands behind it: emitted inside, it would take a second
    transaction id; whether it may be emitted is therefore asked before. `RETURN NEW`, of a statement nothing, is the
    one return without an expression.

    Tables of which not everything is published have functions of their own, so that the others do not pay for what
    these ask. Those speak with each statement; of an INSERT once, because inserts are published of every table.
    """
    role = f"pg_catalog.set_config('{GUARD}', {ROLE}, true)" if guarded else ROLE
    closed = f"pg_catalog.current_setting('{GUARD}') OPERATOR(pg_catalog.=) {ROLE}"
    start = "pg_catalog.pg_current_xact_id_if_assigned() IS NULL"
    pause = PAUSE if paused else ""
    if name == BEACON_TREE:
        return _TREE.format(
            pause=pause, start=start, closed=closed if guarded else "false", speech=_speech(role, "wrote")
        )
    silent = "RETURN NEW;"
    if name == BEACON_EACH:
        silent = "IF TG_OP OPERATOR(pg_catalog.=) 'INSERT' THEN\n            RETURN NEW;\n        END IF;"
    guard = f"""
    IF {closed} THEN
        {silent}
    END IF;"""
    return f"""
BEGIN{pause}
    IF {start} THEN
        RETURN NEW;
    END IF;{guard if guarded else ""}{_speech(role, WROTE)}
    RETURN NEW;
END
"""


_TREE = f"""
DECLARE
    closed pg_catalog.bool;
    lines pg_catalog.text[];
    wrote pg_catalog.text;
BEGIN{{pause}}
    IF {{start}} THEN
        RETURN NEW;
    END IF;
    closed := {{closed}};
    IF TG_OP OPERATOR(pg_catalog.=) 'INSERT' AND TG_ARGV[0] OPERATOR(pg_catalog.<>) '{MIXED}' THEN
        IF closed THEN
            RETURN NEW;
        END IF;
    ELSIF TG_ARGV[0] OPERATOR(pg_catalog.=) '{TREE}' OR TG_ARGV[0] OPERATOR(pg_catalog.=) '{MIXED}' THEN
        BEGIN
            IF NOT EXISTS (
                SELECT FROM pg_catalog.pg_publication_rel AS r
                JOIN pg_catalog.pg_publication AS p ON p.oid OPERATOR(pg_catalog.=) r.prpubid
                WHERE r.prrelid OPERATOR(pg_catalog.=) TG_RELID AND r.prqual IS NULL AND p.pubupdate AND p.pubdelete
                    AND p.pubname OPERATOR(pg_catalog.=) '{PUBLICATION}'
                    AND EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) TG_RELID
                        AND c.relkind OPERATOR(pg_catalog.=) 'p')
            ) OR TG_ARGV[0] OPERATOR(pg_catalog.=) '{MIXED}' THEN
                lines := {SCHEMA}.below(TG_RELID, TG_OP, TG_ARGV[0]);
            END IF;
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
        IF closed AND lines IS NULL AND TG_ARGV[0] OPERATOR(pg_catalog.=) '{TREE}'
            AND TG_OP OPERATOR(pg_catalog.<>) 'TRUNCATE' THEN
            RETURN NEW;
        END IF;
    END IF;
    FOREACH wrote IN ARRAY pg_catalog.array_prepend(pg_catalog.concat_ws(E'\\x1f', {WROTE}), lines) LOOP{{speech}}
    END LOOP;
    RETURN NEW;
END
"""


def _speech(role: str, wrote: str) -> str:
    """Write how a message is made and emitted; `wrote` is what it says was written.

    Variables stand in this block, not the function's, so that only a transaction that speaks sets them up. Emitting
    gives null for a message that is null, and writes nothing then: so that asks whether there is one, too.
    """
    return f"""
    DECLARE
        claims pg_catalog.text;
        said pg_catalog.text;
        message pg_catalog.text;
        lsn pg_catalog.pg_lsn;
        failed pg_catalog.text;
    BEGIN
        BEGIN
            IF NOT pg_catalog.has_function_privilege(3577::pg_catalog.oid, 'EXECUTE')
                OR pg_catalog.current_setting('pgwitness.claim', true) OPERATOR(pg_catalog.<>) '' THEN
                IF NOT pg_catalog.has_function_privilege(3577::pg_catalog.oid, 'EXECUTE') THEN
                    RETURN NEW;
                END IF;
                claims := {SCHEMA}.claimed();
            END IF;
            said := {_said(role, "COALESCE(claims, '')", wrote)};
            message := {_message("said")};
        EXCEPTION
            WHEN object_not_in_prerequisite_state OR invalid_parameter_value THEN
                message := NULL;
            WHEN OTHERS THEN
                failed := SQLSTATE;
                message := NULL;
        END;
        IF {_emit("message")} IS NULL THEN
            BEGIN
                message := {SCHEMA}.introduce(pg_catalog.concat_ws(E'\\x1f', COALESCE(claims, ''),
            {wrote}));
            EXCEPTION WHEN OTHERS THEN
                failed := SQLSTATE;
            END;
            IF message IS NULL THEN
                IF failed IS NOT NULL THEN
                    BEGIN
                        lsn := pg_catalog.pg_logical_emit_message(true, '{SILENCED_PREFIX}',
                            pg_catalog.concat_ws(E'\\x1f', failed, session_user, {ROLE}, TG_RELID, TG_OP));
                    EXCEPTION WHEN OTHERS THEN
                        NULL;
                    END;
                END IF;
                RETURN NEW;
            END IF;
            lsn := {_emit("message")};
        END IF;
    END;"""


def _emit(message: str) -> str:
    return f"pg_catalog.pg_logical_emit_message(true, '{PREFIX}', {message})"


def introduce_body(guarded: bool, version: int) -> str:
    """Give the body of the function that makes the first message of a session, and those of unusual roles.

    The guard holds letters, digits, `_`, `,` and blanks: under SET ROLE to a role with another character in its name
    it stays open, and each statement comes here. When the session began and who logged in (whom SET SESSION
    AUTHORIZATION does not change) is in pg_stat_activity; where the owner may not see it, the start is 0 and the login
    the session's user.

    Where the key is lost, or somebody holds a lock on it, the message is made all the same, with zeros for its codes:
    it says who, and proves nothing (`unsigned`). The session then introduces itself again with its next transaction, as
    it does after one whose snapshot shows the key of an earlier generation only. A secret lies in the sequences
    themselves no longer than it takes to put something else there: what is remembered is the session's own `currval`.
    """
    close = f"""
    BEGIN
        PERFORM set_config('{GUARD}', current_setting('role'), true);
    EXCEPTION WHEN invalid_parameter_value THEN
        NULL;
    END;"""
    one, other = (f"'{SCHEMA}.{name}'::regclass" for name in SECRETS)
    half = "('x' || encode(substr(secret, {}, 8), 'hex'))::bit(64)::int8"
    return f"""
DECLARE
    said text;
    message text;
    inner_pad bytea;
    outer_pad bytea;
    system_id text;
    number int;
    introduced text;
    tag bytea;
    secret bytea;
BEGIN
    said := {_said(ROLE, "COALESCE(claims, '')")};
    BEGIN
        message := {_message("said")};
    EXCEPTION WHEN object_not_in_prerequisite_state THEN
        NULL;
    END;
    IF message IS NULL THEN
{READ_KEY}
        SELECT json_build_array('session/1', coalesce(system_id, ''), current_database(),
            pg_backend_pid(), coalesce((extract(epoch FROM a.backend_start) * 1000000)::int8, 0),
            coalesce(pg_get_userbyid(a.usesysid), session_user), host(inet_client_addr()),
            inet_client_port(){authenticated(version) or ", ''"},
            CASE WHEN {_MAY_SET} THEN {_OWN_SETTINGS} END)::text INTO introduced
        FROM (SELECT) AS one LEFT JOIN pg_stat_get_activity(pg_backend_pid()) AS a ON true;
        IF inner_pad IS NULL THEN
            message := repeat('0', 64) || said || repeat('0', 64) || introduced;
        ELSE
            tag := sha256(outer_pad || sha256(inner_pad || convert_to(introduced, 'SQL_ASCII')));
            secret := sha256(outer_pad || sha256(inner_pad || convert_to('secret/1', 'SQL_ASCII') || tag));
            PERFORM set_config({SESSION}, encode(tag, 'hex') || introduced,
                    number <> coalesce(nullif(split_part({SESSION}, '_', 2), ''), '1')::int),
                setval({one}, {half.format(1)}), setval({other}, {half.format(9)});
            message := {_message("said")};
            PERFORM setval({one}, 1, false), setval({other}, 1, false);
        END IF;
    END IF;{close if guarded else ""}
    RETURN message;
END
"""


CLAIMED_BODY = f"""
DECLARE
    token text := translate(current_setting('pgwitness.token', true), {_SEPARATORS}, '');
BEGIN
    RETURN concat({CLAIM}, E'\\x1e', {TOKEN});
END
"""
"""What the client claims and its token. A function of its own, so that who claims nothing does not pay for it."""

CLAIM_BODY = f"""
BEGIN
    PERFORM set_config('pgwitness.token',
            {STAMP} || ':' || coalesce(left(token, {TOKEN_CHARACTERS_MAX + 1}), ''), true),
        CASE WHEN coalesce(current_setting('pgwitness.claim', true), '') = ''
            THEN set_config('pgwitness.claim', E'\\x1f', true) END;
END
"""
"""The beacon looks at `pgwitness.claim` alone: something must stand there for the token to be looked for."""

BODIES = {
    **{
        name: {beacon_body(guarded, name, paused=paused) for guarded in (True, False) for paused in (True, False)}
        for name in BEACONS
    },
    "below": {below.BODY},
    "introduce": {introduce_body(guarded, version) for guarded in (True, False) for version in (0, SYSTEM_USER_MIN)},
    "claimed": {CLAIMED_BODY},
    **key_templates.BODIES,
}
"""What each function of the beacon may consist of: with and without the guard; an upgraded server keeps what it had."""


def create_beacon(body: str, name: str = BEACON) -> str:
    """Create or replace one of the triggers' functions. STABLE spares a snapshot with each statement inside it."""
    return (
        f"CREATE OR REPLACE FUNCTION {SCHEMA}.{name}() RETURNS trigger\n"
        f"LANGUAGE plpgsql STABLE SECURITY DEFINER AS $pgwitness${body}$pgwitness$"
    )


def create_introduce(guarded: bool, version: int) -> str:
    """Create or replace the function for the first message of a session."""
    return (
        f"CREATE OR REPLACE FUNCTION {SCHEMA}.introduce(claims text) RETURNS text LANGUAGE plpgsql\n"
        f"SECURITY DEFINER SET search_path = pg_catalog, pg_temp\n"
        f"AS $pgwitness${introduce_body(guarded, version)}$pgwitness$"
    )


CREATE_CLAIMED = (
    f"CREATE OR REPLACE FUNCTION {SCHEMA}.claimed() RETURNS text LANGUAGE plpgsql STABLE\n"
    f"SET search_path = pg_catalog, pg_temp AS $pgwitness${CLAIMED_BODY}$pgwitness$"
)

CREATE_CLAIM = (
    f"CREATE OR REPLACE FUNCTION {SCHEMA}.claim(token text) RETURNS void LANGUAGE plpgsql\n"
    f"SET search_path = pg_catalog, pg_temp AS $pgwitness${CLAIM_BODY}$pgwitness$"
)
