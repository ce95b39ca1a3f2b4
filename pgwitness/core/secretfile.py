"""Secrets that stand in files of their own: of deliveries, responses, anchors, and the keys of tokens."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgwitness.core.errors import ConfigurationError


def secret(path: Path, where: str) -> bytes:
    """Read a secret from its file. Raise `ConfigurationError`."""
    try:
        content = path.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(f"{where}: {path}: {error.strerror}") from error
    if not content:
        raise ConfigurationError(f"{where}: {path} is empty")
    return content


def address(where: str, url: str, url_file: Path | None) -> str:
    """Give an address that may be a secret, and then stands in a file. Raise `ConfigurationError` when it is none."""
    found = secret(url_file, f"{where}.url_file").decode() if url_file is not None else url
    if not found.startswith(("https://", "http://")):
        raise ConfigurationError(f"{where}: url, or url_file with an address that begins with https://")
    return found


def put(path: Path, text: str) -> None:
    """Put a secret in the place of another one, durably: whatever happens, the one or the other is there, whole.

    Only its owner may read it; that stays who it was, since root may have run the command. Raise `OSError`.
    """
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        staged.unlink(missing_ok=True)
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if path.exists():
                known = path.stat()
                os.fchown(file.fileno(), known.st_uid, known.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        staged.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError:
        staged.unlink(missing_ok=True)
        raise


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Be the only one who changes a secret: of two at once one would undo what the other did. Raise `OSError`."""
    descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        if os.geteuid() == 0:  # root may have come first, and its owner comes next
            known = (path if path.exists() else path.parent).stat()
            os.fchown(descriptor, known.st_uid, known.st_gid)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
