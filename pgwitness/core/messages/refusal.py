"""What a server said to us, for our own logs: its own words, and nothing that somebody's code could have put there.

A login trigger, an event trigger or a function behind one of our queries raises what it likes, and it would stand in
the log of a daemon. The server says with each error where in its source it comes from; what PL/pgSQL and other
languages raise leaves its code alone, and so does every text that is no form of the server's own. Of data errors the
values go, too. Without a server's answer (a broken connection) the text is libpq's, and stays but for a line that the
server sent.
"""

from __future__ import annotations

import re
from typing import Protocol

from pgwitness.core.messages import said

_RAISING = re.compile(r"exec_stmt_raise|exec_stmt_assert|.*(?:elog|PLy|plperl|pltcl|plpython).*", re.IGNORECASE)
_SERVERS = re.compile(r"\b[^\s:]{2,20}:  (?P<message>.*)", re.DOTALL)
"""`FATAL:  password authentication failed for user "pgwitness"` in a text of libpq; two spaces in every language."""
MASKED = "…"


class Diagnosis(Protocol):
    """What psycopg keeps of a server's answer."""

    @property
    def message_primary(self) -> str | None:
        """The message."""

    @property
    def sqlstate(self) -> str | None:
        """The code."""

    @property
    def source_function(self) -> str | None:
        """The function in the server's source that complained."""


def words(error: Exception) -> str:
    """Say in one line why a server refused or was lost."""
    text = " ".join(_words(error).split())
    return text or type(error).__name__


def _words(error: Exception) -> str:
    diag: Diagnosis | None = getattr(error, "diag", None)
    if diag is None or diag.message_primary is None:
        return _of_libpq(str(error))
    kept = None
    if _RAISING.fullmatch(diag.source_function or "") is None:
        kept = _kept(diag.message_primary, values=not (diag.sqlstate or "").startswith(("22", "P0")))
    return kept or f"it answered with SQLSTATE {diag.sqlstate}, in words that are not its own"


def _of_libpq(text: str) -> str:
    found = _SERVERS.search(text)
    if found is None:
        return text
    line = _kept(found["message"].partition("\n")[0], values=True)
    return text[: found.start("message")] + (line or "it answered in words that are not its own")


def _kept(message: str, *, values: bool) -> str | None:
    found = said(message)
    if found is None:
        return None
    pieces = [found.words[0]]
    for value, word in zip(found.values, found.words[1:], strict=True):
        pieces += [value if values else MASKED, word]
    return "".join(pieces)


def dsn_trouble(error: Exception) -> str:
    """Say what is wrong with a DSN without quoting it: a password stands in it, perhaps where it should not."""
    return re.split(r"[\"'«»„“”:]", str(error), maxsplit=1)[0].strip()
