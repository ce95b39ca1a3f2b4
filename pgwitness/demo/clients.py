"""How the demo's people and programs reach the database: psql, psycopg and SQLAlchemy, and from elsewhere.

Each client says how many rows a piece of work changed, from what the server itself answered.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import psycopg
from psycopg.conninfo import make_conninfo

from pgwitness.core.errors import Unreachable
from pgwitness.demo.doors import Way

_TAG = re.compile(r"(?:INSERT 0|UPDATE|DELETE|MERGE) (\d+)")
_DONE = "-- done --"


class Client(Protocol):
    """A connection that commits pieces of work."""

    def run(self, *statements: tuple[str, dict[str, Any]] | str) -> int:
        """Run statements as one transaction and give the number of rows they changed, once it is committed."""

    def close(self) -> None:
        """Log out."""


class Psql:
    """A person at psql: a real psql process that is typed into."""

    def __init__(self, psql: Path, way: Way, more: Mapping[str, str] | None = None) -> None:
        """Log in; `more` goes into psql's environment, where its password is, too: arguments are for all to see."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | dict(
            more or {}
        )
        if way.password is not None:
            environment["PGPASSWORD"] = way.password()
        command = [str(psql), "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", make_conninfo(**way.parameters)]
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def run(self, *statements: tuple[str, dict[str, Any]] | str) -> int:
        """Type statements; several are put between BEGIN and COMMIT. Raise `Unreachable` with psql's own words."""
        texts = [_literal(statement) for statement in statements]
        lines = texts if len(texts) == 1 else ["BEGIN", *texts, "COMMIT"]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("".join(f"{line};\n" for line in lines) + f"\\echo {_DONE}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Unreachable("psql has ended") from None
        rows = 0
        said: list[str] = []
        for answer in self._process.stdout:
            if answer.strip() == _DONE:
                return rows
            if match := _TAG.fullmatch(answer.strip()):
                rows += int(match[1])
            elif len(said) < 20:
                said.append(answer.strip())
        raise Unreachable(f"psql ended: {' '.join(said)}")

    def close(self) -> None:
        """Close its input and wait; a psql that hangs is killed."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _literal(statement: tuple[str, dict[str, Any]] | str) -> str:
    """Put values into a statement, as a person types it; the demo's values are numbers and plain words."""
    if isinstance(statement, str):
        return statement
    text, values = statement
    typed = {name: str(value) if isinstance(value, int | float) else f"'{value}'" for name, value in values.items()}
    return text % typed


class Psycopg:
    """A program on psycopg 3; `claim` gives the token that says for whom a transaction is made."""

    def __init__(self, way: Way, claim: Callable[[], str] | None = None) -> None:
        self._claim = claim
        self._connection = psycopg.connect(**way.opened(), autocommit=True)

    def run(self, *statements: tuple[str, dict[str, Any]] | str) -> int:
        """Run statements in one transaction."""
        rows = 0
        with self._connection.transaction():
            if self._claim is not None:
                self._connection.execute("SELECT pgwitness.claim(%s)", (self._claim(),))
            for statement in statements:
                text, values = (statement, None) if isinstance(statement, str) else statement
                cursor = self._connection.execute(text, values)
                rows += _changed(cursor.statusmessage)
        return rows

    def alone(self, text: str) -> int:
        """Run one statement in a transaction of its own and give the number of rows that it changed."""
        return _changed(self._connection.execute(text.encode()).statusmessage)

    def one(self, text: str, values: dict[str, Any]) -> Any:
        """Run one statement in a transaction of its own and give the first value of its first row."""
        row = self._connection.execute(text, values).fetchone()
        return row[0] if row else None

    def all(self, text: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement in a transaction of its own and give its rows."""
        return self._connection.execute(text, values).fetchall()

    def transaction(self) -> Any:
        """Open a transaction block."""
        return self._connection.transaction()

    def close(self) -> None:
        """Log out."""
        self._connection.close()


class Alchemy:
    """A program on SQLAlchemy, with psycopg below."""

    def __init__(self, way: Way) -> None:
        from sqlalchemy import create_engine

        self._engine = create_engine("postgresql+psycopg://", connect_args=way.opened(), pool_size=1, max_overflow=0)

    def run(self, *statements: tuple[str, dict[str, Any]] | str) -> int:
        """Run statements in one transaction."""
        from sqlalchemy import text

        rows = 0
        with self._engine.begin() as connection:
            for statement in statements:
                words, values = (statement, {}) if isinstance(statement, str) else statement
                result = connection.execute(text(re.sub(r"%\((\w+)\)s", r":\1", words)), values)
                rows += 0 if result.returns_rows else max(0, result.rowcount)
        return rows

    def close(self) -> None:
        """Log out."""
        self._engine.dispose()


def _changed(tag: str | None) -> int:
    match = _TAG.fullmatch(tag or "")
    return int(match[1]) if match else 0


class Elsewhere:
    """A way to the server from another address: a forwarder whose connections leave from `source`.

    libpq cannot choose the address it comes from; a forwarder that binds before it connects can.
    """

    def __init__(self, host: str, port: int, source: str) -> None:
        self._target, self._source = (host, port), source
        self._server = socket.create_server((host, 0))
        self.port = int(self._server.getsockname()[1])
        self._sockets: list[socket.socket] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=target, args=arguments, daemon=True, name="elsewhere").start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
                far = socket.create_connection(self._target, 10, (self._source, 0))
            except OSError:
                return  # closed, or no such address on this machine: the client sees its connection end
            far.settimeout(None)
            self._sockets += [near, far]
            self._start(_pump, near, far)
            self._start(_pump, far, near)

    def close(self) -> None:
        """End the forwarder and what goes through it."""
        for item in (self._server, *self._sockets):
            with contextlib.suppress(OSError):  # a socket that was never connected, or whose other side has gone
                item.shutdown(socket.SHUT_RDWR)
            item.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the other side has hung up
