"""Decides what an installation, a pause or a removal has to do: from the state found to statements; pure.

What is there already needs no statement, so a second run does nothing and a run that was broken off goes on where it
stood. Statements with the same `group` belong into one transaction; each table is a group of its own, so that no lock
waits for another table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from psycopg.conninfo import make_conninfo

from collectors.installation import keeping, level, publishing
from collectors.installation.catalogue import Publication, State, Table
from collectors.installation.publishing import PUBLICATIONS, PUBLISH_CONTROL
from collectors.installation.sql import below, covering, ddl_templates, emission, key_templates, templates
from collectors.installation.sql.templates import OWNER, PUBLICATION, PUBLICATION_INSERTS, SCHEMA
from collectors.installation.steps import LAST, Options, Statement, wants
from pgwitness.core.events import quote_identifier

__all__ = ["PUBLICATIONS", "Options", "Statement", "install", "pause", "render"]


def install(state: State, options: Options) -> list[Statement]:
    """Plan what is missing for the collectors' role, the publications and the beacon on the chosen tables."""
    ground = _roles(state, options) + _schema(state, options) + _publications(state, options)
    # Partitions come before what they are partitions of, whose updates are published when theirs are.
    chosen = sorted((table for table in state.tables if options.chosen(table)), key=lambda table: table.partitioned)
    tables = [s for table in chosen for s in _table(state, table)] + _narrowed(state)
    events = _events(state)
    kept = [Statement(sql, keeping.GROUP, why) for sql, why in keeping.members(state, bool(ground or events))]
    announce = []
    if ground or tables or events or kept:
        announce = [Statement(f"SELECT {SCHEMA}.control('install')", LAST, "the installation is evidence, too")]
    return ground + tables + events + kept + announce


def asked(state: State, options: Options) -> tuple[str, ...]:
    """Give the globs of all tables that were asked for, now or before; `*` alone says all."""
    inserts = state.publications.get(PUBLICATION_INSERTS)
    before: tuple[str, ...] = ()
    if inserts is not None and inserts.asked is not None:
        before = inserts.asked
    elif inserts is not None:  # an earlier installation did not write it down
        before = tuple(table.qualified for table in state.tables if table.registered)
        if "cover" in state.functions or len(before) == len(state.tables):
            before = ("*",)
    if "*" in options.tables:
        return ("*",)
    # What a removal has left out comes back when it is asked for.
    kept = [glob for glob in before if glob[:1] != "!" or not wants(options.tables, [glob[1:]])]
    return tuple(dict.fromkeys([*kept, *([] if "*" in kept else options.tables)]))


def _events(state: State) -> list[Statement]:
    """Plan the event triggers, after the tables: what the installation itself does to those is announced anyway.

    Who may not make them makes their function, so that the statements for a more powerful role are short.
    """
    plan: list[Statement] = []

    def add(sql: str, why: str) -> None:
        plan.append(Statement(sql, "event triggers", why))

    if state.functions.get("ddl") != ddl_templates.ddl_body(version=state.version):
        add(ddl_templates.create_ddl(version=state.version), "writes DDL into the WAL of its own transaction")
        add(f"ALTER FUNCTION {SCHEMA}.ddl() OWNER TO {OWNER}", "so that it runs with nobody else's rights")
        add(f"REVOKE ALL ON FUNCTION {SCHEMA}.ddl() FROM PUBLIC", "for nobody else's event triggers")
    plan += _keeping(state) if state.superuser else []
    if not state.may_see_ddl:
        return plan
    for name, event in ddl_templates.EVENT_TRIGGERS.items():
        if state.event_triggers.get(name) == "A":
            continue
        for sql in ddl_templates.create_event_trigger(name):
            add(sql, f"tells each {event}, also under session_replication_role = replica")
    return plan


def _keeping(state: State) -> list[Statement]:
    """Plan the event triggers that keep DDL harmless; what they do to another one's table takes a superuser."""
    plan: list[Statement] = []

    def add(sql: str, why: str) -> None:
        plan.append(Statement(sql, "event triggers", why))

    if "cover" in state.functions:
        add(key_templates.drop_function("cover(oid[])"), "an earlier form of what keeps DDL harmless")
    for name, body in covering.BODIES.items():
        if state.functions.get(name) != body:
            add(covering.create_function(name), "keeps DDL harmless, and covers tables as they are made")
            add(f"REVOKE ALL ON FUNCTION {SCHEMA}.{name}() FROM PUBLIC", "for our event triggers only")
        if name in state.foreign:
            add(f"ALTER FUNCTION {SCHEMA}.{name}() OWNER TO CURRENT_USER", "another one's table takes a superuser")
    for name, event in covering.EVENTS.items():
        if state.event_triggers.get(name) != "A":
            for sql in covering.create_event_trigger(name):
                add(sql, f"acts at each {event}, also under session_replication_role = replica")
    return plan


def pause(state: State, *, paused: bool) -> list[Statement]:
    """Plan the switch of every beacon of the database at once; it locks no table of the application."""
    if "beacon" not in state.functions:
        return []
    word = "pause" if paused else "resume"
    why = f"{word}s every beacon of this database, in open sessions, too"
    plan = []
    for name in templates.BEACONS:
        if name in state.functions:
            body = emission.beacon_body(state.guarded, name, paused=paused)
            body = key_templates.of_generation(body, state.generation)
            plan.append(Statement(emission.create_beacon(body, name), word, why))
    return [*plan, Statement(f"SELECT {SCHEMA}.control('{word}')", word, f"the {word} is evidence, too")]


def rotate_key(state: State) -> list[Statement]:
    """Plan another key: the functions that speak are replaced, which no table's lock is needed for."""
    speaking = [(statement.sql, statement.why) for statement in _speaking(state, state.generation + 1)]
    return [Statement(sql, "rotate key", why) for sql, why in keeping.rotate(state, speaking)]


def render(plan: list[Statement], options: Options) -> str:
    """Write a plan as one migration file: what `install` would run, in the same transactions."""
    lines = ["-- pgwitness; run it with `psql --set ON_ERROR_STOP=1 --file`. It can be run again after an error:"]
    lines += ["-- print it anew then, and it holds what is left to do. What may be denied to you stands in a DO block."]
    lines += [""]
    group = ""
    for statement in plan:
        if statement.group != group:
            lines += ["COMMIT;", ""] if group else []
            group = statement.group
            lines += ["BEGIN;", f"SET LOCAL lock_timeout = '{options.lock_timeout_ms}ms';"]
        lines += [f"-- {statement.why}", _tried(statement.sql) if statement.optional else f"{statement.sql};"]
    return "\n".join([*lines, *(["COMMIT;"] if group else []), ""])


_OURS = ("application_name", "client_encoding", "connect_timeout", "keepalives_idle", "keepalives_interval")
"""Parameters of our own connections that psql does not need."""


def connect(parameters: Mapping[str, str], *, same: bool) -> str:
    """Write psql's command that connects to a database; `same`: of the same cluster as before. Never a password."""
    given = {name: value for name, value in parameters.items() if name not in _OURS and "password" not in name}
    wanted = {"dbname": given.get("dbname", "")} if same else given
    text = make_conninfo("", **wanted).replace("\\", "\\\\").replace("'", "\\'")
    text = text.replace('"', '""""')  # psql takes double quotes for those of a name
    return f"\\connect {'-reuse-previous=on ' if same else ''}'{text}'"


def _tried(sql: str) -> str:
    """Write a statement that may be denied so that the file goes on without it."""
    return (
        f"DO $try$ BEGIN {sql}; EXCEPTION WHEN insufficient_privilege THEN\n"
        f"    RAISE NOTICE 'left out: %', SQLERRM; END $try$;"
    )


def _roles(state: State, options: Options) -> list[Statement]:
    plan: list[Statement] = []
    made: list[str] = []
    role = quote_identifier(options.role)

    def add(sql: str, why: str, *, optional: bool = False, what: str = "") -> None:
        plan.append(Statement(sql, "roles", why, optional=optional and not state.superuser))
        made.extend([f"{what} {options.role}"] if what else [])

    if not state.owner_exists:
        add(f"CREATE ROLE {OWNER} NOLOGIN", "owns the beacon and its key; nobody logs in as it")
    if not state.owner_monitor:
        add(
            f"GRANT pg_read_all_stats TO {OWNER}",
            "to see when a session of somebody else began, and who logged in",
            optional=True,
        )
    if not state.superuser and not state.owner_member:
        add(f"GRANT {OWNER} TO CURRENT_USER", "who installs must be able to make objects that belong to the owner")
    if state.may_guard and not state.guard_granted:
        add(f"GRANT SET ON PARAMETER {emission.GUARD} TO {OWNER}", "the guard: one beacon a transaction")
    if state.collector is None:
        add(f"CREATE ROLE {role} LOGIN", "the collectors' role; give it a password before use", what="role")
    if state.collector is None or not (state.collector.replication or state.collector.superuser):
        what = "rds_replication" if state.rds else "replication"
        add(level.replication_sql(state, options.role), "reading the WAL needs it", optional=True, what=what)
    if state.collector is None or not state.collector.monitor:
        add(
            f"GRANT pg_monitor TO {role}",
            "sessions, statistics and settings of others",
            optional=True,
            what="pg_monitor",
        )
    if not state.owner_exists or (state.made is not None and not set(made) <= set(state.made)):
        text = json.dumps(list(dict.fromkeys([*(state.made or ()), *made]))).replace("'", "''")
        add(
            f"COMMENT ON ROLE {OWNER} IS '{text}'",
            "what was made and given, so that a removal takes just that",
            optional=True,
        )
    return plan


def _schema(state: State, options: Options) -> list[Statement]:
    plan: list[Statement] = []

    def add(sql: str, why: str) -> None:
        plan.append(Statement(sql, "schema", why))

    def owned(kind: str, name: str) -> None:
        add(f"ALTER {kind} {SCHEMA}.{name} OWNER TO {OWNER}", "so that it runs with nobody else's rights")

    counted = state.statements or (options.statistics is not None and state.database not in options.statistics)
    if not counted:
        why = "statistics of statements: reads and DDL are seen there"
        plan.append(Statement("CREATE EXTENSION pg_stat_statements", "extension", why, optional=not state.superuser))
    if not state.schema:
        add(templates.CREATE_SCHEMA, "where everything of pgwitness is")
        if not counted:
            made = f"COMMENT ON SCHEMA {SCHEMA} IS '[\"pg_stat_statements\"]'"
            add(made, "what was made in this database, so that a removal takes just that")
    plan += [Statement(sql, "schema", why) for sql, why in keeping.tables(state)]
    for name in templates.SECRETS:
        if name not in state.relations:
            add(templates.create_secret(name), "what the beacon remembers of a session")
            owned("SEQUENCE", name)
    plan += _functions(state, options)
    return plan + [Statement(sql, "schema", why) for sql, why in keeping.key(state)]


def _speaking(state: State, generation: int) -> list[Statement]:
    """Plan the functions that speak, as those of a generation; what is paused stays so."""
    plan: list[Statement] = []

    def made(name: str, sql: str, why: str, whose: str) -> None:
        plan.append(Statement(key_templates.of_generation(sql, generation), "schema", why))
        owned = f"ALTER FUNCTION {SCHEMA}.{name} OWNER TO {OWNER}"
        plan.append(Statement(owned, "schema", "so that it runs with nobody else's rights"))
        plan.append(Statement(f"REVOKE ALL ON FUNCTION {SCHEMA}.{name} FROM PUBLIC", "schema", whose))

    def differs(name: str, *bodies: str) -> bool:
        return state.functions.get(name) not in bodies or generation != state.generation

    if state.functions.get("fresh_key") != key_templates.FRESH_KEY_BODY:
        made("fresh_key(int)", key_templates.CREATE_FRESH_KEY, "makes a key, here", "for the next two only")
    if differs("renew_key", key_templates.RENEW_KEY_BODY):
        made("renew_key()", key_templates.CREATE_RENEW_KEY, "makes a key where a crash took it", "for the collectors")
    if state.functions.get("claimed") != emission.CLAIMED_BODY:
        made("claimed()", emission.CREATE_CLAIMED, "reads what the client claims, and its token", "for the beacon only")
    if differs("introduce", emission.introduce_body(state.guarded, state.version)):
        if "message bytea" in state.functions.get("introduce", ""):
            gone = key_templates.drop_function("introduce(text)")
            plan.append(
                Statement(gone, "schema", "its messages were no text, which clients of other slots may not read")
            )
        sql = emission.create_introduce(state.guarded, state.version)
        made("introduce(text)", sql, "speaks for a session's first transaction", "for the beacon only")
    if state.functions.get("below") != below.BODY:
        why = "finds what was written in tables below another, and is published by nobody"
        made(below.SIGNATURE, below.CREATE_BELOW, why, "for the beacon only")
    stopped = emission.PAUSE in state.functions.get(templates.BEACON, "")
    for name in templates.BEACONS:
        body, paused = (emission.beacon_body(state.guarded, name, paused=still) for still in (False, True))
        if differs(name, body, paused) or stopped != (emission.PAUSE in state.functions.get(name, "")):
            sql = emission.create_beacon(paused if stopped else body, name)
            made(f"{name}()", sql, "the triggers' function, which speaks", "for our triggers only")
    return plan


def _functions(state: State, options: Options) -> list[Statement]:
    plan = _speaking(state, keeping.generation(state))

    def add(sql: str, why: str) -> None:
        plan.append(Statement(sql, "schema", why))

    def owned(name: str) -> None:
        add(f"ALTER FUNCTION {SCHEMA}.{name} OWNER TO {OWNER}", "so that it runs with nobody else's rights")

    if state.functions.get("control") != templates.CONTROL_BODY:
        add(templates.CREATE_CONTROL, "writes into the WAL what pgwitness does to itself")
        owned("control(text)")
        add(f"REVOKE ALL ON FUNCTION {SCHEMA}.control(text) FROM PUBLIC", "for who installs only")
    if state.functions.get("claim") != emission.CLAIM_BODY:
        add(emission.CREATE_CLAIM, "with which an application gives a token for its transaction")
        owned("claim(text)")
    if not state.open:
        add(f"GRANT USAGE ON SCHEMA {SCHEMA} TO PUBLIC", "to call one function; all the rest stays closed")
        add(f"GRANT EXECUTE ON FUNCTION {SCHEMA}.claim(text) TO PUBLIC", "whoever it is, the token must hold")
    if state.schema and not state.owner_able:
        add(f"GRANT ALL ON SCHEMA {SCHEMA} TO {OWNER}", "it was taken from the owner")
        add(f"GRANT ALL ON ALL TABLES IN SCHEMA {SCHEMA} TO {OWNER}", "likewise")
        add(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {SCHEMA} TO {OWNER}", "likewise")
        add(f"GRANT ALL ON ALL FUNCTIONS IN SCHEMA {SCHEMA} TO {OWNER}", "likewise")
    if state.messages_open == state.message_granted:
        flush = ", boolean" if state.version >= 170_000 else ""
        signature = f"pg_catalog.pg_logical_emit_message(boolean, text, text{flush})"
        sql, why = f"GRANT EXECUTE ON FUNCTION {signature} TO {OWNER}", "PUBLIC may not call it here"
        if state.messages_open:
            sql, why = (
                f"REVOKE EXECUTE ON FUNCTION {signature} FROM {OWNER}",
                "a dump would hold it, and all may call it",
            )
        if state.superuser or not state.owner_able:
            plan.append(Statement(sql, "schema", why, optional=not state.superuser))
    plan += _job(state, options)
    return plan + [Statement(sql, "schema", why) for sql, why in keeping.grants(state, options.role)]


def _job(state: State, options: Options) -> list[Statement]:
    """Plan the function with which the collector keeps to what may be published; it has the rights of who installs."""
    theirs = "publish" in state.functions and "publish" not in state.foreign and not state.superuser
    plan = []
    signature = f"FUNCTION {publishing.SIGNATURE}"
    if state.functions.get("publish") != publishing.PUBLISH_BODY and not theirs:
        plan.append(Statement(publishing.CREATE_PUBLISH, "schema", "publishes tables as soon as they can be"))
        plan.append(Statement(f"REVOKE ALL ON {signature} FROM PUBLIC", "schema", "for the collectors only"))
    if "publish" in state.foreign and state.superuser:
        sql = f"ALTER {signature} OWNER TO CURRENT_USER"
        plan.append(Statement(sql, "schema", "another one's table takes a superuser"))
    if plan or not state.may_publish:
        sql = f"GRANT EXECUTE ON {signature} TO {quote_identifier(options.role)}"
        plan.append(Statement(sql, "schema", "the collector lets it run every few seconds", optional=theirs))
    return plan


def _publications(state: State, options: Options) -> list[Statement]:
    plan: list[Statement] = []

    def add(sql: str, why: str, *, optional: bool = False) -> None:
        plan.append(Statement(sql, "publications", why, optional=optional and not state.superuser))

    announced = f"SELECT {SCHEMA}.control('{PUBLISH_CONTROL}')"
    remade = False
    for name, operations in PUBLICATIONS.items():
        found = state.publications.get(name)
        every = state.superuser and name == PUBLICATION_INSERTS
        if found is None or (every and not found.all_tables):
            if found is not None:
                add(announced, "the change is evidence, too")
                add(f"DROP PUBLICATION {name}", "it lists tables; made again in the same transaction for all of them")
            remade = remade or every or name == PUBLICATION_INSERTS
            sql = publishing.create_publication(name, state.version, all_tables=every)
            add(sql, f"of {'all tables' if every else 'what it lists'}, {operations} are read")
        elif not _formed(state, found, PUBLICATIONS[name] if name == PUBLICATION_INSERTS else found.operations):
            add(announced, "the change is evidence, too")
            set_to = publishing.publication_options(name, state.version, found.operations)
            add(
                f"ALTER PUBLICATION {name} SET ({set_to})",
                "generated columns that are stored are read where they can be",
            )
    before = state.publications.get(PUBLICATION_INSERTS)
    globs = asked(state, options)
    if remade or before is None or before.asked != globs:
        text = json.dumps(globs).replace("'", "''")
        add(
            f"COMMENT ON PUBLICATION {PUBLICATION_INSERTS} IS '{text}'", "the tables that were asked for", optional=True
        )
    return plan


def _formed(state: State, found: Publication, operations: str) -> bool:
    """Say whether a publication has the form an installation gives it, but for what it publishes."""
    stored = state.version >= publishing.GENERATED_MIN
    return (found.operations, found.by_root, found.stored) == (operations, True, stored)


def _narrowed(state: State) -> list[Statement]:
    """Plan that the publication of updates publishes nothing else, as it did in earlier installations."""
    found = state.publications.get(PUBLICATION)
    if found is None or found.operations == PUBLICATIONS[PUBLICATION]:
        return []
    why = "inserts and truncates are read by the other one, now that it has every table"
    return [Statement(publishing.narrow(state.version), "publication of updates", why)]


def _table(state: State, table: Table) -> list[Statement]:
    sqls: list[tuple[str, str]] = []
    name = table.qualified
    if table.trigger != "A" or table.conditional or table.form == "?":
        first, second = templates.create_trigger(name, table.form_wanted)
        sqls.append((first, "the beacon"))
        sqls.append((second, "it speaks under session_replication_role = replica, too"))
    if not table.registered:
        literal = name.replace("'", "''")
        sql = f"INSERT INTO {SCHEMA}.covered (relation) VALUES ('{literal}') ON CONFLICT (relation) DO NOTHING"
        sqls.append((sql, "from here on a write without a beacon is a finding"))
    if table.due:
        why = "its updates are read" if table.keyed else "no usable replica identity: inserts and truncates are read"
        sqls.append((publishing.publish_now(name), why))
    if sqls:
        lock = f"LOCK TABLE ONLY {name} IN SHARE UPDATE EXCLUSIVE MODE"
        sqls.insert(0, (lock, "so that it stays what it is until then"))
    return [Statement(sql, f"table {name}", why, name) for sql, why in sqls]
