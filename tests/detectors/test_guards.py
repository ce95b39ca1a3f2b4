"""Checks before evaluation: types are told, and no policy that could match is left unasked."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.actions import Action, of_event
from detectors.policy.evaluator import Evaluator
from detectors.policy.expressions import Context, Expression
from detectors.policy.guards import NEVER, OPEN, Guard
from detectors.policy.policies import Bundle
from detectors.policy.policy import Policy
from detectors.policy.syntax import parse, substitute, tokens
from detectors.vocabulary import KINDS, SCHEMA
from tests.detectors.material import day, hostile


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("operation == 3", "`operation` is string and is compared with int"),
        ('rows == "3"', "`rows` is int"),
        ("rows > 'x'", "cannot be >"),
        ("operation in relations && 3 in relations", "never in a list of string"),
        ("operation.startsWidth('x')", "unknown function 'startsWidth'"),
        ("lower(operation) == 'x'", "unknown function 'lower'"),
        ("relations.contains('x')", "contains asks a text"),
        ("rows.exists(r, r == 1)", "exists goes through lists"),
        ("relations.exists(r, r == 1)", "is compared with int"),
        ("operation && true", "`operation` is string, not true or false"),
        ("operation.x == 1", "`operation` is string and has no field"),
        ("relations['x'] == 'y'", "its places are numbers"),
        ("rows", "the result is int"),
        ("rows + operation == 1", "cannot be computed"),
        ("size(rows) == 1", "has no size"),
        ("rowz == 1", "did you mean rows"),
        ("principal.nome == 'x'", "principal.name"),
        ("operation.matches('[')", "no regular expression"),
        ("has(operation)", "has"),
    ],
)
def test_a_slip_is_reported_when_a_policy_is_loaded(source: str, words: str) -> None:
    """What CEL would take without a word, and what it would refuse at night, is refused at once."""
    with pytest.raises(ValueError, match=re.escape(words)):
        Expression(source)


@pytest.mark.parametrize(
    "source",
    [
        'has(labels.scope) && labels.scope in ["a", "b"] && detail.x[0].y == 3',
        "rows >= (principal.kind == 'agent' ? 50 : 1000) || anomaly > 0",
        "relations.filter(r, r.startsWith('a')).size() > 1 && size(relations) - 1 > rows % 3",
        "relations.map(r, r + 'x').exists(r, r == 'ax') && !(hour in [1, 2, 3])",
        "object.before.exists(k, k == 'x') || object.after['x'] == true",
        "operation == r\"a\\d\" || operation == \"\\u0041\" || operation == '''x''' // comment",
        "detail.n == 1.5e3 && rows != 0x1F && -rows < 5 && {'a': 1}['a'] == 1",
        "null == detail.x",
    ],
)
def test_what_is_right_passes(source: str) -> None:
    """The checks know the language: maps are of any type, numbers compare with each other."""
    Expression(source)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(source: str) -> None:
    """The reader raises nothing but `ValueError`."""
    tokens(source)
    try:
        parse(source)
    except ValueError:
        return


def test_parameters_stand_for_their_values() -> None:
    """They are written into the condition, not into texts, and one that is not there is named."""
    parameters = {"from": 8, "names": ["a'b", 'c"d'], "on": True}
    text = substitute(
        "hour >= parameters.from && operation in parameters.names && 'parameters.from' != role", parameters
    )
    assert text == """hour >= 8 && operation in ["a'b", "c\\"d"] && 'parameters.from' != role"""
    expression = Expression("operation in parameters.names", parameters)
    prepared = Context(expression.paths).of(Action(kind="change", operation='c"d'))
    assert not isinstance(prepared, str)
    assert expression.evaluate(prepared) is True
    with pytest.raises(ValueError, match=r"parameters\.til"):
        Expression("hour < parameters.til", parameters)


@pytest.mark.parametrize(
    ("source", "kind", "expected"),
    [
        ('operation == "a"', "change", Guard(operations=frozenset("a"))),
        ('"a" == operation || operation in ["b"]', "change", Guard(operations=frozenset("ab"))),
        ('operation == "a" && rows > 3', "change", Guard(operations=frozenset("a"), least=(("rows", 4),))),
        ('operation == "a" || rows > 3', "change", OPEN),
        ('operation != "a"', "change", OPEN),
        ('!(operation == "a")', "change", OPEN),
        ('kind == "ddl" && operation == "a"', "change", NEVER),
        ('kind == "ddl" ? operation == "a" : operation == "b"', "change", Guard(operations=frozenset("b"))),
        ('kind != "ddl" || operation == "a"', "ddl", Guard(operations=frozenset("a"))),
        ('rows > 3 ? operation == "a" : operation == "b"', "change", OPEN),
        ('statement.operations.exists(o, o in ["a", "b"])', "statement", Guard(runs=frozenset("ab"))),
        ('"a" in statement.operations', "statement", Guard(runs=frozenset("a"))),
        ('statement.operations.exists(o, o != "a")', "statement", Guard(filled=frozenset({"statement.operations"}))),
        ('!statement.operations.exists(o, o == "a")', "statement", OPEN),
        ('statement.functions.exists(f, f == "a")', "statement", Guard(filled=frozenset({"statement.functions"}))),
        ("size(sensitive) > 0", "statement", Guard(filled=frozenset({"sensitive"}))),
        ("size(sensitive) >= 0", "statement", OPEN),
        ("rows >= (principal.kind == 'a' ? 5 : 9)", "statement", Guard(least=(("rows", 5),))),
        ("rows >= calls", "statement", OPEN),
        ("rows > 5 || rows > 3", "statement", Guard(least=(("rows", 4),))),
    ],
)
def test_a_guard_says_what_must_hold(source: str, kind: str, expected: Guard) -> None:
    """Guards come from what stands there; where nothing is certain there is none."""
    assert Expression(source).guard(kind) == expected


def by_hand(policies: tuple[Policy, ...], action: Action) -> tuple[set[str], set[str]]:
    """Ask every policy of the kind without any selection; return the ids that match and those that fail."""
    matched, failed = set(), set()
    for policy in policies:
        for condition in policy.conditions:
            prepared = Context(condition.paths).of(action)
            result = prepared if isinstance(prepared, str) else condition.evaluate(prepared)
            if isinstance(result, str):
                failed.add(policy.id)
            elif result:
                matched.add(policy.id)
    return matched, failed


PACKAGED = Bundle.packaged()


def selected(bundle: Bundle, action: Action) -> tuple[set[str], set[str]]:
    """Ask as the worker does."""
    found = Evaluator(bundle).ask(action)
    return {p.id for p in found.matched} | {p.id for p, _ in found.met}, {p.id for p, _ in found.failed}


def test_selection_changes_no_answer_on_streams() -> None:
    """On ordinary and hostile events alike, the packaged policies say the same with and without selection."""
    for found in [*day(7, 300), *hostile(7)]:
        if found.kind != "change":
            action = of_event(found, {"scope": "pci"})
            assert selected(PACKAGED, action) == by_hand(PACKAGED.by_kind[found.kind], action)


WORDS = sorted(
    {"", "x"}
    | {
        word.text.strip("\"'")
        for policy in PACKAGED.policies.values()
        for condition in policy.conditions
        for word in tokens(condition.source)
        if word.sort == "string"
    }
)
_ACTIONS = st.fixed_dictionaries(
    {},
    optional={
        field.attribute: {
            "string": st.sampled_from(WORDS),
            "list of string": st.lists(st.sampled_from(WORDS), max_size=3),
            "int": st.sampled_from([0, 1, 50, 100, 500, 1_000, 5_000, 100_000]),
            "bool": st.booleans(),
            "double": st.just(0.5),
            "map": st.just({"x": "y"}),
        }[field.type]
        for name, field in SCHEMA.items()
        if name != "kind"
    },
)


@settings(max_examples=400)
@given(st.sampled_from(KINDS), _ACTIONS)
def test_selection_changes_no_answer_on_made_up_actions(kind: Any, fields: dict[str, Any]) -> None:
    """Actions made of the very words that policies ask for are judged the same with and without selection."""
    action = Action(kind=kind, **fields)
    assert selected(PACKAGED, action) == by_hand(PACKAGED.by_kind[kind], action)


def test_an_ordinary_read_asks_few() -> None:
    """Of all packaged policies, only a handful is asked about a SELECT by key."""
    evaluator = Evaluator(PACKAGED)
    plain = Action(
        kind="query_stats",
        operation="select",
        operations=["select"],
        relations=["orders"],
        columns=["orders.id"],
        rows=1,
    )
    asked = evaluator._select(plain).of(plain)
    assert asked is not None
    assert 0 < len(asked.conditions) < len(PACKAGED.by_kind["query_stats"]) / 4
