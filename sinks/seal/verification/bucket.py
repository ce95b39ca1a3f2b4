"""A lake in a bucket as whoever verifies it reads; there are no links and no pipes there."""

from __future__ import annotations

from collections.abc import Iterator

from sinks.lake.storage.objects import Objects
from sinks.seal.verification.copies import BYTES_MAX


class BucketCopy(Objects):
    """A bucket, read with a bound (`sinks.seal.verification.copies`)."""

    def read(self, name: str) -> bytes | None:
        """Give what an object holds, up to a bound; None when there is none."""
        return self.read_at_most(name, BYTES_MAX)

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
