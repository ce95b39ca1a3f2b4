"""What a policy denies does not reach the server, in any flow of the protocol; the session is as after any error."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg import errors, sql

from collectors.gateway.judging.judge import Person, Rules
from collectors.gateway.spool.records import Begun
from collectors.gateway.wire.frames import frame
from detectors.gatekeeper import Gatekeeper
from detectors.policy.files import parse
from detectors.policy.policies import Bundle
from detectors.sensitive import Sensitive
from tests.gateway.conftest import DEADLINE_S, Running, running

POLICY = """
id: {id}
title: {id}
description: Nobody does so here.
severity: high
kinds: [statement]
when: {when}
effect: {effect}
message: "{{who}} {{done:deleted|delete}} rows in {{where}}"
hint: Delete by key, or ask the owner.
runbook: Ask.
tests:
  - name: a
    match: true
    action: {{kind: statement, relations: [public.victim], statement: {{operations: [delete], where: none}}}}
  - {{name: b, match: false, action: {{kind: statement, statement: {{operations: [select]}}}}}}
"""
DELETES = '"statement.where in [\\"none\\", \\"useless\\"] && \\"delete\\" in statement.operations"'


def policy(name: str = "no_delete", when: str = DELETES, effect: str = "deny") -> str:
    """Write a policy."""
    return POLICY.format(id=name, when=when, effect=effect)


def rules(*texts: str, kind: str = "agent") -> Rules:
    """What is decided by some policies, for a principal of a kind."""
    policies = [each for text in texts for each in parse(text, "test")]
    person = Person("helper", kind)  # type: ignore[arg-type]
    return Rules(Gatekeeper(Bundle(policies), Sensitive([])), lambda _opened, _application: person)


@pytest.fixture
def guarded(tmp_path: Path, database: str) -> Iterator[Running]:
    """A gateway that denies deleting all rows, in front of a table with some."""
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("CREATE TABLE victim AS SELECT generate_series(1, 5) AS id")
        admin.execute("CREATE TABLE log (line text)")
    with running(tmp_path, database, rules=rules(policy())) as one:
        with psycopg.connect(database, autocommit=True) as admin:
            role = sql.Identifier(one.role)
            admin.execute(sql.SQL("ALTER TABLE victim OWNER TO {}").format(role))
            admin.execute(sql.SQL("ALTER TABLE log OWNER TO {}").format(role))
        yield one


def left(client: psycopg.Connection) -> int:
    """Count the rows that are left."""
    row = client.execute("SELECT count(*) FROM victim").fetchone()
    assert row is not None
    return int(row[0])


def test_a_refusal_says_what_why_and_whom_to_ask(guarded: Running) -> None:
    """The error has the SQLSTATE of a missing right, the policy, the reason and a hint; the decision is evidence."""
    with psycopg.connect(guarded.dsn(), autocommit=True, cursor_factory=psycopg.ClientCursor) as client:
        with pytest.raises(errors.InsufficientPrivilege) as raised:
            client.execute("DELETE FROM victim")
        said = raised.value.diag
        assert said.message_primary == (
            "refused by policy no_delete: The AI agent helper asked to delete rows in "
            f"database {guarded.database} of cluster shop"
        )
        assert said.message_detail == "no_delete: Nobody does so here."
        assert said.message_hint == "Delete by key, or ask the owner."
        assert client.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert left(client) == 5
        client.execute("DELETE FROM victim WHERE id = 1")
        assert left(client) == 4
    first, *others = guarded.statements()
    begun, ended = first
    assert begun.said.statement == "DELETE FROM victim"
    assert begun.verdict is not None
    assert (begun.verdict.effect, begun.verdict.policies) == ("deny", ["no_delete"])
    assert (ended.outcome, ended.sqlstate, ended.rows) == ("denied", "42501", None)
    assert all(one.verdict is None for one, _ in others)


HIDDEN = [
    "DELETE FROM victim; SELECT 1",
    "SELECT 1; DELETE FROM public.victim",
    "BEGIN; INSERT INTO log VALUES ('x'); COMMIT; DELETE FROM victim",
    "ROLLBACK; DELETE FROM victim",
    "/* */ DELETE FROM victim -- WHERE id = 1",
    "WITH gone AS (DELETE FROM victim RETURNING id) SELECT count(*) FROM gone",
    "DO $$ BEGIN DELETE FROM victim; END $$",
    "DO $$ BEGIN EXECUTE 'DELETE ' || 'FROM victim'; END $$",
    "EXPLAIN ANALYZE DELETE FROM victim WHERE true",
    "COPY (DELETE FROM victim RETURNING id) TO STDOUT",
    "PREPARE p AS DELETE FROM victim; EXECUTE p",
    "DELETE FROM victim WHERE 1 = 1",
    "BEGIN; CREATE TEMP TABLE victim (id int); ROLLBACK; DELETE FROM victim",
    "SET search_path = public, pg_temp; CREATE TEMP TABLE victim (id int); DELETE FROM victim",
    "CREATE TEMP TABLE victim (id int); DISCARD TEMP; DELETE FROM victim",
    "DO $$ BEGIN IF false THEN CREATE TEMP TABLE victim (id int); END IF; DELETE FROM victim; END $$",
    "CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE sql AS 'DELETE FROM public.victim'; SELECT pg_temp.f()",
    (
        "CREATE FUNCTION pg_temp.r() RETURNS void LANGUAGE plpgsql AS"
        " $$ BEGIN EXECUTE reverse('mitciv MORF ETELED'); END $$; SELECT pg_temp.r()"
    ),
]


@pytest.mark.parametrize("in_block", ["", "BEGIN", "failed"])
def test_what_hides_is_refused_and_the_block_stands_as_after_any_error(guarded: Running, in_block: str) -> None:
    """A string with one refused statement runs no part of it, alone, in a block and in one that has failed."""
    with psycopg.connect(guarded.dsn(), autocommit=True, cursor_factory=psycopg.ClientCursor) as client:
        for text in HIDDEN:
            if in_block:
                client.execute("BEGIN")
            if in_block == "failed":
                with pytest.raises(errors.DivisionByZero):
                    client.execute("SELECT 1 / 0")
            failed = in_block == "failed"
            with pytest.raises(errors.InFailedSqlTransaction if failed else errors.InsufficientPrivilege):
                client.execute(text)
            stands = client.info.transaction_status
            assert (stands == psycopg.pq.TransactionStatus.INERROR) is bool(in_block), text
            client.execute("ROLLBACK")
        assert left(client) == 5
        assert client.execute("SELECT count(*) FROM log").fetchone() == (0,)
    denied = [begun for begun, ended in guarded.statements() if begun.verdict is not None]
    assert len(denied) == len(HIDDEN)


def test_names_that_sql_gives_are_judged_when_they_run(guarded: Running) -> None:
    """PREPARE passes and EXECUTE does not; so it is with a cursor, and with what SQL prepares and the protocol runs."""
    with psycopg.connect(guarded.dsn(), autocommit=True, cursor_factory=psycopg.ClientCursor) as client:
        client.execute("PREPARE p AS DELETE FROM victim")
        with pytest.raises(errors.InsufficientPrivilege, match="no_delete"):
            client.execute("EXECUTE p")
        result = client.pgconn.exec_prepared(b"p", [])
        assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"42501"
        client.execute("PREPARE q AS SELECT 1")
        assert client.execute("EXECUTE q").fetchone() == (1,)
        with pytest.raises(errors.InsufficientPrivilege, match="given unseen"):
            client.execute("EXECUTE nobody_knows")
        assert left(client) == 5


def test_extended_queries_and_pipelines(guarded: Running) -> None:
    """A refused Parse leaves no name; what stands before it in its pipeline is undone with it, and the rest goes on."""
    with psycopg.connect(guarded.dsn(), autocommit=True) as client:
        for _ in range(7):  # psycopg prepares by a name from the fifth on
            with pytest.raises(errors.InsufficientPrivilege):
                client.execute("DELETE FROM victim", prepare=True)
        with pytest.raises(errors.InsufficientPrivilege):
            _delete_in_pipeline(client)
        assert client.execute("SELECT count(*) FROM log").fetchone() == (0,)
        assert left(client) == 5
        result = client.pgconn.prepare(b"kept", b"DELETE FROM victim")
        assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"42501"
        result = client.pgconn.exec_prepared(b"kept", [])
        assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) in (b"26000", b"42501")
    found = guarded.statements()
    assert [one.outcome for begun, one in found if begun.way == "parse"] == ["denied"] * 9


def _delete_in_pipeline(client: psycopg.Connection) -> None:
    with client.pipeline():
        client.execute("INSERT INTO log VALUES ('before')")
        client.execute("DELETE FROM victim")
        client.execute("INSERT INTO log VALUES ('behind')")


def test_other_rules_hold_for_what_was_prepared_before(guarded: Running) -> None:
    """Policies change while a session runs: its prepared statements are judged anew, and no session is dropped."""
    with psycopg.connect(guarded.dsn(), autocommit=True) as client:
        for n in (1, 2):
            client.execute("DELETE FROM victim WHERE id = %s", [n], prepare=True)
        all_deletes = '"\\"delete\\" in statement.operations"'
        guarded.house.judging.adopt(rules(policy("nothing_at_all", all_deletes)))
        with pytest.raises(errors.InsufficientPrivilege, match="nothing_at_all"):
            client.execute("DELETE FROM victim WHERE id = %s", [3], prepare=True)
        assert left(client) == 3
        guarded.house.judging.adopt(rules())
        client.execute("DELETE FROM victim WHERE id = %s", [3], prepare=True)
        assert left(client) == 2
    assert [(begun.way, ended.outcome) for begun, ended in guarded.statements() if begun.verdict is not None] == [
        ("execute", "denied")
    ]


def test_function_calls_by_number(guarded: Running) -> None:
    """A function call whose function nobody knows is refused to an agent; large objects work."""
    with psycopg.connect(guarded.dsn(), autocommit=True) as client:
        bare = socket.fromfd(client.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        bare.settimeout(DEADLINE_S)
        with closing(bare):
            call = b"\0\0\0\0" + b"\0\0" + b"\0\0"
            for oid, wanted in ((2026, b"C42501"), (957, b"C08P01")):  # pg_backend_pid, lo_creat without its argument
                bare.sendall(frame(b"F", oid.to_bytes(4, "big") + call))
                answer = b""
                while b"Z\0\0\0\x05I" not in answer:
                    answer += bare.recv(8192)
                assert wanted in answer, (oid, answer)
        assert left(client) == 5


def test_a_mistake_is_told_in_the_servers_own_words(guarded: Running) -> None:
    """What does not parse is refused to an agent only if the server can read it; its position is that of the text."""
    with psycopg.connect(guarded.dsn(), autocommit=True, cursor_factory=psycopg.ClientCursor) as client:
        for cursor in (psycopg.ClientCursor(client), psycopg.Cursor(client)):
            with pytest.raises(errors.SyntaxError) as raised:
                cursor.execute("SELECT 1 FROM WHERE")
            assert raised.value.diag.statement_position == "15"
            with pytest.raises(errors.InsufficientPrivilege, match="cannot be told"):
                cursor.execute("DO $$ BEGIN EXECUTE (SELECT string_agg(line, '') FROM log); END $$")
        assert left(client) == 5


def test_a_warning_lets_it_pass(tmp_path: Path, database18: str) -> None:
    """A policy that warns gives a notice before the answer, and writes down that it did."""
    with running(tmp_path, database18, rules=rules(policy(effect="warn"))) as gateway:
        with psycopg.connect(gateway.dsn(), autocommit=True) as client:
            notices: list[str | None] = []
            client.add_notice_handler(lambda said: notices.append(said.message_primary))
            client.execute("CREATE TABLE victim AS SELECT generate_series(1, 5) AS id")
            assert client.execute("DELETE FROM victim").rowcount == 5
            assert client.execute("DELETE FROM victim", prepare=True).rowcount == 0
        found = [(begun.verdict.effect, ended.outcome) for begun, ended in gateway.statements() if begun.verdict]
        assert found == [("warn", "success")] * 2
        assert len(notices) == 2
        assert str(notices[0]).startswith("passed with a warning by policy no_delete")


def test_a_refusal_in_the_midst_of_long_answers(guarded: Running) -> None:
    """Answers around a refusal arrive whole, whatever the reads they come in."""
    with psycopg.connect(guarded.dsn(), autocommit=True) as client:
        bare = socket.fromfd(client.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        bare.settimeout(DEADLINE_S)
        with closing(bare):
            long = frame(b"Q", b"SELECT repeat('x', 1000) FROM generate_series(1, 3000)\0")
            bare.sendall(long + frame(b"Q", b"DELETE FROM victim\0") + long + frame(b"Q", b"DELETE FROM victim\0"))
            answer, at, kinds = b"", 0, b""
            while kinds.count(b"Z") < 4:
                answer += bare.recv(65536)
                while len(answer) - at >= 5 and len(answer) - at > int.from_bytes(answer[at + 1 : at + 5], "big"):
                    kinds += answer[at : at + 1]
                    at += 1 + int.from_bytes(answer[at + 1 : at + 5], "big")
            assert kinds == (b"T" + b"D" * 3000 + b"CZ" + b"EZ") * 2
            assert at == len(answer)


def test_begun_says_so_before_it_goes(guarded: Running) -> None:
    """The decision is on the spool when the client reads the refusal."""
    with psycopg.connect(guarded.dsn(), autocommit=True) as client:
        with pytest.raises(errors.InsufficientPrivilege):
            client.execute("DELETE FROM victim")
        assert [one.verdict is not None for one in guarded.records() if isinstance(one, Begun)] == [True]


def test_a_name_is_judged_by_all_that_it_may_stand_for(guarded: Running) -> None:
    """Protocol and SQL share names: one given again by the other, or cut to the server's length, hides nothing."""
    long = b"n" * 63
    with psycopg.connect(guarded.dsn(), autocommit=True, cursor_factory=psycopg.ClientCursor) as client:
        for name, text in ((b"p", b"SELECT 1"), (long + b"x", b"SELECT 1"), (b"through", b"EXECUTE q")):
            client.execute("DEALLOCATE ALL")
            client.execute("PREPARE q AS SELECT 1")
            assert client.pgconn.prepare(name, text).status == psycopg.pq.ExecStatus.COMMAND_OK
            client.execute("DEALLOCATE ALL")
            if name == b"through":
                # The name it runs is given to nothing now, so what it will run cannot be told.
                again = client.pgconn.prepare(name, text)
                assert again.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"42501"
                continue
            client.execute(f"PREPARE {name[:63].decode()} AS DELETE FROM victim")
            result = client.pgconn.exec_prepared(name, [])
            assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"42501", name
        assert left(client) == 5


def test_what_is_behind_more_names_than_are_kept_is_refused(guarded: Running) -> None:
    """A statement behind a hundred harmless ones, or behind a text that is kept in part, does not pass with them."""
    many = ", ".join(f"1 AS harmless_{n}" for n in range(1_500))
    with psycopg.connect(guarded.dsn(), autocommit=True, cursor_factory=psycopg.ClientCursor) as client:
        client.execute("PREPARE q AS SELECT 1; PREPARE p AS DELETE FROM victim")
        for text in ("EXECUTE q;" * 100 + "EXECUTE p", f"SELECT {many}; DELETE FROM victim"):
            with pytest.raises(errors.InsufficientPrivilege):
                client.execute(text)
        assert left(client) == 5
