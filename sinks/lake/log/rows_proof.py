"""Whether files hold the rows of others, by what their entries say of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sinks.lake.rows import digest

if TYPE_CHECKING:
    from sinks.lake.log.chain import File


def problem(old: Iterable[File], new: Iterable[File]) -> str | None:
    """Say why files cannot replace others, None when they can."""
    return None if same_rows(old, new) else "the rows of its files are not those of the files that they replace"


def same_rows(old: Iterable[File], new: Iterable[File]) -> bool:
    """Say whether files have the rows of others, by tables, numbers, and digests where all of a table's have one."""
    before, after = list(old), list(new)
    return all(
        _same([file for file in before if file.table == table], [file for file in after if file.table == table])
        for table in {file.table for file in (*before, *after)}
    )


def _same(before: list[File], after: list[File]) -> bool:
    if sum(file.rows for file in before) != sum(file.rows for file in after):
        return False
    try:
        known = [[digest.parse(file.digest) for file in files if file.digest] for files in (before, after)]
    except ValueError:
        return False
    if len(known[0]) < len(before) or len(known[1]) < len(after):
        return True
    return digest.total(known[0]) == digest.total(known[1])
