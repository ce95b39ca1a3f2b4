"""Names of files: what they say of days and buckets, the same to pgwitness and to DuckDB."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.lake.log import chain, layout
from sinks.lake.log.chain import File, Hold
from sinks.lake.log.layout import BUCKETS_MAX, Level


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_principals_bucket_is_the_one_that_duckdb_computes(principal: str) -> None:
    """Whatever the name is, so that plain DuckDB opens the right files."""
    found = duckdb.execute("SELECT md5_number_lower(?) % ?", [principal, BUCKETS_MAX]).fetchall()
    assert found == [(layout.bucket_of(principal, BUCKETS_MAX),)]


@pytest.mark.parametrize("count", [1, 2, 8, 64])
def test_the_bucket_in_a_name_is_passed_over_for_no_principal_that_it_has(count: int) -> None:
    """A file that holds a principal is in the list of that principal's bucket, whatever number of buckets it has."""
    for name in (None, "ada", "erika", "support-agent", "ü"):
        path = layout.month_path("events", "2026-09", (layout.bucket_of(name, count), count), "x")
        assert layout.may_hold(layout.bucket_in(path), layout.bucket_of(name, BUCKETS_MAX))
        assert layout.bucket_in(path) == (layout.bucket_of(name, count), count)
    assert layout.may_hold(layout.bucket_in("events/month=2026-09/part-x.parquet"), 5)


def test_a_file_says_how_far_it_has_been_compacted() -> None:
    """By its name alone, so that a plan needs nothing but the log."""
    named = {
        "events/dt=2026-09-22/0a1b.parquet": Level.LANDED,
        layout.day_path("events", "2026-09-22", Level.MERGED, "x"): Level.MERGED,
        layout.day_path("rows", "2026-09-22", Level.DAY, "x"): Level.DAY,
        layout.month_path("alerts", "2026-09", None, "x"): Level.MONTH,
    }
    assert {path: layout.level_of(path) for path in named} == named
    assert all(chain.is_own(File(path.split("/")[0], path, 1, 1, "", 3)) for path in named)


@pytest.mark.parametrize(
    "path",
    [
        "events/month=2026-9/x.parquet",
        "events/month=2026-09/a/x.parquet",
        "events/month=2026-09/../x.parquet",
        "events/dt=2026-09/x.parquet",
        "events/month=2026-09-22/x.parquet",
        "elsewhere/month=2026-09/x.parquet",
    ],
)
def test_what_lies_elsewhere_is_no_file_of_a_lake(path: str) -> None:
    """No entry brings it in."""
    assert not chain.is_own(File(path.split("/")[0], path, 1, 1, "", 3))


@pytest.mark.parametrize(
    ("first", "last", "held"),
    [
        ("2026-09-30", "2026-10-02", True),
        ("2026-08-01", "2026-09-01", True),
        ("2026-10-01", None, False),
        (None, "2026-08-31", False),
        (None, None, True),
    ],
)
def test_a_hold_of_a_single_day_holds_the_month_that_has_it(first: str | None, last: str | None, held: bool) -> None:
    """Files go as a whole."""
    hold = Hold(number=1, predecessor="", at_us=0, id="h", by="me", why="case", first_day=first, last_day=last)
    month = File("events", "events/month=2026-09/part-x.parquet", 1, 1, "", 3)
    assert hold.covers(*month.days) == held
