"""The pages, each with its path, the right that it takes, and the function that makes it.

A page's function is given who asks (`Asked`) and reads the lake; it runs in a thread. What it returns says which
template shows it, and what is to be written down of it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from pgwitness.core.errors import NotInOrder
from sinks.console import (
    alerts,
    approving,
    charting,
    csvfile,
    drafting,
    live_sessions,
    people,
    policy_pages,
    records,
    report_pages,
)
from sinks.console import verdict as verdicts
from sinks.console.asked import Answer, Asked, Page
from sinks.console.asking import Found
from sinks.console.http import Refused
from sinks.report.questions import QUESTIONS


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
        "is_reviewer": asked.visitor.name in asked.shared.feedback.reviewers,
        "words": verdicts.WORDS,
        "scopes": verdicts.SCOPES,
        "decided": asked.value("decided") == "yes",
    }
    return Answer("alert.html", values, what={"uid": found.row["uid"]})


def _verdict(asked: Asked) -> Answer:
    """Put a verdict together, for the browser to sign."""
    found = alerts.one(asked.shared.reader, asked.value("uid"))
    if found is None:
        raise Refused(404, "There is no such alert in the lake.")
    verdict = verdicts.drafted(asked.shared.feedback, asked.visitor, found.ocsf, asked.values)
    values = {"alert": found, "verdict": verdict, "signed": verdicts.text_of(verdict)}
    values["until"] = datetime.fromtimestamp(verdict.expires_us / 1_000_000, UTC)
    return Answer("verdict.html", values, what={"uid": verdict.uid})


def _signed(asked: Asked) -> Answer:
    uid = asked.value("uid")
    number, verdict = verdicts.sent(
        asked.shared.feedback, asked.visitor, uid, asked.value("signed"), asked.value("signature")
    )
    what = {"uid": uid, "verdict": number, "as": verdict.verdict, "scope": verdict.scope}
    return Answer(redirect=f"/alerts/{quote(uid, safe='')}?decided=yes", what=what)


def _people(asked: Asked) -> Answer:
    name = asked.value("name")
    at = datetime.now(UTC)
    if not name:
        return Answer("people.html", {"people": people.listed(asked.shared.reader, at), "shown": people.LISTED})
    found = people.one(asked.shared.reader, name, at)
    if not found.is_known:
        raise Refused(404, "Nobody of this name did anything this week, and nothing was found of them.")
    return Answer("person.html", {"person": found, "hours": range(people.HOURS)}, what={"principal": name[:200]})


def _records(asked: Asked) -> Answer:
    return Answer("records.html", _RECORDS)


_RECORDS: dict[str, Any] = {"relation": "", "key": "", "rows": None, "images": {}, "more": False, "sentence": ""}


def _record(asked: Asked) -> Answer:
    relation, key = asked.value("relation").strip(), asked.value("key").strip()
    values = {**_RECORDS, "relation": relation, "key": key}
    what: dict[str, object] = {"relation": relation[:200]}
    if not relation or not key:
        return Answer("records.html", {**values, "sentence": "Name a relation and a key."}, 422, "failure", what)
    try:
        found = records.touched(asked.shared.reader, relation, key)
        rows = found.dicts()
        values |= {"rows": rows, "more": found.more, "images": records.images(asked.shared.reader, rows)}
    except NotInOrder as error:
        return Answer("records.html", {**values, "sentence": str(error)}, 422, "failure", what)
    # Which record it was says the evidence that was shown; the key itself may be somebody's, and stands nowhere.
    what |= {"events": len(rows), "event_ids": [row["event_id"] for row in rows[:NAMED_MAX]]}
    return Answer("records.html", values, what=what)


NAMED_MAX = records.SHOWN
_ASK: dict[str, Any] = {"query": "", "found": None, "chart": None, "sentence": "", "questions": QUESTIONS}


def _ask_form(asked: Asked) -> Answer:
    number = asked.value("question")
    query = next((one.query for one in QUESTIONS if str(one.number) == number), "")
    return Answer("ask.html", {**_ASK, "query": query})


def _ask(asked: Asked) -> Answer:
    query = asked.value("query")
    values = {**_ASK, "query": query}
    if not query.strip():
        return Answer("ask.html", {**values, "sentence": "Write a query."}, 422, "failure")
    try:
        found = asked.shared.asking.ask(query)
    except NotInOrder as error:
        return Answer("ask.html", {**values, "sentence": str(error)}, 422, "failure", query=query)
    if asked.value("as") == "csv":
        file = ("answer.csv", "text/csv; charset=utf-8", csvfile.written(found.columns, found.rows))
        return Answer(file=file, query=query)
    shown = Found(found.columns, found.rows[:ROWS_SHOWN], found.more)
    values |= {"found": shown, "total": len(found.rows), "chart": charting.drawn(found.columns, found.rows)}
    return Answer("ask.html", values, query=query)


ROWS_SHOWN = 1_000
"""Rows of an answer in a page; all of them are in the CSV."""

PAGES = (
    Page("now", "/", "now", _now, shared=True),
    Page("alerts", "/alerts", "alerts", _alerts),
    Page("alert", "/alerts/{uid}", "alerts", _alert, subject={"uid": "uid"}),
    Page("verdict, drafted", "/alerts/{uid}/verdict", "verdict", _verdict, method="POST", subject={"uid": "uid"}),
    Page(
        "verdict",
        "/alerts/{uid}/signed",
        "verdict",
        _signed,
        method="POST",
        operation="console_verdict",
        subject={"uid": "uid"},
    ),
    Page("people", "/people", "people", _people, subject={"name": "principal"}),
    Page("records", "/records", "evidence", _records),
    Page("records", "/records", "evidence", _record, method="POST", subject={"relation": "relation"}),
    Page("ask", "/ask", "ask", _ask_form),
    Page("ask", "/ask", "ask", _ask, method="POST", operation="query"),
    *drafting.PAGES,
    *policy_pages.PAGES,
    *approving.PAGES,
    *live_sessions.PAGES,
    *report_pages.PAGES,
)
