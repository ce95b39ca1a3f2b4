"""A beacon whose rows are not in the stream is an event of its own; one that wrote nothing is none (real servers)."""

from __future__ import annotations

import psycopg
from msgspec import Struct

from pgwitness.core.events import Event, Tick, Transaction
from tests.collectors.wal_source import MARK, Source, job_rests
from tests.streams.folding import fold_all
from tests.streams.records import batch

RULES = "rules: [{match: {role: '*'}, principal: '{role}'}]"
SCHEMA = """
CREATE TABLE det (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE det_1 PARTITION OF det FOR VALUES FROM (0) TO (100);
CREATE TABLE det_2 PARTITION OF det FOR VALUES FROM (100) TO (200);
CREATE TABLE pay (id int PRIMARY KEY, v int);
CREATE TABLE child (id int PRIMARY KEY, pay int REFERENCES pay ON DELETE CASCADE);
CREATE TABLE keyless (id int, v int);
CREATE TABLE swapped (id int PRIMARY KEY, v int);
INSERT INTO swapped VALUES (1, 0);
CREATE TABLE lone (id int PRIMARY KEY, v int);
CREATE TABLE away (id int PRIMARY KEY, v int);
CREATE TABLE shut (id int PRIMARY KEY, v int);
INSERT INTO away VALUES (1, 0), (2, 0);
INSERT INTO shut VALUES (1, 0), (2, 0);
INSERT INTO det SELECT n, 0 FROM generate_series(1, 150) AS n;
INSERT INTO pay SELECT n, 0 FROM generate_series(1, 100) AS n;
INSERT INTO keyless SELECT n, 0 FROM generate_series(1, 10) AS n;
INSERT INTO lone SELECT n, 0 FROM generate_series(1, 10) AS n;
"""


class Way(Struct, frozen=True):
    """Statements of one session, each a transaction, and what of them is not published: `relation operation rows`."""

    statements: list[str]
    missing: list[str] = []


WAYS = {
    "truncate of a leaf": Way(["TRUNCATE det_1"], ["public.det_1 truncate None"]),
    "truncate of a leaf, later in its transaction": Way(
        ["BEGIN; UPDATE pay SET v = 3 WHERE id = 56; TRUNCATE det_1; COMMIT"], ["public.det_1 truncate None"]
    ),
    "unlogged, and later in its transaction": Way(
        ["ALTER TABLE away SET UNLOGGED", "BEGIN; UPDATE pay SET v = 3 WHERE id = 57; UPDATE away SET v = 3; COMMIT",
         "ALTER TABLE away SET LOGGED"],
        ["public.away update 2"],
    ),
    "without identity, later in its transaction": Way(
        ["BEGIN; UPDATE pay SET v = 3 WHERE id = 58; ALTER TABLE shut REPLICA IDENTITY NOTHING;"
         " UPDATE shut SET v = 3; ALTER TABLE shut REPLICA IDENTITY DEFAULT; COMMIT"],
        ["public.shut update 2"],
    ),
    "a leaf detached, later in its transaction": Way(
        ["BEGIN; UPDATE pay SET v = 3 WHERE id = 59; ALTER TABLE det DETACH PARTITION det_2;"
         " UPDATE det_2 SET v = 9 WHERE id = 102;"
         " ALTER TABLE det ATTACH PARTITION det_2 FOR VALUES FROM (100) TO (200); COMMIT"],
        ["public.det_2 update 1"],
    ),
    "rows of a leaf, published by the root": Way(["INSERT INTO det_2 VALUES (170, 1)", "UPDATE det_2 SET v = 3"]),
    "a detached partition": Way(
        ["ALTER TABLE det DETACH PARTITION det_2", "UPDATE det_2 SET v = 999", "DELETE FROM det_2 WHERE id = 101",
         "ALTER TABLE det ATTACH PARTITION det_2 FOR VALUES FROM (100) TO (200)"],
        ["public.det_2 update 52", "public.det_2 delete 1"],
    ),
    "keyless": Way(["UPDATE keyless SET v = 1 WHERE id < 4"], ["public.keyless update 3"]),
    "keyless, later in its transaction": Way(
        ["BEGIN; UPDATE pay SET v = 3 WHERE id = 55; UPDATE keyless SET v = 2 WHERE id = 5;"
         " INSERT INTO keyless VALUES (12, 0); DELETE FROM keyless WHERE id = 6; COMMIT"],
        ["public.keyless None 2"],
    ),
    "keyless insert": Way(["INSERT INTO keyless VALUES (11, 0)"]),
    "taken out and put back": Way(
        ["ALTER PUBLICATION pgwitness DROP TABLE pay", "DELETE FROM pay WHERE id <= 20",
         "ALTER PUBLICATION pgwitness ADD TABLE pay"],
        ["public.pay delete 20"],
    ),
    "published for inserts only for a moment": Way(
        ["ALTER PUBLICATION pgwitness SET (publish = 'insert')", "UPDATE pay SET v = 7 WHERE id > 90",
         "ALTER PUBLICATION pgwitness SET (publish = 'insert, update, delete, truncate')"],
        ["public.pay update 10"],
    ),
    "unlogged and back": Way(
        ["ALTER PUBLICATION pgwitness DROP TABLE lone", "ALTER TABLE lone SET UNLOGGED", "UPDATE lone SET v = 5",
         "ALTER TABLE lone SET LOGGED", "ALTER PUBLICATION pgwitness ADD TABLE lone"],
        ["public.lone update 10"],
    ),
    "renamed in its transaction": Way(
        ["BEGIN; ALTER PUBLICATION pgwitness DROP TABLE swapped; ALTER TABLE swapped RENAME TO x;"
         " UPDATE x SET v = 1; ALTER TABLE x RENAME TO swapped;"
         " ALTER PUBLICATION pgwitness ADD TABLE swapped; COMMIT"],
        ["public.swapped update 1"],
    ),
    "a lock, and nothing changed": Way(
        ["UPDATE pay SET v = 8 WHERE id = 50",
         "BEGIN; SELECT FROM pay WHERE id = 51 FOR UPDATE; UPDATE pay SET v = 9 WHERE false; COMMIT"],
    ),
    "a conflict, and nothing done": Way(
        ["INSERT INTO pay VALUES (300, 1)",
         "BEGIN; SELECT FROM pay WHERE id = 51 FOR UPDATE; INSERT INTO pay VALUES (51, 1) ON CONFLICT DO NOTHING;"
         " COMMIT"],
    ),
    "a savepoint rolled back": Way(
        ["BEGIN; SELECT FROM pay WHERE id = 52 FOR UPDATE; SAVEPOINT s; UPDATE pay SET v = 1 WHERE id = 52;"
         " ROLLBACK TO s; COMMIT"],
    ),
    "cascade": Way(["DELETE FROM pay WHERE id = 60"]),
    "cascade by a child that is there": Way(["INSERT INTO child VALUES (1, 61)", "DELETE FROM pay WHERE id = 61"]),
    "upsert that updates": Way(["INSERT INTO pay VALUES (62, 4) ON CONFLICT (id) DO UPDATE SET v = excluded.v"]),
    "merge that updates": Way(
        ["MERGE INTO pay USING (VALUES (63, 1)) AS n (id, v) ON pay.id = n.id WHEN MATCHED THEN UPDATE SET v = n.v"
         " WHEN NOT MATCHED THEN INSERT VALUES (n.id, n.v)"],
    ),
    "copy": Way(["COPY pay FROM PROGRAM 'echo 400,1' (FORMAT csv)"]),
    "replica": Way(["SET session_replication_role = replica", "UPDATE pay SET v = 2 WHERE id = 70"]),
    "truncate of the root": Way(["TRUNCATE det"]),
    "truncate and more": Way(["BEGIN; TRUNCATE keyless; INSERT INTO keyless VALUES (1, 1); COMMIT"]),
    "moved between partitions": Way(["INSERT INTO det VALUES (1, 1)", "UPDATE det SET id = 120 WHERE id = 1"]),
}  # fmt: skip


def test_what_is_not_published_is_an_event_of_its_own(source: Source) -> None:
    """Each way of changing a covered table past the stream lands by name; what changed nothing or is there does not."""
    source.sql.execute(SCHEMA.encode())
    source.create(MARK)
    # The job would put the tables back into the publication in the midst of it.
    with job_rests(), source.running():
        source.streaming()
        for name, way in WAYS.items():
            with psycopg.connect(source.dsn, autocommit=True, application_name=name) as client:
                for statement in way.statements:
                    client.execute(statement.encode())
        found = source.until_marked()
    events = unpublished(found)
    unread = {(event.principal, *event.relations) for event in folded(found) if event.operation == "table_unread"}
    assert unread == {("postgres", "public.away"), ("postgres", "public.shut")}
    said = {name: [of(event) for event in events if event.application == name] for name in WAYS}
    assert said == {name: way.missing for name, way in WAYS.items()}
    assert {event.principal for event in events} == {"postgres"}
    assert {(event.binding, event.certainty) for event in events} == {("beacon", "exact")}
    assert all(event.n_rows == 0 for event in events)
    known = {event.relations[-1] for event in events if event.detail["finding"] == "unpublished_known"}
    assert known == {"public.keyless"}


def unpublished(transactions: list[Transaction]) -> list[Event]:
    """Fold what the collector wrote, and give what the stream does not have."""
    return [event for event in folded(transactions) if str(event.detail.get("finding")).startswith("unpublished")]


def folded(transactions: list[Transaction]) -> list[Event]:
    """Fold what the collector wrote, and let a minute go by."""
    later = Tick(captured_at_us=max(t.captured_at_us for t in transactions) + 60_000_000)
    return fold_all([batch(*transactions), batch(later)], RULES)


def of(event: Event) -> str:
    """Say what an event says in short."""
    return f"{event.relations[-1]} {event.operation} {event.row_count}"
