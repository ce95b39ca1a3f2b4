"""Where a query puts what does not fit into its memory: a folder that only this user may enter, gone afterwards.

The folder is locked for as long as its process lives. One that nobody holds was left by a process that was killed, and
goes when the next is made.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

PREFIX = "pgwitness-sql-"


def make() -> tuple[Path, Callable[[], None]]:
    """Make a folder; gives it, and what removes it."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        held = _hold(left)
        if held is not None:
            _remove(left, held)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        held = _hold(folder)
        if held is not None:
            return folder, partial(_remove, folder, held)
        # Somebody who cleaned up at this very moment took it for one that was left.


def _hold(folder: Path) -> int | None:
    """Lock a folder of our own; none when it is another user's, gone, or held by another."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.stat().st_uid == os.geteuid():  # and it is still there
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _remove(folder: Path, held: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(held)
