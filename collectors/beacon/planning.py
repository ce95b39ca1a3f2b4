"""Decides what an installation, a pause or a removal has to do: from the state found to statements; pure.

What is there already needs no statement, so a second run does nothing and a run that was broken off goes on where it
stood. Statements with the same `group` belong into one transaction; each table is a group of its own, so that no lock
waits for another table.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from msgspec import Struct

from collectors.beacon import ddl_templates, emission, keeping, key_templates, level, templates
from collectors.beacon.catalogue import State, Table
from collectors.beacon.templates import OWNER, PUBLICATION, PUBLICATION_INSERTS, SCHEMA
from pgwitness.events import quote_identifier

PUBLICATIONS = {PUBLICATION: "insert,update,delete,truncate", PUBLICATION_INSERTS: "insert,truncate"}
"""What each of our publications publishes; the second is for tables without a usable replica identity."""


LAST = "last"
"""The group that is run only when something was done before it."""


class Options(Struct, frozen=True, kw_only=True):
    """What the operator asked for.

    `tables` are globs over `schema.table`; one without a dot means that table in any schema. `role` is the
    collectors' login role. A lock is waited for `lock_timeout_ms` at most, and a table tried `attempts` times.
    """

    tables: tuple[str, ...] = ("*",)
    role: str = "pgwitness"
    lock_timeout_ms: int = 2_000
    attempts: int = 3

    def chosen(self, table: Table) -> bool:
        """Say whether the globs choose a table; a partition goes with its root."""
        names = [f"{table.schema}.{table.name}", table.qualified, *([table.root] if table.root else [])]
        return any(fnmatchcase(name, glob if "." in glob else f"*.{glob}") for glob in self.tables for name in names)


class Statement(Struct, frozen=True):
    """One statement of a plan: its SQL, the transaction (`group`) it belongs to, the table it locks and why it is.

    An `optional` one may be denied to who installs: the rest goes on without it (`level` says what that costs).
    """

    sql: str
    group: str
    why: str
    table: str | None = None
    optional: bool = False


def install(state: State, options: Options) -> list[Statement]:
    """Plan what is missing for the collectors' role, the publications and the beacon on the chosen tables."""
    ground = _roles(state, options) + _schema(state, options) + _publications(state)
    tables = [s for table in state.tables if options.chosen(table) for s in _table(state, table)]
    events = _events(state, options)
    kept = [Statement(sql, keeping.GROUP, why) for sql, why in keeping.members(state, bool(ground or events))]
    announce = []
    if ground or tables or events or kept:
        announce = [Statement(f"SELECT {SCHEMA}.control('install')", LAST, "the installation is evidence, too")]
    return ground + tables + events + kept + announce


def covers_new_tables(state: State, options: Options) -> bool:
    """Say whether tables that are made later get their beacon at once: where all were asked for, now or before."""
    return "cover" in state.functions or (state.superuser and "*" in options.tables)


def _events(state: State, options: Options) -> list[Statement]:
    """Plan the event triggers, after the tables: what the installation itself does to those is announced anyway.

    Who may not make them makes their function, so that the statements for a more powerful role are short.
    """
    plan: list[Statement] = []

    def add(sql: str, why: str) -> None:
        plan.append(Statement(sql, "event triggers", why))

    covers = covers_new_tables(state, options)
    if covers and state.superuser and state.functions.get("cover") != ddl_templates.cover_body():
        add(ddl_templates.create_cover(), "puts the beacon on tables as they are made")
        add(f"REVOKE ALL ON FUNCTION {SCHEMA}.cover(oid[]) FROM PUBLIC", "for the event trigger only")
        add(f"GRANT EXECUTE ON FUNCTION {SCHEMA}.cover(oid[]) TO {OWNER}", "whose function the event trigger runs")
    if state.functions.get("ddl") != ddl_templates.ddl_body(covers=covers, version=state.version):
        add(
            ddl_templates.create_ddl(covers=covers, version=state.version),
            "writes DDL into the WAL of its own transaction",
        )
        add(f"ALTER FUNCTION {SCHEMA}.ddl() OWNER TO {OWNER}", "so that it runs with nobody else's rights")
        add(f"REVOKE ALL ON FUNCTION {SCHEMA}.ddl() FROM PUBLIC", "for nobody else's event triggers")
    if not state.may_see_ddl:
        return plan
    for name, event in ddl_templates.EVENT_TRIGGERS.items():
        if state.event_triggers.get(name) == "A":
            continue
        for sql in ddl_templates.create_event_trigger(name):
            add(sql, f"tells each {event}, also under session_replication_role = replica")
    return plan


def pause(state: State, *, paused: bool) -> list[Statement]:
    """Plan the switch of every beacon of the database at once; it locks no table of the application."""
    if "beacon" not in state.functions:
        return []
    word = "pause" if paused else "resume"
    body = key_templates.of_generation(emission.beacon_body(state.guarded, paused=paused), state.generation)
    return [
        Statement(emission.create_beacon(body), word, f"{word}s every beacon of this database, in open sessions, too"),
        Statement(f"SELECT {SCHEMA}.control('{word}')", word, f"the {word} is evidence, too"),
    ]


def rotate_key(state: State) -> list[Statement]:
    """Plan another key: the functions that speak are replaced, which no table's lock is needed for."""
    speaking = [(statement.sql, statement.why) for statement in _speaking(state, state.generation + 1)]
    return [Statement(sql, "rotate key", why) for sql, why in keeping.rotate(state, speaking)]


def uninstall(state: State, options: Options) -> list[Statement]:
    """Plan the removal: the chosen tables; with all of them gone also the publications, slots, schema and roles."""
    plan: list[Statement] = []
    if "control" in state.functions:
        plan.append(Statement(f"SELECT {SCHEMA}.control('uninstall')", "announce", "the removal is evidence, too"))
    rest = False
    for table in state.tables:
        if not (table.trigger or table.publications or table.registered):
            continue
        if not options.chosen(table):
            rest = True
            continue
        plan += _remove_table(table)
    return plan if rest else plan + _remove_ground(state, options)


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


def _tried(sql: str) -> str:
    """Write a statement that may be denied so that the file goes on without it."""
    return (
        f"DO $try$ BEGIN {sql}; EXCEPTION WHEN insufficient_privilege THEN\n"
        f"    RAISE NOTICE 'left out: %', SQLERRM; END $try$;"
    )


def _roles(state: State, options: Options) -> list[Statement]:
    plan: list[Statement] = []
    role = quote_identifier(options.role)

    def add(sql: str, why: str, *, optional: bool = False) -> None:
        plan.append(Statement(sql, "roles", why, optional=optional and not state.superuser))

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
        add(f"CREATE ROLE {role} LOGIN", "the collectors' role; give it a password before use")
    if state.collector is None or not (state.collector.replication or state.collector.superuser):
        add(level.replication_sql(state, options.role), "reading the WAL needs it", optional=True)
    if state.collector is None or not state.collector.monitor:
        add(f"GRANT pg_monitor TO {role}", "sessions, statistics and settings of others", optional=True)
    return plan


def _schema(state: State, options: Options) -> list[Statement]:
    plan: list[Statement] = []

    def add(sql: str, why: str) -> None:
        plan.append(Statement(sql, "schema", why))

    def owned(kind: str, name: str) -> None:
        add(f"ALTER {kind} {SCHEMA}.{name} OWNER TO {OWNER}", "so that it runs with nobody else's rights")

    if not state.statements:
        why = "statistics of statements: reads and DDL are seen there"
        plan.append(Statement("CREATE EXTENSION pg_stat_statements", "extension", why, optional=not state.superuser))
    if not state.schema:
        add(templates.CREATE_SCHEMA, "where everything of pgwitness is")
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

    body = emission.beacon_body(state.guarded)
    paused = emission.beacon_body(state.guarded, paused=True)
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
    if differs("beacon", body, paused):
        body = paused if emission.PAUSE in state.functions.get("beacon", "") else body
        made("beacon()", emission.create_beacon(body), "the triggers' function, which speaks", "for our triggers only")
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
    return plan + [Statement(sql, "schema", why) for sql, why in keeping.grants(state, options.role)]


def _publications(state: State) -> list[Statement]:
    plan = []
    for name, operations in PUBLICATIONS.items():
        if name not in state.publications:
            sql = templates.create_publication(name, operations)
        elif state.publications[name] != operations:
            sql = f"ALTER PUBLICATION {name} SET (publish = '{operations}', publish_via_partition_root = true)"
        else:
            continue
        plan.append(Statement(sql, "publications", f"lists the tables whose {operations} are read"))
    return plan


def publication_of(table: Table) -> str | None:
    """Give the publication a table belongs into; a partition is published by its root."""
    if table.root is not None:
        return None
    return PUBLICATION if table.keyed else PUBLICATION_INSERTS


def _table(state: State, table: Table) -> list[Statement]:
    sqls: list[tuple[str, str]] = []
    name = table.qualified
    if table.trigger != "A" or table.conditional:
        first, second = templates.create_trigger(name)
        sqls.append((first, "the beacon"))
        sqls.append((second, "it speaks under session_replication_role = replica, too"))
    wanted = publication_of(table)
    sqls += [
        (f"ALTER PUBLICATION {old} DROP TABLE {name}", "its replica identity has changed")
        for old in table.publications
        if old != wanted
    ]
    if wanted is not None and wanted not in table.publications:
        why = "its changes are read" if table.keyed else "no usable replica identity: inserts and truncates only"
        sqls.append((f"ALTER PUBLICATION {wanted} ADD TABLE {name}", why))
    if not table.registered or sqls:
        literal = name.replace("'", "''")
        publication = f"'{wanted}'" if wanted else "NULL"
        sqls.append(
            (
                f"INSERT INTO {SCHEMA}.covered (relation, publication) VALUES ('{literal}', {publication})\n"
                "ON CONFLICT (relation) DO UPDATE SET publication = excluded.publication",
                "from here on a write without a beacon is a finding",
            )
        )
    return [Statement(sql, f"table {name}", why, name) for sql, why in sqls]


def _remove_table(table: Table) -> list[Statement]:
    name = table.qualified
    sqls = []
    if table.registered:
        literal = name.replace("'", "''")
        sqls.append((f"DELETE FROM {SCHEMA}.covered WHERE relation = '{literal}'::regclass", "no longer covered"))
    if table.trigger:
        sqls.append((f"DROP TRIGGER IF EXISTS {templates.TRIGGER} ON {name}", "the beacon"))
    sqls += [(f"ALTER PUBLICATION {old} DROP TABLE {name}", "no longer read") for old in table.publications]
    return [Statement(sql, f"table {name}", why, name) for sql, why in sqls]


def _remove_ground(state: State, options: Options) -> list[Statement]:
    plan = [Statement(key_templates.RELEASE, keeping.GROUP, "what an extension holds cannot be dropped")]
    plan = plan if state.schema else []
    plan += [
        Statement(f"DROP EVENT TRIGGER {name}", "event triggers", "DDL is no longer told")
        for name in state.event_triggers
    ]
    plan += [
        Statement(f"DROP PUBLICATION {name}", "publications", "nothing is read any more") for name in state.publications
    ]
    plan += [
        Statement(f"SELECT pg_drop_replication_slot('{name}')", f"slot {name}", "it would hold WAL back for ever")
        for name, active in state.slots
        if not active
    ]
    if state.schema:
        plan.append(Statement(f"DROP SCHEMA {SCHEMA} CASCADE", "schema", "key, registry and functions"))
    roles = [OWNER] if state.owner_exists else []
    roles += [options.role] if state.collector is not None else []
    for role in roles:
        if role in state.elsewhere:
            continue
        quoted = quote_identifier(role)
        if not state.superuser and role != OWNER:
            grant = f"GRANT {quoted} TO CURRENT_USER"
            plan.append(Statement(grant, f"role {role}", "to take its rights", optional=True))
        plan += [
            Statement(f"DROP OWNED BY {quoted}", f"role {role}", "its rights in this database"),
            Statement(f"DROP ROLE {quoted}", f"role {role}", "no other database needs it"),
        ]
    return plan
