"""How a webhook's body is signed, so that its receiver can tell who sent it (Standard Webhooks). Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac


def signed(body: bytes, uid: str, timestamp_s: int, secret: bytes) -> dict[str, str]:
    """Return the headers that name and sign a body: HMAC-SHA256 over `id.timestamp.body` (Standard Webhooks)."""
    content = f"{uid}.{timestamp_s}.".encode() + body
    signature = base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode()
    return {"webhook-signature": f"v1,{signature}"}
