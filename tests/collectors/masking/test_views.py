"""What an audience sees through its views, and that it sees nothing else."""

from __future__ import annotations

import psycopg

from collectors.masking import catalogue, install
from collectors.masking.install import Masks
from collectors.masking.treatment import Kind
from pgwitness.core.privacy import tokenizer
from tests.collectors.masking.conftest import KEY, PRIVACY, Masked, audience

token = tokenizer(KEY)


def states(masked: Masked, masks: Masks) -> list[str]:
    """Say how the audiences stand, but for databases that have no masks."""
    return [one.state for one in masked.status(masks) if not one.subject.startswith("database ")]


SHOP = """
CREATE TABLE customers (id int PRIMARY KEY, email varchar(60) UNIQUE, name text NOT NULL, born date, status text,
    code char(8), note json, extra jsonb, secret text, credit numeric(10, 2), "order" int);
INSERT INTO customers SELECT n, 'ann' || n || '@x.example', 'Ann ' || n, date '1970-05-06' + n, 'gold', 'a' || n,
    '{"a": 1}', '{"b": 2}', 'geheim' || n, 1234.56 + n, n FROM generate_series(1, 300) AS n;
ANALYZE customers;
"""
RULES: dict[str, Kind] = {
    "public.customers.id": "clear",
    "public.customers.email": "token",
    "public.customers.born": "generalise",
    "public.customers.order": "clear",
    "public.customers.credit": "generalise",
}


def test_an_audience_sees_tokens_of_the_lake_and_nothing_else(masked: Masked) -> None:
    """Its names mean views: tokens are the lake's, few values are null, what is not named is masked; no way to the
    table, the key or the rows behind it; a second run has nothing to do, and nothing stays after the removal."""
    masked.admin.execute(SHOP)
    masks = masked.masks(RULES)
    report = masked.install(masks)
    assert not report.left, report.left
    assert any("public.customers.status" in note for note in report.notes)

    with masked.reader() as connection:
        cursor = connection.execute("SELECT * FROM customers WHERE id = 7")
        names = [column.name for column in cursor.description or ()]
        row = dict(zip(names, cursor.fetchone() or (), strict=True))
        types = [column.type_display for column in cursor.description or ()]
    assert row["id"] == row["order"] == 7
    assert row["email"] == token(b"ann7@x.example").decode()
    assert row["secret"] == token(b"geheim7").decode(), "what the lake masks is masked here"
    assert row["name"] == token(b"Ann 7").decode(), "what nothing names is masked"
    assert row["code"] == token(b"a7      ").decode(), "the lake sees a char with its blanks"
    assert row["status"] is row["note"] is row["extra"] is None, "few values are no tokens"
    assert str(row["born"]) == "1970-01-01"
    assert row["credit"] == 1000
    assert types[:4] == ["int4", "varchar", "text", "date"]

    assert masked.sees("SELECT count(*), count(email), sum(c.id) FROM customers AS c") == [(300, 300, 45150)]
    assert masked.sees("WITH t AS (TABLE customers) SELECT min(id) FROM t") == [(1,)]
    for query in (
        "SELECT id FROM public.customers",
        "SELECT * FROM pgwitness_masks.pads",
        "SET ROLE pgwitness_masks",
        "INSERT INTO customers (id) VALUES (0)",
        "DELETE FROM customers",
        "CREATE TABLE mask_public.t ()",
    ):
        masked.denied(query)
    stats = masked.sees(
        "SELECT count(*) FROM pg_stats WHERE schemaname IN ('public', 'mask_public', 'pgwitness_masks')"
    )
    assert stats == [(0,)]
    plan = masked.sees("EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM customers WHERE email = 'tok_'")
    assert not any("@x.example" in str(line) or KEY.hex()[:16] in str(line) for line in plan)

    assert states(masked, masks) == ["ok"]
    assert masked.install(masks).done == ()
    assert masked.uninstall(masks).left == ()
    left = masked.admin.execute(
        "SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^mask_|^pgwitness' UNION ALL"
        " SELECT rolname::text FROM pg_roles WHERE rolname IN ('support', 'pgwitness_masks') UNION ALL"
        " SELECT attname::text FROM pg_attribute WHERE attrelid = 'customers'::regclass AND attacl IS NOT NULL"
    ).fetchall()
    assert left == []


VALUES = {
    "date": ["-infinity", "infinity", "4714-11-24 BC", "4713-01-02 BC", "0001-12-31 BC", "5874897-12-31", "2024-02-29"],
    "timestamp": ["-infinity", "infinity", "4714-11-24 BC", "4713-12-31 BC", "294276-12-31 23:59:59", "2024-02-29 1:2"],
    "timestamptz": ["-infinity", "infinity", "4714-11-24 BC", "4712-01-01 BC", "294276-12-31", "2024-12-31 23:00-05"],
    "int2": ["-32768", "32767", "0", "9"],
    "int4": ["-2147483648", "2147483647"],
    "int8": ["-9223372036854775808", "9223372036854775807"],
    "numeric": ["NaN", "Infinity", "-Infinity", "0", "0.004", "-99.5", "9e131071", "1e-16383", "1e1000", "9e999"],
    "numeric(4, 2)": ["99.99", "-99.99"],
    "float4": ["NaN", "Infinity", "-Infinity", "3.4e38", "-3.4e38", "1e-45", "-0"],
    "float8": ["NaN", "Infinity", "-Infinity", "1.7976931348623157e308", "5e-324"],
    "text": ["", "@", "a@b", "a@b@c", "no address", "ü@ü.example", "x" * 100_000, r"\x41", "a\nb@c"],
    "varchar(3)": ["a@b", "€€€"],
    "char(3)": ["", "a", "a@b"],
    '"char"': ["", "x", r"\377"],
    "name": ["", "n" * 63],
    "json": ["null", '"a"', '{"a": [1, {}]}'],
    "jsonb": ["null", '"a"', '{"a": "\\\\u00fc"}'],
    "bytea": ["", r"\x00ff"],
    "bool": ["true"],
    "uuid": ["00000000-0000-0000-0000-000000000000"],
    "inet": ["::1"],
    "interval": ["1 year -1 day"],
    "money": ["-92233720368547758.08"],
    "int[]": ["{1,NULL}"],
    "text[]": ["{a}"],
    "int4range": ["empty"],
    "bit(3)": ["101"],
    "point": ["(NaN,1)"],
    "tsvector": ["a b"],
    "short": ["abc"],
    "mood": ["sad"],
    "positive": ["1"],
    "pair": ["(1,b)"],
}


def test_no_value_makes_a_mask_raise(masked: Masked) -> None:
    """Whatever is stored, reading it through any mask ends well and shows no value, whatever the session's settings."""
    masked.admin.execute(
        "CREATE DOMAIN short AS varchar(3) NOT NULL CHECK (VALUE <> 'tok');"
        "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);"
        "CREATE TYPE pair AS (a int, b text)"
    )
    for number, (kind, values) in enumerate(VALUES.items()):
        masked.admin.execute(f"CREATE TABLE t{number} (id serial, v {kind})".encode())
        for value in (*values, *([None] if kind != "short" else [])):
            masked.admin.execute(f"INSERT INTO t{number} (v) VALUES (%s)".encode(), [value])
    kinds: tuple[Kind, ...] = ("token", "last4", "generalise", "null")
    audiences = {kind: audience({"*.id": "clear", "*.v": kind}, prefix=f"mask_{kind}_") for kind in kinds}
    report = masked.install(Masks(audiences=audiences, privacy=PRIVACY, key=KEY))
    assert not report.left, report.left
    for how in kinds:
        with masked.reader(how) as connection:
            for zone in ("UTC", "<x>-167:59"):
                connection.execute("SELECT set_config('timezone', %s, false)", [zone])
                for number, (kind, values) in enumerate(VALUES.items()):
                    rows = connection.execute(f"SELECT v::text FROM t{number} WHERE id > 0".encode()).fetchall()
                    seen = {value for (value,) in rows if value is not None and len(value) > 2}
                    assert not seen & set(values), (how, kind)


def test_a_year_is_that_of_utc_whatever_the_session_says(masked: Masked) -> None:
    """A time zone of the audience's own does not tell how far a time is from the end of its year."""
    masked.admin.execute("CREATE TABLE visits (id int, at timestamptz)")
    masked.admin.execute("INSERT INTO visits VALUES (1, '2024-12-31 22:00+00')")
    masked.install(masked.masks({"*.id": "clear", "*.at": "generalise"}))
    for zone in ("Asia/Tokyo", "<x>-167:59", "America/New_York"):
        with masked.reader() as connection:
            connection.execute("SELECT set_config('timezone', %s, false)", [zone])
            row = connection.execute("SELECT at = '2024-01-01 00:00+00' FROM visits").fetchone()
            assert row == (True,), zone


def test_rules_of_one_table_of_a_tree_hold_for_all_of_it(masked: Masked) -> None:
    """A partition's column is masked as its root's, the root's as its partition's, and what is computed from it is not
    clear."""
    masked.admin.execute(
        "CREATE TABLE events (id int, email text, lower text GENERATED ALWAYS AS (lower(email)) STORED, city text)"
        " PARTITION BY RANGE (id);"
        "CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (100);"
        "INSERT INTO events (id, email, city) VALUES (1, 'Ann@x.example', 'Ulm')"
    )
    rules: dict[str, Kind] = {
        "public.events.email": "null",
        "public.events_1.city": "null",
        "public.events*": "clear",
    }
    report = masked.install(masked.masks(rules))
    assert not report.left, report.left
    for table in ("events", "events_1"):
        assert masked.sees(f"SELECT id, email, lower, city FROM {table}") == [(1, None, None, None)]


def test_a_table_with_policies_for_roles_is_left_out(masked: Masked) -> None:
    """Row security for everybody holds through a view, by who asks; for some roles it would be that of the owner."""
    masked.admin.execute(
        "CREATE TABLE own (id int, who text); INSERT INTO own VALUES (1, 'support'), (2, 'other');"
        "ALTER TABLE own ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON own USING (who = current_user);"
        "CREATE ROLE clerk; CREATE TABLE theirs (id int); INSERT INTO theirs VALUES (1);"
        "ALTER TABLE theirs ENABLE ROW LEVEL SECURITY; CREATE POLICY clerks ON theirs TO clerk USING (true)"
    )
    masks = masked.masks({"*.id": "clear"})
    report = masked.install(masks)
    assert [note for note in report.notes if note.startswith("public.theirs: its row security has policies for clerk")]
    assert masked.sees("SELECT id FROM own") == [(1,)]
    masked.denied("SELECT id FROM theirs")
    assert [(one.subject, one.state) for one in masked.status(masks)][:2] == [
        ("masks support", "ok"),
        ("public.theirs for support", "limit"),
    ]


def test_a_new_column_is_not_seen_until_masks_are_installed_again(masked: Masked) -> None:
    """What is added to a table is masked by the rules that hold for it, once it is in a view at all."""
    masked.admin.execute("CREATE TABLE t (id int, a text); INSERT INTO t VALUES (1, 'a')")
    masks = masked.masks({"public.t.id": "clear"})
    masked.install(masks)
    masked.admin.execute("ALTER TABLE t ADD phone text; UPDATE t SET phone = '0151'")
    assert states(masked, masks) == ["differs"]
    assert masked.sees("SELECT * FROM t") == [(1, token(b"a").decode())]
    masked.install(masks)
    assert masked.sees("SELECT phone FROM t") == [(token(b"0151").decode(),)]


def test_the_values_of_a_very_wide_table_are_counted(masked18: Masked) -> None:
    """Each column is counted twice, and a row that is selected cannot have as many columns."""
    masked18.admin.execute(f"CREATE TABLE t ({', '.join(f'c{n} text' for n in range(900))})".encode())
    masked18.admin.execute("INSERT INTO t (c0, c899) VALUES ('a', 'b'), ('c', 'b')")
    state = catalogue.read(masked18.admin, ["public"], [], [], (b"", b""))
    counted = catalogue.sampled(masked18.admin, state.tables[0], [f"c{n}" for n in range(900)])
    assert (len(counted), counted["c0"], counted["c899"], counted["c5"]) == (900, (2, 2), (1, 2), (0, 0))


def test_row_security_may_look_at_another_table(masked: Masked) -> None:
    """The views' owner may read there what the policy looks at, the audience nothing of it; both go with the masks."""
    masked.admin.execute(
        "CREATE SCHEMA hr; CREATE TABLE hr.members (team int, login name, secret text);"
        " CREATE TABLE tickets (id int, team int); INSERT INTO tickets VALUES (1, 1), (2, 2);"
        " INSERT INTO hr.members VALUES (1, 'support', 'x'), (2, 'clerk', 'x');"
        " ALTER TABLE tickets ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON tickets FOR SELECT USING"
        " (EXISTS (SELECT FROM hr.members AS m WHERE m.team = tickets.team AND m.login = current_user))"
    )
    masks = masked.masks({"*.id": "clear"})
    assert not masked.install(masks).left
    assert masked.sees("SELECT id FROM tickets") == [(1,)]
    assert "hr" in masked.denied("SELECT login FROM hr.members")
    assert states(masked, masks) == ["ok"]
    assert masked.install(masks).done == ()
    masked.uninstall(masks)
    granted = "SELECT FROM pg_attribute WHERE attrelid = 'hr.members'::regclass AND attacl IS NOT NULL"
    assert not masked.admin.execute(f"{granted} AND attacl::text LIKE '%pgwitness_masks%'").fetchall()


def test_a_role_that_reads_more_is_no_audience(masked: Masked) -> None:
    """A role with memberships or powers is refused with the statement that mends it, and nothing is made for it."""
    masked.admin.execute("CREATE TABLE t (id int); CREATE ROLE support LOGIN IN ROLE pg_read_all_data")
    report = masked.install(masked.masks({}))
    assert [failure.what for failure in report.left] == ["role support"]
    assert "pg_read_all_data" in report.left[0].why
    masked.admin.execute("REVOKE pg_read_all_data FROM support; ALTER ROLE support BYPASSRLS")
    assert "BYPASSRLS" in masked.install(masked.masks({})).left[0].why
    masked.admin.execute("ALTER ROLE support NOBYPASSRLS")
    assert not masked.install(masked.masks({})).left


def test_a_busy_table_leaves_everything_as_it_was(masked18: Masked) -> None:
    """Behind a lock the run ends soon, says so, and has changed nothing; the next one does it."""
    masked18.admin.execute("CREATE TABLE t (id int); CREATE TABLE u (a text)")
    masks = masked18.masks({})
    for table in ("t", "u"):  # the values of u are looked at before
        with psycopg.connect(masked18.dsn) as other:
            other.execute(f"LOCK TABLE {table}".encode())
            with psycopg.connect(masked18.dsn) as connection:
                options = install.Options(lock_timeout_ms=20, attempts=2)
                report = install.install(connection, masks, options)
        assert "lock" in report.left[0].why
        assert masked18.admin.execute("SELECT FROM pg_roles WHERE rolname = 'support'").fetchall() == []
    assert not masked18.install(masks).left
