"""The words for what statements other than SELECT, INSERT, UPDATE, DELETE and MERGE do, from the parser's tree.

Most are the name of the tree's node in lower case (`CreateRoleStmt` is `create_role`); where that name is odd, or
one node stands for several actions, it is said here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pgwitness.core.sql.tree.nodes import Tree

_OFF: tuple[Tree, ...] = ({"Boolean": {}}, {"Boolean": {"boolval": False}}, {"Integer": {}}, {"Integer": {"ival": 0}})
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_OBJECTS = {"matview": "materialized_view", "tabconstraint": "constraint"}
_ALTERATIONS = {
    "AT_DisableTrig": "disable_trigger",
    "AT_DisableTrigAll": "disable_trigger",
    "AT_DisableTrigUser": "disable_trigger",
    "AT_EnableTrig": "enable_trigger",
    "AT_EnableTrigAll": "enable_trigger",
    "AT_EnableTrigUser": "enable_trigger",
    "AT_EnableAlwaysTrig": "enable_trigger",
    "AT_EnableReplicaTrig": "disable_trigger",
    "AT_DisableRule": "disable_rule",
    "AT_EnableReplicaRule": "disable_rule",
    "AT_AlterColumnType": "alter_column_type",
    "AT_DetachPartition": "detach_partition",
    "AT_SetUnLogged": "set_unlogged",
    "AT_DropColumn": "drop_column",
    "AT_ChangeOwner": "change_owner",
    "AT_DisableRowSecurity": "disable_row_security",
    "AT_NoForceRowSecurity": "disable_row_security",
}
_WIDE = frozenset({"int8", "numeric", "text", "varchar", "jsonb", "timestamptz"})
"""Types to which a column is widened. A fraction that becomes a bigint is rounded, which a text does not tell."""
_FIXED = {
    "CreateStmt": "create_table",
    "IndexStmt": "create_index",
    "ViewStmt": "create_view",
    "RuleStmt": "create_rule",
    "CreatedbStmt": "create_database",
    "DropdbStmt": "drop_database",
    "CreateTrigStmt": "create_trigger",
    "CreateEventTrigStmt": "create_event_trigger",
    "AlterEventTrigStmt": "alter_event_trigger",
    "CreateSeqStmt": "create_sequence",
    "AlterSeqStmt": "alter_sequence",
    "VariableShowStmt": "show",
}


def operations(kind: str, body: Tree) -> list[str]:
    """Name what a statement does, the most telling word first, and what it does besides after it."""
    if kind in _FIXED:
        return [_FIXED[kind]]
    if kind in _BY_CONTENT:
        return _BY_CONTENT[kind](body)
    return [_WORDS.sub("_", kind.removesuffix("Stmt")).lower()]


def option(item: Tree) -> str:
    """Give the name of an option (a `DefElem`) that is on, else the empty string."""
    body = item.get("DefElem", {})
    argument = body.get("arg", {})
    word = str(argument.get("String", {}).get("sval", "")).lower()
    # A release of the parser may leave out what is false or 0.
    off = word in {"false", "off"} or argument in _OFF
    return "" if off else str(body.get("defname", ""))


def _object(word: str) -> str:
    word = word.removeprefix("OBJECT_").lower()
    return _OBJECTS.get(word, word)


def _copy(body: Tree) -> list[str]:
    found = ["copy_from" if body.get("is_from") else "copy_to"]
    if body.get("is_program"):
        found.append("copy_program")
    elif "filename" in body:
        found.append("copy_file")
    return found


def _alter_table(body: Tree) -> list[str]:
    commands = [item.get("AlterTableCmd", {}) for item in body.get("cmds", [])]
    subtypes = [item.get("subtype", "") for item in commands if not _keeps_values(item)]
    return [
        "alter_" + _object(body.get("objtype", "")),
        *(_ALTERATIONS[item] for item in subtypes if item in _ALTERATIONS),
    ]


def _keeps_values(command: Tree) -> bool:
    """Say whether a change of a column's type leaves every value what it says: to a wider type, by no expression."""
    if command.get("subtype") != "AT_AlterColumnType":
        return False
    column = command.get("def", {}).get("ColumnDef", {})
    wider = _type(column.get("typeName", {}))
    using = column.get("raw_default")
    if using is None:
        return wider
    cast = using.get("TypeCast", {})
    arg = cast.get("arg", using).get("ColumnRef", {}).get("fields", [])
    itself = [field.get("String", {}).get("sval") for field in arg] == [command.get("name")]
    return wider and itself and (not cast or _type(cast.get("typeName", {})))


def _type(body: Tree) -> bool:
    """Say whether a type holds whatever one like it held: it has no length, and no precision that is less."""
    names = [item.get("String", {}).get("sval") for item in body.get("names", [])]
    return bool(names) and names[-1] in _WIDE and not {"typmods", "arrayBounds"} & set(body)


def _set(body: Tree) -> list[str]:
    return ["set", *(["set_role"] if body.get("name") in {"role", "session_authorization"} else [])]


_BY_CONTENT: dict[str, Callable[[Tree], list[str]]] = {
    "DropStmt": lambda body: ["drop_" + _object(body.get("removeType", ""))],
    "CopyStmt": _copy,
    "GrantStmt": lambda body: ["grant" if body.get("is_grant") else "revoke"],
    "GrantRoleStmt": lambda body: ["grant_role" if body.get("is_grant") else "revoke_role"],
    "AlterTableStmt": _alter_table,
    "RenameStmt": lambda body: ["rename_" + _object(body.get("renameType", ""))],
    "AlterOwnerStmt": lambda body: ["alter_" + _object(body.get("objectType", "")), "change_owner"],
    "AlterObjectSchemaStmt": lambda body: ["alter_" + _object(body.get("objectType", ""))],
    "DefineStmt": lambda body: ["create_" + _object(body.get("kind", ""))],
    "CreateTableAsStmt": lambda body: [
        "create_materialized_view" if body.get("objtype") == "OBJECT_MATVIEW" else "create_table_as"
    ],
    "TransactionStmt": lambda body: [body.get("kind", "").removeprefix("TRANS_STMT_").lower()],
    "CreateFunctionStmt": lambda body: ["create_procedure" if body.get("is_procedure") else "create_function"],
    "VariableSetStmt": _set,
    "VacuumStmt": lambda body: ["vacuum" if body.get("is_vacuumcmd") else "analyze"],
}


def vocabulary() -> frozenset[str]:
    """Give every word for what a statement does that this program can say (a word not in it names nothing)."""
    from pglast import ast, enums  # a tenth of a second, and asked for by policies only

    nodes = [name.removesuffix("Stmt") for name in dir(ast) if name.endswith("Stmt")]
    plain = {_WORDS.sub("_", name).lower() for name in nodes} | set(_FIXED.values())
    objects = {_object(item.name) for item in enums.ObjectType}
    of_objects = {f"{verb}_{name}" for verb in ("create", "drop", "alter", "rename") for name in objects}
    transactions = {item.name.removeprefix("TRANS_STMT_").lower() for item in enums.TransactionStmtKind}
    return frozenset(plain | of_objects | transactions | set(_ALTERATIONS.values()) | _SPOKEN)


_SPOKEN = frozenset({
    "set", "set_role", "select_nothing", "execute_dynamic", "do_unreadable", "copy", "copy_from", "copy_to",
    "copy_program", "copy_file",
    "grant", "revoke", "grant_role", "revoke_role", "change_owner", "create", "create_materialized_view", "vacuum",
    "create_table_as", "create_procedure", "create_user", "create_server", "create_system", "create_owned", "analyze",
    "alter", "alter_system", "alter_server", "alter_owned", "drop", "drop_owned", "drop_server", "drop_system",
})  # fmt: skip
"""Words that no node's name gives: `operations` here says them, or `pgwitness.core.sql.words` of what no parser could
read."""
