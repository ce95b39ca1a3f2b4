"""Every store that a worker can land evidence in, by the name that `worker.evidence` knows it by.

A store is made of the configuration, opens nothing yet, and keeps the contract of
`pgwitness.core.contracts.evidence_writer`.
"""

from __future__ import annotations

from collections.abc import Callable

from pgwitness.core.config import Config
from pgwitness.core.contracts.evidence_writer import EvidenceStore
from pgwitness.core.errors import ConfigurationError
from sinks.lake.opening import open_lake

STORES: dict[str, Callable[[Config], EvidenceStore]] = {
    "lake": open_lake,
}


def open_store(config: Config) -> EvidenceStore:
    """Return the store that the configuration names. Raise `ConfigurationError` when there is none of that name."""
    try:
        make = STORES[config.worker.evidence]
    except KeyError:
        known = ", ".join(STORES)
        raise ConfigurationError(f"worker.evidence: no store {config.worker.evidence!r}; there is: {known}") from None
    return make(config)
