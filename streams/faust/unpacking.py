"""What a fetched batch of records may become when it is unpacked: bounded, before anybody unpacks it.

A broker's limits count compressed bytes, and a kilobyte can unpack to gigabytes. So each batch is measured first, by
its codec's best ratio where that is enough, else by unpacking it into `UNPACKED_BYTES_MAX` at most. One that is
larger, or cannot be unpacked at all, is replaced by a single record in the place of its last, whose value begins with
`pgwitness.core.codec.REPLACED` and says where the batch stood: that becomes a dead letter, and the stream goes on.
Pure.

The layout is that of https://kafka.apache.org/documentation/#recordbatch.
"""

from __future__ import annotations

import gzip
import io
import struct
from typing import Final

import cramjam
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from pgwitness.core.codec import REPLACED

UNPACKED_BYTES_MAX = 16 * 1024 * 1024
"""Of a batch of records; ours have 4 MiB at most (`streams.kafka.emitter`)."""
GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
RATIOS: Final = {GZIP: 1032, LZ4: 255}
"""How much a byte can become at best: RFC 1951 has 258 bytes in two bits, an LZ4 length grows by 255 a byte."""
_LENGTH_AT, _HEAD = 8, 12
_MAGIC_AT, _ATTRIBUTES_AT = 16, 21
_LAST_AT, _LATEST_AT, _RECORDS_AT = 23, 35, 61
_OLD_ATTRIBUTES_AT = 17
_XERIAL = b"\x82SNAPPY\x00"
_buffer = bytearray()


def bounded(records: bytes) -> bytes:
    """Return a partition's records as fetched, with a record in the place of each batch that would be too large."""
    start, kept = 0, []
    changed = False
    while start + _HEAD <= len(records):
        end: int = start + _HEAD + struct.unpack_from(">i", records, start + _LENGTH_AT)[0]
        if not start + _HEAD < end <= len(records):
            break  # the last one may be cut, which is the client's affair
        batch = records[start:end]
        if (why := _trouble(batch)) is not None:
            batch, changed = _instead(batch, why), True
        kept.append(batch)
        start = end
    return b"".join([*kept, records[start:]]) if changed else records


def _trouble(batch: bytes) -> str | None:
    """Return why a batch is not to be unpacked, None when it may be."""
    if len(batch) <= _OLD_ATTRIBUTES_AT:
        return None
    if batch[_MAGIC_AT] < 2:
        return "is compressed in a way that no broker keeps any more" if batch[_OLD_ATTRIBUTES_AT] & 7 else None
    if len(batch) <= _RECORDS_AT:
        return None
    codec = struct.unpack_from(">h", batch, _ATTRIBUTES_AT)[0] & 7
    size = len(batch) - _RECORDS_AT
    if not codec or size * RATIOS.get(codec, UNPACKED_BYTES_MAX) <= UNPACKED_BYTES_MAX:
        return None
    try:
        fits = _fits(codec, batch[_RECORDS_AT:])
    except Exception as error:
        return f"cannot be unpacked, or to more than {UNPACKED_BYTES_MAX} bytes ({type(error).__name__})"
    return None if fits else f"would be unpacked to more than {UNPACKED_BYTES_MAX} bytes"


def _fits(codec: int, data: bytes) -> bool:
    """Return whether compressed data has its room; raise whatever a decoder does when it has not, or is none."""
    if codec == GZIP:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            left = UNPACKED_BYTES_MAX + 1
            while left > 0 and (piece := file.read(min(left, 1 << 20))):
                left -= len(piece)
        return left > 0
    if codec == SNAPPY:
        return sum(map(cramjam.snappy.decompress_raw_len, _blocks(data))) <= UNPACKED_BYTES_MAX
    if not _buffer:
        _buffer.extend(bytes(UNPACKED_BYTES_MAX))
    unpack = cramjam.lz4 if codec == LZ4 else cramjam.zstd
    unpack.decompress_into(data, _buffer)
    return True


def _blocks(data: bytes) -> list[bytes]:
    """Return the blocks of snappy's framing as Java writes it; without the frame all is one."""
    if not data.startswith(_XERIAL):
        return [data]
    found, at = [], 16
    while at < len(data):
        size: int = struct.unpack_from(">i", data, at)[0]
        if size < 0:
            raise ValueError("a block of less than nothing")
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def _instead(batch: bytes, why: str) -> bytes:
    """Make a batch of one record that stands where the last one of a batch did."""
    first: int = struct.unpack_from(">q", batch, 0)[0]
    old = batch[_MAGIC_AT] < 2
    last = first if old else first + struct.unpack_from(">i", batch, _LAST_AT)[0]
    latest_ms = -1 if old else struct.unpack_from(">q", batch, _LATEST_AT)[0]
    value = REPLACED + f"the batch at {first} to {last}, of {len(batch)} bytes, {why}".encode()
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, len(value) + 1024)
    builder.append(0, latest_ms, None, value, [])
    made = bytearray(builder.build())
    struct.pack_into(">q", made, 0, last)  # the check sum begins behind it
    return bytes(made)
