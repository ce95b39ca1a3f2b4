"""`stderr`: plain text, each message behind a prefix that `log_line_prefix` describes.

The prefix is compiled into a pattern once. A message goes on in lines that begin with a tab (the server puts one
behind every line break inside a message, so that nobody can write a line of the log into a statement), and in lines
with the same prefix and `DETAIL`, `HINT`, `CONTEXT`, `QUERY`, `STATEMENT` or `LOCATION`. Only messages in English are
known (`lc_messages = 'C'`).

A role's or a database's name is printed as it is: one with a line break in it could write a line of its own, which
is why what hangs on this format alone is never `exact`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from collectors.log.record import INT64_MAX, LOCAL, XID_MAX, LogRecord, Times, Unreadable, number, session_start_us
from pgwitness.errors import ConfigurationError

PRIMARY = "DEBUG[1-5]?|LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC"
SECONDARY = "DETAIL|HINT|CONTEXT|QUERY|STATEMENT|LOCATION|BACKTRACE"

_ESCAPE = re.compile(r"%(-?\d+)?(.)", re.DOTALL)
_MILLIS = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [-+\w]+"
_SECONDS = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [-+\w]+"
_FIELDS: dict[str, tuple[str, str]] = {
    "a": ("application", r".*?"),
    "u": ("user", r".*?"),
    "d": ("database", r".*?"),
    "r": ("remote", r"\[local\]|[^\s()]*\(\d+\)|[^\s()]*"),
    "h": ("host", r"\[local\]|\S*?"),
    "L": ("listening", r"\S*?"),
    "b": ("backend_type", r"[\w -]*?"),
    "p": ("pid", r"\d+"),
    "P": ("leader", r"\d*"),
    "t": ("seconds", _SECONDS),
    "m": ("millis", _MILLIS),
    "n": ("epoch", r"\d+\.\d{3}"),
    "i": ("tag", r"[\w ()<>-]*?"),
    "e": ("sqlstate", r"[0-9A-Z]{5}"),
    "c": ("session", r"[0-9a-f]+\.[0-9a-f]+"),
    "l": ("line", r"\d+"),
    "s": ("start", _SECONDS),
    "v": ("vxid", r"(?:\d+/-?\d+)?"),
    "x": ("xid", r"\d+"),
    "Q": ("query_id", r"-?\d+"),
}


class _Head(NamedTuple):
    fields: dict[str, str | None]
    word: str
    text: str


class Prefix:
    """A `log_line_prefix`, compiled. Raises `ConfigurationError` for one that no message can be told by."""

    def __init__(self, setting: str) -> None:
        self.setting = setting
        pattern, names = _compile(setting)
        if "pid" not in names and "session" not in names:
            raise ConfigurationError(
                f"log.line_prefix: {setting!r} has neither %p nor %c, so that nobody's lines can be told apart; "
                "set log_line_prefix to '%m [%p] %q%u@%d/%a %r %c %l %x %Q %e ' on the server and here"
            )
        if not {"millis", "seconds", "epoch"} & names:
            raise ConfigurationError(f"log.line_prefix: {setting!r} has no time; %m, %t or %n is needed")
        self._pattern = re.compile(rf"(?:{pattern})(?P<word_>{PRIMARY}|{SECONDARY}):  (?P<text_>.*)", re.DOTALL)
        self._start = re.compile(rf"(?:{pattern})(?:{PRIMARY}):  ".encode(), re.DOTALL)

    def begins(self, line: bytes) -> bool:
        """Say whether a line begins a message."""
        return self._start.match(line) is not None

    def head(self, line: str) -> _Head | None:
        """Take a line apart; None for one without the prefix."""
        match = self._pattern.match(line)
        if match is None:
            return None
        found = match.groupdict()
        return _Head(found, str(found["word_"]), str(found["text_"]))


def escapes(setting: str) -> set[str]:
    """Give the letters of a prefix's escapes."""
    return {escape[2] for escape in _ESCAPE.finditer(setting)}


def _compile(setting: str) -> tuple[str, set[str]]:
    pieces: list[str] = []
    names: set[str] = set()
    optional = 0
    end = 0
    for escape in _ESCAPE.finditer(setting):
        pieces.append(re.escape(setting[end : escape.start()]))
        end = escape.end()
        letter = escape[2]
        if letter == "%":
            pieces.append("%")
        elif letter == "q":
            pieces.append("(?:")
            optional += 1
        elif letter in _FIELDS:
            name, pattern = _FIELDS[letter]
            field = f"(?:{pattern})" if name in names else f"(?P<{name}>{pattern})"
            names.add(name)
            pieces.append(rf" *{field} *" if escape[1] else field)
    pieces.append(re.escape(setting[end:]))
    return "".join(pieces) + ")?" * optional, names


class StderrLog:
    """Parser of messages of the plain log, each with all its lines."""

    def __init__(self, times: Times, prefix: Prefix) -> None:
        self._times = times
        self._prefix = prefix
        self.invalid_utf8 = 0
        """Messages with bytes that are no UTF-8, each read with a replacement character in their place."""

    def parse(self, record: bytes) -> LogRecord:
        """Read one message with its continuation lines. Raises `Unreadable`."""
        try:
            text = record.decode()
        except UnicodeDecodeError:
            self.invalid_utf8 += 1
            text = record.decode("utf-8", "replace")
        first, *others = text.split("\n")
        head = self._prefix.head(first)
        if head is None:
            raise Unreadable("a line without the prefix")
        parts: dict[str, list[str]] = {"": [head.text]}
        word = ""
        for line in others:
            if line.startswith("\t"):
                parts[word].append(line[1:])
                continue
            further = self._prefix.head(line)
            if further is None:
                raise Unreadable("a line without the prefix")
            word = further.word
            parts[word] = [further.text]
        return self._record(head, {name: "\n".join(lines) for name, lines in parts.items()})

    def _record(self, head: _Head, parts: dict[str, str]) -> LogRecord:
        fields = head.fields
        session = fields.get("session")
        host, port = _client(fields)
        start = fields.get("start")
        pid = fields.get("pid")
        return LogRecord(
            self._time(fields),
            number(pid) if pid else number(str(int(str(session).partition(".")[2][:9], 16))),
            head.word,
            parts[""],
            session,
            number(fields.get("line"), INT64_MAX) or None,
            session_start_us(session) if session else self._times.read(start) if start else None,
            _name(fields.get("user")),
            _name(fields.get("database")),
            _name(fields.get("application")),
            host,
            port,
            number(fields.get("xid"), XID_MAX),
            fields.get("vxid") or None,
            fields.get("sqlstate"),
            parts.get("DETAIL"),
            parts.get("HINT"),
            parts.get("STATEMENT"),
            number(fields.get("query_id"), INT64_MAX),
            fields.get("tag"),
            fields.get("backend_type"),
        )

    def _time(self, fields: dict[str, str | None]) -> int:
        if epoch := fields.get("epoch"):
            return number(epoch.replace(".", ""), INT64_MAX // 1_000_000) * 1_000
        return self._times.read(str(fields.get("millis") or fields.get("seconds")))


def _client(fields: dict[str, str | None]) -> tuple[str | None, int | None]:
    remote = fields.get("remote")
    if remote:
        host, _, port = remote.partition("(")
        return (LOCAL if host == "[local]" else host or None), number(port.rstrip(")")) or None
    host = fields.get("host") or ""
    return (LOCAL if host == "[local]" else host or None), None


def _name(text: str | None) -> str | None:
    """The server writes `[unknown]` for what a session has not said yet."""
    return "" if text == "[unknown]" else text
