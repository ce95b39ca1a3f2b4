"""What an approver may see of a statement's constants and of rows as they are before: masked as the lake masks; pure.

A value is shown as its column's rule says (`pgwitness.core.privacy`): in clear, as the token that the lake has of it,
its last characters, or not at all. What belongs to no column that is known is not shown: its type and length are. Of a
table whose rows are about a person with a key of their own no token is made here, for it would outlive that key.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from collectors.gateway.approving.constants import Column, Constant, Constants
from collectors.wal.decoding.values import BUILT_IN, TokenCache, converter
from pgwitness.approvals.records import Value
from pgwitness.core.config import Privacy
from pgwitness.core.events import quote_identifier
from pgwitness.core.privacy import CLEAR_TYPES, Tokenizer, names_subject, treatment

SHOWN_CHARS_MAX: Final = 200
COLUMNS_MAX: Final = 30
LONG: Final = "…"
_STRICTER: Final = {"clear": 0, "last4": 1, "hash": 2, "token": 3, "drop": 4}
_TOKEN: Final = re.compile(rb"tok_[0-9a-f_]{32}")
_OF_TYPE: Final = re.compile(r"[0-9a-fA-F:.,+\-/ TZ]{1,40}")
"""How a number, a time or a uuid is written; what is written otherwise may be anything."""
_WORDS: Final = {"integer": "integer", "number": "numeric", "text": "text", "bits": "bit string"}


class Table(NamedTuple):
    """A table as the server knows it: its full name, and the types of its columns."""

    name: str
    types: Mapping[str, str]


class Bound(NamedTuple):
    """A parameter as it was bound: its type's OID, its bytes (None for null), and whether they are text."""

    oid: int
    value: bytes | None
    is_text: bool


class Showing:
    """Masks for approvers, by the rules of one installation."""

    def __init__(self, privacy: Privacy, token: Tokenizer) -> None:
        self._privacy, self._token = privacy, token
        self._tokens = TokenCache(token, int(privacy.value_limit))

    def values(
        self, found: Constants, bound: Sequence[Bound], tables: Mapping[str, Table], statement: str | None
    ) -> list[Value]:
        """Say of each constant and parameter what may be said; they are named as in the statement without literals."""
        behind = found.highest + found.every
        named = statement is not None and f"${behind}" in statement and f"${behind + 1}" not in statement
        number, values = found.highest, []
        constants = {one.number: one for one in found.found if one.kind == "parameter"}
        for place, parameter in enumerate(bound, 1):
            values.append(self._bound(f"${place}", parameter, constants.get(place), tables))
        whole = found.every == sum(one.kind != "parameter" for one in found.found)
        for one in found.found:
            if one.kind != "parameter":
                number += 1
                name = f"${number}" if named and whole else f"value {number - found.highest}"
                values.append(self._value(name, one, _WORDS[one.kind], one.text.encode(), one.text, tables))
        return values

    def _bound(self, name: str, bound: Bound, constant: Constant | None, tables: Mapping[str, Table]) -> Value:
        known = BUILT_IN.get(bound.oid, "other")
        text = None if bound.value is None else bound.value if bound.is_text else _decoded(known, bound.value)
        if bound.value is None:
            return Value(name=name, type=known, length=0, shown="null")
        kind = (
            "integer" if known in ("int2", "int4", "int8") else "number" if known in ("numeric", "float8") else "text"
        )
        if text is None or constant is None:
            return Value(name=name, type=known, length=len(bound.value))
        whole = constant._replace(kind=kind)
        return self._value(name, whole, known, text, text.decode("utf-8", "replace"), tables)

    def _value(
        self, name: str, constant: Constant, words: str, data: bytes, text: str, tables: Mapping[str, Table]
    ) -> Value:
        how, column, kind = "", "", "other"
        for named in constant.columns:
            for full, type_name, treated in self._treatments(named, constant, text, tables):
                if not how or _STRICTER[treated] > _STRICTER[how]:
                    how, column, kind = treated, full, type_name
        shown = "" if how in ("", "drop") or self._privacy.row_values == "none" else self._shown(how, kind, data)
        return Value(name=name, type=words, length=len(text), column=column, shown=shown)

    def _treatments(
        self, named: Column, constant: Constant, text: str, tables: Mapping[str, Table]
    ) -> list[tuple[str, str, str]]:
        found = []
        for table in (tables[name] for name in named.tables if name in tables):
            kind = table.types.get(named.name)
            if kind is None:
                continue
            full = f"{table.name}.{quote_identifier(named.name)}"
            how = treatment(full, kind, self._privacy)
            written = constant.kind != "text" or (constant.bare and _OF_TYPE.fullmatch(text) is not None)
            if how == "clear" and kind in CLEAR_TYPES and not written:
                how = "drop"  # it is no value of that column, whatever it is
            if how in ("token", "hash") and self.is_personal(table):
                how = "drop"
            found.append((full, kind, how))
        return found

    def is_personal(self, table: Table) -> bool:
        """Return whether a table's rows name whom they are about, and so have keys that can be deleted."""
        return any(names_subject(f"{table.name}.{quote_identifier(name)}", self._privacy) for name in table.types)

    def cells(self, table: Table, columns: Sequence[tuple[str, str]], row: Sequence[bytes | None]) -> list[str | None]:
        """Mask a row of a table; `columns` are names with their types. None is null."""
        personal = self.is_personal(table)
        cells: list[str | None] = []
        for (name, kind), value in zip(columns[:COLUMNS_MAX], row, strict=False):
            how = treatment(f"{table.name}.{quote_identifier(name)}", kind, self._privacy)
            if value is None:
                cells.append(None)
            elif how == "drop" or (personal and how in ("token", "hash")):
                cells.append(f"({len(value)} bytes)")
            else:
                cells.append(self._shown(how, kind, value))
        return cells

    def _shown(self, how: str, kind: str, value: bytes) -> str:
        if _TOKEN.fullmatch(value):
            return value.decode()  # a view of an audience has masked it already
        convert = converter(how, kind, self._tokens, self._token, int(self._privacy.value_limit))
        said: Any = msgspec.json.decode(convert(value))
        if isinstance(said, dict):
            said = f"{said['token']} ({said['bytes']} bytes)"
        text = str(said).lower() if isinstance(said, bool) else str(said)
        return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + LONG


def _decoded(kind: str, value: bytes) -> bytes | None:
    """Write a parameter in binary as text; None where its type is not known here."""
    if kind in ("int2", "int4", "int8") and len(value) in (2, 4, 8):
        return b"%d" % int.from_bytes(value, "big", signed=True)
    if kind in ("text", "varchar", "bpchar", "name"):
        return value
    if kind == "bool" and len(value) == 1:
        return b"t" if value != b"\0" else b"f"
    if kind == "uuid" and len(value) == 16:
        return str(uuid.UUID(bytes=value)).encode()
    return None
