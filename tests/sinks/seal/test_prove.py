"""Bundles: what proves one event without the lake, to pgwitness and to openssl."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pgwitness.core.errors import NotInOrder
from sinks.seal import place
from sinks.seal.prove import is_bundle, prove
from sinks.seal.tlog.proof import parsed
from sinks.seal.verification.bundle import verify_bundle
from sinks.seal.verification.findings import Report
from tests.sinks.seal.material import KEY, grow, named, sealer

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "prove-a-record.md"
EVENT = f"{7:032x}-0"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a lake of some entries, sealed; and one that is not."""
    path = tmp_path_factory.mktemp("proven") / "lake"
    grow(path, range(20))
    sealer(path).round()
    grow(path, [20])
    return path


def made(lake: Path, into: Path, event_id: str = EVENT, *, row_images: bool = True) -> Path:
    """Make a bundle."""
    prove(lake, lake / place.FOLDER, KEY.public(), event_id, into, row_images=row_images)
    return into


def checked(folder: Path) -> Report:
    """Verify a bundle."""
    return verify_bundle(folder, KEY.public())


def by_hand(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run what the page says."""
    script = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL))
    return subprocess.run(
        ["sh", "-eu", "-c", script], cwd=folder, env={"KEY": KEY.public().text(), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_bundle_proves_its_event(lake: Path, tmp_path: Path) -> None:
    """It needs the key, and nothing else."""
    folder = made(lake, tmp_path / "proof")
    report = checked(folder)
    assert is_bundle(folder)
    assert report.findings == []
    assert (report.files, report.rows) == (2, 1)
    assert parsed((folder / "events.tlog-proof").read_bytes()).index == 8
    assert {path.name for path in made(lake, tmp_path / "short", row_images=False).iterdir()} == {
        "event.json", "events.entry.json", "events.parquet", "events.tlog-proof",
    }  # fmt: skip


@pytest.mark.parametrize("number", [0, 1, 7, 15, 18, 19])
def test_the_page_checks_it_by_hand(lake: Path, tmp_path: Path, number: int) -> None:
    """The commands of the page run as they stand there, at every place of a tree, and say that it is right."""
    folder = made(lake, tmp_path / "proof", f"{number:032x}-0")
    done = by_hand(folder)
    assert done.returncode == 0, done.stderr
    assert "Signature Verified Successfully" in done.stdout
    assert "the entry stands in the log that was signed" in done.stdout
    assert "events.entry.json:" in done.stdout or re.search("^[0-9a-f]{64}$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", ["events.parquet", "events.entry.json", "events.tlog-proof"])
def test_the_page_finds_what_is_altered(lake: Path, tmp_path: Path, name: str) -> None:
    """A byte of file, entry or proof is enough."""
    folder = made(lake, tmp_path / "proof")
    content = bytearray((folder / name).read_bytes())
    at = content.index(b"\n\n") + 40 if name.endswith("proof") else len(content) // 2
    content[at] ^= 1
    (folder / name).write_bytes(bytes(content))
    assert by_hand(folder).returncode != 0


def test_every_altered_byte_of_a_bundle_is_found(lake: Path, tmp_path: Path) -> None:
    """Whatever file it is in."""
    folder, chance = made(lake, tmp_path / "proof"), random.Random(5)
    for path in sorted(folder.iterdir()):
        right = path.read_bytes()
        for _ in range(25):
            content = bytearray(right)
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            path.write_bytes(bytes(content))
            assert checked(folder).findings, (path.name, bytes(content))
        path.unlink()
        assert named(checked(folder))
        path.write_bytes(right)
    (folder / "more.txt").write_text("?")
    assert named(checked(folder)) == {("added", "more.txt")}


def test_what_is_not_sealed_or_not_there_is_not_proven(lake: Path, tmp_path: Path) -> None:
    """The text says why, and nothing is left behind."""
    with pytest.raises(NotInOrder, match="is not sealed yet"):
        made(lake, tmp_path / "proof", f"{20:032x}-0")
    with pytest.raises(NotInOrder, match="the lake has no event nobody"):
        made(lake, tmp_path / "proof", "nobody")
    assert list(tmp_path.iterdir()) == []
    made(lake, tmp_path / "proof")
    with pytest.raises(NotInOrder, match="is there already"):
        made(lake, tmp_path / "proof")


def test_an_altered_file_proves_nothing(lake: Path, tmp_path: Path) -> None:
    """What is not as it was sealed goes into no bundle."""
    copy = tmp_path / "copy"
    shutil.copytree(lake, copy)
    for path in copy.glob("rows/dt=2*/*.parquet"):
        path.write_bytes(path.read_bytes().replace(b"new", b"old"))
    with pytest.raises(NotInOrder, match="was altered"):
        made(copy, tmp_path / "proof")
