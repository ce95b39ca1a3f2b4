"""How often a test repeats what it does: a few times in CI, many with `make chaos`.

For what is the same again with other numbers: kills at another moment, a crash one operation later, one more drawn
example. Each kind of it comes in CI; what is found by patience alone is looked for by `make chaos`, which runs every
file that imports this one.
"""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

FULL = os.environ.get("PGWITNESS_CHAOS") == "full"
"""Set by `make chaos`."""


def often(few: T, many: T) -> T:
    """Give what CI does, or all of it."""
    return many if FULL else few
