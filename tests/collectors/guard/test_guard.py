"""The guard in the database: what it stops, whichever way it comes, and what it lets go on."""

from __future__ import annotations

import psycopg
import pytest

from tests.collectors.guard.conftest import AGENTS_DROP_NOTHING, ALL, FEW_ROWS, LEDGER, Guarded, guard, policy

LOOP = "DO $$ BEGIN FOR i IN 1..40 LOOP DELETE FROM orders WHERE id = i; END LOOP; END $$"
DROPS = (
    "DROP TABLE orders CASCADE",
    "DROP TABLE IF EXISTS nothing, public.orders CASCADE",
    "DO $$ BEGIN EXECUTE 'DR' || 'OP TABLE ord' || 'ers CASCADE'; END $$",
    "CREATE FUNCTION d() RETURNS void LANGUAGE plpgsql AS $$ BEGIN DROP TABLE items; END $$; SELECT d()",
    "CREATE FUNCTION public.current_query() RETURNS text LANGUAGE sql AS 'SELECT $$$$::text';"
    " SET search_path = public, pg_catalog; DROP TABLE items",
    "CREATE TEMP TABLE items (id int); DROP TABLE public.items",
    "SET quote_all_identifiers = on; SET standard_conforming_strings = off; DROP TABLE items",
    "CREATE TEMP TABLE pg_roles (rolname name, rolsuper bool); SET search_path = pg_temp, pg_catalog, public;"
    " DROP TABLE items",
    "DROP TABLE visits",
    "DROP TABLE visits_1",
    "ALTER TABLE visits DETACH PARTITION visits_1; DROP TABLE visits_1",
    "DROP SCHEMA stuff CASCADE",
    "DROP OWNED BY CURRENT_ROLE",
    "SET ROLE owners; DROP OWNED BY owners",
    "BEGIN; DROP TABLE items; COMMIT",
    "ALTER TABLE items DROP CONSTRAINT items_pkey",
    "ALTER TABLE orders DROP COLUMN v",
    "CREATE INDEX i ON orders (v); DROP INDEX i",
    "PREPARE p AS DELETE FROM orders; EXECUTE p",
    "DELETE FROM orders",
    "DELETE FROM ONLY orders WHERE id < 90",
    "UPDATE orders SET v = v",
    "UPDATE orders SET v = 1 WHERE id <= 11",
    "WITH gone AS (DELETE FROM orders RETURNING id) SELECT count(*) FROM gone",
    "MERGE INTO orders AS o USING generate_series(1, 50) AS g ON o.id = g WHEN MATCHED THEN DELETE",
    "MERGE INTO orders AS o USING generate_series(1, 50) AS g ON o.id = g WHEN MATCHED THEN UPDATE SET v = 2",
    "INSERT INTO orders SELECT i, 1 FROM generate_series(1, 60) AS i ON CONFLICT (id) DO UPDATE SET v = 9",
    "COPY (DELETE FROM orders RETURNING id) TO STDOUT",
    "EXPLAIN ANALYZE DELETE FROM orders",
    LOOP,
    LOOP.replace("DELETE FROM orders WHERE id = i;", "DELETE FROM orders WHERE id = i; EXECUTE 'RESET ALL';"),
    LOOP.replace("DELETE FROM orders WHERE id = i;", "BEGIN DELETE FROM orders WHERE id = i; EXCEPTION WHEN"
                 " division_by_zero THEN NULL; END; EXECUTE 'DISCARD SEQUENCES';"),
    "DELETE FROM orders WHERE id <= 6; UPDATE orders SET v = 1 WHERE id BETWEEN 10 AND 20",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1; DELETE FROM orders WHERE id > 3",
    "DELETE FROM visits",
    "DELETE FROM visits_1",
    "TRUNCATE ledger",
    "TRUNCATE orders CASCADE",
    "TRUNCATE visits",
    "TRUNCATE visits_1",
    "DELETE FROM ledger",
    "UPDATE public.\"ledger\" SET v = 2",
    "SET pgwitness.mark = 'x'; DELETE FROM ledger",
    "SET application_name = 'app'; DELETE FROM ledger",
    "GRANT SELECT ON orders TO PUBLIC",
    "REVOKE SELECT ON orders FROM ada",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; GRANT ALL ON SCHEMA stuff TO PUBLIC",
    "ALTER TABLE orders ADD w int",
    "ALTER TABLE orders RENAME TO orders_2",
    "ALTER TABLE orders DISABLE TRIGGER pgwitness_guard_delete",
    "DROP TRIGGER pgwitness_guard_delete ON orders",
    "CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
    " CREATE OR REPLACE TRIGGER pgwitness_guard_delete AFTER DELETE ON orders EXECUTE FUNCTION mine()",
    "CREATE TRIGGER t AFTER INSERT ON stuff.things EXECUTE FUNCTION pgwitness_guard.written()",
    "SELECT pgwitness_guard.passes(true)",
    "DELETE FROM pgwitness_guard.counted",
    "SELECT * FROM pgwitness_guard.pads",
)  # fmt: skip
"""What an agent tries, who owns everything here. Where it may not do the last, that is PostgreSQL's own refusal."""

PASSES = (
    "DELETE FROM orders WHERE id = 100",
    "DELETE FROM orders WHERE id > 90",
    "UPDATE orders SET v = 1 WHERE id = 1",
    "INSERT INTO orders SELECT i FROM generate_series(1000, 2000) AS i",
    "CREATE TABLE mine (id int)",
    "CREATE TEMP TABLE orders AS SELECT 1 AS id; DROP TABLE orders",
    "CREATE TEMP TABLE mine AS SELECT generate_series(1, 100) AS id; DELETE FROM mine; TRUNCATE mine; DROP TABLE mine",
    "CREATE INDEX CONCURRENTLY quick ON orders (v)",
    "DROP TABLE IF EXISTS nothing",
    "SELECT count(*) FROM orders",
)
"""What the policies let an agent do."""

MIGRATIONS = (
    "ALTER TABLE orders ADD w int DEFAULT 1; UPDATE orders SET w = 2; ALTER TABLE orders DROP COLUMN w",
    "CREATE INDEX CONCURRENTLY i ON orders (v)",
    "CREATE TABLE fresh (id int); INSERT INTO fresh VALUES (1); ALTER TABLE fresh RENAME TO older; DROP TABLE older",
    "ALTER TABLE orders DISABLE TRIGGER USER; UPDATE orders SET v = 5; ALTER TABLE orders ENABLE TRIGGER USER",
    "CREATE TABLE visits_2 (id int, at int);"
    " ALTER TABLE visits ATTACH PARTITION visits_2 FOR VALUES FROM (100) TO (200)",
    "TRUNCATE items",
    "GRANT SELECT ON orders TO PUBLIC",
    "DROP SCHEMA stuff CASCADE",
)
"""What others do as before."""


def test_what_policies_deny_is_stopped_whichever_way_it_comes(guarded: Guarded) -> None:
    """Every way that SQL has ends in the guard's error, nothing of it stays done, and what passes goes on."""
    assert not guarded.install(guard()).left
    before = guarded.admin.execute(_CONTENTS).fetchall()
    for statement in DROPS:
        error = guarded.refused(statement)
        assert error.sqlstate == "42501", statement
        assert guarded.admin.execute(_CONTENTS).fetchall() == before, statement
        assert guarded.status(guard())[0].state == "ok", statement
    for statement in PASSES:
        guarded.passes(statement)


_CONTENTS = """
SELECT (SELECT sum(id * 3 + v) FROM orders), (SELECT count(*) FROM items), (SELECT sum(v) FROM ledger),
    (SELECT count(*) FROM visits), (SELECT count(*) FROM pg_class WHERE relname IN ('items_pkey', 'things')),
    (SELECT string_agg(tgname::text || tgenabled::text, ' ' ORDER BY tgname, tgrelid) FROM pg_trigger
        WHERE tgname LIKE 'pgw%')
"""


COLUMNS_ARE_KEPT = policy("columns_are_kept", 'principal.kind == "agent" && "drop_column" in statement.operations')
LEDGER_IS_KEPT = policy(
    "ledger_is_kept",
    'statement.operations.exists(o, o in ["alter_table", "drop_table"])'
    ' && relations.exists(r, r == "public.ledger") && principal.kind == "agent"',
)
VISITS_ARE_KEPT = policy("visits_are_kept", '"drop_table" in statement.operations && "public.visits" in relations')
CHILDREN_STAY = policy("children_stay", 'operation == "delete" && "public.child" in relations')
BY_ANY_NAME = (
    (LEDGER, "ALTER TABLE ledger RENAME TO x; DELETE FROM x"),
    (LEDGER, "ALTER TABLE ledger RENAME TO x; TRUNCATE x"),
    (LEDGER, "CREATE SCHEMA mine; ALTER TABLE ledger SET SCHEMA mine; UPDATE mine.ledger SET v = 2"),
    (LEDGER, "CREATE TABLE above (id int, v int); ALTER TABLE ledger INHERIT above; DELETE FROM above"),
    (LEDGER, "CREATE TABLE root (id int NOT NULL, v int) PARTITION BY RANGE (id);"
     " ALTER TABLE root ATTACH PARTITION ledger DEFAULT; DELETE FROM ledger"),
    (LEDGER, "CREATE TABLE root (id int NOT NULL, v int) PARTITION BY RANGE (id);"
     " ALTER TABLE root ATTACH PARTITION ledger DEFAULT; DELETE FROM root"),
    (LEDGER_IS_KEPT, "ALTER TABLE ledger RENAME TO x"),
    (LEDGER_IS_KEPT, "ALTER INDEX ledger RENAME TO x"),
    (LEDGER_IS_KEPT, "DROP TABLE ledger"),
    (CHILDREN_STAY, "DELETE FROM parent"),
    (VISITS_ARE_KEPT, "DROP TABLE visits_1"),
    (VISITS_ARE_KEPT, "ALTER TABLE visits DETACH PARTITION visits_1; DROP TABLE visits_1"),
    (COLUMNS_ARE_KEPT, "DROP TYPE mood CASCADE"),
    (AGENTS_DROP_NOTHING, "COMMENT ON SCHEMA stuff IS 'pgwitness masks: x'; DROP TABLE stuff.things"),
    (FEW_ROWS, "CREATE EXTENSION hstore; ALTER EXTENSION hstore ADD TABLE visits_1;"
     " ALTER TABLE visits_1 DISABLE TRIGGER pgwitness_guard_delete; DELETE FROM visits_1"),
    (FEW_ROWS, "CREATE SCHEMA pgwitness; ALTER TABLE child SET SCHEMA pgwitness;"
     " ALTER TABLE pgwitness.child DISABLE TRIGGER pgwitness_guard_delete; DELETE FROM pgwitness.child"),
    (FEW_ROWS, "CREATE SCHEMA pgwitness_masks; CREATE TABLE pgwitness_masks.t AS SELECT generate_series(1, 50);"
     " ALTER TABLE pgwitness_masks.t SET SCHEMA public; DELETE FROM t"),
    (FEW_ROWS, "ALTER TRIGGER pgwitness_guard_delete ON child RENAME TO x; ALTER TABLE child DISABLE TRIGGER x;"
     " DELETE FROM child"),
    (FEW_ROWS, """CREATE FUNCTION deep(n int) RETURNS "char" LANGUAGE plpgsql AS $f$ BEGIN
        IF n > 0 THEN RETURN deep(n - 1); END IF;
        EXECUTE 'ALTER TABLE child DISABLE TRIGGER pgwitness_guard_delete';
        RETURN (SELECT tgenabled FROM pg_trigger WHERE tgrelid = 'child'::regclass AND tgname ~ 'guard_delete');
     END $f$; DO $d$ BEGIN FOR i IN REVERSE 2600..0 BY 25 LOOP
        BEGIN EXIT WHEN deep(i) = 'D'; EXCEPTION WHEN statement_too_complex THEN NULL; END;
     END LOOP; END $d$; DELETE FROM child"""),
)  # fmt: skip
"""Ways round a policy about a table that is then called otherwise, and round the guard's own triggers."""

FAMILY = """
SET ROLE owners; CREATE TYPE mood AS ENUM ('well'); CREATE TABLE moody (id int, m mood);
CREATE TABLE parent (id int, v int); CREATE TABLE child () INHERITS (parent);
INSERT INTO child SELECT i FROM generate_series(1, 50) AS i; RESET ROLE;
"""


def test_a_table_is_judged_by_every_name_it_has_and_had(guarded: Guarded) -> None:
    """A name, a schema, a root or a parent of one's own choice, and what switches triggers off, is no way round."""
    guarded.admin.execute(f"{FAMILY} GRANT CREATE ON DATABASE {guarded.admin.info.dbname} TO owners".encode())
    held = guard(LEDGER_IS_KEPT, LEDGER, CHILDREN_STAY, VISITS_ARE_KEPT, COLUMNS_ARE_KEPT, FEW_ROWS)
    for one in (held, guard(AGENTS_DROP_NOTHING)):
        assert not guarded.install(one).left
        for about, statement in BY_ANY_NAME:
            if (about == AGENTS_DROP_NOTHING) == (one is not held):
                error = guarded.refused(f"SET ROLE owners; {statement}")
                assert error.sqlstate == "42501", statement
                assert guarded.status(one)[0].state == "ok", statement


def test_who_may_change_definitions_does_not_change_the_guard(guarded18: Guarded) -> None:
    """A role that no policy keeps from DDL neither replaces nor renames what keeps it from a table's rows."""
    assert not guarded18.install(guard(LEDGER)).left
    mine = "CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    for statement in (
        f"{mine}; CREATE OR REPLACE TRIGGER pgwitness_guard_delete AFTER DELETE ON ledger EXECUTE FUNCTION mine()",
        "ALTER TRIGGER pgwitness_guard_delete ON ledger RENAME TO x",
    ):
        assert "guard of pgwitness" in str(guarded18.refused(f"SET ROLE owners; {statement}", "app"))


def test_new_names_are_told_until_the_guard_is_installed_again(guarded18: Guarded) -> None:
    """A table that was renamed is judged by both names, then by its own; one that is dropped leaves its name free."""
    assert not guarded18.install(guard(LEDGER)).left
    guarded18.passes("SET ROLE owners; ALTER TABLE ledger RENAME TO ledger_1; CREATE TABLE ledger (id int)", "app")
    assert "public.ledger_1, public.ledger" in str(guarded18.refused("DELETE FROM ledger_1", "app"))
    guarded18.refused("DELETE FROM ledger", "app")
    assert "public.ledger_1 (public.ledger)" in str(guarded18.status(guard(LEDGER))[0].problem)
    assert not guarded18.install(guard(LEDGER)).left
    assert guarded18.status(guard(LEDGER))[0].state == "ok"
    guarded18.passes("DELETE FROM ledger_1", "app")
    guarded18.passes("SET ROLE owners; DROP TABLE ledger; CREATE TABLE fresh (id int); DELETE FROM fresh", "app")
    known = guarded18.admin.execute("SELECT name FROM pgwitness_guard.known WHERE name ~ 'ledger|fresh' ORDER BY 1")
    assert known.fetchall() == [("public.fresh",), ("public.ledger_1",)]


def test_those_who_may_go_on_as_before(guarded: Guarded) -> None:
    """A service's and a person's migrations and writes pass, and new tables are guarded."""
    assert not guarded.install(guard()).left
    for statement in MIGRATIONS:
        guarded.passes(statement, "ada")
    guarded.passes("UPDATE ledger SET v = 2", "ada")
    guarded.passes("UPDATE orders SET v = 3; INSERT INTO orders VALUES (500, 1)", "app")
    guarded.passes("CREATE TABLE made (id int); INSERT INTO made SELECT generate_series(1, 20)", "app")
    guarded.passes("CREATE TABLE copied AS TABLE made", "app")
    guarded.passes("CREATE TABLE visits_3 PARTITION OF visits FOR VALUES FROM (200) TO (300)", "app")
    for table in ("made", "copied", "visits_2", "visits_3"):
        guarded.refused(f"TRUNCATE {table}")
    guarded.refused("DELETE FROM made")
    assert guarded.status(guard())[0].state == "ok"


def test_the_guard_says_what_the_gateway_says(guarded18: Guarded) -> None:
    """Message, detail and hint are those of the gateway's verdict on the same action."""
    from detectors.actions import Action
    from detectors.gatekeeper import Gatekeeper
    from detectors.sensitive import Sensitive

    found = guard(
        AGENTS_DROP_NOTHING, policy("nobody_empties", 'operation == "truncate"', message="Gone: {did}, {statement}")
    )
    guarded18.install(found)
    gatekeeper = Gatekeeper(found.bundle, Sensitive([]))
    for statement, operation, relations in (
        ("DROP TABLE items", "drop_table", ["public.items"]),
        ("TRUNCATE ledger", "truncate", ["public.ledger"]),
    ):
        error = guarded18.refused(statement)
        action = Action(
            kind="statement", operation=operation, operations=[operation], relations=relations, principal="helper",
            principal_kind="agent", on_behalf_of="maria", cluster="eu", database=guarded18.admin.info.dbname,
            labels={"env": "prod", "owner": "payments"}, asked=True, rows_known=False,
        )  # fmt: skip
        verdict = gatekeeper.ask(action)
        assert verdict is not None
        said = (error.diag.message_primary, error.diag.message_detail, error.diag.message_hint)
        assert said == (verdict.message, verdict.why, verdict.hint)


def test_installing_again_does_nothing_and_removal_leaves_nothing(guarded: Guarded) -> None:
    """What is there stays; afterwards no object, trigger or role of the guard is left."""
    first = guarded.install(guard())
    assert first.done
    assert not first.left
    assert not guarded.install(guard()).done
    assert not guarded.uninstall(guard()).left
    left = guarded.admin.execute(
        "SELECT count(*) FROM (SELECT tgname FROM pg_trigger UNION ALL SELECT evtname FROM pg_event_trigger"
        " UNION ALL SELECT nspname FROM pg_namespace UNION ALL SELECT rolname FROM pg_roles) AS o (name)"
        " WHERE name LIKE 'pgwitness_%%' OR name LIKE 'pgwitness\\_guard%%'"
    ).fetchone()
    assert left == (0,)
    guarded.passes("DELETE FROM items; DROP TABLE items")


def test_changed_policies_and_roles_are_drift(guarded18: Guarded) -> None:
    """Status says that policies have changed, triggers are missing, and what is not covered, and why."""
    guarded18.install(guard())
    other = guard(
        FEW_ROWS, policy("reads", '"select" in statement.operations'), policy("bare", 'statement.where == "none"')
    )
    states = {one.subject: one for one in guarded18.status(other)}
    assert states["guard"].state == "differs"
    assert "reads" not in guarded18.status(guard())
    assert "select" in str(states["guard: policy reads"].problem)
    assert "statement.where" in str(states["guard: policy bare"].problem)
    guarded18.admin.execute("DROP TRIGGER pgwitness_guard_delete ON orders; DROP EVENT TRIGGER pgwitness_a_guard_drop")
    problems = " ".join(str(one.problem) for one in guarded18.status(guard()) if one.state == "differs")
    assert "public.orders" in problems
    assert "pgwitness_a_guard_drop" in problems
    assert not guarded18.install(guard()).left
    assert guarded18.status(guard())[0].state == "ok"


@pytest.mark.parametrize("on_error", ["refuse", "pass"])
def test_what_it_cannot_judge_is_refused_or_passes_as_configured(guarded18: Guarded, on_error: str) -> None:
    """An error within the guard ends the statement, or not; and so does what no trigger sees."""
    unseen = policy("unseen", 'principal.kind == "agent" && operation == "delete" && statement.where == "none"')
    guarded18.install(guard(unseen, on_error=on_error, on_unknown=on_error))
    if on_error == "refuse":
        assert "policy unseen" in str(guarded18.refused("DELETE FROM items"))
    else:
        guarded18.passes("DELETE FROM items")
    guarded18.install(guard(FEW_ROWS, on_error=on_error))
    guarded18.admin.execute("ALTER TABLE pgwitness_guard.counted ADD CHECK (gone < 1)")
    if on_error == "refuse":
        assert "guard of pgwitness failed" in str(guarded18.refused("DELETE FROM orders WHERE id = 1"))
    else:
        guarded18.passes("DELETE FROM orders WHERE id = 1")


def test_a_staged_policy_refuses_nothing(guarded18: Guarded) -> None:
    """It is written into the server's log, and the statement goes on."""
    guarded18.install(guard(FEW_ROWS.replace("effect: limit", "effect: limit\nmode: staged")))
    with guarded18.session() as connection:
        notices: list[str] = []
        connection.add_notice_handler(lambda said: notices.append(str(said.message_primary)))
        connection.execute("SET client_min_messages = log")
        connection.execute("DELETE FROM items")
    assert notices == ["pgwitness: would have been refused by staged policy agents_change_few_rows"]


def test_a_busy_table_is_left_and_the_others_are_guarded(guarded18: Guarded) -> None:
    """Installing waits for no lock longer than it is told, and a later run does what was left."""
    from collectors.guard import install
    from collectors.installation.steps import Options

    with psycopg.connect(guarded18.dsn) as holder:
        holder.execute("UPDATE orders SET v = v")
        with psycopg.connect(guarded18.dsn) as connection:
            report = install.install(connection, "eu", guard(), Options(lock_timeout_ms=50, attempts=1))
    assert [one.what for one in report.left] == ["table public.orders"]
    guarded18.refused("TRUNCATE ledger")
    assert not guarded18.install(guard(*ALL)).left
