"""No input fills the memory of the fold: every container is counted after a flood, whichever it is."""

from __future__ import annotations

import pytest

from pgwitness.core.events import RawBatch, RawHeader, Relation
from streams.fold import cluster, clusters, ddl_seen
from streams.fold.fold import Fold
from streams.fold.hold_buffer import COLUMN_BYTES, PART_BYTES, size_of
from streams.fold.joins import drift, log_join, log_wait, stats_join
from streams.fold.outcome import open_transactions, outcomes, step
from streams.fold.sanity import NAME_CHARS_MAX, bounded
from streams.fold.schema import functions, relations
from streams.fold.sessions import activity, handles, server_log
from streams.fold.shares import sizes, windows
from streams.identity import identities as identity
from streams.identity.identities import Identities
from tests.bench import flood
from tests.containers import beyond
from tests.streams.records import transaction

BOUND = 50
LIMITS = (
    (activity, "SESSIONS_MAX"),
    (activity, "XIDS_MAX"),
    (activity, "BEACONS_MAX"),
    (cluster, "TIMELINES_MAX"),
    (cluster, "RECENT_MAX"),
    (identity, "NAMES_MAX"),
    (functions, "FUNCTIONS_MAX"),
    (handles, "SESSIONS_MAX"),
    (handles, "NAMES_MAX"),
    (relations, "RELATIONS_MAX"),
    (relations, "PATHS_MAX"),
    (relations, "SESSIONS_MAX"),
    (log_join, "RAN_MAX"),
    (log_join, "COMMITTED_MAX"),
    (log_join, "OPEN_MAX"),
    (log_wait, "HELD_MAX"),
    (server_log, "LOGS_MAX"),
    (server_log, "NAMED_MAX"),
    (server_log, "XIDS_MAX"),
    (server_log, "CORROBORATED_MAX"),
    (sizes, "RELATIONS_MAX"),
    (windows, "WINDOWS_MAX"),
    (stats_join, "STATEMENTS_MAX"),
    (ddl_seen, "DDL_SEEN_MAX"),
    (open_transactions, "SESSIONS_MAX"),
    (step, "WAITING_MAX"),
    (outcomes, "SEEN_MAX"),
    (drift, "SEEN_MAX"),
    (drift, "RUNS_MAX"),
    (open_transactions, "COMMITTED_MAX"),
)


@pytest.fixture
def folding(monkeypatch: pytest.MonkeyPatch) -> Fold:
    """A fold whose every bound is fifty, and room for some fifty transactions that wait."""
    for module, name in LIMITS:
        monkeypatch.setattr(module, name, BOUND)
    monkeypatch.setattr(clusters, "CLUSTERS_MAX", 4)
    monkeypatch.setattr(flood, "LONG_EACH", 97)
    monkeypatch.setattr(flood, "LONG", "x" * 100_000)
    return Fold(0, Identities.parse(flood.IDENTITIES), 2_000_000, held_bytes_max=100_000)


def test_unknown_principals_fill_no_container(folding: Fold) -> None:
    """After six hundred sessions, statements and transactions that nobody saw before, nothing anywhere holds many.

    Nor is any text longer than a name may be, though some had a hundred thousand characters.
    """
    for number in range(600):
        batch = RawBatch(1, "flood", RawHeader("shop", "wal", "db:5432"), flood._raw(number))
        folding.apply(number, batch)
    assert beyond(folding, items_max=4 * BOUND, chars_max=2 * NAME_CHARS_MAX) == []


def test_many_small_transactions_wait_within_bytes(folding: Fold) -> None:
    """Of hundreds whose identity nobody tells as many wait as have room with what each costs beside its row."""
    for number in range(200):
        folding.apply(number, RawBatch(1, "flood", RawHeader("shop", "wal", "db:5432"), [transaction(10 + number)]))
    assert 0 < folding.held <= 100_000 // PART_BYTES
    assert folding.held_bytes <= 100_000


def test_clusters_without_number_are_forgotten(folding: Fold) -> None:
    """Whoever writes batches of clusters that do not exist pushes out the quietest, whose transactions go on first."""
    changes = 0
    for number in range(40):
        header = RawHeader(f"cluster-{number}" + "x" * 1_000, "wal", "db:5432")
        given = folding.apply(number, RawBatch(1, "flood", header, [transaction(10)]))
        changes += sum(event.kind == "change" for event in given)
    assert len(folding._clusters) == 4
    assert changes + folding.held == 40


def test_what_waits_is_bounded_by_what_it_costs() -> None:
    """A small row with many columns costs what it costs in memory, not what its row is long."""
    lean, wide = transaction(10), transaction(10)
    wide = type(wide)(
        **{name: getattr(wide, name) for name in wide.__struct_fields__}
        | {"relations": [Relation("public.wide", [f"column_{number}" for number in range(1_600)])]}
    )
    assert size_of(wide) - size_of(lean) > 1_500 * COLUMN_BYTES


def test_long_names_are_cut_and_stay_apart() -> None:
    """Of a name that PostgreSQL cannot have given the beginning is kept, and a hash that tells it from others."""
    one, other = (flood._raw(0)[0], flood._raw(0)[1])
    assert bounded(bounded(one)) == bounded(one)
    short = flood._raw(1)
    assert all(bounded(event) is event for event in short)
    cut = bounded(other)
    assert len(cut.role) == NAME_CHARS_MAX
    assert cut.role.startswith("r0-xxx")
    assert cut.role != cut.application
