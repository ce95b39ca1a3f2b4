"""`pgwitness alerts deliver`: the daemon that sends alerts on, and ends backends where a policy says so."""

from __future__ import annotations

from pathlib import Path

import click

from pgwitness.cli.options import common, configuration, http_options


@click.command(short_help="Run the deliveries: alerts to webhooks, Slack, syslog and files.")
@http_options
@common
def deliver(host: str | None, port: int | None, config_path: Path) -> None:
    """Send alerts to every [deliveries.NAME] until asked to stop; with respond.enabled, end backends too.

    Each target has its own place on the topic: one that is slow or gone holds up no other.
    """
    config = configuration(config_path)

    import asyncio

    from pgwitness.cli.daemon import daemon
    from pgwitness.cli.signals import finish
    from sinks.deliveries.daemon import run

    bind = config.http.deliver_port if port is None else port
    with daemon("deliver", host or config.http.host, bind) as (stop, health):
        asyncio.run(run(config, health, stop))
    finish(0)
