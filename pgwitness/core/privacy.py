"""Masking: what becomes of a column's values before they leave the collector (docs/decisions/0011, 4).

Text-like values become tokens unless a rule says otherwise: an HMAC-SHA256 under the installation's key, so that
equal values stay joinable and none can be read. Numbers, times, booleans and uuids are clear by default.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

from pgwitness.core.config import Privacy
from pgwitness.core.errors import ConfigurationError

TOKEN_PREFIX = "tok_"  # noqa: S105 - no password
KEY_BYTES = 32

_NUMBERS = {
    "bool",
    "int2",
    "int4",
    "int8",
    "oid",
    "float4",
    "float8",
    "numeric",
    "money",
    "uuid",
    "pg_lsn",
    "xid",
    "xid8",
}
_TIMES = {"date", "time", "timetz", "timestamp", "timestamptz", "interval"}
CLEAR_TYPES = frozenset(_NUMBERS | _TIMES)
"""Types whose values are clear unless a rule masks their column; by pg_type.typname."""

Tokenizer = Callable[[bytes], bytes]


def load_key(path: Path) -> bytes:
    """Read the masking key. Raises `ConfigurationError` when it is missing, short, or readable by others."""
    try:
        mode = path.stat().st_mode
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        raise ConfigurationError(f"privacy.key_file: {path} does not exist; `pgwitness init` makes one") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"privacy.key_file: {path} is not a key of {KEY_BYTES} bytes in hex: {error}"
        ) from error
    if len(key) < KEY_BYTES:
        raise ConfigurationError(f"privacy.key_file: {path} holds {len(key)} bytes, {KEY_BYTES} are needed")
    if mode & 0o077:
        raise ConfigurationError(f"privacy.key_file: {path} can be read by others; run `chmod 600 {path}`")
    return key


def write_key(path: Path, key: bytes) -> None:
    """Write a new key, readable by its owner only. Raises `FileExistsError`: a key is never overwritten."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key.hex() + "\n")


def pads(key: bytes) -> tuple[bytes, bytes]:
    """Give what HMAC-SHA256 hashes before a value, and what before that hash: the key in two forms (RFC 2104)."""
    block = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    return bytes(byte ^ 0x36 for byte in block), bytes(byte ^ 0x5C for byte in block)


def tokenizer(key: bytes) -> Tokenizer:
    """Make the function from a value to its token: `tok_` and 128 bits of HMAC-SHA256 (RFC 2104) in hex.

    The two keyed states are computed once; a token costs two copies, which is a third of a call to `hmac`.
    """
    inner, outer = (hashlib.sha256(pad) for pad in pads(key))
    prefix = TOKEN_PREFIX.encode()

    def token(value: bytes) -> bytes:
        first = inner.copy()
        first.update(value)
        second = outer.copy()
        second.update(first.digest())
        return prefix + second.hexdigest()[:32].encode()

    return token


def treatment(column: str, type_name: str, privacy: Privacy) -> str:
    """Say how a column's values are treated: `clear`, `token`, `last4`, `hash` or `drop`.

    `column` is `schema.table.column`. The first rule of `mask` that matches wins, then `clear`, then the type.
    """
    for rule in privacy.mask:
        if fnmatchcase(column, rule.column):
            return rule.with_
    if any(fnmatchcase(column, pattern) for pattern in privacy.clear):
        return "clear"
    return "clear" if type_name in CLEAR_TYPES else privacy.default
