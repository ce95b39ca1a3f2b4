from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import psutil
import pytest
from click.testing import CliRunner

from pgwitness.cli import main
from pgwitness.demo.scenes import FAR_ADDRESS, scenes
from pgwitness.demo.servers import wait_for
from pgwitness.demo.tools import PURPOSE
from sinks.sql.catalogue import connect
from tests import ocsf as standard
from tests.conftest import leave_out
from tests.demo.tour import WHY_APPROVED, WHY_SILENT, Tour
from tests.demo.tour import take as tour_of
from tests.sinks.console import browsing

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.timeout(500)
COMMAND = [sys.executable, "-m", "pgwitness", "demo"]


def left_behind(place: Path) -> list[str]:
    """List the processes that have a folder in their command line."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if any(str(place) in word for word in words):
            found.append(" ".join(words))
    return found


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object], Tour | None]:
    """The demo, played once in a short form and kept until somebody has tried it: its folder, its object, the tour."""
    place = tmp_path_factory.mktemp("demo") / "here"
    command = [*COMMAND, "--json", "--keep", "--seconds", "12", "--dir", str(place)]
    written, said = place.parent / "object", place.parent / "said"
    with written.open("w") as output, said.open("w") as errors:
        demo = subprocess.Popen(command, stdout=output, stderr=errors)
    try:
        wait_for(lambda: "Ctrl-C" in said.read_text() or demo.poll() is not None, 280, "the demo is kept")
        assert demo.poll() is None, written.read_text() + said.read_text()
        tour = tour_of(said.read_text()) if browsing.CHROMIUM.exists() else None
        if tour is not None:
            wait_for(lambda: "came again" in written.read_text(), 60, "the agent does what was approved")
            wait_for(lambda: landed(place, "ran_at IS NOT NULL", 3), 60, "that has landed")
    finally:
        demo.send_signal(signal.SIGINT)
        code = demo.wait(90)
    assert code == 0, written.read_text() + said.read_text()
    return place, json.loads(written.read_text().splitlines()[0]), tour


def landed(place: Path, condition: str, count: int) -> bool:
    """Whether so many approvals are in the lake of which something holds."""
    query = f"SELECT count(*) FROM approvals WHERE {condition}"
    return connect(place / "lake").execute(query).fetchall() == [(count,)]


@pytest.fixture(scope="module")
def played(kept: tuple[Path, dict[str, object], Tour | None]) -> tuple[Path, dict[str, object]]:
    """The demo's folder and the object it ended with."""
    return kept[0], kept[1]


@pytest.fixture(scope="module")
def tour(kept: tuple[Path, dict[str, object], Tour | None]) -> Tour:
    """What came of it when somebody tried it in a browser."""
    if kept[2] is None:
        leave_out(f"the kept demo in a browser: there is no {browsing.CHROMIUM} (Debian's package chromium)")
    assert kept[2] is not None
    return kept[2]


def test_somebody_new_does_five_things_in_the_kept_demo(tour: Tour, played: tuple[Path, dict[str, object]]) -> None:
    """By what the pages say: who deleted the promotions, an approval, a week's silence, a report; and a proof."""
    place, _ = played
    assert (tour.faults, tour.barriers) == ([], [])
    assert "pricing-agent" in tour.who
    assert "public.promotions" in tour.who
    assert f"approve by maria: {WHY_APPROVED}" in tour.approved
    assert WHY_SILENT in tour.silenced
    assert "false-positive" in tour.silenced
    assert "pricing-agent" in tour.report
    assert "in order: " in tour.proof
    ran = "SELECT state, reasons, rows, drift FROM approvals WHERE statement LIKE '%BETWEEN%'"
    assert connect(place / "lake").execute(ran).fetchall() == [("used", [WHY_APPROVED], 40, None)]


def test_every_committed_row_landed_once_under_its_name(played: tuple[Path, dict[str, object]]) -> None:
    """Rows of the workload's own ledger equal the landed ones, in all and for each principal, without duplicates."""
    _, found = played
    assert found["committed_rows"] == found["landed_rows"]
    assert isinstance(found["committed_rows"], int)
    assert found["committed_rows"] > 500
    assert found["duplicates"] == 0
    principals = found["principals"]
    assert isinstance(principals, dict)
    assert [name for name, rows in principals.items() if rows["committed"] != rows["landed"]] == []
    assert {"checkout", "shipping", "support-agent", "pricing-agent", "maria", "jonas", "lena"} <= set(principals)


def test_every_misbehaviour_is_caught_and_nothing_else(played: tuple[Path, dict[str, object]]) -> None:
    """Everything that was staged raised its alert, and the honest work raised none."""
    _, found = played
    assert found["planted"] == [scene.id for scene in scenes() if scene.policies]
    assert len(found["planted"]) >= 6
    assert found["caught"] == found["planted"]
    assert found["false_alerts"] == 0


def test_what_the_gateway_refuses_never_happens(played: tuple[Path, dict[str, object]]) -> None:
    """A DROP, cards behind a ticket, a bulk delete: the evidence has each refusal, named, and nothing was done."""
    place, found = played
    refused = ["agent_by_mcp", "agent_drops_a_table", "agent_follows_a_ticket", "agent_deletes_too_much"]
    assert found["refused"] == refused
    connection = connect(place / "lake")
    asked = (
        "SELECT principal, on_behalf_of, certainty, assurance, detail->'$.decision.policies'->>0 FROM events "
        "WHERE binding = 'gateway' AND kind = 'decision' AND operation = 'deny' "
        "AND (detail->'$.decision.approval') IS NULL ORDER BY principal"
    )
    assert connection.execute(asked).fetchall() == [
        ("pricing-agent", "jonas", "exact", "verified", "agents_drop_nothing"),
        ("study-agent", "nora", "exact", "verified", "agents_ask_for_part"),
        ("support-agent", "jonas", "exact", "verified", "secrets_after_untrusted"),
    ]
    dropped = "SELECT count(*) FROM ddl WHERE list_contains(relations, 'public.price_drafts')"
    assert connection.execute(dropped).fetchone() == (0,)
    deleted = "SELECT count(*) FROM reconciliation WHERE deletes > 50"
    assert connection.execute(deleted).fetchone() == (0,)
    limits = "SELECT count(DISTINCT uid) FROM alerts WHERE policy = 'agents_change_few_rows'"
    assert connection.execute(limits).fetchone() == (0,), (
        "what the agents did was within the limit, statement by statement"
    )


def test_what_was_approved_is_compared_with_what_was_done(played: tuple[Path, dict[str, object]]) -> None:
    """Both ran with Maria's word; of one that a foreign key took more along is found, with its name."""
    place, found = played
    assert found["approvals"] == [
        {"state": "used", "approved_by": ["maria"], "rows": 40, "drift": None, "others": None},
        {
            "state": "used",
            "approved_by": ["maria"],
            "rows": 44,
            "drift": ["other_relations"],
            "others": ["public.cart_items"],
        },
    ]
    told = "SELECT DISTINCT principal FROM alerts WHERE policy = 'approval_drift'"
    assert connect(place / "lake").execute(told).fetchall() == [("pricing-agent",)]
    asked = "SELECT count(*) FROM alerts WHERE policy = 'bulk_deletes_are_looked_at'"
    assert connect(place / "lake").execute(asked).fetchone() == (0,), "who asks first is no alert"


def test_the_guard_stops_who_comes_directly(played: tuple[Path, dict[str, object]]) -> None:
    """The log says who was refused in the database, and by which policy; the session did not come by the gateway."""
    place, _ = played
    asked = (
        "SELECT principal, outcome, detail->'$.decision.policies'->>0 FROM statements "
        "WHERE detail->>'$.decision.by' = 'guard' "
        "AND session_id NOT IN (SELECT session_id FROM sessions WHERE binding = 'gateway')"
    )
    assert connect(place / "lake").execute(asked).fetchall() == [("pricing-agent", "denied", "agents_change_few_rows")]


def test_the_agent_by_mcp_is_in_the_evidence(played: tuple[Path, dict[str, object]]) -> None:
    """For whom, for what and in which conversation, of what it was given and of what was refused."""
    place, _ = played
    asked = (
        "SELECT DISTINCT principal, on_behalf_of, role, detail->>'$.intent', detail->>'$.agent.conversation', "
        "assurance FROM statements WHERE principal = 'study-agent' AND detail->>'$.intent' IS NOT NULL"
    )
    assert connect(place / "lake").execute(asked).fetchall() == [
        ("study-agent", "nora", "analysts", PURPOSE, "c-700", "verified")
    ]


def test_the_analyst_sees_tokens(played: tuple[Path, dict[str, object]]) -> None:
    """She asks for the table by its whole name and reads rows, no name and no address; the evidence names her."""
    place, found = played
    assert found["leaked_cells"] == 0
    assert isinstance(found["masked_cells"], int)
    assert found["masked_cells"] > 0
    read = "SELECT count(*) > 0, bool_and(role = 'analysts') FROM statements WHERE principal = 'nora' AND row_count > 0"
    assert connect(place / "lake").execute(read).fetchone() == (True, True)


def test_everybody_comes_through_the_gateway_but_who_goes_around_it(played: tuple[Path, dict[str, object]]) -> None:
    """Psql and psycopg by password, token and OAUTHBEARER; what was changed past the gateway shows as that."""
    place, found = played
    past = found["past_gateway"]
    assert isinstance(past, dict)
    # Of a write without a beacon the role is known where a look at the sessions met it with its transaction; never who.
    shadow = [past.pop(who) for who in ("(nobody)", "shop_owner") if who in past]
    assert (past.pop("pricing-agent") > 5, past, shadow) == (True, {"jonas": 1}, [1])
    names = "SELECT DISTINCT principal FROM reconciliation WHERE status = 'shadow_write'"
    assert connect(place / "lake").execute(names).fetchall() == [(None,)]
    asked = (
        "SELECT DISTINCT principal, auth_method, assurance FROM sessions "
        "WHERE binding = 'gateway' AND operation = 'connect' ORDER BY principal"
    )
    assert connect(place / "lake").execute(asked).fetchall() == [
        ("checkout", "scram-sha-256", "asserted"),
        ("jonas", "scram-sha-256", "asserted"),
        ("lena", "scram-sha-256", "role_only"),
        ("maria", "oauth", "verified"),
        ("nora", "oauth", "verified"),
        ("pricing-agent", "oauth", "verified"),
        ("shipping", "scram-sha-256", "role_only"),
        ("study-agent", "oauth", "verified"),
        ("support-agent", "oauth", "verified"),
    ]
    said = (place / "logs" / "gateway.log").read_text().splitlines()
    assert [line for line in said if '"level": "error"' in line] == []


def test_the_object_has_everything_that_is_promised(played: tuple[Path, dict[str, object]]) -> None:
    """The object has the contract's keys; changes are exact but for the one that was made past the beacon."""
    place, found = played
    promised = "seconds events certainty assurance planted caught false_alerts committed_rows landed_rows duplicates"
    assert {*promised.split(), "latency_ms", "lake"} <= set(found)
    certainty, assurance, events, latency = (found[key] for key in ("certainty", "assurance", "events", "latency_ms"))
    assert isinstance(certainty, dict)
    assert isinstance(assurance, dict)
    assert isinstance(events, dict)
    assert isinstance(latency, dict)
    assert sum(certainty.values()) == sum(assurance.values()) == found["landed_rows"]
    assert certainty["exact"] >= found["landed_rows"] - 5
    assert {"change", "query_stats", "session", "posture"} <= set(events)
    assert 0 < latency["p50"] <= latency["p99"]
    assert found["lake"] == str(place / "lake")
    seal = found["seal"]
    assert isinstance(seal, dict)
    assert (seal["checkpoints"], seal["findings"], seal["untouched"]) == (2, 1, 0)
    compacted = found["compacted"]
    assert isinstance(compacted, dict)
    assert compacted["files"] > 2 * compacted["became"] > 0


def test_who_did_it_is_named_where_a_rule_names_anybody(played: tuple[Path, dict[str, object]]) -> None:
    """The log names who read and who made a superuser, which statistics and snapshots alone cannot; and once each."""
    place, _ = played
    query = "SELECT DISTINCT policy, principal, ocsf ->> '$.unmapped.certainty' AS certainty, uid FROM alerts"
    result = CliRunner().invoke(main, ["sql", query, "--json", "--config", str(place / "pgwitness.toml")])
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)
    found = [(row["policy"], row["principal"], row["certainty"]) for row in rows]
    assert {("bulk_read", "maria", "exact"), ("bulk_read", "maria", "strong")} & set(found)
    assert ("most_of_table", "pricing-agent", "exact") in found, sorted(map(str, found))
    assert ("superuser", "lena", "strong") in found
    assert ("privilege_escalation", "lena", "exact") in found
    # The pricing agent is refused two statements, each of which is a finding of its own.
    uids = {(row["policy"], row["principal"], row["uid"]) for row in rows if row["policy"] != "refused_by_gateway"}
    assert len({(policy, principal) for policy, principal, _ in uids}) == len(uids)


def test_what_is_kept_can_be_used(played: tuple[Path, dict[str, object]]) -> None:
    """The folder holds what the contract names, and the printed next steps work on it."""
    place, _ = played
    for name in ("pgwitness.toml", "identities.yaml", "policies", "lake", "logs"):
        assert (place / name).exists(), name
    words = ["sql", "SELECT count(*) AS n FROM timeline('support-agent')", "--json"]
    result = CliRunner().invoke(main, [*words, "--config", str(place / "pgwitness.toml")])
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)[0]["n"] > 0
    words = ["verify", "--rows", "--checkpoint", str(place / "checkpoint.kept")]
    result = CliRunner().invoke(main, [*words, "--config", str(place / "pgwitness.toml")])
    assert result.exit_code == 0, result.output
    assert "in order: " in result.stdout


LAKE_QUERY = re.compile(
    r"(?:(?:SELECT|WITH)\b(?=.*\bFROM\b)|FROM\b)(?!.*\bpg_|.*\bpgwitness\.|.*FROM (?:public\.)?customers)", re.DOTALL
)
"""What is asked of the lake reads from something.

What else stands in the pages is for PostgreSQL: CREATE, GRANT, calls of functions, its catalogue, the schema pgwitness,
the application's customers.
"""


def test_queries_in_the_documentation_have_answers(played: tuple[Path, dict[str, object]]) -> None:
    """Every query on the lake in the pages and the runbook runs on the demo's; all of the tutorial have an answer."""
    place, _ = played
    connection = connect(place / "lake")
    asked = 0
    for page in [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "deploy" / "runbook.md"]:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
        # A script that sets variables is run as a whole, by the test of what it computes.
        queries = [query for block in blocks if "SET VARIABLE" not in block for query in block.split(";")]
        queries += re.findall(r"`([A-Z]+ [^`…]+)`", text)
        answers = {
            query: connection.execute(query).fetchall() for query in map(str.strip, queries) if LAKE_QUERY.match(query)
        }
        asked += len(answers)
        if page.name == "tutorial.md":
            assert [query for query, rows in answers.items() if not rows] == []
    assert asked >= 20


def test_alerts_bring_the_query_that_shows_their_evidence(played: tuple[Path, dict[str, object]]) -> None:
    """The query that stands in an alert finds events in the lake, for every alert."""
    place, _ = played
    connection = connect(place / "lake")
    queries = connection.execute("SELECT json_extract_string(ocsf, '$.unmapped.query') FROM alerts").fetchall()
    assert queries
    assert [query for (query,) in queries if not connection.execute(query).fetchall()] == []


def test_alerts_and_activities_conform_to_the_release(played: tuple[Path, dict[str, object]]) -> None:
    """Each alert is a Detection Finding of OCSF 1.8.0, each row of the view without its nulls a Datastore Activity."""
    place, _ = played
    connection = connect(place / "lake")
    alerts = [json.loads(ocsf) for (ocsf,) in connection.execute("SELECT ocsf FROM alerts").fetchall()]
    assert [found for alert in alerts if (found := standard.problems(alert, 2004))] == []
    view = connection.execute(
        "SELECT to_json(a) FROM ocsf_datastore_activity AS a "
        "QUALIFY row_number() OVER (PARTITION BY activity_id, metadata.log_name ORDER BY time) <= 20"
    )
    rows = [standard.without_nulls(json.loads(row)) for (row,) in view.fetchall()]
    assert [found for row in rows if (found := standard.problems(row, 6005))] == []
    assert {row["activity_id"] for row in rows} >= {1, 2, 3, 5, 7}


def test_the_lake_opens_without_pgwitness(
    played: tuple[Path, dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain DuckDB started in the lake's folder has the views from `views.sql`."""
    place, found = played
    principals = found["principals"]
    assert isinstance(principals, dict)
    monkeypatch.chdir(place / "lake")
    connection = duckdb.connect()
    connection.execute(Path("views.sql").read_text())
    count = connection.execute("SELECT count(*) FROM changes WHERE principal = 'checkout'").fetchone()
    assert count == (principals["checkout"]["landed"],)
    row = connection.execute("SELECT count(*) FROM reconciliation WHERE status = 'shadow_write'").fetchone()
    assert row == (1,)


def test_nothing_is_left_running(played: tuple[Path, dict[str, object]]) -> None:
    """When the demo is over, no process of it is."""
    place, _ = played
    assert left_behind(place) == []


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    """A folder that holds a configuration is left alone."""
    (tmp_path / "pgwitness.toml").write_text("# mine\n")
    result = CliRunner().invoke(main, ["demo", "--dir", str(tmp_path)])
    assert result.exit_code == 2
    assert str(tmp_path) in result.stderr
    assert (tmp_path / "pgwitness.toml").read_text() == "# mine\n"


@pytest.mark.parametrize(
    "words", [["--serve"], ["--serve", "--dir", "x", "--json"], ["--serve", "--dir", "x", "--keep"]], ids=" ".join
)
def test_serving_needs_a_folder_and_has_no_report(words: list[str]) -> None:
    """Serving without a folder to keep things in, or with a report of nothing, is wrong usage."""
    result = CliRunner().invoke(main, ["demo", *words])
    assert result.exit_code == 2
    assert "--serve needs --dir DIR" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_an_interrupted_demo_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    """However the demo is ended while everything runs, its servers and daemons end too."""
    place = tmp_path / "here"
    demo = subprocess.Popen([*COMMAND, "--dir", str(place)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: (place / "logs" / "worker.log").exists(), 60, "the worker starts")
        os.kill(demo.pid, number)
        demo.wait(40)
        wait_for(lambda: left_behind(place) == [], 20, f"still there: {left_behind(place)}")
    finally:
        demo.kill()
        demo.wait()
        # Nobody can tidy up after a SIGKILL: where root may not place the data in the folder, it is elsewhere.
        shutil.rmtree((place / "postgres").resolve(), ignore_errors=True)
    assert demo.returncode != 0


def test_the_far_address_is_staged_where_the_machine_has_it() -> None:
    """On Linux all of 127.0.0.0/8 is the machine's own, so the scene is never left out there."""
    if sys.platform == "linux":
        assert "service_from_new_address" in {scene.id for scene in scenes()}
        assert FAR_ADDRESS.startswith("127.")
