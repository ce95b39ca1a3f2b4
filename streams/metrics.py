"""What the worker counts; `docs/reference/metrics.md` lists these with what to do about them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

BATCHES = Counter("pgwitness_worker_batches", "Records read.", ["topic"])
EVENTS = Counter("pgwitness_worker_events", "Events attributed, by kind and certainty.", ["kind", "certainty"])
ROWS = Counter("pgwitness_worker_rows", "Changed rows attributed.", ["certainty"])
KNOWN = Counter(
    "pgwitness_worker_known", "Transactions or parts dropped because they had been seen, or events landed.", ["stage"]
)
HELD = Gauge("pgwitness_worker_held", "Transactions that wait for their identity.", ["partition"])
HELD_BYTES = Gauge("pgwitness_worker_held_bytes", "Bytes of rows that wait for their identity.", ["partition"])
LAG = Gauge(
    "pgwitness_worker_lag", "Records of the topic's partition that are not yet processed.", ["topic", "partition"]
)
DEAD_LETTERS = Counter("pgwitness_worker_dead_letters", "Records that could not be read.", ["topic", "reason"])
PAUSED = Gauge(
    "pgwitness_worker_paused", "1 while a partition waits for a newer version of pgwitness.", ["topic", "partition"]
)
CHECKPOINTS = Counter("pgwitness_worker_checkpoints", "Checkpoints written.", ["stage"])
CHECKPOINTS_DAMAGED = Counter("pgwitness_worker_checkpoints_damaged", "Checkpoints that cannot be used.", ["stage"])
CHECKPOINT_BYTES = Gauge("pgwitness_worker_checkpoint_bytes", "Size of the last checkpoint.", ["stage", "partition"])
CHECKPOINT_SECONDS = Histogram(
    "pgwitness_worker_checkpoint_seconds",
    "For how long a checkpoint stopped the stream.",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
RESTARTS = Counter("pgwitness_worker_restarts", "Times the worker started again after an error.")
IDENTITY_ERRORS = Counter(
    "pgwitness_worker_identity_errors", "Times identities.yaml could not be used; the last good one holds."
)
POLICY_ERRORS = Counter(
    "pgwitness_worker_policy_errors", "Times changed policies could not be used; the last good ones hold."
)
POLICY_CHANGES = Counter("pgwitness_worker_policy_changes", "Times the judges took on changed policies.")
SUPPRESSION_ERRORS = Counter(
    "pgwitness_worker_suppression_errors", "Times suppressions.yaml could not be used; the last good one holds."
)
VERDICTS = Counter("pgwitness_worker_verdicts", "Verdicts taken from the topic feedback.", ["outcome"])
APPROVALS = Counter("pgwitness_worker_approvals", "Records of the topic approvals.", ["record", "outcome"])
LANDED = Counter("pgwitness_worker_landed", "Events made durable in the lake.")
ALERTS = Counter("pgwitness_worker_alerts", "Alerts raised.")
QUIET = Counter(
    "pgwitness_worker_alerts_quiet", "Alerts that went to the lake only: suppressed, or waiting for a digest."
)
ALERT_SECONDS = Histogram(
    "pgwitness_worker_alert_seconds",
    "From commit at the database to the alert's delivery, alerts from changes only.",
    buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0),
)
LAND_SECONDS = Histogram("pgwitness_worker_land_seconds", "How long one commit of the lake took.")
