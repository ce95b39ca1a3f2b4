"""Serves the console until it is told to stop: the socket, TLS, and what a configuration has to say about both."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing

import structlog
import uvicorn
from starlette.types import ASGIApp

from pgwitness.core.config import Config, Console
from pgwitness.core.config.gateway import control_folder
from pgwitness.core.errors import PgwitnessError
from pgwitness.core.runtime import asgi
from pgwitness.core.runtime.health import Health
from pgwitness.core.secretfile import secret
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
CONNECTIONS_MAX = 1_000

log = structlog.get_logger("console")


def listen(config: Console) -> socket.socket:
    """Open the socket. Raise `ConfigurationError` when it cannot be, or passwords would go over a network in clear."""
    in_clear = ""
    if config.tls is None and not http.addresses(config.proxies):
        in_clear = (
            "passwords would go over the network in clear. Set console.tls, or console.proxies to what encrypts in "
            "front of it, or listen on 127.0.0.1"
        )
    return asgi.listen(config.listen, key="console.listen", in_clear=in_clear)


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
            link_key=_link_key(config),
            stop=stop,
        )
    )


def _link_key(config: Config) -> bytes:
    """Read what links of messages are signed with; without the file there are none."""
    file = config.approvals.link_key_file
    return secret(file, "approvals.link_key_file") if file is not None else b""


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


def serving(config: Console, application: ASGIApp) -> uvicorn.Server:
    """Make the server of the console. Raise `ConfigurationError` when the certificate cannot be used."""
    return asgi.server(
        application, config.tls, key="console.tls", http=Impatient, lifespan="off", limit_concurrency=CONNECTIONS_MAX
    )


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
        server = serving(config.console, make(config, witness, send, asker, requests, stop.is_set))
        scheme = "https" if config.console.tls is not None else "http"
        host, port = bound.getsockname()[:2]
        log.info("console", url=f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/")
        asgi.run(PART, server, lambda: server.serve([bound]), health, stop)
