"""What the shape of a raw event does not say: numbers that fit, names that are names.

The fold keeps these numbers in its state and sends them on as 64-bit integers; hostile ones must not get that far.
It keeps names too, by the ten thousand: one that is longer than any that PostgreSQL gives is cut, and ends in a hash
of what it was, so that two of them stay two.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from pgwitness.core.events import (
    OPERATIONS,
    Beacon,
    Control,
    Ddl,
    Decision,
    Gap,
    LogPlace,
    Posture,
    QueryStats,
    RawEvent,
    RawHeader,
    Session,
    Statement,
    Transaction,
    encode_event,
    format_lsn,
)

S = TypeVar("S", bound=Struct)
INT64_MAX = 2**63 - 1
INT32_MAX = 2**31 - 1
TIME_US_MAX = 253_402_300_799_999_999
"""The end of the year 9999, which is where the lake's times end."""
LSN_MAX = 1 << 60
"""An exbibyte: what a server that writes 3 GB a second has written after ten years."""
LSN_STEP_MAX = 1 << 50
"""A pebibyte between two transactions: a day and more at 10 GB a second, of which nothing was seen."""
AHEAD_US_MAX = 86_400_000_000
"""How far ahead of its record an event may have been captured: a collector's clock is wrong by hours, not by days."""
FOUND_BYTES_MAX = 512 * 1024
"""What a snapshot of one object, a gap or an act of pgwitness's own says at most; identities may be longer."""
NAME_CHARS_MAX = 256
"""PostgreSQL's names have 63 bytes, unless it was built for longer ones; two of them make a relation's."""
CLAIM_CHARS_MAX = 1_000
_OF_SESSION = ("role", "database", "application", "client_addr", "auth_method", "identity", "backend_type", "sqlstate")
_OF_STATEMENT = ("role", "database", "application", "client_addr", "auth_method", "sqlstate")
_OF_BEACON = ("session_user", "role", "application", "client_addr", "auth_method")


def bounded(event: RawEvent) -> RawEvent:
    """Return an event whose names have a length that can be kept; nearly always that is the event itself."""
    kind = type(event)
    if kind is Transaction:
        assert isinstance(event, Transaction)
        return _bounded_transaction(event)
    if kind is Statement or kind is Session:
        assert isinstance(event, Statement | Session)
        place = event.place
        if place is not None and (len(place.log) > NAME_CHARS_MAX or len(place.line or "") > NAME_CHARS_MAX):
            event = replace(event, place=_cut(place, ("log", "line")))
        return _cut(event, _OF_STATEMENT if kind is Statement else _OF_SESSION)
    if kind is Decision:
        assert isinstance(event, Decision)
        statement = bounded(event.statement)
        return event if statement is event.statement else replace(event, statement=statement)
    return _cut(event, ("role", "database")) if kind is QueryStats else event


def bounded_header(header: RawHeader) -> RawHeader:
    """Return a header whose names can be kept."""
    return _cut(header, ("cluster", "source", "instance"))


def _bounded_transaction(part: Transaction) -> Transaction:
    beacons = part.beacons
    if beacons and (cut := [_bounded_beacon(beacon) for beacon in beacons]) != beacons:
        part = replace(part, beacons=cut)
    for relation in part.relations:
        if len(relation.name) > NAME_CHARS_MAX:
            named = [replace(relation, name=_short(relation.name)) for relation in part.relations]
            part = replace(part, relations=named)
            break
    if part.ddl:
        part = replace(part, ddl=[replace(item, beacon=_bounded_beacon(item.beacon)) for item in part.ddl])
    return _cut(part, ("system_id", "database", "origin"))


def _bounded_beacon(beacon: Beacon) -> Beacon:
    beacon = _cut(beacon, _OF_BEACON)
    if beacon.claim is not None and len(beacon.claim) > CLAIM_CHARS_MAX:
        beacon = replace(beacon, claim=_short(beacon.claim, CLAIM_CHARS_MAX))
    return beacon


def _cut(item: S, names: tuple[str, ...]) -> S:
    for name in names:
        text = getattr(item, name)
        if text is not None and len(text) > NAME_CHARS_MAX:
            item = replace(item, **{name: _short(text)})
    return item


def _short(text: str, chars_max: int = NAME_CHARS_MAX) -> str:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{text[: chars_max - 17]}…{digest}"


def check_event(event: RawEvent, written_us: int | None = None) -> None:
    """Raise `ValueError` when an event's numbers cannot be, or what it carries cannot be written down again.

    `written_us` is when its record was written, None where the broker does not say.
    """
    if not 0 <= event.captured_at_us <= TIME_US_MAX:
        raise ValueError(f"captured_at_us {event.captured_at_us} is no time")
    if written_us is not None and event.captured_at_us > written_us + AHEAD_US_MAX:
        raise ValueError(f"captured_at_us {event.captured_at_us} is more than a day after its record was written")
    if type(event) is Transaction:
        _check_transaction(event)
    elif type(event) is Session and not (
        0 <= event.pid <= INT32_MAX
        and -INT64_MAX <= event.backend_start_us <= TIME_US_MAX
        and 0 <= event.occurred_at_us <= TIME_US_MAX
        and (event.xid is None or 0 <= event.xid <= INT64_MAX)
        and abs(event.client_port or 0) <= INT32_MAX
        and abs(event.server_port or 0) <= INT32_MAX
    ):
        raise ValueError("a number of the session is out of range")
    elif type(event) is Session and event.token is not None:
        encode_event(event.token)
    elif type(event) is Statement and not (
        0 <= event.pid <= INT32_MAX
        and 0 <= event.occurred_at_us <= TIME_US_MAX
        and 0 <= (event.session_start_us or 0) <= TIME_US_MAX
        and 0 <= (event.xid or 0) < 1 << 32
        and -INT64_MAX <= (event.query_id or 0) <= INT64_MAX
        and 0 <= (event.row_count or 0) <= INT64_MAX
        and abs(event.client_port or 0) <= INT32_MAX
    ):
        raise ValueError("a number of the statement is out of range")
    elif type(event) is QueryStats and not (
        0 <= event.window_start_us <= TIME_US_MAX
        and 0 <= event.window_end_us <= TIME_US_MAX
        and -INT64_MAX <= event.query_id <= INT64_MAX
        and 0 <= event.calls <= INT64_MAX
        and 0 <= event.rows <= INT64_MAX
    ):
        raise ValueError("a number of the statistics is out of range")
    elif isinstance(event, Posture | Gap | Control):
        _check_found(event)
    elif type(event) is Decision:
        check_event(event.statement, written_us)
    if isinstance(event, Statement | Session) and event.place is not None:
        _check_place(event.place)


def _check_transaction(event: Transaction) -> None:
    if not (
        0 <= event.lsn <= INT64_MAX
        and 0 <= event.xid <= INT64_MAX
        and 0 <= event.first_ordinal <= INT64_MAX
        and 0 <= event.n_rows <= INT64_MAX
        and 0 <= event.committed_at_us <= TIME_US_MAX
        and 0 <= event.timeline <= INT64_MAX
        and 0 <= event.part <= INT64_MAX
    ):
        raise ValueError("a number of the transaction is out of range")
    relations = len(event.relations)
    for count in event.counts:
        if not (0 <= count.relation < relations and count.operation in OPERATIONS and 0 <= count.rows <= INT64_MAX):
            raise ValueError(f"a count names relation {count.relation} of {relations}, or an operation that is none")
    for beacon in event.beacons:
        _check_beacon(beacon)
    for item in event.ddl:
        _check_ddl(item)
    if event.forged or any(beacon.token is not None for beacon in event.beacons):
        encode_event((event.forged, event.beacons))


def check_position(lsn: int, reached: int | None) -> None:
    """Raise `ValueError` for a WAL position that no server can have come to from where it was.

    A position that is believed makes everything before it known, so one record could silence a database. `reached` is
    how far the server's WAL was read, None where nothing was.
    """
    if lsn > LSN_MAX or (reached is not None and lsn - reached > LSN_STEP_MAX):
        before = "nothing" if reached is None else format_lsn(reached)
        raise ValueError(f"the position {format_lsn(lsn)} is not plausible after {before}")


def _check_found(event: Posture | Gap | Control) -> None:
    """What a collector found has any JSON in it, of which the fold keeps some: it must be possible to write it."""
    times = (getattr(event, name, None) for name in ("occurred_at_us", "window_start_us", "window_end_us"))
    if not all(0 <= (time or 0) <= TIME_US_MAX for time in times):
        raise ValueError("a time of what was found is out of range")
    try:
        size = len(encode_event(event))
    except RecursionError:
        raise ValueError("what was found is nested too deeply") from None
    if size > FOUND_BYTES_MAX:
        raise ValueError(f"what was found has {size} bytes; {FOUND_BYTES_MAX} at most")


def _check_beacon(beacon: Beacon) -> None:
    numbers = (beacon.pid, beacon.client_port or 0)
    if not all(-INT32_MAX <= number <= INT32_MAX for number in numbers) or not (
        abs(beacon.backend_start_us) <= TIME_US_MAX
        and 0 <= beacon.xid <= INT64_MAX
        and 0 <= beacon.ordinal <= INT64_MAX
    ):
        raise ValueError("a number of a beacon is out of range")


def _check_place(place: LogPlace) -> None:
    if not (0 <= place.offset <= INT64_MAX and 0 <= place.index <= INT64_MAX):
        raise ValueError("a place in the log is out of range")


def _check_ddl(item: Ddl) -> None:
    _check_beacon(item.beacon)
    numbers = (item.number, item.ordinal, item.objects_total, item.dropped_total)
    if not all(0 <= number <= INT64_MAX for number in numbers):
        raise ValueError("a number of a command is out of range")
