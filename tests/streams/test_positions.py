"""Positions that go back: what is sent again is dropped, what a restored server commits is not."""

from __future__ import annotations

from typing import Any

from pgwitness.core.events import Event, Transaction
from streams.fold.fold import Fold
from streams.identity.identities import Identities
from tests.streams.folding import GRACE_US
from tests.streams.records import START_US, batch, beacon, transaction


class Folding:
    """A fold, and whether it is replaced by its own checkpoint between any two records."""

    def __init__(self, *, restarts: bool) -> None:
        self.fold = Fold(0, Identities.parse("rules: []"), GRACE_US)
        self.restarts = restarts

    def feed(self, *sent: Transaction) -> list[Event]:
        """Fold one record each; every other one a restart lies between."""
        found: list[Event] = []
        for part in sent:
            found += self.fold.apply(self.fold.next_offset, batch(part))
            if self.restarts:
                self.fold = Fold.restore(self.fold.snapshot(), GRACE_US)
        return found


def at(lsn: int, second: float, **more: Any) -> Transaction:
    """Make a transaction committed so many seconds after the start."""
    return transaction(lsn, committed_at_us=START_US + int(second * 1_000_000), beacons=[beacon()], **more)


def kinds(events: list[Event]) -> list[str]:
    """Return what the events are."""
    return [event.operation or event.kind if event.kind == "gap" else event.kind for event in events]


def test_a_server_put_back_is_a_gap_and_all_that_follows_lands() -> None:
    """Also where the very positions and ids come again; a collector that sends them twice changes nothing."""
    for restarts in (False, True):
        folding = Folding(restarts=restarts)
        before = folding.feed(at(10, 0), at(20, 1), at(30, 2))
        after = folding.feed(at(20, 9), at(30, 10), at(30, 10), at(20, 9), at(40, 11))
        assert kinds(before) == ["change"] * 3
        assert kinds(after) == ["position_went_back", "change", "change", "change"]
        ids = [event.event_id for event in before + after]
        assert len(set(ids)) == len(ids)
        assert after[0].detail["confirmed"] == "0/1E"
        assert after[0].detail["resumes"] == "0/14"


def test_the_same_position_alone_is_recognised_too() -> None:
    """A restored server may commit its first transaction exactly where the last one was."""
    folding = Folding(restarts=False)
    assert kinds(folding.feed(at(10, 0), at(10, 0), at(10, 7))) == ["change", "position_went_back", "change"]


def test_what_is_sent_again_is_dropped() -> None:
    """Neither a clock that was wrong for a while, nor commits whose clock and place disagree a little, make it new."""
    folding = Folding(restarts=False)
    first = [at(10, 0), at(20, 3_600), at(30, 1), at(40, 2.4), at(50, 2)]
    assert kinds(folding.feed(*first)) == ["change"] * 5
    assert folding.feed(*first) == []
    close = Folding(restarts=False)
    assert kinds(close.feed(at(10, 0.9), at(20, 0))) == ["change"] * 2
    assert close.feed(at(10, 0.9)) == []


def test_a_collector_that_knows_says_so_and_is_believed_once() -> None:
    """Its incarnation counts whatever the clocks say, and the fold adds no gap to the collector's own."""
    folding = Folding(restarts=True)
    folding.feed(at(10, 5), at(20, 6))
    after = folding.feed(at(10, 1, incarnation=77), at(10, 1, incarnation=77), at(15, 2, incarnation=77))
    assert kinds(after) == ["change", "change"]
    # The collector's memory was lost: what goes on is taken on, what is sent again is not.
    assert kinds(folding.feed(at(15, 2), at(16, 3))) == ["change"]


def test_a_forgery_outside_of_transactions_has_no_clock() -> None:
    """It carries the collector's time; sent again it is known all the same."""
    folding = Folding(restarts=False)
    folding.feed(at(10, 0), at(20, 1))
    assert folding.feed(at(15, 500, xid=0)) == []


def test_what_waits_of_before_is_let_go() -> None:
    """A held transaction of the old server is not taken for one of the new at the same place."""
    folding = Folding(restarts=False)
    assert folding.feed(transaction(10, at_s=0)) == []
    after = folding.feed(transaction(10, at_s=1.5, incarnation=9), transaction(11, at_s=60, incarnation=9))
    assert kinds(after) == ["change"] * 2
    assert len({event.event_id for event in after}) == 2
