"""What compaction costs and gives: a lake of small commits opened, counted and asked before and after, and its memory.

The lake's files are made as a worker's are, but of columns that are put together at once, and nothing is synced: what
is measured is reading and rewriting. Each measurement is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sinks.lake.compaction.compactor import Compactor
from sinks.lake.log import chain
from sinks.lake.log.chain import File, Land, Range, State
from sinks.lake.log.layout import days_of
from sinks.lake.log.on_store import Log
from sinks.lake.log.protocol import Attempt
from sinks.lake.rows import digest, parquet
from sinks.lake.rows.schema import DAY_US, SCHEMA_VERSION, TABLES
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder
from sinks.lake.writer import Lake
from sinks.sql.catalogue import connect

START_US = 1_767_225_600_000_000
"""2026-01-01 00:00 UTC."""
EVENTS = 1_000_000
COMMITS = 4_000
PRINCIPALS = 5_000
US_PER_ROW_MAX = 40.0
RSS_MIB_MAX = 600
LIVE_MAX = 500
KINDS = ("change", "change", "change", "change", "statement", "session", "ddl", "query_stats")


class Unsynced(Files):
    """A file system that is not waited for."""

    def sync(self, path: Path) -> None:
        """Do nothing."""


def run(scale: float = 1.0) -> dict[str, Any]:
    """Measure; returns the figures before and after, of compaction, and the checks."""
    events, commits = int(EVENTS * scale), int(COMMITS * scale)
    with tempfile.TemporaryDirectory(prefix="pgwitness-bench-") as folder:
        path = Path(folder) / "lake"
        generate(path, events, commits, days=60)
        before = _apart("ask", path)
        done = _apart("compact", path)
        after = _apart("ask", path)
    return {
        "before": before,
        "compaction": done,
        "after": after,
        "checks": [
            _check("compaction", done["us_per_row"], "µs a row and writing", US_PER_ROW_MAX),
            _check("its peak memory", done["rss_mib"], "MiB", RSS_MIB_MAX),
            _check("live files after compaction", done["live"], "", LIVE_MAX),
            _check("timeline, part of before", after["timeline_s"] / before["timeline_s"], "", 1.0),
            _check("count, part of before", after["count_s"] / before["count_s"], "", 1.0),
            {
                "what": "events before and after",
                "figure": f"{before['events']:,} and {after['events']:,}",
                "limit": "the same",
                "holds": before["events"] == after["events"] == events,
            },
        ],
    }


def _check(what: str, figure: float, unit: str, limit: float) -> dict[str, Any]:
    return {"what": what, "figure": f"{figure:.2f} {unit}", "limit": f"at most {limit:g}", "holds": figure <= limit}


def _apart(what: str, path: Path, *more: str) -> Any:
    command = [sys.executable, "-m", "tests.bench.compaction", what, str(path), *more]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def ask(path: Path) -> dict[str, Any]:
    """Open a lake and ask it what people ask first."""
    found: dict[str, Any] = {}

    def timed(name: str, act: Callable[[], Any]) -> Any:
        begun = time.monotonic()
        answer = act()
        found[f"{name}_s"] = round(time.monotonic() - begun, 3)
        return answer

    connection = timed("open", lambda: connect(path))
    found["open_rss_mib"] = _rss_mib()

    def fetch(query: str) -> list[Any]:
        rows: list[Any] = connection.execute(query).fetchall()
        return rows

    found["events"] = timed("count", lambda: fetch("SELECT count(*) FROM events"))[0][0]
    found["timeline_rows"] = len(timed("timeline", lambda: fetch("SELECT * FROM timeline('svc-00042')")))
    one = "WHERE dt = DATE '2026-01-20'"
    found["day_rows"] = len(timed("day_timeline", lambda: fetch(f"SELECT * FROM timeline('svc-00042') {one}")))
    timed("day_coverage", lambda: fetch("SELECT * FROM coverage WHERE hour BETWEEN '2026-01-20' AND '2026-01-21'"))
    timed("day_changes", lambda: fetch(f"SELECT count(*), max(after) FROM changes {one}"))
    timed(
        "month",
        lambda: fetch("SELECT kind, count(*) FROM events WHERE dt BETWEEN '2026-01-01' AND '2026-01-31' GROUP BY 1"),
    )
    found["rss_mib"] = _rss_mib()
    return found


def compact(path: Path, now_us: int | None = None) -> dict[str, Any]:
    """Compact a lake; gives microseconds of processor a row and the time it was rewritten, and the peak memory."""
    at_us = now_us or START_US + 400 * DAY_US
    begun, wall = time.process_time(), time.monotonic()
    compactor = Compactor(path, Folder(path, Unsynced()), clock_us=lambda: at_us)
    done = compactor.run()
    used = time.process_time() - begun
    return {
        "rows": done.rows,
        "jobs": done.jobs,
        "replaced": done.replaced,
        "live": compactor.live,
        "bytes_before": done.bytes_before,
        "bytes_after": done.bytes_after,
        "us_per_row": round(used * 1e6 / max(done.rows, 1), 2),
        "wall_s": round(time.monotonic() - wall, 2),
        "rss_mib": _rss_mib(),
    }


def _rss_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def generate(path: Path, events: int, commits: int, *, days: int, principals: int = PRINCIPALS) -> None:
    """Make a lake of so many events in so many commits, in the order of their days."""
    Lake(path, files=Unsynced()).prepare()
    store = Folder(path, Unsynced())
    log = Log(store)
    log.refresh()
    chance = np.random.default_rng(7)
    done = 0
    for commit in range(commits):
        count = (events * (commit + 1)) // commits - done
        begin_us = START_US + commit * days * DAY_US // commits
        last_us = min(begin_us + days * DAY_US // commits, begin_us - begin_us % DAY_US + DAY_US) - 1
        at_us = np.sort(chance.integers(begin_us, max(last_us, begin_us + 1), count))
        files = _files(store, commit, at_us, chance, principals)
        done += count
        _land(log, files, commit, last_us)
    log.publish()


def _land(log: Log, files: list[File], commit: int, at_us: int) -> None:
    def propose(state: State) -> Land:
        ranges = [Range("events", 0, commit, commit + 1, [])]
        return Land(number=state.number + 1, predecessor=state.sha256, at_us=at_us, ranges=ranges, files=files)

    log.append(propose, Attempt())


def _files(
    store: Folder, commit: int, at_us: npt.NDArray[np.int64], chance: np.random.Generator, principals: int
) -> list[File]:
    day = datetime.fromtimestamp(at_us[0] / 1e6, UTC).date().isoformat()
    found = []
    for name, table in tables(commit, at_us, chance, principals).items():
        encoded = parquet.encode(table)
        path = f"{name}/dt={day}/{commit:08d}.parquet"
        store.put(path, encoded)
        added_up = str(digest.of(table, name))
        found.append(File(name, path, table.num_rows, len(encoded), chain.digest(encoded), SCHEMA_VERSION, added_up))
        assert days_of(path)[0] == day
    return found


def tables(
    commit: int, at_us: npt.NDArray[np.int64], chance: np.random.Generator, principals: int
) -> dict[str, pa.Table]:
    """Make the rows of a commit: events, row images of changes, and now and then an alert."""
    count = len(at_us)
    who = np.minimum(chance.zipf(1.3, count), principals) - 1
    relation = chance.integers(0, 40, count)
    kind = [KINDS[one] for one in chance.integers(0, len(KINDS), count)]
    ids = [chance.bytes(16).hex() for _ in range(count)]
    own: dict[str, Any] = {
        "event_id": ids,
        "kind": kind,
        "occurred_at": pa.array(at_us - 1_500_000, pa.timestamp("us", tz="UTC")),
        "captured_at": pa.array(at_us, pa.timestamp("us", tz="UTC")),
        "cluster": ["shop"] * count,
        "database": ["shop"] * count,
        "principal": [f"svc-{one:05d}" for one in who],
        "principal_kind": ["service"] * count,
        "on_behalf_of": ["ada" if one % 50 == 0 else None for one in who],
        "binding": ["beacon"] * count,
        "certainty": ["exact"] * count,
        "assurance": ["verified"] * count,
        "role": ["app"] * count,
        "application": [f"app-{one % 20}" for one in who],
        "client_addr": [f"10.0.{one % 200}.{one % 250}" for one in who],
        "session_id": [f"s-{one}-{commit // 50}" for one in who],
        "pid": chance.integers(1_000, 30_000, count),
        "xid": np.arange(count) + commit * 100_000,
        "lsn": np.arange(count) + commit * 1_000_000,
        "ordinal": pa.array([1 if one == "change" else None for one in kind], pa.int64()),
        "operation": ["update" if one == "change" else "select" for one in kind],
        "relations": [[f"public.table_{one}"] for one in relation],
        "row_key": [
            f'{{"id":{one}}}' if what == "change" else None
            for one, what in zip(chance.integers(0, 10**6, count), kind, strict=True)
        ],
        "outcome": ["success"] * count,
        "schema_version": [SCHEMA_VERSION] * count,
        "covered": [True] * count,
        "source": ["events-0"] * count,
        "source_offset": [commit] * count,
        "source_index": np.arange(count),
    }
    changed = [place for place, one in enumerate(kind) if one == "change"]
    images = {
        "event_id": [ids[place] for place in changed],
        "before": [None] * len(changed),
        "after": [f'{{"id":{place},"token":"{chance.bytes(8).hex()}","status":"new"}}' for place in changed],
    }
    made = {"events": own, "rows": images}
    if commit % 20 == 0:
        made["alerts"] = {"uid": [f"alert-{commit}"], "time": own["captured_at"][:1], "principal": own["principal"][:1]}
    return {name: _table(TABLES[name], columns) for name, columns in made.items() if len(columns[next(iter(columns))])}


def _table(schema: pa.Schema, columns: dict[str, Any]) -> pa.Table:
    count = len(next(iter(columns.values())))
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(count, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


if __name__ == "__main__":
    what, where = sys.argv[1:3]
    print(json.dumps(ask(Path(where)) if what == "ask" else compact(Path(where))))
