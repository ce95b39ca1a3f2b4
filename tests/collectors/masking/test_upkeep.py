"""The application's migrations with masks on: they do what they do without, and no value shows meanwhile."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from collectors.masking.treatment import Kind
from pgwitness.core.privacy import tokenizer
from tests.collectors.masking.conftest import KEY, Masked

TOKEN = tokenizer(KEY)(b"ann@secret.example").decode()
SHOP = """
CREATE ROLE app LOGIN; GRANT CREATE ON SCHEMA public TO app; SET ROLE app;
CREATE TABLE people (id int PRIMARY KEY, email text, city text, age int);
INSERT INTO people VALUES (1, 'ann@secret.example', 'Ulm', 7);
CREATE TABLE visits (id int, city text, at int) PARTITION BY RANGE (at);
CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM (0) TO (10);
INSERT INTO visits VALUES (1, 'Ulm', 1);
RESET ROLE;
"""
RULES: dict[str, Kind] = {"*.id": "clear", "*.city": "clear", "*.email": "token", "*.age": "generalise"}
Rows = list[tuple[Any, ...]]

MIGRATIONS: tuple[tuple[str, str, Rows], ...] = (
    ("ALTER TABLE people DROP COLUMN city", "SELECT * FROM people", [(1, TOKEN, 7)]),
    ("ALTER TABLE people DROP COLUMN email CASCADE", "SELECT * FROM people", [(1, "Ulm", 7)]),
    ("ALTER TABLE people ALTER COLUMN id TYPE bigint", "SELECT id, email FROM people", [(1, TOKEN)]),
    ("ALTER TABLE people ALTER email TYPE varchar(80)", "SELECT id, email FROM people", [(1, None)]),
    ("ALTER TABLE people RENAME COLUMN email TO city2", "SELECT city2 FROM people", [(TOKEN,)]),
    ("ALTER TABLE people RENAME TO persons", "SELECT id, email FROM persons", [(1, TOKEN)]),
    ("ALTER TABLE public.people ADD phone text DEFAULT 'x'", "SELECT * FROM people", [(1, TOKEN, "Ulm", 7)]),
    ("DO $$ BEGIN EXECUTE 'ALTER TABLE peo' || 'ple DROP city'; END $$", "SELECT * FROM people", [(1, TOKEN, 7)]),
    ("BEGIN; ALTER TABLE people DROP city; ALTER TABLE people DROP age; COMMIT", "TABLE people", [(1, TOKEN)]),
    ("ALTER TABLE visits DROP COLUMN city", "SELECT * FROM visits", [(1, None)]),
    ("DROP TABLE visits_1", "SELECT count(*) FROM visits", [(0,)]),
    ("ALTER TABLE visits DETACH PARTITION visits_1 CONCURRENTLY", "SELECT count(*) FROM visits", [(0,)]),
    (
        "CREATE TABLE new (email text, id int, secret text); INSERT INTO new SELECT email, id, email FROM people;"
        " ALTER TABLE people RENAME TO old; ALTER TABLE new RENAME TO people; DROP TABLE old",
        "SELECT * FROM people",
        [(TOKEN, 1)],
    ),
    (
        "DROP TABLE people; CREATE TABLE people (id int, email text);"
        " INSERT INTO people VALUES (2, 'ann@secret.example')",
        "SELECT * FROM people",
        [(2, TOKEN)],
    ),
)

MASKED_ANEW: tuple[tuple[str, str, Rows], ...] = (
    ("ALTER TABLE people RENAME city TO town", "SELECT id, town, label FROM people", [(1, None, None)]),
    (
        "ALTER TABLE people RENAME email TO mail; ALTER TABLE people RENAME city TO email;"
        " UPDATE people SET email = mail",
        "SELECT mail, email, label FROM people",
        [(TOKEN, None, None)],
    ),
    (
        "CREATE TABLE new (id int, email text, label text GENERATED ALWAYS AS (lower(email)) STORED);"
        " INSERT INTO new VALUES (1, 'ann@secret.example');"
        " ALTER TABLE people RENAME TO old; ALTER TABLE new RENAME TO people",
        "SELECT * FROM people",
        [(1, TOKEN, None)],
    ),
    ("ALTER TABLE people DROP label; ALTER TABLE people INHERIT loose", "SELECT * FROM loose", [(1, None, "Ulm")]),
    ("ALTER TABLE loose_parts ATTACH PARTITION part DEFAULT", "SELECT * FROM loose_parts", [(1, None)]),
)
"""What makes a clear column hold what is masked."""


@pytest.mark.parametrize("number", range(len(MASKED_ANEW)))
def test_what_may_hold_masked_values_is_clear_no_more(masked: Masked, number: int) -> None:
    """A name, an expression or a child table that brings masked values into a clear column makes it null, until masks
    are installed again."""
    migration, query, expected = MASKED_ANEW[number]
    masked.admin.execute(
        f"""{SHOP}; SET ROLE app;
        ALTER TABLE people ADD label text GENERATED ALWAYS AS (upper(city)) STORED, DROP age;
        CREATE TABLE loose (id int, email text, city text);
        CREATE TABLE loose_parts (id int, email text) PARTITION BY LIST (id);
        CREATE TABLE part (id int, email text); INSERT INTO part VALUES (1, 'ann@secret.example')""".encode()
    )
    masks = masked.masks({"public.loose*": "clear", "*.label": "clear", **RULES})
    assert not masked.install(masks).left
    with psycopg.connect(masked.dsn, user="app", autocommit=True) as app:
        app.execute(migration.encode())
    assert masked.sees(query) == expected
    assert masked.status(masks)[0].state == "differs"
    assert not masked.install(masks).left
    assert "secret" not in str(masked.sees(query))
    assert masked.status(masks)[0].state == "ok"
    masked.uninstall(masks)
    masked.admin.execute("RESET ROLE; DROP OWNED BY app; DROP ROLE app")


UNSEEN = (
    "INSERT INTO jobs VALUES (1)",
    "CREATE EXTENSION hstore; ALTER TABLE people DROP COLUMN city; DROP EXTENSION hstore",
)
"""Commands whose text does not say which table they concern, or that make objects of their own meanwhile."""


@pytest.mark.parametrize("migration", UNSEEN)
def test_ddl_in_triggers_and_extensions_goes_on(masked: Masked, migration: str) -> None:
    """A trigger's DDL finds no view in its way, and the script of an extension does not come to own one."""
    masked.admin.execute(
        f"""{SHOP}; CREATE TABLE jobs (id int);
        CREATE FUNCTION trims() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN EXECUTE 'ALTER TABLE peo' || 'ple DROP COLUMN city'; RETURN NEW; END $$;
        CREATE TRIGGER trims BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION trims()""".encode()
    )
    masks = masked.masks(RULES)
    assert not masked.install(masks).left
    for one in migration.split(";"):
        masked.admin.execute(one.encode())
    assert masked.sees("SELECT * FROM people") == [(1, TOKEN, 7)]
    assert masked.uninstall(masks).left == ()
    masked.admin.execute("DROP OWNED BY app; DROP ROLE app")


@pytest.mark.parametrize("number", range(0, len(MIGRATIONS), 5))
def test_migrations_go_on_with_masks(masked: Masked, number: int) -> None:
    """Columns go, change their type and their name, tables are swapped: the application's role may do all of it, and
    the audience sees what it may see of the tables as they are now."""
    for migration, query, expected in MIGRATIONS[number : number + 5]:
        masked.admin.execute(SHOP)
        masks = masked.masks(RULES)
        report = masked.install(masks)
        assert not report.left, report.left
        with psycopg.connect(masked.dsn, user="app", autocommit=True) as app:
            app.execute(migration.encode())
        assert masked.sees(query) == expected, migration
        masked.denied("SELECT * FROM public.visits")
        assert masked.uninstall(masks).left == ()
        masked.admin.execute("DROP OWNED BY app; DROP ROLE app")


def test_rows_of_a_table_without_a_readable_column_are_counted(masked: Masked) -> None:
    """A view of nulls alone has the table's rows, at first and behind a migration that takes the last readable column;
    who owns it still shows none of them."""
    masked.admin.execute(
        f"{SHOP}; SET ROLE app; CREATE TABLE links (a int, b int); INSERT INTO links VALUES (1, 2), (3, 4);"
        " CREATE TABLE loose (n int, city text); INSERT INTO loose VALUES (7, 'Ulm')"
    )
    masks = masked.masks(RULES)
    assert not masked.install(masks).left
    assert not masked.install(masks).done
    with psycopg.connect(masked.dsn, user="app", autocommit=True) as app:
        app.execute("ALTER TABLE loose DROP COLUMN city")
    for query, expected in (
        ("SELECT count(*) FROM links", [(2,)]),
        ("SELECT * FROM links", [(None, None)] * 2),
        ("SELECT count(*), max(n) FROM loose", [(1, None)]),
    ):
        assert masked.sees(query) == expected
    assert not masked.uninstall(masks).left
    masked.admin.execute("RESET ROLE; DROP OWNED BY app; DROP ROLE app")


def test_what_waits_for_no_reader_does_not_begin_to(masked18: Masked) -> None:
    """A command that takes no strong lock leaves the views alone while somebody reads them; one that fails leaves all
    as it was."""
    masked18.admin.execute(SHOP)
    masked18.install(masked18.masks(RULES))
    with masked18.reader() as reader, psycopg.connect(masked18.dsn, user="app", autocommit=True) as app:
        with reader.transaction():
            reader.execute("SELECT * FROM people")
            app.execute("SET lock_timeout = '1s'")
            app.execute("ALTER TABLE people ALTER email SET STATISTICS 10")
            app.execute("CREATE TABLE new_people (id int, city text); ALTER TABLE new_people DROP city")
            app.execute("CREATE TYPE mood AS ENUM ('well')")
            app.execute("ALTER TYPE mood ADD VALUE 'ill'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                app.execute("ALTER TABLE people DROP city")
        assert reader.execute("SELECT id, email FROM people").fetchall() == [(1, TOKEN)]


def test_an_audience_locks_no_view_by_a_temporary_table(masked18: Masked) -> None:
    """A temporary table that has a table's name is no reason to take its view away from others."""
    masked18.admin.execute(SHOP)
    masked18.install(masked18.masks(RULES))
    with masked18.reader() as one, masked18.reader() as other, one.transaction():
        one.execute("CREATE TEMP TABLE people (id int)")
        one.execute("ALTER TABLE pg_temp.people RENAME TO visits")
        one.execute("DROP TABLE pg_temp.visits")
        other.execute("SET lock_timeout = '100ms'")
        assert other.execute("SELECT id, email FROM people").fetchall() == [(1, TOKEN)]


def test_the_registry_is_nobodys_to_write(masked18: Masked) -> None:
    """What the event triggers run as a superuser cannot be written by who may write all data."""
    masked18.admin.execute(SHOP)
    masked18.install(masked18.masks(RULES))
    masked18.admin.execute("GRANT pg_write_all_data, pg_read_all_data TO app")
    with psycopg.connect(masked18.dsn, user="app", autocommit=True) as app:
        assert app.execute("UPDATE pgwitness_masks.columns SET made = 't.@column@'").rowcount == 0
        assert app.execute("SELECT count(*) FROM pgwitness_masks.pads").fetchall() == [(0,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute("INSERT INTO pgwitness_masks.views VALUES ('public', 'public', 'x', 1, 'x', 'app', '')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute("SELECT pgwitness_masks.come_back()")
