"""Why a condition holds or not: the parts are the evaluator's own, and written as they are read."""

from __future__ import annotations

import pytest

from detectors.actions import Action
from detectors.policy import syntax
from detectors.policy.cases import actions_of
from detectors.policy.explain import conjuncts, explain, lacking
from detectors.policy.expressions import Context, Expression
from detectors.policy.policies import Bundle

ODD = [
    "rows - (calls - 1) > 0",
    "(rows > 1 ? calls : rows) > 2",
    "!(rows > 1 && calls > 1)",
    "-(1 + 2) * 3 < rows",
    "(rows > 1 || calls > 1) && rows < 5",
    'statement.text == "a\\n\\"é"',
    "(relations + columns).size() > 1",
    '{"a": 1}["a"] == rows',
    "(rows == 1) == (calls == 1)",
    "rows > 1 ? calls > 1 : rows > 2 ? calls > 2 : calls > 3",
    'relations.exists(r, r.startsWith("a") && r.size() > 2) && relations[0] == "a"',
]


@pytest.mark.parametrize("source", ODD)
def test_a_condition_is_written_as_it_is_read(source: str) -> None:
    """What is written of a tree is read as the same tree."""
    tree = syntax.parse(source)
    assert syntax.parse(syntax.write(tree)) == tree


def test_every_condition_of_the_pack_is_written_as_it_is_read() -> None:
    """The same for all packaged policies, and their parts make the whole in every test of theirs."""
    asked = 0
    for policy in Bundle.packaged().policies.values():
        for condition in policy.conditions:
            assert syntax.parse(syntax.write(condition.tree)) == condition.tree
            for case in policy.document.tests:
                for action in list(actions_of(case, policy.document.kinds[0]))[-1:]:
                    whole = condition.evaluate(Context(condition.paths).of(action))
                    part = explain(condition, action)
                    assert part.holds == {True: "yes", False: "no"}.get(whole, whole)  # type: ignore[arg-type]
                    assert (part.holds == "yes") == all(each.holds == "yes" for each in conjuncts(part))
                    asked += 1
    assert asked > 250


def test_what_is_lacking_is_one_part() -> None:
    """One part that does not hold is told, two are not, and of what holds nothing is lacking."""
    condition = Expression("rows > 1 && calls > 1 && operation == 'x'")
    one = explain(condition, Action(kind="change", rows=2, calls=2))
    found = lacking(one)
    assert found is not None
    assert (found.text, found.read) == ('operation == "x"', {"operation": "empty"})
    assert lacking(explain(condition, Action(kind="change", rows=2))) is None
    assert lacking(explain(condition, Action(kind="change", rows=2, calls=2, operation="x"))) is None


def test_what_cannot_be_decided_says_why() -> None:
    """A key that is not there is named; a condition that asks for it first is `no`."""
    part = explain(Expression("has(detail.x) && detail.x > 1"), Action(kind="gap"))
    assert part.holds == "no"
    assert [each.holds for each in part.parts] == ["no", "'x' is not there"]
    assert part.parts[1].read == {"detail.x": "not there"}
