"""Alerts: valid OCSF 1.8.0, complete, and equal to the golden sample that the documentation shows."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pgwitness
from detectors.alerts.alert import Alert, alert_uid
from detectors.alerts.ocsf import query
from detectors.behaviour.model import Behaviour
from detectors.judge import Judge
from detectors.policy.cases import action_from
from detectors.policy.policies import Bundle
from pgwitness.core.config import Behaviour as Settings
from pgwitness.core.events import Count, Relation
from pgwitness.core.units import Duration
from tests import ocsf
from tests.detectors.material import START_US, change, day, event, hostile

HERE = Path(__file__).parent
GOLDEN = HERE / "golden_alert.json"
REFERENCE = HERE.parent.parent / "docs" / "reference" / "alerts.md"


def golden() -> dict[str, Any]:
    """Make the golden sample: an agent deletes far more than it should, after a life of small updates."""
    settings = Settings(warmup=Duration(1.0), warmup_observations=10)
    labels = {"shop": {"env": "prod", "owner": "payments", "scope": "pci"}}
    judge = Judge(Bundle.packaged(), labels=labels, behaviour=Behaviour(settings))
    agent: dict[str, Any] = {
        "principal": "support-agent",
        "principal_kind": "agent",
        "on_behalf_of": "maria",
        "peer_group": "agents",
        "role": "shop_app",
        "effective_role": "shop_app",
        "application": "support-agent/1.4",
        "client_addr": "10.0.0.17",
        "client_port": 54_102,
        "pid": 4_711,
        "session_id": "db.example:5432/6ab13a80.1267",
        "assurance": "asserted",
    }
    for number in range(200):
        assert judge.judge(change(number, "u", 1 + number % 3, "public.tickets", **agent)).alerts == []
    given = change(200, "d", 412, "public.customers", detail={"owner": "support"}, **agent)
    (alert,) = judge.judge(given).alerts
    return alert.ocsf()


def conforms(finding: dict[str, Any]) -> bool:
    """Hold that a finding is JSON and a Detection Finding of the published release."""
    assert ocsf.problems(json.loads(json.dumps(finding)), 2004) == []
    return True


def test_the_golden_sample_is_what_the_code_makes() -> None:
    """The sample is an alert as it leaves pgwitness today, whole; a new release changes its own version only.

    And the version of its policies, which any word in one of them changes.
    """
    kept = json.loads(GOLDEN.read_text())
    assert kept["metadata"]["product"]["version"] == pgwitness.__version__
    assert kept["finding_info"]["analytic"]["version"] == kept["unmapped"]["bundle_sha256"]
    kept["finding_info"]["analytic"]["version"] = kept["unmapped"]["bundle_sha256"] = Bundle.packaged().sha256
    assert golden() == kept


def test_the_documentation_shows_the_golden_sample() -> None:
    """docs/reference/alerts.md carries the sample word for word."""
    shown = re.search(r"```json\n(.*?)\n```", REFERENCE.read_text(), re.DOTALL)
    assert shown is not None
    assert json.loads(shown[1]) == json.loads(GOLDEN.read_text())


def test_the_documentation_names_every_field_that_is_ours() -> None:
    """Everything under `unmapped` has its line in docs/reference/alerts.md."""
    text = REFERENCE.read_text()
    assert [name for name in golden()["unmapped"] if f"`{name}`" not in text] == []


def test_an_alert_has_everything_the_contract_lists() -> None:
    """Each fact the contract promises is there, and is the one of the action."""
    alert = golden()
    info, ours = alert["finding_info"], alert["unmapped"]
    assert {"uid", "title", "desc", "first_seen_time", "last_seen_time", "attacks"} <= set(info)
    assert (alert["severity_id"], alert["status_id"], alert["count"], alert["activity_id"]) == (4, 1, 1, 1)
    assert alert["time"] == (START_US + 20_000_000 + 40_000) // 1000
    expected = {
        "principal": "support-agent",
        "principal_kind": "agent",
        "on_behalf_of": "maria",
        "certainty": "exact",
        "assurance": "asserted",
        "cluster": "shop",
        "instance": "db.example:5432",
        "database": "shop",
        "client_addr": "10.0.0.17",
        "relations": ["public.customers"],
        "rows": 412,
        "statement": None,
        "outcome": "success",
        "policy": "mass_change",
        "bundle_sha256": Bundle.packaged().sha256,
        "owner": "support",
        "event_ids": [f"{200:032x}"],
    }
    assert {name: ours[name] for name in expected} == expected
    assert ours["runbook"]
    assert ours["reasons"][0]["words"]
    assert f"{200:032x}" in ours["query"]


def test_every_alert_fits_the_schema() -> None:
    """Alerts of ordinary days and of hostile input validate against class 2004 and are JSON."""
    settings = Settings(warmup=Duration(2.0), warmup_observations=10, alert_at=0.4)
    judge = Judge(Bundle.packaged(), labels={"shop": {"owner": "x"}}, behaviour=Behaviour(settings))
    seen = 0
    for each in day(1) + day(2) + hostile(1) + hostile(2):
        for alert in judge.judge(each).alerts:
            assert conforms(alert.ocsf())
            seen += 1
    assert seen > 50
    assert conforms(golden())


def test_every_policy_of_the_pack_makes_alerts_that_fit_the_schema() -> None:
    """Each packaged policy's own positive tests, judged, validate against class 2004."""
    for policy in Bundle.packaged().policies.values():
        document = policy.document
        cases = [
            given for case in document.tests if case.match for given in ([case.action] if case.action else case.actions)
        ]
        for given in cases:
            fields = {name: value for name, value in given.items() if name not in ("at", "every", "repeat")}
            action = action_from(fields, given.get("kind", document.kinds[0]))
            alert = Alert(
                uid=alert_uid(policy.id, "", 0),
                detector=f"policy:{policy.id}",
                title=document.title,
                message=policy.message(action, None),
                description=document.description,
                severity=document.severity,
                runbook=document.runbook,
                action=action,
                count=1,
                first_seen_us=START_US,
                last_seen_us=START_US,
                event_ids=["e1"],
                attack=document.attack,
                policy=policy.id,
            )
            assert conforms(alert.ocsf())
        assert cases


def test_the_schema_refuses_what_the_standard_does_not_have() -> None:
    """The release's schema, and what is asked beyond it, is no rubber stamp."""
    wrong: tuple[dict[str, Any], ...] = (
        {"class_uid": 6005},
        {"type_uid": 200405},
        {"severity_id": 9},
        {"principal": "x"},
        {"finding_info": {}},
        {"time": "now"},
    )
    for broken in (
        *wrong,
        {"severity": "Dire"},
        {"type_uid": 200403},
        {"observables": [{"name": "evidences[0].actor.user.name", "type_id": 4, "value": "somebody else"}]},
        {"evidences": [{"actor": {"invoked_by": "maria"}}]},
        {"metadata": golden()["metadata"] | {"version": "1.9.0"}},
    ):
        assert ocsf.problems(golden() | broken, 2004) != []


def test_repeats_update_the_same_finding() -> None:
    """The same action again within the window is the same uid, an Update, and one more in the count."""
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None)
    first, second = (judge.judge(change(number, "d", 9_000)).alerts[0].ocsf() for number in (1, 2))
    assert first["finding_info"]["uid"] == second["finding_info"]["uid"]
    assert [(a["activity_id"], a["type_uid"], a["count"]) for a in (first, second)] == [(1, 200401, 1), (2, 200402, 2)]
    assert second["finding_info"]["first_seen_time"] == first["finding_info"]["first_seen_time"]
    assert second["finding_info"]["last_seen_time"] > first["finding_info"]["last_seen_time"]
    assert second["unmapped"]["event_ids"] == [f"{1:032x}", f"{2:032x}"]


def test_another_window_key_or_detector_is_another_finding() -> None:
    """The uid is of detector, key and window."""
    uids = {alert_uid(d, k, w) for d in ("policy:a", "policy:b") for k in ("x", "y") for w in (0, 1)}
    assert len(uids) == 8
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None)
    hour = 36_000
    found = [judge.judge(change(n, "d", 9_000)).alerts[0] for n in (1, 1 + hour)]
    found.append(judge.judge(change(2, "d", 9_000, principal="somebody-else")).alerts[0])
    assert len({alert.uid for alert in found}) == 3
    assert all(alert.count == 1 for alert in found)


def test_the_score_does_not_change_the_uid() -> None:
    """With and without a behaviour model a policy's finding has the same name."""
    with_model = Judge(Bundle.packaged(), labels={}, behaviour=Behaviour(Settings(warmup=Duration(0.1))))
    without = Judge(Bundle.packaged(), labels={}, behaviour=None)
    assert {a.uid for e in day(5) for a in with_model.judge(e).alerts if a.policy} >= {
        a.uid for e in day(5) for a in without.judge(e).alerts
    }


def test_a_flood_of_repeats_is_a_handful_of_records() -> None:
    """Of a thousand repeats the first ten and then each doubling are told, with the count so far."""
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None)
    counts = [alert.count for number in range(1_000) for alert in judge.judge(change(number, "d", 9_000)).alerts]
    assert counts == [*range(1, 11), 16, 32, 64, 128, 256, 512]


def test_the_query_quotes_what_it_asks_for() -> None:
    """The ready query finds the rows of a change by prefix, and an event id cannot break out of it."""
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None)
    (alert,) = judge.judge(change(1, "d", 9_000, event_id="a' OR '1'='1")).alerts
    assert "'a'' OR ''1''=''1-'" in query(alert)
    at = datetime.fromtimestamp(START_US / 1e6 + 0.1, UTC).isoformat(timespec="microseconds")
    assert f"BETWEEN '{at}' AND '{at}'" in query(alert)


def test_a_client_cannot_make_an_alert_too_big() -> None:
    """Names, statements and details of megabytes are cut; the alert stays far below the broker's limit."""
    big = "x" * 1_000_000
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None)
    detail = {"reason": big, "more": [big] * 3}
    gap = event(1, "gap", operation=big, cluster=big, application=big, statement=big, detail=detail, role=big)
    (alert,) = judge.judge(gap).alerts
    finding = alert.ocsf()
    assert len(json.dumps(finding)) < 64 * 1024
    assert finding["evidences"][0]["data"]["detail"]["keys"] == ["reason", "more"]


def test_a_staged_policy_reports_and_pages_nobody() -> None:
    """A staged policy's findings are marked, so that nobody is woken by them."""
    (alert,) = Judge(Bundle.packaged(), labels={}, behaviour=None).judge(change(1, "d", 9_000)).alerts
    assert alert.ocsf()["is_alert"] is True
    alert.staged = True
    finding = alert.ocsf()
    assert (finding["is_alert"], finding["finding_info"]["analytic"]["state"]) == (False, "Experimental")
    assert finding["unmapped"]["mode"] == "staged"


def test_a_transaction_of_several_relations_raises_one_alert_each() -> None:
    """Each relation that was emptied is a finding of its own."""
    relations = [Relation("public.a"), Relation("public.b"), Relation("public.c")]
    counts = [Count(0, "d", 9_000), Count(1, "d", 9_000), Count(2, "d", 1)]
    verdict = Judge(Bundle.packaged(), labels={}, behaviour=None).judge(
        change(1, relation_table=relations, counts=counts)
    )
    alerts: list[Alert] = verdict.alerts
    assert [alert.action.relations for alert in alerts] == [["public.a"], ["public.b"]]
    assert len({alert.uid for alert in alerts}) == 2
    assert verdict.policies == ["mass_change"]
