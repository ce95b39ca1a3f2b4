"""`pgwitness dead-letters`: records that could not be read, trying them again, and passing one that is waited at."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgwitness.cli.options import common, configuration, json_option
from pgwitness.cli.output import emit, say
from pgwitness.core.errors import ConfigurationError

if TYPE_CHECKING:
    from streams.kafka.dead_letters import Letter

SHOWN_BYTES_MAX = 4_000


@click.group("dead-letters", short_help="Look at records that could not be read, and try them again.")
def dead_letters() -> None:
    """Look at records that could not be read, and try them again."""


@dead_letters.command("list", short_help="List what could not be read, and why.")
@json_option
@common
def list_(as_json: bool, config_path: Path) -> None:
    """List every record that could not be read, oldest first: why, at which stage, and where it came from."""
    config = configuration(config_path)
    from pgwitness.cli import kafka
    from streams.kafka import dead_letters as letters

    kafka.reach(config)
    emit([_row(letter) for letter in letters.letters(config)], as_json=as_json, empty="no dead letters")


@dead_letters.command(short_help="Show one of them.")
@click.argument("offset", type=click.IntRange(0))
@click.option("--raw", is_flag=True, help="Write the record's bytes to stdout as they came, and nothing else.")
@json_option
@common
def show(offset: int, raw: bool, as_json: bool, config_path: Path) -> None:
    """Show the dead letter at OFFSET of its topic, with the beginning of its content. That it was read is evidence."""
    config = configuration(config_path)
    from pgwitness.cli import kafka
    from pgwitness.cli.evidence import recorded
    from streams.kafka import dead_letters as letters

    kafka.reach(config)
    with recorded(config, "dead_letters", offset=offset, raw=raw):
        letter = letters.show(config, offset)
        if raw:
            click.get_binary_stream("stdout").write(letters.whole(config, letter) or b"")
            return
    content = (letter.value or b"")[:SHOWN_BYTES_MAX].decode(errors="replace")
    row = _row(letter) | {"key": (letter.key or b"").decode(errors="replace"), "value": content}
    if as_json:
        emit([row], as_json=True)
    else:
        emit([{"field": name, "value": value} for name, value in row.items()], as_json=False)


@dead_letters.command(short_help="Try them again.")
@click.argument("offsets", nargs=-1, type=click.IntRange(0))
@click.option("--all", "everything", is_flag=True, help="All that were not tried again yet.")
@click.option("--again", is_flag=True, help="Also those that were tried again already.")
@json_option
@common
def redrive(offsets: tuple[int, ...], everything: bool, again: bool, as_json: bool, config_path: Path) -> None:
    """Write the records at OFFSETS to the partitions they came from, as new records at their end."""
    config = configuration(config_path)
    if everything == bool(offsets):
        raise ConfigurationError("dead-letters redrive: name the offsets, or --all; `dead-letters list` shows them")
    from pgwitness.cli import kafka
    from streams.kafka import dead_letters as letters

    kafka.reach(config)
    sent = letters.redrive(config, None if everything else list(offsets), again=again)
    emit([_row(letter) for letter in sent], as_json=as_json, empty="nothing was left to try again")
    if not as_json and sent:
        say(f"{len(sent)} tried again; what still cannot be read comes back as a new dead letter")


@dead_letters.command(short_help="Pass a record that a partition waits at.")
@click.argument("topic", type=click.Choice(["raw", "events"]))
@click.argument("partition", type=click.IntRange(0))
@click.argument("offset", type=click.IntRange(0))
@click.option("--why", required=True, help="Why it may be passed; it stands in the evidence, with your name.")
@json_option
@common
def skip(topic: str, partition: int, offset: int, why: str, as_json: bool, config_path: Path) -> None:
    """Have the record at OFFSET of a PARTITION passed, whose schema is newer than the worker.

    The partition waits there (`pgwitness_worker_paused`, `/readyz` and the log say where). An update would read the
    record; pass it when none will. It becomes a dead letter, and the evidence says who passed it, when and why.
    """
    config = configuration(config_path)
    if not why.strip():
        raise ConfigurationError("dead-letters skip: --why says nothing; whoever reads the evidence wants a reason")
    from pgwitness.cli import kafka
    from pgwitness.cli.evidence import user_at_host
    from streams.kafka import skipping

    kafka.reach(config)
    ordered = skipping.order(config, topic, partition, offset, user_at_host(), why.strip())
    row = {"topic": topic, "partition": partition, "offset": offset, "sha256": ordered.sha256, "who": ordered.who}
    emit([row | {"why": ordered.why}], as_json=as_json)
    if not as_json:
        say("a worker passes it within seconds, or when one starts; `dead-letters list` shows it then")


def _row(letter: Letter) -> dict[str, object]:
    return {
        "offset": letter.offset,
        "time": datetime.fromtimestamp(letter.at_ms / 1000, UTC),
        "reason": letter.reason,
        "stage": letter.stage,
        "topic": letter.source_topic,
        "partition": letter.source_partition,
        "source_offset": letter.source_offset,
        "bytes": letter.size,
        "kept": letter.kept,
        "redriven": letter.redriven,
    }
