"""What holds for every request of the console, whichever page it asks for: headers, addresses, forms.

The policy of the pages lets a browser run our own scripts and nothing else, and nobody frame them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Collection
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pgwitness.core.errors import ConfigurationError
from pgwitness.core.runtime import asgi

POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'",
        "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'",
    )
)  # fmt: skip
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # without any, a browser would send no Origin with forms
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
BODY_BYTES_MAX = 256 * 1024
FIELDS_MAX = 50
BODY_S = 30.0
"""How long a form may take to arrive."""
_NEXT = re.compile(r"/(?:[A-Za-z0-9][A-Za-z0-9/_.-]*)?(?:\?[A-Za-z0-9=&_.%-]*)?")


class Refused(Exception):
    """A request that is not answered: its status, and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Secured:
    """Gives every answer the headers above; `secure` where the browser's way here is encrypted.

    `only` are the addresses that may come, besides this machine's own: those that encrypt, where nothing here does.
    """

    def __init__(self, app: ASGIApp, *, secure: bool, only: Collection[str] | None = None) -> None:
        self._app, self._only = app, only
        self._headers = HEADERS | ({"strict-transport-security": "max-age=31536000"} if secure else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        app = self._app if self._may_come(scope) else _PAST

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)  # a report has a stricter policy of its own
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await app(scope, receive, with_headers)

    def _may_come(self, scope: Scope) -> bool:
        peer = (scope.get("client") or ("unknown",))[0]
        return self._only is None or peer in self._only or asgi.is_loopback(peer)


_PAST = PlainTextResponse("This is not encrypted. Go by the server in front, which is.\n", status_code=403)


def addresses(proxies: Collection[str]) -> frozenset[str]:
    """Return addresses as those that connect are written. Raise `ConfigurationError` for what is none."""
    try:
        return frozenset(str(ipaddress.ip_address(one)) for one in proxies)
    except ValueError as error:
        raise ConfigurationError(f"console.proxies: {error}; write each server's address, not its name") from None


def address(request: Request, proxies: Collection[str]) -> str:
    """Return where a request comes from; what a proxy says is believed of those that are known."""
    peer = request.client.host if request.client is not None else "unknown"
    if peer not in proxies:
        return peer
    # Some proxies add a line of their own below what the client sent: the last one counts.
    # One may stand behind another.
    chain = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
    for said in reversed(chain):
        try:
            found = str(ipaddress.ip_address(said.strip()))
        except ValueError:
            break
        if found not in proxies:
            return found
    return peer


def from_here(headers: Headers) -> None:
    """Raise `Refused` for a form that another site has sent."""
    origin, host = headers.get("origin"), headers.get("host", "")
    if origin is not None and urlsplit(origin).netloc != host:
        raise Refused(403, "This form was sent from another site.")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refused(403, "This form was sent from another site.")


async def form(request: Request) -> dict[str, str]:
    """Read a form, of fields each of which stands once. Raise `Refused`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refused(415, "This is no form.")
    try:
        async with asyncio.timeout(BODY_S):
            body = await _body(request)
    except TimeoutError:
        raise Refused(408, "This form did not arrive in time.") from None
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX)
    except ValueError:  # of decoding, too
        raise Refused(400, "This form cannot be read.") from None
    found = dict(fields)
    if len(found) != len(fields):
        raise Refused(400, "A field of this form stands there twice.")
    return found


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise Refused(413, f"A form has {BODY_BYTES_MAX} bytes at most.")
    return bytes(body)


def place(text: str) -> str:
    """Return where to go on after logging in: a path of ours, else the beginning."""
    return text if _NEXT.fullmatch(text) else "/"
