"""The capacity page: its formula has the benches' own figures, its table is what the formula gives."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from pgwitness.cli import capacity
from pgwitness.cli.capacity import Load, plan

EXPLANATION = Path(__file__).parents[2] / "docs" / "explanation"
MEASURED = " ".join((EXPLANATION / "performance.md").read_text().split())
PAGE = (EXPLANATION / "capacity.md").read_text()
LINES = [
    Load(rows=20, statements=5, people=50),
    Load(rows=500, statements=100, passed=200, people=300),
    Load(rows=5_000, statements=500, passed=2_000, people=2_000),
    Load(rows=30_000, statements=0, people=10_000),
]


@pytest.mark.parametrize(
    ("figure", "pattern"),
    [
        (capacity.ROW_US, r"took ([\d.]+) and [\d.]+ µs of a core a row with digests in C"),
        (capacity.ROW_PLAIN_US, r"a row with digests in C, ([\d.]+) and [\d.]+ with those in Python"),
        (capacity.STATEMENT_US, r"all of it, lake included, from \d+ to (\d+)"),
        (capacity.PASSED_US * 7, r"TPC-B, seven statements \|[^|]*\|[^|]*\|[^|]*\| \| … \| \d+ \(\d+\) \| (\d+) \("),
        (capacity.PASSED_PLAIN_US * 7, r"TPC-B, seven statements \|[^|]*\|[^|]*\|[^|]*\| \| … \| (\d+) \("),
        (capacity.SHIPPED_US, r"process that ships takes \d+ to (\d+) µs a statement"),
        (capacity.EVENT_BYTES, r"rewritten, both times \| [\d.]+ MB \| ([\d.]+) MB"),
        (capacity.PROGRAM_MIB, r"About (\d+) MiB are the program"),
        (capacity.WAITING_MIB, r"`lake.flush_rows`, or (\d+) MiB"),
        (capacity.PRINCIPAL_KIB, r"took 144 MiB more, (\d+) KiB each"),
    ],
)
def test_each_figure_is_one_that_was_measured(figure: float, pattern: str) -> None:
    """Whoever measures again and writes another figure changes both, or learns of it here."""
    assert [float(found) for found in re.findall(pattern, MEASURED)] == [pytest.approx(figure)]


def test_a_room_of_strangers_is_what_a_million_took() -> None:
    """The difference between a process that knows nobody and one that a million names came to."""
    before, after = re.findall(r"from (\d+) to \d+ MiB, a million to (\d+)", MEASURED)[0]
    assert int(after) - int(before) == capacity.STRANGERS_MIB


def test_what_one_core_landed_is_planned_as_about_one_core() -> None:
    """Six measured rates, of both ways to add rows up: the plan is within a factor of two and a bit of each."""
    found = re.findall(r"landed ([\d,]+), ([\d,]+) and ([\d,]+) row changes a second with digests in C, in turns with "
                       r"([\d,]+), ([\d,]+) and ([\d,]+)", MEASURED)  # fmt: skip
    rates = [float(text.replace(",", "")) for text in found[0]]
    cores = [plan(Load(rows=rate, compiled=place < 3)).worker_cores for place, rate in enumerate(rates)]
    assert len(cores) == 6
    assert all(1 / 2.25 < each < 2.25 for each in cores), cores


def test_the_pages_table_is_what_the_formula_gives() -> None:
    """Line for line."""
    assert [line for line in PAGE.splitlines() if re.match(r"\| [\d,]+ \|", line)] == [
        f"| {' | '.join(capacity.cells(load))} |" for load in LINES
    ]


@pytest.mark.parametrize("field", ["rows", "statements", "passed", "people", "clusters", "days"])
def test_more_never_wants_less(field: str) -> None:
    """Of nothing that is planned."""
    load = LINES[1]
    before, after = plan(load), plan(replace(load, **{field: getattr(load, field) * 10}))
    small = {name: getattr(before, name) - getattr(after, name) for name in before.__struct_fields__}
    less = {name for name, difference in small.items() if difference > 0}
    assert less <= ({"worker_mib"} if after.workers > before.workers else set())
    assert after != before


def test_the_pages_command_prints_a_plan() -> None:
    """As it stands there."""
    (command,) = re.findall(r"^python -m (.*)$", PAGE, re.MULTILINE)
    done = subprocess.run([sys.executable, "-m", *command.split()], capture_output=True, text=True, check=True)
    assert re.search(r"^event partitions +\d+$", done.stdout, re.MULTILINE)
