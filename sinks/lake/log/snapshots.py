"""Snapshots: what the chain amounts to up to an entry, so that nobody has to read it from its beginning. Pure.

A snapshot of entry N is a function of the entries up to N and named by N, so that two writers write the same bytes. A
*base* has the live files of every `BASE_EVERY`-th entry; a *tail* comes with every commit and has what is other than
in its base, and how far each partition has landed. `head.json` names the newest tail: a hint, and nothing rests on it.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from pgwitness.core.events import Position
from sinks.lake.log.chain import NUMBER_MAX, UNREADABLE, File, Hold, Reached, Retirement, State, is_own

FOLDER = "_snapshots"
HEAD = "head.json"
BASE_EVERY = 128
KEPT = 16
"""Tails that stay, for readers that have just opened one."""


class Base(Struct, frozen=True):
    """The live files at entry `number`."""

    number: int
    files: list[File]


class End(Struct, frozen=True):
    """How far a partition has landed; `marks` are all of its high-water marks."""

    topic: str
    partition: int
    end: int
    marks: list[tuple[int, int, int, int]]
    at_us: int


class Tail(Struct, frozen=True, omit_defaults=True):
    """What is other than at base `base`, the ends, the holds, and all that retention took, ever.

    `sha256` is of the bytes of entry `number`.
    """

    number: int
    sha256: str
    lake: str
    base: int
    files: list[File]
    removes: list[str]
    ends: list[End]
    holds: list[Hold]
    retired: list[Retirement] = []


class Head(Struct, frozen=True):
    """The newest snapshot that its writer knew."""

    number: int
    base: str
    tail: str


_base = msgspec.json.Decoder(Base)
_tail = msgspec.json.Decoder(Tail)
_head = msgspec.json.Decoder(Head)


def base_of(number: int) -> int:
    """Give the entry at which the base of entry `number` stands."""
    return number - number % BASE_EVERY


def base_name(number: int) -> str:
    """Name the base of entry `number`."""
    return f"{FOLDER}/base-{base_of(number):012d}.json"


def tail_name(number: int) -> str:
    """Name the tail of entry `number`."""
    return f"{FOLDER}/tail-{number:012d}.json"


def encode_head(number: int) -> bytes:
    """Write the hint at entry `number`."""
    return _line(Head(number, base_name(number), tail_name(number)))


def encode_base(state: State) -> bytes:
    """Write the base that a state stands on."""
    live = {path: file for path, file in state.live.items() if path not in state.added} | state.removed
    return _line(Base(base_of(state.number), [live[path] for path in sorted(live)]))


def encode_tail(state: State) -> bytes:
    """Write the tail of a state."""
    ends = [
        End(
            topic,
            partition,
            reached.end,
            [(lane, raw, at.offset, at.index) for (lane, raw), at in sorted(reached.marks.items())],
            reached.at_us,
        )
        for (topic, partition), reached in sorted(state.ends.items())
    ]
    return _line(
        Tail(
            number=state.number,
            sha256=state.sha256 or "",
            lake=state.lake,
            base=base_of(state.number),
            files=[state.added[path] for path in sorted(state.added)],
            removes=sorted(state.removed),
            ends=ends,
            holds=[state.holds[name] for name in sorted(state.holds)],
            retired=[state.retired[key] for key in sorted(state.retired)],
        )
    )


def rebase(state: State) -> None:
    """Let a state that has come to a base stand on it; call after each entry."""
    if state.number == base_of(state.number):
        state.added, state.removed = {}, {}


def decode_head(content: bytes) -> int | None:
    """Read which entry the hint names, None when it is none."""
    try:
        number = _head.decode(content).number
    except UNREADABLE:
        return None
    return number if 0 <= number <= NUMBER_MAX else None


def sha256_in(tail: bytes) -> str | None:
    """Read which entry a tail was made of, by its SHA-256; None when it is no tail."""
    try:
        return _tail.decode(tail).sha256
    except UNREADABLE:
        return None


def decode(base: bytes, tail: bytes) -> State:
    """Make the state of a snapshot. Raises `ValueError` when the two are none, or do not belong together."""
    try:
        below, above = _base.decode(base), _tail.decode(tail)
    except UNREADABLE as error:
        raise ValueError(f"not a snapshot: {error}") from error
    if below.number != above.base or above.base != base_of(above.number):
        raise ValueError("base and tail do not belong together")
    if not all(is_own(file) for file in (*below.files, *above.files)):
        raise ValueError("a file has no place of its table's")
    live = {file.path: file for file in below.files}
    try:
        removed = {path: live.pop(path) for path in above.removes}
    except KeyError as error:
        raise ValueError("the tail removes what is not in the base") from error
    added = {file.path: file for file in above.files}
    ends = {
        (one.topic, one.partition): Reached(
            one.end, {(lane, raw): Position(raw, at, index) for lane, raw, at, index in one.marks}, one.at_us
        )
        for one in above.ends
    }
    holds = {hold.id: hold for hold in above.holds}
    retired = {one.key: one for one in above.retired}
    return State(above.number, above.sha256, above.lake, live | added, ends, holds, added, removed, retired)


def _line(content: Struct) -> bytes:
    return msgspec.json.encode(content) + b"\n"
