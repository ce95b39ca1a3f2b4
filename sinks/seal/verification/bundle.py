"""Verifies a bundle of `sinks.seal.prove`, with nothing but the sealer's public key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
from cryptography import x509
from msgspec import Struct

from pgwitness.core.errors import PgwitnessError
from sinks.lake.log import chain
from sinks.lake.log.chain import Entry
from sinks.seal import measuring, prove
from sinks.seal.anchors.timestamp import stamped_at_us
from sinks.seal.history import added
from sinks.seal.tlog.note import PublicKey
from sinks.seal.tlog.proof import parsed
from sinks.seal.verification.findings import Report, instant

BYTES_MAX = 100_000_000


class _Event(Struct):
    event_id: str


def verify_bundle(folder: Path, key: PublicKey, trusted: Sequence[x509.Certificate] = ()) -> Report:
    """Give what there is to say of a bundle. What is not read cannot be proven: each problem is a finding."""
    report = Report(lake=str(folder), origin=key.name)
    known = {prove.EVENT, prove.STAMP}
    names = {path.name for path in folder.iterdir()}
    for table in (prove.EVENTS, prove.ROWS):
        own = {name.format(table) for name in (prove.DATA, prove.ENTRY, prove.MORE, prove.PROOF)}
        if table == prove.EVENTS or own & names:
            _table(folder, table, key, report)
        known |= own
    _stamp(folder, trusted, report)
    if not report.findings:  # nobody reads a Parquet file that somebody has altered
        _event(folder, report)
    for name in sorted(names - known):
        report.found("added", name, "it is no part of a bundle")
    return report


def _table(folder: Path, table: str, key: PublicKey, report: Report) -> None:
    """Check that the file of a table is one that its entry names, and that the entry was sealed."""
    entry = _entry(folder, table, key, report)
    name = prove.DATA.format(table)
    found = measuring.measure(folder / name)
    if found is None:
        report.found("missing", name, "a bundle has it")
    elif entry is not None and not any(
        (file.table, file.sha256, file.bytes) == (table, found.sha256, found.bytes) for file in added(entry)
    ):
        report.found("altered", name, "the entry names no such file: its SHA-256 is another one")
    elif entry is not None:
        report.files += 1
        report.bytes += found.bytes


def _entry(folder: Path, table: str, key: PublicKey, report: Report) -> Entry | None:
    """Check the proof, and read the entry that it is of."""
    try:
        content = _read(folder / prove.ENTRY.format(table))
        proof = parsed(_read(folder / prove.PROOF.format(table)))
        found = proof.checked(content, key)
    except FileNotFoundError as error:
        report.found("missing", Path(str(error.filename)).name, "a bundle has it")
        return None
    except ValueError as error:
        report.found("unsigned", prove.PROOF.format(table), str(error))
        return None
    try:
        entry = chain.decode(content, proof.index)
        wanted = getattr(entry, "more", None)
        more = folder / prove.MORE.format(table)
        entry = chain.whole(entry, _read(more) if wanted and more.exists() else None)
    except PgwitnessError as error:
        report.found("altered", prove.MORE.format(table), str(error))
        return None
    report.sealed_to, report.sealed_at_us = found.size - 1, entry.at_us
    report.entries += 1
    report.said(
        f"entry {proof.index}, of {instant(entry.at_us)} by the lake's clock, stands in the log {found.origin} of "
        f"{found.size} entries"
    )
    return entry


def _stamp(folder: Path, trusted: Sequence[x509.Certificate], report: Report) -> None:
    if not (folder / prove.STAMP).exists() or report.findings:
        return
    if not trusted:
        report.said("the time stamp was not checked: name its authority's certificates with --tsa")
        return
    try:
        note = parsed(_read(folder / prove.PROOF.format(prove.EVENTS))).note
        report.anchored_at_us = stamped_at_us(_read(folder / prove.STAMP), note, list(trusted))
    except ValueError as error:
        report.found("altered", prove.STAMP, f"it does not stamp the checkpoint: {error}")
    else:
        report.said(f"the checkpoint was stamped at {instant(report.anchored_at_us)}")


def _event(folder: Path, report: Report) -> None:
    try:
        said = _read(folder / prove.EVENT)
        event_id = msgspec.json.decode(said, type=_Event).event_id
        row = prove.row(folder / prove.DATA.format(prove.EVENTS), event_id)
    except FileNotFoundError as error:
        report.found("missing", Path(str(error.filename or prove.EVENT)).name, "a bundle has it")
        return
    except (*chain.UNREADABLE, pa.ArrowException, OSError, KeyError) as error:
        report.found("altered", prove.EVENT, f"it cannot be read: {error}")
        return
    if row is None:
        report.found("altered", prove.EVENT, f"events.parquet has no event {event_id}")
    elif prove.as_json(row) != said:
        report.found("altered", prove.EVENT, f"it is not what events.parquet has of event {event_id}")
    else:
        report.rows = 1
        report.said(f"event {event_id} stands in events.parquet, which came with that entry")


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(BYTES_MAX)
