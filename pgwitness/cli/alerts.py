"""`pgwitness alerts`: the alerts topic, read as any other consumer would."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import click

from pgwitness.cli.options import common, configuration, json_option
from pgwitness.cli.output import Row, emit, to_json

COLUMNS = ["time", "severity", "alert", "who", "certainty", "cluster", "policy", "count", "uid"]


@click.command(short_help="Read the alerts topic.")
@click.option("--follow", is_flag=True, help="Go on with new alerts as they come, until interrupted.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="Show at most the last N.")
@json_option
@common
def alerts(follow: bool, limit: int, as_json: bool, config_path: Path) -> None:
    """Read the alerts topic: every alert, the last first seen at the end; with --follow, on and on.

    With --json an alert is the whole OCSF object; with --follow and --json, one object a line.
    """
    from pgwitness.cli import kafka

    config = configuration(config_path)
    topic = config.kafka.topic("alerts")
    if follow:
        with contextlib.suppress(KeyboardInterrupt):  # which is how following ends
            for record in kafka.follow(config, topic):
                _one(record.value, as_json)
        return
    found = [record.value for record in kafka.read(config, topic)][-limit:]
    if as_json:
        emit([kafka.parse(value) for value in found], as_json=True)
    else:
        emit([row(kafka.parse(value)) for value in found], as_json=False, columns=COLUMNS, empty="no alerts")


def _one(value: bytes, as_json: bool) -> None:
    from pgwitness.cli import kafka

    alert = kafka.parse(value)
    if as_json:
        click.echo(to_json(alert))
    else:
        shown = row(alert)
        click.echo(f"{shown['time']}  {shown['severity']:<8}  {shown['alert']}  {shown['uid']}")


def row(alert: Row) -> Row:
    """Take the facts of a table's row out of an OCSF Detection Finding; total on any object."""
    facts = _object(alert.get("unmapped"))
    finding = _object(alert.get("finding_info"))
    on_behalf_of = facts.get("on_behalf_of")
    return {
        "time": _time(alert.get("time")),
        "severity": alert.get("severity", ""),
        "alert": finding.get("desc") or finding.get("title") or alert.get("reason", "unreadable"),
        "who": facts.get("principal") or (f"role {facts['role']}" if facts.get("role") else ""),
        "on_behalf_of": on_behalf_of,
        "certainty": facts.get("certainty", ""),
        "cluster": facts.get("cluster", ""),
        "relations": facts.get("relations", []),
        "policy": facts.get("policy") or facts.get("detector", ""),
        "count": alert.get("count"),
        "uid": finding.get("uid", ""),
    }


def _object(value: object) -> Row:
    return value if isinstance(value, dict) else {}


def _time(value: object) -> str:
    if not isinstance(value, int | float):
        return ""
    return datetime.fromtimestamp(value / 1000, UTC).isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
