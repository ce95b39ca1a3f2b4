"""Rows that are too wide for the terminal: one below the other, a line a column. Pure.

Columns that are null are named below each row, and what does not fit on its line is cut, with a mark that says how much
is missing: `--json` has everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

READABLE = 12
"""Columns of a terminal that a table's column needs at least to be read, unless its content is shorter."""
BETWEEN = 3
VALUE_MIN = 20


def too_wide(rows: Sequence[Sequence[str]], columns: Sequence[str], width: int) -> bool:
    """Whether a table of these cells could not be read at this width."""
    needed = 0
    for place, column in enumerate(columns):
        longest = max((len(row[place]) for row in rows), default=0)
        needed += min(READABLE, max(longest, len(column))) + BETWEEN
    return needed > width


def expanded(
    rows: Sequence[Mapping[str, object]], columns: Sequence[str], text: Callable[[object], str], width: int
) -> str:
    """Write rows one below the other."""
    longest = max(map(len, columns))
    lines: list[str] = []
    for number, row in enumerate(rows, 1):
        head = f"── {number} "
        lines.append(head + "─" * max(0, width - len(head)))
        room = max(VALUE_MIN, width - longest - 2)
        lines += [
            f"{column:<{longest}}  {cut(text(row.get(column)).replace(chr(10), ' '), room)}"
            for column in columns
            if row.get(column) is not None
        ]
        if missing := [column for column in columns if row.get(column) is None]:
            lines.append(cut(f"null: {', '.join(missing)}", width))
    return "\n".join(lines)


def cut(value: str, room: int) -> str:
    """Cut a text to so many characters; the mark says how many more there are."""
    if len(value) <= room:
        return value
    mark = f"… (+{len(value) - room})"
    kept = max(1, room - len(mark))
    return value[:kept] + f"… (+{len(value) - kept})"
