"""The metrics of the sealer; `docs/reference/metrics.md` lists them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

SEALED = Gauge("pgwitness_seal_entries", "Entries of the lake's log that the newest checkpoint covers")
SEALED_AT = Gauge("pgwitness_seal_timestamp_seconds", "When a round of the sealer last ended well (Unix time)")
REFUSED = Counter("pgwitness_seal_refused", "Rounds in which nothing was signed, because something is not in order")
ANCHORED_AT = Gauge(
    "pgwitness_seal_anchored_timestamp_seconds", "When an anchor last took a checkpoint (Unix time)", ["anchor"]
)
NOT_ANCHORED = Counter("pgwitness_seal_anchor_failures", "Times that an anchor did not take a checkpoint", ["anchor"])
