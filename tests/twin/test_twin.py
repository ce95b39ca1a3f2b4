"""With pgwitness installed and collecting, psql prints what it prints without: PostgreSQL's own files are the judge.

`make twin` runs all files; here are those of the areas that pgwitness can touch, but for the longest.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgwitness.demo.servers import Broker
from tests.conftest import DEBIAN_BIN, leave_out
from tests.twin.differences import EXPLAINED, LEFT_OUT, listings, unexplained
from tests.twin.run import LONG, Outcome, pair, sampled_files
from tests.twin.server import FILES

pytestmark = pytest.mark.timeout(900)

COMPARED_MIN = 60
"""So few files would be no test of the application's work."""


class Run:
    """What the files of one version gave, and the events that the collector made of them."""

    def __init__(self, version: int, outcomes: list[Outcome], raw: list[dict[str, object]]) -> None:
        self.version = version
        self.outcomes = outcomes
        self.raw = raw


@pytest.fixture(scope="module", params=[18, pytest.param(15, marks=pytest.mark.debian)])
def run(request: pytest.FixtureRequest, embedded_broker: Broker) -> Iterator[Run]:
    """Run the files of one version on both servers, and let the collector read it all."""
    version: int = request.param
    if not (FILES / ".complete").exists():
        leave_out(f"PostgreSQL's regression files are not in {FILES} (run `make regress`)")
    if version == 15 and not (DEBIAN_BIN / "postgres").exists():
        leave_out(f"PostgreSQL 15 is not installed in {DEBIAN_BIN} (Debian: apt-get install postgresql-15)")
    folder = Path(tempfile.mkdtemp(prefix="pgwitness-twin-"))
    try:
        with pair(folder, version, embedded_broker, f"twin{version}.") as both:
            outcomes = list(both.run(sampled_files(version)))
            both.caught_up()
            yield Run(version, outcomes, both.raw())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_an_application_sees_no_difference(run: Run) -> None:
    """What psql prints is equal but for the listed, explained differences."""
    found = {outcome.name: outcome.unexplained[:20] for outcome in run.outcomes if outcome.unexplained}
    assert not found
    assert len(run.outcomes) >= COMPARED_MIN
    assert all(outcome.lines > 10 for outcome in run.outcomes), "a file printed nothing: it did not run"


def test_the_work_is_evidence_and_nobody_is_accused(run: Run) -> None:
    """The collector reads all that the files wrote: nothing is set aside, and no message is called forged."""
    kinds = [event.get("t", event.get("type")) for event in run.raw]
    assert len(kinds) > 1_000
    assert not [event for event in run.raw if event.get("forged")]
    reasons = {str(event["reason"]) for event in run.raw if "reason" in event}
    assert not {reason for reason in reasons if reason.endswith("_unreadable")}


def test_every_explanation_is_of_a_file_that_is_compared() -> None:
    """No explanation outlives its file."""
    assert not {name for name in EXPLAINED if name in LEFT_OUT or name in LONG}
    assert set(EXPLAINED) <= {name for version in (15, 18) for name in sampled_files(version)} or not FILES.exists()


def test_a_listing_is_compared_by_its_cells() -> None:
    """Our rows are taken out of a listing, with what they change of its widths and its count; a foreign one stays."""
    plain = ["  tgname  | n ", "----------+---", " theirs   | 1 ", "(1 row)", ""]
    ours = [
        " tgname           | n ",
        "------------------+---",
        " pgwitness_beacon | 1 ",
        " theirs | 1 ",
        "(2 rows)",
        "",
    ]
    assert list(listings(plain)) == list(listings(ours))
    assert unexplained("x", plain, [*ours[:2], " other | 1 ", *ours[3:]])


@pytest.mark.parametrize("heading", ["Triggers firing always:", "Publications:"])
def test_our_entries_in_a_description_go_with_their_heading(heading: str) -> None:
    """A heading stays where something else stands under it, and nothing that is not ours goes."""
    entry = {
        "Triggers firing always:": "    pgwitness_beacon AFTER INSERT OR UPDATE ON t FOR EACH STATEMENT EXECUTE ...",
        "Publications:": '    "pgwitness_inserts"',
    }[heading]
    other = "    something else"
    assert unexplained("x", ["before"], ["before", heading, entry]) == []
    assert unexplained("x", ["before", heading, other], ["before", heading, entry, other]) == []
    assert unexplained("x", ["before"], ["before", heading, other]) != []
    assert re.match(r"[+-]", unexplained("x", ["before"], ["after"])[0])
