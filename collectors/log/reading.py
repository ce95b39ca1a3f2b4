"""What the bytes of one server's log go through, whatever source they come from, and what is counted on the way.

Cut into records, parsed, interpreted, sent. What cannot be read is counted, and told as a gap with a keyed hash of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import structlog
from msgspec.structs import replace
from prometheus_client import Counter
from psycopg.conninfo import conninfo_to_dict

from collectors.context import Context, now_us
from collectors.log.formats import csvlog
from collectors.log.formats.csvlog import CsvLog
from collectors.log.formats.jsonlog import JsonLog
from collectors.log.formats.prefix import Prefix, escapes
from collectors.log.formats.record import LogRecord, Times, Unreadable
from collectors.log.formats.splitting import (
    CsvSplitter,
    EnvelopeSplitter,
    JsonSplitter,
    Piece,
    Splitter,
    StderrSplitter,
)
from collectors.log.formats.stderr import StderrLog
from collectors.log.interpretation.interpret import Interpreter, Seen
from collectors.log.interpretation.provenance import Provenance
from collectors.log.languages import heads
from collectors.log.sources.shipped import Places, Unwrapper
from collectors.log.statuses import Statuses
from collectors.own import OwnSessions
from collectors.publisher import Channel
from pgwitness.core.config import Log
from pgwitness.core.events import Control, Gap, Tick
from pgwitness.core.privacy import tokenizer

DELIVERY_S_MAX = 30.0
STORE_S = 1.0
"""How often at most the state is written; after a crash, events of that long are sent again."""
IDLE_S = 1.0
"""After how long without a byte nothing is waited for any more."""
UNKNOWN_LINES_MIN = 200
"""After how many lines in no known form, and none in one, it is said that the log is not understood."""
TELL_S = 1.0
"""How often at most unreadable lines are told of."""

NOT_UNDERSTOOD = (
    "no line says what is done: check that statements and connections are logged, and in a language that is read "
    "(lc_messages = 'C')"
)
LABELS = ["cluster", "instance"]
LINES = Counter("pgwitness_log_messages", "Messages of the server's log that were read.", LABELS)
BYTES = Counter("pgwitness_log_bytes", "Bytes of the server's log that were read.", LABELS)
UNREADABLE = Counter("pgwitness_log_unreadable", "Lines of the server's log that are no message.", LABELS)
INVALID = Counter("pgwitness_log_invalid_text", "Messages with bytes that are no UTF-8; they were read.", LABELS)
UNKNOWN = Counter("pgwitness_log_not_understood", "Messages of the server's log in no form that is known.", LABELS)
GUARDED = Counter(
    "pgwitness_log_guarded", "Statements that the guard in the database refused, or would have.", [*LABELS, "effect"]
)
IMITATED = Counter("pgwitness_log_imitated", "Lines in the server's form that a session's code wrote.", LABELS)
PARSED = Counter("pgwitness_log_statements_parsed", "Distinct statements that had to be parsed.", LABELS)
GAPS = Counter("pgwitness_log_gaps", "Gaps in the server's log.", [*LABELS, "reason"])

log = structlog.get_logger("log")


class Parser(Protocol):
    """Reads one message."""

    invalid_utf8: int

    def parse(self, record: bytes, /) -> LogRecord:
        """Read one message. Raise `Unreadable`."""


def formats(
    settings: Log, databases: Callable[[], frozenset[str]] = frozenset
) -> tuple[Callable[[], Splitter], Parser]:
    """Return how a log of the configured format is cut and read; `databases` are there. Raise `ConfigurationError`."""
    times = Times(settings.timezone)
    if settings.field and settings.from_ in ("file", "stdin"):
        unwrapper = Unwrapper(replace(settings, instances={}))
        _, parser = formats(replace(settings, field=""), databases)
        return lambda: EnvelopeSplitter(unwrapper.messages), parser
    if settings.format == "jsonlog":
        return JsonSplitter, JsonLog(times)
    if settings.format == "csvlog":
        return lambda: CsvSplitter(csvlog.is_record), CsvLog(times)
    prefix = Prefix(settings.line_prefix, heads(), databases)
    return lambda: StderrSplitter(prefix), StderrLog(times, prefix)


@dataclass
class Stream:
    """One file, or what stands for one, on its way through splitter, parser and interpreter.

    `offset` is how far it has been used, in bytes. `places` knows where in the source that is, where it is not simply
    the offset.
    """

    reading: Reading
    name: str
    splitter: Splitter
    offset: int
    places: Places | None = None
    touched: float = 0.0
    """When bytes came last, by the monotonic clock."""

    def take(self, data: bytes) -> None:
        """Take the next bytes."""
        self.touched = time.monotonic()
        if self.places is not None:
            self.places.at(self.offset)  # what was used is forgotten, also where nothing readable follows
        self.reading.pieces(self, self.splitter.feed(data))

    def idle(self) -> None:
        """Take as whole what nothing has followed."""
        self.reading.pieces(self, self.splitter.idle())


class Reading:
    """What one log's bytes go through, whatever source they come from."""

    def __init__(self, context: Context, settings: Log, channel: Channel) -> None:
        self.provenance = Provenance(settings.format, names=not escapes(settings.line_prefix).isdisjoint("ud"))
        known = frozenset(context.cluster.databases)
        self._make_splitter, self._parser = formats(settings, lambda: known | self.provenance.surroundings.plain)
        self._token = tokenizer(context.key)
        self._channel = channel
        self.labels = labels = (context.name, str(channel.header.instance))
        self.sent = 0
        """Events that were sent."""
        self.statuses: Statuses | None = None
        """Who asks what became of the transactions that lines name."""
        role = conninfo_to_dict(context.cluster.dsn).get("user")
        # What a shipper brings through a topic need not come in the order in which the server wrote it.
        ordered = settings.from_ != "kafka"
        self.interpreter = Interpreter(
            self._token,
            settings.format,
            OwnSessions(context.key, str(role) if role else None),
            context.names,
            ordered=ordered,
            provenance=self.provenance,
        )
        self._lines, self._bytes = LINES.labels(*labels), BYTES.labels(*labels)
        self._unreadable, self._invalid = UNREADABLE.labels(*labels), INVALID.labels(*labels)
        self._unknown, self._unknown_since, self._known_at = UNKNOWN.labels(*labels), 0, 0
        self._counted_unknown = 0
        self._not_understood = False
        self._parsed, self._imitated = PARSED.labels(*labels), IMITATED.labels(*labels)
        self._uncounted_lines = self._uncounted_bytes = 0
        self._counted_guarded: dict[str, int] = {}
        self._counted_parsed = self._counted_invalid = self._counted_imitated = 0
        self._untold: dict[str, object] = {}
        self._untold_lines = 0
        self._untold_bytes = 0
        self._told_at = 0.0
        self._read_at = 0.0

    def stream(self, name: str, offset: int, places: Places | None = None) -> Stream:
        """Begin a file at an offset."""
        return Stream(self, name, self._make_splitter(), offset, places)

    def pieces(self, stream: Stream, pieces: Iterable[Piece]) -> None:
        """Read and interpret records, and send what they witness."""
        parse, read, places, name = self._parser.parse, self.interpreter.read, stream.places, stream.name
        at_us = now_us()
        begin = stream.offset
        events: list[Seen] = []
        try:
            for piece in pieces:
                offset, data = stream.offset, piece.data
                stream.offset = offset + piece.length
                if not piece.readable:
                    if data:
                        self.refuse(name, offset, data, "no end, or no beginning")
                    continue
                self._uncounted_lines += 1
                try:
                    record = parse(data)
                except Unreadable as error:
                    self.refuse(name, offset, data, str(error))
                    continue
                at, index = places.at(offset) if places is not None else (offset, 0)
                found = read(record, name, at, at_us, index)
                if places is not None:
                    places.gave(len(found))
                events += found
        finally:
            self._uncounted_bytes += stream.offset - begin
            self._send(events)

    def idle(self, stream: Stream) -> None:
        """Let go what waited for a further line; its place is the last byte that was read."""
        offset, places = max(0, stream.offset - 1), stream.places
        at, index = places.at(offset) if places is not None else (offset, 0)
        events = self.interpreter.idle(stream.name, at, index)
        if places is not None:
            places.gave(len(events))
        self._send(events)

    def _send(self, events: list[Seen]) -> None:
        self.sent += len(events)
        self._channel.send_all(events)
        if self.statuses is not None:
            self.statuses.see(events)

    def count(self) -> None:
        """Bring the metrics up to date."""
        parsed, invalid = self.interpreter.texts.parsed, self._parser.invalid_utf8
        self._imitated.inc(self.interpreter.imitated - self._counted_imitated)
        self._counted_imitated = self.interpreter.imitated
        for effect, count in self.interpreter.guarded.items():
            GUARDED.labels(*self.labels, effect).inc(count - self._counted_guarded.get(effect, 0))
            self._counted_guarded[effect] = count
        self._lines.inc(self._uncounted_lines)
        self._bytes.inc(self._uncounted_bytes)
        self._parsed.inc(parsed - self._counted_parsed)
        self._invalid.inc(invalid - self._counted_invalid)
        self._unknown.inc(self.interpreter.unknown - self._counted_unknown)
        self._counted_unknown = self.interpreter.unknown
        self._uncounted_lines = self._uncounted_bytes = 0
        self._counted_parsed, self._counted_invalid = parsed, invalid

    def refuse(self, name: str, offset: int, data: bytes, reason: str) -> None:
        """Count bytes that are no message, and tell of them later."""
        self._unreadable.inc()
        self.interpreter.lost()
        if not self._untold_lines:
            self._untold = {
                "log": name,
                "offset": offset,
                "hash": self._token(data).decode(),
                "why": reason,
            }
        self._untold_lines += 1
        self._untold_bytes += len(data)

    def tell(self) -> None:
        """Bring the metrics up to date, and tell of unreadable lines, of many at once."""
        self.count()
        self._understood()
        for answer in self.statuses.take() if self.statuses is not None else ():
            self._channel.send(answer)
        if self._untold_lines and time.monotonic() - self._told_at >= TELL_S:
            self.gap("log_unreadable", {**self._untold, "lines": self._untold_lines, "bytes": self._untold_bytes})
            self._untold_lines = self._untold_bytes = 0
            self._told_at = time.monotonic()

    def _understood(self) -> None:
        """Tell, once, when nothing known has come for many lines, and again when it has."""
        interpreter = self.interpreter
        if interpreter.known != self._known_at:
            self._known_at, self._unknown_since = interpreter.known, interpreter.unknown
            if self._not_understood:
                self._not_understood = False
                self._channel.send(Control(captured_at_us=now_us(), operation="log_understood"))
        elif not self._not_understood and interpreter.unknown - self._unknown_since >= UNKNOWN_LINES_MIN:
            self._not_understood = True
            self.gap("log_not_understood", {"lines": interpreter.unknown - self._unknown_since, "fix": NOT_UNDERSTOOD})

    def read_to(self, at_us: int) -> None:
        """Tell, from time to time, that all the log had at a moment was read: what is not in it was not done."""
        if not self.interpreter.waits and time.monotonic() - self._read_at >= TELL_S:
            self._read_at = time.monotonic()
            self._channel.send(Tick(captured_at_us=at_us))

    def gap(self, reason: str, detail: dict[str, object]) -> None:
        """Send a gap."""
        self.interpreter.lost()
        GAPS.labels(*self.labels, reason).inc()
        log.warning("gap", cluster=self.labels[0], reason=reason, **{k: v for k, v in detail.items() if k != "hash"})
        self._channel.send(Gap(captured_at_us=now_us(), reason=reason, detail=detail))
