"""What one line of 64 KiB of the server's log costs: milliseconds of processor time, by shape and format.

A client decides what stands in a line, and may write one with each statement: a shape that is slow to read would hold
the collector for all others. Each line is read as it comes from the server, in each format, and its events are encoded.
Every try has a text of its own, so that nothing is known from before, and of several tries the least counts: on cores
that others use, too, most are disturbed. Limit: 10 ms a line.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from collectors.log.formats.record import Unreadable
from collectors.log.interpretation.interpret import Interpreter
from collectors.log.reading import formats
from pgwitness.core.config import Log
from pgwitness.core.events import encode_event
from pgwitness.core.privacy import tokenizer
from tests.bench.log_lines import PREFIX

SIZE = 64 * 1024
LIMIT_MS = 10.0
TRIES = 7
AT = "2026-11-22 21:00:00.000 UTC"
FORMATS = ("jsonlog", "csvlog", "stderr")


class Line(NamedTuple):
    """What the server writes of one message."""

    message: str
    severity: str = "LOG"
    code: str = "00000"
    detail: str = ""
    context: str = ""
    statement: str = ""
    application: str = "web"


def fill(head: str, part: str | Callable[[int], str], tail: str = "") -> str:
    """Repeat a part between head and tail until the text has 64 KiB."""
    made, size, number = [head], len(head) + len(tail), 0
    while size < SIZE:
        made.append(part if isinstance(part, str) else part(number))
        size += len(made[-1])
        number += 1
    return "".join(made) + tail


def statements(mark: str) -> Iterator[tuple[str, str]]:
    """Give texts that a client can send, by what fills them; `mark` makes each text another one."""
    yield "numbers in a list", fill(f"SELECT {mark} FROM t WHERE id IN (1", lambda n: f", {n}", ")")
    yield "strings in a list", fill(f"SELECT {mark} FROM t WHERE id IN ('a'", lambda n: f", 'v{n}'", ")")
    yield "names in a list", fill(f"SELECT {mark} FROM t WHERE id IN (a", lambda n: f", c{n}", ")")
    yield "rows of values", fill(f"INSERT INTO {mark} VALUES (0, 'x')", lambda n: f", ({n}, 'x{n}')")
    yield "parameters in rows", fill(f"INSERT INTO {mark} VALUES ($1)", lambda n: f", (${2 * n}, ${2 * n + 1})")
    yield "one literal", fill(f"SELECT {mark}, '", "x", "'")
    yield "one literal of quotes", fill(f"SELECT {mark}, '", "''", "'")
    yield "escapes", fill(f"SELECT {mark}, E'", "\\'", "'")
    yield "a comment", fill(f"SELECT {mark} /* ", "x", " */")
    yield "comments in comments", fill(f"SELECT {mark} ", "/*", "*/")
    yield "many comments", fill(f"SELECT {mark}", " /*a*/")
    yield "tags", fill(f"SELECT {mark} /*", lambda n: f"k{n}='v',", "z='1'*/")
    yield "brackets", fill(f"SELECT {mark}, ", "(")
    yield "brackets that close", f"SELECT {mark}, " + "(" * (SIZE // 2) + "1" + ")" * (SIZE // 2)
    yield "calls of calls", f"SELECT {mark}, " + "f(" * (SIZE // 3) + ")" * (SIZE // 3)
    yield "conditions", fill(f"SELECT {mark} FROM t WHERE a = 1", lambda n: f" AND c{n} = {n}")
    yield "alternatives", fill(f"SELECT {mark} FROM t WHERE a = 1", " OR a = 1")
    yield "sums", fill(f"SELECT {mark}, 1", "+1")
    yield "casts", fill(f"SELECT {mark}, 1", "::int")
    yield "columns", fill(f"SELECT {mark}", lambda n: f", c{n}", " FROM t")
    yield "stars", fill(f"SELECT {mark}", ", t.*", " FROM t")
    yield "relations", fill(f"SELECT {mark} FROM t", lambda n: f", t{n}")
    yield "joins", fill(f"SELECT {mark} FROM t", lambda n: f" JOIN t{n} USING (id)")
    yield "unions", fill(f"SELECT {mark}", " UNION SELECT 1")
    yield "sub-selects", f"SELECT {mark} FROM " + "(SELECT * FROM " * 2_200 + "t" + ") AS s" * 2_200
    yield "expressions with names", fill(f"WITH {mark} AS (SELECT 1)", lambda n: f", w{n} AS (SELECT {n})", " SELECT 1")
    yield "statements", fill(f"SELECT '{mark}'", lambda n: f"; SELECT {n}")
    yield "statements of several kinds", fill(f"SELECT '{mark}'", lambda n: f"; DELETE FROM t{n}; UPDATE u SET a = {n}")
    yield "semicolons", fill(f"SELECT '{mark}'", ";")
    yield "a block of code", fill(f"DO $${mark} BEGIN ", "PERFORM f(); ", "END $$")
    yield "dollars", fill(f"SELECT {mark}, ", lambda n: f"$a{n}$", "x")
    yield "names in quotes", fill(f'SELECT {mark}, "', "x", '"')
    yield "quotes of names", fill(f"SELECT {mark}, ", '"a"')
    yield "no SQL", fill(f"{mark} ", "% & ? ")
    yield "an open literal", fill(f"SELECT {mark}, '", "x y ")
    yield "letters beyond ASCII", fill(f"SELECT {mark}, '", "ł客", "'")
    yield "line feeds", fill(f"SELECT {mark}, '", "\n\t", "'")
    yield "an array", fill(f"SELECT {mark}, ARRAY[1", lambda n: f", {n}", "]")
    yield "arrays in arrays", f"SELECT {mark}, " + "ARRAY[" * 4_000 + "1" + "]" * 4_000
    yield "cases", fill(f"SELECT {mark}, CASE", lambda n: f" WHEN a = {n} THEN 'v{n}'", " END FROM t")
    yield "settings", fill(f"SET {mark} = 'a'", lambda n: f", 'v{n}'")
    yield "grants", fill(f"GRANT SELECT ON {mark}", lambda n: f", t{n}", " TO r")
    yield "drops", fill(f"DROP TABLE {mark}", lambda n: f", t{n}")
    yield "a table's columns", fill(f"CREATE TABLE {mark} (a int", lambda n: f", c{n} text DEFAULT 'x{n}'", ")")
    yield "a prepared statement", fill(f"PREPARE {mark} AS SELECT 1", lambda n: f", {n}")
    yield "arguments of one", fill(f"EXECUTE {mark} (1", lambda n: f", 'v{n}'", ")")


def lines(mark: str) -> Iterator[tuple[str, Line]]:
    """Give the lines that are tried, by what is long in them."""
    for name, text in statements(mark):
        yield f"statement: {name}", Line(f"duration: 1.000 ms  statement: {text}")
        yield f"extended: {name}", Line(f"duration: 1.000 ms  execute <unnamed>: {text}", detail="Parameters: $1 = '1'")
        yield f"refused: {name}", Line("syntax error at end of input", "ERROR", "42601", statement=text)
    short = f"SELECT {mark}"
    yield (
        "parameters",
        Line(
            f"duration: 1.000 ms  execute a: {short}", detail=fill("Parameters: $1 = '1'", lambda n: f", $0 = 'v{n}'")
        ),
    )
    yield "one parameter", Line(f"duration: 1.000 ms  execute a: {short}", detail=fill("Parameters: $1 = '", "''", "'"))
    for part in ("a)=(", ")=(", "(", "=", '"', "'", "a, ", "\\"):
        key = fill(f"Key ({mark}", part)
        yield (
            f"a key's detail of {part}",
            Line('duplicate key value violates unique constraint "k"', "ERROR", "23505", key, statement=short),
        )
    for part in ('"a" ', '"', "'x' ", "« » ", "column ", ": ", "%"):
        yield f"an error of {part}", Line(fill(f"{mark} ", part), "ERROR", "P0001", statement=short)
        yield (
            f"a server's error of {part}",
            Line(fill(f'column "{mark}', part, '" does not exist'), "ERROR", "42703", statement=short),
        )
    yield "a context", Line(
        "division by zero", "ERROR", "22012", statement=short,
        context=fill(f"PL/pgSQL function {mark}() line 1 at PERFORM", "\nPL/pgSQL function f() line 3 at RAISE"),
    )  # fmt: skip
    plan = fill(f"duration: 1.000 ms  plan:\nQuery Text: {short}\n", "  ->  Seq Scan on t  (rows=1 loops=1)\n")
    yield "a plan", Line(plan)
    yield "a plan's text", Line(fill(f"duration: 1.000 ms  plan:\nQuery Text: {short}, ", "\nQuery Text: ", "\nResult"))
    nodes = ', "Plans": [{"Node Type": "Result"' * 800
    yield "a plan in JSON", Line(fill(
        f'duration: 1.000 ms  plan:\n{{"Query Text": "{short}", "Plan": {{"Node Type": "Result"{nodes}', " ", "}" * 9
    ))  # fmt: skip
    for part in ("a,", '"",', '"', "SELECT,"):
        yield f"an audit of {part}", Line(fill(f"AUDIT: SESSION,1,1,READ,SELECT,TABLE,public.{mark},", part))
    yield "a login", Line(fill(f'connection authenticated: identity="{mark}', "x=1,", '" method=scram'))
    yield (
        "an application's login",
        Line(fill(f"connection authorized: user=u database=d application_name={mark}", " a=b")),
    )
    for part in ("a@b/c d ", "[1] ", "LOG:  ", AT + " [4] u@d/a ", "duration: 1 ms  statement: ", ": ", "Dauer: 1 ms "):
        yield f"the server's own of {part}", Line(fill(f"{mark} ", part))
    yield (
        "a client's name",
        Line(f"duration: 1.000 ms  statement: {short}", application=fill(mark, "a [1] b@c/d ")[:SIZE]),
    )


def written(line: Line, log_format: str, place: int) -> bytes:
    """Write a line as the server does."""
    if log_format == "jsonlog":
        said = {
            "timestamp": AT, "user": "app", "dbname": "shop", "pid": 41, "remote_host": "10.0.0.7", "remote_port": 5,
            "session_id": "6b03625b.29", "line_num": place, "ps": "SELECT", "session_start": "2026-11-22 20:00:00 UTC",
            "vxid": f"3/{place}", "txid": 0, "error_severity": line.severity, "state_code": line.code,
            "message": line.message, "detail": line.detail, "context": line.context, "statement": line.statement,
            "application_name": line.application, "backend_type": "client backend", "query_id": 0,
        }  # fmt: skip
        return (json.dumps({name: value for name, value in said.items() if value != ""}) + "\n").encode()
    if log_format == "csvlog":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerow([
            AT, "app", "shop", 41, "10.0.0.7:5", "6b03625b.29", place, "SELECT", "2026-11-22 20:00:00 UTC",
            f"3/{place}", 0, line.severity, line.code, line.message, line.detail, "", "", "", line.context,
            line.statement, "", "", line.application, "client backend", "", 0,
        ])  # fmt: skip
        return out.getvalue().encode()
    head = f"{AT} [41] app@shop/{line.application} 10.0.0.7(5) 6b03625b.29 {place} 0 0 {line.code} "
    parts = {line.severity: line.message, "DETAIL": line.detail, "CONTEXT": line.context, "STATEMENT": line.statement}
    return "".join(
        f"{head}{name}:  " + text.replace("\n", "\n\t") + "\n" for name, text in parts.items() if text
    ).encode()


def cost_ms(data: bytes, log_format: Any) -> float:
    """Read a line by a reader that knows nothing yet; gives milliseconds of processor time."""
    make, parser = formats(Log(format=log_format, line_prefix=PREFIX))
    splitter, interpreter = make(), Interpreter(tokenizer(b"k" * 32), log_format)
    began = time.process_time_ns()
    for piece in [*splitter.feed(data), *splitter.idle()]:
        with suppress(Unreadable):
            for event in interpreter.read(parser.parse(piece.data), "log", 0, 1):
                encode_event(event)
    for event in interpreter.idle("log", len(data)):
        encode_event(event)
    return (time.process_time_ns() - began) / 1e6


def run(scale: float = 1.0) -> dict[str, Any]:
    """Measure every line in every format, and name the slowest."""
    least: dict[str, float] = {}
    for number in range(max(3, int(TRIES * scale))):
        for name, line in lines(f"m{number}"):
            for log_format in FORMATS:
                cost = cost_ms(written(line, log_format, number), log_format)
                key = f"{log_format}: {name}"
                least[key] = min(cost, least.get(key, cost))
    slowest = sorted(least.items(), key=lambda item: -item[1])
    name, worst = slowest[0]
    checks = [
        {
            "what": f"log: processor time of a line of 64 KiB ({name})",
            "figure": f"{worst:.1f} ms",
            "limit": f"{LIMIT_MS:.0f} ms",
            "holds": worst <= LIMIT_MS,
        }
    ]
    return {"lines": len(least), "slowest_ms": {n: round(ms, 2) for n, ms in slowest[:25]}, "checks": checks}


if __name__ == "__main__":
    print(json.dumps(run(), indent=2, ensure_ascii=False))
