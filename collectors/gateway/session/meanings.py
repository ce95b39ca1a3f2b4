"""What the names of a session stand for when the server comes to them, in the protocol and in SQL, which share them.

A name that a Parse or Bind gives holds only when the server has said so, and until then it may stand for what it stood
for before. So what runs by a name is judged by all that it may stand for. Pure; times are microseconds.
"""

from __future__ import annotations

from typing import Final

from collectors.gateway.session import waiting
from collectors.gateway.session.actions import NOT_KNOWN, Decision, Judge
from collectors.gateway.session.coming import Coming
from collectors.gateway.session.handles import Handles, Sort, as_handle
from collectors.gateway.session.names import Names
from collectors.gateway.session.sent import Sent
from collectors.gateway.wire import frontend
from collectors.gateway.wire.violation import ProtocolViolation
from pgwitness.core.sql.tree.facts import Handle

COMING_MAX: Final = 2_000
"""Names that wait for their answer in a session for which the rules have changed: each has to be asked about."""


class Meanings:
    """The names of one session."""

    def __init__(self, judge: Judge) -> None:
        self.prepared = Names("prepared statements")
        self.portals = Names("portals")
        self.by_sql = Handles()
        self.coming: Coming[Sent] = Coming()
        """Of what was sent, what will give a name when the server has done it."""
        self._judge = judge

    def named_by_sql(self, decision: Decision, at_us: int) -> Decision:
        """Decide on a text that gives or runs names of SQL, which protocol and SQL share.

        Which of the two has given a name last is not followed: it is judged by all that it may stand for.
        """
        targets: list[Handle] = []
        for sort, name in self.by_sql.run(decision.handles):
            by_sql = self.by_sql.find(sort, name)
            by_protocol = self._meant(sort, name.encode())
            if by_sql is None and (by_protocol is None or self.by_sql.knows(sort, name)):
                return self._judge.behind(decision, None, at_us)
            targets += [*(by_sql or ()), *(by_protocol or ())]
        return self._judge.behind(decision, targets, at_us) if targets else decision

    def bound(self, statement: bytes, decision: Decision, at_us: int) -> Decision:
        """Decide on what a portal is made of: a statement of the protocol, of SQL by the same name, or either."""
        name = statement.decode(errors="replace")
        known = self.by_sql.knows("statement", name)
        if decision.reading is not None and not known:
            return decision
        return self._judge.behind(decision, self.by_sql.find("statement", name), at_us)

    def _meant(self, sort: Sort, name: bytes) -> list[Handle] | None:
        """Return what a name of the protocol may stand for by now; None where that is not known."""
        kind = frontend.PARSE if sort == "statement" else frontend.BIND
        if len(self.coming.of(kind, name)) > COMING_MAX:
            raise ProtocolViolation(
                f"a name is given more than {COMING_MAX} times in a pipeline: read the answers", "54000"
            )
        meant = [decision.reading for decision in self._meanings(kind, name) if decision.reading is not None]
        return [as_handle(reading.known) for reading in meant] or None

    def _meanings(self, kind: int, name: bytes) -> list[Decision]:
        """List all that a name may stand for when the server comes to it, whatever fails before."""
        held = self.prepared if kind == frontend.PARSE else self.portals
        found = [held.get(name)]
        for sent in self.coming.of(kind, name):
            if sent.kind == kind and sent.refused is None:
                found += [sent.decision] if kind == frontend.PARSE else self._meanings(frontend.PARSE, sent.statement)
        return found

    def running(self, portal: bytes, at_us: int) -> Decision:
        """Decide on what a portal runs."""
        decision = self.expected(frontend.BIND, portal)
        if decision.reading is None:
            return self._by_name(decision, portal, at_us)
        again = self._judge.again(decision, at_us)
        if again.handles:
            again = self.named_by_sql(again, at_us)  # names that it runs may stand for something else by now
        if self.by_sql.knows("cursor", name := portal.decode(errors="replace")) and not again.denied:
            again = self._judge.behind(again, self.by_sql.find("cursor", name), at_us)
        if self._judge.scopes > 1 and not again.denied:
            # What a name stood for before may be refused by now, and is what runs if the Parse behind it fails.
            if len(self.coming) > COMING_MAX:
                raise ProtocolViolation(f"a pipeline of more than {COMING_MAX} names: read the answers", "54000")
            for other in self._meanings(frontend.BIND, portal):
                if other.reading is None:
                    continue
                if (found := self._judge.again(other, at_us)).denied:
                    return found
                if found.waits and not again.waits:
                    return waiting.refused(found, waiting.BY_NAME)
        return again

    def _by_name(self, decision: Decision, portal: bytes, at_us: int) -> Decision:
        """Decide on a portal that is a cursor of SQL."""
        return self._judge.behind(decision, self.by_sql.find("cursor", portal.decode(errors="replace")), at_us)

    def expected(self, kind: int, name: bytes) -> Decision:
        """Return what a name will stand for when the server comes to it, if all before succeeds."""
        coming = self.coming.of(kind, name)
        if coming:
            return coming[-1].decision if coming[-1].kind == kind else NOT_KNOWN
        return (self.prepared if kind == frontend.PARSE else self.portals).get(name)
