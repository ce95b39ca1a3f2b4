"""A statement that changes more rows than it may is undone before anything is committed, whatever its tag says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from prometheus_client import REGISTRY
from psycopg import errors, sql

from collectors.gateway.spool.shipping import Shipment
from pgwitness.core.events import Decision, Statement
from tests.gateway.conftest import Running, running
from tests.gateway.test_refusals import POLICY as REFUSING
from tests.gateway.test_refusals import rules

POLICY = """
id: few_rows
title: Few rows at a time
description: Agents change some rows, and never most of them.
severity: high
kinds: [statement]
when: >-
  statement.operations.exists(o, o in ["update", "delete", "merge", "do", "call"]) || "shrink" in statement.functions
effect: limit
max_rows: 10
message: "{who} {done:changed|change} rows in {where}"
hint: Change at most ten rows, by key.
runbook: Ask.
tests:
  - {name: a, match: true, action: {statement: {operations: [delete]}}}
  - {name: b, match: false, action: {statement: {operations: [select]}}}
"""
SHRINK = "CREATE FUNCTION shrink() RETURNS void LANGUAGE plpgsql AS $$ BEGIN DELETE FROM victim WHERE id > 5; END $$"
CALLED = "CREATE PROCEDURE called() LANGUAGE plpgsql AS $$ BEGIN DELETE FROM victim; COMMIT; END $$"


@pytest.fixture
def limited(tmp_path: Path, database: str) -> Iterator[Running]:
    """A gateway that lets ten rows be changed, in front of a table with thirty, on which another one hangs."""
    with running(tmp_path, database, rules=rules(POLICY)) as one:
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute("CREATE TABLE victim (id int PRIMARY KEY, word text)")
            admin.execute("CREATE TABLE child (id int REFERENCES victim ON DELETE CASCADE)")
            admin.execute("CREATE TABLE late (id int REFERENCES victim DEFERRABLE INITIALLY DEFERRED)")
            admin.execute("INSERT INTO victim SELECT n, 'x' FROM generate_series(1, 30) AS n")
            admin.execute("INSERT INTO child SELECT 30 FROM generate_series(1, 20)")
            admin.execute("INSERT INTO late VALUES (29)")
            admin.execute(SHRINK)
            admin.execute(CALLED)
            for table in ("victim", "child", "late"):
                owner = (sql.Identifier(table), sql.Identifier(one.role))
                admin.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(*owner))
        yield one


def left(client: psycopg.Connection) -> tuple[int, int]:
    """Count rows that are left, and those that were changed."""
    row = client.execute("SELECT count(*), count(*) FILTER (WHERE word <> 'x') FROM victim").fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


TOO_MUCH = [
    "DELETE FROM victim WHERE id < 29",
    "UPDATE victim SET word = 'y' WHERE id > 0",
    "WITH gone AS (DELETE FROM victim WHERE id < 20 RETURNING 1) SELECT count(*) FROM gone",
    "DO $$ BEGIN FOR i IN 1..20 LOOP UPDATE victim SET word = 'y' WHERE id = i; END LOOP; END $$",
    "SELECT shrink()",
    "EXPLAIN ANALYZE DELETE FROM victim WHERE id < 29",
    "DELETE FROM victim WHERE id = 30",  # which takes twenty rows along
    "MERGE INTO victim USING generate_series(1, 20) AS g ON g = id WHEN MATCHED THEN UPDATE SET word = 'y'",
    "DELETE FROM victim WHERE id < 29 RETURNING id",
    "UPDATE victim SET word = 'y' WHERE id < 29; SELECT 1",
    "DO $$ BEGIN PERFORM set_config('pgwitness.n', '-1', true); DELETE FROM victim WHERE id < 29; END $$",
    "CALL called()",
]


@pytest.mark.parametrize("way", ["simple", "extended", "prepared"])
def test_too_much_is_undone(limited: Running, way: str) -> None:
    """By a simple query, an extended one and a prepared one, alone and in a block; the session goes on."""
    factory = psycopg.ClientCursor if way == "simple" else psycopg.Cursor
    with psycopg.connect(limited.dsn(), autocommit=True, cursor_factory=factory) as client:
        for text in TOO_MUCH:
            if ";" in text and way != "simple" and not text.startswith("DO"):
                continue
            with pytest.raises(errors.InsufficientPrivilege, match="few_rows"):
                client.execute(text, prepare=way == "prepared")
            assert left(client) == (30, 0), text
            with pytest.raises(errors.InsufficientPrivilege):
                _in_block(client, "UPDATE victim SET word = 'z' WHERE id = 1", text)
            assert left(client) == (30, 0), text
        row = client.execute("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'pgwitness%'").fetchone()
        assert row is not None
        assert row[0] <= 1


def _in_block(client: psycopg.Connection, *texts: str) -> None:
    with client.transaction():
        for text in texts:
            client.execute(text)


def test_what_counts_cannot_be_reached(limited: Running) -> None:
    """Neither settings nor a search path of its own let a statement hide what it does."""
    hiding = [
        "DO $$ BEGIN EXECUTE 'RESET ALL'; DELETE FROM victim WHERE id < 29; END $$",
        "DO $$ BEGIN PERFORM set_config('search_path', 'evil, pg_catalog', false); DELETE FROM public.victim; END $$",
    ]
    with psycopg.connect(limited.dsn(), autocommit=True, cursor_factory=psycopg.ClientCursor) as client:
        client.execute("SET search_path = pg_temp, pg_catalog, public")
        client.execute("CREATE FUNCTION pg_temp.no(numeric, numeric) RETURNS numeric LANGUAGE sql AS 'SELECT 0.0'")
        client.execute("CREATE OPERATOR pg_temp.- (leftarg = numeric, rightarg = numeric, function = pg_temp.no)")
        for text in hiding:
            with pytest.raises(psycopg.Error):
                client.execute(text)
            assert left(client) == (30, 0), text


def test_a_table_is_counted_in_whatever_schema_it_stands(limited: Running, database: str) -> None:
    """What the guard in the database notes for itself is not counted; a schema of its name hides nobody's rows."""
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE SCHEMA pgwitness_guard AUTHORIZATION {}").format(sql.Identifier(limited.role)))
        admin.execute("ALTER TABLE victim SET SCHEMA pgwitness_guard")
    with (
        psycopg.connect(limited.dsn(), autocommit=True) as client,
        pytest.raises(errors.InsufficientPrivilege, match="it changed 28 rows"),
    ):
        client.execute("DELETE FROM pgwitness_guard.victim WHERE id < 29")


@pytest.mark.parametrize("way", ["simple", "extended", "prepared"])
def test_what_is_within_the_limit_is_as_without_it(limited: Running, way: str) -> None:
    """Answers, rows, notices, errors and blocks are those of the server."""
    factory = psycopg.ClientCursor if way == "simple" else psycopg.Cursor
    prepare = way == "prepared"
    with psycopg.connect(limited.dsn(), autocommit=True, cursor_factory=factory) as client:
        notices: list[str | None] = []
        client.add_notice_handler(lambda said: notices.append(said.message_primary))
        for n in range(1, 4):
            updated = client.execute("UPDATE victim SET word = 'y' WHERE id = %s", [n], prepare=prepare)
            assert (updated.rowcount, updated.statusmessage) == (1, "UPDATE 1")
        gone = client.execute("DELETE FROM victim WHERE id IN (4, 5) RETURNING id, word", prepare=prepare)
        assert sorted(gone.fetchall()) == [(4, "x"), (5, "x")]
        client.execute("DO $$ BEGIN RAISE NOTICE 'heard'; END $$")
        assert notices == ["heard"]
        with pytest.raises(errors.DivisionByZero):
            client.execute("UPDATE victim SET word = (1 / (id - id))::text WHERE id = 6", prepare=prepare)
        with pytest.raises(errors.ForeignKeyViolation):
            client.execute("DELETE FROM victim WHERE id = 29", prepare=prepare)
        with client.transaction():
            for n in range(10, 25):
                client.execute("UPDATE victim SET word = 'y' WHERE id = %s", [n], prepare=prepare)
        assert left(client) == (28, 18)
        client.execute("BEGIN")
        with pytest.raises(errors.DivisionByZero):
            client.execute("SELECT 1 / 0")
        with pytest.raises(errors.InFailedSqlTransaction):
            client.execute("DELETE FROM victim WHERE id = 7", prepare=prepare)
        client.execute("ROLLBACK")
        assert left(client) == (28, 18)


def test_in_a_pipeline_all_of_it_is_undone(limited: Running) -> None:
    """One statement too much takes back what stands before it since the last Sync, and nothing behind it runs."""
    with psycopg.connect(limited.dsn(), autocommit=True) as client:
        with pytest.raises(errors.InsufficientPrivilege, match="it changed 28 rows, and 10 is the most"):
            _pipeline(client)
        assert left(client) == (30, 0)
        with client.pipeline():
            for n in range(1, 30):
                client.execute("UPDATE victim SET word = 'y' WHERE id = %s", [n])
        assert left(client) == (30, 29)
    told = [ended for begun, ended in limited.statements() if begun.verdict is not None and ended.outcome == "denied"]
    assert [(one.rows, one.sqlstate) for one in told] == [(28, "42501")]


def _pipeline(client: psycopg.Connection) -> None:
    with client.pipeline():
        client.execute("UPDATE victim SET word = 'y' WHERE id = 1")
        client.execute("DELETE FROM victim WHERE id < 29")
        client.execute("UPDATE victim SET word = 'y' WHERE id = 2")


def test_a_limited_statement_among_others_is_refused(limited: Running) -> None:
    """Which of a string's statements did what would not be known: none runs, and the evidence says: denied."""
    with (
        psycopg.connect(limited.dsn(), autocommit=True, cursor_factory=psycopg.ClientCursor) as client,
        pytest.raises(errors.InsufficientPrivilege, match="has to be sent alone"),
    ):
        client.execute("UPDATE victim SET word = 'y' WHERE id = 1; SELECT 1")
    ((begun, ended),) = [one for one in limited.statements() if one[0].verdict is not None]
    assert begun.verdict is not None
    assert (begun.verdict.effect, ended.outcome, ended.sqlstate, ended.ran) == ("limit", "denied", "42501", True)


def test_what_is_staged_refuses_nothing_and_is_counted(tmp_path: Path, database18: str) -> None:
    """Denying, limiting and asking policies let all pass without a word; what they would have stopped is evidence."""
    approving = REFUSING.format(id="asked", when="'\"delete\" in statement.operations'", effect="approve")
    staged = [
        POLICY.replace("effect: limit", "mode: staged\neffect: limit"),
        REFUSING.format(id="no_x", when="'\"update\" in statement.operations'", effect="deny\nmode: staged"),
        approving + "approve: {by: [dba]}\nmax_rows: 3\nmode: staged\n",
    ]
    before = REGISTRY.get_sample_value("pgwitness_gateway_decisions_total", {"effect": "staged"}) or 0.0
    with running(tmp_path, database18, rules=rules(*staged)) as gateway:
        with psycopg.connect(database18, autocommit=True) as admin:
            admin.execute("CREATE TABLE victim AS SELECT n AS id, 'x' AS word FROM generate_series(1, 30) AS n")
            admin.execute(sql.SQL("GRANT ALL ON victim TO {}").format(sql.Identifier(gateway.role)))
        with psycopg.connect(gateway.dsn(), autocommit=True) as client:
            notices: list[str] = []
            client.add_notice_handler(lambda said: notices.append(str(said.message_primary)))
            for text in ("UPDATE victim SET word = 'y' WHERE id < 3", "DELETE FROM victim WHERE id > 5"):
                client.execute(text)  # type: ignore[call-overload]
            assert left(client) == (5, 2)
            assert notices == []
        gateway.statements()
        shipment, told = Shipment("spool"), dict[str, list[str]]()
        for place, record in enumerate(gateway.records()):
            for _, _, event in shipment.take(place, record):
                assert not isinstance(event, Decision)
                if isinstance(event, Statement) and event.decided is not None:
                    told[(event.statement or "")[:6]] = sorted(event.decided.staged)
        assert told == {"UPDATE": ["no_x"], "DELETE": ["asked", "few_rows"]}
    after = REGISTRY.get_sample_value("pgwitness_gateway_decisions_total", {"effect": "staged"}) or 0.0
    assert after - before == 2
