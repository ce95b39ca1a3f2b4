"""The gateway as a daemon: it listens, serves each client in a task of one loop, and ships what its spool holds."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hmac
import ipaddress
import socket
import ssl
import threading
from functools import partial
from pathlib import Path

import structlog
import uvloop

from collectors.connection import conninfo
from collectors.context import now_us
from collectors.daemon import GC_THRESHOLDS, supervise
from collectors.gateway.approving.desk import Desk
from collectors.gateway.approving.estimating import Estimator
from collectors.gateway.auth.admission import Admission, Ways
from collectors.gateway.auth.logins import Logins
from collectors.gateway.auth.rolefile import Roles
from collectors.gateway.auth.scram import endpoint
from collectors.gateway.auth.tokens import Tokens
from collectors.gateway.auth.users import FileUsers, ServerUsers, Users
from collectors.gateway.connection import DRAIN_S, Connection, Database, House, serve
from collectors.gateway.control.server import Control, open_socket
from collectors.gateway.greeting import Way
from collectors.gateway.judging.ahead import Ahead
from collectors.gateway.judging.judge import Judging
from collectors.gateway.judging.rules import Namers, WatchedRules
from collectors.gateway.leftovers import folder_of, leftovers
from collectors.gateway.masking.audiences import Audiences
from collectors.gateway.others import Others
from collectors.gateway.spool.records import Started
from collectors.gateway.spool.shipper import ShippingProcess
from collectors.gateway.spool.shipping import PART as SHIPPING
from collectors.gateway.spool.shipping import mend
from collectors.gateway.spool.spool import Spool
from collectors.gateway.upstream import Place
from collectors.gateway.wire.startup import ALPN
from collectors.guard.mark import key_of
from pgwitness.core.config import Config
from pgwitness.core.config.gateway import Gateway, GatewayDatabase, control_folder
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.privacy import Tokenizer, load_key, tokenizer
from pgwitness.core.runtime.health import Health
from pgwitness.core.runtime.watchedfile import WatchedFile

PART = "gateway"
BACKLOG = 512
POLL_S = 0.2

log = structlog.get_logger("gateway")


def check(config: Config, namers: Namers) -> None:
    """Raise `ConfigurationError` for what cannot be served."""
    gateway, token = config.gateway, tokenizer(load_key(config.privacy.key_file))
    _databases(config, token)
    WatchedRules(config, namers).load()
    watched_tls(gateway).load()
    if gateway.listen.endswith(":0"):
        raise ConfigurationError("gateway.listen: several processes need a port that has a number")
    listen(gateway.listen).close()


def run_gateway(config: Config, stop: threading.Event, health: Health, namers: Namers, process: int = 0) -> int:
    """Run the gateway until `stop`; return the exit code. Raise `ConfigurationError` for what cannot be served.

    `namers` makes of the text of `identities.yaml` what names a session. `process` is which of the gateway's processes
    this is (`collectors.gateway.fleet`).
    """
    gateway = config.gateway
    key = load_key(config.privacy.key_file)
    token = tokenizer(key)
    databases = _databases(config, token)
    watched = WatchedRules(config, namers)
    judging = Judging(token, watched.load())
    certificate = watched_tls(gateway)
    tls, binding = certificate.load()
    listener = listen(gateway.listen, shared=gateway.processes > 1)
    spool = Spool(folder_of(config, process), gateway.spool.max // gateway.processes, gateway.spool.sync)
    mend(spool, config.collectors.state_path)
    spool.write([Started(session=0, at_us=now_us())])
    house = House(
        databases, spool, judging, tls, binding, float(gateway.login_timeout), gateway.connections_max, watched.poll
    )
    house.process, house.mock = process, hmac.digest(key, b"pgwitness gateway: names that nobody has", "sha256")
    if gateway.processes > 1:
        house.others = Others(control_folder(gateway), process)
        judging.told = house.made
    house.changed_tls = certificate.poll if gateway.tls is not None else None
    house.audiences = Audiences.of(config) if config.masks else None
    house.desk = Desk(config) if config.approvals.key_file is not None else None
    house.estimator = Estimator(config.privacy, token) if house.desk is not None else None
    house.mark_key = key_of(key)
    ahead = house.ahead = Ahead(key)
    house.control = open_socket(control_folder(gateway), process, gateway.control_group)
    places = {(one.cluster, instance) for one in databases.values() for instance in one.place.instances}
    servers = sorted(places)
    shipping = ShippingProcess(config, spool, health, servers)
    served = threading.Event()
    thresholds = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        if house.desk is not None:
            house.desk.start()
        return supervise(
            {
                PART: lambda ending: serve_clients(house, listener, ending, health, served),
                SHIPPING: lambda _: shipping.run(served),
                **(leftovers(config, health, servers) if process == 0 else {}),
            },
            stop,
            health,
            shipping.abandon,
        )
    finally:
        gc.set_threshold(*thresholds)
        ahead.close()
        if house.desk is not None:
            house.desk.close()
        listener.close()
        house.control.close()
        spool.close()


def listen(address: str, *, shared: bool = False) -> socket.socket:
    """Open the port that clients connect to, with `shared` beside other processes. Raise `ConfigurationError`."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, int(port)))
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f'gateway.listen: "{address}" is no ADDRESS:PORT') from error
    except OSError as error:
        raise ConfigurationError(f"gateway.listen: {address} cannot be served ({error.strerror or error})") from error
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def keep_alive(sock: socket.socket) -> None:
    """Find out in some minutes when the other end is gone without a word."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _databases(config: Config, token: Tokenizer) -> dict[str, Database]:
    if not config.gateway.databases:
        raise ConfigurationError(
            "no database is served; add a table [gateway.databases.NAME] with cluster and upstream"
        )
    return {name: _database(config, name, one, token) for name, one in config.gateway.databases.items()}


def _database(config: Config, name: str, one: GatewayDatabase, token: Tokenizer) -> Database:
    if one.cluster not in config.clusters:
        raise ConfigurationError(f"gateway.databases.{name}.cluster: no cluster {one.cluster!r} is configured")
    try:
        place = Place.parse(one.upstream)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"gateway.databases.{name}.upstream: sslrootcert cannot be read: {error}") from error
    roles = Roles(one.roles_file) if one.roles_file is not None else None
    return Database(one.cluster, place, admission_of(config, name, one, token), roles)


def admission_of(config: Config, name: str, one: GatewayDatabase, token: Tokenizer) -> Admission:
    """Return how a database lets clients in. Raise `ConfigurationError`."""
    table, tls = f"gateway.databases.{name}", config.gateway.tls
    if set(one.auth) != {"scram"} and tls is None:
        raise ConfigurationError(f"{table}.auth: tokens and certificates go over TLS only; add [gateway.tls]")
    if "certificate" in one.auth and (tls is None or tls.client_ca_file is None):
        raise ConfigurationError(f"{table}.auth: for certificates set gateway.tls.client_ca_file: who issues them")
    tokens = None
    if one.token is not None:
        where = (f"{table}.token", one.cluster, name)
        tokens = Tokens.of(one.token, where, config.identities.claims_fields, token)
    logins = Logins(one.logins, Roles(one.roles_file)) if one.roles_file is not None else None
    users = _users(config, one) if "scram" in one.auth else None
    return Admission(users, Ways(one.auth[0], tuple(one.ask.items())), tokens, logins)


def _users(config: Config, one: GatewayDatabase) -> Users:
    if one.users_file is not None:
        return FileUsers(one.users_file)
    cluster = config.clusters[one.cluster]
    return ServerUsers(conninfo(cluster, one.users_dsn, None, "pgwitness gateway"), one.users_query)


def tls_of(gateway: Gateway) -> tuple[ssl.SSLContext | None, bytes | None]:
    """Read the gateway's certificate; return what it serves TLS with, and what SCRAM binds to."""
    if gateway.tls is None:
        return None, None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(gateway.tls.cert_file, gateway.tls.key_file)
        if gateway.tls.client_ca_file is not None:
            context.load_verify_locations(gateway.tls.client_ca_file)
            context.verify_mode = ssl.CERT_OPTIONAL
        pem = Path(gateway.tls.cert_file).read_text(encoding="ascii")
        binding = endpoint(
            ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERT") : pem.index("-----END CERT") + 25])
        )
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"gateway.tls: the certificate or its key cannot be read: {error}") from error
    context.set_alpn_protocols([ALPN])
    return context, binding


Tls = tuple[ssl.SSLContext | None, bytes | None]


def watched_tls(gateway: Gateway) -> WatchedFile[Tls]:
    """Watch the gateway's certificate, its key and its clients' authority, which are renewed together."""
    nothing: Tls = (None, None)
    tls = gateway.tls
    files = [] if tls is None else [tls.cert_file, tls.key_file, *([tls.client_ca_file] if tls.client_ca_file else [])]
    path = files[0] if files else Path()
    return WatchedFile(
        path,
        lambda: tls_of(gateway),
        initial=nothing,
        files=lambda: files,
        settle=True,
        changed=lambda _: log.info("serves another certificate from now on", file=str(path)),
        refused=lambda refusal: log.error("the certificate that was read before still holds", error=refusal.error),
    )


def serve_clients(
    house: House, listener: socket.socket, stop: threading.Event, health: Health, served: threading.Event
) -> None:
    """Serve clients until `stop`; `served` is set when the last session has ended then."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_accept(house, listener, stop, health))
    finally:
        if stop.is_set():
            served.set()


async def _accept(house: House, listener: socket.socket, stop: threading.Event, health: Health) -> None:
    """Take clients until `stop`; then let each session end its transaction, for a while."""
    tasks: set[asyncio.Task[None]] = set()
    accepting = asyncio.create_task(_accept_all(house, listener, tasks))
    reloading = asyncio.create_task(_reload(house))
    answering = asyncio.create_task(_answer(house))
    try:
        while not stop.is_set():
            health.ready(PART)
            if reloading.done():
                reloading = asyncio.create_task(_reload(house))
            if answering.done():
                answering = asyncio.create_task(_answer(house))
            await asyncio.wait({accepting}, timeout=POLL_S)
            if accepting.done():
                accepting.result()
                return
        accepting.cancel()
        if house.desk is not None:
            house.desk.leaving = True
        await _drain(house)
    finally:
        accepting.cancel()
        answering.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, accepting, reloading, answering, return_exceptions=True)
        house.turn()


async def _reload(house: House) -> None:
    """Go on by other policies, identities and certificates where their files have changed; no session is dropped."""
    rules = None
    try:
        if house.changed_tls is not None:
            house.tls, house.binding = await asyncio.to_thread(house.changed_tls)
        if house.changed_rules is not None:
            rules = await asyncio.to_thread(house.changed_rules)
    except Exception:
        log.exception("unexpected error; what was read before still holds")
        return
    if rules is not None:
        house.judging.adopt(rules)
    if house.audiences is not None:
        house.take_views(await asyncio.to_thread(house.audiences.poll))


async def _answer(house: House) -> None:
    """Answer who asks at the control socket, if there is one; after an error begin again."""
    try:
        if house.control is not None:
            await Control(house, house.process).serve(house.control.dup())
    except Exception:
        log.exception("unexpected error; who asks at the control socket is answered again in a moment")
    await asyncio.sleep(1.0)


async def _accept_all(house: House, listener: socket.socket, tasks: set[asyncio.Task[None]]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            sock, _ = await loop.sock_accept(listener)
        except OSError as error:
            log.warning("a connection was not taken", error=str(error))
            await asyncio.sleep(0.1)  # out of descriptors, most likely: some are given back meanwhile
            continue
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep_alive(sock)
        if len(tasks) >= 2 * house.connections_max:
            sock.close()
            continue
        way = Way(sock)
        task = asyncio.create_task(serve(house, way))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(partial(_abandon, way))


def _abandon(way: Way, _: asyncio.Task[None]) -> None:
    """Close what a task leaves behind that was cancelled before it began."""
    way.abandon()


async def _drain(house: House) -> None:
    """End sessions as they come to rest; after a while those that have not."""
    deadline = asyncio.get_running_loop().time() + DRAIN_S / 2
    while house.sessions:
        late = asyncio.get_running_loop().time() >= deadline
        for connection in list(house.sessions.values()):
            if late or connection.idle:
                _end(connection)
        await asyncio.sleep(0.02)


def _end(connection: Connection) -> None:
    connection.end("FATAL", "57P01", "terminating connection: the gateway is shutting down; connect again")
