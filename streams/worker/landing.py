"""The second stage: one partition of `events` through the judge into the alerts topic and the lake.

The lake says from where on outputs count (`landed_to`); the judge's checkpoint, which is older or as old,
says from where to read: what lies between is judged again, so that the models stand where they stood, and neither
alerted nor landed again. Alerts leave at once and are durable before the lake commits what raised them: at least
once. Events that come twice (a fold that started again) are recognised by their positions, before the judge sees
them. Notes of the worker's own (`streams.kafka.notes`) stand among the events and are judged in their place. Not for
several threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import structlog
from msgspec import Raw, Struct

from detectors.judgement import Incomplete
from detectors.policy.policies import Bundle
from pgwitness.core.codec import decode_events
from pgwitness.core.contracts.evidence_writer import EvidenceStore, EvidenceWriter
from pgwitness.core.errors import DeadLetter, NewerSchema, PgwitnessError
from pgwitness.core.events import Control, Event, Position
from pgwitness.core.topics import OURSELVES
from streams import metrics
from streams.aside import Aside, Problem, unexpected
from streams.kafka import notes, skipping
from streams.kafka.checkpoints import Checkpoint, Skip, Store
from streams.kafka.emitter import Emitter
from streams.kafka.origins import find
from streams.kafka.reading import BrokerReader
from streams.worker.protocols import Judge, JudgeMaker, Judgement, Unjudged
from streams.worker.sanity import Sanity

log = structlog.get_logger("worker")
_encode = msgspec.json.Encoder().encode

EMPTY_S = 3_600.0
"""How long a range without rows may wait to be landed: a crash has it read again, while the topic keeps it."""

Mark = tuple[int, int]
"""What high-water marks are kept by: lane and raw partition."""


class _State(Struct, frozen=True):
    """A checkpoint of the judge, and up to where it had seen each lane of each raw partition."""

    marks: list[tuple[int, int, int, int]]
    judge: Raw
    feedback: int = 0
    """The first record of `feedback` that the judge has not been told of."""
    approvals: int = 0
    """The first record of `approvals` that no note has come of."""


_state = msgspec.json.Decoder(_State).decode


class EventPartition:
    """One assigned partition of `events`. What it counts by begins at `base` (`streams.kafka.origins`)."""

    def __init__(
        self,
        where: tuple[str, int, int],
        emitter: Emitter,
        store: Store,
        judge: Judge,
        writer: EvidenceWriter,
        sanity: Sanity,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """`where`: topic, partition and what its positions are ahead of the broker's offsets."""
        self.topic, self.partition, self.base = where
        self.landed_to = 0
        self.pending_since: float | None = None
        self.feedback_told = 0
        """The first record of `feedback` that no note was written of, as far as this worker knows."""
        self.approvals_told = 0
        """The first record of `approvals` that no note was written of; the first partition tells of all."""
        self.suppressions_told = ""
        """The suppressions of the last note that was written, by their SHA-256."""
        self.skips: dict[int, Skip] = {}
        self._place = 0
        self._emitter = emitter
        self._store = store
        self._judge = judge
        self.writer = writer
        self._sanity = sanity
        self._wall_us = wall_us
        self._marks: dict[Mark, Position] = {}
        self._landed_marks: dict[Mark, Position] = {}
        self._appended_to = 0
        self._saved = 0
        self._feedback = self._approvals = 0
        self._clock_told = False
        self._aside = Aside()
        self._unjudged = Aside()

    @classmethod
    def load(
        cls,
        at: tuple[str, int],
        broker: BrokerReader,
        store: Store,
        emitter: Emitter,
        rest: tuple[JudgeMaker, EvidenceStore, Sanity],
    ) -> EventPartition:
        """Resume the lake's writer and the judge of a partition; what the topic lost is told before it is noted."""
        (topic, partition), (make_judge, lake, sanity) = at, rest
        writer = lake.writer(topic, partition)
        known = store.load(broker.reader, partition)
        landed_to, marks = writer.resume()
        expected = landed_to - (known.origin.base if known.origin else 0)
        found = find(known.origin, landed_to, broker.extent(topic, partition, expected))
        if found.lost is not None:
            detail: dict[str, object] = {"topic": topic, "partition": partition, "landed_to": expected}
            log.error("events_lost", how=found.lost, topic=topic, partition=partition, landed_to=expected)
            emitter.lost(f"events_{found.lost}", detail | {"resumes": found.start})
            emitter.settle()
        elif known.checkpoints and known.checkpoints[0].offset > landed_to:
            # A checkpoint is written after the lake: this is another folder, an older copy, or an unmounted disk.
            had = known.checkpoints[0].offset - found.origin.base
            log.error("lake_went_back", partition=partition, landed_to=expected, had=had)
            detail = {"topic": topic, "partition": partition, "landed_to": expected, "had_landed_to": had}
            emitter.lost("lake_went_back", detail)
            emitter.settle()
        if found.origin != known.origin:
            store.save_origin(partition, found.origin)
        self = cls((topic, partition, found.origin.base), emitter, store, make_judge(), writer, sanity)
        self.landed_to = self._appended_to = landed_to
        self._landed_marks = dict(marks)
        self.skips = known.skips
        self._resume(known.checkpoints, make_judge)
        if found.lost is not None:  # what lay between checkpoint and lake is there no more
            self._place = landed_to
        self.feedback_told, self.approvals_told = self._feedback, self._approvals
        self.suppressions_told = self._judge.suppressions
        return self

    def _resume(self, checkpoints: list[Checkpoint], make_judge: JudgeMaker) -> None:
        """Take the newest checkpoint that can be used and does not run ahead of the lake."""
        usable = [one for one in checkpoints if 0 <= one.offset <= self.landed_to]
        for checkpoint in usable:
            try:
                state = _state(checkpoint.data)
                self._judge.restore(bytes(state.judge))
            except Exception as error:
                why = unexpected(error)
                log.error("checkpoint_damaged", partition=self.partition, sequence=checkpoint.sequence, reason=why)
                metrics.CHECKPOINTS_DAMAGED.labels("judge").inc()
                self._judge = make_judge()
                continue
            self._marks = {(lane, raw): Position(raw, offset, index) for lane, raw, offset, index in state.marks}
            self._place = self._saved = checkpoint.offset
            self._feedback, self._approvals = state.feedback, state.approvals
            return
        if self.landed_to:
            why = "no checkpoint can be read" if usable else "no checkpoint before what the lake holds"
            log.warning("judge_starts_anew", partition=self.partition, reason=why)

    @property
    def position(self) -> int:
        """The next offset to read, as the broker counts."""
        return max(0, self._place - self.base)

    @property
    def done_to(self) -> int:
        """The first offset that has not landed, as the broker counts."""
        return max(0, self.landed_to - self.base)

    def record(self, offset: int, key: bytes | None, value: bytes | None, now: float) -> None:
        """Judge and append one record. Raises `NewerSchema` (nothing is changed then) and `Retry`."""
        place = self.base + offset
        if place < self._place:
            return
        problems: list[Problem]
        try:
            batch = decode_events(value)
            if batch.header.lane == notes.NOTES:
                problems = self._notes(place, batch.events, now)
            else:
                problems = self._batch(place, batch.header.lane, batch.events, now)
        except DeadLetter as error:
            problems = [Problem(error.reason, str(error))]
            if place >= self.landed_to:
                self._append(place, 0, [], [], now)
        except NewerSchema as error:
            skip = self.skips.get(offset)
            if skip is None or not skipping.fits(skip, value):
                raise
            problems = [skipping.problem(skip, error, None)]
            if place >= self.landed_to:
                detail = skipping.said(skip, self.topic, self.partition)
                told = Control(captured_at_us=self._wall_us(), operation=skipping.OPERATION, detail=detail)
                self._emitter.own(OURSELVES, told)
                self._append(place, 0, [], [], now)
        self._missed(place)
        if problems and place >= self.landed_to:
            self._set_aside(offset, key, value, problems)
        self._place = place + 1
        metrics.BATCHES.labels("events").inc()

    def _missed(self, place: int) -> None:
        """Tell that records were deleted before they were landed."""
        first = max(self._place, self.landed_to)
        if place > first:
            log.error("events_lost", topic=self.topic, partition=self.partition, first=first, next=place)
            where: dict[str, object] = {"topic": self.topic, "partition": self.partition}
            offsets = {"first_offset": max(0, first - self.base), "next_offset": place - self.base}
            self._emitter.lost("events_lost", where | offsets)

    def _batch(self, offset: int, lane: int, events: list[Event], now: float) -> list[Problem]:
        """Judge, alert and append the events of a lane; gives what could not be taken of them."""
        counts = offset >= self.landed_to
        if counts and self._landed_marks:
            # What the lake has seen counts, not what judging again has made of it.
            self._marks, self._landed_marks = self._landed_marks, {}
        problems: list[Problem] = []
        fresh = self._fresh(lane, events, problems)
        failed: list[Problem] = []
        verdicts = [self._verdict(event, failed) for event in fresh]
        if not counts:
            return []
        self._tell_unjudged(offset, failed)
        for event, verdict in zip(fresh, verdicts, strict=True):
            if verdict.alerts:
                problems += self._alert(event, verdict)
        return problems + self._append(offset, lane, fresh, verdicts, now)

    def tell(self, note: Event) -> None:
        """Write a note into this partition."""
        self._emitter.note(self.partition, note)

    def tell_time(self, now_us: int) -> None:
        """Write down the time when something is due by it; once, until the note has come back."""
        if not self._clock_told and now_us >= self._judge.due_us:
            self._clock_told = True
            self.tell(notes.clock(now_us))

    def _notes(self, offset: int, events: list[Event], now: float) -> list[Problem]:
        """Take notes; the first partition of all lands them, the others only the alerts that come of them."""
        problems: list[Problem] = []
        seen: list[Event] = []
        verdicts: list[Judgement] = []
        failed: list[Problem] = []
        for event in events:
            before = self._judge.suppressions
            if event.operation == "verdict":
                if event.at.offset < self._feedback:
                    continue
                if not self._sanity.in_feedback(event.at.offset):
                    problems.append(_problem(event, "implausible", f"no verdict stands at {event.at.offset}"))
                    continue
                self._feedback = event.at.offset + 1
                self.feedback_told = max(self.feedback_told, self._feedback)
            elif event.at.partition == notes.APPROVALS:
                if self._is_new_approval(event, problems):
                    seen.append(event)
                    verdicts.append(self._verdict(event, failed))
                continue
            elif (why := self._sanity.time(event, self._wall_us())) is not None:
                problems.append(_problem(event, "implausible", why))
                continue
            else:
                event = notes.placed(event, self.topic, self.partition, offset)
                self._clock_told = False
            verdict = self._verdict(event, failed, self._judge.note)
            shown = event.operation == "verdict" or self._judge.suppressions != before
            if shown and self.partition == 0:
                seen.append(event)
            elif verdict.alerts:
                seen.append(notes.unseen(event))
            else:
                continue
            verdicts.append(verdict)
        if offset < self.landed_to:
            return []
        self._tell_unjudged(offset, failed)
        for event, verdict in zip(seen, verdicts, strict=True):
            problems += self._alert(event, verdict)
        return problems + self._append(offset, notes.NOTES, seen, verdicts, now)

    def _is_new_approval(self, event: Event, problems: list[Problem]) -> bool:
        """Take up the place of a note on a record of `approvals`; return whether it is to land, which is once."""
        if event.at.offset < self._approvals:
            return False
        if not self._sanity.in_approvals(event.at.offset):
            problems.append(_problem(event, "implausible", f"no approval stands at {event.at.offset}"))
            return False
        self._approvals = event.at.offset + 1
        self.approvals_told = max(self.approvals_told, self._approvals)
        return self.partition == 0

    def _append(
        self, offset: int, lane: int, events: list[Event], verdicts: list[Judgement], now: float
    ) -> list[Problem]:
        refused = self.writer.append(offset, events, verdicts, lane)
        self._appended_to = offset + 1
        if self.pending_since is None:
            self.pending_since = now
        return [_problem(events[place], error.reason, str(error)) for place, error in refused]

    def _fresh(self, lane: int, events: list[Event], problems: list[Problem]) -> list[Event]:
        """Drop what was seen; positions only grow within a lane and a raw partition. What cannot be is a problem."""
        marks = self._marks
        fresh = []
        known = 0
        for event in events:
            at = event.at
            key = (lane, at.partition)
            mark = marks.get(key)
            if mark is not None and at <= mark:
                known += 1
            elif (why := self._sanity.of(lane, event, self._wall_us())) is not None:
                problems.append(_problem(event, "implausible", why))
            else:
                marks[key] = at
                fresh.append(event)
        if known:
            metrics.KNOWN.labels("land").inc(known)
        return fresh

    def _verdict(
        self, event: Event, failed: list[Problem], judge: Callable[[Event], Judgement] | None = None
    ) -> Judgement:
        """Judge an event; one whose judging fails lands as such, and what failed is added to `failed`."""
        try:
            return (judge or self._judge.judge)(event)
        except Incomplete as error:
            why = unexpected(error.__cause__ if isinstance(error.__cause__, Exception) else error)
            log.exception("judge_failed", event_id=event.event_id)
            failed.append(_problem(event, "unjudged", f"what is due with it cannot be told: {why}"))
            return error.judgement
        except Exception as error:
            log.exception("judge_failed", event_id=event.event_id)
            failed.append(_problem(event, "unjudged", f"judging failed: {unexpected(error)}"))
            return Unjudged([{"error": f"judging failed: {type(error).__name__}"}])

    def _tell_unjudged(self, offset: int, failed: list[Problem]) -> None:
        """Tell as a gap that nobody looked at events that have landed: an alert may be missing, no evidence is."""
        for problem in failed:
            self._emitter.gap(self._unjudged, problem, "judge", (self.topic, self.partition, offset - self.base))

    def _alert(self, event: Event, verdict: Judgement) -> list[Problem]:
        """Send the alerts of an event; gives why one could not be."""
        ours = event.at.partition < 0
        committed_us = event.occurred_at_us if event.kind == "change" and not ours else None

        def delivered() -> None:
            if committed_us is not None:
                metrics.ALERT_SECONDS.observe(max(0, self._wall_us() - committed_us) / 1e6)

        problems: list[Problem] = []
        for alert in verdict.alerts:
            if alert.lake_only:
                metrics.QUIET.inc()
                continue
            try:
                ocsf = alert.ocsf()
                self._emitter.alert(alert.uid, ocsf, delivered)
            except PgwitnessError:
                raise
            except Exception as error:
                log.exception("alert_failed", event_id=event.event_id)
                problems.append(_problem(event, "alert_failed", unexpected(error)))
                continue
            metrics.ALERTS.inc()
        return problems

    def _set_aside(self, offset: int, key: bytes | None, value: bytes | None, problems: list[Problem]) -> None:
        """Keep a record of which something cannot be landed, and tell that evidence is missing."""
        source = (self.topic, self.partition, offset)
        first = problems[0]
        log.warning("dead_letter", partition=self.partition, offset=offset, reason=first.cause, error=first.why)
        self._emitter.dead_letter("land", first.cause, source, key, value)
        metrics.DEAD_LETTERS.labels("events", first.cause).inc()
        for problem in problems:
            self._emitter.gap(self._aside, problem, "land", source)

    def tell_rest(self, *, now: bool = False) -> None:
        """Tell what is left of a flood of problems, when its minute is over or, if `now`, at once."""
        for aside, stage in ((self._aside, "land"), (self._unjudged, "judge")):
            self._emitter.rest(aside, stage, self.topic, self.partition, now=now)

    def due(self, now: float, interval_s: float) -> bool:
        """Say whether it is time to commit: what has waited longest has waited long enough, or nothing more fits."""
        if self.pending_since is None:
            return False
        wait_s = interval_s if self.writer.rows else max(interval_s, EMPTY_S)
        return self.writer.full or now - self.pending_since >= wait_s

    @property
    def buffered(self) -> tuple[int, int]:
        """How many rows wait to be landed, and about how many bytes they are."""
        return self.writer.rows, self.writer.buffered_bytes

    @property
    def waits(self) -> bool:
        """Whether anything is to be landed, be it only that records without rows were read."""
        return self._appended_to > self.landed_to

    def landed(self) -> None:
        """Take note that everything appended has landed."""
        self.landed_to = self._appended_to
        self.pending_since = None

    @property
    def bundle(self) -> Bundle:
        """The policies that this partition is judged by."""
        return self._judge.bundle

    @property
    def settled(self) -> bool:
        """Whether everything read has landed: only then may a checkpoint be written, or policies change."""
        return self._place == self.landed_to

    def adopt(self, bundle: Bundle) -> None:
        """Judge by other policies from the next record on, and write that down.

        Nothing may be read before the emitter has been flushed: then the checkpoint from which any replay begins has
        these policies in it, and no replay passes a change of them (docs/decisions/0007).
        """
        assert self.settled
        self._judge.adopt(bundle)
        self._save()

    def checkpoint(self) -> None:
        """Write the judge's state, if everything read has landed: it never runs ahead of the lake."""
        if not self.settled or self._place == self._saved:
            return
        self._save()

    def _save(self) -> None:
        marks = [(lane, raw, at.offset, at.index) for (lane, raw), at in sorted(self._marks.items())]
        state = _State(marks, Raw(self._judge.snapshot()), self._feedback, self._approvals)
        data = _encode(state)
        self._store.save(self.partition, self._place, data)
        metrics.CHECKPOINT_BYTES.labels("judge", str(self.partition)).set(len(data))
        self._saved = self._place
        metrics.CHECKPOINTS.labels("judge").inc()


def _problem(event: Event, cause: str, why: str) -> Problem:
    return Problem(cause, f"event {event.event_id}: {why}", cluster=event.cluster or None, database=event.database)
