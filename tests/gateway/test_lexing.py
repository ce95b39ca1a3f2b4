r"""What the server reads is what was judged, whatever its settings are and whoever changes them meanwhile."""

from __future__ import annotations

import select
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import pq, sql

from collectors.gateway.wire.lexing import SETS, Settings, Surety, alike, read
from tests.gateway.conftest import DEADLINE_S, Running, running
from tests.gateway.lexing import compare, naive
from tests.gateway.test_refusals import left, policy, rules

HIDDEN_ON = r"WITH a AS (SELECT '\' , '), d AS (DELETE FROM victim RETURNING 1) SELECT 1 --' ) SELECT 1"
"""A harmless statement where backslashes are characters, and one that deletes where they escape."""
BLOCK = "DO $$ DECLARE x text; BEGIN x := '\\' || '; DELETE FROM victim --'\n; END $$"
OFF = "SET standard_conforming_strings = off"
OFF_UNSEEN = "SELECT tidy('standard_'||'conforming_strings', 'off')"
"""By a function that sets what it is told to."""


@pytest.mark.parametrize(
    ("text", "standard", "surety", "forward"),
    [
        (r"SELECT 'a\b'", True, "sure", None),
        (r"SELECT 'a\b'", False, "sure", r"SELECT  E'a\b'"),
        (r"SELECT'a\'b'", False, "sure", r"SELECT E'a''b'"),
        (r"SELECT 'a\b'", True, "unsure", r"SELECT  E'a\\b'"),
        (r"SELECT 'a\b'", False, "unsure", r"SELECT  E'a\b'"),
        ("SELECT N'a\\b'", True, "unsure", "SELECT  nchar E'a\\\\b'"),
        ("SELECT 'a'\n'\\'", True, "unsure", "SELECT  E'a'\n'\\\\'"),
        (r"SELECT E'\'', $$\$$, B'0', 'x'", False, "unsure", None),
        (r"SELECT '''' -- \'", False, "changed", None),
        ('SELECT "é", É, $$é\'\\$$, E\'\\é\' -- é', True, "unsure",
         'SELECT  U&"\\00E9",  U&"\\00C9",  E\'\\u00E9\'\'\\\\\', E\'\\u00E9\' -- ?'),
        (r"DO $$ BEGIN x := '\' || '; y'; END $$", True, "sure", r"DO $$ BEGIN x :=  E'\\' || '; y'; END $$"),
        (r"SELECT 1; DO $$ BEGIN x := '\a'; END $$", False, "sure", r"SELECT 1; DO $$ BEGIN x :=  E'\a'; END $$"),
        (r"DO $$ '\' $$ LANGUAGE plperl", True, "sure", None),
        ("SELECT '𝄞', \"𝄞\"", True, "unsure", "SELECT  E'\\U0001D11E',  U&\"\\+01D11E\""),
    ],
)  # fmt: skip
def test_what_goes_to_the_server(text: str, standard: bool, surety: Surety, forward: str | None) -> None:
    """As it came where that is read alike or the settings are certain; else what every setting reads alike."""
    lexed = read(text.encode(), Settings("UTF8", standard, surety))
    assert lexed.doubt is None
    assert lexed.forward == (forward.encode() if forward is not None else None)
    assert lexed.text == (forward or text)
    if surety != "sure":
        assert alike(lexed.text)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        (rb"SELECT 'a\b'", Settings(surety="changed")),
        ("SELECT 'é'".encode(), Settings(surety="changed")),
        (b"SELECT '\xe9'", Settings("UTF8")),
        (b"SELECT '\xc4\xe3'", Settings("GBK", surety="unsure")),
        (b"SELECT '\xe9'", Settings("NO_SUCH_ENCODING")),
        (rb"SELECT '\'", Settings(standard_strings=False)),
        (rb"DO 'BEGIN x := ''\''; END'", Settings()),
        (rb"DO $b$ BEGIN EXECUTE 'SELECT ''\'' '; END $b$", Settings()),
        ("SELECT U&'é'".encode(), Settings(surety="unsure")),
        ("SELECT été".encode(), Settings(surety="unsure", server_encoding="LATIN1")),
        ("SELECT 'a' -- é\n'b'".encode(), Settings(surety="unsure")),
    ],
)
def test_what_is_read_in_two_ways_is_refused(text: bytes, settings: Settings) -> None:
    """Where nothing that is read alike can be put in its place."""
    assert read(text, settings).doubt is not None


def test_texts_at_random_run_as_they_were_judged(database: str) -> None:
    """Under every combination of settings, known or changed since; a judge of UTF-8 alone would have been misled."""
    ran = compare(database, 1_500)
    assert ran["ran"] > 200
    assert ran["rewritten"] > 50
    assert naive(database, 200) > 0


@pytest.fixture
def guarded(tmp_path: Path, database: str) -> Iterator[Running]:
    """A gateway that denies deleting all rows to a service, whose statements pass where they cannot be read."""
    with running(tmp_path, database, rules=rules(policy(), kind="service")) as one:
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute("CREATE TABLE victim AS SELECT generate_series(1, 5) AS id")
            sets = "'SELECT set_config($1, $2, false)'"
            admin.execute(f"CREATE FUNCTION tidy(text, text) RETURNS text LANGUAGE sql AS {sets}")
            admin.execute(sql.SQL("ALTER TABLE victim OWNER TO {}").format(sql.Identifier(one.role)))
        yield one


def answer(libpq: pq.abc.PGconn) -> pq.abc.PGresult | None:
    """Wait for the next result, and let the gateway run meanwhile, which is in this process."""
    while libpq.is_busy():
        select.select([libpq.socket], [], [], DEADLINE_S)
        libpq.consume_input()
    return libpq.get_result()


def pipeline(client: psycopg.Connection, *texts: str | bytes) -> list[bytes]:
    """Send statements in one go; return the first value of each, or its SQLSTATE."""
    libpq = client.pgconn
    libpq.enter_pipeline_mode()
    for text in texts:
        libpq.send_query_params(text.encode() if isinstance(text, str) else text, None)
    libpq.pipeline_sync()
    libpq.flush()
    found: list[bytes] = []
    while (result := answer(libpq)) is None or result.status != pq.ExecStatus.PIPELINE_SYNC:
        if result is not None:
            state = result.error_field(pq.DiagnosticField.SQLSTATE)
            found.append(state or (result.get_value(0, 0) if result.ntuples else b"") or b"")
    libpq.exit_pipeline_mode()
    return found


def simple(client: psycopg.Connection, text: bytes) -> bytes | None:
    """Send bytes as they are; return the SQLSTATE of what fails."""
    client.pgconn.send_query(text)
    state = None
    while (result := answer(client.pgconn)) is not None:
        state = result.error_field(pq.DiagnosticField.SQLSTATE)
    return state


def test_these_statements_delete_where_nobody_is_between(guarded: Running, database: str) -> None:
    """With the setting off, at the server itself: what the next test sends through the gateway is no straw man."""
    for hidden in (r"SELECT '\'' ; DELETE FROM victim; --'", HIDDEN_ON, BLOCK):
        with psycopg.connect(database, cursor_factory=psycopg.ClientCursor) as admin:
            assert left(admin) == 5
            admin.execute(OFF)
            admin.execute(hidden)
            assert left(admin) == 0
            admin.rollback()


def test_a_setting_hides_no_statement(guarded: Running) -> None:
    """Changed before, in the same pipeline, or by a name that nobody sees: what would delete does not."""
    with psycopg.connect(guarded.dsn(), autocommit=True) as client:
        client.execute(OFF)
        for hidden in (r"SELECT '\'' ; DELETE FROM victim; --'", HIDDEN_ON):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                client.execute(hidden)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            client.execute(BLOCK)
        client.execute("RESET standard_conforming_strings")
        for before in (OFF, OFF_UNSEEN):
            client.execute(f"{before}; {BLOCK}")
            client.execute("RESET standard_conforming_strings")
        assert pipeline(client, OFF, HIDDEN_ON)[1] == b"42501"
    with psycopg.connect(guarded.dsn(), autocommit=True) as client:
        assert pipeline(client, OFF_UNSEEN, HIDDEN_ON) == [b"off", b"1"]
        assert client.pgconn.parameter_status(b"standard_conforming_strings") == b"off"
        assert simple(client, b"SET client_encoding = GBK") is None
        assert simple(client, b"SELECT '\xbf\\' ; DELETE FROM victim; --'") == b"42501"
    with psycopg.connect(guarded.dsn(), autocommit=True) as client:
        unseen = "SELECT tidy('client_'||'encoding', 'SJIS')"
        found = pipeline(client, unseen, "SELECT '表', 'x'")
        assert found == [b"SJIS", "表".encode("sjis")]
        assert left(client) == 5


def test_honest_texts_mean_what_they_meant(guarded: Running) -> None:
    """In pipelines and under settings of old, as without a gateway."""
    with psycopg.connect(guarded.dsn(), autocommit=True) as client:
        client.execute('CREATE TABLE "Größe" (größe text)')
        found = pipeline(
            client, "SELECT 1", r"SELECT '\d+'", "SELECT 'é' || E'\\x41'", 'INSERT INTO "Größe" VALUES (\'ä\')',
            'SELECT größe AS "é" FROM "Größe" -- é',
        )  # fmt: skip
        assert found == [b"1", rb"\d+", "éA".encode(), b"", "ä".encode()]
        client.execute(OFF)
        assert client.execute(r"SELECT 'a\tb\'c'").fetchone() == ("a\tb'c",)
        assert pipeline(client, "SELECT 1", r"SELECT 'a\tb'") == [b"1", b"a\tb"]
        client.execute("SET client_encoding = LATIN1")
        assert client.execute("SELECT 'é' || 'a\\tb'").fetchone() == ("éa\tb",)


@pytest.mark.parametrize(
    "text",
    [
        OFF,
        "set  Names 'gbk'",
        "RESET ALL",
        "discard all",
        "SELECT set_config($1, $2, false)",
        "SET client_encoding TO x",
    ],
)
def test_what_says_that_it_changes_how_texts_are_read(text: str) -> None:
    """Behind it nobody knows what a text means."""
    assert SETS.search(text.encode())


def test_a_line_of_dashes_is_read_in_its_turn() -> None:
    """A comment behind a constant has as many dashes as it likes; no other session waits for it."""
    text = "SELECT 'é' " + "-" * 10_000
    assert read(text.encode(), Settings(surety="unsure")).forward == text.replace("'é'", " E'\\u00E9'").encode()
