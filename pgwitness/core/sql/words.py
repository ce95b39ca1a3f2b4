"""What the words of a text say, where its tree is not to be had: too deep, too costly, or cut off.

The words are those outside of strings and comments wherever that can be told, so that what a value says is not taken
for what a statement does; relations are the names behind words that a relation follows. Both may say too much (the name
of a CTE is taken for a relation's) and are never the last word: who asks is told why there is no tree (`parse_error`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from pgwitness.core.events import quote_identifier
from pgwitness.core.sql import postgres_parser as parser
from pgwitness.core.sql.folding import code
from pgwitness.core.sql.identifiers import lower, name_of
from pgwitness.core.sql.tree.reader import Reader

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
_LETTERS = bytes(letter if chr(letter) in "abcdefghijklmnopqrstuvwxyz_" else 32 for letter in range(256))
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
_RUN_WORDS = ("do", "function", "procedure", "execute", "dblink", "query_to_xml", "schedule", "crosstab")
"""Behind such words a string may be code."""
_RUNS = re.compile("|".join(rf"{word}(?<![\w$]{word})" for word in _RUN_WORDS))
"""Each looks back when it is found: `re` then skips what none begins with."""

_PART = r'(?:"[^"]*(?:""[^"]*)*"|[^\x00-@\[-^`{-\x7f][\w$]*)'
_NAME = rf"{_PART}(?:\s*\.\s*{_PART}){{0,2}}"
_LIST = rf"{_NAME}(?:\s*,\s*{_NAME})*+"
_BEFORE = ("from", "join", "into", "update", "table", "only", "using", "truncate", "copy", "view", "on", "exists")
_BEHIND = re.compile("(" + "|".join(rf'{word}(?<![\w$"]{word})' for word in _BEFORE) + rf")\s++(?=({_LIST})(\s*\()?)")
"""Names behind a word that a relation may follow (`ON` in GRANT and REVOKE alone), and a bracket: a function's."""
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
    low = lower(text if outside is None else outside)
    if outside is not None and not (any(word in low for word in _RUN_WORDS) and _RUNS.search(low)):
        _operations(_QUOTED.sub('""', low), reader)
        _relations(outside, low, reader)
        return
    low = low if outside is None else lower(text)
    _operations(low, reader)
    _relations(text, low, reader)


def _operations(low: str, reader: Reader) -> None:
    words = dict.fromkeys(low.encode("utf-8", "surrogatepass").translate(_LETTERS).decode().split())
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
    for word, names, called in _behind(text, low):
        if names in seen or (word == "on" and not granted):
            continue
        if called and word in ("from", "join", "using"):
            continue
        seen.add(names)
        for parts in _listed(names):
            if parts[0] not in _NO_NAMES or len(parts) > 1:
                reader.relations.setdefault(".".join(map(quote_identifier, parts[-2:])))
        if len(reader.relations) >= RELATIONS_MAX:
            return


def _behind(text: str, low: str) -> Iterable[tuple[str, str, str]]:
    """Give each word with the names behind it and the bracket behind those, in their order; mostly each once."""
    if '"' not in low:
        return dict.fromkeys(_BEHIND.findall(low))
    return ((found[1], text[found.start(2) : found.end(2)], found[3] or "") for found in _BEHIND.finditer(low))


def _listed(names: str) -> Iterator[list[str]]:
    """Give the parts of each of a list's names; most names are of one part, without quotes."""
    if '"' not in names and "." not in names and names.isascii():
        for name in islice(_EACH_PART.findall(names), RELATIONS_MAX):
            yield [name.lower()]
        return
    for name in islice(_EACH.finditer(names), RELATIONS_MAX):
        yield [name_of(part) for part in _EACH_PART.findall(name[0])]
