"""The join of posture to the log: snapshots show what changed, a statement of the log shows who changed it.

Nothing in the WAL shows CREATE ROLE, ALTER SYSTEM and the like, so what was found different between two snapshots
waits for the log to be read past the second one (`streams.fold.joins.log_wait`). It is named when statements that were
read say by themselves just that (`streams.fold.joins.posture_match`), ran between the two snapshots and were committed
as far as the log reports, and when nobody else ran any statement in that time that may have had a part in it. One
session is `strong`. `weak` are several sessions of one principal, a log that does not report every COMMIT and ROLLBACK
or can be forged, a name without its schema, and code that may not have done what stands in it (a DO block). Else nobody
is named, and `why` says why where a statement was found.

Times of statements and snapshots are the server's own. Pure, of bounded memory: what is forgotten names nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from msgspec import Struct

from pgwitness.core.events import Parsed, Posture, Statement
from pgwitness.core.sql.statements import StatementFacts
from streams.fold.bounded import evict_oldest
from streams.fold.joins import posture_match as match
from streams.fold.memory.attribution import Attribution
from streams.fold.memory.checkpoint import ClusterCheckpoint
from streams.fold.memory.sessions import LogSession
from streams.fold.memory.statements import Did

DID_MAX = 2_000
SESSIONS_MAX = 2_000
LINE_US = 2_000
"""The log's times are cut to milliseconds."""
LONG_US = 10_000_000
"""How long a statement is taken to have run of which only the beginning is known."""
NAMED_MAX = 10
ENDLESS_US = (1 << 63) - 1
_BEGINS = frozenset({"begin", "start"})
_COMMITS = frozenset({"commit"})
_UNSURE = frozenset({"rollback_to", "prepare"})
_MAY_NOT = frozenset({"do", "execute_dynamic", "call"})

Who = tuple[str | None, int, int | None]


class Found(Struct, frozen=True):
    """Who changed posture: a session and how sure that is (a key of `BINDINGS`), or why nobody is named.

    `several`: the principal is known, which of its sessions it was is not. `statements` are the ids of their events.
    """

    session: LogSession | None = None
    how: str = ""
    several: bool = False
    statements: tuple[str, ...] = ()
    why: str | None = None
    candidates: tuple[str, ...] = ()


NOBODY = Found()


class PostureJoin:
    """Statements of one cluster that may change posture; forgotten oldest first."""

    def __init__(self) -> None:
        self._dids: deque[Did] = deque()
        self._begun: dict[Who, None] = {}
        self._open: dict[Who, list[Did]] = {}
        self._running: dict[Who, Did] = {}
        self._forgotten_until_us = 0

    # -- what the log reports ------------------------------------------------------------------------------------

    def lost(self, until_us: int) -> None:
        """Lines of the log may be missing up to a moment."""
        self._forgotten_until_us = max(self._forgotten_until_us, until_us)

    def statement(
        self, event: Statement, session: LogSession, event_id: str, said: Parsed | StatementFacts | None
    ) -> None:
        """Take up a statement of the log; `said` is what the parser says of it, None when it has no text."""
        if event.source == "auto_explain":
            return  # it is about queries
        if said is None:
            return
        who, words = _who(session), frozenset(said.operations)
        self._goes_on(who, event.occurred_at_us)
        if event.source == "error":
            self._failed(who, event)
            return
        if words & _BEGINS:
            self._end(who, None)
            evict_oldest(self._begun, SESSIONS_MAX)
            self._begun[who] = None
        if match.matters(words):
            at_us = event.occurred_at_us
            start_us = max(0, at_us - int((event.duration_ms or 0.0) * 1_000))
            did = Did(
                session, start_us - LINE_US, at_us + LINE_US, event.statement, tuple(said.operations),
                tuple(said.relations), tuple(said.objects), tuple(said.settings), event_id,
                sure="rollback" not in words, ended=event.outcome == "success",
            )  # fmt: skip
            if who in self._begun:
                did.end_us = ENDLESS_US
                self._open.setdefault(who, []).append(did)
            elif not did.ended:
                self._running[who] = did
            self._add(did)
        if words & _UNSURE:
            self._doubt(who)
        if "rollback" in words:
            self._end(who, None)
        elif words & _COMMITS:
            self._end(who, event.occurred_at_us + LINE_US)

    def ends(self, session: LogSession, at_us: int) -> None:
        """A session has ended; what it had not committed it has not done."""
        self._goes_on(_who(session), at_us)
        self._end(_who(session), None)

    def _goes_on(self, who: Who, at_us: int) -> None:
        """What a session had announced is over when it says something else."""
        did = self._running.pop(who, None) if self._running else None
        if did is not None:
            did.end_us = max(did.end_us, min(at_us, did.start_us + LONG_US))
            did.ended = True

    def _failed(self, who: Who, event: Statement) -> None:
        """Take back a statement that failed after all, and doubt the transaction that it was in."""
        for did in reversed(self._dids):
            if _who(did.session) == who and did.text == event.statement is not None:
                did.sure = False
                break
        self._doubt(who)

    def _doubt(self, who: Who) -> None:
        for did in self._open.get(who, ()):
            did.sure = False

    def _end(self, who: Who, committed_us: int | None) -> None:
        """End a session's transaction; without a time it was rolled back, or nobody knows."""
        self._begun.pop(who, None)
        for did in self._open.pop(who, ()):
            did.end_us = did.start_us if committed_us is None else committed_us
            did.ended = True
            did.sure = did.sure and committed_us is not None

    def _add(self, did: Did) -> None:
        if len(self._dids) >= DID_MAX:
            gone = self._dids.popleft()
            if gone.end_us == ENDLESS_US:
                self._open[_who(gone.session)].remove(gone)
            if self._running.get(_who(gone.session)) is gone:
                del self._running[_who(gone.session)]
            self.lost(min(gone.end_us, did.end_us) + LONG_US)
        self._dids.append(did)

    # -- who it was --------------------------------------------------------------------------------------------

    def decide(
        self,
        raw: Posture,
        instance: str | None,
        attribution: Callable[[LogSession], Attribution],
        *,
        is_read: bool,
        whole: bool,
    ) -> Found:
        """Return who changed something; `attribution` gives whom a session's facts name.

        `is_read`: the log was read past it. `whole`: every statement is logged, COMMIT and ROLLBACK too.
        """
        start_us, end_us = raw.window_start_us, raw.window_end_us
        if start_us is None or end_us is None:
            return NOBODY
        near = [did for did in self._dids if did.session.instance == instance and _near(did, start_us, end_us)]
        part = [did for did in near if match.touches(raw, did)]
        acted = [did for did in part if _within(did, start_us, end_us) and match.acts(raw, did)]
        if not acted:
            return NOBODY
        ids = tuple(did.event_id for did in acted[:NAMED_MAX])
        for did in acted:
            did.used_us = end_us
        if start_us <= self._forgotten_until_us:
            return Found(why="log_incomplete", statements=ids)
        if not is_read:
            return Found(why="log_late", statements=ids)
        names = {_name(attribution(did.session)) for did in part}
        if len(names) > 1:
            return Found(why="several", candidates=_sorted(names), statements=ids)
        if not match.accounts(raw, acted):
            return Found(why="not_accounted_for", candidates=_sorted(names), statements=ids)
        several = len({_who(did.session) for did in acted}) > 1
        plain = whole and all(
            did.session.sure and match.qualified(raw, did) and _MAY_NOT.isdisjoint(did.operations) for did in acted
        )
        how = "statement" if plain and not several else "statements"
        return Found(acted[-1].session, how, several, ids)

    # -- checkpoints -------------------------------------------------------------------------------------------

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint."""
        state.did = list(self._dids)
        state.did_begun = list(self._begun)
        state.did_forgotten_until_us = self._forgotten_until_us

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        self._dids = deque(state.did)
        for did in state.did:
            if did.end_us == ENDLESS_US:
                self._open.setdefault(_who(did.session), []).append(did)
            elif not did.ended:
                self._running[_who(did.session)] = did
        self._begun = dict.fromkeys(state.did_begun)
        self._forgotten_until_us = state.did_forgotten_until_us


def _who(session: LogSession) -> Who:
    return session.instance, session.pid, session.start_us


def _near(did: Did, start_us: int, end_us: int) -> bool:
    """Return whether a statement may have been at work between two moments, by all that is known of it."""
    late_us = 0 if did.ended else LONG_US
    return did.start_us <= end_us and did.end_us >= start_us - late_us


def _within(did: Did, start_us: int, end_us: int) -> bool:
    """Return whether a statement ran between two moments and was committed, as far as is known; but once."""
    used = did.used_us not in (0, end_us)
    return did.sure and not used and did.end_us < ENDLESS_US and _near(did, start_us, end_us)


def _name(attribution: Attribution) -> tuple[str, str]:
    return attribution.principal or f"role {attribution.role or '?'}", attribution.on_behalf_of or ""


def _sorted(names: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(sorted(name for name, _ in names))[:NAMED_MAX]
