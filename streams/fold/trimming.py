"""Cutting the rows that are known already off a part that was sent again, cut differently.

Collectors cut parts the same way each time; this is for when the limits changed between two versions. The only
place of the fold that reads rows, and so the only slow one.
"""

from __future__ import annotations

import msgspec

from pgwitness.core.events import Count, Row, Transaction

_rows = msgspec.json.Decoder(list[Row])
_encode = msgspec.json.Encoder().encode


def trim(part: Transaction, next_ordinal: int) -> Transaction:
    """Return the part without the rows before `next_ordinal`, its counts rebuilt."""
    rows = [row for row in _rows.decode(part.rows) if row.ordinal >= next_ordinal]
    counts: dict[tuple[int, str], int] = {}
    for row in rows:
        counts[row.relation, row.operation] = counts.get((row.relation, row.operation), 0) + 1
    return msgspec.structs.replace(
        part,
        first_ordinal=max(next_ordinal, part.first_ordinal),
        n_rows=len(rows),
        counts=[Count(relation, operation, number) for (relation, operation), number in counts.items()],
        rows=msgspec.Raw(_encode(rows)),
    )
