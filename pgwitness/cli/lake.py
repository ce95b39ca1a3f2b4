"""`pgwitness lake`: what keeps a lake fast and small, once or as daemons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgwitness.cli.lake_export import export
from pgwitness.cli.options import common, configuration, http_options, json_option
from pgwitness.cli.output import emit, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgwitness.core.config import Config
    from sinks.lake.compaction.compactor import Compactor, Done


@click.group()
def lake() -> None:
    """Maintain the evidence lake, and take evidence out of it."""


lake.add_command(export)


@lake.command(short_help="Put small files together; delete what they were put together from.")
@click.option("--every", metavar="DURATION", help="Go on as a daemon, a round every so often, such as 10m.")
@click.option("--print", "only_print", is_flag=True, help="Only say what would be done first.")
@http_options
@json_option
@common
def compact(
    every: str | None, only_print: bool, as_json: bool, host: str | None, port: int | None, config_path: Path
) -> None:
    """Let commits become days, and days months: fewer and larger files, sorted, with the same rows.

    Files that were replaced are deleted after lake.grace and, where the lake is sealed, once a checkpoint covers that.
    Exits 1 when a file is missing or is not what its entry says: it is left as it is.
    """
    config = configuration(config_path)
    every_s = _duration(every)
    compactor = _compactor(config)
    if only_print:
        _show(compactor, as_json)
        return
    if every_s is None:
        done = compactor.run()
        _tell(done, compactor, as_json)
        if done.refused:
            raise click.exceptions.Exit(1)
        return

    from pgwitness.cli.daemon import daemon
    from pgwitness.cli.signals import finish
    from sinks.lake.compaction.daemon import run

    bind = config.http.compact_port if port is None else port
    with daemon("compact", host or config.http.host, bind) as (stop, health):
        run(compactor, every_s, health, stop)
    finish(0)


def _duration(text: str | None) -> float | None:
    from pgwitness.core.errors import ConfigurationError
    from pgwitness.core.units import Duration

    try:
        return None if text is None else Duration.parse(text)
    except ValueError as error:
        raise ConfigurationError(f"--every: {error}") from error


def _compactor(config: Config) -> Compactor:
    from sinks.lake.compaction.compactor import Compactor
    from sinks.lake.opening import open_lake

    opened = open_lake(config)
    return Compactor(config.lake.path, opened.store, grace_s=config.lake.grace, sealed=_sealed(config))


def _sealed(config: Config) -> Callable[[], int | None]:
    """Say how far the lake is sealed, None where it is not to be."""
    from pgwitness.core.errors import NotInOrder
    from sinks.seal.opening import sealed_to
    from sinks.seal.place import folder_of

    def sealed() -> int | None:
        wanted = config.seal.key or config.seal.sign_command or config.seal.public_key or config.lake.signing_key_file
        path = config.lake.path
        if not wanted and not (isinstance(path, Path) and folder_of(path, config.seal.path).exists()):
            return None
        try:
            return sealed_to(config)
        except (ValueError, OSError) as error:
            raise NotInOrder(
                f"the lake's seal could not be read ({error}): replaced files are not deleted until it can"
            ) from error

    return sealed


def _show(compactor: Compactor, as_json: bool) -> None:
    rows = [
        {
            "table": job.table,
            "place": job.place,
            "becomes": job.level.name.lower(),
            "files": len(job.inputs),
            "rows": job.rows,
            "bytes": sum(file.bytes for file in job.inputs),
            "buckets": job.buckets,
        }
        for job in compactor.planned()
    ]
    emit(rows, as_json=as_json, empty="nothing to compact")


def _tell(done: Done, compactor: Compactor, as_json: bool) -> None:
    import msgspec

    if as_json:
        emit([{**msgspec.structs.asdict(done), "live": compactor.live}], as_json=True)
        return
    say(
        f"{done.replaced} files became {done.made} ({done.rows} rows), {compactor.live} count now; "
        f"{done.removed} replaced files deleted"
    )
    if done.orphans:
        say(f"{done.orphans} files that no entry names and that were older than a day are deleted")
    for why in done.refused:
        say(f"left as it is: {why}")
