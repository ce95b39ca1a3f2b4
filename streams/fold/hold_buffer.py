"""Where transactions wait until it is known whose they are, each until its time has come.

A checkpoint holds references to where their parts stand in `raw`, not the parts: a restored buffer is filled again by
`refill` with the records from the oldest reference on. What `raw` no longer has is `incomplete`.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from pgwitness.core.events import RawBatch, Transaction
from pgwitness.core.undo import Undo
from streams.fold.memory.transactions import HeldPart, HeldTransaction, Timeline
from streams.fold.sessions.server_log import XID_MODULUS
from streams.fold.trimming import trim

Key = tuple[Timeline, int]
"""Timeline and commit LSN."""


PART_BYTES = 1_500
RELATION_BYTES = 200
COLUMN_BYTES = 60
"""What a part costs in memory beside its rows, measured, and each of its relations and columns with its name."""


def size_of(part: Transaction) -> int:
    """Return the bytes that a part takes while it waits: a thousand small ones cost more than their rows."""
    relations = sum(RELATION_BYTES + COLUMN_BYTES * len(relation.columns) for relation in part.relations)
    return PART_BYTES + relations + len(memoryview(part.rows))


class Held:
    """A transaction that waits; a part without its transaction is yet to be read again."""

    __slots__ = ("bytes", "due_us", "incarnation", "key", "parts", "xid")

    def __init__(self, key: Key, xid: int, due_us: int, incarnation: int = 0) -> None:
        self.key = key
        self.incarnation = incarnation
        self.xid = xid
        self.due_us = due_us
        self.parts: list[tuple[HeldPart, str | None, Transaction | None]] = []
        """Each with where it stands in `raw` and the instance it came from."""
        self.bytes = 0

    @property
    def database(self) -> str:
        """The database it was committed in."""
        return self.key[0][2]

    @property
    def committed_us(self) -> int:
        """When it was committed, by the server's clock; 0 as long as its parts are yet to be read again."""
        return next((part.committed_at_us for _, _, part in self.parts if part is not None), 0)


class HoldBuffer:
    """The transactions of one cluster that wait, in the order in which their time comes."""

    def __init__(self, undo: Undo) -> None:
        self.bytes = 0
        self._undo = undo
        self._held: dict[Key, Held] = {}
        self._by_xid: dict[int, list[Key]] = {}
        self._missing: dict[int, list[Held]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Key) -> Held | None:
        """Return a transaction that waits."""
        return self._held.get(key) if self._held else None

    def with_xid(self, xid: int) -> Held | None:
        """Return the last one that came with an id, of which only the lower 32 bits need be known."""
        waiting = self._by_xid.get(xid % XID_MODULUS)
        return self._held[waiting[-1]] if waiting else None

    def hold(self, key: Key, place: HeldPart, instance: str | None, part: Transaction, due_us: int) -> None:
        """Let a part wait; the first one of a transaction says until when."""
        held = self._held.get(key)
        if held is None:
            held = self._enter(Held(key, part.xid, due_us, part.incarnation))
        # Rows are a view of their whole record: a copy lets go of the rest.
        part = replace(part, rows=part.rows.copy())
        held.parts.append((place, instance, part))
        self._grow(held, part)
        self._undo.add(lambda: self._take_back(held, part))

    def _take_back(self, held: Held, part: Transaction) -> None:
        """Undo `hold`: the part, and the transaction with its first one."""
        held.parts.pop()
        self._grow(held, part, -1)
        if not held.parts:
            self._leave(held)

    def release(self, held: Held) -> None:
        """Let a transaction go."""
        self._leave(held)
        self._undo.add(lambda: self._return(held))

    def _return(self, held: Held) -> None:
        """Undo `release`; whose time comes first still goes first."""
        self._enter(held)
        self.bytes += held.bytes
        self._held = dict(sorted(self._held.items(), key=lambda item: item[1].due_us))

    def _leave(self, held: Held) -> None:
        del self._held[held.key]
        same = self._by_xid[held.xid % XID_MODULUS]
        same.remove(held.key)
        if not same:
            del self._by_xid[held.xid % XID_MODULUS]
        self.bytes -= held.bytes

    def of(self, timeline: Timeline) -> list[Held]:
        """Return what waits of one timeline."""
        return [held for held in self._held.values() if held.key[0] == timeline]

    def due(self, now_us: int) -> Held | None:
        """Return the first whose time has come."""
        for held in self._held.values():
            return held if held.due_us <= now_us else None
        return None

    def shorten(self, due_us: int) -> None:
        """Let nothing wait longer than until then; the order stays."""
        for held in self._held.values():
            held.due_us = min(held.due_us, due_us)

    def _enter(self, held: Held) -> Held:
        self._held[held.key] = held
        self._by_xid.setdefault(held.xid % XID_MODULUS, []).append(held.key)
        return held

    def _grow(self, held: Held, part: Transaction, sign: int = 1) -> None:
        size = sign * size_of(part)
        held.bytes += size
        self.bytes += size

    # -- checkpoints -------------------------------------------------------------------------------------------

    def offsets(self) -> Iterator[int]:
        """Return the offsets in `raw` of all that waits."""
        return (place.offset for held in self._held.values() for place, _, _ in held.parts)

    def save(self) -> list[HeldTransaction]:
        """Return the references for a checkpoint."""
        return [
            HeldTransaction(*held.key, held.xid, held.due_us, [place for place, _, _ in held.parts], held.incarnation)
            for held in self._held.values()
        ]

    def load(self, saved: list[HeldTransaction]) -> None:
        """Take up the references of a checkpoint."""
        for item in saved:
            held = self._enter(Held((item.timeline, item.lsn), item.xid, item.due_us, item.incarnation))
            held.parts = [(place, None, None) for place in item.parts]
            for place in item.parts:
                self._missing.setdefault(place.offset, []).append(held)

    def refill(self, offset: int, batch: RawBatch) -> None:
        """Take from a record, read again, what of it waits."""
        for held in self._missing.pop(offset, ()):
            for number, (place, _, part) in enumerate(held.parts):
                if part is not None or place.offset != offset or place.index >= len(batch.events):
                    continue
                event = batch.events[place.index]
                if not isinstance(event, Transaction) or event.lsn != held.key[1]:
                    continue
                if event.first_ordinal < place.first_ordinal:
                    event = trim(event, place.first_ordinal)
                event = replace(event, rows=event.rows.copy(), incarnation=held.incarnation)
                held.parts[number] = (place, batch.header.instance, event)
                self._grow(held, event)

    @property
    def missing(self) -> list[int]:
        """The offsets of records that were to be read again and were not."""
        return list(self._missing)

    def incomplete(self) -> list[Held]:
        """Return up on what is missing; return the transactions that lack a part."""
        self._missing.clear()
        return [held for held in self._held.values() if any(part is None for _, _, part in held.parts)]
