"""How fast the worker lands: a full `raw` topic to Parquet, the worker held to one core (`tests.bench.backlog`).

Transactions of 1, 10, 100 and 10,000 rows in equal shares of rows, each with its verified beacon, by 1, 200 and
10,000 principals who take turns from transaction to transaction.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pgwitness.core.events import Transaction
from tests.bench.backlog import RSS_MIB_MAX, START_US, measure, part_of, row, whole

ROWS = 600_000
SIZES = (1, 10, 100, 10_000)
PART_ROWS = 1_000
PRINCIPALS = (1, 200, 10_000)
ROWS_PER_S_MIN = 40_000


def run(scale: float = 1.0) -> dict[str, Any]:
    """Measure each number of principals; returns rates, peak memory and the checks."""
    cases = []
    with tempfile.TemporaryDirectory(prefix="pgwitness-bench-") as folder:
        for principals in PRINCIPALS:
            parts = _parts(principals, int(ROWS * scale))
            cases.append({"principals": principals} | measure(Path(folder) / str(principals), "wal", parts, "changes"))
    largest = max(case["peak_rss_mib"] for case in cases)
    return {
        "cases": cases,
        "checks": [
            {
                "what": f"worker on one core, {case['principals']} principals",
                "figure": f"{case['per_s']:,.0f} rows/s",
                "limit": f"at least {ROWS_PER_S_MIN:,}",
                "holds": case["per_s"] >= ROWS_PER_S_MIN and whole(case),
            }
            for case in cases
        ]
        + [
            {
                "what": "worker's peak memory",
                "figure": f"{largest:.0f} MiB",
                "limit": f"at most {RSS_MIB_MAX} MiB",
                "holds": largest <= RSS_MIB_MAX,
            }
        ],
        "rows_per_s_min": min(case["per_s"] for case in cases),
        "peak_rss_mib": largest,
    }


def _parts(principals: int, rows: int) -> Iterator[tuple[Transaction, int]]:
    """Make the parts of the transactions, sizes interleaved so that each has its share of rows at any time."""
    share = rows // len(SIZES)
    sizes = [size for size in SIZES if share >= size]
    done = dict.fromkeys(sizes, 0)
    number = 0
    place = 0
    while sizes and min(done.values()) < share:
        size = min(sizes, key=lambda each: done[each] / share)
        done[size] += size
        number += 1
        who = number % principals
        for first in range(0, size, PART_ROWS):
            n_rows = min(PART_ROWS, size - first)
            content = ",".join(row(first + offset, place + offset) for offset in range(n_rows))
            place += n_rows
            last = first + n_rows == size
            at_us = START_US + number * 100
            part = part_of(number, f"svc-{who:05d}", 1_000 + who, at_us, content, n_rows, first, last=last)
            yield part, n_rows
