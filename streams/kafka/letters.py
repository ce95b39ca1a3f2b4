"""Dead letters as records: the record as it came, or, when no topic takes it, what leads back to it. Pure.

A letter by reference has the record's first bytes as its value and the headers `kept` (`reference`), `size` and
`sha256`; with `topic`, `partition` and `offset`, which every letter has, the record is found as long as its topic keeps
it, and known to be the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from msgspec import Struct

KEPT_BYTES_MAX = 2_000_000
"""What the topic takes (`pgwitness.core.topics`), less a record's own head."""
BEGINNING_BYTES = 4096
KEY_BYTES_MAX = 1024
REFERENCE = "reference"
NOWHERE = -1
"""The offset of what was never in its topic, because the broker did not take it."""

Headers = list[tuple[str, str | bytes | None]]


class Letter(Struct, frozen=True):
    """A record for the topic of dead letters."""

    key: bytes | None
    value: bytes | None
    headers: Headers


def make(
    stage: str, reason: str, source: tuple[str, int, int], key: bytes | None, value: bytes | None, **more: str
) -> Letter:
    """Make the letter of a record; `source` is its topic, partition and offset, `more` are further headers."""
    topic, partition, offset = source
    given = {"reason": reason, "stage": stage, "topic": topic, "partition": str(partition), "offset": str(offset)}
    return Letter(key, value, [(name, text.encode()) for name, text in (given | more).items()])


def by_reference(letter: Letter) -> Letter:
    """Return the letter of a record that is too large to be kept whole."""
    data = letter.value or b""
    more = {"kept": REFERENCE, "size": str(len(data)), "sha256": hashlib.sha256(data).hexdigest()}
    key = None if letter.key is None else letter.key[:KEY_BYTES_MAX]
    headers: Headers = [*letter.headers, *((name, text.encode()) for name, text in more.items())]
    return Letter(key, data[:BEGINNING_BYTES], headers)


def fits(letter: Letter) -> bool:
    """Return whether the topic takes a letter, even if nothing of it can be compressed."""
    heads: Iterable[int] = (len(name) + len(text or b"") for name, text in letter.headers)
    return len(letter.key or b"") + len(letter.value or b"") + sum(heads) <= KEPT_BYTES_MAX
