"""Serves an ASGI application beside a daemon's own loop: its socket, TLS, and the end of both.

For what people and agents reach over HTTP (the console, the tools for agents). `pgwitness.core.runtime.web` serves
health and metrics, which need no such thing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import uvicorn

from pgwitness.core.config.serving import ServerTls
from pgwitness.core.errors import ConfigurationError, NotInOrder
from pgwitness.core.runtime.health import Health

END_S = 3
"""How long requests may take to end once the server is told to."""
PORT_MAX = 65_535


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine, as it calls itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(address: str, *, key: str, in_clear: str = "") -> socket.socket:
    """Open the socket for `host:port`, which the configuration names under `key`.

    `in_clear` says what would go over a network unencrypted, and what to do about it; then only this machine itself may
    be listened to. Raise `ConfigurationError` when it may not, or the socket cannot be opened.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if in_clear and not is_loopback(host):
        raise ConfigurationError(f"{key} {address}: {in_clear}")
    try:
        if not 0 <= int(port) <= PORT_MAX:
            raise ValueError("there is no such port")
        return socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{key} {address} cannot be served ({error}); choose another") from error


def server(application: Any, tls: ServerTls | None, *, key: str, **settings: Any) -> uvicorn.Server:
    """Make the server of an application, with uvicorn's own `settings` besides ours.

    It says nothing of itself in answers, trusts no header of a proxy, and writes no access log. `key` is where the
    configuration has `tls`. Raise `ConfigurationError` when the certificate cannot be used.
    """
    config = uvicorn.Config(
        application,
        ssl_certfile=str(tls.cert_file) if tls is not None else None,
        ssl_keyfile=str(tls.key_file) if tls is not None else None,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=END_S,
        **settings,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"{key}: the certificate or its key cannot be used: {error}") from error
    return uvicorn.Server(config)


def run(
    part: str,
    web: uvicorn.Server,
    serve: Callable[[], Coroutine[Any, Any, None]],
    health: Health,
    stop: threading.Event,
) -> None:
    """Run `serve`, which awaits the server `web`, in a thread of its own until `stop`.

    `part` is its name for health and in messages. Raise `NotInOrder` when the server has ended by itself.
    """
    serving = threading.Thread(target=lambda: asyncio.run(serve()), name=part, daemon=True)
    health.expect(part)
    serving.start()
    while not stop.wait(0.5) and serving.is_alive():
        health.ready(part)
    web.should_exit = True
    serving.join(END_S + 2)
    if not stop.is_set():
        raise NotInOrder(f"the server of {part} has ended by itself; its log says why")
