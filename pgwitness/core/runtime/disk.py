"""Small files that are written whole or not at all, and what to do when the operating system refuses.

A full disk, a right that was taken away, no descriptor left: none of them says anything about what a file holds. So
they are a `Retry` with what to do about it, for reading as for writing, and only a file that was read can be damaged.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pgwitness.core.errors import Retry

_ADVICE = {
    errno.ENOSPC: "the disk is full: make room there",
    errno.EDQUOT: "the quota is used up: raise it or make room",
    errno.EACCES: "give this process's user the right to it",
    errno.EPERM: "give this process's user the right to it",
    errno.EROFS: "the file system is mounted read-only: mount it for writing",
    errno.EMFILE: "this process may open no more files: raise its limit (LimitNOFILE, ulimit -n)",
    errno.ENFILE: "this machine may open no more files: raise fs.file-max, or see which process holds them",
    errno.ENOTDIR: "something on the way there is no folder: correct the path or what stands there",
}


def advice(error: OSError) -> str:
    """Say what an operator does about an error of the operating system."""
    if isinstance(error, ConnectionError | TimeoutError):
        return "check that the servers run and can be reached from this host"
    return _ADVICE.get(error.errno or 0, "look at the disk and its mount")


def moment(error: OSError) -> str:
    """Say what the operating system refused somewhere, and what to do; of the error's text nothing but its name."""
    return f"the operating system refuses ({error.strerror or type(error).__name__}): {advice(error)}"


def refused(path: Path, doing: str, error: OSError) -> Retry:
    """Say what could not be done with a file ("written", "read"), why, and what to do."""
    return Retry(f"{path} cannot be {doing} ({error.strerror or error}): {advice(error)}; it is tried again")


def read_whole(path: Path) -> bytes | None:
    """Read a file; None when there is none. Raise `Retry` when the operating system refuses."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refused(path, "read", error) from error


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replace a file, readable by its owner only; a crash leaves the old one or the new one.

    Raise `Retry` when the operating system refuses; what was there stays.
    """
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)  # what a crash left may be open to others
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(descriptor)
        fresh.replace(path)
    except OSError as error:
        raise refused(path, "written", error) from error
