"""What the evidence says to the requirements of a standard: the auditors' questions, each bounded to a period.

Only those whose questions name nobody stand here; what a person's record needs (GDPR, HIPAA) is asked by name.
"""

from __future__ import annotations

import re
from datetime import timedelta

from sinks.report.questions import QUESTIONS, Question
from sinks.report.subject import EPOCH, Subject, happened, literal, overlaps

STANDARDS = {
    "pci": "PCI DSS 4.0, requirement 10",
    "soc2": "SOC 2, CC6 and CC7",
    "iso27001": "ISO/IEC 27001:2022, A.8.15",
}
"""Names of standards, as the questions have them."""
CARDHOLDER_DATA = "public.cards"
"""The relation in the question on cardholder data, in the place of the reader's own."""
_EVENTS = ("events", "statements", "control", "posture", "ddl", "accesses", "reconciliation")
_ALWAYS = {2: frozenset({"posture"})}
"""Views that a question reads whole: whoever was an administrator before the period still was one."""
_DAYS = frozenset(("events", "statements", "control", "posture", "ddl", "accesses"))


def asked_by(standard: str) -> list[Question]:
    """Return the questions of a standard (`STANDARDS`), in its order."""
    return [one for one in QUESTIONS if one.standard == STANDARDS[standard]]


def is_answerable(question: Question, subject: Subject) -> bool:
    """Say whether a question can be asked: that on cardholder data needs the relation that holds them."""
    return CARDHOLDER_DATA not in question.query or subject.relation is not None


def bounded(question: Question, subject: Subject) -> str:
    """Write a question's query so that it is of the subject's period, and of its relation where it names one."""
    query = question.query.strip().rstrip(";")
    if subject.relation is not None:
        query = query.replace(literal(CARDHOLDER_DATA), literal(subject.relation))
    whole = _ALWAYS.get(question.number, frozenset())

    def within(found: re.Match[str]) -> str:
        view = found[1]
        return found[0] if view in whole else f"FROM (SELECT * FROM {view} WHERE {_within(view, subject)}) AS {view}"

    return re.sub(rf"\bFROM ({'|'.join((*_EVENTS, 'logins', 'findings', 'coverage', 'gaps'))})\b", within, query)


def _within(view: str, subject: Subject) -> str:
    if view == "logins":
        return overlaps(subject, "coalesce(opened, closed)", "coalesce(closed, opened)")
    if view == "findings":
        return overlaps(subject, 'coalesce(first_seen, "time")', 'coalesce(last_seen, "time")')
    if view == "gaps":
        return overlaps(subject, "coalesce(missing_from, missing_until)", "missing_until")
    if view == "coverage":
        return happened(subject, "hour")
    if view not in _DAYS or not subject.since_us:
        return happened(subject, "occurred_at")
    # Nothing is captured before it happens, but for clocks that differ: older files stay closed.
    day = (EPOCH + timedelta(microseconds=subject.since_us) - timedelta(days=1)).strftime("%Y-%m-%d")
    return f"dt >= DATE '{day}' AND {happened(subject, 'occurred_at')}"
