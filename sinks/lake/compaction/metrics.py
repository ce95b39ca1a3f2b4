"""The metrics of the compactor and the retainer; `docs/reference/metrics.md` lists them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

LIVE = Gauge("pgwitness_compact_live_files", "Files of the lake that count.")
REPLACED = Counter("pgwitness_compact_replaced_files", "Files that larger ones have taken the place of.")
ROWS = Counter("pgwitness_compact_rows", "Rows that were written again.")
REMOVED = Counter("pgwitness_compact_removed_files", "Replaced and retired files that were deleted after the grace.")
ORPHANS = Gauge("pgwitness_compact_orphans", "Files older than a day that no entry names.")
REFUSED = Gauge("pgwitness_compact_refused", "Jobs of the last round whose files are missing or altered.")
RETIRED = Counter("pgwitness_compact_retired_files", "Files that were retired because their time was over.")
FAILURES = Counter("pgwitness_compact_failures", "Rounds that could not be done, and are tried again.")
LAST = Gauge("pgwitness_compact_timestamp_seconds", "When a round last ended well (Unix time).")
