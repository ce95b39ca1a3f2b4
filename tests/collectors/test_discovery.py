"""Which columns look sensitive: the rules by themselves, and on real servers without a value leaving them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from collectors.discovery import queries
from collectors.discovery.columns import Column, Finding, Shares
from collectors.discovery.entries import Covered, pattern, toml
from collectors.discovery.judging import judge, words
from collectors.discovery.source import ask
from pgwitness.cli.program import main
from pgwitness.core.config import Config, Mask, Privacy
from pgwitness.core.privacy import treatment
from tests.collectors.discovered import read, scores

SHOP = """
CREATE TABLE customers (id int PRIMARY KEY, email text, contact text, born date, note text, "IP*" inet,
    made timestamptz, mail_domain text GENERATED ALWAYS AS (split_part(email, '@', 2)) STORED, password text);
INSERT INTO customers (id, email, contact, note, password)
    SELECT n, 'user' || n || '@example.org', 'person' || n || '@example.com', 'wants blue', 'SECRET' || n
    FROM generate_series(1, 300) AS n;
CREATE TABLE payments (id int, reference text, x text, token text PRIMARY KEY);
INSERT INTO payments SELECT n, (ARRAY['4111 1111 1111 1111', '5500-0055-5555-5559', '4012888888881881',
    '378282246310005', '6011111111111117', '5555555555554444', '4222222222222'])[1 + n % 7],
    'item ' || n, 'k' || n FROM generate_series(1, 50) AS n;
CREATE TABLE "Odd.Name" ("e[mail]" text, "E-Mail" text);
CREATE TABLE events (id int, at date, remote text, phone text) PARTITION BY RANGE (at);
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO events SELECT n, '2026-02-02', '10.0.0.' || n % 250, '+49 30 ' || 1000000 + n
    FROM generate_series(1, 40) AS n;
CREATE VIEW contacts AS SELECT id, email AS email FROM customers;
COMMENT ON COLUMN payments.x IS 'GDPR: personal data of the payer';
"""


def column(name: str, table: str = "things", type_name: str = "text", shares: Shares | None = None) -> Column:
    """Make a column."""
    category = {"text": "S", "int8": "N"}.get(type_name, "U")
    return Column(schema="public", table=table, name=name, type=type_name, category=category, shares=shares)


def found(*columns: Column) -> dict[str, tuple[str, str]]:
    """Judge columns and return category and confidence by name."""
    return {one.column.name: (one.category, one.confidence) for one in judge(columns)}


def shares(seen: int, **hits: int) -> Shares:
    """Make shares."""
    return Shares(seen, hits, "statistics")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("firstName", ("first", "name")),
        ("E-Mail", ("e", "mail")),
        ("Straße", ("strasse",)),
        ("prénom_2", ("prenom", "2")),
        ("HTTPHost", ("http", "host")),
        ("名前", ()),
    ],
)
def test_a_name_is_cut_into_words(name: str, expected: tuple[str, ...]) -> None:
    """Underscores, capitals, digits and accents do not matter."""
    assert words(name) == expected


def test_what_is_said_about_a_value_is_none() -> None:
    """When an address was verified or how many there are is no address."""
    assert not found(*map(column, ("email_verified", "password_changed_at", "phone_type", "address_count")))


def test_a_name_needs_a_table_of_persons() -> None:
    """`name` of a product is nobody's; that of a customer is."""
    assert not found(column("name", "products"))
    assert found(column("name", "customers")) == {"name": ("person_name", "medium")}


def test_values_tell_what_names_do_not() -> None:
    """A share of values with a form finds a column by itself, and doubts a name whose values have none of it."""
    assert found(column("x", shares=shares(50, email=50))) == {"x": ("email", "high")}
    assert found(column("x", shares=shares(50, email=20))) == {"x": ("email", "medium")}
    assert not found(column("x", shares=shares(4, email=4))), "four values are too few"
    assert found(column("email", shares=shares(50))) == {"email": ("email", "medium")}
    assert found(column("x", shares=shares(100, mentions=5))) == {"x": ("free_text", "medium")}


def test_the_rules_find_what_they_were_made_on() -> None:
    """By names and types alone; a rule that is changed keeps what was found."""
    whole = scores("tuning.txt")["all"]
    assert whole.precision == 1.0, whole.wrong
    assert whole.recall == 1.0, whole.missed


@pytest.mark.parametrize(
    ("name", "schema"), [(name, schema) for name in ("known.txt", "heldout.txt") for schema in read(name)]
)
def test_the_rules_find_what_is_labelled(name: str, schema: str) -> None:
    """By names and types alone most of what is found is right, and most of what is there is found.

    That is the meaning of one half, and no figure of a run: `python -m tests.collectors.discovered` prints those. The
    schemas of known.txt are famous, and nobody writes such rules without having seen them; heldout.txt is the list that
    was not known.
    """
    one = scores(name)[schema]
    assert one.precision > 0.5, one.wrong
    assert one.recall > 0.5, one.missed


def test_an_entry_means_just_its_column(tmp_path: Path) -> None:
    """Whatever a name is made of, its pattern matches it, is read back from TOML, and nothing else is masked."""
    odd = ['a"b', "a.b", "a*", "[x]", "back\\slash", "new\nline", "é", "a]", "?"]
    findings = [Finding(column=column(name, table="T.*"), category="email", confidence="high", why=()) for name in odd]
    read = tomllib.loads(toml(Privacy(mask=[Mask(column="*.old", with_="hash")], sensitive=["a.b.c"]), findings))
    masks = [Mask(column=rule["column"], with_=rule["with"]) for rule in read["privacy"]["mask"]]
    assert (masks[0].column, read["privacy"]["sensitive"]) == ("*.old", ["a.b.c"])
    for name, rule in zip(odd, masks[1:], strict=True):
        only = Covered(Privacy(mask=[rule]))
        assert [other for other in odd if only.by(column(other, table="T.*"))] == [name]
        assert not only.by(column(name, table="T.x"))
        assert pattern(column(name, table="T.*")) == rule.column


Configured = Callable[..., Config]


def run(folder: Path, *arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["discover", "--config", str(folder / "pgwitness.toml"), *arguments])


@pytest.fixture
def shop(database: str, tmp_path: Path, config_factory: Configured) -> psycopg.Connection[Any]:
    """A shop, and a configuration that names it."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    config_factory(tmp_path, "localhost:1", database, [str(name)])
    admin = psycopg.connect(database, autocommit=True)
    admin.execute(SHOP.encode())
    return admin


@pytest.mark.parametrize("analysed", [True, False], ids=["statistics", "sample"])
def test_columns_are_found_in_a_database(shop: psycopg.Connection[Any], tmp_path: Path, analysed: bool) -> None:
    """By names, by statistics or by the first rows; partitions by their root, views, generated columns, odd names."""
    with shop:
        if analysed:
            shop.execute("ANALYZE")
        result = run(tmp_path, "--json")
    assert result.exit_code == 0, result.output
    assert not result.stderr
    rows = {row["column"]: row for row in json.loads(result.stdout)}
    looks = {name: (row["looks_like"], row["confidence"], row["entry"]) for name, row in rows.items()}
    assert looks["public.customers.email"] == ("email", "high", "token")
    assert looks["public.customers.contact"] == ("email", "high", "token"), "its values tell"
    assert looks["public.customers.password"] == ("credential", "high", "drop")
    assert looks["public.payments.reference"] == ("card", "high", "last4")
    assert looks["public.payments.token"][2] == "token", "a key is not dropped"
    assert looks["public.payments.x"][1] == "high", "its comment says so"
    assert looks['public.customers."IP*"'][0] == "online"
    assert looks['public."Odd.Name"."E-Mail"'][0] == "email"
    assert looks["public.events.remote"][:2] == ("online", "high")
    assert looks["public.events.phone"][:2] == ("phone", "high")
    assert looks["public.contacts.email"][2] == "sensitive"
    assert not [name for name in rows if "2026" in name or "made" in name or name.endswith(".id")]
    assert "SECRET" not in result.output
    assert "example" not in result.output


def test_printed_entries_cover_what_was_found(shop: psycopg.Connection[Any], tmp_path: Path) -> None:
    """With the printed entries in its configuration everything is marked as covered, and nothing is proposed again."""
    with shop:
        printed = run(tmp_path, "--toml")
        assert printed.exit_code == 0, printed.output
        path = tmp_path / "pgwitness.toml"
        lines = printed.stdout.split("\n", 1)[1]
        text = path.read_text(encoding="utf-8")
        section = "[privacy]\n"
        path.write_text(
            text.replace(section, section + lines) if section in text else text + section + lines, encoding="utf-8"
        )
        rows = json.loads(run(tmp_path, "--json").stdout)
        assert rows
        assert all(row["covered"] and not row["entry"] for row in rows)
        assert {row["now"] for row in rows if row["column"] == "public.customers.password"} == {"drop"}
        rules = tomllib.loads(path.read_text(encoding="utf-8"))["privacy"]["mask"]
        privacy = Privacy(mask=[Mask(column=rule["column"], with_=rule["with"]) for rule in rules])
        assert treatment('public.customers."IP*"', "inet", privacy) == "token"


def test_what_may_not_be_read_is_said(shop: psycopg.Connection[Any], database: str, tmp_path: Path) -> None:
    """A role without rights gets what names tell, and is told which tables it may not read."""
    with shop:
        shop.execute("CREATE ROLE blind LOGIN; ANALYZE")
        parts = psycopg.conninfo.conninfo_to_dict(database)
        dsn = psycopg.conninfo.make_conninfo(**{**parts, "user": "blind", "password": None})
        result = run(tmp_path, "--json", "--dsn", dsn)
    assert result.exit_code == 0, result.output
    rows = {row["column"]: row["looks_like"] for row in json.loads(result.stdout)}
    assert rows["public.customers.email"] == "email"
    assert "public.payments.reference" not in rows
    assert "may not be read by this role" in result.stderr
    assert "public.payments" in result.stderr


def test_a_look_that_fails_has_a_word_of_its_own(
    shop: psycopg.Connection[Any], database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of one table is not taken for a lack of time, and costs no other table its look."""
    sample = queries.sample
    monkeypatch.setattr(
        queries, "sample", lambda table, *more: "SELECT 1 / 0" if "payments" in table else sample(table, *more)
    )
    with shop:
        with psycopg.connect(database, autocommit=True) as reader:
            asked = ask(reader, 20.0)
        assert asked.failed == {"public.payments": psycopg.errors.DivisionByZero.sqlstate}
        assert not asked.late
        result = run(tmp_path, "--json")
    assert result.exit_code == 0, result.output
    assert "public.payments (22012): a look at its values failed" in result.stderr
    rows = {row["column"]: row["looks_like"] for row in json.loads(result.stdout)}
    assert rows["public.customers.contact"] == "email"
    assert "public.payments.token" in rows, "its name is judged all the same"


def test_tables_whose_statistics_fail_cost_no_other_table_its_look(
    shop: psycopg.Connection[Any], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many tables that are asked for at once only the one that fails is left out."""
    with shop, psycopg.connect(database, autocommit=True) as reader:
        shop.execute("ANALYZE")
        (oid,) = reader.execute("SELECT 'payments'::regclass::oid::int8").fetchone() or ()
        tripped = queries.STATISTICS.replace(
            "SELECT w.root, r.relid,", f"SELECT w.root + 0 / (w.root - {oid}) AS root, r.relid,", 1
        )
        assert tripped != queries.STATISTICS
        monkeypatch.setattr(queries, "STATISTICS", tripped)
        asked = ask(reader, 20.0)
    assert asked.failed == {"public.payments": "22012"}
    looked = {one.table for one in asked.columns if one.shares is not None}
    assert {"customers", "events"} <= looked


def test_nothing_is_written_and_nothing_waited_for(shop: psycopg.Connection[Any], database: str) -> None:
    """The session is read only; a locked table, and one for which there is no time, are judged by their names."""
    with shop, psycopg.connect(database) as other, psycopg.connect(database, autocommit=True) as reader:
        other.execute("LOCK customers")
        asked = ask(reader, 20.0)
        assert "public.customers" in asked.late
        assert ("email", "email") in {(one.category, one.column.name) for one in judge(asked.columns)}
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            reader.execute("CREATE TABLE made (id int)")
        other.rollback()
        moments = iter([0.0, *[100.0] * 1000])
        assert "public.payments" in ask(reader, 20.0, lambda: next(moments)).late


def test_only_counts_come_back(shop: psycopg.Connection[Any], database: str) -> None:
    """What the server answers to a look at values is numbers and names of columns."""
    with shop, psycopg.connect(database, autocommit=True) as reader:
        reader.execute("ANALYZE")
        roots = [oid for (oid,) in reader.execute("SELECT oid::int8 FROM pg_class WHERE relkind IN ('r', 'p')")]
        rows = reader.execute(queries.STATISTICS.encode(), {"roots": roots, "values": 25}).fetchall()
        rows += reader.execute(queries.sample("customers", ["email", "note"], 20).encode()).fetchall()
        names = {name for (name,) in reader.execute("SELECT attname::text FROM pg_attribute")}
    assert len(rows) > 10
    assert all(value in names for row in rows for value in row if isinstance(value, str))


TRAPS = """
CREATE ROLE mallory; CREATE SCHEMA mallory AUTHORIZATION mallory; GRANT ALL ON SCHEMA public TO mallory;
SET ROLE mallory;
CREATE FUNCTION mallory.trap() RETURNS bool LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_catalog.pg_advisory_lock(4711); RETURN true; END $$;
CREATE TYPE mallory.hstore AS (v text);
CREATE FUNCTION mallory.as_text(mallory.hstore) RETURNS text LANGUAGE sql AS $$ SELECT mallory.trap()::text $$;
CREATE CAST (mallory.hstore AS text) WITH FUNCTION mallory.as_text(mallory.hstore);
CREATE TABLE mallory.cast_to_text (notes mallory.hstore, email text);
INSERT INTO mallory.cast_to_text VALUES (ROW('x'), 'a@example.org');
CREATE TABLE mallory.policed (email text); INSERT INTO mallory.policed VALUES ('a@example.org');
ALTER TABLE mallory.policed ENABLE ROW LEVEL SECURITY;
CREATE POLICY trap ON mallory.policed USING (mallory.trap());
GRANT USAGE ON SCHEMA mallory TO PUBLIC; GRANT SELECT ON ALL TABLES IN SCHEMA mallory TO PUBLIC;
RESET ROLE
"""


@pytest.mark.parametrize("user", ["postgres", "looker"])
def test_no_code_of_a_tables_owner_runs(shop: psycopg.Connection[Any], database: str, user: str) -> None:
    """A cast and a policy would run as who looks, perhaps a superuser; what a policy guards is not looked at."""
    with shop:
        shop.execute("CREATE ROLE looker LOGIN; GRANT USAGE ON SCHEMA public TO looker")
        shop.execute(TRAPS.encode())
        parts = psycopg.conninfo.conninfo_to_dict(database)
        if user == "looker":
            parts |= {"user": user, "password": None}
        with psycopg.connect(psycopg.conninfo.make_conninfo(**parts), autocommit=True) as looker:  # type: ignore[arg-type]
            asked = ask(looker, 20.0)
            trapped = shop.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711"
            ).fetchone()
    assert trapped == (0,)
    assert not asked.failed
    assert ("mallory.policed" in asked.unread) == (user == "looker")
    seen = {(one.table, one.name): one.shares for one in asked.columns}
    assert seen["cast_to_text", "email"] is not None


def test_other_servers_are_not_asked(shop: psycopg.Connection[Any], database: str, tmp_path: Path) -> None:
    """A table with a partition, or a child, on another server is judged by its names."""
    with shop:
        shop.execute("""
            CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (port '1');
            CREATE USER MAPPING FOR CURRENT_USER SERVER far;
            CREATE TABLE split (id int, email text) PARTITION BY LIST (id);
            CREATE TABLE split_1 PARTITION OF split FOR VALUES IN (1) PARTITION BY LIST (id);
            CREATE FOREIGN TABLE split_far PARTITION OF split_1 FOR VALUES IN (1) SERVER far;
            CREATE TABLE parent (id int, email text);
            CREATE FOREIGN TABLE child () INHERITS (parent) SERVER far;
        """)
        result = run(tmp_path, "--json")
        with psycopg.connect(database, autocommit=True) as reader:
            asked = ask(reader, 20.0)
    assert (asked.elsewhere, asked.failed) == (["public.parent", "public.split"], {})
    assert "partly on other servers" in result.stderr
    names = {row["column"] for row in json.loads(result.stdout)}
    assert {"public.split.email", "public.parent.email", "public.child.email"} <= names


def test_columns_of_several_collations_are_looked_at(shop: psycopg.Connection[Any], database: str) -> None:
    """Values of two collations beside each other have none, which a regular expression refuses."""
    with shop, psycopg.connect(database, autocommit=True) as reader:
        shop.execute("""
            CREATE TABLE collated (x text COLLATE "C", y text COLLATE "POSIX", z varchar(80) COLLATE "ucs_basic");
            INSERT INTO collated SELECT 'u' || n || '@example.org', 'b', 'c' FROM generate_series(1, 30) AS n
        """)
        asked = ask(reader, 20.0)
    assert not asked.failed
    shares = {one.name: one.shares for one in asked.columns if one.table == "collated"}
    assert shares["x"] is not None
    assert shares["x"].of("email") == 1.0


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_names_go_back_as_they_came(database: str, encoding: str) -> None:
    """In a database of another encoding, and in one without, tables with odd names are looked at."""
    parts = psycopg.conninfo.conninfo_to_dict(database)
    name = f"{parts['dbname']}_{encoding.lower()}"
    made = f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(made.encode())
        try:
            inside = psycopg.conninfo.make_conninfo(**{**parts, "dbname": name})
            with psycopg.connect(inside, autocommit=True) as reader:
                for sent in (
                    'CREATE TABLE "gr\xf6\xdfe" ("stra\xdfe" text, x text)',
                    "INSERT INTO \"gr\xf6\xdfe\" SELECT 'weg', 'u' || n || '@example.org' FROM generate_series(1, 9) n",
                ):
                    reader.execute(sent.encode("latin-1"))
                asked = ask(reader, 20.0)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
    assert (asked.failed, asked.late) == ({}, [])
    table = "größe" if encoding == "LATIN1" else r"gr\xf6\xdfe"
    found = {(one.column.table, one.column.name): one.category for one in judge(asked.columns)}
    assert found[table, "x"] == "email"
    assert all((one.schema, one.table, one.name) in asked.declared for one in asked.columns)
