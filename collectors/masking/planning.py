"""Decides what a database lacks of its masks: role, schemas, views and grants; pure.

All of it is one transaction: either an audience has every view as configured, or nothing has changed. A view carries
in its comment which rules it was made by and which tokens its few values cost it, so that a later run sees what is due.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from collectors.installation.steps import Statement
from collectors.masking import expressions, upkeep
from collectors.masking.catalogue import Column, Role, State, Table, View
from collectors.masking.names import MARK, OWNER, PADS, SCHEMA, quoted, role_of, text, view_schema
from collectors.masking.treatment import Kind, column_name, rule, treatments
from pgwitness.core.config import Audience, Privacy

GROUP = "masks"
DISTINCT_MAX = 100
"""A column with at most so many values, each of which stands in more than two rows on average, has few."""
ROLE_OPTIONS = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT"
"""What an audience's role is made with; it gets no password: whoever hands it out sets one."""

CREATE_PADS = f"""\
CREATE TABLE {PADS} (
    sole boolean PRIMARY KEY DEFAULT true CHECK (sole),
    inner_pad bytea NOT NULL CHECK (length(inner_pad) = 64),
    outer_pad bytea NOT NULL CHECK (length(outer_pad) = 64)
)"""

Few = Mapping[tuple[int, str], bool]
"""Whether a column (its table's oid, its name) has few values."""


class Wanted(NamedTuple):
    """A view that an audience should have: of which table, in which schema, each column with its kind and SQL.

    `ruled` are the columns that a rule masks by name.
    """

    table: Table
    schema: str
    columns: tuple[tuple[Column, Kind, str], ...]
    few: tuple[str, ...]
    rules: str
    ruled: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The view's name in SQL."""
        return f"{quoted(self.schema)}.{quoted(self.table.name)}"

    @property
    def mark(self) -> dict[str, object]:
        """What the view's comment holds."""
        return {"rules": self.rules, "few": list(self.few)}

    @property
    def sql(self) -> str:
        """The statement that makes the view."""
        shown = ",\n".join(f"    {made} AS {quoted(column.name)}" for column, _, made in self.columns)
        return f"CREATE VIEW {self.name} AS SELECT\n{shown}\nFROM {self.table.sql} AS t"


class Trouble(NamedTuple):
    """What cannot be masked as configured: what, why, and what to do."""

    what: str
    why: str
    fix: str


def refusals(state: State, name: str, audience: Audience) -> list[Trouble]:
    """Say what keeps an audience from being set up at all."""
    found: list[Trouble] = []
    role_name = role_of(name, audience)
    if (role := state.roles.get(role_name)) is not None:
        found += _unfit(name, role)
    if state.owner_powers:
        why = f"the role of the views may do what it must not: {', '.join(state.owner_powers)}"
        found.append(Trouble(f"role {OWNER}", why, f"take that from {OWNER}, then run it again"))
    if any(table.owner == OWNER for table in state.tables):
        owned = next(table.qualified for table in state.tables if table.owner == OWNER)
        found.append(Trouble(owned, f"{OWNER} owns it, and would see all of it", "give the table another owner"))
    for schema in audience.schemas:
        views = view_schema(audience, schema)
        if schema in state.missing:
            found.append(Trouble(f"schema {schema}", "it does not exist", f"correct masks.{name}.schemas"))
        if views in state.taken:
            found.append(Trouble(f"schema {views}", "it is there, and not ours", f"set masks.{name}.prefix"))
    return found


def _unfit(name: str, role: Role) -> Iterator[Trouble]:
    subject = f"role {role.name}"
    if role.powers:
        why = f"it has {', '.join(role.powers)}: no view would keep anything from it"
        yield Trouble(subject, why, f"ALTER ROLE … NO{' NO'.join(role.powers)}, or another masks.{name}.role")
    if role.member_of:
        why = f"it is a member of {', '.join(role.member_of)}, and reads what they read"
        fix = f"REVOKE {', '.join(map(quoted, role.member_of))} FROM {quoted(role.name)}"
        yield Trouble(subject, why, f"{fix}, or set another masks.{name}.role")
    if not role.login:
        yield Trouble(subject, "it cannot log in", f"ALTER ROLE {quoted(role.name)} LOGIN")


def left_out(state: State, audience: Audience) -> list[Trouble]:
    """Say which tables get no view: their row security would show the views' owner other rows than the audience."""
    return [
        Trouble(
            table.qualified,
            f"its row security has policies for {', '.join(table.roles)}: a view would be judged as {OWNER}, not as who"
            " asks",
            "write its policies for PUBLIC, by settings or current_user; until then the audience does not see it",
        )
        for table in state.tables
        if table.roles and table.schema in audience.schemas
    ]


def wanted(state: State, audience: Audience, privacy: Privacy, few: Few) -> list[Wanted]:
    """List the views that an audience should have."""
    found = []
    named = rule(audience, privacy)
    for table in state.tables:
        if table.schema not in audience.schemas or table.roles:
            continue
        kinds = treatments(table, relatives(state, table), audience, privacy)
        rules = hashlib.sha256()
        columns: list[tuple[Column, Kind, str]] = []
        nulled: list[str] = []
        for column in table.columns:
            kind = kinds[column.name]
            rules.update(json.dumps([column.number, column.name, column.kept, kind, column.base]).encode())
            if kind == "token" and few.get((table.oid, column.name)):
                nulled.append(column.name)
                kind = "null"
            columns.append((column, kind, expressions.masked(column, kind, state.encoding)))
        rules.update(expressions.VERSION)
        found.append(
            Wanted(
                table,
                view_schema(audience, table.schema),
                tuple(columns),
                tuple(nulled),
                rules.hexdigest()[:16],
                frozenset(c.name for c in table.columns if named(column_name(table, c)) not in (None, "clear")),
            )
        )
    return found


def relatives(state: State, table: Table) -> dict[str, bool]:
    """List the other tables of the tree that a table is in, each with whether it stands above it."""
    above = _reached(table.oid, [(child, parent) for child, parent in state.tree])
    up = {table.oid, *above}
    below = set[int]()
    for oid in up:
        below |= _reached(oid, [(parent, child) for child, parent in state.tree])
    found = {state.names[oid]: oid in above for oid in (*above, *below) if oid != table.oid}
    return dict(sorted(found.items()))


def has_few(distinct: float, rows: float) -> bool:
    """Say whether values repeat so much that how often a token stands there tells what it stands for."""
    return distinct <= DISTINCT_MAX and rows > 2 * distinct


def _reached(start: int, edges: list[tuple[int, int]]) -> set[int]:
    found: set[int] = set()
    todo = [start]
    while todo:
        at = todo.pop()
        for one, other in edges:
            if one == at and other not in found:
                found.add(other)
                todo.append(other)
    return found


def install(state: State, audiences: Mapping[str, Audience], views: Mapping[str, list[Wanted]]) -> list[Statement]:
    """Plan what is missing for audiences; `views` are what each of them should have."""
    plan = [*_ground(state), *_upkeep(state)] if audiences else []
    for name, audience in audiences.items():
        plan += _role(state, name, audience)
    plan += _forgotten(state, [view for name in audiences for view in views[name]])
    plan += _stale(state, audiences)
    plan += _grants(state, [view for name in audiences for view in views[name]])
    for name, audience in audiences.items():
        plan += _views(state, name, audience, views[name])
    return _bound(plan)


def _bound(plan: list[Statement]) -> list[Statement]:
    """Let what the views call be bound to PostgreSQL's own, whatever else is called so here."""
    return [_do("SET LOCAL search_path = pg_catalog, pg_temp", "only PostgreSQL's own is meant"), *plan] if plan else []


def uninstall(state: State) -> list[Statement]:
    """Plan that nothing of masking stays in the database; roles that other databases need stay, too."""
    plan = [_do(sql, why) for sql, why in upkeep.drop()] if state.functions else []
    plan += _stale(state, {})
    plan += _grants(state, [])
    if state.pads:
        plan += [_do(f"DROP TABLE {PADS}", "no view reads it"), _do(f"DROP SCHEMA {SCHEMA}", "it is empty")]
    for role in state.roles.values():
        if role.ours:
            sql = f"ALTER ROLE {quoted(role.name)} IN DATABASE {quoted(state.database)} RESET search_path"
            plan += [_do(sql, "there are no views")] if role.settings else []
    gone = [OWNER] if state.owner else []
    gone += [quoted(role.name) for role in state.roles.values() if role.ours]
    return plan + [Statement(f"DROP ROLE {role}", GROUP, "it was made for masking", optional=True) for role in gone]


def suspend(state: State) -> list[Statement]:
    """Plan that every view is away until masks are installed again; roles, schemas and the key stay."""
    plan = [_do(f"DELETE FROM {upkeep.VIEWS}", "they come back when masks are installed again")]
    return (plan if state.registered else []) + [
        _do(f"DROP VIEW IF EXISTS {quoted(view.schema)}.{quoted(view.name)}", "it is in the way", None)
        for view in state.views
        if view.schema in state.schemas
    ]


def _upkeep(state: State) -> Iterator[Statement]:
    """Let the application's DDL go on; only a superuser may have event triggers."""
    if not state.superuser:
        return
    bodies = {"stand_aside": upkeep.STAND_ASIDE, "come_back": upkeep.COME_BACK}
    if state.registered is None:
        statements = upkeep.create()
    elif not all(state.functions.get(name, "?") in sql for name, sql in bodies.items()):
        statements = upkeep.functions()
    else:
        statements = []
    yield from (_do(sql, why) for sql, why in statements)


def _forgotten(state: State, views: list[Wanted]) -> Iterator[Statement]:
    kept = {(view.schema, view.table.name) for view in views}
    for schema, name in state.registered or {}:
        if (schema, name) not in kept:
            yield _do(upkeep.forget(schema, name), "it is not to come back")


def keeps_up(state: State) -> bool:
    """Say whether the views stand aside for the application's DDL."""
    return state.registered is not None and set(upkeep.EVENT_TRIGGERS) <= set(state.event_triggers)


def _stale(state: State, audiences: Mapping[str, Audience]) -> Iterator[Statement]:
    """Drop schemas of views that nobody is to have any more."""
    kept = {view_schema(audience, s): name for name, audience in audiences.items() for s in audience.schemas}
    for schema, name in state.schemas.items():
        if kept.get(schema) == name:
            continue
        for view in state.views:
            if view.schema == schema:
                yield _do(f"DROP VIEW IF EXISTS {quoted(schema)}.{quoted(view.name)}", f"{name} has it no more")
        yield _do(f"DROP SCHEMA {quoted(schema)}", "it is empty")


def _grants(state: State, views: list[Wanted]) -> Iterator[Statement]:
    """Let the views' owner read what a view of any audience reads, and no more."""
    needed: dict[int, set[str]] = {}
    for view in views:
        read = {column.name for column, _, made in view.columns if not made.startswith("NULL::")}
        if not read:  # PostgreSQL counts the rows of a table only for who may read a column of it
            read = {column.name for column, _, _ in view.columns[:1]}
        needed.setdefault(view.table.oid, set()).update(read)
        for oid, column in view.table.policies_read:  # row security is judged with the owner's rights
            needed.setdefault(oid, set()).add(column)
    for table in state.tables:
        wanted_here = needed.get(table.oid, set())
        lacking = [c.name for c in table.columns if not c.granted and c.name in wanted_here]
        beyond = [c.name for c in table.columns if c.granted and c.name not in wanted_here]
        for verb, names, to in (("GRANT", lacking, "TO"), ("REVOKE", beyond, "FROM")):
            if names:
                sql = f"{verb} SELECT ({', '.join(map(quoted, names))}) ON {table.sql} {to} {OWNER}"
                yield Statement(sql, GROUP, "what views read of it, and no more", table.qualified)


def _ground(state: State) -> Iterator[Statement]:
    if not state.owner:
        options = "NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT"
        yield _do(f"CREATE ROLE {OWNER} {options}", "the owner of the views, which owns no table")
    if not state.superuser and not state.member:
        yield _do(f"GRANT {OWNER} TO CURRENT_USER", "who makes its views must be a member of it")
    if not state.pads:
        yield _do(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA} AUTHORIZATION {OWNER}", "what only the views read")
        yield _do(CREATE_PADS, "the key of the tokens, in the form that HMAC needs")
        yield _do(f"ALTER TABLE {PADS} ENABLE ROW LEVEL SECURITY", "pg_read_all_data sees no row of it")
        yield _do(f"ALTER TABLE {PADS} OWNER TO {OWNER}", "nobody else has a right on it")


def _role(state: State, name: str, audience: Audience) -> Iterator[Statement]:
    role = role_of(name, audience)
    if role not in state.roles:
        yield _do(f"CREATE ROLE {quoted(role)} {ROLE_OPTIONS}", f"the audience {name}; it has no password yet")
        yield _do(f"COMMENT ON ROLE {quoted(role)} IS {text(MARK + name)}", "it is known again by this")
    path = ", ".join([*(view_schema(audience, s) for s in audience.schemas), *audience.schemas])
    there = state.roles[role].settings if role in state.roles else ()
    quoted_path = ", ".join(
        [quoted(view_schema(audience, s)) for s in audience.schemas] + [quoted(s) for s in audience.schemas]
    )
    if not any(_path(setting) == path for setting in there):
        sql = f"ALTER ROLE {quoted(role)} IN DATABASE {quoted(state.database)} SET search_path = {quoted_path}"
        yield _do(sql, "a table's name alone means its view")


def _path(setting: str) -> str | None:
    key, _, value = setting.partition("=")
    if key != "search_path":
        return None
    return ", ".join(part.strip().strip('"').replace('""', '"') for part in value.split(","))


def _views(state: State, name: str, audience: Audience, views: list[Wanted]) -> Iterator[Statement]:
    role = quoted(role_of(name, audience))
    for schema in audience.schemas:
        views_in = view_schema(audience, schema)
        if views_in not in state.schemas:
            yield _do(f"CREATE SCHEMA {quoted(views_in)} AUTHORIZATION {OWNER}", f"the views over {schema}")
            mark = text(MARK + name)
            yield _do(f"COMMENT ON SCHEMA {quoted(views_in)} IS {mark}", "it is known again by this")
            yield _do(f"GRANT USAGE ON SCHEMA {quoted(views_in)} TO {role}", "the audience reads them")
    there = {(view.schema, view.name): view for view in state.views}
    for view in views:
        found = there.pop((view.schema, view.table.name), None)
        known = (state.registered or {}).get((view.schema, view.table.name))
        kept = not state.superuser or known == (view.table.oid, view.table.name)
        if found is not None and current(found, view) and kept:
            continue
        if found is not None:
            yield _do(f"DROP VIEW IF EXISTS {view.name}", "it is not as configured", view)
        yield from _view(view, role)
        if state.superuser:
            yield from _registered(view, role_of(name, audience))
    ours = {view_schema(audience, schema) for schema in audience.schemas}
    for (schema, relation), _ in sorted(there.items()):
        if schema in ours:
            yield _do(
                f"DROP VIEW IF EXISTS {quoted(schema)}.{quoted(relation)}", "its table is gone, or is not to be seen"
            )


def _registered(view: Wanted, reader: str) -> Iterator[Statement]:
    mark = MARK + json.dumps(view.mark)
    of = view.table
    yield _do(upkeep.forget(view.schema, of.name), "it is another one now", view)
    sql = upkeep.remember(view.schema, of.schema, of.name, of.oid, reader, mark)
    yield _do(sql, "it comes back behind the application's DDL", view)
    if view.columns:
        columns = [(c.number, c.name, made, kind == "clear", c.name in view.ruled) for c, kind, made in view.columns]
        yield _do(upkeep.remember_columns(view.schema, of.name, columns), "with these columns", view)


def current(found: View, view: Wanted) -> bool:
    """Say whether a view is as it should be."""
    return found.mark == view.mark and found.owner == OWNER and found.readable


def _view(view: Wanted, role: str) -> Iterator[Statement]:
    how = ", ".join(f"{column.name} {kind}" for column, kind, _ in view.columns)
    yield _do(view.sql, how.replace("\n", " "), view)
    yield _do(f"ALTER VIEW {view.name} OWNER TO {OWNER}", "it reads with this role's rights", view)
    yield _do(f"COMMENT ON VIEW {view.name} IS {text(MARK + json.dumps(view.mark))}", "what it was made by", view)
    yield _do(f"GRANT SELECT ON {view.name} TO {role}", "the audience reads it", view)


def _do(sql: str, why: str, view: Wanted | None = None) -> Statement:
    return Statement(sql, GROUP, why, view.table.qualified if view else None)
