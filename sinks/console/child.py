"""The process in which one task after another is done (`sinks.console.asking`), by `python -m`.

It reads the configuration, then tasks (queries, reports, replays) from stdin, and ends when nobody has any. Its memory
is bounded by the system: what it has when the lake is open, and what a query may have. Answers are plain values, cut
where they are long.
"""

from __future__ import annotations

import contextlib
import pickle
import resource
import sys
from collections.abc import Iterable
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import duckdb
import msgspec

from pgwitness.core.config import Config
from pgwitness.core.errors import NotInOrder, PgwitnessError
from pgwitness.core.runtime import logs
from sinks.console.asking import (
    ANSWER_BYTES_MAX,
    LENGTH_BYTES,
    Cell,
    Found,
    Question,
    Replayed,
    Replaying,
    Reporting,
    Task,
    framed,
)
from sinks.console.rendering import text
from sinks.lake.opening import lake_store
from sinks.sql import catalogue, query

CELL_CHARS_MAX = 20_000
BESIDE_BYTES = 256 * 1024**2
"""What a process needs beside what DuckDB accounts for: threads, rows on their way."""
SPILLED = 8
"""How many times its memory a question may have on disk: it is one of a few people's, and the disk is everybody's."""
INT64 = 2**63
EXHAUSTED = "Out of Memory"


@logs.process
def main() -> None:
    """Open the lake, and answer."""
    source, target = sys.stdin.buffer, sys.stdout.buffer
    config: Config = pickle.loads(_read(source) or b"")  # noqa: S301  # of the process that started this one
    memory = int(config.console.query_memory)
    try:
        connection = catalogue.connect(
            lake_store(config), memory_limit=f"{memory}B", spill_limit=f"{SPILLED * memory}B"
        )
    except PgwitnessError as error:
        _write(target, str(error).encode())
        return
    bound(2 * memory + BESIDE_BYTES)
    _write(target, b"")
    while (content := _read(source)) is not None:
        found = done(connection, config, msgspec.msgpack.decode(content, type=Task))
        # What has run out of memory has it in pieces: the next question has a new process.
        found = msgspec.structs.replace(found, last=EXHAUSTED in found.error)
        _write(target, msgspec.msgpack.encode(found))


def done(connection: duckdb.DuckDBPyConnection, config: Config, task: Task) -> Found:
    """Do what is asked; what is wrong with it is in the answer."""
    if isinstance(task, Question):
        return answer(connection, task, float(config.console.query_timeout))
    try:
        if isinstance(task, Reporting):
            return Found(page=reported(connection, config, task))
        return Found(replayed=replayed(config, task))
    except (PgwitnessError, duckdb.Error) as error:
        return Found(error=str(error))
    except MemoryError:
        return Found(error=f"{EXHAUSTED}: ask for a shorter period")


def reported(connection: duckdb.DuckDBPyConnection, config: Config, task: Reporting) -> str:
    """Make a report, as `pgwitness report` does."""
    from sinks.report.facts import gather
    from sinks.report.page import render
    from sinks.report.subject import Subject
    from sinks.seal.standing import standing

    subject = Subject(task.principal, task.relation, task.since_us, task.until_us)
    return render(gather(connection, subject, partial(standing, config), standard=task.standard))


def replayed(config: Config, task: Replaying) -> Replayed:
    """Run a policy over past evidence beside all others; of the difference, what is about it."""
    from detectors.policy.files import parse
    from detectors.policy.policies import Bundle
    from detectors.replay import Replay
    from sinks.sql.evidence import Evidence

    kept = Bundle.load(config.policies.path)
    changed = parse(task.text, "the change", kept.calendars)
    if len(changed) != 1:
        raise NotInOrder("write one policy; a change is tried policy by policy")
    (policy,) = changed
    bundle = Bundle([policy, *(one for one in kept.policies.values() if one.id != policy.id)], kept.calendars)
    failures = [failure for case in policy.document.tests if (failure := policy.run_case(case)) is not None]
    run = Replay(bundle, config, task.since_us)
    with Evidence(lake_store(config), run.from_us, None) as evidence:
        run.remember(evidence.last_seen())
        for past in evidence:
            run.take(past)
    difference = run.difference()
    of_it = [one for one in difference.policies if one.policy == policy.id]
    said = [f"{failure.test}: {failure.problem}" for failure in failures]
    return Replayed(said, msgspec.structs.replace(difference, policies=of_it))


def answer(connection: duckdb.DuckDBPyConnection, asked: Question, timeout_s: float) -> Found:
    """Answer a question; what is wrong with it is in the answer."""
    try:
        if any(one.type == duckdb.StatementType.CREATE for one in connection.extract_statements(asked.query)):
            raise NotInOrder("nothing of one's own can be made here; WITH name AS (…) names a part of a query")
        found = query.ask(connection, asked.query, timeout_s=timeout_s)
        rows, more = _bounded(found.rows, asked.rows_max)
    except duckdb.Error as error:
        return Found(error=str(error))
    except PgwitnessError as error:
        return Found(error=str(error))
    except (OverflowError, ValueError) as error:  # an interval of more days than Python knows
        return Found(error=f"a value of the answer cannot be written ({error}); CAST(… AS VARCHAR) writes it")
    except MemoryError:
        return Found(error=f"{EXHAUSTED}: the answer is too large")
    return Found(found.columns, rows, more)


def _bounded(rows: Iterable[tuple[object, ...]], rows_max: int) -> tuple[list[list[Cell]], bool]:
    """Read rows up to their number and size; says whether there were more."""
    taken: list[list[Cell]] = []
    size = 0
    for row in islice(rows, rows_max + 1):
        cells = [plain(value) for value in row]
        size += sum(len(cell) if isinstance(cell, str) else 16 for cell in cells)
        if len(taken) == rows_max or 4 * size > ANSWER_BYTES_MAX:
            return taken, True
        taken.append(cells)
    return taken, False


def plain(value: object) -> Cell:
    """Make a value one that travels: what is not a number, a time or a truth is a text."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -INT64 <= value < INT64 else str(value)
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else text(value.isoformat(sep=" "))
    shown = text(value).encode("utf-8", "backslashreplace").decode()
    return shown if len(shown) <= CELL_CHARS_MAX else shown[:CELL_CHARS_MAX] + " …"


def bound(more_bytes: int) -> None:
    """Let this process have so much more memory than it has; and be the first to go where the system has none left."""
    with contextlib.suppress(OSError, ValueError):  # not every system tells, or takes it
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + more_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _read(source: BinaryIO) -> bytes | None:
    length = source.read(LENGTH_BYTES)
    return source.read(int.from_bytes(length)) if len(length) == LENGTH_BYTES else None


def _write(target: BinaryIO, content: bytes) -> None:
    target.write(framed(content))
    target.flush()


if __name__ == "__main__":
    main()
