"""Ways to do what the packaged policies forbid, the honest work beside them, and what cannot be seen, with the reason.

`LOGGED` are sessions of a superuser of whom the server's log tells: steps, and a policy that must be raised. A step
with `x:` goes by the extended protocol. `TAKEN` are ways to take or write over most of a table of 300 rows, `{t}`,
of which the WAL tells. `QUIET` is honest work: nothing of High or Critical comes of it. `UNSEEN` are ways of which the
log does not tell, each with the reason; `docs/explanation/blind-spots.md` says so to users.
"""

from __future__ import annotations

SENSITIVE = "public.customers.email"

SETUP = """
CREATE TABLE customers (id int PRIMARY KEY, email text, name text);
CREATE TABLE plain (id int PRIMARY KEY, note text);
CREATE TABLE guarded (id int PRIMARY KEY);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON guarded USING (id > 0);
CREATE FUNCTION quiet() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER audit AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION quiet();
CREATE RULE watch AS ON INSERT TO plain DO ALSO NOTHING;
CREATE ROLE someone LOGIN;
CREATE ROLE team;
INSERT INTO customers SELECT n, n || '@example.org', n::text FROM generate_series(1, 300) AS n;
INSERT INTO plain SELECT n, 'x' FROM generate_series(1, 300) AS n;
"""

_READ = "sensitive_read"
LOGGED: list[tuple[str, tuple[str, ...]]] = [
    # reads
    (_READ, ("SELECT email FROM customers",)),
    (_READ, ("x:SELECT email FROM customers",)),
    (_READ, ("SELECT * FROM public.customers",)),
    (_READ, ("TABLE customers",)),
    (_READ, ("SELECT c FROM customers c",)),
    (_READ, ("SELECT to_json(c) FROM customers c",)),
    (_READ, ("SELECT to_jsonb(c) - 'id' FROM customers AS c",)),
    (_READ, ("SELECT row_to_json(customers) FROM customers",)),
    (_READ, ("SELECT (c).* FROM customers c",)),
    (_READ, ("SELECT (c).email FROM customers c",)),
    (_READ, ("SELECT c::text FROM customers c",)),
    (_READ, ("SELECT e FROM customers AS c(i, e, n)",)),
    (_READ, ("SELECT c.e FROM customers AS c(i, e, n)",)),
    (_READ, ("SELECT json_agg(c) FROM customers c",)),
    (_READ, ("SELECT string_agg(email, ',') FROM customers",)),
    (_READ, ("SELECT array_agg(email) FROM customers",)),
    (_READ, ("SELECT ARRAY(SELECT email FROM customers)",)),
    (_READ, ("SELECT (SELECT string_agg(c.email, '') FROM customers c)",)),
    (_READ, ("SELECT md5(email) FROM customers",)),
    (_READ, ("SELECT email FROM customers ORDER BY random()",)),
    (_READ, ("SELECT email FROM customers WHERE true",)),
    (_READ, ("SELECT email FROM customers WHERE 1 = 1 OFFSET 0",)),
    (_READ, ("SELECT DISTINCT email FROM customers",)),
    (_READ, ("SELECT email FROM customers GROUP BY email",)),
    (_READ, ("SELECT c.email FROM customers c JOIN plain p ON p.id = c.id",)),
    (_READ, ("SELECT email FROM customers CROSS JOIN LATERAL (SELECT 1) AS l",)),
    (_READ, ("WITH x AS (SELECT email FROM customers) SELECT count(*) FROM x, x AS y",)),
    (_READ, ("WITH x AS MATERIALIZED (TABLE customers) SELECT * FROM x",)),
    (_READ, ("SELECT email FROM customers UNION ALL SELECT note FROM plain",)),
    (_READ, ("SELECT email FROM (SELECT * FROM customers) AS x",)),
    (_READ, ("COPY customers TO STDOUT",)),
    (_READ, ("COPY customers (id, email) TO STDOUT",)),
    (_READ, ("COPY (SELECT email FROM customers WHERE id > 0) TO STDOUT",)),
    (_READ, ("CREATE TABLE copied AS SELECT * FROM customers", "DROP TABLE copied")),
    (_READ, ("SELECT email INTO TEMP copied FROM customers",)),
    (_READ, ("CREATE TEMP TABLE copied AS TABLE customers",)),
    (_READ, ("INSERT INTO plain SELECT id + 1000, email FROM customers", "DELETE FROM plain WHERE id > 1000")),
    (_READ, ("BEGIN", "DECLARE c CURSOR FOR SELECT email FROM customers", "FETCH ALL FROM c", "COMMIT")),
    (_READ, ("BEGIN; DECLARE c CURSOR FOR SELECT email FROM customers; FETCH 300 FROM c; COMMIT",)),
    (_READ, ("PREPARE p AS SELECT email FROM customers", "EXECUTE p")),
    (_READ, ("DO $$ BEGIN PERFORM email FROM customers; END $$",)),
    (_READ, ("DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM customers LOOP NULL; END LOOP; END $$",)),
    (_READ, ("DO $$ BEGIN EXECUTE 'CREATE TEMP TABLE z AS SELECT ' || 'email FROM customers'; END $$",)),
    (
        _READ,
        (
            "CREATE FUNCTION pg_temp.g() RETURNS SETOF customers LANGUAGE sql AS 'SELECT * FROM customers';"
            " SELECT * FROM pg_temp.g()",
        ),
    ),
    (
        _READ,
        (
            "BEGIN",
            "CREATE FUNCTION brief() RETURNS SETOF text LANGUAGE plpgsql AS"
            " $$ BEGIN RETURN QUERY SELECT email FROM customers; END $$",
            "SELECT * FROM public.brief()",
            "ROLLBACK",
        ),
    ),
    (
        _READ,
        (
            "CREATE FUNCTION within() RETURNS SETOF text LANGUAGE sql AS 'SELECT email FROM customers'",
            "CREATE FUNCTION around() RETURNS SETOF text LANGUAGE sql AS 'SELECT * FROM within()'",
            "SELECT * FROM around()",
            "DROP FUNCTION around(), within()",
        ),
    ),
    # the server and its secrets
    ("password_hashes_read", ("SELECT rolpassword FROM pg_authid",)),
    ("password_hashes_read", ("SELECT * FROM pg_catalog.pg_shadow",)),
    ("password_hashes_read", ("SELECT a FROM pg_authid a",)),
    ("password_hashes_read", ("SELECT p FROM pg_authid AS a(o, n, s, i, r, d, l, e, b, c, p)",)),
    ("password_hashes_read", ("COPY (SELECT rolname, rolpassword FROM pg_authid) TO STDOUT",)),
    ("password_hashes_read", ("SELECT umoptions FROM pg_user_mapping",)),
    ("catalogue_written", ("UPDATE pg_catalog.pg_class SET relname = relname WHERE relname = 'plain'",)),
    ("catalogue_written", ("DELETE FROM pg_description WHERE objoid = 0",)),
    ("catalogue_written", ("SET allow_system_table_mods = on",)),
    ("server_files", ("COPY plain FROM '/etc/hostname'",)),
    ("server_files", ("SELECT pg_read_file('PG_VERSION')",)),
    ("server_files", ("SELECT pg_catalog.pg_ls_dir('.')",)),
    ("server_files", ("SELECT encode(pg_read_binary_file('PG_VERSION'), 'hex')",)),
    ("server_files", ("DO $$ BEGIN PERFORM pg_read_file('PG_VERSION'); END $$",)),
    ("server_files", ("SELECT lo_import('/etc/hostname')",)),
    ("copy_program", ("COPY plain TO PROGRAM 'cat >/dev/null'",)),
    ("copy_program", ("COPY (SELECT 1) TO PROGRAM 'true'",)),
    ("copy_program", ("DO $$ BEGIN EXECUTE 'COPY plain TO PRO' || 'GRAM ''cat >/dev/null'''; END $$",)),
    (
        "hidden_code",
        ("CREATE FUNCTION tidy() RETURNS text LANGUAGE sql AS $$ SELECT pg_read_file('PG_VERSION') $$",),
    ),
    (
        "hidden_code",
        ("CREATE FUNCTION tidier() RETURNS void LANGUAGE plpgsql AS $$BEGIN COPY plain TO PROGRAM 'cat'; END$$",),
    ),
    ("server_command_set", ("ALTER SYSTEM SET archive_command = 'true'", "ALTER SYSTEM RESET archive_command")),
    ("server_command_set", ("ALTER SYSTEM SET restore_command = 'true'", "ALTER SYSTEM RESET restore_command")),
    ("server_command_set", ("ALTER SYSTEM SET ssl_passphrase_command = 'x'", "ALTER SYSTEM RESET ALL")),
    ("server_command_set", ("ALTER ROLE someone SET session_preload_libraries = 'auto_explain'",)),
    ("server_command_set", ("ALTER ROLE someone SET local_preload_libraries = 'x'",)),
    ("untrusted_code", ("LOAD 'auto_explain'",)),
    ("dangerous_extension", ("CREATE EXTENSION file_fdw",)),
    ("dangerous_extension", ("DO $$ BEGIN EXECUTE 'CREATE EXT' || 'ENSION dblink'; END $$",)),
    ("foreign_connection", ("CREATE SERVER away FOREIGN DATA WRAPPER file_fdw",)),
    ("evidence_reset", ("SELECT pg_stat_reset()",)),
    ("slot_made", ("SELECT pg_create_physical_replication_slot('s')", "SELECT pg_drop_replication_slot('s')")),
    ("slot_made", ("SELECT pg_create_logical_replication_slot('l', 'test_decoding', true)",)),
    ("publication_made", ("CREATE PUBLICATION out FOR ALL TABLES",)),
    ("publication_made", ("ALTER PUBLICATION out SET (publish = 'insert')",)),
    # powers
    ("privilege_escalation", ("ALTER ROLE someone SUPERUSER",)),
    ("privilege_escalation", ("CREATE ROLE other BYPASSRLS",)),
    ("privilege_escalation", ("GRANT pg_execute_server_program TO someone",)),
    ("privilege_escalation", ("DO $$ BEGIN EXECUTE format('ALTER ROLE %I SUPERUSER', 'someone'); END $$",)),
    ("granted_to_everybody", ("GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC",)),
    ("session_authorization", ("SET SESSION AUTHORIZATION someone",)),
    (
        "session_authorization",
        ("DO $$ BEGIN PERFORM set_config('session_authorization', 'someone', true); END $$",),
    ),
    (
        "privilege_escalation",
        (
            "GRANT SET ON PARAMETER session_replication_role TO someone",
            "REVOKE SET ON PARAMETER session_replication_role FROM someone",
        ),
    ),
    ("security_definer", ("CREATE FUNCTION lend() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",)),
    ("row_security_off", ("ALTER TABLE guarded DISABLE ROW LEVEL SECURITY",)),
    ("row_security_off", ("ALTER TABLE guarded NO FORCE ROW LEVEL SECURITY",)),
    ("row_security_off", ("CREATE POLICY open ON guarded USING (true)",)),
    ("row_security_off", ("CREATE POLICY wide ON guarded USING (1 = 1)",)),
    ("row_security_off", ("ALTER POLICY mine ON guarded USING (true)",)),
    ("row_security_off", ("DROP POLICY mine ON guarded",)),
    ("trigger_disabled", ("ALTER TABLE plain DISABLE TRIGGER audit",)),
    ("trigger_disabled", ("ALTER TABLE plain ENABLE REPLICA TRIGGER audit",)),
    ("safeguard_dropped", ("ALTER TABLE plain DISABLE RULE watch",)),
    (
        "safeguard_dropped",
        ("CREATE RULE swallow AS ON DELETE TO plain DO INSTEAD NOTHING", "DROP RULE swallow ON plain"),
    ),
    ("safeguard_dropped", ("DROP RULE watch ON plain",)),
    ("safeguard_dropped", ("DROP TRIGGER audit ON plain",)),
    # what watches
    ("logging_off", ("ALTER SYSTEM SET log_statement = 'none'", "ALTER SYSTEM RESET log_statement")),
    ("logging_off", ("ALTER ROLE someone SET log_min_duration_statement = -1",)),
    (
        "logging_off",
        ("ALTER DATABASE postgres SET log_min_error_statement = panic", "ALTER DATABASE postgres RESET ALL"),
    ),
    ("logging_off", ("BEGIN; SET LOCAL track_activities = off; ROLLBACK",)),
    ("logging_off", ("SELECT set_config('compute_query_id', 'off', false)",)),
    ("replication_role", ("SET session_replication_role = replica",)),
    ("replication_role", ("DO $$ BEGIN PERFORM set_config('session_replication_role', 'replica', true); END $$",)),
    ("sessions_killed", ("SELECT pg_cancel_backend(0)",)),
    ("delete_without_where", ("EXPLAIN ANALYZE DELETE FROM plain WHERE true", "INSERT INTO plain SELECT 1")),
    ("delete_without_where", ("PREPARE p AS DELETE FROM plain", "EXECUTE p", "INSERT INTO plain SELECT 1")),
    ("drop_table", ("CREATE TABLE brief (i int)", "DROP TABLE brief")),
    ("drop_table", ("CREATE SCHEMA brief", "DROP SCHEMA brief CASCADE")),
]

TAKEN: list[str] = [
    "DELETE FROM {t} WHERE id > 0",
    "DELETE FROM {t} WHERE name LIKE '%'",
    "DELETE FROM {t} WHERE {t}.id = id",
    "DELETE FROM {t} WHERE coalesce(id, 0) = coalesce(id, 0)",
    "DELETE FROM {t} WHERE id IN (SELECT id FROM public.{t})",
    "DELETE FROM {t} WHERE id IN (SELECT x.id FROM {t} x)",
    "DELETE FROM {t} USING {t} x WHERE {t}.id = x.id",
    "DELETE FROM {t} WHERE name IS NOT NULL",
    "DELETE FROM {t} WHERE active OR NOT active",
    "DELETE FROM {t} WHERE EXISTS (SELECT 1 FROM pg_class)",
    "EXPLAIN ANALYZE DELETE FROM {t}",
    "DELETE FROM {t} /* " + "x" * 4_400_000 + " */",
    "DELETE FROM ONLY {t} WHERE id BETWEEN -1 AND 100000",
    "DELETE FROM {t} WHERE id <> 0 OR id = 0",
    "DELETE FROM {t} WHERE length(name) >= 0",
    "DELETE FROM {t} WHERE ctid IS NOT NULL",
    "DELETE FROM {t} WHERE id = ANY (SELECT generate_series(1, 300))",
    "DELETE FROM {t} WHERE now() > '2000-01-01'",
    "WITH gone AS (DELETE FROM {t} WHERE id > 0 RETURNING 1) SELECT count(*) FROM gone",
    "WITH x AS (SELECT id FROM {t}) DELETE FROM {t} USING x WHERE x.id = {t}.id",
    "MERGE INTO {t} USING generate_series(1, 300) AS g ON g = id WHEN MATCHED THEN DELETE",
    "DO $$ BEGIN FOR i IN 1..300 LOOP DELETE FROM {t} WHERE id = i; END LOOP; END $$",
    "DO $$ BEGIN EXECUTE 'DELETE FROM ' || quote_ident('{t}') || ' WHERE id > 0'; END $$",
    "DO $$ BEGIN FOR i IN 1..30 LOOP DELETE FROM {t} WHERE id % 30 = i - 1; COMMIT; END LOOP; END $$",
    "SELECT wipe('{t}')",
    "COPY (DELETE FROM {t} WHERE id > 0 RETURNING id) TO STDOUT",
    "BEGIN; DELETE FROM {t} WHERE id <= 150; SAVEPOINT a; DELETE FROM {t} WHERE id > 150; COMMIT",
    "PREPARE d AS DELETE FROM {t} WHERE id > $1; EXECUTE d(0); DEALLOCATE d",
    "DELETE FROM {t}_head",
    "TRUNCATE {t}",
    "DO $$ BEGIN EXECUTE format('TRUNCATE %I', '{t}'); END $$",
    "BEGIN; TRUNCATE {t}; INSERT INTO {t} (id) VALUES (1); COMMIT",
    "UPDATE {t} SET name = '' WHERE id > 0",
    "UPDATE {t} SET name = md5(name) FROM pg_database WHERE datname = 'postgres' OR id > 0",
    "INSERT INTO {t} SELECT id, '', true FROM {t} ON CONFLICT (id) DO UPDATE SET name = excluded.name",
    "MERGE INTO {t} USING generate_series(1, 300) AS g ON g = id WHEN MATCHED THEN UPDATE SET name = ''",
    "DO $$ BEGIN FOR i IN 1..300 LOOP UPDATE {t} SET name = '' WHERE id = i; END LOOP; END $$",
    "DO $$ BEGIN FOR i IN 1..30 LOOP UPDATE {t} SET active = NULL WHERE id % 30 = i - 1; COMMIT; END LOOP; END $$",
    "BEGIN; CREATE TEMP TABLE k ON COMMIT DROP AS SELECT * FROM {t}; DELETE FROM {t};"
    " INSERT INTO {t} SELECT id, '' FROM k; COMMIT",
]  # fmt: skip

QUIET: list[str] = [
    "DELETE FROM {t} WHERE id = 7",
    "DELETE FROM {t} WHERE id <= 40",
    "UPDATE {t} SET name = 'y' WHERE id < 100",
    "DO $$ BEGIN FOR i IN 1..400 LOOP UPDATE {t} SET name = i::text WHERE id = 5; COMMIT; END LOOP; END $$",
    "BEGIN; TRUNCATE {t}; INSERT INTO {t} SELECT n, 'new' FROM generate_series(1, 300) AS n; COMMIT",
    "BEGIN; DELETE FROM {t}; ROLLBACK",
    "DO $$ BEGIN BEGIN DELETE FROM {t}; RAISE 'no'; EXCEPTION WHEN OTHERS THEN NULL; END; END $$",
    "INSERT INTO {t} SELECT n, 'more' FROM generate_series(1000, 2000) AS n",
    "INSERT INTO {t}_head VALUES (1000); DELETE FROM {t}_head WHERE id = 1000",
    "CREATE TABLE {t}_stage (id int PRIMARY KEY); TRUNCATE {t}_stage;"
    " INSERT INTO {t}_stage SELECT generate_series(1, 500)",
    "BEGIN; CREATE TABLE {t}_new (LIKE {t} INCLUDING ALL); INSERT INTO {t}_new SELECT * FROM {t}; COMMIT",
    "CREATE TEMP TABLE scratch (i int); INSERT INTO scratch SELECT generate_series(1, 500); DELETE FROM scratch;"
    " TRUNCATE scratch",
    "ALTER TABLE {t} ADD COLUMN extra int DEFAULT 3; CREATE INDEX ON {t} (name)",
]  # fmt: skip

READ_NOTHING: list[str] = [
    "SELECT * FROM customers WHERE 1=0",
    "SELECT email FROM customers WHERE false",
    "SELECT email FROM customers LIMIT 0",
    "PREPARE p AS SELECT email FROM customers",
    "BEGIN; DECLARE c CURSOR FOR SELECT email FROM customers; COMMIT",
    "CREATE TEMP TABLE none AS SELECT * FROM customers WITH NO DATA",
    "SELECT count(email) FROM customers",
    "EXPLAIN ANALYZE SELECT email FROM customers",
    "SELECT EXISTS (SELECT email FROM customers)",
    "WITH customers AS (SELECT 'x' AS email) SELECT email FROM customers",
    "SELECT * FROM pg_authid LIMIT 0",
    "SELECT rolpassword FROM pg_authid WHERE false",
    "SELECT pg_read_file(NULL)",
    "SELECT pg_cancel_backend(NULL)",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE 1 = 0",
    "CREATE TEMP TABLE z (i int); DELETE FROM z; TRUNCATE z; DROP TABLE z",
    "CREATE TEMP TABLE k AS SELECT id FROM plain; UPDATE k SET id = 1; DELETE FROM k; TRUNCATE k; DROP TABLE k",
    "DO $$ BEGIN CREATE TEMP TABLE k (i int); DELETE FROM k; DROP TABLE k; END $$",
]
"""Statements that give no value, end nothing and change nothing that is anybody else's, as the log tells them."""

UNSEEN: dict[str, tuple[tuple[str, ...], str]] = {
    "a condition that happens to hold for every row": (
        ("SELECT email FROM customers WHERE id > 0",),
        "the log has no row counts; statistics or auto_explain tell them",
    ),
    "page by page": (
        ("SELECT email FROM customers ORDER BY id LIMIT 50 OFFSET 50",),
        "a page is what programs read; steady_read adds up what is counted",
    ),
    "a function of the session's own": (
        (
            "CREATE FUNCTION pg_temp.g() RETURNS SETOF text LANGUAGE plpgsql AS"
            " $$ BEGIN RETURN QUERY EXECUTE 'SELECT em' || 'ail FROM ' || current_setting('my.t'); END $$",
            "SET my.t = 'customers'",
            "SELECT * FROM pg_temp.g()",
        ),
        "its text is put together at run time",
    ),
}
