"""The DETAIL of an EXECUTE: what it says, in whatever language, and where it says nothing."""

from __future__ import annotations

import pytest

from collectors.log.interpretation.prepared import ran


@pytest.mark.parametrize(
    ("statement", "detail", "operations", "relations"),
    [
        ("EXECUTE p", "prepare: PREPARE p AS DELETE FROM pay", ["delete", "execute"], ["pay"]),
        ("EXECUTE p($1)", "prepare: BEGIN; PREPARE q AS SELECT 1; PREPARE p AS DELETE FROM pay;",
         ["delete", "execute"], ["pay"]),
        ("EXECUTE p", "Vorbereiten: PREPARE p AS DELETE FROM pay", ["delete", "execute"], ["pay"]),
        ("EXECUTE p", "prepare: UPDATE t SET a = $1", ["update", "execute"], ["t"]),
        ("CREATE TABLE x AS EXECUTE p", "prepare: PREPARE p AS SELECT a FROM t",
         ["select", "create_table_as", "execute"], ["x", "t"]),
        ("EXPLAIN ANALYZE EXECUTE p", "prepare: PREPARE p AS DELETE FROM pay WHERE a = 1",
         ["delete", "explain", "execute"], ["pay"]),
    ],
)  # fmt: skip
def test_a_detail_says_what_was_prepared(
    statement: str, detail: str, operations: list[str], relations: list[str]
) -> None:
    """By PREPARE, among others, or by a driver."""
    found = ran(statement, detail)
    assert found is not None
    assert (found.operations, found.relations) == (operations, relations)


@pytest.mark.parametrize(
    ("statement", "detail"),
    [
        ("EXECUTE p", "prepare: PREPARE other AS DELETE FROM pay"),
        ("EXECUTE p", "prepare: no sql"),
        ("EXECUTE p", "parameters: $1 = 'x'"),
        ("SELECT 1", "prepare: PREPARE p AS DELETE FROM pay"),
        ("EXECUTE p", ""),
    ],
)
def test_what_a_detail_does_not_say(statement: str, detail: str) -> None:
    """Another name, no statement, no detail of that kind: nothing is known."""
    assert ran(statement, detail) is None
