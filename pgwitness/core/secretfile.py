"""Secrets that stand in files of their own: of deliveries, responses, anchors."""

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


def address(where: str, url: str, url_file: Path | None) -> str:
    """Give an address that may be a secret, and then stands in a file. Raise `ConfigurationError` when it is none."""
    found = secret(url_file, f"{where}.url_file").decode() if url_file is not None else url
    if not found.startswith(("https://", "http://")):
        raise ConfigurationError(f"{where}: url, or url_file with an address that begins with https://")
    return found
