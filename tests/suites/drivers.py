"""Test suites of Python's drivers, as pytest runs them: each test's outcome directly and through the gateway."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from msgspec import Struct

from tests.suites.explained import why
from tests.suites.ways import Way

FETCHED = Path(__file__).parents[2] / ".suites"
"""Where `make suites` puts what it fetches."""
PYTHON = FETCHED / "py" / "bin" / "python"
SECONDS_MAX = 3_000


@dataclass(frozen=True)
class Suite:
    """A suite: where its tests lie, what pytest is told, and what it finds the server by."""

    name: str
    folder: Path
    arguments: Callable[[Way], list[str]]
    environment: Callable[[Way], Mapping[str, str]] = lambda _: {}


class Compared(Struct, frozen=True):
    """What came of a suite: tests that ran, outcomes directly, and what is otherwise, with the reason if any."""

    tests: int
    outcomes: dict[str, int]
    differing: dict[str, tuple[str, str, str | None]]


SUITES = {
    "psycopg": Suite(
        "psycopg",
        FETCHED / "psycopg",
        lambda way: ["tests", "-m", "not slow", "--test-dsn", way.dsn, "--ignore=tests/test_typing.py"],
    ),
    "asyncpg": Suite(
        "asyncpg",
        FETCHED / "asyncpg",
        lambda _: ["tests"],
        lambda way: {
            "PGHOST": way.host, "PGPORT": str(way.port), "PGUSER": way.user, "PGPASSWORD": way.password,
            "PGDATABASE": way.database, "PGSSLMODE": "disable",
        },
    ),
}  # fmt: skip


def run(suite: Suite, way: Way, folder: Path, named: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Run a suite one way; gives each test's outcome with the first words of why."""
    report = folder / f"{suite.name}-{way.name}.xml"
    arguments = suite.arguments(way)
    if named:
        arguments = [*(f"tests/{name}" for name in named), *arguments[1:]]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    with (folder / f"{suite.name}-{way.name}.log").open("w") as log:
        subprocess.run(
            [str(PYTHON), "-m", "pytest", "-q", "--cache-clear", f"--junitxml={report}", *arguments],
            cwd=suite.folder, env={**environment, **suite.environment(way)}, stdout=log, stderr=log,
            timeout=SECONDS_MAX, check=False,
        )  # fmt: skip
    if not report.exists():
        raise RuntimeError(f"{suite.name} has not run:\n{Path(log.name).read_text()[-3000:]}")
    return dict(map(_outcome, ElementTree.parse(report).iter("testcase")))


def _outcome(case: ElementTree.Element) -> tuple[str, tuple[str, str]]:
    name = f"{case.get('classname')}::{case.get('name')}"
    for kind in ("failure", "error", "skipped"):
        found = case.find(kind)
        if found is not None:
            return name, (kind, (found.get("message") or "").strip())
    return name, ("passed", "")


def compare(suite: str, direct: Mapping[str, tuple[str, str]], through: Mapping[str, tuple[str, str]]) -> Compared:
    """Compare outcomes, test by test."""
    counted: dict[str, int] = {}
    differing: dict[str, tuple[str, str, str | None]] = {}
    for name in sorted({*direct, *through}):
        one, other = direct.get(name, ("absent", "")), through.get(name, ("absent", ""))
        counted[one[0]] = counted.get(one[0], 0) + 1
        if one[0] != other[0]:
            said = f"{one[0]} directly, {other[0]} through the gateway"
            words = other[1] or one[1]
            differing[name] = (said, words, why(suite, name, words))
    return Compared(len(direct), counted, differing)
