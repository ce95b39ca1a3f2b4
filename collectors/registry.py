"""Every collector there is, by the name that `pgwitness collect` knows it by.

A collector is a module with the functions of `pgwitness.core.contracts.collector.Collector`. It is imported when it
is asked for: the command line lists the names without loading what the collectors need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collectors.context import Context
    from pgwitness.core.contracts.collector import Collector

COLLECTORS = {
    "wal": "collectors.wal.collector",
    "stats": "collectors.stats.collector",
    "sessions": "collectors.sessions.collector",
    "log": "collectors.log.collector",
}


def load(name: str) -> Collector[Context]:
    """Return the collector of a name. Raise `KeyError` when there is none."""
    return cast("Collector[Context]", importlib.import_module(COLLECTORS[name]))
