"""How an entry gets behind the last one, whoever else writes: steps that whoever drives them carries out.

Each generator yields an operation and is sent its answer, so that the same lines run on a disk
(`sinks.lake.log.on_store`) and in a model that interleaves writers and loses answers
(`tests/sinks/test_chain_model.py`). The rule is: whoever finds a number taken reads what took it, and decides anew;
number N+1 is never tried before N is known; and what was not answered is tried again with the same bytes, so that one's
own entry is recognised however late it arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec import Struct

from sinks.lake.log import chain, snapshots
from sinks.lake.log.chain import Entry, State


class Create(Struct, frozen=True):
    """Make a file, if its name is free: answered with whether it was. `OSError` leaves open whether it was made.

    Whatever the answer is, what has the name is durable then.
    """

    name: str
    content: bytes


class Read(Struct, frozen=True):
    """Read a file: answered with its content, or None when there is none."""

    name: str


T = TypeVar("T")
Steps = Generator[Create | Read, Any, T]


@dataclass
class Attempt:
    """An entry on its way: the bytes that were tried under `number`, until it is known who took that."""

    number: int = -1
    content: bytes = b""
    more: bytes | None = None
    answered: bool = False
    """Whether it is known to be durable, if it is there."""
    landed: bool = False


def catch_up(state: State, attempt: Attempt | None = None) -> Steps[None]:
    """Take every entry that has come, and notice the attempt among them. Raises `Stop` (`chain.apply`)."""
    while (content := (yield Read(chain.entry_name(state.number + 1)))) is not None:
        number = state.number + 1
        entry = chain.decode(content, number)
        wanted = getattr(entry, "more", None)
        more = (yield Read(chain.more_name(wanted))) if wanted else None
        chain.apply(state, chain.whole(entry, more), chain.digest(content))
        snapshots.rebase(state)
        if attempt is not None and attempt.number == number:
            attempt.landed = attempt.content == content


def append(state: State, propose: Callable[[State], Entry | None], attempt: Attempt) -> Steps[bool]:
    """Put an entry behind the last one; gives whether it is there, False when `propose` has nothing more to say.

    `propose` is asked with the state at the end of the chain, and again whenever somebody else was faster. Raises
    `OSError` where nobody knows whether the entry is there: call again with the same `attempt`.
    """
    while True:
        yield from catch_up(state, attempt)
        if attempt.landed:
            if not attempt.answered:
                yield Create(chain.entry_name(attempt.number), attempt.content)
            return True
        number = state.number + 1
        if attempt.number != number:
            entry = propose(state)
            if entry is None:
                return False
            attempt.content, attempt.more = chain.encode(entry)
            attempt.number = number
        if attempt.more is not None:
            yield Create(chain.more_name(chain.digest(attempt.more)), attempt.more)
        try:
            yield Create(chain.entry_name(number), attempt.content)
            attempt.answered = True
        except OSError:
            # Some file systems report an error for what they have done; what counts is what is there.
            if (yield Read(chain.entry_name(number))) is None:
                raise
