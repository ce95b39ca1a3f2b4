"""Statements that carry secrets in every way that a statement, an error or a plan can, for `test_log_secrets`.

`{w}` stands for a secret word, `{m}` for an address of mail, `{n}` for a number, `{p}` for a phrase: each gets a
value of its own every time, and all of them can be told again by `MARKS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count

MARKS = (b"hush", b"98765432")
SETUP = """
CREATE TABLE customers (id int PRIMARY KEY, email text UNIQUE, card bigint CHECK (card > 0), note text NOT NULL);
CREATE UNIQUE INDEX ON customers (lower(note));
CREATE TABLE pay (id int PRIMARY KEY, customer int REFERENCES customers, day date, what varchar(5)) ;
CREATE TABLE parts (id int, of_day text) PARTITION BY LIST (of_day);
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN short AS text CHECK (length(value) < 5);
CREATE FUNCTION raises(what text, code text) RETURNS void LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION '%', what USING ERRCODE = code, DETAIL = what, HINT = what, COLUMN = 'a', TABLE = what; END$$;
CREATE FUNCTION imitates(form text, what text, code text) RETURNS void LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION USING MESSAGE = format(form, what), ERRCODE = code,
    DETAIL = format('Key (%s)=(%s) already exists.', what, what); END$$;
CREATE FUNCTION warns(what text) RETURNS text LANGUAGE plpgsql AS
$$BEGIN RAISE WARNING 'warned %', what; RAISE LOG 'noted %', what; RETURN what; END$$;
CREATE FUNCTION casts(what text) RETURNS int LANGUAGE plpgsql AS $$BEGIN RETURN what::int; END$$;
CREATE FUNCTION inlined(what text) RETURNS int LANGUAGE sql AS $$SELECT what::int$$;
INSERT INTO customers VALUES (1, 'a', 1, 'a');
"""

CODES = ("P0001", "23505", "42501", "22007", "42703", "42P01", "3D000", "57014", "40P01", "XX000", "28P01", "42601")
FORMS = (
    "permission denied for table %s", 'duplicate key value violates unique constraint "%s"',
    'column "%s" does not exist', 'relation "%s" already exists', 'role "%s" does not exist',
    'invalid input syntax for type %s: "x"', "%s", '"%s" is not a table', "must be owner of table %s",
    'new row for relation "%s" violates check constraint "%1$s"', "cannot drop table %s because %1$s depends on it",
)  # fmt: skip

FAILING = r"""
INSERT INTO customers VALUES (1, '{m}', 2, '{p}')
INSERT INTO customers VALUES (2, 'a', {n}, '{p}')
INSERT INTO customers VALUES (2, '{m}', -{n}, '{p}')
INSERT INTO customers VALUES (2, '{m}', {n}, NULL)
INSERT INTO customers VALUES ('{w}', 'b', 1, 'c')
INSERT INTO customers VALUES (2, 'b', '{p}', 'c')
INSERT INTO pay VALUES (1, {n})
INSERT INTO pay VALUES (1, 987654)
INSERT INTO pay (id, day) VALUES (1, '{p}')
INSERT INTO pay (id, what) VALUES (1, '{p}')
INSERT INTO parts VALUES (1, '{w}')
SELECT '{w}'::int
SELECT '{m}'::inet
SELECT '{w}'::mood
SELECT '{p}'::short
SELECT '{p}'::uuid, '{w}'::timestamp
SELECT '{{"a": {w}}}'::json
SELECT '{{1,{w}'::int[]
SELECT E'\x{w}'::bytea
SELECT '({w}'::point
SELECT to_date('{w}', 'YYYY-MM-DD')
SELECT to_timestamp('{p}', 'HH24')
SELECT to_number('{w}', '999')
SELECT 1 / (length('{w}') - length('{w}'))
SELECT regexp_replace('a', '({w}', 'b')
SELECT 'a' ~ '[{w}'
SELECT '{w}'::regclass
SELECT 'public.{w}'::regclass
SELECT nextval('{w}')
SELECT currval('{m}')
SELECT pg_read_file('{w}')
SELECT lo_import('{w}')
SELECT set_config('{w}', '{p}', false)
SELECT current_setting('{w}')
SELECT convert_from('\xff{h}'::bytea, '{w}')
SELECT decode('{w}', '{w}')
SELECT xmlparse(document '<{w}>')
SELECT jsonb_path_query('{{}}', '$.{w}[')
SELECT to_tsquery('{w} {w}')
SELECT interval '{p}'
SELECT {n}::int
SELECT {n}{n}{n}::bigint
SELECT card + {n}{n} FROM customers WHERE card / 0 = {n}
UPDATE customers SET note = 'x' WHERE email = "{m}"
UPDATE customers SET note = 'x' WHERE email = "{w}" AND note = "{p}"
UPDATE customers SET note = "{p}", email = "{w}" WHERE id = 1
DELETE FROM customers WHERE email = {w}
DELETE FROM customers WHERE note = {w} OR email = {w}
SELECT c.{w} FROM customers c
SELECT "{p}"
SELECT {w}('{p}')
SELECT lower({w}, {w})
SELECT * FROM "{m}"
SELECT * FROM {w}
SELECT * FROM {w}.{w}
SELECT * FROM customers WHERE email = `{m}`
SELECT * FROM customers WHERE email = “{m}”
SELECT * FROM customers WHERE email = '{m}' AND AND
SELECT * FROM customers WHERE id = ${n}
INSERT INTO customers VALUES ("{w}", {w}, "{m}")
INSERT INTO customers ({w}) VALUES (1)
INSERT INTO customers ("{m}") VALUES (1)
EXECUTE {w}('{p}')
EXECUTE "{m}"
EXECUTE nothing("{m}", {w})
FETCH {w}
CLOSE {w}
DEALLOCATE {w}
ROLLBACK TO SAVEPOINT {w}
CALL {w}('{p}')
ALTER ROLE nobody PASSWORD {w}
ALTER ROLE nobody PASSWORD {w} …
ALTER ROLE nobody PASSWORD '{w}' …
ALTER USER nobody IDENTIFIED BY {w}
CREATE USER nobody WITH PASSWORD = '{w}'
CREATE USER nobody PASSWORD "{w}"
ALTER ROLE nobody WITH ENCRYPTED PASSWORD '{w}'
ALTER ROLE {w} RENAME TO {w}
GRANT {w} TO {w}
SET ROLE {w}
SET ROLE '{m}'
SET SESSION AUTHORIZATION '{w}'
SET work_mem = {w}
SET work_mem = '{p}'
SET {w} = {w}
SET TIME ZONE '{w}'
SET search_path = "{m}", {w}; SELECT {w}
SHOW {w}
RESET {w}
CREATE DATABASE postgres TEMPLATE {w}
CREATE TABLE pay (a int DEFAULT '{w}')
CREATE TABLE more (a {w})
CREATE TABLE more (a int DEFAULT {w})
CREATE TABLE more (a int CHECK (a = '{w}'))
CREATE TABLE more (LIKE {w})
CREATE INDEX ON customers ({w})
CREATE INDEX ON customers ((note || "{m}"))
CREATE VIEW more AS SELECT "{m}" FROM customers
CREATE EXTENSION {w}
CREATE EXTENSION "{m}"
CREATE SERVER s FOREIGN DATA WRAPPER {w} OPTIONS (password '{w}')
CREATE USER MAPPING FOR postgres SERVER nothing OPTIONS (user '{w}', password '{p}')
CREATE SUBSCRIPTION s CONNECTION 'host=nowhere password={w}' PUBLICATION {w}
CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port=1 password={w}' PUBLICATION p
CREATE FUNCTION more() RETURNS int LANGUAGE sql AS $x$SELECT '{w}'::int + {w}$x$
CREATE FUNCTION more() RETURNS int LANGUAGE plpgsql AS $x$BEGIN {w}; END$x$
CREATE FUNCTION more() RETURNS int LANGUAGE {w} AS '{p}'
CREATE FUNCTION more() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT {w}; END
DO $x$BEGIN EXECUTE 'SELECT {w}'; END$x$
DO $x$BEGIN EXECUTE format('SELECT %I', '{m}'); END$x$
DO $x$BEGIN PERFORM '{w}'::int; END$x$
DO $x$BEGIN RAISE EXCEPTION 'no {m} here'; END$x$
DO $x$BEGIN RAISE unique_violation USING MESSAGE = '{m}', CONSTRAINT = '{w}'; END$x$
DO $x$DECLARE a int := {w}; BEGIN END$x$
DO $x$BEGIN UPDATE customers SET note = 'a' WHERE email = "{m}"; END$x$
DO $x$BEGIN ASSERT false, '{p}'; END$x$
DO LANGUAGE {w} $x${p}$x$
DO $x$BEGIN IF {w} THEN {w} END$x$
COMMENT ON TABLE {w} IS '{p}'
COMMENT ON TABLE customers IS "{p}"
SECURITY LABEL FOR {w} ON TABLE customers IS '{p}'
NOTIFY a, "{w}"
NOTIFY a, {w}
LISTEN "{m}" "{w}"
COPY customers FROM '{w}'
COPY customers FROM PROGRAM 'exit 1; {w}'
COPY customers TO '/{w}/{w}'
COPY customers FROM stdin WITH ({w} '{w}')
COPY {w} TO STDOUT
EXPLAIN SELECT * FROM customers WHERE email = "{m}"
EXPLAIN ({w}) SELECT '{p}'
EXPLAIN ANALYZE SELECT '{w}'::int
VALUES ('{w}'::int)
TABLE {w}
MERGE INTO customers USING (VALUES ('{w}')) v(a) ON email = "{m}" WHEN MATCHED THEN DELETE
WITH a AS (SELECT '{w}') SELECT a.{w} FROM a
SELECT x'{w}'
SELECT b'{w}'
SELECT U&'\{w}'
SELECT U&"d\{w}"
SELECT U&"d\0061{w}"
SELECT $x${w}
SELECT '{w}
SELECT "{w}
SELECT /* {w}
SELECT casts('{w}')
SELECT inlined('{m}')
SELECT warns('{m}')::int
SELECT dblink('password={w}', '{p}')
SELECT query_to_xml('SELECT {w}, ''{p}''', true, true, '')
SELECT pg_logical_emit_message(true, '{w}', '{w}'::int)
LOCK TABLE {w}
TRUNCATE "{m}"
REINDEX TABLE {w}
VACUUM {w}
CLUSTER customers USING {w}
IMPORT FOREIGN SCHEMA {w} FROM SERVER {w} INTO public
ALTER TABLE customers ADD CHECK (note <> '{w}' AND {w})
ALTER TABLE customers ALTER note SET DEFAULT {w}
ALTER TABLE customers ADD COLUMN x int DEFAULT '{w}'
ALTER SYSTEM SET {w} = '{w}'
ALTER DATABASE {w} SET a.b = '{w}'
\password {w}
\set password {w}
Ünïcode {w} ‘{p}’
{p}
{m}
{n}
"""

WORKING = r"""
SELECT id FROM customers WHERE email = '{m}' -- {w}
SELECT id FROM customers WHERE email = '{m}' /* {w} */ AND card = {n}
SELECT '{w}' AS "{m}"
SELECT $q${p}$q$, E'\t{w}', U&'\0061{w}', B'1', {n}, {n}.5, 1e5, N'{w}'
SELECT warns('{m}')
SET my.secret = {w}
SET my.secret = '{p}'
SET application_name = 'app'
SELECT set_config('my.secret', '{w}', false)
NOTIFY here, '{p}'
COMMENT ON TABLE customers IS '{p}'
PREPARE q AS SELECT id FROM customers WHERE email = $1 AND note <> '{w}'
EXECUTE q('{m}')
EXPLAIN EXECUTE q('{m}')
EXPLAIN ANALYZE SELECT id FROM customers WHERE email = '{m}'
DEALLOCATE q
BEGIN; DECLARE c CURSOR FOR SELECT id FROM customers WHERE email = '{m}'; FETCH ALL FROM c; COMMIT
DO $x$BEGIN PERFORM '{w}'; EXECUTE 'SELECT 1 WHERE ''{w}'' = $1' USING '{p}'; END$x$
CREATE OR REPLACE FUNCTION more() RETURNS text LANGUAGE sql AS $x$SELECT '{w}'::text$x$
CREATE OR REPLACE FUNCTION atomic() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT '{w}'::text; END
CREATE ROLE keeper PASSWORD '{w}'
ALTER ROLE keeper PASSWORD '{w}' VALID UNTIL '2030-01-01'
ALTER ROLE keeper SET my.secret = {w}
DROP ROLE keeper
COPY (SELECT '{w}') TO '/dev/null'
SELECT count(*) FROM customers WHERE email IN ('{m}', '{m}') AND note LIKE '%{w}%' AND card BETWEEN {n} AND {n}
INSERT INTO customers VALUES (7, '{m}', {n}, '{p}') ON CONFLICT DO NOTHING
UPDATE customers SET note = '{p}', card = {n} WHERE email = '{m}'
DELETE FROM customers WHERE email = '{m}'
SELECT query_to_xml('SELECT ''{w}''', true, true, '')
CREATE TEMP TABLE scratch AS SELECT '{w}'::text AS a
SECURITY LABEL ON TABLE customers IS NULL
SELECT json_build_object('a', '{w}') ->> '{w}', ARRAY['{w}'] || '{p}'
SELECT 1 WHERE '{w}' = ANY (string_to_array('{p}', ' '))
"""

_HOLE = re.compile(r"\{([wmnph])\}")


def filled(text: str, numbers: Iterator[int]) -> str:
    """Put secrets into a template."""

    def secret(hole: re.Match[str]) -> str:
        number = next(numbers)
        return {
            "w": f"hush{number:04d}",
            "m": f"hush{number:04d}@x.example",
            "n": f"98765432{number:04d}",
            "p": f"Ann Hush{number:04d}",
            "h": "00",
        }[hole[1]]

    return _HOLE.sub(secret, text).replace("{{", "{").replace("}}", "}")


def statements() -> list[str]:
    """Give all statements, each with secrets of its own."""
    numbers = count()
    raised = [f"SELECT raises('{{p}} {{m}}', '{code}')" for code in CODES]
    imitated = [f"SELECT imitates('{form}', '{{m}}', '{code}')" for form, code in zip(FORMS, CODES, strict=False)]
    imitated += [f"SELECT imitates('{form}', '{{w}}', '42501')" for form in FORMS]
    texts = [line for part in (FAILING, WORKING) for line in part.splitlines() if line.strip()]
    return [filled(text, numbers) for text in [*texts, *raised, *imitated]]


def secrets() -> int:
    """Count the secrets that the statements carry."""
    return sum(text.lower().count("hush") + text.count("98765432") for text in statements())
