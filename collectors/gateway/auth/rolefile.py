"""Passwords of the roles that tokens and certificates log in as: a file of the gateway's own, which nobody else reads.

Lines `"role" "password"`, as pgbouncer's; read again when it has changed. A role that does not stand there is nobody's,
whatever a claim says.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import structlog

from collectors.gateway.auth.scram import Password
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.runtime.watchedfile import Refusal, WatchedFile

LINE: Final = re.compile(r'\s*"((?:[^"]|"")+)"\s+"((?:[^"]|"")*)"\s*')
"""A line of a file of users or roles: a quote within is doubled."""

T = TypeVar("T")

log = structlog.get_logger("gateway")


class Roles:
    """The roles of a file, and what proves to a server that one is them."""

    def __init__(self, path: Path) -> None:
        nobody: dict[str, Password] = {}
        self._file = WatchedFile(path, lambda: _read(path), initial=nobody, refused=_still_hold)
        self._file.load()

    def password(self, role: str) -> Password | None:
        """Return a role's password, None where the gateway may not be that role."""
        return self._file.poll().get(role)

    @property
    def names(self) -> list[str]:
        """The roles that the gateway may be."""
        return sorted(self._file.poll())


def _still_hold(refusal: Refusal) -> None:
    log.error("the passwords that were read before still hold", error=refusal.error)


def _read(path: Path) -> dict[str, Password]:
    try:
        if path.stat().st_mode & (stat.S_IRWXG & ~stat.S_IRGRP | stat.S_IRWXO):
            raise ConfigurationError(f"roles_file: {path}: others may read or write it; chmod 600 (or 640) {path}")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"roles_file: {path} cannot be read: {type(error).__name__}") from error
    return entries(text, f"roles_file: {path}", "password", lambda quoted: Password(quoted.replace('""', '"')))


def entries(text: str, where: str, second: str, read: Callable[[str], T]) -> dict[str, T]:
    """Read lines `"role" "…"`, of which `read` makes the second, raising `ValueError`; a later line of a role counts.

    Raise `ConfigurationError` that names the line; its content is never quoted.
    """
    found: dict[str, T] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith((";", "#")):
            continue
        match = LINE.fullmatch(line)
        try:
            if match is None:
                raise ValueError(f'not "role" "{second}"')
            found[match[1].replace('""', '"')] = read(match[2])
        except ValueError as error:
            raise ConfigurationError(f"{where}: line {number}: {error}") from error
    return found
