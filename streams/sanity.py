"""What the shape of a raw event does not say: numbers that fit, parts that can follow each other.

The fold keeps these numbers in its state and sends them on as 64-bit integers; hostile ones must not get that far.
"""

from __future__ import annotations

from pgwitness.events import Ddl, LogPlace, RawEvent, Session, Statement, Transaction

INT64_MAX = 2**63 - 1


def check(event: RawEvent) -> None:
    """Raise `ValueError` when an event's numbers cannot be."""
    if not 0 <= event.captured_at_us <= INT64_MAX:
        raise ValueError(f"captured_at_us {event.captured_at_us} is no time")
    if type(event) is Transaction:
        if not (
            0 <= event.lsn <= INT64_MAX
            and 0 <= event.xid <= INT64_MAX
            and 0 <= event.first_ordinal <= INT64_MAX
            and 0 <= event.n_rows <= INT64_MAX
            and 0 <= event.committed_at_us <= INT64_MAX
            and 0 <= event.timeline <= INT64_MAX
            and 0 <= event.part <= INT64_MAX
        ):
            raise ValueError("a number of the transaction is out of range")
        for item in event.ddl:
            _check_ddl(item)
    elif type(event) is Session and not (
        0 <= event.pid <= INT64_MAX
        and -INT64_MAX <= event.backend_start_us <= INT64_MAX
        and (event.xid is None or 0 <= event.xid <= INT64_MAX)
    ):
        raise ValueError("a number of the session is out of range")
    elif type(event) is Statement and not (
        0 <= event.pid <= INT64_MAX
        and 0 <= event.occurred_at_us <= INT64_MAX
        and 0 <= (event.session_start_us or 0) <= INT64_MAX
        and 0 <= (event.xid or 0) < 1 << 32
        and -INT64_MAX <= (event.query_id or 0) <= INT64_MAX
        and 0 <= (event.row_count or 0) <= INT64_MAX
    ):
        raise ValueError("a number of the statement is out of range")
    if isinstance(event, Statement | Session) and event.place is not None:
        _check_place(event.place)


def _check_place(place: LogPlace) -> None:
    if not (0 <= place.offset <= INT64_MAX and 0 <= place.index <= INT64_MAX):
        raise ValueError("a place in the log is out of range")


def _check_ddl(item: Ddl) -> None:
    beacon = item.beacon
    numbers = (item.number, item.ordinal, item.objects_total, item.dropped_total, beacon.pid)
    if not all(0 <= number <= INT64_MAX for number in numbers) or abs(beacon.backend_start_us) > INT64_MAX:
        raise ValueError("a number of a command is out of range")
