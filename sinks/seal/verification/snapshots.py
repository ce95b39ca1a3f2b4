"""Verifies what readers go by besides the entries: snapshots, `head.json`, `views.sql`, and files without rows.

A snapshot is a function of the entries, so each is made again and compared, byte for byte.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.parquet as pq

from sinks.lake.log import snapshots
from sinks.lake.log.chain import State
from sinks.lake.rows.schema import TABLES
from sinks.lake.views import listing, views
from sinks.seal.history import History
from sinks.seal.verification.copies import Copy
from sinks.seal.verification.findings import Finding, Report

VIEWS = "views.sql"
_BUCKET = re.compile(rb"'(s3://[^'%]+/)")


class Snapshots:
    """The snapshots of a lake as they lay there before its entries were read. Call `after` behind each entry."""

    def __init__(self, found: dict[str, bytes], newest: int, report: Report) -> None:
        """`newest` is the last entry that was there before `found` was read."""
        self._found = found
        self._newest = newest
        self._report = report
        self._seen: set[str] = set()

    def after(self, history: History) -> None:
        """Compare the snapshots of the entry that was just taken."""
        state = history.state
        if state.number == snapshots.base_of(state.number):
            self._compare(snapshots.base_name(state.number), snapshots.encode_base, state)
        self._compare(snapshots.tail_name(state.number), snapshots.encode_tail, state)

    def _compare(self, name: str, encode: object, state: State) -> None:
        content = self._found.get(name)
        if content is None:
            return
        self._seen.add(name)
        assert callable(encode)
        if content != encode(state):
            self._report.found("forged", name, f"it is not what the entries up to {state.number} amount to")

    def finish(self, store: Copy) -> None:
        """Name snapshots of no entry, and a hint that does not point to the newest snapshot."""
        for name in sorted(self._found):
            if name not in self._seen and name != snapshots.HEAD:
                self._report.found("added", name, "it is the snapshot of no entry")
        problem = self._problem(self._found.get(snapshots.HEAD), store)
        if problem is not None:  # writers may have been between two steps
            problem = self._problem(store.read(snapshots.HEAD), store)
        if problem is not None:
            self._report.findings.append(problem)

    def _problem(self, head: bytes | None, store: Copy) -> Finding | None:
        """Say what is wrong with the hint."""
        at = snapshots.decode_head(head) if head is not None else None
        if head is None:
            return Finding("missing", snapshots.HEAD, "views.sql needs it; a worker makes it again")
        if at is None or head != snapshots.encode_head(at):
            return Finding("forged", snapshots.HEAD, "it does not point to a snapshot")
        newest = max((int(name[-17:-5]) for name in self._seen if "tail-" in name), default=-1)
        if at < newest or at < self._newest - 1:
            return Finding("rolled_back", snapshots.HEAD, f"it points to entry {at}, the last one is {self._newest}")
        for name in (snapshots.tail_name(at), snapshots.base_name(at)):
            if name not in self._seen and store.read(name) is None:
                return Finding("missing", name, "head.json points to it")
        if at < self._newest:
            self._report.said(f"head.json is an entry behind, as after a crash: views.sql shows the lake up to {at}")
        return None


def snapshot_names(names: list[str]) -> list[str]:
    """Choose the files of a lake that sum it up."""
    return [name for name in names if name.startswith(f"{snapshots.FOLDER}/") or name == snapshots.HEAD]


def check_views(lake: Copy, root: str, report: Report) -> None:
    """Look at what a lake has beside its entries and files: the views, and a file without rows for each table.

    `root` is the bucket that a copy is of; the views of one name it.
    """
    written = lake.read(VIEWS) if not lake.is_link(VIEWS) else b""
    if written is None:
        report.found("missing", VIEWS, "a worker makes it again")
    elif not root and (bucket := _BUCKET.search(written)) is not None:
        report.found("altered", VIEWS, f"it reads {bucket[1].decode()}: if this is a copy of that, say so (--copy-of)")
    elif written != views.views_sql(root).encode():
        report.found(
            "altered", VIEWS, "it is not what this version of pgwitness writes: altered, or of another version"
        )
    for table, schema in TABLES.items():
        name = listing.empty_file(table)
        try:
            with lake.open(name) as opened, pq.ParquetFile(opened) as file:
                groups = range(file.metadata.num_row_groups)  # each says its rows, and whoever reads may go by that
                rows = file.metadata.num_rows + sum(file.metadata.row_group(group).num_rows for group in groups)
                right = rows == 0 and file.schema_arrow.equals(schema)
        except (OSError, pa.ArrowException):
            right = False
        if not right:
            report.found("altered", name, "it is not the file without rows that carries the columns of its table")


def known_beside() -> set[str]:
    """Name the files that a lake has besides those that entries name."""
    return {VIEWS, snapshots.HEAD, *(listing.empty_file(table) for table in TABLES)}
