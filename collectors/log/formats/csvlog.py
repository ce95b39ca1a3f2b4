"""`csvlog`: one CSV record a message; a record has as many lines as its statement.

https://www.postgresql.org/docs/current/runtime-config-logging.html#RUNTIME-CONFIG-LOGGING-CSVLOG
"""

from __future__ import annotations

import csv
from collections import deque

from collectors.beacon.encodings import text_of
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
from collectors.log.languages import severities

COLUMNS_MIN = 23
"""Columns that every supported server writes; later ones (backend type, leader, query id) are read where they are."""
FIELD_BYTES_MAX = 64 * 1024 * 1024

csv.field_size_limit(FIELD_BYTES_MAX)


class _Rows:
    """Reads one record at a time, with one reader for all: to make one costs as much as to read a record."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._reader = csv.reader(iter(self._lines.popleft, None), strict=True)

    def read(self, text: str) -> list[str]:
        """Return the fields of a record. Raise `Unreadable`."""
        lines = self._lines
        lines.clear()
        lines.append(text)  # with its line feeds, which the reader takes within quotes and refuses outside of them
        try:
            row = next(self._reader)
        except (csv.Error, IndexError):  # the latter where lines end within quotes
            raise Unreadable("not a record of csvlog") from None
        if lines or len(row) < COLUMNS_MIN:
            raise Unreadable("not a record of csvlog")
        return row


class CsvLog:
    """Parser of records of csvlog."""

    def __init__(self, times: Times) -> None:
        self._times = times
        self._rows = _Rows()
        self._backends = Backends(_backend)
        self._severities = severities()
        self.invalid_utf8 = 0
        """Records with bytes that are no UTF-8, each shown by its number (`\\xe9`), as rows of such a database are."""

    def parse(self, record: bytes) -> LogRecord:
        """Read one record. Raise `Unreadable`."""
        try:
            text = record.decode()
        except UnicodeDecodeError:
            self.invalid_utf8 += 1
            text = text_of(record)
        row = self._rows.read(text)
        backend = self._backends.get((*row[1:6], row[22], row[23] if len(row) > 23 else None))
        return LogRecord(
            self._times.read(row[0]),
            backend.pid,
            self._severities.get(row[11], row[11]),
            row[13],
            backend.session,
            number(row[6], INT64_MAX) or None,
            backend.start_us,
            backend.user,
            backend.database,
            backend.application,
            backend.host,
            backend.port,
            number(row[10], XID_MAX),
            row[12] or None,
            row[14] or None,
            row[15] or None,
            row[19] or None,
            number(row[25], INT64_MAX) if len(row) > 25 else 0,
            backend.backend_type,
            row[18] or None,
            row[21] or None,
            row[7] or None,
            row[9] or None,
        )


def _backend(said: tuple[str | None, ...]) -> Backend:
    user, database, pid, client, session, application, backend_type = said
    host, port = _client(client)
    start_us = session_start_us(session)
    return Backend(
        number(pid), session or None, start_us, user or None, database or None, application, host, port, backend_type
    )


def is_record(record: bytes) -> bool:
    """Return whether bytes have the shape of a record."""
    try:
        _Rows().read(record.decode("utf-8", "replace"))
    except Unreadable:
        return False
    return True


def _client(text: str | None) -> tuple[str | None, int | None]:
    """Read `address:port`, where the address may have colons itself."""
    if not text:
        return None, None
    if text == "[local]":
        return LOCAL, None
    host, separator, port = text.rpartition(":")
    if separator and port.isascii() and port.isdigit() and len(port) <= 5:
        return host, int(port)
    return text, None
