"""Whatever a row holds, its record is JSON, masked as configured, with each member once; and it says nothing untrue."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from collectors.wal.decoding import pgoutput
from collectors.wal.decoding.pgoutput import UNCHANGED, Tuple
from collectors.wal.decoding.plan import HEADER_BYTES_MAX, Masking, Plan, TableFacts, distinct
from collectors.wal.decoding.values import BUILT_IN, type_names
from pgwitness.core.config import Mask, Privacy
from pgwitness.core.privacy import tokenizer
from tests.collectors import wal_messages as write
from tests.collectors.wal_source import MARK, Source, rows

TOKEN = tokenizer(b"k" * 32)
Columns = list[tuple[str, int, bool]]


def plan(
    columns: Columns,
    identity: str = "d",
    types: dict[int, tuple[str, str]] | None = None,
    facts: TableFacts | None = None,
    **privacy: Any,
) -> Plan:
    """Make a plan of a table `t`."""
    relation = pgoutput.decode(write.relation(1, "t", columns, identity))
    assert isinstance(relation, pgoutput.Relation)
    return Plan(relation, facts or TableFacts(), Masking(Privacy(**privacy), TOKEN), types or {})


def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON; a member that stands twice fails."""
    assert len({name for name, _ in pairs}) == len(pairs), "a member stands twice"
    return dict(pairs)


def read(row: bytes) -> list[Any]:
    """Decode an encoded row strictly."""
    row.decode()
    return json.loads(row, object_pairs_hook=members, parse_constant=lambda word: pytest.fail(word))  # type: ignore[no-any-return]


def after(made: Plan, *values: bytes | None) -> Any:
    """Give the image of an inserted row."""
    return read(made.insert(write.insert(1, list(values)), 5, 0, 0))[6]


@pytest.mark.parametrize("name", ["bool", "int4", "numeric", "uuid", "date", "json", "interval"])
def test_a_type_is_not_known_by_its_bare_name(name: str) -> None:
    """A type that somebody made and named as a built-in one is masked like text, whatever its values are."""
    made = plan([("id", write.INT, True), ("p", 70_000, False)], types={70_000: ("app", name)})
    for value in (b"high", b'a"b', b"7", b""):
        assert after(made, b"1", value) == {"id": 1, "p": TOKEN(value).decode()}


def test_domains_over_built_in_types_are_what_they_are_made_over() -> None:
    """The server describes a domain by its base type in pg_catalog; one of PostgreSQL's own types nobody describes."""
    described = {70_000: ("pg_catalog", "int4"), 70_001: ("pg_catalog", "_int4"), 23: ("app", "text")}
    assert type_names([70_000, 70_001, 23, 16, 99_999], described) == ["int4", "_int4", "int4", "bool", "other"]
    made = plan([("id", write.INT, True), ("p", 70_000, False)], types=described)
    assert after(made, b"1", b"7") == {"id": 1, "p": 7}


def test_a_type_described_anew_is_another_one() -> None:
    """A type that was dropped and made again, or renamed, makes a new plan with the next description of the table."""
    types = {70_000: ("pg_catalog", "int4")}
    made = plan([("id", write.INT, True), ("p", 70_000, False)], types=types)
    relation = pgoutput.decode(write.relation(1, "t", [("id", write.INT, True), ("p", 70_000, False)]))
    assert isinstance(relation, pgoutput.Relation)
    assert made.still(relation, TableFacts())
    types[70_000] = ("app", "int4")
    assert not made.still(relation, TableFacts())


CLEAR_OIDS = [oid for oid, name in BUILT_IN.items()]
ODD = (
    b"", b"x", b"-", b"007", b"1.", b".5", b"1e", b"nan", b"+1", b" 1", b'"', b"\\", b"\x01", b"\xff", b"1\n", b"true",
    b"null", b"{}", b"\xed\xa0\x80", "٣".encode(),
)  # fmt: skip


@pytest.mark.parametrize("oid", CLEAR_OIDS)
def test_a_value_that_is_not_what_its_type_says_is_masked_text(oid: int) -> None:
    """Whatever stands in a column, the row is JSON and nothing of it is copied without having been looked at."""
    made = plan([("id", write.INT, True), ("p", oid, False)])
    for value in ODD:
        shown = after(made, b"1", value)["p"]
        assert isinstance(shown, str)
        if BUILT_IN[oid] != "money":  # money is written as its locale says
            assert shown == TOKEN(value).decode() or shown.encode() == value


@pytest.mark.parametrize(
    ("oid", "value"),
    [
        (write.NUMERIC, b"1" + b"0" * 400), (write.NUMERIC, b"0." + b"1" * 40), (write.NUMERIC, b"-" + b"9" * 40),
        (write.FLOAT, b"1e+400"), (write.FLOAT, b"-0"), (write.FLOAT, b"5e-324"), (write.INT, b"-1"), (20, b"0"),
    ],
)  # fmt: skip
def test_numbers_keep_their_digits(oid: int, value: bytes) -> None:
    """Numbers of any size stand in the row as the server wrote them."""
    row = plan([("id", write.INT, True), ("n", oid, False)]).insert(write.insert(1, [b"1", value]), 5, 0, 0)
    assert b'"n":' + value + b"}" in row


def test_a_number_beyond_the_limit_is_cut_like_any_value() -> None:
    """Numeric has up to 131,072 digits before its point."""
    shown = after(plan([("id", write.INT, True), ("n", write.NUMERIC, False)]), b"1", b"9" * 100_000)["n"]
    assert (shown["bytes"], shown["prefix"]) == (100_000, "9" * 64)


def test_a_huge_value_is_not_decoded_for_its_last_characters() -> None:
    """Of a long value `last4` looks at the end only, also where a character is cut there."""
    made = plan([("id", write.INT, True), ("a", write.TEXT, False)], mask=[Mask(column="*.a", with_="last4")])
    assert after(made, b"1", "ä".encode() * 1_000_001 + b"1234")["a"] == "****1234"


def test_each_member_stands_once_whatever_the_columns_are_called() -> None:
    """Names that the way from bytes to text makes equal stay different, in the row and in its relation."""
    assert distinct(["\\xff", "\\xff", "a", "\\xff~2", "\\xff"]) == ["\\xff", "\\xff~3", "a", "\\xff~2", "\\xff~4"]
    odd = ['"', "\\", "%s", "%", "\x01", "\u202e", "a.b", "null", "ä" * 31, " "]
    made = plan([(name, write.INT, n == 0) for n, name in enumerate(odd)])
    assert after(made, *[b"%d" % n for n in range(len(odd))]) == {name: n for n, name in enumerate(odd)}
    doubled = plan([("same", write.INT, True), ("same", write.INT, False)])
    assert after(doubled, b"1", b"2") == {"same": 1, "same~2": 2}
    assert doubled.relation.columns == ["same", "same~2"]


def test_tables_of_no_column_and_of_1600() -> None:
    """A row without columns is an empty object; a relation whose names fill a record is there without them."""
    assert after(plan([])) == {}
    wide = plan([("\x01" * 60 + f"{n:03}", write.INT, n == 0) for n in range(1_600)])
    assert len(wide.header) < HEADER_BYTES_MAX
    assert wide.relation.columns == []
    row = read(wide.insert(write.insert(1, [b"1"] * 1_600), 5, 0, 0))
    assert (list(row[3].values()), row[6]) == ([1], None)
    plain = plan([(f"c{n}", write.INT, n == 0) for n in range(1_600)])
    assert len(plain.relation.columns) == len(after(plain, *[b"1"] * 1_600)) == 1_600


TWO = [("a", write.TEXT, True), ("b", write.TEXT, True), ("c", write.TEXT, False)]


@pytest.mark.parametrize(
    ("new", "old", "kind", "expected"),
    [
        ([b"1", b"2", b"3"], None, b"K", {"a": "1", "b": "2"}),
        ([b"1", UNCHANGED, b"3"], None, b"K", None),
        ([b"1", UNCHANGED, b"3"], [b"0", b"2", None], b"K", {"a": "1", "b": "2"}),
        ([b"1", UNCHANGED, b"3"], [b"0", None, None], b"K", None),
        ([UNCHANGED, UNCHANGED, b"3"], None, b"K", None),
    ],
)
def test_a_key_is_whole_or_not_there(new: Tuple, old: Tuple | None, kind: bytes, expected: Any) -> None:
    """A part of a key names other rows, too: where one was not sent there is none."""
    row = read(plan(TWO, clear=["*"]).update(write.update(1, new, old, kind), 5, 0, 0))
    assert row[3] == expected


def test_what_was_not_sent_is_absent_and_never_null() -> None:
    """Of an old key only its own columns stand there, whichever the relation marks; unchanged values stand nowhere."""
    made = plan(TWO, clear=["*"])
    assert read(made.delete(write.delete(1, [None, None, b"z"]), 5, 0, 0))[3:6] == [None, None, {"c": "z"}]
    assert read(made.delete(write.delete(1, [b"x", b"y", None]), 5, 0, 0))[3:6] == [
        {"a": "x", "b": "y"}, None, {"a": "x", "b": "y"},
    ]  # fmt: skip
    row = read(
        plan(TWO, "f", clear=["*"]).update(write.update(1, [b"x", UNCHANGED, None], [b"x", b"y", None]), 5, 0, 0)
    )
    assert row[4:] == [[], {"a": "x", "b": "y", "c": None}, {"a": "x", "c": None}]
    row = read(
        plan(TWO, "f", clear=["*"]).update(write.update(1, [b"x", b"y", None], [b"w", UNCHANGED, b"1"]), 5, 0, 0)
    )
    assert row[4:] == [["a", "c"], {"a": "w", "c": "1"}, {"a": "x", "b": "y", "c": None}]


def test_a_key_with_a_column_that_is_dropped_is_none() -> None:
    """What is left of a key would be many rows' key."""
    made = plan(TWO, mask=[Mask(column="*.b", with_="drop")], clear=["*"])
    assert read(made.insert(write.insert(1, [b"1", b"2", b"3"]), 5, 0, 0))[3:] == [
        None,
        None,
        None,
        {"a": "1", "c": "3"},
    ]


def test_types_named_like_built_in_ones_on_a_server(source: Source) -> None:
    """An enum `int4`, an enum `bool` and a composite `numeric` of one's own schema lose neither rows nor the slot."""
    source.create(
        MARK,
        "CREATE TABLE victim (id int PRIMARY KEY)",
        "INSERT INTO victim VALUES (1)",
        "CREATE SCHEMA app",
        "CREATE TYPE app.int4 AS ENUM ('high')",
        "CREATE TYPE app.bool AS ENUM ('yes', 'no')",
        "CREATE TYPE app.numeric AS (a int, b text)",
        "CREATE TYPE app.json AS ENUM ('a\"b')",
        "CREATE DOMAIN app.uuid AS int CHECK (VALUE > 0)",
        "CREATE DOMAIN app.date AS app.bool",
        "CREATE TABLE z (id int PRIMARY KEY, p app.int4, q app.bool, r app.numeric, s app.json, t app.uuid, u app.date,"
        " v app.int4[], w int4range, x int4[])",
    )
    with source.running() as raised:
        source.streaming()
        with source.sql.transaction():
            source.sql.execute("DELETE FROM victim")
            source.sql.execute(
                "INSERT INTO z VALUES (1, 'high', 'yes', '(1,x)', 'a\"b', 7, 'no', '{high}', '[1,3)', '{1,2}')"
            )
        source.sql.execute("ALTER TYPE app.int4 RENAME TO int8")
        source.sql.execute("ALTER TYPE app.bool RENAME VALUE 'yes' TO 't'")
        source.sql.execute("INSERT INTO z (id, p, q) VALUES (2, 'high', 't')")
        found = source.until_marked()
    assert raised == []
    deleted, one, two = rows(found)
    assert deleted[:3] == ("d", "public.victim", {"id": 1})
    texts = {"p": "high", "q": "yes", "r": "(1,x)", "s": 'a"b', "u": "no", "v": "{high}", "w": "[1,3)", "x": "{1,2}"}
    assert one[5] == {"id": 1, "t": 7, **texts}
    assert (two[5]["p"], two[5]["q"], two[5]["r"]) == ("high", "t", None)


def test_bytes_of_a_database_without_an_encoding(source18: Source) -> None:
    """In SQL_ASCII names and values are any bytes; rows stay JSON, and both columns stand there."""
    name = f"ascii_{source18.database}"
    source18.sql.execute(
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"  # type: ignore[arg-type]
    )
    try:
        with psycopg.connect(source18.dsn.replace(source18.database, name), autocommit=True) as raw:
            raw.execute("SET client_encoding = SQL_ASCII")
            raw.execute(b'CREATE TABLE t (id int PRIMARY KEY, "\xff" text, "\\xff" text)')
            raw.execute("SELECT pg_create_logical_replication_slot('odd', 'pgoutput')")
            raw.execute("CREATE PUBLICATION p FOR TABLE t")
            raw.execute("SELECT pg_drop_replication_slot('odd')")
            raw.execute("SELECT pg_create_logical_replication_slot('odd', 'pgoutput')")
            raw.execute(b"INSERT INTO t VALUES (1, E'\\xed\\xa0\\x80', E'\\xff\"')")
            found = [
                bytes(data)
                for (data,) in raw.execute(
                    "SELECT data FROM pg_logical_slot_get_binary_changes('odd', NULL, NULL, 'proto_version', '1',"
                    " 'publication_names', 'p')"
                ).fetchall()
            ]
            raw.execute("SELECT pg_drop_replication_slot('odd')")
    finally:
        source18.sql.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]
    relation = pgoutput.decode(next(data for data in found if data[:1] == b"R"))
    assert isinstance(relation, pgoutput.Relation)
    made = Plan(relation, TableFacts(), Masking(Privacy(clear=["*"]), TOKEN), {})
    row = read(made.insert(next(data for data in found if data[:1] == b"I"), 5, 0, 0))
    assert row[6] == {"id": 1, "\\xff": "\\xed\\xa0\\x80", "\\xff~2": '\\xff"'}


def test_odd_tables_on_a_server(source: Source) -> None:
    """No column, 1,600 columns, dropped and computed columns, hostile names: each row arrives with what was sent."""
    names = ['"', "\\", "%s", "a.b", "\x01", "\u202e", "null"]
    quoted = [name.replace('"', '""') for name in names]
    wide = ", ".join(f"c{n} int" for n in range(1_600))
    source.create(
        MARK,
        "CREATE TABLE nothing ()",
        f"CREATE TABLE wide ({wide})",
        f"CREATE TABLE odd (id int PRIMARY KEY, {', '.join(f'{chr(34)}{name}{chr(34)} text' for name in quoted)})",
        "CREATE TABLE less (id int PRIMARY KEY, gone text, twice int GENERATED ALWAYS AS (id * 2) STORED, n numeric)",
        "ALTER TABLE less DROP COLUMN gone",
        'CREATE TABLE "T ""\\%" (id int PRIMARY KEY)',
    )
    with source.running() as raised:
        source.streaming()
        source.sql.execute("INSERT INTO nothing DEFAULT VALUES")
        source.sql.execute("INSERT INTO wide (c0, c1599) VALUES (1, 2)")
        source.sql.execute(f"INSERT INTO odd VALUES (1{', %s' * len(names)})".encode(), ["'\"\\\n\t"] * len(names))
        source.sql.execute("INSERT INTO less VALUES (1, DEFAULT, 'NaN'), (2, DEFAULT, 1e400), (3, DEFAULT, -1e-30)")
        source.sql.execute('INSERT INTO "T ""\\%%" VALUES (1)'.replace("%%", "%").encode())
        found = source.until_marked()
    assert raised == []
    nothing, wide_row, odd, *less, named = rows(found)
    assert nothing[1:] == ("public.nothing", None, None, None, {})
    assert (len(wide_row[5]), wide_row[5]["c0"], wide_row[5]["c1599"], wide_row[5]["c7"]) == (1_600, 1, 2, None)
    assert odd[5] == {"id": 1, **dict.fromkeys(names, "'\"\\\n\t")}
    assert [row[5]["n"] for row in less] == ["NaN", 10**400, -1e-30]
    # 18 publishes what is computed and stored; before, it is not sent, and never null.
    assert all("gone" not in row[5] and row[5].get("twice", row[5]["id"] * 2) == row[5]["id"] * 2 for row in less)
    assert named[1:3] == ('public."T ""\\%"', {"id": 1})
