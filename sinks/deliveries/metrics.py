"""What the deliveries count; `docs/reference/metrics.md` lists these with what to do about them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

DELIVERED = Counter("pgwitness_deliver_delivered", "Alerts and summaries that a target took.", ["target", "what"])
FILTERED = Counter("pgwitness_deliver_filtered", "Alerts that a target is not to get.", ["target"])
HELD_BACK = Counter("pgwitness_deliver_held_back", "Alerts told in a summary because of the rate.", ["target"])
FAILURES = Counter("pgwitness_deliver_failures", "Tries that a target did not take.", ["target"])
DEAD_LETTERS = Counter("pgwitness_deliver_dead_letters", "Alerts that went to the dead letters.", ["target", "reason"])
LAST_SECONDS = Gauge("pgwitness_deliver_last_seconds", "When a target last took something, Unix time.", ["target"])
RESPONSES = Counter("pgwitness_respond_acts", "What came of alerts that ask for a response.", ["outcome"])
