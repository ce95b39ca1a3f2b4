"""Policies: what is refused at loading, what a bundle's hash stands for, and the packaged ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from detectors.actions import Action
from detectors.alerts.certainty import sure, when
from detectors.policy.cases import action_from
from detectors.policy.expressions import Context, Expression
from detectors.policy.files import packaged_files, parse
from detectors.policy.policies import Bundle
from detectors.wording import render
from pgwitness.core.errors import ConfigurationError
from tests.detectors.material import HOSTILE

GOOD: dict[str, Any] = {
    "id": "many_deleted",
    "title": "Many rows deleted",
    "description": "more than ten",
    "severity": "high",
    "attack": ["T1485"],
    "kinds": ["change"],
    "when": 'operation == "delete" && rows > 10',
    "message": "{who} deleted {rows} rows of {what}",
    "runbook": "ask why",
    "tests": [
        {"name": "eleven", "match": True, "action": {"operation": "delete", "rows": 11}},
        {"name": "ten", "match": False, "action": {"operation": "delete", "rows": 10}},
    ],
}


def written(folder: Path, name: str = "p.yaml", changes: dict[str, object] | None = None) -> Path:
    """Write the good policy with some changes; None takes a key away."""
    document = {key: value for key, value in (GOOD | (changes or {})).items() if value is not None}
    (folder / name).write_text(yaml.safe_dump(document))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"when": "rowz > 10"}, "unknown name 'rowz'"),
        ({"when": "principal.nam == 'x'"}, "principal.nam"),
        ({"when": "principal == 'x'"}, "'principal' is no field"),
        ({"when": "rows >"}, "when"),
        ({"when": "relations.exists(rows, rows == 'x')"}, "call the loop's variable something else"),
        ({"tests": [GOOD["tests"][0]]}, "`match: false`"),
        ({"tests": [GOOD["tests"][1]]}, "`match: true`"),
        ({"tests": None}, "tests"),
        ({"tests": [*GOOD["tests"], {"name": "x", "match": True, "action": {"rowz": 1}}]}, "rowz"),
        ({"message": "{nobody} did it"}, "{nobody}"),
        ({"dedup_by": ["principal"]}, "dedup_by"),
        ({"window": "soon"}, "window"),
        ({"window": "0s"}, "window"),
        ({"severity": "dreadful"}, "severity"),
        ({"kinds": []}, "kinds"),
        ({"kinds": ["changes"]}, "kinds"),
        ({"attack": ["1485"]}, "attack"),
        ({"id": "Many Deleted"}, "id"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_is_wrong_is_refused_with_file_and_policy(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    """A policy that cannot mean what its author wanted does not load; the error says where and what."""
    with pytest.raises(ConfigurationError) as raised:
        Bundle.load(written(tmp_path, changes=changes))
    assert words in str(raised.value)
    assert "p.yaml" in str(raised.value)
    assert str(changes.get("id", "many_deleted")) in str(raised.value)


def test_an_id_is_used_once(tmp_path: Path) -> None:
    """Two files with the same id are refused, and both are named."""
    written(tmp_path, "a.yaml")
    written(tmp_path, "b.yml")
    with pytest.raises(ConfigurationError, match=r"b\.yml.*many_deleted.*a\.yaml"):
        Bundle.load(tmp_path)


@pytest.mark.parametrize("text", ["{", "- a\n- b", "just text", "id: [", "\0", "&a [*a]"])
def test_what_is_no_policy_file_is_refused(text: str) -> None:
    """Any text that is not a policy gives an error that names the file."""
    with pytest.raises(ConfigurationError, match=r"x\.yaml"):
        parse(text, "x.yaml")


def test_a_forgotten_line_between_two_policies_takes_none_away(tmp_path: Path) -> None:
    """A key that stands twice is refused with its line: the second policy's would quietly win."""
    text = packaged_files()["changes.yaml"]
    (tmp_path / "x.yaml").write_text(text.replace("\n---\n", "\n", 1))
    line = text[: text.index("\n---\n")].count("\n") + 2
    with pytest.raises(ConfigurationError, match=rf"x\.yaml: not YAML: line {line}: the key 'id' stands here a second"):
        Bundle.load(tmp_path)


LIMIT = """
id: few
title: Few rows
description: A limit.
severity: high
kinds: [statement]
when: '"delete" in statement.operations'
effect: limit
max_rows: 10
message: "{who}"
runbook: Ask.
tests:
  - {name: asked for, match: true, action: {statement: {operations: [delete]}}}
  - {name: done, match: true, action: {rows: 11, statement: {operations: [delete]}}}
  - {name: within, match: false, action: {rows: 10, statement: {operations: [delete]}}}
  - {name: asked for by name, match: true, action: {asked: true, rows: 0, statement: {operations: [delete]}}}
"""


def test_what_a_limit_lets_pass_is_no_finding() -> None:
    """A limit decides on what is asked for; in evidence it matches what changed more rows than it allows."""
    assert Bundle(parse(LIMIT, "test")).run_tests() == []
    harmless = LIMIT.replace("rows: 11", "rows: 7")
    assert [failure.test for failure in Bundle(parse(harmless, "test")).run_tests()] == ["done"]


def test_a_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    """Without policies nothing starts, and the text names the command that writes them."""
    with pytest.raises(ConfigurationError, match="pgwitness init"):
        Bundle.load(tmp_path / "nowhere")


def test_the_hash_is_of_what_policies_mean(tmp_path: Path) -> None:
    """File names, order and comments do not change the hash; any change of meaning does."""
    first = Bundle.load(written(tmp_path, "a.yaml"))
    (tmp_path / "a.yaml").rename(tmp_path / "b.yaml")
    text = (tmp_path / "b.yaml").read_text()
    (tmp_path / "b.yaml").write_text("# a comment\n" + text)
    assert Bundle.load(tmp_path).sha256 == first.sha256
    (tmp_path / "b.yaml").write_text(text.replace("rows > 10", "rows > 11"))
    assert Bundle.load(tmp_path).sha256 != first.sha256


def test_a_failing_test_is_named(tmp_path: Path) -> None:
    """`run_tests` gives the policy, the test and how it came out."""
    failures = Bundle.load(written(tmp_path, changes={"when": "rows > 100"})).run_tests()
    assert [(failure.policy, failure.test, failure.problem) for failure in failures] == [
        ("many_deleted", "eleven", "did not match")
    ]


def test_a_test_whose_policy_cannot_be_evaluated_fails(tmp_path: Path) -> None:
    """An error while testing is a failure, also where the test expects no match."""
    failures = Bundle.load(written(tmp_path, changes={"when": "detail.oid == 1"})).run_tests()
    assert {failure.test for failure in failures} == {"eleven", "ten"}


PACKAGED = Bundle.packaged()


@pytest.mark.parametrize("policy", PACKAGED.policies)
def test_packaged_policies_pass_their_own_tests(policy: str) -> None:
    """Every test that stands in a packaged policy comes out as written."""
    assert Bundle([PACKAGED.policies[policy]]).run_tests() == []


def test_packaged_files_load_from_a_folder_as_they_are(tmp_path: Path) -> None:
    """What `pgwitness init` writes is the same bundle."""
    for name, text in packaged_files().items():
        (tmp_path / name).write_text(text)
    assert Bundle.load(tmp_path).sha256 == PACKAGED.sha256


def test_every_packaged_policy_names_a_technique_or_is_about_evidence() -> None:
    """Somebody on call can look up what the finding belongs to."""
    assert all(policy.document.attack for policy in PACKAGED.policies.values())


@given(template=st.text(), value=st.sampled_from(HOSTILE), detail=st.dictionaries(st.text(), st.text(), max_size=3))
def test_messages_are_total(template: str, value: str, detail: dict[str, str]) -> None:
    """Any template on any action gives a text, and a client's text cannot put a line break into it."""
    action = Action(kind="change", principal=value, role=value, relations=[value], detail=detail)
    render(template, action)
    told = render("{who} {what} {principal.name} {detail.x} {object.after.y} {labels.z} {rows}", action)
    assert told.isprintable()
    assert len(told) < 2_000


def test_a_message_shows_what_is_there() -> None:
    """Numbers are grouped, long lists end in a count, an empty one is none, what is not known is a question mark."""
    action = Action(
        kind="change", rows=12_345, relations=[f"t{n}" for n in range(7)], detail={"reason": "mac", "empty": []}
    )
    said = render("{who}: {rows} in {what}, {detail.reason}, {detail.nothing}, {detail.empty}", action)
    assert said == "Somebody unknown: 12,345 in t0, t1, t2, t3, t4 and 2 more, mac, ?, none"


@pytest.mark.parametrize(
    ("template", "facts", "said"),
    [
        (
            "{who} {did}",
            {"principal": "ada", "operation": "delete", "rows": 1, "outcome": "success"},
            "ada deleted 1 row from public.t",
        ),
        (
            "{who} read {rows:row} with {calls:call} in {where}",
            {"role": "app", "rows": 2_000, "calls": 1, "cluster": "eu", "database": "shop"},
            "Somebody with the role app read 2,000 rows with 1 call in database shop of cluster eu",
        ),
        (
            "{who} came",
            {"principal": "helper", "principal_kind": "agent", "on_behalf_of": "maria"},
            "The AI agent helper (for maria) came",
        ),
        ("that {who} came", {"principal": "ada"}, "That ada came"),
        ("{who}: {result}", {"principal": "somebodyElse", "outcome": "denied"}, "somebodyElse: the server refused it"),
        ("a {reason}", {"operation": "stats_reset"}, "A statistics reset"),
        ("{statement}", {"objects": ["role ada", "attribute login"]}, "a statement about role ada, login"),
        ("{setting}", {"kind": "posture", "object_name": "fsync", "after": {"value": "off"}}, "fsync is now off"),
        ("{seen.count:login} failed", {}, "? logins failed"),
    ],
)
def test_a_message_is_a_sentence(template: str, facts: dict[str, Any], said: str) -> None:
    """Numbers have their nouns, operations their verbs, and only our own words are capitalized."""
    assert render(template, Action(**{"kind": "statement", "relations": ["public.t"], **facts})) == said


def test_no_message_of_the_pack_has_a_hole() -> None:
    """Each packaged message, filled from the policy's own positive tests of one action, says something everywhere."""
    given = {"cluster": "shop", "database": "shop", "principal": {"name": "x"}, "role": "x", "client_addr": "10.0.0.9"}
    told = {"application": "psql", "relations": ["public.t"], "object": {"name": "o"}, "sensitive": ["t.email"]}
    for policy in Bundle.packaged().policies.values():
        for case in policy.document.tests:
            if case.match and case.action is not None:
                fields = {**given, **told, **case.action}
                for name in ("principal", "object"):
                    fields[name] = {**given.get(name, {}), **told.get(name, {}), **case.action.get(name, {})}
                if policy.id in ("claim_refused", "policies_changed", "logging_set"):
                    continue  # these quote the detail, of which a test gives a part, or a value that is not known
                sentence = policy.message(action_from(fields, fields.get("kind", policy.document.kinds[0])))
                assert "?" not in sentence.replace("$?", ""), (policy.id, case.name, sentence)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"kind": "change", "certainty": "exact", "assurance": "verified"},
            "The session is certain; the name was authenticated.",
        ),
        (
            {"kind": "change", "certainty": "strong", "assurance": "role_only"},
            "The session is almost certain; the name follows from the login role alone.",
        ),
        ({"kind": "change"}, "No session can be named."),
        ({"kind": "query_stats"}, "Statistics tell the role, not the session: others may share it."),
        ({"kind": "gap"}, ""),
    ],
)
def test_an_alert_says_how_sure_it_is(facts: dict[str, Any], said: str) -> None:
    """Certainty and assurance in plain words."""
    assert sure(Action(**facts)) == said


def test_an_alert_says_when() -> None:
    """A moment, or how often from when to when."""
    second = 1_000_000
    noon = 1_790_000_000 * second
    assert when(1, noon, noon) == "Seen 2026-09-21 14:13:20 UTC."
    assert when(3, noon, noon + 90 * second) == "Seen 3 times from 2026-09-21 14:13:20 to 14:14:50 UTC."
    assert when(2, -(10**18), noon) == "Seen 2 times from a time no calendar has to 2026-09-21 14:13:20 UTC."


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("rows > 1", True),
        ("dyn(rows)", "the result is int, not true or false"),
        ("rows / 0 == 1", "ZeroDivisionError"),
        ("detail.absent", "KeyError"),
        ("new.client_addr || statement.where == 'none'", False),
        ("relations.all(r, r.startsWith('public.'))", True),
        ('"principal" == "principal.nonsense" || true', True),
    ],
)
def test_an_expression_is_true_false_or_an_error_as_a_value(source: str, expected: bool | str) -> None:
    """Evaluation never raises; what cannot be told says why."""
    expression = Expression(source)
    action = Action(kind="change", rows=2, relations=["public.a"])
    prepared = Context(expression.paths).of(action)
    assert not isinstance(prepared, str)
    result = expression.evaluate(prepared)
    if isinstance(expected, str):
        assert isinstance(result, str)
        assert expected in result
    else:
        assert result is expected


def test_numbers_beyond_64_bits_are_bounded() -> None:
    """A count that no database can have does not make the policy fail."""
    expression = Expression("rows > 10")
    prepared = Context(expression.paths).of(Action(kind="change", rows=2**70))
    assert not isinstance(prepared, str)
    assert expression.evaluate(prepared) is True


def test_an_action_from_a_test_knows_groups_and_plain_names() -> None:
    """Fields are written as expressions name them."""
    action = action_from(
        {"principal": {"kind": "agent"}, "rows": 10, "calls": 4, "new": {"relation": True}}, "statement"
    )
    assert (action.principal_kind, action.rows_per_call, action.new_relation) == ("agent", 2, True)
