"""`stderr`: plain text, each message behind a prefix that `log_line_prefix` describes.

The prefix is the matter of `collectors.log.formats.prefix`. A message goes on in lines that begin with a tab (the
server puts one behind every line break inside a message, so that nobody can write a line of the log into a statement),
and in lines with the same prefix and `DETAIL`, `HINT`, `CONTEXT`, `QUERY`, `STATEMENT` or `LOCATION`. Only messages in
English are
known (`lc_messages = 'C'`).

A role's or a database's name is printed as it is: one with a line break in it could write a line of its own, which
is why what hangs on this format alone is never `exact`.
"""

from __future__ import annotations

import re

from collectors.beacon.encodings import text_of
from collectors.log.formats.prefix import Prefix
from collectors.log.formats.record import (
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

_BACKEND = ("pid", "session", "start", "user", "database", "application", "remote", "host", "backend_type")
_PARTS = ("", "DETAIL", "HINT", "STATEMENT", "CONTEXT", "LOCATION")
_MESSAGE = ("millis", "seconds", "epoch", "line", "xid", "sqlstate", "query_id", "vxid")
_PART_BEGINS = re.compile(r"\n(?!\t)")


class StderrLog:
    """Parser of messages of the plain log, each with all its lines."""

    def __init__(self, times: Times, prefix: Prefix) -> None:
        self._times = times
        self._prefix = prefix
        self._backends = Backends(self._backend)
        self.invalid_utf8 = 0
        """Messages with bytes that are no UTF-8, each shown by its number (`\\xe9`), as rows of such a database are."""

    def parse(self, record: bytes) -> LogRecord:
        """Read one message with its continuation lines. Raise `Unreadable`."""
        try:
            text = record.decode()
        except UnicodeDecodeError:
            self.invalid_utf8 += 1
            text = text_of(record)
        if "\r" in text:
            text = text.replace("\r\n", "\n").removesuffix("\r")
        first, more, others = text.partition("\n")
        head = self._prefix.head(first)
        if head is None:
            raise Unreadable("a line without the prefix")
        get = head.fields.get
        backend = self._backends.get(tuple([get(name) for name in _BACKEND]))
        millis, seconds, epoch, line, xid, sqlstate, query_id, vxid = [get(name) for name in _MESSAGE]
        message, readings = head.text, head.readings
        detail = hint = statement = context = location = None
        if more:
            parts = self._parts(others)
            rest, detail, hint, statement, context, location = map(parts.get, _PARTS)
            if rest:
                message, readings = message + rest, tuple([reading + rest for reading in readings])
            if location is not None and message[5:7] == ": ":  # verbose: the SQLSTATE stands before the message
                sqlstate, message = message[:5], message[7:]
        return LogRecord(
            self._time(millis or seconds, epoch),
            backend.pid,
            head.word,
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
            vxid=vxid or None,
            readings=readings,
        )

    def _parts(self, others: str) -> dict[str, str]:
        """Return what follows a message's first line by what its parts are called, the rest of it by nothing."""
        parts = {"": ""}
        for part in _PART_BEGINS.split(others):
            first, fed, more = part.partition("\n")
            if first.startswith("\t"):  # the first one only: a part ends before the next line that has no tab
                parts[""] = "\n" + part[1:].replace("\n\t", "\n")
                continue
            further = self._prefix.head(first)
            if further is None:
                raise Unreadable("a line without the prefix")
            parts[further.word] = further.text + fed + more[1:].replace("\n\t", "\n")
        return parts

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
