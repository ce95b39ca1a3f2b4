"""The console's own users: a file of names, roles and scrypt hashes, read again when it changes.

A hash is `scrypt$N$R$P$SALT$KEY` in base64, with parameters of its own, so that later ones may be stronger. The file is
written whole or not at all, and for its owner alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from pgwitness.core import secretfile
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.runtime.watchedfile import Refusal, WatchedFile
from sinks.console.roles import RIGHTS

N, R, P = 2**15, 8, 1
"""32 MiB and a tenth of a second a guess (OWASP's password storage cheat sheet names N=2^17 down to 2^13 by P)."""
N_MAX, R_MAX, P_MAX = 2**17, 16, 10
SALT_BYTES, KEY_BYTES = 16, 32
MEMORY_MAX = 300 * 1024**2
PASSWORD_CHARS_MIN, PASSWORD_BYTES_MAX = 12, 1024
NAME_CHARS_MAX = 100

log = structlog.get_logger("console")


class User(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One person: who, which roles, and the hash of the password."""

    name: str
    roles: list[str]
    password: str


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    users: list[User] = []


def hashed(password: str, salt: bytes | None = None) -> str:
    """Hash a password for the file."""
    salt = salt if salt is not None else os.urandom(SALT_BYTES)
    key = _scrypt(password, salt, N, R, P)
    return f"scrypt${N}${R}${P}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


def matches(password: str, stored: str) -> bool:
    """Say whether a password is the one that was hashed; a hash that cannot be read matches none."""
    try:
        kind, n, r, p, salt, key = stored.split("$")
        numbers = int(n), int(r), int(p)
        if kind != "scrypt" or numbers[0] > N_MAX or numbers[1] > R_MAX or numbers[2] > P_MAX:
            return False
        wanted = base64.b64decode(key, validate=True)
        return hmac.compare_digest(_scrypt(password, base64.b64decode(salt, validate=True), *numbers), wanted)
    except (ValueError, binascii.Error):
        return False


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    content = password.encode("utf-8", "surrogatepass")[:PASSWORD_BYTES_MAX]
    return hashlib.scrypt(content, salt=salt, n=n, r=r, p=p, maxmem=MEMORY_MAX, dklen=KEY_BYTES)


NOBODY = hashed("", b"\0" * SALT_BYTES)
"""What the password of somebody unknown is held against: the answer takes as long as for somebody known."""


class Users:
    """The users of a file. Several threads may ask."""

    def __init__(self, path: Path, *, may_be_absent: bool = False) -> None:
        """Read the file. Raise `ConfigurationError` when it cannot be used, or is not there and has to be."""
        nobody: dict[str, User] = {}

        def known() -> dict[str, User]:
            return {} if may_be_absent and not path.exists() else read(path)

        self._file = WatchedFile(path, known, initial=nobody, refused=_still_holds)
        self._file.load()

    def get(self, name: str) -> User | None:
        """Return a user, as the file has them now."""
        return self._file.poll().get(name)

    def check(self, name: str, password: str) -> User | None:
        """Return the user with this name and password, None when there is none; as slow for an unknown name."""
        user = self.get(name)
        good = matches(password, user.password if user is not None else NOBODY)
        return user if good and password else None


def _still_holds(refusal: Refusal) -> None:
    log.error("what was read before still holds", error=refusal.error)


def read(path: Path) -> dict[str, User]:
    """Read a file of users. Raise `ConfigurationError`; hashes are never quoted."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigurationError(f"console.users_file: {path} is open to others: chmod 600 it")
        found = msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        raise ConfigurationError(
            f"console.users_file: there is no {path}; `pgwitness console users add NAME --role viewer` makes it"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"console.users_file: {path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ConfigurationError(
            f"console.users_file: {path} is not as `pgwitness console users add` writes it; restore it, or begin anew"
        ) from None
    for user in found.users:
        _known(path, user.roles)
    return {user.name: user for user in found.users}


def _known(path: Path, roles: list[str]) -> None:
    unknown = [role for role in roles if role not in RIGHTS]
    if unknown:
        raise ConfigurationError(
            f"console.users_file: {path}: there is no role {unknown[0]!r}; there are {', '.join(RIGHTS)}"
        )


def change(path: Path, edit: Callable[[dict[str, User]], dict[str, User]]) -> None:
    """Write the file anew with what `edit` makes of its users, one change after another; it stays its owner's.

    Raise `ConfigurationError`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with secretfile.alone(path):
            users = edit(read(path) if path.exists() else {})
            content = msgspec.json.encode(_File([users[name] for name in sorted(users)]))
            secretfile.put(path, msgspec.json.format(content, indent=1).decode() + "\n")
    except OSError as error:
        raise ConfigurationError(f"console.users_file: {path} cannot be written: {error.strerror}") from error


def fault_of_name(name: str) -> str | None:
    """Say what is wrong with a name, None when it can be one."""
    if not name or len(name) > NAME_CHARS_MAX or not name.isprintable() or name != name.strip():
        return f"a name has 1 to {NAME_CHARS_MAX} printable characters, without spaces around it"
    return None


def fault_of_password(password: str) -> str | None:
    """Say what is wrong with a password, None when it will do."""
    if len(password) < PASSWORD_CHARS_MIN:
        return f"at least {PASSWORD_CHARS_MIN} characters"
    if len(password.encode("utf-8", "surrogatepass")) > PASSWORD_BYTES_MAX:
        return f"at most {PASSWORD_BYTES_MAX} bytes"
    return None
