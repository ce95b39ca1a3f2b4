"""What a sequence waits for *not* to happen: matches that hold unless something comes within a time; state in JSON.

A sequence that ends with a step that must be absent is complete when its window has passed and nothing came. That is
reported by the records of the same cluster, `LATE_US` after the window's end, because one source is later than another:
a clock alone says nothing of what is still on its way. Bounded: of more than `WAITING_MAX` the oldest are forgotten,
and each keeps its action without what makes one long.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from detectors.actions import Action
from detectors.wording import Seen
from pgwitness.core.undo import Undo

LATE_US = 60_000_000
"""How long after the end of a window what belongs into it is still taken for it."""
WAITING_MAX = 2_000
TEXT_MAX = 1_000
DETAIL_BYTES_MAX = 2_000
LIST_MAX = 20
NEVER_US = 1 << 62


class Waiting(Struct, frozen=True):
    """A match that holds unless something comes: from when until when, its action and what it has seen."""

    policy: str
    key: str
    begin_us: int
    until_us: int
    action: Action
    seen: Seen


class Absences:
    """The matches that wait, in the order in which they came."""

    def __init__(self, undo: Undo) -> None:
        self._undo = undo
        self._waiting: OrderedDict[str, Waiting] = OrderedDict()
        self._due_us: dict[str, int] = {}
        """By cluster, by which time in its records something is to be reported."""

    def add(self, waiting: Waiting) -> None:
        """Wait for the end of a window; the same again changes nothing."""
        name = f"{waiting.policy}\0{waiting.key}\0{waiting.action.event_id}"
        if name in self._waiting:
            return
        self._keep()
        self._waiting[name] = replace(waiting, action=_short(waiting.action))
        while len(self._waiting) > WAITING_MAX:
            self._waiting.popitem(last=False)
        self._due()

    def came(self, policy: str, key: str, at_us: int) -> None:
        """Take that what must not come for a key came; what waits over that time is given up."""
        gone = [name for name, each in self._waiting.items() if _concerns(each, policy, key, at_us)]
        if gone:
            self._keep()
            for name in gone:
                del self._waiting[name]
            self._due()

    def is_due(self, cluster: str, now_us: int) -> bool:
        """Return whether `due` has something to give."""
        return bool(self._due_us) and now_us >= self._due_us.get(cluster, NEVER_US)

    def due(self, cluster: str, now_us: int) -> list[Waiting]:
        """Take out what has waited long enough by a time in the records of a cluster."""
        if not self.is_due(cluster, now_us):
            return []
        self._keep()
        found = {
            name: each
            for name, each in self._waiting.items()
            if each.action.cluster == cluster and each.until_us + LATE_US <= now_us
        }
        for name in found:
            del self._waiting[name]
        self._due()
        return list(found.values())

    def _keep(self) -> None:
        before = self._waiting.copy()
        self._undo.add(lambda: self._set(before))

    def _set(self, waiting: OrderedDict[str, Waiting]) -> None:
        self._waiting = waiting
        self._due()

    def _due(self) -> None:
        self._due_us = {}
        for each in self._waiting.values():
            cluster, due_us = each.action.cluster, each.until_us + LATE_US
            self._due_us[cluster] = min(due_us, self._due_us.get(cluster, NEVER_US))

    def snapshot(self, policy: str) -> list[Any]:
        """Return what waits of one policy as JSON values."""
        return [msgspec.to_builtins(each) for each in self._waiting.values() if each.policy == policy]

    def restore(self, state: list[Any]) -> None:
        """Take what waited of one policy."""
        for item in state:
            each = msgspec.convert(item, Waiting)
            self._waiting[f"{each.policy}\0{each.key}\0{each.action.event_id}"] = each
        self._due()


def _concerns(waiting: Waiting, policy: str, key: str, at_us: int) -> bool:
    return (waiting.policy, waiting.key) == (policy, key) and waiting.begin_us <= at_us <= waiting.until_us


def _short(action: Action) -> Action:
    """Keep of an action what its alert says, and bound it."""
    detail = action.detail
    if len(msgspec.json.encode(detail, enc_hook=str)) > DETAIL_BYTES_MAX:
        detail = {}
    cut: dict[str, Any] = {
        name: value[:TEXT_MAX] if isinstance(value, str) else value[:LIST_MAX]
        for name in action.__struct_fields__
        if isinstance(value := getattr(action, name), str | list)
    }
    return replace(action, **cut, detail=detail, before={}, after={}, clock={}, during={})
