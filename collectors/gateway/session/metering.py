"""What a limited statement answers, counted as it passes: cut off where it is too much. Pure.

Rows are cut whole: no byte of a row beyond the limit is passed on. The server is asked to cancel; what it sends until
it has ended is dropped. Nothing else goes out before both have come to their end, the cancel and the statement, for a
cancel that comes late hits whatever runs then.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from collectors.beacon.encodings import codec_of
from collectors.gateway.session.refusing import SQLSTATE
from collectors.gateway.wire import backend
from collectors.gateway.wire.frames import HEADER, Message
from detectors.gatekeeper import Verdict
from pgwitness.core.sql.tree.facts import Handle

COUNTED_MAX: Final = 1_000
"""Cursors and portals of a session of which it is known how much was read by them."""
_REST: Final = b"\0"
"""Stands for the names beyond so many; no name has a zero byte."""
_ROWS: Final = frozenset((backend.DATA_ROW, backend.COPY_DATA))
_TRAILER: Final = b"d\0\0\0\6\xff\xff"
"""The end of a binary COPY, which is no row."""


@dataclass
class Meter:
    """Counts what one statement answers. `rows` and `size` (bytes) begin at what was read by the same cursor before,
    or portal, whose name is `cursor`.
    """

    verdict: Verdict
    simple: bool
    cursor: bytes | None = None
    rows: int = 0
    size: int = 0
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))
    cut: str | None = None
    """Why it was cut, in words; None as long as it was not."""
    cancelling: bool = False
    """A cancel is on its way."""
    ended: bool = False
    """The statement has ended, a cancel has not."""
    failed: bool = False
    """It has ended by an error."""
    copying: bool = False
    """It reads what its client copies in."""
    before: int = 0
    """Rows that steps before this one have answered."""
    _passing: int = 0
    _dropping: bool = False

    def message(self, message: Message) -> None:
        """Take a message that was cut out of the stream, of which the rest may come as it is."""
        length = int.from_bytes(message.frame[1:HEADER], "big") + 1
        self._passing, self._dropping = max(0, length - len(message.frame)), False

    def take(self, data: bytes) -> bytes:
        """Take bytes of the answer that stand between messages; return those of it that its client may read."""
        passed: list[bytes] = []
        at = min(self._passing, len(data))
        self._passing -= at
        start = at if self._dropping else 0
        while at < len(data):
            end = at + int.from_bytes(data[at + 1 : at + HEADER], "big") + 1
            dropping = data[at] in _ROWS and not self._counted(data[at:end], end - at)
            if dropping != self._dropping:
                if dropping:
                    passed.append(data[start:at])
                start, self._dropping = at, dropping
            elif dropping:
                start = at
            self._passing = max(0, end - len(data))
            at = end
        if not self._dropping:
            passed.append(data[start:])
        return b"".join(passed)

    def _counted(self, row: bytes, size: int) -> bool:
        """Count a row; return whether it may pass."""
        if self.cut is not None:
            return False
        if row == _TRAILER:
            return True
        verdict = self.verdict
        if verdict.answered is not None and self.rows >= verdict.answered:
            self.cut = f"it answers more than {verdict.answered:,} rows"
        elif verdict.bytes is not None and self.size + size > verdict.bytes:
            self.cut = f"it answers more than {verdict.bytes:,} bytes"
        else:
            self.rows += 1
            self.size += size
        return self.cut is None

    def late(self) -> None:
        """Take up that its time is over."""
        if self.cut is None:
            self.cut = f"it runs for more than {self.verdict.seconds:g} s"

    @property
    def passed(self) -> int:
        """How many rows of it its client has got."""
        return self.rows - self.before

    @property
    def portal(self) -> bytes:
        """The name of a portal that nobody has: it fails in the place of what would end a statement that was cut."""
        return f"pgwitness cut {self.nonce}".encode()

    def is_own(self, said: dict[str, str]) -> bool:
        """Return whether an error of the server comes of the cut: of the cancel, or of a portal that nobody has."""
        if self.cut is None:
            return False
        return said.get("C") == "57014" or (said.get("C") == "34000" and self.nonce in said.get("M", ""))

    def answer(self, encoding: str) -> bytes:
        """Return what the client reads of a statement that was cut."""
        verdict = self.verdict
        message = f"cut by {verdict.message}; {self.cut}, which is the most"
        return backend.error("ERROR", SQLSTATE, message, verdict.hint, why=verdict.why, codec=codec_of(encoding))


class Counted:
    """How much was read by each cursor and portal, so that a limit is not walked round by small steps.

    Both share their names in the server. A name counts anew when the server says that it is another cursor now.
    """

    def __init__(self) -> None:
        self._by_name: dict[bytes, tuple[int, int]] = {}

    def __bool__(self) -> bool:
        """Return whether anything was read."""
        return bool(self._by_name)

    def begin(self, meter: Meter) -> None:
        """Go on counting where the same cursor was left."""
        if meter.cursor is not None:
            meter.rows, meter.size = self._by_name.get(self._key(meter.cursor), (0, 0))
            meter.before = meter.rows

    def ended(self, meter: Meter) -> None:
        """Remember how far a cursor was read."""
        if meter.cursor is not None:
            self._by_name[self._key(meter.cursor)] = meter.rows, meter.size

    def made(self, name: bytes) -> None:
        """Take up that a name is another cursor from now on, or none."""
        self._by_name.pop(name, None)

    def tagged(self, tag: bytes, handles: Sequence[Handle]) -> None:
        """Take up by a command tag that a cursor was declared or closed; which, is known where a text names one."""
        verbs = ("close",) if tag.startswith(b"CLOSE") else ("declare", "hold")
        found = [handle.name for handle in handles if handle.verb in verbs]
        if len(found) == 1 and found[0]:
            self.made(found[0].encode())

    def transaction_ended(self, lasting: Callable[[bytes], bool]) -> None:
        """Forget what has ended with its transaction: what no `lasting` cursor is."""
        kept = {name: read for name, read in self._by_name.items() if lasting(name)}
        if len(kept) >= COUNTED_MAX - 1 and _REST in self._by_name:
            kept[_REST] = self._by_name[_REST]
        self._by_name = kept

    def _key(self, name: bytes) -> bytes:
        """Of too many names the rest is counted together."""
        return name if name in self._by_name or len(self._by_name) < COUNTED_MAX - 1 else _REST
