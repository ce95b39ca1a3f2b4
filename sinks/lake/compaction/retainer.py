"""The retainer: retires files whose time is over, and holds what must stay; both are entries of the lake's log."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from pathlib import PurePath

import structlog
from msgspec import Struct

from pgwitness.core.errors import NotInOrder
from sinks.lake.compaction import cleaning, whole
from sinks.lake.compaction.clock import believed_us
from sinks.lake.compaction.compactor import AGAIN, GRACE_S, Store
from sinks.lake.compaction.retention import Terms, due, portions
from sinks.lake.log.chain import Entry, File, Hold, Release, Retire, Retired, State
from sinks.lake.log.on_store import Log
from sinks.lake.log.protocol import Attempt
from sinks.lake.storage.troubles import Troubles

log = structlog.get_logger("retain")

_LAST_S = 253_402_300_799
"""The last second of the year 9999."""
_DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Ended(Struct):
    """What a run of the retainer has done."""

    retired: int = 0
    rows: int = 0
    removed: int = 0
    lost: int = 0
    """Retirements that were not committed, because somebody else had the files or holds them."""


class Retainer:
    """Ends what is in one lake, or holds it. `sealed`, `clock_us` and `grace_s` are as the compactor's."""

    def __init__(
        self,
        path: PurePath,
        store: Store,
        *,
        terms: Terms | None = None,
        grace_s: float = GRACE_S,
        sealed: Callable[[], int | None] = lambda: None,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
        unique: Callable[[], str] = lambda: uuid.uuid4().hex[:12],
    ) -> None:
        self._path = path
        self._store = store
        self._log = Log(store)
        self._terms = terms or Terms()
        self._grace_s = grace_s
        self._sealed = sealed
        self._clock_us = clock_us
        self._unique = unique

    def due(self) -> dict[str, list[File]]:
        """List what would be retired, by the reason. Raise as `run`."""
        with Troubles(self._path, AGAIN):
            whole.refresh(self._path, self._store, self._log, self._sealed)
            return self._due()

    def _due(self) -> dict[str, list[File]]:
        state, clock_us = self._log.state, self._clock_us()
        now_us = believed_us(self._store, state.number, clock_us)
        if now_us < clock_us:
            log.warning(
                "the clock is not believed: for three days at least nothing landed that is a week from it",
                clock=_utc(clock_us),
                goes_by=_utc(now_us),
            )
        return due(state.live.values(), lambda file: state.kept(file.path), now_us, self._terms)

    def run(self, beat: Callable[[], object] = lambda: None) -> Ended:
        """Retire what is due, and delete what was retired or replaced more than the grace ago.

        Raise `Retry` when the operating system refuses, `NotInOrder` where there is no lake, or one whose log was
        longer once, `Stop` when its log is damaged.
        """
        done = Ended()
        with Troubles(self._path, AGAIN):
            sealed = whole.refresh(self._path, self._store, self._log, self._sealed)
            for reason, files in self._due().items():
                for some in portions(files):
                    self._retire(some, reason, done)
                    beat()
            self._log.publish()
            gone = cleaning.removable(self._store, self._log, self._clock_us(), grace_s=self._grace_s, sealed=sealed)
            for path in gone.replaced:
                self._store.remove(path)
                done.removed += 1
                beat()
        return done

    def _retire(self, files: list[File], reason: str, done: Ended) -> None:
        def propose(state: State) -> Retire | None:
            if not state.retirable([file.path for file in files]):
                return None
            return Retire(
                number=state.number + 1,
                predecessor=state.sha256,
                at_us=self._clock_us(),
                removes=[Retired(file.path, file.sha256, file.rows) for file in files],
                reason=reason,
            )

        if self._log.append(propose, Attempt()):
            done.retired += len(files)
            done.rows += sum(file.rows for file in files)
            log.info("retired", files=len(files), first=files[0].path, reason=reason)
        else:
            done.lost += 1

    def holds(self) -> list[Hold]:
        """List the holds that stand."""
        with Troubles(self._path, AGAIN):
            self._open()
        return [self._log.state.holds[name] for name in sorted(self._log.state.holds)]

    def hold(
        self,
        by: str,
        why: str,
        *,
        first_day: str | None = None,
        last_day: str | None = None,
        principal: str | None = None,
        relation: str | None = None,
    ) -> str:
        """Hold what is of these days, of a principal (its token) or relation; without any, all.

        Gives the hold's id, once it is durable. Raise `NotInOrder` for what is no day.
        """
        for day in (first_day, last_day):
            if day is not None and not _is_day(day):
                raise NotInOrder(f"{day!r} is no day: write it as 2026-09-22")
        if first_day and last_day and first_day > last_day:
            raise NotInOrder(f"{first_day} comes after {last_day}")
        name = self._unique()

        def propose(state: State) -> Hold:
            return Hold(
                number=state.number + 1,
                predecessor=state.sha256,
                at_us=self._clock_us(),
                id=name,
                by=by,
                why=why,
                first_day=first_day,
                last_day=last_day,
                principal=principal,
                relation=relation,
            )

        self._append(propose)
        return name

    def release(self, name: str, by: str, why: str) -> None:
        """End a hold. Raise `NotInOrder` when there is none of that id, saying which there are."""

        def propose(state: State) -> Release | None:
            if name not in state.holds:
                return None
            return Release(
                number=state.number + 1, predecessor=state.sha256, at_us=self._clock_us(), id=name, by=by, why=why
            )

        if not self._append(propose):
            known = ", ".join(sorted(self._log.state.holds)) or "none"
            raise NotInOrder(f"there is no hold {name}; those that stand: {known}")

    def _append(self, propose: Callable[[State], Entry | None]) -> bool:
        with Troubles(self._path, AGAIN):
            self._open()
            there = self._log.append(propose, Attempt())
            self._log.publish()
        return there

    def _open(self) -> None:
        self._log.refresh()
        if self._log.state.number < 0:
            raise NotInOrder(f"{self._path} has no log: start a worker on it (`pgwitness worker`), which makes it")


def _utc(at_us: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(min(max(at_us, 0) // 1_000_000, _LAST_S)))


def _is_day(text: str) -> bool:
    try:
        return _DAY.fullmatch(text) is not None and bool(time.strptime(text, "%Y-%m-%d"))
    except ValueError:
        return False
