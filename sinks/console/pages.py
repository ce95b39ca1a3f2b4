"""The pages, each with its path, the right that it takes, and the function that makes it.

A page's function is given who asks (`Asked`) and reads the lake; it runs in a thread. What it returns says which
template shows it, and what is to be written down of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pgwitness.core.config import Console
from sinks.console import alerts, now
from sinks.console.http import Refused
from sinks.console.reader import Cached, Reader
from sinks.console.roles import Right
from sinks.console.sessions import Session, Sessions
from sinks.console.witness import Visitor


@dataclass(frozen=True)
class Shared:
    """What pages work with: the lake for our questions and for those of people, and what is known of now."""

    reader: Reader
    asking: Reader
    now: Cached[now.Facts]
    sessions: Sessions
    config: Console


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
    """A page (`template` and `values`), a `file`, or where to go on. `what` is written down; of a `query`, its text."""

    template: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    outcome: str = "success"
    what: Mapping[str, object] = field(default_factory=dict)
    query: str | None = None
    redirect: str | None = None
    file: tuple[str, str, bytes] | None = None


@dataclass(frozen=True)
class Page:
    """A page; `operation` is what its evidence is called."""

    name: str
    path: str
    right: Right
    make: Callable[[Asked], Answer]
    method: str = "GET"
    operation: str = "console_look"


def _now(asked: Asked) -> Answer:
    return Answer("now.html", {"facts": asked.shared.now.get()})


def _alerts(asked: Asked) -> Answer:
    state = asked.value("state") or "waiting"
    if state not in alerts.STATES:
        raise Refused(404, "There is no such page.")
    stories = alerts.inbox(asked.shared.reader, state)
    values = {"stories": stories, "state": state, "states": list(alerts.STATES), "shown": alerts.SHOWN}
    return Answer("alerts.html", values, what={"state": state})


def _alert(asked: Asked) -> Answer:
    found = alerts.one(asked.shared.reader, asked.value("uid"))
    if found is None:
        raise Refused(404, "There is no such alert in the lake; a new one lands within a minute.")
    may = "evidence" in asked.rights
    values = {
        "alert": found,
        "evidence": alerts.evidence(asked.shared.reader, found) if may else [],
        "timeline": alerts.timeline(asked.shared.reader, found) if may else [],
        "shown": alerts.EVIDENCE_SHOWN,
    }
    return Answer("alert.html", values, what={"uid": found.row["uid"]})


PAGES = (
    Page("now", "/", "now", _now),
    Page("alerts", "/alerts", "alerts", _alerts),
    Page("alert", "/alerts/{uid}", "alerts", _alert),
)
