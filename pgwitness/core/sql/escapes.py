r"""A function's body as it is read with `standard_conforming_strings` off.

A body is read anew by the setting of whoever calls it: `'\''` is a constant of its own then, and what stands behind it
is code. So what a body does is what either way of reading it does.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""
    --[^\n\r]*
  | /\*
  | \$(?P<tag>(?:[A-Za-z_\x80-\U0010ffff][\w]*)?)\$ .*? \$(?P=tag)\$
  | "[^"]*"
  | [eE]'(?:[^'\\]|\\.|'')*'
  | [uU]&'[^']*'
  | (?P<plain>'(?:[^'\\]|\\.|'')*')
  | [A-Za-z_\x80-\U0010ffff][\w$]*
  | .
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"/\*|\*/")


def with_escapes(text: str) -> str | None:
    """Write a text whose plain constants are read with backslashes as escapes; None where there is no difference."""
    if "\\" not in text:
        return None
    pieces: list[str] = []
    place, differs = 0, False
    while (found := _TOKEN.match(text, place)) is not None:
        end = _comment_end(text, place) if found[0] == "/*" else found.end()
        plain = found["plain"]
        if plain is not None and "\\" in plain:
            pieces.append(f" E{plain}")
            differs = True
        else:
            pieces.append(text[place:end])
        place = end
    return "".join(pieces) if differs else None


def _comment_end(text: str, begin: int) -> int:
    """Return where a comment ends, with the comments in it."""
    depth = 0
    for mark in _COMMENT.finditer(text, begin):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    return len(text)
