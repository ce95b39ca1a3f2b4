"""An answer as CSV, in which no text becomes a formula of whoever opens it with a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from sinks.console.rendering import text

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What spreadsheets take a cell for a formula by (OWASP, CSV injection)."""


def written(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    """Write columns and rows, with a byte order mark, without which spreadsheets take UTF-8 for something else."""
    file = io.StringIO()
    # In quotes, a text stays one cell also where semicolons or tabs separate cells.
    writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow([harmless(column) for column in columns])
    writer.writerows([[harmless(cell) for cell in row] for row in rows])
    return b"\xef\xbb\xbf" + file.getvalue().encode("utf-8", "backslashreplace")


def harmless(cell: object) -> object:
    """Put an apostrophe before a text that a spreadsheet would calculate; numbers stay numbers."""
    if cell is None or isinstance(cell, int | float):
        return cell
    shown = text(cell)
    return "'" + shown if shown.startswith(FORMULA) else shown
