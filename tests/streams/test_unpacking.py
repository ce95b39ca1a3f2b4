"""What a fetched batch may become when it is unpacked: measured before, replaced where it is too large."""

from __future__ import annotations

import struct

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from pgwitness.core.codec import REPLACED, decode_raw
from pgwitness.core.errors import DeadLetter
from streams.faust import unpacking
from streams.faust.unpacking import GZIP, LZ4, SNAPPY, UNPACKED_BYTES_MAX, ZSTD, bounded

CODECS = [GZIP, SNAPPY, LZ4, ZSTD]
AT_MS = 1_700_000_000_000


def made(codec: int, values: list[bytes], base: int) -> bytes:
    """Make a batch of records as a producer writes it."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 30)
    for place, value in enumerate(values):
        builder.append(place, AT_MS, b"shop", value, [])
    batch = builder.build()
    struct.pack_into(">q", batch, 0, base)
    return bytes(batch)


def read(records: bytes) -> list[tuple[int, bytes]]:
    """Return offsets and values as the client reads them."""
    found, batches = [], MemoryRecords(records)
    while (batch := batches.next_batch()) is not None:
        assert batch.validate_crc()
        found += [(record.offset, record.value or b"") for record in batch]
    return found


@pytest.mark.parametrize("codec", [0, *CODECS])
def test_what_fits_is_left_as_it_is(codec: int) -> None:
    """Of any codec and size that a batch of ours has, also with its end cut off, as brokers cut what they send."""
    records = made(codec, [b"x" * 100], 5) + made(codec, [b"\0" * 3_000_000, b"y"], 6)
    assert bounded(records) == records
    assert bounded(records[:-7]) == records[:-7]
    assert bounded(b"") == b""


@pytest.mark.parametrize("codec", CODECS)
def test_what_would_be_too_large_is_replaced_in_its_place(codec: int) -> None:
    """Its last offset becomes a record that is no batch of ours; what stands before and behind is read."""
    bomb = made(codec, [b"a", b"\0" * UNPACKED_BYTES_MAX, b"z"], 10)
    (before, bad, behind) = read(bounded(made(codec, [b"b"], 9) + bomb + made(codec, [b"c"], 13)))
    assert (before, behind) == ((9, b"b"), (13, b"c"))
    assert bad[0] == 12
    assert bad[1].startswith(REPLACED)
    with pytest.raises(DeadLetter) as refused:
        decode_raw(bad[1])
    assert refused.value.reason == "too_large"


@pytest.mark.parametrize("codec", [LZ4, ZSTD, GZIP, 5, 7])
def test_what_cannot_be_unpacked_is_replaced(codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nonsense in place of what a codec made, and codecs that are none."""
    monkeypatch.setattr(unpacking, "RATIOS", {})
    batch = bytearray(made(LZ4, [b"a" * 1000], 10))
    struct.pack_into(">h", batch, 21, codec)
    batch[61:] = b"\xff" * (len(batch) - 61)
    ((offset, value),) = read(bounded(bytes(batch)))
    assert offset == 10
    assert value.startswith(REPLACED)


@pytest.mark.parametrize("cut", range(0, 70, 3))
def test_lengths_that_lie_end_nothing(cut: int) -> None:
    """Whatever a length says, it ends in what the client would have got."""
    batch = bytearray(made(LZ4, [b"a"], 10))
    struct.pack_into(">i", batch, 8, cut - 30)
    assert bounded(bytes(batch)) == bytes(batch) or read(bounded(bytes(batch)))
