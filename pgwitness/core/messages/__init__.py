"""The server's own forms of words: which of its messages a text is, in whatever language, and what it quotes.

The table (`*.json.xz`, made by `deploy/postgres/messages.py`) holds the messages of PostgreSQL 15 to 18 in English and,
of 15, in eleven languages. `said` finds the form of a text; `translations` gives what a message is in each language.

A text that somebody else wrote can have a form of the server's too (`RAISE EXCEPTION 'permission denied for table x'`).
So who keeps such a text keeps the table's own words, and of what stands between them only what he knows. Then it does
no harm to be wrong about whose words they were, nor to cut a text at another place than the server put it together.

To add a version or a language, run the script again with its program or catalogue; nothing here names either.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

import msgspec

LANGUAGES = ("en", "de", "fr", "es", "ja", "zh_CN", "ru", "it", "ko", "sv", "uk", "ka")
"""In the order in which they are tried."""
TEXT_CHARS_MAX = 64 * 1024
"""A longer text is not looked for."""
WORDS_CHARS_MIN = 6
"""A form with fewer letters of its own would be found in anything."""

ANCHOR_CHARS = 3
"""By so many of its first or last letters a form is found."""

_SPEC = re.compile(r"%(?:(\d+)\$)?[-+ #0]*(?:\*|\d+)?(?:\.(?:\*|\d+))?(?:hh|h|ll|l|z|j|t)?[diouxXeEfFgGcsSpm]|%%")


class Said(NamedTuple):
    """A text's form: the words of the message in English around what was put in, and what that was.

    `message` is the English original; `words` has one more piece than `values`.
    """

    message: str
    words: tuple[str, ...]
    values: tuple[str, ...]


class _Form(NamedTuple):
    """A message in one language: its words, and which value of the English message each gap holds."""

    words: tuple[str, ...]
    order: tuple[int, ...]
    message: int


def said(text: str) -> Said | None:
    """Find the form of a text; None where it has none. Takes time in proportion to the text's length."""
    if len(text) > TEXT_CHARS_MAX:
        return None
    for language in LANGUAGES:
        found = _forms(language).find(text)
        if found is not None:
            form, values = found
            words, _ = _cut(_english()[form.message])
            ordered = [""] * (len(words) - 1)
            for place, value in zip(form.order, values, strict=True):
                if place < len(ordered):
                    ordered[place] = value
            return Said(_english()[form.message], words, tuple(ordered))
    return None


@lru_cache(maxsize=16)
def translations(*messages: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return what messages, written as in PostgreSQL's source, are in each language; of a plural, each form.

    By message, then by language. The table is read once a call, which takes a tenth of a second: ask for all at once.
    """
    found: dict[str, dict[str, tuple[str, ...]]] = {message: {"en": (message,)} for message in messages}
    for language in LANGUAGES[1:]:
        for place, text in _pairs(language):
            of_message = found.get(_english()[place])
            if of_message is not None:
                of_message[language] = (*of_message.get(language, ()), text)
    return found


def messages_of(language: str) -> list[tuple[int, str]]:
    """Return the messages of a language, each with the number of the English one."""
    return list(enumerate(_english())) if language == "en" else _pairs(language)


_Candidates = dict[tuple[str, str], dict[str, list[_Form]]]
"""Forms by their first and last word, then by their longest, without which none is in a text."""


class _Forms:
    """The messages of one language, to be found by how a text begins or ends; cut when they are looked at."""

    def __init__(self, pairs: list[tuple[int, str]]) -> None:
        self._first: dict[str, list[tuple[int, str]]] = {}
        self._last: dict[str, list[tuple[int, str]]] = {}
        loose = []
        for pair in pairs:
            first, last = pair[1][:ANCHOR_CHARS], pair[1][-ANCHOR_CHARS:]
            if "%" not in first and len(first) == ANCHOR_CHARS:
                self._first.setdefault(first, []).append(pair)
            elif "%" not in pair[1][-2 * ANCHOR_CHARS :]:
                self._last.setdefault(last, []).append(pair)
            else:
                loose.append(pair)
        self._loose = _compiled(loose)
        self._compiled: dict[tuple[bool, str], _Candidates] = {}

    def find(self, text: str) -> tuple[_Form, list[str]] | None:
        """Return the form with the most words of its own that a text has, and its values."""
        best: tuple[_Form, list[str]] | None = None
        most = 0
        for form in self._candidates(text):
            own = sum(map(len, form.words))
            if own > most and (values := _values(form.words, text)) is not None:
                best, most = (form, values), own
        return best

    def _candidates(self, text: str) -> Iterator[_Form]:
        for begins, anchor in ((True, text[:ANCHOR_CHARS]), (False, text[-ANCHOR_CHARS:])):
            yield from _within(self._anchored(begins, anchor), text)
        yield from _within(self._loose, text)

    def _anchored(self, begins: bool, anchor: str) -> _Candidates:
        found = self._compiled.get((begins, anchor))
        if found is None:
            pairs = (self._first if begins else self._last).get(anchor)
            if pairs is None:
                return {}
            found = self._compiled[begins, anchor] = _compiled(pairs)
        return found


def _compiled(pairs: list[tuple[int, str]]) -> _Candidates:
    """Cut messages, and keep them by what they begin and end with, then by the longest of their words."""
    found: _Candidates = {}
    for place, text in pairs:
        words, order = _cut(text)
        if sum(map(len, words)) >= WORDS_CHARS_MIN:
            alike = found.setdefault((words[0], words[-1]), {})
            alike.setdefault(max(words, key=len), []).append(_Form(words, order, place))
    return found


def _within(candidates: _Candidates, text: str) -> Iterator[_Form]:
    """Return the forms whose words may be a text's. A long text is searched only for those of which its ends are."""
    for (first, last), by_word in candidates.items():
        if text.startswith(first) and text.endswith(last):
            for word, forms in by_word.items():
                if word in text:
                    yield from forms


def _values(words: tuple[str, ...], text: str) -> list[str] | None:
    """Return what stands between words, each as early as it can; None where they do not stand in a text."""
    if len(words) == 1:
        return [] if text == words[0] else None
    at, end = len(words[0]), len(text) - len(words[-1])
    if at > end or not text.startswith(words[0]) or not text.endswith(words[-1]):
        return None
    values = []
    for word in words[1:-1]:
        # Two values with nothing between them: the first is empty, and whose is what nobody can say.
        place = text.find(word, at, end)
        if place < 0:
            return None
        values.append(text[at:place])
        at = place + len(word)
    return [*values, text[at:end]]


@lru_cache(maxsize=4096)
def _cut(message: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Cut a message at what is put in: its words, and the number of each value."""
    words: list[str] = []
    order: list[int] = []
    at, piece = 0, ""
    for spec in _SPEC.finditer(message):
        piece += message[at : spec.start()]
        at = spec.end()
        if spec[0] == "%%":
            piece += "%"
            continue
        words.append(piece)
        order.append(int(spec[1]) - 1 if spec[1] else len(order))
        piece = ""
    return (*words, piece + message[at:]), tuple(order)


def _read(language: str) -> bytes:
    return lzma.decompress((files(__name__) / f"{language}.json.xz").read_bytes())


@lru_cache(maxsize=1)
def _english() -> list[str]:
    return msgspec.json.decode(_read("en"), type=list[str])


def _pairs(language: str) -> list[tuple[int, str]]:
    return msgspec.json.decode(_read(language), type=list[tuple[int, str]])


@lru_cache(maxsize=len(LANGUAGES))
def _forms(language: str) -> _Forms:
    return _Forms(messages_of(language))
