"""The targets of the names of prepared statements and cursors, by session: EXECUTE and FETCH show names only.

A name is learned from a PREPARE or DECLARE that the log reported, and only where the log reports every statement of
every session (`LogSettings.transactions`): else a name may have been given again unseen, and a wrong answer is worse
than none. So it is where a session's start is not known, where lines were lost, and where a name comes twice without an
end between. The server's own DETAIL of an EXECUTE, where it is logged, needs none of this; the collector reads it.

Bounded, and in the checkpoint; what is forgotten names nothing.
"""

from __future__ import annotations

from pgwitness.core.sql.statements import StatementFacts
from pgwitness.core.sql.tree.facts import Handle
from streams.fold.bounded import evict_oldest
from streams.fold.memory.checkpoint import ClusterCheckpoint
from streams.fold.memory.sessions import LogSession, Prepared

SESSIONS_MAX = 2_000
NAMES_MAX = 200
"""Names of one session; of more the oldest is forgotten."""
LISTED_MAX = 100
CHARS_MAX = 2_000
"""What is remembered of one name: words, and their characters; of a statement with more, nothing is."""

_CURSOR, _STATEMENT = "cursor", "statement"
_SORT = {"prepare": _STATEMENT, "execute": _STATEMENT, "deallocate": _STATEMENT,
         "declare": _CURSOR, "hold": _CURSOR, "fetch": _CURSOR, "close": _CURSOR}  # fmt: skip
_ENDS = frozenset({"commit", "rollback"})

_Name = tuple[str, str]


class Handles:
    """The names of the sessions of one cluster."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str | None, int, int], dict[_Name, Handle | None]] = {}

    def statement(
        self, session: LogSession, known: StatementFacts | None, *, failed: bool, ended: bool, complete: bool
    ) -> list[Handle]:
        """Take up a statement; return the targets of the names that it runs.

        `ended`: it is known to have succeeded, not only to have begun. `complete`: the log reports every statement.
        """
        if session.start_us is None or known is None or failed:
            return []
        key = (session.instance, session.pid, session.start_us)
        if not complete:
            self._sessions.pop(key, None)
        names = self._sessions.get(key, {})
        ran = []
        for handle in known.handles:
            found = self._take(names, handle, ended)
            if found is not None:
                ran.append(found)
        if names and not _ENDS.isdisjoint(known.operations):
            for name in [name for name, found in names.items() if found is not None and found.verb == "declare"]:
                del names[name]
        if names and complete and key not in self._sessions:
            evict_oldest(self._sessions, SESSIONS_MAX)
            self._sessions[key] = names
        return ran

    @staticmethod
    def _take(names: dict[_Name, Handle | None], handle: Handle, ended: bool) -> Handle | None:
        if handle.verb == "discard":
            names.clear()
            return None
        name = (_SORT[handle.verb], handle.name)
        if handle.verb in ("execute", "fetch"):
            return names.get(name)
        if handle.verb in ("deallocate", "close"):
            for gone in [known for known in names if known == name or (not handle.name and known[0] == name[0])]:
                del names[gone]
            return None
        # Given again by a statement whose end nobody saw: it may have been refused, so either may be meant.
        unsure = name in names and not ended
        if len(handle.name) > CHARS_MAX:
            return None
        listed = (*handle.relations, *handle.columns, *handle.functions, *handle.operations)
        small = len(listed) <= LISTED_MAX and sum(map(len, listed)) <= CHARS_MAX
        names.pop(name, None)
        evict_oldest(names, NAMES_MAX)
        names[name] = handle if small and not unsure else None
        return None

    def ends(self, session: LogSession) -> None:
        """A session has ended."""
        if session.start_us is not None:
            self._sessions.pop((session.instance, session.pid, session.start_us), None)

    def lost(self) -> None:
        """Lines of the log are missing."""
        self._sessions.clear()

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint."""
        state.prepared = [
            Prepared(*key, *name, handle) for key, names in self._sessions.items() for name, handle in names.items()
        ]

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        for item in state.prepared:
            names = self._sessions.setdefault((item.instance, item.pid, item.start_us), {})
            names[item.sort, item.name] = item.handle
