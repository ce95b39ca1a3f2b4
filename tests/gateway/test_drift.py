"""What ran approved is compared with its transaction in the WAL, whichever of the two comes first."""

from __future__ import annotations

from typing import Any

import pytest

from collectors.gateway.spool.records import Begun, Ended, Record, Said, Started
from detectors.gatekeeper import Verdict
from detectors.policy.details import wrong
from pgwitness.core.events import Count, Event, Ran, Relation
from streams.fold.fold import Fold
from streams.identity.identities import Identities
from tests.gateway.test_fold import OPENED, Client
from tests.streams.folding import GRACE_US
from tests.streams.records import START_US, batch, transaction

VERDICT = Verdict(
    effect="approve", policies=["bulk"], message="needed", why="why", hint="ask", bundle="b", rows=10, approval="a1"
)


def run(rows: int = 3, xid: int | None = 77, text: str = "DELETE FROM public.orders", **more: Any) -> Client:
    """A statement that ran approved."""
    us = START_US + 1_000
    begun = Begun(session=1, at_us=us, number=1, way="query", said=Said(text), verdict=VERDICT)
    ended = Ended(
        **{"session": 1, "at_us": us + 5, "number": 1, "outcome": "success", "changed": Ran(rows, xid), **more}
    )
    records: list[Record] = [Started(session=0, at_us=START_US), OPENED, begun, ended]
    client = Client()
    client.records = records
    return client


def written(deletes: int, more: str | None = None, **given: Any) -> Any:
    """A transaction that deleted rows, and perhaps wrote elsewhere."""
    relations = [Relation("public.orders", ["id"]), *([Relation(more, ["id"])] if more else [])]
    counts = [Count(0, "d", deletes), *([Count(1, "i", 1)] if more else [])]
    return batch(transaction(50, xid=77, n_rows=deletes, relations=relations, counts=counts, **given))


def found(client: Client, *transactions: Any, first: bool = False, restored: bool = False) -> list[Event]:
    """The findings of drift, with the transactions before or behind what the gateway tells."""
    fold = Fold(0, Identities.parse("rules: []\n"), GRACE_US)
    raw = [*transactions, client.raw()] if first else [client.raw(), *transactions]
    events: list[Event] = []
    for offset, one in enumerate(raw):
        events += fold.apply(offset, one)
        if restored:
            fold = Fold.restore(fold.snapshot(), GRACE_US)
    drift = [event for event in events if event.operation == "approval_drift"]
    assert all(not wrong(event.kind, event.detail) for event in events)
    return drift


@pytest.mark.parametrize("restored", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_what_was_done_is_compared_with_what_was_approved(first: bool, restored: bool) -> None:
    """As approved nothing is said; more rows at the end of the transaction, or other relations, are a finding."""
    order = {"first": first, "restored": restored}
    assert found(run(), written(3), **order) == []
    (more,) = found(run(), written(40), **order)
    assert (more.detail["drift"], more.detail["rows"], more.detail["rows_approved"]) == (["more_rows"], 40, 10)
    assert (more.kind, more.role, more.database, more.detail["approval"]) == ("control", "app", "shop", "a1")
    (other,) = found(run(), written(3, "public.payments"), **order)
    assert (other.detail["drift"], other.relations) == (["other_relations"], ["public.payments"])
    assert found(run(text="DELETE FROM orders"), written(3), **order) == []
    assert found(run(xid=78), written(40), **order) == []


def test_parts_add_up() -> None:
    """A transaction of several parts is compared when it is whole, once."""
    parts = [
        batch(transaction(50, xid=77, n_rows=8, counts=[Count(0, "d", 8)], last=False)),
        batch(transaction(50, xid=77, n_rows=8, first=8, part=1, counts=[Count(0, "d", 8)])),
    ]
    (drift,) = found(run(), *parts)
    assert drift.detail["rows"] == 16
    (drift,) = found(run(), *parts, parts[1], first=True)
    assert drift.detail["rows"] == 16


def test_nothing_done_is_a_finding_and_a_block_is_compared_by_what_the_server_counted() -> None:
    """Of a block the WAL has other statements' rows, too, of which nobody is accused."""
    (drift,) = found(run(rows=0, xid=None))
    assert drift.detail["drift"] == ["nothing"]
    assert found(run(transaction=4, outcome="success"), written(40, "public.payments")) == []
    assert found(run(outcome="failure", sqlstate="23505"), written(40)) == []
    assert found(run(rows=0, xid=None, text="SELECT 1")) == []
