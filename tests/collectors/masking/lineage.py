"""Random queries as an audience, with a mark in every value that it must not see: no mark may come back in any form.

`python -m tests.collectors.masking.lineage 10000` runs so many on PostgreSQL 18; a sample runs in the tests. What comes
back is everything that a client gets: cells in text and binary, every field of errors and notices, notifications,
names of columns, plans. Queries that name clear columns alone are also run as the superuser on the tables: their
answers must be the same.
"""

from __future__ import annotations

import base64
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from msgspec import Struct
from psycopg import pq
from psycopg.errors import Diagnostic

from collectors.masking import install
from collectors.masking.install import Masks
from collectors.masking.treatment import Kind
from pgwitness.core.config import Audience, AudienceColumn, Privacy

MARK = "mrqzyx"
"""Stands in every hidden text; a token, which is hexadecimal, cannot have it, and in hex it is too long for chance."""
NUMBER = 8675309
DAY = "07-13"
_PADDED = [base64.b64encode(b"\0" * before + MARK.encode()) for before in range(3)]
FORMS = (
    *(form.encode() for form in (MARK, MARK.upper(), MARK[::-1], MARK.encode().hex(), str(NUMBER), DAY)),
    str(NUMBER)[::-1].encode(),
    *(padded[-(-before * 8 // 6) : (before + len(MARK)) * 8 // 6] for before, padded in enumerate(_PADDED)),
)
"""A mark as it is, in capitals, backwards, in hex, in base64 wherever it begins; the number, and the day of a date."""
BINARY = (NUMBER.to_bytes(4, "big"), NUMBER.to_bytes(8, "big"))
RULES: dict[str, Kind] = {
    "*.id": "clear", "*.customer": "clear", "*.city": "clear", "*.amount": "clear", "*.at": "clear", "*.owner": "clear",
    "*.email": "token", "*.name": "null", "*.phone": "last4", "*.born": "generalise", "*.salary": "generalise",
    "*.note": "token", "*.secret": "null", "*.address": "generalise",
}  # fmt: skip
SCHEMA = f"""
CREATE TABLE customers (id int PRIMARY KEY, email varchar(80) UNIQUE, name text, phone text, born date, salary int,
    note jsonb, secret bytea, address text, city text, lowered text GENERATED ALWAYS AS (lower(email)) STORED,
    CHECK (salary > 0), CHECK (email LIKE '%@%'));
INSERT INTO customers SELECT n, '{MARK}' || n || '@x.example', 'Ann {MARK} ' || n, '+49 {MARK} ' || n || ' 1234',
    date '1987-{DAY}', {NUMBER}, jsonb_build_object('k', '{MARK}' || n), convert_to('{MARK}' || n, 'UTF8'),
    '{MARK}' || n || '@y.example', 'Ulm' || n % 7 FROM generate_series(1, 40) AS n;
CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers, email varchar(80) REFERENCES customers
    (email), amount numeric(10, 2), city text);
INSERT INTO orders SELECT n, n % 40 + 1, '{MARK}' || n % 40 + 1 || '@x.example', n * 1.5, 'Ulm' || n % 5
    FROM generate_series(1, 60) AS n;
CREATE TABLE events (id int, at int, email text, note jsonb) PARTITION BY RANGE (at);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (50);
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (50) TO (1000);
INSERT INTO events SELECT n, n, '{MARK}' || n, jsonb_build_array('{MARK}', n) FROM generate_series(1, 80) AS n;
CREATE TABLE tickets (id int, owner text, email text, city text);
INSERT INTO tickets SELECT n, CASE n % 2 WHEN 0 THEN 'support' ELSE 'other' END, '{MARK}' || n, 'Ulm' FROM
    generate_series(1, 20) AS n;
ALTER TABLE tickets ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON tickets USING (owner = current_user);
CREATE TABLE people (id int, email text, city text); CREATE TABLE staff (salary int) INHERITS (people);
INSERT INTO staff SELECT n, '{MARK}' || n, 'Bonn', {NUMBER} FROM generate_series(1, 5) AS n;
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '% %', OLD, NEW; RETURN NEW; END $$;
CREATE TRIGGER tells AFTER INSERT OR UPDATE OR DELETE ON customers FOR EACH ROW EXECUTE FUNCTION tell();
CREATE INDEX ON customers (lower(name)); CREATE STATISTICS both_columns ON email, city FROM customers;
CREATE STATISTICS an_expression ON (lower(email)) FROM customers;
ANALYZE;
"""
COLUMNS = {
    "customers": ("id", "email", "name", "phone", "born", "salary", "note", "secret", "address", "city", "lowered"),
    "orders": ("id", "customer", "email", "amount", "city"),
    "events": ("id", "at", "email", "note"),
    "events_1": ("id", "at", "email", "note"),
    "tickets": ("id", "owner", "email", "city"),
    "people": ("id", "email", "city"),
    "staff": ("id", "email", "city", "salary"),
}
CLEAR = frozenset({"id", "customer", "city", "amount", "at"})
WHOLE = ("orders", "events", "events_1", "customers", "people", "staff")
"""Tables without row security, which the superuser sees as the audience does."""
NOISY = """
CREATE FUNCTION pg_temp.leak(v anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
    $$ BEGIN RAISE NOTICE '%', v; RETURN true; END $$;
CREATE FUNCTION pg_temp.leaks(a text, b text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
    $$ BEGIN RAISE NOTICE '% %', a, b; RETURN true; END $$;
CREATE OPERATOR pg_temp.<<< (FUNCTION = pg_temp.leaks, LEFTARG = text, RIGHTARG = text, RESTRICT = eqsel,
    JOIN = eqjoinsel);
LISTEN people;
"""


def masks() -> Masks:
    """Give the audience `support`."""
    columns = [AudienceColumn(column=column, as_=how) for column, how in RULES.items()]
    return Masks(audiences={"support": Audience(columns=columns)}, privacy=Privacy(), key=bytes(range(32)))


class Queries:
    """Writes random statements; `clear` ones name clear columns of whole tables alone, and read."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def pick(self, *choices: Any) -> Any:
        """Choose one."""
        return self.random.choice(choices)

    def asked(self) -> str:
        """Write a statement that reads clear columns: a query, a cursor over one, or one that is prepared."""
        query = self.clear()
        if not query.startswith(("SELECT", "WITH", "(")) or ";" in query or "--" in query:
            return query
        return str(
            self.pick(
                *[query] * 8, f"DECLARE c CURSOR FOR {query}; FETCH ALL FROM c", f"PREPARE p AS {query}; EXECUTE p"
            )
        )

    def clear(self, depth: int = 2) -> str:
        """Write a SELECT over clear columns."""
        table = self.pick(*WHOLE)
        names = [name for name in COLUMNS[table] if name in CLEAR]
        shown = ", ".join(f"t.{name}" for name in self.random.sample(names, self.random.randint(1, len(names))))
        where = self.pick(
            "", f" WHERE t.id > {self.random.randint(0, 40)}", " WHERE t.id % 3 = 1", " WHERE t.id IS NULL"
        )
        plain = f"SELECT {shown} FROM {table} AS t{where}"
        if depth == 0:
            return plain
        inner = self.clear(depth - 1)
        return str(
            self.pick(
                plain,
                f"SELECT count(*), min(t.id), sum(t.id) FROM {table} AS t{where}",
                f"SELECT t.id % 5, count(*) FROM {table} AS t{where} GROUP BY 1 HAVING count(*) > 1",
                f"SELECT t.id, rank() OVER (ORDER BY t.id DESC) FROM {table} AS t{where}",
                f"WITH c AS ({inner}) SELECT * FROM c",
                f"SELECT * FROM ({inner}) AS s",
                f"SELECT t.id FROM {table} AS t WHERE EXISTS ({inner})",
                f"SELECT t.id, o.id FROM {table} AS t JOIN orders AS o ON o.id = t.id{where}",
                f"SELECT t.id, n FROM {table} AS t, LATERAL (SELECT count(*) FROM orders WHERE id < t.id) AS l (n)",
                f"({plain}) UNION ALL ({plain})",
                f"SELECT to_jsonb(s) FROM ({inner}) AS s",
                f"SELECT array_agg(t.id ORDER BY t.id) FROM {table} AS t{where}",
                f"SELECT DISTINCT ON (t.id % 4) t.id % 4 FROM {table} AS t ORDER BY 1",
                f"SELECT t.id FROM {table} AS t ORDER BY t.id FETCH FIRST 3 ROWS WITH TIES",
                f"SELECT t.id % 3, t.id % 2, count(*) FROM {table} AS t GROUP BY GROUPING SETS ((1), (2), (1, 2), ())",
                f"SELECT t.id, sum(t.id) OVER (ORDER BY t.id ROWS 2 PRECEDING) FROM {table} AS t",
                f"SELECT t.id FROM {table} AS t INTERSECT SELECT id FROM orders EXCEPT SELECT 3",
                "WITH RECURSIVE w (id) AS (SELECT 1 UNION ALL SELECT t.id FROM w JOIN"
                f" (SELECT DISTINCT id FROM {table}) AS t ON t.id = w.id + 1) SELECT count(*) FROM w",
                f"SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY t.id), mode() WITHIN GROUP (ORDER BY t.id % 3)"
                f" FROM {table} AS t{where}",
                f"SELECT x.id FROM {table} AS t, LATERAL jsonb_to_record(jsonb_build_object('id', t.id)) AS x (id int)",
                f"SELECT count(*) FILTER (WHERE t.id > 5), bool_and(t.id > 0) FROM {table} AS t",
                f"SELECT t.id FROM {table} AS t WHERE (t.id, 1) IN (SELECT id, 1 FROM orders)",
            )
        )

    def anything(self) -> str:
        """Write a statement that may do anything, or is refused."""
        query = self.select(2)
        table = self.table()
        column = self.pick(*COLUMNS[table.split(".")[-1]])
        return str(
            self.pick(
                query,
                query,
                query,
                query,
                f"EXPLAIN (ANALYZE, VERBOSE, BUFFERS) {query}",
                f"COPY ({query}) TO STDOUT",
                f"COPY {table} TO STDOUT",
                f"DECLARE c CURSOR FOR {query}; FETCH ALL FROM c",
                f"PREPARE p AS {query}; EXECUTE p; DEALLOCATE p",
                f"CREATE TEMP TABLE x ON COMMIT DROP AS {query}; SELECT * FROM pg_temp.x",
                f"CREATE TEMP VIEW x AS {query}; SELECT * FROM pg_temp.x",
                f"DO $do$ DECLARE r record; BEGIN FOR r IN {query} LOOP RAISE NOTICE '%', r; END LOOP; END $do$",
                f"DO $do$ BEGIN PERFORM ({query}); EXCEPTION WHEN OTHERS THEN RAISE NOTICE '% %', SQLERRM, SQLSTATE;"
                " END $do$",
                f"SELECT query_to_xml({_text(query)}, true, false, '')",
                f"SELECT query_to_xml_and_xmlschema('TABLE ' || {_text(table)}, true, false, '')",
                f"INSERT INTO {table} ({column}) SELECT {column} FROM {table} RETURNING *",
                f"INSERT INTO {table} (id) VALUES (1) ON CONFLICT DO NOTHING RETURNING *",
                f"INSERT INTO {table} (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET {column} = excluded.{column}",
                f"UPDATE {table} SET {column} = {column} RETURNING *",
                f"UPDATE {table} SET id = id WHERE pg_temp.leak({column})",
                f"DELETE FROM {table} WHERE {self.predicate('')} RETURNING *",
                f"MERGE INTO {table} AS m USING {self.table()} AS s ON m.id = s.id WHEN MATCHED THEN DELETE",
                f"SELECT * FROM {table} WHERE pg_temp.leak({column}) AND id > 0",
                f"SELECT * FROM {table} WHERE {column}::text OPERATOR(pg_temp.<<<) 'a' AND id > 3",
                f"SELECT * FROM {table} AS a JOIN orders AS b ON a.{column}::text OPERATOR(pg_temp.<<<) b.email::text",
                f"SELECT ({table.split('.')[-1]}).{column} FROM {table}",
                f"SELECT {column}({table.split('.')[-1]}) FROM {table}",
                f"SELECT ctid, xmin, * FROM {table}",
                f"SELECT * FROM {table} TABLESAMPLE SYSTEM (50)",
                f"SELECT * FROM {table} FOR UPDATE",
                f"SELECT tableoid::regclass, * FROM ONLY {table}",
                f"LOCK TABLE {table}; SELECT 1",
                f"ANALYZE VERBOSE {table}",
                f"SET row_security = off; SELECT * FROM {table}",
                f"SET ROLE {self.pick('pgwitness_masks', 'postgres', 'pg_read_all_data')}; SELECT * FROM {table}",
                f"SET SESSION AUTHORIZATION postgres; SELECT * FROM {table}",
                f"ALTER TABLE {table} ADD CHECK ({column}::text::int > 0)",
                f"CREATE TRIGGER t AFTER UPDATE ON {table} EXECUTE FUNCTION tell()",
                f"CREATE INDEX ON {table} (pg_temp.leak({column}))",
                f"CREATE MATERIALIZED VIEW pg_temp.m AS {query}",
                f"SELECT {column}::text::int FROM {table}",
                f"SELECT 1 / (length({column}::text) - length({column}::text)) FROM {table}",
                "SELECT * FROM pg_stats WHERE schemaname !~ '^pg_cat|^info'",
                "SELECT * FROM pg_stats_ext",
                "SELECT * FROM pg_stats_ext_exprs",
                "SELECT stxdmcv FROM pg_statistic_ext_data",
                "SELECT * FROM pg_statistic",
                "SELECT pg_get_viewdef(oid), pg_get_expr(relpartbound, oid) FROM pg_class WHERE relkind IN ('v', 'r')",
                "SELECT attname, attmissingval FROM pg_attribute WHERE attmissingval IS NOT NULL",
                "SELECT pg_get_constraintdef(oid) FROM pg_constraint",
                "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid > 16000",
                "SELECT query FROM pg_stat_activity",
                "SELECT * FROM pgwitness_masks.pads",
                "SELECT * FROM pgwitness_masks.columns",
                "SELECT pgwitness_masks.come_back()",
                "SELECT lo_import('/etc/passwd')",
                *self.odd(table, column, query),
                "SELECT pg_read_file('pg_hba.conf')",
            )
        )

    def odd(self, table: str, column: str, query: str) -> list[str]:
        """Write what tools and attackers do and people seldom: rows as values, types and casts of one's own, tools."""
        bare = table.split(".")[-1]
        other = self.table()
        return [
            f"SELECT row_to_json({bare}), to_jsonb({bare}) ->> '{column}' FROM {table}",
            f"SELECT x.* FROM (SELECT {bare} FROM {table}) AS s (r), LATERAL json_populate_record(s.r, '{{}}') AS x",
            f"SELECT (r).* FROM (SELECT {bare} AS r FROM {table}) AS s",
            f"SELECT k, v FROM {table}, LATERAL jsonb_each_text(to_jsonb({bare})) AS j (k, v) WHERE k = '{column}'",
            f"SELECT {bare}::public.{bare} FROM {table}",
            f"SELECT CAST({bare} AS text)::{bare} FROM {table}",
            f"SELECT * FROM ROWS FROM (generate_series(1, 3), unnest(ARRAY(SELECT {column}::text FROM {table}))) AS r",
            f"SELECT xmlelement(name x, {column}), xmlforest({column} AS y) FROM {table}",
            f"SELECT table_to_xml('{table}', true, false, ''), 1",
            "SELECT schema_to_xml('public', true, false, '')",
            "SELECT schema_to_xml('mask_public', true, false, ''), 1",
            f"SELECT ts_stat('SELECT to_tsvector(' || quote_ident('{column}') || '::text) FROM {table}')",
            f"SELECT * FROM ts_debug((SELECT string_agg({column}::text, ' ') FROM {table}))",
            f"SELECT id FROM {table} GROUP BY id HAVING count(*) = 1 ORDER BY min({column}::text)",
            f"SELECT {column}, count(*) OVER w, ntile(3) OVER w FROM {table} WINDOW w AS (ORDER BY {column}"
            " ROWS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE TIES)",
            f"SELECT DISTINCT ON ({column}) * FROM {table} ORDER BY {column}, id",
            f"SELECT * FROM {table} ORDER BY {column} FETCH FIRST 3 ROWS WITH TIES",
            f"SELECT {column} FROM {table} INTERSECT SELECT {column} FROM {table} EXCEPT SELECT NULL",
            f"SELECT * FROM {table} NATURAL FULL JOIN {other}",
            f"SELECT {column} FROM {table} GROUP BY CUBE ({column}, id)",
            f"TABLE {table}",
            f"SELECT * FROM {table} AS {bare} ({', '.join(f'c{n}' for n in range(2))})",
            f"WITH x AS MATERIALIZED ({query}) SELECT count(*) FROM x",
            f"WITH RECURSIVE w (n, v) AS (SELECT 1, min({column}::text) FROM {table} UNION ALL"
            f" SELECT n + 1, (SELECT max({column}::text) FROM {table}) FROM w WHERE n < 3) SELECT * FROM w",
            f"CREATE TEMP TABLE x (LIKE {table} INCLUDING ALL); SELECT * FROM pg_temp.x",
            f"CREATE TEMP TABLE x () INHERITS ({table})",
            f"CREATE TEMP TABLE {bare} AS SELECT 1 AS id; SELECT * FROM {table}",
            f"CREATE TEMP TABLE {bare} (id int, email text); INSERT INTO pg_temp.{bare} SELECT id, email FROM {table};"
            f" SELECT * FROM {bare}",
            f"SET LOCAL search_path = pg_temp, public, mask_public; {query}",
            f"SET LOCAL search_path = pg_catalog; {query}",
            f"CREATE FUNCTION pg_temp.f() RETURNS SETOF {table} LANGUAGE sql AS {_text(query)}; SELECT pg_temp.f()",
            f"CREATE FUNCTION pg_temp.f(r {table}) RETURNS text LANGUAGE sql AS 'SELECT r::text';"
            f" SELECT pg_temp.f({bare}) FROM {table}",
            f"CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE plpgsql AS $do$ DECLARE v {table}.{column}%TYPE;"
            f" r {table}%ROWTYPE; BEGIN SELECT * INTO r FROM {table}; RAISE NOTICE '%', r; SELECT {column} INTO v"
            f" FROM {table}; RAISE EXCEPTION '%', v USING DETAIL = r::text; END $do$",
            f"CREATE TYPE pg_temp.t AS (v text); SELECT ROW({column})::pg_temp.t FROM {table}",
            f"CREATE DOMAIN pg_temp.d AS text CHECK (pg_temp.leak(VALUE)); SELECT ({column}::text)::pg_temp.d"
            f" FROM {table}",
            f"CREATE AGGREGATE pg_temp.a (text) (sfunc = textcat, stype = text, initcond = '');"
            f" SELECT pg_temp.a({column}::text) FROM {table}",
            f"CREATE TEMP VIEW x WITH (security_barrier) AS {query}; SELECT * FROM pg_temp.x WHERE pg_temp.leak(1)",
            f"CREATE TEMP VIEW x WITH (security_invoker) AS SELECT * FROM {table}; SELECT * FROM pg_temp.x",
            f"CREATE RULE r AS ON UPDATE TO {table} DO ALSO SELECT 1",
            f"DECLARE c SCROLL CURSOR FOR SELECT * FROM {table}; FETCH LAST FROM c; UPDATE {table} SET id = 1 WHERE"
            " CURRENT OF c",
            f"MERGE INTO {table} AS m USING {other} AS s ON m.id = s.id WHEN MATCHED THEN UPDATE SET {column} = DEFAULT"
            " WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)",
            f"WITH w AS (UPDATE {table} SET id = id RETURNING *) SELECT * FROM w",
            f"UPDATE {table} SET id = s.id FROM (SELECT pg_temp.leak({column}), id FROM {table}) AS s RETURNING *",
            f"INSERT INTO {table} DEFAULT VALUES RETURNING *",
            f"COPY {table} ({column}) FROM PROGRAM 'cat'",
            f"TRUNCATE {table}",
            f"VACUUM (VERBOSE) {table}",
            f"REINDEX TABLE {table}",
            f"COMMENT ON COLUMN {table}.{column} IS 'x'",
            f"EXPLAIN (ANALYZE, VERBOSE, SETTINGS, WAL, FORMAT JSON) SELECT * FROM {table} WHERE {column}::text > 'm'",
            f"EXPLAIN (VERBOSE, GENERIC_PLAN) SELECT * FROM {table} WHERE {column}::text = $1",
            f"SET LOCAL debug_print_plan = on; SET LOCAL client_min_messages = log; SELECT * FROM {table}",
            f"SET LOCAL plan_cache_mode = force_generic_plan; PREPARE p (text) AS SELECT * FROM {table} WHERE"
            f" {column}::text > $1; EXPLAIN (ANALYZE, VERBOSE) EXECUTE p ('m'); EXECUTE p ('m'); DEALLOCATE p",
            f"SET LOCAL enable_seqscan = off; SELECT * FROM {table} WHERE {column}::text LIKE 'm%'",
            f"SET LOCAL DateStyle = 'SQL, DMY'; SET LOCAL TimeZone = 'Etc/GMT+12'; {query}",
            f"SET LOCAL bytea_output = escape; SET LOCAL xmloption = document; SELECT {column}::text::xml FROM {table}",
            f"SELECT pg_column_size({column}), pg_column_compression({column}::text), hashtext({column}::text)"
            f" FROM {table}",
            f"SELECT md5({column}::text), sha256({column}::text::bytea), crc32({column}::text::bytea) FROM {table}",
            f"SELECT currtid2('{table}', '(0,1)')",
            f"SELECT pg_relation_filepath('{table}'), pg_get_replica_identity_index('public.{bare}'::regclass)",
            f"SELECT * FROM pg_get_object_address('table', '{{public,{bare}}}', '{{}}')",
            "SELECT pg_logical_slot_peek_changes('s', NULL, NULL)",
            "SELECT lo_get(oid) FROM pg_largeobject_metadata",
            "SELECT most_common_vals, histogram_bounds FROM pg_stats WHERE tablename !~ '^pg_'",
            "SELECT pg_get_triggerdef(oid), tgqual FROM pg_trigger",
            "SELECT polqual, pg_get_expr(polqual, polrelid) FROM pg_policy",
            "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef",
            "SELECT prosrc FROM pg_proc WHERE pronamespace > 16000",
            "SELECT * FROM pg_prepared_statements; SELECT * FROM pg_cursors",
            "SELECT a.query, l.* FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)",
            "NOTIFY people, 'x'",
            "SELECT * FROM pgwitness_masks.views",
            "SELECT pg_get_viewdef('mask_public.customers'::regclass)",
        ]

    def select(self, depth: int) -> str:
        """Write a SELECT over anything."""
        alias = f"t{depth}"
        source = self.table() if depth == 0 or self.random.random() < 0.6 else f"({self.select(depth - 1)})"
        known = COLUMNS.get(source.split(".")[-1])
        if known is None:
            shown = self.pick(f"{alias}.*", f"{alias}::text", f"to_json({alias})", "count(*)")
            return f"SELECT {shown} FROM {source} AS {alias}"
        shown = ", ".join(
            f"{self.expression(f'{alias}.{self.pick(*known)}')} AS c{n}" for n in range(self.random.randint(1, 3))
        )
        column = f"{alias}.{self.pick(*known)}"
        base = f"FROM {source} AS {alias}"
        where = f" WHERE {self.predicate(column)}" if self.random.random() < 0.5 else ""
        other = self.table()
        join = f"{self.pick('JOIN', 'LEFT JOIN', 'FULL JOIN')} {other} AS o ON o.id = {alias}.id"
        return str(
            self.pick(
                f"SELECT {shown} {base}{where}",
                f"SELECT {alias}.* {base}{where}",
                f"SELECT {alias} {base}{where}",
                f"SELECT {shown}, o.* {base} {join}{where}",
                f"SELECT o.email, {column} {base} {join}{where}",
                f"SELECT {column}, count(*) {base}{where} GROUP BY 1 ORDER BY 2 DESC, 1",
                f"SELECT {self.aggregate(column)} AS a {base}{where}",
                f"SELECT first_value({column}) OVER (ORDER BY {alias}.id) AS f, lag({column}) OVER () {base}{where}",
                f"SELECT DISTINCT {column} {base}{where} ORDER BY 1 LIMIT 5",
                f"WITH RECURSIVE w AS (SELECT * {base}{where}) SELECT * FROM w",
                f"SELECT {column}::text {base} UNION SELECT email::text FROM {other}",
                f"SELECT l.* {base}, LATERAL (SELECT {column} AS v, o.* FROM {other} AS o LIMIT 3) AS l",
                f"SELECT (SELECT {self.aggregate('o.email')} FROM {other} AS o WHERE o.id = {alias}.id) {base}",
                f"SELECT * {base} WHERE {column}::text IN (SELECT email::text FROM {other})",
                f"SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY {column}) {base}",
                f"SELECT {column} {base} GROUP BY GROUPING SETS (({column}), ()) HAVING {self.predicate(column)}",
            )
        )

    def table(self) -> str:
        """Name a table: mostly as the audience would, else past its views."""
        name = self.pick(*COLUMNS)
        return str(self.pick(name, name, name, name, f"mask_public.{name}", f"public.{name}"))

    def expression(self, column: str) -> str:
        """Write something made of a column."""
        return str(
            self.pick(
                column,
                f"{column}::text",
                f"upper({column}::text)",
                f"reverse({column}::text)",
                f"substr({column}::text, 1, 8)",
                f"encode(convert_to({column}::text, 'UTF8'), 'hex')",
                f"encode(convert_to({column}::text, 'UTF8'), 'base64')",
                f"regexp_replace({column}::text, '[0-9]', '', 'g')",
                f"format('%L', {column})",
                f"to_jsonb({column})",
                f"coalesce({column}::text, 'none')",
                f"CASE WHEN {column} IS NULL THEN 'none' ELSE {column}::text END",
                f"length({column}::text)",
                f"row({column}, 1)",
                f"ARRAY[{column}]",
                f"nullif({column}::text, '')",
                f"ascii({column}::text)",
                f"string_to_array({column}::text, '@')",
                f"({column}::text)::int",
                f"({column}::text)::date",
                f"({column}::text)::jsonb",
                f"pg_typeof({column})",
            )
        )

    def aggregate(self, column: str) -> str:
        """Write an aggregate of a column."""
        return str(
            self.pick(
                f"string_agg({column}::text, ',')",
                f"array_agg({column})",
                f"json_agg({column})",
                f"min({column}::text)",
                f"max({column})",
                f"mode() WITHIN GROUP (ORDER BY {column})",
                f"jsonb_object_agg(coalesce({column}::text, ''), 1)",
                f"count(DISTINCT {column})",
            )
        )

    def predicate(self, column: str) -> str:
        """Write a condition."""
        column = column or "id"
        return str(
            self.pick(
                "true",
                f"{column} IS NOT NULL",
                f"{column}::text LIKE '%1%'",
                f"{column}::text ~ '^.*7'",
                f"pg_temp.leak({column})",
                f"{column}::text OPERATOR(pg_temp.<<<) 'x'",
                f"{column}::text > 'm'",
                f"({column}::text)::int = 1",
            )
        )


def _text(query: str) -> str:
    escaped = query.replace("'", "''")
    return f"'{escaped}'"


class Session:
    """The audience's session, and everything that came back to it."""

    def __init__(self, dsn: str, role: str = "support") -> None:
        self.connection = psycopg.connect(dsn, user=role, autocommit=True)
        self.said: list[bytes] = []
        self.connection.add_notice_handler(lambda notice: self.said.extend(_fields(notice)))
        self.connection.add_notify_handler(lambda notify: self.said.append(repr(notify).encode()))
        self.connection.execute(f"SET statement_timeout = '10s'; SET client_min_messages = debug1; {NOISY}".encode())

    def run(self, statement: str, *, binary: bool = False) -> tuple[str, list[bytes]]:
        """Run statements and undo them; gives `ok` or the SQLSTATE, and every byte that came back."""
        self.said.clear()
        rows: list[bytes] = []
        outcome = "ok"
        try:
            with self.connection.transaction(force_rollback=True):
                parts = [statement] if "$do$" in statement else statement.split("; ")
                for part in parts:
                    rows += self._part(part, binary=binary)
        except psycopg.Error as error:
            outcome = error.sqlstate or "unknown"
            rows += [str(error).encode(), *_fields(error.diag)]
        self.connection.execute("DEALLOCATE ALL")  # notifications come with its answer
        return outcome, rows + self.said

    def _part(self, statement: str, *, binary: bool) -> Iterator[bytes]:
        if statement.startswith("COPY"):
            with self.connection.cursor().copy(statement.encode()) as copy:
                yield from (bytes(chunk) for chunk in copy)
            return
        cursor = self.connection.execute(statement.encode(), binary=binary)
        while True:
            result = cursor.pgresult
            if result is not None and result.status == pq.ExecStatus.TUPLES_OK:
                for column in range(result.nfields):
                    yield result.fname(column) or b""
                    for row in range(result.ntuples):
                        yield result.get_value(row, column) or b""
            if not cursor.nextset():
                return


def _fields(diag: Diagnostic) -> list[bytes]:
    """Give every field of an error or a notice."""
    return [field.encode() for name in _NAMES if (field := getattr(diag, name, None)) is not None]


_NAMES = [name for name in dir(Diagnostic) if not name.startswith("_")]


def leaks(answer: list[bytes], *, binary: bool) -> list[bytes]:
    """List the pieces of an answer that hold a mark."""
    forms = (*FORMS, *BINARY) if binary else FORMS
    return [piece for piece in answer if any(form in piece for form in forms)]


class Found(Struct):
    """What a run found: statements that leaked, clear ones whose answer differs, and how statements ended.

    `explained` are clear ones that failed with an error that says what masks have to do with it.
    """

    leaked: list[tuple[str, bytes]] = []
    differing: list[tuple[str, str]] = []
    explained: list[tuple[str, str]] = []
    clear: int = 0
    outcomes: Counter[str] = Counter()


_WHY = (b"views that mask", b"view that masks", b"is masked for")


def run(
    dsn: str,
    count: int,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
    *,
    through: str | None = None,
    queries: Queries | None = None,
) -> Found:
    """Run so many random statements against a database that `SCHEMA` and `masks` were put into.

    The audience asks at `through`, the database itself unless that is given.
    """
    queries = queries or Queries(seed)
    found = Found(outcomes=Counter())
    session, admin = Session(through or dsn), psycopg.connect(dsn, autocommit=True)
    for number in range(count):
        clear = number % 4 == 0
        statement = queries.asked() if clear else queries.anything()
        binary = queries.random.random() < 0.5
        outcome, answer = session.run(statement, binary=binary)
        found.outcomes[outcome] += 1
        found.leaked += [(statement, piece[:200]) for piece in leaks(answer, binary=binary)[:1]]
        if clear:
            found.clear += 1
            if outcome != "ok" and any(why in piece for piece in answer for why in _WHY):
                found.explained.append((statement, outcome))
            elif outcome != "ok" or _rows(admin, statement) != _rows(session.connection, statement):
                found.differing.append((statement, outcome))
        progress(number)
    session.connection.close()
    admin.close()
    return found


def _rows(connection: psycopg.Connection[Any], statement: str) -> list[str]:
    """Run a statement that reads, and undo it; gives its rows as text, sorted."""
    with connection.transaction(force_rollback=True):
        if statement.startswith("COPY"):
            with connection.cursor().copy(statement.encode()) as copy:
                return sorted(map(str, copy.rows()))
        cursor = connection.execute(statement.encode())
        while cursor.nextset():
            pass
        rows = sorted(map(str, cursor.fetchall()))
        connection.execute("DEALLOCATE ALL")
        return rows


def prepare(dsn: str) -> None:
    """Make the schema and install the masks. Raise `AssertionError` when something is left."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(SCHEMA.encode())
    with psycopg.connect(dsn) as connection:
        report = install.install(connection, masks())
    assert not report.left, report.left


def main(count: int) -> int:
    """Run on a server of its own; gives the exit code."""
    from pgwitness.demo.servers import FAST_AND_FORGETFUL, Postgres

    with (
        tempfile.TemporaryDirectory(prefix="pgwitness-lineage-") as folder,
        Postgres(Path(folder) / "postgres", settings=FAST_AND_FORGETFUL) as server,
    ):
        Path(folder).chmod(0o711)
        prepare(server.dsn())
        found = run(server.dsn(), count, 1, lambda n: print(f"\r{n + 1} of {count}", end="", file=sys.stderr))
    print(f"\n{count} statements: {dict(found.outcomes.most_common())}")
    print(f"{found.clear} of clear columns, of which {len(found.differing)} differ: {found.differing[:3]}")
    print(f"{len(found.leaked)} leaked: {found.leaked[:3]}")
    return 1 if found.leaked or len(found.differing) > 0.05 * found.clear else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
