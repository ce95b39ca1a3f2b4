"""What a page is given, and what it returns: a request of somebody with rights, and the answer to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgwitness.approvals.links import Opened
from pgwitness.core.config import Console
from sinks.console import now
from sinks.console.asking import Asker
from sinks.console.policies import Kept
from sinks.console.reader import Cached, Reader
from sinks.console.roles import Right
from sinks.console.sessions import Session, Sessions
from sinks.console.witness import Feedback, Visitor

if TYPE_CHECKING:
    from sinks.console.approving import Requests


@dataclass(frozen=True)
class Links:
    """Links of messages: the key that signs them, empty where there are none, and which were opened."""

    key: bytes = b""
    opened: Opened = field(default_factory=Opened)


@dataclass(frozen=True)
class Shared:
    """What pages work with: the lake for our questions and for those of people, and what is known of now."""

    reader: Reader
    asking: Asker
    now: Cached[now.Facts]
    sessions: Sessions
    config: Console
    feedback: Feedback
    policies: Cached[Kept]
    requests: Requests
    gateway: Path
    """Where the gateway of this host answers."""
    links: Links = field(default_factory=lambda: Links())


@dataclass(frozen=True)
class Asked:
    """A request: who, with which rights, and the values of path, address and form."""

    visitor: Visitor
    rights: frozenset[Right]
    session: Session
    values: Mapping[str, str]
    shared: Shared

    def value(self, name: str) -> str:
        """Return a value, empty where there is none."""
        return self.values.get(name, "")


@dataclass(frozen=True)
class Answer:
    """A page (`template` and `values`), a `file`, a `document`, or where to go on.

    `what` is written down; of a `query`, its text.
    """

    template: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    outcome: str = "success"
    what: Mapping[str, object] = field(default_factory=dict)
    query: str | None = None
    redirect: str | None = None
    file: tuple[str, str, bytes] | None = None
    document: str | None = None
    """A page that is whole in itself: a report."""


@dataclass(frozen=True)
class Page:
    """A page; `operation` is what its evidence is called, `subject` which values say whom or what it is about."""

    name: str
    path: str
    right: Right
    make: Callable[[Asked], Answer]
    method: str = "GET"
    operation: str = "console_look"
    subject: Mapping[str, str] = field(default_factory=dict)
    """Their names in a request, and in the evidence."""
    shared: bool = False
    """Whether it shows everybody the same: who asks meanwhile waits for it, and not in a thread."""

    def about(self, asked: Asked) -> dict[str, object]:
        """Return what is to be written down of a request that was not answered."""
        return {known: asked.value(name)[:200] for name, known in self.subject.items() if asked.value(name)}
