"""Posts checkpoints to whoever keeps them. A shell."""

from __future__ import annotations

import hashlib

from pgwitness.core.config import Anchor, Config
from pgwitness.core.secretfile import address, secret
from pgwitness.core.webhooks import signed
from sinks.seal.anchors import http
from sinks.seal.anchors.given import Given

MICROSECONDS = 1_000_000


def make_webhook(where: str, settings: Anchor, config: Config) -> Webhook:
    """Make the anchor."""
    key = secret(settings.secret_file, where) if settings.secret_file is not None else None
    return Webhook(address(where, settings.url, settings.url_file), key, float(settings.timeout))


class Webhook:
    """Posts a line as the file anchor writes it, signed as alerts are; any 2xx is an answer."""

    suffix = ""

    def __init__(self, url: str, secret: bytes | None, timeout_s: float) -> None:
        self._url = url
        self._secret = secret
        self._timeout_s = timeout_s

    def put(self, given: Given) -> bytes:
        """Post it."""
        body = given.line()
        uid, now_s = hashlib.sha256(body).hexdigest()[:32], given.at_us // MICROSECONDS
        headers = {"content-type": "application/json", "webhook-id": uid, "webhook-timestamp": str(now_s)}
        if self._secret is not None:
            headers |= signed(body, uid, now_s, self._secret)
        http.post(self._url, body, headers, self._timeout_s)
        return b""

    def newest(self) -> bytes | None:
        """Nobody can be asked."""
        return None
