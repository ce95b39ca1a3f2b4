"""Of a statement that writes, the query that reads the rows which it chooses; pure.

By the places of the words that PostgreSQL's own scanner gives: what stands between DELETE FROM or UPDATE and WHERE is
what a SELECT has behind FROM. What comes of it is parsed again, so that a mistake here is none but "not known".
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from collectors.masking.names import quoted
from pgwitness.core.sql.postgres_parser import Token, parse_sql_json, scan
from pgwitness.core.sql.tree.nodes import walk
from pgwitness.core.sql.tree.stands import name_of

TEXT_CHARS_MAX: Final = 16 * 1024
"""Of a longer text nothing is found out beforehand: to read it again would hold up every other session."""
_WRITES: Final = {"DeleteStmt": "DELETE_P", "UpdateStmt": "UPDATE"}
_OPENS, _CLOSES = frozenset({"ASCII_40", "ASCII_91"}), frozenset({"ASCII_41", "ASCII_93"})
_COMMENTS: Final = frozenset({"SQL_COMMENT", "C_COMMENT"})


class Chosen(NamedTuple):
    """Queries of the rows that a statement chooses, but for their ends: ` LIMIT n`, of `counting` with `) AS …`."""

    table: str
    """As the statement names it."""
    counting: str
    showing: str


def chosen(text: str) -> Chosen:
    """Return how to read what a statement writes to. Raise `ValueError` with the reason why that cannot be done."""
    tree = msgspec.json.decode(parse_sql_json(text))
    statements = tree.get("stmts", ())
    if len(statements) != 1:
        raise ValueError("it is no single statement")
    ((kind, body),) = statements[0]["stmt"].items()
    if kind not in _WRITES:
        raise ValueError("only the rows that an UPDATE or DELETE chooses are counted")
    if _writes_within(body):
        raise ValueError("it writes to more than one table")
    where = body.get("whereClause") or {}
    if "CurrentOfExpr" in where:
        raise ValueError("it goes by the place of a cursor")
    relation = body["relation"]
    name = relation.get("alias", {}).get("aliasname") or relation["relname"]
    pieces = _cut(text, [token for token in scan(text) if token.name not in _COMMENTS], _WRITES[kind])
    # Each piece ends its line, for it may end with a comment that would take in what stands behind it.
    row, source = quoted(name), f"FROM {pieces.target}\n"
    if pieces.source:
        source += f", {pieces.source}\n"
    if pieces.where:
        source += f"WHERE {pieces.where}\n"
    picked = f"DISTINCT {row}.tableoid, {row}.ctid" if pieces.source else "1"
    counting = f"{pieces.before}SELECT pg_catalog.count(*) FROM (SELECT {picked} {source}"
    showing = f"{pieces.before}SELECT {row}.* {source}"
    for made in (f"{counting} LIMIT 1) AS chosen", f"{showing} LIMIT 1"):
        again = msgspec.json.decode(parse_sql_json(made)).get("stmts", ())
        if len(again) != 1 or "SelectStmt" not in again[0]["stmt"] or _writes_within(again[0]["stmt"]["SelectStmt"]):
            raise ValueError("no query can be made of it")
    return Chosen(name_of(relation), counting, showing)


class _Pieces(NamedTuple):
    before: str
    target: str
    source: str
    where: str


def _cut(text: str, tokens: list[Token], word: str) -> _Pieces:
    """Cut a statement at its own words, those that stand in no parentheses."""
    outer: list[Token] = []
    depth = 0
    for token in tokens:
        depth += (token.name in _OPENS) - (token.name in _CLOSES)
        if token.name == "ASCII_59":
            break
        if depth == 0:
            outer.append(token)
    names = [token.name for token in outer]
    # None that is called so stands before the statement's own word: names of a WITH are followed by AS.
    begin = names.index(word)
    at = {"SET": -1, "FROM": -1, "WHERE": -1, "RETURNING": -1}
    source = "USING" if word == "DELETE_P" else "FROM"
    for place in range(begin + (2 if word == "DELETE_P" else 1), len(outer)):
        name = "FROM" if names[place] == source else names[place] if names[place] != "FROM" else ""
        if name not in at or at[name] >= 0 or names[place - 1] in ("AS", "DISTINCT", "ASCII_46"):
            continue
        if name == "FROM" and word == "UPDATE" and at["SET"] < 0:
            continue
        at[name] = place
    if word == "DELETE_P":
        at.pop("SET")
    starts = sorted(outer[place].start for place in at.values() if place >= 0)
    last = next((token.start for token in tokens if token.name == "ASCII_59"), len(text))

    def piece(place: int) -> str:
        if place < 0:
            return ""
        start = outer[place].end + 1
        return text[start : next((one for one in starts if one >= start), last)].strip()

    target = begin + 1 if word == "DELETE_P" else begin
    return _Pieces(text[: outer[begin].start], piece(target), piece(at["FROM"]), piece(at["WHERE"]))


def _writes_within(node: Any) -> bool:
    """Say whether another statement in this one writes, or locks what it reads."""
    writes = ("InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "lockingClause")
    return any(kind in item for item in walk(node) for kind in writes)
