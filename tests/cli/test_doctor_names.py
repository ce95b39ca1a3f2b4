"""What the doctor says of sessions without a name."""

from __future__ import annotations

import time
from pathlib import Path

from collectors.sessions.activity import Ourselves
from pgwitness.cli.doctor import names
from pgwitness.core.events import Event, Position
from sinks.lake import writer as lake
from sinks.sql.catalogue import connect
from tests.sinks.material import ORDINARY


def session(place: int, role: str, application: str, client_addr: str = "10.0.0.9") -> Event:
    """Make a login as the server's log tells it, just now."""
    now_us = time.time_ns() // 1000
    return Event(
        kind="session",
        event_id=f"{place:032x}",
        at=Position(0, place, 0),
        occurred_at_us=now_us,
        captured_at_us=now_us,
        cluster="shop",
        binding="log",
        operation="connect",
        role=role,
        application=application,
        client_addr=client_addr,
        session_id=f"db:5432/{place}",
    )


def test_the_collectors_own_logins_need_no_name(tmp_path: Path) -> None:
    """The log tells their logins too; who only calls itself so, or comes from elsewhere, is still shown."""
    events = [
        session(1, "pgwitness", "pgwitness wal"),
        session(2, "app", "pgwitness wal"),
        session(3, "pgwitness", "pgwitness wal", "10.0.0.66"),
        session(4, "pgwitness", "psql"),
    ]
    writer = lake.Lake(tmp_path).writer("events", 0)
    writer.resume()
    writer.append(0, events, [ORDINARY] * len(events))
    writer.commit()
    own = Ourselves(frozenset({1}), "pgwitness", "10.0.0.9")
    connection = connect(tmp_path)
    try:
        seen = names._sessions(connection, ["shop"], [], [("other", own), ("shop", own)])
    finally:
        connection.close()
    assert {(one.facts.role, one.facts.application, one.facts.client_addr) for one in seen} == {
        ("app", "pgwitness wal", "10.0.0.9"),
        ("pgwitness", "pgwitness wal", "10.0.0.66"),
        ("pgwitness", "psql", "10.0.0.9"),
    }
