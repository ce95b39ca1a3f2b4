"""Waits for what is on its way into a lake that is verified while others write: files that get their entry soon.

A compactor writes the files of a month for minutes before it makes the entry. So whoever finds a file that no entry
names looks again, as long as any of these changes. The time of a file says nothing: in a copy all files are new.
"""

from __future__ import annotations

from collections.abc import Callable

from sinks.seal.verification.copies import Copy

STEP_S = 0.5
WAIT_S_MAX = 900.0
"""Whoever lets a file grow for ever keeps nobody waiting for ever."""


def settled(
    lake: Copy, strange: Callable[[], list[str]], patience_s: float, wait: Callable[[float], object]
) -> list[str]:
    """Give what is `strange`, once it has stayed as it is for so long; `strange` reads the log anew."""
    found = strange()
    before = _states(lake, found)
    quiet_s = waited_s = 0.0
    while found and quiet_s < patience_s and waited_s < WAIT_S_MAX:
        wait(STEP_S)
        waited_s += STEP_S
        found = strange()
        after = _states(lake, found)
        quiet_s, before = (quiet_s + STEP_S if after == before else 0.0), after
    return found


def _states(lake: Copy, names: list[str]) -> list[tuple[str, object]]:
    return [(name, lake.trace(name)) for name in names]
