"""The decoder of pgoutput: every message by value, and total on hostile bytes."""

from __future__ import annotations

import contextlib
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.wal.decoding import pgoutput
from collectors.wal.decoding.pgoutput import EPOCH_US, UNCHANGED, ProtocolError, decode
from tests.collectors import wal_messages as write

WHOLE = [
    (write.begin(0x16B374D848, 777, EPOCH_US + 5), pgoutput.Begin(0x16B374D848, EPOCH_US + 5, 777)),
    (write.commit(100, EPOCH_US + 7), pgoutput.Commit(100, 108, EPOCH_US + 7)),
    (b"O" + pack(">Q", 9) + b"north\0", pgoutput.Origin(9, "north")),
    (
        write.relation(5, "Ä", [("id", write.INT, True), ("n", write.TEXT, False)], "f"),
        pgoutput.Relation(
            5, "public", "Ä", "f", [pgoutput.Column(True, "id", 23, -1), pgoutput.Column(False, "n", 25, -1)]
        ),
    ),
    (b"Y" + pack(">I", 70000) + b"\0mood\0", pgoutput.Type(70000, "pg_catalog", "mood")),
    (write.insert(5, [b"1", None, UNCHANGED]), pgoutput.Insert(5, [b"1", None, UNCHANGED])),
    (write.update(5, [b"1"]), pgoutput.Update(5, None, None, [b"1"])),
    (write.update(5, [b"1"], [b"2"]), pgoutput.Update(5, "O", [b"2"], [b"1"])),
    (write.update(5, [b"1"], [b"2"], b"K"), pgoutput.Update(5, "K", [b"2"], [b"1"])),
    (write.delete(5, [b"1", None]), pgoutput.Delete(5, "K", [b"1", None])),
    (write.truncate(5, 6), pgoutput.Truncate([5, 6], True, False)),
    (write.message("p", b"\0x", 3), pgoutput.LogicalMessage(True, 3, "p", b"\0x")),
]


@pytest.mark.parametrize(("data", "expected"), WHOLE, ids=lambda value: type(value).__name__)
def test_every_message_is_decoded(data: bytes, expected: pgoutput.Message) -> None:
    """Each kind of message gives its fields."""
    assert decode(data) == expected


@pytest.mark.parametrize("data", [data for data, _ in WHOLE], ids=lambda data: chr(data[0]))
def test_a_message_that_is_cut_or_too_long_is_refused(data: bytes) -> None:
    """No beginning of a message passes for a message, nor does one with more behind it."""
    for end in range(len(data)):
        with pytest.raises(ProtocolError):
            decode(data[:end])
    with pytest.raises(ProtocolError):
        decode(data + b"\0")


@given(st.sampled_from(b"BCORYIUDTMxS"), st.binary(max_size=200))
def test_any_bytes_give_a_message_or_a_protocol_error(kind: int, rest: bytes) -> None:
    """Nothing but `ProtocolError` is raised, whatever comes."""
    with contextlib.suppress(ProtocolError):
        decode(bytes([kind]) + rest)


@given(st.sampled_from(WHOLE), st.data())
def test_a_damaged_message_gives_a_message_or_a_protocol_error(
    whole: tuple[bytes, object], data: st.DataObject
) -> None:
    """The same for messages of which one byte was changed: counts and lengths that lie do no harm."""
    original = bytearray(whole[0])
    original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        decode(bytes(original))
