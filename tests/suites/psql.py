"""PostgreSQL's own regression files by psql: on one server directly, on another one behind a gateway."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from pgwitness.demo.servers import Broker
from tests.suites.explained import unexplained
from tests.suites.ways import Way, ask_for_passwords, gateway
from tests.twin.run import FIRST, every_file, programs
from tests.twin.server import DATABASE, Twin


def run(folder: Path, named: Sequence[str], version: int) -> Iterator[tuple[str, int, list[str]]]:
    """Run the files, all of them unless named; gives each with its lines and the changed ones that nothing explains."""
    folder.chmod(0o755)
    with ExitStack() as stack:
        twins = []
        for name in ("direct", "behind"):
            (folder / name).mkdir()
            (folder / name).chmod(0o755)
            twins.append(stack.enter_context(Twin(folder / name, version, programs(version))))
            ask_for_passwords(twins[-1].server)
        direct, behind = twins
        broker = stack.enter_context(Broker(folder / "broker"))
        way = stack.enter_context(gateway(folder / "gateway", behind.server, broker, DATABASE))
        direct.way, behind.way = Way("direct", direct.server.port, DATABASE).dsn, way.dsn
        with ThreadPoolExecutor(2) as pool:
            for file in (FIRST, *(name for name in named or every_file(version) if name != FIRST)):
                plain, through = pool.map(lambda twin: twin.run(file), twins)  # noqa: B023
                yield file, len(plain), unexplained("psql", file, plain, through)
