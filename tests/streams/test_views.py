"""A statement on a view carries the tables and columns behind it, read from a real server's catalogue."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from collectors.posture import source as posture_source
from collectors.posture.views import Views
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from detectors.sensitive import Sensitive
from pgwitness.core.events import Ddl, DdlObject, Event, Posture
from streams.fold.fold import Fold
from streams.fold.schema import views as fold_views
from tests.streams.records import START_US, beacon, transaction
from tests.streams.test_handles import Log

MADE = """
CREATE SCHEMA pay;
CREATE TABLE pay.customers (id int PRIMARY KEY, email text, "Full name" text, city text);
CREATE TABLE pay.cards (id int PRIMARY KEY, customer int, number text);
CREATE VIEW public.everybody AS SELECT * FROM pay.customers;
CREATE VIEW public.contacts AS SELECT id, email AS address, city FROM pay.customers;
CREATE VIEW public.berlin AS SELECT id, email FROM pay.customers WHERE city = 'Berlin';
CREATE VIEW public.outer_one AS SELECT * FROM public.everybody;
CREATE VIEW public.joined AS SELECT c.email, k.number FROM pay.customers AS c JOIN pay.cards AS k ON k.customer = c.id;
CREATE MATERIALIZED VIEW public.kept AS SELECT "Full name" FROM pay.customers;
CREATE VIEW public.nothing AS SELECT 1 AS one;
"""


class Looked(Log):
    """A fold that has heard what views read."""

    def look(self, admin: psycopg.Connection, views: Views) -> list[Posture]:
        events = list(views.changed("shop", posture_source.views(admin), lambda: START_US, START_US))
        for event in events:
            assert self.apply(event, "sessions") == []
        return events

    def behind(self, text: str) -> tuple[set[str], set[str], list[str]]:
        """Return relations and columns of a statement's event, and what it reads whole, without the view's own."""
        event = self(text)
        through: Any = event.detail.get("through", [])
        views = {item["view"] for item in through}
        columns = {name for name in event.columns if name.rpartition(".")[0] not in views}
        whole: Any = event.detail.get("whole", [])
        return set(event.relations) - views, columns, [name for name in whole if name not in views]


@pytest.fixture
def looked(database: str) -> tuple[Looked, Views, str]:
    """A database with views of many kinds, as they were looked at."""
    log, views = Looked(), Views()
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(MADE)
        log.look(admin, views)
    return log, views, database


def test_what_is_read_from_a_view_is_read_from_its_tables(looked: tuple[Looked, Views, str]) -> None:
    """Columns by their names, renamed ones as those that are shown under no name of theirs, views on views."""
    log = looked[0]
    email, city, full = "pay.customers.email", "pay.customers.city", 'pay.customers."Full name"'
    behind, all_of = {"pay.customers"}, {"pay.customers.id", email, city, full}
    assert log.behind("SELECT email FROM public.everybody") == (behind, {email}, ["pay.customers"])
    assert log.behind("SELECT * FROM public.everybody") == (behind, all_of, ["pay.customers"])
    assert log.behind("SELECT address FROM public.contacts") == (behind, {email}, ["pay.customers"])
    assert log.behind("SELECT city FROM public.contacts LIMIT 1") == (behind, {city}, [])
    assert log.behind("SELECT * FROM public.outer_one") == (behind, all_of, ["pay.customers"])
    assert log.behind("SELECT number FROM public.joined")[:2] == ({"pay.customers", "pay.cards"}, {"pay.cards.number"})
    assert log.behind('SELECT "Full name" FROM public.kept') == (behind, {full}, ["pay.customers"])
    assert log.behind("SELECT * FROM public.nothing")[:1] == ({"public.nothing"},)


def test_a_view_that_leaves_rows_out_is_not_its_whole_table(looked: tuple[Looked, Views, str]) -> None:
    """A condition, also that of a join, may choose; without one all rows of the table come through."""
    log = looked[0]
    assert log.behind("SELECT email FROM public.berlin")[2] == []
    assert log.behind("SELECT email FROM public.joined")[2] == []
    assert log.behind("COPY public.everybody TO STDOUT")[2] == ["pay.customers"]


def test_what_is_done_to_a_view_itself_is_done_to_nothing_behind_it(looked: tuple[Looked, Views, str]) -> None:
    """A grant on it, or its end, is no deed on its tables; a DELETE through it is."""
    log = looked[0]
    assert log("GRANT SELECT ON public.everybody TO someone").relations == ["public.everybody"]
    assert log("DROP VIEW public.everybody").relations == ["public.everybody"]
    assert "pay.customers" in log("DELETE FROM public.everybody").relations


def test_sensitive_columns_are_found_behind_a_view(looked: tuple[Looked, Views, str]) -> None:
    """The finding of a read of all e-mail addresses, by whatever name the view gives them; others raise nothing."""
    log = looked[0]
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None, sensitive=Sensitive(["pay.customers.email"]))

    def raised(text: str) -> set[str]:
        return set(judge.judge(log(text, role="p_ada")).policies)

    for text in ("SELECT address FROM public.contacts", "TABLE public.outer_one", "SELECT e FROM public.everybody e"):
        assert "sensitive_read" in raised(text), text
    for text in ("SELECT city FROM public.contacts", "SELECT email FROM public.berlin"):
        assert "sensitive_read" not in raised(text), text


def test_a_view_is_known_as_it_was_read_last(looked: tuple[Looked, Views, str]) -> None:
    """What DDL changed since is not known until it was read again; what is gone is gone, what stayed is sent once."""
    log, views, dsn = looked
    with psycopg.connect(dsn, autocommit=True) as admin:
        assert log.look(admin, views) == []
        admin.execute("CREATE OR REPLACE VIEW public.contacts AS SELECT id, city AS address, city FROM pay.customers")
        admin.execute("DROP VIEW public.joined")
        (event,) = log.look(admin, views)
        assert event.after is not None
        assert event.after["gone"] == ["public.joined"]
    behind = {"pay.customers.city", "pay.customers.id"}  # city is shown as itself too: address may be either
    assert log.behind("SELECT address FROM public.contacts")[1] == behind
    assert log.behind("SELECT number FROM public.joined")[0] == {"public.joined"}
    changed = [DdlObject("view", "public.everybody", relation="public.everybody")]
    for committed_us, left in ((START_US - 1, {"pay.customers"}), (START_US + 1, {"public.everybody"})):
        command = Ddl(0, 0, "CREATE VIEW", beacon(), objects=changed)
        log.apply(transaction(committed_us - START_US + 5, committed_at_us=committed_us, ddl=[command]), "wal")
        assert log.behind("SELECT email FROM public.everybody")[0] == left


def test_a_checkpoint_keeps_views_and_bounds_them(
    looked: tuple[Looked, Views, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart they are known as before; what is no list of views is no harm, and there is room for so many."""
    log = looked[0]
    log.fold = Fold.restore(log.fold.snapshot(), 0)
    assert log.behind("SELECT email FROM public.everybody")[0] == {"pay.customers"}
    monkeypatch.setattr(fold_views, "VIEWS_MAX", 2)
    reads = {f"public.v{number}": [True, ["pay.cards"], [], []] for number in range(3)} | {"public.odd": [1, 2]}
    record = {"at_us": START_US, "reads": reads, "gone": []}
    for after in (record, {"at_us": "x"}, None):
        assert log.apply(view_record(after), "sessions") == []
    events: list[Event] = [log(f"SELECT * FROM public.v{number}") for number in range(3)]
    assert [len(event.relations) for event in events] == [1, 2, 2]


def view_record(after: dict[str, object] | None) -> Posture:
    """A record of what views read."""
    return Posture(
        captured_at_us=START_US, object_type="views", name="views 1", change="found", database="shop", after=after
    )
