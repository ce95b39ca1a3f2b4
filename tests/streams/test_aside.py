"""What cannot be taken is set aside by itself: nothing of it stays, everything beside it goes on, and it is told."""

from __future__ import annotations

import msgspec
import pytest

from pgwitness.core.codec import decode_raw
from pgwitness.core.errors import DeadLetter
from pgwitness.core.events import Event, Statement
from pgwitness.core.topics import OURSELVES
from streams.aside import EACH_MAX, WINDOW_US, Aside, Problem
from streams.fold.fold import Fold
from streams.fold.hold_buffer import Held
from streams.identity.identities import Identities
from tests.streams import hostile
from tests.streams.records import IDENTITIES, SECOND_US, START_US, batch, beacon, read, sample, tick, transaction

RAW = "pgwitness.raw"


def test_what_is_left_of_a_flood_is_reported_when_its_minute_is_over() -> None:
    """Fifteen at once are ten by themselves and five together; asked to forget, it tells them at once."""
    for asked in (lambda aside: aside.due(WINDOW_US), lambda aside: aside.rest()):
        aside = Aside()
        told = [summary for n in range(EACH_MAX + 5) for _, summary in aside.add(Problem("x", "y"), n, 0)]
        ((_, rest),) = asked(aside)
        assert sum(summary.records for summary in told) + rest.records == EACH_MAX + 5
        assert aside.rest() == aside.due(WINDOW_US) == []


class Feed:
    """A fold with what stands before it: records in, events out, and what was set aside."""

    def __init__(self) -> None:
        self.fold = Fold(3, Identities.parse(IDENTITIES), 2 * SECOND_US)
        self.offset = 0

    def __call__(self, value: bytes | None) -> list[Event]:
        """Take a record as the worker does."""
        offset, self.offset = self.offset, self.offset + 1
        try:
            events = self.fold.apply(offset, decode_raw(value))
            problems = self.fold.refused
        except DeadLetter as error:
            events = self.fold.skip(offset)
            problems = [Problem(error.reason, str(error))]
        return events + self.fold.set_aside(RAW, problems)


@pytest.fixture
def feed() -> Feed:
    """A fold that knows nothing."""
    return Feed()


HOSTILE = hostile.raw_records()


@pytest.mark.parametrize(("name", "value"), HOSTILE, ids=[name for name, _ in HOSTILE])
def test_a_hostile_record_is_set_aside_by_itself(feed: Feed, name: str, value: bytes | None) -> None:
    """Good events in the same record go on, the bad one becomes a gap that says where, and state stays writable."""
    told = feed(value)
    good = [event.operation for event in told if event.operation != "record_set_aside"]
    assert [word.split("-")[0] for word in good if word] == (["before", "behind"] if name.startswith("+") else [])
    (gap,) = (event for event in told if event.operation == "record_set_aside")
    assert gap.kind == "gap"
    assert (gap.detail["topic"], gap.detail["partition"], gap.detail["offset"]) == (RAW, 3, 0)
    assert gap.cluster == ("shop" if name.startswith("+") else OURSELVES)
    assert len({(event.at, event.event_id) for event in told}) == len(told)
    msgspec.json.encode(told)
    assert Fold.restore(feed.fold.snapshot(), 0).snapshot() == feed.fold.snapshot()


def test_there_are_a_hundred_of_them() -> None:
    """The promise is about a hundred records."""
    assert len(HOSTILE) >= 90


def test_nothing_of_a_failed_event_stays(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody expected, at the end of an event, takes back what it did: sent again, it counts."""
    first = batch(transaction(10, xid=5), transaction(11, beacons=[beacon()]))
    monkeypatch.setattr("streams.fold.records.transaction.compare_with_log", lambda *_: 1 / 0)
    monkeypatch.setattr("streams.fold.sessions.server_log.ServerLog.followed", True)
    before = feed.fold.snapshot()
    events = feed.fold.apply(0, read(first))
    assert events == []
    assert [problem.cause for problem in feed.fold.refused] == ["failed", "failed"]
    assert "ZeroDivisionError in tests.streams.test_aside" in feed.fold.refused[0].why
    monkeypatch.undo()
    kept = feed.fold._clusters["shop"]
    assert (kept.watermarks, kept.clock_us, feed.fold.held) == ({}, 0, 0)
    assert [event.lsn for event in feed.fold.apply(1, read(first))] == [11]
    assert feed.fold.held == 1
    assert before != feed.fold.snapshot()


def test_what_waited_waits_again_when_its_release_fails(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample that names a waiting transaction and fails has not taken it out; the next one does."""
    feed.fold.apply(0, read(batch(transaction(10, xid=5), transaction(20, xid=6))))
    monkeypatch.setattr("streams.fold.holding.change_event", lambda *_: 1 / 0)
    assert feed.fold.apply(1, read(batch(sample(5)))) == []
    assert feed.fold.held == 2
    size = feed.fold.held_bytes
    monkeypatch.undo()
    assert [event.certainty for event in feed.fold.apply(2, read(batch(sample(5))))] == ["strong"]
    assert 0 < feed.fold.held_bytes < size
    assert [event.lsn for event in feed.fold.apply(3, read(batch(tick(9))))] == [20]


def test_a_line_of_the_log_that_failed_counts_when_it_comes_again(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place in the log is not taken for known."""
    line = msgspec.json.decode(msgspec.json.encode(hostile._statement()), type=Statement)
    monkeypatch.setattr("streams.fold.records.statement.statement_event", lambda *_: 1 / 0)
    assert feed.fold.apply(0, read(batch(line, source="log"))) == []
    monkeypatch.undo()
    assert [event.kind for event in feed.fold.apply(1, read(batch(line, source="log")))] == ["statement"]


def test_an_error_of_values_keeps_its_values_to_itself(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an unexpected error says may be a row's value: only its type and place are told."""

    def fail(*_: object) -> None:
        raise KeyError("secret-of-a-row")

    monkeypatch.setattr("streams.fold.holding.change_event", fail)
    feed.fold.apply(0, read(batch(transaction(10, beacons=[beacon()]))))
    (gap,) = feed.fold.set_aside(RAW, feed.fold.refused)
    assert "secret" not in str(gap.detail)
    assert str(gap.detail["error"]).startswith("event 0: KeyError in ")


def test_a_flood_is_reported_in_few_words(feed: Feed) -> None:
    """Of ten thousand bad records each counts in a gap, and there are a few dozen of them."""
    feed(hostile._record(hostile._good("clock")))
    told = [event for number in range(10_000) for event in feed(hostile.bad_event(number))]
    later = batch(tick(WINDOW_US / SECOND_US + 60))
    told += feed.fold.apply(feed.offset, read(later)) + feed.fold.set_aside(RAW, [])
    assert EACH_MAX <= len(told) <= 3 * EACH_MAX
    assert sum(int(str(gap.detail["records"])) for gap in told) == 10_000
    assert [gap.detail["records"] for gap in told[:EACH_MAX]] == [1] * EACH_MAX


def test_counts_survive_a_restart(feed: Feed) -> None:
    """What was not told yet stands in the checkpoint."""
    for number in range(EACH_MAX + 1):
        feed(hostile.bad_event(number))
    again = Fold.restore(feed.fold.snapshot(), 0)
    again.apply(feed.offset, read(batch(tick(3_600))))
    (gap,) = again.set_aside(RAW, [])
    assert (gap.detail["records"], gap.detail["offset"]) == (1, EACH_MAX)


def test_a_window_ends_when_the_clock_goes_back() -> None:
    """A clock that jumps cannot keep what was counted untold."""
    aside = Aside()
    problem = Problem("nonsense", "x")
    told = [aside.add(problem, number, START_US) for number in range(EACH_MAX + 1)]
    assert [len(one) for one in told] == [1] * EACH_MAX + [0]
    ((_, summary),) = aside.due(START_US - 1)
    assert summary.records == 1


def test_the_alert_is_critical(feed: Feed) -> None:
    """What was set aside at attribution is evidence that is missing, and wakes somebody."""
    from detectors.judge import Judge
    from detectors.policy.policies import Bundle

    judge = Judge(Bundle.packaged(), labels={}, behaviour=None)
    (gap,) = feed(hostile.bad_event(1))
    (alert,) = judge.judge(gap).alerts
    ocsf = alert.ocsf()
    assert ocsf["severity"] == "Critical"
    assert ocsf["unmapped"]["policy"] == "evidence_gap"


def test_writes_wait_no_longer_than_the_grace_period_when_a_clock_was_ahead(feed: Feed) -> None:
    """A collector's clock an hour ahead, then right again: what was captured before and after waits two seconds."""
    hour = 3_600
    feed.fold.apply(0, read(batch(tick(0))))
    assert feed.fold.apply(1, read(batch(transaction(10, at_s=hour + 0.5)))) == []
    (gap,) = feed.fold.apply(2, read(batch(tick(1.5))))
    assert (gap.operation, gap.detail["seconds"]) == ("clock_set_back", hour - 1)
    assert feed.fold.apply(3, read(batch(transaction(20, at_s=2)))) == []
    assert feed.fold.apply(4, read(batch(tick(3)))) == []
    assert [event.lsn for event in feed.fold.apply(5, read(batch(tick(3.6))))] == [10]
    assert [event.lsn for event in feed.fold.apply(6, read(batch(tick(4.1))))] == [20]


def test_clocks_that_differ_are_reported_now_and_then(feed: Feed) -> None:
    """Two collectors an hour apart make one gap in a thousand records, and what comes of them goes on."""
    told = [
        event
        for offset in range(3_000)
        for event in feed.fold.apply(offset, read(batch(tick(3_600 * (offset % 2) + offset / 10))))
    ]
    assert 3 <= len(told) <= 4


def test_a_time_far_in_the_future_is_refused(feed: Feed) -> None:
    """An event that was captured days after its record was written is none; clocks that are off by hours are."""
    ahead = read(batch(tick(3 * 86_400), tick(3_600)))
    assert feed.fold.apply(0, ahead, START_US) == []
    assert [problem.index for problem in feed.fold.refused] == [0]
    assert feed.fold._clusters["shop"].clock_us == START_US + 3_600 * SECOND_US


def test_what_waited_and_fails_is_reported_and_gone(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error when the time of a transaction has come concerns that one alone: the next goes on, none comes again."""
    feed.fold.apply(0, read(batch(transaction(10, xid=5), transaction(20, xid=6))))
    from streams.fold.joins.log_join import LogJoin

    decide = LogJoin.decide

    def fail(join: LogJoin, held: Held, announced: bool) -> object:
        return 1 / 0 if held.xid == 5 else decide(join, held, announced)

    monkeypatch.setattr(LogJoin, "decide", fail)
    assert [event.lsn for event in feed.fold.apply(1, read(batch(tick(9))))] == [20]
    assert (feed.fold.refused, feed.fold.held, feed.fold.held_bytes) == ([], 0, 0)
    (gap,) = feed.fold.set_aside(RAW, feed.fold.failed)
    assert "offset 0: ZeroDivisionError" in str(gap.detail["error"])
