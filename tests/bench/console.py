"""The console on a large lake: how long a page takes, when a browser paints first, what viewers with live pages hold.

A lake of a month up to now, sorted as compaction leaves it, with a thousand alerts; the console is a process of its
own, without a broker. Pages are asked one after the other, as one person does, while two hundred others look at *Now*.
`python -m tests.bench console --scale 0.1` takes a million events.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import httpx2

from sinks.console.rendering import ASSETS
from sinks.lake.log.chain import File
from sinks.lake.rows import parquet
from sinks.lake.rows.schema import EVENTS, SCHEMA_VERSION
from sinks.lake.writer import Lake
from tests.bench import touched

ROWS, DAYS, ALERTS, VIEWERS, ROUNDS = 10_000_000, 30, 1_000, 200, 10
PAGE_S_MAX, PAINT_MS_MAX, RSS_MIB_MAX, ASSET_BYTES_MAX = 1.0, 300.0, 300.0, 300_000
WHO = "agent:1"
PATHS = {
    "now": "/", "alerts": "/alerts", "alert": "/alerts/{uid}", "people": "/people", "person": f"/people?name={WHO}",
    "records": "/records", "ask": "/ask", "policies": "/policies", "policy": "/policies/mass_change",
    "reports": "/reports", "approvals": "/approvals",
}  # fmt: skip
PASSWORD = "correct horse battery"


def make(lake: Path, events: int, now: datetime) -> str:
    """Make the lake; returns the uid of an alert."""
    Lake(lake).prepare()
    each, files = max(events // DAYS, 1), list[File]()
    with duckdb.connect(config={"threads": 2, "memory_limit": "4GB"}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        connection.execute(touched.PLANTED.format(events=events))
        for day in range(DAYS):
            until = now - timedelta(days=DAYS - 1 - day)
            since = until.replace(hour=0, minute=0, second=0, microsecond=0)
            first = day * each
            at = f"{since.timestamp()} + (i - {first}) * {(until - since).total_seconds() / each}"
            rows = touched.EVENTS_OF_A_FILE.replace("1790000000 + i / 1000.0", at).replace(
                "1790000000.1 + i / 1000.0", at
            )
            connection.execute(f"CREATE OR REPLACE TABLE made AS {rows.format(first=first, last=first + each)}")
            names = {name for name, *_ in connection.execute("DESCRIBE made").fetchall()}
            columns = ", ".join(name if name in names else f"NULL AS {name}" for name in EVENTS.names)
            table = connection.sql(f"SELECT {columns} FROM made").to_arrow_table().cast(EVENTS)
            path = lake / "events" / f"dt={since:%Y-%m-%d}" / "day-0.parquet"
            path.parent.mkdir(parents=True)
            with path.open("wb") as sink, parquet.writer(sink, EVENTS) as writer:
                writer.write_table(table, row_group_size=parquet.SORTED_ROW_GROUP_ROWS)
            size = path.stat().st_size
            files.append(File("events", str(path.relative_to(lake)), table.num_rows, size, "", SCHEMA_VERSION))
    touched._enter(lake, files)
    return _alerts(lake, now)


def _alerts(lake: Path, now: datetime) -> str:
    """Land alerts, each on an event of its own, a minute ago."""
    from tests.sinks.console.conftest import alert
    from tests.sinks.material import Judgement, change

    at_us = int(now.timestamp() * 1_000_000) - 60_000_000
    seen = {"occurred_at_us": at_us, "captured_at_us": at_us, "session_id": "db:5432/1"}
    events = [change(n, **seen, principal=WHO) for n in range(ALERTS)]
    verdicts = []
    for n in range(ALERTS):
        more = {"incident": f"i{n // 3}", "principal": WHO}
        verdicts.append(Judgement(alerts=[alert(f"{n:032x}", f"{n:032x}", 2 + n % 4, f"Alert number {n}", **more)]))
    writer = Lake(lake).writer("pgwitness.events", 1)
    writer.resume()
    writer.append(0, events, verdicts)
    writer.commit()
    return f"{0:032x}"


def serve(folder: Path) -> None:
    """Serve a console on a lake until the process is killed; prints its port."""
    from detectors import __path__ as detectors
    from pgwitness.core.config import Config, Console
    from pgwitness.core.config import Folder as Policies
    from pgwitness.core.config import Lake as LakeTable
    from sinks.console import server, users
    from sinks.console.asking import Asker
    from tests.sinks.console.conftest import Book, Records

    file = folder / "users.json"
    user = users.User(name="ada", roles=["analyst"], password=users.hashed(PASSWORD))
    users.change(file, lambda _: {"ada": user})
    console = Console(listen="127.0.0.1:0", users_file=file)
    policies = Policies(path=Path(detectors[0]) / "pack")
    config = Config(lake=LakeTable(path=folder / "lake"), console=console, policies=policies)
    app = server.make(config, Records(), lambda _uid, _value: None, Asker(config), Book(), lambda: False)
    with server.listen(console) as bound:
        print(bound.getsockname()[1], flush=True)
        import uvicorn

        asyncio.run(uvicorn.Server(server._settings(console, app)).serve([bound]))


def run(scale: float = 1.0) -> dict[str, Any]:
    """Measure; returns seconds a page, milliseconds to the first paint, and memory, with the checks."""
    with tempfile.TemporaryDirectory(prefix="pgwitness-bench-", dir=_room()) as name, ExitStack() as stack:
        folder = Path(name)
        uid = make(folder / "lake", int(ROWS * scale), datetime.now(UTC))
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.console", str(folder)], stdout=subprocess.PIPE, text=True
        )
        stack.callback(child.kill)
        assert child.stdout is not None
        url = f"http://127.0.0.1:{int(child.stdout.readline())}"
        paths = {page: path.format(uid=uid) for page, path in PATHS.items()}
        found = asyncio.run(_looking(url, paths, child.pid))
        found["first_paint_ms"] = _painted(url, paths)
    found["events"], found["asset_bytes"] = int(ROWS * scale), sum(len(asset.content) for asset in ASSETS.values())
    worst, paint = max(found["p95_s"].values()), max(found["first_paint_ms"].values(), default=0.0)
    found["checks"] = [
        {"name": "p95 of the slowest page, s", "value": worst, "limit": PAGE_S_MAX, "holds": worst <= PAGE_S_MAX},
        {"name": "first paint, slowest page, ms", "value": paint, "limit": PAINT_MS_MAX,
         "holds": paint <= PAINT_MS_MAX},
        {"name": f"MiB with {VIEWERS} live pages", "value": found["rss_mib"], "limit": RSS_MIB_MAX,
         "holds": found["rss_mib"] <= RSS_MIB_MAX},
        {"name": "bytes of assets", "value": found["asset_bytes"], "limit": ASSET_BYTES_MAX,
         "holds": found["asset_bytes"] <= ASSET_BYTES_MAX},
    ]  # fmt: skip
    return found


def _room() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


async def _looking(url: str, paths: dict[str, str], pid: int) -> dict[str, Any]:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx2.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        await _log_in(client)
        times: dict[str, list[float]] = {page: [] for page in paths}
        for path in paths.values():
            await _timed(client, path)  # opens connections, and reads files for the first time
        idle = _rss_mib(pid)
        for _ in range(ROUNDS):
            for page, path in paths.items():
                times[page].append(await _timed(client, path))
        alone = {page: _p95(values) for page, values in times.items()}
        async with asyncio.TaskGroup() as group:
            ready, done, door = asyncio.Semaphore(0), asyncio.Event(), asyncio.Lock()
            for _ in range(VIEWERS // 4):
                group.create_task(_viewers(url, 4, ready, done, door))
            for _ in range(VIEWERS):
                await ready.acquire()
            times = {page: [] for page in paths}
            for _ in range(ROUNDS):
                for page, path in paths.items():
                    times[page].append(await _timed(client, path))
            rss = _rss_mib(pid)
            done.set()
    median = {page: round(statistics.median(values), 3) for page, values in times.items()}
    shared = {page: _p95(values) for page, values in times.items()}
    return {"p95_s": shared, "p50_s": median, "p95_s_alone": alone, "rss_mib": rss, "rss_mib_idle": idle}


async def _viewers(url: str, feeds: int, ready: asyncio.Semaphore, done: asyncio.Event, door: asyncio.Lock) -> None:
    """Log in, and hold so many live pages open."""
    async with httpx2.AsyncClient(base_url=url, timeout=120) as client:
        async with door:  # all are the same user: many logins at once would be taken for guesses
            await _log_in(client)

        async def look() -> None:
            async with client.stream("GET", "/now/live") as answer:
                assert answer.status_code == 200, answer.status_code
                told = False
                async for _ in answer.aiter_text():
                    if not told:
                        ready.release()
                        told = True
                    if done.is_set():
                        return

        async with asyncio.TaskGroup() as group:
            for _ in range(feeds):
                group.create_task(look())


async def _log_in(client: httpx2.AsyncClient) -> None:
    page = (await client.get("/login")).text
    csrf = page.split('name="csrf" value="', 1)[1].split('"', 1)[0]
    answer = await client.post("/login", data={"csrf": csrf, "name": "ada", "password": PASSWORD, "next": "/"})
    assert answer.status_code == 303, answer.status_code


async def _timed(client: httpx2.AsyncClient, path: str) -> float:
    start = time.perf_counter()
    answer = await client.get(path)
    assert answer.status_code == 200, (path, answer.status_code)
    return time.perf_counter() - start


def _painted(url: str, paths: dict[str, str]) -> dict[str, float]:
    """Give milliseconds from the answer's first byte to the first paint in a real browser, where there is one."""
    from tests.sinks.console import browsing

    if not browsing.CHROMIUM.exists():
        return {}
    look = """() => {
      const [navigation] = performance.getEntriesByType('navigation');
      const paint = performance.getEntriesByName('first-contentful-paint')[0];
      return paint ? paint.startTime - navigation.responseStart : null;
    }"""
    found: dict[str, float] = {}
    with browsing.chromium() as browser, browsing.window(browser, url) as window:
        window.log_in("ada", PASSWORD)
        for page, path in paths.items():
            window.visit(path)
            window.page.wait_for_function(f"({look})() !== null")
            found[page] = round(float(window.page.evaluate(look)), 1)
    return found


def _p95(values: list[float]) -> float:
    return round(sorted(values)[max(0, round(0.95 * len(values)) - 1)], 3)


def _rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.split("VmRSS:")[1].split()[0]) / 1024, 1)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(Path(sys.argv[1]))
    else:
        print(json.dumps(run(), indent=2))
