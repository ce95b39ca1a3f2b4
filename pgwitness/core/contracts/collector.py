"""The contract of a collector: one source of evidence, such as the WAL or the server's log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from pgwitness.core.config import Config

Task = Callable[[threading.Event], None]
"""One thread's work until its event is set.

It blocks on its source and on the broker, and returns within `collectors.daemon.END_S` of the event, whatever it is
waiting for. It raises `Retry` when a server is lost or lacks a right, and is then run again after a pause: all that it
needs of what was before must stand where a crash leaves it. It raises `Stop` when going on would lose or falsify
evidence; that ends the daemon. Anything else is a defect, which is logged whole and retried.

What it sends is durable when the broker's delivery report has come, not when `Channel.send` returns. Only then may it
move its position in the source: what was not confirmed is sent again, as the same events, by the next run. What it
could not see, the time in which it did not look included, it sends as a `Gap`.
"""

ContextT = TypeVar("ContextT", contravariant=True)


class Collector(Protocol[ContextT]):
    """Makes the tasks that collect one source. A module with these two functions is one.

    `ContextT` is what a collector works with: the cluster, the publisher, the health of its parts, the masking key.
    """

    def check(self, config: Config) -> None:
        """Raise `ConfigurationError` where this source cannot be collected as configured, before anything starts.

        Reads local files at most; waits for nothing and opens no connection.
        """

    def tasks(self, context: ContextT) -> Mapping[str, Task]:
        """Return the tasks of one cluster, by the part's name in health, metrics and log; none where there is nothing.

        A name begins with the collector's own and holds the cluster's, so that all names of a daemon differ. Like
        `check`, this waits for nothing, and may raise `ConfigurationError`.
        """
