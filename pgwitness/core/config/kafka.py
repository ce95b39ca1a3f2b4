"""The tables of the broker and its topics."""

from __future__ import annotations

from pgwitness.core.config.section import Section
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.topics import LANES


class Kafka(Section, frozen=True, kw_only=True):
    """Table `[kafka]`. `settings` is everything else in it, by librdkafka's names, passed through."""

    bootstrap: str = "localhost:9092"
    prefix: str = "pgwitness."
    settings: dict[str, str] = {}

    def topic(self, name: str) -> str:
        """Give a topic's full name."""
        return self.prefix + name

    def client(self) -> dict[str, str]:
        """Give the settings of a librdkafka client.

        Asking for a topic makes none, though many brokers would make it, with their own partitions and retention:
        that is what `topics apply` is for. librdkafka says that this is for consumers; its producers heed it, too.

        Raises `ConfigurationError` when they want a name and a password and one of them is not there.
        """
        if self.settings.get("security.protocol", "").lower().startswith("sasl_"):
            mechanism = self.settings.get("sasl.mechanism") or self.settings.get("sasl.mechanisms") or "GSSAPI"
            named = mechanism.upper() == "PLAIN" or mechanism.upper().startswith("SCRAM")
            for key in ("sasl.username", "sasl.password") if named else ():
                if not self.settings.get(key):
                    variable = f"PGWITNESS_KAFKA__{key.upper().replace('.', '__')}"
                    raise ConfigurationError(
                        f'kafka.{key} is not set and {mechanism} needs it; set "{key}_file" in [kafka], or {variable}'
                    )
        return {"bootstrap.servers": self.bootstrap, "allow.auto.create.topics": "false", **self.settings}


class Topics(Section, frozen=True, kw_only=True):
    """Table `[topics]`: numbers that are fixed when `topics apply` first ran."""

    raw_partitions: int = 4
    event_partitions: int = 4
    lanes: int = LANES
    replication_factor: int = 1
