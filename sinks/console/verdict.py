"""A verdict from the page: put together here, signed in the reviewer's browser, checked here, and sent on.

The private key stays with the reviewer: the browser reads it from its file, signs what the page shows, and forgets it.
What comes back is checked as the worker will check it, and must be about that alert, by that person, of just now.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, get_args

import msgspec

from detectors.alerts import verdicts
from detectors.alerts.verdicts import SCOPES, Verdict, Word
from pgwitness.core.config import Reviewer
from pgwitness.core.errors import ConfigurationError, NotInOrder
from pgwitness.core.printable import visible_json
from sinks.console.witness import Feedback, Visitor

WORDS: tuple[Word, ...] = get_args(Word)
SIGN_US = 15 * 60 * 1_000_000
"""How long after it was put together a verdict can be signed."""

__all__ = ["SCOPES", "WORDS", "drafted", "reviewer", "sent", "text_of"]


def reviewer(feedback: Feedback, visitor: Visitor) -> Reviewer:
    """Return what the configuration says of a visitor as a reviewer. Raise `NotInOrder` when that is nothing."""
    found = feedback.reviewers.get(visitor.name)
    if found is None:
        raise NotInOrder(
            f"no [reviewers.NAME] of the configuration is {visitor.name!r}: `pgwitness alerts key` makes a key, and "
            "its public half goes there, on the workers' hosts and here"
        )
    return found


def drafted(feedback: Feedback, visitor: Visitor, alert: Mapping[str, Any], fields: Mapping[str, str]) -> Verdict:
    """Put a verdict together from a form. Raise `NotInOrder` with what is missing."""
    found = reviewer(feedback, visitor)
    word, scope = fields.get("word", ""), fields.get("scope", "")
    if word not in WORDS:
        raise NotInOrder("say whether the alert was right")
    try:
        lasts_us = verdicts.lasting_us(fields.get("why", ""), scope, fields.get("expires", ""), visitor.name, found)
        return verdicts.decide(
            alert,
            "false-positive" if word == "false-positive" else "true-positive",
            fields.get("why", ""),
            scope=scope,
            promote=fields.get("promote") == "yes",
            who=visitor.name,
            now_us=time.time_ns() // 1000,
            lasts_us=lasts_us,
        )
    except ConfigurationError as error:
        raise NotInOrder(str(error).removeprefix("--")) from error


def text_of(verdict: Verdict) -> str:
    """Write what is to be signed, without letters that a page would show as something else."""
    return visible_json(msgspec.json.encode(verdict).decode())


def sent(feedback: Feedback, visitor: Visitor, uid: str, text: str, signature: str) -> tuple[str, Verdict]:
    """Send a verdict that was signed; returns its id and itself.

    Raise `NotInOrder` when the worker would not believe it, or it is another one than the page's; `Unreachable`.
    """
    found = reviewer(feedback, visitor)
    now_us = time.time_ns() // 1000
    value = verdicts.signed(text, signature, found)
    checked = verdicts.check(value, feedback.reviewers, now_us)
    if checked.verdict is None:
        key = "; was it the key whose public half stands there?" if checked.refused == "wrong_signature" else ""
        raise NotInOrder(f"the worker would refuse this verdict: {checked.refused}{key}")
    verdict = checked.verdict
    if verdict.uid != uid or verdict.who != visitor.name or not 0 <= now_us - verdict.decided_us <= SIGN_US:
        raise NotInOrder("this is no verdict of yours, of just now, on this alert; begin again")
    feedback.send(uid, value)
    return checked.id, verdict
