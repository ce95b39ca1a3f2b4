"""The same WAL through our decoder and through PostgreSQL's test_decoding: every row must be the same.

`Workload` makes tables over all built-in types, arrays, domains, enums and composites, with every replica identity, and
writes to them in every way from one seed; `compare` reads two slots of the same database and lists what differs.
`python -m tests.collectors.differential SECONDS` goes on with ever new seeds (`make differential`).
"""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psycopg
from msgspec import Struct
from psycopg import sql

from collectors.wal.assembly.held import Held
from collectors.wal.assembly.transaction import Assembler
from collectors.wal.beacons.messages import Unproven, Unsigned
from collectors.wal.decoding.pgoutput import LogicalMessage
from collectors.wal.decoding.place import Place, Xids
from collectors.wal.decoding.plan import Masking, TableFacts
from pgwitness.core.config import Privacy
from pgwitness.core.events import Transaction
from pgwitness.core.privacy import tokenizer
from pgwitness.core.units import Size
from pgwitness.demo.servers import FAST_AND_FORGETFUL, Postgres

Connection = psycopg.Connection[tuple[Any, ...]]
TEXT_FORM = (
    "SET datestyle = ISO; SET intervalstyle = postgres; SET timezone = UTC; SET extra_float_digits = 1;"
    " SET bytea_output = hex"
)

TYPES: dict[str, list[str]] = {
    "bool": ["true", "false"],
    '"char"': ["'x'", "''"],
    "name": ["'a name'"],
    "int2": ["-32768", "7"],
    "int4": ["0", "2147483647"],
    "int8": ["-9223372036854775808", "42"],
    "oid": ["4294967295"],
    "float4": ["'NaN'", "1.5", "-0", "1e-37"],
    "float8": ["'-Infinity'", "0.1", "1e300", "5e-324"],
    "numeric": ["'NaN'", "1e200", "-0.000000000000000000001", "1234567890123456789012345678901234567890"],
    "numeric(9,2)": ["12.50"],
    "money": ["'12.34'"],
    "text": ["''", "E'a\\n\\t\\x01\\\\'", "'it''s \"q\" ü € 😀'", "repeat('long', 900)", "'null'", "'[x]:'"],
    "varchar(20)": ["'v  '"],
    "bpchar": ["'c '"],
    "char(5)": ["'ab'"],
    "bytea": ["'\\x00ff27'", "''"],
    "date": ["'2026-11-30'", "'infinity'", "'0044-03-15 BC'"],
    "time": ["'23:59:59.999999'"],
    "timetz": ["'12:00:00+05:30'"],
    "timestamp": ["'2026-11-30 01:02:03.4'", "'-infinity'"],
    "timestamptz": ["'2026-11-30 01:02:03Z'", "'infinity'"],
    "interval": ["'1 year -3 days 04:05:06.7'"],
    "uuid": ["'12345678-1234-5678-1234-567812345678'"],
    "inet": ["'192.168.0.1/24'", "'::1'"],
    "cidr": ["'10.0.0.0/8'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "macaddr8": ["'08:00:2b:01:02:03:04:05'"],
    "bit(5)": ["B'10101'"],
    "varbit": ["B'1'", "B''"],
    "json": ['\'{"a": [1, "\\u0000"]}\'', "'1'"],
    "jsonb": ['\'{"b": null, "a": "\\""}\''],
    "point": ["'(1,2.5)'"],
    "line": ["'{1,2,3}'"],
    "box": ["'((1,1),(0,0))'"],
    "path": ["'[(0,0),(1,1)]'"],
    "polygon": ["'((0,0),(1,1),(2,0))'"],
    "circle": ["'<(0,0),2>'"],
    "tsvector": ["'a:1 ''b c'':2B'"],
    "tsquery": ["'a & !b'"],
    "pg_lsn": ["'16/B374D848'"],
    "xid": ["'7'"],
    "xid8": ["'18446744073709551615'"],
    "tid": ["'(0,1)'"],
    "regtype": ["'integer'"],
    "jsonpath": ["'$.a[*] ? (@ > 1)'"],
    "int4range": ["'[1,5)'", "'empty'"],
    "tstzrange": ["'[2026-01-01,)'"],
    "nummultirange": ["'{[1,2),(3,4]}'"],
    "int4[]": ["'{1,NULL,3}'", "'{}'", "'[0:1]={1,2}'"],
    "text[]": ["ARRAY[['a','b\"'],['c,d',NULL]]"],
    "bool[]": ["'{t,f}'"],
    "app.mood": ["'so so'"],
    "app.mood[]": ["'{\"so so\",bad}'"],
    "app.whole": ["7"],
    "app.words": ["'x'", "'quote '' here'"],
    "app.whole[]": ["'{1,2}'"],
    "app.pair": ["ROW(1, 'a,\"b\"')", "ROW(NULL, '')"],
    "app.pair[]": ["ARRAY[ROW(1, 'x')]::app.pair[]"],
    "app.bool": ["'yes'"],
    "app.int4": ["'high'"],
}
"""Types with values as SQL writes them; each column may be null too."""

SETUP = """
CREATE SCHEMA app;
CREATE TYPE app.mood AS ENUM ('so so', 'bad');
CREATE TYPE app.bool AS ENUM ('yes', 'no');
CREATE TYPE app.int4 AS ENUM ('high');
CREATE DOMAIN app.whole AS int CHECK (VALUE > 0);
CREATE DOMAIN app.words AS text;
CREATE TYPE app.pair AS (a int, b text);
CREATE PUBLICATION differential FOR ALL TABLES;
"""
KEYS = ("primary", "two", "full", "full_keyless", "index", "none", "partitioned", "long_key")
NAMES = ("a", "b c", 'q"uote', "Upper", "ü", "x[y]:z", "per%cent", "e", "f", "g", "h", "i")
FULL_AT = ("full", "full_keyless")


class Table(NamedTuple):
    """A table of the workload: how SQL writes it, its columns with their types, and its kind of key."""

    name: str
    columns: dict[str, str]
    key: str


class Row(Struct, frozen=True):
    """A change as both sides tell it: texts by column; None is NULL, an absent column was not sent."""

    table: str
    operation: str
    old: dict[str, str | None] | None
    new: dict[str, str | None] | None


class Workload:
    """Writes to a database from a seed; statements that fail are undone and belong to it."""

    def __init__(self, connection: Connection, seed: int) -> None:
        self.random = random.Random(seed)
        self.sql = connection
        self.tables: list[Table] = []
        self.prepared = 0

    def make(self, count: int) -> None:
        """Make tables, among them one of each kind of key and columns of each type."""
        types = list(TYPES)
        self.random.shuffle(types)
        for number in range(count):
            key = KEYS[number % len(KEYS)]
            name = f'app."t {number}"' if number % 3 == 0 else f"app.t{number}"
            chosen = [types[(number * 8 + n) % len(types)] for n in range(8)]
            columns = {f"{column}{number}": kind for column, kind in zip(NAMES, chosen, strict=False)}
            self._table(Table(name, columns, key))

    def _table(self, table: Table) -> None:
        written = ", ".join(f"{_quoted(column)} {kind}" for column, kind in table.columns.items())
        first, rest = "id int NOT NULL", f"doc text, twice int GENERATED ALWAYS AS (id * 2) STORED, {written}"
        if table.key == "long_key":
            first = "id text NOT NULL"
            rest = rest.replace("(id * 2)", "(length(id))")
        part = " PARTITION BY HASH (id)" if table.key == "partitioned" else ""
        keys = {"two": "PRIMARY KEY (id, n)", "full_keyless": "", "none": "", "index": "UNIQUE (id)"}
        key = keys.get(table.key, "PRIMARY KEY (id)")
        self._run(f"CREATE TABLE {table.name} ({first}, n int NOT NULL, {rest}{', ' + key if key else ''}){part}")
        if part:
            for n in range(2):
                leaf = f"{table.name.rstrip(chr(34))}_{n}" + (chr(34) if table.name.endswith(chr(34)) else "")
                self._run(f"CREATE TABLE {leaf} PARTITION OF {table.name} FOR VALUES WITH (MODULUS 2, REMAINDER {n})")
        else:
            self._run(f"ALTER TABLE {table.name} ALTER doc SET STORAGE EXTERNAL")
        if table.key in FULL_AT:
            self._run(f"ALTER TABLE {table.name} REPLICA IDENTITY FULL")
        if table.key == "index":
            self._run(f"ALTER TABLE {table.name} REPLICA IDENTITY USING INDEX {_index(table.name)}")
        self.tables.append(table)

    def transaction(self) -> None:
        """Write one transaction of several statements, some undone, some under two-phase commit, some with DDL."""
        self.sql.execute("BEGIN")
        for _ in range(self.random.randint(1, 5)):
            self.sql.execute("SAVEPOINT s")
            try:
                self._statement()
            except psycopg.Error:
                self.sql.execute("ROLLBACK TO s")
            else:
                self.sql.execute(self.random.choice(["RELEASE s"] * 5 + ["ROLLBACK TO s"]))
        end = self.random.random()
        if end < 0.1:
            self.prepared += 1
            self.sql.execute(f"PREPARE TRANSACTION 'g{self.prepared}'".encode())
            self.sql.execute(f"{self.random.choice(['COMMIT', 'ROLLBACK'])} PREPARED 'g{self.prepared}'".encode())
        else:
            self.sql.execute("ROLLBACK" if end < 0.2 else "COMMIT")

    def _statement(self) -> None:
        table = self.random.choice(self.tables)
        choice = self.random.random()
        if choice < 0.4:
            self._insert(table)
        elif choice < 0.6:
            self._update(table)
        elif choice < 0.7:
            self._run(f"DELETE FROM {table.name} WHERE n % 3 = {self.random.randint(0, 2)}")
        elif choice < 0.75:
            self._copy(table)
        elif choice < 0.82:
            self._merge(table)
        elif choice < 0.87:
            names = ", ".join({table.name, self.random.choice(self.tables).name})
            self._run(f"TRUNCATE {names}{self.random.choice(['', ' CASCADE', ' RESTART IDENTITY'])}")
        else:
            self._ddl(table)

    def _insert(self, table: Table) -> None:
        columns = ["id", "n", "doc", *table.columns]
        rows = ", ".join(f"({', '.join(self._values(table))})" for _ in range(self.random.randint(1, 3)))
        conflict = self.random.choice(["", "", " ON CONFLICT DO NOTHING", self._on_conflict(table)])
        self._run(f"INSERT INTO {table.name} ({', '.join(map(_quoted, columns))}) VALUES {rows}{conflict}")

    def _on_conflict(self, table: Table) -> str:
        if table.key in ("full_keyless", "none"):
            return ""
        target = "id, n" if table.key == "two" else "id"
        return f" ON CONFLICT ({target}) DO UPDATE SET n = excluded.n, doc = excluded.doc"

    def _values(self, table: Table) -> Iterator[str]:
        number = self.random.randint(1, 40)
        yield f"repeat('k', {3000 + number})" if table.key == "long_key" and number % 2 else f"'{number}'"
        yield str(self.random.randint(1, 9))
        yield self.random.choice(["NULL", "'short'", f"repeat('d', {self.random.randint(3000, 9000)})"])
        for kind in table.columns.values():
            yield self._value(kind)

    def _value(self, kind: str) -> str:
        return "NULL" if self.random.random() < 0.2 else self.random.choice(TYPES[kind])

    def _update(self, table: Table) -> None:
        column, kind = self.random.choice(list(table.columns.items()))
        what = self.random.choice(
            [f"{_quoted(column)} = {self._value(kind)}", "n = n + 1", "doc = doc || 'x'", "id = id", "doc = NULL",
             "id = repeat('z', 2500)" if table.key == "long_key" else "id = id + 100"]
        )  # fmt: skip
        self._run(f"UPDATE {table.name} SET {what} WHERE n % 3 = {self.random.randint(0, 2)}")

    def _copy(self, table: Table) -> None:
        with self.sql.cursor() as cursor, cursor.copy(f"COPY {table.name} (id, n, doc) FROM STDIN".encode()) as copy:
            for _ in range(4):
                copy.write_row((str(self.random.randint(50, 500)), 1, self.random.choice([None, "copied\t\\N"])))

    def _merge(self, table: Table) -> None:
        """PostgreSQL 15 knows MERGE without BY SOURCE and RETURNING."""
        self._run(
            f"MERGE INTO {table.name} AS t USING (SELECT n::text AS id FROM generate_series(1, 4) AS n) AS s"
            " ON t.id::text = s.id WHEN MATCHED AND t.n > 5 THEN DELETE WHEN MATCHED THEN UPDATE SET n = 7"
            f" WHEN NOT MATCHED THEN INSERT (id, n) VALUES (s.id{'' if table.key == 'long_key' else '::int'}, 2)"
        )

    def _ddl(self, table: Table) -> None:
        column = self.random.choice(list(table.columns))
        fresh = f"new {self.random.randint(1, 1_000_000)}"
        what = self.random.randint(0, 4)
        if what == 0:
            self._run(f"ALTER TABLE {table.name} ADD COLUMN {_quoted(fresh)} int DEFAULT 5")
        elif what == 1 and len(table.columns) > 2:
            self._run(f"ALTER TABLE {table.name} DROP COLUMN {_quoted(column)}")
            del table.columns[column]
        elif what == 2:
            self._run(f"ALTER TABLE {table.name} RENAME COLUMN {_quoted(column)} TO {_quoted(fresh)}")
            table.columns[fresh] = table.columns.pop(column)
        elif what == 3:
            self._run(f"ALTER TABLE {table.name} ALTER COLUMN n TYPE bigint")
        else:
            self._insert(table)
            self._run(f"ALTER TABLE {table.name} ADD COLUMN {_quoted(fresh)} app.mood DEFAULT 'bad'")
            self._insert(table)

    def _run(self, statement: str) -> None:
        self.sql.execute(statement.encode())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _index(table: str) -> str:
    bare = table.removeprefix("app.").strip('"')
    return _quoted(f"{bare}_id_key")


class _Nobody:
    """Judges no message to be ours."""

    unproven = Unproven()
    sizes_max: Mapping[bytes, int] = {}

    def claimed(self, said: Unsigned) -> None:
        """Read nothing."""

    def tells(self, reason: str, lsn: int) -> bool:
        """Tell all of them."""
        return True

    def expects_beacons(self) -> bool:
        return False

    def message(self, message: LogicalMessage, xid: int | None, committed_at_us: int = 0) -> None:
        return None


class _Output:
    """Keeps what the assembler gives."""

    def __init__(self) -> None:
        self.parts: list[Transaction] = []
        self.asides: list[dict[str, object]] = []

    def part(self, event: bytes, rows: int, done_lsn: int | None) -> None:
        self.parts.append(msgspec.json.decode(event, type=Transaction))

    def nothing(self, done_lsn: int) -> None:
        pass

    def aside(self, reason: str, detail: dict[str, object]) -> None:
        self.asides.append({"reason": reason, **detail})


def open_slots(connection: Connection) -> None:
    """Make both slots, one behind the other without a write in between."""
    connection.execute(SETUP)
    connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [f"o_{connection.info.dbname}"])
    connection.execute(
        "SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", [f"t_{connection.info.dbname}"]
    )


def compare(connection: Connection) -> tuple[int, list[str]]:
    """Read both slots to their end; gives how many rows there were, and what differs."""
    connection.execute(TEXT_FORM)
    end = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
    assert end is not None
    roots = "SELECT format('%I.%I', 'app', relname) FROM pg_class WHERE relkind = 'p'"
    emptied = [Row(name, "TRUNCATE", None, None) for (name,) in connection.execute(roots).fetchall()]
    # Of a partitioned table that is emptied pgoutput names its leaves, test_decoding the table too.
    theirs = [row for row in _theirs(connection, end[0]) if row not in emptied]
    ours, asides = _ours(connection, end[0])
    wrong = [str(aside) for aside in asides]
    if len(ours) != len(theirs):
        wrong.append(f"{len(ours)} rows, test_decoding has {len(theirs)}")
    wrong += [f"ours   {one}\ntheirs {other}" for one, other in zip(ours, theirs, strict=False) if one != other]
    return len(theirs), wrong


def _ours(connection: Connection, end: str) -> tuple[list[Row], list[dict[str, object]]]:
    output = _Output()
    with tempfile.TemporaryDirectory() as folder:
        assembler = Assembler(
            Place("1", 1, "d"),
            Masking(Privacy(clear=["*"], value_limit=Size(1 << 20)), tokenizer(b"k" * 32)),
            _Nobody(),
            lambda *_: TableFacts(),
            output,
            Held(Path(folder), 1 << 26, 1 << 30),
            Xids(1000),
            lambda: 1,
        )
        query = (
            "SELECT data FROM pg_logical_slot_get_binary_changes(%s, %s, NULL, 'proto_version', '1',"
            " 'publication_names', 'differential')"
        )
        for (data,) in connection.execute(query, [f"o_{connection.info.dbname}", end]).fetchall():
            assembler.feed(bytes(data))
    return [row for part in output.parts for row in _read(part)], output.asides


_OPERATIONS = {"i": "INSERT", "u": "UPDATE", "d": "DELETE", "t": "TRUNCATE"}


def _read(part: Transaction) -> Iterator[Row]:
    rows = json.loads(bytes(part.rows), parse_int=str, parse_float=str, object_pairs_hook=_once)
    for _, operation, relation, key, changed, before, after in rows:
        old, new = _texts(before), _texts(after)
        if operation == "u" and key is not None and new is not None:
            assert all(value == new.get(name, value) for name, value in _named(_texts(key))), "a key of another row"
        if changed is not None:
            assert old is not None
            assert new is not None
            assert changed == [name for name in new if old[name] != new[name]]
        old = None if old is None else {name: value for name, value in old.items() if value is not None}
        yield Row(part.relations[int(relation)].name, _OPERATIONS[operation], old, new)


def _named(values: dict[str, str | None] | None) -> Iterator[tuple[str, str | None]]:
    yield from (values or {}).items()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), "a member stands twice"
    return dict(pairs)


def _texts(image: dict[str, Any] | None) -> dict[str, str | None] | None:
    if image is None:
        return None
    return {
        name: value if isinstance(value, str | None) else json.dumps(value, separators=(",", ":"))
        for name, value in image.items()
    }


def _theirs(connection: Connection, end: str) -> Iterator[Row]:
    query = "SELECT data FROM pg_logical_slot_get_changes(%s, %s, NULL, 'include-xids', '0')"
    for (line,) in connection.execute(query, [f"t_{connection.info.dbname}", end]).fetchall():
        if line.startswith("table "):
            yield from _change(line)


_IDENTIFIER = r'(?:"(?:[^"]|"")*"|[^".:,\[\] ]+)'
_TABLES = re.compile(rf"table ((?:{_IDENTIFIER}\.{_IDENTIFIER}(?:, )?)+): (INSERT|UPDATE|DELETE|TRUNCATE):")
_TABLE = re.compile(rf"{_IDENTIFIER}\.{_IDENTIFIER}")
_TYPE = r'(?:[^\[\]"]|\[\]|"(?:[^"]|"")*")+'
_VALUE = r"unchanged-toast-datum|null|B?'(?:[^']|'')*'|[^ ']+"
_COLUMN = re.compile(rf" ({_IDENTIFIER})\[({_TYPE})\]:({_VALUE})", re.DOTALL)


def _change(line: str) -> Iterator[Row]:
    found = _TABLES.match(line)
    assert found, line[:200]
    operation, rest = found[2], line[found.end() :]
    if operation == "TRUNCATE":
        for table in _TABLE.findall(found[1]):
            yield Row(table, operation, None, None)
        return
    old = None
    if rest.startswith(" old-key:"):
        old, rest = _columns(rest[len(" old-key:") :])
        assert rest.startswith(" new-tuple:"), rest[:100]
        rest = rest[len(" new-tuple:") :]
    if operation == "DELETE":
        old, _ = _columns(rest)
        yield Row(found[1], operation, old, None)
    else:
        new, _ = _columns(rest)
        yield Row(found[1], operation, old, new)


def _columns(text: str) -> tuple[dict[str, str | None], str]:
    found: dict[str, str | None] = {}
    at = 0
    while column := _COLUMN.match(text, at):
        at = column.end()
        name, value = column[1], column[3]
        name = name[1:-1].replace('""', '"') if name.startswith('"') else name
        if name != "twice" and value != "unchanged-toast-datum":
            found[name] = _value(value, column[2])
    return found, text[at:]


def _value(value: str, kind: str) -> str | None:
    if value == "null":
        return None
    text = value.removeprefix("B") if kind.startswith("bit") else value
    return text[1:-1].replace("''", "'") if text.startswith("'") else text


def run(connection: Connection, seed: int, tables: int, transactions: int) -> tuple[int, list[str]]:
    """Write from a seed and compare."""
    workload = Workload(connection, seed)
    workload.make(tables)
    for _ in range(transactions):
        workload.transaction()
    return compare(connection)


def main(seconds: float) -> int:
    """Go on with new seeds for so long; says the first that differs."""
    until, seed, rows = time.monotonic() + seconds, int(time.time()), 0
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        settings = {**FAST_AND_FORGETFUL, "max_prepared_transactions": "10"}
        with Postgres(Path(folder) / "postgres", settings=settings) as server:
            while time.monotonic() < until:
                name = f"d{seed}"
                with psycopg.connect(server.dsn(), autocommit=True) as admin:
                    admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
                with psycopg.connect(server.dsn(dbname=name), autocommit=True) as connection:
                    open_slots(connection)
                    count, wrong = run(connection, seed, 16, 150)
                    connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
                rows += count
                if wrong:
                    print(f"seed {seed}: {len(wrong)} differences, the first:\n{wrong[0]}")
                    return 1
                with psycopg.connect(server.dsn(), autocommit=True) as admin:
                    admin.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
                seed += 1
    print(f"{rows} rows are the same")
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
