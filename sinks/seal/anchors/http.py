"""Posts to an address. A shell."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from pgwitness.core.config import Anchor
from pgwitness.core.errors import ConfigurationError, Retry

ANSWER_BYTES_MAX = 1_000_000


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *request: object, **more: object) -> None:
        """Go nowhere else: the address in the configuration is the one that is meant."""


_opener = urllib.request.build_opener(_NoRedirect)


def address(where: str, settings: Anchor) -> str:
    """Give the address of an anchor. Raise `ConfigurationError` when it has none."""
    url = read_secret(settings.url_file, where).decode() if settings.url_file is not None else settings.url
    if not url.startswith(("https://", "http://")):
        raise ConfigurationError(f"{where}: url, or url_file with an address that begins with https://")
    return url


def read_secret(path: Path, where: str) -> bytes:
    """Read a secret from its file. Raise `ConfigurationError`."""
    try:
        content = path.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(f"{where}: {path}: {error.strerror}") from error
    if not content:
        raise ConfigurationError(f"{where}: {path} is empty")
    return content


def post(url: str, body: bytes, headers: dict[str, str], timeout_s: float) -> bytes:
    """Post a body; gives the answer. Raise `Retry` for anything but 2xx; its text does not have the address."""
    request = urllib.request.Request(url, data=body, headers={"user-agent": "pgwitness", **headers}, method="POST")  # noqa: S310 - http and https only
    try:
        with _opener.open(request, timeout=timeout_s) as answer:
            content: bytes = answer.read(ANSWER_BYTES_MAX)
            return content
    except urllib.error.HTTPError as error:
        with error:
            raise Retry(f"HTTP {error.code}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Retry(f"no answer: {type(reason).__name__}") from None
