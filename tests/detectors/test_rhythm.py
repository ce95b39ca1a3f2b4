"""Windows of a principal's time: when they close, what is found in them, and that none of it can be abused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from detectors.behaviour.model import Behaviour
from detectors.behaviour.rhythm import Rhythm
from detectors.behaviour.routine import Routine, hour_of_week
from detectors.behaviour.windows import COUNT_MAX, EVENT_IDS_MAX, LENGTHS, VALUES_MAX, Window
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from pgwitness.core.config import Behaviour as Settings
from pgwitness.core.events import Event
from pgwitness.core.units import Duration
from tests.detectors.material import HOSTILE, change, event

START_US = 1_786_924_800_000_000
"""A Monday, 00:00 UTC."""
MINUTE_US, HOUR_US, DAY_US = 60_000_000, 3_600_000_000, 86_400_000_000
SETTINGS = Settings(warmup=Duration(600.0), warmup_observations=20, principals_max=400)


class Days:
    """A judge of behaviour alone, and days of somebody's work."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.judge = Judge(Bundle([]), labels={}, behaviour=Behaviour(settings))
        self.alerts: list[Any] = []
        self._number = 0

    def act(self, at_us: int, who: str = "ada", operation: str = "u", rows: int = 2, **facts: Any) -> None:
        """Let somebody change rows."""
        self._number += 1
        facts = {"peer_group": "team", "occurred_at_us": at_us, "captured_at_us": at_us + 1_000, **facts}
        event = change(self._number, operation, rows, facts.pop("relation", "public.orders"), principal=who, **facts)
        self.alerts += self.judge.judge(event).alerts

    def read(self, at_us: int, who: str = "ada", query: str = "by id", rows: int = 1) -> None:
        """Let somebody read customers by a query."""
        self._number += 1
        facts = {"principal": who, "peer_group": "team", "relations": ["public.customers"], "fingerprint": query}
        facts |= {"occurred_at_us": at_us, "captured_at_us": at_us + 1_000, "row_count": rows}
        detail = {"operations": ["select"], "where": "present"}
        told = event(self._number, "statement", operation="select", statement="SELECT 1", detail=detail, **facts)
        self.alerts += self.judge.judge(told).alerts

    def look_up(self, days: range, team: tuple[str, ...] = ("ada", "ben", "cora", "dan")) -> None:
        """Let a team look customers up, one to three at a time, around the clock."""
        for day in days:
            for minute in range(0, 24 * 60, 20):
                for number, who in enumerate(team):
                    at_us = START_US + day * DAY_US + minute * MINUTE_US + number
                    self.read(at_us, who, rows=1 + minute // 20 % 3)

    def work(self, days: range, who: str = "ada", rows: int = 2, nightly: int = 0) -> None:
        """Let somebody work from nine to five, and a batch of so many rows run at two."""
        for day in days:
            if nightly:
                self.act(START_US + day * DAY_US + 2 * HOUR_US, who, rows=nightly)
            for minute in range(0, 8 * 60, 10):
                self.act(START_US + day * DAY_US + 9 * HOUR_US + minute * MINUTE_US, who, rows=rows + minute % 3)

    def features(self) -> set[str]:
        """Return the reasons of all findings."""
        return {reason["feature"] for alert in self.alerts for reason in alert.reasons}

    @property
    def told(self) -> list[Any]:
        """Return what was strange enough to be told by itself."""
        return [alert for alert in self.alerts if alert.detector == "behaviour" and not alert.lake_only]


def test_what_is_strange_is_reported_by_the_event_that_makes_it_so() -> None:
    """Who takes much within a few minutes is told while the hour is open, by itself, and once for the same day."""
    days = Days()
    days.work(range(8))
    days.work(range(8), who="ben")
    assert not days.told
    for minute in range(4):
        days.act(START_US + 8 * DAY_US + 10 * HOUR_US + minute * MINUTE_US, rows=90)
    assert {alert.action.principal for alert in days.told} == {"ada"}
    alert = days.told[0]
    assert alert.severity in ("low", "medium")
    assert alert.ocsf()["is_alert"] is False
    assert "rows written in an hour" in alert.message
    assert "such windows of its peers" in alert.message
    assert alert.event_ids
    days.act(START_US + 8 * DAY_US + 12 * HOUR_US, who="ben")
    days.act(START_US + 9 * DAY_US + 12 * HOUR_US, who="ben")
    assert len({one.uid for one in days.told}) <= 2


def test_what_many_do_on_one_day_is_less_strange_of_each() -> None:
    """On a day of tenfold load the first is as strange as when it is alone, the later ones are much less."""

    def scores(names: tuple[str, ...]) -> dict[str, float]:
        days = Days()
        team = tuple(f"m{number}" for number in range(6))
        days.look_up(range(6), team)
        for number, who in enumerate(names):
            for minute in range(30):
                days.read(START_US + 6 * DAY_US + (10 * 60 + number * 40 + minute) * MINUTE_US, who, rows=40)
        days.look_up(range(8, 9), team)
        found = [alert for alert in days.alerts if alert.detector == "behaviour"]
        return {who: max((a.anomaly or 0.0 for a in found if a.action.principal == who), default=0.0) for who in names}

    alone, many = scores(("m5",)), scores(("m1", "m2", "m3", "m4", "m5"))
    assert alone["m5"] > 0.98
    assert many["m1"] == pytest.approx(alone["m5"], abs=0.01)
    assert 1.0 - many["m5"] > 3 * (1.0 - alone["m5"])


def test_a_nightly_batch_is_a_routine() -> None:
    """What comes once each day is not strange, though it is a hundred times the usual; ten times that is."""
    days = Days()
    days.work(range(8), nightly=400)
    assert not days.told
    days.act(START_US + 8 * DAY_US + 2 * HOUR_US, rows=40_000)
    days.work(range(8, 9))
    assert "rows_written" in days.features()


def test_small_pieces_are_found_by_the_hour() -> None:
    """Many small deletes, none of which is unusual, are a finding before the day is over."""
    days = Days()
    days.work(range(7))
    for piece in range(50):
        days.act(START_US + 7 * DAY_US + 9 * HOUR_US + piece * MINUTE_US, operation="d", rows=6)
    days.act(START_US + 7 * DAY_US + 11 * HOUR_US)
    assert "rows_deleted" in days.features()


def test_a_little_more_each_day_adds_up() -> None:
    """Volumes that grow by half a day never jump, and are found by their trend."""
    days = Days()
    days.work(range(10))
    for day in range(10, 18):
        days.work(range(day, day + 1), rows=round(2 * 1.5 ** (day - 9)))
    assert {"creep", "rows_written"} & days.features()


def test_hours_without_precedent_are_named() -> None:
    """Usual work at three in the night is found, and the reason says so; at ten it is not."""
    days = Days()
    days.work(range(5))
    days.work(range(7, 10))
    assert not days.told
    for minute in range(0, 40, 2):
        days.act(START_US + 10 * DAY_US + 3 * HOUR_US + minute * MINUTE_US)
    days.work(range(10, 11))
    assert "off_hours" in days.features()


def test_what_is_foreign_to_all_peers_is_found() -> None:
    """A relation that nobody of the group ever touched is; one that the peers use every day is not."""
    days = Days()
    for minute in range(8):
        for who in ("ben", "cora", "dan"):
            days.act(START_US + 8 * HOUR_US + minute * MINUTE_US, who=who, relation="public.tickets")
    for day in range(5):
        for who in ("ada", "ben", "eve"):
            days.work(range(day, day + 1), who=who)
    for minute in range(4):
        at_us = START_US + 6 * DAY_US + 9 * HOUR_US + minute * MINUTE_US
        days.act(at_us, relation="hr.salaries")
        days.act(at_us, who="eve", relation="public.tickets")
    days.work(range(6, 7))
    named = [alert for alert in days.alerts if any(one["feature"] == "foreign" for one in alert.reasons)]
    assert {alert.action.principal for alert in named} == {"ada"}
    assert "update hr.salaries" in named[0].message


def test_much_read_by_a_query_nobody_ran_before_is_found() -> None:
    """A few dozen rows by a query that is new to all are found though each statement is small; by a known one not."""
    days = Days()
    days.look_up(range(7))
    start_us = START_US + 7 * DAY_US
    for part in range(3):
        days.read(start_us + part * MINUTE_US, "ada", "all of a tenant", rows=22)
        days.read(start_us + part * MINUTE_US, "ben", "by id", rows=22)
    named = [alert for alert in days.told if any(one["feature"] == "rows_read_new" for one in alert.reasons)]
    assert {alert.action.principal for alert in named} == {"ada"}
    assert "rows read in an hour by queries that neither this principal nor its peers ever ran" in named[-1].message
    assert named[0].event_ids


def test_the_same_rows_are_not_two_reasons() -> None:
    """Rows that are far too many and read by a new query are named once."""
    days = Days()
    days.look_up(range(7))
    days.read(START_US + 7 * DAY_US, "ada", "everything", rows=40)
    days.read(START_US + 7 * DAY_US + MINUTE_US, "ada", "everything", rows=400)
    days.read(START_US + 7 * DAY_US + 10 * MINUTE_US, "ben")
    assert "rows_read" in days.features()
    for alert in days.alerts:
        named = [reason["feature"] for reason in alert.reasons]
        assert len(named) == len(set(named))


def test_a_query_that_peers_run_is_not_a_new_way_of_reading() -> None:
    """When three members run a release's query, the fourth may read as much by it as by any other."""
    days = Days()
    days.look_up(range(7))
    start_us = START_US + 7 * DAY_US
    for who in ("ben", "cora", "dan"):
        days.read(start_us, who, "of the release")
    for part in range(3):
        days.read(start_us + part * MINUTE_US, "ada", "of the release", rows=22)
    for who in ("ada", "ben"):
        days.read(start_us + 10 * MINUTE_US, who)
    of_ada = [alert for alert in days.alerts if alert.action.principal == "ada"]
    assert not any(reason["feature"] == "rows_read_new" for alert in of_ada for reason in alert.reasons)


def test_what_an_older_model_wrote_is_read() -> None:
    """Habits and routines of the version before go on; what is ordinary in a group is learned anew."""
    days = Days()
    days.work(range(5))
    state = msgspec.json.decode(days.judge.snapshot())["behaviour"]
    now = msgspec.json.encode(state["rhythm"]["routines"])
    state["model"] = "habits-3"
    for _, (_, _, windows, rates, _, tops, *_) in state["rhythm"]["routines"]:
        windows.insert(0, 17)
        rates["5m:actions"] = tops["5m:actions"] = [1, 1.0, 1.0]
    model = Behaviour(SETTINGS)
    model.restore(state)
    assert len(model) == len(days.judge._behaviour or ()) > 0
    assert state["rhythm"]["routines"]
    assert msgspec.json.encode(model.snapshot()["rhythm"]["routines"]) == now
    assert model.snapshot()["known"] == state["known"]
    model = Behaviour(SETTINGS)
    model.restore(state | {"model": "habits-1"})
    assert len(model) == 0


def test_first_windows_do_not_alert() -> None:
    """Nothing is said of a principal's first three days, however wild they are."""
    days = Days()
    for day in range(3):
        for number in range(300):
            at_us = START_US + day * DAY_US + number * 4 * MINUTE_US
            days.act(at_us, rows=(number * 7_919) % 5_000 + 1)
    windows = [alert for alert in days.alerts if alert.first_seen_us != alert.last_seen_us]
    assert not windows


@pytest.mark.parametrize("away_us", [-(2**60), 2**60])
def test_a_clock_that_is_off_stops_nothing(away_us: int) -> None:
    """An event from another age neither closes everybody's windows nor keeps them open for ever."""
    days = Days()
    days.work(range(7))
    days.act(START_US + 7 * DAY_US, who="eve", occurred_at_us=START_US + away_us, captured_at_us=START_US + 7 * DAY_US)
    for minute in range(4):
        days.act(START_US + 7 * DAY_US + 10 * HOUR_US + minute * MINUTE_US, rows=90)
    days.act(START_US + 7 * DAY_US + 11 * HOUR_US)
    assert "rows_written" in days.features()


def test_a_flood_of_names_does_not_push_out_open_windows() -> None:
    """Ten thousand unknown principals within a minute do not hide what somebody known did in it."""
    days = Days()
    days.work(range(7))
    for minute in range(4):
        days.act(START_US + 7 * DAY_US + 10 * HOUR_US + minute * MINUTE_US, rows=90)
    for number in range(10_000):
        days.act(START_US + 7 * DAY_US + 10 * HOUR_US + 4 * MINUTE_US + number, who=f"nobody-{number}", peer_group=None)
    days.act(START_US + 7 * DAY_US + 10 * HOUR_US + 20 * MINUTE_US)
    assert "rows_written" in days.features()


def test_what_is_kept_of_unknown_principals_is_bounded_by_structure() -> None:
    """However many hostile names come, windows, routines and groups fill caches of fixed size."""
    rhythm = Rhythm(SETTINGS, lambda key: False)
    for number in range(10_000):
        event = change(number, "u", 3, f"public.{number}", principal_kind="agent", peer_group=f"group-{number}")
        rhythm.count(
            f"{HOSTILE[number % len(HOSTILE)]}-{number}"[-160:], event, "update", f"public.{number}", 3, None, None
        )
    state = rhythm.state()
    most = SETTINGS.principals_max // 4
    assert all(len(room) <= most for room in state["open"])
    assert state["routines"] == []
    assert len(rhythm.populations) <= SETTINGS.groups_max + 4


def test_numbers_that_nobody_could_mean_are_cut_off() -> None:
    """Rows and calls beyond all measure, or below nothing, leave a window that can be written down."""
    window = Window(1, 0)
    for rows in (-(2**63), 2**63, 2**200):
        event = change(1, calls=2**62)
        window.add("update", "public.orders", rows, None, event)
        window.add("select", None, rows, "x" * 100_000, event)
    assert window.rows_written == window.rows_read == 2 * COUNT_MAX
    assert len(msgspec.json.encode(window.state())) < 2_000


def test_a_window_is_bounded_and_comes_back() -> None:
    """Thousands of values leave a bounded window, which is the same after it was written down."""
    window, hour = Window(1, 0), Window(1, 0)
    for number in range(1_000):
        event = change(number, client_addr=f"10.0.{number // 250}.{number % 250}")
        window.add("update", f"public.t{number}", 1, f"s{number}", event)
        window.keep(event.event_id)
    hour.pour(window)
    hour.pour(window)
    assert len(hour.relations) == len(hour.statements) == len(hour.addresses) == VALUES_MAX
    assert len(hour.event_ids) == EVENT_IDS_MAX
    assert hour.event_ids[0] == f"{0:032x}"
    assert hour.actions == 2_000
    assert Window.of(msgspec.json.decode(msgspec.json.encode(hour.state()))).state() == hour.state()


def test_a_routine_comes_back_exactly() -> None:
    """Rates, highest values, creep and hours go on to the last bit."""

    def day(number: int) -> Window:
        window = Window(1, START_US + number * DAY_US)
        window.actions, window.rows_read = 30 + number % 5, 100 + 17 * number % 60
        return window

    stayed = Routine()
    for number in range(12):
        for length in LENGTHS:
            stayed.learn(length.name, day(number))
        stayed.creep(day(number))
        stayed.end_of_day(START_US + number * DAY_US)
    restored = Routine.of(msgspec.json.decode(msgspec.json.encode(stayed.state())))
    for number in range(12, 40):
        for routine in (stayed, restored):
            routine.creep(day(number))
            routine.learn("1d", day(number))
            routine.end_of_day(START_US + number * DAY_US)
    assert restored.state() == stayed.state()


def test_a_week_begins_on_monday() -> None:
    """The first hour of the week is Monday's, UTC."""
    assert hour_of_week(START_US) == 0
    assert hour_of_week(START_US + 6 * DAY_US + 23 * HOUR_US) == 167


def test_a_window_ends_with_its_last_microsecond() -> None:
    """What happens on the hour belongs to the next one, on midnight to the next day; each action is counted once."""
    rhythm = Rhythm(SETTINGS, lambda key: True)
    for at_us, hour, day in (
        (DAY_US - HOUR_US, 1, 1),
        (DAY_US - 1, 2, 1),
        (DAY_US, 1, 2),
        (DAY_US + HOUR_US - 1, 2, 2),
        (DAY_US + HOUR_US, 1, 2),
    ):
        event = change(1, occurred_at_us=START_US + at_us, captured_at_us=START_US + at_us)
        rhythm.count("ada", event, "update", "public.orders", 2, None, None)
        (_, hours), (_, days) = *rhythm._hours.items(), *rhythm._days.items()
        assert (hours.actions, hours.end_us) == (hour, START_US + (at_us // HOUR_US + 1) * HOUR_US)
        assert days.end_us == START_US + day * DAY_US
    assert days.actions == 2  # those of the hour of this day that has closed


def test_an_open_window_is_asked_about_from_the_number_on() -> None:
    """It is time to look when a count reaches what is asked for, not when it has passed it; each for itself."""
    for name, operation, facts in (
        ("ask", "update", {}),
        ("ask_read", "select", {}),
        ("ask_written", "insert", {}),
        ("ask_deleted", "delete", {}),
        ("ask_errors", "update", {"outcome": "denied"}),
    ):
        window = Window(1, 0)
        setattr(window, name, 3)
        looks = [window.add(operation, "public.orders", 1, None, change(n, **facts)) for n in range(4)]
        assert looks == [False, False, True, True], name


def test_a_day_knows_the_first_and_the_last_of_its_hours() -> None:
    """Poured in whatever order, with the sample of what moved the most rows; equal ones leave the first."""
    day = Window(DAY_US, 5 * HOUR_US)
    for at_us, rows in ((5 * HOUR_US, 7), (HOUR_US, 9), (9 * HOUR_US, 9)):
        hour = Window(at_us + HOUR_US, at_us)
        hour.last_us, hour.sample, hour.sample_rows = at_us + 1, [at_us], rows
        day.pour(hour)
    assert (day.first_us, day.last_us, day.sample, day.sample_rows) == (HOUR_US, 9 * HOUR_US + 1, [HOUR_US], 9)


def test_of_many_events_the_first_and_the_latest_are_evidence() -> None:
    """As many as are kept, none twice, the first for ever and the others the latest."""
    window = Window(1, 0)
    for number in (*range(EVENT_IDS_MAX), 3, 0):
        window.keep(f"e{number}")
    assert window.event_ids == [f"e{number}" for number in range(EVENT_IDS_MAX)]
    window.keep("e99")
    assert window.event_ids == ["e0", *(f"e{number}" for number in range(2, EVENT_IDS_MAX)), "e99"]


def test_an_event_may_close_only_a_few_windows() -> None:
    """After a silence nobody pays for all: three windows an event, until all are closed."""
    rhythm = Rhythm(Settings(), lambda key: True)

    def at(us: int) -> Event:
        return change(1, occurred_at_us=us, captured_at_us=us)

    for number in range(50):
        rhythm.count(f"p{number}", at(START_US + number), "update", "public.orders", 1, None, None)
    left = []
    for number in range(40):
        rhythm.count("last", at(START_US + 2 * HOUR_US + number), "update", "public.orders", 1, None, None)
        left.append(len(rhythm.state()["open"][0]))
    assert left[0] == 50 - 3 + 1
    assert left[-1] == 1
