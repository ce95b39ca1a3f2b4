"""A query of DuckDB's without its literals and comments, for what PostgreSQL's parser does not know. Pure.

`FROM events WHERE principal = 'ada'` is no PostgreSQL, and yet it must be seen afterwards what somebody asked.
"""

from __future__ import annotations

from itertools import count, pairwise

import duckdb

CHARS_MAX = 16 * 1024
"""Where it is cut off; ` …` stands for the rest."""
_LITERALS = {duckdb.token_type.string_const, duckdb.token_type.numeric_const}


def shape(query: str) -> str | None:
    """Return the query with `$n` for its literals; None where DuckDB cannot read it, and nobody knows what is one."""
    try:
        text, number = query.encode(), count(1)
        duckdb.extract_statements(query)
    except (duckdb.Error, UnicodeError):
        return None
    tokens = [*duckdb.tokenize(query), (len(text), duckdb.token_type.comment)]
    words = []
    for (begin, kind), (end, _) in pairwise(tokens):
        if kind in _LITERALS:
            words.append(f"${next(number)}")
        elif kind != duckdb.token_type.comment:
            words.append(text[begin:end].decode(errors="replace").strip())
    made = " ".join(words)
    return made if len(made) <= CHARS_MAX else made[:CHARS_MAX] + " …"
