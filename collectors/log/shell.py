"""The log collector: follows a server's log, reads and interprets it, sends what it witnesses.

Where it stands is written to a state file only after the broker has confirmed what came before: a restart reads on
from there, what it sends again has the place it had, and the fold drops it. What cannot be read is counted, and told
as a gap with a keyed hash of it.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import structlog
from msgspec import Struct
from prometheus_client import Counter, Gauge
from psycopg.conninfo import conninfo_to_dict

from collectors.connection import instance_name
from collectors.context import Context, now_us
from collectors.log import csvlog
from collectors.log.csvlog import CsvLog
from collectors.log.follow import READ_BYTES, FileState, Followed, Follower
from collectors.log.interpret import Interpreter, Memory
from collectors.log.jsonlog import JsonLog
from collectors.log.record import LogRecord, Times, Unreadable
from collectors.log.splitting import CsvSplitter, JsonSplitter, Piece, Splitter, StderrSplitter
from collectors.log.stderr import Prefix, StderrLog
from collectors.publisher import Channel
from collectors.statefile import StateFile
from pgwitness.config import Log
from pgwitness.errors import ConfigurationError, Retry
from pgwitness.events import Gap
from pgwitness.privacy import tokenizer

DELIVERY_S_MAX = 30.0
STORE_S = 1.0
"""How often at most the state is written; after a crash, events of that long are sent again."""
IDLE_S = 1.0
"""After how long without a byte nothing is waited for any more."""
TELL_S = 1.0
"""How often at most unreadable lines are told of."""

LABELS = ["cluster", "instance"]
LINES = Counter("pgwitness_log_messages", "Messages of the server's log that were read.", LABELS)
BYTES = Counter("pgwitness_log_bytes", "Bytes of the server's log that were read.", LABELS)
UNREADABLE = Counter("pgwitness_log_unreadable", "Lines of the server's log that are no message.", LABELS)
INVALID = Counter("pgwitness_log_invalid_text", "Messages with bytes that are no UTF-8; they were read.", LABELS)
PARSED = Counter("pgwitness_log_statements_parsed", "Distinct statements that had to be parsed.", LABELS)
GAPS = Counter("pgwitness_log_gaps", "Gaps in the server's log.", [*LABELS, "reason"])
UNREAD = Gauge("pgwitness_log_unread_bytes", "Bytes of the log's files that are not read yet.", LABELS)

log = structlog.get_logger("log")


class State(Struct):
    """What is kept over a restart; `epoch_us` and a file's number name a log for ever."""

    epoch_us: int
    next_number: int = 1
    files: list[FileState] = []
    memory: Memory = Memory()


class Parser(Protocol):
    """Reads one message."""

    invalid_utf8: int

    def parse(self, record: bytes, /) -> LogRecord:
        """Read one message. Raises `Unreadable`."""


def check(context: Context) -> None:
    """Raise `ConfigurationError` when the log cannot be collected as configured."""
    settings = context.cluster.log
    assert settings is not None
    where = f"clusters.{context.name}.log"
    if settings.from_ in ("kafka", "sql"):
        raise ConfigurationError(f"{where}.from: {settings.from_!r} is not part of this release; use file or stdin")
    if settings.from_ == "file" and not settings.path:
        raise ConfigurationError(f'{where}.path is empty; name the files, such as "/var/log/postgresql/*.json"')
    formats(settings)


def formats(settings: Log) -> tuple[Callable[[], Splitter], Parser]:
    """Give how a log of the configured format is cut and read. Raises `ConfigurationError`."""
    times = Times(settings.timezone)
    if settings.format == "jsonlog":
        return JsonSplitter, JsonLog(times)
    if settings.format == "csvlog":
        return lambda: CsvSplitter(csvlog.is_record), CsvLog(times)
    prefix = Prefix(settings.line_prefix)
    return lambda: StderrSplitter(prefix), StderrLog(times, prefix)


def run(context: Context, stop: threading.Event) -> None:
    """Collect the log of a cluster until `stop`. Raises `Retry` when the broker is lost."""
    check(context)
    settings = context.cluster.log
    assert settings is not None
    part = f"log {context.name}"
    channel = context.publisher.channel(context.name, "log", instance_name(context.cluster.dsn))
    channel.while_blocked = lambda: context.health.ready(part, "the broker does not take records; check that it runs")
    try:
        if settings.from_ == "stdin":
            _standard_input(context, settings, channel, part, stop)
        else:
            _files(context, settings, channel, part, stop)
    finally:
        channel.close()


def _files(context: Context, settings: Log, channel: Channel, part: str, stop: threading.Event) -> None:
    collector = FileCollector(context, settings, channel)
    try:
        while not stop.is_set():
            busy = collector.step()
            context.health.ready(part, collector.trouble)
            if not busy:
                stop.wait(settings.interval)
    finally:
        collector.end()


def _standard_input(
    context: Context, settings: Log, channel: Channel, part: str, stop: threading.Event, descriptor: int | None = None
) -> None:
    """Read standard input to its end. There is no way back in it: what a crash leaves unconfirmed is lost."""
    source = sys.stdin.fileno() if descriptor is None else descriptor
    reading = Reading(context, settings, channel)
    began_us, offset = now_us(), 0
    stream = reading.stream(f"stdin-{began_us:x}", 0)
    quiet_since, ended = time.monotonic(), False
    while not stop.is_set():
        context.health.ready(part)
        reading.tell()
        if ended:
            stop.wait(IDLE_S)
            continue
        if select.select([source], [], [], settings.interval)[0]:
            data = os.read(source, READ_BYTES)
            ended = not data
            offset += len(data)
            stream.take(data)
            quiet_since = time.monotonic()
        if ended or time.monotonic() - quiet_since >= IDLE_S:
            stream.idle()
            reading.idle(stream)
        if ended:
            log.info("standard input has ended", cluster=context.name, bytes=offset)
            channel.flush(DELIVERY_S_MAX)


@dataclass
class Stream:
    """One file, or standard input, on its way through splitter, parser and interpreter."""

    reading: Reading
    name: str
    splitter: Splitter
    offset: int

    def take(self, data: bytes) -> None:
        """Take the next bytes."""
        self.reading.pieces(self, self.splitter.feed(data))

    def idle(self) -> None:
        """Take as whole what nothing has followed."""
        self.reading.pieces(self, self.splitter.idle())


class Reading:
    """What one log's bytes go through, whatever source they come from."""

    def __init__(self, context: Context, settings: Log, channel: Channel) -> None:
        self._make_splitter, self._parser = formats(settings)
        self._token = tokenizer(context.key)
        self._channel = channel
        labels = (context.name, instance_name(context.cluster.dsn))
        self._labels = labels
        role = conninfo_to_dict(context.cluster.dsn).get("user")
        self.interpreter = Interpreter(self._token, settings.format, str(role) if role else None)
        self._lines, self._bytes = LINES.labels(*labels), BYTES.labels(*labels)
        self._unreadable, self._invalid = UNREADABLE.labels(*labels), INVALID.labels(*labels)
        self._parsed = PARSED.labels(*labels)
        self._untold: dict[str, object] = {}
        self._untold_lines = 0
        self._untold_bytes = 0
        self._told_at = 0.0

    def stream(self, name: str, offset: int) -> Stream:
        """Begin a file at an offset."""
        return Stream(self, name, self._make_splitter(), offset)

    def pieces(self, stream: Stream, pieces: Iterable[Piece]) -> None:
        """Read and interpret records, and send what they witness."""
        parse, read, send = self._parser.parse, self.interpreter.read, self._channel.send
        parsed, invalid = self.interpreter.texts.parsed, self._parser.invalid_utf8
        at_us = now_us()
        lines = 0
        begin = stream.offset
        for length, data, readable in pieces:
            offset = stream.offset
            stream.offset = offset + length
            if not readable:
                if data:
                    self._refuse(stream.name, offset, data, "no end, or no beginning")
                continue
            lines += 1
            try:
                record = parse(data)
            except Unreadable as error:
                self._refuse(stream.name, offset, data, str(error))
                continue
            for event in read(record, stream.name, offset, at_us):
                send(event)
        self._lines.inc(lines)
        self._bytes.inc(stream.offset - begin)
        self._parsed.inc(self.interpreter.texts.parsed - parsed)
        self._invalid.inc(self._parser.invalid_utf8 - invalid)

    def idle(self, stream: Stream) -> None:
        """Let go what waited for a further line; its place is the last byte that was read."""
        for event in self.interpreter.idle(stream.name, max(0, stream.offset - 1)):
            self._channel.send(event)

    def _refuse(self, name: str, offset: int, data: bytes, reason: str) -> None:
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
        """Tell of unreadable lines, of many at once."""
        if self._untold_lines and time.monotonic() - self._told_at >= TELL_S:
            self.gap("log_unreadable", {**self._untold, "lines": self._untold_lines, "bytes": self._untold_bytes})
            self._untold_lines = self._untold_bytes = 0
            self._told_at = time.monotonic()

    def gap(self, reason: str, detail: dict[str, object]) -> None:
        """Send a gap."""
        self.interpreter.lost()
        GAPS.labels(*self._labels, reason).inc()
        log.warning("gap", cluster=self._labels[0], reason=reason, **{k: v for k, v in detail.items() if k != "hash"})
        self._channel.send(Gap(captured_at_us=now_us(), reason=reason, detail=detail))


class FileCollector:
    """Follows the files of one log and keeps where it stands."""

    def __init__(self, context: Context, settings: Log, channel: Channel) -> None:
        self._settings = settings
        self._channel = channel
        self._reading = Reading(context, settings, channel)
        self._unread = UNREAD.labels(context.name, instance_name(context.cluster.dsn))
        self._file = StateFile(context.config.collectors.state_path, f"log-{context.name}", State)
        stored = self._file.load()
        self._state = stored or State(now_us())
        self._streams: dict[int, Stream] = {}
        self._follower = Follower(
            settings.path,
            stored.files if stored is not None else None,
            self._state.next_number,
            from_end=settings.start == "end",
        )
        self._reading.interpreter.remember(self._state.memory)
        self._last: Stream | None = None
        self._dirty = stored is None
        self._missing = False
        # Where the first start began is stored at once: a crash must not make it begin later.
        self._stored_at = time.monotonic() if stored is not None else 0.0
        self._quiet_since = time.monotonic()
        self._released = False
        self.trouble: str | None = None
        """Why nothing can be read at the moment."""
        if self._file.problem is not None:
            self._reading.gap("collector_state_lost", {"problem": self._file.problem})

    def step(self) -> bool:
        """Look, read what there is, send it; from time to time, remember how far that was. False when it is quiet."""
        follower = self._follower
        follower.look()
        for loss in follower.losses:
            self._reading.gap(loss.reason, {"file": loss.name, "offset": loss.offset})
        follower.losses.clear()
        busy = self._read(follower)
        now = time.monotonic()
        if busy:
            self._quiet_since, self._dirty, self._released = now, True, False
        elif not self._released and now - self._quiet_since >= IDLE_S:
            self._released = self._dirty = True
            for stream in self._streams.values():
                stream.idle()
            if self._last is not None:
                self._reading.idle(self._last)
        self._look_out()
        self._reading.tell()
        if self._dirty and now - self._stored_at >= STORE_S:
            self._store()
        return busy

    def _read(self, follower: Follower) -> bool:
        busy = False
        for followed, data in follower.read():
            if not data:
                continue
            busy = True
            stream = self._stream(followed)
            stream.take(data)
            followed.state.offset = stream.offset
            self._last = stream
            if time.monotonic() - self._stored_at >= STORE_S:
                self._store()
        known = {followed.state.number for followed in follower.files}
        for number in [number for number in self._streams if number not in known]:
            del self._streams[number]
        return busy

    def _stream(self, followed: Followed) -> Stream:
        number = followed.state.number
        stream = self._streams.get(number)
        if stream is None:
            name = f"{self._state.epoch_us:x}-{number}"
            stream = self._streams[number] = self._reading.stream(name, followed.state.offset)
        return stream

    def _look_out(self) -> None:
        """Notice that there is nothing to follow; a gap each time it begins."""
        files = self._follower.files
        self._unread.set(sum(max(0, followed.size - followed.position) for followed in files))
        if files and self._follower.there:
            self._missing, self.trouble = False, None
            return
        self.trouble = (
            f"no file matches {self._settings.path}; check log_directory, log_filename and who may read there"
        )
        if not self._missing:
            self._missing = True
            self._reading.gap("log_missing", {"path": self._settings.path})

    def end(self) -> None:
        """Remember how far it came, if the broker still takes what led to it."""
        try:
            self._store()
        except Retry as error:
            log.warning("the last lines are read again after the restart", reason=str(error))
        finally:
            self._follower.close()

    def _store(self) -> None:
        self._channel.flush(DELIVERY_S_MAX)
        state = self._state
        for followed in self._follower.files:
            stream = self._streams.get(followed.state.number)
            if stream is not None:
                followed.state.offset = stream.offset
        state.files = [followed.state for followed in self._follower.files]
        state.next_number = self._follower.next_number
        state.memory = self._reading.interpreter.memory
        self._file.store(state)
        self._stored_at = time.monotonic()
        self._dirty = False
