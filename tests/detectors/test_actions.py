"""Actions: what an action is, and how the parts of a long transaction become one."""

from __future__ import annotations

from detectors.actions import BEYOND, COUNTS_MAX, PARTS_MAX, Action, Parts, count, of_change, of_event
from detectors.vocabulary import SCHEMA
from pgwitness.core.events import Count, Relation
from pgwitness.core.sql import statements
from tests.detectors.material import START_US, change, event, parts


def test_a_transaction_is_one_action_per_relation_and_operation() -> None:
    """Rows are counted by relation and operation; counts of the same pair add up."""
    relations = [Relation("public.a"), Relation("public.b")]
    counts = [Count(0, "d", 3), Count(1, "i", 2), Count(0, "d", 4), Count(0, "u", 1)]
    counted = count(change(1, relation_table=relations, counts=counts))
    assert counted == {("public.a", "delete"): 7, ("public.b", "insert"): 2, ("public.a", "update"): 1}


def test_parts_are_counted_together_with_the_last_one() -> None:
    """Nothing is said of a long transaction before its last part, which brings the rows of all."""
    kept = Parts()
    one, two, three = parts(1, {})
    assert kept.counts(one) is None
    assert kept.counts(two) is None
    assert kept.counts(three) == {("public.orders", "delete"): 3_000}
    assert kept.snapshot() == []


def test_unfinished_transactions_are_bounded() -> None:
    """Of more transactions than fit the oldest is forgotten; what is left of it is still counted."""
    kept = Parts()
    for number in range(PARTS_MAX + 1):
        assert kept.counts(change(number, last=False)) is None
    assert len(kept.snapshot()) == PARTS_MAX
    assert kept.counts(change(0, part=1)) == {("public.orders", "update"): 1}
    assert kept.counts(change(PARTS_MAX, part=1)) == {("public.orders", "update"): 2}


def test_relations_of_one_transaction_are_bounded() -> None:
    """A transaction over more relations than are counted keeps its rows, under one name for the rest."""
    relations = [Relation(f"public.t{number}") for number in range(COUNTS_MAX + 50)]
    counts = [Count(number, "d", 1) for number in range(len(relations))]
    counted = count(change(1, relation_table=relations, counts=counts))
    assert len(counted) == COUNTS_MAX + 1
    assert counted[(BEYOND, "delete")] == 50
    assert sum(counted.values()) == len(relations)


def test_what_is_not_known_is_an_empty_text() -> None:
    """No field of an action is null, so that an expression need not ask first."""
    action = of_event(event(1, "session", role=None, client_addr=None, application=None), {})
    assert (action.role, action.client_addr, action.application, action.principal) == ("", "", "", "")
    assert all(getattr(action, field.attribute) is not None for field in SCHEMA.values())


def test_every_name_of_the_schema_stands_for_a_field_of_actions() -> None:
    """The documented language and the struct agree."""
    assert {field.attribute for field in SCHEMA.values()} <= set(Action.__struct_fields__)


def test_hours_and_weekdays_are_utc() -> None:
    """1790000000 is Monday, 21 September 2026, 14:13 UTC."""
    action = of_change(change(0), "public.orders", "update", 1, {})
    assert START_US == 1_790_000_000_000_000
    assert (action.hour, action.weekday) == (14, 0)


def test_a_statement_without_facts_is_read() -> None:
    """Where the event does not say what a parser found, the parser is asked."""
    stats = event(
        1, "query_stats", statement="WITH x AS (DELETE FROM t WHERE true RETURNING *) SELECT * FROM x", calls=2
    )
    action = of_event(stats, {}, statements.facts)
    assert "delete" in action.operations
    assert action.where == "useless"
    assert action.relations == ["t"]


def test_facts_in_the_event_are_believed() -> None:
    """The fold's facts are used as they are, and rows are divided by calls."""
    detail = {"operations": ["update"], "where": "present", "utility": False}
    stats = event(1, "query_stats", statement="x", relations=["public.t"], detail=detail, calls=4, row_count=10)
    action = of_event(stats, {}, None)
    assert (action.operation, action.where, action.rows, action.rows_per_call) == ("update", "present", 10, 2)


def test_posture_says_what_was_gained_and_lost() -> None:
    """Attributes that became true are gained, those that were true are lost; the catalogue's prefix is left out."""
    before = {"rolsuper": False, "rolcanlogin": True, "createrole": True}
    after = {"rolsuper": True, "rolcanlogin": True, "createrole": False}
    detail = {"object_type": "role", "name": "app", "change": "changed", "before": before, "after": after}
    action = of_event(event(1, "posture", operation="changed", detail=detail), {})
    assert (action.object_type, action.object_name, action.change) == ("role", "app", "changed")
    assert (action.gained, action.lost) == (["super"], ["createrole"])
