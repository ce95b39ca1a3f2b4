"""Posts alerts over HTTP: a webhook, signed as its receiver may check, or a channel of Slack or Teams. A shell."""

from __future__ import annotations

import time
from collections.abc import Callable

import aiohttp

from pgwitness.core.config import Delivery
from pgwitness.core.contracts.alert_target import NotTaken, Refused
from pgwitness.core.secretfile import address, secret
from pgwitness.core.webhooks import signed
from sinks.deliveries import render
from sinks.deliveries.routing import Item

RETRY_AFTER_S_MAX = 300.0
ANSWER_BYTES_MAX = 2_000


def make_webhook(where: str, settings: Delivery) -> Webhook:
    """Make a target that takes bodies as `docs/reference/alerts.md` describes them."""
    return _posting(where, settings, render.body)


def make_slack(where: str, settings: Delivery) -> Webhook:
    """Make a target that takes messages as Slack's incoming webhooks do."""
    return _posting(where, settings, render.slack)


def make_teams(where: str, settings: Delivery) -> Webhook:
    """Make a target that takes messages as workflows of Microsoft Teams do."""
    return _posting(where, settings, render.teams)


def _posting(where: str, settings: Delivery, write: Callable[[Item], bytes]) -> Webhook:
    key = secret(settings.secret_file, f"{where}.secret_file") if settings.secret_file is not None else None
    return Webhook(address(where, settings.url, settings.url_file), write, key, float(settings.timeout))


class Webhook:
    """Posts each delivery as JSON; `secret` signs it, `write` says how the body is written."""

    def __init__(self, url: str, write: Callable[[Item], bytes], secret: bytes | None, timeout_s: float) -> None:
        self._url = url
        self._write = write
        self._secret = secret
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, item: Item) -> None:
        """Post it; any 2xx is an answer, a redirect is none."""
        body = self._write(item)
        now_s = int(time.time())
        headers = {"content-type": "application/json", "user-agent": "pgwitness", "webhook-id": item.uid}
        headers["webhook-timestamp"] = str(now_s)
        if self._secret is not None:
            headers |= signed(body, item.uid, now_s, self._secret)
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                status = answer.status
                answer_text = (await answer.content.read(ANSWER_BYTES_MAX)).decode(errors="replace").strip()[:200]
                after = answer.headers.get("retry-after", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # The address may be a secret: the error's own words can hold it.
            raise NotTaken(f"no answer: {type(error).__name__}") from None
        if 200 <= status < 300:
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
