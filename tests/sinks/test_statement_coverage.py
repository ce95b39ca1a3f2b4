"""The view `statement_coverage`: calls that statistics counted against statements that the log told, by values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pgwitness.core.events import Event, Position
from sinks.lake.writer import Lake
from sinks.sql.catalogue import connect
from tests.sinks.material import NOON_US, ORDINARY, other

SECOND_US = 1_000_000
Answer = list[tuple[Any, ...]]


def window(end_s: int, calls: int, name: str = "a", *, seconds: int = 10, role: str = "app", **facts: Any) -> Event:
    """Make what one statement did in the window that ended so many seconds after noon."""
    since_us = NOON_US + (end_s - seconds) * SECOND_US
    values: dict[str, Any] = {
        "kind": "query_stats",
        "operation": "update",
        "database": "shop",
        "instance": "db:5432",
        "role": role,
        "query_id": sum(map(ord, name)),
        "fingerprint": name,
        "statement": f"UPDATE {name}",
        "calls": calls,
        "occurred_at_us": NOON_US + end_s * SECOND_US,
        "detail": {"window_start_us": since_us, "toplevel": True},
    }
    return other(end_s, **(values | facts))


def line(at_s: float, name: str = "a", source: str = "duration", **facts: Any) -> Event:
    """Make a statement that the log told so many seconds after noon."""
    values: dict[str, Any] = {
        "kind": "statement",
        "operation": "update",
        "database": "shop",
        "instance": "db:5432",
        "binding": "log",
        "query_id": sum(map(ord, name)),
        "fingerprint": name,
        "calls": 1,
        "outcome": "success",
        "occurred_at_us": NOON_US + int(at_s * SECOND_US),
        "detail": {"source": source},
    }
    return other(0, **(values | facts))


def setting(name: str, value: str, at_s: int = -7200, change: str = "found") -> Event:
    """Make what a snapshot says of a setting."""
    detail = {"object_type": "setting", "name": name, "change": change, "after": {"value": value}}
    return other(0, kind="posture", operation=change, detail=detail, occurred_at_us=NOON_US + at_s * SECOND_US)


EVERYTHING = setting("log_min_duration_statement", "0")
SUMMARY = other(
    0, kind="posture", detail={"object_type": "summary", "name": "objects"}, occurred_at_us=NOON_US - 7200 * SECOND_US
)
BEFORE = line(-3600, "earlier")
AFTER = window(3600 + 600, 1, "later")


@pytest.fixture
def covered(tmp_path: Path) -> Callable[..., Answer]:
    """Land events and give what the view says of noon's hour: status, calls, seen, missing, share by statement."""

    def land(*events: Event, without: tuple[Event, ...] = ()) -> Answer:
        made = [event for event in (SUMMARY, EVERYTHING, BEFORE, *events, AFTER) if event not in without]
        for place, event in enumerate(made):
            event.at = Position(0, place, 0)
            event.event_id = f"{place:032x}"
        writer = Lake(tmp_path).writer("events", 0)
        writer.resume()
        writer.append(0, made, [ORDINARY] * len(made))
        writer.commit()
        return (
            connect(tmp_path)
            .execute(
                "SELECT fingerprint, status, calls, seen, missing, missing_share FROM statement_coverage"
                " WHERE hour = TIMESTAMPTZ '2026-09-22 12:00:00+00' ORDER BY ALL"
            )
            .fetchall()
        )

    return land


def test_every_call_that_the_log_tells_is_seen(covered: Callable[..., Answer]) -> None:
    """Windows of one hour and statement add up."""
    assert covered(window(10, 2), window(20, 1), line(1), line(2), line(11)) == [("a", "logged", 3, 3, 0, 0.0)]


def test_lost_lines_show_as_a_share(covered: Callable[..., Answer]) -> None:
    """A log that does not tell what statistics counted has lost it; other statements make up for nothing."""
    assert covered(window(10, 4), window(10, 1, "b"), line(1), line(2, "b"), line(3, "b")) == [
        ("a", "logged", 4, 1, 3, 0.75),
        ("b", "logged", 1, 2, 0, 0.0),
    ]


def test_a_statement_with_lines_of_several_sources_is_one(covered: Callable[..., Answer]) -> None:
    """Its duration, its plan and its audit record are the same statement."""
    lines = [line(1, source=source) for source in ("duration", "auto_explain", "pgaudit")]
    assert covered(window(10, 2), *lines) == [("a", "logged", 2, 1, 1, 0.5)]


def test_failed_statements_are_in_neither_number(covered: Callable[..., Answer]) -> None:
    """Statistics count what ran to its end."""
    assert covered(window(10, 1), line(1), line(2, outcome="failure")) == [("a", "logged", 1, 1, 0, 0.0)]


def test_nested_statements_are_left_out(covered: Callable[..., Answer]) -> None:
    """The log tells what clients send."""
    inner = window(10, 9, "b", detail={"window_start_us": NOON_US, "toplevel": False})
    assert covered(window(10, 1), inner, line(1)) == [("a", "logged", 1, 1, 0, 0.0)]


def test_a_window_over_the_full_hour_takes_its_lines_along(covered: Callable[..., Answer]) -> None:
    """The calls of a window count where it ends, and so do the lines in it."""
    assert covered(window(5, 2), line(-4), line(2)) == [("a", "logged", 2, 2, 0, 0.0)]


def test_an_execute_is_found_by_its_query_id(covered: Callable[..., Answer]) -> None:
    """Its text is another than the statement's that statistics keep."""
    assert covered(window(10, 1), line(1, fingerprint="execute")) == [("a", "logged", 1, 1, 0, 0.0)]
    assert sum(map(ord, "a")) == 97


def test_lines_without_a_query_id_are_found_by_fingerprint(covered: Callable[..., Answer]) -> None:
    """`log_statement` has none."""
    assert covered(window(10, 1), line(1, query_id=None)) == [("a", "logged", 1, 1, 0, 0.0)]


def test_the_latest_windows_wait_for_the_log(covered: Callable[..., Answer]) -> None:
    """Lines and statistics land apart."""
    assert covered(window(10, 5), window(3000, 1), window(3030, 9), line(1), without=(AFTER,)) == [
        ("a", "logged", 5, 1, 4, 0.8)
    ]


def test_windows_from_before_the_log_was_read_are_left_out(covered: Callable[..., Answer]) -> None:
    """Nobody could see those lines."""
    assert covered(window(10, 5), window(30, 1), line(15, "earlier"), line(25), without=(BEFORE,)) == [
        ("a", "logged", 1, 1, 0, 0.0)
    ]


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ([setting("log_min_duration_statement", "100")], "not_logged"),
        ([setting("log_min_duration_statement", "-1"), setting("log_statement", "all")], "logged"),
        ([setting("log_statement", "mod")], "logged"),
        ([setting("log_statement", "ddl")], "not_logged"),
        ([setting("pgaudit.log", "all")], "logged"),
        ([setting("pgaudit.log", "read, write")], "logged"),
        ([setting("pgaudit.log", "all, -write")], "not_logged"),
        ([], "not_logged"),
        ([EVERYTHING, setting("log_min_duration_statement", "-1", 1800, "changed")], "not_logged"),
        ([EVERYTHING, setting("log_min_duration_statement", "0", 1800, "removed")], "not_logged"),
        (
            [setting("log_min_duration_statement", "-1"), setting("log_min_duration_statement", "0", -60, "changed")],
            "logged",
        ),
    ],
)
def test_what_the_server_was_not_told_to_log_is_not_missing(
    covered: Callable[..., Answer], settings: list[Event], status: str
) -> None:
    """The settings in force over the whole hour decide; `mod` and pgAudit's `write` are enough for a write."""
    missing = (1, 0.5) if status == "logged" else (None, None)
    drop = () if EVERYTHING in settings else (EVERYTHING,)
    made = [each for each in settings if each is not EVERYTHING]
    assert covered(window(10, 2), window(3500, 0), line(1), *made, without=drop) == [("a", status, 2, 1, *missing)]


def test_reads_are_not_logged_where_only_writes_are(covered: Callable[..., Answer]) -> None:
    """`log_statement = mod` says nothing of a SELECT."""
    settings = setting("log_statement", "mod")
    answer = covered(window(10, 2, operation="select"), settings, without=(EVERYTHING,))
    assert answer == [("a", "not_logged", 2, 0, None, None)]


def test_a_role_with_a_setting_of_its_own_is_not_missed(covered: Callable[..., Answer]) -> None:
    """ALTER ROLE … SET log_min_duration_statement decides for its statements, not the server's setting."""
    detail = {"object_type": "role_setting", "name": "app IN ALL", "after": {"log_min_duration_statement": "1000"}}
    own = other(0, kind="posture", operation="found", detail=detail)
    assert covered(window(10, 2), window(10, 1, "b", role="ada"), own) == [
        ("a", "not_logged", 2, 0, None, None),
        ("b", "logged", 1, 0, 1, 1.0),
    ]


def test_without_a_log_nothing_is_missing(covered: Callable[..., Answer]) -> None:
    """Where nobody reads the log its lines are not lost."""
    assert covered(window(10, 2), without=(BEFORE,)) == [("a", "not_logged", 2, 0, None, None)]


def test_without_a_snapshot_of_settings_nothing_is_missing(covered: Callable[..., Answer]) -> None:
    """What the server was told to log is not known then."""
    assert covered(window(10, 2), without=(EVERYTHING, SUMMARY)) == [("a", "not_logged", 2, 0, None, None)]
