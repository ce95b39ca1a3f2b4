"""Triage: suppressions, verdicts, digests and incidents, as functions of the records."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from detectors.actions import Action
from detectors.alerts import incidents, triage, verdicts
from detectors.alerts.incidents import Incidents
from detectors.alerts.suppressions import Suppressions, weekly
from detectors.alerts.triage import Triage
from detectors.alerts.verdicts import Verdict, check, match_of, sign
from detectors.behaviour.model import Behaviour
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from pgwitness.core.config import Behaviour as Settings
from pgwitness.core.config import Reviewer
from pgwitness.core.config import Triage as TriageSettings
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import Event, Position
from pgwitness.core.units import Duration
from tests.detectors.material import HOSTILE, SECOND_US, START_US, change, event
from tests.detectors.test_alert import conforms
from tests.detectors.test_closing import HOUR_US, clock

DAY_US = 24 * HOUR_US
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
REVIEWERS = {"ada": Reviewer(key=verdicts.public_text(KEY.public_key()))}

FILE = """
suppressions:
  - id: import
    match: {policy: mass_change, principal: "check*", relation: "public.ord*"}
    reason: the import does this every night
    owner: payments
    expires: 2027-01-31
"""


def judge(settings: TriageSettings | None = None, *, behaviour: bool = False) -> Judge:
    """A judge with the packaged policies, or with habits alone."""
    if behaviour:
        model = Behaviour(Settings(warmup=Duration(1.0), warmup_observations=10))
        return Judge(Bundle([]), labels={}, behaviour=model, triage=Triage(settings))
    return Judge(Bundle.packaged(), labels={}, behaviour=None, triage=Triage(settings))


def file(content: str) -> Event:
    """The record by which the worker tells of a changed file."""
    return event(0, "control", operation="suppressions_changed", detail={"content": content}, at=Position(-2, 1, 0))


def verdict(alert: dict[str, Any], **facts: Any) -> Verdict:
    """What Ada says of an alert: a false positive, for a month, unless told otherwise."""
    base: dict[str, Any] = {
        "uid": alert["finding_info"]["uid"],
        "verdict": "false-positive",
        "scope": "same-finding",
        "why": "agreed with payments",
        "who": "ada",
        "decided_us": START_US,
        "expires_us": START_US + 30 * DAY_US,
        "learn": verdicts.learned(alert),
    }
    base |= facts
    base.setdefault("match", match_of(alert, base["scope"]) if base["scope"] in verdicts.SCOPES else {"policy": "x"})
    return Verdict(**base)


def noted(said: Verdict, at_us: int = START_US, key: Ed25519PrivateKey = KEY) -> Event:
    """The record by which the worker tells of a verdict that it checked."""
    return decided(sign(said, key), at_us)


def decided(value: bytes, at_us: int = START_US) -> Event:
    """Likewise, of any record of the topic."""
    checked = check(value, REVIEWERS, at_us)
    detail = {"checked": msgspec.to_builtins(checked)}
    return event(0, "decision", operation="verdict", detail=detail, occurred_at_us=at_us, captured_at_us=at_us)


def test_what_is_suppressed_is_judged_counted_and_not_emitted() -> None:
    """The finding is in the lake with the id of what suppresses it; another table is reported as before."""
    judging = judge()
    judging.note(file(FILE))
    verdict = judging.judge(change(1, "d", 9_000))
    (alert,) = verdict.alerts
    assert (verdict.policies, alert.lake_only, alert.suppressed_by) == (["mass_change"], True, "suppression:import")
    finding = alert.ocsf()
    assert conforms(finding)
    assert (finding["status_id"], finding["is_alert"], alert.incident) == (3, False, None)
    assert not judging.judge(change(2, "d", 9_000, relation="public.customers")).alerts[0].lake_only
    (closed,) = [a for a in judging.note(clock(START_US + 9 * HOUR_US)).alerts if a.uid == alert.uid]
    assert (closed.activity, closed.lake_only, closed.count) == ("close", True, 1)


def test_an_action_on_two_tables_is_not_hidden_behind_one() -> None:
    """All relations of an action must be meant."""
    rules = Triage()
    assert rules.suppress(FILE)
    base = Action(kind="query_stats", principal="checkout", relations=["public.orders"], occurred_at_us=START_US)
    assert rules.suppressed_by("mass_change", "x", base) == "suppression:import"
    both = replace(base, relations=["public.orders", "public.customers"])
    assert rules.suppressed_by("mass_change", "x", both) is None
    assert rules.suppressed_by("mass_change", "x", replace(base, relations=[])) is None
    assert rules.suppressed_by("drop_table", "x", base) is None


def test_a_suppression_ends_when_it_expires() -> None:
    """By the time of the event; what was quiet until then is told as new."""
    judging = judge()
    judging.note(file(FILE.replace("2027-01-31", "2026-09-21T14:13:30Z")))
    alerts = [judging.judge(change(n, "d", 9_000)).alerts[0] for n in (1, 50, 150)]
    assert [alert.lake_only for alert in alerts] == [True, True, False]
    assert [alert.activity for alert in alerts] == ["create", "update", "create"]
    assert alerts[2].count == 3


def test_a_file_that_cannot_be_used_leaves_the_last_one_in_force() -> None:
    """A broken record changes nothing."""
    judging = judge()
    judging.note(file(FILE))
    kept = judging.suppressions
    judging.note(file("suppressions: 5"))
    judging.note(event(0, "control", operation="suppressions_changed", detail={"content": 5}))
    assert kept == Suppressions.parse(FILE).sha256
    judging.note(file(FILE.replace("payments", "orders")))
    assert judging.suppressions != kept


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("expires: 2027-01-31", "", "expires"),
        ("expires: 2027-01-31", "expires: soon", "expires"),
        ("reason: the import does this every night", "reason: ' '", "reason"),
        ('{policy: mass_change, principal: "check*", relation: "public.ord*"}', "{}", "at least one"),
        ('{policy: mass_change, principal: "check*", relation: "public.ord*"}', "{policy: '*'}", "everything"),
        ('{policy: mass_change, principal: "check*", relation: "public.ord*"}', "{finding: abc}", "nothing else"),
        ("policy: mass_change", "policy: []", "empty list"),
        ("id: import", "id: Import!", "id"),
        ("owner: payments", "owner: payments\n    weekly: sat 01:00-02:00", "windows"),
        ("owner: payments", "owner: payments\n    from: 2028-01-01", "ends before"),
        ("owner: payments", "owner: payments\n    ever: true", "ever"),
        ("owner: payments", "owner: payments\n    owner: nobody", "'owner' stands here a second time"),
        ("suppressions:", "suppression:", "suppression"),
        ("suppressions:\n", "suppressions: [\n", "suppressions.yaml"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(old: str, new: str, problem: str) -> None:
    """Strict, because a suppression that quietly means something else is worse than none."""
    assert old in FILE
    with pytest.raises(ConfigurationError, match=problem):
        Suppressions.parse(FILE.replace(old, new))


def test_windows_hold_when_they_say() -> None:
    """Weekly windows in UTC, over midnight and over the week's end; others from and to."""
    text = """
windows:
  - {id: a, match: {cluster: shop}, weekly: "sun 22:00-02:00", reason: x, owner: x, expires: 2027-01-01}
  - {id: b, match: {cluster: shop}, from: 2026-09-21T10:00:00Z, to: 2026-09-21T12:00:00Z, reason: x, owner: x}
"""
    nightly, once = Suppressions.parse(text).rules

    def at(text: str) -> int:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)

    sunday = [at(f"2026-09-20T{clock}") for clock in ("21:59", "22:00", "23:59")]
    monday = [at(f"2026-09-21T{clock}") for clock in ("00:00", "01:59", "02:00", "10:00", "12:00")]
    assert [nightly.holds(time) for time in sunday + monday] == [False, True, True, True, True, False, False, False]
    assert [once.holds(time) for time in monday] == [False, False, False, True, False]
    assert weekly("daily 01:00-03:00", "x")[6] == ((6 * 24 + 1) * HOUR_US, (6 * 24 + 3) * HOUR_US)
    for wrong in ("sometimes", "sat 25:00-26:00", "sat,xyz 01:00-02:00", "sat 01:70-02:00"):
        with pytest.raises(ConfigurationError, match="weekly"):
            weekly(wrong, "x")
    assert [rule.id for rule in Suppressions.parse(text).expired(at("2026-10-01T00:00"))] == ["window:b"]


def test_a_false_positive_closes_the_finding_and_suppresses_it() -> None:
    """The verdict closes what is open, and the same finding is quiet in the next window, until it expires."""
    judging = judge()
    (alert,) = judging.judge(change(1, "d", 9_000)).alerts
    said = verdict(alert.ocsf())
    (closed,) = judging.note(noted(said)).alerts
    finding = closed.ocsf()
    assert conforms(finding)
    assert (finding["activity_id"], finding["status"], closed.lake_only) == (3, "Resolved", False)
    assert finding["comment"] == "false-positive by ada: agreed with payments"
    assert judging.note(noted(said)).alerts == []
    checked = check(sign(said, KEY), REVIEWERS, START_US)
    for day in (0, 1, 29):
        (quiet,) = [
            a
            for a in judging.judge(change(2 + day, "d", 9_000, occurred_at_us=START_US + day * DAY_US)).alerts
            if a.activity != "close"
        ]
        assert quiet.suppressed_by == f"verdict:{checked.id}"
    late = judging.judge(change(50, "d", 9_000, occurred_at_us=START_US + 30 * DAY_US)).alerts[0]
    assert not late.lake_only
    assert not judging.judge(change(60, "d", 9_000, principal="other")).alerts[0].lake_only


def test_a_true_positive_closes_and_suppresses_nothing() -> None:
    """It is resolved; when it happens again it is told again."""
    judging = judge()
    (alert,) = judging.judge(change(1, "d", 9_000)).alerts
    (closed,) = judging.note(noted(verdict(alert.ocsf(), verdict="true-positive"))).alerts
    assert closed.ocsf()["unmapped"]["resolution"]["as"] == "true-positive"
    (again,) = judging.judge(change(2, "d", 9_000)).alerts
    assert (again.activity, again.count, again.lake_only) == ("update", 2, False)
    # Whoever repeats the verdict does not close what has been opened since.
    assert judging.note(noted(verdict(alert.ocsf(), verdict="true-positive"))).alerts == []


def test_scopes_say_how_far_a_verdict_goes() -> None:
    """Policy and principal, policy and relation, policy and cluster; a name means itself, stars too."""
    for scope, quiet in (
        ("policy-and-principal", [True, False, True]),
        ("policy-and-relation", [True, True, False]),
        ("policy-and-cluster", [True, True, True]),
    ):
        judging = judge()
        (alert,) = judging.judge(change(1, "d", 9_000, principal="a*")).alerts
        judging.note(noted(verdict(alert.ocsf(), scope=scope)))
        cases = [
            change(2, "d", 9_000, principal="a*"),
            change(3, "d", 9_000, principal="ab"),
            change(4, "d", 9_000, principal="a*", relation="public.other"),
        ]
        assert [judging.judge(each).alerts[0].lake_only for each in cases] == quiet, scope


def test_the_model_learns_from_a_false_positive() -> None:
    """What a reviewer calls ordinary is not new to the habits any more."""
    judging = judge(TriageSettings(behaviour="alert"), behaviour=True)
    for number in range(200):
        judging.judge(change(number))
    strange = {"client_addr": "10.9.9.9", "application": "psql", "relation": "public.secrets"}
    before = judging.judge(change(300, "d", 900, **strange))
    assert before.alerts
    judging.note(noted(verdict(before.alerts[0].ocsf())))
    after = judging.judge(change(301, "u", 1, relation="public.orders", client_addr="10.9.9.9", application="psql"))
    assert after.anomaly == 0.0


BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("unlisted", {"who": "eve"}),
    ("scope", {"scope": "everything"}),
    ("scope", {"match": {"policy": "mass_change"}}),
    ("scope", {"match": {"finding": ""}}),
    ("no_reason", {"why": " "}),
    ("expired", {"expires_us": START_US}),
    ("too_long", {"expires_us": START_US + 10_000 * DAY_US}),
]


@pytest.mark.parametrize(("reason", "facts"), BROKEN)
def test_a_verdict_that_may_not_be_given_is_refused(reason: str, facts: dict[str, Any]) -> None:
    """And the refusal is a finding of its own, once, that keeps nothing quiet."""
    judging = judge()
    (alert,) = judging.judge(change(1, "d", 9_000)).alerts
    (refused,) = judging.note(noted(verdict(alert.ocsf(), **facts))).alerts
    assert refused.detector == "verdict_refused"
    finding = refused.ocsf()
    assert conforms(finding)
    assert finding["is_alert"] is True
    assert finding["message"].endswith(f"was refused: {reason}")
    assert not judging.judge(change(2, "d", 9_000)).alerts[0].lake_only


def test_a_signature_is_over_every_byte_and_by_the_listed_key() -> None:
    """Another key, a changed word, no signature, no verdict at all: refused, each with its reason."""
    (alert,) = judge().judge(change(1, "d", 9_000)).alerts
    said = verdict(alert.ocsf())
    good = json.loads(sign(said, KEY))
    assert check(json.dumps(good).encode(), REVIEWERS, START_US).refused is None
    changed = good | {"signed": good["signed"].replace("agreed", "AGREED")}
    cases = {
        "unsigned": good | {"signature": ""},
        "wrong_signature": changed,
        "not_a_verdict": good | {"signed": "{}"},
    }
    for reason, envelope in cases.items():
        assert check(json.dumps(envelope).encode(), REVIEWERS, START_US).refused == reason
    assert check(sign(said, OTHER), REVIEWERS, START_US).refused == "wrong_signature"
    assert check(json.dumps(good | {"key": "0" * 16}).encode(), REVIEWERS, START_US).refused == "wrong_signature"
    narrow = {"ada": replace(REVIEWERS["ada"], scopes=["policy-and-principal"])}
    assert check(sign(said, KEY), narrow, START_US).refused == "scope"
    for value in (None, b"", b"\xff", b"[]", b"{" * 5_000, json.dumps(good).encode() * 500):
        assert check(value, REVIEWERS, START_US).refused == "not_a_verdict"
    for text in HOSTILE:
        hostile = sign(replace(said, who=text, title=text, why=text or "x"), KEY)
        assert check(hostile, REVIEWERS, START_US).refused in ("unlisted", "not_a_verdict")


def test_a_verdict_that_is_sent_again_is_the_same_one() -> None:
    """Who can write to the topic can repeat an old verdict, and gains nothing by it."""
    judging = judge()
    (alert,) = judging.judge(change(1, "d", 9_000)).alerts
    said = verdict(alert.ocsf(), expires_us=START_US + DAY_US)
    judging.note(noted(said))
    judging.note(noted(said, START_US + 2 * DAY_US - 1))
    another = change(3, "d", 9_000, occurred_at_us=START_US + 2 * DAY_US)
    assert not judging.judge(another).alerts[0].lake_only


def test_verdicts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many those that would expire first go; expired ones are forgotten."""
    monkeypatch.setattr(triage, "VERDICTS_MAX", 3)
    (alert,) = judge().judge(change(1, "d", 9_000)).alerts
    state = Triage()
    for number in range(10):
        said = verdict(alert.ocsf(), match={"finding": f"f{number}"}, expires_us=START_US + (number + 1) * DAY_US)
        assert state.decided(check(sign(said, KEY), REVIEWERS, START_US), START_US)
    kept = [rule["match"]["finding"] for _, _, rules in state.snapshot()["verdicts"] for rule in rules]
    assert kept == [["f7"], ["f8"], ["f9"]]
    said = verdict(alert.ocsf(), match={"finding": "late"}, expires_us=START_US + 20 * DAY_US)
    assert state.decided(check(sign(said, KEY), REVIEWERS, START_US + 9 * DAY_US), START_US + 9 * DAY_US)
    assert len(state.snapshot()["verdicts"]) == 2


def unusual(number: int, **facts: Any) -> Event:
    """Forty thousand deletes of somebody who updates one order at a time."""
    return change(number, "d", 40_000, **facts)


def test_behaviour_alone_waits_for_the_digest() -> None:
    """Findings of habits go to the lake; a day later one finding tells of all of them, the strangest first."""
    judging = judge(behaviour=True)
    for number in range(300):
        judging.judge(change(number, principal=f"p{number % 3}", peer_group="services"))
    alerts = [judging.judge(unusual(400 + n, principal=f"p{n}", peer_group="services")).alerts[0] for n in range(3)]
    assert all(alert.lake_only and alert.digest and alert.suppressed_by is None for alert in alerts)
    (digest,) = [a for a in judging.note(clock(START_US + 2 * DAY_US)).alerts if a.detector == "digest"]
    finding = digest.ocsf()
    assert conforms(finding)
    assert (digest.lake_only, finding["is_alert"], finding["severity"], digest.count) == (False, False, "Low", 3)
    assert {member["principal"] for member in digest.members} == {"p0", "p1", "p2"}
    assert digest.members[0]["anomaly"] == max(member["anomaly"] for member in digest.members)
    assert "3 findings of 3 principals of peer group services in shop" in finding["message"]
    assert judging.note(clock(START_US + 9 * DAY_US)).alerts == []


def test_digests_are_the_same_after_a_restart() -> None:
    """What was collected is in the checkpoint."""
    first, second = judge(behaviour=True), judge(behaviour=True)
    for number in range(100):
        first.judge(change(number))
    first.judge(unusual(101))
    second.restore(first.snapshot())
    later = clock(START_US + 2 * DAY_US)
    assert [a.ocsf() for a in second.note(later).alerts] == [a.ocsf() for a in first.note(later).alerts]


def test_promotion_makes_habits_alone_an_alert() -> None:
    """By configuration for all or some principals, or by a reviewer for the one of an alert."""
    judgings = [
        judge(TriageSettings(behaviour="alert"), behaviour=True),
        judge(TriageSettings(promoted=["checkout"]), behaviour=True),
        judge(behaviour=True),
    ]
    for judging in judgings:
        for number in range(100):
            judging.judge(change(number))
    (waiting,) = judgings[2].judge(unusual(101)).alerts
    assert waiting.lake_only
    judgings[2].note(noted(verdict(waiting.ocsf(), verdict="true-positive", promote=True)))
    for judging in judgings:
        assert not judging.judge(unusual(150)).alerts[0].lake_only


def test_findings_of_an_hour_are_one_incident() -> None:
    """Of one principal, whichever policy found them; after an hour of nothing another begins."""
    judging = judge()
    first = judging.judge(change(1, "d", 9_000)).alerts[0]
    soon = judging.judge(change(2, "d", 9_000, relation="public.b")).alerts[0]
    other = judging.judge(change(3, "d", 9_000, principal="x")).alerts[0]
    hour = 36_000
    later = judging.judge(change(hour, "d", 9_000)).alerts[0]
    next_day = judging.judge(change(hour * 4, "d", 9_000)).alerts[0]
    assert first.incident == soon.incident == later.incident is not None
    assert len({first.incident, other.incident, next_day.incident}) == 3
    assert first.ocsf()["metadata"]["correlation_uid"] == first.incident


def test_incidents_end_after_a_day_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes on for ever is an incident a day; of too many the quietest is forgotten; behaviour begins none."""
    story = Incidents()
    uids = {story.join("a", START_US + minutes * 60 * SECOND_US, begin=True) for minutes in range(0, 72 * 60, 30)}
    assert len(uids) == 3
    assert story.join("b", START_US, begin=False) is None
    monkeypatch.setattr(incidents, "INCIDENTS_MAX", 10)
    for number in range(100):
        story.join(f"s{number}", START_US, begin=True)
    assert len(story.snapshot()) <= 11
    again = Incidents()
    again.restore(json.loads(json.dumps(story.snapshot())))
    assert again.join("s99", START_US + 1, begin=False) == story.join("s99", START_US + 1, begin=False)


def test_what_was_emitted_and_is_then_suppressed_is_closed_on_the_topic_once() -> None:
    """The topic hears the end of what it heard of; what only the lake has heard since ends in the lake."""
    judging = judge()
    (alert,) = judging.judge(change(1, "d", 9_000)).alerts
    judging.note(noted(verdict(alert.ocsf())))
    judging.judge(change(2, "d", 9_000))
    (closed,) = judging.note(clock(START_US + 9 * HOUR_US)).alerts
    assert (closed.activity, closed.count, closed.lake_only) == ("close", 2, True)
    other = judge()
    other.judge(change(1, "d", 9_000))
    other.note(file(FILE))
    other.judge(change(2, "d", 9_000))
    (closed,) = other.note(clock(START_US + 9 * HOUR_US)).alerts
    assert (closed.activity, closed.count, closed.lake_only) == ("close", 2, False)


def test_a_flood_of_refused_verdicts_is_one_finding_a_reason() -> None:
    """Who may write to the topic can raise one alert that counts, not one for each record."""
    judging = judge()
    noted_of = [alert for n in range(200) for alert in judging.note(decided(b"nonsense %d" % n)).alerts]
    assert len({alert.uid for alert in noted_of}) == 1
    assert [alert.count for alert in noted_of] == [*range(1, 11), 16, 32, 64, 128]
