"""Which entries took files out that still lie in a lake's folders: found from the end of the log backwards."""

from __future__ import annotations

from sinks.lake.log import chain
from sinks.lake.log.chain import Replace, Retire
from sinks.lake.log.on_store import Reads

CLOCKS_US = 86_400_000_000
"""How far the clocks of those who write entries and files may be apart."""
OLDER_MAX = 512
"""Entries in a row that are older than a file before it is believed that so are all before them: clocks jump."""


def taken_out(store: Reads, newest: int, written: dict[str, int]) -> dict[str, Replace | Retire] | None:
    """Give the entries up to `newest` that took files out; None when the log is not whole. What is left is in no entry.

    `written` says when each file was written (µs): that is before the entry that brings it in, and that comes before
    the one that takes it out, so that no entry before the first of these is looked at.
    """
    unknown = dict(written)
    found: dict[str, Replace | Retire] = {}
    number, older = newest, 0
    first_us = min(unknown.values(), default=0)
    while unknown and number > 0:
        content = store.read(chain.entry_name(number))
        if content is None:
            return None
        entry = chain.decode(content, number)
        if isinstance(entry, Replace | Retire):
            for path in _removes(store, entry):
                if (written_us := unknown.pop(path, None)) is not None:
                    found[path] = entry
                    if written_us == first_us:
                        first_us = min(unknown.values(), default=0)
        older = older + 1 if entry.at_us < first_us - CLOCKS_US else 0
        if older > OLDER_MAX:
            break
        number -= 1
    return found


def _removes(store: Reads, entry: Replace | Retire) -> list[str]:
    if isinstance(entry, Retire):
        return [one.path for one in entry.removes]
    more = store.read(chain.more_name(entry.more)) if entry.more else None
    whole = chain.whole(entry, more)
    return whole.removes if isinstance(whole, Replace) else []
