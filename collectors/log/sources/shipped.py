"""Lines of the log as a shipper puts them into Kafka, and the places they have there. Pure.

A record is a line as it is, or a JSON object that holds one under a key (Fluent Bit's `log`, Vector's `message`), or a
line of jsonlog that the shipper has taken apart into such an object already. Shippers read files line by line: a
message of several lines comes as several records, between which others may come from other files. So the records of
one partition are sorted into sources again, by what they say of their host and file, and each source is put together
as a file is.

The place of an event is the offset of the record in which its line begins, and its number among the events of that
record. Where a source stands within a message is its position: the record, the bytes of it that are used, and how many
events it has given. Reading again from positions gives the same events the same places.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import Struct

from collectors.log.formats.envelopes import lines, unframed
from collectors.log.formats.record import Unreadable
from pgwitness.core.config import Log

SOURCE_CHARS = 12
HOST_CHARS_MAX = 255
NAMES_MAX = 1_000


class Shipped(Struct, frozen=True, gc=False):
    """A record: what its source is called, the host it names, and its line or lines, without the last one's end."""

    source: str
    host: str | None
    data: bytes


class Unwrapper:
    """Takes the lines out of records."""

    def __init__(self, settings: Log) -> None:
        host = settings.instance_field if settings.instances else ""
        self._objects = settings.format == "jsonlog"
        self._wrapped = bool(settings.field or settings.instances)
        self._names: dict[tuple[str, ...], str] = {}
        self._by_key: dict[bytes | None, str] = {}
        self._known: dict[tuple[object, ...], str] = {}
        asked = [name for name in (settings.field, *settings.source_fields, host, "error_severity") if name]
        # Only what is asked for is made of a record; a name with a point may be a key or a path.
        keys = list(dict.fromkeys(key for name in asked for key in (name, name.split(".", 1)[0])))
        fields = [(f"f{place}", Any, None) for place in range(len(keys))]
        names = {f"f{place}": key for place, key in enumerate(keys)}
        record = msgspec.defstruct("Record", fields, rename=names, gc=False)
        self._decode = msgspec.json.Decoder(record).decode
        self._line = _getter(settings.field, keys) if settings.field else None
        self._host = _getter(host, keys) if host else None
        self._severity = _getter("error_severity", keys)
        self._said = _all(settings.source_fields, keys)

    def read(self, value: bytes, key: bytes | None) -> Shipped:
        """Read one record. Raise `Unreadable`."""
        if not self._wrapped:
            return Shipped(self._keyed(key), None, value.removesuffix(b"\n"))
        try:
            found = self._decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Unreadable("a record that is no JSON object") from None
        line = self._line(found) if self._line is not None else None
        if isinstance(line, str):
            data = line.encode("utf-8", "replace")
        elif isinstance(line, dict):
            data = b"\n".join(lines(line)) or msgspec.json.encode(line)
        elif isinstance(line, list) and (held := lines(line)):
            data = b"\n".join(held)
        elif self._objects and self._severity(found) is not None:
            data = value if b"\n" not in value else msgspec.json.encode(msgspec.json.decode(value))
        else:
            raise Unreadable("a record without the field that log.field names")
        host = self._host(found) if self._host is not None else None
        source = self._source(self._said(found), key)
        return Shipped(source, str(host)[:HOST_CHARS_MAX] if host is not None else None, data.removesuffix(b"\n"))

    def messages(self, value: bytes) -> list[bytes]:
        """Return what one line of a file holds, each message whole. Raise `Unreadable`."""
        value, _ = unframed(value)
        try:
            found = self._decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Unreadable("a record that is no JSON object") from None
        held = lines(self._line(found)) if self._line is not None else []
        if not held and self._severity(found) is not None:
            held = [value]
        if not held:
            raise Unreadable("a record without the field that log.field names")
        return held

    def _source(self, values: tuple[object, ...], key: bytes | None) -> str:
        """Name a source by what the record says of it, or else by the record's key."""
        try:
            name = self._known.get(values)
        except TypeError:  # an object or a list among them
            name = None
        if name is None:
            said = tuple(str(value) for value in values if value is not None)
            if not said:
                return self._keyed(key)
            name = self._name(*said)
            if all(value is None or isinstance(value, str) for value in values):
                if len(self._known) >= NAMES_MAX:
                    self._known.clear()
                self._known[values] = name
        return name

    def _keyed(self, key: bytes | None) -> str:
        name = self._by_key.get(key)
        if name is None:
            name = self._name((key or b"").decode("latin-1"))
            if len(self._by_key) >= NAMES_MAX:
                self._by_key.clear()
            self._by_key[key] = name
        return name

    def _name(self, *said: str) -> str:
        name = self._names.get(said)
        if name is None:
            name = hashlib.sha256("\0".join(said).encode("utf-8", "replace")).hexdigest()[:SOURCE_CHARS]
            if len(self._names) >= NAMES_MAX:
                self._names.clear()
            self._names[said] = name
        return name


def _all(names: Sequence[str], keys: list[str]) -> Callable[[Any], tuple[object, ...]]:
    """Make what finds several keys in a record."""
    if len(names) > 1 and not any("." in name for name in names):
        return attrgetter(*(f"f{keys.index(name)}" for name in names))
    getters = [_getter(name, keys) for name in names]
    return lambda found: tuple([get(found) for get in getters])


def _getter(name: str, keys: list[str]) -> Callable[[Any], object]:
    """Make what finds a key in a record, or with `a.b` a key in an object."""
    plain = attrgetter(f"f{keys.index(name)}")
    if "." not in name:
        return plain
    first, *path = name.split(".")
    outer = attrgetter(f"f{keys.index(first)}")

    def find(found: Any) -> object:
        inner = plain(found)
        if inner is not None:
            return inner
        inner = outer(found)
        for part in path:
            if isinstance(inner, list):
                inner = [item.get(part) for item in inner if isinstance(item, dict)]
            else:
                inner = inner.get(part) if isinstance(inner, dict) else None
        return inner

    return find


class Position(Struct):
    """Where a source stands within a message: `skip` bytes of record `offset` are used and gave `index` events."""

    source: str
    offset: int
    skip: int = 0
    index: int = 0


class Places:
    """From the bytes of a source, counted as they came, to its records, and how many events each has given."""

    def __init__(self, start: Position | None = None) -> None:
        self._offset, self._index = (start.offset, start.index) if start is not None else (-1, 0)
        self._begin = 0
        self._coming: deque[tuple[int, int]] = deque()
        self._fed = 0

    def feed(self, offset: int, skip: int, length: int) -> None:
        """Take in that `length` bytes of a record come next, behind `skip` of it."""
        self._coming.append((self._fed - skip, offset))
        self._fed += length

    def at(self, used: int) -> tuple[int, int]:
        """Return the record in which the byte behind the first `used` lies, and how many events it has given so far.

        What comes before it is forgotten: `used` only grows.
        """
        coming = self._coming
        while coming and coming[0][0] <= used:
            self._begin, offset = coming.popleft()
            if offset != self._offset:
                self._offset, self._index = offset, 0
        return self._offset, self._index

    def gave(self, events: int) -> None:
        """Count events that the record of the last `at` has given."""
        self._index += events

    def position(self, source: str, used: int) -> Position:
        """Return the position behind the first `used` bytes."""
        begin, offset = next(
            (record for record in reversed(self._coming) if record[0] <= used), (self._begin, self._offset)
        )
        return Position(source, offset, used - begin, self._index if offset == self._offset else 0)


class PartitionState(Struct):
    """Where a partition stands: records before `next` are used, but for what `open` sources have of theirs."""

    partition: int
    next: int
    open: list[Position] = []

    @property
    def resume(self) -> int:
        """The record to begin with again."""
        return min([self.next, *(position.offset for position in self.open)])


class Replay:
    """Which records of a partition were used before a restart, by its state."""

    def __init__(self, state: PartitionState) -> None:
        self.until = state.next
        self._open = {position.source: position for position in state.open}

    def start(self, source: str) -> Position | None:
        """Where a source begins again; None when it begins with what is new."""
        return self._open.get(source)

    def rest(self, offset: int, shipped: Shipped) -> tuple[int, bytes] | None:
        """Return what of a record is still to be used, and how many bytes come before it; None when nothing is."""
        position = self._open.get(shipped.source)
        if position is None or offset < position.offset:
            return (0, shipped.data) if offset >= self.until else None
        skip = position.skip if offset == position.offset else 0
        return skip, shipped.data[skip:]
