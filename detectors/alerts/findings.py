"""From reports to alerts: which occurrence of a finding is emitted, as what, and when its end is.

`Findings` counts what is reported (`detectors.alerts.ledger`), asks what is suppressed, waits for a digest or
belongs to an incident (`detectors.alerts.triage`), and gives the alerts that are to be emitted now. Deterministic,
bounded by its two parts.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec
from msgspec.structs import replace

from detectors.actions import UNDONE, Action
from detectors.alerts.alert import EVENT_IDS_MAX, Alert, alert_uid, finding_key
from detectors.alerts.ledger import Ledger, Occurrence
from detectors.alerts.reports import Report
from detectors.alerts.triage import Triage
from detectors.alerts.verdicts import Checked
from pgwitness.core.undo import Undo

Resolution = dict[str, Any]
_WHY_UNDONE = {
    "rolled_back": "its transaction was rolled back",
    "failure": "it failed",
    "denied": "it was denied",
}
TOGETHER_US = 600_000_000
"""How long after its last occurrence what the same session does belongs to a finding (`Report.together`)."""
TOGETHER_MAX = 1_000
UNDECIDED_MAX = 500
"""Actions that were reported before their outcome was known, of which it is known what was reported."""
RELATIONS_MAX = 100
"""Relations of such a finding that are known; each of these is emitted, of however many occurrences it is one."""


class Findings:
    """The findings of one judge."""

    def __init__(self, triage: Triage | None = None, undo: Undo | None = None) -> None:
        self.triage = triage or Triage()
        self._undo = undo or Undo()
        self._ledger = Ledger()
        self._also: list[Alert] = []
        """Alerts that came of eviction, to be emitted with the present event."""
        self._ended: list[tuple[str, Occurrence]] = []
        """Findings that have ended, until their end is emitted."""
        self._together: OrderedDict[str, tuple[str, tuple[str, ...]]] = OrderedDict()
        """By what occurrences share the finding that they belong to, and the relations that it was reported for."""
        self._undecided: OrderedDict[str, dict[str, str | None]] = OrderedDict()
        """By the event whose outcome is not known, the findings that counted it, each with its alert as it is kept."""
        self._due_us = self.due_us

    @property
    def due_us(self) -> int:
        """By which time in the records something is to be closed or reported, whether or not another event comes."""
        return min(self._ledger.due_us, self.triage.digests.due_us)

    def waiting(self, now_us: int) -> bool:
        """Return whether `due` has something to give."""
        return now_us >= self._due_us or bool(self._also) or bool(self._ended)

    def due(self, now_us: int) -> list[Alert]:
        """Return what is due by a time in the records: ends of findings, digests, and what was evicted."""
        self._ended += self._ledger.due(now_us)
        while self._ended:  # one that cannot be emitted must not take the others with it
            self._also.append(self._close(*self._ended.pop(0), now_us))
        self._also += self.triage.digests.due(now_us)
        also, self._also = self._also, []
        self._due_us = self.due_us
        return also

    def report(self, action: Action, report: Report) -> Alert | None:
        """Record an occurrence of a finding; return the alert when it makes a record."""
        start_us = action.occurred_at_us // report.window_us * report.window_us
        uid, relations, further = self._joined(report, action, alert_uid(report.detector, report.key, start_us))
        same = finding_key(report.detector, report.key)
        triage = self.triage
        suppressed_by = triage.suppressed_by(report.detector.removeprefix("policy:"), same, action)
        self._undo.add(self._ledger.keeping(uid))
        found = self._ledger.record(
            uid,
            action.occurred_at_us,
            action.event_id,
            window_end_us=start_us + report.window_us,
            captured_at_us=action.captured_at_us,
            suppressed=suppressed_by is not None,
            settles=action.detail.get("settles"),
        )
        undecided = action.kind == "statement" and action.outcome in ("pending", "unknown")
        if undecided:
            self._note_undecided(action.event_id, uid, None)
        if not (found.makes_record or further):
            return None
        alone = report.detector == "behaviour"
        standing = report.standing if alone and suppressed_by is None else None
        if len(relations) > 1:
            action = replace(action, relations=list(relations))
        alert = _alert(action, report, found, uid, same)
        in_crowd, crowd = triage.crowd(alert, standing) if standing is not None else (False, None)
        digest = alone and suppressed_by is None and (in_crowd or triage.waits(same, action, standing))
        lake_only = digest or suppressed_by is not None
        first = found.count == 1 if lake_only else not found.emitted
        aside = report.staged or suppressed_by is not None
        alert.activity = "create" if first else "update"
        alert.settled = action.detail.get("settles") in found.event_ids
        alert.incident = None if aside else triage.incident(action, begin=not alone)
        alert.suppressed_by = suppressed_by
        alert.digest = digest
        if not lake_only:
            if standing is not None and not found.emitted:
                triage.budget.spend(standing)
            found.emitted = found.open = True
        if crowd is not None:
            self._also.append(crowd)
        kept = alert.kept()
        self._ledger.keep(uid, kept)
        if undecided:
            self._note_undecided(action.event_id, uid, kept.decode())
        if digest and not in_crowd:
            self._also += triage.collect(alert)
        for other, evicted in self._ledger.evict():
            self._also.append(self._close(other, evicted, action.captured_at_us))
        self._due_us = self.due_us
        return alert

    def _joined(self, report: Report, action: Action, uid: str) -> tuple[str, tuple[str, ...], bool]:
        """Return the finding that an occurrence belongs to, its own or one that its session has begun.

        With it come the relations of that finding, and whether this occurrence has brought one.
        """
        if not report.together:
            return uid, (), False
        before = self._together.pop(report.together, None)
        joined, relations = before or (uid, ())
        found = self._ledger.get(joined)
        if found is None or abs(action.occurred_at_us - found.last_us) > TOGETHER_US:
            joined, relations = uid, ()
        elif self._ledger.get(uid) is not None:
            joined = uid  # which another session has begun, or this one before
        fresh = [name for name in dict.fromkeys(action.relations) if name not in relations]
        now = (*relations, *fresh)[:RELATIONS_MAX]
        self._together[report.together] = (joined, now)
        while len(self._together) > TOGETHER_MAX:
            self._together.popitem(last=False)
        self._undo.add(lambda: self._put_back(report.together, before))
        return joined, now, len(now) > len(relations)

    def _put_back(self, together: str, before: tuple[str, tuple[str, ...]] | None) -> None:
        self._together.pop(together, None)
        if before is not None:
            self._together[together] = before

    def _note_undecided(self, event_id: str, uid: str, facts: str | None) -> None:
        before = self._undecided.get(event_id)
        self._undecided[event_id] = {**(before or {}), uid: facts}
        while len(self._undecided) > UNDECIDED_MAX:
            self._undecided.popitem(last=False)
        self._undo.add(lambda: self._put_back_undecided(event_id, before))

    def _put_back_undecided(self, event_id: str, before: dict[str, str | None] | None) -> None:
        self._undecided.pop(event_id, None)
        if before is not None:
            self._undecided[event_id] = before

    def settle(self, event_id: str, outcome: str, now_us: int) -> list[Alert]:
        """Take the outcome of an action that was reported before it was known; return what is to be emitted of it.

        What was undone did not happen: a finding of nothing else is closed, of others it is counted no more.
        """
        counted = self._undecided.get(event_id)
        if counted is None or outcome == "unknown":
            return []
        self._undo.add(lambda: self._put_back_undecided(event_id, counted))
        del self._undecided[event_id]
        if outcome not in UNDONE:
            return []
        alerts = (self._take_back(uid, event_id, facts, outcome, now_us) for uid, facts in counted.items())
        return [alert for alert in alerts if alert is not None]

    def _take_back(self, uid: str, event_id: str, facts: str | None, outcome: str, now_us: int) -> Alert | None:
        self._undo.add(self._ledger.keeping(uid))
        found = self._ledger.take_back(uid, event_id)
        if found is None:
            return None
        kept = found.facts if found.facts is not None else facts.encode() if facts is not None else None
        if kept is None:
            return None
        left = found.count - found.taken_back
        over = left <= 0 or found.facts is None
        resolution = None
        if left <= 0:
            resolution = {"as": outcome, "who": "pgwitness", "why": _WHY_UNDONE[outcome], "verdict": None}
        alert = self._record(kept, found, now_us, resolution)
        if resolution is not None:
            alert.message = f"Did not happen, {resolution['why']}: {alert.message}"
        if over:
            self._ledger.close(uid)
            return alert
        return replace(alert, activity="update", settled=True)

    def decide(self, checked: Checked, now_us: int) -> tuple[bool, list[Alert]]:
        """Take a verdict that is believed; says whether it is news, and return the end of the finding that it decides.

        The finding goes on being counted.
        """
        verdict = checked.verdict
        if verdict is None or not self.triage.decided(checked, now_us):
            return False, []
        found = self._ledger.get(verdict.uid)
        if found is None or found.facts is None:
            return True, []
        resolution = {"as": verdict.verdict, "who": verdict.who, "why": verdict.why, "verdict": checked.id}
        alert = self._close(verdict.uid, found, now_us, resolution)
        self._ledger.close(verdict.uid)
        return True, [alert]

    def _close(self, uid: str, found: Occurrence, now_us: int, resolution: Resolution | None = None) -> Alert:
        """Return the end of a finding, for the topic if that has had it."""
        assert found.facts is not None
        return self._record(found.facts, found, now_us, resolution)

    def _record(self, facts: bytes, found: Occurrence, now_us: int, resolution: Resolution | None) -> Alert:
        alert = msgspec.json.decode(facts, type=Alert)
        return replace(
            alert,
            activity="close",
            count=found.count - found.taken_back,
            taken_back=found.taken_back,
            first_seen_us=found.first_us,
            last_seen_us=found.last_us,
            event_ids=list(found.event_ids),
            suppressed_by=None if found.open else alert.suppressed_by,
            digest=not found.open and alert.digest,
            resolution=resolution,
            emitted_us=now_us,
        )

    def snapshot(self) -> tuple[list[Any], dict[str, Any]]:
        """Return the state as JSON values: of the ledger, and of triage."""
        own: dict[str, Any] = {"together": list(self._together.items())}
        if self._undecided:
            own["undecided"] = list(self._undecided.items())
        return self._ledger.snapshot(), {**self.triage.snapshot(), **own}

    def restore(self, ledger: list[Any], triage: dict[str, Any] | None) -> None:
        """Take a snapshot's state; checkpoints of the first release have nothing for triage."""
        self._ledger.restore(ledger)
        if triage is not None:
            self.triage.restore(triage)
            self._together = OrderedDict((key, (uid, tuple(names))) for key, (uid, names) in triage.get("together", []))
            self._undecided = OrderedDict((event, dict(counted)) for event, counted in triage.get("undecided", []))
        self._due_us = self.due_us


def _alert(action: Action, report: Report, found: Occurrence, uid: str, same: str) -> Alert:
    seen = report.seen
    event_ids = list(found.event_ids)
    first_us, last_us = found.first_us, found.last_us
    if seen is not None:
        event_ids = list(dict.fromkeys([*seen.event_ids, *event_ids]))[-EVENT_IDS_MAX:]
        first_us, last_us = min(first_us, seen.first_us), max(last_us, seen.last_us)
    return Alert(
        uid=uid,
        detector=report.detector,
        title=report.title,
        message=report.message,
        description=report.description,
        severity=report.severity,
        runbook=report.runbook,
        action=action,
        count=found.count - found.taken_back,
        taken_back=found.taken_back,
        first_seen_us=first_us,
        last_seen_us=last_us,
        event_ids=event_ids,
        attack=report.attack,
        policy=report.policy,
        bundle_sha256=report.bundle_sha256,
        model=report.model,
        anomaly=report.anomaly,
        reasons=report.reasons,
        staged=report.staged,
        finding_key=same,
        respond=report.respond,
    )
