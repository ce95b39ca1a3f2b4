"""What stands before each message of the plain log, taken apart by `log_line_prefix`, in one way and in linear time.

A prefix has parts of a fixed form (times, numbers, a session's id) and parts that a client chooses: user, database,
application. The latter may hold whatever separates them, even what looks like the rest of a prefix and a message
behind it. So the parts of fixed form are found first, at the beginning and right before the word of the message; what
is between them has at most the length that the server allows, which bounds how far anything is looked for. Every
reading that is possible is looked at: those contradict themselves whose process id is not that of their session id; of
the others the one counts that names a database that is there. If several are left, the line is ambiguous, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pgwitness.core.errors import ConfigurationError

PRIMARY = ("DEBUG", "DEBUG1", "DEBUG2", "DEBUG3", "DEBUG4", "DEBUG5", "LOG", "INFO", "NOTICE", "WARNING", "ERROR",
           "FATAL", "PANIC")  # fmt: skip
SECONDARY = ("DETAIL", "HINT", "CONTEXT", "QUERY", "STATEMENT", "LOCATION", "BACKTRACE")
NAME_CHARS_MAX = 63
READINGS_MAX = 16
"""Readings of one line that are looked at; one that has more is ambiguous anyway."""
STEPS_MAX = 2_000
REMEMBERED_MAX = 4_096

_ESCAPE = re.compile(r"%(-?\d+)?(.)", re.DOTALL)
_MILLIS = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [-+\w]{1,10}"
_SECONDS = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [-+\w]{1,10}"
_HOST = r"[^\s()]{0,255}"
_FIELDS: dict[str, tuple[str, str]] = {
    "a": ("application", rf".{{0,{NAME_CHARS_MAX}}}"),
    "u": ("user", rf".{{0,{NAME_CHARS_MAX}}}"),
    "d": ("database", rf".{{0,{NAME_CHARS_MAX}}}"),
    "b": ("backend_type", r"[\w -]{0,96}"),
    "i": ("tag", r"[\w ()<>/.:-]{0,64}"),
    "r": ("remote", rf"(?:\[local\]|{_HOST}\(\d{{1,5}}\)|{_HOST})"),
    "h": ("host", rf"(?:\[local\]|{_HOST})"),
    "L": ("listening", _HOST),
    "p": ("pid", r"\d{1,10}"),
    "P": ("leader", r"\d{0,10}"),
    "t": ("seconds", _SECONDS),
    "m": ("millis", _MILLIS),
    "n": ("epoch", r"\d{1,12}\.\d{3}"),
    "e": ("sqlstate", r"[0-9A-Z]{5}"),
    "c": ("session", r"[0-9a-f]{1,16}\.[0-9a-f]{1,8}"),
    "l": ("line", r"\d{1,20}"),
    "s": ("start", _SECONDS),
    "v": ("vxid", r"(?:\d{1,10}/-?\d{1,10})?"),
    "x": ("xid", r"\d{1,20}"),
    "Q": ("query_id", r"-?\d{1,20}"),
}
_FREE = frozenset("audbi")
"""Fields that may hold a space, or what separates them from the next."""
_CHARS_MAX = 320
"""How long a field that is not chosen by a client can be."""
BACKEND_TYPES = frozenset(
    {
        "client backend", "walsender", "autovacuum worker", "autovacuum launcher", "checkpointer", "background writer",
        "walwriter", "walreceiver", "startup", "archiver", "logger", "postmaster", "parallel worker", "slotsync worker",
        "logical replication launcher", "logical replication worker", "logical replication apply worker",
        "logical replication tablesync worker", "logical replication parallel worker", "standalone backend",
        "background worker", "io worker", "walsummarizer", "not initialized", "dead-end client backend",
    }
)  # fmt: skip


class Head(NamedTuple):
    """A line taken apart: fields by name, the word of the message in English, and what follows it.

    Of an ambiguous line the fields are those on which all its readings agree, and `readings` what each would have said.
    """

    fields: dict[str, str]
    word: str
    text: str
    readings: tuple[str, ...] = ()


class _Field(NamedTuple):
    name: str
    pattern: re.Pattern[str]
    longest: int
    padded: bool = False


class _Layout:
    """One form of a prefix, up to `%q` or whole: what is fixed, what a client chooses, and what is fixed again."""

    def __init__(self, tokens: list[str | tuple[str, bool]], words: str) -> None:
        free = [place for place, token in enumerate(tokens) if token[0] in _FREE and not isinstance(token, str)]
        first, last = (free[0], free[-1] + 1) if free else (len(tokens), len(tokens))
        left, right = _pattern(tokens[:first]), _pattern(tokens[last:])
        self.left = re.compile(left + ("" if free else words), re.DOTALL)
        self.right = re.compile(right + words, re.DOTALL)
        self._middle = [_compiled(token) for token in tokens[first:last]]
        self.plain = not free
        self.window = sum(part.longest for part in self._middle) + _CHARS_MAX + len(words)
        self._word = re.compile(words)
        # The nearest word of the right form; for nearly all lines there is no other.
        nearest = rf"{left}(?P<middle_>.{{0,{self.window}}}?){right}{words}" if free else left + words
        self._nearest = re.compile(nearest, re.DOTALL)
        self._names = tuple(name for name in self._nearest.groupindex if name not in ("word_", "middle_"))
        own = ("word_", "middle_") if free else ("word_", "word_")
        self._groups = tuple(self._nearest.groupindex[name] for name in (*own, *self._names))
        self._known: dict[str, list[dict[str, str]]] = {}

    def only(self, line: str, endings: tuple[str, ...]) -> tuple[int, str, dict[str, str]] | None:
        """Read a line in the one way there is; None where there is none, or may be another."""
        found = self._nearest.match(line)
        if found is None:
            return None
        end = found.end()
        for ending in endings:
            if line.find(ending, end, end + self.window) >= 0:
                return None
        word, middle, *values = found.group(*self._groups)
        fields = dict(zip(self._names, values, strict=True))
        if not self.plain:
            split = self.split(middle)
            if len(split) != 1 or self._word.match(middle) is not None:
                return None
            fields.update(split[0])
        return end, word, fields

    def split(self, text: str) -> list[dict[str, str]]:
        """Return every way to take apart what is between the fixed parts, at most `READINGS_MAX`."""
        found = self._known.get(text)
        if found is None:
            steps = [0]
            found = []
            for reading in self._split(text, 0, 0, steps):
                found.append(reading)
                if len(found) >= READINGS_MAX:
                    break
            if len(self._known) >= REMEMBERED_MAX:
                self._known.clear()
            self._known[text] = found
        return found

    def _split(self, text: str, at: int, place: int, steps: list[int]) -> Iterator[dict[str, str]]:
        if place == len(self._middle):
            if at == len(text):
                yield {}
            return
        part = self._middle[place]
        for end in self._ends(part, text, at, place):
            steps[0] += 1
            if steps[0] > STEPS_MAX:
                return
            for rest in self._split(text, end, place + 1, steps):
                said = text[at:end].strip() if part.padded else text[at:end]
                yield {part.name: said, **rest} if part.name else rest

    def _ends(self, part: _Field, text: str, at: int, place: int) -> Iterable[int]:
        """Return where a part may end that begins at `at`: a fixed one in one place, a chosen one at a separator."""
        if part.name not in _CHOSEN:
            found = part.pattern.match(text, at)
            return (found.end(),) if found is not None else ()
        longest = part.pattern.match(text, at)
        if longest is None:  # pragma: no cover - all of these may be empty
            return ()
        if place + 1 == len(self._middle):
            return (len(text),) if longest.end() == len(text) else ()
        after = self._middle[place + 1]
        return [end for end in range(at, longest.end() + 1) if after.name in _CHOSEN or after.pattern.match(text, end)]


_CHOSEN = frozenset(_FIELDS[letter][0] for letter in _FREE)


def escapes(setting: str) -> set[str]:
    """Return the letters of a prefix's escapes."""
    return {escape[2] for escape in _ESCAPE.finditer(setting)}


class Prefix:
    """A `log_line_prefix`, compiled. Raises `ConfigurationError` for one that no message can be told by.

    `words` says, by the text that ends the head (`LOG:  `), which English word that is. `databases` are those that are
    known to be there.
    """

    def __init__(
        self, setting: str, words: dict[str, str] | None = None, databases: Callable[[], frozenset[str]] = frozenset
    ) -> None:
        self.setting = setting
        tokens, short = _tokens(setting)
        names = {_FIELDS[token[0]][0] for token in tokens if not isinstance(token, str)}
        if "pid" not in names and "session" not in names:
            raise ConfigurationError(
                f"log.line_prefix: {setting!r} has neither %p nor %c, so that nobody's lines can be told apart; "
                "set log_line_prefix to '%m [%p] %q%u@%d/%a %r %c %l %x %v %Q %e ' on the server and here"
            )
        if not {"millis", "seconds", "epoch"} & names:
            raise ConfigurationError(f"log.line_prefix: {setting!r} has no time; %m, %t or %n is needed")
        self._words = words or {f"{word}:  ": word for word in (*PRIMARY, *SECONDARY)}
        ends = "(?P<word_>" + "|".join(sorted(map(re.escape, self._words), key=len, reverse=True)) + ")"
        self._layouts = [_Layout(tokens, ends)]
        if short is not None:
            self._layouts.append(_Layout(tokens[:short], ends))
        self._parts = tuple(text.encode() for text, word in self._words.items() if word in SECONDARY)
        self._databases = databases
        self._endings = tuple({text[-3:] for text in self._words})

    def continues(self, line: bytes) -> bool:
        """Return whether a line is a further part of a message, and does not begin one."""
        if not any(part in line for part in self._parts):
            return False
        head = self.head(line.decode("utf-8", "replace"))
        return head is not None and head.word in SECONDARY

    def process(self, line: bytes) -> str | None:
        """Say whose line it is: by process id, or by the session's where there is none."""
        head = self.head(line.decode("utf-8", "replace"))
        return None if head is None else head.fields.get("pid") or head.fields.get("session")

    def head(self, line: str) -> Head | None:
        """Take a line apart; None for one without the prefix."""
        only = self._layouts[0].only(line, self._endings)
        if only is not None:
            return Head(only[2], self._words[only[1]], line[only[0] :])
        readings: list[tuple[int, str, dict[str, str]]] = []
        for layout in self._layouts:
            self._read(layout, line, readings)
        if not readings:
            return None
        if len(readings) > 1:
            readings = self._likeliest(readings)
        end, word, fields = readings[-1]
        if len(readings) == 1:
            return Head(fields, self._words[word], line[end:])
        said = {name: {reading[2].get(name) for reading in readings} for name in fields}
        agreed = {name: value for name, value in fields.items() if len(said[name]) == 1}
        texts = tuple(dict.fromkeys(line[other:] for other, _, _ in readings))
        return Head(agreed, self._words[word], line[end:], texts)

    def _read(self, layout: _Layout, line: str, readings: list[tuple[int, str, dict[str, str]]]) -> None:
        left = layout.left.match(line)
        if left is None:
            return
        begin = left.end()
        fixed = left.groupdict("")
        if layout.plain:
            word = fixed.pop("word_")
            readings.append((begin, word, fixed))
            return
        limit = min(len(line), begin + layout.window)
        at = begin
        while len(readings) < READINGS_MAX:
            right = layout.right.search(line, at, limit)
            if right is None:
                return
            found = right.groupdict("")
            word = found.pop("word_")
            for chosen in layout.split(line[begin : right.start()]):
                readings.append((right.end(), word, {**fixed, **chosen, **found}))  # noqa: PERF401 - bounded above
            at = right.start() + 1
            if line.find(":", right.end(), limit) < 0:
                return  # no other word can end a head behind this one

    def _likeliest(self, readings: list[tuple[int, str, dict[str, str]]]) -> list[tuple[int, str, dict[str, str]]]:
        """Leave out what contradicts itself, and then what is less likely."""
        sane = [reading for reading in readings if _agrees(reading[2])] or readings
        known = self._databases()

        def likely(reading: tuple[int, str, dict[str, str]]) -> int:
            fields = reading[2]
            kind = fields.get("backend_type", "client backend") in BACKEND_TYPES
            return 2 * kind + (fields.get("database") is None or fields["database"] in known)

        best = max(map(likely, sane))
        # An application may hold what stands between role and database, a role hardly: it takes the right to make one.
        shortest: dict[int, tuple[int, str, dict[str, str]]] = {}
        found = [reading for reading in sane if likely(reading) == best]
        if not all(reading[2].get("database") in known for reading in found):
            return found
        for reading in sorted(found, key=lambda reading: len(reading[2].get("user", ""))):
            shortest.setdefault(reading[0], reading)
        return sorted(shortest.values(), key=lambda reading: reading[0])


def _agrees(fields: dict[str, str]) -> bool:
    """Return whether the process id is the one in the session's id."""
    pid, session = fields.get("pid"), fields.get("session")
    return not pid or not session or int(session.partition(".")[2], 16) == int(pid)


def _tokens(setting: str) -> tuple[list[str | tuple[str, bool]], int | None]:
    """Return the literals and the letters (with whether they are padded) of a prefix, and where `%q` stands in them."""
    tokens: list[str | tuple[str, bool]] = []
    short: int | None = None
    end = 0
    for escape in _ESCAPE.finditer(setting):
        if setting[end : escape.start()]:
            tokens.append(setting[end : escape.start()])
        end = escape.end()
        letter = escape[2]
        if letter == "%":
            tokens.append("%")
        elif letter == "q":
            short = len(tokens) if short is None else short
        elif letter in _FIELDS:
            tokens.append((letter, bool(escape[1])))
    if setting[end:]:
        tokens.append(setting[end:])
    return tokens, short


def _pattern(tokens: list[str | tuple[str, bool]]) -> str:
    pieces: list[str] = []
    seen: set[str] = set()
    for token in tokens:
        if isinstance(token, str):
            pieces.append(re.escape(token))
            continue
        name, pattern = _FIELDS[token[0]]
        field = f"(?:{pattern})" if name in seen else f"(?P<{name}>{pattern})"
        seen.add(name)
        pieces.append(f" *{field} *" if token[1] else field)
    return "".join(pieces)


def _compiled(token: str | tuple[str, bool]) -> _Field:
    if isinstance(token, str):
        return _Field("", re.compile(re.escape(token)), len(token))
    name, pattern = _FIELDS[token[0]]
    padded = f" *(?:{pattern}) *" if token[1] else pattern
    return _Field(name, re.compile(padded, re.DOTALL), 96 if token[0] in _FREE else _CHARS_MAX, token[1])
