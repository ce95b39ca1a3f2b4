"""Who makes the beacon fail, or sets what keeps others from seeing him, is told (real servers)."""

from __future__ import annotations

import psycopg

from pgwitness.core.events import Tick, Transaction
from tests.collectors.wal_source import MARK, Source
from tests.streams.folding import fold_all
from tests.streams.records import batch

DEEP = """
CREATE FUNCTION deep(n int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    IF n = 0 THEN UPDATE pay SET v = v + 1 WHERE id = 1; ELSE PERFORM deep(n - 1); END IF; END $$
"""


def goes(source: Source, depth: int) -> bool:
    """Write at a depth of the stack, in a session of its own; says whether there was room for it."""
    with psycopg.connect(source.dsn.replace("postgres@", "app@"), autocommit=True) as app:
        try:
            app.execute("SELECT deep(%s)", (depth,))
        except psycopg.errors.StatementTooComplex:
            return False
    return True


def deepest(source: Source) -> int:
    """Find the greatest depth at which a write goes."""
    low, high = 0, 16_384
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if goes(source, middle) else (low, middle)
    return low


def test_a_beacon_that_is_made_to_fail_is_told(source: Source) -> None:
    """At each depth near the stack's end a write is named by its beacon, or a finding; mostly its claim says whose."""
    source.create("CREATE TABLE pay (id int PRIMARY KEY, v int)", MARK, "INSERT INTO pay VALUES (1, 0)")
    source.sql.execute(DEEP.encode())
    source.sql.execute("CREATE ROLE app LOGIN; GRANT ALL ON pay TO app")
    depth = deepest(source)
    with source.running():
        source.streaming()
        done = sum(goes(source, depth - less) for less in range(8))
        found = source.until_marked()
    events = fold_all([batch(*found), batch(later(found))], "rules: [{match: {role: '*'}, principal: '{role}'}]")
    changes = [event for event in events if event.kind == "change"]
    silenced = {event.xid: event for event in events if event.operation == "beacon_silenced"}
    assert len(changes) == done
    past = {event.xid for event in changes if event.binding != "beacon"}
    assert set() != set(silenced) <= past  # at the very end not even that much goes
    assert {event.detail.get("finding") for event in changes if event.xid in past} == {"shadow_write"}
    assert {event.detail["reason"] for event in silenced.values()} == {"54001"}
    assert {event.principal for event in silenced.values()} == {None}
    claims = [event.detail["claims"] for event in silenced.values()]
    assert all(isinstance(said, dict) and said["session_user"] == "app" for said in claims)


def test_settings_that_blind_are_named(source: Source) -> None:
    """PGOPTIONS, SET and ALTER ROLE alike, once a session; what shows more, or is the server's own, is no finding."""
    source.create("CREATE TABLE pay (id int PRIMARY KEY, v int)", MARK)
    source.sql.execute("CREATE ROLE boss SUPERUSER LOGIN; CREATE ROLE quiet SUPERUSER LOGIN")
    source.sql.execute("ALTER ROLE quiet SET log_statement = 'none'; ALTER ROLE quiet SET log_min_messages = 'panic'")
    ways = {
        "options": ("boss", "-c log_min_duration_statement=-1 -c pg_stat_statements.track=none", []),
        "set": ("boss", "", ["SET session_replication_role = replica", "SET track_activities = off"]),
        "role": ("quiet", "", []),
        "more": ("boss", "-c log_min_duration_statement=0 -c log_statement=all", []),
        "plain": ("boss", "", []),
        "granted": ("clerk", "-c log_min_duration_statement=-1", []),
        "then role": ("boss", "", ["SET compute_query_id = off", "SET ROLE app"]),
    }
    source.sql.execute("CREATE ROLE app LOGIN; CREATE ROLE clerk LOGIN; GRANT ALL ON pay TO app, clerk")
    source.sql.execute("GRANT SET ON PARAMETER log_min_duration_statement TO clerk")
    with source.running():
        source.streaming()
        for name, (user, options, settings) in ways.items():
            dsn = source.dsn.replace("postgres@", f"{user}@")
            with psycopg.connect(dsn, autocommit=True, application_name=name, options=options) as client:
                for statement in settings:
                    client.execute(statement.encode())
                for _ in range(2):
                    client.execute("INSERT INTO pay SELECT coalesce(max(id), 0) + 1, 0 FROM pay")
        found = source.until_marked()
    events = fold_all([batch(*found), batch(later(found))], "rules: [{match: {role: '*'}, principal: '{role}'}]")
    told = {event.application: event.detail["settings"] for event in events if event.operation == "session_blinds"}
    assert told == {
        "options": {"log_min_duration_statement": "-1", "pg_stat_statements.track": "none"},
        "set": {"session_replication_role": "replica", "track_activities": "off"},
        "role": {"log_min_messages": "panic"},
        "granted": {"log_min_duration_statement": "-1"},
        "then role": {"compute_query_id": "off"},
    }
    assert len([event for event in events if event.operation == "session_blinds"]) == len(told)


def later(found: list[Transaction]) -> Tick:
    """Let time go on behind what was read."""
    return Tick(captured_at_us=max(t.captured_at_us for t in found) + 60_000_000)
