"""`pgwitness approvals`: what waits for a person's word, and that word."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pgwitness.cli.options import common, configuration, json_option
from pgwitness.cli.output import console, emit, say
from pgwitness.core.errors import ConfigurationError, NotInOrder, Unreachable
from pgwitness.core.printable import visible

if TYPE_CHECKING:
    from pgwitness.approvals.ledger import Ledger, Standing, Trust
    from pgwitness.approvals.records import Word
    from pgwitness.approvals.topic import ApprovalsTopic
    from pgwitness.core.config import Config

PREFIX_MIN = 4
COLUMNS = ["id", "state", "who", "for", "database", "statement", "rows", "missing", "until"]
POLL_S = 0.3


@click.group(short_help="Decide on statements that wait for approval.")
def approvals() -> None:
    """List, show and decide on statements that a policy lets run only when they are approved (`effect: approve`)."""


@approvals.command("list", short_help="List requests.")
@click.option("--all", "everything", is_flag=True, help="Also those that are decided on, used or expired.")
@json_option
@common
def listing(everything: bool, as_json: bool, config_path: Path) -> None:
    """List the requests that wait for a decision, the oldest first."""
    config = configuration(config_path)
    ledger, _ = _read(config)
    now_us = _now_us()
    found = list(ledger.requests.values()) if everything else ledger.open(now_us)
    emit([_row(one, now_us) for one in found], as_json=as_json, columns=COLUMNS, empty="nothing waits for approval")


@approvals.command(short_help="Show one request whole, with what its principal did before.")
@click.argument("request_id", metavar="ID")
@json_option
@common
def show(request_id: str, as_json: bool, config_path: Path) -> None:
    """Show the request ID: the statement, who wants to run it for whom and why, what it would touch, and what that
    principal did in the last thirty days by the lake.
    """
    config = configuration(config_path)
    ledger, _ = _read(config)
    standing = _find(ledger, request_id)
    row = _whole(standing, _now_us()) | {"record": _record(config, standing)}
    if as_json:
        emit([row], as_json=True)
        return
    for name, value in row.items():
        if value not in (None, "", [], {}, False):
            # A line of what somebody else has written must not look like one of ours.
            said = _shown(value) if isinstance(value, list) else _shown(value).replace("\n", f"\n{'':>15}")
            console().print(f"{name:>13}  {visible(said)}", markup=False, soft_wrap=True)


def _deciding(function: Any) -> Any:
    """Add what both words take."""
    function = click.option(
        "--key",
        "key_file",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("approver.key"),
        show_default=True,
        envvar="PGWITNESS_APPROVER_KEY_FILE",
        help="The approver's private key; `pgwitness alerts key FILE` makes one.",
    )(function)
    function = click.option("--reason", required=True, help="Why; who reads the evidence later must understand it.")(
        function
    )
    return click.argument("request_id", metavar="ID")(function)


@approvals.command(short_help="Let a statement run, once; signed.")
@_deciding
@click.option("--break-glass", is_flag=True, help="Alone, past what the policy asks for; this is an alert.")
@json_option
@common
def approve(request_id: str, reason: str, key_file: Path, break_glass: bool, as_json: bool, config_path: Path) -> None:
    """Approve the request ID (or the beginning of it): exactly that statement, by that principal, once."""
    _decide(request_id, "approve", reason, key_file, break_glass, as_json, config_path)


@approvals.command(short_help="Refuse a statement; signed.")
@_deciding
@json_option
@common
def deny(request_id: str, reason: str, key_file: Path, as_json: bool, config_path: Path) -> None:
    """Deny the request ID (or the beginning of it). One word is enough; what was approved and not run yet goes too."""
    _decide(request_id, "deny", reason, key_file, False, as_json, config_path)


@approvals.command(short_help="Show requests and decisions as they come.")
@json_option
@common
def watch(as_json: bool, config_path: Path) -> None:
    """Show every request, and what becomes of it, as it comes, until interrupted; with --json one object a line."""
    from pgwitness.approvals.ledger import Ledger, Trust
    from pgwitness.approvals.records import Decision
    from pgwitness.cli import kafka
    from pgwitness.cli.output import to_json

    config = configuration(config_path)
    ledger = Ledger(Trust.of(config))
    kafka.reach(config)
    with _topic(config) as topic, contextlib.suppress(KeyboardInterrupt):
        for read in topic.to_end():
            ledger.take(read.value, read.offset, read.at_us)
        for standing in ledger.open(_now_us()):
            _say_one(_row(standing, _now_us()), as_json, to_json)
        while True:
            if (read := topic.poll(POLL_S)) is None:
                continue
            taken = ledger.take(read.value, read.offset, read.at_us)
            if taken.standing is None or taken.refused is not None:
                continue
            record = taken.signed.record if taken.signed is not None else None
            more = {"by": record.who, "reason": record.why} if isinstance(record, Decision) else {}
            _say_one(_row(taken.standing, _now_us()) | more, as_json, to_json)


def _say_one(row: dict[str, Any], as_json: bool, to_json: Any) -> None:
    if as_json:
        click.echo(to_json(row))
        return
    by = f"  by {row['by']}: {row['reason']}" if "by" in row else ""
    whose = f"{row['who']}{' for ' + row['for'] if row['for'] else ''}"
    line = f"{row['id']}  {row['state']:<9}  {whose} in {row['database']}: {row['statement']}{by}"
    click.echo(visible(line.replace("\n", " ")))


def _decide(
    request_id: str, word: Word, reason: str, key_file: Path, break_glass: bool, as_json: bool, config_path: Path
) -> None:
    from pgwitness.approvals.deciding import approver_of, decide
    from pgwitness.cli.alerts_triage import private_of

    config = configuration(config_path)
    key = private_of(key_file)
    who = approver_of(config.approvers, key)
    ledger, trust = _read(config)
    standing = _find(ledger, request_id)
    value = decide(standing, word, reason, who=who, key=key, trust=trust, now_us=_now_us(), break_glass=break_glass)
    with _topic(config) as topic:
        topic.append(standing.request.request, value)
    ledger, _ = _read(config)
    row = _row(_find(ledger, standing.request.request), _now_us()) | {"by": who, "reason": reason}
    emit([row], as_json=as_json, columns=["id", "state", "who", "statement", "missing", "until", "by"])
    if not as_json and word == "approve" and row["missing"]:
        say(f"{row['missing']} more of {', '.join(standing.request.groups)} have to approve")


@contextlib.contextmanager
def _topic(config: Config) -> Any:
    from pgwitness.approvals.topic import ApprovalsTopic

    topic: ApprovalsTopic = ApprovalsTopic(config)
    try:
        yield topic
    finally:
        topic.close()


def _read(config: Config) -> tuple[Ledger, Trust]:
    """Read what there is. Raise `ConfigurationError` where nobody's requests are believed, and `Unreachable`."""
    from pgwitness.approvals.ledger import Ledger, Trust
    from pgwitness.cli import kafka

    trust = Trust.of(config)
    if not trust.gateways:
        raise ConfigurationError(
            "approvals.gateways: no gateway's key is listed, so no request is believed; "
            "`pgwitness alerts key FILE` prints the public half of the file that the gateway has as approvals.key_file"
        )
    kafka.reach(config)
    ledger = Ledger(trust)
    with _topic(config) as topic:
        for read in topic.to_end():
            ledger.take(read.value, read.offset, read.at_us)
    return ledger, trust


def _find(ledger: Ledger, request_id: str) -> Standing:
    exact = ledger.requests.get(request_id)
    if exact is not None:
        return exact
    if len(request_id) < PREFIX_MIN:
        raise ConfigurationError(f"ID: at least the first {PREFIX_MIN} letters of a request's id")
    found = [one for name, one in ledger.requests.items() if name.startswith(request_id)]
    if len(found) > 1:
        raise ConfigurationError(f"ID: {request_id} is the beginning of {len(found)} requests; write more of it")
    if not found:
        raise NotInOrder(f"no request {request_id}; `pgwitness approvals list --all` lists those there are")
    return found[0]


def _row(standing: Standing, now_us: int) -> dict[str, Any]:
    request = standing.request
    return {
        "id": request.request,
        "state": standing.state(now_us),
        "who": request.principal or f"role {request.role}",
        "for": request.on_behalf_of or "",
        "kind": request.kind,
        "cluster": request.cluster,
        "database": request.database,
        "statement": request.statement or "(its literals could not be taken out, so its text is not kept)",
        "relations": request.relations,
        "rows": request.rows,
        "missing": standing.missing,
        "groups": request.groups,
        "until": _when(standing.usable_until_us),
    }


def _whole(standing: Standing, now_us: int) -> dict[str, Any]:
    request = standing.request
    estimate = request.estimate
    return _row(standing, now_us) | {
        "asked": _when(request.at_us),
        "intent": request.intent,
        "operations": request.operations,
        "where": request.where,
        "columns": request.columns,
        "policies": request.policies,
        "message": request.message,
        "why": request.why,
        "planned": estimate.planned,
        "counted": estimate.counted,
        "counted_more": estimate.more,
        "values": [
            {"name": one.name, "type": one.type, "length": one.length, "column": one.column, "shown": one.shown}
            for one in estimate.values
        ],
        "sample": [dict(zip(estimate.columns, row, strict=False)) for row in estimate.sample],
        "not_found_out": estimate.why_not,
        "caveat": estimate.caveat,
        "role": request.role,
        "address": request.client_addr or "",
        "application": request.application,
        "waits": request.held,
        "fingerprint": request.fingerprint,
        "decisions": [
            {"by": one.who, "as": one.word, "reason": one.why, "at": _when(one.at_us), "break_glass": one.break_glass}
            for one in standing.decisions
        ],
    }


def _record(config: Config, standing: Standing) -> dict[str, Any]:
    """Return what the lake knows of the principal's last thirty days; empty where the lake is not here."""
    from sinks.lake.opening import lake_store
    from sinks.sql import catalogue

    request = standing.request
    if request.principal is None:
        return {}
    query = """
        SELECT count(*) FILTER (kind = 'statement'), count(*) FILTER (outcome = 'denied'),
            count(*) FILTER (kind = 'change'), min(occurred_at)::VARCHAR,
            count(*) FILTER (kind = 'statement' AND fingerprint = ?),
            (SELECT count(DISTINCT uid) FROM alerts WHERE principal = ? AND last_seen > now() - INTERVAL 30 DAY)
        FROM events WHERE principal = ? AND occurred_at > now() - INTERVAL 30 DAY"""
    try:
        with catalogue.connect(lake_store(config)) as connection:
            row = connection.execute(query, [request.fingerprint, request.principal, request.principal]).fetchone()
    except (NotInOrder, Unreachable):  # the lake may be on another host
        return {}
    names = ("statements", "refused", "rows_changed", "first_seen", "this_statement_before", "alerts")
    return dict(zip(names, row or (), strict=False))


def _shown(value: object) -> str:
    if isinstance(value, list):
        # What a row or a value says stands on a line of its own.
        between = f"\n{'':>15}" if any(isinstance(one, dict) for one in value) else ", "
        return between.join(_shown(one).replace("\n", f"\n{'':>15}") for one in value)
    if isinstance(value, dict):
        return "; ".join(f"{name} {one}" for name, one in value.items() if one not in (None, "", False))
    return str(value)


def _now_us() -> int:
    return time.time_ns() // 1000


def _when(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
