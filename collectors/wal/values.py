"""From a column's text, as the server sends it, to masked JSON; pure.

`converter` gives the function for one column: its treatment (`pgwitness.privacy`) decides what may be seen, its type
how a clear value is written. Numbers stay as the server wrote them, digits and all; NaN and Infinity, which JSON
does not have, become strings, as do json, arrays and everything else that is not a number or a boolean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from pgwitness.privacy import Tokenizer

Convert = Callable[[bytes], bytes]

NULL = b"null"
PREFIX_BYTES = 64
"""How much of a value beyond the limit goes into its masked prefix."""
CACHED_BYTES_MAX = 96
CACHED_MAX = 32_768

_INTEGERS = frozenset({"int2", "int4", "int8", "oid", "xid", "xid8"})
_NUMBERS = frozenset({"float4", "float8", "numeric"})
_PLAIN = frozenset({"uuid", "pg_lsn", "date", "time", "timetz", "timestamp", "timestamptz", "interval"})
_BOOLEANS = {b"t": b"true", b"f": b"false"}


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


def converter(treatment: str, type_name: str, tokens: TokenCache, token: Tokenizer, limit: int) -> Convert | None:
    """Give the function for a column's values; none where they are copied as they are.

    `treatment` is one of `clear`, `token`, `last4`, `hash`; a dropped column has no converter, its plan leaves it out.
    """
    if treatment == "clear":
        return _clear(type_name, token, limit)
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
    characters = value.decode("utf-8", "backslashreplace")
    return msgspec.json.encode("****" + (characters[-4:] if len(characters) >= 8 else ""))


def sha256(value: bytes) -> bytes:
    """Give the plain SHA-256 of a value, which others can compute too."""
    return b'"sha256:' + hashlib.sha256(value).hexdigest().encode() + b'"'


def _clear(type_name: str, token: Tokenizer, limit: int) -> Convert | None:
    def long(value: bytes) -> bytes:
        shown = value[:PREFIX_BYTES].decode("utf-8", "ignore").encode()
        return b'{"token":"%b","bytes":%d,"prefix":%b}' % (token(value), len(value), text(shown))

    def number(value: bytes) -> bytes:
        if len(value) > limit:
            return long(value)
        return value if value[-1] < 58 else b'"' + value + b'"'  # NaN, Infinity end in a letter

    def string(value: bytes) -> bytes:
        return text(value) if len(value) <= limit else long(value)

    if type_name in _INTEGERS:
        return None
    if type_name == "bool":
        return _BOOLEANS.__getitem__
    if type_name in _NUMBERS:
        return number
    if type_name in _PLAIN:
        return _quoted
    return string


def _quoted(value: bytes) -> bytes:
    return b'"' + value + b'"'


BUILT_IN = {
    16: "bool", 17: "bytea", 18: "char", 19: "name", 20: "int8", 21: "int2", 23: "int4", 25: "text", 26: "oid",
    28: "xid", 114: "json", 142: "xml", 700: "float4", 701: "float8", 790: "money", 869: "inet", 650: "cidr",
    829: "macaddr", 1042: "bpchar", 1043: "varchar", 1082: "date", 1083: "time", 1114: "timestamp",
    1184: "timestamptz", 1186: "interval", 1266: "timetz", 1560: "bit", 1562: "varbit", 1700: "numeric",
    2950: "uuid", 3220: "pg_lsn", 3614: "tsvector", 3802: "jsonb", 5069: "xid8",
}  # fmt: skip
"""Names of PostgreSQL's own types that matter here (pg_type.dat); others it has are treated like text."""
