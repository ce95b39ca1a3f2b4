"""Masking: what becomes of a column's values before they leave the collector (docs/decisions/0011, 4).

Text-like values become tokens unless a rule says otherwise: an HMAC-SHA256 under the installation's key, so that
equal values stay joinable and none can be read. Numbers, times, booleans and uuids are clear by default.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from pgwitness.core import secretfile
from pgwitness.core.config import Privacy
from pgwitness.core.errors import ConfigurationError

TOKEN_PREFIX = "tok_"  # noqa: S105 - no password
KEY_BYTES = 32
DIGITS = 32
"""Of a token of the first generation. All tokens are as long as these: where a transaction is cut must not depend on
the key, since it may be read again under another one."""

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


class Key(bytes):
    """The masking key: the bytes of its first generation, by which all else than tokens goes, and all generations."""

    generations: tuple[bytes, ...]

    @classmethod
    def of(cls, generations: Sequence[bytes]) -> Key:
        """Make it of its generations, the oldest first."""
        made = cls(generations[0])
        made.generations = tuple(generations)
        return made

    def tokenizer(self, generation: int) -> Tokenizer:
        """Give what makes the tokens of a generation; of all behind the first one these say which it is."""
        return tokenizer(self.generations[generation - 1], prefix_of(generation))


def prefix_of(generation: int) -> str:
    """Give what tokens of a generation of the key begin with."""
    return TOKEN_PREFIX if generation == 1 else f"{TOKEN_PREFIX}{generation}_"


def load_key(path: Path) -> Key:
    """Read the masking key. Raises `ConfigurationError` when it is missing, short, or readable by others."""
    try:
        mode = path.stat().st_mode
        generations = [bytes.fromhex(line) for line in path.read_text(encoding="ascii").split("\n") if line.strip()]
    except FileNotFoundError:
        raise ConfigurationError(f"privacy.key_file: {path} does not exist; `pgwitness init` makes one") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"privacy.key_file: {path} is not a key of {KEY_BYTES} bytes in hex: {error}"
        ) from error
    short = min((len(key) for key in generations), default=0)
    if short < KEY_BYTES:
        raise ConfigurationError(f"privacy.key_file: {path} holds {short} bytes in a line, {KEY_BYTES} are needed")
    if mode & 0o077:
        raise ConfigurationError(f"privacy.key_file: {path} can be read by others; run `chmod 600 {path}`")
    return Key.of(generations)


def add_generation(path: Path, key: bytes) -> int:
    """Add a generation to the key's file, durably; gives its number. Raises as `load_key`, and `OSError`."""
    with secretfile.alone(path):
        generations = (*load_key(path).generations, key)
        secretfile.put(path, _lines(generations))
    return len(generations)


def write_key(path: Path, key: bytes) -> None:
    """Write a new key, readable by its owner only. Raises `FileExistsError`: a key is never overwritten."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(_lines([key]))


def _lines(generations: Sequence[bytes]) -> str:
    return "".join(key.hex() + "\n" for key in generations)


def pads(key: bytes) -> tuple[bytes, bytes]:
    """Give what HMAC-SHA256 hashes before a value, and what before that hash: the key in two forms (RFC 2104)."""
    block = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    return bytes(byte ^ 0x36 for byte in block), bytes(byte ^ 0x5C for byte in block)


def tokenizer(key: bytes, begins: str = TOKEN_PREFIX) -> Tokenizer:
    """Make the function from a value to its token: `tok_` and 128 bits of HMAC-SHA256 (RFC 2104) in hex.

    Of a key with several generations it is the newest that makes tokens. A longer beginning takes digits away.
    The two keyed states are computed once; a token costs two copies, which is a third of a call to `hmac`.
    """
    if isinstance(key, Key) and len(key.generations) > 1:
        return key.tokenizer(len(key.generations))
    inner, outer = (hashlib.sha256(pad) for pad in pads(key))
    prefix = begins.encode()
    digits = DIGITS + len(TOKEN_PREFIX) - len(prefix)

    def token(value: bytes) -> bytes:
        first = inner.copy()
        first.update(value)
        second = outer.copy()
        second.update(first.digest())
        return prefix + second.hexdigest()[:digits].encode()

    return token


def treatment(column: str, type_name: str, privacy: Privacy) -> str:
    """Say how a column's values are treated: `clear`, `token`, `last4`, `hash` or `drop`.

    `column` is `schema.table.column`. The first rule of `mask` that matches wins, then `clear`, then the type. What
    names a data subject is a token, whatever its type: in clear it would name whom the other tokens are of.
    """
    for rule in privacy.mask:
        if fnmatchcase(column, rule.column):
            return rule.with_
    if any(fnmatchcase(column, pattern) for pattern in privacy.clear):
        return "clear"
    if names_subject(column, privacy):
        return "token"
    return "clear" if type_name in CLEAR_TYPES else privacy.default


def names_subject(column: str, privacy: Privacy) -> bool:
    """Say whether a column names the data subject of its row (`privacy.subject`)."""
    return any(fnmatchcase(column, pattern) for pattern in privacy.subjects)
