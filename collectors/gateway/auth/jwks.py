"""The keys that sign tokens: from a file, or from an issuer's URL; those that were withdrawn verify nothing more.

A file is looked at with each login. A URL is asked when its answer is older than `age_s`, and once more when a token
names a key that is not known, though not oftener than `AGAIN_S`: a stranger cannot make the gateway ask. What cannot be
asked for leaves the last answer standing, for `HOLD_S` at most: then nobody comes in by token.
"""

from __future__ import annotations

import asyncio
import time
import urllib.error
from collections.abc import Callable
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Final, Protocol

import structlog

from collectors.tokens import Key, load_keys, read_keys
from pgwitness.core.errors import ConfigurationError, Retry
from pgwitness.core.runtime import web
from pgwitness.core.runtime.watchedfile import Refusal, WatchedFile

AGAIN_S: Final = 10.0
HOLD_S: Final = 3_600.0
TIMEOUT_S: Final = 5.0
BYTES_MAX: Final = 256 * 1024

log = structlog.get_logger("gateway")


class Keys(Protocol):
    """Where keys come from."""

    async def now(self) -> list[Key]:
        """Return the keys that hold now. Raise `Retry` when that cannot be known."""

    async def again(self) -> list[Key]:
        """Return them when a token has shown that there may be others. Raise `Retry`."""


class FileKeys:
    """A JWKS or PEM public keys in a file. Of one that breaks later the last content holds."""

    def __init__(self, path: Path, setting: str) -> None:
        none: list[Key] = []
        self._file = WatchedFile(path, partial(load_keys, path, setting), initial=none, refused=_still_hold)
        self._file.load()

    async def now(self) -> list[Key]:
        """Return the keys that stand there."""
        return self._file.poll()

    async def again(self) -> list[Key]:
        """Return the keys that stand there."""
        return self._file.poll()


class UrlKeys:
    """A JWKS at a URL. `fetch` asks for it; it runs in a thread."""

    def __init__(
        self,
        url: str,
        age_s: float,
        clock: Callable[[], float] = time.monotonic,
        fetch: Callable[[str], str] | None = None,
    ) -> None:
        self._url = url
        self._age_s = age_s
        self._clock = clock
        self._fetch = fetch or fetched
        self._keys: list[Key] = []
        self._answered_s: float | None = None
        self._asked_s: float | None = None
        self._asking = asyncio.Lock()

    async def now(self) -> list[Key]:
        """Return the keys of an answer that is fresh enough."""
        return await self._within(self._age_s)

    async def again(self) -> list[Key]:
        """Ask once more, unless that was a moment ago."""
        return await self._within(AGAIN_S)

    async def _within(self, age_s: float) -> list[Key]:
        async with self._asking:
            if self._due(age_s):
                await self._ask()
        answered_s = self._answered_s
        if answered_s is None or self._clock() - answered_s > max(HOLD_S, self._age_s):
            raise Retry(f"{self._url} does not give the keys that tokens are signed with; nobody comes in by token")
        return self._keys

    def _due(self, age_s: float) -> bool:
        now_s = self._clock()
        if self._asked_s is not None and now_s - self._asked_s < min(AGAIN_S, age_s):
            return False
        return self._answered_s is None or now_s - self._answered_s >= age_s

    async def _ask(self) -> None:
        self._asked_s = self._clock()
        try:
            text = await asyncio.get_running_loop().run_in_executor(None, self._fetch, self._url)
            keys = read_keys(text, self._url)
        except (OSError, HTTPException, ValueError, ConfigurationError) as error:
            log.error("the keys of tokens cannot be asked for", url=self._url, error=str(error))
            return
        self._answered_s = self._clock()
        if keys != self._keys:
            self._keys = keys


def _still_hold(refusal: Refusal) -> None:
    log.error("the keys that were read before still hold", error=refusal.error)


def fetched(url: str) -> str:
    """Ask for a JWKS. Raise `OSError`, `HTTPException` or `ValueError`."""
    try:
        content = web.answer(url, {"accept": "application/json"}, timeout_s=TIMEOUT_S, at_most=BYTES_MAX + 1)
    except urllib.error.HTTPError as error:
        error.close()
        raise OSError(f"it answers {error.code}") from None
    if len(content) > BYTES_MAX:
        raise ValueError(f"its answer has more than {BYTES_MAX} bytes")
    return content.decode("utf-8")
