"""The contract of an alert target: where `pgwitness alerts deliver` sends alerts."""

from __future__ import annotations

from typing import Protocol, TypeVar

from pgwitness.core.errors import PgwitnessError

ItemT = TypeVar("ItemT", contravariant=True)


class NotTaken(PgwitnessError):
    """The target did not take it at the moment; `after_s` is when it asks to be tried again."""

    def __init__(self, message: str, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


class Refused(PgwitnessError):
    """The target will never take this."""


class AlertTarget(Protocol[ItemT]):
    """Takes alerts one at a time, each as an item that can be written in several ways (`sinks.deliveries.routing`).

    The same item may come twice, with the same uid: after a crash, and after a `NotTaken` whose delivery had arrived.
    """

    async def send(self, item: ItemT) -> None:
        """Deliver one alert; it counts as taken when this returns, and its place in the topic is committed after that.

        It must not block the loop, for other targets share it, and waits for a server no longer than `timeout`.
        It raises `NotTaken` when trying again may help: it is tried again, with growing pauses and `after_s` as the
        least, `tries` times; then, and at once with `Refused`, the alert becomes a dead letter with the error's text,
        which must hold no secret. Whatever else it raises restarts the route, and the alert is sent again.
        """

    async def close(self) -> None:
        """Let go of connections and files; `send` may be called again and opens them anew. May be called twice."""
