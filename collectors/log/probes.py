"""Statements that give no row, by what their literals say: how programs ask for the columns of a table. Pure.

`SELECT * FROM t WHERE 1=0` is what Spark, ODBC and JDBC tools send before they read. Without its literals it looks like
`WHERE 1=1`, which reads everything, so it is told here, where they still stand. Only where nothing else in the text can
read or do anything: no second statement or arm, no CTE, no quotes or comments that could hide one.
"""

from __future__ import annotations

import re

_ENDS = ("0", "1", "e", "E")
_PROBE = re.compile(
    r"\s*SELECT\b(?!.*\b(?:UNION|INTERSECT|EXCEPT|WITH|INTO)\b)[^;'\"$\\]*"
    r"\bWHERE\s+(?:1\s*=\s*0|0\s*=\s*1|1\s*(?:<>|!=)\s*1|FALSE)(?:\s+LIMIT\s+[01])?\s*;?\s*",
    re.IGNORECASE | re.DOTALL,
)
_CHARS_MAX = 4_000


def gives_nothing(text: str) -> bool:
    """Return whether a statement, as it was sent, gives no row whatever the table holds."""
    end = text[-4:].rstrip("; \n")[-1:]
    if end not in _ENDS or len(text) > _CHARS_MAX or "--" in text or "/*" in text:
        return False
    return _PROBE.fullmatch(text) is not None
