"""What became of statements: how each ended, and whether that lasts, which the end of its transaction says; pure."""

from __future__ import annotations

from collectors.gateway.session import refusing
from collectors.gateway.session.actions import Decision, Moment
from collectors.gateway.session.sent import Sent
from collectors.gateway.spool.records import Ended
from pgwitness.core.events import Outcome


class Outcomes:
    """Of the session `number`: what has run since the last ReadyForQuery, and may be undone before the next."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._undecided: list[Sent] = []

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self._undecided)

    def end(
        self,
        sent: Sent,
        outcome: Outcome,
        now: Moment,
        *,
        failed: bool,
        actual: Decision | None = None,
        ran: bool = True,
    ) -> None:
        """Take up how a statement ended.

        `failed` says that its transaction had failed before; `actual` is what its portal stood for when it ran.
        """
        if sent.refused is not None and sent.sqlstate == refusing.SQLSTATE:
            outcome = "denied"
        if sent.meter is not None and sent.meter.cut is not None and sent.sqlstate == refusing.SQLSTATE:
            outcome, sent.rows = "denied", sent.meter.passed
        sent.outcome, sent.ended_ns, sent.ran = outcome, now.ns, ran
        sent.failed = failed
        another = actual is not None and actual.said is not sent.decision.said and actual.reading is not None
        if another and ran and sent.refused is None:
            sent.other = actual
        self._undecided.append(sent)

    def never_answered(self, sent: Sent, now: Moment) -> None:
        """Take up that a statement has no answer, and gets none."""
        sent.outcome, sent.ended_ns = "unknown", now.ns
        self._undecided.append(sent)

    def settle(self, lasts: Outcome, at_us: int, transaction: int) -> list[Ended]:
        """Return the records of what has run, where `lasts` is what became of what succeeded.

        `transaction` is the number of the one that is still open; 0 where none is.
        """
        ended = [self._ended(sent, lasts, at_us, transaction) for sent in self._undecided]
        self._undecided.clear()
        return ended

    def _ended(self, sent: Sent, lasts: Outcome, at_us: int, transaction: int) -> Ended:
        return Ended(
            session=self._number,
            at_us=at_us,
            number=sent.number,
            outcome=lasts if sent.outcome == "success" else sent.outcome,
            rows=sent.rows,
            sqlstate=sent.sqlstate,
            duration_ms=(sent.ended_ns - sent.began_ns) // 1000 / 1000,
            ran=sent.ran,
            failed=sent.failed,
            changed=sent.limit.ran if sent.limit is not None and not sent.own else None,
            transaction=transaction,
            said=None if sent.other is None else sent.other.said,
            error=sent.why or None,
        )
