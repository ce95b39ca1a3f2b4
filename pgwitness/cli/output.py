"""What commands print: tables for people, JSON for programs, progress on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from pgwitness.cli import signals
from pgwitness.core.printable import visible, visible_json

if TYPE_CHECKING:
    from rich.console import Console

Row = Mapping[str, object]
PLAIN_WIDTH = 200
CELL_MAX = 400
"""Characters of a cell that an answer shows in a table; `--json` has all."""


def console(*, stderr: bool = False) -> Console:
    """Make the console for stdout or stderr; where that is no terminal, lines are wide and plain."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return Console(file=stream, width=width, highlight=False)


def emit(
    rows: Sequence[Row],
    *,
    as_json: bool,
    columns: Sequence[str] = (),
    title: str = "",
    empty: str = "",
    paged: bool = False,
    one_below_the_other: bool = False,
) -> None:
    """Print rows as a table, or with `as_json` as a list of objects.

    `columns` chooses and orders what the table shows; JSON always has everything. `empty` is said to people when
    there is nothing to show. With `paged`, what is longer than the terminal goes through the pager, and rows too wide
    for it stand one below the other; with `one_below_the_other` all do.
    """
    if as_json:
        click.echo(json_list(rows))
        return
    if not rows:
        if empty:
            say(empty)
        return
    shown = columns or list(rows[0])
    if paged:
        _paged(rows, shown, one_below_the_other)
    else:
        console().print(table(rows, shown, title))


def _paged(rows: Sequence[Row], columns: Sequence[str], below: bool) -> None:
    """Print an answer of any width and length so that it can be read."""
    from rich.text import Text

    from pgwitness.cli import wide

    out = console()
    short = [{column: _short(row.get(column)) for column in columns} for row in rows]
    if below or wide.too_wide([[text(cell) for cell in row.values()] for row in short], columns, out.width):
        made: object = Text(wide.expanded(rows, columns, text, out.width), no_wrap=True, overflow="ignore")
    else:
        made = table(short, columns)
    if out.is_terminal and sys.stdin.isatty():
        os.environ.setdefault("LESS", "-FRX")  # as long as it fits, nothing is paged
        with out.pager(styles=True):
            out.print(made)
    else:
        out.print(made)


def _short(value: object) -> object:
    """Cut what would fill the screen by itself."""
    from pgwitness.cli import wide

    return wide.cut(text(value), CELL_MAX) if isinstance(value, str | list | dict) else value


def json_list(rows: Sequence[Row]) -> str:
    """Write rows as one JSON list, a line each, so that both people and programs can read it."""
    return "[\n" + ",\n".join(to_json(row) for row in rows) + "\n]" if rows else "[]"


def to_json(value: object) -> str:
    """Write any value that a query may give as JSON; what JSON does not know becomes text."""
    import msgspec

    return visible_json(msgspec.json.encode(value, enc_hook=str).decode())


def table(rows: Sequence[Row], columns: Sequence[str], title: str = "") -> object:
    """Make a table of rows: numbers to the right, lists with commas, times without noise."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    head = Text(visible(title)) if title else None
    made = Table(box=box.SIMPLE_HEAD, title=head, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        numeric = all(isinstance(row.get(column), int | float | None) for row in rows)
        numeric = numeric and not any(isinstance(row.get(column), bool) for row in rows)
        made.add_column(
            Text(visible(column.replace("_", " "))), justify="right" if numeric else "left", overflow="fold"
        )
    for row in rows:
        made.add_row(*(Text(text(row.get(column)), style=_style(row.get(column))) for column in columns))
    return made


def text(value: object) -> str:
    """Write one cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(text(item) for item in value)
    if isinstance(value, dict):
        return to_json(value)

    return visible(str(value))


_STYLES = {"ok": "green", "exact": "green", "strong": "cyan", "weak": "yellow", "none": "red", "missing": "red"}
_STYLES |= {"wrong": "red", "no": "red", "yes": "green", "critical": "bold red", "high": "red", "medium": "yellow"}


def _style(value: object) -> str:
    if isinstance(value, bool):
        value = text(value)
    return _STYLES.get(value.lower(), "") if isinstance(value, str) else ""


def say(message: str, *, level: str = "info", **more: object) -> None:
    """Tell a person something, on stderr; a daemon that writes its log there writes a line of it, `more` included."""
    if signals.watching() and not sys.stderr.isatty():
        import structlog

        from pgwitness.core.runtime import logs

        if not structlog.is_configured():
            logs.own()
        getattr(structlog.get_logger(), level)(message.removeprefix("pgwitness: "), **more)
    else:
        click.echo(visible(message), err=True)
