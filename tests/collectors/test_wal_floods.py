"""A role that may do nothing but connect writes messages under our prefixes by the ten thousand, on a real server."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgwitness.core.events import Control, Gap, Transaction
from pgwitness.demo.servers import wait_for
from tests.collectors.wal_source import MARK, Source, rows

PREFIXES = ("pgwitness.beacon", "pgwitness.ddl", "pgwitness.control", "pgwitness.heartbeat", "pgwitness.silenced")
EVENTS_MAX = 5 * 30
"""Five a second, if the flood takes half a minute on a busy machine."""


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_flood_is_told_in_few_words_and_hides_nothing(source18: Source, size: int) -> None:
    """Rows before, in and after it are there with their beacons; a few messages are told, and how many there were."""
    source = source18
    source.create(MARK, "CREATE TABLE item (id int PRIMARY KEY)", "CREATE ROLE stranger LOGIN")
    count = 10_000 if size < 1_000 else 200
    with source.running() as raised:
        source.streaming()
        source.sql.execute("INSERT INTO item VALUES (1)")
        with psycopg.connect(make_conninfo(source.dsn, user="stranger"), autocommit=True) as stranger:
            for prefix in PREFIXES:
                for transactional in (False, True):
                    stranger.execute(
                        "SELECT count(pg_logical_emit_message(%s, %s, repeat('x', %s))) FROM generate_series(1, %s)",
                        (transactional, prefix, size, count),
                    )
                    stranger.execute("SELECT pg_logical_emit_message(true, %s, 'x')", (prefix,))
                    source.sql.execute("INSERT INTO item SELECT max(id) + 1 FROM item")
        found = source.until_marked()
        raw = source.bench.raw
        wait_for(lambda: flood(raw.of(Control)) is not None, 20, "the flood is told")
    assert raised == []
    written = [transaction for transaction in found if transaction.n_rows]
    assert [row[2] for row in rows(written)] == [{"id": n} for n in range(1, 12)]
    assert all(transaction.beacons for transaction in written)
    assert len(raw.of(Transaction)) - len(written) < EVENTS_MAX
    control = flood(raw.of(Control))
    assert control is not None
    assert control.detail["reason"] == "flood"
    assert control.detail["finding"] == "beacon_forged"


ZEROS = "0" * 64
SAID = "\x1fcfo\x1fnone\x1fpsql\x1f\x1f16400\x1fINSERT\x1f1\x1f0\x1f0\x1f"
OURS = '["control/1", "{{system}}", "{{database}}", {{xid}}, "{}", "cfo"]'
CONTENTS = [
    "", "x", ZEROS, "a" * 64, "\x1f" * 10, "\x1f" * 90, ZEROS + "\x1f" * 10, ZEROS + "7" + SAID,
    "a" * 64 + "{xid}" + SAID, "a" * 64 + "{xid}" + SAID + "{session}", ZEROS + "{xid}" + SAID + "{session}",
    ZEROS + "{xid}" + SAID + ZEROS + '["session/1","{system}","{database}",1,1,"cfo",null,null,null,null]',
    "{session}" * 2, "A" * 64 + "{xid}" + SAID + "{session}", "a" * 64 + "9" * 5_000 + SAID + "{session}",
    "a" * 64 + "\u0661\u0662" + SAID + "{session}", "a" * 32 + OURS.format("uninstall"),
    *("a" * 64 + OURS.format(word) for word in ("uninstall", "pause", "rotate_key", "renew_key", "publications")),
    "a" * 64 + '["ddl/1", "{system}", "{database}", {xid}, 1, 1, "cfo", "cfo", "psql"]', "a" * 64 + '["ddl/2"]',
    "a" * 64 + "[" * 60_000, "a" * 64 + '["session/1", "\\ud800"]', "54001\x1fcfo\x1fcfo\x1f1\x1fINSERT",
    "a" * 1_100_000,
]  # fmt: skip
"""What somebody writes who knows the forms, his own introduction, and all that is public."""


def test_nothing_that_strangers_and_owners_write_is_believed(source18: Source) -> None:
    """In every form, by himself and by a trigger in somebody else's transaction: it is forged, or nothing of ours.

    Rows keep their beacon, with the name of who wrote them, and what pgwitness does is not touched.
    """
    source = source18
    source.create(
        MARK, "CREATE TABLE item (id serial PRIMARY KEY)", "CREATE ROLE stranger LOGIN", "CREATE ROLE app LOGIN"
    )
    source.sql.execute("GRANT CREATE ON SCHEMA public TO stranger; GRANT ALL ON item, item_id_seq TO stranger, app")
    with source.running() as raised:
        source.streaming()
        with (
            psycopg.connect(make_conninfo(source.dsn, user="stranger"), autocommit=True) as stranger,
            psycopg.connect(make_conninfo(source.dsn, user="app"), autocommit=True) as app,
        ):
            stranger.execute("CREATE TABLE trap (id int PRIMARY KEY); GRANT ALL ON trap TO app")
            stranger.execute(TRAP.encode())
            stranger.execute("INSERT INTO item DEFAULT VALUES")
            for content in CONTENTS:
                for prefix in (*PREFIXES, "pgwitness.beacon ", "pgwitness.beaco", "Pgwitness.beacon"):
                    stranger.execute(FORGE, {"prefix": prefix, "content": content, "itself": False})
                    with stranger.transaction():
                        stranger.execute(FORGE, {"prefix": prefix, "content": content, "itself": True})
                stranger.execute("SELECT pg_logical_emit_message(true, 'pgwitness.beacon', '\\xff00c3'::bytea)")
            app.execute("INSERT INTO trap VALUES (1)")
            stranger.execute("SET pgwitness.claim = E'\\x1f\\x1e\\x1f'")
            stranger.execute("SET application_name = 'a{b%c'; SELECT pgwitness.claim(repeat('x.', 9000))")
            stranger.execute("INSERT INTO item DEFAULT VALUES")
            app.execute("INSERT INTO item DEFAULT VALUES")
        found = source.until_marked()
    assert raised == []
    writers = [[(b.session_user, b.authenticated) for b in t.beacons] for t in found if t.n_rows]
    assert writers == [[(name, True)] for name in ("stranger", "app", "stranger", "app")]
    trapped = next(t for t in found if t.beacons and t.relations and t.relations[0].name == "public.trap")
    assert [forgery.reason for forgery in trapped.forged] in (["mac"], [])  # or counted with those of that second
    told = {event.operation for event in source.bench.raw.of(Control)}
    assert told <= {"slot_made", "beacon_publications", "beacon_forged"}
    assert source.bench.raw.of(Gap) == []
    reasons = {forgery.reason for t in found for forgery in t.forged}
    assert reasons <= {"malformed", "mac", "not_transactional", "unsigned"}


FORGE = """
SELECT pg_logical_emit_message(%(itself)s, %(prefix)s, replace(replace(replace(replace(%(content)s,
    '{xid}', coalesce(pg_current_xact_id_if_assigned()::text, '1')), '{database}', current_database()),
    '{system}', (SELECT system_identifier::text FROM pg_control_system())),
    '{session}', coalesce(current_setting('pgwitness.session', true), '')))
"""
TRAP = """
CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_logical_emit_message(true, 'pgwitness.ddl', repeat('a', 64) || '["ddl/1"]'); RETURN NULL; END $$;
CREATE TRIGGER trap AFTER INSERT ON trap EXECUTE FUNCTION trap();
"""


def flood(events: list[Control]) -> Control | None:
    """Find what was told of a flood as one."""
    return next((event for event in events if event.operation == "beacon_forged"), None)
