"""The catalogue: the contract's columns and views, from pgwitness and from a plain DuckDB."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pgwitness.core.errors import NotInOrder
from sinks.lake.writer import Lake
from sinks.sql import query, ready
from sinks.sql.catalogue import connect
from tests import ocsf
from tests.sinks.material import NOON_US, ORDINARY, Finding, Judgement, change, enter, other

VIEWS = [
    "events",
    "changes",
    "ddl",
    "statements",
    "query_stats",
    "sessions",
    "posture",
    "decisions",
    "control",
    "gaps",
    "alerts",
    "findings",
    "logins",
    "accesses",
    "coverage",
    "reconciliation",
    "statement_coverage",
    "log_settings",
    "ocsf_datastore_activity",
    "ocsf_authentication",
]
EMPTY = ("decisions", "statements", "statement_coverage", "log_settings")
"""Views that have nothing to show in the lake of these tests."""
HOUR_US = 3_600_000_000

CONTRACT = """\
event_id VARCHAR | kind VARCHAR | occurred_at TIMESTAMP WITH TIME ZONE | captured_at TIMESTAMP WITH TIME ZONE
cluster VARCHAR | instance VARCHAR | database VARCHAR | principal VARCHAR | principal_kind VARCHAR
on_behalf_of VARCHAR | binding VARCHAR | certainty VARCHAR | assurance VARCHAR | identity_rule VARCHAR
role VARCHAR | effective_role VARCHAR | application VARCHAR | client_addr VARCHAR | auth_method VARCHAR
session_id VARCHAR | trace_id VARCHAR | client_port INTEGER | pid INTEGER | xid BIGINT | lsn BIGINT | ordinal BIGINT
operation VARCHAR | relations VARCHAR[] | columns VARCHAR[] | statement VARCHAR | fingerprint VARCHAR
query_id BIGINT | calls BIGINT | row_count BIGINT | duration_ms DOUBLE | outcome VARCHAR | sqlstate VARCHAR
row_key VARCHAR | changed VARCHAR[] | anomaly DOUBLE | reasons VARCHAR | policies VARCHAR[] | detail VARCHAR
schema_version INTEGER"""
"""The columns of `events` as the contract names and types them."""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a bit of everything; it is only read."""
    path = tmp_path_factory.mktemp("it's [a] lake") / "lake"
    events = [
        change(1, [0, "i", 0, {"id": 5}, None, None, {"id": 5}], principal="agent:7", on_behalf_of="erika"),
        change(2, [0, "u", 0, {"id": 5}, ["status"], {"id": 5}, {"id": 5}], certainty="weak", binding="stats"),
        change(3, [0, "d", 0, {"id": 6, "line": 5}, None, {"id": 6}, None], certainty="none", binding="none"),
        change(4, [0, "t", 0, None, None, None, None], binding="activity", certainty="strong"),
        change(5, [0, "d", 0, {"id": "tok_ab"}, None, None, None], principal="erika", occurred_at_us=NOON_US + HOUR_US),
        other(6, principal="erika", assurance="asserted", certainty="exact", client_addr="10.0.0.1", pid=7),
        other(7, kind="ddl", operation="DROP TABLE", relations=["public.orders"], database="shop"),
        other(8, kind="gap", operation="slot_lost"),
        other(9, kind="query_stats", operation="select", relations=["public.orders"], calls=4, outcome="success"),
        other(10, kind="posture", operation="changed"),
        other(11, kind="control", operation="start"),
    ]
    alert = Judgement(["p"], 0.5, [{"why": "new"}], [Finding("u1", {"count": 2, "severity_id": 5})])
    writer = Lake(path).writer("events", 0)
    writer.resume()
    writer.append(0, events, [alert] + [ORDINARY] * (len(events) - 1))
    writer.commit()
    return path


def ask(lake: Path, text: str) -> list[tuple[Any, ...]]:
    """Ask one question."""
    return list(query.ask(_opened(lake), text).rows)


@functools.cache
def _opened(lake: Path) -> duckdb.DuckDBPyConnection:
    """Open a lake once: making the views takes ten times as long as a question."""
    return connect(lake)


def plain(lake: Path, text: str) -> Any:
    """Ask a DuckDB that knows only `views.sql`, started in the lake's folder, without pgwitness."""
    program = (
        "import sys, duckdb, json; c = duckdb.connect(); c.execute(open('views.sql').read()); "
        "print(json.dumps(c.execute(sys.argv[1]).fetchall(), default=str)); "
        "assert not {'pgwitness', 'sinks', 'pyarrow'} & sys.modules.keys()"
    )
    command = [sys.executable, "-I", "-c", program, text]
    done = subprocess.run(command, cwd=lake, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_every_column_of_the_contract_is_there_with_its_type(lake: Path, tmp_path: Path) -> None:
    """The files hold the promised columns in the promised order; what was added comes after them."""
    file = next(lake.glob("events/dt=2*/*.parquet"))
    shutil.copy(file, tmp_path / "one.parquet")
    found = duckdb.read_parquet(str(tmp_path / "one.parquet"))
    promised = [tuple(column.split(" ", 1)) for column in re.split(r" \| |\n", CONTRACT)]
    assert list(zip(found.columns, map(str, found.types), strict=True))[: len(promised)] == promised


def test_any_engine_reads_the_files_as_plain_parquet(lake: Path) -> None:
    """Texts are plain strings and times are instants in UTC, with nothing that only one library understands."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(next(lake.glob("events/dt=2*/*.parquet")))
    assert file.schema_arrow.metadata is None
    assert str(file.schema_arrow.field("principal").type) == "string"
    assert str(file.schema_arrow.field("occurred_at").type) == "timestamp[us, tz=UTC]"


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_answers_on_an_empty_lake(tmp_path: Path, view: str) -> None:
    """Before anything has landed views exist and are empty."""
    Lake(tmp_path).writer("events", 0).resume()
    assert ask(tmp_path, f"FROM {view}") == []


def test_a_plain_duckdb_opens_the_lake(lake: Path) -> None:
    """`views.sql` gives every view to a DuckDB in the lake's folder, and the same answers as ours."""
    counts = " UNION ALL ".join(f"SELECT '{view}', (SELECT count(*) FROM {view})" for view in VIEWS)
    found = dict(plain(lake, counts))
    assert found == dict(ask(lake, counts))
    assert {view for view, count in found.items() if count == 0} <= set(EMPTY)
    assert found.keys() == set(VIEWS)
    assert plain(lake, "SELECT count(*) FROM touched('public.orders', 5)") == [[5]]


def test_a_plain_duckdb_opens_an_empty_lake(tmp_path: Path) -> None:
    """So it does when nothing has landed."""
    Lake(tmp_path).writer("events", 0).resume()
    assert plain(tmp_path, "SELECT (SELECT count(*) FROM changes) + (SELECT count(*) FROM alerts)") == [[0]]


def test_a_connection_that_is_kept_sees_what_lands_by_its_variables_alone(tmp_path: Path) -> None:
    """Running the statements again that set a variable, in a DuckDB that makes nothing, shows the next commit."""
    writer = Lake(tmp_path).writer("events", 0)
    writer.resume()
    script = (tmp_path / "views.sql").read_text()
    kept = duckdb.connect()
    kept.execute(f"SET file_search_path = '{tmp_path}'")
    kept.execute(script)
    counts = []
    for offset in range(3):
        writer.append(offset, [change(offset)], [ORDINARY])
        writer.commit()
        for statement in duckdb.extract_statements(script):
            if "SET VARIABLE" in statement.query:
                kept.execute(statement.query)
        counts.append(kept.execute("SELECT count(DISTINCT xid) FROM events").fetchone())
    kept.close()
    assert counts == [(1,), (2,), (3,)]


def test_without_the_row_images_everything_else_can_be_asked(lake: Path, tmp_path: Path) -> None:
    """Who may not read `rows/` sees events, and changes with the images left empty."""
    copy = tmp_path / "copy"
    shutil.copytree(lake, copy)
    shutil.rmtree(copy / "rows")
    assert ask(copy, "SELECT count(*), count(before), count(after) FROM changes") == [(5, 0, 0)]
    assert ask(copy, "SELECT count(*) FROM touched('public.orders', 5)") == [(5,)]
    assert ask(lake, "SELECT count(*), count(before), count(after) FROM changes") == [(5, 2, 2)]


def test_a_process_that_opens_lakes_again_has_the_same_views(lake: Path, tmp_path: Path) -> None:
    """What the first connection made of the text, the next has: every view, macro and column, of its own lake."""
    questions = (
        "SELECT view_name, sql FROM duckdb_views() WHERE NOT internal ORDER BY ALL",
        "SELECT function_name, parameters FROM duckdb_functions() WHERE NOT internal ORDER BY ALL",
        "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal ORDER BY ALL",
        "SELECT database_name FROM duckdb_databases() ORDER BY ALL",
        "FROM changes ORDER BY ALL",
        "FROM touched('public.orders', 5) ORDER BY ALL",
    )
    ready._kept.clear()
    with connect(lake) as first, connect(lake) as second:
        assert [second.execute(text).fetchall() for text in questions] == [
            first.execute(text).fetchall() for text in questions
        ]
        assert len(second.execute(questions[0]).fetchall()) > 20
        ((spilled,),) = second.execute("SELECT current_setting('temp_directory')").fetchall()
        assert list(Path(spilled).iterdir()) == []
    assert len(ready._kept) == 1
    other = tmp_path / "other"
    Lake(other).prepare([("events", 0)])
    assert ask(other, "SELECT count(*) FROM changes") == [(0,)]


def test_files_of_an_older_version_are_read_with_nulls(lake: Path, tmp_path: Path) -> None:
    """A column that came later is null in files from before."""
    copy = tmp_path / "copy"
    shutil.copytree(lake, copy)
    old = copy / "events/dt=2026-01-01/old.parquet"
    old.parent.mkdir()
    duckdb.sql("SELECT 'old' AS event_id, 'gap' AS kind, 7::BIGINT AS lsn").write_parquet(str(old))
    enter(copy, old)
    assert ask(copy, "SELECT event_id, covered, lsn FROM gaps WHERE dt = '2026-01-01'") == [("old", None, "0/7")]


def test_lsns_are_shown_as_postgresql_writes_them(lake: Path) -> None:
    """`16/5` and not a number."""
    assert ask(lake, "SELECT lsn FROM events WHERE xid = 1005") == [("16/5",)]


def test_kinds_have_views(lake: Path) -> None:
    """Each view has the events of its kind and no others."""
    for view, kind in {"sessions": "session", "gaps": "gap", "posture": "posture", "control": "control"}.items():
        assert ask(lake, f"SELECT DISTINCT kind FROM {view}") == [(kind,)]
    assert ask(lake, "SELECT uid, severity, count, event_id FROM alerts") == [("u1", "Critical", 2, f"{1:032x}")]


def test_coverage_counts_by_cluster_and_hour(lake: Path) -> None:
    """What somebody did counts once in each of the two divisions; gaps, posture and control do not count."""
    rows = ask(lake, "SELECT * FROM coverage ORDER BY hour")
    assert [(row[0], row[1].isoformat(), *row[2:11]) for row in rows] == [
        ("shop", "2026-09-22T12:00:00+00:00", 7, 2, 1, 1, 3, 0, 1, 4, 2),
        ("shop", "2026-09-22T13:00:00+00:00", 1, 1, 0, 0, 0, 0, 0, 1, 0),
    ]


def test_coverage_tells_the_kinds_apart_and_how_many_changes_are_exact(lake: Path) -> None:
    """Rows written past the beacon are counted, and are in nobody's share."""
    rows = ask(
        lake,
        "SELECT changes, changes_exact, changes_shadow, changes_exact_percent, ddl, statements, query_stats, sessions"
        " FROM coverage ORDER BY hour",
    )
    assert rows == [(4, 1, 3, 100.0, 1, 0, 1, 1), (1, 1, 0, 100.0, 0, 0, 0, 0)]


def test_a_change_without_a_name_lowers_the_share(tmp_path: Path) -> None:
    """On a table without a beacon nothing is past it: what is not exact there is missing from the share."""
    from pgwitness.core.events import Relation

    writer = Lake(tmp_path).writer("events", 0)
    writer.resume()
    bare = [Relation("public.orders", ["id"])]
    events = [
        change(1),
        change(2),
        change(3, binding="none", certainty="none", relation_table=bare),
        other(4, certainty="none"),
    ]
    writer.append(0, events, [ORDINARY] * 4)
    writer.commit()
    assert ask(tmp_path, "SELECT changes_exact_percent FROM coverage") == [(66.67,)]


def test_reconciliation_tells_attributed_weak_and_shadow_writes(lake: Path) -> None:
    """A transaction on a covered table without a beacon is a shadow write; statistics alone make it no better."""
    rows = ask(lake, "SELECT xid, status, rows, relations FROM reconciliation ORDER BY xid")
    status = {1001: "attributed", 1002: "shadow_write", 1003: "shadow_write", 1004: "shadow_write", 1005: "attributed"}
    assert rows == [(xid, word, 1, ["public.orders"]) for xid, word in status.items()]


def test_a_weak_transaction_on_an_uncovered_table_is_weak(tmp_path: Path) -> None:
    """Where no beacon is installed its absence says nothing."""
    from pgwitness.core.events import Relation

    writer = Lake(tmp_path).writer("events", 0)
    writer.resume()
    bare = [Relation("public.orders", ["id"])]
    writer.append(0, [change(1, binding="stats", certainty="weak", relation_table=bare)], [ORDINARY])
    writer.commit()
    assert ask(tmp_path, "SELECT status FROM reconciliation") == [("weak",)]


@pytest.mark.parametrize(
    ("key", "xids"),
    [
        ("5", [1001, 1002, 1004]),
        ("'5'", [1001, 1002, 1004]),
        ("'{\"id\": 5}'", [1001, 1002, 1004]),
        ('\'{"line": 5, "id": 6}\'', [1003, 1004]),
        ("'{\"id\": 6}'", [1003, 1004]),
        ("'tok_ab'", [1004, 1005]),
        ("6", [1004]),
        ("'not {json'", [1004]),
    ],
)
def test_touched_finds_a_record_by_scalar_and_by_json_key(lake: Path, key: str, xids: list[int]) -> None:
    """A scalar is the whole key, an object names columns of it; truncates and drops touch every record."""
    found = ask(lake, f"SELECT xid, kind FROM touched('public.orders', {key})")
    assert [xid for xid, kind in found if kind == "change"] == xids
    assert sorted(kind for _, kind in found if kind != "change") == ["ddl", "query_stats"]


def test_touched_says_how(lake: Path) -> None:
    """What read the relation may have read the record, what emptied or dropped it touched all."""
    found = ask(lake, "SELECT how, operation FROM touched('public.orders', 5)")
    assert sorted(found) == [
        ("all_rows", "DROP TABLE"),
        ("all_rows", "truncate"),
        ("changed", "insert"),
        ("changed", "update"),
        ("may_have_read", "select"),
    ]


@pytest.mark.parametrize(
    ("facts", "reads"),
    [
        ({"detail": {"operations": ["insert", "select"]}, "operation": "insert"}, True),
        ({"detail": {"operations": ["explain"]}, "operation": "explain"}, False),
        ({"detail": {"operations": ["explain", "select"]}, "operation": "explain"}, True),
        ({"detail": {"operations": ["copy_to"]}, "operation": "copy_to"}, True),
        ({"detail": {"operations": ["copy_from"]}, "operation": "copy_from"}, False),
        ({"detail": {"operations": ["update"]}, "operation": "update"}, False),
        ({"operation": "select", "outcome": "denied"}, False),
        ({"operation": "select", "detail": {"settles": "x"}}, False),
        ({"operation": "select", "kind": "query_stats", "detail": {"seen_as": "statement"}}, False),
        ({"operation": "select", "kind": "query_stats"}, True),
    ],
)
def test_what_has_read_a_relation_and_what_has_not(tmp_path: Path, facts: dict[str, Any], reads: bool) -> None:
    """By the parser's words; refused reads read nothing, and what two sources tell counts once."""
    writer = Lake(tmp_path).writer("events", 0)
    writer.resume()
    values = {"kind": "statement", "relations": ["public.orders"], "outcome": "success"}
    writer.append(0, [other(1, **(values | facts))], [ORDINARY])
    writer.commit()
    assert ask(tmp_path, "SELECT how FROM touched('public.orders', 5)") == ([("may_have_read",)] if reads else [])


def test_a_session_is_one_login_whoever_saw_it(tmp_path: Path) -> None:
    """The log and a look at the sessions tell one session; its end is the log's, which knows it better."""
    writer = Lake(tmp_path).writer("events", 0)
    writer.resume()
    seen = [("activity", "connect", 1), ("log", "connect", 2), ("log", "disconnect", 5), ("activity", "disconnect", 9)]
    events = [
        other(at, binding=binding, operation=word, session_id="s/1", role="ada", occurred_at_us=NOON_US + at)
        for binding, word, at in seen
    ]
    events.append(other(10, operation="login_failed", session_id="s/2", outcome="denied", role="eve"))
    writer.append(0, events, [ORDINARY] * len(events))
    writer.commit()
    rows = ask(tmp_path, "SELECT role, outcome, seen_by, epoch_us(closed) FROM logins ORDER BY opened")
    assert rows == [("ada", "success", ["activity", "log"], NOON_US + 5), ("eve", "denied", ["none"], None)]


@pytest.mark.parametrize("relation", ["public.Orders", "orders", '"Orders"', 'public."orders"', "order"])
def test_touched_of_a_relation_that_nobody_named_is_an_error(lake: Path, relation: str) -> None:
    """It says so, and which come near, also to a plain DuckDB."""
    with pytest.raises(NotInOrder, match=r"no event names the relation .*come near: public\.orders"):
        ask(lake, f"FROM touched('{relation}', 5)")


def test_a_plain_duckdb_refuses_it_too(lake: Path) -> None:
    """The error is in `views.sql`."""
    with pytest.raises(subprocess.CalledProcessError) as refused:
        plain(lake, "FROM touched('public.Orders', 5)")
    assert "those that come near: public.orders" in refused.value.stderr


def test_timeline_of_somebody_who_did_nothing_is_an_error(lake: Path) -> None:
    """A name that is misspelt finds nobody, which is not the same as nothing done."""
    with pytest.raises(NotInOrder, match=r"no event is of Erica or for them; .*come near: erika"):
        ask(lake, "FROM timeline('Erica')")


def test_timeline_has_what_was_done_by_and_for_somebody(lake: Path) -> None:
    """In the order of time, with what agents did on a person's behalf."""
    assert ask(lake, "SELECT xid, kind FROM timeline('erika')") == [
        (1001, "change"),
        (None, "session"),
        (1005, "change"),
    ]


def test_ocsf_activities_follow_the_standard(lake: Path) -> None:
    """Each row without its nulls is a Datastore Activity of the published release, also where nobody can be named."""
    rows = [json.loads(row) for (row,) in ask(lake, "SELECT to_json(a) FROM ocsf_datastore_activity AS a")]
    rows.sort(key=lambda row: str(row["metadata"]["uid"]))
    assert [row["activity_id"] for row in rows] == [5, 2, 7, 7, 7, 3, 7, 1]
    assert [found for row in rows if (found := ocsf.problems(ocsf.without_nulls(row), 6005))] == []


def test_ocsf_authentications_follow_the_standard(tmp_path: Path) -> None:
    """Logins, failed ones and ends of sessions, with every way to authenticate; what is only found is none of them."""
    methods = [None, "scram-sha-256", "gss", "ldap", "radius", "oauth", "cert", "trust"]
    events = [
        other(number, operation=operation, auth_method=method, role="app", database="shop", client_addr=address)
        for number, (operation, method, address) in enumerate(
            (operation, method, address)
            for operation in ("connect", "disconnect", "login_failed", "found")
            for method in methods
            for address in (None, "10.0.0.7", "fe80::1%eth0", "host.example")
        )
    ]
    writer = Lake(tmp_path).writer("events", 0)
    writer.resume()
    writer.append(0, events, [ORDINARY] * len(events))
    writer.commit()
    rows = [json.loads(row) for (row,) in ask(tmp_path, "SELECT to_json(a) FROM ocsf_authentication AS a")]
    assert len(rows) == 3 * len(methods) * 4
    assert {row["activity_id"] for row in rows} == {1, 2}
    assert [found for row in rows if (found := ocsf.problems(ocsf.without_nulls(row), 3002))] == []


def test_a_missing_lake_says_what_to_do(tmp_path: Path) -> None:
    """The error names the path, the command that makes a lake, and the setting."""
    with pytest.raises(NotInOrder, match=r"no evidence lake at .*pgwitness worker.*lake\.path"):
        connect(tmp_path / "nowhere")


def test_an_answer_is_streamed_with_its_columns_told_apart(lake: Path) -> None:
    """Columns of one name get their place added; a million rows are not read before the first is given."""
    answer = query.ask(connect(lake), "SELECT range AS n, range AS n, 'x' FROM range(1000000)")
    assert answer.columns == ["n", "n_2", "'x'"]
    assert next(answer.rows) == (0, 0, "x")


def test_several_statements_answer_with_the_last(lake: Path) -> None:
    """What a query makes lives in memory and is there for its next statement; an empty query is no error."""
    text = "CREATE TEMP TABLE mine AS SELECT count(*) AS n FROM events; SELECT n FROM mine"
    assert ask(lake, text) == [(11,)]
    assert ask(lake, " -- nothing") == []


def test_times_come_in_utc(lake: Path) -> None:
    """Whatever the machine's zone."""
    text = "SELECT CAST(occurred_at AS VARCHAR) FROM events WHERE xid = 1001"
    assert ask(lake, text) == [("2026-09-22 12:00:00.000001+00",)]


def test_a_query_that_takes_too_long_is_ended(lake: Path) -> None:
    """The limit holds for what never gives a row, and the connection can be used afterwards."""
    connection = connect(lake)
    with pytest.raises(NotInOrder, match=r"longer than 0\.2 s"):
        list(query.ask(connection, "SELECT count(*) FROM range(10000000000) a, range(1000)", timeout_s=0.2).rows)
    assert list(query.ask(connection, "SELECT 1", timeout_s=5).rows) == [(1,)]


def test_an_error_in_a_query_is_said_in_duckdbs_words(lake: Path) -> None:
    """A wrong column is named."""
    with pytest.raises(NotInOrder, match="nope"):
        ask(lake, "SELECT nope FROM events")
