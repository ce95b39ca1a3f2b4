"""`pgwitness mcp`: tools for AI agents, each call a statement through the gateway."""

from __future__ import annotations

from pathlib import Path

import click

from pgwitness.cli.options import common, configuration, http_options


@click.command(short_help="Serve AI agents by MCP: queries through the gateway, as the agent and for its person.")
@click.option(
    "--transport",
    type=click.Choice(["stdio", "http"]),
    default="stdio",
    show_default=True,
    help="stdio for the one agent whose host starts this, http for many.",
)
@http_options
@common
def mcp(transport: str, host: str | None, port: int | None, config_path: Path) -> None:
    """Serve tools to AI agents: query, explain, describe, my_limits, request_approval, approval_status.

    Each call is one statement through the gateway, which knows the agent and the person it acts for by their token,
    judges the statement, and writes it down. What is refused comes back with what would be allowed. Where the gateway
    is, and which databases agents may ask, says [mcp] in the configuration.
    """
    from pgwitness.mcp import serving

    config = configuration(config_path)
    if transport == "stdio":
        serving.run_stdio(config)
        return
    from pgwitness.cli.daemon import daemon
    from pgwitness.cli.signals import finish

    with daemon("mcp", host or config.http.host, config.http.mcp_port if port is None else port) as (stop, health):
        serving.run_http(config, health, stop)
    finish(0)
