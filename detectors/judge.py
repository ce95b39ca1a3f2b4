"""The judge: an event in, a verdict out; policies and behaviour in one place.

Deterministic in its events: no clock, no randomness, so a replay from a snapshot gives the same verdicts. Total: an
event of any content is judged, and a policy that cannot be evaluated is an alert of its own. A transaction that comes
in parts is judged with its last one. `note` takes what the worker itself puts among the events: verdicts,
suppressions, and the time when nothing else tells it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from detectors import verdicts
from detectors.actions import Action, FactsOf, Parts, count, of_change, of_event
from detectors.alert import EVENT_IDS_MAX, Alert, alert_uid, finding_key
from detectors.behaviour import LEARNING, MODEL, ORDINARY, Behaviour
from detectors.correlation import Correlations
from detectors.evaluator import NONE, Evaluator, Matches, Novelty, set_novelty
from detectors.habits import Unusual, short
from detectors.ledger import Ledger, Occurrence
from detectors.policies import Bundle, Policy
from detectors.presence import Presence
from detectors.rhythm import SAMPLE, Finding
from detectors.sensitive import Sensitive
from detectors.triage import Triage
from detectors.wording import Seen, capitalized, show, who
from pgwitness import statements
from pgwitness.config import Behaviour as Settings
from pgwitness.config import Config
from pgwitness.errors import ConfigurationError, Stop
from pgwitness.events import OPERATIONS, Event

STATE_VERSION = 2
OLDEST_STATE = 1
"""States from this version on are read; what an older one does not have begins empty."""
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
_NOT_NEW = Novelty()
REFUSED = "policies_refused"
"""The `control` event by which a worker says that changed policies cannot be used."""
_WITH_ADDRESS = frozenset({"gateway", "beacon", "log", "activity"})
"""Bindings that tell the client's address; others leave it unknown, which is not a local socket."""


class Verdict(Struct, frozen=True):
    """What was found of one event. Callers do not change its lists, which are shared.

    `policies` are the ids that matched, staged ones too. `anomaly` is 0 to 1, None while the principal is still
    learned. `reasons` says in words what drove it. `alerts` are what goes to the topic now.
    """

    policies: list[str]
    anomaly: float | None
    reasons: list[dict[str, Any]]
    alerts: list[Alert]


_ORDINARY = Verdict([], 0.0, [], [])
_UNKNOWN = Verdict([], None, [], [])


class Judge:
    """Judges the events of one partition, in their order.

    `labels` are the clusters' labels by name. `behaviour` None leaves the model out. `sensitive` says which columns
    are. `facts_of` reads a statement where the event does not bring what the parser found. `triage` is its own:
    what stays quiet, digests, incidents.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        labels: Mapping[str, Mapping[str, str]],
        behaviour: Behaviour | None,
        sensitive: Sensitive | None = None,
        facts_of: FactsOf | None = statements.facts,
        triage: Triage | None = None,
    ) -> None:
        self.bundle = bundle
        self._evaluator = Evaluator(bundle)
        self._correlations = Correlations(bundle.plans())
        self.presence = Presence()
        self._sensitive = sensitive or Sensitive()
        self._labels = {cluster: dict(sorted(pairs.items())) for cluster, pairs in labels.items()}
        self._behaviour = behaviour
        self._settings = behaviour.settings if behaviour is not None else Settings()
        self._facts_of = facts_of
        self._findings: list[Finding] = []
        self._parts = Parts()
        self._ledger = Ledger()
        self._triage = triage or Triage()
        self._also: list[Alert] = []
        """Alerts that came of making room, to be told with the present event."""
        self._due_us = self.due_us

    @classmethod
    def from_config(cls, bundle: Bundle, config: Config) -> Judge:
        """Make the judge that a configuration describes; each partition of `events` has one of its own."""
        behaviour = Behaviour(config.behaviour) if config.behaviour.enabled else None
        labels = {name: cluster.labels for name, cluster in config.clusters.items()}
        return cls(
            bundle,
            labels=labels,
            behaviour=behaviour,
            sensitive=Sensitive.of(config.privacy),
            triage=Triage(config.triage),
        )

    def adopt(self, bundle: Bundle) -> None:
        """Judge by other policies from here on. What the same thresholds and sequences have seen goes on."""
        seen = self._correlations.snapshot()
        self.bundle = bundle
        self._evaluator = Evaluator(bundle)
        self._correlations = Correlations(bundle.plans())
        self._correlations.restore(seen)

    @property
    def due_us(self) -> int:
        """By which time in the records something is to be closed or told, whether or not another event comes."""
        return min(self._ledger.due_us, self._triage.digests.due_us)

    @property
    def suppressions(self) -> str:
        """The SHA-256 of the suppressions that hold."""
        return self._triage.suppressions.sha256

    def judge(self, event: Event) -> Verdict:
        """Judge one event; of a part that is not the last of its transaction nothing is said yet.

        Its alerts may be of others too: an event also says that time has passed. Windows close by it, and findings and
        digests that are due by its time of capture are told with it.
        """
        verdict = self._judge(event)
        due = event.captured_at_us >= self._due_us
        if not (due or self._findings or self._also):
            return verdict
        found, self._findings = self._findings, []
        alerts = [alert for finding in found if (alert := self._window_alert(finding))]
        if due or self._also:
            alerts += self._due(event.captured_at_us)
        return replace(verdict, alerts=[*verdict.alerts, *alerts])

    def note(self, event: Event) -> Verdict:
        """Take what the worker wrote among the events; gives what is to be told because of it."""
        alerts: list[Alert] = []
        if event.operation == "verdict":
            alerts = self._decided(event)
        elif event.operation == "suppressions_changed":
            content = event.detail.get("content")
            self._triage.suppress(content if isinstance(content, str) else "")
        return Verdict([], None, [], [*alerts, *self._due(event.captured_at_us)])

    def _due(self, now_us: int) -> list[Alert]:
        also, self._also = self._also, []
        closed = [self._close(uid, found, now_us) for uid, found in self._ledger.due(now_us)]
        digests = self._triage.digests.due(now_us)
        self._due_us = self.due_us
        return [*also, *closed, *digests]

    def _close(self, uid: str, found: Occurrence, now_us: int, resolution: dict[str, Any] | None = None) -> Alert:
        """Tell the end of a finding, on the topic if that has heard of it."""
        assert found.facts is not None
        alert = msgspec.json.decode(found.facts, type=Alert)
        return replace(
            alert,
            activity="close",
            count=found.count,
            first_seen_us=found.first_us,
            last_seen_us=found.last_us,
            event_ids=list(found.event_ids),
            suppressed_by=None if found.open else alert.suppressed_by,
            digest=not found.open and alert.digest,
            resolution=resolution,
            told_us=now_us,
        )

    def _decided(self, event: Event) -> list[Alert]:
        """Take a verdict that the worker has checked."""
        try:
            checked = msgspec.convert(event.detail.get("checked"), verdicts.Checked)
        except msgspec.ValidationError:
            return []
        said = checked.verdict
        if said is None:
            refused = self._refused(event, checked)
            return [] if refused is None else [refused]
        if not self._triage.decided(checked, event.captured_at_us):
            return []
        if said.verdict == "false-positive" and self._behaviour is not None:
            self._learn(said.learn)
        found = self._ledger.get(said.uid)
        if found is None or found.facts is None:
            return []
        resolution = {"as": said.verdict, "who": said.who, "why": said.why, "verdict": checked.id}
        alert = self._close(said.uid, found, event.captured_at_us, resolution)
        self._ledger.close(said.uid)
        return [alert]

    def _learn(self, facts: Mapping[str, Any]) -> None:
        """Let the habits of its principal take in an action that a reviewer calls ordinary."""
        assert self._behaviour is not None

        def text(name: str) -> str | None:
            value = facts.get(name)
            return value if isinstance(value, str) else None

        relations, rows = facts.get("relations"), facts.get("rows")
        relation = relations[0] if isinstance(relations, list) and len(relations) == 1 else None
        self._behaviour.learn(
            text("principal") or f"?{text('cluster') or ''}?{text('role') or ''}",
            operation=text("operation") or "",
            relation=relation if isinstance(relation, str) else None,
            rows=rows if isinstance(rows, int) else None,
            client_addr=text("client_addr"),
            application=text("application"),
        )

    def _refused(self, event: Event, checked: verdicts.Checked) -> Alert | None:
        """Make the finding that a verdict is not believed: somebody tried to keep an alert quiet."""
        claims = checked.claims
        whose = f"{claims.who} on {claims.title or claims.uid}" if claims is not None else "somebody"
        return self._alert(
            of_event(event, {}),
            detector="verdict_refused",
            key=checked.refused or "",
            window_us=HOUR_US,
            title="A verdict was refused",
            message=f"A verdict in the name of {whose[:200]} was refused: {checked.refused}",
            description="A record of the topic feedback is not what a listed reviewer signed, or may not say this.",
            severity="high",
            runbook=(
                "See who can write to the topic feedback. A reviewer's own verdict is refused when it has expired, "
                "goes beyond the reviewer's scopes or is signed with a key that [reviewers] does not list."
            ),
        )

    def _judge(self, event: Event) -> Verdict:
        if event.kind != "change":
            return self._other(event)
        counts = event.counts
        if event.last and event.part == 0:
            if len(counts) == 1:
                item = counts[0]
                table = event.relation_table
                name = table[item.relation].name if 0 <= item.relation < len(table) else "?"
                return self._one(event, name, OPERATIONS.get(item.operation, item.operation), item.rows)
            totals: dict[tuple[str, str], int] | None = count(event)
        else:
            totals = self._parts.counts(event)
        if totals is None:
            return _UNKNOWN
        if not totals:
            # A transaction without rows of ours can still be a finding of attribution.
            return self._one(event, "", event.operation or "", 0) if event.detail else _UNKNOWN
        return _join([self._one(event, *pair, rows) for pair, rows in totals.items()])

    def _one(self, event: Event, relation: str, operation: str, rows: int) -> Verdict:
        """Judge one operation of a transaction on one relation."""
        labels = self._labels.get(event.cluster, {})
        unusual = ORDINARY
        if self._behaviour is not None:
            unusual = self._observe(event, operation, relation, rows)
        ordinary = unusual is ORDINARY or unusual is LEARNING
        quiet_days = self.presence.seen(event.principal, event.occurred_at_us) if event.principal else 0
        novelty = _NOT_NEW if ordinary and not quiet_days else _novelty(unusual, quiet_days)
        matches = self._evaluator.change(event, relation, operation, rows, labels, novelty)
        if ordinary and matches is NONE:
            return _UNKNOWN if unusual is LEARNING or self._behaviour is None else _ORDINARY
        return self._verdict(lambda: of_change(event, relation, operation, rows, labels), matches, unusual, novelty)

    def _other(self, event: Event) -> Verdict:
        """Judge an event that is no change."""
        action = of_event(event, self._labels.get(event.cluster, {}), self._facts_of)
        if action.columns:
            action.sensitive = self._sensitive.among(action.columns, action.relations)
        quiet_days = self.presence.seen(event.principal, event.occurred_at_us) if event.principal else 0
        unusual = LEARNING
        if self._behaviour is not None and event.kind in ("session", "query_stats", "statement", "ddl"):
            relation = action.relations[0] if action.relations else None
            rows = action.rows_per_call if event.kind in ("query_stats", "statement") else None
            if event.kind != "session" or event.operation != "disconnect":
                unusual = self._observe(event, action.operation, relation, rows, action)
        novelty = _novelty(unusual, quiet_days)
        set_novelty(action, novelty)
        matches = self._evaluator.ask(action)
        if matches is NONE and (unusual is ORDINARY or unusual is LEARNING) and event.operation != REFUSED:
            return _UNKNOWN if unusual is LEARNING else _ORDINARY
        return self._verdict(lambda: action, matches, unusual, novelty)

    def _observe(
        self, event: Event, operation: str, relation: str | None, rows: int | None, action: Action | None = None
    ) -> Unusual:
        """Ask the behaviour model about an action, and count it in the windows of its principal."""
        assert self._behaviour is not None
        key = short(event.principal or f"?{event.cluster}?{event.role or ''}")
        address = application = statement = columns = None
        if event.binding in _WITH_ADDRESS:
            address, application = event.client_addr or "", event.application
        if action is not None:
            statement = action.fingerprint or None
            columns = ",".join(sorted(action.columns)) if action.columns else None
        unusual = self._behaviour.observe(
            key,
            event.peer_group,
            event.occurred_at_us,
            operation,
            relation,
            rows,
            address,
            application,
            statement,
            columns,
        )
        noted = unusual if unusual.reasons else None
        total = action.rows if action is not None else rows or 0
        if found := self._behaviour.rhythm.count(key, event, operation, relation, total, statement, noted):
            self._findings += found
        return unusual

    def _verdict(self, make: Callable[[], Action], matches: Matches, unusual: Unusual, novelty: Novelty) -> Verdict:
        action = make()
        set_novelty(action, novelty)
        found: list[tuple[Policy, Seen | None]] = [(policy, None) for policy in matches.matched]
        for policy, steps in matches.met:
            if seen := self._correlations.see(policy.id, steps, action):
                found.append((policy, seen))
        alerts = [alert for policy, seen in found if (alert := self._policy_alert(policy, action, unusual, seen))]
        alerts += [alert for policy, why in matches.failed if (alert := self._error_alert(policy, why, action))]
        if action.operation == REFUSED and action.kind == "control" and (alert := self._refused_alert(action)):
            alerts.append(alert)
        # What a policy found carries the score and its reasons already: one alert for one deed.
        alone = self._behaviour is not None and not found
        strange = alone and unusual.score >= self._settings.alert_at
        if strange and (alert := self._behaviour_alert(action, unusual)):
            alerts.append(alert)
        score = unusual.score if unusual is not LEARNING and self._behaviour is not None else None
        return Verdict([policy.id for policy, _ in found], score, _recorded(unusual), alerts)

    def _policy_alert(self, policy: Policy, action: Action, unusual: Unusual, seen: Seen | None) -> Alert | None:
        document = policy.document
        return self._alert(
            action,
            detector=f"policy:{policy.id}",
            key=policy.key(action),
            window_us=policy.window_us,
            title=document.title,
            message=policy.message(action, seen),
            description=document.description,
            severity=document.severity,
            runbook=document.runbook,
            attack=document.attack,
            policy=policy.id,
            bundle_sha256=self.bundle.sha256,
            anomaly=unusual.score if unusual is not LEARNING and self._behaviour is not None else None,
            reasons=unusual.reasons,
            staged=document.mode == "staged",
            seen=seen,
            respond=document.respond,
        )

    def _error_alert(self, policy: Policy, why: str, action: Action) -> Alert | None:
        return self._alert(
            action,
            detector=f"policy_error:{policy.id}",
            key=action.kind,
            window_us=HOUR_US,
            title="A policy could not be evaluated",
            message=f"Policy {policy.id} could not judge an action of kind {action.kind}: {why}",
            description="What this policy looks for goes unseen until it is corrected.",
            severity="medium",
            runbook="Correct the policy's `when`, add the action as a test and run `pgwitness policy test`.",
            policy=policy.id,
            bundle_sha256=self.bundle.sha256,
        )

    def _refused_alert(self, action: Action) -> Alert | None:
        return self._alert(
            action,
            detector="policy_error:bundle",
            key=show(action.detail.get("host")),
            window_us=HOUR_US,
            title="Changed policies cannot be used",
            message=f"The policies were changed and cannot be used: {show(action.detail.get('error'))}",
            description="The last good policies go on judging; what was changed has no effect until then.",
            severity="high",
            runbook="Run `pgwitness policy check` and `pgwitness policy test`, and correct what they name.",
            policy=REFUSED,
            bundle_sha256=self.bundle.sha256,
        )

    def _behaviour_alert(self, action: Action, unusual: Unusual) -> Alert | None:
        main = unusual.reasons[0]["feature"]
        words = "; ".join(reason["words"] for reason in unusual.reasons[:3])
        return self._alert(
            action,
            detector="behaviour",
            key="\0".join((action.cluster, action.principal, action.role, main)),
            window_us=DAY_US,
            title="Unusual behaviour of a principal",
            message=capitalized(f"{who(action)} did what is unusual for it: {words}"),
            description="The action differs from what this principal, or its peer group, has done so far.",
            severity="low",
            runbook="Look at the evidence; ask the principal's owner when no change of duty explains it.",
            model=MODEL,
            anomaly=unusual.score,
            reasons=unusual.reasons,
        )

    def _window_alert(self, finding: Finding) -> Alert | None:
        """Make the alert of a window that was out of the ordinary; its evidence are its most telling events."""
        window = finding.window
        facts = dict(zip(SAMPLE, window.sample, strict=False))
        operation, relation, rows = window.sample[len(SAMPLE) :]
        action = Action(
            **{name: fact for name, fact in facts.items() if fact is not None},
            labels=self._labels.get(facts["cluster"], {}),
            operation=operation,
            relations=[relation] if relation is not None else [],
            rows=rows,
        )
        main = finding.reasons[0]["feature"] if finding.reasons else ""
        words = "; ".join(reason["words"] for reason in finding.reasons[:3])
        seen = Seen(window.actions, window.first_us, window.last_us, tuple(window.event_ids))
        return self._alert(
            action,
            detector="behaviour",
            key=f"{action.cluster}\0{finding.who}\0{main}",
            window_us=DAY_US,
            title="Unusual activity of a principal",
            message=capitalized(f"{who(action)} departed from its routine: {words}"),
            description=f"What it did in {finding.length.words} differs from what it, and its peer group, usually do.",
            severity="medium" if finding.score >= self._settings.medium_at else "low",
            runbook="Look at the evidence; ask the principal's owner when no change of duty explains it.",
            model=MODEL,
            anomaly=finding.score,
            reasons=finding.reasons,
            seen=seen,
        )

    def _alert(
        self, action: Action, *, detector: str, key: str, window_us: int, seen: Seen | None = None, **facts: Any
    ) -> Alert | None:
        """Record a finding; gives the alert when this occurrence is worth telling.

        What a threshold or sequence has `seen` is evidence of the finding too.
        """
        start_us = action.occurred_at_us // window_us * window_us
        uid = alert_uid(detector, key, start_us)
        same = finding_key(detector, key)
        triage = self._triage
        suppressed_by = triage.quiet(detector.removeprefix("policy:"), same, action)
        found = self._ledger.record(
            uid,
            action.occurred_at_us,
            action.event_id,
            window_end_us=start_us + window_us,
            captured_at_us=action.captured_at_us,
            suppressed=suppressed_by is not None,
        )
        if not found.worth_telling:
            return None
        event_ids = list(found.event_ids)
        if seen is not None:
            event_ids = list(dict.fromkeys([*seen.event_ids, *event_ids]))[-EVENT_IDS_MAX:]
        alone = detector == "behaviour"
        digest = alone and suppressed_by is None and triage.waits(same, action)
        quiet = digest or suppressed_by is not None
        first = found.count == 1 if quiet else not found.told
        aside = facts.get("staged", False) or suppressed_by is not None
        alert = Alert(
            uid=uid,
            detector=detector,
            action=action,
            count=found.count,
            first_seen_us=found.first_us if seen is None else min(found.first_us, seen.first_us),
            last_seen_us=found.last_us if seen is None else max(found.last_us, seen.last_us),
            event_ids=event_ids,
            activity="create" if first else "update",
            finding_key=same,
            incident=None if aside else triage.incident(action, begin=not alone),
            suppressed_by=suppressed_by,
            digest=digest,
            **facts,
        )
        if not quiet:
            found.told = found.open = True
        self._ledger.keep(uid, alert.kept())
        if digest:
            self._also += triage.collect(alert)
        for other, made_room in self._ledger.room():
            self._also.append(self._close(other, made_room, action.captured_at_us))
        self._due_us = self.due_us
        return alert

    def snapshot(self) -> bytes:
        """Give the whole state as JSON; with `restore` the verdicts go on as if nothing had happened."""
        state = {
            "version": STATE_VERSION,
            "parts": self._parts.snapshot(),
            "ledger": self._ledger.snapshot(),
            "behaviour": None if self._behaviour is None else self._behaviour.snapshot(),
            "bundle": self.bundle.canonical(),
            "correlations": self._correlations.snapshot(),
            "presence": self.presence.snapshot(),
            "triage": self._triage.snapshot(),
        }
        return msgspec.json.encode(state)

    def restore(self, data: bytes) -> None:
        """Take a snapshot's state, and go on by the policies in it. Raises `Stop` when it cannot be read."""
        try:
            read = msgspec.json.decode(data)
            if not OLDEST_STATE <= read["version"] <= STATE_VERSION:
                raise ValueError(f"version {read['version']}, this program reads {OLDEST_STATE} to {STATE_VERSION}")
            if (recorded := read.get("bundle")) and recorded != self.bundle.canonical():
                self.adopt(self._known_bundle(recorded))
            self._correlations.restore(read.get("correlations", []))
            self.presence.restore(read.get("presence", [[], []]))
            self._parts.restore(read["parts"])
            self._ledger.restore(read["ledger"])
            if self._behaviour is not None and read["behaviour"] is not None:
                self._behaviour.restore(read["behaviour"])
            if "triage" in read:  # not in the checkpoints of the first release
                self._triage.restore(read["triage"])
            self._due_us = self.due_us
        except (msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise Stop(
                f"the judge's checkpoint cannot be read ({error}): run the release that wrote it, "
                "or delete the records of topic state-judge to learn all habits anew"
            ) from error

    def _known_bundle(self, recorded: str) -> Bundle:
        """Read the policies of a checkpoint; those of a release that knew other names give way to the present ones."""
        try:
            return Bundle.from_canonical(recorded)
        except ConfigurationError:
            return self.bundle


def _novelty(unusual: Unusual, quiet_days: int) -> Novelty:
    return Novelty(
        unusual.new_client_addr,
        unusual.new_application,
        unusual.new_relation,
        max(0.0, unusual.score),
        quiet_days,
    )


def _recorded(unusual: Unusual) -> list[dict[str, Any]]:
    """Give the reasons as the lake keeps them: `new` marks what policies were told is new."""
    new = {
        "client_addr": unusual.new_client_addr,
        "application": unusual.new_application,
        "relation": unusual.new_relation,
    }
    return [reason | {"new": True} if new.get(reason["feature"]) else reason for reason in unusual.reasons]


def _join(verdicts: list[Verdict]) -> Verdict:
    """Make one verdict of a transaction's actions: everything that matched, and the most unusual of them."""
    if len(verdicts) == 1:
        return verdicts[0]
    if all(verdict is _ORDINARY for verdict in verdicts):
        return _ORDINARY
    scored = [verdict for verdict in verdicts if verdict.anomaly is not None]
    worst = max(scored, key=lambda verdict: verdict.anomaly or 0.0) if scored else _UNKNOWN
    return Verdict(
        list(dict.fromkeys(policy for verdict in verdicts for policy in verdict.policies)),
        worst.anomaly,
        worst.reasons,
        [alert for verdict in verdicts for alert in verdict.alerts],
    )
