"""Sessions, as the sources show them, and what has to be known of one to read its statements."""

from __future__ import annotations

from msgspec import Struct

from pgwitness.core.events import (
    Certificate,
    Token,
    Trust,
)
from pgwitness.core.sql.tree.facts import Handle

SessionKey = tuple[int, int]
"""A session within a cluster: pid and backend start (µs); two backends never share both."""


class KnownSession(Struct, frozen=True, array_like=True):
    """A session as pg_stat_activity showed it."""

    pid: int
    backend_start_us: int
    instance: str | None
    role: str | None
    database: str | None
    application: str
    client_addr: str | None
    client_port: int | None
    auth_method: str | None
    certificate: Certificate | None = None


class Came(Struct, frozen=True, array_like=True):
    """From where a session came to a gateway, and the gateway's port at the server; sockets have none.

    `token` is a verified one that it logged in with, `certificate` the one that the client showed to the gateway.
    `user` is the role that the client has proven to be, where the gateway has logged it in as another one.
    """

    client_addr: str | None
    client_port: int | None
    server_port: int | None
    auth_method: str | None
    token: Token | None = None
    certificate: Certificate | None = None
    user: str | None = None


class LogSession(Struct, frozen=True, array_like=True):
    """A session as one line of the server's log reported it; None is not known, a `local` address is the Unix socket.

    `sure`: the server wrote it, as far as is known, in a format into which nobody can write lines of his own. `tags`
    are what a comment behind the statement says. `trust` is that of the line (`pgwitness.core.events.Trust`).
    """

    pid: int
    start_us: int | None
    instance: str | None
    role: str | None
    database: str | None
    application: str | None
    client_addr: str | None
    client_port: int | None
    auth_method: str | None
    sure: bool
    tags: tuple[tuple[str, str], ...] = ()
    trust: Trust = "likely"


class Prepared(Struct, frozen=True, array_like=True):
    """The target of a name of a session; None where nobody knows."""

    instance: str | None
    pid: int
    start_us: int
    sort: str
    name: str
    handle: Handle | None


class Place(Struct):
    """What a session has changed of where names are looked up.

    `path` is None for the one of its role, empty where nobody knows it. `temporary` are its tables, false where one may
    have gone. `another`: another role than the one that logged in may be in force.
    """

    path: tuple[str, ...] | None = None
    temporary: dict[str, bool] = {}
    another: bool = False


class Places(Struct, frozen=True):
    """Relations by database and name, databases of which all are known, lists that are not whole, paths, sessions.

    `doubtful` are names by database that may mean something else than is known.
    """

    full: list[tuple[str, str]] = []
    complete: list[str] = []
    listed: list[tuple[str, list[str]]] = []
    paths: list[tuple[str, tuple[str, ...]]] = []
    sessions: list[tuple[tuple[str | None, int, int | None], Place]] = []
    doubtful: list[tuple[str, str]] = []
    temporary: list[tuple[str, str, str]] = []
    """Temporary tables that were made of late, by database and role: what counts statements tells no session."""
