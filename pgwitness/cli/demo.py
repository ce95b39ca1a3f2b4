"""`pgwitness demo`: the whole system on this machine, in under a minute."""

from __future__ import annotations

from pathlib import Path

import click

from pgwitness.cli.options import common
from pgwitness.core.errors import ConfigurationError


@click.command(short_help="See it work on this machine, in half a minute.")
@click.option(
    "--seconds",
    type=click.FloatRange(5, 600),
    default=20.0,
    show_default=True,
    help="How long the shop works before the report.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep everything in this folder: configuration, identities, policies, lake, logs.",
)
@click.option(
    "--serve",
    is_flag=True,
    help="Instead of the shop: a small database for programs of your own, watched until Ctrl-C; needs --dir.",
)
@click.option(
    "--keep",
    is_flag=True,
    help="Then leave everything running, with the console, until Ctrl-C; a DELETE waits there for approval.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one object with what was planted, caught and counted.")
@common
def demo(seconds: float, folder: Path | None, serve: bool, keep: bool, as_json: bool, config_path: Path) -> None:
    """Run a small shop on an embedded PostgreSQL and broker, with every collector and a worker watching.

    Four people, two services and three AI agents work; some misbehave. It ends with who did what, how sure that is,
    and the alerts. Exits 1 when a committed row did not land exactly once or a misbehaviour was missed.
    """
    if serve and (folder is None or as_json or keep):
        raise click.UsageError("--serve needs --dir DIR, where everything is kept, and knows neither --json nor --keep")
    try:
        from pgwitness.demo import playground
        from pgwitness.demo.run import main
    except ImportError as error:
        raise ConfigurationError(
            f'the demo needs the embedded servers ({error}): pip install "pgwitness[embedded]"'
        ) from error

    if serve and folder is not None:
        playground.main(folder)
        return
    raise SystemExit(main(seconds=seconds, folder=folder, as_json=as_json, stay=keep))
