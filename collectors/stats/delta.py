"""What happened between two readings of pg_stat_statements: differences, and what the readings cannot tell.

Pure: two snapshots in, deltas and losses out. The rules:

- A key is (userid, dbid, queryid, toplevel). Counters of an entry only grow while it lives.
- From PostgreSQL 17 on (extension 1.11) `stats_since` says when an entry began: another value means that it was
  thrown out and came back, and its counters are the delta. Before, counters that went down mean the same.
- An entry seen first counts in full when it began after the reading before; where that is not known, or it did not,
  the delta is marked approximate.
- A reset of everything (`stats_reset` of pg_stat_statements_info), entries thrown out (`dealloc`) and entries that
  vanished are losses: what they counted since the reading before is unknown.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Key(Struct, frozen=True, array_like=True, order=True):
    """What identifies an entry of pg_stat_statements."""

    userid: int
    dbid: int
    queryid: int
    toplevel: bool


class Counter(Struct, frozen=True, array_like=True):
    """The running totals of an entry; `since_us` is its beginning, where the server tells it."""

    calls: int
    rows: int
    total_ms: float
    since_us: int | None = None


class Entry(Struct, frozen=True, array_like=True):
    """One entry as read."""

    key: Key
    counter: Counter


class Snapshot(Struct, frozen=True):
    """One reading. `taken_at_us` is the server's clock just before it; `reset_us` and `dealloc` from the info view."""

    taken_at_us: int
    system_id: str
    started_us: int
    reset_us: int
    dealloc: int
    entries: list[Entry]


class Delta(Struct, frozen=True):
    """What an entry counted from `window_start_us` to the later reading."""

    key: Key
    window_start_us: int
    calls: int
    rows: int
    total_ms: float
    approximate: bool = False


class Loss(Struct, frozen=True):
    """Counts that are lost: `reason` is a gap's reason, `detail` what is known of it."""

    reason: str
    detail: dict[str, Any]


class Difference(Struct, frozen=True):
    """The outcome of comparing two readings, in the order of the keys."""

    deltas: list[Delta]
    losses: list[Loss]


def compare(before: Snapshot | None, after: Snapshot) -> Difference:
    """Tell what happened from one reading to the next. Without a reading before, or on another server, only a loss."""
    if before is None:
        return Difference([], [Loss("stats_begun", {"statements": len(after.entries), "reset_us": after.reset_us})])
    if before.system_id != after.system_id:
        return Difference(
            [], [Loss("stats_other_server", {"before": before.system_id, "since_us": before.taken_at_us})]
        )
    if before.reset_us != after.reset_us:
        return _after_reset(before, after)
    return _grown(before, after)


def _after_reset(before: Snapshot, after: Snapshot) -> Difference:
    """Everything went at `reset_us`: what is there now was counted since then, what was counted before it is lost."""
    start = max(after.reset_us, before.taken_at_us)
    deltas = [_whole(entry, start) for entry in after.entries if entry.counter.calls > 0]
    restarted = before.started_us != after.started_us
    detail = {
        "since_us": before.taken_at_us,
        "until_us": after.reset_us,
        "statements": len(before.entries),
        "restarted": restarted,
    }
    return Difference(sorted(deltas, key=_by_key), [Loss("stats_reset", detail)])


def _grown(before: Snapshot, after: Snapshot) -> Difference:
    known = {entry.key: entry.counter for entry in before.entries}
    thrown_out = after.dealloc - before.dealloc
    deltas: list[Delta] = []
    begun_anew = 0
    for entry in after.entries:
        old = known.pop(entry.key, None)
        new = entry.counter
        if old is None:
            delta = _first_seen(entry, before.taken_at_us)
        elif _another(old, new):
            begun_anew += 1
            delta = _whole(entry, max(new.since_us or 0, before.taken_at_us), approximate=new.since_us is None)
        else:
            delta = Delta(
                key=entry.key,
                window_start_us=before.taken_at_us,
                calls=new.calls - old.calls,
                rows=max(0, new.rows - old.rows),
                total_ms=max(0.0, new.total_ms - old.total_ms),
                # Thrown out and back with higher counts than before looks like growth to a server that has no date.
                approximate=new.since_us is None and thrown_out != 0,
            )
        if delta.calls > 0:
            deltas.append(delta)
    return Difference(sorted(deltas, key=_by_key), _losses(before, thrown_out, len(known) + begun_anew))


def _first_seen(entry: Entry, before_us: int) -> Delta:
    since = entry.counter.since_us
    if since is not None and since >= before_us:
        return _whole(entry, since)
    return _whole(entry, before_us, approximate=True)


def _losses(before: Snapshot, thrown_out: int, gone: int) -> list[Loss]:
    if thrown_out == 0 and gone == 0:
        return []
    reason = "stats_evicted" if thrown_out else "stats_entries_removed"
    return [Loss(reason, {"since_us": before.taken_at_us, "dealloc": thrown_out, "statements": gone})]


def _another(old: Counter, new: Counter) -> bool:
    """Return whether an entry is not the one it was."""
    if old.since_us is not None and new.since_us is not None:
        return old.since_us != new.since_us
    return new.calls < old.calls


def _whole(entry: Entry, start_us: int, *, approximate: bool = False) -> Delta:
    counter = entry.counter
    return Delta(entry.key, start_us, counter.calls, counter.rows, counter.total_ms, approximate)


def _by_key(delta: Delta) -> Key:
    return delta.key
