"""Names of what exists in a cluster: these are no values, wherever they stand.

Who reads a log need not reach the server. Then nothing is known to exist, and less is kept of what names things.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from itertools import islice

NAMES_MAX = 500_000
"""Names that are known at most."""
SEEN_MAX = 20_000
"""Names that are known from statements at most."""


class Names:
    """What is known to exist; nothing to begin with. May be asked in one thread while another teaches it."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = frozenset(known)
        self._seen: dict[str, None] = {}
        self.wanted = threading.Event()
        """Set by who met a name that should exist and is not known: something was made since anybody looked."""

    def __bool__(self) -> bool:
        """Whether anybody has looked."""
        return bool(self._known)

    def knows(self, name: str) -> bool:
        """Return whether something has that name."""
        return name in self._known or name in self._seen

    def see(self, names: Iterable[str]) -> None:
        """Take names of a statement that has run: they are there. Of too many the oldest is forgotten."""
        for name in names:
            self._seen.pop(name, None)
            self._seen[name] = None
        while len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]

    def learn(self, known: Iterable[str]) -> None:
        """Take what exists now, in the place of what did; of too many names the first."""
        self._known = frozenset(islice(known, NAMES_MAX))
