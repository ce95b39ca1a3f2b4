"""Makes the views of a connection: by their text the first time in a process, and then as they were made.

DuckDB takes a tenth of a second to read the text and several to bind it, view by view: longer than most questions
take. What it makes of the text depends on nothing in a lake, so a process that opens lakes again and again (doctor,
console, tools for agents) keeps its catalogue and gives every further connection a copy.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

ROW_IMAGES = "changes"
"""The view over what not everybody may read. The text has it twice: where the row images cannot be opened, the first,
which is without them, stays."""
_kept: dict[str, bytes] = {}
"""Views as DuckDB stores them, by the text that made them."""


def make(connection: duckdb.DuckDBPyConnection, text: str, folder: Path) -> None:
    """Make the views of a text; `folder` is for a file that is gone afterwards, and open to this connection.

    Raise `duckdb.IOException` where a file that carries columns cannot be opened, unless it is one of row images.
    """
    file = folder / "views.duckdb"
    kept = _kept.get(text)
    try:
        if kept is not None:
            file.write_bytes(kept)
            _copy(connection, file, "kept", "memory", "(READ_ONLY)")
            if _opens(connection):
                return
        if _by_text(connection, text) and kept is None:
            _copy(connection, file, "memory", "kept")
            _kept[text] = file.read_bytes()
    finally:
        file.unlink(missing_ok=True)


def _by_text(connection: duckdb.DuckDBPyConnection, text: str) -> bool:
    """Run the text; say whether all of it could be made."""
    whole = True
    for statement in duckdb.extract_statements(text):
        try:
            connection.execute(statement)
        except duckdb.IOException:
            if f"VIEW {ROW_IMAGES}" not in statement.query:
                raise
            whole = False
    return whole


def _copy(connection: duckdb.DuckDBPyConnection, file: Path, source: str, target: str, how: str = "") -> None:
    place = str(file).replace("'", "''")
    connection.execute(f"ATTACH '{place}' AS kept {how}")
    connection.execute(f"COPY FROM DATABASE {source} TO {target} (SCHEMA)")
    connection.execute("DETACH kept")


def _opens(connection: duckdb.DuckDBPyConnection) -> bool:
    """Say whether the files that carry columns can be opened, which copied views have not tried."""
    try:
        for view in (ROW_IMAGES, "events", "alerts"):
            connection.execute(f"FROM {view} LIMIT 0")
    except duckdb.Error:
        return False
    return True
