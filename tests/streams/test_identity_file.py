"""The watched `identities.yaml`: what holds, what is wrong with it, and what is written into raw."""

from __future__ import annotations

from pathlib import Path

from pgwitness.core.codec import decode_raw
from pgwitness.core.events import Control
from streams.identity.file import IdentityFile, mended, refused

GOOD = "rules: [{match: {role: a}, principal: b}]"


def test_a_broken_file_keeps_the_last_good_one(tmp_path: Path) -> None:
    """Whatever becomes of the file, the last usable rules hold, and what is wrong is said until it is mended."""
    path = tmp_path / "identities.yaml"
    path.write_text(GOOD)
    watched = IdentityFile(path)
    good = watched.load()
    for content in (b"rules: 3", b"\xff\xfe", b"rules: [{match: {rolle: a}, principal: b}]"):
        path.write_bytes(content)
        assert watched.poll() is good
        assert watched.trouble is not None
        assert watched.trouble.sha256 == good.sha256
        assert watched.trouble.refused_sha256 not in (None, good.sha256)
    path.unlink()
    assert watched.poll() is good
    assert watched.trouble is not None
    assert watched.trouble.refused_sha256 is None
    path.write_text(GOOD)
    assert watched.poll().sha256 == good.sha256
    assert watched.trouble is None


def test_the_same_trouble_is_the_same_record(tmp_path: Path) -> None:
    """Workers that see one broken file say the same of it, at whatever time they look."""
    path = tmp_path / "identities.yaml"
    path.write_text(GOOD)
    workers = [IdentityFile(path), IdentityFile(path)]
    for worker in workers:
        worker.load()
    path.write_text("rules: " + "x" * 10_000)
    details = []
    for number, worker in enumerate(workers):
        worker.poll()
        assert worker.trouble is not None
        (event,) = decode_raw(refused(worker.trouble, f"w{number}", lambda n=number: 1000.0 + n)).events
        assert isinstance(event, Control)
        details.append(event.detail)
    assert details[0] == details[1]
    assert set(details[0]) == {"file", "error", "sha256", "refused_sha256"}
    assert len(str(details[0]["error"])) <= 500


def test_a_mended_file_is_evidence_without_being_a_change(tmp_path: Path) -> None:
    """A file that is as it was before says so in a record of its own."""
    path = tmp_path / "identities.yaml"
    path.write_text(GOOD)
    good = IdentityFile(path).load()
    (event,) = decode_raw(mended(good, "w", lambda: 1000.0)).events
    assert event == Control(
        captured_at_us=1_000_000_000, operation="identities_changed", detail={"sha256": good.sha256}
    )
