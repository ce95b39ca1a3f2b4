"""What the worker does a second with everything in: attribution, all packaged policies, habits, windows, ensembles.

Row changes at ten rows a transaction, and separate statements as the server's log tells them: 200 fingerprints on
twenty relations, of which each of 200 principals uses ten. Time in the records goes on by more than half an hour, so
that most actions are judged by habits that are known, and windows of five minutes close (`tests.bench.land` is over in
seconds of it: there everybody is new).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pgwitness.core.events import LogPlace, Statement, Transaction
from tests.bench.backlog import RSS_MIB_MAX, START_US, measure, part_of, row, whole

TRANSACTIONS = 60_000
ROWS = 10
STATEMENTS = 100_000
PRINCIPALS = 200
RELATIONS = 20
USED = 10
SPAN_US = 2_400_000_000
ROWS_PER_S_MIN = 30_000
STATEMENTS_PER_S_MIN = 5_000
SHAPES = (
    "SELECT id, status, amount FROM public.{0} WHERE customer_id = $1 AND status = $2",
    "SELECT count(*) FROM public.{0} WHERE created_at > $1",
    "SELECT t.id, l.amount FROM public.{0} t JOIN public.{0}_lines l ON l.parent_id = t.id WHERE t.id = $1",
    "SELECT * FROM public.{0} WHERE name ILIKE $1 ORDER BY price LIMIT 20",
    "SELECT balance FROM public.{0} WHERE id = $1 FOR UPDATE",
    "INSERT INTO public.{0} (customer_id, status, amount) VALUES ($1, $2, $3) RETURNING id",
    "UPDATE public.{0} SET status = $1, changed_at = now() WHERE id = $2",
    "UPDATE public.{0}_lines SET amount = amount + $1 WHERE parent_id = $2",
    "DELETE FROM public.{0}_lines WHERE parent_id = $1 AND id = $2",
    "WITH old AS (SELECT id FROM public.{0} WHERE status = $1 LIMIT 10) SELECT * FROM old",
)


def run(scale: float = 1.0, names: tuple[str, ...] = ("changes", "statements")) -> dict[str, Any]:
    """Measure both; returns rates, peak memory and the checks."""
    cases: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="pgwitness-bench-") as folder:
        root = Path(folder)
        if "changes" in names:
            cases["changes"] = measure(root / "changes", "wal", _changes(int(TRANSACTIONS * scale)), "changes")
        if "statements" in names:
            events = _statements(int(STATEMENTS * scale))
            cases["statements"] = measure(root / "statements", "log", events, "statements")
    limits = {
        "changes": ("row changes, ten a transaction", ROWS_PER_S_MIN),
        "statements": ("separate statements", STATEMENTS_PER_S_MIN),
    }
    checks = []
    for name, case in cases.items():
        what, limit = limits[name]
        checks += [
            {
                "what": f"worker on one core, {what}, habits known",
                "figure": f"{case['per_s']:,.0f}/s",
                "limit": f"at least {limit:,}",
                "holds": case["per_s"] >= limit and whole(case),
            },
            {
                "what": f"worker's peak memory, {what}",
                "figure": f"{case['peak_rss_mib']} MiB",
                "limit": f"at most {RSS_MIB_MAX} MiB",
                "holds": case["peak_rss_mib"] <= RSS_MIB_MAX,
            },
        ]
    return {"cases": cases, "checks": checks}


def _changes(transactions: int) -> Iterator[tuple[Transaction, int]]:
    for number in range(1, transactions + 1):
        who = number % PRINCIPALS
        content = ",".join(row(offset, number * ROWS + offset) for offset in range(ROWS))
        at_us = START_US + number * SPAN_US // transactions
        yield part_of(number, f"svc-{who:05d}", 1_000 + who, at_us, content, ROWS), ROWS


def _statements(statements: int) -> Iterator[tuple[Statement, int]]:
    texts = [shape.format(f"table_{relation}") for relation in range(RELATIONS) for shape in SHAPES]
    for number in range(statements):
        who = number % PRINCIPALS
        at_us = START_US + number * SPAN_US // statements
        text = texts[(who * 7 + number // PRINCIPALS % USED * 21) % len(texts)]
        statement = Statement(
            captured_at_us=at_us,
            place=LogPlace("a-1", number * 400, 0, f"6b035d50.{4_000 + who:x}/a-1/{number}"),
            format="jsonlog",
            source="duration",
            occurred_at_us=at_us,
            pid=4_000 + who,
            session_start_us=START_US - 60_000_000,
            role=f"svc-{who:05d}",
            database="shop",
            application="api",
            client_addr=f"10.0.0.{who % 16}",
            client_port=5_000 + who,
            xid=None if text.startswith(("SELECT", "WITH")) else number,
            statement=text,
            duration_ms=1.5,
        )
        yield statement, 1


if __name__ == "__main__":
    print(run(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0, tuple(sys.argv[2:]) or ("changes", "statements")))
