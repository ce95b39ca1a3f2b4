"""Verifiers of passwords: the server's own, as a role that may read them, or those of a file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import psycopg
import structlog

from collectors.connection import unreachable
from collectors.gateway.auth.rolefile import LINE, entries
from collectors.gateway.auth.scram import Verifier
from pgwitness.core.errors import ConfigurationError, Retry
from pgwitness.core.runtime.disk import write_whole
from pgwitness.core.runtime.watchedfile import Refusal, WatchedFile

REMEMBERED_S: Final = 10.0
REMEMBERED_MAX: Final = 10_000
DOUBTED_S: Final = 1.0
"""How old a verifier is at least that is asked for again for a wrong password: who guesses asks the server no more."""


log = structlog.get_logger("gateway")


class Users(Protocol):
    """Where verifiers come from."""

    async def verifier(self, role: str) -> Verifier | None:
        """Return a role's verifier, None where it has none that serves. Raise `Retry` where that cannot be known."""

    def forget(self, role: str) -> None:
        """Ask again for a role the next time."""

    def doubt(self, role: str) -> None:
        """Somebody has not proven to be a role: it may have another password since its verifier was asked for."""


class FileUsers:
    """A file of lines `"role" "SCRAM-SHA-256$…"`, as pgbouncer's; read again when it has changed."""

    def __init__(self, path: Path) -> None:
        nobody: dict[str, Verifier] = {}
        self._file = WatchedFile(path, lambda: _read(path), initial=nobody, refused=_still_holds)
        self._file.load()

    async def verifier(self, role: str) -> Verifier | None:
        """Return a role's verifier; of a file that cannot be used any more what it last said."""
        return self._file.poll().get(role)

    def forget(self, role: str) -> None:
        """Do nothing: the file is looked at each time."""

    def doubt(self, role: str) -> None:
        """Do nothing, likewise."""

    @property
    def names(self) -> list[str]:
        """The names in the file."""
        return sorted(self._file.poll())


def _still_holds(refusal: Refusal) -> None:
    log.error("what was read before still holds", error=refusal.error)


def _read(path: Path) -> dict[str, Verifier]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"users_file: {path} cannot be read: {error}") from error
    return users_of(text, path)


def users_of(text: str, path: Path) -> dict[str, Verifier]:
    """Read a file of users. Raise `ConfigurationError` that names the line; its content is never quoted."""
    return entries(text, f"users_file: {path}", "verifier", Verifier.parse)


def with_user(path: Path, name: str, verifier: Verifier) -> None:
    """Put a name into a file of users, in the place of an older line of its own; comments and other lines stay.

    Raise `ConfigurationError` where the file is none, `Retry` where it cannot be written.
    """
    text = ""
    if path.exists():
        _read(path)
        text = path.read_text(encoding="utf-8")
    quoted = name.replace('"', '""')
    kept = [line for line in text.splitlines() if (found := LINE.fullmatch(line)) is None or found[1] != quoted]
    write_whole(path, "".join(f"{line}\n" for line in [*kept, f'"{quoted}" "{verifier.text()}"']).encode())


class ServerUsers:
    """The server's own verifiers, asked for one by one. `query` has `%s` for the role and gives one text."""

    def __init__(self, dsn: str, query: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._dsn = dsn
        self._query = query
        self._clock = clock
        self._remembered: dict[str, tuple[float, Verifier | None]] = {}

    async def verifier(self, role: str) -> Verifier | None:
        """Ask for a role's verifier, or remember it. Raise `Unreachable` when the server does not answer."""
        known = self._remembered.get(role)
        if known is not None and self._clock() - known[0] < REMEMBERED_S:
            return known[1]
        text = await asyncio.get_running_loop().run_in_executor(None, self._ask, role)
        try:
            verifier = Verifier.parse(text) if text else None
        except ValueError:
            verifier = None  # a hash by MD5, which nothing can be recovered from
        if len(self._remembered) >= REMEMBERED_MAX:
            self._remembered.clear()
        self._remembered[role] = (self._clock(), verifier)
        return verifier

    def forget(self, role: str) -> None:
        """Ask again for a role the next time."""
        self._remembered.pop(role, None)

    def doubt(self, role: str) -> None:
        """Ask again the next time, unless the server was asked just now."""
        known = self._remembered.get(role)
        if known is not None and self._clock() - known[0] >= DOUBTED_S:
            self.forget(role)

    def _ask(self, role: str) -> str | None:
        try:
            with psycopg.connect(self._dsn, autocommit=True, application_name="pgwitness gateway") as connection:
                row = connection.execute(self._query, (role,)).fetchone()
        except psycopg.OperationalError as error:
            raise unreachable(self._dsn, error) from error
        except psycopg.Error as error:
            raise Retry(
                f"the verifier of a role cannot be asked for ({type(error).__name__}): the role of users_dsn needs the "
                "right to read pg_authid, or users_query a function that may"
            ) from error
        value = row[0] if row else None
        return value if isinstance(value, str) else None
