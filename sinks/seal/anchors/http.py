"""Posts to an address. A shell."""

from __future__ import annotations

import urllib.error
import urllib.request

from pgwitness.core.errors import Retry

ANSWER_BYTES_MAX = 1_000_000


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *request: object, **more: object) -> None:
        """Go nowhere else: the address in the configuration is the one that is meant."""


_opener = urllib.request.build_opener(_NoRedirect)


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
