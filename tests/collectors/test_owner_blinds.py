"""What an owner of tables can do to be unseen where there are no event triggers, and what it leaves (real servers)."""

from __future__ import annotations

import psycopg
from msgspec import Struct
from psycopg import errors as pg

from collectors.installation import install
from pgwitness.core.events import Gap
from tests.collectors.test_wal_unpublished import folded
from tests.collectors.wal_source import MARK, Source, job_rests

SHADOW = "shadow_write"
KNOWN = "boss unpublished_known"
NAMED = "boss"


class Way(Struct, frozen=True):
    """Statements of the owner on its table `{t}`, what they leave, and whether one of them is `refused`.

    `left` has who is named and the finding of each change.
    """

    statements: list[str]
    left: list[str] = []
    refused: bool = False


UPDATE = "UPDATE {t} SET v = 1"
NOTHING = "ALTER TABLE {t} REPLICA IDENTITY NOTHING"
JOB = "let the job run"
WAYS = {
    "disabled": Way(["ALTER TABLE {t} DISABLE TRIGGER pgwitness_beacon", UPDATE], [SHADOW]),
    "disabled with all others": Way(["ALTER TABLE {t} DISABLE TRIGGER USER", UPDATE], [SHADOW]),
    "disabled within one transaction": Way(
        ["BEGIN; ALTER TABLE {t} DISABLE TRIGGER pgwitness_beacon; UPDATE {t} SET v = 1;"
         " ALTER TABLE {t} ENABLE ALWAYS TRIGGER pgwitness_beacon; COMMIT"],
        [SHADOW],
    ),
    "in replicas alone": Way(["ALTER TABLE {t} ENABLE REPLICA TRIGGER pgwitness_beacon", UPDATE], [SHADOW]),
    "dropped": Way(["DROP TRIGGER pgwitness_beacon ON {t}", UPDATE], [SHADOW]),
    "another function": Way(
        ["CREATE OR REPLACE TRIGGER pgwitness_beacon AFTER UPDATE ON {t} FOR EACH STATEMENT EXECUTE FUNCTION noop()",
         UPDATE],
        [SHADOW],
    ),
    "a message of its own": Way(
        ["BEGIN; ALTER TABLE {t} DISABLE TRIGGER pgwitness_beacon; UPDATE {t} SET v = 1;"
         " SELECT pg_logical_emit_message(true, 'pgwitness.beacon', repeat('0', 64)); COMMIT"],
        [SHADOW],
    ),
    "another name of the trigger": Way(["ALTER TRIGGER pgwitness_beacon ON {t} RENAME TO mine", UPDATE], [NAMED]),
    "the guard": Way(["SET backtrace_functions = 'none'", UPDATE], [NAMED], refused=True),
    "no identity": Way([NOTHING, UPDATE, JOB, UPDATE, UPDATE], [KNOWN, KNOWN], refused=True),
    "no identity, within one transaction": Way(
        ["BEGIN; UPDATE other SET v = 1; ALTER TABLE {t} REPLICA IDENTITY NOTHING; UPDATE {t} SET v = 1; COMMIT"],
        refused=True,
    ),
    "no identity, behind another table": Way(
        [NOTHING, JOB, "BEGIN; UPDATE other SET v = 1; UPDATE {t} SET v = 1; COMMIT"], [KNOWN, NAMED]
    ),
    "key dropped": Way(["ALTER TABLE {t} DROP CONSTRAINT {t}_pkey", UPDATE, JOB, UPDATE], [KNOWN], refused=True),
    "unlogged": Way(["ALTER TABLE {t} SET UNLOGGED", UPDATE], [NAMED], refused=True),
    "unlogged after its identity": Way(
        [NOTHING, JOB, "ALTER TABLE {t} SET UNLOGGED", UPDATE], [KNOWN], refused=True
    ),
    "renamed": Way(["ALTER TABLE {t} RENAME TO {t}_x", "UPDATE {t}_x SET v = 1"], [NAMED]),
    "another schema": Way(["ALTER TABLE {t} SET SCHEMA hidden", "UPDATE hidden.{t} SET v = 1"], [NAMED]),
    "by a new root": Way(
        ["CREATE TABLE {t}_r (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)",
         "ALTER TABLE {t}_r ATTACH PARTITION {t} FOR VALUES FROM (0) TO (1000)", "UPDATE {t}_r SET v = 1"],
        [SHADOW],
    ),
    "by a rule": Way(
        ["CREATE RULE r AS ON UPDATE TO {t} DO INSTEAD DELETE FROM {t} WHERE id = old.id", UPDATE], [NAMED]
    ),
    "by a view": Way(["CREATE VIEW {t}_v AS SELECT * FROM {t}", "UPDATE {t}_v SET v = 1"], [NAMED]),
    "by a function": Way(
        ["CREATE FUNCTION {t}_f() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'UPDATE {t} SET v = 1'",
         "SELECT {t}_f()"],
        [NAMED],
    ),
    "truncated": Way(["TRUNCATE {t}"], [NAMED]),
    # A table that is new is not covered before the next installation, which the level says.
    "swapped for a copy": Way(
        ["ALTER TABLE {t} RENAME TO {t}_old", "CREATE TABLE {t} (LIKE {t}_old INCLUDING ALL)",
         "INSERT INTO {t} VALUES (1, 1)"],
    ),
    "made again": Way(["DROP TABLE {t}", "CREATE TABLE {t} (id int PRIMARY KEY)", "INSERT INTO {t} VALUES (1)"]),
    "a new child": Way(
        ["CREATE TABLE {t}_c () INHERITS ({t})", "INSERT INTO {t}_c VALUES (7, 7)", "UPDATE {t} SET v = 1 WHERE id = 7"]
    ),
}  # fmt: skip


def test_what_an_owner_does_is_seen_or_said(source: Source) -> None:
    """Each way leaves the owner's name or a finding, or is refused; only tables made since are not seen."""
    tables = {way: f"w{number}" for number, way in enumerate(WAYS)}
    _owned(source, list(tables.values()))
    refused = set()
    with job_rests(), source.running():
        source.streaming()
        for name, way in WAYS.items():
            with _as(source, "boss", name) as boss:
                for statement in way.statements:
                    try:
                        if statement == JOB:
                            _job(source, tables[name])
                        else:
                            boss.execute(statement.format(t=tables[name]).encode())
                    except (pg.ObjectNotInPrerequisiteState, pg.InsufficientPrivilege, pg.FeatureNotSupported):
                        refused.add(name)
                    except psycopg.Error as error:
                        raise AssertionError(name) from error
        found = source.until_marked()
    left: dict[str, list[str]] = {name: [] for name in WAYS}
    for event in folded(found):
        if event.kind != "change":
            continue
        said = f"{event.principal or ''} {event.detail.get('finding', '')}".strip()
        names = {relation.rpartition(".")[2].partition("_")[0] for relation in event.relations}
        for name, table in tables.items():
            if table in names or (names == {"other"} and event.application == name):
                left[name].append(said)
    assert left == {name: way.left for name, way in WAYS.items()}
    assert refused == {name for name, way in WAYS.items() if way.refused}


def test_a_table_that_the_job_takes_out_is_a_gap(source18: Source) -> None:
    """Without event triggers the collector says which table's updates it cannot read any more."""
    _owned(source18, ["lost"])
    with source18.running():
        source18.streaming()
        with _as(source18, "boss", "owner") as boss:
            boss.execute("ALTER TABLE lost REPLICA IDENTITY NOTHING")
        source18.bench.raw.wait(lambda: _unread(source18) != [], "the gap")
    assert _unread(source18) == [{"tables": ["public.lost"], "found_by": "collector"}]


def _unread(source: Source) -> list[dict[str, object]]:
    return [gap.detail for gap in source.bench.raw.of(Gap) if gap.reason == "table_unread"]


def _owned(source: Source, tables: list[str]) -> None:
    """Make tables of an owner, installed by an administrator that is no superuser; the job waits to be called."""
    admin = source.sql
    admin.execute("CREATE ROLE boss LOGIN; CREATE ROLE dba LOGIN CREATEROLE; GRANT boss TO dba")
    admin.execute(f"GRANT CREATE ON DATABASE {source.database} TO dba; GRANT CREATE ON SCHEMA public TO boss, dba")
    admin.execute("CREATE SCHEMA hidden AUTHORIZATION boss")
    admin.execute("CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    for table in ["other", *tables]:
        admin.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v int); ALTER TABLE {table} OWNER TO boss")
        admin.execute(f"INSERT INTO {table} VALUES (1, 0), (2, 0)")
    admin.execute(f"{MARK}; ALTER TABLE mark OWNER TO boss")
    with _as(source, "dba", "install") as dba:
        report = install.install(dba)
        assert report.complete, report.left
    admin.execute("ALTER ROLE pgwitness REPLICATION; GRANT pg_monitor TO pgwitness")


def _as(source: Source, user: str, application: str) -> psycopg.Connection:
    dsn = source.dsn.replace("postgres@", f"{user}@")
    return psycopg.connect(dsn, autocommit=True, application_name=application)


def _job(source: Source, table: str) -> None:
    """Let the job do all that is due to a table."""
    while source.sql.execute("SELECT FROM pgwitness.publish(%s::regclass, '{}')", [table]).fetchone() is not None:
        pass
