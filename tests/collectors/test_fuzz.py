"""A few thousand mutated inputs through each decoder; `make fuzz` gives a million."""

from __future__ import annotations

import pytest

from tests.collectors.fuzz import decoders, fuzz


@pytest.mark.parametrize("name", decoders())
def test_mutated_inputs_bring_only_what_is_promised(name: str) -> None:
    """Only ProtocolError of a stream, a verdict on a message, dead letters of a topic; what comes out is JSON."""
    fuzz(name, 4_000, seed=7)
