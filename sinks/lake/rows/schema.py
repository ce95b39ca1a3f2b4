"""The Arrow schemas of the lake's tables: the columns that `docs/reference/columns.md` promises, in that order.

Columns are only ever added, at the end, and `SCHEMA_VERSION` grows with them; a reader that unites files by column
name reads old and new ones together. `dt`, the UTC day of capture, is the Hive partition and not stored in a file.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 4
"""Version of the lake's columns, stored in every row of `events`."""

DAY_US = 86_400_000_000
TIME_US_MAX = 253_402_300_799_999_999
"""The last microsecond of the year 9999; later times have no day that readers agree on."""

_TEXT = pa.string()
_TEXTS = pa.list_(pa.field("element", pa.string()))
_TIME = pa.timestamp("us", tz="UTC")

EVENTS = pa.schema(
    [
        ("event_id", _TEXT),
        ("kind", _TEXT),
        ("occurred_at", _TIME),
        ("captured_at", _TIME),
        ("cluster", _TEXT),
        ("instance", _TEXT),
        ("database", _TEXT),
        ("principal", _TEXT),
        ("principal_kind", _TEXT),
        ("on_behalf_of", _TEXT),
        ("binding", _TEXT),
        ("certainty", _TEXT),
        ("assurance", _TEXT),
        ("identity_rule", _TEXT),
        ("role", _TEXT),
        ("effective_role", _TEXT),
        ("application", _TEXT),
        ("client_addr", _TEXT),
        ("auth_method", _TEXT),
        ("session_id", _TEXT),
        ("trace_id", _TEXT),
        ("client_port", pa.int32()),
        ("pid", pa.int32()),
        ("xid", pa.int64()),
        ("lsn", pa.int64()),
        ("ordinal", pa.int64()),
        ("operation", _TEXT),
        ("relations", _TEXTS),
        ("columns", _TEXTS),
        ("statement", _TEXT),
        ("fingerprint", _TEXT),
        ("query_id", pa.int64()),
        ("calls", pa.int64()),
        ("row_count", pa.int64()),
        ("duration_ms", pa.float64()),
        ("outcome", _TEXT),
        ("sqlstate", _TEXT),
        ("row_key", _TEXT),
        ("changed", _TEXTS),
        ("anomaly", pa.float64()),
        ("reasons", _TEXT),
        ("policies", _TEXTS),
        ("detail", _TEXT),
        ("schema_version", pa.int32()),
        ("peer_group", _TEXT),
        ("covered", pa.bool_()),
        ("effect", _TEXT),
        ("source", _TEXT),
        ("source_offset", pa.int64()),
        ("source_index", pa.int64()),
        ("relation", _TEXT),
        ("touch", pa.uint64()),
        ("touch_before", pa.uint64()),
    ]
)
"""`events`: one row a changed row, or one event of any other kind.

Beyond the contract: `peer_group`, whom the principal is compared with, and `covered`, whether a beacon was installed
on the row's table when it changed, so that a change without one shows, and `effect`, what is proven to have changed.
`source` is topic and partition (`TOPIC-PARTITION`), `source_offset` the record there, `source_index` the event's place
among those of the record that were landed: the order in which events were judged.
"""

ROWS = pa.schema([("event_id", _TEXT), ("before", _TEXT), ("after", _TEXT)])
"""`rows`: the images of changed rows, JSON objects, masked; apart, so that fewer people need to read them."""

ALERTS = pa.schema(
    [
        ("uid", _TEXT),
        ("time", _TIME),
        ("captured_at", _TIME),
        ("first_seen", _TIME),
        ("last_seen", _TIME),
        ("title", _TEXT),
        ("message", _TEXT),
        ("severity_id", pa.int32()),
        ("severity", _TEXT),
        ("status_id", pa.int32()),
        ("status", _TEXT),
        ("count", pa.int64()),
        ("cluster", _TEXT),
        ("instance", _TEXT),
        ("database", _TEXT),
        ("principal", _TEXT),
        ("principal_kind", _TEXT),
        ("on_behalf_of", _TEXT),
        ("policy", _TEXT),
        ("model", _TEXT),
        ("event_id", _TEXT),
        ("event_ids", _TEXTS),
        ("ocsf", _TEXT),
        ("schema_version", pa.int32()),
        ("activity", _TEXT),
        ("detector", _TEXT),
        ("incident", _TEXT),
        ("suppressed_by", _TEXT),
        ("mode", _TEXT),
        ("is_alert", pa.bool_()),
    ]
)
"""`alerts`: one row for each time an alert was raised; `uid` is the same when the same alert is raised again.

`ocsf` is the whole Detection Finding, as it went to the topic if it did; `event_id` is the event whose judging raised
it, or, when that is somebody else's and only told the time, the finding's last one.
"""

TABLES: dict[str, pa.Schema] = {"events": EVENTS, "rows": ROWS, "alerts": ALERTS}

UNIQUES = {"event_id", "row_key", "before", "after", "detail", "reasons", "ocsf", "touch", "touch_before"}
"""Columns whose values rarely come twice: a dictionary for them costs time and saves nothing."""

BLOOMS = {"touch": None, "kind": 16, "operation": 128}
"""Columns with a Bloom filter in each row group, which a question for one value reads first; and how many distinct
values it is made for, None as many as there are rows."""
