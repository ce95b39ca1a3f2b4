"""Names of tables become those of an audience's views, by the places that the parser gives, and nothing else does."""

from __future__ import annotations

import pytest

from collectors.gateway.masking.rewriting import before, edited, rewrite
from collectors.gateway.masking.silent import silent
from collectors.gateway.masking.source import shown_by
from collectors.gateway.masking.views import Relation, Views

ANY = frozenset({"insert", "update", "delete"})
CUSTOMERS = Relation(
    columns=("id", "email", "city", "place", "name"),
    masked={"email": "token", "name": "null"},
    key=("id",),
    unequal=frozenset({"place"}),
    view=ANY,
)
VIEWS = Views(
    role="support",
    schemas={"public": "mask_public", "Säle": "mask_Säle"},
    relations={
        ("public", "customers"): CUSTOMERS,
        ("public", "orders"): Relation(columns=("id", "customer", "amount"), key=("id", "customer"), parent=True),
        ("Säle", "Gäste"): Relation(columns=("id",)),
    },
)
M = '"mask_public"'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT * FROM public.customers", f"SELECT * FROM {M}.customers"),
        ("TABLE public.customers", f"TABLE {M}.customers"),
        ('SELECT 1 FROM ONLY PUBLIC /* x */ . "customers" AS c', f'SELECT 1 FROM ONLY {M} /* x */ . "customers" AS c'),
        ("SELECT * FROM customers, public.other, other.customers", None),
        ("SELECT 'public.customers', $$public.customers$$ -- public.customers\n/* public.customers */", None),
        ("SELECT 'ü', 'public.customers'::regclass, public.f(1)", None),
        (
            "WITH customers AS (SELECT 1) SELECT * FROM customers, public.customers AS public",
            f"WITH customers AS (SELECT 1) SELECT * FROM customers, {M}.customers AS public",
        ),
        (
            "SELECT 'ü', public.customers.id, public.customers.* FROM public.customers; SELECT 1 FROM public.orders o",
            f"SELECT 'ü', {M}.customers.id, {M}.customers.* FROM {M}.customers; SELECT 1 FROM {M}.orders o",
        ),
        ("SELECT shop.public.customers.id FROM shop.public.customers",
         f"SELECT shop.{M}.customers.id FROM shop.{M}.customers"),
        ("SELECT NULL::public.customers, x::public.customers[]", f"SELECT NULL::{M}.customers, x::{M}.customers[]"),
        ("PREPARE p AS SELECT 1 FROM public.orders WHERE id = $1",
         f"PREPARE p AS SELECT 1 FROM {M}.orders WHERE id = $1"),
        ("EXPLAIN ANALYZE SELECT (SELECT max(id) FROM public.orders)",
         f"EXPLAIN ANALYZE SELECT (SELECT max(id) FROM {M}.orders)"),
        ("DECLARE c CURSOR FOR TABLE public.orders", f"DECLARE c CURSOR FOR TABLE {M}.orders"),
        ("CREATE TEMP TABLE x AS TABLE public.orders", f"CREATE TEMP TABLE x AS TABLE {M}.orders"),
        ("CREATE TEMP VIEW x AS TABLE public.orders", f"CREATE TEMP VIEW x AS TABLE {M}.orders"),
        ("SELECT * INTO public.orders FROM public.customers", f"SELECT * INTO public.orders FROM {M}.customers"),
        ("ALTER TABLE public.customers ADD x int", None),
        ("TRUNCATE public.customers", None),
        ("LOCK TABLE public.customers", None),
        ("CREATE INDEX ON public.customers (id)", None),
        ("DO $$ BEGIN PERFORM 1 FROM public.customers; END $$", None),
        ("SELEC public.customers", None),
        ('SELECT * FROM "Säle"."Gäste"', 'SELECT * FROM "mask_Säle"."Gäste"'),
        ('SELECT * FROM U&"public".customers', None),
    ],
)  # fmt: skip
def test_reads(text: str, expected: str | None) -> None:
    """The schema of what is read becomes the views'; what only looks like a name stays."""
    assert edited(text, rewrite(text, VIEWS)) == (expected or text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("COPY public.customers TO STDOUT", f"COPY (SELECT * FROM {M}.customers) TO STDOUT"),
        ("COPY customers TO STDOUT (FORMAT csv)", "COPY (SELECT * FROM customers) TO STDOUT (FORMAT csv)"),
        (
            'COPY public.customers /* a */ (id, "email") TO STDOUT',
            f'COPY (SELECT id, "email" FROM {M}.customers) TO STDOUT',
        ),
        ("COPY mask_public.customers (id) TO STDOUT", "COPY (SELECT id FROM mask_public.customers) TO STDOUT"),
        ("COPY (TABLE public.customers) TO STDOUT", f"COPY (TABLE {M}.customers) TO STDOUT"),
        ("COPY public.customers FROM STDIN", None),
        ("COPY public.other TO STDOUT", None),
    ],
)
def test_copies(text: str, expected: str | None) -> None:
    """A COPY of a table becomes one of a query, which alone reads a view."""
    assert edited(text, rewrite(text, VIEWS)) == (expected or text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("UPDATE public.customers SET city = 'x'", f"UPDATE {M}.customers SET city = 'x'"),
        ("UPDATE public.customers SET email = 'x' WHERE public.customers.id = 1", None),
        (
            "UPDATE public.customers SET email = o.id FROM public.orders o WHERE public.customers.id = o.id",
            f"UPDATE public.customers SET email = o.id FROM {M}.orders o WHERE public.customers.id = o.id",
        ),
        ("UPDATE public.customers SET (id, email) = (1, 'x')", None),
        ("UPDATE public.orders SET amount = 1", None),
        ("DELETE FROM public.customers USING public.orders", f"DELETE FROM {M}.customers USING {M}.orders"),
        ("INSERT INTO public.customers (id) VALUES (1)", f"INSERT INTO {M}.customers (id) VALUES (1)"),
        ("INSERT INTO public.customers VALUES (1)", None),
        ("INSERT INTO public.customers DEFAULT VALUES", f"INSERT INTO {M}.customers DEFAULT VALUES"),
        ("INSERT INTO public.customers (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET email = excluded.email", None),
        ("INSERT INTO public.customers SELECT * FROM public.customers",
         f"INSERT INTO public.customers SELECT * FROM {M}.customers"),
        ("MERGE INTO public.customers c USING public.orders o ON true WHEN MATCHED THEN UPDATE SET city = 'x'",
         f"MERGE INTO {M}.customers c USING {M}.orders o ON true WHEN MATCHED THEN UPDATE SET city = 'x'"),
        ("MERGE INTO public.customers c USING public.orders o ON true WHEN NOT MATCHED THEN INSERT VALUES (1)",
         f"MERGE INTO public.customers c USING {M}.orders o ON true WHEN NOT MATCHED THEN INSERT VALUES (1)"),
    ],
)  # fmt: skip
def test_targets(text: str, expected: str | None) -> None:
    """What is written to is the view where that takes it, and no masked column is assigned; else the table."""
    assert edited(text, rewrite(text, VIEWS)) == (expected or text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT id, city, count(*) FROM customers GROUP BY id",
         'SELECT id, city, count(*) FROM customers GROUP BY "customers"."city", id'),
        ("SELECT c.id, upper(c.city) FROM public.customers c GROUP BY c.id ORDER BY c.email",
         f'SELECT c.id, upper(c.city) FROM {M}.customers c GROUP BY "c"."email", "c"."city", c.id ORDER BY c.email'),
        ("SELECT c.*, count(o.id) FROM customers c LEFT JOIN orders o ON true GROUP BY 1, c.id",
         'SELECT c.*, count(o.id) FROM customers c LEFT JOIN orders o ON true GROUP BY 1, "c"."email", "c"."city",'
         ' "c"."name", c.id'),
        ("SELECT id, max(city) FROM customers GROUP BY id", None),
        ("SELECT city, email FROM customers GROUP BY city", None),
        ("SELECT o.id, o.amount FROM orders o GROUP BY o.id", None),
        ("SELECT o.id, amount FROM orders o GROUP BY o.customer, 1",
         'SELECT o.id, amount FROM orders o GROUP BY "o"."amount", o.customer, 1'),
        ("SELECT c.id, c.place FROM customers c GROUP BY c.id", None),
        ("SELECT 1 UNION SELECT id FROM customers c GROUP BY c.id, id HAVING city > 'a'",
         "SELECT 1 UNION SELECT id FROM customers c GROUP BY \"c\".\"city\", c.id, id HAVING city > 'a'"),
    ],
)  # fmt: skip
def test_groups(text: str, expected: str | None) -> None:
    """A GROUP BY of a whole primary key is given what depends on it and is asked for, outside of aggregates."""
    expected = None if expected == text else expected
    assert edited(text, rewrite(text, VIEWS)) == (expected or text)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("email = 'ann@x.example'", True),
        ("'ann@x.example' = c.email", True),
        ("lower(c.email::text) IN ('tok_1', 'ann')", True),
        ("email LIKE '%@x.example'", True),
        ("email = ANY ('{a,b}')", True),
        ("email BETWEEN 'a' AND 'b'", True),
        ("email IS DISTINCT FROM 'a'", True),
        ("EXISTS (SELECT FROM public.orders WHERE c.email = 'a')", True),
        ("name = 'Ann'", True),
        ("email = 'tok_00'", False),
        ("email LIKE 'tok_%'", False),
        ("email IN ('tok_1', 'tok_2')", False),
        ("email = ANY ('{tok_1}')", False),
        ("email IS NOT NULL", False),
        ("email = $1", False),
        ("city = 'ann@x.example'", False),
        ("id = 1 AND city || 'email' = 'a'", False),
        ("EXISTS (SELECT FROM other WHERE email = 'a')", False),
        ("EXISTS (WITH customers AS (SELECT 'a' AS email) SELECT FROM customers WHERE email = 'a')", False),
    ],
)
def test_a_masked_column_is_compared_with_what_it_never_is(condition: str, expected: bool) -> None:
    """That would find nothing, silently; tokens, other columns and what nobody can tell are let pass."""
    found = silent(f"SELECT id FROM customers AS c WHERE {condition}", VIEWS)
    assert (found is not None) is expected


def test_what_is_compared_is_found_in_what_is_written_too() -> None:
    """In conditions of UPDATE, DELETE and joins; never in what is assigned."""
    assert silent("DELETE FROM public.customers WHERE email = 'a'", VIEWS) == ("public.customers.email", "token")
    assert silent("UPDATE customers SET city = 'a' WHERE mask_public.customers.email = 'a'", VIEWS) is not None
    assert silent("SELECT 1 FROM orders o JOIN customers c ON c.email = 'a'", VIEWS) is not None
    assert silent("UPDATE customers SET email = 'a'", VIEWS) is None
    assert silent("SELECT 1 FROM (SELECT 'a' AS email) AS customers WHERE email = 'a'", VIEWS) is None
    assert silent("SELECT 'a' = email FROM customers, (SELECT 1) AS x", VIEWS) is not None
    assert silent("SELECT 'a' = mail FROM customers, (SELECT 1 AS mail) AS x", VIEWS) is None


def test_only_the_rows_of_a_parent_itself_are_not_to_be_had() -> None:
    """A view has those of its children too; where there are none, ONLY changes nothing."""
    assert silent("SELECT * FROM ONLY public.orders", VIEWS) == ("public.orders", "only")
    assert silent("DELETE FROM ONLY orders", VIEWS) == ("public.orders", "only")
    assert silent("COPY orders TO STDOUT", VIEWS) == ("public.orders", "only")
    assert silent("COPY orders FROM STDIN; COPY (TABLE orders) TO STDOUT; COPY customers TO STDOUT", VIEWS) is None
    assert silent("SELECT * FROM ONLY customers, orders, only.orders", VIEWS) is None
    assert silent("WITH orders AS (SELECT 1) SELECT * FROM ONLY orders", VIEWS) is None


def test_a_place_is_told_as_it_was_written() -> None:
    """Every character that stayed is found again, and of what was replaced its beginning."""
    text = "SELECT ü, public.customers.id FROM public.customers; COPY customers (id) TO STDOUT"
    edits = rewrite(text, VIEWS)
    made = edited(text, edits)
    assert made != text
    for place in range(1, len(made) + 1):
        at = before(place, edits)
        inside = [edit for edit in edits if edit.begin + 1 == at]
        assert inside or made[place - 1] == text[at - 1]


def test_a_view_says_how_it_shows_its_columns() -> None:
    """As they are, as tokens, or otherwise."""
    view = """ SELECT id, encode(substr(sha256(convert_to(t.email, 'UTF8'::name)), 1, 16), 'hex'::text) AS email,
        NULL::text AS name, make_date(1, 1, 1) AS born FROM public.customers t;"""
    assert shown_by(view) == {"id": None, "email": "token", "name": "null", "born": "other"}
    assert shown_by("nothing") == {}
