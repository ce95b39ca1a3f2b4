"""Identifiers of a statement that stand for values: `WHERE email = "ann@x.example"` names a column that is not there.

Whoever is used to the quotes of another system, or forgets them, writes a value where PostgreSQL reads a name. Whether
a name is one only the catalogue knows, or the server, by running the statement or refusing it. `masked` writes a text
again with `"…"` for the names that `hide` refuses; it stays a statement that parses and does the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import msgspec

from pgwitness.core.sql import postgres_parser as parser
from pgwitness.core.sql.tree.nodes import walk

MASK = '"…"'
"""Stands in a statement for a name that may be a value."""

Hide = Callable[[str, bool, bool], bool]
"""Says of an identifier whether it is to be hidden: its name, whether it is quoted, whether the statement makes it up.

A statement makes up the names of its CTEs and the aliases of its tables.
"""

_IDENTIFIERS = ("IDENT", "UIDENT")
_PART = re.compile(r'"(?:[^"]|"")*"|[^".*]+')
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(?: [A-Za-z0-9_$]+)*", re.ASCII)
_GLARING = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+|[\d\s.+()/-]{7,}")
_decode = msgspec.json.Decoder().decode


def plain(name: str) -> bool:
    """Say whether a name looks as names do: words of letters and digits."""
    return _PLAIN.fullmatch(name) is not None


def glaring(name: str) -> bool:
    """Say whether a name looks like what is no name: an address of mail, or a number."""
    return _GLARING.fullmatch(name.strip()) is not None


def masked(text: str, hide: Hide) -> str:
    """Write a text again without the identifiers that are to be hidden; a text that does not parse stays as it is."""
    try:
        tokens = [token for token in parser.scan(text) if token.name in _IDENTIFIERS]
        made_up = _made_up(text) if tokens else set()
    except (parser.ParseError, ValueError, RecursionError):
        return text
    pieces, end = [], 0
    for token in tokens:
        word = text[token.start : token.end + 1]
        name = name_of(word)
        if hide(name, '"' in word, name in made_up):
            pieces += [text[end : token.start], MASK]
            end = token.end + 1
    return "".join([*pieces, text[end:]]) if pieces else text


def without_glaring(text: str) -> str:
    """Write a statement that has run again without those of its names in quotes that look like anything but names."""
    if '"' not in text or not ("@" in text or any(letter.isdigit() for letter in text)):
        return text
    return masked(text, lambda name, quoted, _: quoted and glaring(name))


def masked_name(name: str, hide: Callable[[str, bool], bool]) -> str:
    """Write a name again, qualified or not, without those of its parts that are to be hidden: name, whether quoted."""
    return _PART.sub(lambda part: MASK if hide(name_of(part[0]), '"' in part[0]) else part[0], name)


def parts(name: str) -> list[str]:
    """Give the parts of a name, qualified or not, without quotes."""
    return [name_of(part[0]) for part in _PART.finditer(name)]


def names_in(text: str) -> frozenset[str]:
    """Give the identifiers of a text, as the server reads them."""
    try:
        tokens = parser.scan(text)
    except (parser.ParseError, ValueError):
        return frozenset()
    return frozenset(name_of(text[token.start : token.end + 1]) for token in tokens if token.name in _IDENTIFIERS)


def name_of(word: str) -> str:
    """Read an identifier as the server does: in lower case, or between quotes; escapes are left as they are."""
    if word.endswith('"'):
        return word[word.index('"') + 1 : -1].replace('""', '"')
    return lower(word)


def lower(text: str) -> str:
    """Write a text in lower case, letter for letter: what is beyond ASCII stays as it is."""
    if text.isascii():
        return text.lower()
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def _made_up(text: str) -> set[str]:
    """Give the names that a text makes up: of CTEs, and aliases of tables."""
    nodes = walk(_decode(parser.parse_sql_json(text)))
    return {item[key] for item in nodes for key in ("aliasname", "ctename") if isinstance(item.get(key), str)}


def in_characters(text: str, offsets: Iterable[int]) -> set[int]:
    """Give places in a text's UTF-8 as places in the text."""
    if text.isascii():
        return set(offsets)
    encoded = text.encode()
    found, at, characters = set(), 0, 0
    for offset in sorted(offsets):
        characters += len(encoded[at:offset].decode(errors="ignore"))
        at = offset
        found.add(characters)
    return found
