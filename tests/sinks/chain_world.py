"""A small world of writers of one lake, step by step: who goes next, and what becomes of a write, is chosen.

The writers run the real protocol (`sinks.lake.log.protocol`) on a store of names and bytes that may lose a write, or
its answer, or carry it out late. What they did is then held against a ledger by `World.verdict`, which reads the
entries by itself and shares no line with the code that wrote them. `Breaks` are ways in which the protocol could be
wrong.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator
from enum import Enum
from typing import Any

from sinks.lake.log import chain, protocol
from sinks.lake.log.chain import Entry, File, Hold, Land, Range, Release, Replace, Retire, Retired, State
from sinks.lake.log.protocol import Attempt, Create, Read

PARTITIONS = 3
RECORDS = 6
DAY = "2026-09-22"
Row = tuple[int, int]
Program = Generator[Create | Read, Any, None]


class Breaks(Enum):
    """One thing done wrong."""

    NOTHING = "nothing"
    NOT_CHECKED_AGAIN = "who finds a number taken takes the next one, with what it had"
    NOT_EXCLUSIVE = "a file that is there is written over"
    ERROR_IS_SUCCESS = "a write that was not answered counts as done"
    ERROR_IS_FAILURE = "what was not answered is tried under the next number at once"
    REMOVED_UNSEEN = "files are replaced and retired without a look whether they are live and not held"


class Chooser:
    """Choices by a prefix that is given, then the first of each; `counts` says how many there were."""

    def __init__(self, prefix: list[int]) -> None:
        self.taken: list[int] = []
        self.counts: list[int] = []
        self._prefix = prefix

    def __call__(self, count: int) -> int:
        """Choose one of `count`."""
        place = len(self.taken)
        chosen = self._prefix[place] if place < len(self._prefix) else 0
        self.taken.append(chosen)
        self.counts.append(count)
        return chosen

    def following(self) -> list[int] | None:
        """Give the prefix of the next run that differs, None after the last one."""
        for place in range(len(self.taken) - 1, -1, -1):
            if self.taken[place] + 1 < self.counts[place]:
                return [*self.taken[:place], self.taken[place] + 1]
        return None


class World:
    """The store, the data files by path, and what writers were told has landed."""

    def __init__(self, choose: Callable[[int], int], breaks: Breaks, faults: int) -> None:
        self.choose = choose
        self.breaks = breaks
        self.faults = faults
        self.store: dict[str, bytes] = {}
        self.data: dict[str, list[Row]] = {}
        self.told: set[Row] = set()
        self.too_early: set[Row] = set()
        self._late: list[Create] = []
        self._paths = 0
        begin = chain.Begin(number=0, predecessor=None, at_us=0, lake="model")
        self.store[chain.entry_name(0)] = chain.encode(begin)[0]

    def put(self, rows: list[Row]) -> File:
        """Write a data file under a name of its own."""
        self._paths += 1
        path = f"events/dt={DAY}/{self._paths}.parquet"
        self.data[path] = rows
        return File("events", path, len(rows), 1, "", 3)

    def avoid(self, other: World) -> None:
        """Go on with the names of another world's files."""
        self._paths = other._paths

    def tell(self, rows: set[Row]) -> None:
        """Tell a writer that rows have landed; an entry has to be there by then, whoever lands them later."""
        entries = [json.loads(content) for content in self.store.values()]
        ranges = [one for entry in entries for one in entry.get("ranges", [])]
        landed = {(one["partition"], offset) for one in ranges for offset in range(one["start"], one["end"])}
        self.too_early |= rows - landed
        self.told |= rows

    def step(self, program: Program, asked: Create | Read) -> Create | Read | None:
        """Carry out what a program asked for, and give what it asks for next; None when it has ended."""
        try:
            if isinstance(asked, Read):
                return program.send(self.store.get(asked.name))
            if self.faults and (fault := self.choose(4)):
                self.faults -= 1
                if fault == 2:
                    self._write(asked)
                if fault == 3:
                    self._late.append(asked)
                return program.throw(OSError("not answered"))
            return program.send(self._write(asked))
        except StopIteration:
            return None

    def arrive(self) -> None:
        """Let a late write come, or not yet."""
        if self._late and self.choose(2):
            self._write(self._late.pop(0))

    def _write(self, asked: Create) -> bool:
        if asked.name in self.store and self.breaks is not Breaks.NOT_EXCLUSIVE:
            return False
        self.store[asked.name] = asked.content
        return True

    def append(self, state: State, propose: Callable[[State], Entry | None], attempt: Attempt) -> protocol.Steps[bool]:
        """Append by the protocol, or by one that is broken."""
        if self.breaks not in (Breaks.ERROR_IS_SUCCESS, Breaks.ERROR_IS_FAILURE):
            return (yield from protocol.append(state, propose, attempt))
        try:
            return (yield from protocol.append(state, propose, attempt))
        except OSError:
            if self.breaks is Breaks.ERROR_IS_SUCCESS:
                return True
            entry = propose(state)
            if entry is None:
                return False
            yield Create(chain.entry_name(state.number + 2), chain.encode(entry)[0])
            return True

    def verdict(self) -> str | None:
        """Say what is wrong with what was done, None when nothing is."""
        ledger = Ledger(self.data)
        before = None
        number = 0
        while (content := self.store.get(chain.entry_name(number))) is not None:
            entry = json.loads(content)
            if (entry["number"], entry["predecessor"]) != (number, before):
                return f"entry {number} does not follow"
            if (wrong := ledger.take(entry)) is not None:
                return f"entry {number} {wrong}"
            before, number = chain.digest(content), number + 1
        if len(self.store) != number:
            return f"entry {number} is missing, and others come behind it"
        if self.too_early:
            return "a writer was told that something has landed before it had"
        return ledger.verdict(self.told)


class Ledger:
    """What entries amount to, by their JSON alone."""

    def __init__(self, data: dict[str, list[Row]]) -> None:
        self._data = data
        self._live: dict[str, list[Row]] = {}
        self._ends = dict.fromkeys(range(PARTITIONS), 0)
        self._landed: list[Row] = []
        self._retired: list[Row] = []
        self._held: set[str] = set()
        self._kept: set[str] = set()

    def take(self, entry: dict[str, Any]) -> str | None:
        """Take an entry; gives what is wrong with it."""
        for one in entry.get("ranges", []):
            if one["start"] != self._ends[one["partition"]]:
                return f"lands {one}, which ends at {self._ends[one['partition']]}"
            self._ends[one["partition"]] = one["end"]
            self._landed += [(one["partition"], offset) for offset in range(one["start"], one["end"])]
        for gone in entry.get("removes", []):
            path = gone if entry["kind"] == "replace" else gone["path"]
            holds = self._held if entry["kind"] == "replace" else self._held | self._kept
            if path not in self._live or holds:
                return f"removes {path}, which is not live, or held"
            rows = self._live.pop(path)
            self._retired += rows if entry["kind"] == "retire" else []
        for file in entry.get("files", []):
            self._live[file["path"]] = self._data.get(file["path"], [])
        if entry["kind"] == "hold":
            (self._kept if entry["principal"] else self._held).add(entry["id"])
        if entry["kind"] == "release":
            self._held.discard(entry["id"])
            self._kept.discard(entry["id"])
        return None

    def verdict(self, told: set[Row]) -> str | None:
        """Say what is wrong in the end."""
        if any(path not in self._data for path in self._live):
            return "a live file is gone"
        if sorted([row for rows in self._live.values() for row in rows] + self._retired) != sorted(self._landed):
            return "what is in the files is not what landed"
        return None if told <= set(self._landed) else "a writer was told that something has landed, and it has not"


def worker(world: World, owned: list[int], commits: int) -> Program:
    """Land what the partitions have, as a worker does: resume, collect, commit; once more after an error."""
    state = State()
    yield from protocol.catch_up(state)
    ends = {number: state.end(("events", number)) for number in owned}
    for _ in range(commits):
        ranges = [Range("events", number, at, at + 1, []) for number, at in ends.items() if at < RECORDS]
        if not ranges:
            return
        kept: list[Range] = []

        def propose(state: State, ranges: list[Range] = ranges, kept: list[Range] = kept) -> Land | None:
            blind = world.breaks is Breaks.NOT_CHECKED_AGAIN and bool(kept)
            if not blind:
                kept[:] = [one for one in ranges if state.continues(one)]
            if not kept:
                return None
            file = world.put([(one.partition, offset) for one in kept for offset in range(one.start, one.end)])
            return Land(number=state.number + 1, predecessor=state.sha256, at_us=0, ranges=list(kept), files=[file])

        attempt = Attempt()
        for tries in range(2):
            try:
                if (yield from world.append(state, propose, attempt)):
                    world.tell({(one.partition, offset) for one in kept for offset in range(one.start, one.end)})
                break
            except OSError:
                if tries:
                    return
        ends = {number: state.end(("events", number)) for number in owned}


def compactor(world: World) -> Program:
    """Put two files into one, and delete the two once that is known to be the case."""
    state = State()
    yield from protocol.catch_up(state)
    chosen = sorted(state.live)[:2]
    rows = [row for path in chosen for row in world.data.get(path, [])]

    def propose(state: State) -> Replace | None:
        if world.breaks is not Breaks.REMOVED_UNSEEN and not state.removable(chosen):
            return None
        file = world.put(rows)
        return Replace(number=state.number + 1, predecessor=state.sha256, at_us=0, removes=chosen, files=[file])

    if len(chosen) == 2 and (yield from _twice(world, state, propose)):
        for path in chosen:
            world.data.pop(path, None)


def retainer(world: World) -> Program:
    """Retire the oldest file."""
    state = State()
    yield from protocol.catch_up(state)
    chosen = sorted(state.live)[:1]

    def propose(state: State) -> Retire | None:
        if world.breaks is not Breaks.REMOVED_UNSEEN and not state.retirable(chosen):
            return None
        gone = [Retired(path, "", 1) for path in chosen]
        return Retire(number=state.number + 1, predecessor=state.sha256, at_us=0, removes=gone, reason="age")

    if chosen:
        yield from _twice(world, state, propose)


def holder(world: World, name: str = "h", principal: str | None = None) -> Program:
    """Hold everything, and release it; with a principal nothing is to be lost, but files may be replaced."""
    state = State()
    yield from protocol.catch_up(state)

    def hold(state: State) -> Hold | None:
        if name in state.holds:
            return None
        facts: dict[str, Any] = {"number": state.number + 1, "predecessor": state.sha256, "at_us": 0}
        return Hold(**facts, id=name, by="me", why="case", principal=principal)

    def release(state: State) -> Release | None:
        if name not in state.holds:
            return None
        return Release(number=state.number + 1, predecessor=state.sha256, at_us=0, id=name, by="me", why="closed")

    if (yield from _twice(world, state, hold)):
        yield from _twice(world, state, release)


def _twice(world: World, state: State, propose: Callable[[State], Entry | None]) -> protocol.Steps[bool]:
    attempt = Attempt()
    for _ in range(2):
        try:
            return (yield from world.append(state, propose, attempt))
        except OSError:
            continue
    return False


def run(world: World, programs: list[Program], *, crashes: int = 0, coarse: bool = False) -> None:
    """Interleave programs until all have ended, or died.

    If `coarse`, what a program reads between two writes is one turn: what is there does not change, so that only which
    writes came before matters.
    """
    running: list[tuple[Program, Create | Read]] = [(one, asked) for one in programs if (asked := next(one, None))]
    while running:
        place = world.choose(len(running) + (1 if crashes else 0))
        if place == len(running):
            crashes -= 1
            running.pop(world.choose(len(running)))
            continue
        program, asked = running[place]
        then = world.step(program, asked)
        while coarse and isinstance(then, Read):
            then = world.step(program, then)
        if then is None:
            running.pop(place)
        else:
            running[place] = (program, then)
        world.arrive()


def random_world(seed: int, breaks: Breaks) -> World:
    """Let two workers whose partitions overlap, restarts of them, compactors, a retainer and a hold run at random."""
    chance = random.Random(seed)
    world = World(chance.randrange, breaks, faults=chance.randrange(4))
    owned = [[0, 1, 2], chance.sample(range(PARTITIONS), 2), chance.sample(range(PARTITIONS), 1)]
    programs = [worker(world, mine, chance.randint(1, 4)) for mine in owned]
    programs += [compactor(world), compactor(world), retainer(world), holder(world)]
    if seed % 3 == 0:
        programs.append(holder(world, "p", "tok"))
    run(world, programs, crashes=chance.randrange(3))
    world.arrive()
    run(world, [worker(world, list(range(PARTITIONS)), 2), compactor(world), retainer(world)])
    world.arrive()
    return world
