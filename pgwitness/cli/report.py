"""`pgwitness report`: one HTML file on a principal, a relation or a period."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgwitness.cli.evidence import Recorder
from pgwitness.cli.options import common, configuration
from pgwitness.cli.output import say
from pgwitness.cli.sql_files import outside, whole
from pgwitness.core.errors import ConfigurationError, NotInOrder
from pgwitness.core.moments import when

if TYPE_CHECKING:
    from pgwitness.core.config import Config
    from sinks.seal.verification.findings import Report

STANDARDS = ("pci", "soc2", "iso27001")
"""Those of `sinks.report.standards`, which is loaded when a report is made."""


@click.command(short_help="Write a page on a principal, a relation or a period.")
@click.option("--principal", metavar="NAME", help="What somebody did, or what was done on their behalf.")
@click.option("--relation", metavar="NAME", help="Who accessed a relation, as `schema.table`.")
@click.option("--since", metavar="WHEN", help="From when on: 2026-03-01, 2026-03-01T08:00:00Z, or 24h ago.")
@click.option("--until", metavar="WHEN", help="Up to when, exclusive.")
@click.option("--standard", type=click.Choice(STANDARDS), help="Answer also what a standard asks for.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True)
@click.option("--verify", is_flag=True, help="Verify the lake first; the page says what came of it.")
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="For --verify: a checkpoint that was kept elsewhere; may be repeated.",
)
@common
def report(
    principal: str | None,
    relation: str | None,
    since: str | None,
    until: str | None,
    standard: str | None,
    output: Path,
    verify: bool,
    checkpoints: tuple[Path, ...],
    config_path: Path,
) -> None:
    """Write one self-contained HTML page: what was done, how sure it is, what was found, and what is missing.

    With --standard it answers, for the period, what PCI DSS 4.0 (requirement 10), SOC 2 (CC6, CC7) or ISO/IEC 27001
    (A.8.15) ask of a log; the question on cardholder data is asked of --relation.

    The page says how far the lake is sealed, what retention took of the period, and whether anybody has verified the
    lake; with --verify that is done first, and what is not in order ends it with 1, though the page is written. That it
    was asked is evidence too, as of `pgwitness sql`.
    """
    config = configuration(config_path)
    now_us = time.time_ns() // 1000
    since_us = when(since, now_us) if since else 0
    until_us = when(until, now_us) if until else None
    if until_us is not None and until_us <= since_us:
        raise ConfigurationError("--until must be later than --since")
    if checkpoints and not verify:
        raise ConfigurationError("--checkpoint is for --verify: say both")
    outside(output, config.lake.path)
    from sinks.lake.opening import lake_store
    from sinks.report.facts import gather
    from sinks.report.page import render
    from sinks.report.subject import Subject
    from sinks.seal.standing import standing
    from sinks.sql.catalogue import connect

    recorder = Recorder(config)
    try:
        asked = {"principal": principal, "relation": relation, "since": since, "until": until}
        asked |= {"standard": standard} if standard is not None else {}
        subject = Subject(principal, relation, since_us, until_us)
        with recorder.reporting(asked):
            found = _verified(config, checkpoints) if verify else None
            with connect(lake_store(config)) as connection:
                page = render(gather(connection, subject, partial(standing, config), found, standard))
    finally:
        recorder.close()
    try:
        with whole(output.expanduser()) as file:
            file.write(page.encode())
    except OSError as error:
        raise NotInOrder(f"{output} could not be written: {error.strerror or error}") from error
    say(f"{output} is written")
    if found is not None and found.findings:
        raise NotInOrder(f"the lake is not in order: the page names {len(found.findings)} findings")


def _verified(config: Config, checkpoints: tuple[Path, ...]) -> Report:
    """Verify the lake; without a checkpoint that was kept elsewhere the page says so."""
    from pgwitness.cli.verify import lake_place, seal_place, wanted_of
    from sinks.seal.verification.verify import verify

    wanted = wanted_of(
        config,
        checkpoints=checkpoints,
        seal=seal_place(config),
        unanchored=not checkpoints,
        lag_s=config.seal.lag_max,
    )
    try:
        return verify(lake_place(config), wanted)
    except OSError as error:
        raise NotInOrder(f"the lake could not be verified ({error}): look at the rights of this user") from error
