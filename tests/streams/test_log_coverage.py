"""Lines the log lacks, found in the stream: what is a loss, and everything that only looks like one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import pytest

from pgwitness.core.events import Event, Gap, LogPlace, Position, Posture, QueryStats, RawEvent, Statement
from streams.fold.fold import Fold
from streams.fold.log_coverage import PERIOD_US, REASON, SETTLED_US, UNITS_MAX
from streams.identity.identities import Identities
from tests.often import often
from tests.streams.records import IDENTITIES, SECOND_US, START_US, batch

READ_EVERY_S = 10
HOURS = 2.3
TEXTS = ("SELECT a FROM t WHERE id = $1", "UPDATE t SET a = $1 WHERE id = $2", "INSERT INTO u VALUES ($1)")
STEP_S = PERIOD_US // SECOND_US + SETTLED_US // SECOND_US + 120


def setting(name: str = "log_statement", value: str = "all", change: str = "found", at_s: float = 0) -> Posture:
    """Make what a snapshot says of a setting."""
    at_us = START_US + int(at_s * SECOND_US)
    return Posture(captured_at_us=at_us, object_type="setting", name=name, change=change, after={"value": value})


def line(number: int, at_s: float, text: str | None = TEXTS[0], **facts: Any) -> Statement:
    """Make a line of the log."""
    at_us = START_US + int(at_s * SECOND_US)
    given: dict[str, Any] = {"source": "statement", "role": "app", "database": "shop", "pid": 7}
    return Statement(
        captured_at_us=at_us,
        place=LogPlace("log", number),
        format="jsonlog",
        occurred_at_us=at_us,
        statement=text,
        **(given | facts),
    )


def stats(start_s: float, end_s: float, calls: int, text: str = TEXTS[0], **facts: Any) -> QueryStats:
    """Make what a reading of the statistics says of a statement."""
    given: dict[str, Any] = {
        "database": "shop",
        "role": "app",
        "query_id": TEXTS.index(text) + 1 if text in TEXTS else 9,
    }
    return QueryStats(
        captured_at_us=START_US + int(end_s * SECOND_US),
        window_start_us=START_US + int(start_s * SECOND_US),
        window_end_us=START_US + int(end_s * SECOND_US),
        statement=text,
        calls=calls,
        rows=calls,
        total_ms=1.0,
        **(given | facts),
    )


def day(hours: float = HOURS, seed: int = 1, lose: float = 0.0, lag_s: float = 0.0) -> Iterator[RawEvent]:
    """Make hours of bursts: lines come `lag_s` late, a share of them never, and a reading every ten seconds."""
    random = Random(seed)
    number, late = 0, []
    last_s = 0
    for at_s in range(0, int(hours * 3600), READ_EVERY_S):
        counted: dict[str, int] = {}
        for _ in range(random.choice([0, 1, 2, 12])):
            text = random.choice(TEXTS)
            moment = at_s + random.random() * READ_EVERY_S
            counted[text] = counted.get(text, 0) + 1
            if random.random() >= lose:
                late.append((moment + lag_s, moment, text))
        number += 1
        late.append((at_s + 5 + lag_s, at_s + 5, "SELECT $1"))  # the witness itself is logged, too
        late.sort()
        while late and late[0][0] <= at_s + READ_EVERY_S:
            _, moment, text = late.pop(0)
            number += 1
            yield line(number, moment, text)
        for text, calls in counted.items():
            yield stats(last_s, at_s + READ_EVERY_S, calls, text)
        last_s = at_s + READ_EVERY_S


def judged(events: Iterable[RawEvent], fold: Fold | None = None) -> list[Event]:
    """Return what the fold says the log lost."""
    fold = fold or Fold(0, Identities.parse(IDENTITIES), 0)
    out: list[Event] = []
    for offset, event in enumerate(events, fold.next_offset):
        source = "log" if isinstance(event, Statement) else "stats"
        out += fold.apply(offset, batch(event, source=source))
    return [event for event in out if event.operation == REASON]


@pytest.mark.parametrize("lag_s", [0.0, 0.4, 25.0, 900.0])
@pytest.mark.parametrize("seed", often([1], [1, 2, 3]))
def test_a_whole_log_lacks_nothing(seed: int, lag_s: float) -> None:
    """Bursts over the edges of readings and a log that comes late are no loss."""
    assert judged([setting(), *day(seed=seed, lag_s=lag_s)]) == []


@pytest.mark.parametrize("lag_s", [0.0, 25.0])
def test_lost_lines_are_reported_each_hour(lag_s: float) -> None:
    """Of a tenth that is missing nearly all is told, hour by hour, with the calls and what is missing most."""
    events = [setting(), *day(lose=0.1, lag_s=lag_s)]
    calls = sum(event.calls for event in events if isinstance(event, QueryStats))
    lost = judged(events)
    assert len(lost) == 2
    assert all(event.kind == "gap" and event.instance == "db:5432" and event.database == "shop" for event in lost)
    missing = [event.detail["missing"] for event in lost]
    true = 0.1 * calls * 2 / HOURS
    assert 0.7 * true < sum(int(str(number)) for number in missing) <= 1.2 * true
    assert {"since_us", "until_us", "calls", "missing", "statements", "fingerprint"} <= lost[0].detail.keys()


def test_a_checkpoint_in_between_changes_nothing() -> None:
    """A fold that goes on from a checkpoint says the same at the same records."""
    events = [setting(), *day(lose=0.1)]
    half = len(events) // 2
    fold = Fold(0, Identities.parse(IDENTITIES), 0)
    first = judged(events[:half], fold)
    assert first + judged(events[half:], Fold.restore(fold.snapshot(), 0)) == judged(events)


def test_a_checkpoint_of_an_earlier_release_is_gone_on_from() -> None:
    """What it knew of log_statement is known; counting begins with the next line."""
    fold = Fold(0, Identities.parse(IDENTITIES), 0)
    fold.apply(0, batch(setting()))
    kept = fold.snapshot().replace(
        b'"log_coverage":{"settings":{"log_statement":"all"}', b'"log_coverage":null,"x":{"y":{}'
    )
    assert b'"log_coverage":null' in kept
    assert judged(list(day(lose=0.1)), Fold.restore(kept, 0))


@pytest.mark.parametrize(
    "settings",
    [
        [],
        [setting(value="mod")],
        [setting("log_min_duration_statement", "250")],
        [setting(), setting(value="none", change="changed")],
        [setting("pgaudit.log", "all, -misc")],
    ],
)
def test_a_log_that_need_not_have_everything_lacks_nothing(settings: list[Posture]) -> None:
    """Without a setting that logs every statement nothing is decided."""
    assert judged([*settings, *day(lose=0.5)]) == []


def test_roles_with_settings_of_their_own_are_left_out() -> None:
    """An override of the log's settings for a role, or for all, says nothing of what was lost."""
    for name in ("app", "app IN shop", "ALL IN shop"):
        silent = {"after": {"log_statement": "none"}, "change": "found"}
        override = Posture(captured_at_us=START_US, object_type="role_setting", name=name, **silent)
        assert judged([setting(), override, *day(lose=0.5)]) == []


def test_a_setting_that_changes_starts_over() -> None:
    """Hours in which statements were not logged throughout are not compared."""
    events = list(day(lose=0.2))
    third = len(events) // 3
    changed: list[RawEvent] = []
    for number, event in enumerate(events):
        if number in (third, 2 * third):
            changed += [setting(value="none", change="changed"), setting(value="all", change="changed")]
        changed.append(event)
    assert judged([setting(), *changed]) == []


def test_a_loss_is_not_reported_twice() -> None:
    """When a file of the log went away, or statistics were reset, counting begins anew."""
    events = list(day(hours=1.8, lose=0.5))
    gap = Gap(captured_at_us=START_US, reason="log_rotated_away")
    assert judged([setting(), *events])
    assert judged([setting(), *events[: len(events) // 2], gap, *events[len(events) // 2 :]]) == []


def odd(kind: str) -> list[RawEvent]:
    """Make a stream in which lines and calls differ for an ordinary reason."""
    events: list[RawEvent] = [setting(), line(1, 0)]
    for number in range(2, STEP_S // READ_EVERY_S):
        at_s = number * READ_EVERY_S
        span = (at_s - READ_EVERY_S, at_s)
        if kind == "two in one text":
            events.append(line(number, at_s - 1, "; ".join(TEXTS[:2])))
            events += [stats(*span, 1), stats(*span, 1, TEXTS[1])]
        elif kind == "unreadable":
            events += [line(number, at_s - 1, None, statement_hash="x"), stats(*span, 1)]
        elif kind == "execute":
            events += [line(number, at_s - 1, "EXECUTE p($1)"), stats(*span, 1)]
        elif kind == "named by its id":
            events += [stats(*span, 1), line(number, at_s - 1, "SELECT other($1)", query_id=1)]
        elif kind == "failed":
            events += [line(2 * number, at_s - 1), line(2 * number + 1, at_s - 1, outcome="failure"), stats(*span, 1)]
        elif kind == "nested":
            events += [line(number, at_s - 1), stats(*span, 9, TEXTS[1], toplevel=False), stats(*span, 1)]
        elif kind == "approximate":
            events += [line(number, at_s - 1), stats(*span, 9, TEXTS[1], approximate=True), stats(*span, 1)]
        elif kind == "no text":
            events += [line(number, at_s - 1), stats(*span, 9, "$1 is no SQL"), stats(*span, 1)]
        elif kind == "a few":
            events += [line(number, at_s - 1), stats(*span, 1 + (number < 12))]
    return events


@pytest.mark.parametrize(
    "kind",
    [
        "two in one text",
        "unreadable",
        "execute",
        "named by its id",
        "failed",
        "nested",
        "approximate",
        "no text",
        "a few",
    ],
)
def test_what_is_ordinary_is_no_loss(kind: str) -> None:
    """Texts of several statements, unreadable ones, failures, nested calls, uncertain windows, a few lines."""
    assert judged(odd(kind)) == []


def test_the_period_of_these_oddities_is_long_enough_to_be_decided() -> None:
    """The same stream with one call too many at each reading is a loss, so the test before can fail."""
    events = [event for event in odd("nested") if not isinstance(event, QueryStats) or event.toplevel]
    more = [stats(number * 10 - 10, number * 10, 1, TEXTS[2]) for number in range(2, STEP_S // READ_EVERY_S)]
    merged = sorted([*events[1:], *more], key=lambda event: event.captured_at_us)
    assert len(judged([events[0], *merged])) == 1


def test_statistics_from_before_the_log_was_read_do_not_count() -> None:
    """A log that begins later, and a log collector that is paused, lack nothing."""
    events = list(day())
    noon_us = START_US + 5_000 * SECOND_US
    begun = [event for event in events if not isinstance(event, Statement) or event.occurred_at_us > noon_us]
    assert judged([setting(), *begun]) == []
    paused = [event for event in events if not isinstance(event, Statement) or event.occurred_at_us < noon_us]
    assert judged([setting(), *paused]) == []


def test_memory_is_bounded() -> None:
    """A flood of different statements begins anew instead of growing."""
    fold = Fold(0, Identities.parse(IDENTITIES), 0)
    coverage = fold._clusters.touch("shop").coverage
    fold.apply(0, batch(setting()))
    for number in range(UNITS_MAX + 50):
        coverage.statement(
            Event(
                kind="statement",
                event_id=f"e{number}",
                at=Position(0, 0, 0),
                occurred_at_us=START_US,
                captured_at_us=START_US,
                cluster="shop",
                instance="db:5432",
                database="shop",
                statement="SELECT $1",
                fingerprint=str(number),
                detail={"source": "statement"},
            )
        )
    assert len(coverage.state.instances["db:5432"].balance) == 49
    assert len(fold.snapshot()) < 200_000
