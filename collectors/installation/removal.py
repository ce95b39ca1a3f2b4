"""Decides what a removal has to do, in an order that no open transaction can trip over; pure.

First what acts by itself is silenced: the event triggers and the job. Then `install` waits for the transactions that
are older than that, because they may hold a new table with a trigger that nobody else can see. Then the tables, one by
one; and when none is left the rest: a function goes only when no trigger names it any more.
"""

from __future__ import annotations

import json

from collectors.installation import publishing
from collectors.installation.catalogue import State, Table
from collectors.installation.sql import key_templates, templates
from collectors.installation.sql.templates import OWNER, PUBLICATION_INSERTS, SCHEMA
from collectors.installation.steps import Options, Statement
from pgwitness.core.events import quote_identifier


def whole(state: State, options: Options) -> bool:
    """Say whether nothing of pgwitness stays: whether the options choose every table it is on."""
    return all(options.chosen(table) for table in (*state.tables, *state.strays) if _ours(table))


def silence(state: State) -> list[Statement]:
    """Plan that nothing of ours acts by itself any more, and that the removal is announced."""
    plan: list[Statement] = []
    if "control" in state.functions:
        plan.append(Statement(f"SELECT {SCHEMA}.control('uninstall')", "announce", "the removal is evidence, too"))
    if state.schema:
        plan.append(Statement(key_templates.RELEASE, "members", "what an extension holds cannot be dropped"))
    plan += [
        Statement(f"DROP EVENT TRIGGER {name}", "event triggers", "DDL is no longer told")
        for name in state.event_triggers
    ]
    if "publish" in state.functions:
        sql = f"DROP FUNCTION {publishing.SIGNATURE}"
        plan.append(Statement(sql, "job", "tables are no longer published by themselves"))
    return plan


def tables(state: State, options: Options, *, announced: bool = False) -> list[Statement]:
    """Plan the removal from the chosen tables; `announced`: each says in its own transaction that it is evidence."""
    plan: list[Statement] = []
    for table in (*state.tables, *state.strays):
        if _ours(table) and options.chosen(table):
            steps = _table(table)
            plan += ([_announce(state, steps[0].group, table.qualified)] if announced else []) + steps
    return plan


def _announce(state: State, group: str, table: str | None = None) -> Statement:
    """Announce a change of what is published in its own transaction, so that a collector knows from where on it is."""
    sql = f"SELECT {SCHEMA}.control('{publishing.PUBLISH_CONTROL}')"
    return Statement(sql if "control" in state.functions else "SELECT", group, "the change is evidence, too", table)


def left_out(state: State, options: Options) -> list[Statement]:
    """Plan that the chosen tables are left out of what was asked for, while others stay."""
    inserts = state.publications.get(PUBLICATION_INSERTS)
    if inserts is None or inserts.asked is None:
        return []
    kept = [glob for glob in inserts.asked if glob not in options.tables]
    globs = [*kept, *(f"!{glob}" for glob in options.tables if f"!{glob}" not in kept)]
    text = json.dumps(globs).replace("'", "''")
    sql = f"COMMENT ON PUBLICATION {PUBLICATION_INSERTS} IS '{text}'"
    comment = Statement(sql, "publications", "their rows are no longer asked for", optional=not state.superuser)
    return [_announce(state, "publications"), comment]


def ground(state: State, options: Options) -> list[Statement]:
    """Plan the removal of the rest: publications, slots, schema and roles."""
    plan = [
        Statement(f"DROP PUBLICATION {name}", "publications", "nothing is read any more") for name in state.publications
    ]
    plan += [
        Statement(f"SELECT pg_drop_replication_slot('{name}')", f"slot {name}", "it would hold WAL back for ever")
        for name, active in state.slots
        if not active
    ]
    why = "refused while a trigger names it: inserts into that table would fail"
    plan += [
        Statement(f"DROP FUNCTION {SCHEMA}.{name}()", "schema", why)
        for name in templates.BEACONS
        if name in state.functions
    ]
    if state.schema:
        plan.append(Statement(f"DROP SCHEMA {SCHEMA} CASCADE", "schema", "key, registry and functions"))
    for extension in state.made_here:
        sql = f"DROP EXTENSION IF EXISTS {quote_identifier(extension)}"
        plan.append(Statement(sql, f"extension {extension}", "an installation made it", optional=True))
    return plan + _roles(state, options)


def _ours(table: Table) -> bool:
    return bool(table.trigger or table.publications or table.registered)


def _table(table: Table) -> list[Statement]:
    name = table.qualified
    sqls = [(f"ALTER PUBLICATION {old} DROP TABLE ONLY {name}", "no longer read") for old in table.publications]
    if table.registered:
        literal = name.replace("'", "''")
        sqls.append((f"DELETE FROM {SCHEMA}.covered WHERE relation = '{literal}'::regclass", "no longer covered"))
    if table.trigger:
        sqls.append((f"DROP TRIGGER IF EXISTS {templates.TRIGGER} ON {name}", "the beacon"))
    if table.lent and table.identity == "f":
        sqls.append((f"ALTER TABLE ONLY {name} REPLICA IDENTITY DEFAULT", "what it had before FULL was lent to it"))
    return [Statement(sql, f"table {name}", why, name) for sql, why in sqls]


def _roles(state: State, options: Options) -> list[Statement]:
    """Plan the removal of the roles that installations made; one that was there keeps what it had."""
    made = state.made
    if made is None:  # an earlier installation did not write it down
        made = (f"role {options.role}",) if state.collector is not None else ()
    plan: list[Statement] = []
    if OWNER in state.elsewhere:
        return plan
    if state.owner_exists:
        plan += _dropped(OWNER)
    for entry in sorted(made, key=lambda entry: not entry.startswith("role ")):
        what, _, role = entry.partition(" ")
        quoted, group = quote_identifier(role), f"role {role}"
        if role in state.elsewhere or (what != "role" and f"role {role}" in made):
            continue
        if what == "role":
            if not state.superuser:
                plan.append(Statement(f"GRANT {quoted} TO CURRENT_USER", group, "to take its rights", optional=True))
            plan += _dropped(role)
        elif what == "replication":
            plan.append(Statement(f"ALTER ROLE {quoted} NOREPLICATION", group, "it was given", optional=True))
        else:
            plan.append(
                Statement(f"REVOKE {quote_identifier(what)} FROM {quoted}", group, "it was given", optional=True)
            )
    return plan


def _dropped(role: str) -> list[Statement]:
    quoted, group = quote_identifier(role), f"role {role}"
    return [
        Statement(f"DROP OWNED BY {quoted}", group, "its rights in this database"),
        Statement(f"DROP ROLE {quoted}", group, "no other database needs it"),
    ]
