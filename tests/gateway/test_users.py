"""Verifiers out of a file: what it says now, and what it last said when it cannot be used."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from collectors.gateway.auth.scram import Verifier
from collectors.gateway.auth.users import FileUsers
from pgwitness.core.errors import ConfigurationError

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


@pytest.mark.parametrize("content", [None, '"ada" "secret"', "ada", b"\xff"])
def test_a_file_that_cannot_be_used_at_the_start_is_refused(tmp_path: Path, content: str | bytes | None) -> None:
    """With its name and line, and without what stands in it."""
    path = tmp_path / "users"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError, match=r"users_file: .*users") as raised:
        FileUsers(path)
    assert "secret" not in str(raised.value)
