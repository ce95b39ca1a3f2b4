"""Which policies match an action: each one that can match its kind is asked, and asked once per shape.

Changes come by the ten thousand a second and look alike. What the policies for changes read of an event is known from
their expressions, so equal values mean an equal answer: answers are remembered under exactly those values. Other
kinds are evaluated each time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import Struct

from detectors.actions import HOUR_US, SCHEMA, Action, of_change
from detectors.expressions import Context
from detectors.policies import Bundle, Policy
from pgwitness.events import Event

SHAPES_MAX = 20_000
"""Answers remembered; when there are more, all are forgotten and asked again."""

_OF_ACTION = {"relations", "operation", "rows", "rows_per_call", "calls", "kind", "columns"}
_OF_NOVELTY = {"new_client_addr", "new_application", "new_relation", "anomaly"}
_COMPUTED = {"detail", "finding", "hour", "weekday"}


class Matches(Struct, frozen=True):
    """The policies that matched, and those that could not be evaluated with the reason."""

    matched: tuple[Policy, ...] = ()
    failed: tuple[tuple[Policy, str], ...] = ()


NONE = Matches()
Novelty = tuple[bool, bool, bool, float]


class Evaluator:
    """Asks the policies of one bundle; pure, what it remembers changes the time only."""

    def __init__(self, bundle: Bundle) -> None:
        self._by_kind = bundle.by_kind
        self._contexts = {
            kind: Context(path for policy in policies for path in policy.when.paths)
            for kind, policies in bundle.by_kind.items()
        }
        self._shapes: dict[Any, Matches] = {}
        self._shape = _shape(bundle.by_kind["change"])
        self._reads_anomaly = any("anomaly" in policy.when.paths for policy in bundle.by_kind["change"])
        self._has_change = bool(bundle.by_kind["change"])

    def change(
        self, event: Event, relation: str, operation: str, rows: int, labels: Mapping[str, str], novelty: Novelty
    ) -> Matches:
        """Ask the policies for changes about one operation of a transaction on one relation."""
        if not self._has_change:
            return NONE
        shape = (operation, relation, rows, novelty if self._reads_anomaly else novelty[:3], self._shape(event))
        found = self._shapes.get(shape)
        if found is None:
            action = of_change(event, relation, operation, rows, labels)
            set_novelty(action, novelty)
            if len(self._shapes) >= SHAPES_MAX:
                self._shapes.clear()
            found = self._shapes[shape] = self.ask(action)
        return found

    def ask(self, action: Action) -> Matches:
        """Ask every policy that can match the action's kind."""
        policies = self._by_kind.get(action.kind, ())
        if not policies:
            return NONE
        prepared = self._contexts[action.kind].of(action)
        if isinstance(prepared, str):
            return Matches(failed=tuple((policy, prepared) for policy in policies))
        matched, failed = [], []
        for policy in policies:
            result = policy.when.evaluate(prepared)
            if result is True:
                matched.append(policy)
            elif isinstance(result, str):
                failed.append((policy, result))
        return Matches(tuple(matched), tuple(failed)) if matched or failed else NONE


def set_novelty(action: Action, novelty: Novelty) -> None:
    """Tell an action what the behaviour model said."""
    action.new_client_addr, action.new_application, action.new_relation, action.anomaly = novelty


def _shape(policies: tuple[Policy, ...]) -> Callable[[Event], Any]:
    """Make the function that takes from an event what the policies read of it, as a hashable value."""
    read = {SCHEMA[path].attribute for policy in policies for path in policy.when.paths}
    names = {"cluster" if name == "labels" else name for name in read - _OF_ACTION - _OF_NOVELTY - _COMPUTED}
    plain = sorted(name for name in names if hasattr(Event, name))
    take: Callable[[Event], Any] = attrgetter(*plain) if plain else _nothing
    clock = bool(read & {"hour", "weekday"})
    if "detail" in read:
        return lambda event: (
            take(event),
            event.occurred_at_us // HOUR_US % 168 if clock else None,
            msgspec.json.encode(event.detail, order="sorted") if event.detail else None,
        )
    if "finding" in read or clock:
        return lambda event: (
            take(event),
            event.occurred_at_us // HOUR_US % 168 if clock else None,
            str(event.detail.get("finding")) if event.detail else None,
        )
    return take


def _nothing(event: Event) -> None:
    return None
