"""What is made of the recordings stays what it was, byte for byte: also the checkpoints, by which an older one is read.

Where a change is meant, `python -m tests.golden.replay --accept`, and say in the change what is different.
"""

from __future__ import annotations

import pytest

from tests.golden.replay import HERE, NAMES, digest, replay


@pytest.mark.parametrize("name", NAMES)
def test_what_is_made_of_a_recording_stays(name: str) -> None:
    """Every piece is what was accepted; the first that is not is shown."""
    accepted = {}
    for line in (HERE / "recorded" / f"{name}.digests").read_text().splitlines():
        known, piece = line.split(" ", 1)
        accepted[piece] = known
    assert len(accepted) > 20
    for piece, content in replay(name):
        if content:
            assert digest(content) == accepted.pop(piece, None), f"{name}, {piece}: {content[:3000]!r}"
    assert not accepted, f"{name}: nothing is made any more of {next(iter(accepted))}"
