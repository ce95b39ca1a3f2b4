"""What the statistics counted: named by the runs that the log told, else by the role alone, never by the wrong one."""

from __future__ import annotations

from typing import Any

import pytest

from pgwitness.core.events import Event, Posture, QueryStats, RawEvent, Statement
from streams.fold.fold import Fold
from streams.fold.joins import log_wait, stats_join
from streams.identity.identities import Identities as Rules
from tests.streams.log_records import statement
from tests.streams.records import SECOND_US, START_US, batch, read, tick

GRACE_US = 2 * SECOND_US
IDENTITIES = """\
rules:
  - match: {role: app, application: "checkout*"}
    principal: checkout
    kind: service
  - match: {role: app, application: "bot*"}
    principal: bot
    kind: agent
"""
TEXT = "SELECT * FROM public.customers"
CHECKOUT: dict[str, Any] = {"application": "checkout", "pid": 41}
BOT: dict[str, Any] = {"application": "bot", "pid": 42}


class Feed:
    """A fold that follows a log on a server that logs every statement."""

    def __init__(self, fold: Fold | None = None, *, every: bool = True) -> None:
        self.fold = fold or Fold(0, Rules.parse(IDENTITIES), GRACE_US)
        self.place = 0
        if fold is None:
            self.log(self.ran("SELECT 1", 0, query_id=1))
            if every:
                name, after = "log_min_duration_statement", {"value": "0"}
                self(Posture(captured_at_us=START_US, object_type="setting", name=name, change="found", after=after))

    def __call__(self, *events: RawEvent, source: str = "stats") -> list[Event]:
        return self.fold.apply(self.fold.next_offset, read(batch(*events, source=source)))

    def log(self, *events: RawEvent) -> list[Event]:
        """Take lines of the log."""
        return self(*events, source="log")

    def ran(self, text: str | None = TEXT, at_s: float = 5, **fields: Any) -> Statement:
        """A line of the log: a run that has ended."""
        self.place += 1
        return statement(self.place, statement=text, at_s=at_s, **({"query_id": 7} | CHECKOUT | fields))

    def counts(self, calls: int, end_s: float = 10, **fields: Any) -> list[Event]:
        """Take a reading of the statistics, of the ten seconds before, and the log up to it."""
        return [*self(counted(calls, end_s, **fields)), *self.log(tick(end_s + 2))]


def counted(calls: int, end_s: float = 10, **fields: Any) -> QueryStats:
    """What a reading of the statistics says."""
    end_us = START_US + int(end_s * SECOND_US)
    given: dict[str, Any] = {
        "captured_at_us": end_us, "window_start_us": end_us - 10 * SECOND_US, "window_end_us": end_us,
        "database": "shop", "role": "app", "query_id": 7, "statement": TEXT, "calls": calls, "rows": 2_000 * calls,
        "total_ms": 3.0,
    }  # fmt: skip
    return QueryStats(**(given | fields))


def attribution(events: list[Event]) -> list[tuple[str | None, str, str]]:
    """Whose counts are and how sure that is."""
    return [(e.principal, e.binding, e.certainty) for e in events if e.kind == "query_stats"]


def test_a_count_is_of_the_session_that_ran_it() -> None:
    """One session's runs are its own, with all that is known of it; and the policies have seen them in the log."""
    feed = Feed()
    feed.log(feed.ran(at_s=4), feed.ran(at_s=5))
    (event,) = feed.counts(2)
    assert attribution([event]) == [("checkout", "log", "strong")]
    assert (event.row_count, event.calls, event.application, event.client_addr) == (4_000, 2, "checkout", "10.0.0.7")
    assert (event.detail["join"], event.detail["seen_as"], event.identity_rule) == ("count", "statement", "rule-1")


def test_a_count_keeps_what_all_of_its_runs_have() -> None:
    """The session stands there; the trace and the agent that a comment behind one of several runs tells do not."""
    feed = Feed()
    tags = {"tags": {"agent": "triage-bot", "traceparent": "00-5bd66ef5095369c7b0d1f8f4bd33716a-00f067aa0ba902b7-01"}}
    told, *_ = feed.log(feed.ran(**tags))
    (event,) = feed.counts(1)
    assert event.session_id == told.session_id is not None
    assert event.trace_id == told.trace_id is not None
    feed.log(feed.ran(at_s=14, **tags), feed.ran(at_s=15, **tags))
    (event,) = feed.counts(2, 20)
    assert event.session_id == told.session_id
    assert (event.trace_id, event.detail.get("agent")) == (None, None)


def test_what_statistics_count_is_never_done_and_may_be_known_to_be_undone() -> None:
    """They count what was rolled back, too; where the log tells that of all the runs, it is said."""
    feed, delete = Feed(), "DELETE FROM public.customers"
    feed.log(feed.ran("BEGIN", 3, query_id=2, vxid="3/7"), feed.ran(delete, 4, vxid="3/7"))
    feed.log(feed.ran("ROLLBACK", 5, query_id=3, vxid="3/0"))
    (undone,) = [e for e in feed.counts(1, statement=delete) if e.kind == "query_stats"]
    assert (undone.outcome, undone.detail["seen_as"]) == ("rolled_back", "statement")
    feed.log(feed.ran(delete, 14))
    (done,) = [e for e in feed.counts(1, 20, statement=delete) if e.kind == "query_stats"]
    assert (done.outcome, done.effect) == ("unknown", None)


def test_it_waits_until_the_log_was_read_past_it() -> None:
    """A run whose line comes after the reading is counted; the reading goes on when its log has been read."""
    feed = Feed()
    assert feed(counted(1)) == []
    feed.log(feed.ran(at_s=9.5))
    assert attribution(feed.log(tick(12))) == [("checkout", "log", "strong")]


def test_it_does_not_wait_for_ever() -> None:
    """When the log stands still the reading goes on by its role alone, after a bounded time of the records."""
    feed = Feed()
    feed(counted(1))
    due_s = 10 + (GRACE_US + log_wait.PATIENCE_US) / SECOND_US
    assert feed(tick(due_s - 1), source="wal") == []
    assert attribution(feed(tick(due_s + 1), source="wal")) == [(None, "stats", "weak")]


def test_runs_of_different_principals_name_nobody() -> None:
    """Who of two moved the rows is not known; that the policies have seen both is."""
    feed = Feed()
    feed.log(feed.ran(), feed.ran(**BOT))
    (event,) = feed.counts(2)
    assert attribution([event]) == [(None, "stats", "weak")]
    assert event.detail["seen_as"] == "statement"


def test_several_sessions_of_one_principal_are_weak() -> None:
    """A pool's sessions name their principal, and no session."""
    feed = Feed()
    feed.log(feed.ran(), feed.ran(pid=43))
    (event,) = feed.counts(2)
    assert attribution([event]) == [("checkout", "log", "weak")]
    assert (event.pid, event.session_id) == (None, None)


def test_a_text_log_is_weak() -> None:
    """Into a text log a client can write lines, so what it tells is never strong."""
    feed = Feed()
    feed.log(feed.ran(format="stderr"))
    assert attribution(feed.counts(1)) == [("checkout", "log", "weak")]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [{}],
        [{"outcome": "failure", "source": "error"}, {}],
        [{"source": "pgaudit"}, {}],
        [{"role": "other"}, {}],
        [{"database": "other"}, {}],
        [{"text": "SELECT 2", "query_id": 8}, {}],
        [{"text": None, "statement_hash": "5f"}, {}],
        [{"text": "SELECT 'a"}, {}],
    ],
    ids=[
        "none",
        "too few",
        "failed",
        "another kind of line",
        "another role",
        "another database",
        "another text",
        "a text that could not be freed of its literals",
        "a text that cannot be read",
    ],
)
def test_what_the_log_lacks_names_nobody(lines: list[dict[str, Any]]) -> None:
    """Two runs were counted and the log tells fewer of them: then it does not say who ran the rest."""
    feed = Feed()
    feed.log(tick(5), *(feed.ran(**line) for line in lines))
    (event,) = feed.counts(2)
    assert attribution([event]) == [(None, "stats", "weak")]
    assert "seen_as" not in event.detail


@pytest.mark.parametrize("fields", [{"toplevel": False}, {"approximate": True}], ids=["nested", "uncertain window"])
def test_what_the_log_cannot_have_is_not_asked(fields: dict[str, Any]) -> None:
    """Nested statements have no line, and a reading whose beginning is not certain has no runs of its own."""
    feed = Feed()
    feed.log(feed.ran())
    assert attribution(feed.counts(1, **fields)) == [(None, "stats", "weak")]


def test_a_first_reading_counts_what_the_log_has() -> None:
    """Of which window its rows are is not certain, so they are nobody's; what it counts was told, and was undone."""
    feed, delete = Feed(), "DELETE FROM public.customers"
    feed.log(feed.ran("BEGIN", 3, query_id=2, vxid="3/7"), feed.ran(delete, 4, vxid="3/7"))
    feed.log(feed.ran("ROLLBACK", 5, query_id=3, vxid="3/0"))
    (undone,) = [e for e in feed.counts(1, statement=delete, approximate=True) if e.kind == "query_stats"]
    assert (undone.principal, undone.outcome, undone.detail["seen_as"]) == (None, "rolled_back", "statement")


def test_a_count_of_temporary_tables_is_of_those() -> None:
    """A temporary table hides the real one of its name: what was deleted from it is no deletion from that one."""
    feed, delete = Feed(), "DELETE FROM t"
    feed.log(feed.ran("CREATE TEMP TABLE t (a int)", 1, query_id=2), feed.ran(delete, 4))
    assert [event.relations for event in feed.counts(1, statement=delete)] == [["pg_temp.t"]]
    feed.log(feed.ran("DROP TABLE t", 11, query_id=3), feed.ran(delete, 14))
    assert [event.relations for event in feed.counts(1, 20, statement=delete)] == [["t"]]


def test_a_cursor_that_is_read_in_pieces_is_counted_as_what_it_reads() -> None:
    """The statistics have its name alone; of two cursors of one name nobody knows whose rows are counted."""
    feed, fetch = Feed(), "FETCH 20 FROM c"

    def declared(table: str, at_s: float, vxid: str) -> None:
        text = f"DECLARE c CURSOR FOR SELECT email FROM public.{table} WHERE id > 0"
        feed.log(feed.ran("BEGIN", at_s, query_id=2, vxid=vxid), feed.ran(text, at_s, query_id=3, vxid=vxid))
        feed.log(feed.ran(fetch, at_s, vxid=vxid), feed.ran(fetch, at_s, vxid=vxid))
        feed.log(feed.ran("COMMIT", at_s, query_id=4, vxid="3/0"))

    declared("customers", 4, "3/7")
    (counted,) = [event for event in feed.counts(2, statement=fetch) if event.kind == "query_stats"]
    assert (counted.relations, counted.columns[:1]) == (["public.customers"], ["public.customers.email"])
    declared("customers", 14, "3/8")
    declared("orders", 15, "3/9")
    (counted,) = [event for event in feed.counts(4, 20, statement=fetch) if event.kind == "query_stats"]
    assert counted.relations == []


def test_a_session_that_announces_its_statements_is_counted_by_its_lines() -> None:
    """Where durations are logged, a session's own log_statement = all gives each run another line, with its time."""
    feed = Feed()
    feed.log(feed.ran(at_s=5, source="statement", duration_ms=3.0))
    assert [event.detail.get("seen_as") for event in feed.counts(1)] == ["statement"]


ADA = "  - {match: {role: p_ada}, principal: ada, kind: human}\n"


@pytest.mark.parametrize("words", ["SET ROLE p_ada", "SET SESSION AUTHORIZATION p_ada", "SET LOCAL ROLE p_ada"])
def test_who_takes_a_role_on_does_not_act_as_who_owns_it(words: str) -> None:
    """Statistics name the role in force: what was run under it is of the session that took it on, or of nobody."""
    feed = Feed(Fold(0, Rules.parse(IDENTITIES + ADA), GRACE_US))
    feed.log(feed.ran("SELECT 1", 0, query_id=1))
    logged = Posture(
        captured_at_us=START_US, object_type="setting", name="log_min_duration_statement", change="found",
        after={"value": "0"},
    )  # fmt: skip
    feed(logged)
    feed.log(feed.ran(words, 2, query_id=5), feed.ran(at_s=4))
    feed.fold = Fold.restore(feed.fold.snapshot(), GRACE_US)
    feed.fold.identities = Rules.parse(IDENTITIES + ADA)
    assert attribution(feed.counts(1, role="p_ada")) == [("checkout", "log", "weak")]
    feed.log(feed.ran(at_s=14))
    assert attribution(feed.counts(1, 20, role="p_ada", approximate=True)) == [(None, "stats", "weak")]
    assert attribution(feed.counts(1, 30, role="p_ada")) == [(None, "stats", "weak")]
    feed.log(feed.ran(at_s=34, role="p_ada", application="psql", pid=50), feed.ran("RESET ROLE", 35), feed.ran(at_s=36))
    assert attribution(feed.counts(1, 40, role="p_ada")) == [("ada", "log", "strong")]
    assert attribution(feed.counts(1, 40)) == [("checkout", "log", "strong")]


def test_a_run_is_counted_once() -> None:
    """A run at the edge belongs to the reading that counted it, whichever that is, and to no other."""
    feed = Feed()
    feed.log(feed.ran(at_s=9.9), feed.ran(at_s=10.1))
    assert attribution(feed.counts(2, 10)) == [("checkout", "log", "strong")]
    assert attribution(feed.counts(1, 20)) == [(None, "stats", "weak")]
    feed.log(feed.ran(at_s=29.9), feed.ran(at_s=30.1))
    assert attribution(feed.counts(1, 30)) == [("checkout", "log", "strong")]
    assert attribution(feed.counts(1, 40)) == [("checkout", "log", "strong")]


def test_runs_that_nobody_counted_hide_nobody() -> None:
    """Runs of somebody else that the statistics left out are candidates in their window, and forgotten after it."""
    feed = Feed()
    feed.log(feed.ran(at_s=2, **BOT), feed.ran(at_s=5))
    assert attribution(feed.counts(1, 10)) == [(None, "stats", "weak")]
    feed.log(feed.ran(at_s=15))
    assert attribution(feed.counts(1, 20)) == [("checkout", "log", "strong")]


def test_without_ids_the_text_decides() -> None:
    """Where the log has no query ids, statements are the same that have the same fingerprint."""
    feed = Feed()
    feed.log(feed.ran(query_id=None))
    assert attribution(feed.counts(1)) == [("checkout", "log", "strong")]


def test_where_not_every_statement_is_logged_nothing_waits() -> None:
    """There the count goes on at once, and is named when all of its runs happen to be told already."""
    feed = Feed(every=False)
    assert attribution(feed(counted(1))) == [(None, "stats", "weak")]
    feed.log(feed.ran(at_s=15))
    assert attribution(feed(counted(1, 20))) == [("checkout", "log", "strong")]


def test_a_reading_sent_again_is_dropped() -> None:
    """What a collector sends again while the first waits takes no runs and gives no event."""
    feed = Feed()
    feed.log(feed.ran())
    assert feed(counted(1), counted(1)) == []
    assert attribution(feed.log(tick(12))) == [("checkout", "log", "strong")]
    assert feed(counted(1)) == []


def test_a_restart_changes_nothing() -> None:
    """A fold made of a checkpoint between runs and reading, and one between reading and answer, say the same."""
    feed = Feed()
    feed.log(feed.ran(at_s=4), feed.ran(at_s=5), feed.ran(at_s=6, **BOT))
    feed(counted(2, query_id=9))

    def again() -> Feed:
        other = Feed(Fold.restore(feed.fold.snapshot(), GRACE_US))
        other.place = feed.place
        return other

    one, other = again(), again()
    first = [*one(counted(3)), *one.log(tick(12))]
    assert attribution(first) == [(None, "stats", "weak")] * 2
    assert [e.event_id for e in other.counts(3)] == [e.event_id for e in first]
    assert "seen_as" in first[1].detail


def test_memory_is_bounded_and_what_is_forgotten_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements without number push out the oldest; seconds without number are counted together."""
    monkeypatch.setattr(stats_join, "STATEMENTS_MAX", 3)
    monkeypatch.setattr(stats_join, "SLICES_MAX", 2)
    monkeypatch.setattr(log_wait, "HELD_MAX", 2)
    feed = Feed()
    feed.log(feed.ran(), *(feed.ran(query_id=100 + number) for number in range(3)))
    assert attribution(feed.counts(1)) == [(None, "stats", "weak")]
    feed.log(*(feed.ran(at_s=11 + number) for number in range(8)))
    assert max(len(slices) for _, slices in feed.fold._clusters["shop"].stats.items()) == 2
    assert attribution(feed.counts(8, 20)) == [("checkout", "log", "strong")]
    assert len(attribution(feed(*(counted(1, 30, query_id=200 + number) for number in range(5))))) == 3
    monkeypatch.setattr(log_wait, "CHARS_MAX", 100)
    feed.log(tick(60))
    assert (
        len(attribution(feed(counted(1, 70, statement="x" * 90), counted(2, 70, query_id=8, statement="y" * 90)))) == 1
    )


def test_a_command_that_ddl_reported_is_marked_in_the_log() -> None:
    """The line of a command that an event trigger has told is no second deed; one that it has not told is one."""
    from tests.streams.records import transaction
    from tests.streams.test_fold_ddl import drop

    feed = Feed()
    feed(transaction(100, n_rows=0, ddl=[drop()]), source="wal")
    line = {"text": "DROP TABLE orders", "role": "p_ann", "query_id": None}
    (told,) = feed.log(feed.ran(at_s=5, **line))
    assert feed.log(feed.ran(at_s=6, **line)) == []
    (other,) = feed.log(tick(8))
    assert [event.detail.get("seen_as") for event in (told, other)] == ["ddl", None]
    assert feed.log(feed.ran(at_s=9, **line)) == []
    made = feed(transaction(200, n_rows=0, at_s=9, ddl=[drop()]), source="wal")
    assert [(event.kind, event.detail.get("seen_as")) for event in made] == [("ddl", None), ("statement", "ddl")]


@pytest.mark.parametrize(("rest", "done"), [("", ["do"]), ("EXECUTE 'GRANT a TO b'; ", ["do", "grant_role"])])
def test_what_a_block_may_have_dropped_is_no_drop_without_its_message(rest: str, done: list[str]) -> None:
    """A branch that did not run, or one that an exception took back; where event triggers tell every DROP."""
    from tests.streams.records import transaction
    from tests.streams.test_fold_ddl import drop

    feed = Feed()
    block = f"DO $$ BEGIN {rest}IF false THEN DROP TABLE orders; END IF; END $$"
    line = {"text": block, "role": "p_ann", "query_id": None}
    (before,) = feed.log(feed.ran(at_s=4, **line))
    assert "drop_table" in before.detail["operations"]
    feed(transaction(100, n_rows=0, ddl=[drop()]), source="wal")
    assert feed.log(feed.ran(at_s=6, **line)) == []
    (after,) = feed.log(tick(9))
    assert (after.operation, after.detail["not_done"]) == ("do", ["drop_table"])
    assert [word for word in after.detail["operations"] if word != "execute_dynamic"] == done
