"""What a query may do: read what the lake's log names, through the views, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest

from pgwitness.core.errors import NotInOrder, Stop
from sinks.lake.log import chain
from sinks.lake.rows.schema import TABLES
from sinks.lake.views.listing import Listing, empty_file, old_empty_file
from sinks.lake.writer import Lake
from sinks.sql import query
from sinks.sql.catalogue import connect, refresh
from sinks.sql.evidence import Evidence
from tests.sinks.material import ORDINARY, change, other


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A lake of two commits."""
    path = tmp_path / "lake"
    writer = Lake(path).writer("events", 0)
    writer.resume()
    writer.append(0, [change(1), change(2)], [ORDINARY] * 2)
    writer.commit()
    writer.append(1, [other(3, kind="gap", operation="slot_lost")], [ORDINARY])
    writer.commit()
    return path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, duckdb.DuckDBPyConnection]:
    """A lake that nothing may change, and a connection to it."""
    path = tmp_path_factory.mktemp("shared") / "lake"
    writer = Lake(path).writer("events", 0)
    writer.resume()
    writer.append(0, [change(1), change(2, principal="ada")], [ORDINARY] * 2)
    writer.commit()
    return path, connect(path)


ATTACKS = """\
COPY (SELECT 1) TO '{lake}/events/dt=2026-01-01/x.parquet'
SELECT 1; COPY (SELECT 1) TO '{lake}/x.csv'
EXPLAIN ANALYZE COPY (SELECT 1) TO '{lake}/x.parquet' (FORMAT parquet)
EXPLAIN COPY (SELECT 1) TO '{lake}/x.parquet'
explain /* a */ analyze -- b
  copy (select 1) to '{lake}/x.csv'
/* x */ EXPLAIN (ANALYZE, FORMAT json) COPY (SELECT 1) TO '{lake}/x.csv'
EXPLAIN (ANALYZE) COPY events TO '{lake}/x.csv'
WITH a AS (COPY (SELECT 1) TO '{lake}/x.csv') SELECT * FROM a
WITH a AS (COPY (SELECT 1) TO '{lake}/x.csv') FROM range(1)
EXPLAIN ANALYZE WITH a AS (COPY (SELECT 1) TO '{lake}/x.csv') FROM a
SELECT (WITH a AS (COPY (SELECT 1) TO '{lake}/x.csv') SELECT 1)
SELECT * FROM (WITH a AS (COPY (SELECT 1) TO '{lake}/x.csv') FROM a)
SELECT 1 UNION ALL (WITH a AS (COPY (SELECT 1) TO '{lake}/x.csv') FROM a)
CREATE TEMP TABLE t AS WITH a AS (COPY (SELECT 1) TO '{lake}/x.csv') FROM a
CREATE VIEW v AS WITH a AS (COPY (SELECT 1) TO '{lake}/x.csv') FROM a
SELECT * FROM query('WITH a AS (COPY (SELECT 1) TO ''{lake}/x.csv'') FROM a')
COPY (PIVOT events ON kind USING count(*)) TO '{lake}/x.csv'
EXPLAIN ANALYZE COPY (PIVOT events ON kind USING count(*)) TO '{lake}/x.csv'
PREPARE p AS COPY (SELECT 1) TO '{lake}/x.csv'; EXECUTE p
PREPARE p AS SELECT 1
EXPLAIN ANALYZE EXECUTE p
EXPORT DATABASE '{lake}/x'
IMPORT DATABASE '{lake}'
COPY FROM DATABASE memory TO other
ATTACH '{lake}/x.db'
ATTACH ':memory:' AS m
USE temp
INSTALL httpfs
LOAD parquet
FORCE INSTALL httpfs FROM community
CREATE SECRET s (TYPE s3)
CREATE PERSISTENT SECRET s (TYPE s3)
CREATE MACRO f() AS TABLE SELECT * FROM read_text('/etc/hostname')
CREATE TABLE t (a INTEGER)
CREATE OR REPLACE VIEW events AS SELECT * FROM read_parquet('{lake}/events/dt=*/*.parquet')
INSERT INTO t VALUES (1)
WITH a AS (INSERT INTO t VALUES (1) RETURNING 1) FROM a
WITH a AS (DELETE FROM t RETURNING 1) FROM a
WITH a AS (UPDATE t SET a = 1 RETURNING 1) FROM a
DROP VIEW events
ALTER VIEW events RENAME TO e
COMMENT ON VIEW events IS 'x'
CHECKPOINT
VACUUM
SET enable_external_access = true
SET VARIABLE pgwitness_events = ['/etc/passwd']
RESET memory_limit
PRAGMA enable_profiling
PRAGMA profile_output = '{lake}/x.json'
CALL enable_logging(storage => 'file', storage_path => '{lake}/log')
SELECT * FROM enable_logging(storage => 'file', storage_path => '{lake}/log')
FROM enable_profiling()
FROM truncate_duckdb_logs()
SELECT * FROM read_text('/etc/hostname')
SELECT * FROM read_text('{lake}/views.sql')
SELECT * FROM read_blob('{lake}/*')
SELECT * FROM read_csv('/etc/passwd')
SELECT * FROM system.main.read_csv('/etc/passwd')
SELECT * FROM "read_csv"('/etc/passwd')
SELECT * FROM READ_JSON('/etc/passwd')
SELECT * FROM read_parquet('{lake}/events/dt=*/*.parquet')
SELECT * FROM parquet_metadata('{lake}/events/dt=*/*.parquet')
SELECT * FROM read_duckdb('{lake}/x.db')
SELECT (SELECT count(*) FROM glob('/etc/*'))
SELECT * FROM events WHERE EXISTS (FROM glob('/*'))
SELECT * FROM glob('{lake}/*')
FROM sniff_csv('/etc/passwd')
FROM '/etc/passwd'
FROM '/etc/passwd.csv'
FROM "{lake}/events/dt=0001-01-01/empty.parquet"
FROM x.parquet
FROM 'https://example.org/x.parquet'
DESCRIBE '/etc/passwd.csv'
SUMMARIZE '/etc/passwd.csv'
SHOW '/etc/passwd.csv'
DESCRIBE SELECT * FROM read_csv('/etc/passwd')
SELECT * FROM events, LATERAL (FROM read_text('/etc/hostname'))
FROM json_execute_serialized_sql('x')
FROM arrow_scan(1, 2, 3)
FROM pandas_scan(1)
FROM query_table(['events'])
FROM duckdb_secrets()
FROM register_external_resource('x')
CREATE OR REPLACE VIEW events AS SELECT * FROM ddl
CREATE TEMP TABLE "Alerts" AS SELECT 1 AS uid
CREATE TABLE touched AS SELECT 1
BEGIN; SELECT 1"""
_ATTACKS = [line for line in ATTACKS.replace("-- b\n", "-- b\\n").split("\n") if line]


def test_a_query_neither_writes_nor_leaves_the_lake(
    shared: tuple[Path, duckdb.DuckDBPyConnection], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is refused before anything runs: nothing appears or changes anywhere, and the limits stay."""
    lake, connection = shared
    monkeypatch.chdir(tmp_path)
    before = state(lake)
    answered = []
    for attack in _ATTACKS:
        with suppress(NotInOrder):
            list(query.ask(connection, attack.replace("\\n", "\n").format(lake=str(lake))).rows)
            answered.append(attack)
    assert answered == []
    assert state(lake) == before
    assert list(tmp_path.iterdir()) == []
    assert list(query.ask(connection, "SELECT current_setting('enable_external_access')").rows) == [(False,)]


def state(lake: Path) -> list[tuple[str, int, int]]:
    """Give what is in a lake: names, sizes, times."""
    found = [(path, path.stat()) for path in sorted(lake.rglob("*"))]
    return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in found]


@pytest.mark.parametrize(
    "question",
    [
        "SELECT count(*) FROM events",
        "EXPLAIN SELECT * FROM events",
        "EXPLAIN ANALYZE SELECT * FROM events",
        "explain (analyze, format json) from events",
        "-- why\nEXPLAIN FROM events",
        "DESCRIBE events",
        "DESCRIBE SELECT 1 AS a",
        "SUMMARIZE events",
        "SHOW TABLES",
        "FROM events WHERE kind = 'change'",
        "TABLE events",
        "VALUES (1), (2)",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 3) FROM t",
        "PIVOT events ON kind IN ('change', 'gap') USING count(*)",
        "SELECT * FROM main.events",
        "SELECT * FROM information_schema.tables",
        "SELECT unnest(relations), r FROM changes, range(2) AS t(r)",
        "FROM touched('public.orders', 1)",
        "FROM timeline('ada')",
        "FROM reconciled(DATE '2026-01-01', DATE '2026-12-31')",
        "SELECT list_transform(relations, lambda x: upper(x)) FROM changes",
        "CREATE OR REPLACE TEMP VIEW mine AS SELECT * FROM changes; FROM mine",
        "SELECT key, value FROM json_each('{\"a\": 1}')",
        "SELECT * EXCLUDE (statement) FROM events ORDER BY ALL LIMIT 1",
    ],
)
def test_whatever_reads_is_answered(shared: tuple[Path, duckdb.DuckDBPyConnection], question: str) -> None:
    """Every way of asking that only reads works as in DuckDB."""
    answer = query.ask(shared[1], question)
    assert answer.columns != []
    list(answer.rows)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("PIVOT events ON kind USING count(*)", "PIVOT"),
        ("PRAGMA table_info('events')", "DESCRIBE"),
        ("FROM read_csv('a.csv')", r"read_csv\(\) is not for evidence"),
        ("FROM 'a.csv'", "no view of the lake"),
        ("COPY events TO 'a.csv'", "COPY is not for evidence"),
        ("SELEC 1", "DuckDB cannot read this|syntax error"),
    ],
)
def test_a_refusal_says_what_to_do_instead(
    shared: tuple[Path, duckdb.DuckDBPyConnection], statement: str, said: str
) -> None:
    """It names what was refused and the way that there is."""
    with pytest.raises(NotInOrder, match=said):
        query.ask(shared[1], statement)


def count(lake: Path) -> int:
    """Count what a query sees that opens the lake anew."""
    ((number,),) = query.ask(connect(lake), "SELECT count(*) FROM events").rows
    return int(number)


def plain(lake: Path) -> int:
    """Count what a DuckDB sees that has nothing but views.sql."""
    program = (
        "import duckdb; c = duckdb.connect(); c.execute(open('views.sql').read()); "
        "print(c.execute('SELECT count(*) FROM events').fetchone()[0])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], cwd=lake, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_only_what_the_log_names_is_evidence(lake: Path) -> None:
    """Files put into the lake, copies under other names, other columns, nonsense: none is read in any way."""
    file = next(lake.glob("events/dt=2*/*.parquet"))
    shutil.copy(file, file.with_name("events-0-00000000000000000077.parquet"))
    shutil.copy(file, file.with_name("copy.parquet"))
    (lake / "events/dt=2026-01-01").mkdir()
    shutil.copy(file, lake / "events/dt=2026-01-01" / file.name)
    (file.parent / "nonsense.parquet").write_bytes(b"no Parquet")
    duckdb.sql("SELECT 1 AS forged_column").write_parquet(str(file.with_name("columns.parquet")))
    assert (count(lake), plain(lake)) == (3, 3)
    assert "forged_column" not in query.ask(connect(lake), "FROM events").columns


def test_rows_in_the_file_without_rows_are_no_evidence(lake: Path) -> None:
    """The file that carries the columns is in no entry, so whatever is written into it stays unread."""
    empty = lake / "events/dt=0001-01-01/empty.parquet"
    shutil.copy(next(lake.glob("events/dt=2*/*.parquet")), empty)
    assert (count(lake), plain(lake)) == (3, 3)


def test_events_of_the_first_day_of_the_epoch_show(lake: Path) -> None:
    """What came before any record had a time is captured at 0: it is evidence like any other."""
    writer = Lake(lake).writer("events", 0)
    start, _ = writer.resume()
    writer.append(start, [other(9, kind="gap", operation="slot_lost", captured_at_us=0)], [ORDINARY])
    writer.commit()
    assert (count(lake), plain(lake)) == (4, 4)
    first = query.ask(connect(lake), "SELECT CAST(dt AS VARCHAR) FROM gaps WHERE captured_at = to_timestamp(0)").rows
    assert list(first) == [("1970-01-01",)]


def test_a_lake_whose_files_without_rows_lie_where_they_did_is_read_and_put_right(lake: Path) -> None:
    """Before a worker comes it is read as it is, but for rows planted in these files; the worker moves them."""
    for table in TABLES:
        old = lake / old_empty_file(table)
        old.parent.mkdir()
        (lake / empty_file(table)).rename(old)
    shutil.copy(next(lake.glob("events/dt=2*/*.parquet")), lake / old_empty_file("events"))
    assert count(lake) == 3
    listing = Listing(lake)
    listing.refresh()
    assert listing.strange() == []
    Lake(lake).prepare()
    assert not any((lake / old_empty_file(table)).exists() for table in TABLES)
    assert (count(lake), plain(lake), listing.strange()) == (3, 3, [])


PLANTED = (
    "../outside.parquet",
    "rows/dt=2026-01-01/x.parquet",
    "events/dt=2026-01-01/../../../outside/x.parquet",
    "_staging/x.parquet",
    "events/dt=2026-01-01/*.parquet",
)


@pytest.mark.parametrize("path", PLANTED)
def test_an_entry_names_files_of_its_own_only(lake: Path, path: str) -> None:
    """A planted entry brings in nothing that lies elsewhere: readers say that the chain is not whole."""
    content = (lake / chain.entry_name(2)).read_bytes()
    planted = json.loads(content)
    planted |= {"number": 3, "predecessor": chain.digest(content)}
    planted["ranges"][0] |= {"start": 2, "end": 3}
    planted["files"] = [planted["files"][0] | {"path": path}]
    (lake / chain.entry_name(3)).write_text(json.dumps(planted))
    with pytest.raises(Stop, match="is no place of table events"):
        count(lake)
    assert plain(lake) == 3


def test_a_snapshot_of_other_entries_is_not_believed(lake: Path) -> None:
    """A hint that leads nowhere, or to a snapshot of another chain: what counts is still what the entries say."""
    for head in ("{", '{"number":7,"base":"x","tail":"y"}', '{"number":0,"base":"x","tail":"y"}'):
        (lake / "head.json").write_text(head)
        assert count(lake) == 3
    for tail in lake.glob("_snapshots/tail-*"):
        tail.write_text(tail.read_text().replace('"sha256":"', '"sha256":"0'))
    assert count(lake) == 3


def test_a_file_that_is_gone_fails_the_query_and_is_told(lake: Path) -> None:
    """It is never passed over; whoever asks is told to ask again, and the doctor which file it is."""
    file = max(lake.glob("events/dt=2*/*.parquet"))
    connection = connect(lake)
    file.rename(lake / "elsewhere")
    with pytest.raises(NotInOrder, match=r"(?s)has this file no more. Ask again .*pgwitness doctor"):
        list(query.ask(connection, "SELECT count(*) FROM events").rows)
    for ask in (Evidence.total, Evidence.last_seen, list):
        with Evidence(lake, 0) as evidence, pytest.raises(NotInOrder, match=r"(?s)has this file no more. Ask again"):
            ask(evidence)
    listing = Listing(lake)
    listing.refresh()
    assert listing.missing() == [str(file.relative_to(lake))]
    (lake / "elsewhere").rename(file)
    assert list(query.ask(connection, "SELECT count(*) FROM events").rows) == [(3,)]


def test_what_lies_in_the_lake_and_is_in_no_entry_is_told(lake: Path) -> None:
    """Copies, plants, and what a commit that never was has left."""
    file = max(lake.glob("events/dt=2*/*.parquet"))
    shutil.copy(file, file.with_name("copy.parquet"))
    listing = Listing(lake)
    listing.refresh()
    assert listing.strange() == [str(file.with_name("copy.parquet").relative_to(lake))]


def test_an_open_connection_sees_what_lands(lake: Path) -> None:
    """Each question is answered with what had landed by then."""
    connection = connect(lake)
    assert list(query.ask(connection, "SELECT count(*) FROM events").rows) == [(3,)]
    writer = Lake(lake).writer("events", 0)
    writer.resume()
    writer.append(2, [change(9)], [ORDINARY])
    writer.commit()
    assert list(query.ask(connection, "SELECT count(*) FROM events").rows) == [(4,)]
    refresh(connection)
    assert connection.execute("SELECT count(*) FROM events").fetchone() == (4,)
