"""From a column's text, as the server sends it, to masked JSON; pure.

`converter` gives the function for one column: its treatment (`pgwitness.core.privacy`) decides what may be seen, its
type how a clear value is written. Numbers stay as the server wrote them, digits and all; NaN and Infinity, which JSON
does not have, become strings, as do json, arrays and everything else that is not a number or a boolean. A value that
is not what its type says is not clear: nobody knows what it is, so its token stands there.

Types are known by what PostgreSQL itself assigns, never by a bare name: anybody may make a type `app.int4`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import msgspec

from pgwitness.core.privacy import Tokenizer

Convert = Callable[[bytes], bytes]

NULL = b"null"
PREFIX_BYTES = 64
"""How much of a value beyond the limit goes into its masked prefix."""
CACHED_BYTES_MAX = 96
CACHED_MAX = 32_768

_INTEGERS = frozenset({"int2", "int4", "int8", "oid", "xid", "xid8"})
_NUMBERS = frozenset({"float4", "float8", "numeric"})
_PLAIN = frozenset({"uuid", "pg_lsn", "date", "time", "timetz", "timestamp", "timestamptz", "interval"})
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?").fullmatch
"""A number of JSON (RFC 8259, section 6)."""
_SAFE = re.compile(rb"[ !#-\[\]-~]*").fullmatch
"""What stands in a JSON string as it is."""
_NO_NUMBERS = {b"NaN": b'"NaN"', b"Infinity": b'"Infinity"', b"-Infinity": b'"-Infinity"'}
_LAST_BYTES = 64
"""How much of a value `last4` looks at."""


class TokenCache(dict[bytes, bytes]):
    """Tokens of values seen lately, as JSON strings; bounded, emptied when full.

    A value that is there costs one look-up, which is why it is a dictionary and no `lru_cache`. Values longer than
    `limit` become their token, length and the token of their beginning, and are never kept.
    """

    def __init__(self, token: Tokenizer, limit: int) -> None:
        super().__init__()
        self._token = token
        self._limit = limit

    def __missing__(self, value: bytes) -> bytes:
        size = len(value)
        if size > self._limit:
            return b'{"token":"%b","bytes":%d,"prefix":"%b"}' % (
                self._token(value),
                size,
                self._token(value[:PREFIX_BYTES]),
            )
        made = b'"' + self._token(value) + b'"'
        if size <= CACHED_BYTES_MAX:
            if len(self) >= CACHED_MAX:
                self.clear()
            self[value] = made
        return made


def converter(treatment: str, type_name: str, tokens: TokenCache, token: Tokenizer, limit: int) -> Convert:
    """Return the function for a column's values; whatever the value, it gives JSON.

    `treatment` is one of `clear`, `token`, `last4`, `hash`; a dropped column has no converter, its plan leaves it out.
    """
    if treatment == "clear":
        return _clear(type_name, tokens, token, limit)
    if treatment == "last4":
        return last4
    if treatment == "hash":
        return sha256
    return tokens.__getitem__


def text(value: bytes) -> bytes:
    """Write text as a JSON string; bytes that are no UTF-8 (a SQL_ASCII database has them) as escapes."""
    return msgspec.json.encode(value.decode("utf-8", "backslashreplace"))


def last4(value: bytes) -> bytes:
    """Show the last four characters of a value that has at least eight, else none."""
    characters = value[-_LAST_BYTES:].decode("utf-8", "backslashreplace")
    return msgspec.json.encode("****" + (characters[-4:] if len(characters) >= 8 else ""))


def sha256(value: bytes) -> bytes:
    """Return the plain SHA-256 of a value, which others can compute too."""
    return b'"sha256:' + hashlib.sha256(value).hexdigest().encode() + b'"'


def _clear(type_name: str, tokens: TokenCache, token: Tokenizer, limit: int) -> Convert:
    def long(value: bytes) -> bytes:
        shown = value[:PREFIX_BYTES].decode("utf-8", "ignore").encode()
        return b'{"token":"%b","bytes":%d,"prefix":%b}' % (token(value), len(value), text(shown))

    def integer(value: bytes) -> bytes:
        # Nearly all are digits that do not begin with a zero; the others are looked at twice.
        return value if value.isdigit() and (value[0] != 48 or len(value) == 1) else number(value)

    def number(value: bytes) -> bytes:
        if _NUMBER(value):
            return value if len(value) <= limit else long(value)
        return _NO_NUMBERS.get(value) or tokens[value]

    def plain(value: bytes) -> bytes:
        return b'"' + value + b'"' if _SAFE(value) and len(value) <= limit else tokens[value]

    def boolean(value: bytes) -> bytes:
        return b"true" if value == b"t" else b"false" if value == b"f" else tokens[value]

    def string(value: bytes) -> bytes:
        return text(value) if len(value) <= limit else long(value)

    if type_name in _INTEGERS:
        return integer
    if type_name == "bool":
        return boolean
    if type_name in _NUMBERS:
        return number
    return plain if type_name in _PLAIN else string


def type_names(oids: list[int], described: dict[int, tuple[str, str]]) -> list[str]:
    """Name types by their OIDs: PostgreSQL's own by their number, others as the server described them.

    `described` has the schema and name that a Type message gave, of a domain those of what it is made over. Only a
    name in `pg_catalog` says what a type is; every other type is `other`.
    """
    found = []
    for oid in oids:
        schema, name = described.get(oid, ("", "")) if oid >= FIRST_DESCRIBED else ("", "")
        found.append(BUILT_IN.get(oid) or (name if schema == "pg_catalog" else "") or "other")
    return found


FIRST_DESCRIBED = 10_000
"""Types below this OID are PostgreSQL's own and never described (FirstGenbkiObjectId in access/transam.h)."""

BUILT_IN = {
    16: "bool", 17: "bytea", 18: "char", 19: "name", 20: "int8", 21: "int2", 23: "int4", 25: "text", 26: "oid",
    28: "xid", 114: "json", 142: "xml", 700: "float4", 701: "float8", 790: "money", 869: "inet", 650: "cidr",
    829: "macaddr", 1042: "bpchar", 1043: "varchar", 1082: "date", 1083: "time", 1114: "timestamp",
    1184: "timestamptz", 1186: "interval", 1266: "timetz", 1560: "bit", 1562: "varbit", 1700: "numeric",
    2950: "uuid", 3220: "pg_lsn", 3614: "tsvector", 3802: "jsonb", 5069: "xid8",
}  # fmt: skip
"""Names of PostgreSQL's own types that matter here (pg_type.dat); others it has are treated like text."""
