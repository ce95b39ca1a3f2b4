"""Watches whether the topics are still those that this worker began with: deleted, made again, given more partitions.

A recreated topic is silent for whoever reads on past its end, and a broker does not say so. The question is
asked in the background and its answer looked at later, so nothing waits for it. `Changed` ends a run of the worker; the
next one takes on what it finds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from pgwitness.core.config import Config
from pgwitness.core.errors import Retry
from pgwitness.core.runtime.logs import LIBRDKAFKA

EVERY_S = 3.0
TIMEOUT_S = 10.0
SETTLE_S = 0.3
"""How long after a suspicion the brokers are asked: one that knows of a change may be ahead of the others."""


class Changed(Retry):
    """A topic is not what it was when this run began."""


class TopicWatch:
    """Asks after the topics of an installation; `began` says which ids they had, `partitions` how many partitions."""

    def __init__(
        self,
        config: Config,
        names: list[str],
        partitions: Mapping[str, int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = AdminClient({**config.kafka.client(), "log_level": "0", "logger": LIBRDKAFKA})
        self._names = names
        self._partitions = partitions
        self._clock = clock
        self._due = clock()
        self._asked: dict[str, Future[Any]] = {}
        self._asked_at = 0.0
        self._suspected: float | None = None
        self._ids: dict[str, str] = {}

    def poll(self, began: Mapping[str, str], suspicious: bool) -> bool:
        """Raise `Changed` when a topic has changed; `began` are the ids that some had when this run began.

        `suspicious`: reading has stopped until it is known. True says that nothing has changed, asked after that.
        """
        now = self._clock()
        if suspicious and self._suspected is None:
            self._suspected = now
            self._due = now + SETTLE_S
        confirmed = False
        if self._asked and all(future.done() for future in self._asked.values()):
            asked, self._asked = self._asked, {}
            answers = {name: self._look(name, future, began.get(name)) for name, future in asked.items()}
            complete = all(answers[name] for name in answers if name in began)
            if self._suspected is not None and self._asked_at >= self._suspected + SETTLE_S and complete:
                confirmed, self._suspected = True, None
            elif self._suspected is not None:
                self._due = min(self._due, now + SETTLE_S)
        if not self._asked and now >= self._due:
            self._due = now + EVERY_S
            self._asked_at = now
            self._asked = dict(self._client.describe_topics(TopicCollection(self._names), request_timeout=TIMEOUT_S))
        return confirmed

    def _look(self, name: str, future: Future[Any], began: str | None) -> bool:
        """Compare an answer with what was; False when there was none."""
        try:
            found = future.result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise Changed(f"topic {name} is gone: run `pgwitness topics apply`; the worker then goes on") from None
            return False  # a broker that does not answer is reported elsewhere
        topic_id = str(found.topic_id)
        known = began or self._ids.get(name)
        self._ids.setdefault(name, topic_id)
        if known is not None and topic_id.strip("A") and topic_id != known:
            raise Changed(f"topic {name} was made again; taking it on")
        number = len(found.partitions)
        if number != self._partitions.get(name, number):
            raise Changed(f"topic {name} has {number} partitions now, not {self._partitions[name]}; taking them on")
        return True
