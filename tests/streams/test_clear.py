"""`SELECT *` of a table that has no sensitive column has read none; of one that nobody knows it may have."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from collectors.posture import source as posture_source
from collectors.posture.clear import ClearTables
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from detectors.sensitive import Sensitive
from pgwitness.core.events import Ddl, DdlObject, Event
from streams.fold.fold import Fold
from streams.fold.schema import clear as fold_clear
from tests.streams.records import START_US, beacon, transaction
from tests.streams.test_handles import Log

MADE = """
CREATE TABLE customers (id int PRIMARY KEY, email text);
CREATE TABLE orders (id int PRIMARY KEY, customer int);
CREATE TABLE "E-mails" (id int PRIMARY KEY, "Email" text);
CREATE TABLE parted (id int, at date) PARTITION BY RANGE (at);
CREATE VIEW everybody AS SELECT id, email AS address FROM customers;
"""
PATTERNS = Sensitive(["public.*.email"])


class Looked(Log):
    """A fold that has heard which tables are clear."""

    def look(self, admin: psycopg.Connection[Any], clear: ClearTables, at_us: int = START_US) -> int:
        events = list(clear.changed("shop", posture_source.columns(admin), at_us, at_us))
        for event in events:
            assert self.apply(event, "sessions") == []
        return len(events)


@pytest.fixture
def looked(database: str) -> tuple[Looked, ClearTables, str]:
    """A database whose tables were looked at."""
    log, clear = Looked(), ClearTables(PATTERNS)
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(MADE)
        log.look(admin, clear)
    return log, clear, database


def sensitive(event: Event, patterns: Sensitive = PATTERNS) -> bool:
    """Whether the judge finds a read of something sensitive in it."""
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None, sensitive=patterns)
    return "sensitive_read" in judge.judge(event).policies


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT * FROM public.orders", False),
        ('SELECT * FROM public."E-mails"', False),  # "Email" is not email
        ("TABLE public.parted", False),
        ("SELECT to_json(o) FROM public.orders AS o", False),
        ("SELECT * FROM public.customers", True),
        ("SELECT o.*, c.* FROM public.orders AS o, public.customers AS c", True),
        ("SELECT email FROM public.orders", True),
        ("SELECT * FROM public.unheard_of", True),
    ],
)
def test_a_star_reads_what_the_table_has(looked: tuple[Looked, ClearTables, str], text: str, expected: bool) -> None:
    """By the catalogue, whatever the statement writes for all columns; a name that is written counts as written."""
    assert sensitive(looked[0](text, role="p_ada")) is expected


def test_other_patterns_are_not_relied_on(looked: tuple[Looked, ClearTables, str]) -> None:
    """A worker with patterns that the collector does not have finds what it may be."""
    event = looked[0]("SELECT * FROM public.orders", role="p_ada")
    assert event.detail["clear"] == ["public.orders"]
    assert sensitive(event, Sensitive(["public.*.email", "public.*.customer"]))
    assert not sensitive(event, Sensitive(["public.*.email", "public.*.email"]))


def test_after_ddl_nothing_is_known_until_the_next_look(looked: tuple[Looked, ClearTables, str]) -> None:
    """Whether the WAL or the log has the command first; what got a sensitive column is not clear any more."""
    log, clear, database = looked
    log("ALTER TABLE public.orders ADD COLUMN email text")
    assert sensitive(log("SELECT * FROM public.orders", role="p_ada"))
    changed = [DdlObject("table", "public.parted", relation="public.parted")]
    for committed_us, unknown in ((START_US - 1, False), (START_US + 1, True)):
        command = Ddl(0, 0, "ALTER TABLE", beacon(), objects=changed)
        log.apply(transaction(committed_us - START_US + 5, committed_at_us=committed_us, ddl=[command]), "wal")
        assert sensitive(log("TABLE public.parted", role="p_ada")) is unknown
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("ALTER TABLE orders ADD COLUMN email text")
        admin.execute('ALTER TABLE "E-mails" ADD COLUMN note text')
        assert log.look(admin, clear, START_US + 10) == 1
        assert log.look(admin, clear, START_US + 20) == 0
    assert sensitive(log("SELECT * FROM public.orders", role="p_ada"))
    assert not sensitive(log('SELECT * FROM public."E-mails"', role="p_ada"))


def test_what_ran_before_the_look_is_not_judged_by_it(looked: tuple[Looked, ClearTables, str]) -> None:
    """The column may have been dropped in between."""
    assert sensitive(looked[0]("SELECT * FROM public.orders", role="p_ada", at_s=-10))


def test_a_checkpoint_keeps_what_is_known(looked: tuple[Looked, ClearTables, str]) -> None:
    """Another worker goes on where this one was."""
    log = looked[0]
    log.fold = Fold.restore(log.fold.snapshot(), 0)
    assert not sensitive(log("SELECT * FROM public.orders", role="p_ada"))


def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch, looked: tuple[Looked, ClearTables, str]) -> None:
    """Of more tables than are remembered the oldest may have anything."""
    monkeypatch.setattr(fold_clear, "CLEAR_MAX", 1)
    log, clear, database = looked
    clear.again()
    with psycopg.connect(database, autocommit=True) as admin:
        log.look(admin, clear)
    reads = [log(f"SELECT * FROM public.{name}", role="p_ada") for name in ('"E-mails"', "orders", "parted")]
    assert [sensitive(event) for event in reads] == [True, True, False]


def test_without_patterns_nothing_is_asked() -> None:
    """The server is spared the question."""
    assert not ClearTables(Sensitive()).asked
    assert ClearTables(PATTERNS).asked
