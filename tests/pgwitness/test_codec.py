"""Batches: cutting, reading back, and what becomes of hostile bytes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgwitness.core import codec
from pgwitness.core.errors import DeadLetter, NewerSchema
from pgwitness.core.events import SCHEMA_VERSION, Gap, RawHeader, Transaction, encode_event

HEADER = msgspec.json.encode(RawHeader(cluster="shop", source="wal"))


def gap(reason: str = "slot_lost") -> bytes:
    """Encode a small event."""
    return encode_event(Gap(captured_at_us=1, reason=reason))


def test_a_batch_reads_back_as_what_was_added() -> None:
    """Events come out of a record as they went in, in order, with producer and header."""
    builder = codec.BatchBuilder("wal@host", HEADER)
    for reason in ("a", "b", "c"):
        assert builder.add(gap(reason)) is None
    payload = builder.cut()
    batch = codec.decode_raw(payload)
    assert (batch.schema, batch.producer, batch.header.cluster) == (SCHEMA_VERSION, "wal@host", "shop")
    assert [event.reason for event in batch.events if isinstance(event, Gap)] == ["a", "b", "c"]
    assert builder.cut() is None


def test_the_rows_of_a_transaction_pass_through_as_the_bytes_they_were() -> None:
    """Rows are not decoded on the way; even their white space survives."""
    rows = b'[[0, "i", 0, {"id": 1}, null, null, {"id": 1}]]'
    event = Transaction(
        captured_at_us=1,
        system_id="7",
        timeline=1,
        database="d",
        lsn=9,
        xid=3,
        committed_at_us=1,
        rows=msgspec.Raw(rows),
    )
    builder = codec.BatchBuilder("p", HEADER)
    builder.add(encode_event(event))
    (back,) = codec.decode_raw(builder.cut()).events
    assert isinstance(back, Transaction)
    assert bytes(back.rows) == rows


@given(st.lists(st.tuples(st.integers(1, codec.EVENTS_MAX), st.integers(2, codec.BYTES_MAX)), max_size=30))
def test_no_batch_exceeds_its_bounds_unless_one_event_does(events: list[tuple[int, int]]) -> None:
    """Whatever is added in whatever order, a cut batch holds at most the bounds, and nothing is lost."""
    builder = codec.BatchBuilder("p", HEADER)
    payloads = [builder.add(b'"' + b"x" * (size - 2) + b'"', count) for count, size in events]
    payloads.append(builder.cut())
    seen = 0
    for payload in payloads:
        if payload is None:
            continue
        sizes = [len(text) + 2 for text in msgspec.json.decode(payload)["events"]]
        counts = [count for count, _ in events[seen : seen + len(sizes)]]
        assert len(sizes) == 1 or (sum(counts) <= codec.EVENTS_MAX and sum(sizes) <= codec.BYTES_MAX)
        seen += len(sizes)
    assert seen == len(events)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "not_a_batch"),
        (b"\xff\xfe\x00", "not_a_batch"),
        (b'{"schema":1,"producer":"p","header":{"cluster":"c","source":"wal"},"events":[', "not_a_batch"),
        (b"[" * 100_000, "not_a_batch"),
        (b'{"schema":1}', "wrong_shape"),
        (
            b'{"schema":1,"producer":"p","header":{"cluster":"c","source":"wal"},"events":[{"kind":"nonsense"}]}',
            "wrong_shape",
        ),
        (b'{"schema":0,"producer":"p","header":{"cluster":"c","source":"wal"},"events":[]}', "old_schema"),
    ],
)
def test_bytes_that_are_no_batch_are_dead_letters_with_a_reason(value: bytes | None, reason: str) -> None:
    """Each way of being unreadable has its own word, so that an operator knows what to do."""
    with pytest.raises(DeadLetter) as caught:
        codec.decode_raw(value)
    assert caught.value.reason == reason


@pytest.mark.parametrize("shape", [b'{"schema":%d}', b'{"schema":%d,"events":"packed"}'])
def test_a_newer_schema_is_never_a_dead_letter(shape: bytes) -> None:
    """A batch from the future may have any shape; it waits for the program that can read it."""
    with pytest.raises(NewerSchema):
        codec.decode_raw(shape % (SCHEMA_VERSION + 1))


@given(st.binary(max_size=300))
def test_decoding_is_total(value: bytes) -> None:
    """Any bytes give a batch or one of the two errors, nothing else."""
    for decode in (codec.decode_raw, codec.decode_events):
        try:
            decode(value)
        except (DeadLetter, NewerSchema):
            continue
