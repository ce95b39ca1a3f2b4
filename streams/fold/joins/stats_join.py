"""The join of statistics to the log: pg_stat_statements counts what a role ran and the rows, the log says who ran it.

The log reports runs of a statement one by one, each by its session, and mostly without a number of rows; the statistics
report how often a role ran it since the reading before, and how many rows that moved. When the log reported at least as
many runs as a reading counts, of the same statement by the same role in the same database, they are the same runs. If
all of them were one session's, the count is that session's, and `strong`; if they were several sessions' of one
principal, or lines of a text log, it is `weak`. Runs of different principals name nobody: nobody knows which of them
moved the rows.

Statistics know the role in force, the log the one that logged in. Whoever took another one on (SET ROLE, SET SESSION
AUTHORIZATION) ran for one that the log does not report: such runs account for what a role's own do not, at most `weak`.

Runs are counted off in their order, so that one at the edge of two readings is taken once. Those that no reading
counted (the statistics leave out what failed) are dropped when it is past, and cast doubt on who the others were: they
count as candidates. Of bounded memory: what is forgotten names nobody.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from pgwitness.core.events import Event, QueryStats
from streams.fold.bounded import evict_oldest
from streams.fold.memory.sessions import LogSession
from streams.fold.memory.statements import Runs

STATEMENTS_MAX = 20_000
SLICES_MAX = 16
BEHIND_MAX = 100
"""Names that are remembered of what a cursor reads."""
SLICE_US = 1_000_000
"""Runs are kept by the second in which they ended."""
SEVERAL = "counted in several"
EDGE_SLICES = 1
"""By how much a run may lie beyond the moment of a reading that counted it: reading takes time."""


class Counted(Struct, frozen=True):
    """What the log reported of the runs that a reading counted: `logged` all of them, and whose they were if one's.

    `how` is a key of `BINDINGS`. `several`: more than one session of that principal. `undone`: all of
    the runs were rolled back, `temporary`: all ran on temporary tables. `another`: under a role that was taken on.
    `behind` are relations and columns of the cursor that a FETCH names: the statistics have its name alone.
    """

    logged: bool = False
    session: LogSession | None = None
    how: str = ""
    several: bool = False
    undone: bool = False
    temporary: bool = False
    another: bool = False
    behind: tuple[tuple[str, ...], tuple[str, ...]] | None = None


UNKNOWN = Counted()
ANOTHER = "\0another"
"""Stands for the role of a session that took another one on; no role has such a name."""


class StatsJoin:
    """Runs that the log of one cluster reported and no reading of the statistics has counted yet."""

    def __init__(self, runs: Iterable[tuple[str, list[Runs]]] = ()) -> None:
        self._runs = dict(runs)

    def items(self) -> list[tuple[str, list[Runs]]]:
        """Return the state for a checkpoint."""
        return list(self._runs.items())

    def statement(self, event: Event, session: LogSession, *, another: bool = False) -> None:
        """Take up a run that the log reported; `event` is that of its line, `another` says that another role was in
        force.

        One whose text could not be read was not judged: it does not count, so that the statistics' own text is.
        """
        if event.fingerprint is None:
            return
        role = ANOTHER if another else event.role
        key = _key(event.instance, event.database, role, event.query_id or event.fingerprint)
        slices = self._runs.pop(key, None)
        if slices is None:
            evict_oldest(self._runs, STATEMENTS_MAX)
            slices = []
        self._runs[key] = slices
        second = event.occurred_at_us // SLICE_US
        name = (event.principal, event.on_behalf_of)
        temporary = bool(event.relations) and all(relation.startswith("pg_temp.") for relation in event.relations)
        by_name = event.detail.get("prepared") is True and len(event.relations) + len(event.columns) <= BEHIND_MAX
        behind = (tuple(event.relations), tuple(event.columns)) if by_name else None
        run = Runs(second, 1, session, name, temporary=int(temporary), behind=behind)
        if slices and second <= slices[-1].second:
            _join(slices[-1], run)
            return
        slices.append(run)
        if len(slices) > SLICES_MAX:
            oldest = slices.pop(0)
            oldest.second = slices[0].second
            _join(oldest, slices[0])
            slices[0] = oldest

    def rolled_back(self, event: Event) -> None:
        """Take up that a run which the log reported was rolled back after all."""
        if event.fingerprint is None:
            return
        second = event.occurred_at_us // SLICE_US
        for role in (event.role, ANOTHER):
            key = _key(event.instance, event.database, role, event.query_id or event.fingerprint)
            for runs in self._runs.get(key, ()):
                if runs.second >= second:
                    runs.undone = min(runs.undone + 1, runs.count)
                    return

    def count(self, raw: QueryStats, instance: str | None, fingerprint: str | None) -> Counted:
        """Count off the runs that a reading counted, and say whose they were."""
        if not raw.toplevel or raw.calls <= 0:
            return UNKNOWN
        for role in (raw.role, ANOTHER):
            for which in (raw.query_id, fingerprint):
                key = _key(instance, raw.database, role, which) if which else None
                if key is None or not (slices := self._runs.get(key)):
                    continue
                found = _count_off(slices, raw.calls, raw.window_end_us // SLICE_US)
                if not slices:
                    del self._runs[key]
                if raw.approximate:  # of which window its rows are, nobody knows
                    found = replace(found, session=None, how="", several=False)
                return found if role == raw.role else replace(found, another=True, how=found.how and SEVERAL)
        return UNKNOWN


def _count_off(slices: list[Runs], calls: int, end: int) -> Counted:
    left = calls
    undone = temporary = True
    all_of: Runs | None = None
    while slices:
        first = slices[0]
        over = first.second < end - EDGE_SLICES
        if not over and (left == 0 or first.second > end + EDGE_SLICES):
            break
        taken = min(left, first.count)
        left -= taken
        undone = undone and first.undone == first.count
        temporary = temporary and first.temporary == first.count
        if all_of is None:
            all_of = Runs(
                first.second, taken, first.session, first.name, first.several, first.mixed, behind=first.behind
            )
        else:
            _join(all_of, first)
        if over or taken == first.count:
            slices.pop(0)
        else:
            first.count -= taken
            first.undone = min(first.undone, first.count)
            first.temporary = min(first.temporary, first.count)
    if left or all_of is None:
        return UNKNOWN
    if all_of.mixed or (all_of.several and all_of.name[0] is None):
        return Counted(logged=True, undone=undone, temporary=temporary)
    how = "counted" if all_of.session.sure and not all_of.several else SEVERAL
    return Counted(True, all_of.session, how, all_of.several, undone, temporary, behind=all_of.behind)


def _join(runs: Runs, other: Runs) -> None:
    """Add runs to runs; the last session stands for all."""
    runs.count += other.count
    runs.undone += other.undone
    runs.temporary += other.temporary
    runs.mixed = runs.mixed or other.mixed or runs.name != other.name
    runs.behind = runs.behind if runs.behind == other.behind else None
    one, another = runs.session, other.session
    same = (one.instance, one.pid, one.start_us) == (another.instance, another.pid, another.start_us)
    runs.several = runs.several or other.several or not same
    runs.session = another


def _key(instance: str | None, database: str | None, role: str | None, which: int | str) -> str:
    return f"{instance}\0{database}\0{role}\0{which}"
