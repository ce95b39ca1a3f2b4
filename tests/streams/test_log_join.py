"""Transactions whose id no line of the log has: named where everybody else is excluded, else not at all."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pgwitness.core.events import Count, Event, LogPlace, Posture, RawEvent, Relation, Session, Statement
from streams.fold.fold import Fold
from streams.fold.joins import log_join
from streams.fold.joins.spans import Spans
from streams.identity.identities import Identities as Rules
from tests.streams.log_records import SESSION_US, statement
from tests.streams.records import IDENTITIES, SECOND_US, START_US, batch, beacon, read, sample, tick, transaction

GRACE_US = 2 * SECOND_US
INSERT = "INSERT INTO orders VALUES ($1)"
UPDATE = "UPDATE orders SET status = $1"


def setting(name: str = "log_statement", value: str = "all", **fields: Any) -> Posture:
    """What a snapshot found of a setting."""
    given: dict[str, Any] = {"object_type": "setting", "change": "found", "after": {"value": value}}
    return Posture(captured_at_us=START_US, name=name, **(given | fields))


class Feed:
    """A fold, the offset of its next record, and the places of its lines; times are milliseconds."""

    def __init__(self, *, announced: bool = True, fold: Fold | None = None) -> None:
        self.fold = fold or Fold(0, Rules.parse(IDENTITIES), GRACE_US)
        self.line = 0
        if fold is None:
            self(self.ran("BEGIN", 0, 0))
        if announced:
            self(setting())

    def __call__(self, *events: RawEvent) -> list[Event]:
        return self.fold.apply(self.fold.next_offset, read(batch(*events, source="log")))

    def ran(self, text: str | None, start: float, end: float, **fields: Any) -> Statement:
        """A statement that ran from one millisecond to another, and whose line has no transaction id."""
        self.line += 1
        given = {"statement": text, "duration_ms": end - start, "source": "statement", "log": f"log-{self.line}"}
        return statement(1, at_s=end / 1_000, **(given | fields))

    def change(self, *events: RawEvent) -> Event:
        """The one change after the grace period."""
        made = [*self(*events), *self(tick(3))]
        (found,) = [event for event in made if event.kind == "change"]
        return found


def committed(at: float, lsn: int = 10, **fields: Any) -> Any:
    """A transaction that was committed at a millisecond."""
    return transaction(lsn, committed_at_us=START_US + int(at * 1_000), **fields)


OTHER: dict[str, Any] = {"pid": 42, "application": "web"}


@pytest.mark.parametrize(
    ("text", "certainty"),
    [
        (UPDATE, "strong"), ("UPDATE public.orders SET a = $1", "strong"), ("SELECT give()", "weak"),
        ("CALL p()", "weak"), ("DO $1", "weak"), ("UPDATE other SET a = $1", "weak"),
        ("INSERT INTO billing.orders VALUES ($1)", "weak"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("first", ["log", "wal"])
def test_who_ran_alone_committed(text: str, certainty: str, first: str) -> None:
    """Whatever was committed while nobody else ran is the one session's: strong where its text names a relation."""
    feed = Feed()
    events = [feed.ran(text, 100, 120, alone=True), committed(119.5)]
    found = feed.change(*(events if first == "log" else events[::-1]))
    assert (found.principal, found.binding, found.certainty) == ("billing-bot", "log", certainty)
    assert found.detail["join"] == "session_time"


def test_an_id_joins_exactly() -> None:
    """Where a line has the id, that is the join, and the change says so."""
    feed = Feed()
    found = feed.change(committed(119.5, xid=7), feed.ran(UPDATE, 100, 120, xid=7))
    assert (found.certainty, found.detail["join"]) == ("strong", "xid")


@pytest.mark.parametrize("commit", [99.5, 121.5, 0, 2_000])
def test_time_excludes(commit: float) -> None:
    """A commit before or after the statement is not its own."""
    feed = Feed()
    assert feed.change(feed.ran(UPDATE, 100, 120, alone=True), committed(commit)).certainty == "none"


@pytest.mark.parametrize(
    "posture",
    [
        [],
        [setting(value="ddl")],
        [setting(), setting(value="mod", change="changed")],
        [setting(), setting("log_min_messages", "panic")],
        [setting(), setting("shared_preload_libraries", "pg_cron,pg_stat_statements")],
        [setting(), setting("app IN ALL", object_type="role_setting", after={"log_statement": "none"})],
    ],
)
def test_only_settings_that_announce_everything_exclude_everybody(posture: list[RawEvent]) -> None:
    """Where a session may run unannounced, none can be said to have run alone."""
    feed = Feed(announced=False)
    feed(*posture, tick(0))
    assert feed.change(feed.ran(UPDATE, 100, 120, alone=True), committed(119.5)).certainty == "none"


def test_settings_that_do_not_matter_or_are_gone() -> None:
    """Known libraries and other overrides change nothing, and an override can be taken back."""
    feed = Feed()
    override = {"object_type": "role_setting", "name": "app IN ALL"}
    feed(setting("shared_preload_libraries", "pg_stat_statements, auto_explain"))
    feed(setting(**override, after={"work_mem": "1GB"}), setting(**override, after={"log_statement": "none"}))
    feed(setting(**override, change="removed", after=None))
    assert feed.change(feed.ran(UPDATE, 100, 120, alone=True), committed(119.5)).certainty == "strong"


def test_an_insert_proves_itself() -> None:
    """A sole INSERT that succeeded has committed the sole transaction that inserted there meanwhile; weakly."""
    feed = Feed(announced=False)
    found = feed.change(feed.ran(INSERT, 100, 120, source="duration"), committed(119.5))
    assert (found.principal, found.certainty, found.detail["join"]) == ("billing-bot", "weak", "session_time")


@pytest.mark.parametrize(
    "text",
    [
        UPDATE, "DELETE FROM orders", "INSERT INTO orders VALUES ($1) ON CONFLICT DO NOTHING", "CALL p()", "DO $1",
        "INSERT INTO orders SELECT $1", "INSERT INTO other VALUES ($1)", "INSERT INTO audit.orders VALUES ($1)",
        "INSERT INTO orders VALUES ($1); ROLLBACK", "SELECT f()", "WITH a AS (SELECT $1) INSERT INTO orders TABLE a",
        "EXPLAIN ANALYZE INSERT INTO orders VALUES ($1)", "EXECUTE p", "COPY orders FROM STDIN",
    ],
)  # fmt: skip
def test_what_may_have_changed_nothing_proves_nothing(text: str) -> None:
    """Without announcements, only an INSERT of values must have made a row."""
    feed = Feed(announced=False)
    found = feed.change(feed.ran(text, 100, 120, source="duration"), committed(119.5))
    assert (found.principal, found.certainty) == (None, "none")


@pytest.mark.parametrize("text", [INSERT, UPDATE, "SELECT f()", "CALL p()", "DO $1", "COMMIT", None])
@pytest.mark.parametrize(("start", "end"), [(110, 130), (90, 119), (0, 1_000), (120.5, 121)])
def test_two_sessions_at_once_are_none(text: str | None, start: float, end: float) -> None:
    """Whoever else ran at about the time of the commit, and may have written, leaves nobody named; in any order."""
    for number in range(2):
        feed = Feed(announced=False)
        mine = feed.ran(INSERT, 100, 120, source="duration")
        other = feed.ran(text, start, end, source="duration", **OTHER)
        assert feed.change(
            *((other, committed(119.5), mine) if number else (mine, committed(119.5), other))
        ).certainty == ("none")


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "SELECT a FROM orders"}, {"text": "BEGIN"}, {"text": "SET a = $1"}, {"database": "other"},
        {"source": "pgaudit"}, {"xid": 9}, {"source": "error", "outcome": "failure"},
    ],
)  # fmt: skip
def test_who_cannot_have_written_excludes_nobody(fields: dict[str, Any]) -> None:
    """Reads, settings, other databases, failures and statements of other transactions are no rivals."""
    feed = Feed(announced=False)
    other = feed.ran(**({"text": UPDATE, "start": 100, "end": 121} | OTHER | fields))
    found = feed.change(feed.ran(INSERT, 100, 120, source="duration"), committed(119.5), other)
    assert found.principal == "billing-bot"


@pytest.mark.parametrize(
    ("fields", "certainty"),
    [({}, "weak"), ({"xid": 9}, "none"), ({"format": "stderr"}, "none"), ({"statement": "CALL p()"}, "none")],
)
def test_an_announced_commit_of_nothing_excludes_nobody(fields: dict[str, Any], certainty: str) -> None:
    """A session whose last word was the COMMIT of a transaction without an id is not at work."""
    feed = Feed(announced=False)
    feed(feed.ran("COMMIT", 10, 10, **(OTHER | {"duration_ms": None, "outcome": "unknown"} | fields)))
    assert feed.change(feed.ran(INSERT, 100, 120, source="duration"), committed(119.5)).certainty == certainty


def test_a_call_commits_more_than_its_line_shows() -> None:
    """A procedure that commits within itself has committed others than the transaction its line names."""
    feed = Feed(announced=False)
    call = feed.ran("CALL p()", 0, 500, xid=9, **OTHER)
    assert feed.change(feed.ran(INSERT, 100, 120, source="duration"), committed(119.5), call).certainty == "none"


@pytest.mark.parametrize("text", ["CALL p()", None])
def test_what_failed_may_have_committed_before(text: str | None) -> None:
    """A procedure that fails after its first COMMIT has written; so may what cannot be read."""
    feed = Feed(announced=False)
    failed = feed.ran(text, 500, 500, source="error", outcome="failure", duration_ms=None, **OTHER)
    assert feed.change(feed.ran(INSERT, 100, 120, source="duration"), committed(119.5), failed).certainty == "none"


def test_two_transactions_for_one_insert_are_none() -> None:
    """If somebody else's transaction inserted there meanwhile, neither is the statement's for certain."""
    feed = Feed(announced=False)
    made = feed(feed.ran(INSERT, 100, 120, source="duration"), committed(119.5), committed(110, lsn=11)) + feed(tick(3))
    assert [event.certainty for event in made if event.kind == "change"] == ["none", "none"]


def test_a_transaction_that_is_anothers_is_no_rival() -> None:
    """What is known to be another session's, by its id, its beacon or a sample, is not the INSERT's."""
    feed = Feed(announced=False)
    feed(
        feed.ran(INSERT, 90, 110, xid=70, **OTHER),
        committed(101, lsn=7, xid=70),
        committed(102, lsn=8, beacons=[beacon(pid=43)]),
        committed(103, lsn=9, xid=71),
        sample(71, pid=44),
    )
    assert feed.change(feed.ran(INSERT, 100, 120, source="duration"), committed(119.5)).certainty == "weak"


def test_a_transaction_that_is_its_own_is_a_rival() -> None:
    """When the session's own transaction is known by its id, another one is not the same statement's."""
    feed = Feed(announced=False)
    feed(committed(110, lsn=9, xid=70), sample(70, pid=41))
    assert feed.change(feed.ran(INSERT, 100, 120, source="duration"), committed(119.5)).certainty == "none"


def test_behind_a_pooler_a_session_is_many() -> None:
    """One server session that went from one client to the next in the same milliseconds names neither."""
    feed = Feed()
    first = feed.ran(UPDATE, 100, 120, alone=True)
    second = feed.ran(UPDATE, 120.5, 121, alone=True, application="web")
    assert feed.change(first, second, committed(119.9)).certainty == "none"


def test_what_has_begun_and_not_ended_is_a_rival_until_its_session_goes_on() -> None:
    """A statement without an end may have committed at any time since it began, up to its session's next line."""
    begun = {"text": "CALL p()", "start": 50, "end": 50, "duration_ms": None, "outcome": "unknown", **OTHER}
    feed = Feed()
    feed(feed.ran(**begun))
    assert feed.change(feed.ran(UPDATE, 100, 120, alone=True), committed(119.5)).certainty == "none"
    for ended in ("statement", "disconnect"):
        feed = Feed()
        feed(feed.ran(**begun))
        gone = Session(
            captured_at_us=START_US, operation="disconnect", occurred_at_us=START_US + 90_000, pid=42, role="app",
            backend_start_us=SESSION_US, database="shop", application="web", client_addr="10.0.0.7", client_port=5050,
            place=LogPlace("a", 50),
        )  # fmt: skip
        feed(gone if ended == "disconnect" else feed.ran("BEGIN", 89, 90, **OTHER))
        assert feed.change(feed.ran(UPDATE, 100, 120, alone=True), committed(119.5)).certainty == "strong"


def test_a_text_log_proves_nothing() -> None:
    """Lines of a text log can be forged, so nobody is excluded by them."""
    feed = Feed()
    assert feed.change(feed.ran(INSERT, 100, 120, alone=True, format="stderr"), committed(119.5)).certainty == "none"


def test_lines_after_the_grace_period_change_nothing() -> None:
    """Late identity never stops the stream, and what has gone is not named anew."""
    feed = Feed()
    assert feed.change(committed(119.5)).certainty == "none"
    assert [event.kind for event in feed(feed.ran(UPDATE, 100, 120, alone=True))] == ["statement"]


def test_a_part_of_a_long_transaction_is_named_with_the_rest() -> None:
    """All parts of a transaction go the same way, those that come later too."""
    feed = Feed()
    table = [Relation("public.orders", ["id"]), Relation("public.items", ["id"])]
    first = committed(119.5, last=False, relations=table, counts=[Count(1, "i", 1)])
    rest = committed(119.5, part=1, first=1, relations=table)
    made = [*feed(first, feed.ran(UPDATE, 100, 120, alone=True)), *feed(tick(3)), *feed(rest)]
    assert [event.certainty for event in made if event.kind == "change"] == ["strong", "strong"]


def test_memory_is_bounded_and_what_is_forgotten_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a statement had to be forgotten, no transaction of its time is named any more."""
    monkeypatch.setattr(log_join, "RAN_MAX", 5)
    monkeypatch.setattr(log_join, "OPEN_MAX", 5)
    monkeypatch.setattr(log_join, "COMMITTED_MAX", 5)
    feed = Feed()
    for number in range(50):
        feed(feed.ran(UPDATE, 200 + number, 201 + number, pid=number), committed(200 + number, lsn=10 + number))
    feed(tick(3))
    assert forgotten(feed, 119.5, 99)
    feed(*(feed.ran("CALL p()", 9_000, 9_000, duration_ms=None, pid=number) for number in range(20)))
    assert len(feed.fold.snapshot()) < 12_000
    assert forgotten(feed, 9_419.5, 199)


def forgotten(feed: Feed, at: float, lsn: int) -> bool:
    """Whether a statement that ran alone names nobody."""
    made = feed(feed.ran(UPDATE, at - 19.5, at + 0.5, alone=True), committed(at, lsn=lsn)) + feed(tick(20))
    return [event.certainty for event in made if event.kind == "change"] == ["none"]


def test_it_outlives_a_restart() -> None:
    """A restored fold knows the settings, the statements and the transactions."""
    for first in (0, 1, 2):
        feed = Feed(announced=first == 0)
        feed(feed.ran(UPDATE if first == 0 else INSERT, 100, 120, alone=first == 0))
        if first == 2:
            feed(committed(110, lsn=9, n_rows=1))
        again = Feed(fold=Fold.restore(feed.fold.snapshot(), GRACE_US), announced=False)
        if first == 2:
            again.fold.rehydrate(feed.fold.next_offset - 1, read(batch(committed(110, lsn=9), source="log")))
        made = again(committed(119.5)) + again(tick(3))
        assert {event.certainty for event in made} == {("strong", "weak", "none")[first]}


def test_spans_find_what_looking_at_all_finds() -> None:
    """Of spans of any length, those that hold a moment, each once; none that was taken out."""
    chance = random.Random(7)
    lengths = (0, 10, 1_000, 99_000, 3_000_000, 700_000_000, 10**12)
    ran = []
    for _ in range(300):
        start = chance.randrange(10**7)
        ran.append(log_join.Ran(None, start, start + chance.choice(lengths), False, (), False))  # type: ignore[arg-type]
    spans: Spans[log_join.Ran] = Spans(500)
    for span in ran:
        spans.add(span)
    for span in ran[:100]:
        spans.remove(span)
    for _ in range(200):
        at = chance.randrange(10**7)
        wanted = sorted(id(item) for item in ran[100:] if item.start_us - 500 <= at <= item.end_us + 500)
        assert sorted(map(id, spans.at(at))) == wanted
