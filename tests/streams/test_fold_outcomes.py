"""Outcomes in the fold: what waits, until when, what the WAL proves, and that a replay says the same."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from detectors.judge import Judge
from detectors.policy.policies import Bundle
from pgwitness.core.events import Event, Gap, LogPlace, Posture, RawEvent, Session
from streams.fold.fold import Fold
from streams.identity.identities import Identities
from tests.streams.log_records import SESSION_US, statement
from tests.streams.records import IDENTITIES, START_US, batch, read, tick, transaction

GRACE_US = 2_000_000
DROP = "DROP TABLE public.orders"


class Log:
    """A session's lines, and a fold that knows that every statement is logged."""

    def __init__(self, fold: Fold | None = None, *, complete: bool = True) -> None:
        self.fold = fold or Fold(0, Identities.parse(IDENTITIES), GRACE_US)
        self._places = count(1)
        if complete and fold is None:
            self(*settings())

    def __call__(self, *events: RawEvent) -> list[Event]:
        """Fold events, each in a record of its own; gives the statements that come of them."""
        made: list[Event] = []
        for event in events:
            made += self.fold.apply(self.fold.next_offset, read(batch(event, source="log")))
        return [event for event in made if event.kind == "statement"]

    def line(self, text: str, vxid: str = "3/7", at_s: float = 0.0, **fields: Any) -> list[Event]:
        """Fold a line."""
        return self(statement(next(self._places), statement=text, vxid=vxid, at_s=at_s, **fields))

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)


def settings() -> Iterator[Posture]:
    """Say that every statement is logged."""
    for name, value in (("log_min_duration_statement", "0"), ("log_min_messages", "warning")):
        after: dict[str, object] = {"value": value}
        yield Posture(captured_at_us=START_US, object_type="setting", name=name, change="found", after=after)


def outcomes(events: list[Event]) -> list[tuple[str | None, str]]:
    """Return operation and outcome."""
    return [(event.operation, event.outcome) for event in events]


def test_what_waits_too_long_is_pending_and_settled_later() -> None:
    """The alert of what is pending does not say that it was done; its outcome updates the same finding, uncounted."""
    log = Log()
    log.line("BEGIN", at_s=0)
    assert log.line(DROP, at_s=1) == []
    assert log(tick(5)) == []
    pending = log(tick(7))
    assert outcomes(pending) == [("drop_table", "pending")]
    committed = log.line("COMMIT", "3/0", at_s=60)
    assert outcomes(committed) == [("drop_table", "success"), ("commit", "success")]
    assert committed[0].detail["settles"] == pending[0].event_id != committed[0].event_id
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None)
    alerts = [alert for event in (*pending, *committed) for alert in judge.judge(event).alerts]
    assert [(alert.activity, alert.count) for alert in alerts] == [("create", 1), ("update", 1)]
    assert [" asked to drop " in alerts[0].message, " dropped " in alerts[1].message] == [True, True]
    assert "its transaction is still open" in alerts[0].message
    assert len({alert.uid for alert in alerts}) == 1
    assert len({alert.record_uid for alert in alerts}) == 2


def test_what_was_pending_and_is_rolled_back_was_tried() -> None:
    """What was reported while it was pending is closed as what did not happen; the attempt is a finding of its own."""
    log = Log()
    log.line("BEGIN", at_s=0)
    events = [*log.line(DROP, at_s=1), *log(tick(7)), *log.line("ROLLBACK", "3/0", at_s=60)]
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None)
    alerts = [alert for event in events for alert in judge.judge(event).alerts]
    assert [(alert.activity, alert.severity, alert.count) for alert in alerts] == [
        ("create", "high", 1),
        ("close", "high", 0),
        ("create", "low", 1),
    ]
    assert alerts[1].message.startswith("Did not happen, its transaction was rolled back: ")
    assert alerts[2].message.endswith("it was rolled back")
    assert len({alert.incident for alert in alerts}) == 1


@pytest.mark.parametrize("first", [True, False])
def test_the_wal_proves_what_no_savepoint_can_take_back(first: bool) -> None:
    """Whichever comes first, the WAL or the line that has its id; behind a savepoint the log decides."""
    log = Log()
    log.line("BEGIN", xid=None)
    wal = transaction(100, xid=4_294_967_396)
    before = log(wal) if first else []
    made = [*before, *log.line("DELETE FROM orders", xid=100)]
    made += log.line("SAVEPOINT a", xid=100) + log.line("UPDATE orders SET a = $1", xid=100)
    made += [] if first else log(wal)
    assert ("delete", "success") in outcomes(made)
    assert "update" not in [event.operation for event in made]
    assert ("update", "rolled_back") in outcomes(log.line("ROLLBACK TO a", xid=100))


def test_lines_that_are_missing_leave_it_unknown() -> None:
    """Nobody knows how a transaction ended whose end was not seen, where not every statement is logged."""
    log = Log()
    log.line("BEGIN")
    log.line(DROP)
    assert outcomes(log(Gap(captured_at_us=START_US, reason="log_rotated"))) == [("drop_table", "unknown")]
    partly = Log(complete=False)
    assert partly.line(DROP, xid=7) == []
    assert outcomes(partly.line("SELECT a FROM t", "3/8")) == [("drop_table", "unknown"), ("select", "success")]


def test_a_replay_from_any_record_says_the_same() -> None:
    """What waits is in the checkpoint, with savepoints and what the WAL has shown."""
    lines = [
        ("BEGIN", "3/7", None), (DROP, "3/7", 100), ("SAVEPOINT a", "3/7", 100), ("DELETE FROM orders", "3/7", 100),
        ("ROLLBACK TO a", "3/7", 100), ("UPDATE orders SET a = $1", "3/7", 100), ("COMMIT", "3/0", None),
    ]  # fmt: skip
    events: list[RawEvent] = [
        *settings(),
        Session(
            operation="connect", place=LogPlace("a-1", 1), captured_at_us=START_US, occurred_at_us=START_US, pid=41,
            backend_start_us=SESSION_US, role="app",
        ),
        *(statement(n, statement=text, vxid=vxid, xid=xid) for n, (text, vxid, xid) in enumerate(lines, 2)),
    ]  # fmt: skip
    whole = Log(complete=False)
    expected = whole(*events)
    assert ("drop_table", "success") in outcomes(expected)
    for cut in range(len(events)):
        begun = Log(complete=False)
        before = begun(*events[:cut])
        after = Log(Fold.restore(begun.fold.snapshot(), GRACE_US))(*events[cut:])
        assert [*before, *after] == expected
        assert begun.fold.snapshot() == Fold.restore(begun.fold.snapshot(), GRACE_US).snapshot()
