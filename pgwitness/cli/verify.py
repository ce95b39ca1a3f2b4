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
    from collections.abc import Sequence

    from pgwitness.core.config import Config
    from sinks.lake.storage.store import Store
    from sinks.seal.verification.findings import Report
    from sinks.seal.verification.verify import Wanted

CHECKPOINT_BYTES_MAX = 10_000_000
PATIENCE_S = 5.0
"""How long a file without an entry is watched: a worker or compactor that is at it goes on with it by then."""


@click.command(short_help="Check that nothing of a lake, or of a proof, is altered, offline.")
@click.argument("subject", metavar="[LAKE|BUNDLE]", required=False)
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
    subject: str | None,
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

    LAKE is a folder, or a bucket (`s3://…`), which is read with the settings of [lake.s3].

    Names every file that is altered, missing, added, moved or rolled back, and ends with 1 for any of these; also
    when no checkpoint is named that was kept elsewhere, unless with --unanchored. Needs no server.
    """
    from pgwitness.core.units import Duration
    from sinks.seal.prove import is_bundle
    from sinks.seal.verification.bundle import verify_bundle
    from sinks.seal.verification.verify import verify as run

    config = _configuration(config_path, subject is not None and key is not None)
    try:
        lag_s = Duration.parse(lag) if lag is not None else config.seal.lag_max
    except ValueError as error:
        raise ConfigurationError(f"--lag: {error}") from error
    wanted = wanted_of(
        config,
        key=key,
        checkpoints=checkpoints,
        tsa=tsa,
        seal=seal_place(config) if subject is None else None,
        unanchored=unanchored,
        lag_s=lag_s,
        rows=rows,
        copy_of=subject if subject is not None and _root(subject) else copy_of,
    )
    place = lake_place(config, subject)
    try:
        if isinstance(place, Path) and is_bundle(place):
            report = verify_bundle(place, wanted.key, wanted.trusted)
        else:
            report = run(place, wanted)
    except OSError as error:
        name = place if isinstance(place, Path) else place.path
        raise NotInOrder(f"{name} could not be read ({error}): give whoever verifies the right to read it") from error
    _print(report, as_json)
    if report.findings:
        raise click.exceptions.Exit(1)


def wanted_of(
    config: Config,
    *,
    key: str | None = None,
    checkpoints: Sequence[Path] = (),
    tsa: Path | None = None,
    seal: Path | Store | None = None,
    unanchored: bool = False,
    lag_s: float,
    rows: bool = False,
    copy_of: str | None = None,
) -> Wanted:
    """Give what a lake is held against, by the configuration and what was named. Raise `ConfigurationError`."""
    from sinks.seal.opening import checking_key, trusted_certificates
    from sinks.seal.verification.verify import Wanted

    return Wanted(
        key=checking_key(config, key),
        now_us=time.time_ns() // 1000,
        seal=seal,
        remembered=tuple((str(path), _read(path)) for path in checkpoints),
        unanchored=unanchored,
        lag_us=int(lag_s * 1e6),
        rows=rows,
        patience_s=PATIENCE_S,
        root=_root(copy_of or str(config.lake.path)),
        trusted=trusted_certificates(config, tsa),
    )


def lake_place(config: Config, subject: str | None = None) -> Path | Store:
    """Give the lake to verify: the configuration's, or what was named. Raise `ConfigurationError` for what is none."""
    from pgwitness.core.config.places import S3Path, place

    try:
        found = config.lake.path if subject is None else place(subject)
    except ValueError as error:
        raise ConfigurationError(f"LAKE {error}") from error
    if not isinstance(found, S3Path):
        return Path(found)
    from sinks.lake.storage.objects import Objects

    return Objects(found, config.lake.s3)


def seal_place(config: Config) -> Path | Store | None:
    """Give the place of the configured lake's seal, None where that is in the lake."""
    from sinks.seal.opening import seal_store

    return seal_store(config) if config.seal.path is not None else None


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
