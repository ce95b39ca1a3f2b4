"""How far what a reader sees is sealed: what a page or an answer may say of itself without verifying the lake.

It is read off the newest checkpoint, which is held against the lake's own entry of that number. That files are still
what their entries say is for `sinks.seal.verification` to find out.
"""

from __future__ import annotations

from msgspec import Struct

from pgwitness.core.config import Config
from pgwitness.core.errors import NotInOrder, PgwitnessError
from sinks.lake.log import chain
from sinks.lake.log.chain import File, State
from sinks.lake.log.on_store import Reads
from sinks.lake.opening import lake_store
from sinks.seal import opening, place
from sinks.seal.history import added
from sinks.seal.tlog.note import PublicKey

CHAINED_READ_MAX = 10_000
"""Entries behind the seal that are read to say what they brought: a week of commits; behind that they are counted."""


class Standing(Struct, frozen=True):
    """How far a lake, read up to entry `number`, is sealed.

    `sealed_to` is the last entry that is, of `sealed_at_us` by the lake's clock, -1 for none; `signed` says whether the
    checkpoint's signature was checked. `chained` are live files that entries behind it brought, the first of
    `entries`; `counted` says whether all of these were read. `trouble` is why nothing of this is known.
    """

    number: int
    sealed_to: int = -1
    sealed_at_us: int = 0
    signed: bool = False
    entries: int = 0
    chained: tuple[File, ...] = ()
    counted: bool = True
    trouble: str | None = None


def not_looked_for(state: State) -> Standing:
    """Say that nobody has looked."""
    return Standing(state.number, trouble="nobody has looked for it")


def standing(config: Config, state: State) -> Standing:
    """Say how far the lake of a configuration is sealed, for whoever has read it up to `state`.

    What cannot be known, or contradicts itself, is in `trouble`: a page has to be possible all the same.
    """
    if state.number < 0:
        return Standing(state.number, trouble="a lake of version 0.1 has no log to be sealed")
    try:
        store, key = lake_store(config), _key(config)
        sealed = place.sealed_to(opening.seal_store(config), key, store)
        return _behind(store, state, sealed, signed=sealed >= 0 and key is not None)
    except (ValueError, OSError, PgwitnessError) as error:
        return Standing(state.number, trouble=str(error))


def _key(config: Config) -> PublicKey | None:
    """Give the key to check with, where there is one that this user may read."""
    try:
        return opening.checking_key(config)
    except (PgwitnessError, OSError):
        return None


def _behind(store: Reads, state: State, sealed: int, *, signed: bool) -> Standing:
    reach = min(sealed, state.number)
    at_us = _entry(store, reach).at_us if reach >= 0 else 0
    entries = state.number - reach
    if reach < 0:
        return Standing(state.number, entries=entries, chained=tuple(state.live.values()))
    chained: list[File] = []
    last = min(state.number, reach + CHAINED_READ_MAX)
    for number in range(reach + 1, last + 1):
        chained += [file for file in added(_entry(store, number)) if file.path in state.live]
    return Standing(state.number, sealed, at_us, signed, entries, tuple(chained), last == state.number)


def _entry(store: Reads, number: int) -> chain.Entry:
    content = store.read(chain.entry_name(number))
    if content is None:
        raise NotInOrder(f"{chain.entry_name(number)} is missing: `pgwitness verify` says what else is")
    entry = chain.decode(content, number)
    wanted: str | None = getattr(entry, "more", None)
    return chain.whole(entry, store.read(chain.more_name(wanted)) if wanted else None)
