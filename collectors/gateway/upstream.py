"""The gateway's login at a server, as the role that its client is; and how a running statement is cancelled."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, cast, get_args

import psycopg
from psycopg.conninfo import conninfo_to_dict

from collectors.gateway.auth.scram import PLAIN, ClientExchange, ScramError, Secret
from collectors.gateway.link import Ended, Link
from collectors.gateway.wire import backend, frontend, startup
from collectors.gateway.wire.frames import Message, frame
from collectors.gateway.wire.violation import ProtocolViolation
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.messages.refusal import dsn_trouble

CONNECT_S: Final = 10.0
WHO: Final = (
    "SELECT pg_catalog.pg_backend_pid(), pg_catalog.date_part('epoch', a.backend_start),"
    " pg_catalog.inet_client_port() FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a"
)
"""What the session itself says of its backend: true behind NAT, and a pooler shows by another pid."""


class Refused(Exception):
    """The server does not let the session begin; `answer` is what its client is told."""

    def __init__(self, answer: bytes, sqlstate: str, why: str = "") -> None:
        super().__init__(why or sqlstate)
        self.answer = answer
        self.sqlstate = sqlstate


Target = Literal["any", "read-write", "read-only", "primary", "standby", "prefer-standby"]
"""Which of several servers a session is for, as libpq means it (`target_session_attrs`)."""
TARGETS: Final = get_args(Target)
CANNOT_CONNECT_NOW: Final = "57P03"
"""What a server says that starts, stops or recovers: of several hosts the next one is tried, as libpq does."""


@dataclass(frozen=True)
class Place:
    """Where a server is, and how it is spoken to. `hosts` are tried in their order; a folder is a socket's."""

    hosts: tuple[tuple[str, int], ...]
    database: str | None
    tls: ssl.SSLContext | None
    required: bool
    target: Target = "any"

    @property
    def instances(self) -> list[str]:
        """The names in evidence of all its hosts."""
        return [named(at) for at in self.hosts]

    @property
    def instance(self) -> str:
        """Its name in evidence, `host:port`, of several hosts the first."""
        return self.instances[0]

    @classmethod
    def parse(cls, dsn: str) -> Place:
        """Read a configured upstream. Raise `ConfigurationError`."""
        try:
            given = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
        except psycopg.ProgrammingError as error:
            raise ConfigurationError(f"upstream cannot be read: {dsn_trouble(error)}") from error
        known = {"host", "port", "dbname", "sslmode", "sslrootcert", "target_session_attrs"}
        if unknown := sorted(set(given) - known):
            raise ConfigurationError(
                f"upstream: {', '.join(unknown)}: a login's own; it takes {', '.join(sorted(known))}"
            )
        hosts = given.get("host", "localhost").split(",")
        ports = given.get("port", "5432").split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        if len(ports) != len(hosts) or not all(port.isdecimal() for port in ports):
            raise ConfigurationError("upstream: as many ports as hosts, or one")
        mode, target = given.get("sslmode", "prefer"), given.get("target_session_attrs", "any")
        if target not in TARGETS:
            raise ConfigurationError(f"upstream: target_session_attrs: one of {', '.join(TARGETS)}")
        return cls(
            tuple((host, int(port)) for host, port in zip(hosts, ports, strict=True)),
            given.get("dbname"),
            None if mode == "disable" else _context(mode, given.get("sslrootcert")),
            mode not in ("disable", "allow", "prefer"),
            cast("Target", target),
        )


def named(at: tuple[str, int]) -> str:
    """Return a host's name in evidence."""
    return f"{at[0]}:{at[1]}"


def _context(mode: str, root: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=root) if root else ssl.create_default_context()
    if mode not in ("verify-ca", "verify-full"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif mode == "verify-ca":
        context.check_hostname = False
    return context


@dataclass
class Server:
    """A login that is done: its connection, what the server reported, and what the session says of its backend."""

    link: Link
    place: Place
    at: tuple[str, int]
    pid: int = 0
    secret: bytes = field(default=b"", repr=False)
    settings: dict[str, str] = field(default_factory=dict)
    notices: list[bytes] = field(default_factory=list)
    backend_pid: int = 0
    backend_start_us: int = 0
    port: int | None = None


def _unreachable(at: tuple[str, int], error: Exception) -> Refused:
    why = str(error) or type(error).__name__
    message = f"the gateway does not reach the server {named(at)}: {why}"
    return Refused(backend.error("FATAL", "08006", message), "08006", message)


async def _connect(place: Place, at: tuple[str, int]) -> Link:
    loop = asyncio.get_running_loop()
    host, port = at
    if host.startswith("/"):
        _, link = await loop.create_unix_connection(Link, f"{host}/.s.PGSQL.{port}")
        return link
    _, link = await loop.create_connection(Link, host, port)
    assert link.transport is not None
    opened = link.transport.get_extra_info("socket")
    if opened is not None:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if place.tls is None:
        return link
    link.send(startup.ssl_request())
    answer = await link.exactly(1)
    if answer == b"S" and not link.held:
        # A new transport on the same connection: the old protocol has handed over nothing that was not asked for.
        transport = await loop.start_tls(link.transport, link, place.tls, server_hostname=host)
        if transport is None:
            raise Ended
        link.connection_made(transport)
    elif answer != b"N" or place.required:
        link.abort()
        raise ProtocolViolation("the server offers no TLS, and sslmode asks for it")
    return link


async def log_in(place: Place, parameters: dict[str, str], secret: Secret | None) -> Server:
    """Log in as the role in `parameters` at the first host that is what the place is for.

    A host that is not reached, or cannot take sessions now, is passed over; what any other refuses is refused. Raise
    `Refused` with what the server says, or why it could not be.
    """
    passed: list[Refused] = []
    for at, target in _tried(place):
        last = (at, target) == _tried(place)[-1]
        try:
            async with asyncio.timeout(None if last else CONNECT_S):
                server = await _log_in(place, at, parameters, secret, target)
        except TimeoutError as error:
            passed.append(_unreachable(at, error))
        except Refused as refused:
            if refused.sqlstate not in (_NOT_THERE, CANNOT_CONNECT_NOW):
                raise
            passed.append(refused)
        else:
            return server
    if len(place.hosts) == 1 and place.target == "any":
        raise passed[-1]
    why = "; ".join(dict.fromkeys(f"{refused}" for refused in passed))
    wanted = "" if place.target == "any" else f" that is {_MEANT[place.target]}"
    message = f"the gateway finds no server{wanted}: {why}"
    raise Refused(backend.error("FATAL", _NOT_THERE, message), _NOT_THERE, message)


_NOT_THERE: Final = "08006"
_MEANT: Final[dict[Target, str]] = {
    "read-write": "read-write", "read-only": "read-only", "primary": "a primary", "standby": "a standby",
    "prefer-standby": "there",
}  # fmt: skip


def _tried(place: Place) -> list[tuple[tuple[str, int], Target]]:
    """List the hosts in the order in which they are tried, each with what it has to be then."""
    if place.target != "prefer-standby":
        return [(at, place.target) for at in place.hosts]
    standbys: list[tuple[tuple[str, int], Target]] = [(at, "standby") for at in place.hosts]
    return [*standbys, *((at, "any") for at in place.hosts)]


def unfit(target: Target, settings: Mapping[str, str]) -> str | None:
    """Say why a server is not what a session is for, by what it reports; None where it is.

    Source: libpq's `PQconnectPoll`, state CONNECTION_CHECK_TARGET. Servers report both since PostgreSQL 14.
    """
    if target in ("any", "prefer-standby"):
        return None
    standby, read_only = settings.get("in_hot_standby"), settings.get("default_transaction_read_only")
    if standby is None or read_only is None:
        return "does not say whether it is a standby"
    if target == "primary":
        return "is a standby" if standby == "on" else None
    if target == "standby":
        return "is no standby" if standby != "on" else None
    reads_only = standby == "on" or read_only == "on"
    if target == "read-write":
        return "is read-only" if reads_only else None
    return None if reads_only else "is not read-only"


async def _log_in(
    place: Place, at: tuple[str, int], parameters: dict[str, str], secret: Secret | None, target: Target
) -> Server:
    """Log in at one host. Raise `Refused`."""
    try:
        async with asyncio.timeout(CONNECT_S):
            link = await _connect(place, at)
    except (OSError, TimeoutError, Ended, ProtocolViolation) as error:
        raise _unreachable(at, error) from error
    server = Server(link, place, at)
    try:
        link.send(startup.startup_packet(parameters))
        await _authenticate(link, secret)
        await _until_ready(server)
        why = unfit(target, server.settings)
        if why is not None:
            message = f"{named(at)} {why}"
            link.send(frontend.terminate())
            link.close()
            raise Refused(backend.error("FATAL", _NOT_THERE, message), _NOT_THERE, message)
        await _ask(server)
    except Refused:
        link.close()
        raise
    except (Ended, ProtocolViolation, ScramError) as error:
        link.abort()
        why = str(error) or "the server has closed the connection"
        raise Refused(
            backend.error("FATAL", "08006", f"the gateway cannot log in at the server: {why}"), "08006"
        ) from error
    except BaseException:
        link.abort()
        raise
    return server


def _said(message: Message) -> Refused:
    said = backend.fields(message.body)
    return Refused(message.frame, said.get("C", "XX000"), said.get("M", ""))


async def _authenticate(link: Link, secret: Secret | None) -> None:
    exchange: ClientExchange | None = None
    while True:
        message = await link.message()
        if message.type == backend.ERROR:
            raise _said(message)
        if message.type != backend.AUTHENTICATION:
            continue
        code, data = int.from_bytes(message.body[:4], "big"), message.body[4:]
        if code == 0:
            return
        if code == 10 and secret is not None and PLAIN.encode() in data.split(b"\0"):
            exchange = ClientExchange(secret, secrets.token_urlsafe(18))
            first = exchange.first()
            link.send(frame(b"p", PLAIN.encode() + b"\0" + len(first).to_bytes(4, "big") + first))
        elif code == 11 and exchange is not None:
            link.send(frame(b"p", exchange.final(data)))
        elif code == 12 and exchange is not None:
            exchange.ended(data)
        else:
            raise ProtocolViolation(
                "it asks for a way of authentication that the gateway cannot follow; let pg_hba.conf ask for "
                "scram-sha-256 from this host"
            )


async def _until_ready(server: Server) -> None:
    """Read what a server says before its session begins."""
    while True:
        message = await server.link.message()
        if message.type == backend.ERROR:
            raise _said(message)
        if message.type == backend.KEY_DATA:
            server.pid, server.secret = int.from_bytes(message.body[:4], "big"), message.body[4:]
        elif message.type == backend.PARAMETER_STATUS:
            name, value = backend.parameter(message.body)
            server.settings[name] = value
        elif message.type == backend.NOTICE:
            server.notices.append(message.frame)
        elif message.type == backend.READY:
            return


async def _ask(server: Server) -> None:
    """Let the session say which backend it is."""
    server.link.send(frontend.query(WHO))
    row: list[bytes | None] = []
    while True:
        message = await server.link.message()
        if message.type == backend.DATA_ROW:
            row = backend.first_row(message.body)
        elif message.type == backend.ERROR:
            raise _said(message)
        elif message.type == backend.READY:
            break
    if len(row) != 3 or row[0] is None or row[1] is None:
        raise ProtocolViolation("the session does not say which backend it is")
    try:
        server.backend_pid, server.backend_start_us = int(row[0]), round(float(row[1]) * 1_000_000)
        server.port = int(row[2]) if row[2] is not None else None
    except ValueError:
        raise ProtocolViolation("the session does not say which backend it is") from None


async def cancel(server: Server) -> bool:
    """Ask the server to end what a session runs, and wait until it has taken that.

    Return whether nothing is under way any more; where it did not close the connection in time it may still act on it.
    """
    link = None
    try:
        async with asyncio.timeout(CONNECT_S):
            link = await _connect(server.place, server.at)
        link.send(startup.cancel_request(server.pid, server.secret))
        async with asyncio.timeout(CONNECT_S):
            await link.closed()
    except TimeoutError:
        if link is not None:
            link.close()
        return link is None
    except (OSError, Ended, ProtocolViolation):
        pass  # there is nothing to ask, and nothing to wait for
    return True
