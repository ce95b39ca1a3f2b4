"""Decides what an installation of the guard runs, and what its removal does; pure."""

from __future__ import annotations

from collectors.guard import relations, sql
from collectors.guard.catalogue import State, Table
from collectors.guard.names import OWNER, SCHEMA
from collectors.guard.wanted import Wanted
from collectors.installation.steps import Statement
from pgwitness.core.events import quote_identifier

ROLE, GROUND, EVENTS = "role", "guard", "event triggers"
_OWNER = quote_identifier(OWNER)


def install(state: State, wanted: Wanted) -> list[Statement]:
    """Plan what is missing or differs. Table by table, each in a transaction of its own."""
    plan: list[Statement] = []
    if not state.owner:
        plan.append(Statement(f"CREATE ROLE {_OWNER} NOLOGIN", ROLE, "runs what judges; nobody logs in as it"))
    if not state.stats:
        why = "to see what sort of session it is in, and when that began"
        plan.append(Statement(f"GRANT pg_read_all_stats TO {_OWNER}", ROLE, why))
    if not state.schema:
        plan.append(Statement(sql.CREATE_SCHEMA, GROUND, "what the guard has here"))
    elif not state.schema_owned:  # restored from a dump without its owner
        plan.append(Statement(f"ALTER SCHEMA {SCHEMA} OWNER TO {_OWNER}", GROUND, "what judges runs as it"))
    for name, statement in sql.CREATE_TABLES.items():
        if name not in state.made:
            plan.append(Statement(statement, GROUND, "what the guard remembers"))
            plan.append(Statement(f"ALTER TABLE {SCHEMA}.{name} OWNER TO {_OWNER}", GROUND, "only it reads that"))
        if name not in state.kept:
            plan.append(Statement(_keep(name), GROUND, "no dump holds it", optional=not state.superuser))
    for name, statement in sql.functions(wanted).items():
        plan += _function(state, name, statement)
    if state.renamed or "known" not in state.made:
        plan.append(Statement(relations.LEARN, GROUND, "tables are judged by the names that they have now, as well"))
    made = sql.triggers(wanted)
    plan += [one for table in state.tables for one in _table(table, made)]
    plan += [one for table in state.strays for one in _table(table, {})]
    for name in sql.EVENT_TRIGGERS:
        if state.event_triggers.get(name) != "A":
            plan += [
                Statement(one, EVENTS, "sees drops and DDL, and keeps new tables guarded", optional=not state.superuser)
                for one in sql.event_trigger(name)
            ]
    return plan


def _keep(name: str) -> str:
    return f"ALTER EXTENSION plpgsql ADD TABLE {SCHEMA}.{name}"


def _function(state: State, name: str, statement: str) -> list[Statement]:
    ours = name != "keeps"
    if state.functions.get(name) == sql.body(statement) and (name in state.owned) == ours:
        return []
    signature = statement.partition("FUNCTION ")[2].partition(" RETURNS")[0].partition("\nRETURNS")[0]
    plan = [Statement(statement, GROUND, "judges as the policies say now")]
    if ours and name not in state.owned:
        plan.append(Statement(f"ALTER FUNCTION {signature} OWNER TO {_OWNER}", GROUND, "with nobody else's rights"))
    plan.append(Statement(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC", GROUND, "nobody else calls it"))
    return plan


def _table(table: Table, made: dict[str, str]) -> list[Statement]:
    plan = []
    group = f"table {table.name}"
    for name, statement in made.items():
        if table.triggers.get(name) == _digest(statement):
            continue
        plan.append(Statement(statement.replace("@table@", table.name), group, "asks the guard", table.name))
        always = f"ALTER TABLE ONLY {table.name} ENABLE ALWAYS TRIGGER {name}"
        plan.append(Statement(always, group, "under session_replication_role, too", table.name))
    gone = [name for name in table.triggers if name not in made]
    plan += [
        Statement(f"DROP TRIGGER {quote_identifier(name)} ON {table.name}", group, "no policy asks for it", table.name)
        for name in gone
    ]
    return plan


def _digest(statement: str) -> str:
    return statement.rpartition("('")[2].removesuffix("')")


def uninstall(state: State) -> list[Statement]:
    """Plan the removal of everything: first what would stand in the way of removing the rest."""
    plan = [
        Statement(f"DROP EVENT TRIGGER {name}", EVENTS, "nothing judges DDL any more") for name in state.event_triggers
    ]
    for table in (*state.tables, *state.strays):
        plan += _table(table, {})
    if state.schema:
        plan += [
            Statement(f"ALTER EXTENSION plpgsql DROP TABLE {SCHEMA}.{name}", GROUND, "a member cannot be dropped")
            for name in sorted(state.kept)
        ]
        plan.append(Statement(f"DROP SCHEMA {SCHEMA} CASCADE", GROUND, "what the guard had here"))
    if state.owner and not state.elsewhere:
        plan.append(Statement(f"DROP OWNED BY {_OWNER}", ROLE, "its rights in this database"))
        plan.append(Statement(f"DROP ROLE {_OWNER}", ROLE, "no other database needs it"))
    return plan


def differences(state: State, wanted: Wanted) -> list[tuple[str, str]]:
    """List what is not as it should be: what it is about, and what is wrong. Empty where everything is in order."""
    found = []
    missing = [name for name in sql.CREATE_TABLES if name not in state.made]
    if not state.schema or missing or not state.functions:
        why = f"its tables are not there: {', '.join(missing)}" if state.functions else "not installed"
        return [("guard", why)]
    functions = sql.functions(wanted)
    changed = [name for name, one in functions.items() if state.functions.get(name) != sql.body(one)]
    if changed:
        found.append(("guard", "policies, identities or roles have changed since it was installed"))
    off = [name for name in sql.EVENT_TRIGGERS if state.event_triggers.get(name) != "A"]
    if off:
        found.append(("guard", f"event triggers are off or not there, so drops and DDL pass: {', '.join(off)}"))
    if state.filled is False:
        found.append(("guard", "its key is lost or another one: what was approved is refused"))
    if state.renamed:
        name, known = state.renamed[0]
        others = f"{len(state.renamed)} tables are known by other names or none"
        found.append(("guard", f"{others}, such as {name} ({known or 'none'})"))
    made = {name: _digest(one) for name, one in sql.triggers(wanted).items()}
    bare = [table.name for table in state.tables if any(table.triggers.get(name) != one for name, one in made.items())]
    if bare:
        count = f"{len(bare)} of {len(state.tables)}"
        found.append(("guard", f"{count} tables are not guarded as configured, such as {bare[0]}"))
    return found
