"""Writes the dashboards beside this file: `python deploy/grafana/dashboards.py`. Import them, or let the chart do it.

Each answers one question: does evidence flow and is it whole, is the lake in order, what happens at the gateway. Rows
of panels, each with a sentence that says what a bad value means.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
WIDTH, HEIGHT = 24, 8
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
BY_CLUSTER = 'cluster=~"$cluster"'


class Panel(NamedTuple):
    """A panel: what is asked, by what its series are named, in which unit, and from which value on it is red."""

    title: str
    expression: str
    legend: str = ""
    unit: str = "short"
    red: float | None = None
    kind: str = "timeseries"
    said: str = ""


def today(*metrics: str, only: str = "") -> str:
    """Count what was added in the last day, of several metrics together; 0 where there are none of them yet."""
    added = " or ".join(f"increase({metric}{{{only}}}[24h])" for metric in metrics)
    return f"sum({added}) or vector(0)"


def rate(metric: str, by: str = "", only: str = "") -> str:
    """Count what is added a second, by a label."""
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({metric}{{{only}}}[5m]))"


def added(metric: str, by: str = "", over: str = "1h") -> str:
    """Count what was added over a time, by a label."""
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (increase({metric}[{over}]))"


def p99(metric: str) -> str:
    """Give the 99th percentile of a histogram."""
    return f"histogram_quantile(0.99, sum by (le) (rate({metric}_bucket[10m])))"


GAPS = ("pgwitness_wal_gaps_total", "pgwitness_log_gaps_total", "pgwitness_stats_losses_total")
NOT_TAKEN = "Anchors that did not take a checkpoint"
Rows = list[tuple[str, list[Panel]]]

FLOW: Rows = [
    (
        "Whole?",
        [
            Panel(
                "Gaps today", today(*GAPS, only=BY_CLUSTER), red=1, kind="stat", said="SELECT * FROM gaps says of what"
            ),
            Panel(
                "Forged beacons today",
                today("pgwitness_wal_beacons_forged_total", only=BY_CLUSTER),
                red=1,
                kind="stat",
                said="An alert beacon_forged names who",
            ),
            Panel(
                "Dead letters today",
                today("pgwitness_worker_dead_letters_total"),
                red=1,
                kind="stat",
                said="Records that could not be read",
            ),
            Panel("Alerts today", today("pgwitness_worker_alerts_total"), kind="stat"),
        ],
    ),
    (
        "From the source",
        [
            Panel("Events by source", rate("pgwitness_raw_events_total", "source", BY_CLUSTER), "{{source}}", "ops"),
            Panel(
                "WAL that the slot holds back",
                f"pgwitness_slot_lag_bytes{{{BY_CLUSTER}}}",
                "{{cluster}} {{database}}",
                "bytes",
                5e9,
                said="It fills the source's disk",
            ),
            Panel(
                "WAL until the slot is lost",
                f"pgwitness_slot_safe_wal_bytes{{{BY_CLUSTER}}}",
                "{{cluster}} {{database}}",
                "bytes",
                said="Absent without max_slot_wal_keep_size",
            ),
            Panel(
                "Log not read yet",
                f"pgwitness_log_unread_bytes{{{BY_CLUSTER}}}",
                "{{cluster}} {{instance}}",
                "bytes",
            ),
            Panel(
                "Batches not confirmed",
                f"pgwitness_undelivered_batches{{{BY_CLUSTER}}}",
                "{{cluster}} {{source}}",
                said="High for minutes: the broker is slow or away",
            ),
            Panel(
                "Restarts of collectors",
                added("pgwitness_collector_restarts_total", "collector"),
                "{{collector}}",
                red=3,
            ),
        ],
    ),
    (
        "Through the worker",
        [
            Panel("Lag", "sum by (topic) (pgwitness_worker_lag)", "{{topic}}", red=1e5, said="Records that wait"),
            Panel(
                "Changed rows by certainty",
                rate("pgwitness_worker_rows_total", "certainty"),
                "{{certainty}}",
                "ops",
                said="How sure it is who wrote",
            ),
            Panel("Commit to alert, p99", p99("pgwitness_worker_alert_seconds"), "p99", "s"),
            Panel("Waiting for their identity", "sum by (partition) (pgwitness_worker_held)", "{{partition}}"),
            Panel("Alerts delivered", rate("pgwitness_deliver_delivered_total", "target"), "{{target}}", "ops"),
            Panel("Deliveries that failed", added("pgwitness_deliver_failures_total", "target"), "{{target}}", red=1),
        ],
    ),
]
LAKE: Rows = [
    (
        "In order?",
        [
            Panel("Since the newest seal", "time() - max(pgwitness_seal_timestamp_seconds)", "", "s", 900, "stat"),
            Panel(
                "Since the last compaction", "time() - max(pgwitness_compact_timestamp_seconds)", "", "s", 7200, "stat"
            ),
            Panel(
                "Files missing or altered",
                "max(pgwitness_compact_refused)",
                red=1,
                kind="stat",
                said="pgwitness verify names them",
            ),
            Panel("Rounds without a seal today", today("pgwitness_seal_refused_total"), red=1, kind="stat"),
        ],
    ),
    (
        "What lands",
        [
            Panel("Events", rate("pgwitness_worker_landed_total"), "events", "ops"),
            Panel("One commit, p99", p99("pgwitness_worker_land_seconds"), "p99", "s"),
            Panel(
                "Files that count",
                "max(pgwitness_compact_live_files)",
                "files",
                said="Tens of thousands make queries slow",
            ),
            Panel("Files that larger ones replaced", added("pgwitness_compact_replaced_files_total"), "files"),
            Panel("Checkpoint, p99", p99("pgwitness_worker_checkpoint_seconds"), "p99", "s"),
            Panel(NOT_TAKEN, added("pgwitness_seal_anchor_failures_total", "anchor"), "{{anchor}}", red=1),
        ],
    ),
]
GATEWAY: Rows = [
    (
        "Now",
        [
            Panel("Sessions", "sum(pgwitness_gateway_sessions)", kind="stat"),
            Panel("Statements a second", rate("pgwitness_gateway_statements_total"), unit="ops", kind="stat"),
            Panel("Refused today", today("pgwitness_gateway_decisions_total", only='effect="deny"'), kind="stat"),
            Panel(
                "On the spool",
                "sum(pgwitness_gateway_spool_bytes)",
                unit="bytes",
                red=1e8,
                kind="stat",
                said="When it is full no statement passes",
            ),
        ],
    ),
    (
        "Over time",
        [
            Panel("Logins", rate("pgwitness_gateway_logins_total", "outcome"), "{{outcome}}", "ops"),
            Panel("Decisions", rate("pgwitness_gateway_decisions_total", "effect"), "{{effect}}", "ops"),
            Panel("Statements", rate("pgwitness_gateway_statements_total"), "forwarded", "ops"),
            Panel("Spool", "pgwitness_gateway_spool_bytes", "{{instance}}", "bytes", 1e8),
            Panel(
                "Calls of agents' tools",
                rate("pgwitness_mcp_calls_total", "tool, outcome"),
                "{{tool}} {{outcome}}",
                "ops",
            ),
            Panel("Conversations of agents", "sum(pgwitness_mcp_conversations)", "open"),
        ],
    ),
]
DASHBOARDS = {
    "flow": ("pgwitness: does evidence flow, and is it whole", FLOW),
    "lake": ("pgwitness: is the lake in order", LAKE),
    "gateway": ("pgwitness: at the gateway", GATEWAY),
}


def dashboard(name: str) -> dict[str, Any]:
    """Make a dashboard."""
    title, rows = DASHBOARDS[name]
    panels: list[dict[str, Any]] = []
    y = 0
    for heading, shown in rows:
        at = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        panels.append({"type": "row", "title": heading, "collapsed": False, "gridPos": at, "panels": []})
        y += 1
        wide, high = (WIDTH // 4, HEIGHT // 2) if shown[0].kind == "stat" else (WIDTH // 3, HEIGHT)
        for number, panel in enumerate(shown):
            column, line = number % (WIDTH // wide), number // (WIDTH // wide)
            at = {"h": high, "w": wide, "x": column * wide, "y": y + line * high}
            panels.append(_panel(panel, at))
        y += high * -(-len(shown) // (WIDTH // wide))
    for number, each in enumerate(panels, 1):
        each["id"] = number
    return {
        "title": title,
        "uid": f"pgwitness-{name}",
        "tags": ["pgwitness"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def _panel(panel: Panel, at: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red is not None:
        steps.append({"color": "red", "value": panel.red})
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.said,
        "datasource": DATASOURCE,
        "gridPos": at,
        "targets": [
            {"refId": "A", "datasource": DATASOURCE, "expr": panel.expression, "legendFormat": panel.legend or "__auto"}
        ],
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if panel.kind == "timeseries" else {},
    }


def _variables() -> list[dict[str, Any]]:
    cluster = "label_values(pgwitness_raw_events_total, cluster)"
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
        {
            "name": "cluster", "type": "query", "datasource": DATASOURCE, "label": "Cluster", "multi": True,
            "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}, "refresh": 2,
            "definition": cluster, "query": {"query": cluster, "refId": "A"},
        },
    ]  # fmt: skip


def written(name: str) -> str:
    """Return a dashboard as it stands in its file."""
    return json.dumps(dashboard(name), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for each in DASHBOARDS:
        (HERE / f"{each}.json").write_text(written(each), encoding="utf-8")
        print(f"{each}.json", file=sys.stderr)
