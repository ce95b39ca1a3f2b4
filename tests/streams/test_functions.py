"""A statement that calls a function carries the relations of its body, read from a real server's catalogue."""

from __future__ import annotations

from functools import partial

import psycopg
import pytest

from collectors.posture import source as posture_source
from collectors.posture.functions import Functions
from pgwitness.core.events import Ddl, DdlObject, Posture
from streams.fold.fold import Fold
from streams.fold.schema import functions as fold_functions
from tests.streams.records import START_US, beacon, transaction
from tests.streams.test_handles import Log

FUNCTIONS = """
CREATE SCHEMA pay;
CREATE TABLE pay.cards (id int PRIMARY KEY, number text);
CREATE TABLE public.notes (id int PRIMARY KEY, note text);
CREATE FUNCTION pay.all_cards() RETURNS SETOF pay.cards LANGUAGE sql AS 'SELECT * FROM pay.cards';
CREATE FUNCTION pay.last_card() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT number FROM pay.cards; END;
CREATE FUNCTION own_path() RETURNS int LANGUAGE sql SET search_path = pay, pg_temp AS 'SELECT id FROM cards';
CREATE FUNCTION outer_one(p_id int, OUT found text) LANGUAGE plpgsql AS $$
BEGIN SELECT number INTO found FROM pay.all_cards() WHERE id = p_id;
 INSERT INTO public.notes VALUES (p_id, 'x'); END $$;
CREATE PROCEDURE perhaps(p bool) LANGUAGE plpgsql AS $$
BEGIN IF p THEN DELETE FROM public.notes; END IF; EXECUTE 'TRUNCATE ' || 'pay.' || 'cards'; END $$;
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT id FROM pay.cards';
CREATE FUNCTION twice(text) RETURNS int LANGUAGE sql AS 'SELECT id FROM public.notes';
CREATE FUNCTION nothing() RETURNS int LANGUAGE sql AS 'SELECT 1';
"""


def looked(admin: psycopg.Connection, functions: Functions) -> list[Posture]:
    """Look at the functions of a database as the collector does."""
    tables = {item.name for item in posture_source.database(admin, "shop") if item.object_type == "table"}
    define = partial(posture_source.definitions, admin)
    found = posture_source.functions(admin)
    return list(functions.changed("shop", found, define, tables, lambda: START_US, START_US))


class Called(Log):
    """A fold that has heard what was looked at, and what calling says."""

    def look(self, admin: psycopg.Connection, functions: Functions) -> None:
        for event in looked(admin, functions):
            assert self.apply(event, "sessions") == []

    def relations(self, text: str) -> tuple[list[str], list[tuple[object, object]]]:
        """Return the relations of a statement's event, and the functions it went through, each with its certainty."""
        event = self(text)
        through = event.detail.get("through", [])
        assert isinstance(through, list)
        return event.relations, [(item["function"], item["certain"]) for item in through]


def test_a_call_reads_what_the_body_reads(database: str) -> None:
    """In both languages, through other functions, by the function's own path; what may not run is not certain."""
    log, functions = Called(), Functions()
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(FUNCTIONS)
        log.look(admin, functions)
        cards = ["pay.cards"]
        assert log.relations("SELECT * FROM pay.all_cards()") == (cards, [("pay.all_cards", True)])
        assert log.relations("SELECT pay.last_card()") == (cards, [("pay.last_card", True)])
        assert log.relations("SELECT own_path()") == (cards, [("public.own_path", True)])
        found, through = log.relations("SELECT found FROM outer_one(1)")
        assert sorted(found) == ["pay.cards", "public.notes"]
        assert through == [("public.outer_one", True), ("pay.all_cards", True)]
        found, through = log.relations("CALL public.perhaps(true)")
        assert (sorted(found), through) == (["pay.cards", "public.notes"], [("public.perhaps", False)])
        assert log.relations("SELECT twice('a')") == (["pay.cards", "public.notes"], [("public.twice", False)])
        assert log.relations("SELECT nothing(), unknown(), lower('x')") == ([], [("public.nothing", True)])
        assert log.relations("DO $$ BEGIN PERFORM own_path(); END $$")[0] == cards
        event = log("SELECT * FROM pay.all_cards()")
        assert event.operation == "select"
        assert event.columns == ["pay.cards.*"]
        # Read through a path that does not lead there, nothing is found.
        log("SET search_path = elsewhere")
        assert log.relations("SELECT own_path()") == ([], [])


def test_what_was_recreated_is_known_when_it_was_read_again(database: str) -> None:
    """A changed body counts from the next look; one that was dropped, and what DDL changed since, is not known."""
    log, functions = Called(), Functions()
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(FUNCTIONS)
        log.look(admin, functions)
        assert looked(admin, functions) == []
        admin.execute("CREATE OR REPLACE FUNCTION own_path() RETURNS int LANGUAGE sql AS 'SELECT id FROM public.notes'")
        admin.execute("DROP FUNCTION pay.all_cards")
        log.look(admin, functions)
        assert log.relations("SELECT own_path()")[0] == ["public.notes"]
        assert log.relations("SELECT pay.all_cards()") == ([], [])
        functions.again()
        assert len(looked(admin, functions)) == 1
    change = Ddl(0, 0, "ALTER FUNCTION", beacon(), objects=[DdlObject("function", "public.own_path()")])
    before = transaction(1, committed_at_us=START_US - 1, ddl=[change])
    log.apply(before, "wal")
    assert log.relations("SELECT own_path()")[0] == ["public.notes"]
    log.apply(transaction(2, committed_at_us=START_US + 1, ddl=[change]), "wal")
    assert log.relations("SELECT own_path()") == ([], [])


def test_a_checkpoint_keeps_what_functions_run(database18: str) -> None:
    """After a restart a call is known as before; what is no list of functions is no harm."""
    log, functions = Called(), Functions()
    with psycopg.connect(database18, autocommit=True) as admin:
        admin.execute(FUNCTIONS)
        log.look(admin, functions)
    log.fold = Fold.restore(log.fold.snapshot(), 0)
    assert log.relations("SELECT own_path()")[0] == ["pay.cards"]
    for after in (
        {},
        {"at_us": 1, "runs": {"a.b": [True], "c.d": 1, "e.f": [True, ["x" * 9_999], [], [], []]}, "gone": []},
    ):
        record = Posture(
            captured_at_us=START_US,
            object_type="functions",
            name="functions 1",
            change="found",
            database="shop",
            after=after,
        )
        assert log.apply(record, "sessions") == []
    assert log.relations("SELECT a.b(), c.d(), e.f()") == ([], [])


def test_functions_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more functions than there is room for the oldest are forgotten; a call looks into so many at most."""
    monkeypatch.setattr(fold_functions, "FUNCTIONS_MAX", 10)
    monkeypatch.setattr(fold_functions, "CALLS_MAX", 5)
    log = Called()
    for number in range(30):
        runs = {f"public.f{number}": [True, ["select"], [f"public.t{number}"], [], [f"f{number - 1}", f"f{number}"]]}
        after = {"at_us": START_US, "runs": runs, "gone": []}
        record = Posture(
            captured_at_us=START_US, object_type="functions", name="f", change="found", database="shop", after=after
        )
        log.apply(record, "sessions")
    assert log.relations("SELECT f19()") == ([], [])
    assert len(log.relations("SELECT f29()")[0]) == 5


def test_whoever_holds_a_tables_lock_holds_up_no_look(database18: str) -> None:
    """A body that is kept parsed is written with the locks of its tables: without them it is read the next time."""
    log, functions = Called(), Functions()
    with psycopg.connect(database18, autocommit=True) as admin, psycopg.connect(database18) as other:
        admin.execute(FUNCTIONS)
        other.execute("LOCK TABLE pay.cards IN ACCESS EXCLUSIVE MODE")
        log.look(admin, functions)
        assert log.relations("SELECT pay.last_card()") == ([], [])
        other.rollback()
        log.look(admin, functions)
        assert log.relations("SELECT pay.last_card()")[0] == ["pay.cards"]
