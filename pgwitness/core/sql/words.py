"""What the words of a text say, where its tree is not to be had: too deep, too costly, or cut off.

The words are those outside of strings and comments wherever that can be told, so that what a value says is not taken
for what a statement does; relations are the names behind words that a relation follows. Both may say too much (the name
of a CTE is taken for a relation's) and are never the last word: who asks is told why there is no tree (`parse_error`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from pgwitness.core.events import quote_identifier
from pgwitness.core.sql import postgres_parser as parser
from pgwitness.core.sql.folding import code
from pgwitness.core.sql.identifiers import name_of
from pgwitness.core.sql.parsetree import Reader

RELATIONS_MAX = 1_000
STARTS = {
    "SELECT": "select",
    "WITH": "select",
    "INSERT": "insert",
    "UPDATE": "update",
    "DELETE_P": "delete",
    "MERGE": "merge",
    "TRUNCATE": "truncate",
    "DROP": "drop",
    "ALTER": "alter",
    "CREATE": "create",
    "GRANT": "grant",
    "REVOKE": "revoke",
    "COPY": "copy",
    "EXECUTE": "execute",
    "CALL": "call",
}
"""Tokens that may begin a statement inside a body of code, and the word for it where nothing more can be told."""


_OPERATIONS = {token.removesuffix("_P").lower(): word for token, word in STARTS.items()}
_WORD = re.compile(r"[a-z_]+")
_OBJECT = re.compile(
    r"(?:drop|create|alter)\s+(?:or\s+replace\s+|(?:global|local|unlogged|temp|temporary|unique|foreign|materialized)\s+)*"
    r"(?:table|view|index|schema|role|user|group|database|function|procedure|extension|trigger|policy|publication"
    r"|subscription|server|sequence|type|owned|system|event\s+trigger|rule|language|tablespace)(?![\w$])"
)
_OBJECT_OF = {"user": "role", "group": "role"}
_VERBS = ("drop", "create", "alter")
_WRITES = [re.compile(rf"{word}\b") for word in ("update", "delete")]
_BEGINS = re.compile(r"(?:[;()'$0/>]|\b(?:begin|then|else|loop|as|in|query|analyze|verbose))\Z")
"""What these begin a statement behind: they also stand in `ON DELETE CASCADE`, `FOR UPDATE` and `DO UPDATE`."""
_NEAR_CHARS = 16
"""How far is looked back at once: farther than the longest of these words."""
_PROGRAM = re.compile(r"copy\s[^;]*\sprogram\s")
_RUNS = re.compile(
    "|".join(
        rf"{word}(?<![\w$]{word})"
        for word in ("do", "function", "procedure", "execute", "dblink", "query_to_xml", "schedule", "crosstab")
    )
)
"""Behind such words a string may be code. Each looks back when it is found: `re` then skips what none begins with."""

_PART = r'(?:"[^"]*(?:""[^"]*)*"|[^\x00-@\[-^`{-\x7f][\w$]*)'
_NAME = rf"{_PART}(?:\s*\.\s*{_PART}){{0,2}}"
_BEFORE = re.compile(r"(?:from|join|into|update|table|only|using|truncate|copy|view|on|exists)\s+")
"""What a relation's name may stand behind; `ON` in GRANT and REVOKE alone."""
_LIST = re.compile(rf"{_NAME}(?:\s*,\s*{_NAME})*+")
_CALLED = re.compile(r"\s*\(")
_QUOTED = re.compile(r'"[^"]*"')
_EACH = re.compile(_NAME)
_EACH_PART = re.compile(_PART)
_NO_NAMES = frozenset({
    "select", "lateral", "values", "set", "only", "where", "with", "as", "on", "using", "table", "if", "not", "exists",
    "rows", "unnest", "stdin", "stdout", "program", "all", "update", "delete", "insert", "join", "from", "into", "view",
    "function", "schema", "sequence", "database", "foreign", "inner", "left", "right", "full", "row", "share",
})  # fmt: skip


def read_words(tokens: list[parser.Token], reader: Reader) -> None:
    """Note what the words of a text may do, where nothing more can be told."""
    for token in tokens:
        if token.name in STARTS:
            reader.operations.setdefault(STARTS[token.name])


def read_letters(text: str, reader: Reader) -> None:
    """Note what a text may do, and name, that is not even scanned."""
    outside = code(text)
    if outside is not None and _RUNS.search(_lower(outside)) is None:
        text = outside
    low = _lower(text)
    _operations(low if text is not outside else _QUOTED.sub('""', low), reader)
    _relations(text, low, reader)


def _lower(text: str) -> str:
    """Write a text in lower case, letter for letter."""
    return text.lower() if text.isascii() else "".join(letter.lower() if letter < "\x80" else letter for letter in text)


def _operations(low: str, reader: Reader) -> None:
    words = dict.fromkeys(_WORD.findall(low))
    writes = {word.pattern[:6] for word in _WRITES if word.pattern[:6] in words and _begins_statement(word, low)}
    told = {} if words.keys().isdisjoint(_VERBS) else dict.fromkeys(_OBJECT.findall(low))
    for word in words:
        if word not in _OPERATIONS or (word in ("update", "delete") and word not in writes):
            continue
        for found in told:
            verb, *_, kind = found.split()
            if verb == word:
                kind = "event_trigger" if kind == "trigger" and "event" in found else kind
                reader.operations.setdefault(f"{verb}_{_OBJECT_OF.get(kind, kind)}")
        reader.operations.setdefault(_OPERATIONS[word])
    if writes and "where" not in words and "merge" not in words:
        reader.worse("none")
    if "program" in words and _PROGRAM.search(low) is not None:
        reader.operations.setdefault("copy_program")


def _begins_statement(word: re.Pattern[str], low: str) -> bool:
    """Say whether a word begins a statement anywhere in a text: each is looked at by what stands before it."""
    for found in word.finditer(low):
        at = found.start()
        near = low[max(0, at - _NEAR_CHARS) : at].rstrip()
        end = max(0, at - _NEAR_CHARS) + len(near) if near else len(low[:at].rstrip())
        if not end or "\n" in low[end:at] or _BEGINS.search(low[max(0, end - _NEAR_CHARS) : end]) is not None:
            return True
    return False


def _relations(text: str, low: str, reader: Reader) -> None:
    seen: set[str] = set()
    granted = "grant" in reader.operations or "revoke" in reader.operations
    for before in _BEFORE.finditer(low):
        start, word = before.start(), before[0].rstrip()
        within = start > 0 and (low[start - 1].isalnum() or low[start - 1] in '_$"')
        if within or (word == "on" and not granted):
            continue
        names = _LIST.match(text, before.end())
        if names is None or names[0] in seen:
            continue
        if word in ("from", "join", "using") and _CALLED.match(text, names.end()) is not None:
            continue  # a function
        seen.add(names[0])
        for parts in _listed(names[0]):
            if parts[0] not in _NO_NAMES or len(parts) > 1:
                reader.relations.setdefault(".".join(quote_identifier(part) for part in parts[-2:]))
        if len(reader.relations) >= RELATIONS_MAX:
            return


def _listed(names: str) -> Iterator[list[str]]:
    """Give the parts of each of a list's names; most lists are one name, of one part."""
    if names.isascii() and names.isidentifier():
        yield [names.lower()]
        return
    for name in islice(_EACH.finditer(names), RELATIONS_MAX):
        yield [name_of(part) for part in _EACH_PART.findall(name[0])]
