"""Whether an error is the guard's, by where the server says that it was raised; pure.

Any function can raise an error with these words. That the guard's did says the first line of the context, which
PL/pgSQL writes and the server translates: it names the function with its schema, which only the guard's role owns; a
name that somebody chose so that it reads alike stands in quotes there.
"""

from __future__ import annotations

import re
from typing import Final

_JUDGED: Final = re.compile(r'[^"]*\bpgwitness_guard\.judge\(text\[\],text\[\],bigint,boolean\)[^"]*', re.ASCII)


def is_own(context: str | None) -> bool:
    """Return whether the context of an error or a note says that the guard raised it."""
    return _JUDGED.match((context or "").split("\n", 1)[0]) is not None
