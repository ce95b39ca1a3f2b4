"""What a changed row costs from a decoded batch to Parquet bytes: `python -m tests.bench.columns`.

Prints microseconds a row for transactions of 1 to 10,000 rows by 1 to 10,000 principals; decoding the rows, columns
and Parquet together, without the disk; and beside that the digests of `events` and `rows`, as they are computed here
and by hashlib, in turns. `--profile` shows where the time goes.
"""

from __future__ import annotations

import cProfile
import gc
import pstats
import sys
import time
from collections.abc import Iterator
from unittest.mock import patch

import msgspec
from msgspec import Raw, Struct

from pgwitness.core.events import Event, Position, Relation, Row
from sinks.lake.rows import digest, native, parquet
from sinks.lake.rows.columns import Columns

ROWS = 100_000
BATCH_ROWS = 500
PART_ROWS_MAX = 1_000


class Judgement(Struct, frozen=True):
    """A verdict with nothing to say but a score, as most are."""

    policies: tuple[str, ...] = ()
    anomaly: float | None = 0.25
    reasons: tuple[dict[str, object], ...] = ()
    alerts: tuple[()] = ()


def events(rows_per_transaction: int, principals: int, rows: int = ROWS) -> Iterator[Event]:
    """Make transactions of updates with two masked texts, by so many principals in turn."""
    relation = Relation("public.orders", ["id", "status", "name", "note", "amount", "changed_at"], beacon=True)
    number = 0
    ordinal_of_all = 0
    while ordinal_of_all < rows:
        number += 1
        who = number % principals
        first = 0
        while first < rows_per_transaction:
            n_rows = min(PART_ROWS_MAX, rows_per_transaction - first)
            images = msgspec.json.encode([_row(first + place, ordinal_of_all + place) for place in range(n_rows)])
            yield Event(
                kind="change",
                event_id=f"{number:032x}",
                at=Position(0, number, first),
                occurred_at_us=1_790_000_000_000_000 + number,
                captured_at_us=1_790_000_000_100_000 + number,
                cluster="shop",
                database="shop",
                principal=f"agent:{who}",
                principal_kind="agent",
                on_behalf_of="erika@example.org",
                peer_group="agents",
                binding="beacon",
                certainty="exact",
                assurance="asserted",
                identity_rule="agents",
                role="app",
                effective_role="app",
                application=f"agent-{who}",
                client_addr="10.0.0.7",
                client_port=40_000 + who,
                pid=1_000 + who,
                session_id=f"db:5432/6a000000.{who:x}",
                xid=10_000 + number,
                lsn=(22 << 32) + number * 100,
                part=first // PART_ROWS_MAX,
                last=first + n_rows == rows_per_transaction,
                first_ordinal=first,
                n_rows=n_rows,
                relation_table=[relation],
                rows=Raw(images),
            )
            first += n_rows
            ordinal_of_all += n_rows


def _row(ordinal: int, key: int) -> Row:
    token = f"tok_{key * 2_654_435_761 % 2**128:032x}"
    after = {"id": key, "status": "paid", "name": token, "note": token[::-1], "amount": key / 100, "changed_at": None}
    return Row(
        ordinal,
        "u",
        0,
        Raw(msgspec.json.encode({"id": key})),
        ["status", "name"],
        Raw(msgspec.json.encode({"id": key})),
        Raw(msgspec.json.encode(after)),
    )


def batches(made: list[Event]) -> list[list[Event]]:
    """Cut events into batches as they come from the topic: decoded anew, so that no text is shared."""
    decoder = msgspec.json.Decoder(list[Event])
    cut: list[list[Event]] = [[]]
    held = 0
    for event in made:
        if held + event.n_rows > BATCH_ROWS and cut[-1]:
            cut.append([])
            held = 0
        cut[-1].append(event)
        held += event.n_rows
    return [decoder.decode(msgspec.json.encode(batch)) for batch in cut]


def land(cut: list[list[Event]]) -> tuple[int, int]:
    """Do what a writer does between the topic and the disk, without digests; gives rows and bytes."""
    columns = _columns(cut)
    size = sum(len(parquet.encode(table)) for table in columns.tables().values())
    return columns.rows, size


def _columns(cut: list[list[Event]]) -> Columns:
    columns = Columns()
    for batch in cut:
        columns.add(batch, [Judgement()] * len(batch))
    return columns


def digests(cut: list[list[Event]], runs: int = 3) -> list[float]:
    """Give the least seconds that the digests of what lands take, as it is done here and by hashlib."""
    tables = _columns(cut).tables()
    taken: list[list[float]] = [[], []]
    for run in range(2 * runs):
        with patch.object(native, "way", (lambda: None) if run % 2 else native.way):
            start = time.process_time()
            for (name, _), table in tables.items():
                digest.of(table, name)
            taken[run % 2].append(time.process_time() - start)
    return [min(each) for each in taken]


def main() -> None:
    """Print the table."""
    if "--profile" in sys.argv:
        cut = batches(list(events(1, 200)))
        profile = cProfile.Profile()
        profile.runcall(land, cut)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return
    print(f"{'rows/tx':>8} {'principals':>10} {'µs/row':>8} {'digests':>8} {'hashlib':>8} {'bytes/row':>10}")
    for rows_per_transaction in (1, 10, 100, 10_000):
        for principals in (1, 200, 10_000):
            cut = batches(list(events(rows_per_transaction, principals)))
            gc.collect()
            gc.freeze()  # the batches waiting here are the benchmark's, not a writer's
            best, rows, size = float("inf"), 0, 0
            for _ in range(3):
                start = time.process_time()
                rows, size = land(cut)
                best = min(best, time.process_time() - start)
            here, by_hashlib = (seconds / rows * 1e6 for seconds in digests(cut))
            figures = f"{best / rows * 1e6:>8.2f} {here:>8.2f} {by_hashlib:>8.2f} {size / rows:>10.1f}"
            print(f"{rows_per_transaction:>8} {principals:>10} {figures}")


if __name__ == "__main__":
    main()
