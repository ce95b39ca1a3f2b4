"""Runs ways in sessions of a real server, and gives what the log's interpreter and the fold make of them."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from collectors.log import statuses
from collectors.log.formats.jsonlog import JsonLog
from collectors.log.formats.record import Times
from collectors.log.interpretation.interpret import Interpreter, Seen
from collectors.log.interpretation.provenance import Provenance, Surroundings
from pgwitness.core.events import Event, Posture, RawEvent, Tick
from pgwitness.core.privacy import tokenizer
from streams.fold.fold import Fold
from streams.identity.identities import Identities
from tests.collectors.log_server import SECONDS_MAX, TIMEZONE
from tests.outcomes.ways import Way
from tests.streams.records import batch, read

END = "that was all"
ABOUT_TRANSACTIONS = frozenset(
    {"begin", "start", "commit", "rollback", "rollback_to", "savepoint", "release", "prepare", "set"}
)


def run(dsn: str, name: str, one: Way, number: int) -> None:
    """Run one way in a session of its own, which is called by the way's number."""
    table = f"t{number}_"
    conn = pq.PGconn.connect(make_conninfo(dsn, user=one.role, application_name=f"way {number}").encode())
    assert conn.status == pq.ConnStatus.OK, (name, conn.error_message)
    for step in one.steps:
        if step.startswith("!"):
            _end(dsn, conn, step)
            return
        if not step:
            continue
        text = step.replace("{t}", table)
        if text.startswith("x:"):
            conn.exec_params(text[2:].encode(), [])
        elif text.startswith("p:"):
            _pipeline(conn, text[2:].split("|"))
        else:
            conn.exec_(text.encode())
    conn.finish()


def _end(dsn: str, conn: pq.PGconn, how: str) -> None:
    if how == "!killed":
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", [conn.backend_pid])
    elif how == "!vanish":
        os.close(os.dup2(os.open(os.devnull, os.O_RDWR), conn.socket))
        return
    conn.finish()


def _pipeline(conn: pq.PGconn, texts: Sequence[str]) -> None:
    conn.enter_pipeline_mode()
    for text in texts:
        conn.send_query_params(text.encode(), [])
    conn.pipeline_sync()
    empty = 0
    while empty < 2:  # between two results stands one None
        result = conn.get_result()
        empty = empty + 1 if result is None else 0
        if result is not None and result.status == pq.ExecStatus.PIPELINE_SYNC:
            break
    conn.exit_pipeline_mode()


def lines(paths: Sequence[Path], database: str, end: str) -> list[Seen]:
    """Read what a server's log has, until the line with `end` in it, and interpret it."""
    deadline = time.monotonic() + SECONDS_MAX
    while not any(end.encode() in path.read_bytes() for path in paths):
        assert time.monotonic() < deadline, "the log has not come"
        time.sleep(0.05)
    parser = JsonLog(Times(TIMEZONE))
    plain = Surroundings(frozenset({database}), quiet=True)
    interpreter = Interpreter(tokenizer(b"k" * 32), "jsonlog", provenance=Provenance("jsonlog", surroundings=plain))
    seen: list[Seen] = []
    offset = 0
    for path in paths:
        for line in path.read_bytes().splitlines():
            offset += len(line) + 1
            record = parser.parse(line)
            seen += interpreter.read(record, "log", offset, record.time_us)
    return [*seen, *interpreter.idle("log", offset + 1)]


def setting(name: str, value: str) -> Posture:
    """Make what a snapshot says of a setting."""
    return Posture(captured_at_us=1, object_type="setting", name=name, change="found", after={"value": value})


def fold(events: Sequence[RawEvent], settings: dict[str, str], answers: Posture | None = None) -> list[Event]:
    """Fold what a log told, each event in a record of its own, and the time until nothing waits any more.

    `answers` are what the server said of the transactions, which comes behind them.
    """
    folding = Fold(0, Identities.parse("rules: []\n"), 2_000_000)
    first = [setting(*pair) for pair in settings.items()] + ([statuses.record({})] if answers is not None else [])
    out = folding.apply(0, read(batch(*first, source="sessions")))
    for offset, event in enumerate([*events, *([answers] if answers is not None else [])], 1):
        out += folding.apply(offset, read(batch(event, source="log")))
    latest = max(event.captured_at_us for event in events) + 60_000_000
    return out + folding.apply(folding.next_offset, read(batch(Tick(captured_at_us=latest), source="log")))


def made_up(seed: int, number: int) -> Way:
    """Make a way up: any step may come after any other, and each makes a table of its own."""
    chance = random.Random(f"{seed} {number}")
    tables = itertools.count(1)

    def text(most: int) -> str:
        return "; ".join(chance.choice(_WORDS).replace("#", str(next(tables))) for _ in range(chance.randint(1, most)))

    steps = []
    for _ in range(chance.randint(1, 9)):
        kind = chance.random()
        if kind < 0.5:
            steps.append(text(1))
        elif kind < 0.7:
            steps.append(text(5))
        elif kind < 0.9:
            steps.append("x:" + text(1))
        else:
            steps.append("p:" + "|".join(text(1) for _ in range(chance.randint(1, 4))))
    return Way((*steps, chance.choice(["", "", "!close", "!vanish", "!killed"])), "")


_WORDS = (
    *["CREATE TABLE {t}#(i int)"] * 9,
    *["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT a", "SAVEPOINT b", "ROLLBACK TO a", "ROLLBACK TO b"] * 2,
    "RELEASE a", "RELEASE b", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "SELECT 1/0", "SELECT 1/0", "SELECT 1",
    "INSERT INTO once VALUES (1)", "DROP TABLE never_was", "SHOW work_mem", "SELECT txid_current()",
)  # fmt: skip


def false_outcomes(events: Sequence[Event], there: set[str]) -> tuple[list[tuple[object, ...]], int, int]:
    """Hold what was said of tables that were made against what is there: what is false, how many, how many unknown."""
    false: list[tuple[object, ...]] = []
    known = unknown = 0
    for event in in_order([event for event in events if "create_table" in _operations(event)]):
        names = [name for name in event.relations if name.startswith("t")]
        if event.outcome in ("unknown", "pending") or not names:
            unknown += 1
            continue
        known += 1
        found = {name in there for name in names}
        if found != {event.outcome == "success"}:
            false.append((event.application, event.outcome, event.statement, sorted(found)))
    return false, known, unknown


def told(events: Sequence[Event], number: int) -> list[Event]:
    """Return the statements of a way that are no words about transactions."""
    return [
        event
        for event in events
        if event.kind == "statement"
        and event.application == f"way {number}"
        and not (set(_operations(event)) and set(_operations(event)) <= ABOUT_TRANSACTIONS)
    ]


def _operations(event: Event) -> list[str]:
    found = event.detail.get("operations")
    return [str(word) for word in found] if isinstance(found, list) else []


def in_order(events: Sequence[Event]) -> list[Event]:
    """Order statements as they ran; outcomes that came later stand for those that were pending."""
    last = {str(event.detail.get("settles", event.event_id)): event for event in events}
    return sorted(last.values(), key=lambda event: int(str(event.detail.get("line", 0))))
