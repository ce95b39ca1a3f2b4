"""Retention and holds: what is over goes as whole files, what is held stays, and the log says both for ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgwitness.core.errors import NotInOrder
from sinks.lake.compaction.clock import AHEAD_US, believed_us
from sinks.lake.compaction.plan import Sizes
from sinks.lake.compaction.retainer import Ended, Retainer
from sinks.lake.compaction.retention import Terms, due, portions
from sinks.lake.log import chain, layout
from sinks.lake.log.chain import File, Land, Retire, Retired
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder
from tests.sinks.material import DAY_US, NOON_US, entries
from tests.sinks.test_compaction import compactor, contents, fill, live

DAY_S = 86_400.0
LATER_US = NOON_US + 500 * DAY_US
"""When something landed last."""
YEAR = Terms({"events": 365 * DAY_S, "rows": 90 * DAY_S, "alerts": 365 * DAY_S})


def retainer(path: Path, now_us: int, terms: Terms = YEAR, **more: Any) -> Retainer:
    """Make a retainer whose clock stands still."""
    return Retainer(path, Folder(path, Files()), terms=terms, clock_us=lambda: now_us, **more)


def tables(path: Path) -> set[str]:
    """Name the tables of which something counts."""
    return {file.table for file in live(path)}


def test_what_is_older_than_its_table_is_kept_for_goes(tmp_path: Path) -> None:
    """Row images first; each file's hash and rows stay in the log, with the reason; the files go after the grace."""
    fill(tmp_path, 6, landed_us=LATER_US)
    known = {file.path: file for file in live(tmp_path)}
    assert retainer(tmp_path, NOON_US + 90 * DAY_US).run() == Ended()
    done = retainer(tmp_path, NOON_US + 92 * DAY_US).run()
    assert (done.retired, done.removed) == (6, 0)
    assert tables(tmp_path) == {"events", "alerts"}
    (retire,) = (entry for entry in entries(tmp_path) if isinstance(entry, Retire))
    assert retire.reason == "rows: kept for 90 days"
    assert all(known[one.path].sha256 == one.sha256 and known[one.path].rows == one.rows for one in retire.removes)
    assert retainer(tmp_path, NOON_US + 93 * DAY_US).run().removed == 6
    assert not list(tmp_path.glob("rows/dt=2026*/*.parquet"))
    assert retainer(tmp_path, NOON_US + 400 * DAY_US).run().retired == 12
    assert live(tmp_path) == []
    assert contents(tmp_path) == {"events": [], "rows": [], "alerts": []}


def test_without_terms_everything_stays(tmp_path: Path) -> None:
    """For ever."""
    fill(tmp_path, 2, landed_us=LATER_US)
    assert retainer(tmp_path, NOON_US + 9_000 * DAY_US, Terms()).run() == Ended()


def test_a_clock_that_is_years_ahead_ends_nothing(tmp_path: Path) -> None:
    """What is over is so by the lake's own time: at most a week after its last commit."""
    fill(tmp_path, 2, landed_us=NOON_US)
    assert retainer(tmp_path, NOON_US + 9_000 * DAY_US).run() == Ended()
    weeks = Terms({"events": 5 * DAY_S})
    assert retainer(tmp_path, NOON_US + 9_000 * DAY_US, weeks).run().retired == 2


def land(path: Path, *days: float) -> None:
    """Land something at these days behind the first, by the clock of worker and collector alike."""
    for day in days:
        fill(path, 1, landed_us=int(NOON_US + day * DAY_US))


@pytest.mark.parametrize("wrong", [(365.0,), (365.0, 365.6), (365.0, 0.5), (-400.0,)])
def test_a_clock_of_the_whole_host_that_jumps_ends_nothing(tmp_path: Path, wrong: tuple[float, ...]) -> None:
    """The last commit says then what the clock says; the days before it do not."""
    land(tmp_path, 0, 1, 2, 3, *wrong)
    weeks = Terms({"events": 30 * DAY_S})
    assert retainer(tmp_path, NOON_US + 366 * DAY_US, weeks).run() == Ended()
    land(tmp_path, 366, 367, 368)  # three days on, nobody calls it wrong
    assert retainer(tmp_path, NOON_US + 369 * DAY_US, weeks).run().retired > 0


@given(
    st.lists(st.integers(0, 5_000), min_size=1, max_size=60).map(sorted),
    st.integers(0, 3_000),
    st.integers(1, 40),
)
def test_one_wrong_day_never_lets_time_go_on(hours: list[int], jump_days: int, commits: int) -> None:
    """However much landed on it, and however long nothing had landed before."""
    right = [NOON_US + hour * 3_600_000_000 for hour in hours]
    wrong = [right[-1] + jump_days * DAY_US + number for number in range(commits)]
    log = Entries([*right, *wrong])
    found = believed_us(log, len(right) + commits - 1, wrong[-1])
    assert found <= max(right[-1] + AHEAD_US, min(wrong[-1], right[-1] + AHEAD_US))
    assert found <= wrong[-1]


def test_a_worker_that_lands_every_minute_has_the_clock(tmp_path: Path) -> None:
    """Few of a hundred thousand entries are looked at."""
    log = Entries([NOON_US + number * 60_000_000 for number in range(100_000)])
    now_us = NOON_US + 100_000 * 60_000_000
    assert believed_us(log, 99_999, now_us) == now_us
    assert log.reads < 100


class Entries:
    """A log of commits at these times."""

    def __init__(self, times_us: list[int]) -> None:
        self._times_us = times_us
        self.reads = 0

    def read(self, name: str) -> bytes | None:
        """Give an entry."""
        self.reads += 1
        number = int(name.removeprefix("_log/").removesuffix(".json").replace("/", ""))
        return chain.encode(Land(number=number, predecessor="", at_us=self._times_us[number], ranges=[], files=[]))[0]

    def names(self, folder: str) -> list[str]:
        """Nobody asks."""
        raise AssertionError(folder)


def test_what_is_held_after_it_was_retired_is_not_deleted(tmp_path: Path) -> None:
    """It counts no more, but whoever holds it may still have it."""
    fill(tmp_path, 4, landed_us=LATER_US)
    assert retainer(tmp_path, NOON_US + 400 * DAY_US).run().retired == 12
    name = retainer(tmp_path, NOON_US + 400 * DAY_US).hold("ada", "a court", first_day="2026-09-22")
    late = NOON_US + 401 * DAY_US
    assert retainer(tmp_path, late).run().removed == 0
    assert compactor(tmp_path, late).run().removed == 0
    retainer(tmp_path, late).release(name, "ada", "it is over")
    assert retainer(tmp_path, late).run().removed == 12


@pytest.mark.parametrize("text", ["x" * 70_000, "no \udcff"])
def test_a_reason_that_no_entry_takes_is_refused(tmp_path: Path, text: str) -> None:
    """An entry that is too long could never be sealed, nor could any behind it."""
    fill(tmp_path, 1)
    before = entries(tmp_path)
    one = retainer(tmp_path, LATER_US)
    with pytest.raises(NotInOrder, match=r"bytes at most|not Unicode"):
        one.hold("ada", text)
    name = one.hold("ada", "a court")
    with pytest.raises(NotInOrder, match=r"bytes at most|not Unicode"):
        one.release(name, "ada", text)
    assert len(entries(tmp_path)) == len(before) + 1


def test_what_one_entry_retires_fits_into_it() -> None:
    """However long the topic's name is, which stands in the paths of version 0.1."""
    files = [
        File("events", f"events/dt=2026-09-22/{'t' * 240}-{number:020d}.parquet", 10**9, 1, "f" * 64, 2)
        for number in range(1_000)
    ]
    parts = list(portions(files))
    assert [file for part in parts for file in part] == files
    for part in parts:
        removes = [Retired(file.path, file.sha256, file.rows) for file in part]
        chain.encode(Retire(number=10**12 - 1, predecessor="f" * 64, at_us=10**17, removes=removes, reason="r" * 99))


def test_a_kind_that_is_kept_less_long_has_files_of_its_own(tmp_path: Path) -> None:
    """When its month is over; then it goes by itself, and no row of another kind with it."""
    fill(tmp_path, 20, days=3, landed_us=LATER_US)
    before = contents(tmp_path)
    compactor(tmp_path, NOON_US + 60 * DAY_US, sizes=Sizes(apart=("session",), file_bytes=20_000)).run()
    assert contents(tmp_path) == before
    for file in live(tmp_path):
        if file.table == "events":
            kinds = set(pq.ParquetFile(tmp_path / file.path).read(["kind"]).column(0).to_pylist())
            assert kinds == {"session"} if layout.kind_in(file.path) == "session" else "session" not in kinds
    terms = Terms({"events": 365 * DAY_S}, {"session": 30 * DAY_S})
    assert retainer(tmp_path, NOON_US + 60 * DAY_US, terms).run().retired == 1
    left = [row for row in before["events"] if json.loads(row)["kind"] != "session"]
    assert contents(tmp_path)["events"] == left


def test_a_month_with_one_file_is_parted_too(tmp_path: Path) -> None:
    """Or its kind would never go."""
    fill(tmp_path, 1, landed_us=LATER_US)
    compactor(tmp_path, NOON_US + 60 * DAY_US, sizes=Sizes(apart=("session",))).run()
    assert {layout.kind_in(file.path) for file in live(tmp_path) if file.table == "events"} == {"session", None}
    assert compactor(tmp_path, NOON_US + 60 * DAY_US, sizes=Sizes(apart=("session",))).run().jobs == 0


def test_what_is_held_does_not_go_until_it_is_released(tmp_path: Path) -> None:
    """Of days, and of all."""
    fill(tmp_path, 8, days=2, landed_us=LATER_US)
    one = retainer(tmp_path, NOON_US + 500 * DAY_US)
    name = one.hold("ada", "case 7", first_day="2026-09-23", last_day="2026-12-31")
    assert [hold.why for hold in one.holds()] == ["case 7"]
    one.run()
    assert {file.days[0] for file in live(tmp_path)} == {"2026-09-23"}
    with pytest.raises(NotInOrder, match=f"those that stand: {name}"):
        one.release("other", "ada", "closed")
    one.release(name, "ada", "closed")
    one.run()
    assert live(tmp_path) == []


def test_a_hold_of_a_principal_keeps_every_row_and_lets_files_be_compacted(tmp_path: Path) -> None:
    """What others did on their behalf may be anywhere; no name stands in the log."""
    fill(tmp_path, 20, days=3, landed_us=LATER_US)
    one = retainer(tmp_path, NOON_US + 500 * DAY_US, Terms({"events": 30 * DAY_S}))
    name = one.hold("me", "case", principal="tok_0123")
    before = contents(tmp_path)
    assert compactor(tmp_path, NOON_US + 60 * DAY_US, sizes=Sizes(file_bytes=15_000)).run().jobs
    assert one.run().retired == 0
    assert contents(tmp_path) == before
    texts = [path.read_bytes() for path in tmp_path.glob("_*/**/*.json")]
    assert not any(name in text for text in texts for name in (b'"ada"', b"erika", b"support-agent"))
    one.release(name, "me", "closed")
    assert one.run().retired > 0


def test_a_hold_of_a_relation_keeps_everything_of_its_days(tmp_path: Path) -> None:
    """No file says which relations it has."""
    fill(tmp_path, 4, days=2, landed_us=LATER_US)
    one = retainer(tmp_path, NOON_US + 500 * DAY_US)
    one.hold("me", "case", relation="public.orders", last_day="2026-09-22")
    one.run()
    assert {file.days[0] for file in live(tmp_path)} == {"2026-09-22"}


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [("2026-9-1", None, "is no day"), ("2026-02-30", None, "is no day"), ("2026-09-02", "2026-09-01", "comes after")],
)
def test_a_hold_of_no_days_is_refused(tmp_path: Path, first: str, last: str | None, said: str) -> None:
    """It would hold something else than was meant, for ever."""
    fill(tmp_path, 1, landed_us=LATER_US)
    with pytest.raises(NotInOrder, match=said):
        retainer(tmp_path, NOON_US).hold("me", "case", first_day=first, last_day=last)


@pytest.mark.parametrize(
    ("path", "last_day"),
    [
        ("events/month=2026-02/part-x.parquet", "2026-02-28"),
        ("events/month=2024-02/part-x.parquet", "2024-02-29"),
        ("events/month=2026-12/part-x.parquet", "2026-12-31"),
        ("events/dt=2026-01-31/x.parquet", "2026-01-31"),
        ("events/dt=2026-01-30/x.parquet", "2026-01-30"),
        ("events/dt=9999-12-31/x.parquet", None),
    ],
)
def test_a_file_is_kept_from_the_end_of_its_last_day(path: str, last_day: str | None) -> None:
    """Of a month, that of the month; what has no end stays."""
    from datetime import UTC, datetime

    file = File("events", path, 1, 1, "", 4)
    terms = Terms({"events": 10 * DAY_S})
    if last_day is None:
        assert due([file], lambda file: False, 2**62, terms) == {}
        return
    end_us = int(datetime.fromisoformat(last_day).replace(tzinfo=UTC).timestamp() * 1e6) + 11 * DAY_US
    assert due([file], lambda file: False, end_us - 1, terms) == {}
    assert due([file], lambda file: False, end_us, terms) == {"events: kept for 10 days": [file]}
    assert due([file], lambda file: True, end_us, terms) == {}


@given(st.sampled_from(["change", "session", "query_stats"]), st.booleans())
def test_the_kind_in_a_name_is_the_one_that_it_was_given(kind: str, buckets: bool) -> None:
    """With and without a bucket."""
    path = layout.month_path("events", "2026-09", (3, 8) if buckets else None, "0" * 32, kind)
    assert layout.kind_in(path) == kind
    assert layout.bucket_in(path) == ((3, 8) if buckets else None)
    assert layout.table_of(path) == "events"
    assert layout.kind_in(layout.month_path("events", "2026-09", None, "0" * 32)) is None
