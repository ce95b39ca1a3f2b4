"""Local time and calendars: what a clock somewhere showed, also when it is put forward or back, and on any machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.actions import Action
from detectors.behaviour.model import Behaviour
from detectors.judge import Judge
from detectors.policy.calendars import Calendars, parse_calendars, shown, zone
from detectors.policy.evaluator import Evaluator
from detectors.policy.explain import explain
from detectors.policy.expressions import Expression
from detectors.policy.files import parse
from detectors.policy.policies import Bundle
from pgwitness.core import yamltext
from pgwitness.core.config import Behaviour as Settings
from pgwitness.core.errors import ConfigurationError
from tests.detectors.material import change, event

CALENDARS = """
holidays: {zone: Europe/Berlin, yearly: ["12-25"], days: [2026-04-06]}
freeze:
  zone: Europe/Berlin
  ranges: [{from: 2026-03-27 18:00, until: 2026-03-29}, {from: "2026-10-25 02:15", until: "2026-10-25 02:45"}]
on_call:
  zone: Europe/Berlin
  weekly: [{days: [fri], from: "18:00", until: "08:00"}, {days: [sun]}]
"""
POLICY = """
id: at_night
title: t
description: d
severity: high
kinds: [change, statement]
zone: Europe/Berlin
when: WHEN
message: "{who}"
runbook: r
tests:
  - {name: a, match: true, action: {time: "YES"}}
  - {name: b, match: false, action: {time: "NO"}}
"""


def at(text: str) -> int:
    """Return an instant in microseconds."""
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000


def calendars() -> Calendars:
    """The calendars of these tests."""
    return parse_calendars(yamltext.load(CALENDARS))


@pytest.mark.parametrize(
    ("instant", "clock"),
    [
        ("2026-03-29T00:59:59Z", "2026-03-29 01:59"),  # clocks go from 2 to 3
        ("2026-03-29T01:00:00Z", "2026-03-29 03:00"),
        ("2026-10-25T00:30:00Z", "2026-10-25 02:30"),  # and back from 3 to 2
        ("2026-10-25T01:30:00Z", "2026-10-25 02:30"),
        ("2026-10-25T02:00:00Z", "2026-10-25 03:00"),
        ("2026-12-31T23:00:00Z", "2027-01-01 00:00"),
    ],
)
def test_a_clock_shows_what_it_showed_there(instant: str, clock: str) -> None:
    """The local time of an instant, when clocks are put forward and back, and over the end of a year."""
    said = shown("Europe/Berlin", at(instant))
    assert f"{said['date']} {said['hour']:02}:{said['minute']:02}" == clock


@given(
    st.integers(-(10**18), 10**18),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"]),
)
def test_clocks_agree_with_the_library(seconds: int, name: str) -> None:
    """For any instant and zone the library says the same; what is beyond all calendars is the end of them."""
    said = shown(name, seconds * 1_000_000)
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=min(max(seconds, -62 * 10**9), 253 * 10**9))
    local = instant.astimezone(ZoneInfo(name))
    assert (said["hour"], said["weekday"], said["day"], said["month"]) == (
        local.hour,
        local.weekday(),
        local.day,
        local.month,
    )
    assert (local + timedelta(days=int(str(said["days_left"])) + 1)).day == 1


@pytest.mark.parametrize(
    ("name", "instant", "holds"),
    [
        ("holidays", "2026-12-24T22:59:00Z", False),
        ("holidays", "2026-12-24T23:00:00Z", True),
        ("holidays", "2031-12-25T12:00:00Z", True),
        ("holidays", "2026-04-06T21:59:00Z", True),
        ("holidays", "2026-04-06T22:00:00Z", False),
        ("freeze", "2026-03-27T16:59:00Z", False),
        ("freeze", "2026-03-27T17:00:00Z", True),
        ("freeze", "2026-03-29T21:59:00Z", True),  # until a day: to its end, which is an hour earlier in UTC by then
        ("freeze", "2026-03-29T22:00:00Z", False),
        ("freeze", "2026-10-25T00:14:00Z", False),  # an hour that comes twice is in it both times
        ("freeze", "2026-10-25T00:15:00Z", True),
        ("freeze", "2026-10-25T00:45:00Z", False),
        ("freeze", "2026-10-25T01:15:00Z", True),
        ("freeze", "2026-10-25T01:45:00Z", False),
        ("on_call", "2026-03-27T16:59:00Z", False),
        ("on_call", "2026-03-27T17:00:00Z", True),
        ("on_call", "2026-03-28T06:59:00Z", True),  # past midnight it is still Friday's
        ("on_call", "2026-03-28T07:00:00Z", False),
        ("on_call", "2026-03-28T22:59:00Z", False),
        ("on_call", "2026-03-28T23:00:00Z", True),
        ("on_call", "2026-03-29T21:59:00Z", True),
        ("on_call", "2026-03-29T22:00:00Z", False),
    ],
)
def test_a_period_holds_by_the_clock_there(name: str, instant: str, holds: bool) -> None:
    """Days, ranges and weekly windows, at their edges and over daylight saving."""
    assert calendars().holds(name, at(instant)) is holds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x: {zone: Europe/Berln, days: [2026-01-01]}", "no time zone 'Europe/Berln'"),
        ("x: {zone: ../../etc/passwd, days: [2026-01-01]}", "no time zone"),
        ("x: {zone: UTC}", "1 to 2000 entries are needed"),
        ("x: {days: ['2026-02-30']}", "2026-02-30"),
        ("x: {yearly: ['13-01']}", "no month and day"),
        ("x: {ranges: [{from: 2026-02-02, until: 2026-01-01}]}", "is not after"),
        ("x: {ranges: [{from: '2026-02-02T00:00:00Z', until: 2026-03-01}]}", "no local day or time"),
        ("x: {weekly: [{days: [monday]}]}", "monday"),
        ("x: {weekly: [{days: [mon], from: '6pm'}]}", "no time such as"),
        ("x: {holidays: []}", "holidays"),
        ("X: {days: [2026-01-01]}", "lower case"),
        ("[a]", "Expected `object`"),
    ],
)
def test_a_wrong_calendar_is_refused_in_words(text: str, words: str) -> None:
    """What is wrong with a calendar is named."""
    with pytest.raises(ValueError, match=words):
        parse_calendars(yamltext.load(text))


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ('clock["Mars/Olympus"].hour == 1', "no time zone 'Mars/Olympus'"),
        ('clock["UTC"].hours == 1', "did you mean hour?"),
        ('clock["UTC"].hour == "1"', "is int"),
        ("clock[application].hour == 1", "is asked by a name"),
        ("during.freze", "did you mean freeze?"),
        ("during.freeze == 1", "never is"),
        ("local.minutes > 3", "did you mean minute?"),
        ("size(during) > 1", "is asked by a name"),
    ],
)
def test_what_no_clock_or_calendar_says_is_refused(when: str, words: str) -> None:
    """Zones, fields and calendars that there are not are refused when a policy is loaded."""
    with pytest.raises(ValueError, match=words):
        Expression(when, kinds=["change"], calendars=calendars())


def written(folder: Path, when: str, yes: str, no: str) -> Path:
    """Write a policy and its calendars."""
    folder.mkdir(exist_ok=True)
    (folder / "p.yaml").write_text(POLICY.replace("WHEN", when).replace("YES", yes).replace("NO", no))
    (folder / "calendars.yaml").write_text(CALENDARS)
    return folder


NIGHT = '(local.hour < 6 || during.holidays) && clock["Asia/Tokyo"].month != 2'


def test_policies_ask_for_local_time_and_calendars(tmp_path: Path) -> None:
    """A policy with a zone and calendars runs its tests; its parts are explained with what the clocks showed."""
    bundle = Bundle.load(written(tmp_path / "p", NIGHT, "2026-03-29T03:59:00Z", "2026-03-29T04:00:00Z"))
    assert bundle.run_tests() == []
    (condition,) = bundle.policies["at_night"].conditions
    part = explain(condition, Action(kind="change", occurred_at_us=at("2026-12-25T12:00:00Z")))
    assert part.holds == "yes"
    assert part.parts[1].read == {'clock["Asia/Tokyo"]': "2026-12-25 21:00"}


def test_answers_are_not_kept_longer_than_they_hold(tmp_path: Path) -> None:
    """Events that look alike and differ in their minute alone are judged apart, changes and statements."""
    evaluator = Evaluator(Bundle.load(written(tmp_path / "p", NIGHT, "2026-03-29T03:59:00Z", "2026-03-29T04:00:00Z")))
    judge = Judge(Bundle.load(tmp_path / "p"), labels={}, behaviour=Behaviour(Settings()))
    for instant, matched in [("03:59", True), ("04:00", False), ("03:59", True), ("04:00", False)]:
        at_us = at(f"2026-03-29T{instant}:30Z")
        for each in (change(1, occurred_at_us=at_us), event(1, "statement", occurred_at_us=at_us)):
            assert judge.judge(each).policies == (["at_night"] if matched else [])
        found = evaluator.ask(Action(kind="statement", occurred_at_us=at_us)).matched
        assert [policy.id for policy in found] == (["at_night"] if matched else [])


def test_a_bundle_carries_its_calendars(tmp_path: Path) -> None:
    """They are in its hash and in what a checkpoint records of it; without calendars nothing changes."""
    folder = written(tmp_path / "p", NIGHT, "2026-03-29T03:59:00Z", "2026-03-29T04:00:00Z")
    bundle = Bundle.load(folder)
    again = Bundle.from_canonical(bundle.canonical())
    assert again.sha256 == bundle.sha256
    assert again.calendars.written == bundle.calendars.written
    assert again.run_tests() == []
    (folder / "calendars.yaml").write_text(CALENDARS.replace("2026-04-06", "2026-04-07"))
    assert Bundle.load(folder).sha256 != bundle.sha256
    (folder / "calendars.yaml").write_text("freeze: {zone: nowhere}")
    with pytest.raises(ConfigurationError, match=r"calendars\.yaml: calendar freeze: there is no time zone"):
        Bundle.load(folder)
    night = (
        POLICY.replace("WHEN", "local.hour < 6").replace("YES", "2026-03-29T03:59Z").replace("NO", "2026-03-29T04:00Z")
    )
    assert Bundle.from_canonical(Bundle(parse(night, "x")).canonical()).calendars.names == []


def test_zones_are_those_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own zones are not asked, so that all workers agree."""
    monkeypatch.setattr("zoneinfo.TZPATH", ())
    zone.cache_clear()
    assert zone("America/Sao_Paulo").utcoffset(datetime(2026, 1, 1)) == timedelta(hours=-3)  # noqa: DTZ001
