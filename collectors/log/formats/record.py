"""One message of the server's log, whatever the format it came in, and the times it carries.

The parsers (`jsonlog`, `csvlog`, `stderr`) make it, `interpret` reads it. A fact that the format does not carry is
None, one that is known to be empty is empty: a rule must not mistake the one for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from pgwitness.core.errors import ConfigurationError

SECONDS_MAX = 4_096
TIME_CHARS_MAX = 64
BACKENDS_MAX = 4_096
BACKEND_CHARS_MAX = 1_024
LOCAL = "local"
"""What stands for the address of a session over the Unix socket."""
_MILLIS_US = {f".{millis:03d} ": millis * 1_000 for millis in range(1_000)}


class Unreadable(ValueError):
    """Bytes that are no message of the log in its format; the text says why without quoting them."""


class LogRecord(Struct, frozen=True, gc=False):
    """A message of the log.

    `time_us` is when it was written, `start_us` when its session began, to the second. `session` is `%c`, `line` the
    number of the message within the session. `host` is an address, `local`, or None when it is not known; `xid` has
    32 bits and is 0 outside of a transaction that has one. `context` and `location` are what code leaves that writes
    into the log, the latter with `log_error_verbosity = verbose`; `title` is the process title. `vxid` is the virtual
    transaction id, `3/0` outside of a transaction. `readings` are the messages that an ambiguous line may hold.
    """

    time_us: int
    pid: int
    severity: str
    message: str
    session: str | None = None
    line: int | None = None
    start_us: int | None = None
    user: str | None = None
    database: str | None = None
    application: str | None = None
    host: str | None = None
    port: int | None = None
    xid: int = 0
    sqlstate: str | None = None
    detail: str | None = None
    hint: str | None = None
    statement: str | None = None
    query_id: int = 0
    backend_type: str | None = None
    context: str | None = None
    location: str | None = None
    title: str | None = None
    vxid: str | None = None
    readings: tuple[str, ...] = ()


class Backend(Struct, frozen=True, gc=False):
    """What all messages of a session have in common."""

    pid: int
    session: str | None = None
    start_us: int | None = None
    user: str | None = None
    database: str | None = None
    application: str | None = None
    host: str | None = None
    port: int | None = None
    backend_type: str | None = None


class Backends:
    """Remembers sessions by how a line of text names them, so that this is taken apart once and not in every line."""

    def __init__(self, read: Callable[[tuple[str | None, ...]], Backend]) -> None:
        self._read = read
        self._known: dict[tuple[str | None, ...], Backend] = {}

    def get(self, said: tuple[str | None, ...]) -> Backend:
        """Return what a line says of its session. Raise `Unreadable`."""
        found = self._known.get(said)
        if found is None:
            found = self._read(said)
            if len(self._known) >= BACKENDS_MAX:
                self._known.clear()
            if sum(len(text) for text in said if text) <= BACKEND_CHARS_MAX:
                self._known[said] = found
        return found

    def __len__(self) -> int:
        return len(self._known)


class Times:
    """Reads the log's times, which are written in `log_timezone`, with the zone's abbreviation behind.

    Seconds are remembered: a busy log has thousands of lines in each. Raises `ConfigurationError` for an unknown zone.
    """

    def __init__(self, timezone: str = "UTC") -> None:
        try:
            self._zone = ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigurationError(
                f"log.timezone: {timezone!r} is no time zone; write what `SHOW log_timezone` answers"
            ) from error
        self._seconds: dict[str, int] = {}

    def read(self, text: str) -> int:
        """Return microseconds since the epoch of `2026-11-22 21:26:30.123 UTC`. Raise `Unreadable` on anything else."""
        millis_us = _MILLIS_US.get(text[19:24], 0)
        second = text[:19] + text[23:] if millis_us else text
        found = self._seconds.get(second)
        if found is None:
            found = self._second(second)
            if len(self._seconds) >= SECONDS_MAX:
                self._seconds.clear()
            if len(second) <= TIME_CHARS_MAX:
                self._seconds[second] = found
        return found + millis_us

    def __len__(self) -> int:
        return len(self._seconds)

    def _second(self, text: str) -> int:
        clock, _, zone = text[16:].partition(" ")
        try:
            seconds = float(clock[1:])
            if not 0.0 <= seconds < 61.0:
                raise ValueError
            return self._minute(text[:16], zone) + int(seconds * 1_000 + 0.5) * 1_000
        except (ValueError, OverflowError):
            raise Unreadable("a time that is none") from None

    def _minute(self, text: str, zone: str) -> int:
        plain = datetime.strptime(text, "%Y-%m-%d %H:%M")  # noqa: DTZ007 - the zone follows
        if zone in ("UTC", "GMT", "Z", "UCT"):
            aware = plain.replace(tzinfo=UTC)
        elif zone[:1] in ("+", "-"):
            aware = datetime.strptime(text + zone.ljust(5, "0"), "%Y-%m-%d %H:%M%z")
        else:
            # Twice a year an hour comes again: its abbreviation tells which of the two it is.
            both = [plain.replace(tzinfo=self._zone, fold=fold) for fold in (0, 1)]
            aware = next((time for time in both if time.tzname() == zone), both[0])
        return int(aware.timestamp()) * 1_000_000


INT32_MAX = (1 << 31) - 1
XID_MAX = (1 << 32) - 1
INT64_MAX = (1 << 63) - 1


@lru_cache(maxsize=4096)
def session_start_us(session: str | None) -> int | None:
    """Read the session's start from `%c`: seconds since the epoch in hex, a point, the pid in hex."""
    if not session:
        return None
    seconds, _, _ = session.partition(".")
    try:
        return int(seconds, 16) * 1_000_000 if len(seconds) <= 10 else None
    except ValueError:
        return None


def number(text: str | None, limit: int = INT32_MAX) -> int:
    """Read a number that may be absent, as 0. Raise `Unreadable`, also for one that is beyond `limit`."""
    if not text or text == "0":
        return 0
    try:
        found = int(text) if len(text) <= 20 else limit + 1
    except ValueError:
        raise Unreadable("a number that is none") from None
    if not -limit - 1 <= found <= limit:
        raise Unreadable("a number that cannot be")
    return found
