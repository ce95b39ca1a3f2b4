"""From the spool into the topic `raw`: records become sessions and statements, each with its place on the spool.

`Shipment` is pure: it joins what began with what ended, and gives the same events for the same records, so that a
repeat after a crash can be told by its place. `ship` reads, sends, and moves its state when the broker has confirmed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, Protocol

import structlog
from msgspec import Struct

from collectors.context import now_us
from collectors.gateway.spool.records import Begun, Closed, Ended, Lost, Opened, Record, Started, Stopped
from collectors.gateway.spool.spool import Reader, Spool
from collectors.publisher import Channel, Publisher
from collectors.statefile import StateFile
from detectors.gatekeeper import Verdict, would_have
from pgwitness.core.events import Control, Decided, Decision, Gap, LogPlace, Session, Statement, session_id

SOURCE = "gateway"
PART = "gateway spool"
POLL_S = 0.05
CONFIRM_S = 1.0
CONFIRM_EVENTS = 5_000
CONFIRM_TIMEOUT_S = 30.0
PASSED_OVER = "not run: a message before it in its pipeline failed"

log = structlog.get_logger("gateway")
Shipped = tuple[str, str, Session | Statement | Decision | Control | Gap]
"""A cluster, an instance and what is to be sent of it."""


class ShipmentState(Struct):
    """What has to be known again after a restart: the place on the spool, and what was open there."""

    spool: str
    place: int
    sessions: list[Opened] = []
    begun: list[Begun] = []


class Shipment:
    """Makes events of records. It holds what is open: sessions, and what they run."""

    def __init__(self, spool: str, state: ShipmentState | None = None, servers: Iterable[tuple[str, str]] = ()) -> None:
        """`servers` are all clusters and instances of which something may stand on the spool."""
        self._spool = spool
        self._servers = sorted(set(servers))
        self._sessions = {one.session: one for one in state.sessions} if state is not None else {}
        self._begun = {(one.session, one.number): one for one in state.begun} if state is not None else {}

    def state(self, place: int) -> ShipmentState:
        """Return what is open at a place."""
        return ShipmentState(self._spool, place, list(self._sessions.values()), list(self._begun.values()))

    def take(self, place: int, record: Record) -> list[Shipped]:
        """Take the record that ends at a place; return what is known now."""
        match record:
            case Started():
                return self._abandoned(place, record.at_us)
            case Opened():
                if record.sqlstate is None:
                    self._sessions[record.session] = record
                return [self._session(record, place, 0, record.at_us)]
            case Begun():
                self._begun[record.session, record.number] = record
                opened = self._sessions.get(record.session)
                # What staged policies would have done is no decision, and of limits not known yet: the statement tells.
                if opened is None or record.verdict is None or record.verdict.effect == "staged":
                    return []
                return [self._decision(opened, record, place)]
            case Ended():
                opened = self._sessions.get(record.session)
                begun = self._begun.pop((record.session, record.number), None)
                if opened is None or begun is None:
                    return []
                return [self._statement(opened, begun, record, place, 0)]
            case Stopped():
                opened = self._sessions.get(record.session)
                return [_stopped(opened, record, f"{self._spool}/{place}")] if opened is not None else []
            case Lost():
                return self.missing(record.begin, record.end, record.at_us)
            case Closed():
                opened = self._sessions.pop(record.session, None)
                return [self._session(opened, place, 0, record.at_us, ended=True)] if opened is not None else []

    def missing(self, begin: int, end: int, at_us: int) -> list[Shipped]:
        """Say of every server that something of the spool is missing: of which it was, nobody knows."""
        detail: dict[str, object] = {"spool": self._spool, "begin": begin, "end": end}
        gap = Gap(captured_at_us=at_us, reason="spool_damaged", detail=detail)
        return [(cluster, instance, gap) for cluster, instance in self._servers]

    def _abandoned(self, place: int, at_us: int) -> list[Shipped]:
        """Complete what an earlier gateway left open: it was forwarded, or was about to be."""
        shipped: list[Shipped] = []
        for (session, number), begun in sorted(self._begun.items()):
            opened = self._sessions.get(session)
            if opened is not None:
                ended = Ended(session=session, at_us=at_us, number=number, outcome="unknown")
                shipped.append(self._statement(opened, begun, ended, place, len(shipped), timed=False))
        for _, opened in sorted(self._sessions.items()):
            shipped.append(self._session(opened, place, len(shipped), at_us, ended=True))
        self._sessions.clear()
        self._begun.clear()
        return shipped

    def _session(self, opened: Opened, place: int, index: int, at_us: int, *, ended: bool = False) -> Shipped:
        operation: Literal["connect", "disconnect", "login_failed"]
        operation = "disconnect" if ended else "connect" if opened.sqlstate is None else "login_failed"
        return (
            opened.cluster,
            opened.instance,
            Session(
                captured_at_us=at_us,
                operation=operation,
                occurred_at_us=at_us if ended or opened.sqlstate is not None else opened.backend_start_us,
                pid=opened.pid,
                backend_start_us=opened.backend_start_us,
                role=opened.role,
                database=opened.database,
                application=opened.application,
                client_addr=opened.client_addr,
                client_port=opened.client_port,
                auth_method=opened.auth_method,
                place=LogPlace(self._spool, place, index),
                sqlstate=opened.sqlstate,
                duration_ms=(at_us - opened.at_us) / 1000 if ended else None,
                trust="certain",
                server_port=opened.server_port,
                certificate=opened.certificate,
                token=opened.token if operation != "disconnect" else None,
                user=opened.user,
            ),
        )

    def _decision(self, opened: Opened, begun: Begun, place: int) -> Shipped:
        """Tell of a decision, when it was made."""
        ended = Ended(session=begun.session, at_us=begun.at_us, number=begun.number, outcome="unknown")
        statement = self._of(opened, begun, ended, place, 0, timed=False)
        assert statement.decided is not None
        decision = Decision(captured_at_us=begun.at_us, decided=statement.decided, statement=statement)
        return opened.cluster, opened.instance, decision

    def _statement(
        self, opened: Opened, begun: Begun, ended: Ended, place: int, index: int, *, timed: bool = True
    ) -> Shipped:
        return opened.cluster, opened.instance, self._of(opened, begun, ended, place, index, timed=timed)

    def _of(self, opened: Opened, begun: Begun, ended: Ended, place: int, index: int, *, timed: bool) -> Statement:
        said = ended.said or begun.said
        return Statement(
            captured_at_us=ended.at_us,
            place=LogPlace(self._spool, place, index),
            format="gateway",
            source="gateway",
            occurred_at_us=ended.at_us,
            pid=opened.pid,
            session_start_us=opened.backend_start_us,
            role=opened.role,
            database=opened.database,
            application=opened.application if begun.application is None else begun.application,
            client_addr=opened.client_addr,
            client_port=opened.client_port,
            auth_method=opened.auth_method,
            statement=said.statement,
            statement_hash=said.hash,
            parsed=said.parsed,
            duration_ms=ended.duration_ms if timed else None,
            row_count=ended.rows,
            outcome=ended.outcome,
            sqlstate=ended.sqlstate,
            vxid=f"gateway/{'failed/' if ended.failed else ''}{ended.transaction}",
            error=ended.error if ended.ran else PASSED_OVER,
            tags=said.tags,
            trust="certain",
            decided=_decided(begun.verdict, ended.rows),
            intent=begun.intent,
            ran=ended.changed,
        )


def _stopped(opened: Opened, stopped: Stopped, place: str) -> Shipped:
    """Tell who has ended a session, and whose it was."""
    detail: dict[str, object] = {
        "session_id": session_id(opened.instance, opened.backend_start_us, opened.pid),
        "by": stopped.by,
        "peer": stopped.peer,
        "reason": stopped.reason,
        "role": opened.role,
        "application": stopped.application or opened.application,
        "client_addr": opened.client_addr,
        "client_port": opened.client_port,
        "pid": opened.pid,
        "place": place,
    }
    control = Control(
        captured_at_us=stopped.at_us, operation="gateway_session_ended", database=opened.database, detail=detail
    )
    return opened.cluster, opened.instance, control


def _decided(verdict: Verdict | None, changed: int | None) -> Decided | None:
    """Tell of a verdict; a staged limit would have undone what turned out to be more rows than it allows."""
    if verdict is None:
        return None
    staged = would_have(verdict, changed)
    if verdict.effect == "staged" and not staged:
        return None
    rows = verdict.rows if verdict.approval and verdict.effect == "approve" else None
    return Decided(
        verdict.effect, verdict.policies, verdict.message, verdict.bundle, verdict.approval, rows, staged=staged
    )


class Spooled(Protocol):
    """What a shipper needs of a spool: `Spool` itself, or what stands for it in another process."""

    folder: Path
    id: str
    end: int
    released: int

    def release(self, place: int) -> None:
        """Take up that nothing before a place is needed."""


class Reports(Protocol):
    """Where a shipper says how its work goes: `Health`, or what stands for it."""

    def ready(self, part: str, because_not: str | None = None) -> None:
        """Say that a part does its work, or why it cannot at the moment."""


class Shipper:
    """Sends what is on a spool, in whichever process."""

    def __init__(
        self,
        spool: Spooled,
        publisher: Publisher,
        health: Reports,
        state_path: Path,
        servers: Iterable[tuple[str, str]] = (),
    ) -> None:
        """`servers` are all clusters and instances of which something may stand on the spool."""
        self._spool = spool
        self._publisher = publisher
        self._servers = sorted(set(servers))
        self._health = health
        self._file = StateFile(state_path, f"gateway {spool.id}", ShipmentState)

    def run(self, served: threading.Event) -> None:
        """Ship until all sessions are `served`; raise `Retry` when the broker does not take it."""
        state = self._file.load()
        if self._file.problem is not None:
            log.warning("the spool is shipped again from its beginning", problem=self._file.problem)
        place = state.place if state is not None and state.spool == self._spool.id else self._spool.released
        channels: dict[tuple[str, str], Channel] = {}
        shipment = Shipment(self._spool.id, state, self._servers)
        reader = Reader(self._spool.folder, place)
        confirmed, sent, since = place, 0, time.monotonic()
        self._spool.release(place)
        try:
            while True:
                ending = served.is_set()
                for at, record in reader.read(self._spool.end):
                    for cluster, instance, event in shipment.take(at, record):
                        self._channel(channels, cluster, instance).send(event)
                        sent += 1
                    if sent >= CONFIRM_EVENTS:
                        reader.place = at
                        break
                for begin, end in reader.holes:
                    log.error("a part of the spool cannot be read", spool=self._spool.id, begin=begin, end=end)
                    for cluster, instance, event in shipment.missing(begin, end, now_us()):
                        self._channel(channels, cluster, instance).send(event)
                reader.holes.clear()
                if reader.place > confirmed and (ending or sent >= CONFIRM_EVENTS or _due(since)):
                    confirmed = self._confirm(channels, shipment, reader.place)
                    sent, since = 0, time.monotonic()
                self._health.ready(PART)
                if ending and reader.place >= self._spool.end:
                    return
                if reader.place >= self._spool.end:
                    time.sleep(POLL_S)
        finally:
            for channel in channels.values():
                channel.close()

    def _channel(self, channels: dict[tuple[str, str], Channel], cluster: str, instance: str) -> Channel:
        key = (cluster, instance)
        if key not in channels:
            channels[key] = self._publisher.channel(cluster, SOURCE, instance)
            channels[key].while_blocked = self._blocked
        return channels[key]

    def _blocked(self) -> None:
        self._health.ready(PART, "the broker does not take records; check that it runs")

    def _confirm(self, channels: dict[tuple[str, str], Channel], shipment: Shipment, place: int) -> int:
        for channel in channels.values():
            channel.flush(CONFIRM_TIMEOUT_S)
        self._file.store(shipment.state(place))
        self._spool.release(place)
        return place


def mend(spool: Spool, state_path: Path) -> None:
    """Let a spool whose end was taken away go on under another name, and write down on it what is missing."""
    state = StateFile(state_path, f"gateway {spool.id}", ShipmentState).load()
    if state is not None and state.spool == spool.id and state.place > spool.end:
        log.error("the end of the spool is gone", spool=spool.id, begin=spool.end, end=state.place)
        spool.write([Lost(session=0, at_us=now_us(), begin=spool.end, end=state.place)])
        spool.renew()


def _due(since: float, now: Callable[[], float] = time.monotonic) -> bool:
    return now() - since >= CONFIRM_S
