"""Names of what exists in a cluster: these are no values, wherever they stand.

Who reads a log need not reach the server. Then nothing is known to exist, and less is kept of what names things.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from itertools import islice

NAMES_MAX = 500_000
"""Names that are known at most."""


class Names:
    """What is known to exist; nothing to begin with. May be asked in one thread while another teaches it."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = frozenset(known)
        self.wanted = threading.Event()
        """Set by who met a name that should exist and is not known: something was made since anybody looked."""

    def __bool__(self) -> bool:
        """Whether anybody has looked."""
        return bool(self._known)

    def knows(self, name: str) -> bool:
        """Say whether something has that name."""
        return name in self._known

    def learn(self, known: Iterable[str]) -> None:
        """Take what exists now, in the place of what did; of too many names the first."""
        self._known = frozenset(islice(known, NAMES_MAX))
