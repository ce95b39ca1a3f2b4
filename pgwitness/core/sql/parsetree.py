"""What a parse tree says: operations, relations, columns, functions, and whether a WHERE selects anything.

Works on the JSON tree of PostgreSQL's own parser (`pglast.parser.parse_sql_json`), decoded to dicts and lists; it
knows no catalogue, so names are as written. `pgwitness.core.sql.statements` is the one caller.

Scopes are followed as SQL has them: the name of a CTE hides a table only where the CTE is visible. Inside itself
it is not, so `WITH users AS (SELECT * FROM users) …` still reads the table `users`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Any, NamedTuple

from pgwitness.core.events import quote_identifier
from pgwitness.core.sql import objects, stands, utility
from pgwitness.core.sql.attached import attached
from pgwitness.core.sql.stands import Stand
from pgwitness.core.sql.whereclause import judge_where
from pgwitness.core.sql.wholes import copied, gives_nothing, reads_whole

Tree = dict[str, Any]

_WORST = {"n/a": 0, "present": 1, "useless": 2, "none": 3}
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
_TEMP = "pg_temp"
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


_RUN_TEXT = {
    **dict.fromkeys(("query_to_xml", "query_to_xmlschema", "query_to_xml_and_xmlschema", "ts_stat", "ts_rewrite"), 0),
    **dict.fromkeys(("dblink", "dblink_exec", "dblink_open", "dblink_send_query", "crosstab"), None),
    **dict.fromkeys(("cron.schedule", "cron.schedule_in_database", "pg_background_launch", "connectby"), None),
}
"""Functions that run a text as SQL: the place of that argument, None where any may be it."""
_ANY_TEXT = frozenset({"dblink", "dblink_exec", "dblink_open", "dblink_send_query"})
"""Those of them of which a text that is put together may be SQL, whichever argument it is."""
_READ_TABLE = frozenset({"table_to_xml", "table_to_xml_and_xmlschema"})
"""Functions that read all of the table that their first argument names."""
_READ_MANY = frozenset(
    f"{what}_to_xml{how}" for what in ("schema", "database", "cursor") for how in ("", "_and_xmlschema")
)
"""Functions that read what their arguments do not show: many tables, or a cursor."""
_STANDARD = "standard_conforming_strings"
TOGETHER = "it runs text that is put together as it runs"
_SPACED = re.compile(r"[\s\"'/(]")
"""What stands between the words of any statement."""
_STRICT = frozenset(
    {
        *("pg_cancel_backend", "pg_terminate_backend", "pg_read_file", "pg_read_binary_file", "pg_ls_dir"),
        *("pg_stat_file", "lo_import", "lo_export", "pg_create_physical_replication_slot"),
        *("pg_create_logical_replication_slot", "pg_drop_replication_slot"),
    }
)
"""Functions of the server that do nothing when an argument is NULL."""
_NAME = re.compile(r'(?:[\w$]+|"[^"]+")(?:\.(?:[\w$]+|"[^"]+"))?')


def worst(wheres: Iterable[str]) -> str:
    """Give the worst that is known of any WHERE: none, then useless, then present."""
    return max(wheres, key=lambda where: _WORST.get(where, 0))


def runs_text(functions: Sequence[str]) -> bool:
    """Say whether one of these functions gives a text a meaning that its statement does not show."""
    last = (name.rpartition(".")[2] for name in functions)
    found = (*functions, *last)
    return any(name == "set_config" or name in _RUN_TEXT or name in _READ_TABLE or name in _READ_MANY for name in found)


class Body(NamedTuple):
    """Code inside a statement, in which language, and whether it runs with it or is only kept (CREATE FUNCTION)."""

    text: str
    language: str
    runs: bool
    name: str = ""
    """Of a function that is made."""
    of_row: bool = False
    plain: bool = False
    """Whether a backslash in a plain constant of it is one, whoever calls it: it sets that for itself."""


class Made(NamedTuple):
    """A function that a statement makes, as it names it, and what its body does as far as its text tells."""

    name: str
    operations: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    where: str = "n/a"
    """The worst of its body, where that is read here."""
    of_row: bool = False
    """Whether it may be called as a column is read, `t.f`: it wants one argument, which may be a row."""
    given: bool = False
    """Whether it runs a text of which nothing stands in it: what it is given."""
    perhaps: tuple[str, ...] = ()
    """Functions that it may run, as `Reader.perhaps` has them."""


class Handle(NamedTuple):
    """What a statement does with a prepared statement or a cursor, by name; the empty name stands for all of them.

    `verb` is `prepare`, `execute`, `deallocate`, `declare`, `hold` (a cursor that outlives its transaction), `fetch`,
    `close` or `discard`. The rest is what the statement behind the name does, where this one says it.
    """

    verb: str
    name: str
    operations: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    where: str = "n/a"
    whole: tuple[str, ...] = ()
    returning: bool = False
    written: tuple[str, ...] = ()


class _Scope:
    """What names mean at one place of a statement: visible CTEs, and tables by alias."""

    def __init__(self, outer: _Scope | None = None, temporary: Set[str] = frozenset()) -> None:
        self.ctes: set[str] = set(outer.ctes) if outer else set()
        self.outer = outer
        self.temporary: Set[str] = outer.temporary if outer else temporary
        """Names of tables that the text has made as temporary ones before: alone, they mean those."""
        self.tables: dict[str, str | None] = {}
        self.joined: set[str] = set()
        """Names of joins, which hide those of their tables."""
        self.join_columns: set[str] = set()
        """Columns that a join gave another name; of which of its tables they are, no text tells."""
        self.renamed: dict[str, str] = {}
        """Columns that a FROM gave another name (`AS c(i, e)`), and their table: which they are, no text tells."""

    def table(self, alias: str) -> str | None:
        scope: _Scope | None = self
        while scope is not None:
            if alias in scope.tables:
                return scope.tables[alias]
            scope = scope.outer
        return None

    def column(self, name: str) -> str | None:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.renamed:
                return scope.renamed[name]
            scope = scope.outer
        return None

    def joins(self, alias: str) -> bool:
        return alias in self.joined or (self.outer is not None and self.outer.joins(alias))

    def join_renames(self, column: str) -> bool:
        return column in self.join_columns or (self.outer is not None and self.outer.join_renames(column))

    def knows(self, alias: str) -> bool:
        return alias in self.tables or (self.outer is not None and self.outer.knows(alias))


class Reader:
    """Reads statements one after the other and keeps what they say, each thing once, in the order it was met."""

    def __init__(self, temporary: set[str] | None = None, *, wary: bool = False) -> None:
        self.temporary = set() if temporary is None else temporary
        """Temporary tables that the text has made, without their schema; shared with readers of code in it."""
        self.wary = wary
        """Whether a name alone never means a temporary table: a search path or an error may have it mean another."""
        self._made: set[str] = set()
        self._gone: set[str] = set()
        self._idle = False
        """Within a SELECT that gives no row and runs nothing."""
        self.operations: dict[str, None] = {}
        self.relations: dict[str, None] = {}
        self.written: dict[str, None] = {}
        """Relations whose rows it changes, or which it empties or drops."""
        self.columns: dict[str, None] = {}
        self.read_columns: set[str] = set()
        """Those that are more than the target of an assignment."""
        self.whole: dict[str, None] = {}
        """Relations of which every row is read (`pgwitness.core.sql.wholes`)."""
        self.returning = False
        """Whether a statement that writes gives rows back."""
        self.functions: dict[str, None] = {}
        self.where = "n/a"
        self.utility = False
        self.unread: str | None = None
        """Why some of it was read by its words only."""
        self.inserts = True
        """Nothing but INSERTs of listed values without ON CONFLICT: each that succeeds makes a row."""
        self.settings: dict[str, None] = {}
        self.objects: dict[str, None] = {}
        self.defines: dict[str, None] = {}
        self.bodies: list[Body] = []
        self.handles: list[Handle] = []
        self.made: list[Made] = []
        self.attached: list[Made] = []
        """What it attaches to something that runs it later, unnamed (`pgwitness.core.sql.attached`)."""
        self.perhaps: dict[str, None] = {}
        """Names of functions that may run: called where nothing is given, or `.f` as a column is read."""
        self.stands: list[Stand] = []
        self.given = False
        """Whether it runs a text of which nothing stands in it."""

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

    def _scope(self) -> _Scope:
        return _Scope(temporary=self.temporary)

    def read_body(self, body: Any) -> None:
        """Read the body of a function that stands in its definition parsed: `BEGIN ATOMIC …`, `RETURN …`."""
        self._visit(body, self._scope(), runs=True)

    def take(self, inner: Reader) -> None:
        """Add what another reader has met."""
        self.operations |= inner.operations
        self.relations |= inner.relations
        self.written |= inner.written
        self.columns |= inner.columns
        self.read_columns |= inner.read_columns
        self.whole |= inner.whole
        self.returning = self.returning or inner.returning
        self.functions |= inner.functions
        self.settings |= inner.settings
        self.objects |= inner.objects
        self.defines |= inner.defines
        self.handles += inner.handles
        self.made += inner.made
        self.attached += inner.attached
        self.perhaps |= inner.perhaps
        self.stands += inner.stands
        self.given = self.given or inner.given
        self.unread = self.unread or inner.unread
        self.worse(inner.where)

    def define(self, name: str, inner: Reader, of_row: bool) -> None:
        """Note what the body of a function that is made does."""
        self.defines |= inner.operations
        self.made.append(inner.as_made(name)._replace(of_row=of_row))

    def as_made(self, name: str = "") -> Made:
        """Return what was read as what runs under a name."""
        names = (self.operations, self.relations, self.columns, self.functions, self.whole)
        operations, relations, columns, functions, whole = map(tuple, names)
        perhaps = tuple(self.perhaps)
        return Made(
            name, operations, relations, columns, functions, whole, self.where, given=self.given, perhaps=perhaps
        )

    def worse(self, where: str) -> None:
        """Keep the worst that is known of any WHERE: none, then useless, then present."""
        if _WORST[where] > _WORST[self.where]:
            self.where = where

    def _visit(self, node: Any, scope: _Scope, runs: bool) -> None:
        if isinstance(node, list):
            for item in node:
                self._visit(item, scope, runs)
        elif isinstance(node, dict):
            for kind, body in node.items():
                if isinstance(body, dict):
                    self._node(kind, body, scope, runs)
                elif isinstance(body, list) and kind != "lockingClause":
                    self._visit(body, scope, runs)

    def _node(self, kind: str, body: Tree, scope: _Scope, runs: bool) -> None:
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

    def _compared(self, body: Tree, scope: _Scope) -> None:
        """Note the columns by which a join compares its tables; those of a NATURAL one no text tells."""
        for item in body.get("usingClause", []):
            self._unqualified(_string(item), scope)
        if body.get("isNatural"):
            for part in _ranges([body.get("larg"), body.get("rarg")]):
                table = scope.table(part.get("alias", {}).get("aliasname", part.get("relname", "")))
                if table is not None:
                    self._reads(f"{table}.*")

    def _attributes(self, body: Tree) -> None:
        """Note what is read of a row as a column is, and may be a function (`(x).f`)."""
        for item in body.get("indirection", []):
            if "String" in item:
                self.perhaps.setdefault(f".{_quoted(_string(item))}")

    def _call(self, body: Tree, runs: bool) -> None:
        """Note a function that is called, and the text that it runs as SQL."""
        name = _dotted(body.get("funcname", []))
        if self._idle or (name in _STRICT and any(map(_null, body.get("args", [])))):
            self.perhaps.setdefault(name)  # what is immutable is called when it is planned
            return
        self.functions.setdefault(name)
        if name == "set_config" and runs:
            self._add_all(self.settings, objects.set_config(body))
        last = name.rpartition(".")[2]
        args = body.get("args", [])
        if last in _READ_MANY and runs:
            self.unread = self.unread or f"{last}() reads what its text does not show"
        if last in _READ_TABLE and args:
            table = _text(args[0])
            if table is not None and _NAME.fullmatch(table.strip()):
                self.bodies.append(Body(f"TABLE {table}", "sql", runs))
            elif runs and not _null(args[0]):
                self.unread = self.unread or f"{last}() reads a table that its text does not show"
        place = _RUN_TEXT.get(name, _RUN_TEXT.get(last, -1))
        if place == -1:
            return
        for arg in args if place is None else args[place : place + 1]:
            text = _text(arg)
            if text is not None and _SPACED.search(text.strip()):
                self.bodies.append(Body(text, "sql", runs))
            elif text is None and runs and (place is not None or last in _ANY_TEXT) and not _constant(arg):
                self.unread = self.unread or TOGETHER

    @staticmethod
    def _add_all(known: dict[str, None], found: Iterator[str]) -> None:
        for name in found:
            known.setdefault(name)

    def _statement(self, kind: str, body: Tree, outer: _Scope, runs: bool) -> None:
        scope = _Scope(outer)
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
                _aliases(rest[part], scope)
        idle, self._idle = self._idle, self._idle or (kind == "SelectStmt" and gives_nothing(body))
        if runs:
            if target is not None and name is not None:
                self.written.setdefault(name)
            self._operation(kind, body)
            if kind == "SelectStmt" and not self._idle and reads_whole(body):
                self.whole |= dict.fromkeys(name for name in scope.tables.values() if name is not None)
        self._visit(rest, scope, runs)
        self._idle = idle

    def _ctes(self, clause: Tree | None, scope: _Scope, runs: bool) -> None:
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
            if _range(body["relation"], self._scope())[:1] != [_TEMP]:  # what is nobody else's may go as it likes
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

    def _utility(self, kind: str, body: Tree, scope: _Scope, runs: bool) -> None:
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
            self._add(_names(body.get("object")))
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
            self.attached.append(Made("", functions=(_dotted(names),)))
        if kind == "RenameStmt" and body.get("renameType") in _ROUTINES:
            before = _dotted(body.get("object", {}).get("ObjectWithArgs", {}).get("objname", []))
            self.attached.append(Made(_quoted(body.get("newname", "")), functions=(before,)))
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
        names = [_string(item) for item in body.get("aliases", into.get("colNames", []))]
        read = tuple(name for name in inner.columns if name in inner.read_columns)
        reads = (tuple(inner.relations), read, (*inner.functions, *inner.perhaps))
        name: Tree = body.get("view") or body.get("relation") or into.get("rel", {})
        self.stands.append(stands.view(name, select.get("targetList", []), names, reads))
        if name.get("relpersistence") == "t":
            self.stands.append(stands.view({**name, "schemaname": _TEMP}, select.get("targetList", []), names, reads))

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
        name = _dotted(body.get("funcname", []))
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

    def _copied(self, body: Tree, scope: _Scope, runs: bool) -> None:
        """Note the columns that a COPY fills, or reads of every row."""
        table = self._target(body["relation"], scope)
        if table is None:
            return
        for column in copied(body):
            if body.get("is_from"):
                if runs:
                    self.written.setdefault(table)
                self.columns.setdefault(f"{table}.{_quoted(column)}")
            else:
                self._reads(f"{table}.{_quoted(column)}")
        if runs and not body.get("is_from") and "whereClause" not in body:
            self.whole.setdefault(table)

    def _dropped(self, body: Tree, runs: bool) -> None:
        what = body.get("removeType", "")
        for item in body.get("objects", []):
            names = _names(item)
            if what in {"OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_FOREIGN_TABLE", "OBJECT_SEQUENCE"}:
                if names and names[-1] in self.temporary and (len(names) == 1 or names[0] == _TEMP):
                    self._gone.add(names[-1])
                    names = [_TEMP, names[-1]]
                self._add(names)
                if runs:
                    self._writes(names)
            elif what in {"OBJECT_TRIGGER", "OBJECT_RULE", "OBJECT_POLICY"}:
                self._add(names[:-1])

    def _target(self, relation: Tree, scope: _Scope) -> str | None:
        """The target of a write is always a table, also where a CTE has its name."""
        body = relation.get("RangeVar", relation)
        if "relname" not in body:
            return None
        name = self._add(self._name(body, scope))
        scope.tables[body.get("alias", {}).get("aliasname", body["relname"])] = name
        return name

    def _name(self, body: Tree, scope: _Scope) -> list[str]:
        """Give a relation's name, and note that a temporary one is made."""
        names = _range(body, scope)
        if names[:1] == [_TEMP]:
            self._made.add(names[-1])
        return names

    def _writes(self, names: list[str]) -> None:
        if names:
            self.written.setdefault(".".join(_quoted(part) for part in names[-2:]))

    def _assigned(self, table: str | None, kind: str, body: Tree) -> None:
        """Note the columns that an INSERT fills or an UPDATE sets."""
        targets = body.get("cols", []) if kind == "InsertStmt" else []
        targets = targets + (body.get("targetList", []) if kind == "UpdateStmt" else [])
        targets = targets + body.get("onConflictClause", {}).get("targetList", [])
        for item in targets:
            name = item.get("ResTarget", {}).get("name")
            if table is not None and name:
                self.columns.setdefault(f"{table}.{_quoted(name)}")

    def _relation(self, body: Tree, scope: _Scope) -> None:
        if "schemaname" not in body and body.get("relname") in scope.ctes:
            return
        self._add(self._name(body, scope))

    def _column(self, body: Tree, scope: _Scope) -> None:
        fields = ["*" if "A_Star" in item else _string(item) for item in body.get("fields", [])]
        if len(fields) == 1:
            self._unqualified(fields[0], scope)
        elif fields:
            *path, column = fields
            if column != "*":
                self.perhaps.setdefault(f".{_quoted(column)}")
            table = scope.table(path[-1]) if len(path) == 1 else ".".join(_quoted(part) for part in path[-2:])
            if table is not None and scope.column(column) == table:
                column = "*"
            if len(path) == 1 and scope.joins(path[0]):
                self._unqualified(column, scope)
            elif table is not None:
                self._reads(f"{table}.{_quoted(column)}")
            elif not scope.knows(path[-1]):
                self._reads(".".join(_quoted(part) for part in fields))

    def _unqualified(self, column: str, scope: _Scope) -> None:
        tables = list(dict.fromkeys(scope.tables.values()))
        named: list[str | None]
        if (renamed := scope.column(column)) is not None:
            named, column = [renamed], "*"
        elif column == "*":
            named = tables
        elif scope.join_renames(column):
            named, column = tables, "*"
        elif scope.knows(column):
            # `SELECT t FROM t` is the whole row, unless the table has a column of that name, which no text tells.
            named, column = [scope.table(column)], "*"
        elif len(tables) == 1:
            named = tables
        else:
            self._reads(_quoted(column))
            return
        # A column of a subquery or CTE was met where that reads it.
        for table in named:
            if table is not None:
                self._reads(f"{table}.{_quoted(column)}")

    def _of_row(self, body: Tree, scope: _Scope) -> bool:
        """Read `(x).email` of a table's row as that column; says whether it was one."""
        fields = body.get("arg", {}).get("ColumnRef", {}).get("fields", [])
        first = body.get("indirection", [{}])[0]
        if len(fields) != 1 or "String" not in first or (table := scope.table(_string(fields[0]))) is None:
            return False
        self._reads(f"{table}.{_quoted(_string(first))}")
        return True

    def _reads(self, column: str) -> None:
        self.columns.setdefault(column)
        self.read_columns.add(column)

    def _add(self, names: list[str]) -> str | None:
        if not names:
            return None
        name = ".".join(_quoted(part) for part in names[-2:])
        self.relations.setdefault(name)
        return name

    def _did(self, operation: str) -> None:
        self.operations.setdefault(operation)


def _null(arg: Tree) -> bool:
    """Say whether NULL stands as an argument, with a cast or without."""
    return arg.get("TypeCast", {}).get("arg", arg).get("A_Const", {}).get("isnull") is True


def _text(arg: Tree) -> str | None:
    """Give a string that stands as an argument, with a cast or without."""
    text = arg.get("TypeCast", {}).get("arg", arg).get("A_Const", {}).get("sval", {}).get("sval")
    return text if isinstance(text, str) else None


def _constant(arg: Tree) -> bool:
    """Say whether a value that is no string stands as an argument: a number, a truth value, NULL."""
    return "A_Const" in arg.get("TypeCast", {}).get("arg", arg)


def _may_hide(kind: str, body: Tree) -> bool:
    """Say whether behind a statement a name may mean another table than a temporary one that was made before."""
    if kind == "TransactionStmt":
        return str(body.get("kind", "")).removeprefix("TRANS_STMT_") not in ("BEGIN", "START", "SAVEPOINT", "RELEASE")
    if kind == "VariableSetStmt":
        return str(body.get("name", "search_path")).lower() == "search_path"
    return kind in ("DiscardStmt", "RenameStmt", "AlterObjectSchemaStmt", "DropOwnedStmt")


def _aliases(clause: Any, scope: _Scope) -> None:
    for join in _joins(clause):
        scope.joined |= {join[name].get("aliasname", "") for name in ("alias", "join_using_alias") if name in join}
        scope.join_columns |= {_string(item) for item in join.get("alias", {}).get("colnames", [])}
    for body in _ranges(clause):
        alias = body.get("alias", {}).get("aliasname")
        if "relname" not in body:
            scope.tables[alias or f"?{len(scope.tables)}"] = None
        elif "schemaname" not in body and body["relname"] in scope.ctes:
            scope.tables[alias or body["relname"]] = None
        else:
            table = ".".join(_quoted(part) for part in _range(body, scope))
            scope.tables[alias or body["relname"]] = table
            scope.renamed |= {_string(item): table for item in body.get("alias", {}).get("colnames", [])}


def _joins(clause: Any) -> Iterator[Tree]:
    """List the joins of a FROM."""
    if isinstance(clause, list):
        for item in clause:
            yield from _joins(item)
    elif isinstance(clause, dict):
        for join in [body for kind, body in clause.items() if kind == "JoinExpr"]:
            yield join
            yield from _joins([join.get("larg"), join.get("rarg")])


def _plain(options: list[Tree]) -> bool:
    """Say whether a function sets `standard_conforming_strings` to on for itself."""
    given = [item.get("arg", {}).get("VariableSetStmt", {}) for item in options if item.get("defname") == "set"]
    values = [arg for setting in given if setting.get("name") == _STANDARD for arg in setting.get("args", [])]
    return [_text(arg) for arg in values] == ["on"]


def _takes_row(parameters: list[Tree]) -> bool:
    """Say whether a function may be called as a column is read: one argument is wanted, and that may be a row."""
    given = [item.get("FunctionParameter", {}) for item in parameters]
    taken = [item for item in given if item.get("mode") not in ("FUNC_PARAM_OUT", "FUNC_PARAM_TABLE")]
    wanted = [item for item in taken if "defexpr" not in item]
    if not taken or len(wanted) > 1:
        return False
    names = [_string(item) for item in taken[0].get("argType", {}).get("names", [])]
    return names[:1] != ["pg_catalog"] and names[-1:] not in [[name] for name in _SCALARS]


def _ranges(clause: Any) -> Iterator[Tree]:
    """List the tables, subqueries and functions of a FROM, through its joins."""
    if isinstance(clause, list):
        for item in clause:
            yield from _ranges(item)
    elif isinstance(clause, dict):
        for kind, body in clause.items():
            if kind in {"RangeVar", "RangeSubselect", "RangeFunction", "RangeTableFunc", "JsonTable"}:
                yield body
            elif kind == "JoinExpr":
                yield from _ranges([body.get("larg"), body.get("rarg")])
            elif kind == "RangeTableSample":
                yield from _ranges(body.get("relation"))


def _range(body: Tree, scope: _Scope) -> list[str]:
    """Give a relation's name as it is written; of one that is or was made as temporary table, in `pg_temp`."""
    if "schemaname" not in body and (body.get("relpersistence") == "t" or body.get("relname") in scope.temporary):
        return [_TEMP, body["relname"]]
    return [body[key] for key in ("schemaname", "relname") if key in body]


def _names(item: Any) -> list[str]:
    """Read a possibly qualified name, however the tree writes it."""
    if isinstance(item, dict) and "List" in item:
        return [_string(part) for part in item["List"].get("items", [])]
    return [_string(item)] if isinstance(item, dict) and "String" in item else []


def _string(item: Tree) -> str:
    return str(item.get("String", {}).get("sval", ""))


def _dotted(names: list[Tree]) -> str:
    parts = [_string(name) for name in names]
    return ".".join(_quoted(part) for part in (parts[1:] if parts[:1] == ["pg_catalog"] else parts))


def _quoted(name: str) -> str:
    return quote_identifier(name) if name and name != "*" else name
