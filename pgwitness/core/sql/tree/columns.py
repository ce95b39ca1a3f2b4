"""Which relations and columns a statement names, reads and writes, by what names mean where they stand."""

from __future__ import annotations

from pgwitness.core.sql.tree.collected import Collected
from pgwitness.core.sql.tree.nodes import Tree, name_of, quoted, string
from pgwitness.core.sql.tree.scopes import TEMPORARY, Scope, name_in, ranges
from pgwitness.core.sql.tree.wholes import copied


class Columns(Collected):
    """Notes relations and columns."""

    def _relation(self, body: Tree, scope: Scope) -> None:
        if "schemaname" not in body and body.get("relname") in scope.ctes:
            return
        self._add(self._name(body, scope))

    def _column(self, body: Tree, scope: Scope) -> None:
        fields = ["*" if "A_Star" in item else string(item) for item in body.get("fields", [])]
        if len(fields) == 1:
            self._unqualified(fields[0], scope)
        elif fields:
            *path, column = fields
            if column != "*":
                self.perhaps.setdefault(f".{quoted(column)}")
            table = scope.table(path[-1]) if len(path) == 1 else ".".join(quoted(part) for part in path[-2:])
            if table is not None and scope.column(column) == table:
                column = "*"
            if len(path) == 1 and scope.joins(path[0]):
                self._unqualified(column, scope)
            elif table is not None:
                self._reads(f"{table}.{quoted(column)}")
            elif not scope.knows(path[-1]):
                self._reads(".".join(quoted(part) for part in fields))

    def _unqualified(self, column: str, scope: Scope) -> None:
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
            self._reads(quoted(column))
            return
        # A column of a subquery or CTE was met where that reads it.
        for table in named:
            if table is not None:
                self._reads(f"{table}.{quoted(column)}")

    def _of_row(self, body: Tree, scope: Scope) -> bool:
        """Read `(x).email` of a table's row as that column; says whether it was one."""
        fields = body.get("arg", {}).get("ColumnRef", {}).get("fields", [])
        first = body.get("indirection", [{}])[0]
        if len(fields) != 1 or "String" not in first or (table := scope.table(string(fields[0]))) is None:
            return False
        self._reads(f"{table}.{quoted(string(first))}")
        return True

    def _compared(self, body: Tree, scope: Scope) -> None:
        """Note the columns by which a join compares its tables; those of a NATURAL one no text tells."""
        for item in body.get("usingClause", []):
            self._unqualified(string(item), scope)
        if body.get("isNatural"):
            for part in ranges([body.get("larg"), body.get("rarg")]):
                table = scope.table(part.get("alias", {}).get("aliasname", part.get("relname", "")))
                if table is not None:
                    self._reads(f"{table}.*")

    def _attributes(self, body: Tree) -> None:
        """Note what is read of a row as a column is, and may be a function (`(x).f`)."""
        for item in body.get("indirection", []):
            if "String" in item:
                self.perhaps.setdefault(f".{quoted(string(item))}")

    def _target(self, relation: Tree, scope: Scope) -> str | None:
        """The target of a write is always a table, also where a CTE has its name."""
        body = relation.get("RangeVar", relation)
        if "relname" not in body:
            return None
        name = self._add(self._name(body, scope))
        scope.tables[body.get("alias", {}).get("aliasname", body["relname"])] = name
        return name

    def _assigned(self, table: str | None, kind: str, body: Tree) -> None:
        """Note the columns that an INSERT fills or an UPDATE sets."""
        targets = body.get("cols", []) if kind == "InsertStmt" else []
        targets = targets + (body.get("targetList", []) if kind == "UpdateStmt" else [])
        targets = targets + body.get("onConflictClause", {}).get("targetList", [])
        for item in targets:
            name = item.get("ResTarget", {}).get("name")
            if table is not None and name:
                self.columns.setdefault(f"{table}.{quoted(name)}")

    def _copied(self, body: Tree, scope: Scope, runs: bool) -> None:
        """Note the columns that a COPY fills, or reads of every row."""
        table = self._target(body["relation"], scope)
        if table is None:
            return
        for column in copied(body):
            if body.get("is_from"):
                if runs:
                    self.written.setdefault(table)
                self.columns.setdefault(f"{table}.{quoted(column)}")
            else:
                self._reads(f"{table}.{quoted(column)}")
        if runs and not body.get("is_from") and "whereClause" not in body:
            self.whole.setdefault(table)

    def _dropped(self, body: Tree, runs: bool) -> None:
        what = body.get("removeType", "")
        for item in body.get("objects", []):
            names = name_of(item)
            if what in {"OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_FOREIGN_TABLE", "OBJECT_SEQUENCE"}:
                if names and names[-1] in self.temporary and (len(names) == 1 or names[0] == TEMPORARY):
                    self._gone.add(names[-1])
                    names = [TEMPORARY, names[-1]]
                self._add(names)
                if runs:
                    self._writes(names)
            elif what in {"OBJECT_TRIGGER", "OBJECT_RULE", "OBJECT_POLICY"}:
                self._add(names[:-1])

    def _name(self, body: Tree, scope: Scope) -> list[str]:
        """Give a relation's name, and note that a temporary one is made."""
        names = name_in(body, scope)
        if names[:1] == [TEMPORARY]:
            self._made.add(names[-1])
        return names

    def _add(self, names: list[str]) -> str | None:
        if not names:
            return None
        name = ".".join(quoted(part) for part in names[-2:])
        self.relations.setdefault(name)
        return name

    def _writes(self, names: list[str]) -> None:
        if names:
            self.written.setdefault(".".join(quoted(part) for part in names[-2:]))

    def _reads(self, column: str) -> None:
        self.columns.setdefault(column)
        self.read_columns.add(column)
