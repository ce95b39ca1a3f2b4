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

from collectors.log.record import (
    INT64_MAX,
    LOCAL,
    XID_MAX,
    Backend,
    Backends,
    LogRecord,
    Times,
    Unreadable,
    number,
    session_start_us,
)
from pgwitness.errors import ConfigurationError

PRIMARY = "DEBUG[1-5]?|LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC"
SECONDARY = "DETAIL|HINT|CONTEXT|QUERY|STATEMENT|LOCATION|BACKTRACE"

_PARTS = ("", "DETAIL", "HINT", "STATEMENT", "CONTEXT", "LOCATION")
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


_BACKEND = ("pid", "session", "start", "user", "database", "application", "remote", "host", "backend_type")
_MESSAGE = ("word_", "text_", "millis", "seconds", "epoch", "line", "xid", "sqlstate", "query_id")


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
        # What the setting leaves out is a group that never matches: it has no value, as where `%q` ends early.
        text = rf"(?:{pattern})(?P<word_>{PRIMARY}|{SECONDARY}):  (?P<text_>.*)(?P<absent_>(?!))?"
        self._head = re.compile(text, re.DOTALL)
        self._begin = re.compile(rf"(?:{pattern})(?:{PRIMARY}):  ".encode(), re.DOTALL)
        groups = self._head.groupindex
        self._fields = tuple(groups.get(name, groups["absent_"]) for name in (*_BACKEND, *_MESSAGE))

    def continues(self, line: bytes) -> bool:
        """Say whether a line is a further part of a message, and does not begin one."""
        return self._begin.match(line) is None and self.head(line.decode("utf-8", "replace")) is not None

    def head(self, line: str) -> re.Match[str] | None:
        """Take a line apart, into groups such as `word_` and `text_`; None for one without the prefix."""
        return self._head.match(line)

    def fields(self, head: re.Match[str]) -> tuple[str | None, ...]:
        """Give the fields of `_BACKEND`, which are the same in all lines of a session, and behind them `_MESSAGE`."""
        return head.group(*self._fields)


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
        self._backends = Backends(self._backend)
        self.invalid_utf8 = 0
        """Messages with bytes that are no UTF-8, each read with a replacement character in their place."""

    def parse(self, record: bytes) -> LogRecord:
        """Read one message with its continuation lines. Raises `Unreadable`."""
        try:
            text = record.decode()
        except UnicodeDecodeError:
            self.invalid_utf8 += 1
            text = record.decode("utf-8", "replace")
        first, more, others = text.partition("\n")
        head = self._prefix.head(first)
        if head is None:
            raise Unreadable("a line without the prefix")
        fields = self._prefix.fields(head)
        backend = self._backends.get(fields[: len(_BACKEND)])
        word, message, millis, seconds, epoch, line, xid, sqlstate, query_id = fields[len(_BACKEND) :]
        assert word is not None
        assert message is not None
        detail = hint = statement = context = location = None
        if more:
            parts = self._parts(message, others.split("\n"))
            message, detail, hint, statement, context, location = map(parts.get, _PARTS)
            assert message is not None
            if location is not None and message[5:7] == ": ":  # verbose: the SQLSTATE stands before the message
                sqlstate, message = message[:5], message[7:]
        return LogRecord(
            self._time(millis or seconds, epoch),
            backend.pid,
            word,
            message,
            backend.session,
            number(line, INT64_MAX) or None,
            backend.start_us,
            backend.user,
            backend.database,
            backend.application,
            backend.host,
            backend.port,
            number(xid, XID_MAX),
            sqlstate,
            detail,
            hint,
            statement,
            number(query_id, INT64_MAX),
            backend.backend_type,
            context,
            location,
        )

    def _parts(self, message: str, others: list[str]) -> dict[str, str]:
        """Give a message of several lines by what its parts are called, the message itself by nothing."""
        parts: dict[str, list[str]] = {"": [message]}
        word = ""
        for line in others:
            if line.startswith("\t"):
                parts[word].append(line[1:])
                continue
            further = self._prefix.head(line)
            if further is None:
                raise Unreadable("a line without the prefix")
            word = further["word_"]
            parts[word] = [further["text_"]]
        return {name: "\n".join(lines) for name, lines in parts.items()}

    def _backend(self, said: tuple[str | None, ...]) -> Backend:
        pid, session, start, user, database, application, remote, host, backend_type = said
        address, port = _client(remote, host)
        if pid is None:  # `%c` ends in it; of what is no session, behind `%q`, it is not known
            pid = str(int(session.partition(".")[2][:9], 16)) if session else None
        return Backend(
            number(pid),
            session,
            session_start_us(session) if session else self._times.read(start) if start else None,
            _name(user),
            _name(database),
            _name(application),
            address,
            port,
            backend_type,
        )

    def _time(self, written: str | None, epoch: str | None) -> int:
        if epoch:
            return number(epoch.replace(".", ""), INT64_MAX // 1_000_000) * 1_000
        return self._times.read(str(written))


def _client(remote: str | None, host: str | None) -> tuple[str | None, int | None]:
    if remote:
        host, _, port = remote.partition("(")
        return (LOCAL if host == "[local]" else host or None), number(port.rstrip(")")) or None
    return (LOCAL if host == "[local]" else host or None), None


def _name(text: str | None) -> str | None:
    """The server writes `[unknown]` for what a session has not said yet."""
    return "" if text == "[unknown]" else text
