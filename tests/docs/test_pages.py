"""Whatever a page names of the code is there: modules, files, folders, and what their names have inside."""

from __future__ import annotations

import re
from importlib.util import find_spec, resolve_name
from pathlib import Path

import pytest

from detectors.policy.files import parse

ROOT = Path(__file__).parents[2]
ROOMS = ("collectors", "detectors", "pgwitness", "sinks", "streams", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "explanation").glob("*.md")])
NAME = re.compile(rf"`((?:{'|'.join(ROOMS)})(?:\.[A-Za-z_]\w*)+)`")
PATH = re.compile(rf"`((?:{'|'.join((*ROOMS, 'deploy', 'docs'))})(?:/[\w.-]+)+/?)`")
TOPICS_AND_SQL = re.compile(r"pgwitness\.(?!core\b|cli\b|demo\b)\w+(?:\.\w+)*")
"""In a database and in Kafka `pgwitness` is a schema, a prefix of settings and one of topics."""


def exists(name: str) -> bool:
    """Tell whether a dotted name is a module, or stands in one."""
    try:
        if find_spec(resolve_name(name, None)) is not None:
            return True
    except ModuleNotFoundError:
        pass
    module, _, attribute = name.rpartition(".")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return False
    made = re.compile(rf"^(?:(?:async )?def |class )?{attribute}\b", re.MULTILINE)
    return made.search(Path(spec.origin).read_text(encoding="utf-8")) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    """A page that was not changed with the code is found here."""
    text = page.read_text(encoding="utf-8")
    names = {name for name in NAME.findall(text) if not TOPICS_AND_SQL.fullmatch(name)}
    assert [name for name in sorted(names) if not exists(name)] == []
    assert [path for path in sorted(set(PATH.findall(text))) if not (ROOT / path).exists()] == []


def test_the_picture_shows_every_room() -> None:
    """`docs/architecture.md` leaves out no folder of the code."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {path.parent.relative_to(ROOT) for room in ROOMS[:-1] for path in (ROOT / room).glob("*/__init__.py")}
    assert [str(folder) for folder in sorted(folders) if not re.search(rf"\b{folder.name}\b", text)] == []


POLICIES = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    if re.search(r"^runbook: ", block, re.MULTILINE)
]


@pytest.mark.parametrize("block", POLICIES)
def test_a_policy_that_a_page_shows_is_one(block: str) -> None:
    """It loads as it stands, and its tests hold."""
    found = list(parse(block, "the page"))
    failures = [policy.run_case(case) for policy in found for case in policy.document.tests]
    assert found
    assert [failure for failure in failures if failure is not None] == []
