"""`pgwitness verify`: whether a lake, or a copy of one, is what was sealed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgwitness.cli.options import common, configuration, json_option
from pgwitness.cli.output import say, to_json
from pgwitness.core.errors import ConfigurationError, NotInOrder
from pgwitness.core.printable import visible

if TYPE_CHECKING:
    from pgwitness.core.config import Config
    from sinks.seal.verification.findings import Report

CHECKPOINT_BYTES_MAX = 10_000_000
PATIENCE_S = 5.0
"""How long a file without an entry is watched: a worker or compactor that is at it goes on with it by then."""


@click.command(short_help="Check that nothing of a lake, or of a proof, is altered, offline.")
@click.argument("subject", metavar="[LAKE|BUNDLE]", required=False, type=click.Path(path_type=Path))
@click.option("--key", metavar="KEY", help="The sealer's public key, or a file with it; by default seal.public_key.")
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A checkpoint that was kept elsewhere; may be repeated.",
)
@click.option(
    "--tsa",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Certificates (PEM) of who stamped checkpoints; by default those of [seal.anchors].",
)
@click.option("--unanchored", is_flag=True, help="Hold it against no checkpoint that was kept elsewhere.")
@click.option("--rows", is_flag=True, help="Read every row, too: digests, and holes in what is numbered.")
@click.option("--copy-of", metavar="S3-URL", help="The bucket that the lake is a copy of, as its lake.path says it.")
@click.option("--lag", metavar="DURATION", help="How old what is not sealed may be; by default seal.lag_max.")
@json_option
@common
def verify(
    subject: Path | None,
    key: str | None,
    checkpoints: tuple[Path, ...],
    tsa: Path | None,
    unanchored: bool,
    rows: bool,
    copy_of: str | None,
    lag: str | None,
    as_json: bool,
    config_path: Path,
) -> None:
    """Check a lake, live or a plain copy, or a bundle of `prove`, with the sealer's public key.

    Names every file that is altered, missing, added, moved or rolled back, and ends with 1 for any of these; also
    when no checkpoint is named that was kept elsewhere, unless with --unanchored. Needs no server.
    """
    from pgwitness.core.units import Duration
    from sinks.seal.opening import checking_key, trusted_certificates
    from sinks.seal.prove import is_bundle
    from sinks.seal.verification.bundle import verify_bundle
    from sinks.seal.verification.verify import Wanted
    from sinks.seal.verification.verify import verify as run

    config = _configuration(config_path, subject is not None and key is not None)
    try:
        lag_s = Duration.parse(lag) if lag is not None else config.seal.lag_max
    except ValueError as error:
        raise ConfigurationError(f"--lag: {error}") from error
    wanted = Wanted(
        key=checking_key(config, key),
        now_us=time.time_ns() // 1000,
        seal=config.seal.path if subject is None else None,
        remembered=tuple((str(path), _read(path)) for path in checkpoints),
        unanchored=unanchored,
        lag_us=int(lag_s * 1e6),
        rows=rows,
        patience_s=PATIENCE_S,
        root=_root(copy_of or str(config.lake.path)),
        trusted=trusted_certificates(config, tsa),
    )
    lake = subject or config.lake.folder
    try:
        report = verify_bundle(lake, wanted.key, wanted.trusted) if is_bundle(lake) else run(lake, wanted)
    except OSError as error:
        raise NotInOrder(f"{lake} could not be read ({error}): give whoever verifies the right to read it") from error
    _print(report, as_json)
    if report.findings:
        raise click.exceptions.Exit(1)


def _root(place: str) -> str:
    """Write a bucket's place as the views of a lake there name it; nothing for a folder."""
    return f"{place.rstrip('/')}/" if place.startswith("s3://") else ""


def _configuration(path: Path, may_be_missing: bool) -> Config:
    from pgwitness.core.config import Config

    return Config() if may_be_missing and not path.exists() else configuration(path)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(CHECKPOINT_BYTES_MAX)
    except OSError as error:
        raise ConfigurationError(f"--checkpoint {path}: {error.strerror}") from error


def _print(report: Report, as_json: bool) -> None:
    from sinks.seal.prove import is_bundle
    from sinks.seal.verification.findings import summary

    if as_json:
        click.echo(to_json(report))
        return
    for note in report.notes:
        say(note)
    for finding in report.findings:
        click.echo(visible(f"{finding.kind.replace('_', ' ')}: {finding.subject}: {finding.text}"))
    bundle = is_bundle(Path(report.lake))
    if not bundle:
        click.echo(summary(report))
    if not report.findings:
        what = "1 event" if bundle else f"{report.entries} entries, {report.files} files, {report.rows} rows landed"
        click.echo(f"in order: {what}")
