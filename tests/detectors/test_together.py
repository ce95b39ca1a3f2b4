"""What one session does of one kind is one finding, that names all it touched."""

from __future__ import annotations

from typing import Any

import pytest

from detectors.alerts import findings
from detectors.alerts.alert import Alert
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from tests.detectors.material import event

MINUTE = 600
"""Numbers of events a minute: `material` puts them a tenth of a second apart."""


def judge() -> Judge:
    """A judge with the packaged policies."""
    return Judge(Bundle.packaged(), labels={}, behaviour=None)


def drop(number: int, relation: str, session: str = "s1", **facts: Any) -> Any:
    """A table is dropped, as DDL tells it."""
    base: dict[str, Any] = {"principal": "deploy", "role": "deploy", "operation": "DROP TABLE", "outcome": "success"}
    base |= {"relations": [relation], "session_id": session, "detail": {"operations": ["drop_table"]}}
    return event(number, "ddl", **(base | facts))


def told(judging: Judge, *events: Any) -> list[Alert]:
    """What is told of drops."""
    return [alert for one in events for alert in judging.judge(one).alerts if alert.policy == "drop_table"]


def test_a_session_that_drops_several_tables_is_one_finding() -> None:
    """Each is told by its sentence, all of them by the list; another session's is another finding."""
    first, second, other = told(judge(), drop(1, "public.a"), drop(2, "public.b"), drop(3, "public.c", "s2"))
    assert (first.uid == second.uid, first.uid == other.uid) == (True, False)
    assert (second.activity, second.count, second.action.relations) == ("update", 2, ["public.a", "public.b"])
    assert "dropped public.b in" in second.message
    assert other.action.relations == ["public.c"]


def test_what_comes_ten_minutes_later_is_another_finding() -> None:
    """A pool's session lives for days; what belongs together comes together."""
    first, second = told(judge(), drop(1, "public.a"), drop(2 + 11 * MINUTE, "public.b"))
    assert first.uid != second.uid
    assert second.action.relations == ["public.b"]


def test_each_relation_is_emitted_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeats are told by doublings after the tenth; what is named for the first time is told, up to a bound."""
    monkeypatch.setattr(findings, "RELATIONS_MAX", 30)
    judging = judge()
    names = [f"public.t{number}" for number in range(40)]
    said = told(judging, *[drop(number, name) for number, name in enumerate(names, 1)])
    assert {f"dropped {name} in" in one.message for name, one in zip(names[:30], said, strict=False)} == {True}
    assert [one.count for one in said[30:]] == [32]
    assert said[-1].action.relations == names[:30]


def test_a_session_without_a_name_joins_nothing() -> None:
    """What nobody knows the session of is told by its relation, as before."""
    first, second = told(judge(), drop(1, "public.a", session_id=None), drop(2, "public.b", session_id=None))
    assert first.uid != second.uid


def test_what_was_refused_is_another_finding_than_what_was_done() -> None:
    """However close together: one is an attempt, of another severity."""
    log = {"kind": "statement", "detail": {"operations": ["drop_table"], "where": "n/a", "functions": []}}
    tried = event(
        2, **log, statement="DROP TABLE b", relations=["public.b"], session_id="s1", role="deploy", outcome="denied"
    )
    done, attempt = told(judge(), drop(1, "public.a"), tried)
    assert done.uid != attempt.uid
    assert attempt.action.relations == ["public.b"]


def test_sessions_go_on_after_a_restart() -> None:
    """A checkpoint holds which finding a session has begun, and of which relations."""
    judging, again = judge(), judge()
    (first,) = told(judging, drop(1, "public.a"))
    again.restore(judging.snapshot())
    (second,) = told(again, drop(2, "public.b"))
    assert (second.uid, second.action.relations) == (first.uid, ["public.a", "public.b"])
    assert again.snapshot() != judging.snapshot()
    told(judging, drop(2, "public.b"))
    assert again.snapshot() == judging.snapshot()


def test_sessions_are_forgotten_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of sessions costs bounded memory; who is forgotten begins a finding of its own."""
    monkeypatch.setattr(findings, "TOGETHER_MAX", 2)
    sessions = ("s1", "s2", "s3", "s1")
    said = told(judge(), *[drop(n, f"public.t{n}", session) for n, session in enumerate(sessions, 1)])
    assert len({alert.uid for alert in said}) == 4
