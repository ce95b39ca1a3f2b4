"""Triage: which findings are suppressed, which wait for a digest, and which incident a finding belongs to.

What it goes by comes in the records that it judges: the worker writes a changed `suppressions.yaml` and every checked
verdict into each partition of `events` (docs/decisions/0008), so the same records give the same alerts. Bounded:
verdicts that have expired by the time in the records are forgotten, and of more than `VERDICTS_MAX` those that would
expire first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from typing import Any

import msgspec

from detectors.actions import Action
from detectors.alerts import verdicts
from detectors.alerts.alert import Alert
from detectors.alerts.budget import Budget, Standing
from detectors.alerts.crowds import Crowds
from detectors.alerts.digest import Digests
from detectors.alerts.incidents import Incidents
from detectors.alerts.suppressions import Rule, Suppressions
from detectors.policy.reads import short
from pgwitness.core.config import Triage as Settings
from pgwitness.core.errors import ConfigurationError

VERDICTS_MAX = 2_000
SHARE_AN_ALERT = 2.4
"""Days as strange for each that is reported by itself: others are of a crowd, of a group that is warming up, or on a
day that was reported. Measured on the tuning seeds of `tests.quality.deployed`, where a share of 0.05 gave 0.022 false
alerts."""
ANSWERS_MAX = 5_000
"""Findings for which the rules that mean them are remembered."""


class _Compiled:
    """A rule whose globs are compiled once."""

    __slots__ = ("patterns", "rule")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.patterns = [
            (name, re.compile("|".join(translate(glob) for glob in globs)).match) for name, globs in rule.match.items()
        ]

    def means(self, asked: dict[str, str], relations: tuple[str, ...]) -> bool:
        for name, match in self.patterns:
            if name == "relation":
                if not relations or not all(match(relation) for relation in relations):
                    return False
            elif not match(asked[name]):
                return False
        return True


class Triage:
    """The state of one judge. Deterministic; its clock is the time in the records."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.suppressions = Suppressions("", [])
        self.incidents = Incidents()
        self.digests = Digests(int(self.settings.digest_interval * 1_000_000))
        self.budget = Budget(self.settings.budget * SHARE_AN_ALERT)
        self.crowds = Crowds(self.settings.budget * SHARE_AN_ALERT)
        self._verdicts: dict[str, tuple[int, list[Rule]]] = {}
        """What verdicts have one do, by their ids, with the time (µs) until which they hold."""
        self._compiled: list[_Compiled] = []
        self._exact: dict[str, list[Rule]] = {}
        self._answers: dict[bytes, tuple[Rule, ...]] = {}
        self._compile()

    def suppressed_by(self, detector: str, finding: str, action: Action) -> str | None:
        """Return the id of what suppresses a finding, None when nothing does."""
        for rule in self._meant(detector, finding, action):
            if rule.effect == "quiet" and rule.holds(action.occurred_at_us):
                return rule.id
        return None

    def waits(self, finding: str, action: Action, standing: Standing | None = None) -> bool:
        """Return whether a finding of behaviour alone waits for the digest.

        Nobody has promoted its principal, and it is not strange enough for the budget.
        """
        if self.settings.behaviour == "alert" or action.principal in self.settings.promoted:
            return False
        rules = self._meant("behaviour", finding, action)
        if any(rule.effect == "promote" and rule.holds(action.occurred_at_us) for rule in rules):
            return False
        if self.settings.behaviour == "digest" or standing is None:
            return True
        return not self.budget.allows(standing, action.captured_at_us)

    def crowd(self, alert: Alert, standing: Standing) -> tuple[bool, Alert | None]:
        """Return whether a finding of behaviour alone is one of a crowd; return the alert of the group when there is
        news.

        Of a group one alert is paid for, however many join.
        """
        if self.settings.behaviour != "budget":
            return False, None
        hidden, group_alert = self.crowds.join(alert, standing)
        if group_alert is not None and group_alert.activity == "create":
            self.budget.spend(standing)
        return hidden, group_alert

    def incident(self, action: Action, *, begin: bool) -> str | None:
        """Return the incident of a finding that is emitted."""
        subject = action.principal or f"?{action.cluster}?{action.role}"
        return self.incidents.join(subject, action.occurred_at_us, begin=begin)

    def collect(self, alert: Alert) -> list[Alert]:
        """Put a finding into its digest; return digests that had to be emitted early."""
        return self.digests.collect(alert)

    def suppress(self, content: str) -> bool:
        """Take the file as it is from here on; False when it cannot be used, and the last good one holds."""
        try:
            self.suppressions = Suppressions.parse(content)
        except ConfigurationError:
            return False
        self._compile()
        return True

    def decided(self, checked: verdicts.Checked, now_us: int) -> bool:
        """Take a verdict; False when it is known already, or refused."""
        said = checked.verdict
        if said is None or checked.id in self._verdicts:
            return False
        self._verdicts[checked.id] = (said.expires_us, verdicts.rules(checked))
        for key in [key for key, (until_us, _) in self._verdicts.items() if until_us <= now_us]:
            del self._verdicts[key]
        while len(self._verdicts) > VERDICTS_MAX:
            del self._verdicts[min(self._verdicts, key=lambda key: (self._verdicts[key][0], key))]
        self._compile()
        return True

    def _compile(self) -> None:
        self._answers = {}
        self._exact = {}
        self._compiled = []
        said = [rule for _, rules in self._verdicts.values() for rule in rules]
        for rule in [*self.suppressions.rules, *said]:
            finding = rule.match.get("finding")
            if finding is not None and len(rule.match) == 1:
                for name in finding:
                    self._exact.setdefault(name, []).append(rule)
            else:
                self._compiled.append(_Compiled(rule))

    def _meant(self, detector: str, finding: str, action: Action) -> Iterable[Rule]:
        if not self._compiled and not self._exact:
            return ()
        relations = tuple(action.relations)
        asked = (detector, finding, action.principal, action.role, action.cluster, action.database)
        key = short((asked, relations))
        answer = self._answers.get(key)
        if answer is None:
            names = dict(zip(("policy", "finding", "principal", "role", "cluster", "database"), asked, strict=True))
            found = [rule.rule for rule in self._compiled if rule.means(names, relations)]
            if len(self._answers) >= ANSWERS_MAX:
                self._answers.clear()
            answer = self._answers[key] = (*self._exact.get(finding, ()), *found)
        return answer

    def snapshot(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return {
            "suppressions": self.suppressions.content,
            "verdicts": [[key, until_us, msgspec.to_builtins(do)] for key, (until_us, do) in self._verdicts.items()],
            "incidents": self.incidents.snapshot(),
            "digests": self.digests.snapshot(),
            "budget": self.budget.snapshot(),
            "crowds": self.crowds.snapshot(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take a snapshot's state. Raise `ValueError` when it is none."""
        self._verdicts = {
            key: (until_us, msgspec.convert(rules, list[Rule])) for key, until_us, rules in state["verdicts"]
        }
        self.incidents.restore(state["incidents"])
        self.digests.restore(state["digests"])
        if "budget" in state:
            self.budget.restore(state["budget"])
            self.crowds.restore(state["crowds"])
        if not self.suppress(state["suppressions"]):
            self._compile()
