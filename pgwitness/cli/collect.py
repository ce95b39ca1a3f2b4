"""`pgwitness collect`: the collector daemons, several in one process if wanted."""

from __future__ import annotations

from pathlib import Path

import click

from collectors.registry import COLLECTORS
from pgwitness.cli.options import cluster_option, common, configuration, http_options


@click.command(short_help="Run collectors: wal, stats, sessions, log.")
@click.argument("names", nargs=-1, required=True, type=click.Choice(list(COLLECTORS)))
@cluster_option
@http_options
@common
def collect(
    names: tuple[str, ...], clusters: tuple[str, ...], host: str | None, port: int | None, config_path: Path
) -> None:
    """Run collectors until asked to stop: what they see goes to the topic `raw`.

    wal: committed changes, through logical replication. stats: statements, through pg_stat_statements. sessions: who
    is connected, and roles, grants, settings and triggers as they change. log: statements, connections, failed logins
    and errors, from the server's log.
    """
    from collectors.daemon import run_collectors
    from pgwitness.cli.daemon import daemon
    from pgwitness.cli.signals import finish
    from pgwitness.core.errors import ConfigurationError

    config = configuration(config_path, clusters)
    if not config.clusters:
        raise ConfigurationError(f"{config_path}: clusters: there is none to collect from; add [clusters.NAME]")
    chosen = list(dict.fromkeys(names))
    bind = config.http.collect_port if port is None else port
    with daemon("collect", host or config.http.host, bind) as (stop, health):
        code = run_collectors(config, chosen, stop, health)
    finish(code)
