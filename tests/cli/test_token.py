"""`pgwitness token`: what a value is in the lake."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pgwitness.cli import main
from pgwitness.core.privacy import load_key, tokenizer
from pgwitness.demo.servers import free_port

RULES = """
[privacy]
clear = ["public.orders.status"]
mask = [
  { column = "public.cards.number", with = "last4" },
  { column = "*.*.email", with = "hash" },
  { column = "*.*.password", with = "drop" },
]
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a masking key and some rules, and no broker."""
    (tmp_path / "privacy.key").write_text("5a" * 32)
    (tmp_path / "privacy.key").chmod(0o600)
    (tmp_path / "pgwitness.toml").write_text(f'[kafka]\nbootstrap = "127.0.0.1:{free_port()}"\n{RULES}')
    return tmp_path


def ask(home: Path, column: str, said: bytes, *words: str) -> Result:
    """Run the command with a value on stdin."""
    arguments = ["token", column, *words, "--config", str(home / "pgwitness.toml")]
    return CliRunner().invoke(main, arguments, input=said, prog_name="pgwitness")


def token(value: bytes) -> str:
    """Make a token as the documentation says that it is made."""
    return "tok_" + hmac.new(b"\x5a" * 32, value, hashlib.sha256).hexdigest()[:32]


@pytest.mark.parametrize(
    ("column", "said", "found"),
    [
        ("public.orders.note", b"gr\xc3\xbc\xc3\x9fe\n", token("gr\u00fc\u00dfe".encode())),
        ("public.orders.note", b"two\nlines\n", token(b"two\nlines")),
        ("public.orders.note", b"typed elsewhere\r\n", token(b"typed elsewhere")),
        ("public.orders.note", b"", token(b"")),
        ("public.orders.note", b"x" * 20_000, token(b"x" * 20_000)),
        ("public.cards.number", b"4111111111111111", "****1111"),
        ("public.people.email", b"ada@x.org", "sha256:" + hashlib.sha256(b"ada@x.org").hexdigest()),
    ],
)
def test_a_value_is_what_its_column_makes_of_it(home: Path, column: str, said: bytes, found: str) -> None:
    """Every treatment, a text with lines in it, none at all, and one longer than what is kept of a value."""
    result = ask(home, column, said)
    assert (result.exit_code, result.stdout) == (0, found + "\n")
    assert "not written down" in result.stderr  # no broker: answered all the same
    assert said.decode().strip()[:5] not in result.stderr or not said.strip()


def test_as_rows(home: Path) -> None:
    """With --json the same as one row."""
    rows = json.loads(ask(home, "public.orders.note", b"x", "--json").stdout)
    assert rows == [{"column": "public.orders.note", "treatment": "token", "token": token(b"x")}]


@pytest.mark.parametrize(
    ("column", "code", "words"),
    [
        ("public.orders.status", 1, "look for the value itself"),
        ("public.people.password", 1, "not in the lake"),
        ("orders.status", 2, "schema.table.column"),
        ("public..status", 2, "schema.table.column"),
    ],
)
def test_where_there_is_no_token_it_is_said(home: Path, column: str, code: int, words: str) -> None:
    """A clear column, a dropped one, and what is no column."""
    result = ask(home, column, b"x")
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr


def run(home: Path, said: bytes, *words: str) -> Result:
    """Run another command with something on stdin."""
    return CliRunner().invoke(main, [*words, "--config", str(home / "pgwitness.toml")], input=said)


def test_a_rotated_key_keeps_all_tokens_of_a_value_known(home: Path) -> None:
    """The first are as they were; later ones say which generation made them, the newest first."""
    for _ in range(2):
        assert run(home, b"", "privacy", "rotate").exit_code == 0
    newest, second, first = ask(home, "public.orders.note", b"x").stdout.split()
    assert first == token(b"x")
    assert (newest[:6], second[:6]) == ("tok_3_", "tok_2_")
    key = load_key(home / "privacy.key")
    assert (bytes(key), tokenizer(key)(b"x").decode()) == (b"\x5a" * 32, newest)
    assert ask(home, "public.cards.number", b"4111111111111111").stdout == "****1111\n"
    assert (home / "privacy.key").stat().st_mode & 0o077 == 0


def test_a_forgotten_subjects_tokens_can_be_made_no_more(home: Path) -> None:
    """Before, by their id; afterwards by nobody, and others' are as they were."""
    assert "privacy.subject is not set" in run(home, b"1", "privacy", "forget", "--yes").output
    config = home / "pgwitness.toml"
    config.write_text(config.read_text().replace("[privacy]", '[privacy]\nsubject = "public.customers.id"'))
    assert run(home, b"", "privacy", "init").exit_code == 0
    assert run(home, b"", "privacy", "init").exit_code == 1
    name = ask(home, "public.customers.name", b"1\nAda\n", "--subject").stdout
    assert name.startswith("tok_s_")
    own = ask(home, "public.customers.id", b"1").stdout
    other = ask(home, "public.customers.name", b"2\nAda\n", "--subject").stdout
    assert "say --yes" in run(home, b"1", "privacy", "forget").output
    done = run(home, b"1\n", "privacy", "forget", "--yes")
    assert done.exit_code == 0
    assert own.strip() in done.output
    again = ask(home, "public.customers.name", b"1\nAda\n", "--subject")
    assert (again.exit_code, again.stdout) == (1, "")
    assert ask(home, "public.customers.name", b"2\nAda\n", "--subject").stdout == other
    assert "forgotten before" in run(home, b"1\n", "privacy", "forget", "--yes").output
