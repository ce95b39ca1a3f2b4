"""What policies may ask of `detail`, and which values occur: the tables and those who fill them cannot drift apart."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from detectors.policy import occurring
from detectors.policy.details import DETAILS, Shape, found, wrong
from detectors.policy.expressions import Expression
from pgwitness.core.events import Posture, Session
from pgwitness.core.sql.statements import facts
from pgwitness.core.sql.tree.utility import vocabulary
from pgwitness.core.sql.words import STARTS

ROOT = Path(__file__).parent.parent.parent
EMITTERS = ("collectors", "streams", "sinks", "pgwitness")
MAKERS = frozenset({"Gap", "Control", "gap", "_gap", "lost", "Loss"})
"""Calls that make a raw event, or go on to do so; their dicts are details."""


def sources() -> Iterator[tuple[Path, ast.Module]]:
    """Read the code of whatever fills details."""
    for folder in EMITTERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield file, ast.parse(file.read_text())


def keys_of(node: ast.expr | None) -> Iterator[str]:
    """List the names that a dict in the code has."""
    if isinstance(node, ast.Dict):
        yield from (str(key.value) for key in node.keys if isinstance(key, ast.Constant))
    elif isinstance(node, ast.BinOp):
        yield from (*keys_of(node.left), *keys_of(node.right))
    elif isinstance(node, ast.IfExp):
        yield from (*keys_of(node.body), *keys_of(node.orelse))


def constants_of(tree: ast.Module) -> dict[str, str]:
    """Return the texts that a module names."""
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def emitted() -> dict[str, str]:
    """Return each name that some code puts into a detail, with a place where it does."""
    names: dict[str, str] = {}
    for file, tree in sources():
        constants = constants_of(tree)
        for node in ast.walk(tree):
            keys: list[str] = []
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                dicts = [keyword.value for keyword in node.keywords if keyword.arg == "detail"]
                dicts += node.args if name in MAKERS else []
                keys = [key for each in dicts for key in keys_of(each)]
            elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if ast.unparse(target).endswith("detail"):
                        keys += keys_of(node.value)
                    if isinstance(target, ast.Subscript) and ast.unparse(target.value).endswith("detail"):
                        keys += [str(target.slice.value)] if isinstance(target.slice, ast.Constant) else []
                        keys += [constants.get(getattr(target.slice, "id", ""), "")]
            names |= dict.fromkeys(filter(None, keys), f"{file.name}:{getattr(node, 'lineno', 0)}")
    return names


def test_whatever_is_emitted_can_be_asked_for() -> None:
    """Every key that the code of collectors, fold and worker puts into a detail is in the table."""
    known = {name for names in DETAILS.values() for name in names}
    missing = {name: place for name, place in emitted().items() if name not in known}
    assert missing == {}
    assert len(emitted()) > 90


def test_whatever_can_be_asked_for_is_emitted() -> None:
    """No name of the table is in the code of no emitter: as a key, a keyword or a field."""
    said: set[str] = set()
    for _, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.add(node.value)
            elif isinstance(node, ast.keyword) and node.arg:
                said.add(node.arg)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                said.add(node.target.id)

    def names(shape: Shape) -> Iterator[str]:
        if isinstance(shape, dict):
            for name, inner in shape.items():
                yield name
                yield from names(inner)
        elif isinstance(shape, list):
            yield from names(shape[0])

    assert [name for fields in DETAILS.values() for name in names(fields) if name not in said] == []


@pytest.mark.parametrize(
    ("kind", "detail", "said"),
    [
        ("ddl", {"dropped": [{"type": "table", "name": "public.t"}]}, []),
        ("ddl", {"dropped": [{"typ": "table"}]}, ["detail.dropped[].typ is not known"]),
        ("gap", {"missing": "3"}, ["detail.missing is no int"]),
        ("gap", {"restarted": 1}, ["detail.restarted is no bool"]),
        ("statement", {"operations": "select"}, ["detail.operations is no list"]),
        ("change", {"shares": [{"part": 1, "rows": 3}]}, []),
        ("session", {"unheard": 1, "certificate": None}, ["detail.unheard is not known"]),
    ],
)
def test_what_does_not_fit_is_named(kind: str, detail: dict[str, object], said: list[str]) -> None:
    """A name or type that the table does not have is named with its path."""
    assert wrong(kind, detail) == said


def test_kinds_that_differ_are_any() -> None:
    """A name of several kinds has their type, or any where they do not agree; one of none is none."""
    assert found(["gap", "control"], "settings") == "map"
    assert found(["statement", "control"], "settings") == "any"
    assert found(["change"], "settings") is None


STATEMENTS = [
    "CREATE LANGUAGE plsh HANDLER h",
    "CREATE TRUSTED LANGUAGE plx HANDLER x",
    "SET ROLE x",
    "ALTER TABLE t DISABLE TRIGGER ALL, ALTER COLUMN a TYPE int",
    "DROP FOREIGN DATA WRAPPER x",
    "COPY t TO PROGRAM 'x'",
    "COPY t FROM '/x'",
    "ROLLBACK TO SAVEPOINT a",
    "COMMIT PREPARED 'x'",
    "CREATE MATERIALIZED VIEW v AS SELECT 1",
    "REASSIGN OWNED BY a TO b",
    "ALTER OPERATOR FAMILY x USING btree OWNER TO y",
    "DO $$ BEGIN EXECUTE 'x' || y; END $$",
    "CREATE TEXT SEARCH CONFIGURATION c (COPY = d)",
    "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE",
    "REFRESH MATERIALIZED VIEW v",
    "SECURITY LABEL ON TABLE t IS 'x'",
    "IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c",
    "ALTER SYSTEM SET a = 1",
    "CALL p(); EXPLAIN ANALYZE DELETE FROM t; VACUUM t; CHECKPOINT; DISCARD ALL; LISTEN x",
    "drop table if broken (((",
    "create or replace function f() broken $$ delete from t $$",
]


@pytest.mark.parametrize("text", STATEMENTS)
def test_words_for_what_statements_do_are_known(text: str) -> None:
    """Whatever this program says that a statement does is a word that policies may ask for."""
    known = facts(text)
    assert known.operations or known.parse_error
    assert {*known.operations, *known.defines} <= vocabulary()


def test_words_of_the_tests_of_statements_are_known() -> None:
    """So are those of each statement in the tests of the parser and of the ways round, and of what cannot be parsed."""
    asked = 0
    for file in ("tests/pgwitness/test_statements.py", "tests/judgement/ways.py", "tests/judgement/honest.py"):
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"[a-z] ", node.value):
                known = facts(node.value)
                defined = {word for word in known.defines if not word.endswith("()")}
                assert {*known.operations, *defined} <= vocabulary(), node.value
                asked += bool(known.operations)
    assert asked > 100
    assert set(STARTS.values()) <= vocabulary()


def test_closed_lists_are_those_of_the_events() -> None:
    """What sessions and posture can be is what their types say."""
    assert set(get_args(get_type_hints(Session)["operation"])) - {"sample"} == set(occurring.SESSIONS)
    assert set(get_args(get_type_hints(Posture)["change"])) == set(occurring.FOUND)


@pytest.mark.parametrize(
    ("kinds", "source", "words"),
    [
        (["statement"], 'kind == "statment"', "did you mean 'statement'?"),
        (["statement"], 'kind == "ddl"', "not among this policy's `kinds`"),
        (["change"], 'outcome == "done"', "success"),
        (["change"], 'outcome in ["failed"]', "did you mean 'failure'?"),
        (["change"], 'principal.kind != "bot"', "agent, human, service"),
        (["change"], 'operation == "remove"', "delete, insert, truncate, update"),
        (["session"], 'operation == "login"', "login_failed"),
        (["ddl"], 'operation in ["drop table"]', "did you mean 'DROP TABLE'"),
        (["ddl"], 'operation == "DROP TABEL"', "DROP TABLE"),
        (["statement"], 'statement.operations.exists(o, o == "drop_tabel")', "drop_table"),
        (["statement"], '"grant_rol" in statement.operations', "grant_role"),
        (["statement"], 'statement.operations[0] == "selct"', "select"),
        (["gap"], "detail.mising > 1", "did you mean missing"),
        (["session"], "has(detail.seen_as)", "no session has detail.seen_as"),
        (["ddl"], 'detail.dropped.exists(d, d.kind == "table")', "there is: name, type"),
        (["gap"], 'detail.missing == "3"', "`detail.missing` is int"),
        (["change"], 'detail.agent["modle"] == "x"', "did you mean model?"),
        (["change"], "rows > 1 && operation = 'delete'", "line 1, column 23, after `rows > 1 && operation`"),
        (["change"], "rows > 1\n  and rows < 3", "line 2, column 3, after `rows > 1`: write `&&` instead of `and`"),
        (["change"], "not (rows > 1)", "write `!` instead of `not`"),
        (["change"], "rows => 3", "write `>=`"),
        (["change"], "rows <> 3", "write `!=`"),
        (["change"], 'relations.any(r, r == "x")', "there is no `any`; write `exists`"),
        (["change"], "operation == delete", 'a text stands in quotes: "delete"'),
        (["change"], "name == 'ada'", "did you mean principal.name"),
        (["change"], "rows >", "line 1, column 7, after `rows >`: a value was expected, met the end"),
        (["change"], "operation == 'x", "the text that begins with ' does not end"),
        (["change"], "rows > 1 rows < 2", "`rows` was not expected; conditions are joined by"),
        (["change"], "rows > 1 && (calls == 'x')", 'in `calls == "x"`: `calls` is int'),
    ],
)
def test_a_slip_is_said_in_words_with_its_place(kinds: list[str], source: str, words: str) -> None:
    """What can never hold, or cannot be read, is refused with where it stands and what was probably meant."""
    with pytest.raises(ValueError, match=re.escape(words)):
        Expression(source, kinds=kinds)


@pytest.mark.parametrize(
    ("kinds", "source"),
    [
        (["statement", "ddl"], 'operation == "DROP TABLE" || operation == "delete"'),
        (["control"], 'operation == "beacon_pause" && detail.from.x == 1'),
        (["statement"], 'outcome == "" || seen_as != "statement"'),
        (["posture"], 'object.after.anything == 3 && labels.scope == "pci"'),
        (["ddl"], 'has(detail.dropped) && detail.dropped.exists(d, d.type == "table")'),
        (["change"], 'application == "and" && relations.exists(any, any == "or")'),
        (["change"], 'detail.agent["model"] == "x" && detail["claim"] == "y"'),
    ],
)
def test_what_can_hold_is_taken(kinds: list[str], source: str) -> None:
    """Values that can occur, and names that look like slips and are none."""
    assert Expression(source, kinds=kinds).paths
