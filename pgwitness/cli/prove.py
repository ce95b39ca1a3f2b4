"""`pgwitness prove`: a bundle that proves one event to somebody who does not have the lake."""

from __future__ import annotations

from pathlib import Path

import click

from pgwitness.cli.evidence import Recorder
from pgwitness.cli.options import common, configuration
from pgwitness.cli.output import say
from pgwitness.core.errors import NotInOrder


@click.command(short_help="Write a bundle that proves one event without the lake.")
@click.argument("event_id")
@click.option("--output", type=click.Path(path_type=Path), help="The folder to make; proof-EVENT_ID by default.")
@click.option("--row-images", is_flag=True, help="With the file that has the event's row images.")
@click.option("--key", metavar="KEY", help="The sealer's public key, or a file with it; by default seal.public_key.")
@common
def prove(event_id: str, output: Path | None, row_images: bool, key: str | None, config_path: Path) -> None:
    """Write a folder with the event, its file, the entry that brought it, and the proof that this was sealed.

    `pgwitness verify` checks it with the public key alone, and so do openssl and sha256sum. The file holds other events
    as well: whoever gets the folder reads them.
    """
    config = configuration(config_path)
    from sinks.lake.opening import lake_store
    from sinks.seal.opening import checking_key, seal_store
    from sinks.seal.prove import prove as run

    into = output or Path(f"proof-{event_id}")
    lake = config.lake.path
    if isinstance(lake, Path) and into.resolve().is_relative_to(lake.resolve()):
        raise NotInOrder(f"{into} lies in the lake, where nobody writes but its worker; name another folder")
    recorder = Recorder(config)
    try:
        with recorder.exporting({"format": "proof", "event_id": event_id}):
            made = run(
                lake_store(config),
                seal_store(config),
                checking_key(config, key),
                event_id,
                into,
                row_images=row_images,
            )
    except OSError as error:
        raise NotInOrder(f"the bundle could not be made ({error}): look at rights and room") from error
    finally:
        recorder.close()
    say(f"{into} is written: event {event_id} came with entry {made.number}, which is sealed")
    if made.file.rows > 1:
        say(f"whoever gets it reads {made.file.rows - 1} other events, too: they are in the same file")
