"""A server that is made up, its log and its WAL: whatever sessions do to each other, nobody is named wrongly.

The server knows who committed what; the log's interpreter and the fold know what a real one would have told them.
Sessions run statements that change something and that do not, procedures that commit on their way and go on for long,
failures, explicit transactions, statements that end before their commit; behind a pooler one session is several. Their
lines have the settings' form, are cut to milliseconds, and come late or never.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from collectors.log.formats.record import LogRecord
from collectors.log.interpretation.interpret import Interpreter
from collectors.log.interpretation.provenance import Provenance, Surroundings
from collectors.log.interpretation.running import STARTED
from pgwitness.core.events import Count, Event, RawEvent, Relation
from pgwitness.core.privacy import tokenizer
from streams.fold.fold import Fold
from streams.identity.identities import Identities
from tests.often import often
from tests.streams.records import SECOND_US, START_US, batch, read, tick, transaction
from tests.streams.test_log_join import setting

RULES = 'rules: [{match: {role: shared, application: "*"}, principal: "{application}"}]'
TOKEN = tokenizer(b"k" * 32)
LATE_US = 60_000
"""How long after its time a line is read; the WAL is a little faster."""
TEXTS = {
    "insert": "INSERT INTO orders VALUES (1)",
    "update": "UPDATE orders SET a = 1",
    "upsert": "INSERT INTO orders VALUES (1) ON CONFLICT DO NOTHING",
    "function": "SELECT give(1)",
    "procedure": "CALL work()",
    "block": "DO 'x'",
    "read": "SELECT a FROM orders",
}


@dataclass
class Server:
    """Sessions, what they write into log and WAL, and who really did it. `extended`: lines as drivers cause them."""

    announces: bool
    durations: bool
    now_us: int = START_US
    log: list[tuple[int, LogRecord]] = field(default_factory=list)
    wal: list[tuple[int, int, str, str]] = field(default_factory=list)
    owners: dict[int, str] = field(default_factory=dict)

    def line(self, at_us: int, pid: int, application: str, message: str, xid: int = 0, severity: str = "LOG") -> None:
        """Write a line, its time cut to milliseconds."""
        record = LogRecord(
            at_us // 1_000 * 1_000, pid, severity, message, f"{START_US // 1_000_000:x}.{pid:x}", len(self.log),
            START_US, "shared", "shop", application, "10.0.0.7", 5050, xid, backend_type="client backend",
        )  # fmt: skip
        self.log.append((at_us, record))

    def run(self, pid: int, application: str, kind: str, begin: int, took: int, effect: int, how: int) -> None:
        """Let a session run one statement from `begin` on for `took` (µs after the start)."""
        begin += START_US
        end = begin + took
        text = TEXTS[kind]
        failed = how == 3
        commits: list[int] = []
        if kind in ("procedure", "block"):
            commits = [begin + min(took, 3_000) * number // 4 for number in range(1, effect + 1)]
        elif kind != "read" and not failed and (effect or kind == "insert"):
            commits = [max(begin, end - 1 - effect * 137)]
        extended = how in (1, 2) and kind not in ("procedure", "block", "read") and bool(commits)
        if self.announces:
            self.line(begin, pid, application, f"execute <unnamed>: {text}" if extended else f"statement: {text}")
        xid = 0
        for at_us in commits:
            xid = len(self.owners) + 1
            operation = "u" if kind == "update" or (kind in ("block", "function", "procedure") and how % 2) else "i"
            self.owners[xid] = application
            self.wal.append((end + 500 * how if extended else at_us, xid, application, operation))
        if failed:
            self.line(end, pid, application, "no", severity="ERROR")
        elif self.durations:
            said = "" if self.announces else f"  execute <unnamed>: {text}" if extended else f"  statement: {text}"
            self.line(end, pid, application, f"duration: {took / 1_000:.3f} ms{said}", xid if extended else 0)


session = st.tuples(st.integers(1, 4), st.sampled_from(["a", "b"]))
step = st.tuples(
    st.sampled_from([*TEXTS, "insert", "insert", "procedure", "procedure"]),
    st.sampled_from([0, 100, 400, 1_500, 40_000]),
    st.sampled_from([80, 700, 2_500, 9_000_000]),
    st.integers(0, 3),
    st.integers(0, 3),
)


@pytest.mark.parametrize(("announces", "durations"), [(True, True), (False, True), (True, False)])
def test_nobody_is_named_wrongly(announces: bool, durations: bool) -> None:
    """Over many made-up hours, every transaction is its owner's or nobody's; some of them are named."""
    named = 0

    @settings(max_examples=often(100, 400), deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(st.tuples(session, step), min_size=1, max_size=14), st.sampled_from([0, 3]))
    def hold(plan: list[tuple[tuple[int, str], tuple[str, int, int, int, int]]], lost: int) -> None:
        nonlocal named
        named += told(announces, durations, plan, lost)

    hold()
    assert named > 0 or not durations


def told(
    announces: bool, durations: bool, plan: list[tuple[tuple[int, str], tuple[str, int, int, int, int]]], lost: int
) -> int:
    """Let the sessions of a plan run; gives how many transactions were named by session and time."""
    server = Server(announces, durations)
    free: dict[int, int] = {}
    at = 10_000
    for (pid, application), (kind, pause, took, effect, how) in plan:
        at += pause
        begin = max(at, free.get(pid, 0))
        server.run(pid, f"{application}{pid}", kind, begin, took, effect, how)
        free[pid] = begin + took + 2_000
    events = [setting(), *seen(server, lost if not announces else 0), *changes_of(server)]
    fold = Fold(0, Identities.parse(RULES), 2 * SECOND_US)
    made: list[Event] = []
    for offset, event in enumerate(sorted(events, key=lambda event: event.captured_at_us)):
        made += fold.apply(offset, read(batch(event, source="log")))
    made += fold.apply(fold.next_offset, read(batch(tick(1_000))))
    changes = [event for event in made if event.kind == "change"]
    assert len(changes) == len(server.owners)
    wrong = [
        (event.xid, event.principal, server.owners[event.xid or 0])
        for event in changes
        if event.principal not in (None, server.owners[event.xid or 0])
    ]
    assert wrong == []
    return sum(event.detail.get("join") == "session_time" for event in changes)


def seen(server: Server, lost: int) -> Iterator[RawEvent]:
    """Return what the collector makes of the log, from the start on; of `lost` lines it never sees the third."""
    interpreter = Interpreter(
        TOKEN, "jsonlog", provenance=Provenance("jsonlog", surroundings=Surroundings(frozenset({"shop"})))
    )
    started = LogRecord(START_US, 1, "LOG", STARTED)
    begin = LogRecord(START_US, 9, "LOG", "statement: BEGIN", "0.9", 1, START_US, "shared", "shop", "x")
    begun = LogRecord(START_US, 9, "LOG", "duration: 0.1 ms", "0.9", 2, START_US, "shared", "shop", "x")
    lines = sorted(server.log, key=lambda item: item[0])
    kept = [line for number, line in enumerate(lines) if not lost or number % lost != 2]
    first = [(START_US, record) for record in (started, begin, begun)]
    for number, (at_us, record) in enumerate([*first, *kept]):
        for event in interpreter.read(record, "log", number + 1, at_us):
            yield replace(event, captured_at_us=at_us + (LATE_US if number > 2 else 0))


def changes_of(server: Server) -> Iterator[RawEvent]:
    """Return what the collector makes of the WAL."""
    for number, (at_us, xid, _, operation) in enumerate(sorted(server.wal)):
        yield transaction(
            1_000 + number, xid=xid, committed_at_us=at_us, captured_at_us=at_us + 50_000,
            relations=[Relation("public.orders", ["id"])], counts=[Count(0, operation, 1)],
        )  # fmt: skip
