"""What every name of the language of policies promises: answers about changes are remembered under what it depends on.

`tests/detectors/test_docs.py` holds that each is documented, `tests/detectors/test_actions.py` that it is never null.
"""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from detectors.actions import of_change
from detectors.policy import evaluator
from pgwitness.core.events import Event
from tests.detectors.material import START_US, change

EVENTS = 3_000
DAY_US = 86_400_000_000
VARIED = (
    "principal", "principal_kind", "on_behalf_of", "peer_group", "binding", "certainty", "assurance", "role",
    "effective_role", "application", "client_addr", "auth_method", "cluster", "instance", "database", "outcome",
    "effect", "sqlstate", "session_id",
)  # fmt: skip
PASSED_IN = evaluator._OF_ACTION | evaluator._OF_NOVELTY
"""What is part of the key besides the event."""


def events() -> list[Event]:
    """Make changes that differ in few things at a time: in their time, one text, what attribution or the fold added."""
    chance = Random(7)
    made = []
    for number in range(EVENTS):
        detail: dict[str, Any] = {}
        if chance.random() < 0.3:
            detail["finding"] = chance.choice(("shadow_write", "beacon_missing"))
        if chance.random() < 0.2:
            detail["seen_as"] = chance.choice(("ddl", "statement"))
        if chance.random() < 0.2:
            said_by = chance.choice(("claim", "comment"))
            detail["agent"] = {"said_by": said_by, "iat": START_US // 10**6, "fields": {"ticket": chance.choice("ab")}}
        at_us = START_US + chance.randrange(14) * DAY_US + chance.choice((0, 3_600_000_000))
        facts: dict[str, Any] = {chance.choice(VARIED): chance.choice(("a", "b"))} if chance.random() < 0.5 else {}
        made.append(change(number, "d", 5, "public.t", detail=detail, occurred_at_us=at_us, **facts))
    return made


@pytest.mark.parametrize("path", sorted(evaluator.SCHEMA))
def test_equal_keys_mean_equal_values(path: str) -> None:
    """Two changes that the memory of answers takes for the same have the same value of every name that is read."""
    attribute = evaluator.SCHEMA[path].attribute
    if attribute in PASSED_IN:
        return
    shape = evaluator._shape({attribute})
    seen: dict[object, object] = {}
    for event in CHANGES:
        action = of_change(event, "public.t", "delete", 5, {"of": event.cluster})
        value = msgspec.to_builtins(getattr(action, attribute))
        assert seen.setdefault(shape(event), value) == value, f"{path} depends on what is no part of the key"


CHANGES = events()
