"""The mark of an approved statement: it lets pass what it is for, once, and nothing else makes one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from collectors.guard.mark import Mark, Session, key_of, made
from tests.collectors.guard.conftest import FEW_ROWS, KEY, PURGES, Guarded, guard

PURGE = "DELETE FROM orders WHERE id > 50"
WHO = "SELECT pg_backend_pid(), (extract(epoch FROM backend_start) * 1000000)::int8 FROM pg_stat_get_activity(%s)"
Alter = Callable[[Mark, Session, str], tuple[bytes, Mark, Session, str]]


def session_of(connection: psycopg.Connection[Any], role: str) -> Session:
    """Ask a session which backend it is, as the gateway does at login."""
    row = connection.execute(WHO, [connection.info.backend_pid]).fetchone()
    assert row is not None
    return Session(connection.info.dbname, role, row[0], row[1])


def show(connection: psycopg.Connection[Any], mark: str) -> None:
    """Set the parameter, as the gateway does before the statement."""
    connection.execute("SELECT set_config('pgwitness.mark', %s, false)", [mark])


def approved(until_s: float | None = None, rows: int | None = 50) -> Mark:
    """Make a mark for a purge."""
    ends = time.time() + 600 if until_s is None else until_s
    return Mark("approval-1", ends, ("purges_are_approved", "agents_change_few_rows"), rows)


def test_an_approved_statement_passes_once(guarded: Guarded) -> None:
    """With the mark it runs, whatever triggers fire in it; the second time it is refused, and so is another one."""
    guarded.install(guard(PURGES, FEW_ROWS))
    guarded.refused(PURGE, "app")
    with guarded.session("app") as connection:
        show(connection, made(key_of(KEY), approved(), session_of(connection, "app"), PURGE))
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="purges_are_approved"):
            connection.execute("DELETE FROM orders WHERE id = 45")
        assert connection.execute(PURGE).rowcount == 50
        connection.execute("INSERT INTO orders SELECT generate_series(51, 100)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="purges_are_approved"):
            connection.execute(PURGE)


def test_what_was_rolled_back_has_not_used_the_mark(guarded18: Guarded) -> None:
    """The mark is used up together with what it let pass, or not at all."""
    guarded18.install(guard(PURGES, FEW_ROWS))
    with guarded18.session("app") as connection:
        show(connection, made(key_of(KEY), approved(), session_of(connection, "app"), PURGE))
        connection.execute("BEGIN")
        connection.execute(PURGE)
        connection.execute("ROLLBACK")
        assert connection.execute(PURGE).rowcount == 50


def test_an_approval_holds_for_so_many_rows(guarded18: Guarded) -> None:
    """More than the stated rows are undone, over all triggers of the statement."""
    guarded18.install(guard(PURGES, FEW_ROWS))
    loop = "DO $$ BEGIN FOR i IN 60..100 LOOP DELETE FROM orders WHERE id = i; END LOOP; END $$"
    for statement in (PURGE, loop):
        with guarded18.session("app") as connection:
            mark = replace(approved(rows=30), nonce=statement[:9])
            show(connection, made(key_of(KEY), mark, session_of(connection, "app"), statement))
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="approved for 30 rows, and changed"):
                connection.execute(statement.encode())
    assert guarded18.admin.execute("SELECT count(*) FROM orders").fetchone() == (100,)


FORGED: dict[str, Alter] = {
    "another key": lambda mark, session, statement: (bytes(32), mark, session, statement),
    "the installation's own key": lambda mark, session, statement: (KEY, mark, session, statement),
    "another session": lambda mark, session, statement: (
        key_of(KEY),
        mark,
        replace(session, pid=session.pid + 1),
        statement,
    ),
    "an earlier session of that pid": lambda mark, session, statement: (
        key_of(KEY),
        mark,
        replace(session, start_us=session.start_us - 1),
        statement,
    ),
    "another role": lambda mark, session, statement: (key_of(KEY), mark, replace(session, role="bot"), statement),
    "another database": lambda mark, session, statement: (
        key_of(KEY),
        mark,
        replace(session, database="postgres"),
        statement,
    ),
    "another statement": lambda mark, session, statement: (key_of(KEY), mark, session, statement + " "),
    "ended": lambda mark, session, statement: (key_of(KEY), replace(mark, until_s=1.0), session, statement),
    "other policies": lambda mark, session, statement: (
        key_of(KEY),
        replace(mark, policies=("x",)),
        session,
        statement,
    ),
}


def test_no_other_mark_lets_anything_pass(guarded18: Guarded) -> None:
    """Another key, session, start, role, database, text or time, and any change to a true one, are no mark."""
    guarded18.install(guard(PURGES, FEW_ROWS))
    with guarded18.session("app") as connection:
        session = session_of(connection, "app")
        true = made(key_of(KEY), approved(rows=None), session, PURGE)
        marks = [made(*alter(approved(), session, PURGE)) for alter in FORGED.values()]
        marks += ["", "x", "0" * 64, "0" * 64 + "[]", true[:64], true[64:], true[:-1], true + " "]
        marks += [true.replace("null", "9999"), true.replace("approval-1", "approval-2"), f" {true}", true.upper()]
        marks += ["0" * 64 + '["n", 1e400, null, ["purges_are_approved"]]', "é" * 80, "'" * 70]
        for mark in marks:
            show(connection, mark)
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="purges_are_approved"):
                connection.execute(PURGE)
        show(connection, true)
        assert connection.execute(PURGE).rowcount == 50


def test_without_the_key_nothing_passes(guarded18: Guarded) -> None:
    """A guard that was installed without the key refuses what was approved, and status says why with it."""
    guarded18.install(guard(PURGES, key=None))
    with guarded18.session("app") as connection:
        show(connection, made(key_of(KEY), approved(), session_of(connection, "app"), PURGE))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(PURGE)
    assert "key" in str(guarded18.status(guard(PURGES))[0].problem)
