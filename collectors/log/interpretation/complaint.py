"""What of an error may be told: the server's own words, with what it quotes masked unless something has that name.

The server quotes values in messages (`invalid input syntax for type integer: "4111…"`) and whole rows in details, and a
function raises what it likes with whatever code. So a text is looked up among the server's own forms of words
(`pgwitness.core.messages`); one that has none is left out, and its code alone says what happened. Of one that has, the
form's words are kept, in English, and of what stands between them only names: of types, and of what the catalogues say
exists (`collectors.names`); also names in the statement itself where the form says that they are there. Nothing else
gets through, so nothing is lost if a function imitates a form.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from collectors.names import Names
from pgwitness.core.messages import Said, said
from pgwitness.core.privacy import Tokenizer
from pgwitness.core.sql.identifiers import glaring, names_in, plain

MESSAGE_CHARS_MAX = 300
NAME_CHARS_MAX = 200
MASKED = "…"

_TYPE_WORDS = """
bigint bigserial bit boolean box bytea char character cidr circle date daterange decimal double precision enum float8
float4 inet int2 int4 int8 integer interval json jsonb line lseg macaddr macaddr8 money name numeric numrange oid path
pg_lsn point polygon real record serial smallint text time timestamp timestamptz timetz tsquery tsrange tstzrange
tsvector txid_snapshot unknown uuid varchar varying varbit void with without zone xid xml xid8 int4range int8range
jsonpath regclass regproc regtype cstring
"""
_TYPES = frozenset(_TYPE_WORDS.split())
_WORD = re.compile(r"""[^\s"'`«»„“”‚‘’.,()\[\]]+""")
_TYPE = re.compile(r"[a-z0-9 ]{1,60}(?:\(\d{1,5}(?:,-?\d{1,5})?\))?(?:[a-z ]{0,30})(?:\[\])*", re.ASCII)

_RAN = ("23", "40", "42501", "P0")
"""Codes of a statement that was understood: what it names is there. All others may come before that."""

_EXISTS = (
    "permission denied for ",
    "must be owner of ",
    "cannot drop ",
    "cannot truncate a table referenced",
    "duplicate key value violates",
    "conflicting key value violates",
    "null value in column ",
    "new row for relation ",
    "new row violates row-level security",
    "insert or update on table ",
    "update or delete on table ",
    "no partition of relation ",
    "could not obtain lock on ",
    "cannot insert ",
    "cannot update ",
    "cannot delete ",
    "column %s can only be updated",
)
"""How messages begin whose names are those of things that are there: the server found them before it complained."""


class Complaint(NamedTuple):
    """What may be told of an error, and which names in its statement may be values.

    `hide` answers for `pgwitness.core.sql.identifiers.masked`; `known` is false when the statement failed for its names
    and the server did not say, in words that are understood, for which.
    """

    message: str | None
    detail: str | None
    hide: Callable[[str, bool, bool], bool]
    known: bool


def complaint(
    message: str,
    sqlstate: str | None,
    detail: str | None,
    statement: str | None,
    names: Names,
    token: Tokenizer,
    *,
    raised: bool = False,
) -> Complaint:
    """Return what of an error may be told; `raised` says that a function raised it in words of its own."""
    if raised:
        return Complaint(None, None, unproven(names), True)
    found = said(message)
    exists = _existing(found, statement, names)
    refused = _refused(found, sqlstate)
    vouched = _named(found) if found is not None and found.message.startswith(_EXISTS) else frozenset()
    blamed = _named(found) - vouched
    whole = _last_parts(found) if found is not None else ()

    def hide(name: str, quoted: bool, made_up: bool) -> bool:
        if names.knows(name) or name in vouched:
            return False
        if name in blamed:
            return quoted or not made_up or name in whole  # of `c.secret` the alias is none
        if refused:
            return quoted or not made_up
        return quoted and (bool(names) or not plain(name) or glaring(name))

    text = _filled(found, exists, sqlstate) if found is not None else None
    known = found is not None or not refused or not (sqlstate or "").startswith(("42", "3F", "3D"))
    return Complaint(text, _detail(detail, exists, token), hide, known)


def unproven(names: Names) -> Callable[[str, bool, bool], bool]:
    """Say which names of a statement may be values as long as nobody knows what became of it."""

    def hide(name: str, quoted: bool, _column: bool) -> bool:
        return quoted and not names.knows(name) and (bool(names) or not plain(name) or glaring(name))

    return hide


def _filled(found: Said, exists: Callable[[str], bool], sqlstate: str | None) -> str:
    """Write a message again with the values that are names, and `…` for the others."""
    values_too = sqlstate is None or sqlstate.startswith("22") or sqlstate == "42601"
    pieces = [found.words[0]]
    for value, word in zip(found.values, found.words[1:], strict=True):
        kept = _is_type(value) or (not values_too and exists(value))
        pieces += [value if kept else _fixed(value) or MASKED, word]
    return "".join(pieces)[:MESSAGE_CHARS_MAX]


def _detail(text: str | None, exists: Callable[[str], bool], token: Tokenizer) -> str | None:
    """Write a detail again with a token for a key, such as `Key (email)=(tok_…) already exists.`."""
    found = said(text) if text else None
    if found is None:
        return None
    pieces = [found.words[0]]
    for place, value in enumerate(found.values):
        before, after = found.words[place], found.words[place + 1]
        key = _key(value)
        if before.endswith((")=(", ") = (")):
            kept = _token(value, token)
        elif key is not None:
            columns, middle, values = key
            kept = f"({columns if exists(columns) else MASKED}{middle}{_token(values, token)})"
        elif value.startswith("(") and value.endswith(")"):
            kept = f"({MASKED})"
        else:
            kept = value if exists(value) else MASKED
        pieces += [kept, after]
    return "".join(pieces)[:MESSAGE_CHARS_MAX]


def _key(value: str) -> tuple[str, str, str] | None:
    """Cut a key, `(a, b)=(1, 2)`, into its columns, what stands between, and its values."""
    for middle in (")=(", ") = ("):
        columns, found, values = value.partition(middle)
        if found and value.startswith("(") and value.endswith(")"):
            return columns[1:], middle, values[:-1]
    return None


def _fixed(value: str) -> str | None:
    """Return a value that is a form itself, with nothing in it: `syntax error`."""
    found = said(value) if len(value) <= NAME_CHARS_MAX else None
    return found.message if found is not None and not found.values else None


def _token(value: str, token: Tokenizer) -> str:
    return token(value.encode("utf-8", "surrogatepass")).decode()


def _existing(found: Said | None, statement: str | None, names: Names) -> Callable[[str], bool]:
    """Say of a value whether all its words are names of what exists."""
    of_statement: frozenset[str] = frozenset()
    if statement is not None and found is not None and found.message.startswith(_EXISTS):
        of_statement = frozenset(name for name in names_in(statement) if plain(name))

    def exists(value: str) -> bool:
        words = _WORD.findall(value) if len(value) <= NAME_CHARS_MAX else []
        whole = value.strip("\"'«»„“”‚‘’ ")
        known = names.knows(whole) or (
            bool(words) and all(names.knows(word) or word in of_statement or word in _TYPES for word in words)
        )
        if not known and found is not None and found.message.startswith(_EXISTS):
            names.wanted.set()
        return known

    return exists


def _is_type(value: str) -> bool:
    words = _WORD.findall(value) if _TYPE.fullmatch(value) is not None else []
    return bool(words) and words[0] in _TYPES and all(word in _TYPES or word.isdecimal() for word in words)


def _refused(found: Said | None, sqlstate: str | None) -> bool:
    """Return whether a statement failed before everything that it names was looked up, for all that is known."""
    if found is not None and found.message.startswith(_EXISTS):
        return False
    return sqlstate is None or not sqlstate.startswith(_RAN)


def _last_parts(found: Said) -> tuple[str, ...]:
    """Return the values that are no qualifier of the next one: of `column %s.%s` the second."""
    return tuple(value for value, word in zip(found.values, found.words[1:], strict=True) if word != ".")


def _named(found: Said | None) -> frozenset[str]:
    """Return the names that an error quotes, however it writes them: `a`, `t.a`, `f(integer)`."""
    named: set[str] = set()
    for value in found.values if found is not None else ():
        if len(value) <= NAME_CHARS_MAX:
            whole = value.strip('"')
            named |= {whole, whole.partition("(")[0], *whole.split("."), *_WORD.findall(value)}
    return frozenset(named - _TYPES)
