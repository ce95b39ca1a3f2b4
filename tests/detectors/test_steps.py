"""A client decides how much a statement names: what a policy would take too long for is an alert, not a silence."""

from __future__ import annotations

import pytest

from detectors.actions import Action
from detectors.policy.evaluator import Evaluator
from detectors.policy.policies import Bundle
from detectors.policy.steps import STEPS_MAX, TOO_MUCH, steps
from detectors.policy.steps import products as of_tree
from detectors.policy.syntax import parse


@pytest.mark.parametrize(
    ("source", "number"),
    [
        ("relations.exists(r, r == 'a')", 0),
        ("size(columns) > 3 && relations.all(r, r in ['a', 'b'])", 0),
        ("relations.exists(r, columns.exists(c, c.startsWith(r)))", 3 * 5),
        ("relations.exists(r, r in columns)", 3 * 5),
        ("['a', 'b'].exists(x, relations.exists(r, r == x))", 2 * 3),
        ("relations.exists(r, relations.exists(s, columns.exists(c, c == r + s)))", 3 * 3 + 3 * 3 * 5),
        ("detail.objects.exists(o, relations.exists(r, r == o.name))", 100 * 3),
    ],
)
def test_loops_within_loops_multiply(source: str, number: int) -> None:
    """Lists of the action and of the expression itself; one that is neither counts as a hundred."""
    action = Action(kind="statement", relations=["r"] * 3, columns=["c"] * 5)
    assert steps(of_tree(parse(source)), action) == number


def test_what_is_too_much_for_a_policy_is_an_error_of_it_and_the_others_are_asked() -> None:
    """A read of a thousand tables at once: the packaged policies answer in bounded steps, and none passes over it."""
    names = [f"public.t{number}" for number in range(1_000)]
    columns = [f"{name}.email" for name in names]
    action = Action(
        kind="statement", operation="select", operations=["select"], outcome="success", rows_known=False,
        principal="ada", principal_kind="human", relations=names, columns=columns, sensitive=columns, whole=names,
    )  # fmt: skip
    assert len(names) ** 2 > STEPS_MAX
    matches = Evaluator(Bundle.packaged()).ask(action)
    assert [(policy.id, why) for policy, why in matches.failed] == [("sensitive_read", TOO_MUCH)]
