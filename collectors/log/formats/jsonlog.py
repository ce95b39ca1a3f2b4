"""`jsonlog`: one JSON object a line (PostgreSQL 15 and later).

https://www.postgresql.org/docs/current/runtime-config-logging.html#RUNTIME-CONFIG-LOGGING-JSONLOG
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from collectors.beacon.encodings import json_of
from collectors.log.formats.envelopes import lines
from collectors.log.formats.record import (
    INT32_MAX,
    INT64_MAX,
    LOCAL,
    XID_MAX,
    LogRecord,
    Times,
    Unreadable,
    session_start_us,
)
from collectors.log.languages import severities

Small = Annotated[int, Meta(ge=0, le=INT32_MAX)]
Xid = Annotated[int, Meta(ge=0, le=XID_MAX)]
Big = Annotated[int, Meta(ge=-INT64_MAX - 1, le=INT64_MAX)]


class _Line(Struct, gc=False):
    """The keys that are of use; the server leaves out those without a value."""

    timestamp: str
    pid: Small
    error_severity: str
    message: str = ""
    user: str | None = None
    dbname: str | None = None
    remote_host: str | None = None
    remote_port: Small | None = None
    session_id: str | None = None
    line_num: Big | None = None
    txid: Xid = 0
    vxid: str | None = None
    state_code: str | None = None
    detail: str | None = None
    hint: str | None = None
    statement: str | None = None
    application_name: str = ""
    backend_type: str | None = None
    query_id: Big = 0
    context: str | None = None
    func_name: str | None = None
    ps: str | None = None


_decode = msgspec.json.Decoder(_Line).decode


class JsonLog:
    """Parser of lines of jsonlog."""

    def __init__(self, times: Times) -> None:
        self._times = times
        self._severities = severities()
        self.invalid_utf8 = 0
        """Lines with bytes that are no UTF-8, each shown by its number (`\\xe9`), as rows of such a database are."""

    def parse(self, line: bytes) -> LogRecord:
        """Read one line. Raise `Unreadable`."""
        try:
            found = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = self._repaired(line)
        host = found.remote_host
        return LogRecord(
            self._times.read(found.timestamp),
            found.pid,
            self._severities.get(found.error_severity, found.error_severity),
            found.message,
            found.session_id,
            found.line_num,
            session_start_us(found.session_id),
            found.user,
            found.dbname,
            found.application_name,
            LOCAL if host == "[local]" else host,
            found.remote_port,
            found.txid,
            found.state_code,
            found.detail,
            found.hint,
            found.statement,
            found.query_id,
            found.backend_type,
            found.context,
            found.func_name,
            found.ps,
            found.vxid,
        )

    def _repaired(self, line: bytes) -> _Line:
        """Read a line that has bytes that are no UTF-8, or is wrapped."""
        text = json_of(line)
        self.invalid_utf8 += text != line
        for plain in (text, *lines(text.decode())[:1]):
            try:
                return _decode(plain)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
        raise Unreadable("not a line of jsonlog")
