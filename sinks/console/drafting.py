"""The page on which an alert becomes a policy: drafted as by `pgwitness policy draft`, shown, installed by nobody.

What it would have stopped in the last month is found out when it is asked for, in a process of its own.
"""

from __future__ import annotations

import time
from typing import Any

from detectors.policy import draft
from detectors.policy.files import parse
from pgwitness.core.errors import ConfigurationError, NotInOrder
from pgwitness.core.moments import when
from sinks.console import alerts
from sinks.console.asked import Answer, Asked, Page
from sinks.console.asking import LONG_S, Replaying
from sinks.console.http import Refused

SINCE = "30d"


def _drafted(asked: Asked) -> tuple[alerts.Alert, str, str]:
    """Return an alert with the policy drafted of it, or why there is none."""
    found = alerts.one(asked.shared.reader, asked.value("uid"))
    if found is None:
        raise Refused(404, "There is no such alert in the lake; a new one lands within a minute.")
    try:
        return found, draft.draft(draft.told(found.ocsf)), ""
    except (ValueError, ConfigurationError) as error:
        return found, "", f"No policy can be drafted of this alert: {error}."


def _draft(asked: Asked) -> Answer:
    found, text, sentence = _drafted(asked)
    return _page(found, text, sentence)


def _page(found: alerts.Alert, text: str, sentence: str, **more: Any) -> Answer:
    (policy,) = parse(text, "draft") if text else (None,)
    values = {
        "alert": found,
        "text": text,
        "sentence": sentence,
        "tests": policy.document.tests if policy is not None else [],
        "replayed": None,
        "since": SINCE,
        **more,
    }
    outcome = "failure" if sentence else "success"
    return Answer("draft.html", values, 422 if sentence else 200, outcome, {"uid": found.row["uid"], "policy": "draft"})


def _file(asked: Asked) -> Answer:
    found, text, sentence = _drafted(asked)
    if not text:
        raise Refused(422, sentence)
    (policy,) = parse(text, "draft")
    return Answer(
        file=(f"{policy.id}.yaml", "application/yaml; charset=utf-8", text.encode()), what={"uid": found.row["uid"]}
    )


def _replay(asked: Asked) -> Answer:
    found, text, sentence = _drafted(asked)
    if not text:
        return _page(found, text, sentence)
    try:
        since_us = when(SINCE, time.time_ns() // 1000)
        done = asked.shared.asking.do(Replaying(text, since_us), LONG_S, "the replay")
    except NotInOrder as error:
        return _page(found, text, str(error))
    assert done.replayed is not None
    return _page(found, text, "", replayed=done.replayed)


PAGES = (
    Page("draft", "/alerts/{uid}/draft", "verdict", _draft, subject={"uid": "uid"}),
    Page("draft, kept", "/alerts/{uid}/draft.yaml", "verdict", _file, subject={"uid": "uid"}),
    Page(
        "draft, replayed",
        "/alerts/{uid}/draft",
        "verdict",
        _replay,
        method="POST",
        operation="replay",
        subject={"uid": "uid"},
    ),
)
