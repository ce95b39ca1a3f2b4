"""Which record a changed row is, as one number, so that whoever asks for a record finds its rows by an index. Pure.

The number is the lower half of the MD5 of a text: the relation's name and the key's values in the order of their
columns' names, each with its length in bytes. DuckDB computes the same as `md5_number_lower`; it hides nothing, and
who relies on it compares the key too. Values are texts as they stand in `row_key`: numbers as PostgreSQL prints them,
of masked columns the token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import md5 as _md5

import msgspec
import numpy as np
import pyarrow as pa

_SIMPLE = re.compile(rb'\{"[^"\\]*":(?:(-?[0-9][0-9.eE+-]*)|"([^"\\]*)")\}').fullmatch
"""A key of one column whose value is a number or a text without escapes: nearly all are."""
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str)

Row = tuple[str, str, bytes, bytes]
"""A row's operation (a letter of `OPERATIONS`), relation, and key and image before as JSON."""


def of_record(relation: str, values: Iterable[str] = ()) -> int:
    """Give the number of a record; without values that of the whole relation, which a truncate touches."""
    return int.from_bytes(_hash(_part(relation.encode()), [value.encode() for value in values]), "little")


def of_rows(rows: Iterable[Row]) -> tuple[pa.Array, pa.Array]:
    """Give each row's number, and that of the record it was before an update of its key.

    Null is a row whose key is not known, and one that was no other record.
    """
    known: dict[tuple[str, bytes], bytes | None] = {}
    parts: dict[str, bytes] = {}
    now: list[bytes | None] = []
    before: list[bytes | None] = []
    for operation, relation, key, image in rows:
        place = (relation, key)
        if place in known:
            number = known[place]
        else:
            part = parts.get(relation) or parts.setdefault(relation, _part(relation.encode()))
            number = known[place] = _hash(part, []) if operation == "t" else _of_key(part, key)
        now.append(number)
        moved = None
        # Where the key's columns are the table's first, as they mostly are, an image begins like its key.
        begins_alike = image.startswith(key[:-1]) and image[len(key) - 1 : len(key)] in (b",", b"}")
        if operation == "u" and image != b"null" and not begins_alike:
            moved = _moved(_part(relation.encode()), key, image)
        before.append(None if moved == number else moved)
    return _column(now), _column(before)


def _of_key(relation: bytes, key: bytes) -> bytes | None:
    simple = _SIMPLE(key)
    if simple is not None:
        value: bytes = simple[1] or simple[2]
        return _md5(b"%b%d:%b," % (relation, len(value), value), usedforsecurity=False).digest()[8:]
    values = _values(_object(key))
    return None if values is None else _hash(relation, values)


def _moved(relation: bytes, key: bytes, image: bytes) -> bytes | None:
    """Give the number that a row had before its update, as far as its image has the key's columns."""
    was, names = _object(image), _object(key)
    values = _values({name: was[name] for name in names if name in was})
    return None if values is None or len(values) < len(names) else _hash(relation, values)


def _object(content: bytes) -> dict[str, msgspec.Raw]:
    """Read the members of a JSON object; of anything else there are none."""
    try:
        return _members.decode(content)
    except (msgspec.DecodeError, RecursionError):
        return {}


def _values(members: dict[str, msgspec.Raw]) -> list[bytes] | None:
    """Give a key's values as texts, by name; None where one is not known, or there is none."""
    values = []
    for name in sorted(members):
        value = bytes(members[name])
        if value == b"null":
            return None
        try:
            values.append(_text.decode(value).encode() if value.startswith(b'"') else value)
        except (msgspec.DecodeError, UnicodeEncodeError):
            return None
    return values or None


def _part(value: bytes) -> bytes:
    return b"%d:%b," % (len(value), value)


def _hash(relation: bytes, values: Iterable[bytes]) -> bytes:
    return _md5(relation + b"".join(map(_part, values)), usedforsecurity=False).digest()[8:]


def _column(numbers: list[bytes | None]) -> pa.Array:
    """Put numbers together, little-endian as DuckDB reads them."""
    absent = np.fromiter((number is None for number in numbers), np.bool_, len(numbers))
    values = np.frombuffer(b"".join(number or bytes(8) for number in numbers), "<u8")
    return pa.array(values, pa.uint64(), mask=absent if absent.any() else None)
