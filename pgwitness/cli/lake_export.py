"""`pgwitness lake export`: evidence for other programs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgwitness.cli.evidence import Recorder
from pgwitness.cli.options import common, configuration, json_option
from pgwitness.cli.output import emit
from pgwitness.core.errors import ConfigurationError, NotInOrder

if TYPE_CHECKING:
    from pgwitness.cli.output import Row
    from pgwitness.core.config import Config
    from sinks.export.ocsf import Wanted


@click.command(short_help="Write evidence for other programs: OCSF.")
@click.option("--format", "form", type=click.Choice(["ocsf", "iceberg"]), required=True, help="What is written.")
@click.option("--since", metavar="WHEN", help="From when on: 2026-03-01, 2026-03-01T08:00:00Z, or 24h ago.")
@click.option("--until", metavar="WHEN", help="Up to when, exclusive.")
@click.option("--principal", metavar="NAME", help="Only what somebody did, or what was done on their behalf.")
@click.option("--as", "ending", type=click.Choice(["jsonl", "parquet"]), default="jsonl", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The folder to write to.")
@click.option(
    "--catalog", metavar="URL", help="iceberg: the database of the catalogue; sqlite in the folder by default."
)
@click.option("--warehouse", metavar="URL", help="iceberg: where metadata goes, such as s3://…; the folder by default.")
@click.option("--row-images", is_flag=True, help="iceberg: publish the table of row images, too.")
@json_option
@common
def export(
    form: str,
    since: str | None,
    until: str | None,
    principal: str | None,
    ending: str,
    output: Path,
    catalog: str | None,
    warehouse: str | None,
    row_images: bool,
    as_json: bool,
    config_path: Path,
) -> None:
    """Write the evidence of a period as OCSF, or publish the lake's files as tables of Iceberg.

    ocsf: a file for each class of OCSF 1.8.0, over one that is there: datastore_activity (6005) is what was done,
    authentication (3002) who came and went, detection_finding (2004) what was found. iceberg: the whole lake; run it
    again, and the tables follow. That it was exported is evidence too: a `control` event, where the broker can be
    reached.
    """
    from pgwitness.cli.sql_files import outside
    from pgwitness.core.moments import when
    from sinks.export.ocsf import TIME_US_MAX, Wanted

    config = configuration(config_path)
    now_us = time.time_ns() // 1000
    since_us = when(since, now_us) if since else 0
    until_us = when(until, now_us) if until else TIME_US_MAX
    if until_us <= since_us:
        raise ConfigurationError("--until must be later than --since")
    outside(output, config.lake.path)
    if form == "iceberg" and (since or until or principal):
        raise ConfigurationError("--format iceberg publishes the whole lake: leave --since, --until, --principal out")
    subject = {"format": form, "since": since, "until": until, "principal": principal}
    recorder = Recorder(config)
    try:
        with recorder.exporting(subject):
            if form == "iceberg":
                rows = _iceberg(config, output.expanduser(), catalog, warehouse, row_images)
            else:
                rows = _ocsf(config, Wanted(since_us, until_us, principal), ending, output.expanduser())
    finally:
        recorder.close()
    emit(rows, as_json=as_json)


def _ocsf(config: Config, wanted: Wanted, ending: str, output: Path) -> list[Row]:
    from pgwitness.cli.sql_files import whole
    from sinks.export.ocsf import WRITERS, queries
    from sinks.lake.opening import lake_store
    from sinks.sql.catalogue import connect

    rows: list[Row] = []
    with connect(lake_store(config)) as connection:
        for name, asked in queries(wanted).items():
            path = output / f"{name}.{ending}"
            try:
                output.mkdir(parents=True, exist_ok=True)
                with whole(path) as file:
                    number = WRITERS[ending](connection, asked, file)
            except OSError as error:
                raise NotInOrder(f"{path} could not be written: {error.strerror or error}") from error
            rows.append({"class": name, "events": number, "file": str(path)})
    return rows


def _iceberg(config: Config, output: Path, catalog: str | None, warehouse: str | None, row_images: bool) -> list[Row]:
    from dataclasses import asdict

    from sinks.lake.opening import lake_store

    try:
        from sinks.export import iceberg
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"there is no {error.name}: pip install 'pgwitness[iceberg]'") from None
    tables = ["events", "alerts", *["rows"] * row_images]
    try:
        with iceberg.opened(
            lake_store(config), output, uri=catalog, warehouse=warehouse, s3=config.lake.s3
        ) as publisher:
            return [asdict(publisher.publish(table)) for table in tables]
    except OSError as error:
        raise NotInOrder(f"the lake could not be published into {output}: {error}") from error
