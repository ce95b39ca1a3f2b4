"""What a statement would do, found out before anybody approves it: on a connection of the gateway's own, as its role.

In a transaction that is read-only and always rolled back, with short limits on time and locks, and never by running the
statement: EXPLAIN (without ANALYZE) says how many rows the planner expects; where the policies allow it, a query counts
the rows that an UPDATE or DELETE chooses, or a read gives, up to a bound, and shows some as they are before. Nothing is
run that calls a function which may have effects, or whose code is not PostgreSQL's own. What cannot be found out is
told with its reason: a request is never held up by it for longer than `ESTIMATE_S`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import structlog

from collectors.beacon.encodings import codec_of
from collectors.gateway.approving.asking import READ_BY
from collectors.gateway.approving.choosing import TEXT_CHARS_MAX, chosen
from collectors.gateway.approving.constants import Constants, constants_of
from collectors.gateway.approving.showing import COLUMNS_MAX, Bound, Showing, Table
from collectors.gateway.approving.talking import Failed, Talk
from collectors.gateway.link import Ended, Link
from collectors.gateway.session.actions import Asked
from collectors.gateway.wire.violation import ProtocolViolation
from collectors.wal.decoding.values import BUILT_IN
from pgwitness.approvals.records import Estimate, Value
from pgwitness.core.config import Privacy
from pgwitness.core.events import qualified
from pgwitness.core.privacy import Tokenizer

ESTIMATE_S: Final = 5.0
STATEMENT_MS: Final = 1_500
LOCK_MS: Final = 200
AT_ONCE: Final = 2
"""Connections that one process of the gateway has open for this."""
COUNT_MAX: Final = 10_000
TABLES_MAX: Final = 20
APPLICATION: Final = "pgwitness approvals"
_SET: Final = tuple(name for name in READ_BY if name != "search_path")
"""Settings of the session that hold for all that is asked; its search path only for what stands in the statement."""
_KINDS: Final = frozenset({"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"})
_BEGIN: Final = (
    "ROLLBACK; BEGIN READ ONLY;"
    f" SET LOCAL statement_timeout = {STATEMENT_MS}; SET LOCAL lock_timeout = {LOCK_MS};"
    " SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL jit = off;"
)
_FOREIGN: Final = "it reads tables of another server"
_SAYS: Final = {
    "57014": f"it would take longer than {STATEMENT_MS / 1000:g} s",
    "55P03": "somebody holds a lock on its table",
    "42501": "the role may not do that",
    "25006": "it has effects when it is looked at",
    "53300": "the server has no connection free",
}
_TABLES: Final = b"""
SELECT c.oid::text, n.nspname, c.relname, a.attname,
    CASE WHEN b.typnamespace = 'pg_catalog'::regnamespace THEN b.typname ELSE 'other' END
FROM unnest(string_to_array($1, ',')) AS wanted(number)
JOIN pg_class AS c ON c.oid = wanted.number::oid JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type AS t ON t.oid = a.atttypid
JOIN pg_type AS b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
ORDER BY c.oid, a.attnum LIMIT 2000"""
_EFFECTS: Final = b"""
WITH RECURSIVE used(number) AS (
    SELECT wanted.number::oid FROM unnest(string_to_array($1, ',')) AS wanted(number)
    UNION
    SELECT behind.number FROM used CROSS JOIN LATERAL (
        SELECT d.refobjid AS number FROM pg_rewrite AS r JOIN pg_depend AS d
            ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
        WHERE r.ev_class = used.number
        UNION ALL SELECT i.inhrelid FROM pg_inherits AS i WHERE i.inhparent = used.number
    ) AS behind
), named AS (
    SELECT p.provolatile = 'v' AS volatile, p.pronamespace <> 'pg_catalog'::regnamespace AS own FROM pg_proc AS p
    WHERE p.proname = ANY (string_to_array($2, chr(1)))
), within AS (
    SELECT FROM used JOIN pg_rewrite AS r ON r.ev_class = used.number JOIN pg_depend AS d
        ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_proc'::regclass
    UNION ALL
    SELECT FROM used JOIN pg_policy AS l ON l.polrelid = used.number JOIN pg_depend AS d
        ON d.classid = 'pg_policy'::regclass AND d.objid = l.oid AND d.refclassid = 'pg_proc'::regclass
    UNION ALL
    SELECT FROM pg_operator AS o
    WHERE o.oprname = ANY (string_to_array($3, chr(1))) AND o.oprnamespace <> 'pg_catalog'::regnamespace
)
SELECT EXISTS (SELECT FROM named WHERE volatile), EXISTS (SELECT FROM named WHERE own) OR EXISTS (SELECT FROM within),
    EXISTS (SELECT FROM used JOIN pg_class AS c ON c.oid = used.number WHERE c.relkind = 'f')"""

log = structlog.get_logger("gateway")


class Server(Protocol):
    """A login that is done."""

    link: Link


class NoLogin(Exception):
    """The gateway could not log in as the role."""


Login = Callable[[], Awaitable[Server]]
"""Logs in once more as a session's role, where the session is. Raises `NoLogin`."""


class Wanted(NamedTuple):
    """What is asked for, cut into its parts."""

    text: bytes
    types: tuple[int, ...]
    values: bytes
    """Formats, number and values of the parameters, as Bind has them."""
    bound: tuple[Bound, ...]


class Estimator:
    """Finds out for all sessions of one process."""

    def __init__(self, privacy: Privacy, token: Tokenizer) -> None:
        self._showing = Showing(privacy, token)
        self._rows_shown = privacy.row_values != "none"
        self._places = asyncio.Semaphore(AT_ONCE)

    async def estimate(self, asked: Asked, settings: Mapping[str, str], login: Login) -> Estimate:
        """Find out what can be; never raises but for being cancelled."""
        found = _Found()
        try:
            async with asyncio.timeout(ESTIMATE_S), self._places:
                await self._find(found, asked, settings, login)
        except TimeoutError:
            found.why.append(f"it was not found out in {ESTIMATE_S:g} s")
        except NoLogin as error:
            found.why.append(f"the gateway could not log in for it: {_says(str(error))}")
        except (Ended, OSError, ProtocolViolation):
            found.why.append("the server's answer is too long, or its connection was lost")
        except Failed as error:
            found.why.append(_says(error.sqlstate))
        except (ValueError, RecursionError) as error:
            found.why.append(
                f"it cannot be read for it: {error}" if not isinstance(error, UnicodeError) else "its text"
            )
        except Exception:
            log.exception("unexpected error; an approval is asked for without an estimate")
            found.why.append("the gateway met an error; its log has it whole")
        return found.made()

    async def _find(self, found: _Found, asked: Asked, settings: Mapping[str, str], login: Login) -> None:
        codec = codec_of(settings.get("client_encoding", "UTF8"))
        wanted = wanted_of(asked)
        if len(wanted.text) > TEXT_CHARS_MAX:
            raise ValueError(f"it is longer than {TEXT_CHARS_MAX >> 10} KiB")
        text = wanted.text.decode(codec)
        constants = await asyncio.to_thread(constants_of, text)
        # Of what nobody knows the table nothing is shown but types and lengths.
        found.values = self._showing.values(constants, wanted.bound, {}, asked.decision.said.statement)
        if len(constants.kinds) != 1 or constants.kinds[0] not in _KINDS:
            raise ValueError("only a single query or write is estimated")
        loose = [name for name in constants.tables if "." not in name]
        if loose and "search_path" not in settings:
            raise ValueError(
                "its tables are written without their schema, and which those are only its session knows (servers "
                "before PostgreSQL 18 do not report their search_path)"
            )
        if loose:
            found.caveat = (
                "names without a schema were looked up by the session's search_path; a temporary table of that session "
                "would come before them"
            )
        server = await login()
        try:
            await _Looking(Talk(server.link), found, self._showing, codec, settings).look(
                asked, wanted, text, constants, rows_shown=self._rows_shown
            )
        finally:
            server.link.abort()  # a transaction that was only read by


class _Found:
    """What was found out so far."""

    def __init__(self) -> None:
        self.planned: int | None = None
        self.counted: int | None = None
        self.more = False
        self.values: list[Value] = []
        self.columns: list[str] = []
        self.sample: list[list[str | None]] = []
        self.why: list[str] = []
        self.caveat = ""

    def made(self) -> Estimate:
        return Estimate(
            planned=self.planned,
            counted=self.counted,
            more=self.more,
            values=self.values,
            columns=self.columns,
            sample=self.sample,
            why_not="; ".join(dict.fromkeys(self.why)),
            caveat=self.caveat,
        )


class _Looking:
    """One statement, on one connection."""

    def __init__(self, talk: Talk, found: _Found, showing: Showing, codec: str, settings: Mapping[str, str]) -> None:
        self._talk, self._found, self._showing, self._codec = talk, found, showing, codec
        self._path = settings.get("search_path")
        self._settings = {name: settings[name] for name in _SET if name in settings}

    async def look(self, asked: Asked, wanted: Wanted, text: str, constants: Constants, *, rows_shown: bool) -> None:
        """Find out one thing after the other; what fails leaves what was found before."""
        verdict, reading = asked.decision.verdict, asked.decision.reading
        assert verdict is not None
        terms = verdict.terms
        for name, value in self._settings.items():
            await self._talk.ask(b"SELECT pg_catalog.set_config($1, $2, false)", name.encode(), value.encode())
        await self._begin()
        numbers = await self._numbers(constants.tables[:TABLES_MAX])
        tables = await self._tables(numbers)
        names = [name.rpartition(".")[2].strip('"') for name in (reading.known.functions if reading else ())]
        volatile, own, foreign = await self._effects(numbers, names, constants.operators)
        await self._begin()
        types = await self._talk.types(wanted.text, wanted.types)
        if own:
            self._found.why.append("it calls functions or operators that are not PostgreSQL's own")
            return
        forward = asked.decision.forward or wanted.text
        self._found.planned = await self._planned(forward, types, wanted.values)
        statement = asked.decision.said.statement
        bound = [one._replace(oid=oid) for one, oid in zip(wanted.bound, types, strict=False)]
        self._found.values = self._showing.values(constants, bound, tables, statement)
        if terms is None or not (terms.count or terms.sample):
            return
        if volatile or foreign:
            self._found.why.append("it calls functions that may have effects" if volatile else _FOREIGN)
            return
        if constants.kinds[0] == "SelectStmt":
            await self._count_read(forward, types, wanted.values)
            return
        rows = chosen(text if asked.decision.forward is None else forward.decode(self._codec))
        if terms.count:
            await self._count(rows.counting, types, wanted.values)
        if terms.sample and rows_shown and (table := tables.get(rows.table)) is not None:
            await self._begin()
            query = f"{rows.showing} LIMIT {terms.sample}".encode(self._codec)
            answer = await self._talk.run(query, types, wanted.values)
            columns = [(self._text(one.name), BUILT_IN.get(one.type_oid, "other")) for one in answer.fields]
            columns = [(name, table.types.get(name, kind)) for name, kind in columns]
            self._found.columns = [name for name, _ in columns[:COLUMNS_MAX]]
            self._found.sample = [self._showing.cells(table, columns, row) for row in answer.rows]

    async def _begin(self) -> None:
        await self._talk.do(_BEGIN)
        if self._path is not None:
            path = self._path.encode(self._codec)
            await self._talk.ask(b"SELECT pg_catalog.set_config('search_path', $1, true)", path)

    async def _numbers(self, names: Sequence[str]) -> dict[str, bytes]:
        """Look names up as the statement will."""
        numbers: dict[str, bytes] = {}
        for name in names:
            query = b"SELECT pg_catalog.to_regclass($1)::pg_catalog.oid"
            answer = await self._talk.ask(query, name.encode(self._codec))
            if answer.rows and (number := answer.rows[0][0]) is not None:
                numbers[name] = number
        # From here on nothing of the session's own comes before what is asked for.
        await self._talk.do("SET LOCAL search_path = pg_catalog")
        return numbers

    async def _tables(self, numbers: Mapping[str, bytes]) -> dict[str, Table]:
        answer = await self._talk.ask(_TABLES, b",".join(numbers.values()))
        found: dict[bytes, tuple[str, dict[str, str]]] = {}
        for number, schema, name, column, kind in _whole(answer.rows):
            full = qualified(self._text(schema), self._text(name))
            found.setdefault(number, (full, {}))[1][self._text(column)] = kind.decode()
        return {name: Table(*found[number]) for name, number in numbers.items() if number in found}

    async def _effects(
        self, numbers: Mapping[str, bytes], functions: Sequence[str], operators: Sequence[str]
    ) -> tuple[bool, bool, bool]:
        words = ("\1".join(names).encode(self._codec) for names in (functions, operators))
        answer = await self._talk.ask(_EFFECTS, b",".join(numbers.values()), *words)
        volatile, own, foreign = (value == b"t" for value in answer.rows[0])
        return volatile, own, foreign

    async def _planned(self, text: bytes, types: Sequence[int], values: bytes) -> int | None:
        answer = await self._talk.run(b"EXPLAIN (FORMAT JSON, COSTS) " + text, types, values)
        plan = json.loads(answer.rows[0][0] or b"null") if answer.rows else None
        return planned_rows(plan[0]["Plan"]) if plan else None

    async def _count(self, counting: str, types: Sequence[int], values: bytes) -> None:
        query = f"{counting} LIMIT {COUNT_MAX + 1}) AS chosen".encode(self._codec)
        await self._begin()
        answer = await self._talk.run(query, types, values)
        self._counted(int(answer.rows[0][0] or 0))

    async def _count_read(self, text: bytes, types: Sequence[int], values: bytes) -> None:
        await self._begin()
        await self._talk.run(b'DECLARE "pgwitness rows" NO SCROLL CURSOR FOR ' + text, types, values)
        answer = await self._talk.ask(b'MOVE FORWARD %d IN "pgwitness rows"' % (COUNT_MAX + 1))
        self._counted(int(answer.tags[-1].rpartition(b" ")[2] or 0))

    def _counted(self, rows: int) -> None:
        self._found.counted, self._found.more = min(rows, COUNT_MAX), rows > COUNT_MAX

    def _text(self, value: bytes) -> str:
        return value.decode(self._codec, "backslashreplace")


def wanted_of(asked: Asked) -> Wanted:
    """Cut what is asked for into its parts. Raise `ValueError` where it is not whole."""
    text, zero, rest = asked.exact.partition(b"\0")
    if not zero:
        raise ValueError("its bytes are not whole")
    if not rest:
        return Wanted(text, (), b"\0\0\0\0", ())
    count = int.from_bytes(rest[:2], "big")
    types = tuple(int.from_bytes(rest[2 + 4 * n : 6 + 4 * n], "big") for n in range(count))
    values = rest[2 + 4 * count :]
    formats_n = int.from_bytes(values[:2], "big")
    formats = [int.from_bytes(values[2 + 2 * n : 4 + 2 * n], "big") for n in range(formats_n)]
    at = 2 + 2 * formats_n
    number = int.from_bytes(values[at : at + 2], "big")
    at += 2
    bound = []
    for place in range(number):
        length = int.from_bytes(values[at : at + 4], "big", signed=True)
        at += 4
        form = formats[place] if len(formats) > 1 else formats[0] if formats else 0
        oid = types[place] if place < len(types) else 0
        bound.append(Bound(oid, None if length < 0 else values[at : at + length], form == 0))
        at += max(0, length)
    if at > len(values):
        raise ValueError("its parameters are not whole")
    return Wanted(text, types, values[:at], tuple(bound))


def planned_rows(plan: Mapping[str, Any]) -> int:
    """Return how many rows a plan expects to be written, or, where none is, to be read."""
    writes = [node for node in _nodes(plan) if node.get("Node Type") == "ModifyTable"]
    if not writes:
        return int(plan.get("Plan Rows", 0))
    return sum(int(child.get("Plan Rows", 0)) for node in writes for child in node.get("Plans", ())[:1])


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    stack = [plan]
    while stack:
        node = stack.pop()
        yield node
        stack += node.get("Plans", ())


def _whole(rows: Sequence[Sequence[bytes | None]]) -> Iterator[list[bytes]]:
    for row in rows:
        yield [value or b"" for value in row]


def _says(sqlstate: str) -> str:
    return _SAYS.get(sqlstate, f"the server says {sqlstate}")
