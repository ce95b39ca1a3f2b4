"""`pgwitness report`: one HTML file on a principal, a relation or a period."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pgwitness.cli.evidence import Recorder
from pgwitness.cli.options import common, configuration
from pgwitness.cli.output import say
from pgwitness.cli.sql_files import outside, whole
from pgwitness.core.errors import ConfigurationError, NotInOrder


@click.command(short_help="Write a page on a principal, a relation or a period.")
@click.option("--principal", metavar="NAME", help="What somebody did, or what was done on their behalf.")
@click.option("--relation", metavar="NAME", help="Who accessed a relation, as `schema.table`.")
@click.option("--since", metavar="WHEN", help="From when on: 2026-03-01, 2026-03-01T08:00:00Z, or 24h ago.")
@click.option("--until", metavar="WHEN", help="Up to when, exclusive.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True)
@common
def report(
    principal: str | None, relation: str | None, since: str | None, until: str | None, output: Path, config_path: Path
) -> None:
    """Write one self-contained HTML page: what was done, how sure it is, what was found, and what is missing.

    That it was asked is evidence too, as of `pgwitness sql`.
    """
    from pgwitness.cli.policy import when

    config = configuration(config_path)
    now_us = time.time_ns() // 1000
    since_us = when(since, now_us) if since else 0
    until_us = when(until, now_us) if until else None
    if until_us is not None and until_us <= since_us:
        raise ConfigurationError("--until must be later than --since")
    outside(output, config.lake.path)
    from sinks.lake.opening import lake_store
    from sinks.report.facts import Subject, gather
    from sinks.report.page import render
    from sinks.sql.catalogue import connect

    recorder = Recorder(config)
    try:
        subject = {"principal": principal, "relation": relation, "since": since, "until": until}
        with recorder.reporting(subject), connect(lake_store(config)) as connection:
            page = render(gather(connection, Subject(principal, relation, since_us, until_us)))
    finally:
        recorder.close()
    try:
        with whole(output.expanduser()) as file:
            file.write(page.encode())
    except OSError as error:
        raise NotInOrder(f"{output} could not be written: {error.strerror or error}") from error
    say(f"{output} is written")
