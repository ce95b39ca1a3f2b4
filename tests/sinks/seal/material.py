"""What the tests of the seal are made of: a small lake of real commits, a key, and the sealer over both."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from pgwitness.core.events import Event
from sinks.lake.log.chain import Entry, Hold, Release, State
from sinks.lake.log.on_store import Log
from sinks.lake.log.protocol import Attempt
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder
from sinks.lake.writer import Lake
from sinks.seal import place
from sinks.seal.keys import Signer
from sinks.seal.sealer import Sealer
from sinks.seal.tlog.note import PrivateKey
from sinks.seal.verification.findings import Report
from sinks.seal.verification.verify import Wanted, verify
from tests.sinks.material import NOON_US, ORDINARY, change

KEY = PrivateKey("example.com/lake", bytes(range(32)))
OTHER_KEY = PrivateKey("example.com/lake", bytes(range(1, 33)))


def grow(path: Path, commits: Iterable[int], *, clock_us: int = NOON_US) -> None:
    """Land a commit with one transaction for each of these numbers, one behind the other."""
    lake = Lake(path, clock_us=lambda: clock_us)
    writer = lake.writer("events", 0)
    end, _ = writer.resume()
    for offset, number in enumerate(commits, end):
        events: list[Event] = [change(number)]
        writer.append(offset, events, [ORDINARY])
        writer.commit()


def append(lake: Path, make: Callable[[State], Entry]) -> None:
    """Put an entry behind the last one."""
    log = Log(Folder(lake, Files()))
    log.refresh()
    log.append(make, Attempt())
    log.publish()


def pad(path: Path, pairs: int) -> None:
    """Put cheap entries behind the last one: a hold and its release, so many times."""
    log = Log(Folder(path, Files()))
    log.refresh()
    for _ in range(pairs):
        name = f"pad {log.state.number}"
        log.append(hold(name), Attempt())
        log.append(release(name), Attempt())
    log.publish()


def hold(name: str) -> Callable[[State], Entry]:
    """Make a hold of days that nothing is of."""
    return lambda state: Hold(
        number=state.number + 1, predecessor=state.sha256, at_us=NOON_US, id=name, by="ada", why="a court",
        first_day="2020-01-01", last_day="2020-01-02",
    )  # fmt: skip


def release(name: str) -> Callable[[State], Entry]:
    """Make the end of a hold."""
    return lambda state: Release(
        number=state.number + 1, predecessor=state.sha256, at_us=NOON_US, id=name, by="ada", why="it is over"
    )


def sealer(path: Path, memory: Path | None = None, key: PrivateKey = KEY, files: Files | None = None) -> Sealer:
    """Give a sealer, as a process that has just started."""
    return Sealer(
        Folder(path, Files()),
        place.seal_store(path / place.FOLDER, files),
        Folder(memory or path.parent / "memory", files or Files()),
        Signer(key.public(), key.sign),
    )


def checkpoint(path: Path) -> bytes:
    """Read the checkpoint of a lake."""
    return (path / place.FOLDER / place.CHECKPOINT).read_bytes()


def verified(path: Path, *remembered: bytes, now_us: int = NOON_US, lag_us: int = 0, rows: bool = False) -> Report:
    """Verify a lake, against these checkpoints."""
    known = tuple((f"remembered {number}", content) for number, content in enumerate(remembered))
    return verify(path, Wanted(KEY.public(), now_us, remembered=known, unanchored=not known, lag_us=lag_us, rows=rows))


def named(report: Report) -> set[tuple[str, str]]:
    """List what was found: kind and subject."""
    return {(finding.kind, finding.subject) for finding in report.findings}
