"""Verifiers: what a file says now, or said last; and the server's own, remembered for a while."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest

from collectors.gateway.auth.scram import Verifier
from collectors.gateway.auth.users import DOUBTED_S, FileUsers, ServerUsers
from pgwitness.core.errors import ConfigurationError
from tests.gateway.conftest import Running

ADA = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$" + "A" * 43 + "=:" + "B" * 43 + "="
BOB = ADA.replace("4096", "5000")


def told(users: FileUsers, role: str) -> Verifier | None:
    """Ask for a verifier."""
    return asyncio.run(users.verifier(role))


def test_a_file_of_users_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """Also one that changes twice within a moment; of one that is broken or gone the last content holds."""
    path = tmp_path / "users"
    path.write_text(f'; people\n"ada" "{ADA}"\n"o""hara" "{BOB}"\n')
    users = FileUsers(path)
    assert told(users, "ada") == Verifier.parse(ADA)
    assert told(users, 'o"hara') == Verifier.parse(BOB)
    assert told(users, "bob") is None
    for content in (BOB, ADA, BOB):
        path.write_text(f'"ada" "{content}"\n')
        assert told(users, "ada") == Verifier.parse(content)
    path.write_text('"ada" "secret"\n')
    assert told(users, "ada") == Verifier.parse(BOB)
    path.unlink()
    assert told(users, "ada") == Verifier.parse(BOB)
    path.write_text(f'"ada" "{ADA}"\n')
    assert told(users, "ada") == Verifier.parse(ADA)


def test_a_new_password_holds_when_the_old_one_was_not_proven(gateway: Running, database: str) -> None:
    """Whoever comes with a new password is refused once at most for what is remembered; who guesses asks nobody."""
    now = [0.0]
    users = gateway.house.databases["*"].admission.users
    assert isinstance(users, ServerUsers)
    users._clock = lambda: now[0]
    with psycopg.connect(gateway.dsn()):
        pass
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(f"ALTER ROLE {gateway.role} PASSWORD 'another'".encode())
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(gateway.dsn(password="another"))
    now[0] += DOUBTED_S
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(gateway.dsn(password="another"))
    with psycopg.connect(gateway.dsn(password="another")) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("content", [None, '"ada" "secret"', "ada", b"\xff"])
def test_a_file_that_cannot_be_used_at_the_start_is_refused(tmp_path: Path, content: str | bytes | None) -> None:
    """With its name and line, and without what stands in it."""
    path = tmp_path / "users"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError, match=r"users_file: .*users") as raised:
        FileUsers(path)
    assert "secret" not in str(raised.value)
