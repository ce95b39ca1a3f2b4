"""The compactor: plans, rewrites, commits one `replace` for each job, and later removes what nobody reads any more.

Several may run on one lake, beside workers, and each may be killed at any moment: what is written is in no entry until
the entry is there, and the entry is checked again by whoever is second (`sinks.lake.log.protocol`). A job that lost
drops its files. So work is repeated, never results.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import PurePath
from typing import Protocol

import structlog
from msgspec import Struct

from sinks.lake.compaction import cleaning, whole
from sinks.lake.compaction.cleaning import Lists
from sinks.lake.compaction.plan import Job, Sizes, plan
from sinks.lake.compaction.rewrite import Altered, Holds, remove, rewrite
from sinks.lake.log.chain import File, Replace, State
from sinks.lake.log.on_store import Log, Writes
from sinks.lake.log.protocol import Attempt
from sinks.lake.storage.troubles import Troubles

log = structlog.get_logger("compact")

AGAIN = "run it again, a daemon does so by itself"
GRACE_S = 3_600.0
"""How long replaced files stay: longer than the longest query, which would else lose a file in its midst."""


class Store(Writes, Holds, Lists, Protocol):
    """What the compactor takes of a store."""


class Done(Struct):
    """What a run has done: jobs, files that went and came by entries, rows written again, files removed from disk."""

    jobs: int = 0
    replaced: int = 0
    made: int = 0
    rows: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    lost: int = 0
    """Jobs that were not committed, because somebody else had their files or holds them."""
    removed: int = 0
    orphans: int = 0
    """Files older than a day that no entry names: left, or removed where that was asked for."""
    refused: list[str] = []
    """Why jobs were left: files that are missing or not what their entries say."""


class Compactor:
    """Compacts one lake. `sealed` gives the last entry that a checkpoint covers; None where nothing is sealed.

    With `orphans` it deletes files that no entry names, which nobody but a person can tell from evidence.
    `clock_us` is the time that entries carry, `unique` names files that nobody else has.
    """

    def __init__(
        self,
        path: PurePath,
        store: Store,
        *,
        grace_s: float = GRACE_S,
        sizes: Sizes | None = None,
        sealed: Callable[[], int | None] = lambda: None,
        orphans: bool = False,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
        unique: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._path = path
        self._store = store
        self._log = Log(store)
        self._grace_s = grace_s
        self._sizes = sizes or Sizes()
        self._sealed = sealed
        self._orphans = orphans
        self._clock_us = clock_us
        self._unique = unique
        self._unanswered: _Commit | None = None

    def run(self, beat: Callable[[], object] = lambda: None) -> Done:
        """Do all that there is to do, and remove what may go. Raise `Retry` when the operating system refuses.

        Raise `NotInOrder` where there is no lake of this version, or one whose log was longer once, `Stop` when its log
        is damaged. `beat` is called again and again while it works.
        """
        done = Done()
        with Troubles(self._path, AGAIN):
            sealed = whole.refresh(self._path, self._store, self._log, self._sealed)
            self._answer(done)
            tried: set[tuple[str, ...]] = set()
            while jobs := [job for job in self._plan() if _names(job) not in tried]:
                for job in jobs:
                    tried.add(_names(job))
                    self._do(job, done, beat)
            self._log.publish()
            self._clean(done, sealed, beat)
        return done

    @property
    def live(self) -> int:
        """How many files count."""
        return len(self._log.state.live)

    def planned(self) -> list[Job]:
        """Say what would be done first. Raise as `run`."""
        with Troubles(self._path, AGAIN):
            whole.refresh(self._path, self._store, self._log, self._sealed)
            return self._plan()

    def _plan(self) -> list[Job]:
        state = self._log.state
        return plan(state.live.values(), lambda file: state.held(file.path), self._clock_us(), self._sizes)

    def _do(self, job: Job, done: Done, beat: Callable[[], object]) -> None:
        if not self._log.state.removable([file.path for file in job.inputs]):
            return
        try:
            made = rewrite(self._store, job, self._unique, beat, self._sizes)
        except Altered as error:
            self._log.refresh()
            if self._log.state.removable([file.path for file in job.inputs]):  # else somebody else was faster
                done.refused.append(str(error))
                log.error("not compacted", why=str(error))
            return
        self._unanswered = _Commit(job, made, Attempt())
        self._answer(done)

    def _answer(self, done: Done) -> None:
        """Commit what is written, also what was tried before and not answered."""
        if (commit := self._unanswered) is None:
            return
        removes = [file.path for file in commit.job.inputs]

        def propose(state: State) -> Replace | None:
            if not state.removable(removes):
                return None
            return Replace(
                number=state.number + 1,
                predecessor=state.sha256,
                at_us=self._clock_us(),
                removes=removes,
                files=commit.made,
            )

        if self._log.append(propose, commit.attempt):
            job = commit.job
            done.jobs += 1
            done.replaced += len(job.inputs)
            done.made += len(commit.made)
            done.rows += job.rows
            done.bytes_before += sum(file.bytes for file in job.inputs)
            done.bytes_after += sum(file.bytes for file in commit.made)
            log.info("compacted", table=job.table, place=job.place, files=len(job.inputs), into=len(commit.made))
        else:
            remove(self._store, commit.made)
            done.lost += 1
        self._unanswered = None

    def _clean(self, done: Done, sealed: int | None, beat: Callable[[], object]) -> None:
        gone = cleaning.removable(self._store, self._log, self._clock_us(), grace_s=self._grace_s, sealed=sealed)
        for path in gone.replaced:
            self._store.remove(path)
            done.removed += 1
            beat()
        done.orphans = len(gone.orphans)
        for path in gone.orphans if self._orphans else ():
            self._store.remove(path)
            log.warning("removed a file that no entry names", path=path)


class _Commit(Struct):
    """A job whose files are written: until it is known what became of its entry, its bytes stay the same."""

    job: Job
    made: list[File]
    attempt: Attempt


def _names(job: Job) -> tuple[str, ...]:
    return tuple(file.path for file in job.inputs)
