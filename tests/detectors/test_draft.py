"""A policy drafted from an alert: it would have refused what was told, and nothing next to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detectors.actions import Action
from detectors.behaviour.model import Behaviour
from detectors.gatekeeper import Gatekeeper
from detectors.judge import Judge
from detectors.policy.draft import draft, told
from detectors.policy.files import parse
from detectors.policy.policies import Bundle
from detectors.replay import Past, Replay
from detectors.sensitive import Sensitive
from pgwitness.core.config import Behaviour as Settings
from pgwitness.core.config import Config
from pgwitness.core.events import Event
from tests.detectors.material import change, event

PURGE = "DELETE FROM public.customers"


def alert_of(*events: Event, policy: str) -> dict[str, Any]:
    """Judge events by the packaged policies; gives the alert of one policy."""
    judge = Judge(Bundle.packaged(), labels={}, behaviour=Behaviour(Settings()))
    found = [alert for each in events for alert in judge.judge(each).alerts]
    for each in found:
        if each.policy == policy:
            return each.ocsf()
    raise AssertionError([each.policy for each in found])


def asked(**facts: Any) -> Action:
    """Make the action of a statement that the gateway asks about."""
    return Action(kind="statement", asked=True, rows_known=False, **facts)


def decided(text: str, action: Action) -> str | None:
    """Ask as the gateway does; gives the effect."""
    verdict = Gatekeeper(Bundle(parse(text, "drafted")), Sensitive([])).ask(action)
    return verdict.effect if verdict is not None else None


def mass_delete() -> Event:
    """Give an agent's delete of many rows."""
    return change(1, "d", 412, "public.customers", principal="helper", principal_kind="agent", role="agents")


def test_many_rows_are_limited() -> None:
    """Of an alert about rows the policy is a limit below them, for this principal and relation alone."""
    alert = alert_of(mass_delete(), policy="mass_change")
    text = draft(told(alert), active=True)
    same = {"operation": "delete", "operations": ["delete"], "relations": ["public.customers"], "principal": "helper"}
    assert decided(text, asked(**same)) == "limit"
    assert "max_rows: 200" in text
    for other in ({"principal": "ada"}, {"relations": ["public.orders"]}, {"operations": ["select"]}):
        assert decided(text, asked(**{**same, **other})) is None


def test_a_statement_without_where_is_denied() -> None:
    """Of an alert about a statement without WHERE the policy denies just that."""
    statement = event(
        1, "statement", statement=PURGE, operation="delete", relations=["public.customers"], principal="helper",
        principal_kind="agent", role="agents", outcome="success",
    )  # fmt: skip
    text = draft(told(alert_of(statement, policy="delete_without_where")), active=True)
    same = {"operation": "delete", "operations": ["delete"], "relations": ["public.customers"], "principal": "helper"}
    assert decided(text, asked(**same, where="none")) == "deny"
    assert decided(text, asked(**same, where="present")) is None


def test_a_draft_is_staged_and_its_replay_counts_what_was_told() -> None:
    """It refuses nothing until somebody says so, and finds in the evidence what the alert told of."""
    event_ = mass_delete()
    text = draft(told(alert_of(event_, policy="mass_change")))
    assert "mode: staged" in text
    who = event_.principal or ""
    assert decided(text, asked(operations=["delete"], relations=["public.customers"], principal=who)) == "staged"
    bundle = Bundle(parse(text, "drafted"))
    assert bundle.run_tests() == []
    replay = Replay(bundle, Config(), 0)
    for each in (event_, change(2, "d", 3, "public.customers", principal="helper", principal_kind="agent")):
        replay.take(Past("p", each, (), None, []))
    (found,) = replay.difference().policies
    assert (found.added, found.same) == (1, 0)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("session", "only statements"), ("statement", "neither a principal nor a role"), ("gap", "only statements")],
)
def test_what_nobody_could_have_refused_is_said(kind: str, said: str) -> None:
    """A login, a gap, or what nobody did by name has no policy."""
    with pytest.raises(ValueError, match=said):
        told({"unmapped": {"kind": kind}, "finding_info": {"uid": "x"}})


def test_any_object_is_read_or_refused(tmp_path: Path) -> None:
    """What a stranger has put on the topic is no alert, and no error of another sort."""
    strange: list[Any] = [{}, {"unmapped": 3}, {"unmapped": {"kind": "ddl", "role": "r", "operation": "x\n'\"{"}}]
    strange.append(
        {"unmapped": {"kind": "change", "role": 'a"\nb', "operation": "delete", "rows": -5}, "evidences": [1]}
    )
    for alert in strange:
        try:
            text = draft(told(alert))
        except ValueError:
            continue
        file = tmp_path / "drafted.yaml"
        file.write_text(text)
        assert Bundle.load(file).run_tests() == []
