"""A server that is put back to what it was, under a collector: told as a gap, and nothing after it is lost (real)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from collectors.installation import install
from pgwitness.core.config import Config
from pgwitness.core.events import Control, Gap, Tick, Transaction
from pgwitness.demo.servers import FAST_AND_FORGETFUL, Broker, Postgres, wait_for
from streams.fold.positions import SKEW_US
from tests.collectors.raw_topic import Bench, bench
from tests.collectors.wal_source import CLEAR, collect
from tests.streams.folding import fold_all
from tests.streams.records import batch

ROWS = 100


@pytest.fixture
def server(servers_path: Path) -> Iterator[Postgres]:
    """A server of one's own, whose data can be copied and put back."""
    with Postgres(servers_path / "restored", settings=FAST_AND_FORGETFUL) as made:
        yield made
        made.remove()


class Played:
    """A server with the beacon and its collector; each `epoch` writes so many rows, all named after it."""

    def __init__(self, server: Postgres, made: Bench) -> None:
        self.server = server
        self.bench = made
        self.copy = server.place.with_name("copy")
        with psycopg.connect(server.dsn(), autocommit=True) as sql:
            sql.execute("CREATE TABLE t (id bigserial PRIMARY KEY, epoch text)")
            assert install.install(sql).complete

    def write(self, epoch: str, rows: int = ROWS) -> None:
        """Write, a row a transaction."""
        with psycopg.connect(self.server.dsn(), autocommit=True, application_name=epoch) as sql:
            for _ in range(rows):
                sql.execute("INSERT INTO t (epoch) VALUES (%s)", (epoch,))

    def collected(self, epoch: str, rows: int = ROWS) -> None:
        """Run the collector until all rows of an epoch are in the topic."""
        with self.bench.running(collect, self.server.dsn()) as raised:
            self.bench.raw.wait(lambda: len(self.of(epoch)) >= rows or bool(raised), f"{rows} rows of {epoch}")
        assert raised == []

    def of(self, epoch: str) -> list[Transaction]:
        """Give the transactions of an epoch."""
        found = self.bench.raw.of(Transaction)
        return [part for part in found if part.beacons and part.beacons[0].application == epoch]

    def put_back(self) -> None:
        """Put the data folder back to what it was; the clock goes on meanwhile."""
        self.server.stop()
        shutil.rmtree(self.server.place)
        shutil.copytree(self.copy, self.server.place, symlinks=True)
        for path in (self.server.place, *self.server.place.rglob("*")):
            shutil.chown(path, self.owner, self.owner)
        latest = max(part.committed_at_us for part in self.bench.raw.of(Transaction))
        wait_for(lambda: time.time_ns() // 1_000 > latest + SKEW_US, 10, "the clock to go on")
        self.server.start()

    def keep(self) -> None:
        """Copy the data folder of the stopped server."""
        self.server.stop()
        self.owner = self.server.place.owner()
        shutil.copytree(self.server.place, self.copy, symlinks=True)
        self.server.start()


def test_nothing_is_lost_behind_a_restored_snapshot(
    server: Postgres, embedded_broker: Broker, config_factory: Callable[..., Config], tmp_path: Path
) -> None:
    """Restored while the collector was down, its memory lost too, and overtaken before it came: all lands, once."""
    config = config_factory(tmp_path, embedded_broker.bootstrap, server.dsn(), ["postgres"], extra=CLEAR)
    with bench(config) as made:
        played = Played(server, made)
        with made.running(collect, server.dsn()) as raised:
            made.raw.wait(lambda: bool(made.raw.of(Control)) or bool(raised), "the slot")
        played.write("first", 3)
        played.collected("first", 3)
        played.keep()
        played.write("before")
        played.collected("before")

        played.put_back()  # the server stands before what was confirmed
        with made.running(collect, server.dsn()) as raised:
            played.write("behind")
            made.raw.wait(lambda: len(played.of("behind")) >= ROWS or bool(raised), "rows behind the snapshot")
        assert raised == []

        played.put_back()  # the collector has forgotten everything
        shutil.rmtree(config.collectors.state_path / "wal")
        played.write("forgotten")
        played.collected("forgotten")

        played.put_back()  # the server has passed the old place when the collector comes
        played.write("passed", 2 * ROWS)
        played.collected("passed", 2 * ROWS)

        told = [gap for gap in made.raw.of(Gap) if gap.reason == "position_went_back"]
        assert [gap.detail["system_id"] for gap in told] == [played.of("before")[0].system_id]
        seen = [event for event in made.raw.seen if isinstance(event, Gap | Transaction)]
    later = Tick(captured_at_us=seen[-1].captured_at_us + 60_000_000)
    events = fold_all([*[batch(event) for event in seen], batch(later)], "rules: [{match: {role: '*'}, principal: me}]")
    changes = [event for event in events if event.kind == "change"]
    landed = {name: sum(e.n_rows for e in changes if e.application == name) for name in ("first", *EPOCHS)}
    assert landed == {"first": 3, **EPOCHS}
    assert len({event.event_id for event in events}) == len(events)
    gaps = [event for event in events if event.operation == "position_went_back"]
    assert [event.detail.get("found_by", "collector") for event in gaps] == ["collector", "worker", "worker"]


EPOCHS = {"before": ROWS, "behind": ROWS, "forgotten": ROWS, "passed": 2 * ROWS}
