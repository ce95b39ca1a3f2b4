"""The other program of the demo: a plain Kafka consumer that reads the alerts topic while things happen."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any


class Watch:
    """Reads the alerts topic from a thread; keeps each alert with the record's time in milliseconds."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._found: list[tuple[int, dict[str, Any]]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="alerts", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(5)

    def alerts(self) -> list[tuple[int, dict[str, Any]]]:
        """Return what was read so far."""
        with self._lock:
            return list(self._found)

    def _read(self) -> None:
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

        from pgwitness.core.config import load

        kafka = load(self._config).kafka
        consumer = Consumer({"group.id": "demo-watch", "enable.auto.commit": False, "log_level": 0, **kafka.client()})
        consumer.assign([TopicPartition(kafka.topic("alerts"), 0, OFFSET_BEGINNING)])
        try:
            while not self._stop.is_set():
                message = consumer.poll(0.2)
                value = None if message is None or message.error() is not None else message.value()
                if message is None or value is None:
                    continue
                with self._lock:
                    self._found.append((message.timestamp()[1], json.loads(value)))
        finally:
            consumer.close()
