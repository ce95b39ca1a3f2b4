"""Links of messages back to a request in the console: signed, for a while, for one opening; pure.

A link opens a page and decides nothing: whoever opens it logs in, sees what their roles may see, and an approval is
signed by their own key. The signature says that it was written for this request by whoever has the key, and until when
it opens; the console remembers which it has opened. The same message sent twice carries the same link.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, Literal
from urllib.parse import quote

DOMAIN: Final = b"pgwitness link 1\n"
KEY_BYTES_MIN: Final = 16
OPENED_MAX: Final = 20_000
_DIGITS: Final = 32

Trouble = Literal["forged", "expired", "used"]


def link(console: str, request: str, expires_us: int, key: bytes, target: str) -> str:
    """Write the link to a request for a message to `target`, which opens until `expires_us`."""
    until_s = expires_us // 1_000_000
    nonce = _mac(key, "nonce", request, str(until_s), target)
    token = f"{until_s}.{nonce}.{_mac(key, 'link', request, str(until_s), nonce)}"
    return f"{console.rstrip('/')}/approvals/{quote(request, safe='')}/from/{token}"


class Opened:
    """Which links were opened; of those whose time is over nothing is remembered."""

    def __init__(self) -> None:
        self._opened: dict[str, int] = {}

    def open(self, token: str, request: str, key: bytes, now_us: int) -> Trouble | None:
        """Take up that a link is opened; return why it does not open, or None."""
        until, _, rest = token.partition(".")
        nonce, _, signature = rest.partition(".")
        if not (until.isascii() and until.isdigit() and len(until) < 12):
            return "forged"
        expected = _mac(key, "link", request, until, nonce)
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
            return "forged"
        now_s = now_us // 1_000_000
        if int(until) <= now_s:
            return "expired"
        if nonce in self._opened:
            return "used"
        self._opened = {name: at for name, at in self._opened.items() if at > now_s}
        if len(self._opened) >= OPENED_MAX:
            return "used"  # whether it was cannot be known any more
        self._opened[nonce] = int(until)
        return None


def _mac(key: bytes, *parts: str) -> str:
    content = DOMAIN + b"\0".join(part.encode("utf-8", "replace") for part in parts)
    return hmac.new(key, content, hashlib.sha256).hexdigest()[:_DIGITS]
