"""Every way to masked values that was ever found: it is told where it is open, with the statement that closes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import psycopg
import pytest

from collectors.masking import install, reach
from collectors.masking.reach import Way
from collectors.masking.treatment import Kind
from tests.collectors.masking.conftest import Masked

MARK = "ann@secret.example"
SHOP = f"""
CREATE TABLE people (id int PRIMARY KEY, email text UNIQUE, city text);
INSERT INTO people VALUES (1, '{MARK}', 'Ulm'), (2, 'bob@secret.example', 'Ulm');
CREATE TABLE letters (id int, recipient text, body text);
INSERT INTO letters VALUES (1, '{MARK}', 'x');
CREATE TABLE logs (at int, email text) PARTITION BY RANGE (at);
CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM (0) TO (10);
INSERT INTO logs VALUES (1, '{MARK}');
CREATE SCHEMA other;
"""


class Case(NamedTuple):
    """A way: what opens it, by which name it is told, and what the audience then asks; empty where it needs more.

    `fix`: what is told closes it; `closed`: the attack is refused then, not only in vain.
    """

    way: str
    opened: str
    attack: str = ""
    fix: bool = True
    closed: bool = True


CASES = (
    Case("select", "GRANT SELECT ON people TO support", "SELECT email FROM public.people"),
    Case("select", "GRANT SELECT (email) ON people TO PUBLIC", "SELECT email FROM public.people"),
    Case("select", "GRANT SELECT ON logs_1 TO PUBLIC", "SELECT email FROM public.logs_1"),
    Case(
        "select",
        "CREATE TABLE other.logs_2 PARTITION OF logs FOR VALUES FROM (10) TO (20); INSERT INTO logs VALUES"
        f" (11, '{MARK}'); GRANT USAGE ON SCHEMA other TO support; GRANT SELECT ON other.logs_2 TO support",
        "SELECT email FROM other.logs_2",
    ),
    Case(
        "select",
        f"CREATE TABLE child (x int) INHERITS (people); INSERT INTO child (id, email) VALUES (3, '{MARK}');"
        " GRANT SELECT ON child TO support",
        "SELECT email FROM public.child",
    ),
    Case("membership", "GRANT pg_read_all_data TO support", "SELECT email FROM public.people"),
    Case("membership", "GRANT pg_monitor TO support"),
    Case(
        "membership",
        "CREATE ROLE boss; ALTER TABLE people OWNER TO boss; GRANT boss TO support",
        "SELECT email FROM public.people",
    ),
    Case("powers", "ALTER ROLE support REPLICATION"),
    Case("powers", "ALTER ROLE support SUPERUSER", "SELECT email FROM public.people"),
    Case("key", "GRANT USAGE ON SCHEMA pgwitness_masks TO support; GRANT SELECT ON pgwitness_masks.pads TO support"),
    Case(
        "view",
        "CREATE VIEW other.a AS SELECT id, email AS e FROM people; CREATE VIEW b AS SELECT * FROM other.a;"
        " GRANT SELECT ON b TO support",
        "SELECT e FROM public.b",
    ),
    Case(
        "view",
        "CREATE MATERIALIZED VIEW m AS SELECT count(*), min(email) AS e FROM people; GRANT SELECT ON m TO PUBLIC",
        "SELECT e FROM public.m",
    ),
    Case("foreign_key", "ALTER TABLE letters ADD FOREIGN KEY (recipient) REFERENCES people (email)", fix=False),
    Case("default_privileges", "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO support"),
    Case("default_privileges", "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC"),
    Case(
        "security_definer",
        "CREATE FUNCTION first() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT min(email) FROM public.people'",
        "SELECT public.first()",
    ),
    Case(
        "security_definer",
        "CREATE ROLE boss; CREATE VIEW v AS SELECT email FROM people; GRANT SELECT ON v TO boss;"
        " GRANT CREATE ON SCHEMA public TO boss; SET LOCAL ROLE boss; CREATE FUNCTION first() RETURNS text LANGUAGE sql"
        " SECURITY DEFINER AS 'SELECT min(email) FROM public.v'; RESET ROLE",
        "SELECT public.first()",
    ),
    Case("trigger_privilege", "GRANT TRIGGER ON people TO support"),
    Case(
        "notify",
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_notify(''people'', NEW.email); RETURN NEW; END';"
        " CREATE TRIGGER tells AFTER INSERT ON people FOR EACH ROW EXECUTE FUNCTION tell()",
        fix=False,
    ),
    Case(
        "raise",
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RAISE NOTICE ''%'', OLD.email; RETURN OLD; END'; GRANT DELETE ON people TO support;"
        " CREATE TRIGGER tells AFTER DELETE ON people FOR EACH ROW EXECUTE FUNCTION tell()",
        fix=False,
    ),
    Case(
        "check",
        "ALTER TABLE people ADD CHECK (email::inet IS NOT NULL) NOT VALID; GRANT UPDATE (city) ON people TO support",
        fix=False,
    ),
    Case(
        "foreign_server",
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
        " GRANT USAGE ON FOREIGN SERVER s TO PUBLIC",
    ),
    Case(
        "foreign_server",
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
        " CREATE USER MAPPING FOR PUBLIC SERVER s",
    ),
    Case("files", "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO support", "SELECT pg_read_file('PG_VERSION')"),
    Case("create", "GRANT CREATE ON SCHEMA public TO support"),
    Case("create", "DO $$ BEGIN EXECUTE 'GRANT CREATE ON DATABASE ' || current_database() || ' TO support'; END $$"),
    Case(
        "security_definer",
        "CREATE FUNCTION step(text, int) RETURNS text LANGUAGE sql SECURITY DEFINER AS"
        " 'SELECT min(email) FROM public.people'; REVOKE ALL ON FUNCTION step FROM PUBLIC;"
        " CREATE AGGREGATE first(int) (sfunc = step, stype = text)",
        "SELECT public.first(1)",
    ),
    Case(
        "security_definer",
        "CREATE ROLE boss; CREATE FUNCTION inside() RETURNS text LANGUAGE sql SECURITY DEFINER AS"
        " 'SELECT min(email) FROM public.people'; REVOKE ALL ON FUNCTION inside FROM PUBLIC;"
        " GRANT EXECUTE ON FUNCTION inside TO boss; GRANT CREATE ON SCHEMA public TO boss; SET LOCAL ROLE boss;"
        " CREATE FUNCTION first() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT public.inside()'; RESET ROLE",
        "SELECT public.first()",
    ),
    Case(
        "notify",
        "CREATE FUNCTION sends(v text) RETURNS void LANGUAGE sql AS 'SELECT pg_notify(''people'', v)';"
        " CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM sends(NEW.email); RETURN NEW; END';"
        " CREATE TRIGGER tells AFTER INSERT ON people FOR EACH ROW EXECUTE FUNCTION tell()",
        fix=False,
    ),
    Case(
        "raise",
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
        " 'BEGIN RAISE NOTICE ''%'', (SELECT min(email) FROM public.people); RETURN NEW; END';"
        " GRANT INSERT ON letters TO support;"
        " CREATE TRIGGER tells AFTER INSERT ON letters FOR EACH ROW EXECUTE FUNCTION tell()",
        fix=False,
    ),
    Case(
        "trigger",
        "CREATE TABLE kept (email text); CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO kept VALUES (OLD.email); RETURN NEW; END'; GRANT UPDATE (city) ON people TO support;"
        " CREATE TRIGGER keeps AFTER UPDATE ON people FOR EACH ROW EXECUTE FUNCTION keep()",
        "CREATE TEMP TABLE IF NOT EXISTS kept (email text); UPDATE public.people SET city = 'x';"
        " SELECT * FROM pg_temp.kept",
    ),
    Case(
        "rule",
        "GRANT INSERT ON letters TO support; CREATE RULE also AS ON INSERT TO letters DO ALSO SELECT email FROM people",
        "INSERT INTO public.letters VALUES (3)",
        closed=False,
    ),
    Case(
        "check",
        "ALTER TABLE people ADD born text DEFAULT '07/13/1987', ADD CHECK (born::date > '1800-01-01'::date);"
        " GRANT UPDATE (city) ON people TO support",
        fix=False,
    ),
    Case(
        "policy",
        "ALTER TABLE people ENABLE ROW LEVEL SECURITY; CREATE TABLE seen (email text);"
        " CREATE FUNCTION look(v text) RETURNS boolean LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO seen VALUES (v); RETURN true; END'; CREATE POLICY looks ON people USING (look(email))",
        "CREATE TEMP TABLE IF NOT EXISTS seen (email text); SELECT * FROM mask_public.people;"
        " SELECT * FROM pg_temp.seen",
    ),
    Case(
        "policy",
        "ALTER TABLE people ADD until text DEFAULT '07/13/2099', ENABLE ROW LEVEL SECURITY;"
        " CREATE POLICY valid ON people USING (until::date > current_date)",
        fix=False,
    ),
    Case(
        "policy_guess",
        "ALTER TABLE people ENABLE ROW LEVEL SECURITY;"
        " CREATE POLICY own ON people USING (email = current_setting('app.me', true))",
        fix=False,
    ),
    Case(
        "relation",
        f"CREATE TABLE other.copies (email text); INSERT INTO other.copies VALUES ('{MARK}');"
        " GRANT USAGE ON SCHEMA other TO PUBLIC; GRANT SELECT (email) ON other.copies TO PUBLIC",
        "SELECT email FROM other.copies",
    ),
    Case(
        "relation",
        "CREATE FUNCTION all_of() RETURNS SETOF text LANGUAGE sql AS $$ SELECT email FROM public.people $$;"
        " REVOKE ALL ON FUNCTION all_of FROM PUBLIC; CREATE MATERIALIZED VIEW m AS SELECT e FROM all_of() AS e;"
        " GRANT SELECT ON m TO support",
        "SELECT e FROM public.m",
    ),
    Case(
        "relation",
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE far (email text)"
        " SERVER s; GRANT SELECT ON far TO support",
    ),
    Case("foreign_server", "CREATE FOREIGN DATA WRAPPER w; GRANT USAGE ON FOREIGN DATA WRAPPER w TO support"),
    Case("files", "GRANT EXECUTE ON FUNCTION pg_stat_file(text) TO support", "SELECT pg_stat_file('PG_VERSION')"),
    Case(
        "large_object",
        f"SELECT lo_from_bytea(4711, '{MARK}'); GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC",
        "SELECT convert_from(lo_get(4711), 'UTF8')",
    ),
    Case(
        "statistics",
        "CREATE STATISTICS s ON (lower(email)) FROM people; SET LOCAL allow_system_table_mods = on;"
        " DO $$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW pg_catalog.pg_stats_ext_exprs AS '"
        " || replace(pg_get_viewdef('pg_stats_ext_exprs'::regclass), 'pg_has_role(c.relowner, ''USAGE''::text)',"
        " 'true'); END $$; ANALYZE people",
        fix=False,
    ),
    Case(
        "guessable",
        "CREATE TABLE made (at text, token text GENERATED ALWAYS AS (lower(at)) STORED); GRANT INSERT (at) ON made"
        " TO support",
        fix=False,
    ),
    Case("references", "GRANT REFERENCES ON people TO support"),
    Case("unique", "GRANT INSERT ON people TO support"),
    Case(
        "child",
        "ALTER TABLE letters ADD FOREIGN KEY (recipient) REFERENCES people (email); GRANT INSERT ON letters TO support",
    ),
    Case("guessable", "GRANT UPDATE (email) ON people TO support", fix=False),
    Case(
        "partition_bounds",
        "CREATE TABLE ranged (email text) PARTITION BY LIST (email);"
        f" CREATE TABLE ranged_1 PARTITION OF ranged FOR VALUES IN ('{MARK}')",
        "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'ranged_1'",
        fix=False,
    ),
    Case(
        "missing_value",
        f"ALTER TABLE people ADD phone text DEFAULT '{MARK}'",
        "SELECT attmissingval FROM pg_attribute WHERE atthasmissing AND attname = 'phone'",
        fix=False,
    ),
    Case(
        "partial_index",
        f"CREATE INDEX ON people (id) WHERE email = '{MARK}'",
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'people' AND indexdef ~ 'secret'",
        fix=False,
    ),
)
RULES: dict[str, Kind] = {"*.id": "clear", "public.letters.recipient": "clear", "*.at": "clear"}


def looked(masked: Masked, connection: psycopg.Connection) -> list[Way]:
    """Look as the installer does, in the transaction that is open."""
    return install.beside(connection, masked.masks(RULES), "support")


def asked(connection: psycopg.Connection, query: str) -> str:
    """Ask as the audience, within the transaction."""
    connection.execute("SET LOCAL SESSION AUTHORIZATION support; SET LOCAL row_security = on")
    cursor = connection.execute(query.encode())
    while cursor.nextset():
        pass
    found = str(cursor.fetchall())
    connection.execute("RESET SESSION AUTHORIZATION")
    return found


def opened(ways: Sequence[Way], before: Sequence[Way]) -> list[Way]:
    """List what is told now and was not before."""
    return [way for way in ways if way not in before]


def test_every_way_to_masked_values_is_told(masked: Masked) -> None:
    """Nothing is told of a fresh installation; each way that is opened is, and its fix closes it."""
    masked.admin.execute(SHOP)
    report = masked.install(masked.masks(RULES))
    assert not report.left, report.left
    names = {case.way for case in CASES}
    assert names | {"databases"} == {name for name, _, _ in reach.WAYS}
    with psycopg.connect(masked.dsn) as connection:
        connection.execute("SELECT")
        before = looked(masked, connection)
        assert {way.name for way in before} <= {"databases"}
        for case in CASES:
            with connection.transaction(force_rollback=True):
                connection.execute(f"SET LOCAL search_path = public; {case.opened}".encode())
                told = [way for way in opened(looked(masked, connection), before) if way.name == case.way]
                assert told, case
                if case.attack:
                    assert MARK in asked(connection, case.attack) or case.way == "files", case
                if case.fix:
                    for way in told:
                        connection.execute(way.fix.encode())
                    still = opened(looked(masked, connection), before)
                    assert not [way for way in still if way.name == case.way], (case, still)
                    if case.attack and case.closed:
                        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                            asked(connection, case.attack)


def test_harmless_neighbours_are_not_told(masked18: Masked) -> None:
    """A view of clear columns, one with the asker's rights, a function of nobody in particular: none is a way."""
    masked18.admin.execute(SHOP)
    masked18.install(masked18.masks(RULES))
    masked18.admin.execute(
        "CREATE VIEW ids AS SELECT id FROM people; CREATE VIEW mine WITH (security_invoker) AS SELECT * FROM people;"
        "CREATE ROLE nobody; CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';"
        "ALTER FUNCTION f OWNER TO nobody; GRANT SELECT ON ids, mine TO support"
    )
    with psycopg.connect(masked18.dsn) as connection:
        assert {way.name for way in looked(masked18, connection)} <= {"databases"}


def test_a_leak_is_left_to_do(masked18: Masked) -> None:
    """The installer ends with what leaks and how to close it, and `db status` says so afterwards."""
    masked18.admin.execute(f"{SHOP} GRANT SELECT ON people TO PUBLIC; GRANT INSERT ON people TO PUBLIC")
    masks = masked18.masks(RULES)
    report = masked18.install(masks)
    assert [(left.what, left.fix) for left in report.left] == [
        ("public.people", "REVOKE SELECT ON public.people FROM PUBLIC")
    ]
    assert any("guessable" in note for note in report.notes)
    found = {(one.subject, one.state) for one in masked18.status(masks)}
    assert ("public.people for support", "leak") in found
    assert ("public.people.email for support", "limit") in found
