"""Sessions at the gateway, one for each conversation: what an agent has read counts for what it asks next.

A session is opened with the token of the call that needs it first, and closed when it has been idle, or broken. Calls
of one conversation take turns. Nothing is ever sent twice: a connection that is lost in the midst of a statement is
told, and whether it ran is unknown.
"""

from __future__ import annotations

import asyncio
import json
import math
import select
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg import errors, generators, sql
from psycopg.conninfo import make_conninfo
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from pgwitness.core.config.serving import Mcp
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.sql import postgres_parser as parser
from pgwitness.mcp.answers import NOTICES_MAX, Answer, Bounded, Cell, Column

CONNECT_S: Final = 15
PURPOSE_CHARS_MAX: Final = 200
"""As much as the gateway keeps."""
CHUNK: Final = 100
"""Rows that are fetched at a time; libpq before 17 gives one at a time."""
CANCEL_S: Final = 5.0
_BOOL: Final = 16
_INTEGERS: Final = (20, 21, 23, 26)
_FLOATS: Final = (700, 701)
_COPYING: Final = (ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH)
_CHANGING: Final = ("InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "intoClause")


class Failed(Exception):
    """A statement that was not done, as its caller is told; what PostgreSQL or the gateway said, whole."""

    def __init__(self, text: str, sqlstate: str | None = None) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


class Session:
    """One session at the gateway, and who may use it."""

    def __init__(self, config: Mcp, database: str, conversation: str) -> None:
        self._config = config
        self._database = database
        self._conversation = conversation
        self._lock = asyncio.Lock()
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._purpose = ""
        self._notices: list[str] = []
        self.used_s = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether a call uses it at the moment."""
        return self._lock.locked()

    async def run(
        self, token: str, text: str, purpose: str, tool: str, parameters: list[Cell] | None = None, *, dry: bool = False
    ) -> Answer:
        """Run one statement for a purpose; `dry` in a transaction that may only read, and is undone. Raise `Failed`."""
        async with self._lock:
            self.used_s = time.monotonic()
            try:
                async with asyncio.timeout(float(self._config.timeout)):
                    if dry:
                        await (await self._opened(token, purpose)).execute("BEGIN READ ONLY")
                    return await self._run(token, text, purpose, tool, parameters)
            except TimeoutError:
                await self._settle()
                raise Failed(
                    f"It took longer than {float(self._config.timeout):g} seconds and was stopped. Ask for less: add a "
                    "WHERE, or look at it with explain first."
                ) from None
            except psycopg.Error as error:
                raise Failed(await self._told(error), error.sqlstate) from error
            finally:
                self.used_s = time.monotonic()

    async def close(self) -> None:
        """End the session at the gateway."""
        connection, self._connection, self._purpose = self._connection, None, ""
        if connection is not None:
            with suppress(psycopg.Error, OSError):
                await connection.close()

    async def _run(self, token: str, text: str, purpose: str, tool: str, parameters: list[Cell] | None) -> Answer:
        connection = await self._opened(token, purpose)
        self._notices.clear()
        bounded = Bounded(self._config.rows, int(self._config.answer))
        cursor = connection.pgconn
        cursor.send_query_params(
            f"{text}\n{self._comment(tool)}".encode("utf-8", "surrogatepass"), [_given(one) for one in parameters or ()]
        )
        if psycopg.capabilities.has_stream_chunked():
            cursor.set_chunked_rows_mode(CHUNK)
        else:
            cursor.set_single_row_mode()
        await connection.wait(generators.send(cursor))
        columns, command, stopped = await self._read(connection, bounded, stops=_only_reads(text))
        left = await self._settle()
        if left:
            self._notices.append(left)
        return Answer(
            columns=columns,
            rows=bounded.rows,
            command=command,
            cut=bounded.cut(stopped=stopped),
            notices=list(self._notices),
        )

    async def _read(
        self, connection: psycopg.AsyncConnection[Any], bounded: Bounded, *, stops: bool
    ) -> tuple[list[Column], str, bool]:
        """Read an answer to its end, or `stops` it when no more fits. Return columns, command tag, whether it did."""
        columns: list[Column] = []
        command, stopped = "", False
        failure: psycopg.Error | None = None
        while (result := await connection.wait(generators.fetch(connection.pgconn))) is not None:
            if result.status in _COPYING:
                await self.close()
                raise Failed("COPY to or from the client does not work here; use SELECT, or INSERT with parameters.")
            if result.status == ExecStatus.FATAL_ERROR:
                failure = errors.error_from_result(result, "utf-8")
                continue
            command = (result.command_status or b"").decode() or command
            columns = columns or [
                Column(
                    name=(result.fname(at) or b"").decode("utf-8", "replace"),
                    type=_type(connection, result.ftype(at)),
                )
                for at in range(result.nfields)
            ]
            fits = all(bounded.add(_row(result, number)) for number in range(result.ntuples))
            if not fits and stops and not stopped:
                stopped = True
                await connection.cancel_safe(timeout=CANCEL_S)
        if failure is not None and not (stopped and isinstance(failure, psycopg.errors.QueryCanceled)):
            raise failure
        return columns, "" if stopped else command, stopped

    def _comment(self, tool: str) -> str:
        said = {"conversation_id": self._conversation, "tool": tool}
        return "/*" + ",".join(f"{key}='{quote(value, safe='')}'" for key, value in said.items() if value) + "*/"

    async def _opened(self, token: str, purpose: str) -> psycopg.AsyncConnection[Any]:
        """Return the session, with what it is for said; open it where it is not, or is no more."""
        connection = self._connection
        if connection is None or _has_ended(connection):
            connection = await self._connected(token)
        if purpose != self._purpose:
            said = sql.Literal(purpose[:PURPOSE_CHARS_MAX])
            await connection.execute(sql.SQL("SET pgwitness.intent = {}").format(said))
            self._purpose = purpose
        return connection

    async def _connected(self, token: str) -> psycopg.AsyncConnection[Any]:
        await self.close()
        config = self._config
        try:
            dsn = make_conninfo(
                config.gateway, user=config.user, dbname=self._database, password=token,
                application_name="pgwitness mcp", connect_timeout=CONNECT_S,
                client_encoding="utf8",
            )  # fmt: skip
        except psycopg.ProgrammingError as error:
            raise ConfigurationError(f"mcp.gateway: {error}") from error
        connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True, prepare_threshold=None)
        connection.add_notice_handler(self._noticed)
        self._connection = connection
        return connection

    def _noticed(self, notice: psycopg.errors.Diagnostic) -> None:
        if len(self._notices) < NOTICES_MAX:
            self._notices.append(f"{notice.severity}: {notice.message_primary}")

    async def _settle(self) -> str:
        """Leave no transaction open: the next call must not be part of this one. Return what is to be said of it."""
        connection = self._connection
        if connection is None or connection.closed:
            return ""
        status = connection.info.transaction_status
        if status == TransactionStatus.IDLE:
            return ""
        if status == TransactionStatus.ACTIVE:
            with suppress(psycopg.Error):
                await asyncio.wait_for(_drained(connection), CANCEL_S)
            status = connection.info.transaction_status
        if status == TransactionStatus.IDLE:
            return ""
        if status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            with suppress(psycopg.Error):
                await connection.execute("ROLLBACK")
                return "A transaction does not last from one call to the next: it was rolled back."
        await self.close()
        return ""

    async def _told(self, error: psycopg.Error) -> str:
        connection = self._connection
        if connection is None:
            return f"The gateway does not open database {self._database}: {_first_line(error)}"
        if connection.closed or connection.broken:
            await self.close()
            return (
                f"The connection was lost: {_first_line(error)}. Whether the statement was done is unknown: look "
                "before you ask again."
            )
        left = await self._settle()
        diagnosis = error.diag
        said = [f"{diagnosis.severity or 'ERROR'}: {diagnosis.message_primary or _first_line(error)}"]
        said += [f"DETAIL: {diagnosis.message_detail}"] if diagnosis.message_detail else []
        said += [f"HINT: {diagnosis.message_hint}"] if diagnosis.message_hint else []
        said += [f"POSITION: character {diagnosis.statement_position}"] if diagnosis.statement_position else []
        said += [f"SQLSTATE: {error.sqlstate}"] if error.sqlstate else []
        return "\n".join([*said, *self._notices, *([left] if left else [])])


class Sessions:
    """All sessions, by who calls, in which conversation, in which database."""

    def __init__(self, config: Mcp, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._open: dict[tuple[str, str, str], Session] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._open)

    async def of(self, who: str, conversation: str, database: str) -> Session:
        """Return the session of a conversation. Raise `Failed` where there are too many."""
        await self.sweep()
        key = (who, conversation, database)
        found = self._open.get(key)
        if found is None:
            if len(self._open) >= self._config.sessions_max:
                raise Failed(f"{self._config.sessions_max} conversations are open (mcp.sessions_max); try again later")
            found = self._open[key] = Session(self._config, database, conversation)
        found.used_s = self._clock()
        return found

    async def sweep(self) -> None:
        """Close what has been idle for too long."""
        until_s = self._clock() - float(self._config.session_idle)
        for key in [key for key, one in self._open.items() if one.used_s < until_s and not one.busy]:
            await self._open.pop(key).close()

    async def close(self) -> None:
        """Close all."""
        while self._open:
            _, one = self._open.popitem()
            await one.close()


async def _drained(connection: psycopg.AsyncConnection[Any]) -> None:
    """Read what is still on its way, to the last of it: the cancel must not meet the next statement."""
    while await connection.wait(generators.fetch(connection.pgconn)) is not None:
        pass


def _has_ended(connection: psycopg.AsyncConnection[Any]) -> bool:
    """Return whether the other side has closed a session that was idle, before anything is sent on it."""
    if not connection.closed:
        with suppress(psycopg.Error, OSError):
            while select.select([connection.pgconn.socket], [], [], 0)[0] and not connection.closed:
                connection.pgconn.consume_input()
                if connection.pgconn.status == ConnStatus.BAD:
                    return True
            return connection.closed
    return True


def _given(value: Cell) -> bytes | None:
    """Return a parameter as text, of which the server knows the type."""
    if value is None:
        return None
    return (str(value).lower() if isinstance(value, bool) else str(value)).encode("utf-8", "replace")


def _row(result: PGresult, number: int) -> list[Cell]:
    return [_cell(result.get_value(number, at), result.ftype(at)) for at in range(result.nfields)]


def _cell(value: bytes | None, oid: int) -> Cell:
    """Return a value: numbers that JSON has as such, all else as PostgreSQL writes it."""
    if value is None:
        return None
    text = value.decode("utf-8", "replace")
    if oid == _BOOL:
        return text == "t"
    if oid in _INTEGERS:
        return int(text)
    if oid in _FLOATS and math.isfinite(number := float(text)):
        return number
    return text


def _only_reads(text: str) -> bool:
    """Return whether a text is a plain SELECT, which may be stopped when enough of its answer is there."""
    try:
        tree = parser.parse_sql_json(text)
        statements = json.loads(tree).get("stmts", [])
    except (parser.ParseError, ValueError, RecursionError):
        return False
    changing = any(f'"{kind}":' in tree for kind in _CHANGING)
    return len(statements) == 1 and "SelectStmt" in statements[0].get("stmt", {}) and not changing


def _type(connection: psycopg.AsyncConnection[Any], oid: int) -> str:
    known = connection.adapters.types.get(oid)
    return known.regtype if known is not None else f"oid {oid}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
