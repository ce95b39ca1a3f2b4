"""The shell of `pgwitness sql`: prompt_toolkit around queries on the lake.

A query runs in a thread of its own, so that Ctrl-C cancels it and the shell goes on. Works with
`pgwitness.cli.sql_completion` (what can come next) and `pgwitness.cli.sql_files` (answers into files); nothing here can
do more than read.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, TypeVar

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import PostgresLexer

from pgwitness.cli import sql_files
from pgwitness.cli.output import emit, say
from pgwitness.cli.sql import ask
from pgwitness.cli.sql_completion import Known, proposals
from pgwitness.core.errors import NotInOrder

if TYPE_CHECKING:
    import duckdb

    from pgwitness.cli.evidence import Recorder
    from pgwitness.cli.output import Row

T = TypeVar("T")
ROWS_SHOWN = 10_000
NAMES_MAX = 2_000
LOOK_EVERY_S = 0.05
HISTORY = Path("~/.pgwitness_history")
HELP = """\
A query ends with `;` and may have many lines. Tab completes views, columns, macros, and principals between quotes.
\\d          the views and macros       \\d VIEW    the columns of one
\\x          rows one below the other   \\timing    how long each query takes
\\o FILE     answers into FILE (.csv, .parquet, .json); \\o alone ends it
Ctrl-C      cancels the query, or the line; \\q or Ctrl-D ends. .tables, .columns VIEW, .help and .quit are the same.
Macros: touched('schema.table', key), timeline('principal'). What is cut ends in … and the number of letters missing."""

TABLES = """
SELECT table_name AS view, count(*) AS columns
FROM information_schema.columns WHERE table_schema = 'main' GROUP BY table_name ORDER BY table_name
"""
COLUMNS = """
SELECT column_name AS "column", data_type AS type
FROM information_schema.columns WHERE table_schema = 'main' AND table_name = '{view}' ORDER BY ordinal_position
"""
MACROS = """
SELECT function_name AS macro, array_to_string(parameters, ', ') AS parameters FROM duckdb_functions()
WHERE function_type = 'table_macro' AND NOT internal ORDER BY function_name
"""
_NAMES = {
    "principal": "SELECT DISTINCT unnest([principal, on_behalf_of]) AS name FROM events",
    "relation": "SELECT DISTINCT unnest(relations) AS name FROM events",
    "role": "SELECT DISTINCT role AS name FROM events",
    "application": "SELECT DISTINCT application AS name FROM events",
}


class Shell:
    """A session at the lake; `run` reads and answers until it is told to end."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, lake: PurePath, recorder: Recorder, as_json: bool
    ) -> None:
        """Take an opened lake, its folder, and who writes down what is asked."""
        self._connection = connection
        self._lake = lake
        self._recorder = recorder
        self._as_json = as_json
        self._below = False
        self._timing = False
        self._into: Path | None = None
        self._thread = ThreadPoolExecutor(1, "query")
        self._cancelled = threading.Event()

    def run(self) -> None:
        """Read, answer, and begin again."""
        from pgwitness.cli.sql import retired

        session: PromptSession[str] = PromptSession(
            history=history(HISTORY.expanduser()),
            completer=_Completer(self._known()),
            complete_while_typing=False,
            lexer=PygmentsLexer(PostgresLexer),
            multiline=Condition(lambda: not complete(session.default_buffer.text)),
            prompt_continuation="     ...> ",
        )
        say("DuckDB on the evidence lake; \\? shows what there is")
        if (gone := retired(self._connection)) is not None:
            say(gone)
        try:
            while True:
                try:
                    text = session.prompt("evidence> ").strip()
                except EOFError:
                    return
                except KeyboardInterrupt:
                    continue
                try:
                    with self._listening():
                        if not self._line(text):
                            return
                except NotInOrder as error:
                    say(str(error))
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _line(self, text: str) -> bool:
        """Do what was typed; False when it ends the shell."""
        if text.startswith(("\\", ".")):
            return self._command(text)
        if text:
            self._answer(text)
        return True

    def _answer(self, query: str) -> None:
        began = time.monotonic()
        into = self._into
        with self._recorder.asking(query):
            if into is not None:
                written = self._cancellable(lambda: sql_files.write(self._connection, query, into, self._lake))
                say(f"{written} rows into {into}")
            else:
                rows = self._cancellable(lambda: ask(self._connection, query, ROWS_SHOWN + 1))
            took_s = time.monotonic() - began
        if into is None:
            self._show(rows)
        if self._timing:
            say(f"{took_s * 1000:.0f} ms")

    def _show(self, rows: list[Row]) -> None:
        shown = rows[:ROWS_SHOWN]
        emit(shown, as_json=self._as_json, empty="no rows", paged=True, one_below_the_other=self._below)
        if len(rows) > ROWS_SHOWN:
            say(f"only the first {ROWS_SHOWN} rows are shown: \\o FILE writes all of them")

    def _cancellable(self, work: Callable[[], T]) -> T:
        """Do something in the thread of queries; when Ctrl-C was pressed, end it with `NotInOrder`."""
        future = self._thread.submit(work)
        while not wait([future], LOOK_EVERY_S).done:
            if self._cancelled.is_set():  # what begins just now does not hear a single call
                self._connection.interrupt()
        if self._cancelled.is_set() and future.exception() is not None:
            raise NotInOrder("the query was cancelled") from future.exception()
        return future.result()

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Take Ctrl-C, however often it is pressed, for the query: neither the shell nor the record of it ends."""
        self._cancelled.clear()
        before = signal.signal(signal.SIGINT, lambda *_: self._cancelled.set())
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _command(self, text: str) -> bool:
        """Do a command of the shell; False when it ends it."""
        word, _, rest = text.partition(" ")
        rest = rest.strip().rstrip(";")
        if word in ("\\q", ".quit", ".exit"):
            return False
        if word in ("\\?", ".help"):
            say(HELP)
        elif word in ("\\x", "\\timing"):
            self._switch(word)
        elif word == "\\o":
            if rest:
                sql_files.check(Path(rest), self._lake)
            self._into = Path(rest) if rest else None
        elif word in (".columns", "\\d") and rest:
            columns = ask(self._connection, COLUMNS.format(view=rest.replace("'", "''")))
            emit(columns, as_json=self._as_json, empty=f"no view {rest}; \\d lists them")
        elif word in (".tables", "\\d"):
            emit(ask(self._connection, TABLES), as_json=self._as_json)
            if word == "\\d":
                emit(ask(self._connection, MACROS), as_json=self._as_json)
        else:
            say(f"{word}: unknown; \\? shows what there is")
        return True

    def _switch(self, word: str) -> None:
        if word == "\\x":
            self._below = not self._below
        else:
            self._timing = not self._timing
        on = self._below if word == "\\x" else self._timing
        say(f"{'rows one below the other' if word == chr(92) + 'x' else 'timing'}: {'on' if on else 'off'}")

    def _known(self) -> Known:
        """Ask the catalogue what there is, and the last days' evidence for names."""
        views: dict[str, list[str]] = {}
        listed = "SELECT table_name AS v, column_name AS c FROM information_schema.columns WHERE table_schema = 'main'"
        for row in ask(self._connection, f"{listed} ORDER BY table_name, ordinal_position"):
            views.setdefault(str(row["v"]), []).append(str(row["c"]))
        macros = [str(row["macro"]) for row in ask(self._connection, MACROS)]
        return Known(views, macros, _Names(lambda query: ask(self._connection, query), self._thread))


class _Names(dict[str, list[str]]):
    """Names that stand in the evidence, asked for when they are first wanted, and only once."""

    def __init__(self, asked: Callable[[str], list[Row]], thread: ThreadPoolExecutor) -> None:
        super().__init__()
        self._asked = asked
        self._thread = thread

    def get(self, what: str, default: Iterable[str] = ()) -> list[str]:  # type: ignore[override]
        """Return the names of one kind, sorted."""
        if what not in self:
            query = f"SELECT name FROM ({_NAMES[what]}) WHERE name IS NOT NULL ORDER BY name LIMIT {NAMES_MAX}"
            self[what] = [str(row["name"]) for row in self._thread.submit(self._asked, query).result()]
        return self[what]


class _Completer(Completer):
    """The proposals of `pgwitness.cli.sql_completion`, for prompt_toolkit."""

    def __init__(self, known: Known) -> None:
        self._known = known

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """Give what can come next."""
        for proposal in proposals(self._known, document.text_before_cursor):
            yield Completion(proposal.text, -proposal.length, display_meta=proposal.kind)


def complete(text: str) -> bool:
    """Return whether a text is to be run when Enter is pressed: it is a command, empty, or ends with `;`."""
    stripped = text.strip()
    return not stripped or stripped.startswith(("\\", ".")) or stripped.endswith(";")


def history(path: Path) -> History:
    """Open the history, readable by its user alone; one in memory where the home cannot be written to."""
    try:
        path.touch(0o600)
        path.chmod(0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))
