"""EXECUTE and FETCH carry what stands behind their names, where that is certain, and nothing where it is not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from pgwitness.core.events import Event, Gap, LogPlace, Posture, RawEvent, Session
from streams.fold.fold import Fold
from streams.fold.sessions import handles
from streams.identity.identities import Identities as Rules
from tests.streams.log_records import SESSION_US, statement
from tests.streams.records import IDENTITIES, SECOND_US, START_US, batch, read


def logged(what: str) -> Posture:
    """The setting that says which statements are announced."""
    after = {"value": what}
    return Posture(captured_at_us=START_US, object_type="setting", name="log_statement", change="found", after=after)


ALL = logged("all")


class Log:
    """A fold whose cluster logs every statement, unless told otherwise, and the lines of its sessions."""

    def __init__(self, *settings: RawEvent) -> None:
        self.fold = Fold(3, Rules.parse(IDENTITIES), 0)
        self._offsets = itertools.count(1)
        for event in settings:
            self.apply(event, "sessions")

    def apply(self, event: RawEvent, source: str = "log") -> list[Event]:
        """Fold one event."""
        return self.fold.apply(self.fold.next_offset, read(batch(event, source=source)))

    def __call__(self, text: str, **fields: Any) -> Event:
        """Fold a statement and give its event."""
        given = {"statement": text, "outcome": "success", "trust": "likely"} | fields
        (event,) = self.apply(statement(next(self._offsets), **given))
        return event


@pytest.fixture
def log() -> Log:
    """A log that tells every statement."""
    return Log(ALL)


def seen(event: Event) -> tuple[str | None, list[str]]:
    """What an event says was done, to which relations."""
    return event.operation, event.relations


def test_an_execute_does_what_was_prepared(log: Log) -> None:
    """Its operation and relations, and whether its WHERE chooses anything."""
    log("PREPARE p AS DELETE FROM pay")
    event = log("EXECUTE p")
    assert seen(event) == ("delete", ["pay"])
    assert event.detail["operations"] == ["delete", "execute"]
    assert event.detail["where"] == "none"
    assert event.detail["prepared"] is True


def test_a_fetch_reads_what_the_cursor_does(log: Log) -> None:
    """MOVE too; after the end of the transaction only a cursor WITH HOLD is there."""
    log("BEGIN")
    log("DECLARE c CURSOR FOR SELECT a FROM pay")
    log("DECLARE h CURSOR WITH HOLD FOR SELECT b FROM held")
    fetched = log("FETCH 5 FROM c")
    assert seen(fetched) == ("select", ["pay"])
    assert fetched.detail["whole"] == ["pay"]
    assert log("MOVE c").columns == ["pay.a"]
    log("COMMIT")
    assert seen(log("FETCH c")) == ("fetch", [])
    assert seen(log("FETCH h")) == ("select", ["held"])
    log("CLOSE h")
    assert seen(log("FETCH h")) == ("fetch", [])


@pytest.mark.parametrize("end", ["DEALLOCATE p", "DEALLOCATE ALL", "DISCARD ALL"])
def test_a_name_that_was_given_up_is_forgotten(log: Log, end: str) -> None:
    """And may be given again."""
    log("PREPARE p AS DELETE FROM pay")
    log("PREPARE q AS DELETE FROM pay")
    log(end)
    assert seen(log("EXECUTE p")) == ("execute", [])
    assert (seen(log("EXECUTE q"))[1] == ["pay"]) == (end == "DEALLOCATE p")
    log("PREPARE p AS SELECT 1 FROM t")
    assert seen(log("EXECUTE p")) == ("select", ["t"])


def test_a_name_is_its_sessions(log: Log) -> None:
    """Of another session nothing is known, nor of a later one with the same process id."""
    log("PREPARE p AS DELETE FROM pay")
    assert seen(log("EXECUTE p", pid=42)) == ("execute", [])
    assert seen(log("EXECUTE p", session_start_us=SESSION_US + SECOND_US)) == ("execute", [])
    assert seen(log("EXECUTE p", session_start_us=None)) == ("execute", [])
    assert seen(log("EXECUTE p")) == ("delete", ["pay"])


def test_one_text_may_prepare_and_execute(log: Log) -> None:
    """In the order in which they stand."""
    assert seen(log("EXECUTE p; PREPARE p AS DELETE FROM pay"))[0] == "execute"
    assert log("DEALLOCATE p; PREPARE p AS UPDATE t SET a = 1; EXECUTE p").operation == "update"


@pytest.mark.parametrize(
    "lines",
    [
        [("PREPARE p AS DELETE FROM pay", {"outcome": "failure", "source": "error"})],
        [("PREPARE p AS DELETE FROM pay", {}), ("PREPARE p AS SELECT 1 FROM t", {"outcome": "unknown"})],
        [("PREPARE p AS DELETE FROM pay", {"trust": "claimed"})],
        [('PREPARE "P" AS DELETE FROM pay', {})],
    ],
)
def test_what_is_not_certain_is_not_said(log: Log, lines: list[tuple[str, dict[str, Any]]]) -> None:
    """A PREPARE that failed, or may have; one that a session's code may have written; another name."""
    for text, fields in lines:
        log(text, **fields)
    assert seen(log("EXECUTE p")) == ("execute", [])


def test_an_execute_that_failed_did_nothing(log: Log) -> None:
    """What its name stands for was perhaps not even looked at."""
    log("PREPARE p AS DELETE FROM pay")
    assert seen(log("EXECUTE p", outcome="failure", source="error", sqlstate="26000")) == ("execute", [])


@pytest.mark.parametrize("settings", [[], [logged("ddl")]])
def test_a_log_that_lacks_statements_names_nothing(settings: list[RawEvent]) -> None:
    """A name may have been given again by a statement that nobody logged."""
    log = Log(*settings)
    log("PREPARE p AS DELETE FROM pay")
    assert seen(log("EXECUTE p")) == ("execute", [])


def test_lost_lines_and_the_end_of_a_session_forget(log: Log) -> None:
    """What was done in between is not known."""
    log("PREPARE p AS DELETE FROM pay")
    log.apply(Gap(captured_at_us=START_US, reason="log_rotated_away", detail={}))
    assert seen(log("EXECUTE p")) == ("execute", [])
    log("PREPARE p AS DELETE FROM pay")
    log.apply(
        Session(
            captured_at_us=START_US, operation="disconnect", occurred_at_us=START_US, pid=41,
            backend_start_us=SESSION_US, role="app", database="shop", application="", client_addr=None,
            client_port=None, place=LogPlace("a-1", 999, 0, None), format="jsonlog",
        )
    )  # fmt: skip
    assert not log.fold._clusters["shop"].handles._sessions


def test_what_is_remembered_is_bounded_and_outlives_a_restart(log: Log) -> None:
    """The oldest names and sessions go; a fold that goes on from a checkpoint knows the others."""
    for number in range(handles.NAMES_MAX + 5):
        log(f"PREPARE p{number} AS DELETE FROM pay")
    for number in range(5):
        log("PREPARE p AS DELETE FROM pay", pid=100 + number)
    assert seen(log("EXECUTE p0")) == ("execute", [])
    log.fold = Fold.restore(log.fold.snapshot(), 0)
    assert seen(log(f"EXECUTE p{handles.NAMES_MAX}")) == ("delete", ["pay"])
    assert seen(log("EXECUTE p", pid=104)) == ("delete", ["pay"])
