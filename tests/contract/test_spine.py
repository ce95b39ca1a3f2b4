"""From a live PostgreSQL to evidence and alerts: what was committed has landed, once, named and masked."""

from __future__ import annotations

import json
import subprocess
import sys

from tests import ocsf
from tests.contract.conftest import SECRET, Spine


def test_committed_rows_are_landed_rows_of_the_same_principals(spine: Spine) -> None:
    """Every committed row is in the lake, under who wrote it; what was rolled back is not."""
    rows = spine.system.query(
        "SELECT principal, operation, count(*) FROM changes WHERE relations = ['public.orders'] GROUP BY ALL"
    )
    assert {(principal, operation): count for principal, operation, count in rows} == spine.committed


def test_no_event_lands_twice(spine: Spine) -> None:
    """An event's id is unique over everything in the lake, and so are the ids of the row images."""
    assert spine.system.query("SELECT event_id, count(*) FROM events GROUP BY ALL HAVING count(*) > 1") == []
    assert spine.system.query("SELECT count(*) = count(DISTINCT event_id) FROM changes") == [(True,)]


def test_changes_are_tied_to_their_session_by_the_beacon(spine: Spine) -> None:
    """A row's session is exact, with role, application and address as the server knew them."""
    rows = spine.system.query(
        "SELECT DISTINCT binding, certainty, assurance, identity_rule, role, application, client_addr, principal_kind,"
        " on_behalf_of, client_port > 0, pid > 0, session_id IS NOT NULL FROM changes WHERE principal = 'billing-bot'"
    )
    tied = ("beacon", "exact", "asserted", "bot", f"shared_{spine.tag}", "billing-bot", "127.0.0.1", "agent", "finance")
    assert rows == [(*tied, True, True, True)]
    assert spine.system.query("SELECT DISTINCT assurance, certainty FROM changes WHERE principal = 'ada'") == [
        ("role_only", "exact")
    ]


def test_who_has_no_rule_is_nobody_but_the_role_is_known(spine: Spine) -> None:
    """A role without a rule has no principal, and is named as the role that it is."""
    rows = spine.system.query(
        "SELECT DISTINCT principal_kind, role FROM changes WHERE relations = ['public.orders'] AND principal IS NULL"
    )
    assert rows == [("unknown", f"stranger_{spine.tag}")]


def test_text_is_masked_and_stays_joinable(spine: Spine) -> None:
    """A text is the same token wherever it occurs; its own letters are in no topic and no file."""
    tokens = spine.system.query(
        "SELECT DISTINCT json_extract_string(after, '$.note') FROM changes WHERE operation = 'insert'"
        " AND relations = ['public.orders']"
    )
    assert len(tokens) == 1
    assert tokens[0][0].startswith("tok_")
    assert spine.system.command("token", "public.orders.note", stdin=SECRET).strip() == tokens[0][0]
    for topic in ("raw", "events", "alerts"):
        assert SECRET not in json.dumps(spine.system.records(topic))
    for file in spine.system.config.lake.path.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes()


def test_a_record_can_be_followed_by_its_key(spine: Spine) -> None:
    """`touched` gives every event of one record in order, who and what."""
    rows = spine.system.query("SELECT principal, operation FROM touched('public.orders', 6)")
    assert rows == [("ada", "insert"), ("ada", "delete")]


def test_every_transaction_is_attributed(spine: Spine) -> None:
    """All writes of the application came with a beacon: the reconciliation finds no shadow write."""
    rows = spine.system.query(
        "SELECT DISTINCT status FROM reconciliation WHERE list_contains(relations, 'public.orders')"
    )
    assert rows == [("attributed",)]


def test_statements_sessions_and_posture_land(spine: Spine) -> None:
    """The statistics know the statement without its literals, the sessions who came, the posture what exists."""
    calls = spine.system.query(
        "SELECT sum(calls), sum(row_count) FROM query_stats WHERE statement LIKE 'UPDATE orders SET amount = $1%'"
        f" AND role = 'shared_{spine.tag}'"
    )
    assert calls == [(1, 300)]
    rows = spine.system.query(f"SELECT count(*) FROM posture WHERE detail LIKE '%mallory_{spine.tag}%'")
    assert rows[0][0] > 0
    rows = spine.system.query(
        "SELECT operation, principal, certainty, client_addr, application, count(*) FROM sessions"
        f" WHERE role = 'ada_{spine.tag}' AND operation = 'connect' GROUP BY ALL"
    )
    assert [row[:5] for row in rows] == [("connect", "ada", "exact", "127.0.0.1", "psql")]


def test_alerts_are_plain_json_for_any_consumer(spine: Spine) -> None:
    """A bare Kafka client reads the alerts topic: OCSF findings with everything that the contract names."""
    alerts = spine.system.records("alerts", at_least=3)
    for alert in alerts:
        assert ocsf.problems(alert, 2004) == []
        assert {"severity_id", "status_id", "count", "time", "activity_id"} <= alert.keys()
        wanted = {"uid", "title", "desc", "first_seen_time", "last_seen_time"}
        assert wanted <= alert["finding_info"].keys()
    mass = [alert for alert in alerts if "billing-bot" in json.dumps(alert) and "mass_change" in json.dumps(alert)]
    assert len({alert["finding_info"]["uid"] for alert in mass}) == 1


def test_the_forged_beacon_is_found_and_not_believed(spine: Spine) -> None:
    """A message that somebody wrote under the beacon's name raises an alert and names nobody."""
    assert spine.system.query("SELECT count(*) > 0 FROM alerts WHERE policy = 'beacon_forged'") == [(True,)]
    assert spine.system.query("SELECT count(*) FROM events WHERE detail LIKE '%chief accountant%'") == [(0,)]


def test_a_new_superuser_is_an_alert(spine: Spine) -> None:
    """The sessions collector sees that a role became superuser, and the policy says so."""
    rows = spine.system.query("SELECT ocsf FROM alerts WHERE policy = 'superuser'")
    assert any(f"mallory_{spine.tag}" in ocsf for (ocsf,) in rows)


def test_an_alerts_own_query_shows_its_evidence(spine: Spine) -> None:
    """The query in an alert runs on the lake and gives the events that raised it."""
    for alert in spine.system.records("alerts", at_least=3):
        text = json.dumps(alert)
        assert "pgwitness sql" in text or "SELECT" in text, text
    rows = spine.system.query("SELECT event_ids FROM alerts WHERE policy = 'mass_change'")
    ids = rows[0][0]
    assert ids
    assert spine.system.query(f"SELECT count(*) > 0 FROM events WHERE event_id LIKE '{ids[0]}%'") == [(True,)]


def test_the_lake_opens_in_plain_duckdb(spine: Spine) -> None:
    """DuckDB alone, started in the lake's folder, has the views; nothing of pgwitness is imported."""
    program = (
        "import sys, duckdb; connection = duckdb.connect(); connection.execute(open('views.sql').read())\n"
        "print(connection.execute('SELECT count(*) FROM changes').fetchone()[0])\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('pgwitness', 'sinks', 'pyarrow')]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=spine.system.config.lake.path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [(int(done.stdout),)] == spine.system.query("SELECT count(*) FROM changes")


def test_pgwitness_sql_gives_what_duckdb_gives(spine: Spine) -> None:
    """`pgwitness sql --json` answers a question on the lake with a list of objects."""
    rows = spine.system.table("sql", "SELECT kind, count(*) AS n FROM events GROUP BY kind ORDER BY kind")
    assert [(row["kind"], row["n"]) for row in rows] == spine.system.query(
        "SELECT kind, count(*) FROM events GROUP BY kind ORDER BY kind"
    )


def test_daemons_serve_metrics_and_end_on_request(spine: Spine) -> None:
    """Every daemon has Prometheus metrics of its own, and ends with exit code 0 on SIGTERM."""
    for text in spine.metrics.values():
        assert "pgwitness_" in text
    assert spine.codes == [0, 0, 0, 0]


def test_a_second_run_goes_on_where_the_first_stood(spine: Spine) -> None:
    """Daemons that start again land the one row that is new, and no old one again."""
    first, second = spine.rows_by_run
    assert second == first + 1
