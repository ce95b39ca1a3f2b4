"""`pgwitness gateway`: the proxy that native clients connect through."""

from __future__ import annotations

from pathlib import Path

import click

from pgwitness.cli.gateway_sessions import end, sessions
from pgwitness.cli.gateway_users import users
from pgwitness.cli.options import common, configuration, http_options


@click.group(
    short_help="Let clients connect through pgwitness, each statement written down.", invoke_without_command=True
)
@http_options
@common
@click.pass_context
def gateway(context: click.Context, host: str | None, port: int | None, config_path: Path) -> None:
    """Serve PostgreSQL's protocol until asked to stop: clients log in here, and their statements go on to the server.

    Each statement is judged, and on the gateway's spool before it is forwarded, and in the topic `raw` with what came
    of it. What a policy with `effect: deny` matches is refused.
    Where to listen and which databases there are says [gateway] in the configuration.
    """
    if context.invoked_subcommand is not None:
        return
    from collectors.gateway.fleet import Fleet
    from collectors.gateway.service import run_gateway
    from pgwitness.cli.daemon import daemon
    from pgwitness.cli.naming import namer_of
    from pgwitness.cli.signals import finish

    config = configuration(config_path)
    bind = config.http.gateway_port if port is None else port
    if config.gateway.processes > 1:
        fleet = Fleet(config, namer_of)
        with daemon("gateway", host or config.http.host, bind, fleet.registry) as (stop, health):
            code = fleet.run(stop, health)
    else:
        with daemon("gateway", host or config.http.host, bind) as (stop, health):
            code = run_gateway(config, stop, health, namer_of)
    finish(code)


for command in (users, sessions, end):
    gateway.add_command(command)
