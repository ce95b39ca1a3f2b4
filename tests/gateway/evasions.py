"""Ways to do through the gateway what a policy denies, and honest work that looks alike; `test_ways.py` tries them.

The policies of `test_ways.py` deny to take all rows of a table, or the table, to read `cards.number` behind `log.line`,
and what the packaged policies deny. A way is a list of texts of one session, of which `!` stands for reading
`log.line`. `x:` sends a text by the extended protocol, `p:` prepares it, `b:` prepares it and does not run it. `a:` is
sent by an administrator past the gateway, before the gateway has read the catalogue.
"""

# ruff: noqa: E501 - a text is one line, as it is sent
from __future__ import annotations

SETUP = """
CREATE TABLE victim (id int PRIMARY KEY, n int);
CREATE TABLE cards (id int PRIMARY KEY, number text, owner text);
CREATE TABLE log (id int, line text);
INSERT INTO victim SELECT n, n FROM generate_series(1, 5) AS n;
INSERT INTO cards VALUES (1, '4111-2222', 'ada');
INSERT INTO log VALUES (1, 'x');
"""
"""What stands in a database before each way."""

_WIPES = "CREATE FUNCTION wipe() RETURNS int LANGUAGE plpgsql AS $$ BEGIN DELETE FROM public.victim; RETURN 1; END $$"
_WIPES_ROW = (
    "CREATE FUNCTION wipe() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM public.victim; RETURN NEW; END $$"
)
_WIPES_ONE = (
    "CREATE FUNCTION wipe({}) RETURNS {} LANGUAGE plpgsql AS $$ BEGIN DELETE FROM public.victim; RETURN {}; END $$"
)
_EVENT = "CREATE FUNCTION wipe() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM victim; END $$"
_ADDS_ROW = (
    "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN INSERT INTO log VALUES (2, 'y'); RETURN NEW; END $$"
)
_AS_TEXT = _WIPES_ONE.format("log", "text", "'x'")


def _made(before: str, *steps: str) -> tuple[str, ...]:
    """Give a way of which the function is made by the session itself."""
    return (before, *steps)


WAYS: dict[str, tuple[str, ...]] = {
    # what is attached to something, and runs with it
    "trigger": (
        _WIPES_ROW,
        "CREATE TRIGGER t AFTER INSERT ON log FOR EACH ROW EXECUTE FUNCTION wipe()",
        "INSERT INTO log VALUES (2)",
    ),
    "trigger on a function of before": (
        "a:" + _WIPES_ROW,
        "CREATE TRIGGER t AFTER INSERT ON log FOR EACH ROW EXECUTE FUNCTION wipe()",
        "INSERT INTO log VALUES (2)",
    ),
    "trigger, old word": (
        _WIPES_ROW,
        "CREATE OR REPLACE TRIGGER t BEFORE UPDATE ON log EXECUTE PROCEDURE public.wipe()",
        "UPDATE log SET id = 3 WHERE id = 1",
    ),
    "constraint trigger": (
        _WIPES_ROW,
        "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON log DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wipe()",
        "INSERT INTO log VALUES (2)",
    ),
    "trigger whose function is replaced": (
        _ADDS_ROW.replace("log VALUES", "victim VALUES").replace("(2, 'y')", "(9, 9) ON CONFLICT DO NOTHING"),
        "CREATE TRIGGER t AFTER INSERT ON log FOR EACH ROW EXECUTE FUNCTION noted()",
        _WIPES_ROW.replace("CREATE FUNCTION wipe", "CREATE OR REPLACE FUNCTION noted"),
        "INSERT INTO log VALUES (2)",
    ),
    "trigger of before whose function is replaced": (
        "a:" + _ADDS_ROW,
        "a:CREATE TRIGGER t AFTER UPDATE ON log FOR EACH ROW EXECUTE FUNCTION noted()",
        _WIPES_ROW.replace("CREATE FUNCTION wipe", "CREATE OR REPLACE FUNCTION noted"),
        "UPDATE log SET id = 3 WHERE id = 1",
    ),
    "trigger on a view": (
        _WIPES_ROW,
        "CREATE VIEW v AS SELECT id FROM log",
        "CREATE TRIGGER t INSTEAD OF INSERT ON v FOR EACH ROW EXECUTE FUNCTION wipe()",
        "INSERT INTO v VALUES (2)",
    ),
    "trigger in a schema that is made": (
        "CREATE SCHEMA s CREATE TABLE t (id int)",
        _WIPES_ROW,
        "CREATE TRIGGER t AFTER INSERT ON s.t FOR EACH ROW EXECUTE FUNCTION public.wipe()",
        "INSERT INTO s.t VALUES (2)",
    ),
    "event trigger": (
        _EVENT,
        "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION wipe()",
        "CREATE TABLE z (id int)",
    ),
    "rule": ("CREATE RULE r AS ON INSERT TO log DO ALSO DELETE FROM victim", "INSERT INTO log VALUES (2)"),
    "rule in brackets": (
        "CREATE OR REPLACE RULE r AS ON UPDATE TO log DO INSTEAD (DELETE FROM victim; INSERT INTO log VALUES (5))",
        "UPDATE log SET id = 2 WHERE id = 1",
    ),
    "rule that calls": (
        _WIPES,
        "CREATE RULE r AS ON INSERT TO log DO ALSO SELECT wipe()",
        "INSERT INTO log VALUES (2)",
    ),
    "operator": (
        _WIPES_ONE.format("int, int", "bool", "true"),
        "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = wipe)",
        "SELECT 1 === 2",
    ),
    "operator, old word": (
        _WIPES_ONE.format("int, int", "bool", "true"),
        "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, PROCEDURE = public.wipe)",
        "SELECT 1 OPERATOR(public.===) 2",
    ),
    "prefix operator": (
        "a:" + _WIPES_ONE.format("int", "bool", "true"),
        "CREATE OPERATOR !!! (RIGHTARG = int, FUNCTION = wipe)",
        "SELECT !!! 2",
    ),
    "aggregate": (
        _WIPES_ONE.format("int, int", "int", "1"),
        "CREATE AGGREGATE wiped(int) (SFUNC = wipe, STYPE = int)",
        "SELECT wiped(id) FROM log",
    ),
    "aggregate, final function": (
        _WIPES_ONE.format("int", "int", "1"),
        "CREATE AGGREGATE wiped(int) (SFUNC = int4pl, STYPE = int, FINALFUNC = wipe, INITCOND = '0')",
        "SELECT wiped(id) FROM log",
    ),
    "aggregate, old form": (
        _WIPES_ONE.format("int, int", "int", "1"),
        "CREATE AGGREGATE wiped (BASETYPE = int, SFUNC = wipe, STYPE = int)",
        "SELECT wiped(id) FROM log",
    ),
    "cast": (
        "CREATE TYPE pair AS (a int)",
        _WIPES_ONE.format("pair", "int", "1"),
        "CREATE CAST (pair AS int) WITH FUNCTION wipe(pair)",
        "SELECT ROW(1)::pair::int",
    ),
    "cast that is implicit": (
        "CREATE TYPE pair AS (a int)",
        _WIPES_ONE.format("pair", "int", "1"),
        "CREATE CAST (pair AS int) WITH FUNCTION public.wipe(pair) AS ASSIGNMENT",
        "INSERT INTO log (id) SELECT ROW(1)::pair",
    ),
    "default": (_WIPES, "ALTER TABLE log ALTER id SET DEFAULT wipe()", "INSERT INTO log (line) VALUES ('z')"),
    "default of a new table": (_WIPES, "CREATE TABLE z (id int DEFAULT wipe(), n int)", "INSERT INTO z (n) VALUES (1)"),
    "default of a function's argument": (
        _WIPES,
        "CREATE FUNCTION harmless(a int DEFAULT wipe()) RETURNS int LANGUAGE sql AS 'SELECT a'",
        "SELECT harmless()",
    ),
    "default that is replaced": (
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE log ALTER id SET DEFAULT one()",
        "CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE plpgsql AS $$ BEGIN DELETE FROM public.victim; RETURN 1; END $$",
        "INSERT INTO log (line) VALUES ('z')",
    ),
    "default of before that is replaced": (
        "a:CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "a:ALTER TABLE log ALTER id SET DEFAULT one()",
        "CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE plpgsql AS $$ BEGIN DELETE FROM public.victim; RETURN 1; END $$",
        "INSERT INTO log (line) VALUES ('z')",
    ),
    "added column": (_WIPES, "ALTER TABLE log ADD COLUMN z int DEFAULT wipe()"),
    "generated column": (
        _WIPES_ONE.format("int", "int", "1").replace(
            " AS $$", " IMMUTABLE AS $$ DECLARE x int; BEGIN x := public.inner_wipe(); RETURN 1; END $$; --"
        ),
        _WIPES.replace("wipe()", "public.inner_wipe()"),
        "CREATE TABLE z (id int, g int GENERATED ALWAYS AS (wipe(id)) STORED)",
        "INSERT INTO z VALUES (1)",
    ),
    "check": (_WIPES_ONE.format("int", "bool", "true"), "ALTER TABLE log ADD CHECK (wipe(id))"),
    "check without looking": (
        _WIPES_ONE.format("int", "bool", "true"),
        "ALTER TABLE log ADD CONSTRAINT c CHECK (wipe(id)) NOT VALID",
        "INSERT INTO log VALUES (2)",
    ),
    "domain": (_WIPES_ONE.format("int", "bool", "true"), "CREATE DOMAIN d AS int CHECK (wipe(VALUE))", "SELECT 1::d"),
    "domain that is altered": (
        _WIPES_ONE.format("int", "bool", "true"),
        "CREATE DOMAIN d AS int",
        "ALTER DOMAIN d ADD CHECK (wipe(VALUE))",
        "SELECT 1::d",
    ),
    "domain's default": (
        _WIPES,
        "CREATE DOMAIN d AS int DEFAULT wipe()",
        "CREATE TABLE z (a d, b int)",
        "INSERT INTO z (b) VALUES (1)",
    ),
    "index": (
        _WIPES_ONE.format("int", "int", "1").replace(
            " AS $$", " IMMUTABLE AS $$ BEGIN RETURN public.inner_wipe(); END $$; --"
        ),
        _WIPES.replace("wipe()", "public.inner_wipe()"),
        "CREATE INDEX ON log (wipe(id))",
    ),
    "partial index": (
        _WIPES_ONE.format("int", "int", "1").replace(
            " AS $$", " IMMUTABLE AS $$ BEGIN RETURN public.inner_wipe(); END $$; --"
        ),
        _WIPES.replace("wipe()", "public.inner_wipe()"),
        "CREATE INDEX ON log (id) WHERE wipe(id) = 1",
    ),
    "partition bound": (
        _WIPES,
        "CREATE TABLE z (id int) PARTITION BY RANGE (id)",
        "CREATE TABLE z1 PARTITION OF z FOR VALUES FROM (wipe()) TO (10)",
    ),
    "using": (_WIPES_ONE.format("int", "text", "'x'"), "ALTER TABLE log ALTER id TYPE text USING wipe(id)"),
    "row security": (
        _WIPES_ONE.format("int", "bool", "true"),
        "ALTER TABLE log ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE log FORCE ROW LEVEL SECURITY",
        "CREATE POLICY p ON log USING (wipe(id))",
        "SET row_security = on",
        "CREATE ROLE {role}_plain",
        "GRANT ALL ON log TO {role}_plain",
        "SET ROLE {role}_plain",
        "SELECT * FROM log",
    ),
    "view that calls": (_WIPES, "CREATE VIEW v AS SELECT wipe()", "SELECT * FROM v"),
    "view of before that calls": ("a:" + _WIPES, "a:CREATE VIEW v AS SELECT wipe() AS w", "SELECT * FROM v"),
    "materialized view": (
        _WIPES,
        "CREATE MATERIALIZED VIEW v AS SELECT wipe() WITH NO DATA",
        "REFRESH MATERIALIZED VIEW v",
    ),
    "materialized view of before": (
        "a:" + _WIPES,
        "a:CREATE MATERIALIZED VIEW v AS SELECT wipe() AS w WITH NO DATA",
        "REFRESH MATERIALIZED VIEW v",
    ),
    "statistics": (
        _WIPES_ONE.format("int", "int", "1").replace(
            " AS $$", " IMMUTABLE AS $$ BEGIN RETURN public.inner_wipe(); END $$; --"
        ),
        _WIPES.replace("wipe()", "public.inner_wipe()"),
        "CREATE STATISTICS st ON (wipe(id)), line FROM log",
        "ANALYZE log",
    ),
    "trigger's condition": (
        _WIPES_ONE.format("int", "bool", "true"),
        _ADDS_ROW.replace("log VALUES", "victim VALUES").replace("(2, 'y')", "(9, 9) ON CONFLICT DO NOTHING"),
        "CREATE TRIGGER t BEFORE INSERT ON log FOR EACH ROW WHEN (wipe(NEW.id)) EXECUTE FUNCTION noted()",
        "INSERT INTO log VALUES (2)",
    ),
    "transform of a range type": (
        _WIPES_ONE.format("int, int", "float8", "1.0").replace(
            " AS $$", " IMMUTABLE AS $$ BEGIN PERFORM public.inner_wipe(); RETURN 1; END $$; --"
        ),
        _WIPES.replace("wipe()", "public.inner_wipe()"),
        "CREATE TYPE r AS RANGE (SUBTYPE = int, SUBTYPE_DIFF = wipe)",
        "CREATE TABLE z (v r)",
        "INSERT INTO z SELECT r(n, n + 3) FROM generate_series(1, 900) AS n",
        "CREATE INDEX ON z USING gist (v)",
    ),
    "operator class": (
        _WIPES_ONE.format("int, int", "int", "0").replace(
            " AS $$", " IMMUTABLE AS $$ BEGIN PERFORM public.inner_wipe(); RETURN 0; END $$; --"
        ),
        _WIPES.replace("wipe()", "public.inner_wipe()"),
        "CREATE OPERATOR CLASS c FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 wipe(int, int)",
        "CREATE INDEX ON victim (n c)",
    ),
    # calls that look like something else
    "attribute": (_AS_TEXT, "SELECT log.wipe FROM log"),
    "attribute of before": ("a:" + _AS_TEXT, "SELECT log.wipe FROM log"),
    "attribute of an alias": (_AS_TEXT, "SELECT l.wipe FROM log AS l"),
    "attribute in brackets": (_AS_TEXT, "SELECT (l).wipe FROM log AS l"),
    "attribute of a row": (_AS_TEXT, "SELECT (ROW(1, 'x')::log).wipe"),
    "attribute of a query": (_AS_TEXT, "SELECT (SELECT l FROM log AS l).wipe"),
    "attribute of a null": (_AS_TEXT, "SELECT (NULL::log).wipe"),
    "attribute in a schema": (_AS_TEXT, "SELECT public.log.wipe FROM log"),
    "attribute in a condition": (_AS_TEXT, "SELECT 1 FROM log AS l WHERE l.wipe = 'x'"),
    "renamed function": ("a:" + _WIPES, "ALTER FUNCTION wipe() RENAME TO fine", "SELECT fine()"),
    "function renamed by routine": (_WIPES, "ALTER ROUTINE wipe RENAME TO fine", "SELECT fine()"),
    "function renamed twice": (
        _WIPES,
        "ALTER FUNCTION wipe() RENAME TO f2",
        "ALTER FUNCTION f2() RENAME TO f3",
        "SELECT f3()",
    ),
    "renamed procedure": (
        "a:CREATE PROCEDURE wipe() LANGUAGE sql AS 'DELETE FROM victim'",
        "ALTER PROCEDURE wipe() RENAME TO fine",
        "CALL fine()",
    ),
    "function of another schema": (
        "CREATE SCHEMA s",
        _WIPES.replace("wipe()", "s.wipe()"),
        "ALTER FUNCTION s.wipe() SET SCHEMA public",
        "SELECT wipe()",
    ),
    "function behind a function": (
        _WIPES,
        "CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT wipe()'",
        "SELECT g()",
    ),
    "function of before": ("a:" + _WIPES, "SELECT wipe()"),
    "procedure of before": ("a:CREATE PROCEDURE wipe() LANGUAGE sql AS 'DELETE FROM victim WHERE true'", "CALL wipe()"),
    "atomic function of before": (
        "a:CREATE FUNCTION wipe() RETURNS void BEGIN ATOMIC DELETE FROM victim; END",
        "SELECT wipe()",
    ),
    "function in FROM": (_WIPES, "SELECT * FROM wipe()"),
    "function in ROWS FROM": (_WIPES, "SELECT * FROM ROWS FROM (wipe(), generate_series(1, 2)) AS r"),
    "function in LATERAL": (_WIPES, "SELECT * FROM log, LATERAL wipe() AS w"),
    "function in VALUES": (_WIPES, "VALUES (wipe())"),
    "function in RETURNING": (_WIPES, "INSERT INTO log VALUES (7) RETURNING wipe()"),
    "function in LIMIT": (_WIPES, "SELECT * FROM log LIMIT wipe()"),
    "function in ORDER BY": (_WIPES, "SELECT * FROM log ORDER BY wipe()"),
    "function in a window": (_WIPES, "SELECT row_number() OVER (ORDER BY wipe()) FROM log"),
    "function in a filter": (
        _WIPES_ONE.format("int", "bool", "true"),
        "SELECT count(*) FILTER (WHERE wipe(id)) FROM log",
    ),
    "function in ON CONFLICT": (_WIPES, "INSERT INTO victim VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET n = wipe()"),
    "function in TABLESAMPLE": (_WIPES, "SELECT * FROM log TABLESAMPLE SYSTEM (wipe())"),
    "function in EXECUTE": (_WIPES, "PREPARE p (int) AS SELECT $1", "EXECUTE p (wipe())"),
    "function in CALL": (_WIPES, "CREATE PROCEDURE q(a int) LANGUAGE sql AS 'SELECT a'", "CALL q(wipe())"),
    "function in an array": (_WIPES, "SELECT ARRAY[wipe(), 2]"),
    "function in CASE": (_WIPES, "SELECT CASE WHEN true THEN wipe() END"),
    "function in COPY": (_WIPES, "COPY (SELECT wipe()) TO STDOUT"),
    "function in XMLTABLE": (
        _WIPES_ONE.format("", "text", "'/r'"),
        "SELECT * FROM XMLTABLE(wipe() PASSING '<r/>' COLUMNS a text)",
    ),
    "function in a cursor": (_WIPES, "BEGIN", "DECLARE c CURSOR FOR SELECT wipe()", "FETCH c", "COMMIT"),
    "function in MERGE": (
        _WIPES,
        "MERGE INTO log USING (VALUES (1)) AS v (i) ON log.id = v.i WHEN MATCHED THEN UPDATE SET id = wipe()",
    ),
    "function in EXPLAIN ANALYZE": (_WIPES, "EXPLAIN (ANALYZE, COSTS OFF) SELECT wipe()"),
    "immutable function in EXPLAIN": (
        _WIPES,
        "CREATE FUNCTION fold() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN wipe(); END $$",
        "EXPLAIN SELECT fold()",
    ),
    "immutable function that is only planned": (
        _WIPES,
        "CREATE FUNCTION fold() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN wipe(); END $$",
        "b:SELECT fold()",
    ),
    "immutable function and LIMIT 0": (
        _WIPES,
        "CREATE FUNCTION fold() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN wipe(); END $$",
        "SELECT fold() LIMIT 0",
    ),
    "immutable function and WHERE false": (
        _WIPES,
        "CREATE FUNCTION fold() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN wipe(); END $$",
        "SELECT fold() FROM log WHERE false",
    ),
    "aggregate's argument and WHERE false": (_WIPES, "SELECT count(*) FROM log WHERE false HAVING wipe() = 1"),
    "variadic": (
        "CREATE FUNCTION wipe(VARIADIC a int[]) RETURNS int LANGUAGE plpgsql AS $$ BEGIN DELETE FROM public.victim; RETURN 1; END $$",
        "SELECT wipe(1, 2, 3)",
    ),
    "named arguments": (_WIPES_ONE.format("a int", "int", "1"), "SELECT wipe(a => 1)"),
    "name in Unicode": (_WIPES, 'SELECT U&"w\\0069pe"()'),
    "name in Unicode with UESCAPE": (_WIPES, "SELECT U&\"w!0069pe\" UESCAPE '!' ()"),
    "polymorphic support": (_WIPES_ONE.format("anyelement", "int", "1"), "SELECT wipe(1)"),
    "behind a hundred names": (
        _WIPES,
        f"SELECT wipe(), {', '.join(f'{name}(1.0)' for name in ('abs', 'ceil', 'floor', 'round', 'sign', 'sqrt') * 20)}",
    ),
    "at the end of a long chain": (
        _WIPES.replace("wipe()", "f0()"),
        ";".join(f"CREATE FUNCTION f{n}() RETURNS int LANGUAGE sql AS 'SELECT f{n - 1}()'" for n in range(1, 150)),
        "SELECT f149()",
    ),
    "overload of a name of the system": (_WIPES.replace("wipe()", "public.lower(int)"), "SELECT public.lower(1)"),
    "overload by the path": (_WIPES.replace("wipe()", "public.lower(int)"), "SELECT lower(1)"),
    # settings that make the server read otherwise
    "body with a backslash": (
        "CREATE FUNCTION g() RETURNS void LANGUAGE sql AS $$ SELECT '\\''; DELETE FROM victim; --' $$",
        "SET standard_conforming_strings = off",
        "SELECT g()",
    ),
    "body of before with a backslash": (
        "a:CREATE FUNCTION g() RETURNS void LANGUAGE sql AS $$ SELECT '\\''; DELETE FROM victim; --' $$",
        "SET standard_conforming_strings = off",
        "SELECT g()",
    ),
    "plpgsql with a backslash": (
        "CREATE FUNCTION g() RETURNS text LANGUAGE plpgsql AS $$ DECLARE x text; BEGIN x := '\\''; DELETE FROM victim; x := ''; --'; \n RETURN x; END $$",
        "SET standard_conforming_strings = off",
        "SELECT g()",
    ),
    "its own setting": (
        "SET standard_conforming_strings = on",
        "CREATE FUNCTION g() RETURNS void LANGUAGE sql SET standard_conforming_strings = off AS $$ SELECT '\\''; DELETE FROM victim; --' $$",
        "SELECT g()",
    ),
    "its own setting that is altered": (
        "CREATE FUNCTION g() RETURNS void LANGUAGE sql SET standard_conforming_strings = on AS $$ SELECT '\\''; DELETE FROM victim; --' $$",
        "ALTER FUNCTION g() SET standard_conforming_strings = off",
        "SELECT g()",
    ),
    "constant by settings": ("SET standard_conforming_strings = off", "SELECT '\\''; DELETE FROM victim; --'"),
    # statements in statements
    "string of several": ("SELECT 1; DELETE FROM victim",),
    "nested comment": ("/* /* */ ' */ DELETE /* -- */ FROM victim",),
    "comment to the end of the line": ("DELETE FROM victim -- WHERE id = 1",),
    "dollar quote in a name": ("SELECT 1 AS a$$; DELETE FROM victim; SELECT 2 AS b$$",),
    "dollar quotes within each other": ("DO $a$ BEGIN EXECUTE $b$ DELETE FROM victim $b$; END $a$",),
    "condition that is always true": ("DELETE FROM victim WHERE id IS NOT NULL",),
    "condition by a parameter": ("x:DELETE FROM victim WHERE $1",),
    "writable CTE": ("WITH d AS (DELETE FROM victim RETURNING 1) SELECT count(*) FROM d",),
    "writable CTE in a CTE of an insert": (
        "WITH d AS (DELETE FROM victim RETURNING id) INSERT INTO log SELECT id FROM d",
    ),
    "MERGE": ("MERGE INTO victim USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE",),
    "CREATE TABLE AS EXECUTE": ("PREPARE p AS SELECT number FROM cards", "CREATE TABLE z AS EXECUTE p", "TABLE z"),
    "EXPLAIN ANALYZE EXECUTE": ("PREPARE p AS DELETE FROM victim", "EXPLAIN ANALYZE EXECUTE p"),
    "prepared by the protocol, run by SQL": ("p:DELETE FROM victim", "EXECUTE named"),
    "EXECUTE format": ("DO $$ BEGIN EXECUTE format('DELETE FROM %I', 'victim'); END $$",),
    "text that is put together": (
        "DO $$ BEGIN EXECUTE convert_from(decode('44454c4554452046524f4d2076696374696d', 'hex'), 'UTF8'); END $$",
    ),
    "function that executes its argument": (
        "CREATE FUNCTION run(q text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE q; END $$",
        "SELECT run('DELETE FROM victim')",
    ),
    "function of before that executes its argument": (
        "a:CREATE FUNCTION run(q text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE q; END $$",
        "SELECT run('DELETE FROM victim')",
    ),
    "function of before that executes its argument, put together": (
        "a:CREATE FUNCTION run(q text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE q; END $$",
        "SELECT run('DELETE ' || 'FROM victim')",
    ),
    "function of before that executes a parameter": (
        "a:CREATE FUNCTION run(q text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE q; END $$",
        "x1:DELETE FROM victim:SELECT run($1)",
    ),
    "cursor by query": (
        "CREATE FUNCTION c() RETURNS refcursor LANGUAGE plpgsql AS $$ DECLARE r refcursor := 'rc'; BEGIN OPEN r FOR SELECT number FROM cards; RETURN r; END $$",
        "BEGIN",
        "SELECT c()",
        "FETCH ALL FROM rc",
        "COMMIT",
    ),
    "cursor by text": (
        "a:CREATE FUNCTION c(q text) RETURNS refcursor LANGUAGE plpgsql AS $$ DECLARE r refcursor := 'rc'; BEGIN OPEN r FOR EXECUTE q; RETURN r; END $$",
        "BEGIN",
        "SELECT c('SELECT number FROM cards')",
        "FETCH ALL FROM rc",
        "COMMIT",
    ),
    "query_to_xml": ("SELECT query_to_xml('SELECT number FROM cards', true, false, '')",),
    "cursor that was not closed": (
        "BEGIN",
        "DECLARE c CURSOR FOR SELECT number FROM cards",
        "!",
        "SAVEPOINT s",
        "CLOSE nothing",
        "ROLLBACK TO s",
        "FETCH ALL FROM c",
        "COMMIT",
    ),
    "cursor that was not closed in its string": (
        "BEGIN",
        "DECLARE c CURSOR FOR SELECT number FROM cards",
        "!",
        "SAVEPOINT s",
        "SELECT 1 / 0; CLOSE c",
        "ROLLBACK TO s",
        "FETCH ALL FROM c",
        "COMMIT",
    ),
    "statement that was not deallocated": (
        "PREPARE p AS SELECT number FROM cards",
        "!",
        "SELECT 1 / 0; DEALLOCATE p",
        "EXECUTE p",
    ),
    "cursor_to_xml": (
        "BEGIN",
        "DECLARE c CURSOR FOR SELECT 1",
        "SELECT cursor_to_xml('c', 1, true, false, '')",
        "SELECT query_to_xml('TABLE cards', true, false, '')",
        "COMMIT",
    ),
    "TRUNCATE": ("TRUNCATE victim",),
    "DROP": ("DROP TABLE IF EXISTS victim",),
    "DROP SCHEMA": ("DROP SCHEMA public CASCADE",),
    "DROP OWNED": (
        "REASSIGN OWNED BY {role} TO {role}",
        "ALTER TABLE victim OWNER TO {role}",
        "DROP OWNED BY {role} CASCADE",
    ),
    "replaced and dropped": ("ALTER TABLE victim RENAME TO v2", "DELETE FROM v2", "ALTER TABLE v2 RENAME TO victim"),
    # secrets under another name
    "renamed table": ("ALTER TABLE cards RENAME TO notes", "SELECT number FROM notes"),
    "table renamed twice": (
        "ALTER TABLE cards RENAME TO notes",
        "ALTER TABLE notes RENAME TO n2",
        "SELECT number FROM n2",
    ),
    "renamed column": ("ALTER TABLE cards RENAME COLUMN number TO n", "SELECT n FROM cards"),
    "renamed column of a renamed table": (
        "ALTER TABLE cards RENAME COLUMN number TO n",
        "ALTER TABLE cards RENAME TO notes",
        "SELECT n FROM notes",
    ),
    "swapped columns": (
        "ALTER TABLE cards RENAME COLUMN number TO n; ALTER TABLE cards RENAME COLUMN owner TO number; ALTER TABLE cards RENAME COLUMN n TO owner",
        "SELECT owner FROM cards",
    ),
    "other schema": ("CREATE SCHEMA s", "ALTER TABLE cards SET SCHEMA s", "SELECT number FROM s.cards"),
    "renamed schema": (
        "!",
        "ALTER SCHEMA public RENAME TO p2",
        "SELECT number FROM p2.cards",
        "ALTER SCHEMA p2 RENAME TO public",
    ),
    "parent": (
        "CREATE TABLE parent (id int, number text, owner text)",
        "ALTER TABLE cards INHERIT parent",
        "SELECT number FROM parent",
    ),
    "parent of before": (
        "a:CREATE TABLE parent (id int, number text, owner text)",
        "a:ALTER TABLE cards INHERIT parent",
        "SELECT number FROM parent",
    ),
    "partition": (
        "CREATE TABLE parent (id int NOT NULL, number text, owner text) PARTITION BY LIST (id)",
        "ALTER TABLE parent ATTACH PARTITION cards DEFAULT",
        "SELECT number FROM parent",
    ),
    "child": (
        "a:DROP TABLE cards; CREATE TABLE cards (id int, number text) PARTITION BY LIST (id); CREATE TABLE c1 PARTITION OF cards DEFAULT; INSERT INTO cards VALUES (1, '4111-2222')",
        "SELECT number FROM c1",
    ),
    "child of a child": (
        "a:DROP TABLE cards; CREATE TABLE cards (id int, number text) PARTITION BY LIST (id); CREATE TABLE c1 PARTITION OF cards DEFAULT PARTITION BY LIST (id); CREATE TABLE c2 PARTITION OF c1 DEFAULT; INSERT INTO cards VALUES (1, '4111-2222')",
        "SELECT number FROM c2",
    ),
    "view": ("CREATE VIEW v AS SELECT number AS x FROM cards", "SELECT x FROM v"),
    "temporary view": ("CREATE TEMP VIEW v AS SELECT number FROM cards", "SELECT * FROM v"),
    "view with a list of columns": ("CREATE VIEW v (a, b) AS SELECT id, number FROM cards", "SELECT b FROM v"),
    "view on a view": (
        "CREATE VIEW v AS SELECT number AS x FROM cards",
        "CREATE VIEW w AS SELECT x AS y FROM v",
        "SELECT y FROM w",
    ),
    "recursive view": ("CREATE RECURSIVE VIEW v (x) AS SELECT number FROM cards", "SELECT x FROM v"),
    "rule that makes a view": (
        "a:CREATE TABLE v (x text)",
        'CREATE RULE "_RETURN" AS ON SELECT TO v DO INSTEAD SELECT number AS x FROM cards',
        "SELECT x FROM v",
    ),
    "renamed view": ("a:CREATE VIEW v AS SELECT number AS x FROM cards", "ALTER VIEW v RENAME TO w", "SELECT x FROM w"),
    "renamed column of a view": (
        "a:CREATE VIEW v AS SELECT id AS a, number AS x FROM cards",
        "ALTER VIEW v RENAME COLUMN x TO y",
        "SELECT y FROM v",
    ),
    "materialized view of a secret": (
        "CREATE MATERIALIZED VIEW v AS SELECT number AS x FROM cards WITH NO DATA",
        "REFRESH MATERIALIZED VIEW v",
        "SELECT x FROM v",
    ),
    "natural join": ("SELECT 'found 4111-2222' FROM cards NATURAL JOIN (VALUES ('4111-2222')) AS guess (number)",),
    "natural left join": (
        "SELECT 'found 4111-2222' FROM (VALUES ('4111-2222')) AS guess (number) NATURAL LEFT JOIN public.cards AS c WHERE c IS NOT NULL",
    ),
    "join by USING": (
        "SELECT 'found 4111-2222' FROM cards JOIN (VALUES ('4111-2222')) AS guess (number) USING (number)",
    ),
    "whole row": ("SELECT cards FROM cards",),
    "row to json": ("SELECT to_jsonb(c) FROM cards AS c",),
    "alias of columns": ("SELECT b FROM cards AS c (a, b, d)",),
    "alias of columns in a join": ("SELECT j.b FROM (cards CROSS JOIN log) AS j (a, b)",),
    "RETURNING": ("UPDATE cards SET id = 1 WHERE id = 1 RETURNING number",),
    "RETURNING of a whole row": ("UPDATE cards SET id = 1 WHERE id = 1 RETURNING *",),
    "DELETE RETURNING": ("DELETE FROM cards WHERE id = 1 RETURNING cards.number",),
    "error that tells": ("SELECT CAST(number AS int) FROM cards",),
    "TABLE": ("TABLE cards",),
    "COPY": ("COPY cards (number) TO STDOUT",),
    "COPY of a query": ("COPY (SELECT number FROM cards) TO STDOUT",),
    "lateral": ("SELECT x.number FROM log, LATERAL (SELECT * FROM cards) AS x",),
    "function with the secret": (
        "CREATE FUNCTION g() RETURNS SETOF cards LANGUAGE sql AS 'SELECT * FROM cards'",
        "SELECT * FROM g()",
    ),
    "function of before with the secret": (
        "a:CREATE FUNCTION g() RETURNS SETOF cards LANGUAGE sql AS 'SELECT * FROM cards'",
        "SELECT number FROM g()",
    ),
    "DO that raises": ("DO $$ DECLARE x text; BEGIN SELECT number INTO x FROM cards; RAISE NOTICE '%', x; END $$",),
    "%TYPE row": ("DO $$ DECLARE r cards%ROWTYPE; BEGIN SELECT * INTO r FROM cards; RAISE NOTICE '%', r; END $$",),
    "statistics of the planner": (
        "a:INSERT INTO cards SELECT n, '4111-2222' FROM generate_series(2, 99) AS n; ANALYZE cards",
        "SELECT most_common_vals FROM pg_stats WHERE tablename = 'cards'",
    ),
    "copied by LIKE": ("CREATE TABLE z (LIKE cards)", "INSERT INTO z SELECT * FROM cards", "SELECT * FROM z"),
    "large object": (
        "SELECT lo_from_bytea(4711, (SELECT number::bytea FROM cards))",
        "SELECT encode(lo_get(4711), 'escape')",
    ),
    "view of a view's column": (
        "CREATE VIEW v AS SELECT number AS x FROM cards",
        "ALTER VIEW v RENAME COLUMN x TO y",
        "CREATE VIEW w AS SELECT y AS z FROM v",
        "SELECT z FROM w",
    ),
    "part of a part": (
        "CREATE TABLE p1 (id int, number text, owner text)",
        "CREATE TABLE p0 (id int, number text, owner text)",
        "ALTER TABLE p1 INHERIT p0",
        "ALTER TABLE cards INHERIT p1",
        "SELECT number FROM p0",
    ),
    "renamed and a view": (
        "ALTER TABLE cards RENAME TO notes",
        "CREATE VIEW v AS SELECT number AS x FROM notes",
        "SELECT x FROM v",
    ),
    # programs, files and settings of the server, which the packaged policies deny
    "COPY PROGRAM": ("COPY log FROM PROGRAM 'echo 1; touch {marker}'",),
    "COPY to a program": ("COPY log TO PROGRAM 'touch {marker}'",),
    "COPY PROGRAM in a DO block": ("DO $$ BEGIN EXECUTE 'COPY log FROM PROGRAM ''touch {marker}'''; END $$",),
    "COPY PROGRAM in a function": (
        "CREATE FUNCTION g() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN COPY log FROM PROGRAM 'touch {marker}'; END $f$",
        "SELECT g()",
    ),
    "COPY PROGRAM in a function put together": (
        "CREATE FUNCTION g() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN EXECUTE 'COPY log FROM PRO' || 'GRAM ''touch {marker}'''; END $f$",
        "SELECT g()",
    ),
    "COPY PROGRAM by a trigger": (
        "CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN COPY victim FROM PROGRAM 'touch {marker}'; RETURN NEW; END $f$",
        "CREATE TRIGGER t AFTER INSERT ON log EXECUTE FUNCTION g()",
        "INSERT INTO log VALUES (3)",
    ),
    "COPY to a file": ("COPY log TO '{marker}'",),
    "COPY to a file with a Unicode name": ("COPY log TO U&'{marker}'",),
    "lo_export": ("SELECT lo_from_bytea(4712, 'x')", "SELECT lo_export(4712, '{marker}')"),
    "lo_export through a function": (
        "CREATE FUNCTION g() RETURNS int LANGUAGE sql AS $$ SELECT lo_export(lo_from_bytea(4713, 'x'), '{marker}') $$",
        "SELECT g()",
    ),
    "lo_export through an attribute": (
        "CREATE FUNCTION g(log) RETURNS int LANGUAGE sql AS $$ SELECT lo_export(lo_from_bytea(4714, 'x'), '{marker}') $$",
        "SELECT l.g FROM log AS l",
    ),
    "lo_export through an operator": (
        "CREATE OPERATOR ~~> (LEFTARG = oid, RIGHTARG = text, FUNCTION = lo_export)",
        "SELECT lo_from_bytea(4715, 'x') ~~> '{marker}'",
    ),
    "lo_export through an operator of the system's name": (
        "CREATE OPERATOR public.@@@@ (LEFTARG = oid, RIGHTARG = text, FUNCTION = pg_catalog.lo_export)",
        "SELECT lo_from_bytea(4716, 'x') OPERATOR(public.@@@@) '{marker}'",
    ),
    "lo_export through a view": ("CREATE VIEW v AS SELECT lo_export(lo_from_bytea(4717, 'x'), '{marker}')", "TABLE v"),
}

MADE_BEFORE = frozenset(
    {
        *("renamed table", "table renamed twice", "renamed column", "renamed column of a renamed table"),
        *("swapped columns", "other schema", "parent", "partition", "view", "temporary view", "view on a view"),
        *("view with a list of columns", "recursive view", "rule that makes a view", "renamed view"),
        *("renamed column of a view", "function with the secret", "materialized view of a secret"),
        *("view of a view's column", "part of a part", "renamed and a view"),
    }
)
"""Ways of which only the last text comes behind the reading: what leads round is made before."""

HONEST: dict[str, tuple[str, ...]] = {
    "trigger": (
        _ADDS_ROW.replace("log VALUES", "victim VALUES").replace("(2, 'y')", "(9, 9)"),
        "CREATE TRIGGER t AFTER INSERT ON log FOR EACH ROW EXECUTE FUNCTION noted()",
        "INSERT INTO log VALUES (2)",
    ),
    "trigger of an administrator": (
        "a:" + _WIPES_ROW,
        "a:CREATE TRIGGER t AFTER DELETE ON log FOR EACH ROW EXECUTE FUNCTION wipe()",
        "INSERT INTO log VALUES (2)",
        "SELECT * FROM log",
    ),
    "trigger that deletes by key": (
        "CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM victim WHERE id = OLD.id; RETURN OLD; END $$",
        "CREATE TRIGGER t AFTER DELETE ON log FOR EACH ROW EXECUTE FUNCTION gone()",
        "DELETE FROM log WHERE id = 1",
    ),
    "updated_at": (
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.n := NEW.n + 1; RETURN NEW; END $$",
        "CREATE TRIGGER t BEFORE UPDATE ON victim FOR EACH ROW EXECUTE FUNCTION touch()",
        "UPDATE victim SET n = 1 WHERE id = 1",
    ),
    "function that is made anew": (
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE log ALTER id SET DEFAULT one()",
        "CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 2'",
        "INSERT INTO log (line) VALUES ('z')",
    ),
    "rule": (
        "CREATE RULE r AS ON INSERT TO log DO ALSO INSERT INTO victim VALUES (9, 9)",
        "INSERT INTO log VALUES (2)",
    ),
    "rule with a condition": (
        "CREATE RULE r AS ON DELETE TO log DO ALSO DELETE FROM victim WHERE id = OLD.id",
        "DELETE FROM log WHERE id = 1",
    ),
    "operator": (
        "CREATE FUNCTION plus(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2'",
        "CREATE OPERATOR #+# (LEFTARG = int, RIGHTARG = int, FUNCTION = plus)",
        "SELECT 1 #+# 2",
    ),
    "aggregate": ("CREATE AGGREGATE summed(int) (SFUNC = int4pl, STYPE = int)", "SELECT summed(id) FROM log"),
    "cast": (
        "CREATE TYPE pair AS (a int)",
        "CREATE FUNCTION first(pair) RETURNS int LANGUAGE sql AS 'SELECT ($1).a'",
        "CREATE CAST (pair AS int) WITH FUNCTION first(pair)",
        "SELECT ROW(1)::pair::int",
    ),
    "column with a function's name": (
        _WIPES,
        "ALTER TABLE log ADD COLUMN wipe int",
        "SELECT log.wipe FROM log",
        "SELECT l.wipe FROM log AS l WHERE l.wipe IS NULL",
    ),
    "attribute": (
        "CREATE FUNCTION said(log) RETURNS text LANGUAGE sql AS 'SELECT ($1).line'",
        "SELECT l.said FROM log AS l",
    ),
    "renamed function": (
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER FUNCTION one() RENAME TO two",
        "SELECT two()",
    ),
    "renamed table": (
        "ALTER TABLE log RENAME TO notes",
        "SELECT * FROM notes",
        "ALTER TABLE notes RENAME COLUMN line TO said",
        "SELECT said FROM notes",
    ),
    "renamed table of secrets, of which nothing secret is read": (
        "ALTER TABLE cards RENAME TO notes",
        "SELECT id, owner FROM notes",
    ),
    "renamed column of secrets, of which nothing secret is read": (
        "ALTER TABLE cards RENAME COLUMN number TO n",
        "SELECT id, owner FROM cards",
    ),
    "view": (
        "CREATE VIEW v AS SELECT id, owner FROM cards",
        "SELECT * FROM v",
        "CREATE TEMP VIEW w AS SELECT id AS a FROM v",
        "SELECT a FROM w",
    ),
    "view with a secret of which another column is read": (
        "CREATE VIEW v AS SELECT id, number FROM cards",
        "!",
        "SELECT id FROM v",
    ),
    "natural join": ("SELECT * FROM log NATURAL JOIN victim",),
    "inheritance": (
        "CREATE TABLE parent (id int, number text, owner text)",
        "ALTER TABLE cards INHERIT parent",
        "SELECT id FROM parent",
        "SELECT owner FROM cards",
    ),
    "partitions": (
        "CREATE TABLE p (id int, n int) PARTITION BY RANGE (id)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (10)",
        "INSERT INTO p VALUES (1, 1)",
        "SELECT * FROM p",
        "SELECT * FROM p1",
    ),
    "partition beside a secret": (
        "CREATE TABLE parent (id int, number text, owner text)",
        "CREATE TABLE sister () INHERITS (parent)",
        "ALTER TABLE cards INHERIT parent",
        "SELECT number FROM sister",
    ),
    "body with a pattern": (
        r"CREATE FUNCTION digits(t text) RETURNS text LANGUAGE sql AS $$ SELECT regexp_replace(t, '\D', '', 'g') $$",
        "SELECT digits('a1')",
        r"CREATE FUNCTION d2(t text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN regexp_replace(t, '\\', '', 'g'); END $$",
        "SELECT d2('a1')",
    ),
    "immutable function": (
        "CREATE FUNCTION dbl(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN $1 * 2; END $$",
        "SELECT dbl(3)",
        "CREATE INDEX ON log (dbl(id))",
        "CREATE TABLE z (id int, g int GENERATED ALWAYS AS (dbl(id)) STORED)",
        "INSERT INTO z VALUES (1)",
        "EXPLAIN SELECT dbl(2)",
        "SELECT dbl(1) LIMIT 0",
    ),
    "check and domain": (
        "CREATE FUNCTION ok(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0'",
        "CREATE DOMAIN d AS int CHECK (ok(VALUE))",
        "SELECT 1::d",
        "ALTER TABLE log ADD CHECK (ok(id))",
    ),
    "condition": (
        "DELETE FROM victim WHERE id = 1",
        "DELETE FROM victim WHERE n > 3 AND id < 5",
        "MERGE INTO victim USING (SELECT 1 AS i) AS s ON victim.id = s.i WHEN MATCHED THEN DELETE",
    ),
    "names that look like code": (
        'CREATE TABLE "DELETE FROM victim" (id int)',
        'SELECT "DELETE FROM victim".id FROM "DELETE FROM victim"',
        "SELECT 'DELETE FROM victim'",
        "SELECT $$DELETE FROM victim$$",
        "SELECT 1 /* DELETE FROM victim */",
    ),
    "prepared": (
        "PREPARE p (int) AS SELECT owner FROM cards WHERE id = $1",
        "EXECUTE p (1)",
        "DEALLOCATE p",
        "CREATE TABLE z AS SELECT 1 AS a",
    ),
    "cursor": ("BEGIN", "DECLARE c CURSOR FOR SELECT owner FROM cards", "FETCH ALL FROM c", "CLOSE c", "COMMIT"),
    "many cursors of one name": (
        "BEGIN",
        *(
            part
            for n in range(40)
            for part in (f"DECLARE c CURSOR FOR SELECT {n} AS c{n}", "FETCH 100 FROM c", "CLOSE c")
        ),
        "COMMIT",
    ),
    "cursor of a name that stood for a secret": (
        "BEGIN",
        "DECLARE c CURSOR FOR SELECT number FROM cards",
        "FETCH 1 FROM c",
        "CLOSE c",
        "!",
        "DECLARE c CURSOR FOR SELECT owner FROM cards",
        "FETCH ALL FROM c",
        "COMMIT",
    ),
    "savepoints": ("BEGIN", "SAVEPOINT s", "INSERT INTO log VALUES (3)", "ROLLBACK TO s", "COMMIT"),
    "materialized view": (
        "CREATE MATERIALIZED VIEW v AS SELECT id FROM log",
        "REFRESH MATERIALIZED VIEW v",
        "SELECT * FROM v",
    ),
    "large object": ("SELECT lo_from_bytea(4720, 'x')", "SELECT lo_get(4720)", "SELECT lo_unlink(4720)"),
    "COPY": ("COPY log TO STDOUT", "COPY (SELECT owner FROM cards) TO STDOUT"),
    "the catalogue": (
        "SELECT relname FROM pg_class WHERE relkind = 'r' LIMIT 3",
        "SELECT attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid WHERE c.relname = 'cards'",
    ),
    "schema": ("CREATE SCHEMA s", "ALTER TABLE log SET SCHEMA s", "SELECT * FROM s.log"),
    "comment and owner": ("COMMENT ON TABLE log IS 'DELETE FROM victim'", "ALTER TABLE log OWNER TO {role}"),
}
