"""Rows about a data subject: their tokens are of that person's own key, and can be made unlinkable."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from collectors.wal.decoding import pgoutput
from collectors.wal.decoding.plan import Masking, Plan, TableFacts
from pgwitness.core.config import Mask, Privacy
from pgwitness.core.privacy import tokenizer
from pgwitness.core.subjects import FORGOTTEN, Subjects
from tests.collectors import wal_messages as write

TOKEN = tokenizer(b"k" * 32)
STORE = Subjects(b"i" * 32, {(0, 0): b"r" * 32})
CUSTOMERS = [("id", write.INT, True), ("name", write.TEXT, False), ("n", write.INT, False)]
ORDERS = [("code", write.TEXT, True), ("customer_id", write.INT, False), ("note", write.TEXT, False)]
SUBJECT = ["public.customers.id", "*.customer_id"]


class Keys:
    """The store as a file gives it, which may be another one at the next look."""

    def __init__(self) -> None:
        self.now = STORE

    def __call__(self) -> Subjects:
        """Give it."""
        return self.now


def plan(name: str, columns: list[tuple[str, int, bool]], keys: Keys, **privacy: Any) -> Plan:
    """Make a plan of a table."""
    relation = pgoutput.decode(write.relation(1, name, columns, "d"))
    assert isinstance(relation, pgoutput.Relation)
    rules: dict[str, Any] = {"subject": SUBJECT} | privacy
    return Plan(relation, TableFacts((columns[0][0],)), Masking(Privacy(**rules), TOKEN, keys), {})


def read(row: bytes) -> list[Any]:
    """Decode an encoded row."""
    found: list[Any] = json.loads(row)
    return found


def of(subject: bytes, value: bytes) -> str:
    """Give a subject's token of a value."""
    return STORE.tokens(subject)(value).decode()


def test_a_row_has_the_tokens_of_whom_it_is_about() -> None:
    """Of two people equal names differ; the id is a token too, a number that names nobody stays clear."""
    keys = Keys()
    made = plan("customers", CUSTOMERS, keys)
    ada, eve = (read(made.insert(write.insert(1, [n, b"Ada", b"5"]), 5, 0, 0)) for n in (b"1", b"2"))
    assert ada[3] == {"id": of(b"1", b"1")}
    assert ada[6] == {"id": of(b"1", b"1"), "name": of(b"1", b"Ada"), "n": 5}
    assert eve[6]["name"] == of(b"2", b"Ada") != ada[6]["name"]


def test_other_tables_name_the_person_by_a_column_and_keep_their_own_keys() -> None:
    """A deletion sends the key alone: it is told by the same token as the insert."""
    keys = Keys()
    made = plan("orders", ORDERS, keys)
    row = read(made.insert(write.insert(1, [b"A-1", b"1", b"hello"]), 5, 0, 0))
    code = TOKEN(b"A-1").decode()
    assert row[3] == {"code": code}
    assert row[6] == {"code": code, "customer_id": of(b"1", b"1"), "note": of(b"1", b"hello")}
    assert read(made.delete(write.delete(1, [b"A-1", None, None]), 5, 0, 0))[3] == {"code": code}
    assert read(made.insert(write.insert(1, [b"A-2", None, b"hello"]), 5, 0, 0))[6]["note"] == TOKEN(b"hello").decode()


def test_a_forgotten_person_who_comes_again_is_nobody() -> None:
    """In a collector that runs on: the store is looked at where a transaction begins with a table."""
    keys = Keys()
    made = plan("customers", CUSTOMERS, keys)
    insert = write.insert(1, [b"1", b"Ada", b"5"])
    assert read(made.insert(insert, 5, 0, 0))[6]["name"] == of(b"1", b"Ada")
    less = STORE.without(b"1")
    assert less is not None
    keys.now = less
    made.renew()
    assert read(made.insert(insert, 5, 0, 0))[6] == {"id": FORGOTTEN.decode(), "name": FORGOTTEN.decode(), "n": 5}
    other = read(made.insert(write.insert(1, [b"2", b"Ada", b"5"]), 5, 0, 0))
    assert other[6]["name"] == of(b"2", b"Ada")


def test_rules_win_over_the_subject() -> None:
    """What a rule drops or shows the end of, and what is clear by name, stays so."""
    made = plan("customers", CUSTOMERS, Keys(), mask=[Mask(column="*.name", with_="drop")], clear=["*.id"])
    row = read(made.insert(write.insert(1, [b"1", b"Ada", b"5"]), 5, 0, 0))
    assert row[6] == {"id": 1, "n": 5}


@given(st.lists(st.sampled_from([b"1", b"2", None]), min_size=1, max_size=8))
def test_without_a_subject_column_all_is_as_before(ids: list[bytes | None]) -> None:
    """Byte for byte, whatever the rows are."""
    keys = Keys()
    ours, before = plan("other", ORDERS, keys, subject="public.customers.id"), plan("other", ORDERS, keys, subject=[])
    for one in ids:
        message = write.insert(1, [b"A", one, b"x"])
        assert ours.insert(message, 5, 0, 0) == before.insert(message, 5, 0, 0)
