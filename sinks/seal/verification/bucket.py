"""A lake in a bucket as whoever verifies it reads; there are no links and no pipes there.

Entries are read one behind the other, a year's half a million of them: from the second on those that follow are fetched
meanwhile, more and more of them, so that verifying does not wait for each answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from sinks.lake.log import chain
from sinks.lake.storage.objects import Objects
from sinks.seal.verification.copies import BYTES_MAX

AHEAD_MAX = 64
"""Entries that are fetched at once; each has at most 60,000 bytes, if nobody made it longer."""
THREADS = 16
_ENTRY = re.compile(r"_log/([0-9]{6})/([0-9]{3})/([0-9]{3})\.json")


class BucketCopy(Objects):
    """A bucket, read with a bound (`sinks.seal.verification.copies`)."""

    def __init__(self, *place: Any, **options: Any) -> None:
        """Open nothing yet."""
        super().__init__(*place, **options)
        self._threads = ThreadPoolExecutor(THREADS, "verify")
        self._coming: dict[int, Future[bytes | None]] = {}
        self._next, self._ahead = -1, 0

    def read(self, name: str) -> bytes | None:
        """Give what an object holds, up to a bound; None when there is none."""
        entry = _ENTRY.fullmatch(name)
        return self._entry(int("".join(entry.groups()))) if entry else self.read_at_most(name, BYTES_MAX)

    def _entry(self, number: int) -> bytes | None:
        """Give an entry, and fetch those behind it where one after the other is asked for."""
        if number != self._next:
            self._forget()
        found = self._coming.pop(number, None)
        content = found.result() if found is not None else self.read_at_most(chain.entry_name(number), BYTES_MAX)
        self._next = number + 1
        if content is None:  # one that comes later is to be seen
            self._forget()
        else:
            self._ahead = min(max(2 * self._ahead, 1), AHEAD_MAX)
            for behind in range(number + 1, number + 1 + self._ahead):
                if behind not in self._coming:
                    name = chain.entry_name(behind)
                    self._coming[behind] = self._threads.submit(self.read_at_most, name, BYTES_MAX)
        return content

    def _forget(self) -> None:
        for one in self._coming.values():
            one.cancel()
        self._coming.clear()
        self._ahead = 0

    def listed(self) -> Iterator[str]:
        """List every object."""
        return (name for name, _ in self.walk(""))

    def is_link(self, name: str) -> bool:
        """Say no."""
        del name
        return False

    def waits(self, name: str) -> bool:
        """Say no."""
        del name
        return False

    def trace(self, name: str) -> object:
        """Give when an object was written last."""
        return self.written_us(name)
