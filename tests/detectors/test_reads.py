"""What an expression reads of an action, and that remembering answers by it changes none."""

from __future__ import annotations

import random
from typing import Any

import pytest
from msgspec import structs

from detectors.actions import Action, of_change
from detectors.policy.document import Case, Document
from detectors.policy.evaluator import Evaluator, Novelty
from detectors.policy.policies import Bundle
from detectors.policy.policy import Policy
from detectors.policy.reads import key_maker, keys_read
from detectors.policy.syntax import parse
from detectors.vocabulary import SCHEMA
from tests.detectors.material import START_US, change

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


_OTHER: dict[str, Any] = {
    "string": "z",
    "int": 7,
    "bool": True,
    "double": 0.7,
    "list of string": ["z"],
    "map": {"x": "z"},
}


@pytest.mark.parametrize("path", sorted(SCHEMA.keys() - {"clock", "during"}))
def test_every_fact_that_is_read_is_part_of_the_key(path: str) -> None:
    """Actions that differ in the one thing that is asked are different questions, whichever that is."""
    field = SCHEMA[path]
    key = key_maker([path], {field.attribute: frozenset({"x"})})
    one = Action(kind="statement")
    held = getattr(one, field.attribute)
    other = structs.replace(one, **{field.attribute: not held if field.type == "bool" else _OTHER[field.type]})
    assert key(one) != key(other)


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "another second": {"occurred_at_us": START_US + 3_000_000},
    "another minute": {"occurred_at_us": START_US + 70_000_000},
    "another hour": {"occurred_at_us": START_US + 3_600_000_000},
    "another day": {"occurred_at_us": START_US + 86_400_000_000},
    "nobody": {"principal": None, "principal_kind": "unknown"},
    **{
        name: {name: "another"}
        for name in (
            *("principal", "on_behalf_of", "peer_group", "role", "effective_role", "application", "client_addr"),
            *("auth_method", "cluster", "instance", "database", "statement", "fingerprint", "sqlstate", "session_id"),
        )
    },
    "principal_kind": {"principal_kind": "agent"},
    "binding": {"binding": "activity"},
    "certainty": {"certainty": "weak"},
    "assurance": {"assurance": "verified"},
    "outcome": {"outcome": "rolled_back"},
    "effect": {"effect": "rows"},
    "a finding": {"detail": {"finding": "shadow_write"}},
    "another finding": {"detail": {"finding": "beacon_missing"}},
    "seen as ddl": {"detail": {"seen_as": "ddl"}},
    "seen as a statement": {"detail": {"seen_as": "statement"}},
    "any detail": {"detail": {"x": "z"}},
    "a token": {"detail": {"agent": {"said_by": "claim", "iat": START_US // 10**6 - 9, "exp": START_US // 10**6 + 9}}},
    "another token": {"detail": {"agent": {"said_by": "claim", "fields": {"x": "z"}}}},
    **{
        f"a share, {number}": {"detail": {"shares": [{"relation": "public.orders", "operation": "update"} | share]}}
        for number, share in enumerate(
            (
                {"rows": 9, "of": 10, "part": 0.9, "window": "24h"},
                {"rows": 10, "of": 10, "part": 0.9, "window": "24h"},
                {"rows": 9, "of": 11, "part": 0.9, "window": "24h"},
                {"rows": 9, "of": 10, "part": 1.0, "window": "24h"},
                {"rows": 9, "of": 10, "part": 0.9, "window": "30d"},
                {"rows": 9, "of": 10, "part": 0.9, "window": "24h", "replaced": True},
                {"rows": 9, "of": 10, "part": 0.9, "window": "24h", "usual": True},
            )
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("path", sorted(SCHEMA.keys() - {"kind", "during"}))
def test_remembered_answers_about_changes_are_the_answers(path: str) -> None:
    """Changes that differ in one thing are asked about one after the other: each gets its own answer, for every fact.

    The policy holds of those that agree with the first one in what it reads.
    """
    labels = {"another": {"x": "z"}}
    questions = [
        (event, "public.orders", "update", 1, labels.get(event.cluster, {}), novelty)
        for facts in VARIANTS.values()
        for event in [change(1, **({"occurred_at_us": START_US} | facts))]
        for novelty in (NOVELTIES if not facts else NOVELTIES[:1])
    ]
    matched = 0
    for condition in {_condition(path, of_change(*question[:5])) for question in questions}:
        bundle = Bundle([_policy(condition)])
        lasting = Evaluator(bundle)
        for question in questions:
            answer = Evaluator(bundle).change(*question)
            assert lasting.change(*question) == answer, (condition, question)
            matched += bool(answer.matched)
    assert matched


NOVELTIES = (Novelty(), Novelty(True, True, True, 0.9, 40))


def _condition(path: str, action: Action) -> str:
    """Give a condition that holds of what has the value of an action in one place."""
    field = SCHEMA[path]
    value = getattr(action, field.attribute)
    if path == "clock":
        return f"clock.UTC.minute == {action.occurred_at_us // 60_000_000 % 60}"
    if field.type == "map":
        name = f"{path}.{'finding' if path == 'detail' else 'x'}"
        return f"has({name}) && {name} != 'beacon_missing'" if value else f"!has({name})"
    if field.type == "list of string":
        return f"{value[0]!r} in {path}" if value else f"{path}.size() == 0"
    if field.type == "bool":
        return path if value else f"!{path}"
    return f"{path} == {value!r}"


def _policy(condition: str) -> Policy:
    cases = [Case(name=str(match), match=match, action={}) for match in (True, False)]
    facts = {"id": "reading", "title": "t", "description": "d", "severity": "low", "message": "m", "runbook": "r"}
    return Policy(Document(**facts, kinds=["change"], when=condition, tests=cases))  # type: ignore[arg-type]


def test_every_field_can_be_part_of_a_key() -> None:
    """There is no field of actions of which a key cannot be made."""
    hash(key_maker(SCHEMA, {})(Action(kind="change", detail={"a": [1]}, relations=["r"], labels={"l": "x"})))
