"""Masking: tokens that join and cannot be read, and which column gets what."""

from __future__ import annotations

import hashlib
import hmac
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgwitness.core import privacy
from pgwitness.core.config import Mask, Privacy
from pgwitness.core.errors import ConfigurationError


@given(st.binary(min_size=1, max_size=200), st.binary(max_size=500))
def test_a_token_is_hmac_sha256(key: bytes, value: bytes) -> None:
    """Tokens are what RFC 2104 says, checked against the standard library's implementation."""
    expected = b"tok_" + hmac.new(key, value, hashlib.sha256).hexdigest()[:32].encode()
    assert privacy.tokenizer(key)(value) == expected


@pytest.mark.parametrize(
    ("column", "type_name", "expected"),
    [
        ("public.customers.name", "text", "token"),
        ("public.customers.id", "int8", "clear"),
        ("public.orders.status", "text", "clear"),
        ("public.customers.email", "text", "hash"),
        ("public.cards.number", "int8", "last4"),
        ("public.orders.body", "jsonb", "token"),
        ("public.orders.custom", "some_domain", "token"),
    ],
)
def test_the_first_mask_wins_then_clear_then_the_type(column: str, type_name: str, expected: str) -> None:
    """A rule that masks is stronger than a list of clear columns, and both than the type's default."""
    rules = Privacy(
        clear=["public.orders.status", "*.email"],
        mask=[Mask(column="*.email", with_="hash"), Mask(column="public.cards.number", with_="last4")],
    )
    assert privacy.treatment(column, type_name, rules) == expected


def test_a_key_is_written_once_and_read_back(tmp_path: Path) -> None:
    """A key is for its owner's eyes, and never overwritten: that would make all past tokens useless."""
    path = tmp_path / "privacy.key"
    privacy.write_key(path, b"k" * 32)
    assert privacy.load_key(path) == b"k" * 32
    with pytest.raises(FileExistsError):
        privacy.write_key(path, b"x" * 32)


@pytest.mark.parametrize(
    ("content", "mode", "says"), [("00", 0o600, "needed"), ("zz", 0o600, "hex"), ("00" * 32, 0o644, "chmod")]
)
def test_a_key_that_is_short_garbled_or_open_is_refused(tmp_path: Path, content: str, mode: int, says: str) -> None:
    """The message says what to do about it."""
    path = tmp_path / "privacy.key"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=says):
        privacy.load_key(path)


def test_a_generation_is_added_behind_those_that_are_there(tmp_path: Path) -> None:
    """Whole or not at all, its owner's alone; what is short in any line is no key."""
    path = tmp_path / "privacy.key"
    privacy.write_key(path, b"k" * 32)
    assert privacy.add_generation(path, b"n" * 32) == 2
    key = privacy.load_key(path)
    assert (bytes(key), key.generations) == (b"k" * 32, (b"k" * 32, b"n" * 32))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert privacy.tokenizer(key)(b"x") == privacy.tokenizer(b"n" * 32, "tok_2_")(b"x")
    path.write_text("6b" * 32 + "\n" + "6b" * 31 + "\n")
    with pytest.raises(ConfigurationError, match="holds 31 bytes in a line"):
        privacy.load_key(path)
