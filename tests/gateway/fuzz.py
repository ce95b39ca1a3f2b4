"""Mutated messages through a session, from both sides at once: violations and nothing else, and each statement once.

`python -m tests.gateway.fuzz MESSAGES [SEED]` (`make fuzz`) sends so many each way; a test a hundred thousand.
"""

from __future__ import annotations

import random
import sys

from collectors.gateway.session.actions import Actions, Moment
from collectors.gateway.session.session import Session
from collectors.gateway.spool.records import Begun, Ended
from tests.collectors.fuzz import mutated
from tests.gateway.passing import judged
from tests.gateway.test_wire import ANSWERS, MESSAGES

NOW = Moment(1_000, 1_000)
ROUND = 12
"""Messages each way in one session, of which each read has some; one read in four is mutated."""


def converse(chance: random.Random) -> int:
    """Let two peers talk at cross purposes through one session; return how many messages were sent."""
    session = Session(1, {}, judged)
    begun, ended, sent = list[int](), list[int](), 0
    forwarded = received = b""
    for _ in range(ROUND):
        of_client = chance.random() < 0.5
        corpus = MESSAGES if of_client else ANSWERS
        pieces = [chance.choice(corpus) for _ in range(chance.randint(1, 4))]
        sent += len(pieces)
        data = b"".join(pieces)
        if chance.random() < 0.25:
            data = mutated(chance, [data])
        done = session.client(data, NOW) if of_client else session.server(data, NOW)
        begun += [one.number for one in done.records if isinstance(one, Begun)]
        ended += [one.number for one in done.records if isinstance(one, Ended)]
        if of_client:
            received += data
            forwarded += b"".join(done.to_server)
        if _over(done):
            break
    ended += [one.number for one in session.lost(NOW) if isinstance(one, Ended)]
    assert received.startswith(forwarded)
    assert begun == list(range(1, len(begun) + 1))
    assert sorted(ended) == begun
    return sent


def _over(done: Actions) -> bool:
    return done.close is not None or done.ended


def fuzz(messages: int, seed: int) -> None:
    """Send so many messages; a failure names the seed and the conversation."""
    sent = number = 0
    while sent < messages:
        number += 1
        try:
            sent += converse(random.Random(seed * 1_000_003 + number))
        except Exception as error:
            raise AssertionError(f"seed {seed}, conversation {number}") from error


if __name__ == "__main__":
    fuzz(2 * int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    print(f"{sys.argv[1]} messages each way")
