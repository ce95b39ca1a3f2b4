"""Posts to an address. A shell."""

from __future__ import annotations

import urllib.error

from pgwitness.core.errors import Retry
from pgwitness.core.runtime import web

ANSWER_BYTES_MAX = 1_000_000


def post(url: str, body: bytes, headers: dict[str, str], timeout_s: float) -> bytes:
    """Post a body; gives the answer. Raise `Retry` for anything but 2xx; its text does not have the address."""
    try:
        return web.answer(url, headers, body, timeout_s=timeout_s, at_most=ANSWER_BYTES_MAX)
    except urllib.error.HTTPError as error:
        with error:
            raise Retry(f"HTTP {error.code}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Retry(f"no answer: {type(reason).__name__}") from None
