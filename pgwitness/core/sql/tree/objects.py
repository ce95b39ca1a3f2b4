"""What a statement names besides tables: extensions, languages, roles, settings and the like, from the parser's tree.

Objects are written `type name`: `extension dblink`, `role ada`, `trigger all`. Who is put into a role is a `grantee`,
the role that CREATE ROLE … IN ROLE puts one into is `granted`. What a role or function is given is an `attribute`:
`attribute superuser`, `attribute security_definer`, `attribute no_search_path` (a security definer function whose
search path its caller chooses). A setting's value is told where it cannot be a secret (`CLEAR`) and is a plain word; of
any other, and of one that the server has taken out, it is `?`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from pgwitness.core.sql.tree.nodes import Tree
from pgwitness.core.sql.tree.utility import option
from pgwitness.core.sql.tree.whereclause import judge_where

CLEAR = frozenset(
    {
        "session_replication_role",
        "search_path",
        "row_security",
        "log_statement",
        "log_connections",
        "log_disconnections",
        "log_min_duration_statement",
        "log_min_messages",
        "log_min_error_statement",
        "log_error_verbosity",
        "log_destination",
        "logging_collector",
        "log_duration",
        "backtrace_functions",
        "log_replication_commands",
        "log_statement_sample_rate",
        "log_transaction_sample_rate",
        "pgaudit.log",
        "pgaudit.log_rows",
        "auto_explain.log_min_duration",
        "track_activities",
        "track_counts",
        "pg_stat_statements.track",
        "pg_stat_statements.track_utility",
        "compute_query_id",
        "wal_level",
        "event_triggers",
        "ssl",
        "password_encryption",
        "fsync",
        "full_page_writes",
        "default_transaction_read_only",
        "allow_system_table_mods",
    }
)
_PLAIN = re.compile(r"[A-Za-z0-9_.+-]{1,40}")
_GIVEN = ("superuser", "createrole", "createdb", "isreplication", "bypassrls", "canlogin", "password")
_ROLE_WORDS = {"isreplication": "replication", "canlogin": "login"}
_MEMBERS = {"addroleto": "granted", "rolemembers": "grantee", "adminmembers": "grantee"}
_NAMED = {
    "OBJECT_ROLE": "role",
    "OBJECT_DATABASE": "database",
    "OBJECT_SCHEMA": "schema",
    "OBJECT_EVENT_TRIGGER": "event_trigger",
    "OBJECT_TRIGGER": "trigger",
    "OBJECT_PUBLICATION": "publication",
}
_DROPPED = {"OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_FOREIGN_TABLE", "OBJECT_SEQUENCE"}
_NAMES = {
    "CreateExtensionStmt": ("extension", "extname"),
    "AlterExtensionStmt": ("extension", "extname"),
    "CreatePLangStmt": ("language", "plname"),
    "CreateForeignServerStmt": ("server", "servername"),
    "AlterForeignServerStmt": ("server", "servername"),
    "CreateUserMappingStmt": ("user_mapping", "servername"),
    "CreateSubscriptionStmt": ("subscription", "subname"),
    "AlterSubscriptionStmt": ("subscription", "subname"),
    "DropSubscriptionStmt": ("subscription", "subname"),
    "CreatePublicationStmt": ("publication", "pubname"),
    "AlterPublicationStmt": ("publication", "pubname"),
    "CreateEventTrigStmt": ("event_trigger", "trigname"),
    "AlterEventTrigStmt": ("event_trigger", "trigname"),
    "CreateTrigStmt": ("trigger", "trigname"),
    "CreatedbStmt": ("database", "dbname"),
    "AlterDatabaseStmt": ("database", "dbname"),
    "AlterDatabaseSetStmt": ("database", "dbname"),
    "DropdbStmt": ("database", "dbname"),
    "CreateSchemaStmt": ("schema", "schemaname"),
}


_IDENTITY = {"role", "session_authorization"}
"""Settings that make a session somebody else; their values are not told here."""


def objects(kind: str, body: Tree) -> Iterator[str]:
    """Name what a statement is about, besides tables."""
    if kind.startswith("Drop") and body.get("missing_ok"):
        yield "attribute if_exists"
    if kind == "CreateExtensionStmt" and body.get("if_not_exists"):
        yield "attribute if_not_exists"
    if kind in _NAMES:
        word, key = _NAMES[kind]
        yield f"{word} {body.get(key, '')}"
        if kind == "AlterEventTrigStmt" and body.get("tgenabled") == "D":
            yield "attribute disabled"
        if "fdwname" in body:
            yield f"wrapper {body['fdwname']}"
    elif kind in _READ:
        yield from _READ[kind](body)


def settings(body: Tree) -> Iterator[str]:
    """Tell what a SET, RESET, ALTER SYSTEM or the like (the tree's `VariableSetStmt`) changes."""
    kind = body.get("kind", "")
    name = str(body.get("name", "")).lower()
    if kind == "VAR_RESET_ALL":
        yield "all=default"
    elif kind in ("VAR_SET_DEFAULT", "VAR_RESET"):
        yield f"{name}=default"
    elif kind == "VAR_SET_VALUE":
        values = [_constant(arg) for arg in body.get("args", [])]
        # For a transaction only: what holds after it, nobody is told.
        yield setting(name, [None] if name == "search_path" and body.get("is_local") else values)


def set_config(call: Tree) -> Iterator[str]:
    """Tell what a call of `set_config(name, value, local)` changes; a name that is not known may be anything."""
    values = [_constant(arg) for arg in call.get("args", [])]
    if values:
        name = (values[0] or "").lower()
        yield setting(name if name in CLEAR or name in _IDENTITY else "?", values[1:2])


def setting(name: str, values: list[str | None]) -> str:
    """Write a setting with its value, where that may be told."""
    if name == "search_path" and any(value is None or value != value.lower() for value in values):
        return f"{name}=?"
    clear = name in CLEAR and values and all(value is not None and _PLAIN.fullmatch(value) for value in values)
    return f"{name}={','.join(str(value).lower() for value in values)}" if clear else f"{name}=?"


def _function(kind: str, body: Tree) -> Iterator[str]:
    options = [item.get("DefElem", {}) for item in _list(body, "options", "actions", "args")]
    if kind == "CreateFunctionStmt":
        yield f"function {_dotted(body.get('funcname', []))}"
    elif kind == "AlterFunctionStmt":
        yield f"function {_dotted(body.get('func', {}).get('objname', []))}"
    for item in options:
        if item.get("defname") == "language":
            yield f"language {str(item.get('arg', {}).get('String', {}).get('sval', '')).lower()}"
    if any(option({"DefElem": item}) == "security" for item in options):
        yield "attribute security_definer"
        fixed = [item.get("arg", {}).get("VariableSetStmt", {}).get("name") for item in options]
        if kind == "CreateFunctionStmt" and "search_path" not in fixed:
            yield "attribute no_search_path"


_GRANT_ON = {"OBJECT_DATABASE": "database", "OBJECT_SCHEMA": "schema", "OBJECT_PARAMETER_ACL": "parameter"}


def _granted(body: Tree) -> Iterator[str]:
    word = "role" if "granted_roles" in body else "privilege"
    granted = _list(body, "granted_roles", "privileges")
    if word == "privilege" and not granted:
        yield "privilege all"
    yield from (f"{word} {item.get('AccessPriv', {}).get('priv_name', '')}" for item in granted)
    for item in _list(body, "grantee_roles", "grantees"):
        yield f"grantee {_role(item.get('RoleSpec', {}))}"
    if any(option(item) == "admin" for item in body.get("opt", [])) or body.get("grant_option"):
        yield "attribute grant_option"
    everything = body.get("targtype") == "ACL_TARGET_ALL_IN_SCHEMA"
    kind = "all_in_schema" if everything else _GRANT_ON.get(body.get("objtype", ""))
    if kind is not None:
        yield from (f"{kind} {_name(item)}" for item in _list(body, "objects"))


def _role(body: Tree) -> str:
    return str(body.get("rolename") or body.get("roletype", "").removeprefix("ROLESPEC_").lower())


def _name(item: Tree) -> str:
    if "List" in item:
        return _dotted(item["List"].get("items", []))
    if "ObjectWithArgs" in item:
        return _dotted(item["ObjectWithArgs"].get("objname", []))
    return _dotted([item])


def _list(body: Tree, *keys: str) -> list[Tree]:
    return next((body[key] for key in keys if isinstance(body.get(key), list)), [])


def _dotted(names: list[Tree]) -> str:
    return ".".join(str(name.get("String", {}).get("sval", "")) for name in names)


def _constant(arg: Tree) -> str | None:
    """Give a constant as text; None for anything else, also for what the server took out."""
    node = arg.get("TypeCast", {}).get("arg", arg).get("A_Const", {})
    for key, value in node.items():
        if key in ("sval", "fval"):
            return str(value.get(key, ""))
        if key in ("ival", "boolval"):
            found = value.get(key, 0 if key == "ival" else False)
            return ("on" if found else "off") if key == "boolval" else str(found)
    return None


def _role_given(body: Tree) -> Iterator[str]:
    role = body["role"] if isinstance(body.get("role"), str) else _role(body.get("role", {}))
    yield f"role {role or 'all'}"  # ALTER ROLE ALL SET names none
    if "database" in body:
        yield f"database {body['database']}"
    for item in body.get("options", []):
        word = _MEMBERS.get(item.get("DefElem", {}).get("defname", ""))
        if word is not None:
            listed = item["DefElem"].get("arg", {}).get("List", {}).get("items", [])
            yield from (f"{word} {_role(entry.get('RoleSpec', {}))}" for entry in listed)
    given = {option(item) for item in body.get("options", [])}
    yield from (f"attribute {_ROLE_WORDS.get(word, word)}" for word in _GIVEN if word in given)


def _triggers(body: Tree) -> Iterator[str]:
    for item in body.get("cmds", []):
        command = item.get("AlterTableCmd", {})
        for word in ("Trig", "Rule"):
            if word in command.get("subtype", ""):
                yield f"{'trigger' if word == 'Trig' else 'rule'} {command.get('name', 'all')}"


def _dropped(body: Tree) -> Iterator[str]:
    if body.get("removeType") not in _DROPPED:
        word = str(body.get("removeType", "")).removeprefix("OBJECT_").lower()
        yield from (f"{word} {_name(item)}" for item in body.get("objects", []))


def _roles_dropped(body: Tree) -> Iterator[str]:
    return (f"role {_role(item.get('RoleSpec', {}))}" for item in body.get("roles", []))


def _renamed(body: Tree) -> Iterator[str]:
    word = _NAMED.get(body.get("renameType", ""))
    if word is not None:
        yield f"{word} {body.get('subname') or _name(body.get('object', {}))}"
        yield f"{word} {body.get('newname', '')}"


def _rule(body: Tree) -> Iterator[str]:
    yield f"rule {body.get('rulename', '')}"
    if body.get("instead") and not body.get("actions"):
        yield "attribute instead_nothing"


def _policy(body: Tree) -> Iterator[str]:
    """A policy that lets every row pass, for whoever it is, opens what others keep apart."""
    yield f"policy {body.get('policy_name', '')}"
    qual = body.get("qual", {})
    if body.get("permissive", False) and (
        _constant(qual) == "on" or ("A_Expr" in qual and judge_where(qual) == "useless")
    ):
        yield "attribute always_true"


def _owned(body: Tree) -> Iterator[str]:
    word = _NAMED.get(body.get("objectType", ""))
    if word is not None:
        yield f"{word} {_name(body.get('object', {}))}"


_READ: dict[str, Callable[[Tree], Iterator[str]]] = {
    "CreateRoleStmt": _role_given,
    "AlterRoleStmt": _role_given,
    "AlterRoleSetStmt": _role_given,
    "DropOwnedStmt": lambda body: (f"owned_by {_role(item.get('RoleSpec', {}))}" for item in body.get("roles", [])),
    "DropRoleStmt": _roles_dropped,
    "GrantRoleStmt": _granted,
    "GrantStmt": _granted,
    "AlterDefaultPrivilegesStmt": lambda body: _granted(body.get("action", {})),
    "CreateFunctionStmt": lambda body: _function("CreateFunctionStmt", body),
    "AlterFunctionStmt": lambda body: _function("AlterFunctionStmt", body),
    "DoStmt": lambda body: _function("DoStmt", body),
    "AlterTableStmt": _triggers,
    "RuleStmt": _rule,
    "CreatePolicyStmt": _policy,
    "AlterPolicyStmt": _policy,
    "DropStmt": _dropped,
    "RenameStmt": _renamed,
    "AlterOwnerStmt": _owned,
}
