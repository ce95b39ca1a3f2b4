"""The judge: an event in, a verdict out; policies and behaviour in one place.

Deterministic in its events: no clock, no randomness, so a replay from a snapshot gives the same verdicts. Total: an
event of any content is judged, and a policy that cannot be evaluated is an alert of its own. A transaction that comes
in parts is judged with its last one. `note` takes what the worker itself puts among the events: verdicts,
suppressions, and the time when nothing else says it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from detectors import builtin, judgement
from detectors.actions import Action, FactsOf, Parts, count, of_change, of_event
from detectors.alerts import reports
from detectors.alerts.alert import Alert
from detectors.alerts.findings import Findings
from detectors.alerts.triage import Triage
from detectors.alerts.verdicts import Checked
from detectors.behaviour.habits import Unusual, short
from detectors.behaviour.model import Behaviour
from detectors.behaviour.presence import Presence
from detectors.behaviour.scoring import LEARNING, ORDINARY
from detectors.behaviour.unusual_window import SAMPLE, UnusualWindow
from detectors.builtin.found import Found
from detectors.judgement import UNKNOWN, Incomplete, Judgement
from detectors.policy.correlation import Correlations
from detectors.policy.evaluator import NONE, Evaluator, Matches, Novelty, set_novelty
from detectors.policy.policies import Bundle
from detectors.policy.policy import Policy
from detectors.sensitive import Sensitive
from detectors.vocabulary import KINDS
from detectors.wording import Seen
from pgwitness.core.config import Behaviour as Settings
from pgwitness.core.config import Config
from pgwitness.core.errors import ConfigurationError, Stop
from pgwitness.core.events import OPERATIONS, Event
from pgwitness.core.sql import statements
from pgwitness.core.undo import Undo

STATE_VERSION = 2
OLDEST_STATE = 1
"""States from this version on are read; what an older one does not have begins empty."""
_NOT_NEW = Novelty()
REPLICATION = "(replication)"
"""What the connections of replication count as, in the place of a relation."""
_WITH_ADDRESS = frozenset({"gateway", "beacon", "log", "activity"})
"""Bindings that give the client's address; others leave it unknown, which is not a local socket."""


class Judge:
    """Judges the events of one partition, in their order.

    `labels` are the clusters' labels by name. `behaviour` None leaves the model out. `sensitive` says which columns
    are. `facts_of` reads a statement where the event does not bring what the parser found. `triage` is its own:
    what is suppressed, digests, incidents.
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
        self._undo = Undo()
        self._evaluator = Evaluator(bundle)
        self._correlations = Correlations(bundle.plans(), self._undo)
        self.presence = Presence(self._undo)
        self._sensitive = sensitive or Sensitive()
        self._labels = {cluster: dict(sorted(pairs.items())) for cluster, pairs in labels.items()}
        self._behaviour = behaviour
        self._settings = behaviour.settings if behaviour is not None else Settings()
        self._facts_of = facts_of
        self._windows: list[UnusualWindow] = []
        """Windows that closed with the present event and were out of the ordinary."""
        self._parts = Parts()
        self._findings = Findings(triage, self._undo)
        self._builtin = builtin.make()
        self._asked: dict[str, list[builtin.AnyDetector]] = {
            kind: [detector for detector in self._builtin.values() if kind in detector.kinds] for kind in KINDS
        }

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
        self._correlations = Correlations(bundle.plans(), self._undo)
        self._correlations.restore(seen)

    @property
    def due_us(self) -> int:
        """By which time in the records something is to be closed or reported, whether or not another event comes."""
        return self._findings.due_us

    @property
    def suppressions(self) -> str:
        """The SHA-256 of the suppressions that hold."""
        return self._findings.triage.suppressions.sha256

    def judge(self, event: Event) -> Judgement:
        """Judge one event; of a part that is not the last of its transaction nothing is said yet.

        Its alerts may be of others too: an event also says that time has passed. Windows close by it, and findings and
        digests that are due by its time of capture come with it. Should judging fail, what decides whether a finding is
        emitted is as if the event had not come (`pgwitness.core.undo`): the next occurrence is emitted as the first.
        Habits and windows keep it, for it did happen; what was new stays new, until it was adopted. Should what is due
        fail, `Incomplete` brings the judgement of the event, and the one thing that cannot be emitted is left out.
        """
        self._undo.begin()
        try:
            judged = self._judge(event)
        except Exception:
            self._undo.back()
            raise
        now_us = event.captured_at_us
        absent = self._correlations.is_due(event.cluster, now_us)
        if not (absent or self._windows or self._findings.waiting(now_us)):
            return judged
        return replace(judged, alerts=[*judged.alerts, *self._due(event, judged)])

    def _due(self, event: Event, judged: Judgement) -> list[Alert]:
        """Return the alerts of windows that have closed, and of findings and digests that are due. Raise
        `Incomplete`."""
        alerts: list[Alert] = []
        try:
            while self._windows:
                self._undo.begin()
                if alert := self._window(self._windows.pop(0)):
                    alerts.append(alert)
            self._undo.begin()
            alerts += self._absent(event)
            self._undo.begin()
            alerts += self._findings.due(event.captured_at_us)
        except Exception as error:
            self._undo.back()
            raise Incomplete(replace(judged, alerts=[*judged.alerts, *alerts])) from error
        return alerts

    def note(self, event: Event) -> Judgement:
        """Take what the worker wrote among the events; return what is to be emitted because of it."""
        alerts: list[Alert] = []
        if event.operation == "verdict":
            alerts = self._decided(event)
        elif event.operation == "suppressions_changed":
            content = event.detail.get("content")
            self._findings.triage.suppress(content if isinstance(content, str) else "")
        return Judgement([], None, [], [*alerts, *self._findings.due(event.captured_at_us)])

    def _decided(self, event: Event) -> list[Alert]:
        """Take a verdict that the worker has checked."""
        try:
            checked = msgspec.convert(event.detail.get("checked"), Checked)
        except msgspec.ValidationError:
            return []
        verdict = checked.verdict
        if verdict is None:
            refused = self._findings.report(of_event(event, {}), reports.of_refused_verdict(checked))
            return [] if refused is None else [refused]
        is_news, ended = self._findings.decide(checked, event.captured_at_us)
        if is_news and verdict.verdict == "false-positive" and self._behaviour is not None:
            self._learn(verdict.learn)
        return ended

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

    def _judge(self, event: Event) -> Judgement:
        self._correlations.begin(event.captured_at_us)
        if event.kind != "change":
            return self._settled(event) if "settles" in event.detail else self._other(event)
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
            return UNKNOWN
        if not totals:
            # A transaction without rows of ours can still be a finding of attribution.
            return self._one(event, "", event.operation or "", 0) if event.detail else UNKNOWN
        return judgement.join([self._one(event, *pair, rows) for pair, rows in totals.items()])

    def _one(self, event: Event, relation: str, operation: str, rows: int) -> Judgement:
        """Judge one operation of a transaction on one relation."""
        labels = self._labels.get(event.cluster, {})
        unusual = ORDINARY
        if self._behaviour is not None:
            unusual = self._observe(event, operation, relation, rows)
        ordinary = unusual is ORDINARY or unusual is LEARNING
        quiet_days = self.presence.seen(event.principal, event.occurred_at_us) if event.principal else 0
        novelty = _NOT_NEW if ordinary and not quiet_days else _novelty(unusual, quiet_days)
        matches = self._evaluator.change(event, relation, operation, rows, labels, novelty)
        if ordinary and matches is NONE and not self._asked["change"]:
            return UNKNOWN if unusual is LEARNING or self._behaviour is None else judgement.ORDINARY
        return self._report(lambda: of_change(event, relation, operation, rows, labels), matches, unusual, novelty)

    def _settled(self, event: Event) -> Judgement:
        """Judge an action of which the outcome was not known at first; what was undone is taken back before."""
        settles = str(event.detail["settles"])
        # Several actions together count it by its outcome, so once.
        self._correlations.take_back(settles, of_event(event, self._labels.get(event.cluster, {}), self._facts_of))
        alerts = self._findings.settle(settles, event.outcome, event.captured_at_us)
        judged = self._other(event)
        return replace(judged, alerts=[*alerts, *judged.alerts]) if alerts else judged

    def _other(self, event: Event) -> Judgement:
        """Judge an event that is no change; what is proven to be a command's of pgwitness has announced itself."""
        if event.detail.get("own") is True:
            return UNKNOWN
        action = of_event(event, self._labels.get(event.cluster, {}), self._facts_of)
        if action.read_columns:
            clear = event.detail.get("clear") if event.detail.get("clear_of") == self._sensitive.fingerprint else None
            tables = [str(table) for table in clear] if isinstance(clear, list) else []
            action.sensitive = self._sensitive.among(action.read_columns, action.relations, tables)
        quiet_days = self.presence.seen(event.principal, event.occurred_at_us) if event.principal else 0
        unusual = LEARNING
        again = "settles" in event.detail  # the outcome of a statement that was judged as pending
        if self._behaviour is not None and not again and event.kind in ("session", "query_stats", "statement", "ddl"):
            relation = action.relations[0] if action.relations else None
            if event.detail.get("backend_type") == "walsender":
                relation = REPLICATION  # who never took a copy is new to it
            rows = action.rows_per_call if event.kind in ("query_stats", "statement") else None
            if event.kind != "session" or event.operation != "disconnect":
                unusual = self._observe(event, action.operation, relation, rows, action)
        ordinary = unusual is ORDINARY or unusual is LEARNING
        novelty = _NOT_NEW
        if quiet_days or not ordinary:  # else the action is as it was made
            novelty = _novelty(unusual, quiet_days)
            set_novelty(action, novelty)
        matches = self._evaluator.ask(action)
        if ordinary and matches is NONE and not self._asked.get(event.kind):
            return UNKNOWN if unusual is LEARNING else judgement.ORDINARY
        return self._report(lambda: action, matches, unusual, novelty)

    def _observe(
        self, event: Event, operation: str, relation: str | None, rows: int | None, action: Action | None = None
    ) -> Unusual:
        """Ask the behaviour model about an action, and count it in the windows of its principal."""
        assert self._behaviour is not None
        key = short(event.principal or f"?{event.cluster}?{event.role or ''}")
        address = application = statement = columns = None
        if event.binding in _WITH_ADDRESS:
            # All of a network in which its rule of identities.yaml says that it moves is one place.
            network = event.detail.get("network")
            address, application = network if isinstance(network, str) else event.client_addr or "", event.application
        if action is not None:
            statement = action.fingerprint or None
            columns = ",".join(sorted(action.columns)) if action.columns else None
        unusual = self._behaviour.observe(
            key,
            None if event.peer_group is None else short(event.peer_group),
            event.occurred_at_us,
            operation,
            relation,
            rows,
            address,
            application,
            statement,
            columns,
            action is not None and bool(action.sensitive),
        )
        noted = unusual if unusual.reasons else None
        total = action.rows if action is not None else rows or 0
        if found := self._behaviour.rhythm.count(key, event, operation, relation, total, statement, noted):
            self._windows += found
        return unusual

    def _report(self, make: Callable[[], Action], matches: Matches, unusual: Unusual, novelty: Novelty) -> Judgement:
        action = make()
        set_novelty(action, novelty)
        found: list[tuple[Policy, Seen | None]] = [(policy, None) for policy in matches.matched]
        for policy, steps in matches.met:
            if seen := self._correlations.see(policy.id, steps, action):
                found.append((policy, seen))
        sha256 = self.bundle.sha256
        score = unusual.score if unusual is not LEARNING and self._behaviour is not None else None
        found_reports = [
            reports.of_policy(policy, action, seen, bundle_sha256=sha256, anomaly=score, reasons=unusual.reasons)
            for policy, seen in found
        ]
        found_reports += [reports.of_error(policy, why, action, sha256) for policy, why in matches.failed]
        if detectors := self._asked.get(action.kind):
            sight = Found(sha256, [policy.id for policy, _ in found], score, unusual.reasons)
            found_reports += [report for detector in detectors for report in detector.look(action, sight)]
        # What a policy found carries the score and its reasons already: one alert for one action.
        if self._behaviour is not None and not found and unusual.score >= self._settings.alert_at:
            found_reports.append(reports.of_habits(action, unusual.score, unusual.reasons))
        alerts = [alert for report in found_reports if (alert := self._findings.report(action, report))]
        return Judgement([policy.id for policy, _ in found], score, judgement.recorded(unusual), alerts)

    def _absent(self, event: Event) -> list[Alert]:
        """Return the alerts of sequences whose last step did not come in time, by what the records of their cluster
        say."""
        alerts = []
        for waiting in self._correlations.due(event.cluster, event.captured_at_us):
            policy = self.bundle.policies[waiting.policy]
            report = reports.of_policy(
                policy, waiting.action, waiting.seen, bundle_sha256=self.bundle.sha256, anomaly=None, reasons=[]
            )
            if alert := self._findings.report(waiting.action, report):
                alerts.append(alert)
        return alerts

    def _window(self, finding: UnusualWindow) -> Alert | None:
        """Return the alert of a window of a principal's time that was out of the ordinary."""
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
        return self._findings.report(action, reports.of_window(finding, action, medium_at=self._settings.medium_at))

    def snapshot(self) -> bytes:
        """Return the whole state as JSON; with `restore` the verdicts go on as if nothing had happened."""
        ledger, triage = self._findings.snapshot()
        state = {
            "version": STATE_VERSION,
            "parts": self._parts.snapshot(),
            "ledger": ledger,
            "behaviour": None if self._behaviour is None else self._behaviour.snapshot(),
            "bundle": self.bundle.canonical(),
            "correlations": self._correlations.snapshot(),
            "presence": self.presence.snapshot(),
            "triage": triage,
        }
        kept = {name: detector.snapshot() for name, detector in self._builtin.items()}
        if any(value is not None for value in kept.values()):
            state["builtin"] = {name: value for name, value in kept.items() if value is not None}
        return msgspec.json.encode(state)

    def restore(self, data: bytes) -> None:
        """Take a snapshot's state, and go on by the policies in it.

        Raise `Stop` when it cannot be read; this judge must not be used then. The worker tries an older checkpoint.
        """
        try:
            read = msgspec.json.decode(data)
            if not OLDEST_STATE <= read["version"] <= STATE_VERSION:
                raise ValueError(f"version {read['version']}, this program reads {OLDEST_STATE} to {STATE_VERSION}")
            if (recorded := read.get("bundle")) and recorded != self.bundle.canonical():
                self.adopt(self._known_bundle(recorded))
            self._correlations.restore(read.get("correlations", []))
            self.presence.restore(read.get("presence", [[], []]))
            self._parts.restore(read["parts"])
            self._findings.restore(read["ledger"], read.get("triage"))
            if self._behaviour is not None and read["behaviour"] is not None:
                self._behaviour.restore(read["behaviour"])
            for name, value in read.get("builtin", {}).items():
                if name in self._builtin:  # a detector that there is no more has nothing to go on with
                    self._builtin[name].restore(value)
        except (msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise Stop(
                f"a checkpoint in topic state-judge cannot be read ({error}): an older one is taken, or habits are "
                "learned again; to keep them, run the release that wrote it"
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
