"""The chain of a lake: what its entries say, which may follow which, and what all of them together amount to. Pure.

Entry N is the file `_log/…/N.json`. It names the SHA-256 of entry N-1, so that neither can change nor go without being
seen, and says what has become of the lake: ranges of partitions that landed in new files (`land`), files that others
take the place of (`replace`) or that went (`retire`), and holds that forbid that (`hold`, `release`). Entry 0 is
`begin`. `State` is the sum of the entries up to one; how an entry is put behind the last one is
`sinks.lake.log.protocol`'s part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Struct

from pgwitness.core.errors import NotInOrder, Stop
from pgwitness.core.events import Position
from sinks.lake.log import layout, rows_proof
from sinks.lake.rows.schema import TABLES

FORMAT = "pgwitness-lake/2"
ENTRY_BYTES_MAX = 60_000
"""Longer lists of files lie in a file of their own, named by its SHA-256: a transparency log takes 65,535 at most."""
NUMBER_MAX = 10**12 - 1
"""What twelve digits of a name can say."""
FOLDER = "_log"

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no JSON of a type, are no UTF-8, or nest too deep."""

HighWater = dict[tuple[int, int], Position]
"""By lane and raw partition: the position of the last event that landed."""


class File(Struct, frozen=True, omit_defaults=True):
    """One Parquet file: its table, path in the lake, rows, bytes, hash, and the version of its columns.

    `digest` is what its rows add up to (`sinks.lake.rows.digest`); None where it was landed before there was one.
    """

    table: str
    path: str
    rows: int
    bytes: int
    sha256: str
    schema_version: int
    digest: str | None = None

    @property
    def days(self) -> tuple[str, str]:
        """The first and the last UTC day of capture that may stand in it."""
        return layout.days_of(self.path)


class Range(Struct, frozen=True):
    """Offsets `start` to `end` (exclusive) of a partition; `marks` are the high-water marks that moved with them.

    A mark is `[lane, raw partition, offset, index]`.
    """

    topic: str
    partition: int
    start: int
    end: int
    marks: list[tuple[int, int, int, int]]

    @property
    def source(self) -> tuple[str, int]:
        """Topic and partition."""
        return self.topic, self.partition


class Retired(Struct, frozen=True):
    """What is kept of a file that went."""

    path: str
    sha256: str
    rows: int


class _Entry(Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What every entry has: format, number, SHA-256 of its predecessor's bytes, and its writer's clock."""

    format: str = FORMAT
    number: int
    predecessor: str | None
    at_us: int


class Begin(_Entry, frozen=True, kw_only=True, tag="begin"):
    """Entry 0: the lake's id, and what an older version had landed, if there was one."""

    lake: str
    ranges: list[Range] = []
    files: list[File] = []
    more: str | None = None


class Land(_Entry, frozen=True, kw_only=True, tag="land"):
    """One commit: ranges of one or more partitions are in `files`, once."""

    ranges: list[Range]
    files: list[File]
    more: str | None = None


class Replace(_Entry, frozen=True, kw_only=True, tag="replace"):
    """Files that hold the rows of others, which go."""

    removes: list[str]
    files: list[File]
    more: str | None = None


class Retire(_Entry, frozen=True, kw_only=True, tag="retire"):
    """Files whose time is over, and why."""

    removes: list[Retired]
    reason: str


class Hold(_Entry, frozen=True, kw_only=True, tag="hold"):
    """From now on nothing of these days of capture goes (without days: nothing at all); who says so, and why.

    With a principal (its token) or relation, what may have its rows is not retired, but may be replaced.
    """

    id: str
    by: str
    why: str
    first_day: str | None = None
    last_day: str | None = None
    principal: str | None = None
    relation: str | None = None

    @property
    def freezes(self) -> bool:
        """Whether the files that it covers stay as they are, to the byte."""
        return self.principal is None and self.relation is None

    def covers(self, first_day: str, last_day: str) -> bool:
        """Say whether files of these days are held, if only one of them is."""
        return (self.first_day or "") <= last_day and first_day <= (self.last_day or "9999-12-31")


class Release(_Entry, frozen=True, kw_only=True, tag="release"):
    """The end of a hold."""

    id: str
    by: str
    why: str


Entry = Begin | Land | Replace | Retire | Hold | Release


class Retirement(Struct, frozen=True):
    """What retention took of a table, or of one kind of event in it, out of one month of capture, for one reason.

    `first_day` and `last_day` bound the days (a month's last is its 31st, as `layout.days_of` has it), between which
    held ones may have stayed; `at_us` is when an entry took the last of it, by its writer's clock.
    """

    table: str
    kind: str | None
    first_day: str
    last_day: str
    files: int
    rows: int
    at_us: int
    reason: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What one is told apart by: a lake has few of them a year, however many files went."""
        return self.table, self.kind or "", self.first_day[:7], self.reason

    def with_more(self, other: Retirement) -> Retirement:
        """Add another one of the same key."""
        return Retirement(
            self.table,
            self.kind,
            min(self.first_day, other.first_day),
            max(self.last_day, other.last_day),
            self.files + other.files,
            self.rows + other.rows,
            max(self.at_us, other.at_us),
            self.reason,
        )


class More(Struct, frozen=True):
    """The file that an entry's `more` names by its SHA-256: what was too long to stand in the entry itself."""

    files: list[File]
    removes: list[str] = []
    ranges: list[Range] = []


class Reached(Struct):
    """How far a partition has landed: the next offset, all its marks, and when it last did, by the writer's clock."""

    end: int
    marks: HighWater
    at_us: int


_entry = msgspec.json.Decoder(Entry)
_more = msgspec.json.Decoder(More)


def digest(content: bytes) -> str:
    """Hash what a file holds (SHA-256, hex)."""
    return hashlib.sha256(content).hexdigest()


def entry_name(number: int) -> str:
    """Name entry `number`: its digits in threes, so that no folder holds more than a thousand."""
    digits = f"{number:012d}"
    return f"{FOLDER}/{digits[:6]}/{digits[6:9]}/{digits[9:]}.json"


def more_name(sha256: str) -> str:
    """Name the file that holds what an entry leaves out."""
    return f"{FOLDER}/more/{sha256}.json"


def encode(entry: Entry) -> tuple[bytes, bytes | None]:
    """Write an entry as one line of JSON; where that is too long, what it leaves out comes beside it.

    Raise `NotInOrder` for a text that is too long for an entry, which nobody could seal, or is no Unicode.
    """
    try:
        content = _line(entry)
    except UnicodeEncodeError as error:
        raise NotInOrder(
            f"a text that is to stand in the lake's log is not Unicode ({error}): write it anew"
        ) from error
    if len(content) <= ENTRY_BYTES_MAX:
        return content, None
    if not isinstance(entry, Begin | Land | Replace):
        raise NotInOrder(
            f"an entry of the lake's log has {ENTRY_BYTES_MAX:,} bytes at most, and this one would have "
            f"{len(content):,}: shorten its texts, and keep the long one elsewhere"
        )
    removes = entry.removes if isinstance(entry, Replace) else []
    short: dict[str, Any] = {"files": [], "more": "0" * 64}
    if removes:
        short["removes"] = []
    left = More(entry.files, removes)
    if not isinstance(entry, Replace) and len(_line(msgspec.structs.replace(entry, **short))) > ENTRY_BYTES_MAX:
        left, short["ranges"] = More(entry.files, ranges=entry.ranges), []
    more = _line(left)
    return _line(msgspec.structs.replace(entry, **(short | {"more": digest(more)}))), more


def decode(content: bytes, number: int) -> Entry:
    """Read entry `number`. Raises `Stop` when it is damaged or of a newer format."""
    try:
        entry: Entry = _entry.decode(content)
    except UNREADABLE as error:
        known = _format(content)
        if known not in (None, FORMAT):
            raise Stop(_newer(number, str(known))) from error
        raise Stop(f"{entry_name(number)}: not an entry ({error}); restore it from a copy of the lake") from error
    if entry.format != FORMAT:
        raise Stop(_newer(number, entry.format))
    return entry


def whole(entry: Entry, more: bytes | None) -> Entry:
    """Put back what an entry left out. Raises `Stop` when that is not what its hash says."""
    wanted: str | None = getattr(entry, "more", None)
    if wanted is None or not isinstance(entry, Begin | Land | Replace):
        return entry
    if more is None or digest(more) != wanted:
        raise Stop(f"{more_name(wanted)} is missing or altered: restore it from a copy of the lake")
    try:
        found = _more.decode(more)
    except UNREADABLE as error:
        raise Stop(f"{more_name(wanted)}: not a list of files ({error}); restore it from a copy of the lake") from error
    put_back: Entry
    if isinstance(entry, Replace):
        put_back = msgspec.structs.replace(entry, files=found.files, removes=found.removes or entry.removes)
    else:
        put_back = msgspec.structs.replace(entry, files=found.files, ranges=found.ranges or entry.ranges)
    return put_back


@dataclass
class State:
    """What the entries up to `number` amount to; of a chain without entries, number -1.

    `added` and `removed` are what `live` has other than at the last base (`sinks.lake.log.snapshots`).
    """

    number: int = -1
    sha256: str | None = None
    lake: str = ""
    live: dict[str, File] = field(default_factory=dict)
    ends: dict[tuple[str, int], Reached] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    added: dict[str, File] = field(default_factory=dict)
    removed: dict[str, File] = field(default_factory=dict)
    retired: dict[tuple[str, str, str, str], Retirement] = field(default_factory=dict)
    """What retention took, ever: a reader has to be able to say what is not there any more, and why."""

    def end(self, source: tuple[str, int]) -> int:
        """Give the first offset of a partition that has not landed."""
        reached = self.ends.get(source)
        return reached.end if reached else 0

    def continues(self, one: Range) -> bool:
        """Say whether a range begins where its partition ends."""
        return one.start == self.end(one.source) and one.end > one.start

    def held(self, path: str) -> bool:
        """Say whether a hold forbids that others take the place of a live file."""
        return any(hold.freezes and hold.covers(*self.live[path].days) for hold in self.holds.values())

    def kept(self, path: str) -> bool:
        """Say whether a hold forbids that the rows of a live file go."""
        return any(hold.covers(*self.live[path].days) for hold in self.holds.values())

    def removable(self, paths: Iterable[str]) -> bool:
        """Say whether all of these files are live and others may take their place."""
        return all(path in self.live and not self.held(path) for path in paths)

    def retirable(self, paths: Iterable[str]) -> bool:
        """Say whether all of these files are live and their rows may go."""
        return all(path in self.live and not self.kept(path) for path in paths)


def problem(state: State, entry: Entry) -> str | None:
    """Say why an entry cannot follow, None when it can."""
    if entry.number != state.number + 1:
        return f"it says that it is number {entry.number}"
    if entry.predecessor != state.sha256:
        return "its predecessor is another one"
    if isinstance(entry, Begin) != (entry.number == 0):
        return "a lake begins once, with entry 0"
    return _disagrees(state, entry)


def _disagrees(state: State, entry: Entry) -> str | None:
    match entry:
        case Begin(ranges=ranges, files=files) | Land(ranges=ranges, files=files):
            return _apart(state, ranges) or _strange(state, files)
        case Replace(removes=removes, files=files):
            proven = rows_proof.problem([state.live[path] for path in removes if path in state.live], files)
            return _gone(state, removes, state.held) or _strange(state, files) or proven
        case Retire(removes=retired):
            return _gone(state, [one.path for one in retired], state.kept)
        case Hold(id=name):
            return f"there is a hold {name}" if name in state.holds else None
        case Release(id=name):
            return None if name in state.holds else f"there is no hold {name}"


def apply(state: State, entry: Entry, sha256: str) -> None:
    """Take the next entry, whose bytes have this hash. Raises `Stop` when it cannot follow."""
    why = problem(state, entry)
    if why is not None:
        raise Stop(
            f"{entry_name(state.number + 1)} does not follow the entry before it: {why}. Somebody has altered the "
            "lake, or put an older copy of it back in part: restore the folder _log from a copy"
        )
    match entry:
        case Begin() | Land():
            if isinstance(entry, Begin):
                state.lake = entry.lake
            for one in entry.ranges:
                reached = state.ends.setdefault(one.source, Reached(0, {}, 0))
                reached.end, reached.at_us = one.end, entry.at_us
                reached.marks.update({(lane, raw): Position(raw, at, index) for lane, raw, at, index in one.marks})
            _add(state, entry.files)
        case Replace():
            _remove(state, entry.removes)
            _add(state, entry.files)
        case Retire():
            _retire(state, entry)
            _remove(state, [one.path for one in entry.removes])
        case Hold():
            state.holds[entry.id] = entry
        case Release():
            del state.holds[entry.id]
    state.number, state.sha256 = entry.number, sha256


def is_own(file: File) -> bool:
    """Say whether a file has a place that a lake gives to its table: no entry brings in what lies elsewhere."""
    return file.table in TABLES and layout.table_of(file.path) == file.table


def _apart(state: State, ranges: list[Range]) -> str | None:
    if len({one.source for one in ranges}) != len(ranges):
        return "it lands a partition twice"
    for one in ranges:
        if not state.continues(one):
            return f"{one.topic}-{one.partition} does not end at {one.start}"
    return None


def _strange(state: State, files: list[File]) -> str | None:
    new: set[str] = set()
    for file in files:
        if not is_own(file):
            return f"{file.path!r} is no place of table {file.table}"
        if file.path in state.live or file.path in new:
            return f"{file.path} is there already"
        new.add(file.path)
    return None


def _gone(state: State, paths: list[str], held: Callable[[str], bool]) -> str | None:
    if len(set(paths)) != len(paths):
        return "it removes a file twice"
    for path in paths:
        if path not in state.live:
            return f"{path} is not there to be removed"
        if held(path):
            return f"{path} is held"
    return None


def _add(state: State, files: list[File]) -> None:
    for file in files:
        state.live[file.path] = state.added[file.path] = file


def _remove(state: State, paths: list[str]) -> None:
    for path in paths:
        file = state.live.pop(path)
        if state.added.pop(path, None) is None:
            state.removed[path] = file


def _retire(state: State, entry: Retire) -> None:
    for one in entry.removes:
        file = state.live[one.path]
        taken = Retirement(file.table, layout.kind_in(one.path), *file.days, 1, one.rows, entry.at_us, entry.reason)
        before = state.retired.get(taken.key)
        state.retired[taken.key] = before.with_more(taken) if before else taken


def _line(content: Struct) -> bytes:
    return msgspec.json.encode(content) + b"\n"


def _format(content: bytes) -> object:
    try:
        return msgspec.json.decode(content, type=dict[str, Any]).get("format")
    except UNREADABLE:
        return None


def _newer(number: int, found: str) -> str:
    return f"{entry_name(number)}: format {found!r}, this program knows {FORMAT!r}; update pgwitness on this host"
