"""What an operating system or a storage refuses a lake, as a `Retry` that says what to do."""

from __future__ import annotations

import errno
from pathlib import PurePath

from pgwitness.core.errors import Retry
from sinks.lake.storage.refusals import Refused

_ADVICE = {
    errno.ENOSPC: "the disk is full: make room or move the lake",
    errno.EDQUOT: "the quota is used up: raise it or move the lake",
    errno.EACCES: "give the worker's user the right to write there",
    errno.EPERM: "give the worker's user the right to write there, on a file system that has hard links",
    errno.EROFS: "the file system is mounted read-only: mount it for writing",
    errno.ENOTSUP: "the file system has no hard links: put the lake on one that has",
}


class Troubles:
    """Turns an `OSError` inside of the block into a `Retry`; `again` says what becomes of what was to be done."""

    def __init__(self, path: PurePath, again: str = "the worker tries again") -> None:
        self._path = path
        self._again = again

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            if isinstance(error, Refused):
                advice = error.advice
            else:
                advice = _ADVICE.get(error.errno or 0, "look at the disk and its mount")
            raise Retry(
                f"the lake {self._path} could not be written ({error}): {advice}; nothing is lost, {self._again}"
            ) from error
