"""Does a statement account for what two snapshots of posture found different? By facts of the parser alone. Pure.

Three questions. `touches`: may it have had a part in it? Whatever names the object counts, and what names none.
`acts`: does it do just that to that object? `accounts`: do statements together account for the whole difference: who
was made a superuser was so by a statement that says SUPERUSER, who has new rights is named by a GRANT? What they leave
open somebody else may have done, so then nobody is named. `streams.fold.joins.posture_join` asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from pgwitness.core.events import Posture, quote_identifier
from streams.fold.memory.statements import Did

_ACTS = re.compile(
    r"(create|alter|drop|rename)_(role|role_set|database|database_set|system|schema|trigger|event_trigger"
    r"|publication|extension|table|table_as|view|materialized_view|foreign_table|owned|default_privileges)"
)
_VERBS = ("create_", "alter_", "drop_", "rename_")
_OTHERS = frozenset({"grant", "revoke", "grant_role", "revoke_role", "enable_trigger", "disable_trigger",
                     "reassign_owned", "change_owner"})  # fmt: skip
_VAGUE = frozenset({"create", "alter", "drop"})
"""What is left of a text that does not parse: it may do anything."""
_POWERS = {"superuser": "superuser", "createrole": "createrole", "createdb": "createdb",
           "replication": "replication", "bypassrls": "bypassrls"}  # fmt: skip
_DYNAMIC = "dynamic_name"
_SWITCHES = frozenset({"enabled", "active"})
_BOOLEAN = {"true": "on", "yes": "on", "1": "on", "false": "off", "no": "off", "0": "off"}


def matters(operations: Iterable[str]) -> bool:
    """Return whether one of these operations may change posture."""
    for word in operations:
        if word in _OTHERS or word in _VAGUE or (word.startswith(_VERBS) and _ACTS.fullmatch(word)):
            return True
    return False


def touches(raw: Posture, did: Did) -> bool:
    """Return whether a statement may have had a part in a difference."""
    if raw.database is not None and did.session.database not in (None, raw.database):
        return False
    match = _KINDS.get(raw.object_type)
    return match is not None and (not _VAGUE.isdisjoint(did.operations) or match[0](raw, did))


def acts(raw: Posture, did: Did) -> bool:
    """Return whether a statement does what the difference shows to that object."""
    match = _KINDS.get(raw.object_type)
    return match is not None and touches(raw, did) and match[1](raw, did)


def accounts(raw: Posture, dids: list[Did]) -> bool:
    """Return whether statements that act leave nothing of the difference unsaid."""
    match = _KINDS.get(raw.object_type)
    return match is not None and match[2](raw, dids)


def qualified(raw: Posture, did: Did) -> bool:
    """Return whether a statement names the very relation, not one of that name in whatever schema comes first."""
    relation = _relation(raw)
    return relation is None or relation in did.relations or f"all_in_schema {_schema(relation)}" in did.objects


# -- reading -------------------------------------------------------------------------------------------------------


def _has(raw: Posture) -> dict[str, object]:
    return raw.after if raw.after is not None else raw.before or {}


def _changed(raw: Posture) -> set[str]:
    before, after = raw.before or {}, raw.after or {}
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def _does(did: Did, *operations: str) -> bool:
    return any(word in did.operations for word in operations)


def _names(did: Did, word: str, name: str) -> bool:
    """Return whether a statement names an object, or one that only run time knew."""
    return f"{word} {name}" in did.objects or f"{word} {_DYNAMIC}" in did.objects


def _role(did: Did, word: str, name: str) -> bool:
    return _names(did, word, name) or any(f"{word} {role}" in did.objects for role in ("current_user", "session_user"))


def _relation(raw: Posture) -> str | None:
    if raw.dropped_with is not None:
        return raw.dropped_with
    if raw.object_type == "trigger":
        return str(_has(raw).get("relation", raw.name))
    on_table = raw.object_type == "grant" and raw.name.partition(" ")[0] not in _GRANT_ON
    return raw.name if raw.object_type == "table" or on_table else None


def _schema(relation: str) -> str:
    """Return a schema as a statement names it: without quotes."""
    schema = relation[: relation.index('".') + 1] if relation.startswith('"') else relation.partition(".")[0]
    return schema[1:-1].replace('""', '"') if schema.startswith('"') else schema


def _on(did: Did, relation: str | None) -> bool:
    return relation is not None and any(
        name == relation or relation.endswith("." + name) or _DYNAMIC in name for name in did.relations
    )


def _dropped_along(raw: Posture, did: Did) -> bool:
    return raw.dropped_with is not None and _does(did, "drop_table") and _on(did, raw.dropped_with)


# -- roles ---------------------------------------------------------------------------------------------------------


def _role_touched(raw: Posture, did: Did) -> bool:
    return _does(did, "create_role", "alter_role", "drop_role", "rename_role") and _role(did, "role", raw.name)


def _role_acted(raw: Posture, did: Did) -> bool:
    made = {"added": ("create_role", "rename_role"), "removed": ("drop_role", "rename_role")}
    return f"role {raw.name}" in did.objects and _does(did, *made.get(raw.change, ("alter_role", "create_role")))


def _role_accounted(raw: Posture, dids: list[Did]) -> bool:
    before, after = raw.before or {}, raw.after or {}
    gained = {word for power, word in _POWERS.items() if after.get(power) is True and before.get(power) is not True}
    said = {item.removeprefix("attribute ") for did in dids for item in did.objects if item.startswith("attribute ")}
    # A role under a new name is the old one: what it may do was not given now.
    return gained <= said or (raw.change == "added" and all(_does(did, "rename_role") for did in dids))


def _member_touched(raw: Posture, did: Did) -> bool:
    has = _has(raw)
    group, member = str(has.get("role")), str(has.get("member"))
    given = _role(did, "role", group) and _role(did, "grantee", member)
    if given and _does(did, "grant_role", "revoke_role", "create_role", "alter_role"):
        return True
    if _does(did, "drop_role", "rename_role") and (_role(did, "role", group) or _role(did, "role", member)):
        return True
    return _does(did, "create_role") and _put_in(did, group, member)


def _member_acted(raw: Posture, did: Did) -> bool:
    has = _has(raw)
    group, member = str(has.get("role")), str(has.get("member"))
    given = f"role {group}" in did.objects and f"grantee {member}" in did.objects
    if given:
        return _does(did, "revoke_role" if raw.change == "removed" else "grant_role", "create_role", "alter_role")
    if raw.change == "removed":
        return _does(did, "drop_role") and not {f"role {group}", f"role {member}"}.isdisjoint(did.objects)
    return raw.change == "added" and _does(did, "create_role") and _put_in(did, group, member)


def _put_in(did: Did, group: str, member: str) -> bool:
    """Return whether who makes a role makes it a member; from PostgreSQL 16 on its maker is one unless a superuser."""
    named = _names(did, "role", member) and _names(did, "granted", group)
    return named or (_names(did, "role", group) and did.session.role == member)


def _member_accounted(raw: Posture, dids: list[Did]) -> bool:
    before, after = raw.before or {}, raw.after or {}
    if after.get("admin") is not True or before.get("admin") is True:
        return True
    return any("attribute grant_option" in did.objects or _does(did, "create_role") for did in dids)


def _role_setting(raw: Posture) -> tuple[str, str]:
    """Read `ada IN shop`; `all` stands for everybody, and for every database."""
    role, _, database = raw.name.rpartition(" IN ")
    return _plain(role), _plain(database)


def _plain(name: str) -> str:
    if name == "ALL":
        return "all"
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _role_setting_touched(raw: Posture, did: Did) -> bool:
    role, database = _role_setting(raw)
    if role == "all" and _does(did, "alter_database_set", "drop_database", "rename_database"):
        return _names(did, "database", database)
    return _does(did, "alter_role_set", "drop_role", "rename_role") and _role(did, "role", role)


def _role_setting_acted(raw: Posture, did: Did) -> bool:
    role, database = _role_setting(raw)
    if raw.change == "removed" and _does(did, "drop_role", "drop_database"):
        return f"role {role}" in did.objects or f"database {database}" in did.objects
    if role == "all" and _does(did, "alter_database_set"):
        return f"database {database}" in did.objects
    named = [item for item in did.objects if item.startswith("database ")]
    return (
        _does(did, "alter_role_set")
        and f"role {role}" in did.objects
        and named == ([] if database == "all" else [f"database {database}"])
    )


def _role_setting_accounted(raw: Posture, dids: list[Did]) -> bool:
    said = {item.partition("=")[0] for did in dids for item in did.settings}
    dropped = raw.change == "removed" and any(_does(did, "drop_role", "drop_database") for did in dids)
    return dropped or "all" in said or {key.lower() for key in _changed(raw)} <= said


# -- settings and databases ----------------------------------------------------------------------------------------


def _setting_touched(raw: Posture, did: Did) -> bool:
    names = {item.partition("=")[0] for item in did.settings}
    return _does(did, "alter_system") and not names.isdisjoint({raw.name.lower(), "all", "?"})


def _setting_accounted(raw: Posture, dids: list[Did]) -> bool:
    """The last statement decides; a value that it names must be the one that was found, as far as words compare."""
    values = [item for did in dids for item in did.settings if item.partition("=")[0] == raw.name.lower()]
    if not values or raw.after is None:
        return True
    said, found = values[-1].partition("=")[2], str(raw.after.get("value", "")).lower()
    if said in ("?", "default") or found[:1].isdigit() or said[:1].isdigit():
        return True
    return _BOOLEAN.get(said, said) == _BOOLEAN.get(found, found)


def _database_touched(raw: Posture, did: Did) -> bool:
    return _does(did, "create_database", "alter_database", "drop_database", "rename_database") and _names(
        did, "database", raw.name
    )


def _database_acted(raw: Posture, did: Did) -> bool:
    made = {"added": ("create_database", "rename_database"), "removed": ("drop_database", "rename_database")}
    return f"database {raw.name}" in did.objects and _does(did, *made.get(raw.change, ("alter_database",)))


# -- grants --------------------------------------------------------------------------------------------------------

_GRANT_ON = ("database", "schema", "parameter", "function")


def _granted_on(raw: Posture, did: Did) -> bool | None:
    """Return whether a statement names what a grant is on; None when it names nothing that this knows."""
    relation = _relation(raw)
    if relation is None:
        kind = raw.name.partition(" ")[0]
        quoted = {f"{kind} {item[len(kind) + 1 :]}" for item in did.objects if item.startswith(f"{kind} ")}
        quoted |= {f"{kind} {quote_identifier(item[len(kind) + 1 :])}" for item in quoted}
        if quoted:
            return raw.name in quoted
        return False if did.relations else None
    if _on(did, relation):
        return True
    schemas = [item for item in did.objects if item.startswith("all_in_schema ")]
    if schemas:
        return f"all_in_schema {_schema(relation)}" in schemas
    elsewhere = did.relations or any(item.startswith(("database ", "schema ", "parameter ")) for item in did.objects)
    return False if elsewhere else None


def _grant_touched(raw: Posture, did: Did) -> bool:
    if _does(did, "drop_owned", "reassign_owned"):
        return True
    about = _does(did, "grant", "revoke", "change_owner", "drop_table", "create_table", "create_table_as")
    return about and _granted_on(raw, did) is not False


def _grant_acted(raw: Posture, did: Did) -> bool:
    named = _granted_on(raw, did) is True and _does(did, "grant", "revoke", "change_owner")
    return named or _dropped_along(raw, did)


def _grant_accounted(raw: Posture, dids: list[Did]) -> bool:
    if raw.dropped_with is not None:
        return True
    before, after = raw.before or {}, raw.after or {}
    owners = {str(has["owner"]) for has in (before, after) if "owner" in has}
    if len(owners) > 1 and not any(_does(did, "change_owner") for did in dids):
        return False
    said = {item.removeprefix("grantee ") for did in dids for item in did.objects if item.startswith("grantee ")}
    said |= owners | ({"public"} if not _entries(before) or not _entries(after) else set())
    changed = {_grantee(entry) for entry in _entries(before) ^ _entries(after)}
    return changed <= said


def _entries(has: dict[str, object]) -> set[str]:
    """List the entries of an ACL as a snapshot has it, those of columns too."""
    found: set[str] = set()
    for key, value in [("", has.get("acl")), *_columns(has)]:
        if isinstance(value, list):
            found |= {f"{entry}\0{key}" for entry in value}
    return found


def _columns(has: dict[str, object]) -> list[tuple[str, object]]:
    columns = has.get("columns")
    return [(str(name), value) for name, value in columns.items()] if isinstance(columns, dict) else []


def _grantee(entry: str) -> str:
    """Read who an entry of an ACL is for: `ada=r/postgres`; nobody is everybody."""
    if entry.startswith('"'):
        end = entry.index('"=')
        return entry[1:end].replace('""', '"')
    return entry.partition("=")[0] or "public"


# -- triggers, tables and what has a name --------------------------------------------------------------------------


def _trigger_named(raw: Posture, did: Did) -> bool:
    relation = str(_has(raw).get("relation", raw.name))
    name = raw.name.removeprefix(f"{relation}.")
    found = [item.removeprefix("trigger ") for item in did.objects if item.startswith("trigger ")]
    return any(name in (item, quote_identifier(item), quote_identifier(item.rpartition(".")[2])) for item in found)


def _trigger_touched(raw: Posture, did: Did) -> bool:
    if _dropped_along(raw, did):
        return True
    about = ("create_trigger", "drop_trigger", "rename_trigger", "enable_trigger", "disable_trigger", "drop_table")
    return _does(did, *about) and _on(did, _relation(raw))


def _trigger_acted(raw: Posture, did: Did) -> bool:
    if raw.dropped_with is not None:
        return _dropped_along(raw, did)
    switched = _does(did, "enable_trigger", "disable_trigger") and (
        "trigger all" in did.objects or _trigger_named(raw, did)
    )
    words = {"added": ("create_trigger", "rename_trigger"), "removed": ("drop_trigger", "rename_trigger")}
    made = _does(did, *words.get(raw.change, ("create_trigger",))) and _trigger_named(raw, did)
    return made or (raw.change == "changed" and switched)


def _trigger_accounted(raw: Posture, dids: list[Did]) -> bool:
    # What a trigger calls may have changed by another statement than the one that switches it.
    replaced = any(_does(did, "create_trigger") for did in dids)
    return raw.change != "changed" or replaced or _changed(raw) <= _SWITCHES


def _named_touched(raw: Posture, did: Did) -> bool:
    about = (f"{word}_{raw.object_type}" for word in ("create", "alter", "drop", "rename"))
    return _does(did, *about) and _names(did, raw.object_type, raw.name)


def _named_acted(raw: Posture, did: Did) -> bool:
    words = {"added": ("create", "rename"), "removed": ("drop", "rename")}.get(raw.change, ("alter",))
    return f"{raw.object_type} {raw.name}" in {
        *did.objects,
        *(f"{kind} {quote_identifier(name)}" for kind, _, name in (item.partition(" ") for item in did.objects)),
    } and _does(did, *(f"{word}_{raw.object_type}" for word in words))


def _named_accounted(raw: Posture, _: list[Did]) -> bool:
    only = _SWITCHES | {"owner"}
    return raw.change != "changed" or raw.object_type != "event_trigger" or _changed(raw) <= only


def _table_touched(raw: Posture, did: Did) -> bool:
    return _on(did, raw.name) and any(
        word.startswith(("create_", "alter_", "drop_", "rename_", "change_owner")) for word in did.operations
    )


def _table_acted(raw: Posture, did: Did) -> bool:
    words = {"added": ("create_", "rename_"), "removed": ("drop_", "rename_")}.get(raw.change, ("alter_",))
    kinds = ("table", "table_as", "view", "materialized_view", "foreign_table")
    return _on(did, raw.name) and _does(did, *(word + kind for word in words for kind in kinds))


def _table_accounted(raw: Posture, dids: list[Did]) -> bool:
    owned = raw.change != "changed" or "owner" not in _changed(raw)
    return owned or any(_does(did, "change_owner") for did in dids)


def _always(_: Posture, __: list[Did]) -> bool:
    return True


_Match = tuple[Callable[[Posture, Did], bool], Callable[[Posture, Did], bool], Callable[[Posture, list[Did]], bool]]
_NAMED: _Match = (_named_touched, _named_acted, _named_accounted)
_KINDS: dict[str, _Match] = {
    "role": (_role_touched, _role_acted, _role_accounted),
    "membership": (_member_touched, _member_acted, _member_accounted),
    "role_setting": (_role_setting_touched, _role_setting_acted, _role_setting_accounted),
    "setting": (_setting_touched, _setting_touched, _setting_accounted),
    "database": (_database_touched, _database_acted, _always),
    "grant": (_grant_touched, _grant_acted, _grant_accounted),
    "trigger": (_trigger_touched, _trigger_acted, _trigger_accounted),
    "table": (_table_touched, _table_acted, _table_accounted),
    "event_trigger": _NAMED,
    "publication": _NAMED,
    "extension": _NAMED,
}
