"""Requests to addresses that a configuration names: they go there, and nowhere else."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_request: object, **_more: object) -> None:
        """Go nowhere else: the address in the configuration is the one that is meant."""


_opener = urllib.request.build_opener(_NoRedirect)


def answer(url: str, headers: Mapping[str, str], body: bytes | None = None, *, timeout_s: float, at_most: int) -> bytes:
    """Post a body, or ask where there is none; return the first `at_most` bytes of the answer.

    Raise `urllib.error.HTTPError`, which is to be closed, for a redirect and anything else but 2xx; `OSError` or
    `ValueError` where there is no answer. `url` is http or https: whoever reads the configuration sees to that.
    """
    request = urllib.request.Request(url, data=body, headers={"user-agent": "pgwitness", **headers})  # noqa: S310
    with _opener.open(request, timeout=timeout_s) as opened:
        content: bytes = opened.read(at_most)
    return content
