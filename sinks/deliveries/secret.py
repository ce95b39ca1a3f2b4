"""Secrets that deliveries and responses need, out of their files."""

from __future__ import annotations

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
