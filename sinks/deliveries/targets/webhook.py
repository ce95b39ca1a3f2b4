"""Sends alerts over HTTP: a webhook, signed as its receiver may check, a chat, or a product's intake. A shell."""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import quote

import aiohttp
from yarl import URL

from pgwitness.core.config import Delivery
from pgwitness.core.contracts.alert_target import NotTaken, Refused
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.secretfile import address, secret
from pgwitness.core.webhooks import signed
from sinks.deliveries import products, render
from sinks.deliveries.routing import Item

RETRY_AFTER_S_MAX = 300.0
ANSWER_BYTES_MAX = 2_000


def make_webhook(where: str, settings: Delivery) -> Webhook:
    """Make a target that takes bodies as `docs/reference/alerts.md` describes them."""
    if settings.authorization_file is None:
        return _posting(where, settings, render.body)
    word = secret(settings.authorization_file, f"{where}.authorization_file").decode()
    return _posting(where, settings, render.body, {"authorization": word})


def make_slack(where: str, settings: Delivery) -> Webhook:
    """Make a target that takes messages as Slack's incoming webhooks do."""
    return _posting(where, settings, render.slack)


def make_teams(where: str, settings: Delivery) -> Webhook:
    """Make a target that takes messages as the webhooks of Teams' workflows do."""
    return _posting(where, settings, render.teams)


def make_splunk(where: str, settings: Delivery) -> Webhook:
    """Make a target that takes events as Splunk's HTTP Event Collector does, whether or not it wants a channel."""
    channel = {"x-splunk-request-channel": str(uuid.uuid4())}
    return _keyed(where, settings, products.splunk, {"authorization": f"Splunk {_key(where, settings)}", **channel})


def make_elastic(where: str, settings: Delivery) -> Webhook:
    """Make a target that takes each delivery once, as a document of its own id, with an API key."""
    return _documents(where, settings, f"ApiKey {_key(where, settings)}")


def make_opensearch(where: str, settings: Delivery) -> Webhook:
    """Make the same for OpenSearch, where somebody logs in: the secret is base64 of `user:password`."""
    return _documents(where, settings, f"Basic {_key(where, settings)}")


def make_datadog(where: str, settings: Delivery) -> Webhook:
    """Make a target that takes logs as Datadog's HTTP intake does."""
    return _keyed(where, settings, products.datadog, {"dd-api-key": _key(where, settings)})


def make_pagerduty(where: str, settings: Delivery) -> Webhook:
    """Make a target that takes events as PagerDuty's Events API v2 does; the secret is the integration's key."""
    return _keyed(where, settings, partial(products.pagerduty, key=_key(where, settings)), {})


def _key(where: str, settings: Delivery) -> str:
    if settings.secret_file is None:
        raise ConfigurationError(f"{where}.secret_file: {settings.kind} needs a file with its key or token")
    key = secret(settings.secret_file, f"{where}.secret_file")
    if not key.isascii() or len(key.split()) != 1:
        raise ConfigurationError(f"{where}.secret_file: {settings.secret_file}: a key or token is one word in ASCII")
    return key.decode()


def _documents(where: str, settings: Delivery, authorization: str) -> Webhook:
    made = _keyed(where, settings, products.document, {"authorization": authorization})
    made.place = lambda item: f"/_create/{quote(item.uid, safe='')}"
    made.taken = frozenset({409})
    return made


def _keyed(where: str, settings: Delivery, write: Callable[[Item], bytes], headers: Mapping[str, str]) -> Webhook:
    url = address(where, settings.url, settings.url_file)
    return Webhook(url.rstrip("/"), write, None, float(settings.timeout), headers)


def _posting(
    where: str, settings: Delivery, write: Callable[[Item], bytes], headers: Mapping[str, str] | None = None
) -> Webhook:
    key = secret(settings.secret_file, f"{where}.secret_file") if settings.secret_file is not None else None
    return Webhook(address(where, settings.url, settings.url_file), write, key, float(settings.timeout), headers)


class Webhook:
    """Posts each delivery as JSON; `secret` signs it, `write` says how the body is written, `headers` are its own.

    `place` is what follows the address, and `taken` are answers which say that the receiver has it already.
    """

    def __init__(
        self,
        url: str,
        write: Callable[[Item], bytes],
        secret: bytes | None,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.place: Callable[[Item], str] = lambda _: ""
        self.taken: frozenset[int] = frozenset()
        self._url = url
        self._write = write
        self._secret = secret
        self._headers = dict(headers or {})
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, item: Item) -> None:
        """Post it; any 2xx is an answer, a redirect is none."""
        body = self._write(item)
        now_s = int(time.time())
        headers = {"content-type": "application/json", "user-agent": "pgwitness", "webhook-id": item.uid}
        headers |= {"webhook-timestamp": str(now_s), **self._headers}
        if self._secret is not None:
            headers |= signed(body, item.uid, now_s, self._secret)
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        place = self.place(item)
        url = URL(self._url + place, encoded=True) if place else self._url
        try:
            async with self._session.post(url, data=io.BytesIO(body), headers=headers, allow_redirects=False) as answer:
                status = answer.status
                answer_text = (await answer.content.read(ANSWER_BYTES_MAX)).decode(errors="replace").strip()[:200]
                after = answer.headers.get("retry-after", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # The address may be a secret: the error's own words can hold it.
            raise NotTaken(f"no answer: {type(error).__name__}") from None
        if 200 <= status < 300 or status in self.taken:
            return
        if status in (408, 425, 429) or status >= 500:
            wait_s = min(RETRY_AFTER_S_MAX, float(after)) if after.isdecimal() else 0.0
            raise NotTaken(f"HTTP {status}: {answer_text}", wait_s)
        raise Refused(f"HTTP {status}: {answer_text}")

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
