"""The pages *Policies*: the list, one of them, and what a change of it would have found."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from pgwitness.core.errors import ConfigurationError, NotInOrder
from pgwitness.core.moments import when
from sinks.console import policies
from sinks.console.asked import Answer, Asked, Page
from sinks.console.asking import LONG_S, Replaying
from sinks.console.http import Refused

SINCE = "7d"


def _policies(asked: Asked) -> Answer:
    kept, sentence = policies.kept_or_why(asked.shared.policies.get)
    rows = policies.listed(asked.shared.reader, kept, datetime.now(UTC))
    sha256 = kept.bundle.sha256 if kept is not None else ""
    return Answer("policies.html", {"policies": rows, "sentence": sentence, "sha256": sha256, "days": policies.DAYS})


def _policy(asked: Asked) -> Answer:
    return _shown(asked)


def _shown(asked: Asked, text: str | None = None, since: str = SINCE, **more: object) -> Answer:
    """Show a policy; `text` and `since` are what somebody is trying."""
    kept = asked.shared.policies.get()
    policy = policies.one(kept, asked.value("id"))
    if policy is None:
        raise Refused(404, "There is no such policy in the console's policies.path.")
    found, labels, counts = policies.history(asked.shared.reader, policy.id, datetime.now(UTC))
    written = kept.text_of(policy)
    values = {
        "policy": policy.document,
        "failures": kept.failures.get(policy.id, ()),
        "found": found,
        "labels": labels,
        "counts": counts,
        "shown": policies.SHOWN,
        "text": written if text is None else text,
        "since": since,
        "replayed": None,
        "changes": [] if text is None else policies.changes(written, text),
        "sentence": "",
        **more,
    }
    return Answer("policy.html", values, what={"policy": policy.id})


def _replay(asked: Asked) -> Answer:
    text, since = asked.value("text").replace("\r\n", "\n"), asked.value("since").strip()
    try:
        since_us = when(since, time.time_ns() // 1000)
        done = asked.shared.asking.do(Replaying(text, since_us), LONG_S, "the replay")
    except (ConfigurationError, NotInOrder) as error:
        answer = _shown(asked, text, since, sentence=str(error))
        return Answer(answer.template, answer.values, 422, "failure", {**answer.what, "since": since[:40]})
    assert done.replayed is not None
    answer = _shown(asked, text, since, replayed=done.replayed)
    what = {**answer.what, "since": since[:40], "bundle": done.replayed.difference.bundle_sha256}
    return Answer(answer.template, answer.values, what=what)


PAGES = (
    Page("policies", "/policies", "alerts", _policies),
    Page("policy", "/policies/{id}", "alerts", _policy, subject={"id": "policy"}),
    Page(
        "policy, replayed",
        "/policies/{id}",
        "ask",
        _replay,
        method="POST",
        operation="replay",
        subject={"id": "policy", "since": "since"},
    ),
)
