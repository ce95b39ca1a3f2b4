"""Verifies a lake, live or as a plain copy: entries, seal, files, and snapshots. Reads only, and asks nobody.

What is on its way while this runs is no finding: what lies in the folder is listed before the entries are read, and
what is missing or strange then is looked at again behind the entries that have come meanwhile.
"""

from __future__ import annotations

import time
from pathlib import Path

from cryptography import x509
from msgspec import Struct

from pgwitness.core.errors import NotInOrder
from sinks.lake.log import chain
from sinks.lake.log.chain import File
from sinks.lake.log.on_store import newest_entry
from sinks.lake.storage.store import Folder, Store
from sinks.seal import measuring
from sinks.seal.anchors.given import notes
from sinks.seal.history import added
from sinks.seal.place import ANCHORS, CHECKPOINT, FOLDER, PRIVATE
from sinks.seal.tlog import checkpoint
from sinks.seal.tlog.checkpoint import Checkpoint
from sinks.seal.tlog.note import PublicKey
from sinks.seal.verification import files as verifying_files
from sinks.seal.verification import log as verifying_log
from sinks.seal.verification import snapshots as verifying_snapshots
from sinks.seal.verification.anchors import check_anchors
from sinks.seal.verification.copies import Copy, copy_of
from sinks.seal.verification.findings import Report, instant
from sinks.seal.verification.log import Fold, Sealed
from sinks.seal.verification.rows import Vanished, check_rows
from sinks.seal.verification.settling import settled

ROWS_READ_MAX = 10
"""How often all rows are read at most, where compaction replaces files under whoever reads them."""
CLOCKS_US = 86_400_000_000
"""How far the clocks of a writer and of who verifies may be apart."""
LOG = f"{chain.FOLDER}/"


class Wanted(Struct, frozen=True):
    """What a lake is held against.

    `key` is the sealer's public key; `seal` its place, if that is not in the lake; `remembered` are checkpoints that
    the auditor has kept, or got from an anchor (a note, or a file of lines), with their names; `trusted` are the
    certificates of those who stamped some; with `rows` every row is read; `root` is the bucket that the
    lake is a copy of, if it is; `lag_us` is how old what is not sealed may
    be, at `now_us`; `patience_s` is for how long a file that no entry names has to stay as it is before it is
    a finding, since its entry may be on its way.
    """

    key: PublicKey
    now_us: int
    seal: Path | Store | None = None
    remembered: tuple[tuple[str, bytes], ...] = ()
    unanchored: bool = False
    lag_us: int = 0
    trusted: tuple[x509.Certificate, ...] = ()
    rows: bool = False
    root: str = ""
    patience_s: float = 0.0


def verify(lake: Path | Store, wanted: Wanted) -> Report:
    """Give what there is to say of a lake. Raise `NotInOrder` when there is none."""
    store = copy_of(lake)
    report = Report(lake=str(store.path), origin=wanted.key.name)
    newest = newest_entry(store)
    if newest < 0:
        raise NotInOrder(
            f"{store.path} is no lake with a log: there is no {chain.entry_name(0)}. Name the lake's folder"
        )
    names = list(store.listed())
    seal = copy_of(wanted.seal or _beside(store))
    seal_names = list(seal.listed()) if wanted.seal else []
    if verifying_files.strangers(store, names, report) | verifying_files.strangers(seal, seal_names, report):
        return report
    found = _checkpoint(seal, wanted.key, report)
    summed = {
        name: content
        for name in verifying_snapshots.snapshot_names(names)
        if (content := store.read(name)) is not None  # writers remove old ones
    }
    sealed = verifying_log.sealed_leaves(store.read, seal.read, found, report) if found else Sealed()
    _remember(sealed, wanted, report)
    check_anchors(seal, wanted.key, sealed, wanted.trusted, report)
    fold = Fold(store.read, seal.read, sealed, report)
    snapshots = verifying_snapshots.Snapshots(summed, newest, report)
    fold.run(snapshots.after)
    _holes(store, fold, report)
    if sealed.proven:
        _seal_files(seal, sealed, fold, report)
    snapshots.finish(store)
    verifying_snapshots.check_views(store, wanted.root, report)
    _files(store, names, fold, wanted, report)
    if wanted.rows and not report.findings:  # nobody reads a file that somebody has altered
        _rows(store, fold, report)
    _tell(report, found if sealed.proven else None, fold, wanted)
    return report


def _beside(lake: Copy) -> Path | Store:
    """Give the place of a seal that lies in its lake."""
    if isinstance(lake, Folder):
        return lake.path / FOLDER
    from sinks.lake.storage.objects import Objects

    assert isinstance(lake, Objects)
    return Objects(lake.path / FOLDER, lake.settings, **lake.options)


def _checkpoint(seal: Copy, key: PublicKey, report: Report) -> Checkpoint | None:
    content = seal.read(CHECKPOINT)
    if content is None:
        report.found("unsigned", f"{FOLDER}/{CHECKPOINT}", "there is no checkpoint: the lake is not sealed")
        return None
    try:
        return checkpoint.opened(content, key)
    except ValueError as error:
        report.found("unsigned", f"{FOLDER}/{CHECKPOINT}", str(error))
        return None


def _remember(sealed: Sealed, wanted: Wanted, report: Report) -> None:
    """Hold the lake against what the auditor knows: an older lake, or another one, has other roots."""
    newest = -1
    for name, note in ((name, note) for name, content in wanted.remembered for note in notes(content)):
        try:
            known = checkpoint.opened(note, wanted.key)
        except ValueError as error:
            report.found("unsigned", name, f"the remembered checkpoint: {error}")
            continue
        newest = max(newest, known.size)
        if known.size > sealed.size:
            report.found(
                "rolled_back",
                name,
                f"entries up to {known.size - 1} were sealed once, now they are up to {sealed.size - 1}: an older copy "
                "was put back, or the end was cut off",
            )
        elif sealed.proven and sealed.root(known.size) != known.root:
            report.found("rolled_back", name, f"entries 0 to {known.size - 1} are others than those that were sealed")
    if newest >= 0:
        report.said(f"the remembered checkpoint is of entries 0 to {newest - 1}")
    elif wanted.unanchored:
        report.said("held against no remembered checkpoint: an older copy put back in whole would not show")
    else:
        report.found(
            "unanchored",
            "checkpoint",
            "held against no remembered checkpoint, so that an older copy put back in whole would not show: name one "
            "(--checkpoint FILE), or say --unanchored",
        )


def _seal_files(seal: Copy, sealed: Sealed, fold: Fold, report: Report) -> None:
    names = [
        name for name in seal.listed() if name != CHECKPOINT and not name.startswith((f"{ANCHORS}/", f"{PRIVATE}/"))
    ]
    fold.run()  # so that what the sealer is writing now is known
    verifying_log.check_tiles(seal.read, names, sealed, fold.behind, report)


def _holes(store: Copy, fold: Fold, report: Report) -> None:
    last, newest = fold.history.state.number, newest_entry(store)
    if newest > last and not fold.broken:
        fold.run()
        last, newest = fold.history.state.number, newest_entry(store)
    if newest > last and not fold.broken:
        report.found("missing", chain.entry_name(last + 1), f"it is missing although entry {newest} is there")


def _files(lake: Copy, names: list[str], fold: Fold, wanted: Wanted, report: Report) -> None:
    history = fold.history
    missing = verifying_files.check_live(lake, list(history.state.live.values()), report)
    strange = _strange(lake, names, fold)
    if missing or strange:
        before = set(history.state.live)
        strange = settled(lake, lambda: _still_strange(lake, names, fold), wanted.patience_s, time.sleep)
        missing = _still_missing(lake, missing, before, fold, report)
    waiting = [name for name in names if name in history.gone and name not in history.state.live]
    if waiting:
        report.said(f"{len(waiting)} files that entries removed are still there, and nobody reads them")
    if not fold.broken:
        verifying_files.name_others(lake, missing, strange, history, report)
    elif missing:
        verifying_files.name_others(lake, missing, [], history, report)


def _rows(lake: Copy, fold: Fold, report: Report) -> None:
    """Read every row; where files are replaced meanwhile, those that took their place, too."""
    state = fold.history.state
    for _ in range(ROWS_READ_MAX):
        seen, found = set(state.live), Report()
        try:
            check_rows(lake, fold.history, found)
        except Vanished:
            gone = [file for file in state.live.values() if not lake.has(file.path)]
            missing = _still_missing(lake, gone, seen, fold, report)
            verifying_files.name_others(lake, missing, [], fold.history, report)
            if report.findings:
                return
            continue
        report.findings += found.findings
        report.notes += found.notes
        return
    report.found("unreadable", str(lake.path), "files are replaced faster than their rows are read: verify a copy")


def _still_missing(lake: Copy, missing: list[File], seen: set[str], fold: Fold, report: Report) -> list[File]:
    """Read on, and give which files are missing by the entries that have come; what these bring is looked at, too."""
    live = fold.history.state.live
    fold.run()
    while new := [file for path, file in live.items() if path not in seen]:
        seen |= set(live)
        missing = missing + verifying_files.check_live(lake, new, report)
        fold.run()
    return [file for file in missing if file.path in live]


def _still_strange(lake: Copy, names: list[str], fold: Fold) -> list[str]:
    fold.run()
    return [name for name in _strange(lake, names, fold) if lake.has(name)]


def _strange(lake: Copy, names: list[str], fold: Fold) -> list[str]:
    """List files that no entry names."""
    history = fold.history
    known = {*history.state.live, *history.gone, *verifying_snapshots.known_beside(), *fold.mores}
    last = history.state.number
    entries = {chain.entry_name(number) for number in range(last + 1)}
    return sorted(
        name
        for name in names
        if name not in known
        and name not in entries
        and not verifying_files.aside(name)
        and not name.startswith((f"{FOLDER}/", "_snapshots/"))
        and not _is_spare(lake, name)
    )


def _is_spare(lake: Copy, name: str) -> bool:
    """Say whether a file holds what an entry would have left out that lost its number: named by its hash, harmless."""
    if not name.startswith(f"{LOG}more/"):
        return False
    try:
        found = measuring.measure_in(lake, name)
        return found is not None and chain.more_name(found.sha256) == name
    except OSError:
        return False


def _tell(report: Report, found: Checkpoint | None, fold: Fold, wanted: Wanted) -> None:
    """Say how far the seal goes, and whether what is behind it is too old to be without one."""
    report.entries = fold.history.state.number + 1
    report.rows = fold.history.rows
    report.chained_entries = len(fold.chained) if found else report.entries
    report.chained_rows = sum(file.rows for entry in fold.chained for file in added(entry))
    if found is not None:
        report.sealed_to = found.size - 1
        report.sealed_at_us = fold.sealed_at_us
    if found is not None and fold.chained:
        waited_us = wanted.now_us - fold.chained[0].at_us
        if waited_us > wanted.lag_us:
            report.found(
                "unsealed",
                chain.entry_name(fold.chained[0].number),
                f"{len(fold.chained)} entries since {instant(fold.chained[0].at_us)} are not sealed: the sealer does "
                "not run, or refuses",
            )
        for entry in fold.chained:
            if entry.at_us - wanted.now_us > max(wanted.lag_us, CLOCKS_US):
                report.found(
                    "unsealed",
                    chain.entry_name(entry.number),
                    f"it says that it is of {instant(entry.at_us)}, which is to come, so that nobody knows how long it "
                    "has waited for the seal: a clock was wrong, or somebody wants it to look new",
                )
                break
