"""Serves the console until it is told to stop: the socket, TLS, and what a configuration has to say about both."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import closing

import structlog
import uvicorn
from starlette.types import ASGIApp

from pgwitness.core.config import Config, Console
from pgwitness.core.config.tables import control_folder
from pgwitness.core.errors import ConfigurationError, NotInOrder, PgwitnessError
from pgwitness.core.runtime.health import Health
from sinks.console import app, http
from sinks.console.approving import Requests
from sinks.console.asking import Asker
from sinks.console.now import Seal
from sinks.console.openid import Provider
from sinks.console.patience import Impatient
from sinks.console.reader import Reader
from sinks.console.users import Users
from sinks.console.witness import Feedback, Witness
from sinks.lake.opening import lake_store
from sinks.lake.views.listing import Listing
from sinks.seal import opening

PART = "console"
READERS = 2
READER_MEMORY = "512MB"
PAGE_S = 20.0
"""How long a question of a page of ours may take."""
END_S = 3
CONNECTIONS_MAX = 1_000
PORT_MAX = 65_535

log = structlog.get_logger("console")


def listen(config: Console) -> socket.socket:
    """Open the socket. Raise `ConfigurationError` when it cannot be, or passwords would go over a network in clear."""
    host, _, port = config.listen.rpartition(":")
    host = host.strip("[]")
    if config.tls is None and not http.addresses(config.proxies) and not http.is_loopback(host):
        raise ConfigurationError(
            f"console.listen {config.listen}: passwords would go over the network in clear. Set console.tls, or "
            "console.proxies to what encrypts in front of it, or listen on 127.0.0.1"
        )
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        if not 0 <= int(port) <= PORT_MAX:
            raise ValueError("there is no such port")
        return socket.create_server((host, int(port)), family=family)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"console.listen {config.listen} cannot be served ({error}); choose another"
        ) from error


def make(
    config: Config,
    witness: Witness,
    send: Callable[[str, bytes], None],
    asker: Asker,
    requests: Requests,
    stop: Callable[[], bool],
) -> ASGIApp:
    """Make the application that a configuration describes. Raise `ConfigurationError`."""
    lake, console = lake_store(config), config.console
    return app.application(
        app.Context(
            config=console,
            reader=Reader(lake, connections=READERS, memory_limit=READER_MEMORY, timeout_s=PAGE_S),
            asking=asker,
            users=Users(console.users_file, may_be_absent=console.openid is not None),
            provider=Provider(console.openid, time.monotonic) if console.openid is not None else None,
            witness=witness,
            seal=_seal(config),
            feedback=Feedback(config.reviewers, send),
            policies=config.policies.path,
            requests=requests,
            gateway=control_folder(config.gateway),
            stop=stop,
        )
    )


def _seal(config: Config) -> Callable[[], Seal]:
    listing = Listing(lake_store(config))

    def look() -> Seal:
        if not opening.is_sealed(config):
            return Seal(wanted=False)
        try:
            listing.refresh()
            return Seal(opening.sealed_to(config), listing.state.number)
        except (ValueError, OSError, PgwitnessError) as error:
            return Seal(trouble=str(error))

    return look


def run(
    config: Config,
    witness: Witness,
    send: Callable[[str, bytes], None],
    requests: Requests,
    health: Health,
    stop: threading.Event,
) -> None:
    """Serve until `stop`. Raise `ConfigurationError`, and `NotInOrder` when the server has ended by itself."""
    bound = listen(config.console)
    with bound, closing(Asker(config)) as asker:
        server = uvicorn.Server(_settings(config.console, make(config, witness, send, asker, requests, stop.is_set)))
        serving = threading.Thread(target=lambda: asyncio.run(server.serve([bound])), name=PART, daemon=True)
        health.expect(PART)
        serving.start()
        scheme = "https" if config.console.tls is not None else "http"
        host, port = bound.getsockname()[:2]
        log.info("console", url=f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/")
        while not stop.wait(0.5) and serving.is_alive():
            health.ready(PART)
        server.should_exit = True
        serving.join(END_S + 2)
        if not stop.is_set():
            raise NotInOrder("the console has ended by itself; its log says why")


def _settings(console: Console, application: ASGIApp) -> uvicorn.Config:
    tls = console.tls
    settings = uvicorn.Config(
        application,
        http=Impatient,
        ssl_certfile=str(tls.cert_file) if tls is not None else None,
        ssl_keyfile=str(tls.key_file) if tls is not None else None,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=END_S,
    )
    try:
        settings.load()
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"console.tls: the certificate or its key cannot be used: {error}") from error
    return settings
