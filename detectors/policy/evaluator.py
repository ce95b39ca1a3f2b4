"""Which policies match an action: only those that can match it are asked, and asked once per shape.

A policy is asked when its kinds hold the action's and the guard of its condition (`detectors.policy.guards`) lets the
action's operation through; which ones these are is looked up, not searched. Changes come by the ten thousand a second
and look alike. What the policies for changes read of an event is known from their expressions, so equal values mean an
equal answer: answers are remembered under exactly those values. Statements come by the thousand, and the same few from
the same programs: their answers are remembered likewise, for each set of conditions that is asked together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any

from msgspec import Struct

from detectors.actions import HOUR_US, NAME_MAX, Action, of_change
from detectors.policy.calendars import Calendars
from detectors.policy.expressions import Context, Expression
from detectors.policy.guards import LISTS, Guard
from detectors.policy.policies import Bundle
from detectors.policy.policy import Policy
from detectors.policy.reads import TIMES, joined, key_maker, short
from detectors.policy.steps import STEPS_MAX, TOO_MUCH, steps
from detectors.vocabulary import SCHEMA
from pgwitness.core.events import Event

SHAPES_MAX = 20_000
"""Answers remembered; when there are more, all are forgotten and asked again."""
SELECTIONS_MAX = 2_000
"""Likewise choices of policies by kind, operations and what is there at all."""
CONTEXTS_MAX = 100

SECOND_US, MINUTE_US = 1_000_000, 60_000_000
_OF_ACTION = {"relations", "operation", "rows", "rows_per_call", "calls", "kind", "columns", "sensitive"}
_OF_NOVELTY = {"new_client_addr", "new_application", "new_relation", "anomaly", "quiet_days"}
_SHARE = {field.attribute for path, field in SCHEMA.items() if path.startswith("share.")}
_CLAIM = {field.attribute for path, field in SCHEMA.items() if path.startswith("claim.")}
_OF_DETAIL = {"finding", "seen_as"}
_COMPUTED = _CLAIM | {"detail", "hour", "weekday"} | _OF_DETAIL | _SHARE | TIMES


class Matches(Struct, frozen=True):
    """What an action met: policies that matched by it alone, steps of those that look at several, and failures."""

    matched: tuple[Policy, ...] = ()
    failed: tuple[tuple[Policy, str], ...] = ()
    met: tuple[tuple[Policy, tuple[int, ...]], ...] = ()


NONE = Matches()


class Novelty(Struct, frozen=True):
    """What is known of an action besides the event: what the model finds new, and for how long its principal was
    inactive."""

    client_addr: bool = False
    application: bool = False
    relation: bool = False
    anomaly: float = 0.0
    quiet_days: int = 0


_Condition = tuple[Policy, int, Expression]
_LISTS = sorted(LISTS)
_lists = attrgetter(*(SCHEMA[name].attribute for name in _LISTS))


class _Asked:
    """Conditions that are asked together, and what they have answered."""

    def __init__(self, conditions: Iterable[_Condition], calendars: Calendars) -> None:
        self.conditions = list(conditions)
        self.answers: dict[bytes, Matches] = {}
        paths = {path for _, _, condition in self.conditions for path in condition.paths}
        keys = joined(condition.keys for _, _, condition in self.conditions)
        self.context = Context(paths, keys, calendars)
        self.key = key_maker(paths, keys, calendars)

    def answer(self, action: Action) -> Matches:
        prepared = self.context.of(action)
        if isinstance(prepared, str):
            policies = dict.fromkeys(policy for policy, _, _ in self.conditions)
            return Matches(failed=tuple((policy, prepared) for policy in policies))
        matched: list[Policy] = []
        failed: dict[Policy, str] = {}
        met: dict[Policy, tuple[int, ...]] = {}
        for policy, step, condition in self.conditions:
            much = bool(condition.products) and steps(condition.products, action) > STEPS_MAX
            result = TOO_MUCH if much else condition.evaluate(prepared)
            if result is True:
                if policy.plan is None:
                    matched.append(policy)
                else:
                    met[policy] = (*met.get(policy, ()), step)
            elif isinstance(result, str):
                failed.setdefault(policy, result)
        if not matched and not failed and not met:
            return NONE
        return Matches(tuple(matched), tuple(failed.items()), tuple(met.items()))


class _Selection:
    """The conditions that can hold of actions of one kind, of the same operations, in which the same lists are filled.

    Some need so many items of a list besides: `numbered` are these with their places among all. `asked` are those that
    were asked together, by which of the numbered were among them.
    """

    def __init__(self, chosen: Iterable[tuple[Guard, _Condition]], calendars: Calendars) -> None:
        self._calendars = calendars
        self._conditions: list[_Condition] = []
        self._numbered: list[tuple[int, tuple[tuple[str, int], ...]]] = []
        self.asked: dict[tuple[int, ...], _Asked | None] = {}
        for place, (guard, condition) in enumerate(chosen):
            self._conditions.append(condition)
            if guard.least:
                needs = tuple((SCHEMA[name].attribute, number) for name, number in guard.least)
                self._numbered.append((place, needs))

    def of(self, action: Action) -> _Asked | None:
        """Return the conditions that can hold of one such action; None when none can."""
        fitting: tuple[int, ...] = ()
        for place, needs in self._numbered:
            for name, number in needs:
                if getattr(action, name) < number:
                    break
            else:
                fitting = (*fitting, place)
        try:
            return self.asked[fitting]
        except KeyError:
            return self._make(fitting)

    def _make(self, fitting: tuple[int, ...]) -> _Asked | None:
        if len(self.asked) >= CONTEXTS_MAX:
            self.asked.clear()
        left_out = {place for place, _ in self._numbered if place not in fitting}
        conditions = [condition for place, condition in enumerate(self._conditions) if place not in left_out]
        asked = self.asked[fitting] = _Asked(conditions, self._calendars) if conditions else None
        return asked


class Evaluator:
    """Asks the policies of one bundle; pure, what it remembers changes the time only."""

    def __init__(self, bundle: Bundle) -> None:
        self._conditions: dict[str, list[tuple[Guard, _Condition]]] = {
            kind: [
                (guard, (policy, step, condition))
                for policy in policies
                for step, condition in enumerate(policy.conditions)
                if (guard := condition.guard(kind)).possible
            ]
            for kind, policies in bundle.by_kind.items()
        }
        self._calendars = bundle.calendars
        self._selections: dict[tuple[object, ...], _Selection] = {}
        self._shapes: dict[Any, Matches] = {}
        self._answered = 0
        read = {SCHEMA[path].attribute for policy in bundle.by_kind["change"] for path in policy.paths}
        self._shape = _shape(read)
        self._of_novelty: Callable[[Novelty], Any] = _novelty_read(read)
        self._has_change = bool(bundle.by_kind["change"])

    def change(
        self, event: Event, relation: str, operation: str, rows: int, labels: Mapping[str, str], novelty: Novelty
    ) -> Matches:
        """Ask the policies for changes about one operation of a transaction on one relation."""
        if not self._has_change:
            return NONE
        shape = (operation, relation, rows, self._of_novelty(novelty), self._shape(event))
        found = self._shapes.get(shape)
        if found is None:
            action = of_change(event, relation, operation, rows, labels)
            set_novelty(action, novelty)
            if len(self._shapes) >= SHAPES_MAX:
                self._shapes.clear()
            asked = self._select(action).of(action)
            found = NONE if asked is None else asked.answer(action)
            if len(relation) <= NAME_MAX:
                self._shapes[shape] = found
        return found

    def ask(self, action: Action) -> Matches:
        """Ask every policy that can match the action."""
        asked = self._select(action).of(action)
        return NONE if asked is None else self._remembered(asked, action)

    def _remembered(self, asked: _Asked, action: Action) -> Matches:
        """Return the answer to the same question about an action that is equal in everything that is read of it."""
        try:
            key = asked.key(action)
        except RecursionError:  # answered, and not remembered
            return asked.answer(action)
        found = asked.answers.get(key)
        if found is None:
            if self._answered >= SHAPES_MAX:
                self._forget()
            self._answered += 1
            found = asked.answers[key] = asked.answer(action)
        return found

    def _forget(self) -> None:
        self._answered = 0
        self._selections.clear()

    def _select(self, action: Action) -> _Selection:
        """Return the conditions that can hold of such actions, and what they have answered."""
        filled = tuple(map(bool, _lists(action)))
        key = (action.kind, action.operation, tuple(action.operations), filled)
        found = self._selections.get(key)
        if found is None:
            if len(self._selections) >= SELECTIONS_MAX:
                self._forget()
            known = frozenset(name for name, there in zip(_LISTS, filled, strict=True) if there)
            chosen = (
                (guard, condition)
                for guard, condition in self._conditions.get(action.kind, [])
                if guard.lets(action.operation, action.operations, known)
            )
            found = self._selections[key] = _Selection(chosen, self._calendars)
        return found


def set_novelty(action: Action, novelty: Novelty) -> None:
    """Set on an action what the behaviour model found."""
    action.new_client_addr = novelty.client_addr
    action.new_application = novelty.application
    action.new_relation = novelty.relation
    action.anomaly = novelty.anomaly
    action.quiet_days = novelty.quiet_days


def _novelty_read(read: set[str]) -> Callable[[Novelty], Any]:
    names = sorted(name.removeprefix("new_") for name in read & _OF_NOVELTY)
    take: Callable[[Novelty], Any] = attrgetter(*names) if names else _nothing
    return take


def _shape(read: set[str]) -> Callable[[Event], Any]:
    """Make the function that takes from an event what the policies read of it, as a hashable value."""
    names = {"cluster" if name == "labels" else name for name in read - _OF_ACTION - _OF_NOVELTY - _COMPUTED}
    plain = sorted(name for name in names if hasattr(Event, name))
    take: Callable[[Event], Any] = attrgetter(*plain) if plain else _nothing
    time = _time(read)
    if "detail" in read or read & (_SHARE | _CLAIM):
        return lambda event: (take(event), time(event), short(event.detail) if event.detail else None)
    told = sorted(_OF_DETAIL & read)
    if told or time is not _nothing:
        return lambda event: (take(event), time(event), _said(event.detail, told))
    return take


def _said(detail: Mapping[str, object], names: list[str]) -> tuple[str, ...] | None:
    return tuple(str(detail.get(name)) for name in names) if detail and names else None


def _time(read: set[str]) -> Callable[[Event], Any]:
    """Make the function that takes of an event's time what the policies read: a second, its minute, its hour."""
    if read & {"claim_age", "claim_left"}:
        clock = _time(read - _CLAIM)
        return lambda event: event.occurred_at_us // SECOND_US if "agent" in event.detail else clock(event)
    if read & TIMES:
        return lambda event: event.occurred_at_us // MINUTE_US
    return (lambda event: event.occurred_at_us // HOUR_US % 168) if read & {"hour", "weekday"} else _nothing


def _nothing(_: object) -> None:
    return None
