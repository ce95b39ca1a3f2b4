"""`pgwitness alerts`: the alerts topic, read as any other consumer would; and what people do about alerts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import click

from pgwitness.cli.alerts_deliver import deliver
from pgwitness.cli.alerts_triage import key, resolve, suppressions
from pgwitness.cli.options import common, configuration, json_option
from pgwitness.cli.output import Row, emit, to_json
from pgwitness.core.printable import visible

COLUMNS = ["time", "activity", "severity", "alert", "who", "certainty", "cluster", "policy", "count", "uid"]
INCIDENT_COLUMNS = ["first_seen", "last_seen", "severity", "who", "cluster", "findings", "occurrences", "open", "what"]


@click.group(invoke_without_command=True, short_help="Read the alerts topic; decide on alerts; deliver them.")
@click.option("--follow", is_flag=True, help="Go on with new alerts as they come, until interrupted.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="Show at most the last N.")
@click.option("--incidents", is_flag=True, help="Show incidents: findings of one principal within an hour.")
@json_option
@common
@click.pass_context
def alerts(ctx: click.Context, follow: bool, limit: int, incidents: bool, as_json: bool, config_path: Path) -> None:
    """Read the alerts topic: every alert, the last first seen at the end; with --follow, on and on.

    With --json an alert is the whole OCSF object; with --follow and --json, one object a line.
    """
    if ctx.invoked_subcommand is not None:
        return
    if follow and incidents:
        raise click.UsageError("--incidents shows what there is; it does not go with --follow")
    from pgwitness.cli import kafka
    from pgwitness.cli.evidence import recorded

    config = configuration(config_path)
    topic = config.kafka.topic("alerts")
    if follow:
        with recorded(config, "alerts", follow=True), contextlib.suppress(KeyboardInterrupt):  # which is how it ends
            for record in kafka.follow(config, topic):
                _one(record.value, as_json)
        return
    with recorded(config, "alerts", follow=False, limit=limit):
        found = [kafka.parse(record.value) for record in kafka.read(config, topic)]
    if incidents:
        rows = stories(found)[-limit:]
        emit(rows, as_json=as_json, columns=INCIDENT_COLUMNS, empty="no incidents")
    elif as_json:
        emit(found[-limit:], as_json=True)
    else:
        emit([row(alert) for alert in found[-limit:]], as_json=False, columns=COLUMNS, empty="no alerts")


for command in (resolve, key, suppressions, deliver):
    alerts.add_command(command)


def _one(value: bytes, as_json: bool) -> None:
    from pgwitness.cli import kafka

    alert = kafka.parse(value)
    if as_json:
        click.echo(to_json(alert))
    else:
        shown = row(alert)
        line = f"{shown['time']}  {shown['activity']:<6}  {shown['severity']:<8}  {shown['alert']}  {shown['uid']}"
        click.echo(visible(line.replace("\n", " ")))


def row(alert: Row) -> Row:
    """Take the facts of a table's row out of an OCSF Detection Finding; total on any object."""
    facts = _object(alert.get("unmapped"))
    finding = _object(alert.get("finding_info"))
    on_behalf_of = facts.get("on_behalf_of")
    said = (alert.get("message"), finding.get("desc"), finding.get("title"), alert.get("reason"))
    return {
        "time": _time(alert.get("time")),
        "activity": alert.get("activity_name", ""),
        "severity": f"{alert.get('severity', '')}, staged"
        if facts.get("mode") == "staged"
        else alert.get("severity", ""),
        "alert": next(filter(None, said), "unreadable"),
        "who": facts.get("principal") or (f"role {facts['role']}" if facts.get("role") else ""),
        "on_behalf_of": on_behalf_of,
        "certainty": facts.get("certainty", ""),
        "cluster": facts.get("cluster", ""),
        "relations": facts.get("relations", []),
        "policy": facts.get("policy") or facts.get("detector", ""),
        "count": alert.get("count"),
        "uid": finding.get("uid", ""),
    }


def stories(alerts: Iterable[Row]) -> list[Row]:
    """Put alerts together by incident, each finding as it was last emitted; total on any objects."""
    findings: dict[tuple[str, str], Row] = {}
    for alert in alerts:
        incident = _object(alert.get("unmapped")).get("incident")
        uid = _object(alert.get("finding_info")).get("uid")
        if isinstance(incident, str) and isinstance(uid, str):
            findings[incident, uid] = alert
    members: dict[str, list[Row]] = {}
    for (incident, _), alert in findings.items():
        members.setdefault(incident, []).append(alert)
    rows = [_story(incident, of_it) for incident, of_it in members.items()]
    return sorted(rows, key=lambda story: str(story["first_seen"]))


def _story(incident: str, alerts: list[Row]) -> Row:
    infos = [_object(alert.get("finding_info")) for alert in alerts]
    worst = max(alerts, key=lambda alert: _number(alert.get("severity_id")))
    return {
        "incident": incident,
        "first_seen": _time(min(_number(info.get("first_seen_time")) for info in infos)),
        "last_seen": _time(max(_number(info.get("last_seen_time")) for info in infos)),
        "severity": worst.get("severity", ""),
        "who": row(worst)["who"],
        "cluster": row(worst)["cluster"],
        "findings": len(alerts),
        "occurrences": sum(_number(alert.get("count")) for alert in alerts),
        "open": sum(alert.get("activity_id") != 3 for alert in alerts),
        "what": sorted({str(info.get("title", "")) for info in infos}),
        "uids": [info.get("uid") for info in infos],
    }


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _object(value: object) -> Row:
    return value if isinstance(value, dict) else {}


def _time(value: object) -> str:
    if not isinstance(value, int | float):
        return ""
    return datetime.fromtimestamp(value / 1000, UTC).isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
