"""What an expression reads of an action, and that remembering answers by it changes none."""

from __future__ import annotations

import random
from typing import Any

import pytest

from detectors.actions import SCHEMA, Action
from detectors.policy.evaluator import Evaluator
from detectors.policy.policies import Bundle
from detectors.policy.reads import key_maker, keys_read
from detectors.policy.syntax import parse

OPERATIONS = ("select", "delete", "drop_table", "grant", "truncate", "create_function", "copy_program", "load")
NAMES = ("pg_terminate_backend", "dblink_connect", "lo_export", "pg_stat_statements_reset")


@pytest.mark.parametrize(
    ("expression", "keys"),
    [
        ('rows > 1 && operation == "x"', {}),
        ("!has(detail.seen_as)", {"detail": frozenset({"seen_as"})}),
        ("has(detail.a) && detail.b.exists(d, d.c == 1)", {"detail": frozenset({"a", "b"})}),
        ('detail["a"] == 1 && has(detail.b)', {"detail": frozenset({"a", "b"})}),
        ("detail[application] == 1 && has(detail.b)", {"detail": None}),
        ("size(detail) > 1", {"detail": None}),
        ("object.after.super == true && size(object.before) > 0", {"after": frozenset({"super"}), "before": None}),
        ('has(labels.scope) ? labels.scope == "pci" : false', {"labels": frozenset({"scope"})}),
    ],
)
def test_keys_of_maps(expression: str, keys: dict[str, Any]) -> None:
    """An expression that names `detail.x` reads that key alone; one that uses a map as a whole reads all of it."""
    assert keys_read(parse(expression)) == keys


def test_a_key_is_short() -> None:
    """What is remembered of a text of a megabyte is its hash, and different long texts have different keys."""
    key = key_maker(["statement.text", "relations", "detail"], {"detail": None})
    first, second = (
        key(Action(kind="statement", statement="x" * 10**6 + end, relations=["y" * 10**6], detail={"z": "z" * 10**6}))
        for end in "ab"
    )
    assert first != second
    assert len(first) == len(second) == 16


def test_remembered_answers_are_the_answers() -> None:
    """Of a thousand actions of every kind, many alike, the packaged policies say the same with and without memory."""
    chance = random.Random(7)
    bundle = Bundle.packaged()
    lasting = Evaluator(bundle)
    matched = 0
    for _ in range(1_000):
        action = _action(chance)
        fresh = Evaluator(bundle).ask(action)
        matched += bool(fresh.matched or fresh.met)
        assert lasting.ask(action) == fresh, action
        assert lasting.ask(action) == fresh, action
    assert matched > 100


def _action(chance: random.Random) -> Action:
    detail = {"seen_as": "ddl"} if chance.random() < 0.2 else {"line": chance.randrange(3)}
    if chance.random() < 0.2:
        detail["dropped"] = [{"type": "table", "name": "public.orders"}]
    operations = chance.sample(OPERATIONS, chance.randrange(3))
    return Action(
        kind=chance.choice(("statement", "query_stats", "ddl", "session", "control", "change", "posture")),
        operation=chance.choice((*OPERATIONS, "connect", "login_failed", "removed", "DROP TABLE")),
        operations=operations,
        functions=chance.sample(NAMES, chance.randrange(2)),
        relations=chance.sample(("public.orders", "pgwitness.beacon_key"), chance.randrange(3)),
        objects=chance.sample(("extension dblink", "language c", "role public"), chance.randrange(3)),
        settings=chance.sample(("log_statement=none", "session_replication_role=replica"), chance.randrange(2)),
        rows=chance.choice((0, 1, 600, 5_000)),
        rows_per_call=chance.choice((0, 1, 600)),
        where=chance.choice(("none", "present", "n/a")),
        principal_kind=chance.choice(("human", "agent", "service")),
        outcome=chance.choice(("success", "failure", "denied")),
        sqlstate=chance.choice(("", "42501", "28P01")),
        labels=chance.choice(({}, {"env": "prod"}, {"scope": "pci"})),
        detail=detail,
    )


def test_every_field_can_be_part_of_a_key() -> None:
    """There is no field of actions of which a key cannot be made."""
    hash(key_maker(SCHEMA, {})(Action(kind="change", detail={"a": [1]}, relations=["r"], labels={"l": "x"})))
