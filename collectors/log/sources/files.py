"""The log as files, of this host or of the server's: follows them, and keeps where it stands in a state file.

The state is written only after the broker has confirmed what came before: a restart reads on from there, what it sends
again has the place it had, and the fold drops it. While the state cannot be written the log is collected all the same,
and the collector is not ready: a restart would then send more again, which costs time and no evidence.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from msgspec import Struct
from prometheus_client import Counter, Gauge

from collectors.context import Context, now_us
from collectors.log.interpretation.interpret import Memory
from collectors.log.reading import DELIVERY_S_MAX, IDLE_S, LABELS, STORE_S, Reading, Stream
from collectors.log.sources.follow import FileState, Followed, Following
from collectors.publisher import Channel
from collectors.statefile import StateFile
from pgwitness.core.config import Log
from pgwitness.core.errors import Retry

UNREAD = Gauge("pgwitness_log_unread_bytes", "Bytes of the log's files that are not read yet.", LABELS)
STATE_FAILURES = Counter(
    "pgwitness_log_state_failures", "Times that where the log collector stands could not be written.", LABELS
)

log = structlog.get_logger("log")
S = TypeVar("S", bound=Struct)


class State(Struct):
    """What is kept over a restart; `epoch_us` and a file's number name a log for ever."""

    epoch_us: int
    next_number: int = 1
    files: list[FileState] = []
    memory: Memory = Memory()


class FileCollector:
    """Follows the files of one log and keeps where it stands, in the state file `name`.

    `follow` makes what follows them: from the states of a predecessor, None at the first start ever, and the number of
    the next file.
    """

    @property
    def readings(self) -> tuple[Reading, ...]:
        """All that is read: one log."""
        return (self.reading,)

    def __init__(
        self,
        context: Context,
        settings: Log,
        channel: Channel,
        name: str,
        follow: Callable[[list[FileState] | None, int], Following],
    ) -> None:
        self._settings = settings
        self._channel = channel
        self.reading = Reading(context, settings, channel)
        self._unread = UNREAD.labels(*self.reading.labels)
        self._state_failures = STATE_FAILURES.labels(*self.reading.labels)
        self._file = StateFile(context.config.collectors.state_path, name, State)
        stored = self._file.load()
        self._state = stored or State(now_us())
        self._streams: dict[int, Stream] = {}
        self._follower = follow(stored.files if stored is not None else None, self._state.next_number)
        self.reading.interpreter.remember(self._state.memory)
        self._last: Stream | None = None
        self._first = self._dirty = stored is None
        self._missing = False
        # Where the first start began is stored at once: a crash must not make it begin later.
        self._stored_at = time.monotonic() if stored is not None else 0.0
        self._quiet_since = time.monotonic()
        self._released = False
        self._unstored: str | None = None
        self._read_us = 0
        """When the last look began of which every byte was read."""
        if self._file.problem is not None:
            self.reading.gap("collector_state_lost", {"problem": self._file.problem})

    @property
    def trouble(self) -> str | None:
        """Why nothing can be read at the moment, or not be remembered."""
        return self._follower.trouble or self._unstored

    def begin(self) -> None:
        """Look where the files end now: a first start reads from there on."""
        self._follower.look()

    def step(self) -> bool:
        """Look, read what there is, send it; from time to time, remember how far that was. False when it is quiet."""
        follower = self._follower
        begun_us, begun = now_us(), time.monotonic()
        follower.look()
        for loss in follower.losses:
            self.reading.gap(loss.reason, {"file": loss.name, "offset": loss.offset})
        follower.losses.clear()
        busy = self._read(follower)
        now = time.monotonic()
        if self._close_silent(now) or busy:
            self._quiet_since, self._dirty, self._released = now, True, False
        elif not self._released and now - self._quiet_since >= IDLE_S:
            self._released = self._dirty = True
            if self._last is not None:
                self.reading.idle(self._last)
        self._look_out()
        self.reading.tell()
        self._say_how_far(begun_us, begun)
        if self._dirty and now - self._stored_at >= STORE_S:
            self._store()
        return busy

    def _read(self, follower: Following) -> bool:
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
            self._streams.pop(number).idle()
        return busy

    def _close_silent(self, now: float) -> bool:
        """Take as whole what nothing has followed; says whether there was something.

        The last message of a file that was rotated has nobody to end it, however busy the next file is.
        """
        closed = False
        for stream in self._streams.values():
            if stream.splitter.waiting and now - stream.touched >= IDLE_S:
                before = stream.offset
                stream.idle()
                closed |= stream.offset != before
        return closed

    def _stream(self, followed: Followed) -> Stream:
        number = followed.state.number
        stream = self._streams.get(number)
        if stream is None:
            name = f"{self._state.epoch_us:x}-{number}"
            stream = self._streams[number] = self.reading.stream(name, followed.state.offset)
        return stream

    def _say_how_far(self, begun_us: int, begun: float) -> None:
        """Tell that the log was read as it was when a look began; a message without an end waits for the next look."""
        if self._missing or any(followed.size > followed.position for followed in self._follower.files):
            return
        waiting = [stream for stream in self._streams.values() if stream.splitter.waiting]
        if not waiting:
            self.reading.read_to(begun_us)
        elif self._read_us and all(stream.touched >= begun for stream in waiting):
            self.reading.read_to(self._read_us)  # what waited then has been followed by what waits now
        self._read_us = begun_us

    def _look_out(self) -> None:
        """Notice that there is nothing to follow; a gap each time it begins."""
        self._unread.set(sum(max(0, followed.size - followed.position) for followed in self._follower.files))
        trouble = self._follower.trouble
        if trouble is not None and not self._missing:
            self.reading.gap("log_missing", {"path": self._settings.path, "why": trouble})
        self._missing = trouble is not None

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
        state.memory = self.reading.interpreter.memory
        self._stored_at = time.monotonic()
        if self._first:
            # Nothing has been seen yet that could be lost by ending here; going on could, without a word.
            self._file.store(state)
            self._first = False
        else:
            self._unstored = store(self._file, state, self._state_failures, self._unstored)
        self._dirty = self._unstored is not None


def store(file: StateFile[S], state: S, failures: Counter, before: str | None) -> str | None:
    """Write a state; return why that is impossible, which is counted, and logged when it was not so `before`."""
    try:
        file.store(state)
    except Retry as error:
        failures.inc()
        if before is None:
            log.error("state not written; the log is read on, a restart would read again from before", error=str(error))
        return str(error)
    if before is not None:
        log.info("state written again", file=file.path.name)
    return None
