"""What a parse tree says: operations, relations, columns, functions, and whether a WHERE selects anything.

Works on the JSON tree of PostgreSQL's own parser (`pglast.parser.parse_sql_json`), decoded to dicts and lists; it
knows no catalogue, so names are as written. `pgwitness.core.sql.statements` is the one caller.
"""

from __future__ import annotations

from typing import Any

from pgwitness.core.sql.tree import calls, objects, stands, utility
from pgwitness.core.sql.tree.attached import attached
from pgwitness.core.sql.tree.columns import Columns
from pgwitness.core.sql.tree.facts import Body, Handle, Made
from pgwitness.core.sql.tree.nodes import Tree, dotted, is_constant, is_null, name_of, quoted, string, text_of
from pgwitness.core.sql.tree.scopes import TEMPORARY, Scope, add_tables, name_in
from pgwitness.core.sql.tree.whereclause import judge_where
from pgwitness.core.sql.tree.wholes import gives_nothing, reads_whole

_MERGE = {"CMD_INSERT": "insert", "CMD_UPDATE": "update", "CMD_DELETE": "delete"}
_DML = {"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"}
_HANDLES = {
    "PrepareStmt": ("prepare", "name"),
    "ExecuteStmt": ("execute", "name"),
    "DeallocateStmt": ("deallocate", "name"),
    "DeclareCursorStmt": ("declare", "portalname"),
    "FetchStmt": ("fetch", "portalname"),
    "ClosePortalStmt": ("close", "portalname"),
    "DiscardStmt": ("discard", ""),
}
"""Statements about prepared statements and cursors: what they do with one, and where its name stands."""
_HOLD = 0x20
"""CURSOR_OPT_HOLD of PostgreSQL's parsenodes.h."""
_NOT_EXECUTED = {"PrepareStmt", "ViewStmt", "RuleStmt", "CreatePolicyStmt", "AlterPolicyStmt", "CreateFunctionStmt"}
"""Statements that hold others without running them: their tables count, their operations do not."""
_KEEPS_CALLS = frozenset(
    {
        *("CreateStmt", "CreateForeignTableStmt", "AlterTableStmt", "CreateDomainStmt", "AlterDomainStmt", "ViewStmt"),
        *("IndexStmt", "CreatePolicyStmt", "AlterPolicyStmt", "RuleStmt", "CreateTrigStmt", "CreateStatsStmt"),
        *("CreateFunctionStmt", "DefineStmt"),
    }
)
"""Statements that make something which runs the functions that they call, now or whenever it is used."""
_ROUTINES = frozenset({"OBJECT_FUNCTION", "OBJECT_PROCEDURE", "OBJECT_ROUTINE", "OBJECT_AGGREGATE"})
_SCALARS = frozenset({"text", "uuid", "json", "jsonb", "date", "bytea", "name", "oid", "inet", "regclass", "xml"})
"""Types that no row has, besides those that the parser names in full."""
_STANDARD = "standard_conforming_strings"


class Reader(Columns):
    """Reads statements one after the other and keeps what they say, each thing once, in the order it was met."""

    def read(self, statement: Tree) -> None:
        """Read one statement: the object under `stmt` of a tree."""
        kind = next(iter(statement), "")
        if kind not in _DML:
            self.utility = True
        self.inserts = self.inserts and kind == "InsertStmt" and "onConflictClause" not in statement[kind]
        self._visit(statement, self._scope(), runs=True)
        if not self.wary:
            self.temporary |= self._made
        self.temporary -= self._gone
        if _may_hide(kind, statement[kind]):
            self.temporary.clear()
        self._made, self._gone = set(), set()

    def inner(self) -> Reader:
        """Return a reader of code in the text."""
        return Reader(self.temporary, wary=self.wary)

    def _scope(self) -> Scope:
        return Scope(temporary=self.temporary)

    def read_body(self, body: Any) -> None:
        """Read the body of a function that stands in its definition parsed: `BEGIN ATOMIC …`, `RETURN …`."""
        self._visit(body, self._scope(), runs=True)

    def _visit(self, node: Any, scope: Scope, runs: bool) -> None:
        if isinstance(node, list):
            for item in node:
                self._visit(item, scope, runs)
        elif isinstance(node, dict):
            for kind, body in node.items():
                if isinstance(body, dict):
                    self._node(kind, body, scope, runs)
                elif isinstance(body, list) and kind != "lockingClause":
                    self._visit(body, scope, runs)

    def _node(self, kind: str, body: Tree, scope: Scope, runs: bool) -> None:
        if kind in _DML:
            self._statement(kind, body, scope, runs)
        elif kind in {"larg", "rarg"} and "limitOption" in body:
            # The arms of a UNION stand without their node's name, those of a join with it.
            self._statement("SelectStmt", body, scope, runs)
        elif "relname" in body:
            self._relation(body, scope)
        elif kind == "ColumnRef":
            self._column(body, scope)
        elif kind == "SubLink" and body.get("subLinkType") == "EXISTS_SUBLINK" and "SelectStmt" in body["subselect"]:
            # Whether there is a row is all that it gives.
            one = {"limitCount": {"A_Const": {"ival": {"ival": 1}}}}
            self._statement("SelectStmt", {**body["subselect"]["SelectStmt"], **one}, scope, runs)
        elif kind == "A_Indirection" and self._of_row(body, scope):
            self._attributes(body)
        elif kind.endswith("Stmt") and kind[0].isupper():
            self._utility(kind, body, scope, runs)
        else:
            if kind == "JoinExpr":
                self._compared(body, scope)
            elif kind == "A_Indirection":
                self._attributes(body)
            if kind in ("FuncCall", "funccall"):  # of a CALL it stands without its node's name
                self._call(body, runs)
            elif kind == "setstmt":
                self._add_all(self.settings, objects.settings(body))
            self._visit(body, scope, runs)

    def _call(self, body: Tree, runs: bool) -> None:
        """Note a function that is called, and the text that it runs as SQL."""
        name = dotted(body.get("funcname", []))
        if self._idle or (name in calls.STRICT and any(map(is_null, body.get("args", [])))):
            self.perhaps.setdefault(name)  # what is immutable is called when it is planned
            return
        self.functions.setdefault(name)
        if name == "set_config" and runs:
            self._add_all(self.settings, objects.set_config(body))
        last = name.rpartition(".")[2]
        args = body.get("args", [])
        if last in calls.READ_MANY and runs:
            self.unread = self.unread or f"{last}() reads what its text does not show"
        if last in calls.READ_TABLE and args:
            table = text_of(args[0])
            if table is not None and calls.NAME.fullmatch(table.strip()):
                self.bodies.append(Body(f"TABLE {table}", "sql", runs))
            elif runs and not is_null(args[0]):
                self.unread = self.unread or f"{last}() reads a table that its text does not show"
        place = calls.RUN_TEXT.get(name, calls.RUN_TEXT.get(last, -1))
        if place == -1:
            return
        for arg in args if place is None else args[place : place + 1]:
            text = text_of(arg)
            if text is not None and calls.SPACED.search(text.strip()):
                self.bodies.append(Body(text, "sql", runs))
            elif text is None and runs and (place is not None or last in calls.ANY_TEXT) and not is_constant(arg):
                self.unread = self.unread or calls.TOGETHER

    def _statement(self, kind: str, body: Tree, outer: Scope, runs: bool) -> None:
        scope = Scope(outer)
        self._ctes(body.get("withClause"), scope, runs)
        rest = {key: value for key, value in body.items() if key != "withClause"}
        target = rest.pop("relation", None)
        if target is not None:
            name = self._target(target, scope)
            self._assigned(name, kind, body)
            if not {"returningClause", "returningList"}.isdisjoint(body):
                self.returning = self.returning or runs
                for row in ("old", "new"):
                    scope.tables.setdefault(row, name)
        for part in ("fromClause", "usingClause", "sourceRelation"):
            if part in rest:
                add_tables(rest[part], scope)
        idle, self._idle = self._idle, self._idle or (kind == "SelectStmt" and gives_nothing(body))
        if runs:
            if target is not None and name is not None:
                self.written.setdefault(name)
            self._operation(kind, body)
            if kind == "SelectStmt" and not self._idle and reads_whole(body):
                self.whole |= dict.fromkeys(name for name in scope.tables.values() if name is not None)
        self._visit(rest, scope, runs)
        self._idle = idle

    def _ctes(self, clause: Tree | None, scope: Scope, runs: bool) -> None:
        if not clause:
            return
        tables = [item["CommonTableExpr"] for item in clause.get("ctes", [])]
        if clause.get("recursive"):
            scope.ctes.update(table["ctename"] for table in tables)
        for table in tables:
            self._visit(table.get("ctequery"), scope, runs)
            scope.ctes.add(table["ctename"])

    def _operation(self, kind: str, body: Tree) -> None:
        if kind == "SelectStmt":
            if "intoClause" in body:
                self._did("create_table_as")
                self._target(body["intoClause"].get("rel", {}), self._scope())
            # A list of VALUES reads nothing; nor do the arms' parents of a UNION, whose arms speak for themselves.
            if "valuesLists" not in body and body.get("op", "SETOP_NONE") == "SETOP_NONE":
                self._did("select_nothing" if self._idle else "select")
            return
        operation = kind.removesuffix("Stmt").lower()
        self._did(operation)
        if kind in {"UpdateStmt", "DeleteStmt"}:
            if name_in(body["relation"], self._scope())[:1] != [TEMPORARY]:  # what is nobody else's may go as it likes
                self.worse(judge_where(body.get("whereClause"), body.get("relation")))
        elif kind == "InsertStmt" and body.get("onConflictClause", {}).get("action") == "ONCONFLICT_UPDATE":
            self._did("update")
        elif kind == "MergeStmt":
            done = [_MERGE.get(item["MergeWhenClause"].get("commandType", "")) for item in body["mergeWhenClauses"]]
            for action in done:
                if action is not None:
                    self._did(action)
            if "update" in done or "delete" in done:
                self.worse(judge_where(body.get("joinCondition")))

    def _utility(self, kind: str, body: Tree, scope: Scope, runs: bool) -> None:
        if runs:
            for operation in utility.operations(kind, body):
                self._did(operation)
        if kind in _HANDLES and runs:
            self._handle(kind, body)
        if kind == "ExplainStmt":
            analyze = any(utility.option(item) == "analyze" for item in body.get("options", []))
            self._visit(body.get("query"), scope, runs and analyze)
            return
        self._add_all(self.objects, objects.objects(kind, body))
        self._keeps(kind, body)
        if kind == "VariableSetStmt":
            self._add_all(self.settings, objects.settings(body))
        if kind in ("DoStmt", "CreateFunctionStmt"):
            self._code(kind, body)
            return
        if kind == "CopyStmt" and "relation" in body:
            self._copied(body, scope, runs)
        elif kind == "DropStmt":
            self._dropped(body, runs)
        elif kind == "TruncateStmt" and runs:
            for item in body.get("relations", []):
                self._writes(self._name(item.get("RangeVar", {}), scope))
        elif kind == "CommentStmt" and body.get("objtype") == "OBJECT_TABLE":
            self._add(name_of(body.get("object")))
        empty = bool(body.get("into", {}).get("skipData"))  # … WITH NO DATA
        self._visit(body, scope, runs and kind not in _NOT_EXECUTED and not empty)

    def _keeps(self, kind: str, body: Tree) -> None:
        """Note what a statement makes that runs later, and which names stand for others then."""
        self.stands += stands.stands(kind, body)
        if kind == "AlterFunctionStmt" and self.wary:
            for item in body.get("actions", []):
                setting = item.get("DefElem", {}).get("arg", {}).get("VariableSetStmt", {})
                if setting.get("kind") == "VAR_RESET_ALL" or setting.get("name") == _STANDARD:
                    self.unread = self.unread or "it changes how the body of a function is read"
        for names in attached(kind, body):
            self.attached.append(Made("", functions=(dotted(names),)))
        if kind == "RenameStmt" and body.get("renameType") in _ROUTINES:
            before = dotted(body.get("object", {}).get("ObjectWithArgs", {}).get("objname", []))
            self.attached.append(Made(quoted(body.get("newname", "")), functions=(before,)))
        query = {"ViewStmt": body.get("query"), "RuleStmt": body.get("actions")}.get(kind)
        if kind == "CreateTableAsStmt" and body.get("objtype") == "OBJECT_MATVIEW":
            query = body.get("query")
        if kind in _KEEPS_CALLS:
            inner = Reader(wary=self.wary)
            inner._visit({key: part for key, part in body.items() if part is not query}, inner._scope(), runs=False)
            if inner.functions or inner.perhaps:
                self.attached.append(Made("", functions=tuple(inner.functions), perhaps=tuple(inner.perhaps)))
        if query is not None:
            self._keeps_query(kind, body, query)

    def _keeps_query(self, kind: str, body: Tree, query: Any) -> None:
        inner = Reader(wary=self.wary)
        inner.read_body(query)
        if kind == "RuleStmt" and body.get("event") != "CMD_SELECT":
            self.attached.append(inner.as_made())
            return
        select = (query[0] if isinstance(query, list) else query).get("SelectStmt", {})
        while "larg" in select:
            select = select["larg"]
        into = body.get("into", {})
        names = [string(item) for item in body.get("aliases", into.get("colNames", []))]
        read = tuple(name for name in inner.columns if name in inner.read_columns)
        reads = (tuple(inner.relations), read, (*inner.functions, *inner.perhaps))
        name: Tree = body.get("view") or body.get("relation") or into.get("rel", {})
        targets = select.get("targetList", [])
        self.stands.append(stands.view(name, targets, names, reads))
        if name.get("relpersistence") == "t":
            self.stands.append(stands.view({**name, "schemaname": TEMPORARY}, targets, names, reads))

    def _handle(self, kind: str, body: Tree) -> None:
        """Note what is done with a prepared statement or a cursor."""
        verb, key = _HANDLES[kind]
        if kind == "DiscardStmt" and body.get("target") != "DISCARD_ALL":
            return
        if kind == "DeclareCursorStmt" and int(body.get("options", 0)) & _HOLD:
            verb = "hold"
        inner = self.inner()
        if verb in ("prepare", "declare", "hold"):
            inner.read(body.get("query", {}))
        self.handles.append(
            Handle(
                verb,
                str(body.get(key, "")),
                tuple(inner.operations),
                tuple(inner.relations),
                tuple(inner.columns),
                tuple(inner.functions),
                inner.where,
                tuple(inner.whole),
                inner.returning,
                tuple(inner.written),
            )
        )

    def _code(self, kind: str, body: Tree) -> None:
        """Keep the code of a DO block or a function for who reads bodies; SQL that stands there parsed is read here."""
        options = [item["DefElem"] for item in body.get("args" if kind == "DoStmt" else "options", [])]
        named = {
            item.get("defname", ""): item.get("arg", {}) for item in options if "DefElem" not in item.get("arg", {})
        }
        language = str(named.get("language", {}).get("String", {}).get("sval", "plpgsql")).lower()
        code = named.get("as", {})
        name = dotted(body.get("funcname", []))
        texts = code.get("List", {}).get("items", [code])[:1]
        of_row = _takes_row(body.get("parameters", []))
        self.bodies += [
            Body(item["String"].get("sval", ""), language, kind == "DoStmt", name, of_row, _plain(options))
            for item in texts
            if "String" in item
        ]
        for item in options:
            if item.get("defname") == "set":
                self._add_all(self.settings, objects.settings(item.get("arg", {}).get("VariableSetStmt", {})))
        if "sql_body" in body:
            inner = Reader(wary=self.wary)
            inner.read_body(body["sql_body"])
            self.define(name, inner, of_row)
            self.relations |= inner.relations


def _may_hide(kind: str, body: Tree) -> bool:
    """Say whether behind a statement a name may mean another table than a temporary one that was made before."""
    if kind == "TransactionStmt":
        return str(body.get("kind", "")).removeprefix("TRANS_STMT_") not in ("BEGIN", "START", "SAVEPOINT", "RELEASE")
    if kind == "VariableSetStmt":
        return str(body.get("name", "search_path")).lower() == "search_path"
    return kind in ("DiscardStmt", "RenameStmt", "AlterObjectSchemaStmt", "DropOwnedStmt")


def _plain(options: list[Tree]) -> bool:
    """Say whether a function sets `standard_conforming_strings` to on for itself."""
    given = [item.get("arg", {}).get("VariableSetStmt", {}) for item in options if item.get("defname") == "set"]
    values = [arg for setting in given if setting.get("name") == _STANDARD for arg in setting.get("args", [])]
    return [text_of(arg) for arg in values] == ["on"]


def _takes_row(parameters: list[Tree]) -> bool:
    """Say whether a function may be called as a column is read: one argument is wanted, and that may be a row."""
    given = [item.get("FunctionParameter", {}) for item in parameters]
    taken = [item for item in given if item.get("mode") not in ("FUNC_PARAM_OUT", "FUNC_PARAM_TABLE")]
    wanted = [item for item in taken if "defexpr" not in item]
    if not taken or len(wanted) > 1:
        return False
    names = [string(item) for item in taken[0].get("argType", {}).get("names", [])]
    return names[:1] != ["pg_catalog"] and names[-1:] not in [[name] for name in _SCALARS]
