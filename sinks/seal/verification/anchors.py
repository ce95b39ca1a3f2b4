"""Verifies what the seal keeps of its anchors: checkpoints that were stamped, and the stamps."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509

from sinks.seal.anchors.timestamp import stamped_at_us
from sinks.seal.place import ANCHORS, FOLDER
from sinks.seal.tlog import checkpoint
from sinks.seal.tlog.note import PublicKey
from sinks.seal.verification.copies import Copy
from sinks.seal.verification.findings import Report, instant
from sinks.seal.verification.log import Sealed


def check_anchors(
    seal: Copy, key: PublicKey, sealed: Sealed, trusted: Sequence[x509.Certificate], report: Report
) -> None:
    """Hold the lake against each checkpoint that was stamped, and each stamp against the certificates, if there are."""
    stamps = 0
    notes: dict[str, bytes] = {}
    for name in sorted(seal.names(ANCHORS), key=lambda name: (not name.endswith(".checkpoint"), name)):
        content = seal.read(f"{ANCHORS}/{name}") or b""
        stem, _, rest = name.partition(".")
        if rest == "checkpoint":
            notes[stem] = content
            _hold(f"{FOLDER}/{ANCHORS}/{name}", content, key, sealed, report)
        elif rest.endswith(".tsr") and stem in notes:
            stamps += 1
            _stamp(f"{FOLDER}/{ANCHORS}/{name}", content, notes[stem], trusted, report)
        else:
            report.found("added", f"{FOLDER}/{ANCHORS}/{name}", "it is no checkpoint, nor the stamp of one")
    if stamps and not trusted:
        report.said(f"{stamps} time stamps were not checked: name their authority's certificates with --tsa")
    elif report.anchored_at_us:
        report.said(f"the newest of {stamps} time stamps is of {instant(report.anchored_at_us)}")


def _hold(name: str, content: bytes, key: PublicKey, sealed: Sealed, report: Report) -> None:
    try:
        found = checkpoint.opened(content, key)
    except ValueError as error:
        report.found("unsigned", name, str(error))
        return
    if sealed.proven and found.size > sealed.size:
        report.found("rolled_back", name, f"entries up to {found.size - 1} were sealed once")
    elif sealed.proven and sealed.root(found.size) != found.root:
        report.found("rolled_back", name, f"entries 0 to {found.size - 1} are others than those that were sealed")


def _stamp(name: str, content: bytes, note: bytes, trusted: Sequence[x509.Certificate], report: Report) -> None:
    if not trusted:
        return
    try:
        report.anchored_at_us = max(report.anchored_at_us, stamped_at_us(content, note, list(trusted)))
    except ValueError as error:
        report.found("altered", name, f"it does not stamp its checkpoint: {error}")
