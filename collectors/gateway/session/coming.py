"""Names that a client has given or taken away and of which the server has not said yet that it did; pure.

In the order in which they were sent, and by name: a pipeline may be long, and each of its messages asks for a name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from collectors.gateway.wire import frontend


class Naming(Protocol):
    """A Parse, Bind or Close; of the last `statement` says of what it is: `S` or `P`."""

    kind: int
    name: bytes
    statement: bytes


Sent = TypeVar("Sent", bound=Naming)


class Coming(Generic[Sent]):
    """What will change names when the server has done it."""

    def __init__(self) -> None:
        self._all: deque[Sent] = deque()
        self._by_name: dict[tuple[int, bytes], deque[Sent]] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._all)

    def __iter__(self) -> Iterator[Sent]:
        """Give them in their order."""
        return iter(self._all)

    def append(self, sent: Sent) -> None:
        """Take up that one was sent."""
        self._all.append(sent)
        self._by_name.setdefault(_key(sent), deque()).append(sent)

    def popleft(self) -> None:
        """Take up that the first was done, or will not be."""
        key = _key(self._all.popleft())
        named = self._by_name[key]
        named.popleft()
        if not named:
            del self._by_name[key]

    def first(self) -> Sent | None:
        """Return the one that comes first."""
        return self._all[0] if self._all else None

    def of(self, kind: int, name: bytes) -> Sequence[Sent]:
        """Return those about a name of statements (PARSE) or portals (BIND), each Close among them."""
        return self._by_name.get((kind, name), ())

    def clear(self) -> None:
        """Forget all."""
        self._all.clear()
        self._by_name.clear()


def _key(sent: Naming) -> tuple[int, bytes]:
    if sent.kind != frontend.CLOSE:
        return sent.kind, sent.name
    return (frontend.PARSE if sent.statement == b"S" else frontend.BIND), sent.name
