"""Facts about statements: nothing raises, no literal gets through, and what a statement does is seen."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgwitness.core.sql import statements
from pgwitness.core.sql.statements import facts

SECRET = "hunterzwo4711"

secrets = st.text(alphabet=string.ascii_lowercase + string.digits, min_size=8, max_size=20).map(lambda t: "zq" + t)
numbers = st.integers(min_value=10**9, max_value=10**15).map(lambda n: f"77{n}77")
quoted = secrets.map(lambda t: (t, f"'{t}'"))
literals = st.one_of(
    quoted,
    secrets.map(lambda t: (t, f"E'\\t{t}'")),
    secrets.map(lambda t: (t, f"$${t}$$")),
    secrets.map(lambda t: (t, f"$tag${t}$tag$")),
    secrets.map(lambda t: (t, f"U&'{t}'")),
    secrets.map(lambda t: (t, f"'it''s {t} é'")),
    numbers.map(lambda t: (t, t)),
    numbers.map(lambda t: (t, f"-{t}.5")),
    numbers.map(lambda t: (t, f"X'{t}'")),
)
EXPRESSIONS = [
    "SELECT {}",
    "SELECT a /* {comment} */ FROM t WHERE b = {} -- {comment}",
    'INSERT INTO "Täble" (a) VALUES ({}), (2)',
    "UPDATE t SET a = {} WHERE b IN (1, {})",
    "WITH x AS (DELETE FROM t WHERE a = {} RETURNING *) SELECT * FROM x",
    "SELECT * FROM t LIMIT 5; DELETE FROM t WHERE a = {}",
    "EXPLAIN ANALYZE DELETE FROM t WHERE a = {}",
    "PREPARE p AS SELECT {}",
    "EXECUTE p({})",
    "CALL p({})",
    "CREATE VIEW v AS SELECT {} AS x",
    "CREATE TABLE t (a text DEFAULT {})",
    "DECLARE c CURSOR FOR SELECT {}",
    "CREATE TABLE z AS SELECT {} AS x",
]
STRINGS = [
    "CREATE ROLE x PASSWORD {}",
    "ALTER USER x WITH PASSWORD {} VALID UNTIL {}",
    "COPY t FROM PROGRAM {}",
    "COPY t TO {} WITH (FORMAT csv, DELIMITER {})",
    "DO {}",
    "CREATE SUBSCRIPTION s CONNECTION {} PUBLICATION p",
    "SET x.y = {}",
    "SET x.y TO {}, {}",
    "ALTER SYSTEM SET primary_conninfo = {}",
    "ALTER ROLE x SET a.b = {}",
    "COMMENT ON TABLE t IS {}",
    "SECURITY LABEL ON TABLE t IS {}",
    "NOTIFY c, {}",
    "PREPARE TRANSACTION {}",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS {}",
    "CREATE USER MAPPING FOR x SERVER s OPTIONS (password {})",
    "CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (host {})",
    "SELECT pg_logical_emit_message(true, {}, {})",
]


def everything(text: str) -> str:
    """All that facts let through of a text."""
    known = facts(text)
    names = (*known.operations, *known.relations, *known.columns, *known.functions)
    names += (*known.settings, *known.objects, *known.defines)
    return "\n".join([known.statement or "", known.fingerprint or "", known.parse_error or "", *names])


@given(st.text())
@example("SELECT 1 …")
@example("SELECT a FROM …")
def test_any_text_has_facts(text: str) -> None:
    """Whatever is sent, facts come back with the text's hash, and without a parse there is no statement."""
    known = facts(text)
    assert len(known.sha256) == 64
    assert known.parse_error is None or known.statement is None


@pytest.mark.parametrize("text", ["ALTER ROLE bob PASSWORD hunter2 …", "SELECT a FROM t WHERE, …", "hunter2 …"])
def test_a_text_that_looks_cut_off_is_not_believed(text: str) -> None:
    """The mark of what was cut off here says nothing in a text that anybody could have written."""
    assert facts(text).statement is None
    assert facts(text, freed=True).statement == text


def test_a_parameter_with_an_impossible_number_is_a_literal() -> None:
    """The server knows 65,535 parameters; a longer number is somebody's card."""
    assert "4111" not in everything("SELECT $411111, $1")


@given(st.text(alphabet="SELECTFROMWHEREselectfromdo'\"$;()-/*\\ \n1x,.é\ud800\0"))
def test_text_that_nearly_is_sql_has_facts(text: str) -> None:
    """Half statements, open quotes and stray bytes raise nothing."""
    assert len(facts(text).sha256) == 64


@given(st.sampled_from(EXPRESSIONS), literals, secrets)
def test_no_literal_or_comment_survives(template: str, literal: tuple[str, str], comment: str) -> None:
    """A literal in any spelling, and a comment, are gone from everything that facts say."""
    secret, written = literal
    text = template.replace("{comment}", comment).replace("{}", written)
    assert facts(text).statement is not None
    assert secret not in everything(text)
    assert comment not in everything(text)


@given(st.sampled_from(STRINGS), quoted)
def test_no_literal_of_a_utility_statement_survives(template: str, literal: tuple[str, str]) -> None:
    """Passwords, connection strings, programs, bodies of code and settings are gone as well."""
    text = template.replace("{}", literal[1])
    assert facts(text).statement is not None
    assert literal[0] not in everything(text)


@given(st.sampled_from(EXPRESSIONS + STRINGS), quoted, st.integers(0, 200))
def test_no_literal_of_a_torn_text_survives(template: str, literal: tuple[str, str], cut: int) -> None:
    """A text cut off anywhere lets nothing through either; that it did not parse is said without quoting it."""
    text = template.replace("{comment}", "c").replace("{}", literal[1])[:cut]
    assert literal[0] not in everything(text)


@given(st.sampled_from(EXPRESSIONS + STRINGS), quoted)
def test_what_is_left_says_the_same(template: str, literal: tuple[str, str]) -> None:
    """Without its literals a statement still has the same facts, also where the grammar knows no parameter."""
    known = facts(template.replace("{comment}", "c").replace("{}", literal[1]))
    again = facts(known.statement or "")
    assert again.statement == known.statement
    assert (again.operations, again.relations, again.where) == (known.operations, known.relations, known.where)


@settings(max_examples=50)
@given(secrets)
def test_a_value_written_as_a_name_is_gone(secret: str) -> None:
    """SET takes its value as a bare word too; only settings whose value is a name keep it."""
    for text in (f"SET x.password = {secret}", f"ALTER ROLE é SET x.y = {secret}", f"ALTER SYSTEM SET a = {secret}"):
        assert facts(text).statement is not None
        assert secret not in everything(text)
    assert facts(f"SET ROLE {secret}").statement == f"SET ROLE {secret}"


def test_a_backslash_before_a_quote_leaves_nothing_certain() -> None:
    """With standard_conforming_strings off the server reads other literals than the parser: no statement is kept."""
    known = facts(rf"SELECT 'a\', {SECRET}, 'b'")
    assert known.statement is None
    assert known.operations == ("select",)


def test_texts_that_differ_in_literals_only_are_one() -> None:
    """The statement and the fingerprint are the same for every value, and the server's own placeholders fit in."""
    one, other = facts("SELECT a FROM t WHERE b = 1"), facts("SELECT a FROM t  WHERE b = 'x' -- c")
    assert one.statement == other.statement == "SELECT a FROM t WHERE b = $1"
    assert one.fingerprint == other.fingerprint == facts("SELECT a FROM t WHERE b = $1").fingerprint
    assert facts("SELECT $1, 2").statement == "SELECT $1, $2"


FALSE = ["false", "1=0", "NULL", "NOT true", "true AND false", "id = id AND 1=2", "false OR NULL", "0=1 OR (false)"]
PERHAPS_TRUE = [
    "NOT false", "NOT (1=2)", "NOT $1", "NOT (random() > 2)", "random() < 0.5", "1=0 OR true", "false OR id = id",
    "NOT (id IS NOT NULL AND $1 AND false)" , "'t'", "0=0", "NOT (x AND id <> id)", "1.0 = 1", "1 OPERATOR(s.=) 2",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "operations", "relations", "where"),
    [
        ("SELECT 1; DELETE FROM users", ["select", "delete"], ["users"], "none"),
        ("/* x */ DELETE FROM s.users WHERE id = 3", ["delete"], ["s.users"], "present"),
        ("WITH x AS (DELETE FROM users RETURNING 1) SELECT * FROM x", ["delete", "select"], ["users"], "none"),
        ("DO $$ BEGIN DELETE FROM users WHERE true; END $$", ["do", "delete"], ["users"], "useless"),
        ("DELETE FROM users WHERE true", ["delete"], ["users"], "useless"),
        ("DELETE FROM users WHERE 1=1 AND id = id", ["delete"], ["users"], "useless"),
        ("DELETE FROM users WHERE $1", ["delete"], ["users"], "useless"),
        ("DELETE FROM users WHERE $1 = $2 OR id = $3", ["delete"], ["users"], "useless"),
        ("DELETE FROM users WHERE now() > $1", ["delete"], ["users"], "useless"),
        ("DELETE FROM users WHERE id IS NULL OR id IS NOT NULL", ["delete"], ["users"], "useless"),
        ("UPDATE users u SET a = 1 WHERE u.a LIKE '%'", ["update"], ["users"], "useless"),
        ("UPDATE users SET a = 1 WHERE id = $1 AND true", ["update"], ["users"], "present"),
        *((f"DELETE FROM users WHERE {never}", ["delete"], ["users"], "present") for never in FALSE),
        *((f"DELETE FROM users WHERE {perhaps}", ["delete"], ["users"], "useless") for perhaps in PERHAPS_TRUE),
        ("DELETE FROM users WHERE CURRENT OF c", ["delete"], ["users"], "present"),
        ("EXPLAIN ANALYZE DELETE FROM users", ["explain", "delete"], ["users"], "none"),
        ("EXPLAIN DELETE FROM users", ["explain"], ["users"], "n/a"),
        ("MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE", ["merge", "delete"], ["t", "s"], "useless"),
        ("TRUNCATE a, b.c", ["truncate"], ["a", "b.c"], "n/a"),
        ("DROP/**/TABLE a, b.c", ["drop_table"], ["a", "b.c"], "n/a"),
        ("DROP OWNED BY x", ["drop_owned"], [], "n/a"),
        ("SELECT 'drop table x'", ["select"], [], "n/a"),
        ("COPY t TO PROGRAM 'curl'", ["copy_to", "copy_program"], ["t"], "n/a"),
        ("COPY (SELECT * FROM t) TO STDOUT", ["copy_to", "select"], ["t"], "n/a"),
        ("CREATE USER bob SUPERUSER", ["create_role"], [], "n/a"),
        ("GRANT pg_read_all_data TO bob", ["grant_role"], [], "n/a"),
        ("ALTER TABLE s.t DISABLE TRIGGER x", ["alter_table", "disable_trigger"], ["s.t"], "n/a"),
        ("INSERT INTO t VALUES (1)", ["insert"], ["t"], "n/a"),
        ("INSERT INTO t SELECT * FROM u", ["insert", "select"], ["t", "u"], "n/a"),
        ("SELECT a INTO z FROM t", ["create_table_as", "select"], ["z", "t"], "n/a"),
        ("CREATE VIEW v AS SELECT * FROM t", ["create_view"], ["v", "t"], "n/a"),
        ("SELECT 1 FROM a UNION SELECT 2 FROM b", ["select"], ["a", "b"], "n/a"),
        ("SELECT * FROM t FOR UPDATE OF t", ["select"], ["t"], "n/a"),
    ],
)
def test_what_a_statement_does_is_seen(text: str, operations: list[str], relations: list[str], where: str) -> None:
    """Operations, relations and the worst WHERE are seen, also in a CTE, a body or a second statement."""
    known = facts(text)
    assert sorted(known.operations) == sorted(operations)
    assert sorted(known.relations) == sorted(relations)
    assert known.where == where


@pytest.mark.parametrize(
    ("change", "keeps"),
    [
        ("TYPE bigint", True),
        ("TYPE numeric USING amount::numeric", True),
        ("TYPE text USING amount", True),
        ("TYPE numeric(3, 1)", False),
        ("TYPE varchar(1)", False),
        ("TYPE text USING NULL", False),
        ("TYPE text USING ''", False),
        ("TYPE text USING other", False),
        ("TYPE text USING amount::varchar(1)", False),
        ("TYPE text USING left(amount, 1)", False),
        ("TYPE text[]", False),
        ("TYPE date", False),
    ],
)
def test_a_column_that_is_only_widened_loses_nothing(change: str, keeps: bool) -> None:
    """Another type by no expression, without a length, keeps what values say."""
    operations = facts(f"ALTER TABLE t ALTER COLUMN amount {change}").operations
    assert ("alter_column_type" not in operations) is keeps


def test_a_cte_hides_a_table_only_where_it_is_visible() -> None:
    """A CTE named like the table it reads does not make that table disappear; the target of a write is a table."""
    assert facts("WITH users AS (SELECT * FROM users) SELECT * FROM users").relations == ("users",)
    assert facts("WITH x AS (SELECT 1) SELECT * FROM x").relations == ()
    assert facts("WITH RECURSIVE x AS (SELECT 1 UNION SELECT * FROM x) SELECT * FROM x").relations == ()
    assert facts("WITH x AS (SELECT 1) DELETE FROM x").relations == ("x",)
    assert facts("WITH x AS (SELECT 1) SELECT * FROM s.x").relations == ("s.x",)
    assert facts("SELECT * FROM (WITH x AS (SELECT 1) SELECT * FROM x) y, x").relations == ("x",)


def test_columns_carry_their_relation_where_the_text_tells_it() -> None:
    """An alias is resolved, one table in reach owns what is unqualified, and with two a column stands alone."""
    assert facts("SELECT u.email FROM public.users u, o WHERE z").columns == ("public.users.email", "z")
    assert facts('SELECT "E" FROM t').columns == ('t."E"',)
    assert facts("SELECT * FROM t").columns == ("t.*",)
    assert facts("SELECT s.a FROM (SELECT a FROM t) s").columns == ("t.a",)
    assert facts("UPDATE t SET a = 1 WHERE id = 2").columns == ("t.a", "t.id")
    assert facts("INSERT INTO t (a) VALUES (1)").columns == ("t.a",)


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        ("CREATE ROLE x SUPERUSER NOCREATEDB", ["role x", "attribute superuser"]),
        ("ALTER ROLE x NOSUPERUSER NOREPLICATION", ["role x"]),
        ("CREATE ROLE x IN ROLE g ROLE m ADMIN n", ["role x", "granted g", "grantee m", "grantee n"]),
        ("ALTER GROUP g ADD USER m", ["role g", "grantee m"]),
        ("ALTER ROLE x RENAME TO y", ["role x", "role y"]),
        ("ALTER ROLE ALL IN DATABASE d SET a.b = 1", ["role all", "database d"]),
        ("ALTER DATABASE d SET a.b = 1", ["database d"]),
        ("ALTER DATABASE d OWNER TO x", ["database d"]),
        ("CREATE DATABASE d", ["database d"]),
        ("ALTER EVENT TRIGGER e RENAME TO z", ["event_trigger e", "event_trigger z"]),
        ("GRANT CONNECT ON DATABASE d TO PUBLIC", ["privilege connect", "grantee public", "database d"]),
        ("GRANT SET ON PARAMETER a.b TO m", ["privilege set", "grantee m", "parameter a.b"]),
        ("GRANT SELECT ON ALL TABLES IN SCHEMA s TO m", ["privilege select", "grantee m", "all_in_schema s"]),
        ("GRANT SELECT ON t TO m", ["privilege select", "grantee m"]),
    ],
)
def test_what_is_given_to_whom_is_named(text: str, objects: list[str]) -> None:
    """Roles, who is put into which, what a right is on; an attribute that is denied is none."""
    assert list(facts(text).objects) == objects


def test_functions_are_named() -> None:
    """Functions that read files or reach other servers can be told by their names."""
    assert facts("SELECT pg_catalog.pg_read_file('x'), s.f(1)").functions == ("pg_read_file", "s.f")


@pytest.mark.parametrize("depth", [5_000, 100_000])
def test_depth_is_bounded_and_hides_nothing(depth: int) -> None:
    """A statement nested to exhaust whoever reads it raises nothing, lets nothing through, and is not silent."""
    known = facts(f"DELETE FROM t WHERE id = '{SECRET}' AND 0 < " + "1+" * depth + "1")
    assert SECRET not in (known.statement or "")
    assert known.parse_error is not None
    assert SECRET not in known.parse_error
    assert known.operations == ("delete",)


def test_long_statements_are_cut() -> None:
    """A statement of any length fits an event; one beyond the limit of parsing is only its hash."""
    known = facts("SELECT " + ", ".join(f"column_{n}" for n in range(5_000)) + " FROM t")
    assert known.statement is not None
    assert known.statement.endswith(statements.CUT)
    assert len(known.statement) <= statements.STATEMENT_CHARS_MAX + 2
    assert facts(known.statement, freed=True).statement == known.statement
    assert (known.operations, known.relations) == (("select",), ("t",))
    assert known.parse_error == "too long to be read in full"
    assert facts("SELECT '" + "x" * statements.TEXT_CHARS_MAX + "'").statement is None


def test_the_cache_is_bounded_in_bytes_and_entries() -> None:
    """Old answers go when new ones come, whether they are many or large; the most recently used stay."""
    cache = statements._Cache(bytes_max=10_000, entries_max=5)
    answer = facts("SELECT 1")
    for n in range(50):
        cache.put(bytes([n]), answer)
        assert cache.get(bytes([0])) == answer
    assert cache.get(bytes([1])) is None
    assert cache.get(bytes([49])) == answer
    large = statements.StatementFacts("x" * 4_000, "0" * 64)
    for n in range(5):
        cache.put(b"large" + bytes([n]), large)
    assert cache.bytes <= 10_000


def test_the_same_text_is_parsed_once() -> None:
    """Asked again, the same answer comes from the cache."""
    assert facts("SELECT 'once'") is facts("SELECT 'once'")


def test_a_temporary_table_is_what_its_name_means_from_then_on() -> None:
    """In one text and in a block; not before it was made, nor after it is gone."""
    known = facts("TRUNCATE k; CREATE TEMP TABLE k (i int); DELETE FROM k; DROP TABLE k; DROP TABLE k")
    assert known.written == ("k", "pg_temp.k")
    assert known.where == "n/a"
    assert facts("SELECT * INTO TEMP k FROM k; TABLE k").relations == ("pg_temp.k", "k")
    block = facts("DO $$ BEGIN CREATE TEMP TABLE k (i int); DELETE FROM k; UPDATE t SET a = 1; END $$")
    assert (block.written, block.where) == (("pg_temp.k", "t"), "none")


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("SELECT pg_cancel_backend(pid), a FROM t LIMIT 0", False),
        ("SELECT a FROM t FETCH FIRST 0 ROWS ONLY", False),
        ("SELECT a FROM t WHERE 1 = 0 AND b", False),
        ("SELECT a FROM t LIMIT 1", True),
        ("SELECT count(*), pg_cancel_backend(7) FROM t WHERE false", True),
        ("SELECT mine(a) FROM t WHERE false", True),
        ("WITH gone AS (DELETE FROM t RETURNING a) SELECT pg_sleep(1) FROM gone LIMIT 0", False),
    ],
)
def test_a_select_that_gives_no_row_is_no_read(text: str, reads: bool) -> None:
    """An aggregate gives one of none, and runs what stands beside it."""
    known = facts(text)
    assert ("select" in known.operations, bool(known.functions)) == (reads, reads and "(" in text)
    assert ("delete" in known.operations) == ("DELETE" in text)


def test_a_function_that_is_made_says_what_it_does() -> None:
    """Whichever way its body is written, also in a text that is run; one that takes too much to tell says nothing."""
    (made,) = facts("CREATE FUNCTION s.f() RETURNS int LANGUAGE sql AS 'DELETE FROM t RETURNING a'").made
    assert (made.name, made.operations, made.relations) == ("s.f", ("delete",), ("t",))
    (made,) = facts("CREATE FUNCTION f() RETURNS SETOF t BEGIN ATOMIC SELECT * FROM t; END").made
    assert (made.columns, made.whole) == (("t.*",), ("t",))
    (made,) = facts(
        "DO $$ BEGIN EXECUTE 'CREATE FUNCTION f() RETURNS int LANGUAGE sql AS ''SELECT a FROM t'''; END $$"
    ).made
    assert made.columns == ("t.a",)
    columns = ", ".join(f"c{n}" for n in range(500))
    assert facts(f"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT {columns} FROM t'").made == ()
