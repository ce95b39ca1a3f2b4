"""What the demo says: while it runs, and at its end, for people and as one JSON object.

Everything in the report comes from the lake and from the alerts topic; only the ledger and the list of what was
staged are the demo's own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from pgwitness.core.printable import visible
from pgwitness.demo.scenes import Scene, scenes
from pgwitness.demo.sealing import CHECKPOINT, Sealing
from pgwitness.demo.stage import Refusal
from pgwitness.demo.tools import Told
from pgwitness.demo.watch import Watch
from pgwitness.demo.workload import Ledger

QUESTIONS = (
    (
        "Who came through the gateway, and what did they show?",
        "SELECT principal, principal_kind AS kind, on_behalf_of, role, auth_method, assurance, count(*) AS sessions "
        "FROM sessions WHERE binding = 'gateway' AND operation = 'connect' GROUP BY ALL ORDER BY assurance DESC, "
        "principal",
    ),
    (
        "And who went around it, and changed something? Of a shadow write nobody knows which way it came.",
        "SELECT coalesce(principal, role, '(nobody)') AS who, assurance, status, relations, count(*) AS transactions, "
        "sum(rows)::BIGINT AS rows, through_gateway FROM reconciliation WHERE through_gateway IS DISTINCT FROM true "
        "GROUP BY ALL ORDER BY rows DESC",
    ),
    (
        "What had to be approved: who asked, who said yes and why, and was it what was done?",
        "SELECT principal, on_behalf_of, statement, state, approved_by, reasons, rows, drift, others FROM approvals "
        "ORDER BY asked_at",
    ),
    (
        "What did the guard in the database stop, of whom had gone around the gateway?",
        "SELECT principal, statement, outcome, detail->'$.decision.policies' AS policies FROM statements "
        "WHERE detail->>'$.decision.by' = 'guard' "
        "AND session_id NOT IN (SELECT session_id FROM sessions WHERE binding = 'gateway') ORDER BY occurred_at",
    ),
    (
        "What did the agent by MCP do, for whom, for what, in which conversation?",
        "SELECT principal, on_behalf_of, statement, outcome, detail->>'$.intent' AS intent, "
        "detail->>'$.agent.conversation' AS conversation FROM statements "
        "WHERE principal = 'study-agent' AND detail->>'$.intent' IS NOT NULL ORDER BY occurred_at",
    ),
    (
        "Who changed payments, and how sure is that?",
        "SELECT principal, principal_kind AS kind, role, certainty, assurance, count(*) AS rows "
        "FROM changes WHERE list_contains(relations, 'public.payments') GROUP BY ALL ORDER BY rows DESC",
    ),
    (
        "Who ever changed order 7?",
        "SELECT occurred_at, operation, principal, on_behalf_of, application, certainty "
        "FROM touched('public.orders', 7) WHERE how = 'changed' ORDER BY occurred_at, event_id",
    ),
    (
        "How much of what was changed is tied to a session exactly? Shadow: past the beacon, and nobody knows by whom.",
        "SELECT cluster, sum(changes) AS changes, sum(changes_shadow) AS shadow, "
        "100 * sum(changes_exact) / sum(changes - changes_shadow) AS exact_percent FROM coverage GROUP BY ALL",
    ),
    (
        "What did the AI agents do, and for whom?",
        "SELECT principal, on_behalf_of, assurance, detail ->> '$.agent.delegation' AS through, operation, relations, "
        "count(*) AS rows FROM changes WHERE principal_kind = 'agent' GROUP BY ALL ORDER BY rows DESC",
    ),
)
"""Questions of an auditor, each with the query that answers it."""


REFUSED = (
    "SELECT principal, unnest(CAST(detail->'$.decision.policies' AS VARCHAR[])) FROM events "
    "WHERE binding = 'gateway' AND outcome = 'denied' AND assurance = 'verified'"
)
PAST_GATEWAY = (
    "SELECT coalesce(principal, role, '(nobody)'), count(*) FROM reconciliation "
    "WHERE through_gateway IS DISTINCT FROM true GROUP BY 1 ORDER BY 1"
)
"""Transactions that did not come through the gateway, or of which nobody can tell, by whose they are."""
APPROVALS = "SELECT state, approved_by, rows, drift, others FROM approvals WHERE state <> 'asked' ORDER BY asked_at"
"""What became of each request, in the order in which they were made."""
AS_APPROVED = [("used", ["maria"], None, None), ("used", ["maria"], ["other_relations"], ["public.cart_items"])]
"""What has to have become of them: state, who approved, and how what was done differs."""


@dataclass
class Result:
    """What came of the demo, for the report."""

    seconds: float
    lake: Path
    ledger: Ledger
    planted: list[Scene]
    begun_ms: dict[str, int]
    watch: Watch
    problems: list[str]
    sealing: Sealing
    refusals: list[Refusal]
    seen: list[dict[str, object]]
    told: list[Told]


class Narrator:
    """Says what the demo is at: one moving line on a terminal, else one line a step."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False)
        self._status = self._console.status("") if stream.isatty() else None

    def __enter__(self) -> Narrator:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, text: str, *, passing: bool = False) -> None:
        """Say what is being done now; what is `passing` is not worth a line of its own."""
        if self._status is not None:
            self._status.update(text)
        elif not passing:
            self._console.print(text, soft_wrap=True)


def landed_rows(lake: Path) -> int:
    """Count the row changes in the lake at this moment; a lake that is not there yet has none."""
    return int(_ask(lake, "SELECT count(*) FROM changes")[0][0]) if lake.exists() else 0


def _ask(lake: Path, query: str) -> list[tuple[Any, ...]]:
    from sinks.sql.catalogue import connect

    connection = connect(lake)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def summarize(result: Result) -> dict[str, Any]:
    """Return the object that `pgwitness demo --json` ends with."""
    lake = result.lake
    count, distinct = _ask(lake, "SELECT count(*), count(DISTINCT event_id) FROM events")[0]
    planted = [scene for scene in result.planted if scene.policies]
    caught = [scene.id for scene in planted if any(scene.explains(alert) for _, alert in result.watch.alerts())]
    committed = result.ledger.by_principal()
    landed = dict(_ask(lake, "SELECT principal, count(*) FROM changes GROUP BY 1"))
    return {
        "seconds": round(result.seconds, 1),
        "events": _counts(lake, "SELECT kind, count(*) FROM events GROUP BY 1 ORDER BY 1"),
        "certainty": _counts(lake, "SELECT certainty, count(*) FROM changes GROUP BY 1 ORDER BY 1"),
        "assurance": _counts(lake, "SELECT assurance, count(*) FROM changes GROUP BY 1 ORDER BY 1"),
        "planted": [scene.id for scene in planted],
        "caught": caught,
        "refused": _refused(result),
        "masked_cells": result.ledger.masked_cells,
        "leaked_cells": result.ledger.leaked_cells,
        "past_gateway": _counts(lake, PAST_GATEWAY),
        "approvals": [
            dict(zip(("state", "approved_by", "rows", "drift", "others"), row, strict=True))
            for row in _ask(lake, APPROVALS)
        ],
        "false_alerts": len(unexplained(result)),
        "committed_rows": result.ledger.rows,
        "landed_rows": sum(landed.values()),
        "duplicates": count - distinct,
        "principals": {
            name or "(nobody)": {"committed": committed.get(name, 0), "landed": landed.get(name, 0)}
            for name in sorted({*committed, *landed}, key=lambda name: (name is None, name))
        },
        "latency_ms": latency(result),
        "lake": str(lake),
        "seal": {
            "checkpoints": len(result.sealing.checkpoints),
            "findings": len(result.sealing.findings),
            "untouched": len(result.sealing.untouched),
        },
        "compacted": {"files": result.sealing.files, "became": result.sealing.became},
    }


def _refused(result: Result) -> list[str]:
    """List the scenes that never happened: the evidence has the gateway's refusal, under the actor's verified name."""
    found = set(_ask(result.lake, REFUSED))
    return [scene.id for scene in result.planted if (scene.who.name, scene.refused) in found]


def _counts(lake: Path, query: str) -> dict[str, int]:
    return dict(_ask(lake, query))


def unexplained(result: Result) -> list[dict[str, Any]]:
    """List the alerts, one of each uid, that nothing staged explains: the false ones.

    What a scene's actor raises after the scene began belongs to the scene, whichever detector noticed it.
    """
    alerts = {alert["finding_info"]["uid"]: alert for _, alert in result.watch.alerts()}
    return [
        alert
        for alert in alerts.values()
        if not any(
            scene.touches(alert) and alert["finding_info"]["last_seen_time"] >= result.begun_ms[scene.id]
            for scene in result.planted
            if scene.policies
        )
    ]


def latency(result: Result) -> dict[str, float | None]:
    """Return the time from commit to the alerts topic over the alerts from the WAL, in milliseconds."""
    waits = sorted(
        time_ms - datetime.fromisoformat(alert["metadata"]["original_time"]).timestamp() * 1000
        for time_ms, alert in result.watch.alerts()
        if alert["unmapped"]["kind"] == "change"
    )
    return {"p50": _quantile(waits, 0.5), "p99": _quantile(waits, 0.99)}


def _quantile(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else None


def in_order(summary: Mapping[str, Any]) -> bool:
    """Return whether every committed row landed exactly once, under its name, and every misbehaviour was caught.

    And whether nobody saw what is masked, the evidence names what the gateway refused, under verified names, and the
    seal finds what was altered in a copy, and nothing in the lake itself.
    """
    return (
        summary["committed_rows"] == summary["landed_rows"]
        and all(rows["committed"] == rows["landed"] for rows in summary["principals"].values())
        and summary["duplicates"] == 0
        and summary["planted"] == summary["caught"]
        and _as_approved(summary)
        and summary["refused"] == [scene.id for scene in scenes() if scene.refused]
        and summary["masked_cells"] > summary["leaked_cells"] == 0
        and summary["seal"]["findings"] > 0
        and summary["seal"]["untouched"] == 0
    )


def _as_approved(summary: Mapping[str, Any]) -> bool:
    """Return whether what was approved ran, one as it was approved, and of the other the view says what differs."""
    found = [(one["state"], one["approved_by"], one["drift"], one["others"]) for one in summary["approvals"]]
    return found == AS_APPROVED


def show(summary: Mapping[str, Any], result: Result, place: Path, kept: bool, *, stay: bool) -> None:
    """Print the report for people."""
    from pgwitness.cli.output import console, table

    out = console()
    lake = result.lake
    principals = _rows(
        lake,
        "SELECT coalesce(principal, '(nobody)') AS who, principal_kind AS kind, string_agg(DISTINCT role, ', ') AS "
        "roles, count(*) AS rows, certainty, assurance FROM changes "
        "GROUP BY 1, 2, 5, 6 ORDER BY rows DESC",
    )
    out.print(table(principals, list(principals[0]) if principals else [], "Who changed rows, and how sure that is"))
    alerts: dict[str, dict[str, Any]] = {}
    for _, alert in result.watch.alerts():
        alerts[alert["finding_info"]["uid"]] = alert
    rows = [_alert(alert) for alert in alerts.values()]
    out.print(table(rows, ["severity", "alert", "who", "certainty", "policy"], "Alerts"))
    staged = [
        {"misbehaviour": scene.title, "by": scene.who.name, "caught": scene.id in summary["caught"]}
        for scene in result.planted
        if scene.policies
    ]
    out.print(table(staged, ["misbehaviour", "by", "caught"], "What was staged"))
    _refusals(result.refusals)
    title = "One question to the gateway, SELECT id, name, email, city FROM public.customers …: what each of them sees"
    out.print(table(result.seen, ["who", "id", "name", "email", "city"], title))
    for question, query in QUESTIONS:
        answer = _rows(lake, query)
        out.print(table(answer[:8], list(answer[0]) if answer else ["answer"], question))
        out.print(f"  {query}\n", style="dim", soft_wrap=True)
    _sealed(result.sealing)
    _verdict(summary, result, place, kept)
    if not stay:
        out.print("With --keep all of it stays up, and the console shows it; a DELETE waits there for approval.")


def _refusals(refusals: list[Refusal]) -> None:
    """Print what the gateway told whom it refused something, as they read it."""
    from pgwitness.cli.output import console

    out = console()
    out.print("What was refused, and what they were told\n", style="italic")
    for refusal in refusals:
        out.print(visible(f"  {refusal.who.name}, {refusal.where}> {refusal.asked};"), style="bold", markup=False)
        for word, said in (("ERROR", refusal.told), ("DETAIL", refusal.detail), ("HINT", refusal.hint)):
            if said:
                out.print(visible(f"  {word}:  {said}"), markup=False)
        out.print()


def _sealed(sealing: Sealing) -> None:
    from pgwitness.cli.output import console, table

    rows = [
        {"finding": one.kind.replace("_", " "), "where": one.subject, "what": one.text}
        for one in (*sealing.untouched, *sealing.findings)
    ]
    title = (
        f"Of {sealing.files} files of the lake compaction made {sealing.became}; it is sealed to entry "
        f"{sealing.sealed_to}. In a copy, {sealing.altered}: what verify finds there"
    )
    console().print(table(rows, ["finding", "where", "what"], title))


def _verdict(summary: Mapping[str, Any], result: Result, place: Path, kept: bool) -> None:
    from pgwitness.cli.output import console

    out = console()
    good = in_order(summary)
    wait = summary["latency_ms"]
    out.print(
        f"{summary['committed_rows']:,} rows committed, {summary['landed_rows']:,} landed, "
        f"{summary['duplicates']} duplicates; {len(summary['caught'])} of {len(summary['planted'])} misbehaviours "
        f"caught, {len(summary['refused'])} of them refused before anything was done, "
        f"{summary['false_alerts']} false alerts; {summary['masked_cells']} masked cells read, "
        f"{summary['leaked_cells']} leaked; {summary['seconds']:.0f} s",
        style="bold green" if good else "bold red",
    )
    if wait["p50"] is not None:
        out.print(f"commit to alert: p50 {wait['p50']:,.0f} ms, p99 {wait['p99']:,.0f} ms (alerts from the WAL)")
    for problem in result.problems:
        out.print(visible(f"problem: {problem}"), style="red", markup=False)
    config = shlex.quote(str(place / "pgwitness.toml"))
    note = "" if kept else "; a temporary folder, --dir keeps it where you want it"
    out.print(f"\nEverything is in {place}{note}. Next:", soft_wrap=True)
    example = "SELECT * FROM timeline('support-agent') LIMIT 20"
    out.print(f'  {program()} sql --config {config} "{example}"', soft_wrap=True)
    out.print(f"  {program()} sql --config {config}", soft_wrap=True)
    kept_by_auditor = shlex.quote(str(place / CHECKPOINT))
    out.print(f"  {program()} verify --config {config} --checkpoint {kept_by_auditor}", soft_wrap=True)


def program() -> str:
    """Name this program as the user can type it: bare when it is on the PATH, else as it was started."""
    if shutil.which("pgwitness"):
        return "pgwitness"
    started = Path(sys.argv[0])
    return shlex.quote(os.path.relpath(started)) if started.name == "pgwitness" else "python -m pgwitness"


def _rows(lake: Path, query: str) -> list[dict[str, Any]]:
    from pgwitness.cli.sql import ask
    from sinks.sql.catalogue import connect

    connection = connect(lake)
    try:
        return [dict(row) for row in ask(connection, query)]
    finally:
        connection.close()


def _alert(alert: Mapping[str, Any]) -> dict[str, Any]:
    facts = alert["unmapped"]
    return {
        "severity": alert["severity"],
        "alert": alert["message"],
        "who": facts["principal"] or (f"role {facts['role']}" if facts["role"] else ""),
        "certainty": facts["certainty"],
        "policy": f"{facts['policy'] or 'behaviour'}{' (staged)' if facts['mode'] == 'staged' else ''}",
    }
