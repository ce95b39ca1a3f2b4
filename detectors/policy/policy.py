"""One policy: a checked document that can be asked.

Checking is strict, because a policy that silently never fires is worse than none: unknown names in `when` or
`message` and a missing positive or negative test are a `ConfigurationError` that names the file and the policy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from msgspec import Struct

from detectors.actions import UNDONE, Action
from detectors.policy import details, occurring
from detectors.policy.absence import NEVER_US
from detectors.policy.calendars import NONE as NO_CALENDARS
from detectors.policy.calendars import Calendars
from detectors.policy.calendars import zone as calendar_zone
from detectors.policy.cases import FAR_BACK_US, actions_of
from detectors.policy.correlation import Correlations
from detectors.policy.document import DEDUP_BY, Case, Document
from detectors.policy.expressions import Context, Expression
from detectors.policy.limits import Limits
from detectors.policy.occurring import CLOSED
from detectors.policy.plan import Plan
from detectors.policy.reads import joined
from detectors.vocabulary import SCHEMA
from detectors.wording import PLACE, Seen, known_place, render
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.units import Duration

POLICY_ID = re.compile(r"[a-z][a-z0-9_]{1,63}")
APPROVE_S_MAX = 7 * 86_400
SAMPLE_MAX = 10
"""Rows that approvers are shown at most."""
_ATTACK = re.compile(r"T\d{4}(\.\d{3})?")


class Policy:
    """A policy that can be asked.

    `conditions` are what it asks of one action: its `when`, or the steps of its sequence. `plan` is what it asks of
    several together, None when one is enough. `window_us` is how long repeats of the same key are one finding.
    """

    def __init__(self, document: Document, origin: str = "", calendars: Calendars = NO_CALENDARS) -> None:
        """Check a document; raise `ConfigurationError` naming `origin` and the policy."""
        self._calendars = calendars
        self.document = document
        self.id = document.id
        self.origin = origin
        _require(POLICY_ID.fullmatch(document.id), self, "id: lower case, digits and _, 2 to 64 characters")
        _require(document.kinds, self, "kinds: at least one")
        try:
            self.limits = Limits.of(document)
        except ValueError as error:
            raise ConfigurationError(f"{self.place}: {error}") from None
        self._check_approve(document)
        for technique in document.attack:
            _require(_ATTACK.fullmatch(technique), self, f"attack: {technique!r} is no technique such as T1078.004")
        try:
            self.plan = Plan.of(document)
        except ValueError as error:
            raise ConfigurationError(f"{self.place}: {error}") from None
        _require(document.when or document.sequence, self, "when: a condition is needed")
        self.dedup_by = document.dedup_by or self._by() or DEDUP_BY
        for path in self.dedup_by:
            _require(path in SCHEMA, self, f"dedup_by: {path!r} is no field of actions")
        for name in PLACE.findall(document.message):
            known = known_place(name, correlates=self.plan is not None) and self._held(name)
            _require(known, self, f"message: {{{name}}} is no field of actions")
        _require(any(case.match for case in document.tests), self, "tests: one with `match: true` is needed")
        _require(any(not case.match for case in document.tests), self, "tests: one with `match: false` is needed")
        try:
            self.window_us = int(Duration.parse(document.window) * 1_000_000)
        except ValueError as error:
            raise ConfigurationError(f"{self.place}: window: {error}") from None
        _require(self.window_us > 0, self, "window: must be greater than zero")
        try:
            calendar_zone(document.zone)
        except ValueError as error:
            raise ConfigurationError(f"{self.place}: zone: {error}") from None
        self.conditions = tuple(self._compile(where, source) for where, source in self._sources())
        for case in document.tests:
            try:
                for _ in actions_of(case, document.kinds[0], asked=document.effect == "limit"):
                    pass
            except ValueError as error:
                raise ConfigurationError(f"{self.place}: test {case.name!r}: {error}") from None
        for word in document.severity_of:
            known = word in CLOSED["outcome"] or occurring.never("operation", word, document.kinds) is None
            _require(known, self, f"severity_of: {word!r} is neither an outcome nor an operation of {document.kinds}")
        self._dedup = tuple(SCHEMA[path].attribute for path in self.dedup_by)

    def _check_approve(self, document: Document) -> None:
        found = document.approve
        if found is None:
            return
        _require(document.effect == "approve", self, "approve: it goes with effect: approve")
        _require(found.by and all(found.by), self, "approve.by: at least one group of approvers")
        _require(found.needed >= 1, self, "approve.needed: at least one")
        _require(0 <= found.sample <= SAMPLE_MAX, self, f"approve.sample: 0 to {SAMPLE_MAX} rows")
        for name, text in (("within", found.within), ("use_within", found.use_within)):
            try:
                seconds = float(Duration.parse(text))
            except ValueError as error:
                raise ConfigurationError(f"{self.place}: approve.{name}: {error}") from None
            _require(0 < seconds <= APPROVE_S_MAX, self, f"approve.{name}: longer than nothing, and 7d at most")

    def _held(self, place: str) -> bool:
        """Return whether a place of the message can hold anything in actions of its kinds."""
        group, _, name = place.partition(".")
        return group != "detail" or not name or details.found(self.document.kinds, name) is not None

    def _by(self) -> list[str] | None:
        correlated = self.document.threshold or self.document.sequence
        return correlated.by if correlated is not None else None

    def _sources(self) -> Iterator[tuple[str, str]]:
        """List the conditions with the name of their place; what a sequence's `when` says holds for every step."""
        document = self.document
        if document.sequence is None:
            # What a limit let pass is no finding: in evidence it asks for more rows than it allows.
            limited = ""
            if document.effect == "limit":  # of what was answered or took long, evidence tells by how it was refused
                limited = "asked && " if document.max_rows is None else f"(asked || rows > {document.max_rows}) && "
            yield "when", f"{limited}({document.when})" if limited else document.when or ""
            return
        for step in document.sequence.steps:
            yield f"step {step.name}", f"({document.when}) && ({step.when})" if document.when else step.when

    def _compile(self, where: str, source: str) -> Expression:
        try:
            document = self.document
            return Expression(source, document.parameters, document.kinds, document.zone, self._calendars)
        except ValueError as error:
            raise ConfigurationError(f"{self.place}: {where}: {error}") from None

    @property
    def place(self) -> str:
        """Return where the policy stands, for messages."""
        return f"{self.origin or 'policy'}: {self.id}"

    def key(self, action: Action) -> str:
        """Return what repeats of the same finding have in common."""
        values = [getattr(action, attribute) for attribute in self._dedup]
        if action.outcome in UNDONE:  # what was tried in vain is another finding than what was done
            values.append("tried")
        return json.dumps(values, default=str, sort_keys=True)

    def message(self, action: Action, seen: Seen | None = None) -> str:
        """Write the sentence for a person; a value that is not there reads `?`."""
        return render(self.document.message, action, seen)

    @property
    def paths(self) -> frozenset[str]:
        """The names of `SCHEMA` that its conditions read."""
        return frozenset(path for condition in self.conditions for path in condition.paths)

    def run_case(self, case: Case) -> Failure | None:
        """Run one of its tests; None says that it came out as written."""
        correlations = Correlations([self.plan] if self.plan else [], since_us=FAR_BACK_US)
        correlations.begin(FAR_BACK_US)
        context = Context(self.paths, joined(condition.keys for condition in self.conditions), self._calendars)
        matched = False
        clusters: set[str] = set()
        for action in actions_of(case, self.document.kinds[0], asked=self.document.effect == "limit"):
            clusters.add(action.cluster)
            prepared = context.of(action)
            results = [prepared if isinstance(prepared, str) else c.evaluate(prepared) for c in self.conditions]
            if action.kind not in self.document.kinds:
                matched = False
                continue
            if failed := [result for result in results if isinstance(result, str)]:
                return Failure(self.id, case.name, f"could not be evaluated: {failed[0]}")
            met = [step for step, result in enumerate(results) if result]
            matched = bool(met) and (self.plan is None or correlations.see(self.id, met, action) is not None)
        if self.plan is not None and self.plan.after:
            matched = any(correlations.due(cluster, NEVER_US) for cluster in clusters)
        return None if matched == case.match else Failure(self.id, case.name, "matched" if matched else "did not match")


class Failure(Struct, frozen=True):
    """A test of a policy that did not come out as written."""

    policy: str
    test: str
    problem: str


def _require(condition: object, policy: Policy, problem: str) -> None:
    if not condition:
        raise ConfigurationError(f"{policy.place}: {problem}")
