"""What the WAL collector publishes for Prometheus: what it read of a database, and how its slot stands."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from collectors.wal.assembly.transaction import Assembler
from collectors.wal.database.slot import SlotState

_LABELS = ["cluster", "database"]
ROWS = Counter("pgwitness_wal_rows", "Row changes put into parts.", [*_LABELS, "operation"])
TRANSACTIONS = Counter("pgwitness_wal_transactions", "Transactions sent.", _LABELS)
FORGERIES = Counter("pgwitness_wal_beacons_forged", "Messages under the beacon's prefix that did not verify.", _LABELS)
OTHERS = Counter("pgwitness_wal_other_messages", "Logical messages that are not the beacon's.", _LABELS)
GAPS = Counter("pgwitness_wal_gaps", "Gaps in the evidence found.", [*_LABELS, "reason"])
LAG = Gauge("pgwitness_slot_lag_bytes", "WAL that the slot holds back on the source.", _LABELS)
BEHIND = Gauge("pgwitness_slot_unconfirmed_bytes", "WAL that is not confirmed yet.", _LABELS)
WAL_STATUS = Gauge("pgwitness_slot_wal_status", "1 for the slot's wal_status.", [*_LABELS, "status"])
SAFE = Gauge("pgwitness_slot_safe_wal_bytes", "WAL until the slot is lost; absent without a limit.", _LABELS)
SPOOL = Gauge("pgwitness_wal_spool_bytes", "Bytes on disk that wait for their transaction's beacon.", _LABELS)
HELD = Gauge("pgwitness_wal_held_bytes", "Bytes in memory that wait for their transaction's beacon.", _LABELS)
WAITING = Gauge(
    "pgwitness_wal_tables_waiting",
    "Tables whose publication or trigger is to change and whose lock is not to be had.",
    _LABELS,
)


class Measures:
    """The figures of one database; counters take what has been added since the look before."""

    def __init__(self, cluster: str, database: str) -> None:
        self._names = (cluster, database)
        self._rows: dict[str, int] = {}
        self._sent = 0
        self._others = 0
        self._forged = 0

    def gap(self, reason: str) -> None:
        """Count a gap in the evidence."""
        GAPS.labels(*self._names, reason).inc()

    def waiting(self, tables: int) -> None:
        """Publish how many tables wait for a lock."""
        WAITING.labels(*self._names).set(tables)

    def stream(self, assembler: Assembler, sent: int, *, forged_outside: int) -> None:
        """Publish what was read, of which `sent` went to the broker; `forged_outside` is not in the assembler's."""
        for operation, number in assembler.rows.items():
            ROWS.labels(*self._names, operation).inc(number - self._rows.get(operation, 0))
            self._rows[operation] = number
        TRANSACTIONS.labels(*self._names).inc(sent - self._sent)
        self._sent = sent
        OTHERS.labels(*self._names).inc(assembler.other_messages - self._others)
        self._others = assembler.other_messages
        forged = assembler.forged + forged_outside
        FORGERIES.labels(*self._names).inc(forged - self._forged)
        self._forged = forged
        SPOOL.labels(*self._names).set(assembler.held.on_disk)
        HELD.labels(*self._names).set(assembler.held.in_memory)

    def slot(self, found: SlotState) -> None:
        """Publish how the slot stands, sizes in bytes."""
        LAG.labels(*self._names).set(found.lag)
        BEHIND.labels(*self._names).set(found.behind)
        for status in ("reserved", "extended", "unreserved", "lost"):
            WAL_STATUS.labels(*self._names, status).set(status == found.wal_status)
        if found.safe_wal_size is not None:
            SAFE.labels(*self._names).set(found.safe_wal_size)
