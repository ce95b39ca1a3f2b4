"""Serves the tools: on stdio for the one agent whose host has started this process, or over HTTP for many."""

from __future__ import annotations

import asyncio
import secrets
import threading
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import structlog
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from pgwitness.core.config import Config
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.privacy import tokenizer
from pgwitness.core.runtime import asgi
from pgwitness.core.runtime.health import Health
from pgwitness.mcp.server import Tools, served
from pgwitness.mcp.tokens import Verifier

PART = "mcp"
BODY_BYTES_MAX = 1024 * 1024
SWEEP_S = 30.0
CONNECTIONS_MAX = 1_000

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
    in_clear = ""
    if config.mcp.tls is None:
        in_clear = "tokens would go over the network in clear. Set mcp.tls, or listen on 127.0.0.1"
    with asgi.listen(config.mcp.listen, key="mcp.listen", in_clear=in_clear) as bound:
        web = asgi.server(
            _application(config, server, url.path, url.netloc),
            config.mcp.tls,
            key="mcp.tls",
            limit_concurrency=CONNECTIONS_MAX,
        )

        async def serve() -> None:
            sweeping = asyncio.create_task(_sweep(tools))
            try:
                await web.serve([bound])
            finally:
                sweeping.cancel()
                with suppress(asyncio.CancelledError):
                    await sweeping
                await tools.close()

        log.info("mcp", url=config.mcp.url, listen="{}:{}".format(*bound.getsockname()[:2]))
        asgi.run(PART, web, serve, health, stop)


async def _sweep(tools: Tools) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        await tools.sessions.sweep()


def _application(config: Config, server: MCPServer[Any], path: str, host: str) -> Any:
    return server.streamable_http_app(
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
