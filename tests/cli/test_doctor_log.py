"""What the doctor says of lines that the server's log has lost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pgwitness.cli.doctor.installation import lost_lines
from pgwitness.core.config import Config, Lake
from pgwitness.core.events import Position
from sinks.lake import writer as lake
from tests.sinks.material import ORDINARY
from tests.sinks.test_statement_coverage import AFTER, BEFORE, EVERYTHING, SUMMARY, line, window


@pytest.mark.parametrize(("seen", "state"), [(199, "ok"), (150, "warning"), (0, "warning")])
def test_the_doctor_warns_of_a_log_that_loses_lines(tmp_path: Path, seen: int, state: str) -> None:
    """More than one in a hundred calls without a line is said, with the numbers and where to look."""
    now_us = time.time_ns() // 1000
    events = [SUMMARY, EVERYTHING, BEFORE, window(10, 200), *(line(1 + n / 100) for n in range(seen)), AFTER]
    for place, event in enumerate(events):
        event.at, event.event_id, event.captured_at_us = Position(0, place, 0), f"{place:032x}", now_us
    writer = lake.Lake(tmp_path).writer("events", 0)
    writer.resume()
    writer.append(0, events, [ORDINARY] * len(events))
    writer.commit()
    (found,) = lost_lines(Config(lake=Lake(path=tmp_path)))
    assert (found["where"], found["state"]) == ("shop db:5432", state)
    assert str(found["found"]).startswith(f"{200 - seen} of 200 calls since yesterday")
    assert ("statement_coverage" in str(found["fix"])) == (state == "warning")


def test_without_a_complete_log_nothing_is_said(tmp_path: Path) -> None:
    """A lake in which no server logs every statement has nothing to miss."""
    lake.Lake(tmp_path).writer("events", 0).resume()
    assert lost_lines(Config(lake=Lake(path=tmp_path))) == []
