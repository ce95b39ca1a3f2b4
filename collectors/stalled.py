"""A producer that delivers nothing although the broker would take it: seen, so that another one can be made.

Seen once in long runs with kills: a broker was killed, started, and stopped three seconds later, and librdkafka 2.16.0,
told in that moment that a partition has no leader, delivered nothing to it any more, though the broker was back soon. A
broker that is away is no such case: what waits for it is kept, and nothing is gained by sending it again. So the broker
is asked, by a client of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from pgwitness.core.config import Config
from pgwitness.core.runtime.logs import LIBRDKAFKA

STALLED_S = 45.0
"""How long something may wait without anything being confirmed before the broker is asked; then every so often."""
ASK_S = 5.0


class Progress:
    """Whether deliveries get on; pure but for what it is given. `leads` says whether the broker would take records."""

    def __init__(self, now: float, leads: Callable[[], bool]) -> None:
        self._since = now
        self._confirmed = 0
        self._leads = leads

    def stalled(self, now: float, confirmed: int, waiting: bool) -> bool:
        """Return whether nothing gets on; `confirmed` counts the reports so far, `waiting` is whether more are due."""
        if not waiting or confirmed != self._confirmed:
            self._since, self._confirmed = now, confirmed
        if now - self._since < STALLED_S:
            return False
        self._since = now
        return self._leads()


def leads(config: Config, topic: str) -> bool:
    """Ask whether the brokers answer and every partition of a topic has a leader."""
    client = AdminClient({**config.kafka.client(), "log_level": "0", "logger": LIBRDKAFKA})
    try:
        found = client.list_topics(topic, timeout=ASK_S).topics[topic]
    except (KafkaException, KeyError):
        return False
    return found.error is None and all(one.leader >= 0 and one.error is None for one in found.partitions.values())
