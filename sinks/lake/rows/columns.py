"""Columns out of events and verdicts: the lake's hot path, without I/O.

`Columns` takes the batches of one partition as they come, refuses a batch it could not write (`DeadLetter`, and then
keeps nothing of it), and gives Arrow tables by table and day. What a transaction's rows share is kept once and
expanded by Arrow; the images of rows go from the batch into the column as the bytes they are. Python objects live
only until `CHUNK_ROWS` rows are together, so that a full buffer costs little more than its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any, Literal, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Meta, Raw, Struct

from pgwitness.core.errors import DeadLetter
from pgwitness.core.events import OPERATIONS, Event, quote_identifier
from sinks.lake.rows import alert_rows, touch
from sinks.lake.rows.arrays import ABSENT, Codes, Distinct, Ints, coded, coded_lists, json_texts, numbers
from sinks.lake.rows.schema import DAY_US, EVENTS, ROWS, SCHEMA_VERSION, TIME_US_MAX

CHUNK_ROWS = 8_192
CHUNK_BYTES = 16 * 1024**2


class Judgement(Protocol):
    """What the lake reads of a judge's verdict (`detectors.judgement.Judgement`)."""

    @property
    def policies(self) -> Sequence[str]:
        """Ids of the policies that matched."""

    @property
    def anomaly(self) -> float | None:
        """The calibrated score, 0 to 1, or None where no model has one."""

    @property
    def reasons(self) -> Sequence[Mapping[str, object]]:
        """What drove the score."""

    @property
    def alerts(self) -> Sequence[alert_rows.Alert]:
        """The alerts that the event raised."""


class _Row(Struct, array_like=True, frozen=True, gc=False):
    """`pgwitness.core.events.Row` with everything that is passed on left as bytes, and its numbers within bounds."""

    ordinal: Annotated[int, Meta(ge=0, le=2**62)]
    operation: Literal["i", "u", "d", "t"]
    relation: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    key: Raw
    changed: Raw
    before: Raw
    after: Raw


_rows = msgspec.json.Decoder(list[list[_Row]])
_names = msgspec.json.Decoder(list[str] | None)
_json = msgspec.json.Encoder().encode

_FACTS = (
    "kind",
    "cluster",
    "instance",
    "database",
    "principal",
    "principal_kind",
    "on_behalf_of",
    "binding",
    "certainty",
    "assurance",
    "identity_rule",
    "role",
    "effective_role",
    "application",
    "client_addr",
    "auth_method",
    "session_id",
    "trace_id",
    "client_port",
    "pid",
    "outcome",
    "sqlstate",
    "peer_group",
    "effect",
)
"""Columns that most events of a session share; an event keeps one code for all of them."""
_facts = attrgetter(*_FACTS)
_KIND = _FACTS.index("kind")
_OUTCOME = _FACTS.index("outcome")
_INT64_MAX = 2**63 - 1

_Judgement = tuple[tuple[str, ...], float | None, str | None]


class _Shape(Struct, frozen=True):
    """What rows of one table, operation and set of changed columns share."""

    operation: str | None
    relations: tuple[str, ...]
    columns: tuple[str, ...]
    changed: tuple[str, ...] | None
    covered: bool | None


class _Pending:
    """Events and rows as Python objects, until there are enough for a chunk. `owner` is a row's event."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.occurred: list[int] = []
        self.captured: list[int] = []
        self.xid: list[int] = []
        self.lsn: list[int] = []
        self.facts: list[int] = []
        self.statement: list[int] = []
        self.calls: list[int | None] = []
        self.row_count: list[int | None] = []
        self.duration: list[float | None] = []
        self.offset: list[int] = []
        self.index: list[int] = []
        self.detail: list[str | None] = []
        self.shape: list[int] = []
        self.judgement: list[_Judgement] = []
        self.n_rows: list[int] = []
        self.lone: list[bool] = []
        self.rows: list[_Row] = []
        self.row_shape: list[int] = []
        self.bytes = 0


class _Chunk(Struct, frozen=True):
    """Rows as arrays: first the changed rows, then the events that are one row each."""

    event_id: pa.Array
    owner: Codes
    ordinal: Ints
    shape: Codes
    key: pa.Array
    before: pa.Array
    after: pa.Array
    occurred: Ints
    captured: Ints
    xid: Ints
    lsn: Ints
    facts: Codes
    statement: Codes
    calls: pa.Array
    row_count: pa.Array
    duration: pa.Array
    detail: pa.Array
    offset: Ints
    index: Ints
    touch: pa.Array
    touch_before: pa.Array
    changed_rows: int


class Columns:
    """A buffer of judged events that becomes Arrow tables; see the module.

    `source` names the partition that they come from. `rows` and `bytes` (roughly, before compression) say how much it
    holds.
    """

    def __init__(self, source: str = "") -> None:
        self.source = source
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.rows = 0
        self.bytes = 0
        self._pending = _Pending()
        self._chunks: list[_Chunk] = []
        self._judgements: list[_Judgement] = []
        self._open: dict[str, list[int]] = {}
        self._facts = Distinct()
        self._statements = Distinct()
        self._relations = Distinct()
        self._shapes = Distinct()
        self._row_shapes: dict[tuple[int, str, bytes], int] = {}
        self._alerts: list[dict[str, object]] = []

    def add(self, events: Sequence[Event], verdicts: Sequence[Judgement], offset: int = 0) -> None:
        """Take a batch of events of the record at `offset` with a verdict each, in their order.

        The verdict of a long transaction's last part counts for all of its parts that are still in the buffer.
        Raises `DeadLetter` (`wrong_rows`, `out_of_range`) when the batch cannot be written; nothing of it is kept.
        """
        batch = self._read(events, verdicts)
        batch.offset = [offset] * len(events)
        batch.index = list(range(len(events)))
        self._alerts += _alert_rows(events, verdicts)
        self._judge(events, batch.judgement)
        self._join(batch)
        if len(self._pending.rows) + len(self._pending.ids) >= CHUNK_ROWS or self._pending.bytes >= CHUNK_BYTES:
            self._freeze()

    def refusal(self, event: Event, verdict: Judgement) -> DeadLetter | None:
        """Say why an event cannot be written, None when it can; nothing of it is kept."""
        try:
            alone = Columns()
            alone.add([event], [verdict])
            alone.tables()
        except DeadLetter as error:
            return error
        except Exception as error:
            return DeadLetter("failed", f"it cannot be written: {type(error).__name__}; report it with the dead letter")
        return None

    def tables(self) -> dict[tuple[str, str], pa.Table]:
        """Give the tables by name (`events`, `rows`, `alerts`) and day (`YYYY-MM-DD`); empty ones are absent."""
        self._freeze()
        tables: dict[tuple[str, str], pa.Table] = {}
        if self._chunks:
            events, images, days = self._assemble()
            for day in np.unique(days):
                name = str(np.datetime64(int(day), "D"))
                of_day = None if days[0] == days[-1] and (days == day).all() else pa.array(days == day)
                tables["events", name] = events if of_day is None else events.filter(of_day)
                shown = pc.or_(pc.is_valid(images["before"]), pc.is_valid(images["after"]))
                kept = images.filter(shown if of_day is None else pc.and_(shown, of_day))
                if kept.num_rows:
                    tables["rows", name] = kept
        tables |= {("alerts", day): table for day, table in alert_rows.tables(self._alerts).items()}
        return tables

    # Reading a batch: everything that can fail happens here, before the buffer changes.

    def _read(self, events: Sequence[Event], verdicts: Sequence[Judgement]) -> _Pending:
        batch = _Pending()
        self._read_facts(batch, events)
        decoded = iter(_decode([event.rows for event in events if event.kind == "change"]))
        for event, verdict in zip(events, verdicts, strict=True):
            policies, reasons = verdict.policies, verdict.reasons
            batch.judgement.append(
                (tuple(policies) if policies else (), verdict.anomaly, _json(reasons).decode() if reasons else None)
            )
            lone = True
            if event.kind == "change":
                rows = next(decoded)
                self._read_rows(batch, event, rows)
                # A transaction that changed no rows of ours is nothing, unless something was found in it.
                lone = not rows and ("finding" in event.detail or bool(policies))
            batch.lone.append(lone)
            batch.shape.append(self._own_shape(event) if lone else 0)
        return batch

    def _read_facts(self, batch: _Pending, events: Sequence[Event]) -> None:
        """Read what each event has once, column by column, which is much faster than event by event."""
        batch.ids = [event.event_id for event in events]
        batch.occurred = [event.occurred_at_us for event in events]
        batch.captured = [event.captured_at_us for event in events]
        batch.xid = [ABSENT if event.xid is None else event.xid for event in events]
        batch.lsn = [ABSENT if event.lsn is None else event.lsn for event in events]
        batch.calls = [event.calls for event in events]
        batch.row_count = [event.row_count for event in events]
        batch.duration = [event.duration_ms for event in events]
        batch.detail = [_json(event.detail).decode() if event.detail else None for event in events]
        query_ids = [event.query_id for event in events]
        for times in (batch.occurred, batch.captured):
            _check_range(times, 0, TIME_US_MAX)
        for values in (batch.xid, batch.lsn):
            _check_range(values, ABSENT, _INT64_MAX)
        for optional in (batch.calls, batch.row_count, query_ids):
            _check_range([value for value in optional if value is not None], -_INT64_MAX - 1, _INT64_MAX)
        for small in ([event.pid or 0 for event in events], [event.client_port or 0 for event in events]):
            _check_range(small, -(2**31), 2**31 - 1)
        facts_code, statement_code = self._facts.code, self._statements.code
        batch.facts = [facts_code(facts) for facts in map(_facts, events)]
        batch.statement = [
            statement_code((event.statement, event.fingerprint, query_id))
            for event, query_id in zip(events, query_ids, strict=True)
        ]

    def _own_shape(self, event: Event) -> int:
        shape = _Shape(event.operation, tuple(event.relations), tuple(event.columns), None, None)
        return self._shapes.code(shape)

    def _read_rows(self, batch: _Pending, event: Event, rows: Sequence[_Row]) -> None:
        if len(rows) != event.n_rows:
            raise DeadLetter(
                "wrong_rows",
                f"event {event.event_id} says it has {event.n_rows} rows and has {len(rows)}: the program that wrote "
                "the batch is at fault: update it, then redrive",
            )
        code = self._relations.code
        relations = [code((each.name, tuple(each.columns), each.beacon)) for each in event.relation_table]
        shapes = self._row_shapes
        try:
            keys = [(relations[row.relation], row.operation, bytes(row.changed)) for row in rows]
        except IndexError:
            raise DeadLetter(
                "wrong_rows",
                f"a row of event {event.event_id} names a relation that is not among its {len(relations)}: the program "
                "that wrote the batch is at fault; update it, then redrive",
            ) from None
        for key in keys:
            shape = shapes.get(key)
            if shape is None:
                shape = shapes[key] = self._shape_of(*key)
            batch.row_shape.append(shape)
        batch.rows += rows
        batch.n_rows.append(len(rows))
        batch.bytes += len(event.rows)

    def _shape_of(self, relation: int, operation: str, changed: bytes) -> int:
        """Make the shape of rows; `changed` is the JSON of the changed columns' names, or null."""
        name, columns, covered = self._relations.values[relation]
        try:
            names = _names.decode(changed)
        except msgspec.DecodeError as error:
            raise _wrong_rows(error) from error
        touched = columns if operation == "i" else names or ()
        return self._shapes.code(
            _Shape(
                OPERATIONS[operation],
                (name,),
                tuple(f"{name}.{quote_identifier(column)}" for column in touched if column),
                None if names is None or operation != "u" else tuple(names),
                covered,
            )
        )

    # Keeping it.

    def _judge(self, events: Sequence[Event], judgements: list[_Judgement]) -> None:
        for event, judgement in zip(events, judgements, strict=True):
            place = len(self._judgements)
            self._judgements.append(judgement)
            if event.kind != "change" or (event.last and event.part == 0):
                continue
            parts = self._open.setdefault(event.event_id, [])
            if not event.last:
                parts.append(place)
                continue
            for earlier in self._open.pop(event.event_id):
                self._judgements[earlier] = judgement

    def _join(self, batch: _Pending) -> None:
        pending = self._pending
        for name, values in vars(batch).items():
            if name != "bytes":
                getattr(pending, name).extend(values)
        grown = batch.bytes + 400 * len(batch.ids)
        pending.bytes += batch.bytes
        self.bytes += grown
        self.rows += len(batch.rows) + sum(batch.lone)

    def _freeze(self) -> None:
        """Turn what is pending into arrays."""
        pending = self._pending
        if not pending.ids:
            return
        self._pending = _Pending()
        first = len(self._judgements) - len(pending.ids)
        lone = np.flatnonzero(np.array(pending.lone, np.bool_)).astype(np.int32)
        n_rows = np.zeros(len(pending.ids), np.int32)
        facts = np.array(pending.facts, np.int32)
        kinds = [values[_KIND] == "change" for values in self._facts.values]
        n_rows[np.array(kinds, np.bool_)[facts]] = pending.n_rows
        owner = np.concatenate([np.repeat(np.arange(len(n_rows), dtype=np.int32), n_rows), lone])
        rows = pending.rows
        ordinal = np.full(len(owner), ABSENT, np.int64)
        ordinal[: len(rows)] = [row.ordinal for row in rows]
        ids = pa.array(pending.ids, pa.string())
        row_ids = pc.binary_join_element_wise(
            ids.take(pa.array(owner[: len(rows)])), pa.array(ordinal[: len(rows)]).cast(pa.string()), "-"
        )
        no_text = pa.nulls(len(lone), pa.string())
        shape = np.concatenate([np.array(pending.row_shape, np.int32), np.array(pending.shape, np.int32)[lone]])
        touched, touched_before = self._touches(pending)
        no_number = pa.nulls(len(lone), pa.uint64())
        self._chunks.append(
            _Chunk(
                event_id=pa.concat_arrays([row_ids, ids.take(pa.array(lone))]),
                owner=owner + np.int32(first),
                ordinal=ordinal,
                shape=shape,
                key=pa.concat_arrays([json_texts([row.key for row in rows]), no_text]),
                before=pa.concat_arrays([json_texts([row.before for row in rows]), no_text]),
                after=pa.concat_arrays([json_texts([row.after for row in rows]), no_text]),
                occurred=np.array(pending.occurred, np.int64)[owner],
                captured=np.array(pending.captured, np.int64)[owner],
                xid=np.array(pending.xid, np.int64)[owner],
                lsn=np.array(pending.lsn, np.int64)[owner],
                facts=facts[owner],
                statement=np.array(pending.statement, np.int32)[owner],
                calls=pa.array(pending.calls, pa.int64()).take(pa.array(owner)),
                row_count=pa.array(pending.row_count, pa.int64()).take(pa.array(owner)),
                duration=pa.array(pending.duration, pa.float64()).take(pa.array(owner)),
                detail=pa.array(pending.detail, pa.string()).take(pa.array(owner)),
                offset=np.array(pending.offset, np.int64)[owner],
                index=np.array(pending.index, np.int64)[owner],
                touch=pa.concat_arrays([touched, no_number]),
                touch_before=pa.concat_arrays([touched_before, no_number]),
                changed_rows=len(rows),
            )
        )

    def _touches(self, pending: _Pending) -> tuple[pa.Array, pa.Array]:
        shapes: list[_Shape] = self._shapes.values
        return touch.of_rows(
            (row.operation, shapes[shape].relations[0], bytes(row.key), bytes(row.before))
            for row, shape in zip(pending.rows, pending.row_shape, strict=True)
        )

    # Giving it away.

    def _assemble(self) -> tuple[pa.Table, pa.Table, Ints]:
        """Put the chunks together: `events`, the images of the same rows, and every row's day since the epoch."""
        chunks = self._chunks

        def joined(name: str) -> Any:
            return np.concatenate([getattr(chunk, name) for chunk in chunks])

        def chunked(name: str) -> pa.ChunkedArray:
            return pa.chunked_array([getattr(chunk, name) for chunk in chunks])

        facts, shape, statement = joined("facts"), joined("shape"), joined("statement")
        captured = joined("captured")
        columns: dict[str, object] = {
            name: coded([values[place] for values in self._facts.values], facts, EVENTS.field(name).type)
            for place, name in enumerate(_FACTS)
        }
        # What is in the WAL has committed.
        columns["outcome"] = coded(
            [
                "success" if values[_KIND] == "change" and values[_OUTCOME] == "unknown" else values[_OUTCOME]
                for values in self._facts.values
            ],
            facts,
            pa.string(),
        )
        for place, name in enumerate(("statement", "fingerprint", "query_id")):
            columns[name] = coded(
                [values[place] for values in self._statements.values], statement, EVENTS.field(name).type
            )
        shapes: list[_Shape] = self._shapes.values
        columns["operation"] = coded([value.operation for value in shapes], shape, pa.string())
        columns["covered"] = coded([value.covered for value in shapes], shape, pa.bool_()).dictionary_decode()
        columns["relations"] = coded_lists([value.relations for value in shapes], shape)
        columns["columns"] = coded_lists([value.columns for value in shapes], shape)
        columns["changed"] = coded_lists([value.changed for value in shapes], shape)
        columns["relation"] = coded(
            [value.relations[0] if value.relations else None for value in shapes], shape, pa.string()
        )
        for name in ("event_id", "calls", "duration_ms", "detail", "row_key", "touch", "touch_before"):
            columns[name] = chunked({"duration_ms": "duration", "row_key": "key"}.get(name, name))
        for name in ("xid", "lsn", "ordinal"):
            columns[name] = numbers(joined(name), pa.int64())
        columns["row_count"] = self._row_counts()
        columns["occurred_at"] = pa.array(joined("occurred")).cast(EVENTS.field("occurred_at").type)
        columns["captured_at"] = pa.array(captured).cast(EVENTS.field("captured_at").type)
        columns["schema_version"] = pa.array(np.full(len(facts), SCHEMA_VERSION, np.int32))
        columns["source"] = coded([self.source], np.zeros(len(facts), np.int32), pa.string())
        columns["source_offset"] = pa.array(joined("offset"))
        columns["source_index"] = pa.array(joined("index"))
        self._judged(columns, joined("owner"))
        events = pa.table([columns[name] for name in EVENTS.names], names=EVENTS.names)
        images = pa.table(
            [columns["event_id"], chunked("before"), chunked("after")],
            names=ROWS.names,
        )
        return events, images, captured // DAY_US

    def _row_counts(self) -> pa.ChunkedArray:
        """A changed row counts as one, so that a sum over changes is the rows they touched; a truncate says nothing."""
        one = np.array([None if value.operation == "truncate" else 1 for value in self._shapes.values], object)
        parts = []
        for chunk in self._chunks:
            changed = pa.array(list(one[chunk.shape[: chunk.changed_rows]]), pa.int64())
            parts.append(pa.concat_arrays([changed, chunk.row_count[chunk.changed_rows :]]))
        return pa.chunked_array(parts)

    def _judged(self, columns: dict[str, object], owner: Ints) -> None:
        policies, reasons = Distinct(), Distinct()
        judgements = self._judgements
        policy = np.fromiter((policies.code(judgement[0]) for judgement in judgements), np.int32, len(judgements))
        reason = np.fromiter((reasons.code(judgement[2]) for judgement in judgements), np.int32, len(judgements))
        anomaly = pa.array([judgement[1] for judgement in judgements], pa.float64())
        columns["policies"] = coded_lists(policies.values, policy[owner])
        columns["reasons"] = coded(reasons.values, reason[owner], pa.string())
        columns["anomaly"] = anomaly.take(pa.array(owner))


def _decode(parts: Sequence[Raw]) -> list[list[_Row]]:
    """Read the rows of several events in one go; each part is one JSON value, so that none reaches into the next."""
    text = b"[" + b",".join(parts) + b"]"
    try:
        str(text, "utf-8")
        decoded = _rows.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong_rows(error) from error
    if len(decoded) != len(parts):
        raise _wrong_rows("not one JSON value an event")
    return decoded


def _alert_rows(events: Sequence[Event], verdicts: Sequence[Judgement]) -> list[dict[str, object]]:
    pairs = zip(events, verdicts, strict=True)
    return [alert_rows.row(alert, event) for event, verdict in pairs for alert in verdict.alerts]


def _wrong_rows(error: object) -> DeadLetter:
    return DeadLetter(
        "wrong_rows",
        f"rows that are none: {error}; the program that wrote the batch is at fault: update it, then redrive",
    )


def _check_range(values: Sequence[int], low: int, high: int) -> None:
    """Raise `DeadLetter` when a value is too small or large for its column."""
    if values and not (low <= min(values) and max(values) <= high):
        raise DeadLetter(
            "out_of_range",
            f"an event has a time or number outside of {low} to {high}, which no column can hold; the program that "
            "wrote the batch is at fault: update it, then redrive",
        )
