"""The tests that stand in policies: the actions that they describe, made as a judge would see them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from detectors.actions import HOUR_US, Action
from detectors.policy import occurring
from detectors.policy.document import Case
from detectors.vocabulary import SCHEMA
from pgwitness.core.units import Duration

FAR_BACK_US = -(2**62)
"""Before all that tests speak of."""
REPEAT_MAX = 10_000
"""How often a test may repeat an action."""


def actions_of(case: Case, kind: str, *, asked: bool = False) -> Iterator[Action]:
    """Make the actions of a test. Raise `ValueError` that says what is wrong with it.

    With `asked` those are asked for, before they run, of which the test does not say how many rows they changed.
    """
    if (case.action is None) == (not case.actions):
        raise ValueError("one of action and actions is needed")
    number = 0
    begun_us = 0
    for fields in case.actions or [case.action or {}]:
        facts = dict(fields)
        if "time" in facts:
            begun_us = _moment_us(facts.pop("time"))
        try:
            at_us, every_us = (_duration_us(facts.pop(name, "0s")) for name in ("at", "every"))
        except ValueError as error:
            raise ValueError(f"at and every are times such as 90s: {error}") from None
        repeat = facts.pop("repeat", 1)
        if not isinstance(repeat, int) or not 1 <= repeat <= REPEAT_MAX:
            raise ValueError(f"repeat: 1 to {REPEAT_MAX}")
        flat = _flat(facts, kind)
        if asked and "rows" not in flat:
            flat.setdefault("asked", True)
        for place in range(repeat):
            action = _action(flat)
            action.occurred_at_us = action.captured_at_us = begun_us + at_us + place * every_us
            if begun_us:
                hours = action.occurred_at_us // HOUR_US
                action.hour, action.weekday = facts.get("hour", hours % 24), facts.get("weekday", (hours // 24 + 3) % 7)
            action.event_id = str(number)
            number += 1
            yield action


def _moment_us(text: object) -> int:
    """Read the `time` of a test's action, in UTC where it does not say."""
    try:
        found = text if isinstance(text, datetime) else datetime.fromisoformat(str(text))
    except ValueError:
        raise ValueError(f"time: {text!r} is no time such as 2026-03-29T01:30:00Z") from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1_000_000)


def _duration_us(text: object) -> int:
    return 0 if text in (0, "0", "0s") else int(Duration.parse(str(text)) * 1_000_000)


def action_from(fields: Mapping[str, Any], kind: str) -> Action:
    """Make an action from a test's fields, written as expressions name them. Raise `ValueError` on unknown ones."""
    return _action(_flat(fields, kind))


def _flat(fields: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the attributes of a test's action, checked. Raise `ValueError`."""
    flat: dict[str, Any] = {"kind": kind}
    for key, value in fields.items():
        if key in SCHEMA:
            flat[SCHEMA[key].attribute] = value
        elif isinstance(value, dict) and any(path.startswith(f"{key}.") for path in SCHEMA):
            for name, inner in value.items():
                if f"{key}.{name}" not in SCHEMA:
                    raise ValueError(f"{key}.{name} is no field of actions")
                flat[SCHEMA[f"{key}.{name}"].attribute] = inner
        else:
            raise ValueError(f"{key} is no field of actions")
    for path, schema in SCHEMA.items():
        value = flat.get(schema.attribute)
        for item in value if isinstance(value, list) else [value]:
            if path != "kind" and (why := occurring.never(path, item, [flat["kind"]])) is not None:
                raise ValueError(f"{path}: {why}")
    if "rows" in flat and "rows_per_call" not in flat:
        flat["rows_per_call"] = int(flat["rows"]) // max(1, int(flat.get("calls", 1)))
    return flat


def _action(flat: dict[str, Any]) -> Action:
    try:
        return msgspec.convert(flat, Action)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
