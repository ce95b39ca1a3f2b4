"""The metrics of the sealer; `docs/reference/metrics.md` lists them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

SEALED = Gauge("pgwitness_seal_entries", "Entries of the lake's log that the newest checkpoint covers")
SEALED_AT = Gauge("pgwitness_seal_timestamp_seconds", "When a round of the sealer last ended well (Unix time)")
REFUSED = Counter("pgwitness_seal_refused", "Rounds in which nothing was signed, because something is not in order")
