"""The pages *Approvals*: what waits for a person's word, what speaks for and against it, and that word, signed there.

As verdicts are, a decision is put together here, signed in the approver's browser, and checked as every gateway will.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar, get_args
from urllib.parse import quote

from pgwitness.approvals import deciding, records
from pgwitness.approvals.ledger import Ledger, Standing, Trust
from pgwitness.approvals.records import Word
from pgwitness.core.errors import NotInOrder, PgwitnessError
from pgwitness.core.printable import visible_json
from sinks.console.asked import Answer, Asked, Page
from sinks.console.http import Refused
from sinks.console.reader import Reader, Row

WORDS: tuple[Word, ...] = get_args(Word)
SHOWN = 100
T = TypeVar("T")
_RECORD = """
SELECT count(*) FILTER (kind = 'statement') AS statements, count(*) FILTER (outcome = 'denied') AS refused,
    count(*) FILTER (kind = 'change') AS rows_changed, min(occurred_at) AS first_seen,
    count(*) FILTER (kind = 'statement' AND fingerprint = $2) AS same_statement
FROM events WHERE dt >= current_date - 30 AND principal = $1"""
_RAN = """
SELECT ran_at, outcome, "rows", drift, wal_rows, others FROM approvals WHERE approval = $1"""
_FINDINGS = """
SELECT uid, message, title, severity, last_seen FROM findings
WHERE principal = $1 AND last_seen > now() - INTERVAL 30 DAY ORDER BY last_seen DESC LIMIT 10"""


class Requests(Protocol):
    """What holds of requests now, and a way to decide on them; `pgwitness.approvals.following.Following` is one."""

    trust: Trust

    def look(self, question: Callable[[Ledger], T]) -> T:
        """Ask the ledger. Raise `Unreachable`, and `NotInOrder` where nobody's requests are believed."""

    def append(self, request: str, value: bytes) -> None:
        """Write a signed decision. Raise `Unreachable` when the broker may not have it."""


@dataclass(frozen=True)
class Shown:
    """A request as a page shows it, at one moment."""

    standing: Standing
    state: str
    until: datetime
    asked: datetime

    @property
    def request(self) -> records.Request:
        """Return what is wanted."""
        return self.standing.request

    @property
    def who(self) -> str:
        """Name who wants to run it."""
        return self.request.principal or f"role {self.request.role}"


def _shown(standing: Standing, now_us: int) -> Shown:
    return Shown(standing, standing.state(now_us), _moment(standing.usable_until_us), _moment(standing.request.at_us))


def _moment(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us / 1_000_000, UTC)


def _now_us() -> int:
    return time.time_ns() // 1000


def _approvals(asked: Asked) -> Answer:
    now_us = _now_us()

    def look(ledger: Ledger) -> tuple[list[Shown], list[Shown]]:
        shown = [_shown(one, now_us) for one in ledger.requests.values()]
        waiting = [one for one in shown if one.state == "open"]
        return waiting, [one for one in reversed(shown) if one.state != "open"][:SHOWN]

    waiting, others = asked.shared.requests.look(look)
    return Answer("approvals.html", {"waiting": waiting, "others": others, "shown": SHOWN})


def _found(asked: Asked) -> Shown:
    now_us = _now_us()
    standing = asked.shared.requests.look(lambda ledger: ledger.requests.get(asked.value("id")))
    if standing is None:
        raise Refused(404, "There is no such request.")
    return _shown(standing, now_us)


def _approval(asked: Asked) -> Answer:
    return _page(asked, _found(asked))


def _from_message(asked: Asked) -> Answer:
    """Open a link of a message: once, and for what the visitor may see in any case; it decides nothing."""
    links, request = asked.shared.links, asked.value("id")
    trouble = links.opened.open(asked.value("token"), request, links.key, _now_us()) if links.key else "forged"
    if trouble is not None:
        raise Refused(404, f"This link {_TROUBLES[trouble]}. The page Approvals has what waits.")
    return Answer(redirect=f"/approvals/{quote(request, safe='')}", what={"request": request})


_TROUBLES = {
    "forged": "was not written by this installation for this request",
    "expired": "has expired, as the request has",
    "used": "was opened before; each opens once",
}


def _page(asked: Asked, found: Shown, sentence: str = "") -> Answer:
    approver, _ = asked.shared.requests.trust.approvers.get(asked.visitor.name, (None, None))
    record, findings, unknown = _record(asked.shared.reader, found.request)
    values = {
        "shown": found,
        "words": WORDS,
        "approver": approver,
        "ran": _ran(asked.shared.reader, found),
        "record": record,
        "findings": findings,
        "unknown": unknown,
        "sentence": sentence,
        "decided": asked.value("decided") == "yes",
        "why": asked.value("why"),
    }
    what = {"request": found.request.request}
    return Answer("approval.html", values, 422 if sentence else 200, "failure" if sentence else "success", what)


def _ran(reader: Reader, found: Shown) -> Row | None:
    """Give what came of a request that was used, as far as that has landed."""
    if found.state != "used":
        return None
    try:
        return next(iter(reader.rows(_RAN, found.request.request)), None)
    except PgwitnessError:
        return None


def _record(reader: Reader, request: records.Request) -> tuple[Row | None, list[Row], str]:
    """Give what the lake knows of who asks; a decision does not wait for a lake that cannot be read."""
    if request.principal is None:
        return None, [], "Nobody can be named who asks."
    try:
        (row,) = reader.rows(_RECORD, request.principal, request.fingerprint)
        return row, reader.rows(_FINDINGS, request.principal), ""
    except PgwitnessError as error:
        return None, [], str(error)


def _decision(asked: Asked) -> Answer:
    """Put a decision together, for the browser to sign."""
    found, word = _found(asked), asked.value("word")
    if word not in WORDS:
        return _page(asked, found, "Say whether it may run.")
    try:
        decision = deciding.drafted(
            found.standing,
            "approve" if word == "approve" else "deny",
            asked.value("why"),
            asked.visitor.name,
            asked.shared.requests.trust,
            _now_us(),
            break_glass=asked.value("break_glass") == "yes",
        )
    except NotInOrder as error:
        return _page(asked, found, str(error))
    values: dict[str, Any] = {"shown": found, "decision": decision, "signed": visible_json(records.text_of(decision))}
    return Answer("decision.html", values, what={"request": decision.request})


def _signed(asked: Asked) -> Answer:
    requests, name = asked.shared.requests, asked.visitor.name
    text, signature = asked.value("signed"), asked.value("signature")

    def checked(ledger: Ledger) -> bytes:
        return deciding.signed(ledger, requests.trust, text, signature, name, _now_us())

    value = requests.look(checked)
    read = records.read(value)
    if read is None or not isinstance(read.record, records.Decision) or read.record.request != asked.value("id"):
        raise NotInOrder("this is no decision on this request; begin again")
    requests.append(read.record.request, value)
    what = {"request": read.record.request, "as": read.record.word, "break_glass": read.record.break_glass}
    return Answer(redirect=f"/approvals/{quote(read.record.request, safe='')}?decided=yes", what=what)


PAGES = (
    Page("approvals", "/approvals", "approvals", _approvals),
    Page("approval", "/approvals/{id}", "approvals", _approval, subject={"id": "request"}),
    Page(
        "approval, by a link",
        "/approvals/{id}/from/{token}",
        "approvals",
        _from_message,
        subject={"id": "request"},
    ),
    Page(
        "approval, drafted",
        "/approvals/{id}/decision",
        "approve",
        _decision,
        method="POST",
        subject={"id": "request"},
    ),
    Page(
        "approval, decided",
        "/approvals/{id}/signed",
        "approve",
        _signed,
        method="POST",
        operation="console_approval",
        subject={"id": "request"},
    ),
)
