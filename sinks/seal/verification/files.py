"""Verifies the files of a lake: those that count are there and unaltered, and nothing else is in the folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from sinks.lake import manifest
from sinks.lake.log.chain import File
from sinks.lake.storage.files import PRIVATE
from sinks.seal import measuring
from sinks.seal.history import History
from sinks.seal.verification.copies import Copy
from sinks.seal.verification.findings import Report

THREADS = min(8, (os.cpu_count() or 1) + 2)
"""Hashing lets other threads run."""
NAMED_MAX = 200
_ASIDE = re.compile(rf"(?:{PRIVATE}|{manifest.STAGING})/.*|[a-z]+/_manifest/[^/]+\.json", re.DOTALL)
"""What nobody reads: what is being written, and the manifests of a lake of 0.1."""


def strangers(place: Copy, names: Iterable[str], report: Report) -> bool:
    """Name what is no file: links, which may lead elsewhere at any time, and pipes and devices.

    Gives whether there is one of the latter, at which reading would wait for ever.
    """
    waits = False
    for name in names:
        if place.is_link(name):
            report.found("altered", name, "it is a link: what it leads to may change at any time")
        elif place.waits(name):
            report.found("altered", name, "it is no file but a pipe or device: remove it, and verify again")
            waits = True
    return waits


def aside(name: str) -> bool:
    """Say whether a file lies where nobody reads."""
    return _ASIDE.fullmatch(name) is not None


def check_live(lake: Copy, files: Iterable[File], report: Report) -> list[File]:
    """Hash files that count. Gives those that are missing; altered ones are findings."""
    missing: list[File] = []
    files = list(files)
    with ThreadPoolExecutor(THREADS) as threads:
        for file, why in zip(files, threads.map(lambda one: _differs(lake, one), files), strict=True):
            report.files += 1
            report.bytes += file.bytes
            if why == "is missing":
                missing.append(file)
            elif why is not None:
                report.found("altered", file.path, why)
    return missing


def _differs(lake: Copy, file: File) -> str | None:
    try:
        behind = any(lake.is_link(str(folder)) for folder in PurePosixPath(file.path).parents)
        return "lies behind a link" if behind else measuring.differs(lake, file)
    except OSError as error:
        return f"could not be read: {error.strerror or error}"


def name_others(lake: Copy, missing: list[File], strange: list[str], history: History, report: Report) -> None:
    """Name files that are missing and files that nobody knows; one that has another name is both, and said so."""
    sizes = {file.bytes for file in (*history.state.live.values(), *(file for file, _ in history.gone.values()))}
    hashes = {path: _hash(lake, path, sizes) for path in strange[:NAMED_MAX]}
    by_hash = {found: path for path, found in hashes.items() if found}
    live = {file.sha256: file.path for file in history.state.live.values()}
    gone = {file.sha256: (path, number) for path, (file, number) in history.gone.items()}
    absent = {file.path for file in missing}
    for file in missing:
        there = by_hash.get(file.sha256)
        text = f"its content is at {there}" if there else f"{file.rows} rows that landed are not there"
        report.found("moved" if there else "missing", file.path, text)
    for path in strange[:NAMED_MAX]:
        found = hashes[path]
        if found in live and live[found] in absent:
            report.found("moved", path, f"this is {live[found]} under another name")
        elif found in live:
            report.found("added", path, f"a copy of {live[found]}, which nobody reads")
        elif found in gone:
            report.found("rolled_back", path, f"this is {gone[found][0]}, which entry {gone[found][1]} removed")
        else:
            report.found("added", path, "no entry names it, and nobody reads it: planted, or left by a crash")
    if len(strange) > NAMED_MAX:
        report.found("added", str(lake.path), f"{len(strange) - NAMED_MAX} more files that no entry names")


def _hash(lake: Copy, name: str, sizes: set[int]) -> str | None:
    """Hash a file, if it is as long as one of those that are known."""
    try:
        found = measuring.measure_in(lake, name) if measuring.size_in(lake, name) in sizes else None
    except OSError:
        return None
    return found.sha256 if found else None
