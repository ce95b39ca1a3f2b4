"""What is written through a root or a parent, and lies where nobody publishes it, is told by name (real servers)."""

from __future__ import annotations

import psycopg

from tests.collectors.test_wal_unpublished import Way, folded, of, unpublished
from tests.collectors.wal_source import MARK, Source, job_rests

SCHEMA = """
CREATE TABLE pay (id int PRIMARY KEY, v int); INSERT INTO pay SELECT n, 0 FROM generate_series(1, 9) AS n;
CREATE TABLE bad (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE bad_1 PARTITION OF bad FOR VALUES FROM (0) TO (100);
CREATE TABLE bad_2 PARTITION OF bad FOR VALUES FROM (100) TO (200);
ALTER TABLE bad_2 REPLICA IDENTITY NOTHING;
INSERT INTO bad SELECT n, 0 FROM generate_series(90, 109) AS n;
CREATE TABLE mixed (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE mixed_1 PARTITION OF mixed FOR VALUES FROM (0) TO (100);
CREATE UNLOGGED TABLE mixed_2 PARTITION OF mixed FOR VALUES FROM (100) TO (200);
CREATE TABLE deep (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE deep_a PARTITION OF deep FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id);
CREATE TABLE deep_a1 PARTITION OF deep_a FOR VALUES FROM (0) TO (50);
CREATE TABLE deep_a2 PARTITION OF deep_a FOR VALUES FROM (50) TO (100);
ALTER TABLE deep_a1 REPLICA IDENTITY NOTHING;
INSERT INTO deep VALUES (1, 0), (60, 0);
CREATE TABLE whole (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE whole_a PARTITION OF whole FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id);
CREATE TABLE whole_a1 PARTITION OF whole_a FOR VALUES FROM (0) TO (100);
INSERT INTO whole VALUES (1, 0), (2, 0);
CREATE TABLE later (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE later_1 PARTITION OF later FOR VALUES FROM (0) TO (100);
INSERT INTO later VALUES (1, 0);
CREATE TABLE parent (id int PRIMARY KEY, v int); CREATE TABLE child () INHERITS (parent);
INSERT INTO parent VALUES (1, 0), (2, 0); INSERT INTO child VALUES (11, 0), (12, 0);
CREATE TABLE far (id int PRIMARY KEY, v int); CREATE EXTENSION postgres_fdw;
DO $$ BEGIN
    EXECUTE format('CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host %L, port %L, dbname %L)',
        '127.0.0.1', current_setting('port'), current_database());
END $$;
CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (user 'postgres', password_required 'false');
CREATE TABLE spread (id int, v int) PARTITION BY RANGE (id);
CREATE TABLE spread_1 PARTITION OF spread (PRIMARY KEY (id)) FOR VALUES FROM (0) TO (100);
CREATE FOREIGN TABLE spread_2 PARTITION OF spread FOR VALUES FROM (100) TO (200) SERVER far OPTIONS (table_name 'far');
CREATE TABLE near (id int PRIMARY KEY, v int);
CREATE FOREIGN TABLE near_far () INHERITS (near) SERVER far OPTIONS (table_name 'far');
"""

WAYS = {
    "by the root": Way(["UPDATE bad SET v = 1 WHERE id >= 108"], ["public.bad_2 update 2"]),
    "by the root, with rows that are read": Way(["UPDATE bad SET v = 2 WHERE id > 98"], ["public.bad_2 update 10"]),
    "by the root, later in its transaction": Way(
        ["BEGIN; UPDATE pay SET v = 1 WHERE id = 1; INSERT INTO bad VALUES (110, 0); DELETE FROM bad WHERE id = 109;"
         " UPDATE bad SET v = 3 WHERE id = 108; COMMIT"],
        ["public.bad_2 None 2"],
    ),
    "by the root and by name": Way(
        ["BEGIN; UPDATE bad_2 SET v = 4 WHERE id = 107; UPDATE bad SET v = 4 WHERE id IN (90, 106); COMMIT"],
        ["public.bad_2 update 2"],
    ),
    "moved away": Way(["UPDATE bad SET id = 10 WHERE id = 105"], ["public.bad_2 delete 1"]),
    "only what is read": Way(["UPDATE bad SET v = 5 WHERE id = 91", "INSERT INTO bad VALUES (150, 1)"]),
    "merged": Way(
        ["MERGE INTO bad USING (VALUES (104, 1), (151, 1)) AS n (id, v) ON bad.id = n.id"
         " WHEN MATCHED THEN UPDATE SET v = n.v WHEN NOT MATCHED THEN INSERT VALUES (n.id, n.v)"],
        ["public.bad_2 update 1"],
    ),
    "unlogged": Way(["INSERT INTO mixed VALUES (5, 1), (101, 1), (102, 1)"], ["public.mixed_2 insert 2"]),
    "unlogged, later in its transaction": Way(
        ["BEGIN; UPDATE pay SET v = 1 WHERE id = 2; INSERT INTO mixed VALUES (6, 1); INSERT INTO mixed VALUES (103, 1);"
         " COMMIT", "UPDATE mixed SET v = 2 WHERE id = 5"],
        ["public.mixed_2 insert 1"],
    ),
    "unlogged, by name": Way(["UPDATE mixed_2 SET v = 7 WHERE id = 101"], ["public.mixed_2 update 1"]),
    "two levels": Way(["UPDATE deep SET v = 1"], ["public.deep_a1 update 1"]),
    "the middle level": Way(["UPDATE deep_a SET v = 2"], ["public.deep_a1 update 1"]),
    "the middle level, detached meanwhile": Way(
        ["BEGIN; UPDATE pay SET v = 1 WHERE id = 3; ALTER TABLE whole DETACH PARTITION whole_a;"
         " UPDATE whole_a SET v = 9 WHERE id = 2;"
         " ALTER TABLE whole ATTACH PARTITION whole_a FOR VALUES FROM (0) TO (100); COMMIT"],
        ["public.whole_a1 update 1"],
    ),
    "read as a whole": Way(["UPDATE whole SET v = 3", "UPDATE whole_a SET v = 4"]),
    "a partition that came later": Way(
        ["CREATE TABLE later_2 PARTITION OF later FOR VALUES FROM (100) TO (200)",
         "ALTER TABLE later_2 REPLICA IDENTITY NOTHING", "INSERT INTO later VALUES (101, 0)",
         "BEGIN; UPDATE pay SET v = 1 WHERE id = 4; UPDATE later SET v = 1 WHERE id = 101; COMMIT"],
        ["public.later_2 update 1"],
    ),
    "an unlogged partition that came later": Way(
        ["CREATE UNLOGGED TABLE later_3 PARTITION OF later FOR VALUES FROM (200) TO (300)",
         "BEGIN; UPDATE pay SET v = 1 WHERE id = 5; INSERT INTO later VALUES (201, 0); COMMIT",
         "UPDATE later_3 SET v = 1"],
        ["public.later_3 insert 1", "public.later_3 update 1"],
    ),
    "children of a parent": Way(["UPDATE parent SET v = 1"], ["public.child update 2"]),
    "children, later in its transaction": Way(
        ["BEGIN; UPDATE pay SET v = 1 WHERE id = 6; DELETE FROM parent WHERE id = 12; COMMIT"],
        ["public.child delete 1"],
    ),
    "a partition that is a foreign table": Way(
        ["INSERT INTO spread VALUES (1, 0), (101, 0)", "UPDATE spread SET v = 1", "DELETE FROM spread WHERE id = 101",
         "BEGIN; UPDATE pay SET v = 1 WHERE id = 7; INSERT INTO spread VALUES (102, 0); COMMIT",
         "INSERT INTO spread_2 VALUES (103, 0)", "UPDATE spread SET v = 2 WHERE id IN (1, 103)"],
    ),
    "a child that is a foreign table": Way(
        ["INSERT INTO near VALUES (1, 0)", "INSERT INTO near_far VALUES (104, 0)", "UPDATE near SET v = 1"],
    ),
    "a parent alone": Way(["UPDATE ONLY parent SET v = 2", "INSERT INTO parent VALUES (3, 0)"]),
}  # fmt: skip


def test_what_lies_below_and_is_not_published_is_named(source: Source) -> None:
    """Each way of writing through a root or a parent lands by the name of where it lies; what is read does not."""
    source.sql.execute(SCHEMA.encode())
    source.create(MARK)
    # The job would bring the root of partitions that come later in order in the midst of it.
    with job_rests(), source.running():
        source.streaming()
        for name, way in WAYS.items():
            with psycopg.connect(source.dsn, autocommit=True, application_name=name) as client:
                for statement in way.statements:
                    client.execute(statement.encode())
        found = source.until_marked()
    events = unpublished(found)
    said = {name: [of(event) for event in events if event.application == name] for name in WAYS}
    assert said == {name: way.missing for name, way in WAYS.items()}
    assert {(event.principal, event.binding, event.certainty) for event in events} == {("postgres", "beacon", "exact")}
    assert [event for event in folded(found) if event.detail.get("finding") == "beacon_silenced"] == []
