"""The evidence of a lake as events again, in the order in which they were judged, for `pgwitness policy replay`.

The lake holds a row a changed row; here the rows of a transaction are counted by relation and operation and become the
event that the judge saw, at the place of its last row. Everything else is one row, one event. The lake is only read,
and nothing else is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import duckdb
import msgspec

from detectors.replay import Past
from pgwitness.core.events import OPERATIONS, Count, Event, Position, Relation
from sinks.lake.storage.store import Store
from sinks.lake.views.views import scan
from sinks.sql.catalogue import connect
from sinks.sql.query import in_words

FETCH_ROWS = 5_000
_LETTERS = {word: letter for letter, word in OPERATIONS.items()}
_NOWHERE = Position(0, 0, 0)

_FACTS = (
    "kind",
    "cluster",
    "instance",
    "database",
    "principal",
    "principal_kind",
    "on_behalf_of",
    "peer_group",
    "binding",
    "certainty",
    "assurance",
    "identity_rule",
    "role",
    "effective_role",
    "application",
    "client_addr",
    "client_port",
    "pid",
    "auth_method",
    "session_id",
    "trace_id",
    "xid",
    "lsn",
    "outcome",
    "effect",
    "sqlstate",
    "statement",
    "fingerprint",
    "query_id",
)
"""Columns that are the event's fields as they are, the same for all rows of a transaction."""
_OWN = ("operation", "relations", "columns", "calls", "row_count", "duration_ms")
"""Columns that are the event's fields where it is one row."""

# Compaction puts the rows of a transaction where others of its principal are, perhaps into two files: within an event
# the ordinal says their order. Version 0.1 named a file TOPIC-PARTITION-START.parquet; rows stand in it in the order
# they were judged.
_SOURCE = """
SELECT *, coalesce(source, regexp_extract(filename, '([^/]+)-[0-9]{{20}}\\.parquet$', 1)) AS partition,
    concat(coalesce(lpad(source_offset::VARCHAR, 20, '0'), regexp_extract(filename, '([0-9]{{20}})\\.parquet$', 1)),
        coalesce(lpad(source_index::VARCHAR, 10, '0') || lpad(coalesce(ordinal, 0)::VARCHAR, 19, '0'), dt::VARCHAR),
        lpad(file_row_number::VARCHAR, 12, '0')) AS place
FROM {scan}
WHERE dt >= to_timestamp($from_us / 1e6)::DATE - 1 AND epoch_us(occurred_at) >= $from_us
    AND epoch_us(occurred_at) < $until_us
"""

_QUERY = """
WITH source AS ({source}),
counted AS (
    SELECT partition, split_part(event_id, '-', 1) AS id, relations[1] AS relation, operation, count(*) AS n,
        max(place) AS place, min(place) AS first_place, list_distinct(flatten(list(policies))) AS policies,
        arg_max(struct_pack({facts}, occurred_us := epoch_us(occurred_at), captured_us := epoch_us(captured_at), detail,
            anomaly, reasons), place) AS facts
    FROM source WHERE kind = 'change' AND ordinal IS NOT NULL GROUP BY ALL
),
transactions AS (
    SELECT partition, id, max(place) AS place, arg_max(facts, place) AS facts,
        list_distinct(flatten(list(policies))) AS policies,
        list(struct_pack(relation, operation, n) ORDER BY first_place) AS counts
    FROM counted GROUP BY partition, id
),
others AS (
    SELECT partition, event_id AS id, place, struct_pack({facts}, occurred_us := epoch_us(occurred_at),
        captured_us := epoch_us(captured_at), detail, anomaly, reasons) AS facts, policies, {own}
    FROM source WHERE kind <> 'change' OR ordinal IS NULL
)
SELECT partition, id, facts, policies, counts, {own}
FROM (SELECT * FROM transactions UNION ALL BY NAME SELECT * FROM others)
ORDER BY partition, place
"""

_LAST_SEEN = """
SELECT principal, epoch_us(max(occurred_at)) FROM {events}
WHERE principal IS NOT NULL AND epoch_us(occurred_at) < $from_us GROUP BY principal
ORDER BY max(occurred_at) DESC LIMIT 20000
"""
_TIME_US_MAX = 2**62


class Evidence:
    """The events of a lake from `from_us` until before `until_us`, as they were judged. A context manager."""

    def __init__(self, lake: Path | Store, from_us: int, until_us: int | None = None) -> None:
        """Open the lake; raises `NotInOrder` when there is none."""
        self._connection = connect(lake)
        self._span = {"from_us": from_us, "until_us": _TIME_US_MAX if until_us is None else until_us}
        self._source = _SOURCE.format(scan=scan("events", ", filename = true, file_row_number = true"))
        self._events = scan("events")

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the lake."""
        self._connection.close()

    def total(self) -> int:
        """Count the events."""
        query = (
            "SELECT count(DISTINCT (partition, CASE WHEN ordinal IS NULL THEN event_id "
            f"ELSE split_part(event_id, '-', 1) END)) FROM ({self._source})"
        )
        ((number,),) = self._ask(query, self._span)
        return int(number)

    def last_seen(self) -> dict[str, int]:
        """Give when each principal was last seen before, in microseconds."""
        query = _LAST_SEEN.format(events=self._events)
        rows = self._ask(query, {"from_us": self._span["from_us"]})
        return {str(name): int(at_us) for name, at_us in rows}

    def __iter__(self) -> Iterator[Past]:
        """Give the events, partition by partition, in the order in which they were judged."""
        query = _QUERY.format(source=self._source, facts=", ".join(_FACTS), own=", ".join(_OWN))
        for partition, event_id, facts, policies, counts, *own in self._ask(query, self._span):
            event = past_event(event_id, facts, counts, dict(zip(_OWN, own, strict=True)))
            yield Past(partition, event, tuple(policies or ()), facts["anomaly"], _list(facts["reasons"]))

    def _ask(self, query: str, values: dict[str, int]) -> Iterator[tuple[Any, ...]]:
        """Give the rows of an answer. Raise `NotInOrder` with what to do where a file is not there."""
        try:
            answer = self._connection.execute(query, values)
            while rows := answer.fetchmany(FETCH_ROWS):
                yield from rows
        except duckdb.Error as error:
            raise in_words(error) from error


def past_event(event_id: str, facts: dict[str, Any], counts: list[dict[str, Any]] | None, own: dict[str, Any]) -> Event:
    """Make the event that the judge saw from the lake's facts; `counts` are a transaction's, None for other events."""
    fields: dict[str, Any] = {name: facts[name] for name in _FACTS}
    fields |= {"occurred_at_us": facts["occurred_us"], "captured_at_us": facts["captured_us"]}
    fields["detail"] = _object(facts["detail"])
    if counts is None:
        fields |= {name: own[name] for name in _OWN}
        for name in ("relations", "columns"):
            fields[name] = fields[name] or []
        return Event(event_id=event_id, at=_NOWHERE, **fields)
    names = list(dict.fromkeys(item["relation"] or "?" for item in counts))
    operations = {item["operation"] for item in counts}
    return Event(
        event_id=event_id,
        at=_NOWHERE,
        operation=operations.pop() if len(operations) == 1 else None,
        relation_table=[Relation(name) for name in names],
        counts=[
            Count(names.index(item["relation"] or "?"), _LETTERS.get(item["operation"], item["operation"]), item["n"])
            for item in counts
        ],
        n_rows=sum(item["n"] for item in counts),
        **fields,
    )


def _object(text: str | None) -> dict[str, object]:
    found = _json(text)
    return found if isinstance(found, dict) else {}


def _list(text: str | None) -> list[dict[str, Any]]:
    found = _json(text)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _json(text: str | None) -> object:
    try:
        return msgspec.json.decode(text) if text else None
    except msgspec.DecodeError:
        return None
