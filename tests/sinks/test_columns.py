"""Columns: what becomes of events and verdicts, and what hostile batches cannot do."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from pgwitness.core.errors import DeadLetter
from pgwitness.core.events import Event, Position, Relation
from sinks.lake.rows import parquet
from sinks.lake.rows.columns import Columns
from tests.bench.columns import batches
from tests.bench.columns import events as many
from tests.sinks.material import DAY_US, NOON_US, ORDINARY, Finding, Judgement, change, other

DAY = "2026-09-22"


def rows_of(columns: Columns, table: str = "events", day: str = DAY) -> list[dict[str, Any]]:
    """Give a table's rows."""
    rows: list[dict[str, Any]] = columns.tables()[table, day].to_pylist()
    return rows


def columns_of(*events: Event, verdicts: list[Judgement] | None = None) -> Columns:
    """Put events into a buffer, as one batch."""
    columns = Columns()
    columns.add(events, verdicts or [ORDINARY] * len(events))
    return columns


def test_a_transaction_becomes_a_row_for_each_of_its_rows() -> None:
    """Ids carry the ordinal; operations, keys, changed and touched columns are those of the row."""
    made = change(
        1,
        [0, "i", 0, {"id": 5}, None, None, {"id": 5, "status": "new"}],
        [1, "u", 0, {"id": 5}, ["status", "Note"], {"id": 5}, {"id": 5, "status": "paid", "Note": None}],
        [2, "d", 0, {"id": 5}, None, {"id": 5}, None],
        [3, "t", 0, None, None, None, None],
    )
    prefix = f"{1:032x}"
    wanted = ("event_id", "operation", "ordinal", "row_key", "changed", "columns", "relations", "row_count")
    orders = ["public.orders"]
    every = ["public.orders.id", "public.orders.status", 'public.orders."Note"']
    assert [tuple(row[name] for name in wanted) for row in rows_of(columns_of(made))] == [
        (f"{prefix}-0", "insert", 0, '{"id":5}', None, every, orders, 1),
        (f"{prefix}-1", "update", 1, '{"id":5}', ["status", "Note"], every[1:], orders, 1),
        (f"{prefix}-2", "delete", 2, '{"id":5}', None, [], orders, 1),
        (f"{prefix}-3", "truncate", 3, None, None, [], orders, None),
    ]


def test_row_images_lie_apart_and_only_where_there_are_any() -> None:
    """`rows` has the images as they came, byte for byte; rows without images, as a truncate, are only in `events`."""
    made = change(1)
    images = b'[[0,"u",0,{"id":1},null,null,{ "id": 1, "t": "\xc3\xa4" }],[1,"t",0,null,null,null,null]]'
    made.rows, made.n_rows = Raw(images), 2
    columns = columns_of(made)
    assert len(rows_of(columns)) == 2
    assert rows_of(columns, "rows") == [
        {"event_id": f"{1:032x}-0", "before": None, "after": '{ "id": 1, "t": "ä" }'},
    ]


def test_without_row_values_keys_and_changed_columns_still_land() -> None:
    """With `row_values = "none"` there are no images, and no file of rows."""
    columns = columns_of(change(1, [0, "u", 0, {"id": 1}, ["status"], None, None]))
    assert [(row["row_key"], row["changed"]) for row in rows_of(columns)] == [('{"id":1}', ["status"])]
    assert set(columns.tables()) == {("events", DAY)}


def test_facts_of_other_events_land_as_they_are() -> None:
    """What an event of another kind has stands in its columns, the rest is null or an empty list."""
    made = other(
        1,
        kind="query_stats",
        operation="select",
        relations=["public.orders"],
        columns=["public.orders.id"],
        statement="SELECT id FROM orders WHERE id = $1",
        fingerprint="f1",
        query_id=-5,
        calls=7,
        row_count=70,
        duration_ms=1.5,
        pid=9,
        client_port=5_000,
        detail={"toplevel": True},
        peer_group="agents",
    )
    row = rows_of(columns_of(made, verdicts=[Judgement(["p"], 0.75, [{"why": "new"}])]))[0]
    facts = ("query_id", "calls", "row_count", "duration_ms", "pid", "client_port", "fingerprint", "peer_group")
    assert [row[name] for name in facts] == [-5, 7, 70, 1.5, 9, 5_000, "f1", "agents"]
    assert (row["policies"], row["anomaly"], row["reasons"]) == (["p"], 0.75, '[{"why":"new"}]')
    assert (row["detail"], row["outcome"], row["row_key"], row["xid"]) == ('{"toplevel":true}', "unknown", None, None)
    assert (row["relations"], row["columns"]) == (["public.orders"], ["public.orders.id"])


def test_a_long_transactions_verdict_counts_for_all_its_parts() -> None:
    """The verdict falls on the last part and lands on the earlier ones that wait in the buffer, and on no others."""
    columns = Columns()
    parts = [change(1, part=part, last=part == 2, at=Position(0, 1, part)) for part in range(3)]
    columns.add(parts[:1], [ORDINARY])
    columns.add([change(2), parts[1]], [ORDINARY, ORDINARY])
    columns.add([parts[2]], [Judgement(["mass_delete"], 0.9)])
    by_xid: dict[int, set[tuple[tuple[str, ...], float | None]]] = {}
    for row in rows_of(columns):
        by_xid.setdefault(row["xid"], set()).add((tuple(row["policies"]), row["anomaly"]))
    assert by_xid == {1_001: {(("mass_delete",), 0.9)}, 1_002: {((), None)}}


def test_a_transaction_without_rows_lands_only_when_something_was_found() -> None:
    """An empty transaction is nothing; one with a finding or a matched policy is one row without an ordinal."""
    empty = {"rows": Raw(b"[]"), "n_rows": 0}
    found = change(2, **empty, detail={"finding": "identity_conflict"})
    columns = columns_of(change(1, **empty), found, change(3, **empty), verdicts=[ORDINARY, ORDINARY, Judgement(["p"])])
    assert [(row["xid"], row["ordinal"], row["event_id"]) for row in rows_of(columns)] == [
        (1_002, None, f"{2:032x}"),
        (1_003, None, f"{3:032x}"),
    ]


def test_a_table_that_changes_its_columns_in_mid_stream_keeps_each_rows_own() -> None:
    """The columns of an insert are those the table had in that transaction."""
    insert = [0, "i", 0, None, None, None, {}]
    narrow, wide = Relation("public.t", ["a"]), Relation("public.t", ["a", "b"])
    columns = columns_of(change(1, insert, relation_table=[narrow]), change(2, insert, relation_table=[wide]))
    assert [row["columns"] for row in rows_of(columns)] == [["public.t.a"], ["public.t.a", "public.t.b"]]
    assert [row["covered"] for row in rows_of(columns)] == [False, False]


def test_an_alert_lands_with_its_columns_and_the_whole_finding() -> None:
    """The columns come from the finding's own places and from the event; what it lacks is null."""
    finding = {
        "time": NOON_US // 1_000,
        "severity_id": 4,
        "status_id": 1,
        "count": 3,
        "message": "deleted everything",
        "finding_info": {
            "uid": "u",
            "title": "Delete without WHERE",
            "first_seen_time": NOON_US // 1_000,
            "analytic": {"uid": "delete_all", "type_id": 1},
            "related_events": [{"uid": "e1"}, {"uid": "e2"}],
        },
    }
    event = change(1, principal="agent:7", principal_kind="agent")
    row = rows_of(columns_of(event, verdicts=[Judgement(alerts=[Finding("u", finding)])]), "alerts")[0]
    wanted = ("uid", "title", "severity", "status", "count", "principal", "policy", "model", "event_ids")
    assert [row[name] for name in wanted] == [
        "u", "Delete without WHERE", "High", "New", 3, "agent:7", "delete_all", None, ["e1", "e2"],
    ]  # fmt: skip
    assert msgspec.json.decode(row["ocsf"]) == finding
    assert row["time"].isoformat() == "2026-09-22T12:00:00+00:00"


def test_an_alert_of_any_shape_lands() -> None:
    """A finding without the usual places is kept whole; its columns are null."""
    odd = {"finding_info": [], "time": "now", "severity_id": 99, "count": None, "status_id": "x"}
    row = rows_of(columns_of(change(1), verdicts=[Judgement(alerts=[Finding("u", odd)])]), "alerts")[0]
    assert (row["uid"], row["title"], row["severity"], row["count"]) == ("u", None, None, None)


HOSTILE_ROWS = [
    b"{}",
    b"[5]",
    b"[[]]",
    b'[["0","i",0,null,null,null,null]]',
    b'[[-1,"i",0,null,null,null,null]]',
    b'[[99999999999999999999,"i",0,null,null,null,null]]',
    b'[[0,"x",0,null,null,null,null]]',
    b'[[0,"i",1,null,null,null,null]]',
    b'[[0,"i",-1,null,null,null,null]]',
    b'[[0,"u",0,null,"status",null,null]]',
    b'[[0,"u",0,null,[1],null,null]]',
    b'[[0,"u",0,{"a":"\xff"},null,null,null]]',
    b'[[0,"i",0,null,null,null,null],[1,"i",0,null,null,null,null]]',
    b"[]",
    b"[[0",
    b"",
    b"[" * 100_000,
    b'[[0,"i",0,null,null,null,' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"]]",
]


@pytest.mark.parametrize("rows", HOSTILE_ROWS, ids=lambda rows: rows[:40].decode("ascii", "replace"))
def test_rows_that_are_none_are_refused_and_leave_nothing(rows: bytes) -> None:
    """Whatever the bytes, the batch is refused with a reason, and the buffer is as it was."""
    columns = columns_of(change(1))
    bad = change(3, rows=Raw(rows), n_rows=1)
    with pytest.raises(DeadLetter) as refused:
        columns.add([change(2), bad], [ORDINARY, Judgement(alerts=[Finding("u", {})])])
    assert refused.value.reason == "wrong_rows"
    columns.add([change(4)], [ORDINARY])
    assert [row["xid"] for row in rows_of(columns)] == [1_001, 1_004]
    assert set(columns.tables()) == {("events", DAY), ("rows", DAY)}
    assert columns.rows == 2


@pytest.mark.parametrize(
    "facts",
    [
        {"captured_at_us": -1},
        {"occurred_at_us": 2**62},
        {"lsn": 2**64},
        {"xid": -5},
        {"pid": 2**31},
        {"client_port": -(2**40)},
        {"query_id": 2**63},
        {"calls": 2**64},
        {"row_count": -(2**70)},
    ],
    ids=str,
)
def test_numbers_that_no_column_holds_are_refused_every_time(facts: dict[str, int]) -> None:
    """Out of range is refused, also when the same record comes again, and leaves nothing that breaks later."""
    columns = Columns()
    for _ in range(2):
        with pytest.raises(DeadLetter) as refused:
            columns.add([other(1, **facts)], [ORDINARY])
        assert refused.value.reason == "out_of_range"
    columns.add([other(2)], [ORDINARY])
    assert len(rows_of(columns)) == 1


@given(st.binary(max_size=80) | st.sampled_from(HOSTILE_ROWS[:14]))
def test_any_bytes_are_rows_or_a_dead_letter(rows: bytes) -> None:
    """Reading rows is total: it lands them or refuses them, whatever they are."""
    columns = Columns()
    try:
        columns.add([change(1, rows=Raw(rows), n_rows=1)], [ORDINARY])
    except DeadLetter:
        assert columns.rows == 0
        return
    assert len(rows_of(columns)) == 1


def _without_place(table: pa.Table) -> pa.Table:
    """Leave out the place within a record, which is another one."""
    return table.drop_columns([name for name in table.column_names if name == "source_index"])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=12))
def test_how_events_are_cut_into_batches_does_not_show(cuts: list[int]) -> None:
    """The tables follow from the events in their order, not from the batches they came in."""
    number = 0
    one, several = Columns(), Columns()
    everything: list[Event] = []
    for cut in cuts:
        events = []
        for _ in range(cut):
            number += 1
            made = other(number, pid=number % 3) if number % 4 == 0 else change(number, role=f"r{number % 5}")
            events.append(made)
        several.add(events, [ORDINARY] * len(events))
        everything += events
    one.add(everything, [ORDINARY] * len(everything))
    found = [{name: _without_place(table) for name, table in made.tables().items()} for made in (one, several)]
    assert found[0] == found[1]


def test_days_are_divided_at_midnight_utc() -> None:
    """Each row goes to the day of its capture, whatever the order they come in."""
    midnight = NOON_US - NOON_US % DAY_US + DAY_US
    times = [midnight, midnight - 1, midnight + DAY_US, midnight - 1, midnight]
    columns = columns_of(*(change(number, captured_at_us=at) for number, at in enumerate(times)))
    tables = columns.tables()
    assert {day: tables["events", day].num_rows for _, day in tables} == {
        "2026-09-22": 2,
        "2026-09-23": 2,
        "2026-09-24": 1,
    }
    assert {day: tables["rows", day].num_rows for _, day in tables}["2026-09-23"] == 2


def test_a_hundred_thousand_rows_fit_in_150_mib(tmp_path: Path) -> None:
    """A full buffer of ordinary rows, one to a transaction, and making its files, stays below the bound."""
    cut = batches(list(many(1, 1_000)))
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    columns = Columns()
    for batch in cut:
        columns.add(batch, [ORDINARY] * len(batch))
    size = sum(len(parquet.encode(table)) for table in columns.tables().values())
    _, peak = tracemalloc.get_traced_memory()
    arrow = pa.total_allocated_bytes() - before
    tracemalloc.stop()
    assert columns.rows == 100_000
    assert size < 10 * 1024**2
    assert peak + arrow < 150 * 1024**2
