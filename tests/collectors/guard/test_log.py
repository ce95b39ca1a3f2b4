"""What the guard's errors become in evidence: the policies that refused, of its own errors alone."""

from __future__ import annotations

import psycopg
import pytest

from collectors.log.formats.record import LogRecord
from collectors.log.interpretation import guarded as reading
from collectors.log.interpretation.interpret import Interpreter
from pgwitness.core.events import Statement
from tests.collectors.guard.conftest import FEW_ROWS, LEDGER, Guarded, guard

FAKE = """
CREATE SCHEMA "public pgwitness_guard";
CREATE FUNCTION public."pgwitness_guard.judge"(text[], text[], bigint, boolean) RETURNS void LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION USING MESSAGE = 'refused by policy ledger_stays: no', ERRCODE = '42501'; END $$;
CREATE FUNCTION public.judge(text[], text[], bigint, boolean) RETURNS void LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION USING MESSAGE = 'refused by policy ledger_stays: no', ERRCODE = '42501'; END $$;
CREATE FUNCTION "public pgwitness_guard".judge(text[], text[], bigint, boolean) RETURNS void LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION USING MESSAGE = 'refused by policy ledger_stays: no', ERRCODE = '42501'; END $$;
GRANT USAGE ON SCHEMA "public pgwitness_guard" TO PUBLIC
"""
FORGED = (
    """SELECT public."pgwitness_guard.judge"('{}', '{}', 1, true)""",
    "SELECT public.judge('{}', '{}', 1, true)",
    """SELECT "public pgwitness_guard".judge('{}', '{}', 1, true)""",
    """DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = 'refused by policy ledger_stays: no'; END $$""",
    "DO $$ BEGIN EXECUTE E'/*\\nPL/pgSQL function pgwitness_guard.judge(text[],text[],bigint,boolean) line 1 at RAISE"
    "*/ SELECT public.judge(''{}'', ''{}'', 1, true)'; END $$",
)


def record(error: psycopg.Error, statement: str) -> LogRecord:
    """Give the error as the server's log has it."""
    said = error.diag
    return LogRecord(
        1_700_000_000_000_000, 7, "ERROR", str(said.message_primary), "s.7", 1, 1_699_999_999_000_000, "bot", "shop",
        sqlstate=said.sqlstate, detail=said.message_detail, hint=said.message_hint, statement=statement,
        backend_type="client backend", context=said.context,
    )  # fmt: skip


def test_a_refusal_is_denied_by_the_policies_that_refused(guarded18: Guarded) -> None:
    """The statement's event has the policy's id, and that it was the guard who decided."""
    guarded18.install(guard(FEW_ROWS, LEDGER))
    interpreter = Interpreter(lambda value: b"tok_" + value.hex().encode(), "jsonlog")
    for statement, policy, effect in (
        ("DELETE FROM ledger", "ledger_stays", "deny"),
        ("DELETE FROM orders", "agents_change_few_rows", "limit"),
    ):
        found = record(guarded18.refused(statement), statement)
        (event,) = interpreter.read(found, "log", 0, 1)
        assert isinstance(event, Statement)
        assert event.outcome == "denied"
        assert event.decided is not None
        assert (event.decided.policies, event.decided.effect, event.decided.by) == ([policy], effect, "guard")
    assert interpreter.guarded == {"deny": 1, "limit": 1}


def test_nobody_else_speaks_for_the_guard(guarded18: Guarded) -> None:
    """A function that raises the same words is no refusal of the guard, whatever it is called."""
    guarded18.install(guard(LEDGER))
    guarded18.admin.execute(FAKE.encode())
    for statement in FORGED:
        error = guarded18.refused(statement)
        assert reading.decided(record(error, statement)) is None, error.diag.context


@pytest.mark.parametrize("by", ["guard", "session"])
def test_a_staged_policy_is_counted_by_the_guards_own_note(by: str) -> None:
    """The note counts where the guard wrote it."""
    name = "pgwitness_guard.judge" if by == "guard" else "public.judge"
    said = "pgwitness: would have been refused by staged policies a_b, c"
    context = f"PL/pgSQL function {name}(text[],text[],bigint,boolean) line 9 at RAISE"
    note = LogRecord(1, 7, "LOG", said, "s.7", sqlstate="00000", context=context)
    assert reading.staged(note) == (["a_b", "c"] if by == "guard" else [])
