"""What is otherwise through the gateway in others' suites, and why: what no entry matches is a finding."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from msgspec import Struct


class Explained(Struct, frozen=True):
    """A difference that stays: in which tests (of psql, which files), the words that may be otherwise, and why."""

    where: re.Pattern[str]
    words: re.Pattern[str]
    why: str


def _explained(where: str, words: str, why: str) -> Explained:
    return Explained(re.compile(where), re.compile(words), why)


EXPLAINED: dict[str, tuple[Explained, ...]] = {
    "psql": (
        _explained(
            r"strings",
            r"nonstandard use of|^LINE 1: .*select 'a|^LINE 1: \.\.\.|^ +\^$|Use the escape string syntax",
            "with standard_conforming_strings off a constant with a backslash goes as E'…', about which nobody warns",
        ),
    ),
    "psycopg": (
        _explained(
            r"tests\.pq\.test_pgconn::test_change_password",
            r"password authentication failed",
            "a verifier is remembered for ten seconds, and doubted after a failed proof when it is a second old",
        ),
    ),
}
"""By suite; docs/reference/gateway-suites.md has the table."""


def why(suite: str, where: str, words: str) -> str | None:
    """Return why something is otherwise, None where nothing explains it."""
    for one in EXPLAINED.get(suite, ()):
        if one.where.fullmatch(where) and one.words.search(words):
            return one.why
    return None


def unexplained(suite: str, where: str, direct: Sequence[str], through: Sequence[str]) -> list[str]:
    """Compare what was printed; gives the changed lines that nothing explains."""
    changed = difflib.unified_diff(direct, through, lineterm="", n=0)
    lines = [line for line in changed if not line.startswith(("--- ", "+++ ", "@@"))]
    return [line for line in lines if why(suite, where, line[1:]) is None]
