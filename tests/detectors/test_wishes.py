"""What security engineers ask for, in the words of their job: each wish is a policy, and says what it must not say."""

from __future__ import annotations

import pytest
import yaml

from detectors.policy.files import parse, read_calendars
from detectors.policy.policies import Bundle
from detectors.policy.policy import Policy
from tests.detectors.test_calendars import CALENDARS

HEAD = {"title": "t", "description": "d", "severity": "high", "message": "{who}", "runbook": "r"}
ADA, JOE = "principal: {kind: human, name: ada}", "principal: {kind: human, name: joe}"
BOT = "principal: {kind: agent, name: helper, on_behalf_of: maria}"

WISHES = {
    "nobody changes the schema in Frankfurt's last three days of a quarter": """
kinds: [ddl]
zone: Europe/Berlin
when: local.month in [3, 6, 9, 12] && local.days_left < 3
tests:
  - {name: the 29th in Frankfurt, match: true, action: {operation: ALTER TABLE, time: 2026-03-28T23:00:00Z}}
  - {name: and here not yet, match: false, action: {operation: ALTER TABLE, time: 2026-03-28T22:59:00Z}}
  - {name: its last minute is in summer time, match: true, action: {operation: ALTER TABLE, time: 2026-03-31T21:59:00Z}}
  - {name: another quarter, match: false, action: {operation: ALTER TABLE, time: 2026-03-31T22:00:00Z}}
""",
    "in the freeze of the calendar nobody drops or truncates": """
kinds: [ddl, change]
when: during.freeze && (operation.startsWith("DROP ") || operation == "truncate")
tests:
  - {name: in it, match: true, action: {operation: DROP TABLE, time: 2026-03-28T12:00:00Z}}
  - {name: as the calendar says, match: true, action: {kind: change, operation: truncate, during: {freeze: true}}}
  - {name: after it, match: false, action: {operation: DROP TABLE, time: 2026-03-29T22:00:00Z}}
  - {name: rows, match: false, action: {kind: change, operation: delete, during: {freeze: true}}}
""",
    "people work on production on call only, and never on holidays": """
kinds: [statement]
when: principal.kind == "human" && labels.env == "prod" && (!during.on_call || during.holidays)
tests:
  - name: at noon on a Wednesday
    match: true
    action: {labels: {env: prod}, time: 2026-03-25T11:00:00Z, principal: {kind: human, name: ada}}
  - name: on call on a Friday night
    match: false
    action: {labels: {env: prod}, time: 2026-03-27T23:00:00Z, principal: {kind: human, name: ada}}
  - name: Christmas, which is a Friday
    match: true
    action: {labels: {env: prod}, time: 2026-12-25T20:00:00Z, principal: {kind: human, name: ada}}
""",
    "outside the office hours of Frankfurt and of Tokyo": """
kinds: [session]
when: >-
  operation == "connect"
  && !(clock["Europe/Berlin"].hour >= 8 && clock["Europe/Berlin"].hour < 18)
  && !(clock["Asia/Tokyo"].hour >= 8 && clock["Asia/Tokyo"].hour < 18)
tests:
  - {name: night in both, match: true, action: {operation: connect, time: 2026-07-01T20:00:00Z}}
  - {name: morning in Tokyo, match: false, action: {operation: connect, time: 2026-07-01T00:00:00Z}}
  - {name: morning in Frankfurt in summer, match: false, action: {operation: connect, time: 2026-07-01T06:30:00Z}}
  - {name: and not yet in winter, match: false, action: {operation: connect, time: 2026-12-01T07:30:00Z}}
  - {name: night in both in winter, match: true, action: {operation: connect, time: 2026-12-01T20:00:00Z}}
""",
    "an agent without a ticket changes nothing": """
kinds: [change]
when: >-
  principal.kind == "agent"
  && !(claim.verified && has(claim.fields.ticket) && claim.fields.ticket.startsWith("CHG-"))
tests:
  - {name: no token, match: true, action: {operation: update, BOT}}
  - {name: a token without one, match: true, action: {operation: update, BOT, claim: {verified: true}}}
  - {name: a ticket of another kind, match: true, action: {BOT, claim: {verified: true, fields: {ticket: INC-1}}}}
  - {name: with one, match: false, action: {operation: update, BOT, claim: {verified: true, fields: {ticket: CHG-12}}}}
  - {name: a person, match: false, action: {operation: update, ADA}}
""",
    "break-glass tokens are for two hours": """
kinds: [change, ddl]
when: claim.verified && has(claim.fields.purpose) && claim.fields.purpose == "break-glass" && claim.age > 7200
tests:
  - {name: longer, match: true, action: {claim: {verified: true, age: 7201, fields: {purpose: break-glass}}}}
  - {name: two hours, match: false, action: {claim: {verified: true, age: 7200, fields: {purpose: break-glass}}}}
  - {name: nobody knows when, match: false, action: {claim: {verified: true, age: -1, fields: {purpose: break-glass}}}}
  - {name: another purpose, match: false, action: {claim: {verified: true, age: 9000, fields: {purpose: batch}}}}
""",
    "what an agent was sent for was to read": """
kinds: [change]
when: has(claim.fields.intent) && claim.fields.intent in ["read", "summarize"]
tests:
  - {name: it writes, match: true, action: {operation: delete, BOT, claim: {verified: true, fields: {intent: read}}}}
  - {name: it may, match: false, action: {operation: delete, BOT, claim: {verified: true, fields: {intent: refund}}}}
  - {name: nobody said, match: false, action: {operation: delete, BOT}}
""",
    "four eyes: who sends a ticket is not who approved it": """
kinds: [change]
when: has(claim.fields.approved_by) && claim.fields.approved_by in [principal.on_behalf_of, principal.name]
tests:
  - {name: approved by herself, match: true, action: {BOT, claim: {verified: true, fields: {approved_by: maria}}}}
  - {name: approved by another, match: false, action: {BOT, claim: {verified: true, fields: {approved_by: joe}}}}
  - {name: her own hand, match: true, action: {ADA, claim: {verified: true, fields: {approved_by: ada}}}}
""",
    "a table is dropped without a copy of it in the hour before": """
kinds: [statement]
sequence:
  window: 1h
  by: [cluster, database, principal.name]
  steps:
    - {name: copy, absent: true, when: 'statement.operations.exists(o, o in ["copy_to", "create_table_as"])'}
    - {name: drop, when: '"drop_table" in statement.operations'}
tests:
  - {name: no copy, match: true, actions: [{ADA, statement: {operations: [drop_table]}}]}
  - name: with one
    match: false
    actions:
      - {ADA, statement: {operations: [copy_to]}}
      - {at: 50m, ADA, statement: {operations: [drop_table]}}
  - name: one copy is enough for two drops
    match: false
    actions:
      - {ADA, statement: {operations: [copy_to]}}
      - {at: 10m, ADA, statement: {operations: [drop_table]}}
      - {at: 11m, ADA, statement: {operations: [drop_table]}}
  - name: too long ago
    match: true
    actions:
      - {ADA, statement: {operations: [copy_to]}}
      - {at: 61m, ADA, statement: {operations: [drop_table]}}
  - name: somebody else's copy
    match: true
    actions:
      - {JOE, statement: {operations: [copy_to]}}
      - {at: 5m, ADA, statement: {operations: [drop_table]}}
""",
    "triggers that were switched off are on again within ten minutes": """
kinds: [ddl]
sequence:
  window: 10m
  by: [cluster, principal.name, relations]
  steps:
    - {name: switched off, when: '"disable_trigger" in statement.operations'}
    - {name: on again, absent: true, when: '"enable_trigger" in statement.operations'}
tests:
  - {name: never, match: true, actions: [{ADA, relations: [a.b], statement: {operations: [disable_trigger]}}]}
  - name: in time
    match: false
    actions:
      - {ADA, relations: [a.b], statement: {operations: [disable_trigger]}}
      - {at: 10m, ADA, relations: [a.b], statement: {operations: [enable_trigger]}}
  - name: too late
    match: true
    actions:
      - {ADA, relations: [a.b], statement: {operations: [disable_trigger]}}
      - {at: 601s, ADA, relations: [a.b], statement: {operations: [enable_trigger]}}
  - name: on another table
    match: true
    actions:
      - {ADA, relations: [a.b], statement: {operations: [disable_trigger]}}
      - {at: 1m, ADA, relations: [a.c], statement: {operations: [enable_trigger]}}
""",
    "a grant to oneself is used and not taken back in between": """
kinds: [statement]
sequence:
  window: 1h
  by: [principal.name]
  steps:
    - {name: grant, when: '"grant" in statement.operations'}
    - {name: taken back, absent: true, when: '"revoke" in statement.operations'}
    - {name: read, when: '"select" in statement.operations && rows > 100'}
tests:
  - name: used
    match: true
    actions:
      - {ADA, statement: {operations: [grant]}}
      - {at: 9m, ADA, rows: 900, statement: {operations: [select]}}
  - name: taken back
    match: false
    actions:
      - {ADA, statement: {operations: [grant]}}
      - {at: 5m, ADA, statement: {operations: [revoke]}}
      - {at: 9m, ADA, rows: 900, statement: {operations: [select]}}
  - name: taken back before
    match: true
    actions:
      - {ADA, statement: {operations: [revoke]}}
      - {at: 1m, ADA, statement: {operations: [grant]}}
      - {at: 9m, ADA, rows: 900, statement: {operations: [select]}}
""",
    "within one session the ticket changes": """
kinds: [change]
when: has(claim.fields.ticket)
threshold: {count: 2, distinct: claim.fields, window: 1d, by: [principal.name, session]}
tests:
  - name: another ticket
    match: true
    actions:
      - {BOT, session: s1, claim: {fields: {ticket: CHG-1}}}
      - {at: 1m, BOT, session: s1, claim: {fields: {ticket: CHG-2}}}
  - name: another session
    match: false
    actions:
      - {BOT, session: s1, claim: {fields: {ticket: CHG-1}}}
      - {at: 1m, BOT, session: s2, claim: {fields: {ticket: CHG-2}}}
""",
    "within one session somebody acts under a third role": """
kinds: [change, ddl]
threshold: {count: 3, distinct: effective_role, window: 12h, by: [principal.name, session]}
when: effective_role != "" && session != ""
tests:
  - name: three
    match: true
    actions:
      - {ADA, session: s1, effective_role: ada}
      - {at: 1m, ADA, session: s1, effective_role: app}
      - {at: 2m, ADA, session: s1, effective_role: owner}
  - name: two, one of them twice
    match: false
    actions:
      - {ADA, session: s1, effective_role: ada}
      - {at: 1m, ADA, session: s1, effective_role: app}
      - {at: 2m, ADA, session: s1, effective_role: ada}
""",
}


def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Make one bundle of all wishes."""
    folder = tmp_path_factory.mktemp("wishes")
    (folder / "calendars.yaml").write_text(CALENDARS)
    calendars = read_calendars(folder)
    policies: list[Policy] = []
    for number, text in enumerate(WISHES.values()):
        for short, long in (("BOT", BOT), ("ADA", ADA), ("JOE", JOE)):
            text = text.replace(short, long)
        policies += parse(yaml.safe_dump({"id": f"wish_{number}", **HEAD}) + text, "wishes", calendars)
    return Bundle(policies, calendars)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """All wishes as one set of policies."""
    return bundle_of(tmp_path_factory)


@pytest.mark.parametrize("number", range(len(WISHES)), ids=list(WISHES))
def test_a_wish_is_a_policy(bundle: Bundle, number: int) -> None:
    """Each of its tests comes out as written, and it has cases that look almost the same and stay quiet."""
    policy = bundle.policies[f"wish_{number}"]
    assert [policy.run_case(case) for case in policy.document.tests if policy.run_case(case)] == []
    assert {case.match for case in policy.document.tests} == {True, False}
