"""The judge: which events give which verdicts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from detectors.behaviour.model import Behaviour
from detectors.judge import Judge
from detectors.judgement import Incomplete
from detectors.policy.expressions import Expression
from detectors.policy.files import parse
from detectors.policy.policies import Bundle
from pgwitness.core.config import Behaviour as Settings
from pgwitness.core.config import Cluster, Config
from pgwitness.core.errors import Stop
from pgwitness.core.units import Duration
from tests.detectors.material import START_US, change, event, parts

SETTINGS = Settings(warmup=Duration(1.0), warmup_observations=10)


def judge_with(*documents: str, behaviour: Behaviour | None = None) -> Judge:
    """Make a judge of policies given as `id`, kinds and `when`."""
    text = "\n---\n".join(documents)
    return Judge(Bundle(parse(text, "test.yaml")), labels={"shop": {"scope": "pci"}}, behaviour=behaviour)


def policy(name: str, kinds: str, when: str) -> str:
    """Write a policy whose tests are not what is tested here."""
    return f"""
id: {name}
title: {name}
description: x
severity: low
kinds: {kinds}
when: >-
  {when}
message: "{{who}}"
runbook: x
tests:
  - {{name: a, match: true, action: {{}}}}
  - {{name: b, match: false, action: {{}}}}
"""


def test_a_long_transaction_is_judged_with_its_last_part() -> None:
    """Three parts of a thousand deletes each are one action of three thousand."""
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None)
    verdicts = [judge.judge(part) for part in parts(1, {})]
    assert [verdict.policies for verdict in verdicts] == [[], [], []]
    human = {"principal_kind": "human", "principal": "ada"}
    verdicts = [judge.judge(part) for part in parts(2, human)]
    assert [verdict.policies for verdict in verdicts] == [[], [], ["mass_change"]]
    assert verdicts[2].alerts[0].action.rows == 3_000


def test_only_policies_of_the_kind_are_asked() -> None:
    """A policy for gaps that would match everything does not see changes."""
    judge = judge_with(policy("gaps", "[gap]", "true"), policy("changes", "[change]", "true"))
    assert judge.judge(change(1)).policies == ["changes"]
    assert judge.judge(event(2, "gap", operation="slot_lost")).policies == ["gaps"]
    assert judge.judge(event(3, "control", operation="start")).policies == []


def test_what_a_command_of_pgwitness_did_is_judged_by_nothing() -> None:
    """A statement that its session's code proves to be an installation's raises nothing; one without it does."""
    judge = judge_with(policy("all", "[statement, ddl, control]", "true"))
    assert judge.judge(event(1, "statement", operation="grant", detail={"own": True})).policies == []
    assert judge.judge(event(2, "ddl", operation="ALTER TABLE", detail={"own": True})).policies == []
    assert judge.judge(event(3, "statement", operation="grant")).policies == ["all"]
    assert judge.judge(event(4, "control", operation="beacon_uninstall")).policies == ["all"]


def test_a_policy_that_fails_is_a_finding_and_stops_nothing() -> None:
    """The others are still asked, the failing one raises an alert of its own, and the next event is judged."""
    judge = judge_with(policy("broken", "[change]", "detail.oid == 1"), policy("works", "[change]", "rows > 0"))
    verdict = judge.judge(change(1))
    assert verdict.policies == ["works"]
    (error,) = [alert for alert in verdict.alerts if alert.detector == "policy_error:broken"]
    assert "KeyError" in error.message
    assert judge.judge(change(2, detail={"oid": 1})).policies == ["broken", "works"]


@pytest.mark.parametrize(
    ("when", "first", "second"),
    [
        ("rows == 2", {}, {"counts": []}),
        ("operation == 'delete'", {"operation": "u"}, {"operation": "d"}),
        ("relations[0] == 'public.b'", {"relation": "public.a"}, {"relation": "public.b"}),
        ("principal.kind == 'agent'", {}, {"principal_kind": "agent"}),
        ("role == 'x' && certainty == 'weak'", {"role": "x"}, {"role": "x", "certainty": "weak"}),
        ("client_addr == '10.9.9.9'", {}, {"client_addr": "10.9.9.9"}),
        ("finding == 'shadow_write'", {"detail": {"claim": "a"}}, {"detail": {"finding": "shadow_write"}}),
        ("has(detail.claim) && detail.claim == 'b'", {"detail": {"claim": "a"}}, {"detail": {"claim": "b"}}),
        ("hour == 15", {}, {"occurred_at_us": START_US + 3_600_000_000}),
        ("weekday == 1", {}, {"occurred_at_us": START_US + 86_400_000_000}),
        ("has(labels.scope) && labels.scope == 'pci'", {"cluster": "other"}, {"cluster": "shop"}),
        ("size(statement.text) > 3 || outcome == 'failure'", {}, {"outcome": "failure"}),
    ],
)
def test_remembered_answers_are_those_of_the_same_shape(
    when: str, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """Two changes that differ in one thing a policy reads do not share an answer; in either order."""
    if "counts" in second:
        first, second = {"rows": 1}, {"rows": 2}
    for order in ((first, second, first, second), (second, first, second, first)):
        judge = judge_with(policy("it", "[change]", when))
        for number, facts in enumerate(order):
            assert judge.judge(change(number, **facts)).policies == (["it"] if facts is second else [])


def test_changes_of_the_same_shape_are_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand changes that look alike cost one evaluation."""
    asked: list[object] = []
    evaluate = Expression.evaluate

    def counting(self: Expression, prepared: Any) -> object:
        asked.append(self)
        return evaluate(self, prepared)

    monkeypatch.setattr(Expression, "evaluate", counting)
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None)
    for number in range(10_000):
        judge.judge(change(number, principal=f"p{number % 50}", application=f"a{number}"))
    assert 0 < len(asked) == len(set(asked))


def test_a_service_from_a_new_address_is_found() -> None:
    """The model's word reaches the policy, for a session and for a write."""
    judge = Judge(Bundle.packaged(), labels={}, behaviour=Behaviour(SETTINGS))
    for number in range(60):
        assert judge.judge(change(number)).policies == []
    found = judge.judge(
        event(
            61,
            "session",
            operation="connect",
            principal="checkout",
            principal_kind="service",
            role="shop_app",
            binding="activity",
            client_addr="10.9.9.9",
            application="checkout",
        )
    )
    assert found.policies == ["new_address"]
    assert "10.9.9.9" in found.alerts[0].message
    assert found.anomaly is not None
    assert judge.judge(change(62, client_addr="10.9.9.9")).alerts[0].count == 2


def test_behaviour_alone_is_an_alert_that_pages_nobody() -> None:
    """What only the model finds strange is low, no alarm, and says why in words."""
    judge = Judge(Bundle([]), labels={}, behaviour=Behaviour(SETTINGS))
    for number in range(100):
        judge.judge(change(number))
    verdict = judge.judge(change(101, "d", 40_000))
    assert verdict.anomaly is not None
    assert verdict.anomaly > 0.9
    (alert,) = verdict.alerts
    finding = alert.ocsf()
    assert (finding["severity"], finding["is_alert"], finding["unmapped"]["detector"]) == ("Low", False, "behaviour")
    assert "40,000 rows by delete are far more" in finding["message"]


def test_no_score_while_learning_and_zero_for_the_ordinary() -> None:
    """The lake's column is null where nothing is known yet, and 0 where nothing is unusual."""
    judge = Judge(Bundle.packaged(), labels={}, behaviour=Behaviour(SETTINGS))
    assert judge.judge(change(0)).anomaly is None
    for number in range(1, 50):
        judge.judge(change(number))
    assert judge.judge(change(50)).anomaly == 0.0
    assert Judge(Bundle.packaged(), labels={}, behaviour=None).judge(change(1)).anomaly is None


def test_a_transaction_without_rows_is_judged_by_its_finding() -> None:
    """Where only messages were written a finding of attribution still counts."""
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None)
    assert judge.judge(change(1, counts=[], detail={"finding": "beacon_forged"})).policies == ["beacon_forged"]
    assert judge.judge(change(2, counts=[])).policies == []


@pytest.mark.parametrize(
    ("kind", "facts", "expected"),
    [
        (
            "query_stats",
            {"statement": "DELETE FROM promotions WHERE $1 = $2", "calls": 1, "row_count": 40, "role": "pricing_agent"},
            ["delete_without_where"],
        ),
        ("query_stats", {"statement": "SELECT * FROM customers", "calls": 1, "row_count": 2_000}, ["bulk_read"]),
        ("query_stats", {"statement": "SELECT * FROM customers WHERE id = $1", "calls": 1, "row_count": 1}, []),
        ("query_stats", {"statement": "DROP TABLE coupons", "calls": 1, "row_count": 0}, ["drop_table"]),
        (
            "query_stats",
            {"statement": "ALTER TABLE payments DISABLE TRIGGER USER", "calls": 1, "row_count": 0},
            ["beacon_disabled"],
        ),
        ("query_stats", {"statement": "INSERT INTO t SELECT * FROM u", "calls": 1, "row_count": 90_000}, []),
        (
            "posture",
            {
                "operation": "added",
                "detail": {
                    "object_type": "role",
                    "name": "metrics",
                    "change": "added",
                    "after": {"rolsuper": True, "rolcanlogin": True},
                },
            },
            ["superuser"],
        ),
        (
            "posture",
            {"operation": "removed", "detail": {"object_type": "table", "name": "public.coupons", "change": "removed"}},
            ["drop_table"],
        ),
        ("control", {"operation": "beacon_forged"}, ["beacon_forged"]),
        ("control", {"operation": "start"}, []),
        ("gap", {"operation": "slot_lost"}, ["evidence_gap"]),
    ],
)
def test_what_the_packaged_policies_say_of_whole_events(kind: str, facts: dict[str, Any], expected: list[str]) -> None:
    """From an event as attribution makes it, statement read by the parser, to the policies that match."""
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None)
    assert judge.judge(event(1, kind, **facts)).policies == expected


def test_a_configuration_makes_a_judge() -> None:
    """Labels and the model's settings come from the configuration; the model can be left out."""
    config = Config(clusters={"shop": Cluster(dsn="postgresql://x/y", labels={"owner": "payments"})})
    judge = Judge.from_config(Bundle.packaged(), config)
    (alert,) = judge.judge(change(1, "d", 9_000)).alerts
    assert alert.ocsf()["unmapped"]["owner"] == "payments"
    off = msgspec.structs.replace(config, behaviour=Settings(enabled=False))
    assert msgspec.json.decode(Judge.from_config(Bundle.packaged(), off).snapshot())["behaviour"] is None


@pytest.mark.parametrize("state", [b"", b"{}", b"[]", b"\xff", b'{"version":99}', b'{"version":1,"parts":5}'])
def test_a_checkpoint_that_cannot_be_read_is_refused_with_what_to_do(state: bytes) -> None:
    """Habits are not lost in silence: where it stood, what follows, and how to keep them."""
    judge = Judge(Bundle.packaged(), labels={}, behaviour=Behaviour(SETTINGS))
    with pytest.raises(Stop, match=r"state-judge.*run the release that wrote it"):
        judge.restore(state)


COUNTED = policy("counted", "[change]", "rows > 0").replace(
    "runbook: x", "runbook: x\nthreshold: {count: 3, window: 10m, by: [role]}"
)


def test_other_policies_are_taken_on_and_what_was_counted_goes_on() -> None:
    """From the next event on the new policies judge; a threshold that asks the same does not begin anew."""
    judge = judge_with(COUNTED, policy("old", "[change]", "true"))
    before = judge.bundle
    assert [judge.judge(change(number)).policies for number in range(2)] == [["old"], ["old"]]
    judge.adopt(judge_with(COUNTED, policy("new", "[change]", "true")).bundle)
    verdict = judge.judge(change(2))
    assert verdict.policies == ["new", "counted"]
    assert {alert.bundle_sha256 for alert in verdict.alerts} == {judge.bundle.sha256}
    assert judge.bundle.sha256 != before.sha256


def test_a_checkpoint_brings_its_policies() -> None:
    """A judge that is restored goes on by the policies of the checkpoint, whatever it was made with."""
    first = judge_with(COUNTED, policy("old", "[change]", "true"))
    second = judge_with(policy("new", "[change]", "true"))
    for number in range(2):
        first.judge(change(number))
    second.restore(first.snapshot())
    assert second.bundle.sha256 == first.bundle.sha256
    assert second.judge(change(2)).policies == first.judge(change(2)).policies == ["old", "counted"]
    assert second.snapshot() == first.snapshot()


def test_policies_that_this_release_cannot_read_give_way() -> None:
    """A checkpoint of a release with other fields does not stop the worker: the present policies go on."""
    state = msgspec.json.decode(judge_with(policy("old", "[change]", "true")).snapshot())
    state["bundle"] = state["bundle"].replace('"true"', '"a_field_of_tomorrow == 1"')
    judge = judge_with(policy("new", "[change]", "true"))
    judge.restore(msgspec.json.encode(state))
    assert judge.judge(change(1)).policies == ["new"]


def test_the_state_of_the_release_before_is_read() -> None:
    """What it does not have begins empty."""
    judge = judge_with(policy("it", "[change]", "true"))
    judge.judge(change(1))
    state = msgspec.json.decode(judge.snapshot())
    older = {"version": 1, **{key: state[key] for key in ("parts", "ledger", "behaviour")}}
    again = judge_with(policy("it", "[change]", "true"))
    again.restore(msgspec.json.encode(older))
    assert again.judge(change(2)).alerts[0].count == 2


def test_policies_that_cannot_be_used_are_an_alert_without_any_policy() -> None:
    """The worker's word that changed policies are broken is an alert that wakes somebody, whatever the policies are."""
    judge = Judge(Bundle([]), labels={}, behaviour=None)
    verdict = judge.judge(event(1, "control", operation="policies_refused", detail={"error": "x.yaml: y", "host": "w"}))
    (alert,) = verdict.alerts
    assert "x.yaml: y" in alert.message
    assert alert.ocsf()["is_alert"] is True
    assert verdict.policies == []


def failing(*_: object) -> object:
    """Stand for a defect."""
    raise ZeroDivisionError


@pytest.mark.parametrize("seen", [0, 1, 3])
def test_an_event_on_which_judging_fails_leaves_nothing_behind(seen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it counted towards thresholds and of findings is undone: the next event is judged as without it."""
    threshold = "threshold: {count: 3, window: 1h, by: [principal.name]}"
    counted = policy("often", "[change]", "true").replace("severity: low", f"severity: low\n{threshold}")
    judges = [judge_with(policy("always", "[change]", "true"), counted) for _ in range(2)]
    for number in range(seen):
        for judge in judges:
            judge.judge(change(number))
    before = msgspec.json.decode(judges[0].snapshot())

    with monkeypatch.context() as patched:
        patched.setattr("detectors.judgement.recorded", failing)
        with pytest.raises(ZeroDivisionError):
            judges[0].judge(change(50 + seen * 24 * 3600 * 10))  # days later: that it was quiet can be a finding
    after = msgspec.json.decode(judges[0].snapshot())
    ledgers = [sorted(found[:9] for found in state["ledger"]) for state in (before, after)]
    assert ledgers[0] == ledgers[1]
    assert after["correlations"] == before["correlations"]
    assert after["presence"] == before["presence"]
    told = [[(alert.uid, alert.count, alert.activity) for alert in judge.judge(change(60)).alerts] for judge in judges]
    assert told[0] == told[1]


def test_what_is_due_and_cannot_be_emitted_takes_nothing_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event that came at that time keeps its alerts, and the ends of other findings are told with the next."""
    documents = [policy(name, "[change]", f"principal.name == '{name}'") for name in ("one", "two", "three")]
    judge = judge_with(*documents)
    for number, name in enumerate(("one", "two")):
        assert judge.judge(change(number, principal=name)).alerts
    later = 10 * 24 * 3600 * 3
    with monkeypatch.context() as patched:
        patched.setattr("detectors.alerts.findings.msgspec.json.decode", failing)
        with pytest.raises(Incomplete) as raised:
            judge.judge(change(later, principal="three"))
    assert [alert.policy for alert in raised.value.judgement.alerts] == ["three"]
    found = judge.judge(change(later + 1, principal="nobody")).alerts
    assert [alert.activity for alert in found] == ["close"]
    assert {alert.policy for alert in found} < {"one", "two"}
