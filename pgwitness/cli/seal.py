"""`pgwitness seal`: the sealer, once or as a daemon, and its key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgwitness.cli.options import common, configuration, http_options
from pgwitness.cli.output import say

if TYPE_CHECKING:
    from pgwitness.core.config import Config


@click.group(invoke_without_command=True, short_help="Sign what the lake holds; its own key.")
@click.option("--every", metavar="DURATION", help="Go on as a daemon, a round every so often, such as 60s.")
@http_options
@common
@click.pass_context
def seal(ctx: click.Context, every: str | None, host: str | None, port: int | None, config_path: Path) -> None:
    """Check the entries and files that have come, sign a checkpoint of all entries, and send it to the anchors.

    Run it as a user of its own, who may read the lake and write only LAKE/seal. What is missing or altered, and a lake
    that was put back from an older copy, is refused.
    """
    if ctx.invoked_subcommand is not None:
        return
    from pgwitness.core.errors import ConfigurationError
    from pgwitness.core.units import Duration
    from sinks.seal.opening import alone

    config = configuration(config_path)
    try:
        every_s = Duration.parse(every) if every is not None else None
    except ValueError as error:
        raise ConfigurationError(f"--every: {error}") from error
    with alone(config):
        if every_s is None:
            _once(config)
        else:
            _daemon(config, every_s, host or config.http.host, config.http.seal_port if port is None else port)


def _once(config: Config) -> None:
    from pgwitness.core.errors import NotInOrder
    from sinks.seal.daemon import anchor
    from sinks.seal.opening import open_sealer

    sealer, anchoring = open_sealer(config)
    done = sealer.round()
    say(f"sealed to entry {done.checkpoint.size - 1}: {done.entries} entries and {done.files} files are new")
    if troubles := anchor(anchoring, done):
        raise NotInOrder("; ".join(troubles))


def _daemon(config: Config, every_s: float, host: str, port: int) -> None:
    from pgwitness.cli.daemon import daemon
    from pgwitness.cli.signals import finish
    from sinks.seal.daemon import run
    from sinks.seal.opening import open_sealer

    sealer, anchoring = open_sealer(config)
    with daemon("seal", host, port) as (stop, health):
        run(sealer, anchoring, every_s, health, stop)
    finish(0)


@seal.command(short_help="Make the sealer's key.")
@click.option("--name", metavar="NAME", help="Name of the key and of the log; by default of the lake's id.")
@common
def init(name: str | None, config_path: Path) -> None:
    """Make the private key in the file of `seal.key`, and print the public key, with which `verify` checks.

    Give the public key to whoever is to check, on another way than the lake. The lake has to be there, for the key is
    named after it, unless --name says how.
    """
    from pgwitness.core.errors import ConfigurationError, NotInOrder
    from sinks.lake.log import chain
    from sinks.lake.opening import lake_store
    from sinks.seal import keys

    config = configuration(config_path)
    path = keys.key_file(config)
    if path is None:
        raise ConfigurationError(f'{config_path}: set "key" in [seal] to the file that the key is to be in')
    if name is None:
        try:
            begin = lake_store(config).read(chain.entry_name(0))
        except OSError as error:
            raise NotInOrder(f"the lake {config.lake.path} cannot be read ({error})") from error
        if begin is None:
            raise ConfigurationError(
                f"the lake {config.lake.path} has no entry yet: start a worker first, or name the key with --name"
            )
        name = keys.origin_of(keys.lake_id(begin))
    click.echo(keys.make_key(path, name).text())
    say(f"{path} is written; set seal.public_key to the line above, and keep that line outside of this machine")
