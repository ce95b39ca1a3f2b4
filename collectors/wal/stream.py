"""The streaming replication protocol on libpq, as far as a logical consumer needs it.

psycopg 2's replication cursor is not used on purpose: on a keepalive it confirms the server's position by itself as
soon as the last message's LSN is below what was once confirmed, which a transaction that began early satisfies while
an earlier one still waits for the broker. Here only `confirm` moves what the server may forget.
Format: PostgreSQL documentation, "Streaming Replication Protocol".
"""

from __future__ import annotations

import select
import time
from struct import Struct as Layout
from typing import Any

from psycopg import Connection, OperationalError, pq

from pgwitness.core.errors import Retry, Unreachable
from pgwitness.core.events import format_lsn
from pgwitness.core.messages.refusal import words

HEADER = 25
"""Bytes before the message in what `read` returns."""
STATUS_S = 10.0
"""A server whose wal_sender_timeout is 60 s hears of us this often at least."""

_KEEPALIVE = Layout(">cQqB")
_STATUS = Layout(">cQQQqB")
_POSITION = Layout(">Q")
_EPOCH_S = 946_684_800


class Ended(Unreachable):
    """The server ended the stream, with the SQLSTATE of its error, if it was one."""

    def __init__(self, message: str, sqlstate: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class Stream:
    """One replication connection: `identify` and `history` before `start`, `read` and `confirm` after it."""

    def __init__(self, session: Connection[Any]) -> None:
        self._session = session
        self._connection = connection = session.pgconn
        self._where = f"{connection.host.decode()}:{connection.port.decode()}"
        self.received = 0
        self.confirmed = 0
        self.server_end = 0
        self.waited = False  # whether the last `read` found nothing at first
        self._told = 0.0
        self._told_lsn = 0
        self._asked = False
        self._poll = select.poll()

    def identify(self) -> tuple[str, int]:
        """Return the system identifier and the timeline."""
        row = self._command(b"IDENTIFY_SYSTEM")
        return _text(row.get_value(0, 0)), int(_text(row.get_value(0, 1)))

    def history(self, timeline: int) -> tuple[tuple[int, int], ...]:
        """Return the past timelines with the LSN at which each ended, oldest first, from the history file."""
        if timeline == 1:
            return ()
        row = self._command(b"TIMELINE_HISTORY %d" % timeline)
        return parse_history(row.get_value(0, 1) or b"")

    def start(self, slot: str, publications: list[str], after: int = 0) -> None:
        """Start streaming from what the slot has confirmed, or from `after` on; `Retry` with the server's reason."""
        names = ",".join(publications).replace("'", "''")
        command = (
            f'START_REPLICATION SLOT "{slot}" LOGICAL {format_lsn(after)} '
            f"(proto_version '1', publication_names '{names}', messages 'true')"
        )
        result = self._connection.exec_(command.encode())
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise Retry(f"slot {slot} cannot be streamed: {_reason(result)}")
        self._connection.nonblocking = 1
        self._poll.register(self._connection.socket, select.POLLIN)
        self._told = time.monotonic()

    def read(self, timeout_s: float) -> bytes | None:
        """Return the next message with its header of `HEADER` bytes in front; None when none came within `timeout_s`.

        Keepalives are dealt with here. Raise `Unreachable` when the connection is lost.
        """
        self.waited = False
        while True:
            try:
                size, data = self._connection.get_copy_data(1)
            except OperationalError as error:
                raise self._lost(error) from error
            if size > 0:
                message = bytes(data)
                if message[0] == 119:  # w: data
                    return message
                if message[0] == 107:  # k: keepalive
                    self._keepalive(message)
                    if self._asked:
                        return None
                continue
            if size < 0:
                raise self._ended()
            if self.waited or timeout_s <= 0:
                return None
            self.waited = True
            if self._poll.poll(timeout_s * 1000):
                self._consume()

    def confirm(self, lsn: int) -> None:
        """Let the server forget everything before `lsn`: the broker has it."""
        self.confirmed = max(self.confirmed, lsn)

    def tell(self, *, now: bool = False, every_s: float = STATUS_S) -> None:
        """Report the confirmed position when it is due, asked for, or `now`; keeps the connection alive."""
        since = time.monotonic() - self._told
        if not (now or self._asked or since >= every_s or (since >= 1.0 and self.confirmed > self._told_lsn)):
            return
        clock = int((time.time() - _EPOCH_S) * 1e6)
        message = _STATUS.pack(b"r", max(self.received, self.confirmed), self.confirmed, self.confirmed, clock, 0)
        try:
            self._connection.put_copy_data(message)
            self._connection.flush()
        except OperationalError as error:
            raise self._lost(error) from error
        self._told, self._told_lsn, self._asked = time.monotonic(), self.confirmed, False

    def service(self) -> None:
        """Keep the connection alive while nothing is read: take in what came, answer what is due."""
        self.tell(every_s=STATUS_S / 2)

    def close(self) -> None:
        """End the connection."""
        self._session.close()

    def _keepalive(self, data: bytes) -> None:
        if len(data) >= _KEEPALIVE.size:
            _, end, _, reply = _KEEPALIVE.unpack_from(data)
            self.server_end = max(self.server_end, end)
            self._asked = self._asked or bool(reply)

    def _consume(self) -> None:
        try:
            self._connection.consume_input()
        except OperationalError as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> Unreachable:
        return Unreachable(f"the replication connection to {self._where} is lost: {words(error)}")

    def _ended(self) -> Ended:
        result = self._connection.get_result()
        reason = _reason(result) if result is not None else "the server ended the stream"
        sqlstate = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode() if result is not None else ""
        return Ended(f"replication ended at {format_lsn(self.received)}: {reason}", sqlstate)

    def _command(self, command: bytes) -> pq.abc.PGresult:
        result = self._connection.exec_(command)
        if result.status != pq.ExecStatus.TUPLES_OK or result.ntuples < 1:
            advice = "check that wal_level is logical and that the role has REPLICATION"
            raise Retry(f"{command.decode()} failed: {_reason(result)}; {advice}")
        return result


def parse_history(content: bytes) -> tuple[tuple[int, int], ...]:
    """Read a timeline history file: lines of a parent timeline, the LSN where it ended, and a reason."""
    past = []
    for line in content.decode("utf-8", "replace").splitlines():
        words = line.split()
        if len(words) >= 2 and words[0].isdigit():
            high, _, low = words[1].partition("/")
            past.append((int(words[0]), int(high, 16) << 32 | int(low, 16)))
    return tuple(past)


def _text(value: bytes | None) -> str:
    return (value or b"").decode()


def _reason(result: pq.abc.PGresult) -> str:
    return " ".join(result.get_error_message().split())
