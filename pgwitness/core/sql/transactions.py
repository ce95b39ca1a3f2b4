"""What a text says about transactions and savepoints, in the order of its statements. Pure.

The words are `begin`, `commit`, `rollback`, `prepare` (PREPARE TRANSACTION), `savepoint NAME`, `release NAME` and
`rollback_to NAME`; `commit+` and `rollback+` begin the next transaction at once (AND CHAIN). `work` stands for one or
more statements of any other kind between them. `streams.fold.outcome.outcomes` replays them.
"""

from __future__ import annotations

from collections.abc import Iterable

from pgwitness.core.sql.tree.nodes import Tree

WORK = "work"
WORDS_MAX = 1_000
"""Words of one text; what is beyond is not replayed."""
MANY = "many"
"""Stands for the words of a text that has more."""

_KINDS = {
    "TRANS_STMT_BEGIN": "begin",
    "TRANS_STMT_START": "begin",
    "TRANS_STMT_COMMIT": "commit",
    "TRANS_STMT_ROLLBACK": "rollback",
    "TRANS_STMT_PREPARE": "prepare",
    "TRANS_STMT_SAVEPOINT": "savepoint",
    "TRANS_STMT_RELEASE": "release",
    "TRANS_STMT_ROLLBACK_TO": "rollback_to",
}
"""COMMIT PREPARED and ROLLBACK PREPARED are work of a transaction of their own."""


def control(statements: Iterable[Tree]) -> tuple[str, ...]:
    """Give the words of a text's statements; nothing for one statement that is not about transactions."""
    words: list[str] = []
    for statement in statements:
        word = _word(statement)
        if word != WORK or words[-1:] != [WORK]:
            words.append(word)
        if len(words) > WORDS_MAX:
            return (MANY,)
    return () if words == [WORK] else tuple(words)


def _word(statement: Tree) -> str:
    body = statement.get("TransactionStmt")
    kind = _KINDS.get(body.get("kind", "TRANS_STMT_BEGIN")) if body is not None else None
    if body is None or kind is None:
        return WORK
    if kind in ("commit", "rollback"):
        return f"{kind}+" if body.get("chain") else kind
    return f"{kind} {body.get('savepoint_name', '')}" if kind in ("savepoint", "release", "rollback_to") else kind
