"""Plans: what becomes of a tuple's values, and that the fast way agrees with the decoder."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.wal.decoding import pgoutput
from collectors.wal.decoding.pgoutput import UNCHANGED, ProtocolError, Tuple
from collectors.wal.decoding.plan import ROW_BYTES_MAX, Masking, Plan, TableFacts
from collectors.wal.decoding.values import CACHED_MAX, TokenCache
from pgwitness.core.config import Mask, Privacy
from pgwitness.core.privacy import tokenizer
from pgwitness.core.units import Size
from tests.collectors import wal_messages as write

TOKEN = tokenizer(b"k" * 32)
COLUMNS = [
    ("id", write.INT, True),
    ('50% "odd"', write.TEXT, False),
    ("n", write.NUMERIC, False),
    ("ok", write.BOOL, False),
    ("doc", write.JSONB, False),
]


def plan(columns: list[tuple[str, int, bool]] = COLUMNS, identity: str = "d", **privacy: Any) -> Plan:
    """Make a plan of a table `t`."""
    relation = pgoutput.decode(write.relation(1, "t", columns, identity))
    assert isinstance(relation, pgoutput.Relation)
    return Plan(relation, TableFacts(("id",)), Masking(Privacy(**privacy), TOKEN), {})


def read(row: bytes) -> list[Any]:
    """Decode an encoded row; invalid JSON fails."""
    return json.loads(row, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))  # type: ignore[no-any-return]


def test_clear_values_keep_their_type_and_digits() -> None:
    """Numbers come as written, booleans as booleans, json and text as strings, NULL as null."""
    row = plan(clear=["*"]).insert(write.insert(1, [b"7", b'a"\n', b"1.500", b"t", b'{"a": 1}']), 5, 3, 2)
    assert b"1.500" in row
    assert read(row) == [
        3, "i", 2, {"id": 7}, None, None, {"id": 7, '50% "odd"': 'a"\n', "n": 1.5, "ok": True, "doc": '{"a": 1}'},
    ]  # fmt: skip


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity"])
def test_numbers_that_json_does_not_have_become_strings(value: bytes) -> None:
    """NaN and the infinities stay readable JSON."""
    row = plan([("id", write.INT, True), ("f", write.FLOAT, False)]).insert(write.insert(1, [b"1", value]), 5, 0, 0)
    assert read(row)[6] == {"id": 1, "f": value.decode()}


def test_text_like_values_are_tokens_by_default() -> None:
    """Text and json become the tokens of their values; an unknown type is treated like text."""
    columns = [("id", write.INT, True), ("a", write.TEXT, False), ("b", 99999, False)]
    row = plan(columns).insert(write.insert(1, [b"1", b"secret", b"secret"]), 5, 0, 0)
    assert read(row)[6] == {"id": 1, "a": TOKEN(b"secret").decode(), "b": TOKEN(b"secret").decode()}
    assert b"secret" not in row


def test_the_rules_of_masking_hold_for_keys_too() -> None:
    """last4 shows four characters of eight or more, hash is plain SHA-256, drop leaves the column out everywhere."""
    columns = [
        ("id", write.TEXT, True),
        ("card", write.TEXT, False),
        ("pin", write.TEXT, False),
        ("h", write.INT, False),
    ]
    masks = [
        Mask(column="public.t.card", with_="last4"),
        Mask(column="*.pin", with_="drop"),
        Mask(column="*.h", with_="hash"),
    ]
    made = plan(columns, mask=masks)
    row = read(made.insert(write.insert(1, [b"k", b"4111111111111234", b"99", None]), 5, 0, 0))
    assert row[3] == {"id": TOKEN(b"k").decode()}
    assert row[6] == {"id": TOKEN(b"k").decode(), "card": "****1234", "h": None}
    short = read(made.insert(write.insert(1, [b"k", b"1234567", None, b"5"]), 5, 0, 0))
    assert short[6]["card"] == "****"
    assert short[6]["h"].startswith("sha256:ef2d127de37b942b")


def test_a_value_beyond_the_limit_becomes_token_length_and_prefix() -> None:
    """Clear or not, what is longer than the limit does not travel whole."""
    long = b"x" * 101
    columns = [("id", write.INT, True), ("a", write.TEXT, False), ("b", write.TEXT, False)]
    row = read(plan(columns, clear=["*.b"], value_limit=Size(100)).insert(write.insert(1, [b"1", long, long]), 5, 0, 0))
    token = TOKEN(long).decode()
    assert row[6]["a"] == {"token": token, "bytes": 101, "prefix": TOKEN(long[:64]).decode()}
    assert row[6]["b"] == {"token": token, "bytes": 101, "prefix": "x" * 64}


def test_no_row_exceeds_its_limit() -> None:
    """A row of 1,600 long clear columns is cut down, and still names its key."""
    columns = [("id", write.INT, True)] + [(f"c{n}", write.TEXT, False) for n in range(1599)]
    value = b"\x01" * 8000
    row = plan(columns, clear=["*"]).insert(write.insert(1, [b"1", *[value] * 1599]), 5, 0, 0)
    assert len(row) <= ROW_BYTES_MAX
    assert read(row)[3] == {"id": 1}


def test_full_identity_tells_what_changed() -> None:
    """With the whole old row the changed columns are named; one that was not sent did not change."""
    made = plan([("id", write.INT, True), ("a", write.INT, True), ("b", write.TEXT, True)], "f")
    row = read(made.update(write.update(1, [b"1", b"3", UNCHANGED], [b"1", b"2", b"x"]), 5, 0, 0))
    assert row[3:5] == [{"id": 1}, ["a"]]
    assert row[6] == {"id": 1, "a": 3}
    assert row[5]["a"] == 2


def test_without_row_values_only_key_and_changed_names_are_kept() -> None:
    """`row_values = none` keeps which record and which columns, no images."""
    made = plan([("id", write.INT, True), ("a", write.INT, True)], "f", row_values="none")
    assert read(made.update(write.update(1, [b"1", b"3"], [b"1", b"2"]), 5, 0, 0)) == [
        0, "u", 0, {"id": 1}, ["a"], None, None,
    ]  # fmt: skip
    assert read(made.insert(write.insert(1, [b"1", b"3"]), 5, 0, 0)) == [0, "i", 0, {"id": 1}, None, None, None]


def test_bytes_that_are_no_utf8_become_text() -> None:
    """A database in SQL_ASCII may hold any bytes; the row stays JSON."""
    made = plan([("id", write.INT, True), ("a", write.TEXT, False)], clear=["*"])
    assert read(made.insert(write.insert(1, [b"1", b"\xff\x00"]), 5, 0, 0))[6]["a"] == "\\xff\x00"


def test_the_cache_of_tokens_is_bounded() -> None:
    """However many values come, no more than the bound are kept, and a token is the same before and after."""
    cache = TokenCache(TOKEN, 100)
    first = cache[b"0"]
    for n in range(CACHED_MAX + 10):
        assert cache[b"%d" % n].startswith(b'"tok_')
        assert len(cache) <= CACHED_MAX
    assert cache[b"0"] == first


_value = st.none() | st.just(UNCHANGED) | st.binary(max_size=20)


@given(st.lists(_value, min_size=3, max_size=3), st.none() | st.lists(_value, min_size=3, max_size=3))
def test_plans_agree_with_the_decoder(new: Tuple, old: Tuple | None) -> None:
    """Rows the plan reads its own way hold the values that the reference decoder gives."""
    columns = [(name, write.TEXT, name == "a") for name in "abc"]
    data = write.update(1, new, old)
    row = read(plan(columns).update(data, 5, 0, 0))
    message = pgoutput.decode(data)
    assert isinstance(message, pgoutput.Update)

    def expected(values: Tuple | None) -> dict[str, str | None] | None:
        if values is None:
            return None
        pairs = zip("abc", values, strict=True)
        return {k: TOKEN(v).decode() if isinstance(v, bytes) else None for k, v in pairs if v is not UNCHANGED}

    assert row[6] == expected(message.new)
    assert row[5] == expected(message.old)


@given(st.sampled_from("IUD"), st.binary(max_size=80), st.booleans())
def test_hostile_tuples_give_a_row_or_a_protocol_error(kind: str, rest: bytes, plausible: bool) -> None:
    """Nothing but `ProtocolError` leaves a plan, except an index beyond the message, which the assembler turns."""
    made = plan([("id", write.INT, True), ("a", write.TEXT, False)])
    data = kind.encode() + b"\0\0\0\1" + (b"N\0\2" if plausible else b"") + rest
    method = {"I": made.insert, "U": made.update, "D": made.delete}[kind]
    with contextlib.suppress(ProtocolError, IndexError):
        method(data, 5, 0, 0)


def test_a_row_with_the_wrong_number_of_columns_is_refused() -> None:
    """A tuple that does not fit its relation is an error that names the table and none of its values."""
    with pytest.raises(ProtocolError, match=r"public\.t") as caught:
        plan().insert(write.insert(1, [b"secret"]), 5, 0, 0)
    assert "secret" not in str(caught.value)
