"""Events that the fold emits of its own accord: evidence that is missing, records set aside, other identities."""

from __future__ import annotations

from pgwitness.core.events import (
    Event,
    Identities,
    RawHeader,
    Transaction,
    format_lsn,
)
from pgwitness.core.topics import OURSELVES
from streams import aside
from streams.fold.events.base import (
    WORKER,
    blank_event,
    identify,
    transaction_id,
)
from streams.fold.memory.attribution import Attribution
from streams.fold.memory.transactions import Watermark


def identities_changed(cluster: str, record: Identities, partition: int, offset: int, error: str | None) -> Event:
    """Make the evidence that the identities changed, or were refused, from here on."""
    operation = "identities_changed" if error is None else "identities_refused"
    event_id = identify(operation, cluster, partition, offset, record.sha256)
    event = blank_event("control", cluster, None, Attribution(), record.captured_at_us, event_id, operation)
    event.outcome = "success" if error is None else "failure"
    event.detail = {"sha256": record.sha256}
    if error is not None:
        event.detail["error"] = error
    return event


def position_went_back(header: RawHeader, part: Transaction, mark: Watermark) -> Event:
    """Make the gap for a server whose positions go back: what it had after `part.lsn` and has no more, nobody reads."""
    event_id = identify("position_went_back", transaction_id(part), part.committed_at_us)
    event = blank_event(
        "gap", header.cluster, header.instance, Attribution(), part.captured_at_us, event_id, "position_went_back"
    )
    event.database = part.database
    event.detail = {
        "reason": "position_went_back",
        "found_by": WORKER,
        "system_id": part.system_id,
        "timeline": part.timeline,
        "confirmed": format_lsn(mark.lsn),
        "resumes": format_lsn(part.lsn),
    }
    return event


def raw_lost(cluster: str, partition: int, first: int, end: int, clock_us: int) -> Event:
    """Make the gap for records of raw that were deleted before they were read; `end` is the next one that is there."""
    event_id = identify("raw_lost", cluster, partition, first, end)
    event = blank_event("gap", cluster, None, Attribution(), clock_us, event_id, "raw_lost")
    event.detail = {"reason": "raw_lost", "partition": partition, "first_offset": first, "next_offset": end}
    return event


def set_aside(
    cluster: str, problem: aside.Problem, summary: aside.Summary, where: tuple[str, int, int], clock_us: int
) -> Event:
    """Make the gap for what was set aside; `where` is the topic, its partition and what its positions begin with."""
    topic, partition, base = where
    event_id = identify(aside.REASON, cluster, partition, summary.last_offset, problem.index)
    event = blank_event("gap", cluster, None, Attribution(), clock_us, event_id, aside.REASON)
    event.database = problem.database
    event.detail = aside.detail(problem, summary.of(base), "attribute", topic, partition)
    return event


def clock_set_back(header: RawHeader, before_us: int, after_us: int, where: tuple[int, int]) -> Event:
    """Make the gap for a collector's clock that was put back: until then its times were ahead, or are behind now."""
    event_id = identify("clock_set_back", header, where)
    event = blank_event("gap", header.cluster, header.instance, Attribution(), after_us, event_id, "clock_set_back")
    seconds = round((before_us - after_us) / 1e6)
    event.detail = {"reason": "clock_set_back", "source": header.source, "seconds": seconds, "before_us": before_us}
    return event


def record_skipped(said: dict[str, object], clock_us: int) -> Event:
    """Make the evidence that somebody had a record passed which could not be read (`streams.kafka.skipping`)."""
    event_id = identify("record_skipped", sorted((name, str(value)) for name, value in said.items()))
    event = blank_event("control", OURSELVES, None, Attribution(), clock_us, event_id, "record_skipped")
    event.outcome = "success"
    event.detail = said
    return event
