"""The SQL of the guard: the function that judges, and what calls it; pure.

`judge` raises where a policy has something against what a session does, and returns where none has. It runs as a role
that owns nothing else, with a search_path of its own and the settings of the client that could change what SQL means
fixed; it reads no name that a client could have made. Triggers on tables call it when a statement has run, before
anything of it is committed, so its error undoes the statement; event triggers do at the end of a command, with the
objects that the command has touched, whatever its text was.

How many rows a client's statement has updated and deleted is added up over all triggers that fire in it
(`statement_timestamp()` is one for all that one message of the client runs): a loop that deletes row by row has deleted
them all. The sum stands in a table, since whatever else a session could remember by a client can reset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from collectors.guard import wording
from collectors.guard.expressions import sql
from collectors.guard.names import MARK, OPERATIONS, OWNER, SCHEMA, TRIGGER, array, text
from collectors.guard.relations import CREATE_KNOWN, FORGET, NAMED, NAMES, SETTINGS, TABLE
from collectors.guard.wanted import _WORDS, DDL_WORDS, Wanted
from collectors.installation.sql.templates import OWNER_OF_MASKS
from detectors.gatekeeper import NAMES_MAX
from detectors.policy.policy import Policy
from pgwitness.core.events import quote_identifier

SQLSTATE = "42501"
_LIKE = TRIGGER.replace("_", r"\_") + "%"

EVENT_TRIGGERS = {
    "pgwitness_a_guard_start": ("ddl_command_start", "starts"),
    "pgwitness_a_guard_drop": ("sql_drop", "drops"),
    "pgwitness_a_guard_end": ("ddl_command_end", "ends"),
    "pgwitness_z_guard_drop": ("sql_drop", "leaves"),
    "pgwitness_z_guard_end": ("ddl_command_end", "keeps"),
}
"""Event triggers run in the order of their names: those that judge before others of pgwitness, which run DDL of their
own, and the last ones behind those. What runs in between is not the client's, and is not judged."""

CREATE_TABLES = {
    "known": CREATE_KNOWN,
    "pads": f"CREATE UNLOGGED TABLE {SCHEMA}.pads (inner_pad bytea NOT NULL, outer_pad bytea NOT NULL)",
    "used": (
        f"CREATE UNLOGGED TABLE {SCHEMA}.used (nonce text PRIMARY KEY, pid int NOT NULL, at timestamptz NOT NULL,"
        " until timestamptz NOT NULL)"
    ),
    "counted": (
        f"CREATE UNLOGGED TABLE {SCHEMA}.counted (pid int PRIMARY KEY, at timestamptz NOT NULL, gone int8 NOT NULL)"
        " WITH (fillfactor = 10)"
    ),
    "inside": (
        f"CREATE UNLOGGED TABLE {SCHEMA}.inside (pid int PRIMARY KEY, at timestamptz NOT NULL, depth int NOT NULL)"
    ),
}
"""Tables of the guard and what makes them. What is in unlogged ones is worth nothing behind a crash, but for the key's
pads. `inside` comes last: while it is missing nothing is guarded (`_AWAY`), so that the others can be made."""

_STARTED = """(SELECT (extract(epoch FROM s.backend_start) * 1000000)::int8
        FROM pg_stat_get_activity(pg_backend_pid()) AS s)"""

_AWAY = f"to_regclass('{SCHEMA}.inside') IS NULL"
"""Whether the guard's tables are not there: in a copy that was restored from a dump, which has none of them, nothing
is guarded."""


PASSES = f"""\
CREATE OR REPLACE FUNCTION {SCHEMA}.passes(use boolean) RETURNS json LANGUAGE plpgsql SECURITY DEFINER
{SETTINGS} AS $pgwitness$
DECLARE
    shown text := coalesce(current_setting('{MARK}', true), '');
    said text := substr(shown, 65);
    code text;
    parts json;
    before timestamptz;
BEGIN
    IF length(shown) < 65 THEN
        RETURN NULL;
    END IF;
    SELECT encode(sha256(k.outer_pad || sha256(k.inner_pad || convert_to(concat_ws(E'\\x1f', said,
        current_database(), session_user, pg_backend_pid(), {_STARTED},
        encode(sha256(convert_to(current_query(), 'UTF8')), 'hex')), 'UTF8'))), 'hex')
    INTO code FROM {SCHEMA}.pads AS k;
    IF code IS NULL OR code <> left(shown, 64) THEN
        RETURN NULL;
    END IF;
    parts := said::json;
    IF clock_timestamp() > to_timestamp((parts ->> 1)::float8) THEN
        RETURN NULL;
    END IF;
    SELECT u.at INTO before FROM {SCHEMA}.used AS u WHERE u.nonce = parts ->> 0;
    IF before <> statement_timestamp() THEN
        RETURN NULL;
    END IF;
    IF use AND before IS NULL THEN
        DELETE FROM {SCHEMA}.used AS u WHERE u.until < now() - interval '1 hour';
        INSERT INTO {SCHEMA}.used VALUES (parts ->> 0, pg_backend_pid(), statement_timestamp(),
            to_timestamp((parts ->> 1)::float8));
    END IF;
    RETURN parts;
END
$pgwitness$"""
"""Returns what the session's mark lets pass, as `mark` writes it; null without one that holds. It is used up by the
client's statement that it is for, however many triggers fire in that."""

ADDED = f"""\
CREATE OR REPLACE FUNCTION {SCHEMA}.added(more int8) RETURNS int8 LANGUAGE sql SECURITY DEFINER
{SETTINGS} AS $pgwitness$
INSERT INTO {SCHEMA}.counted AS c SELECT pg_backend_pid(), statement_timestamp(), more WHERE more IS NOT NULL
ON CONFLICT (pid) DO UPDATE SET at = EXCLUDED.at,
    gone = CASE WHEN c.at = EXCLUDED.at THEN c.gone ELSE 0 END + EXCLUDED.gone
RETURNING gone
$pgwitness$"""
"""Adds rows to those of the client's statement, and returns their sum; of null nothing."""


def judge(wanted: Wanted) -> str:
    """Create the function that judges.

    `operations` and `relations` say what was done to what; null relations are not known. `gone` are the rows that the
    trigger has seen go. Nothing is used up where `ended` is false: the command has not run yet.
    """
    facts = ("principal", "kind", "on_behalf_of", "peer_group")
    columns = {name: array(getattr(login, name) for login in wanted.logins) for name in facts}
    return f"""\
CREATE OR REPLACE FUNCTION {SCHEMA}.judge(operations text[], relations text[], gone int8, ended boolean)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
{SETTINGS} AS $pgwitness$
DECLARE
    the_role text := session_user;
    the_place int := array_position({array(login.role for login in wanted.logins)}, the_role);
    the_principal text := ({columns["principal"]})[the_place];
    the_kind text := ({columns["kind"]})[the_place];
    the_person text := ({columns["on_behalf_of"]})[the_place];
    the_group text := ({columns["peer_group"]})[the_place];
    the_effective_role text := CASE current_setting('role') WHEN 'none' THEN the_role ELSE current_setting('role') END;
    the_operations text[] := operations;
    the_relations text[] := relations;
    the_written text[] := relations;
    the_utility boolean := NOT operations[1] IN ('insert', 'update', 'delete');
    denied text[] := '{{}}';
    staged text[] := '{{}}';
    warned text[] := '{{}}';
    lifted text[] := '{{}}';
    limited text;
    most int8;
    total int8;
    said text;
    why text;
    hint text;
    mark json;
    failed text;
BEGIN
    BEGIN
        IF {_AWAY} OR (SELECT s.backend_type LIKE 'logical replication %'
            FROM pg_stat_get_activity(pg_backend_pid()) AS s) THEN
            RETURN;
        END IF;
        mark := {SCHEMA}.passes(ended);
        lifted := coalesce((SELECT array_agg(p.id) FROM json_array_elements_text(mark -> 3) AS p (id)), '{{}}');
        total := {SCHEMA}.added(gone);
{_policies(wanted)}
        IF total > (mark ->> 2)::int8 AND cardinality(denied) = 0 THEN
            denied := array['approval'];
            said := format('it was approved for %s rows, and changed %s', mark ->> 2, total);
            why := 'More than was approved is undone.';
            hint := 'Ask again, for as many rows as it changes.';
        END IF;
    EXCEPTION WHEN OTHERS THEN
        failed := SQLERRM;
    END;
    IF failed IS NOT NULL THEN
        {_FAILING[wanted.config.on_error]}
    END IF;
    IF cardinality(denied) > 0 OR total > most THEN
        RAISE EXCEPTION USING ERRCODE = '{SQLSTATE}', DETAIL = why, HINT = hint, MESSAGE = CASE
            WHEN denied[1] = 'approval' THEN 'undone by the guard: ' || said
            WHEN cardinality(denied) = 0 THEN
                format('undone by the limit of policy %s: %s; it changed %s rows, and %s is the most', limited, said,
                    total, most)
            ELSE format('refused by %s: %s', {_named("denied")}, said) END;
    END IF;
    IF cardinality(warned) > 0 THEN
        RAISE WARNING USING ERRCODE = '01000', DETAIL = why, HINT = hint,
            MESSAGE = format('passed with a warning by %s: %s', {_named("warned")}, said);
    END IF;
    IF cardinality(staged) > 0 THEN
        RAISE LOG 'pgwitness: would have been refused by staged %', {_named("staged")};
    END IF;
END
$pgwitness$"""


_FAILING = {
    "pass": "RAISE LOG 'pgwitness: the guard failed, and lets pass: %', failed;\n        RETURN;",
    "refuse": f"""RAISE EXCEPTION USING ERRCODE = '{SQLSTATE}',
            MESSAGE = 'refused, because the guard of pgwitness failed: ' || failed,
            HINT = 'What it cannot judge it refuses (guard.on_error). Ask whoever keeps it.';""",
}


def _named(ids: str) -> str:
    """Write the ids in an array as a message names policies."""
    return (
        f"concat(CASE cardinality({ids}) WHEN 1 THEN 'policy ' ELSE 'policies ' END,"
        f" array_to_string({ids}[1:{NAMES_MAX}], ', '))"
    )


def _policies(wanted: Wanted) -> str:
    """Write what is asked about each policy, in the order in which they decide: what one denies nothing limits.

    What several have against it is told in the words of the first, which is the gravest; of limits the smallest holds.
    """
    active = [policy for policy in wanted.policies if policy.document.mode == "active"]
    denying = [policy for policy in active if policy.document.effect in ("deny", "approve")]
    limiting = sorted(
        (policy for policy in active if policy.document.effect == "limit" and policy.document.max_rows is not None),
        key=lambda one: one.document.max_rows or 0,
    )
    warning = [policy for policy in active if policy.document.effect == "warn"]
    parts = [
        *(_asked(wanted, one, "denied", first="cardinality(denied) = 0") for one in denying),
        *(_limit(wanted, one) for one in limiting),
        *(
            _asked(wanted, one, "warned", only="cardinality(denied) = 0 AND limited IS NULL AND ",
                   first="cardinality(warned) = 0") for one in warning
        ),
        *(_staged(wanted, one) for one in wanted.policies if one.document.mode == "staged"),
    ]  # fmt: skip
    return "\n".join(parts)


def _holds(wanted: Wanted, policy: Policy) -> str:
    """Write whether a policy holds; what is not known refuses where that is configured."""
    refuses = wanted.config.on_unknown == "refuse" and policy.document.effect != "warn"
    return f"coalesce({sql(wanted.condition(policy))}, {sql(refuses)})"


def _asked(wanted: Wanted, policy: Policy, into: str, *, first: str, only: str = "") -> str:
    name = text(policy.id)
    return f"""\
        IF {only}{_holds(wanted, policy)} AND NOT {name} = ANY (lifted) THEN
            IF {first} THEN
{_tells(wanted, policy, 16)}
            END IF;
            {into} := array_append({into}, {name});
        END IF;"""


def _limit(wanted: Wanted, policy: Policy) -> str:
    name = text(policy.id)
    return f"""\
        IF cardinality(denied) = 0 AND limited IS NULL AND {_holds(wanted, policy)} AND NOT {name} = ANY (lifted) THEN
            limited := {name};
            most := {policy.document.max_rows};
{_tells(wanted, policy, 12)}
        END IF;"""


def _staged(wanted: Wanted, policy: Policy) -> str:
    if policy.document.effect == "warn":
        return ""
    most = policy.document.max_rows
    than = f"total > {most} AND " if most is not None else ""
    return f"""\
        IF {than}{_holds(wanted, policy)} THEN
            staged := array_append(staged, {text(policy.id)});
        END IF;"""


def _tells(wanted: Wanted, policy: Policy, indent: int) -> str:
    told = [
        f"said := {wording.message(policy, wanted.fixed)};",
        f"why := {text(wording.why(policy))};",
        f"hint := {text(wording.hint(policy, wanted.config.labels))};",
    ]
    return "\n".join(" " * indent + line for line in told)


WRITTEN = f"""\
CREATE OR REPLACE FUNCTION {SCHEMA}.written() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
{SETTINGS} AS $pgwitness$
BEGIN
    IF {_AWAY} THEN
        RETURN NULL;
    END IF;
    PERFORM {SCHEMA}.judge(array[lower(TG_OP)], {SCHEMA}.names(TG_RELID), NULL, true);
    RETURN NULL;
END
$pgwitness$"""

REWRITTEN = f"""\
CREATE OR REPLACE FUNCTION {SCHEMA}.rewritten() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
{SETTINGS} AS $pgwitness$
BEGIN
    IF {_AWAY} THEN
        RETURN NULL;
    END IF;
    PERFORM {SCHEMA}.judge(array[lower(TG_OP)], {SCHEMA}.names(TG_RELID),
        (SELECT count(*) FROM pgwitness_gone), true);
    RETURN NULL;
END
$pgwitness$"""

_OURS = f"(SELECT FROM {SCHEMA}.inside AS i WHERE i.pid = pg_backend_pid() AND i.at = statement_timestamp())"


_ENTER = f"""INSERT INTO {SCHEMA}.inside AS i VALUES (pg_backend_pid(), statement_timestamp(), 1) ON CONFLICT (pid)
        DO UPDATE SET at = EXCLUDED.at, depth = CASE WHEN i.at = EXCLUDED.at THEN i.depth + 1 ELSE 1 END;"""
_LEAVE = f"""UPDATE {SCHEMA}.inside AS i SET depth = i.depth - 1 WHERE i.pid = pg_backend_pid();
        DELETE FROM {SCHEMA}.inside AS i WHERE i.pid = pg_backend_pid() AND i.depth < 1;"""
"""Between the first event trigger of an event and the last, others of pgwitness run DDL of their own, whose event
triggers stand within: they go one deeper, and come back."""


def _tag(tag: str) -> str:
    cases = " ".join(f"WHEN {text(one)} THEN {text(said)}" for one, said in sorted(_WORDS.items()))
    return f"CASE {tag} {cases} ELSE replace(lower({tag}), ' ', '_') END"


def _free(wanted: Wanted) -> str:
    return f"({_AWAY} OR session_user::text = ANY ({array(wanted.exempt(*sorted(DDL_WORDS)))}))"


def events(wanted: Wanted) -> Iterator[str]:
    """Create the functions of the event triggers that judge."""
    free = _free(wanted)
    head = f"RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER\n{SETTINGS} AS $pgwitness$"
    yield f"""\
CREATE OR REPLACE FUNCTION {SCHEMA}.starts() {head}
BEGIN
    -- What runs in several transactions cannot be undone at its end; nothing may be written before it begins.
    IF {free} OR current_query() !~* '\\mconcurrently\\M'
        OR tg_tag NOT IN ('CREATE INDEX', 'DROP INDEX', 'REINDEX', 'ALTER TABLE') THEN
        RETURN;
    END IF;
    PERFORM {SCHEMA}.judge(array[{_tag("tg_tag")}], NULL, NULL, false);
END
$pgwitness$"""
    yield f"""\
CREATE OR REPLACE FUNCTION {SCHEMA}.drops() {head}
DECLARE
    operations text[];
    relations text[];
BEGIN
    IF {_AWAY} THEN
        RETURN;
    END IF;
    IF EXISTS {_OURS} THEN
        {_ENTER}
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() AS d JOIN pg_namespace AS n
            ON n.nspname = d.address_names[1] JOIN pg_class AS c ON c.relnamespace = n.oid
            AND c.relname = d.address_names[2]
        WHERE d.object_type = 'trigger' AND d.address_names[3] LIKE '{_LIKE}')
        AND NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = session_user) THEN
        RAISE EXCEPTION USING ERRCODE = '{SQLSTATE}', MESSAGE = 'refused: the guard of pgwitness is not dropped so',
            HINT = 'Whoever keeps it takes it away by `pgwitness db uninstall --guard`.';
    END IF;
    IF {free} THEN
        RETURN;
    END IF;
    SELECT array_agg(DISTINCT w.word ORDER BY w.word), array_agg(DISTINCT r.name ORDER BY r.name)
        FILTER (WHERE r.name IS NOT NULL)
    INTO operations, relations
    FROM (
        SELECT CASE WHEN d.classid = 'pg_class'::regclass THEN d.objid
                WHEN d.object_type IN ('trigger', 'rule', 'policy') THEN
                    to_regclass(format('%I.%I', d.address_names[1], d.address_names[2]))::oid END AS oid,
            CASE d.object_type WHEN 'table column' THEN 'drop_column'
                ELSE 'drop_' || replace(d.object_type, ' ', '_') END AS word,
            CASE WHEN d.object_type IN ('table', 'view', 'materialized view', 'foreign table', 'table column',
                'trigger', 'rule', 'policy') THEN
                format('%I.%I', d.address_names[1], d.address_names[2]) END AS relation
        FROM pg_event_trigger_dropped_objects() AS d
        WHERE NOT d.is_temporary AND d.schema_name IS DISTINCT FROM 'pg_toast'
            AND (tg_tag LIKE 'DROP %' OR d.object_type = 'table column')
            AND (d.original OR d.object_type IN ('table', 'table column', 'view', 'materialized view',
                'foreign table', 'schema'))
            AND NOT EXISTS (SELECT FROM pg_namespace AS n JOIN pg_roles AS o ON o.oid = n.nspowner
                WHERE d.object_type = 'view' AND n.nspname = d.schema_name AND o.rolname = '{OWNER_OF_MASKS}')
    ) AS w
    LEFT JOIN {SCHEMA}.known AS k ON k.relid = w.oid
    LEFT JOIN LATERAL (VALUES (w.relation), (k.name)) AS r (name) ON true;
    IF operations IS NOT NULL THEN
        IF tg_tag <> 'ALTER TABLE' THEN
            operations := {_tag("tg_tag")} || array_remove(operations, {_tag("tg_tag")});
        END IF;
        PERFORM {SCHEMA}.judge(operations, coalesce(relations, '{{}}'), NULL, true);
    END IF;
    {_ENTER}
END
$pgwitness$"""
    yield f"""\
CREATE OR REPLACE FUNCTION {SCHEMA}.ends() {head}
DECLARE
    operations text[];
    relations text[];
    every int;
    seen int;
BEGIN
    IF {_AWAY} THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() AS c JOIN pg_trigger AS t ON t.oid = c.objid
            JOIN pg_proc AS p ON p.oid = t.tgfoid WHERE c.classid = 'pg_trigger'::regclass
            AND (t.tgname LIKE '{_LIKE}') <> (p.pronamespace = '{SCHEMA}'::regnamespace))
        AND NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = session_user) THEN
        RAISE EXCEPTION USING ERRCODE = '{SQLSTATE}',
            MESSAGE = 'refused: the guard of pgwitness is not replaced and not renamed so';
    END IF;
    IF {free} THEN
        RETURN;
    END IF;
    IF EXISTS {_OURS} THEN
        {_ENTER}
        RETURN;
    END IF;
    SELECT count(*), count(*) FILTER (WHERE c.schema_name IS DISTINCT FROM 'pg_temp' AND NOT c.in_extension),
        array_agg(DISTINCT w.word ORDER BY w.word), array_agg(DISTINCT r.relation ORDER BY r.relation)
            FILTER (WHERE r.relation IS NOT NULL)
    INTO every, seen, operations, relations
    FROM pg_event_trigger_ddl_commands() AS c
    LEFT JOIN LATERAL (SELECT o.word FROM (VALUES ({_tag("c.command_tag")}),
            (CASE WHEN c.command_tag = 'ALTER INDEX' AND c.object_type = 'table' THEN 'alter_table' END)) AS o (word)
        WHERE c.schema_name IS DISTINCT FROM 'pg_temp' AND NOT c.in_extension) AS w ON true
    LEFT JOIN LATERAL (SELECT CASE c.classid
        WHEN 'pg_class'::regclass THEN
            coalesce((SELECT i.indrelid FROM pg_index AS i WHERE i.indexrelid = c.objid), c.objid)
        WHEN 'pg_trigger'::regclass THEN (SELECT x.tgrelid FROM pg_trigger AS x WHERE x.oid = c.objid)
        WHEN 'pg_policy'::regclass THEN (SELECT x.polrelid FROM pg_policy AS x WHERE x.oid = c.objid)
        WHEN 'pg_rewrite'::regclass THEN (SELECT x.ev_class FROM pg_rewrite AS x WHERE x.oid = c.objid)
        WHEN 'pg_constraint'::regclass THEN (SELECT x.conrelid FROM pg_constraint AS x WHERE x.oid = c.objid)
        END AS oid) AS o ON w.word IS NOT NULL
    LEFT JOIN LATERAL unnest({SCHEMA}.names(o.oid)) AS r (relation) ON o.oid IS NOT NULL;
    IF seen > 0 OR every = 0 AND (tg_tag !~ '^(CREATE|DROP) |^ALTER TABLE$' OR tg_tag = 'DROP OWNED') THEN
        operations := {_tag("tg_tag")} || array_remove(array_remove(operations, NULL), {_tag("tg_tag")});
        -- Nothing tells on what a right is granted.
        PERFORM {SCHEMA}.judge(operations, CASE WHEN tg_tag NOT IN ('GRANT', 'REVOKE', 'ALTER DEFAULT PRIVILEGES')
            THEN coalesce(relations, '{{}}') END, NULL, true);
    END IF;
    {_ENTER}
END
$pgwitness$"""
    yield f"""\
CREATE OR REPLACE FUNCTION {SCHEMA}.leaves() {head}
BEGIN
    IF {_AWAY} THEN
        RETURN;
    END IF;
    {FORGET}
    IF NOT {free} THEN
        {_LEAVE}
    END IF;
END
$pgwitness$"""


def keeps(wanted: Wanted) -> str:
    """Create the function that gives new tables their triggers and switches on again what was switched off.

    It belongs to whoever installs: another one's table takes a superuser. It touches no table but those that the
    command itself has locked. What it cannot switch on again is refused: else who makes it fail writes unguarded.
    """
    made = triggers(wanted)
    names = array(made)
    written = array(made.values())
    free = _free(wanted)
    bare = {
        "refuse": "RAISE;",
        "pass": """RAISE LOG 'pgwitness: % is without its guard (%); run pgwitness db install --guard', found.name,
                    SQLERRM;""",
    }[wanted.config.on_error]
    return f"""\
CREATE OR REPLACE FUNCTION {SCHEMA}.keeps() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
{SETTINGS} AS $pgwitness$
DECLARE
    names text[] := {names};
    made text[] := {written};
    found record;
    off record;
BEGIN
    IF {_AWAY} THEN
        RETURN;
    END IF;
    IF tg_tag IN ('ALTER TABLE', 'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA') THEN
        FOR found IN
            SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name, {TABLE} AS guarded
            FROM pg_event_trigger_ddl_commands() AS e JOIN pg_class AS c ON c.oid = e.objid
            JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE e.classid = 'pg_class'::regclass AND e.object_type IN ('table', 'table column')
            ORDER BY c.oid
        LOOP
            BEGIN
                FOR off IN
                    SELECT m.statement FROM unnest(names, made) AS m (name, statement)
                    WHERE found.guarded AND NOT EXISTS (SELECT FROM pg_trigger AS t
                        WHERE t.tgrelid = found.oid AND t.tgname = m.name)
                        -- A command that lets writers go on must not wait for them: it is not how a table comes in.
                        AND (tg_tag <> 'ALTER TABLE' OR EXISTS (SELECT FROM pg_locks AS l WHERE l.relation = found.oid
                            AND l.pid = pg_backend_pid() AND l.database = (SELECT d.oid FROM pg_database AS d
                                WHERE d.datname = current_database()) AND l.mode = 'AccessExclusiveLock'))
                LOOP
                    EXECUTE replace(off.statement, '@table@', found.name);
                END LOOP;
                INSERT INTO {SCHEMA}.known SELECT found.oid, {SCHEMA}.named(found.oid) WHERE found.guarded
                ON CONFLICT (relid) DO NOTHING;
            EXCEPTION WHEN OTHERS THEN
                {bare}
            END;
            FOR off IN
                SELECT t.tgname AS name FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
                WHERE t.tgrelid = found.oid AND p.pronamespace = '{SCHEMA}'::regnamespace AND t.tgenabled <> 'A'
            LOOP
                EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER %I', found.name, off.name);
            END LOOP;
        END LOOP;
    END IF;
    IF NOT {free} THEN
        {_LEAVE}
    END IF;
END
$pgwitness$"""


def triggers(wanted: Wanted) -> dict[str, str]:
    """Write the triggers of a table, by their names: `@table@` stands for its name.

    Roles against which no policy can have anything pass by the condition, which costs no call.
    """
    found = {}
    for operation in OPERATIONS:
        if operation not in wanted.operations():
            continue
        free = ", ".join(text(role) for role in wanted.exempt(operation))
        when = f" WHEN (session_user <> ALL (ARRAY[{free}]::name[]))" if free else ""
        rows = wanted.counts and operation in ("update", "delete")
        statement = (
            f"CREATE OR REPLACE TRIGGER {TRIGGER}{operation} AFTER {operation.upper()} ON @table@"
            f"{' REFERENCING OLD TABLE AS pgwitness_gone' if rows else ''} FOR EACH STATEMENT{when}"
            f" EXECUTE FUNCTION {SCHEMA}.{'rewritten' if rows else 'written'}"
        )
        found[TRIGGER + operation] = f"{statement}('{digest(statement)}')"
    return found


def digest(statement: str) -> str:
    """Return what tells a trigger from one of the same name in another form: it stands in its argument."""
    return hashlib.sha256(statement.encode()).hexdigest()[:16]


def functions(wanted: Wanted) -> dict[str, str]:
    """Write the statements that make the functions, by name, in an order in which they can be made."""
    found = [
        wording.SHOWN,
        wording.LISTED,
        wording.SENTENCE,
        NAMED,
        NAMES,
        PASSES,
        ADDED,
        judge(wanted),
        WRITTEN,
        REWRITTEN,
    ]
    found += [*events(wanted), keeps(wanted)]
    return {_name(statement): statement for statement in found}


def _name(statement: str) -> str:
    return statement.partition(f"{SCHEMA}.")[2].partition("(")[0]


def body(statement: str) -> str:
    """Return the body of a function that a statement makes, as `pg_proc.prosrc` has it."""
    return statement.split("$pgwitness$")[1]


def event_trigger(name: str) -> list[str]:
    """Create one of the event triggers, anew where it is there in another form."""
    event, function = EVENT_TRIGGERS[name]
    return [
        f"DROP EVENT TRIGGER IF EXISTS {name}",
        f"CREATE EVENT TRIGGER {name} ON {event} EXECUTE FUNCTION {SCHEMA}.{function}()",
        f"ALTER EVENT TRIGGER {name} ENABLE ALWAYS",
    ]


CREATE_SCHEMA = f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {quote_identifier(OWNER)}"
