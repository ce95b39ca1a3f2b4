"""Serves the tools: on stdio for the one agent whose host has started this process, or over HTTP for many."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
import threading
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import structlog
import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from pgwitness.core.config import Config
from pgwitness.core.errors import ConfigurationError, NotInOrder
from pgwitness.core.privacy import tokenizer
from pgwitness.core.runtime.health import Health
from pgwitness.mcp.server import Tools, served
from pgwitness.mcp.tokens import Verifier

PART = "mcp"
END_S = 3
BODY_BYTES_MAX = 1024 * 1024
SWEEP_S = 30.0

log = structlog.get_logger("mcp")


def run_stdio(config: Config) -> None:
    """Serve the agent at the other end of stdin and stdout, until it closes. Raise `ConfigurationError`."""
    server, tools = served(config)

    async def serve() -> None:
        try:
            await server.run_stdio_async()
        finally:
            await tools.close()

    asyncio.run(serve())


def run_http(config: Config, health: Health, stop: threading.Event) -> None:
    """Serve until `stop`. Raise `ConfigurationError`, and `NotInOrder` when the server has ended by itself."""
    url = urlsplit(config.mcp.url)
    if url.scheme not in ("http", "https") or not url.hostname or not url.path.strip("/"):
        raise ConfigurationError("mcp.url: say how clients name this server, such as https://mcp.example.com/mcp")
    # What is masked of a token's claims goes nowhere here: the key is of this process alone.
    verifier = Verifier.of(config.mcp, tokenizer(secrets.token_bytes(32)))
    server, tools = served(config, verifier)
    with _socket(config) as bound:
        web = uvicorn.Server(_settings(config, server, url.path, url.netloc))

        async def serve() -> None:
            sweeping = asyncio.create_task(_sweep(tools))
            try:
                await web.serve([bound])
            finally:
                sweeping.cancel()
                with suppress(asyncio.CancelledError):
                    await sweeping
                await tools.close()

        serving = threading.Thread(target=lambda: asyncio.run(serve()), name=PART, daemon=True)
        health.expect(PART)
        serving.start()
        log.info("mcp", url=config.mcp.url, listen="{}:{}".format(*bound.getsockname()[:2]))
        while not stop.wait(0.5) and serving.is_alive():
            health.ready(PART)
        web.should_exit = True
        serving.join(END_S + 2)
        if not stop.is_set():
            raise NotInOrder("the MCP server has ended by itself; its log says why")


async def _sweep(tools: Tools) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        await tools.sessions.sweep()


def _socket(config: Config) -> socket.socket:
    host, _, port = config.mcp.listen.rpartition(":")
    host = host.strip("[]")
    if config.mcp.tls is None and host not in ("127.0.0.1", "::1", "localhost"):
        raise ConfigurationError(
            f"mcp.listen {config.mcp.listen}: tokens would go over the network in clear. Set mcp.tls, or listen on "
            "127.0.0.1"
        )
    try:
        return socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"mcp.listen {config.mcp.listen} cannot be served ({error}); choose another"
        ) from error


def _settings(config: Config, server: MCPServer[Any], path: str, host: str) -> uvicorn.Config:
    tls = config.mcp.tls
    application = server.streamable_http_app(
        streamable_http_path=path,
        max_request_body_size=BODY_BYTES_MAX,
        session_idle_timeout=float(config.mcp.session_idle),
        max_sessions=config.mcp.sessions_max,
        # A page in somebody's browser must not reach a server on the browser's own machine under another name.
        transport_security=TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=[host],
            allowed_origins=[f"https://{host}", f"http://{host}"],
        ),
    )
    settings = uvicorn.Config(
        application,
        ssl_certfile=str(tls.cert_file) if tls is not None else None,
        ssl_keyfile=str(tls.key_file) if tls is not None else None,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        limit_concurrency=1_000,
        timeout_graceful_shutdown=END_S,
    )
    try:
        settings.load()
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"mcp.tls: the certificate or its key cannot be used: {error}") from error
    return settings
