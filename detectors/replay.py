"""Policies over past evidence: what they find now, compared with what was found when it happened. Pure.

Each partition of `events` is judged by a judge of its own, in its order, as the worker does; so thresholds and
sequences see what they would have seen. What the lake does not hold comes from elsewhere, and the difference says so:
what the behaviour model found new or unusual is taken as it was recorded then, not computed again; labels and sensitive
columns are those of the present configuration; before the first evidence there is no history.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from detectors.actions import Action, of_event
from detectors.behaviour.habits import Unusual
from detectors.behaviour.model import Behaviour
from detectors.behaviour.scoring import LEARNING
from detectors.judge import Judge
from detectors.judgement import Judgement
from detectors.policy.policies import Bundle
from detectors.sensitive import Sensitive
from detectors.wording import render
from pgwitness.core.config import Config
from pgwitness.core.events import Event

SAMPLES_MAX = 3
_OF_MODEL = {"new.client_addr", "new.application", "new.relation", "anomaly"}
_REMOVED = "{who}: {operation} on {what}, {rows} rows"


class Past(Struct, frozen=True):
    """One event as the lake holds it, and what was said of it then. `partition` is that of `events`."""

    partition: str
    event: Event
    policies: tuple[str, ...]
    anomaly: float | None
    reasons: list[dict[str, Any]]


class Sample(Struct, frozen=True):
    """One event on which the verdicts differ."""

    event_id: str
    at: str
    sentence: str


class PolicyDifference(Struct, frozen=True):
    """One policy: events that only it now finds (`added`), that were only found then (`removed`), and both (`same`)."""

    policy: str
    severity: str
    added: int
    removed: int
    same: int
    samples_added: list[Sample]
    samples_removed: list[Sample]
    note: str = ""


class Difference(Struct, frozen=True):
    """What a replay found, policy by policy."""

    since: str
    until: str | None
    bundle_sha256: str
    actions: int
    policies: list[PolicyDifference]


class _Tally:
    def __init__(self) -> None:
        self.added = self.removed = self.same = 0
        self.samples_added: list[Sample] = []
        self.samples_removed: list[Sample] = []


class PastJudge(Judge):
    """A judge that is given what the behaviour model said then."""

    recorded: Unusual = LEARNING

    def _observe(
        self, event: Event, operation: str, relation: str | None, rows: int | None, action: Action | None = None
    ) -> Unusual:
        return self.recorded


class Replay:
    """One run over past evidence: `take` each event in its order, then ask for the `difference`.

    Evidence is needed from `from_us` on, which is before `since_us` by the longest window of the bundle; what happened
    before `since_us` is judged and not counted.
    """

    def __init__(self, bundle: Bundle, config: Config, since_us: int, until_us: int | None = None) -> None:
        self._bundle = bundle
        self._config = config
        self._since_us = since_us
        self._until_us = until_us
        self.from_us = since_us - max((plan.window_us for plan in bundle.plans()), default=0)
        self._judges: dict[str, PastJudge] = {}
        self._last_seen: Mapping[str, int] = {}
        self._tallies = {policy: _Tally() for policy in bundle.policies}
        self._actions = 0

    def remember(self, last_seen: Mapping[str, int]) -> None:
        """Take when each principal was last seen before the evidence begins, in microseconds."""
        self._last_seen = last_seen

    def take(self, past: Past) -> Judgement:
        """Judge one event and compare; return the new judgement."""
        judge = self._judges.get(past.partition)
        if judge is None:
            judge = self._judges[past.partition] = self._judge()
        judge.recorded = recorded(past)
        event = past.event
        judgement = judge.judge(event)
        if event.occurred_at_us < self._since_us:
            return judgement
        self._actions += 1
        now, then = set(judgement.policies), set(past.policies)
        for policy in sorted(now | then):
            tally = self._tallies.setdefault(policy, _Tally())
            if policy in now and policy in then:
                tally.same += 1
            elif policy in now:
                tally.added += 1
                if len(tally.samples_added) < SAMPLES_MAX:
                    message = next((alert.message for alert in judgement.alerts if alert.policy == policy), None)
                    tally.samples_added.append(self._sample(event, message))
            else:
                tally.removed += 1
                if len(tally.samples_removed) < SAMPLES_MAX:
                    tally.samples_removed.append(self._sample(event, None))
        return judgement

    def difference(self) -> Difference:
        """Return what was found so far."""
        return Difference(
            since=_iso(self._since_us),
            until=None if self._until_us is None else _iso(self._until_us),
            bundle_sha256=self._bundle.sha256,
            actions=self._actions,
            policies=[self._of(policy, tally) for policy, tally in sorted(self._tallies.items())],
        )

    def _judge(self) -> PastJudge:
        labels = {name: cluster.labels for name, cluster in self._config.clusters.items()}
        sensitive = Sensitive.of(self._config.privacy)
        judge = PastJudge(self._bundle, labels=labels, behaviour=Behaviour(self._config.behaviour), sensitive=sensitive)
        judge.presence.seed(self._last_seen)
        return judge

    def _sample(self, event: Event, sentence: str | None) -> Sample:
        if sentence is None:
            action = of_event(event, {})
            if event.kind == "change":
                action.relations = [relation.name for relation in event.relation_table]
                action.rows = event.n_rows
            sentence = render(_REMOVED, action)
        return Sample(event.event_id, _iso(event.occurred_at_us), sentence)

    def _of(self, name: str, tally: _Tally) -> PolicyDifference:
        policy = self._bundle.policies.get(name)
        notes = []
        if policy is None:
            notes.append("not among these policies")
        else:
            if policy.paths & _OF_MODEL:
                notes.append("new and anomaly as the model said then")
            if policy.plan is not None:
                notes.append(f"counts from {_iso(self.from_us)} on")
        return PolicyDifference(
            policy=name,
            severity=policy.document.severity if policy else "",
            added=tally.added,
            removed=tally.removed,
            same=tally.same,
            samples_added=tally.samples_added,
            samples_removed=tally.samples_removed,
            note="; ".join(notes),
        )


def recorded(past: Past) -> Unusual:
    """Return what the behaviour model said of an event, from what the lake keeps of it."""
    if past.anomaly is None:
        return LEARNING
    new = {reason.get("feature") for reason in past.reasons if reason.get("new") is True}
    return Unusual(
        past.anomaly,
        past.reasons,
        new_client_addr="client_addr" in new,
        new_application="application" in new,
        new_relation="relation" in new,
    )


def _iso(time_us: int) -> str:
    try:
        return datetime.fromtimestamp(time_us / 1_000_000, UTC).isoformat(sep=" ", timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return str(time_us)
