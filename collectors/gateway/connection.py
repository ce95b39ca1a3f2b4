"""One client of the gateway from its first byte to its end: greeted, named, logged in upstream, then joined to it."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import secrets
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog
from msgspec.structs import replace
from prometheus_client import Counter, Gauge

from collectors.gateway import guarding, upstream
from collectors.gateway.approving.asking import request_of
from collectors.gateway.approving.desk import Desk
from collectors.gateway.approving.estimating import APPLICATION, Estimator, Login, NoLogin
from collectors.gateway.auth.admission import Admission, Denied, Proven, Shown, prove
from collectors.gateway.auth.rolefile import Roles
from collectors.gateway.auth.scram import Secret
from collectors.gateway.greeting import Way, greet
from collectors.gateway.judging.ahead import LONG_BYTES, Ahead
from collectors.gateway.judging.judge import Judging, Rules, SessionJudge
from collectors.gateway.link import Ended, Link
from collectors.gateway.masking.audiences import Audiences, Who
from collectors.gateway.masking.audiences import Place as AudiencePlace
from collectors.gateway.masking.views import Views
from collectors.gateway.others import Others
from collectors.gateway.session.actions import Actions, Asked, Moment, Reading
from collectors.gateway.session.looking import Seen
from collectors.gateway.session.session import Session
from collectors.gateway.spool.ledger import ledger
from collectors.gateway.spool.records import Begun, Closed, Opened, Record
from collectors.gateway.spool.records import Ended as EndedRecord
from collectors.gateway.spool.spool import BEGINS, Spool
from collectors.gateway.upstream import Place, Refused, Server
from collectors.gateway.wire import backend
from collectors.gateway.wire.lexing import Settings
from collectors.gateway.wire.native import Lane, Ledger
from collectors.gateway.wire.startup import CancelRequest, Startup
from collectors.gateway.wire.violation import ProtocolViolation
from detectors.gatekeeper import Verdict, would_have
from pgwitness.approvals.records import Estimate
from pgwitness.core.errors import PgwitnessError
from pgwitness.core.sql.intent import option
from pgwitness.core.sql.lessons import Lesson

SECRET_BYTES = {0: 4, 2: 32}
"""How long a key to cancel by is, by the minor version of the protocol."""
DRAIN_S = 5.0
UNDER_STAGED_MAX = 100_000
UNSURE = "a statement was cut by a limit, and whether that is over cannot be told: what comes next could be hit by it"
NO_DESK = "it would have to be approved, and this gateway has no [approvals] to ask by"
END_S = 0.005
"""How long what came of a statement may wait for others to be written down with it."""

SESSIONS = Gauge("pgwitness_gateway_sessions", "Sessions that are open at the gateway.")
LOGINS = Counter("pgwitness_gateway_logins", "Logins at the gateway, by what came of them.", ["outcome"])
DECISIONS = Counter(
    "pgwitness_gateway_decisions", "Statements that were refused or warned about, or would have been.", ["effect"]
)
STATEMENTS = Counter("pgwitness_gateway_statements", "Statements that the gateway has forwarded.")

log = structlog.get_logger("gateway")


@dataclass(frozen=True)
class Database:
    """What a database of the gateway is: its cluster, where its server is, whom it lets in, and as whom."""

    cluster: str
    place: Place
    admission: Admission
    roles: Roles | None = None
    """The roles that the gateway may log somebody in as."""


@dataclass
class House:
    """What all connections share. `binding` is what SCRAM-SHA-256-PLUS binds to, None without TLS."""

    databases: dict[str, Database]
    spool: Spool
    judging: Judging
    tls: ssl.SSLContext | None
    binding: bytes | None
    login_s: float
    connections_max: int
    changed_rules: Callable[[], Rules | None] | None = None
    """Gives other policies and identities, once, when their files have changed."""
    changed_tls: Callable[[], tuple[ssl.SSLContext | None, bytes | None]] | None = None
    """Gives `tls` and `binding` by the certificate that holds now."""
    mock: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    sessions: dict[tuple[int, bytes], Connection] = field(default_factory=dict)
    process: int = 0
    """Which of the gateway's processes this is."""
    control: socket.socket | None = None
    """Where it answers who asks on this machine."""
    audiences: Audiences | None = None
    """Who reads tables through views that mask; None where nobody does."""
    desk: Desk | None = None
    """Where approvals are asked for; None where none are."""
    estimator: Estimator | None = None
    """Who finds out what a statement would do before it is approved."""
    mark_key: bytes = field(default=b"", repr=False)
    """What marks of approved statements are signed with, for the guard in the database."""
    others: Others | None = None
    """The gateway's other processes, where there are any."""
    _news: list[tuple[str, str, Lesson]] = field(default_factory=list)
    """Functions that sessions make, of which the other processes do not know yet."""
    _telling: set[asyncio.Task[None]] = field(default_factory=set)
    ahead: Ahead | None = None
    """Who reads long texts; without anybody they are read in their turn."""
    ledger: Ledger = field(default_factory=ledger)
    """Records in the order in which they happened, that are not on the spool yet."""
    _effects: list[str] = field(default_factory=list)
    """What was decided on statements that are not on the spool yet, where something was."""
    _under_staged: dict[tuple[int, int], Verdict] = field(default_factory=dict)
    """Verdicts on statements that run, by session and number, of which staged limits wait for their end."""
    _held: list[Connection | Lane] = field(default_factory=list)
    """Connections that hold back what they have to forward until those are."""
    _forwarded: int = 0
    """Statements that were forwarded since the metrics were told."""
    _timed: bool = False

    def take_views(self, found: dict[AudiencePlace, Views | None]) -> None:
        """Take up what audiences read: from the next statement on it holds in all sessions."""
        assert self.audiences is not None
        changed = [place for place, views in found.items() if self.audiences.take(place, views)]
        if changed:
            self.judging.views = self.audiences.known
            self.judging.adopt(self.judging.rules)

    def __post_init__(self) -> None:
        """Hear of what goes the short lane."""
        self.ledger.wire(lambda: asyncio.get_running_loop().call_soon(self.turn), self.late)

    def write(self, record: Record) -> None:
        """Put a record on the spool: it is there when this returns. Raise `Retry` when the spool takes nothing."""
        self.spool.write([record])

    def take(self, records: list[Record]) -> None:
        """Take records that go on the spool at the end of this turn of the loop, or a moment later where none waits."""
        begun = [record for record in records if type(record) is Begun]
        for record in begun:
            if record.verdict is not None:
                self._decided(record, record.verdict)
        if self._under_staged:
            for ended in records:
                if type(ended) is EndedRecord and (of := self._under_staged.pop((ended.session, ended.number), None)):
                    self._effects += ["staged"] * bool(would_have(of, ended.rows))
        self.ledger.add(self.spool.encoded(records), len(begun))
        self.late()

    def _decided(self, begun: Begun, verdict: Verdict) -> None:
        """Count what was decided; what a staged limit would have done is known at the statement's end."""
        if verdict.effect != "staged":
            self._effects.append(verdict.effect)
        if would_have(verdict, None):
            self._effects.append("staged")
        elif verdict.staged and len(self._under_staged) < UNDER_STAGED_MAX:
            self._under_staged[begun.session, begun.number] = verdict

    def late(self) -> None:
        """See that what the ledger has is on the spool in a moment, where it is not at the end of this turn."""
        if not self._timed and not self._held:
            self._timed = True
            asyncio.get_running_loop().call_later(END_S, self._late)

    def hold(self, connection: Connection) -> None:
        """Let a connection forward at the end of this turn of the loop, when all that was taken is on the spool.

        What has come from many clients in one turn is one write.
        """
        if not self._held:
            asyncio.get_running_loop().call_soon(self.turn)
        self._held.append(connection)

    def turn(self) -> None:
        """Write down what waits, then forward what was held back for it; nothing where it cannot be written down."""
        lines, begun = self.ledger.take()
        # Lanes first: what their sessions have sent behind that is held by their connections.
        held: list[Connection | Lane] = [*self.ledger.release(), *self._held]
        self._held = []
        effects, self._effects = self._effects, []
        try:
            if lines:
                self.spool.append(lines, bounded=begun > 0)
        except PgwitnessError as error:
            log.error("statements cannot be written down, and are not forwarded", error=str(error), sessions=len(held))
            self._write_ends(lines)
            for connection in held:
                connection.refuse()
            return
        self._forwarded += begun
        for effect in effects:
            DECISIONS.labels(effect).inc()
        if self._news and self.others is not None:
            news, self._news = self._news, []
            task = asyncio.create_task(self._tell(self.others, news, held))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)
            return
        for connection in held:
            connection.forward()

    def made(self, cluster: str, database: str, made: Lesson) -> None:
        """Take up what a session makes, which the other processes are to know before it is forwarded."""
        self._news.append((cluster, database, made))

    async def _tell(self, others: Others, news: list[tuple[str, str, Lesson]], held: list[Connection | Lane]) -> None:
        try:
            await others.learn(news)
        finally:
            self._held = [*held, *self._held]
            self.turn()  # what these have sent meanwhile is to be on the spool too

    def _write_ends(self, lines: bytes) -> None:
        """Write down what has ended all the same: the spool takes that where it takes no statement any more."""
        ends = [line for line in lines.splitlines(keepends=True) if not line.startswith(BEGINS)]
        try:
            if ends:
                self.spool.append(b"".join(ends), bounded=False)
        except PgwitnessError as error:
            log.error("what came of some statements cannot be written down", error=str(error), statements=len(ends))

    def _late(self) -> None:
        self._timed = False
        self.turn()
        STATEMENTS.inc(self._forwarded)
        self._forwarded = 0


_moment = partial(tuple.__new__, Moment)


def now() -> Moment:
    """Return the time."""
    return _moment((time.time_ns() // 1000, time.perf_counter_ns()))


class Connection:
    """A client that is joined to its server."""

    def __init__(
        self,
        house: House,
        session: Session,
        client: Link,
        server: Server,
        key: bytes,
        opened: Opened,
        judge: SessionJudge,
    ) -> None:
        self._house = house
        self.opened = opened
        self._session = session
        self._client = client
        self.server = server
        self.key = key
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held: list[bytes] = []
        """What goes to the server at the end of this turn of the loop."""
        self._judging = judge
        self._judge = judge if house.ahead is not None else None
        self._late: list[bytes] = []
        """What has come from the client and waits until a long text was read."""
        self._reading: asyncio.Task[None] | None = None
        self.login: Login | None = None
        """Logs in once more as the session's role, for what approvers are shown; None where nothing is approved."""
        self._approving: asyncio.Task[None] | None = None
        """Waits for what becomes of a statement that has to be approved."""
        self._cutting: asyncio.Task[None] | None = None
        self._stopped = False
        """Whether the client is not read from."""

    def begin(self) -> None:
        """Let the bytes flow."""
        self._client.take_errors(self.defect)
        self.server.link.take_errors(self.defect)
        self._client.other, self.server.link.other = self.server.link, self._client
        self.server.link.flow(self._from_server, self.finish)
        self._client.flow(self._from_client, self.finish)
        lane, to_client, to_server = self._session.lane, self._client, self.server.link
        if lane is not None and to_client.transport is not None and to_server.transport is not None:
            otherwise = (to_client.data_received, to_server.data_received)
            lane.wire(self, *otherwise, to_client.transport.write, to_server.transport.write)
            to_client.shortcut(lane.from_client)
            to_server.shortcut(lane.from_server)

    def look(self) -> Seen:
        """Look at what the session does."""
        return self._session.look()

    @property
    def intent(self) -> str:
        """What the session says that it is for."""
        return self._judging.intent

    @property
    def idle(self) -> bool:
        """Whether nothing is asked and no transaction is open."""
        return self._session.status == "I" and not self._session.waiting

    def _from_client(self, data: bytes) -> None:
        if self.over.done():
            return
        lane = self._session.lane
        if lane is not None and lane.holding:
            self._held = [data for data in (lane.unhold(),) if data is not None]  # what comes now goes behind it
            self._house.hold(self)
        if self._late or self._long(data):
            self._late.append(data)
            if lane is not None:
                lane.bar(True)
            if self._reading is None:
                self._reading = asyncio.create_task(self._read_ahead())
                self._flow()
            return
        self._do(self._session.client(data, now()))

    def _long(self, data: bytes) -> list[bytes]:
        return self._session.long_texts(data, LONG_BYTES) if self._judge is not None else []

    async def _read_ahead(self) -> None:
        """Take what has come when its long texts were read elsewhere; the client is not read from meanwhile."""
        try:
            while self._late and not self.over.done():
                found = await self._readings(self._long(self._late[0]))
                if not self.over.done():
                    self._house.judging.ahead = found
                    self._do(self._session.client(self._late.pop(0), now()))
        except Exception as error:
            self.defect(error)
        finally:
            self._house.judging.ahead = {}
            self._reading = None
            self._late.clear()
            if self._session.lane is not None:
                self._session.lane.bar(False)
            self._flow()

    async def _readings(self, texts: list[bytes]) -> dict[tuple[bytes, Settings], Reading]:
        found: dict[tuple[bytes, Settings], Reading] = {}
        for text in texts:
            assert self._judge is not None
            assert self._house.ahead is not None
            settings = self._judge.settings
            reading = await self._house.ahead.read(text, settings)
            if reading is not None:
                found[text, settings] = reading
        return found

    def _from_server(self, data: bytes) -> None:
        if self.over.done():
            return
        self._do(self._session.server(data, now()))

    def _do(self, actions: Actions) -> None:
        """Write down, then send: no statement goes whose record is not on the spool."""
        if actions.records:
            self._house.take(actions.records)
        if actions.to_server:
            if self._held:
                self._held += actions.to_server
            elif actions.records:
                self._held = actions.to_server
                self._house.hold(self)
            else:
                self.server.link.send(b"".join(actions.to_server))
        for data in actions.to_client:
            self._client.send(data)
        self._flow()
        if actions.asked is not None:
            self._approving = asyncio.create_task(self._approve(actions.asked, actions.settings))
        if actions.cancel:
            self._cutting = asyncio.create_task(self._cut())
        if actions.expires is not None:
            seconds, token = actions.expires
            asyncio.get_running_loop().call_later(seconds, self._expired, token)
        if actions.close is not None:
            self.end("FATAL", actions.close.sqlstate, str(actions.close))

    def _flow(self) -> None:
        """Read from the client unless too much of it waits already, or a long text of it is being read."""
        stopped = self._session.is_full or self._reading is not None
        if stopped is not self._stopped:
            self._stopped = stopped
            if stopped:
                self._client.stop()
            else:
                self._client.go()

    async def _cut(self) -> None:
        """Have the server cancel what runs, and only then go on: a late cancel would hit what comes next.

        Nothing of it is read meanwhile. A fast server would keep this process so busy with rows that it drops that the
        cancel itself came late; once it has the cancel, it ends with the next row that it can write.
        """
        self.server.link.stop()
        try:
            over = await upstream.cancel(self.server)
        finally:
            self.server.link.go()
        if self.over.done():
            return
        if over:
            self._do(self._session.cancelled(now()))
        else:
            self.end("FATAL", "57014", UNSURE)

    def _expired(self, token: object) -> None:
        if not self.over.done():
            self._do(self._session.expired(token, now()))

    async def _approve(self, asked: Asked, settings: dict[str, str]) -> None:
        """Go on with a statement that has to be approved when it is known what becomes of it."""
        verdict = asked.decision.verdict
        assert verdict is not None
        desk, judging = self._house.desk, self._house.judging
        try:
            if desk is None:
                verdict = replace(verdict, effect="deny", message=f"refused: {NO_DESK} ({verdict.message})")
            else:
                at_us = now().us
                request = request_of(asked, self._judging.whose(at_us), self.opened, settings, judging.token, at_us)
                verdict = await desk.settle(request, verdict, self, partial(self._estimate, asked, dict(settings)))
        except asyncio.CancelledError:
            verdict = replace(verdict, effect="deny", message=f"canceled while it waited ({verdict.message})")
        except Exception as error:
            self.defect(error)
        if self.over.done():
            return
        self._approving = None
        self._do(self._session.resume(verdict, now()))

    async def _estimate(self, asked: Asked, settings: dict[str, str]) -> Estimate:
        """Find out what a statement would do that has to be approved."""
        estimator, login = self._house.estimator, self.login
        if estimator is None or login is None:
            return Estimate(why_not="this gateway does not find it out")
        return await estimator.estimate(asked, settings, login)

    def tell(self, message: str, hint: str) -> None:
        """Tell the client something while its statement waits."""
        if not self.over.done():
            self._do(self._session.tell(message, hint))

    def give_up(self) -> bool:
        """Refuse the statement that waits for approval; return whether there is one."""
        if self._approving is None or not self._session.held:
            return False
        self._approving.cancel()
        return True

    def forward(self) -> None:
        """Send to the server what was held back: its records are on the spool."""
        held, self._held = self._held, []
        if self.over.done():
            return  # it has ended while the other processes were told
        self.server.link.send(held[0] if len(held) == 1 else b"".join(held))

    def refuse(self) -> None:
        """End the session, whose statements cannot be written down: none of them goes to the server."""
        self._held = []
        if self._session.lane is not None:
            self._session.lane.unhold()
        said = "the gateway cannot write down what is run, and lets nothing through that it cannot"
        self.end("FATAL", "53100", said)

    def defect(self, error: Exception) -> None:
        """End a session whose bytes met an error that nobody foresaw; no other one is disturbed."""
        log.error("unexpected error; a session is ended", exc_info=error)
        self.end("FATAL", "XX000", "the gateway has met an error that was not foreseen; its log has it whole")

    def end(self, severity: str, sqlstate: str, message: str) -> None:
        """End the session with its last words."""
        self._client.send(backend.error(severity, sqlstate, message))
        self.finish()

    def finish(self) -> None:
        """End the session, if it has not ended: what waits for either side is sent, then both are closed."""
        if self._held or (self._session.lane is not None and self._session.lane.holding):
            self._house.turn()
        if self.over.done():
            return
        self.over.set_result(None)
        if self._approving is not None:
            self._approving.cancel()
        at = now()
        self._house.take([*self._session.lost(at), Closed(session=self._session.number, at_us=at.us)])
        self._client.leave()
        self.server.link.close()


async def serve(house: House, way: Way) -> None:
    """Serve one client to its end. Never raises for anything that a client or a server does."""
    try:
        await _serve(house, way)
    except ProtocolViolation as error:
        way.last_words(backend.error("FATAL", error.sqlstate, str(error)))
    except (Ended, TimeoutError, OSError):
        way.abandon()
    except Exception:
        log.exception("unexpected error; a client is cut off")
        way.abandon()
    finally:
        if way.link is not None and way.link.transport is not None:
            await way.link.left()


async def _serve(house: House, way: Way) -> None:
    async with asyncio.timeout(house.login_s):
        tls, binding = house.tls, house.binding  # of one certificate, which may be another one in a moment
        link, request = await greet(way, tls)
        if isinstance(request, CancelRequest):
            await _cancel(house, request)
            link.leave()
            return
        assert isinstance(request, Startup)
        connection = await _open(house, link, request, binding)
    if connection is None:
        return
    SESSIONS.inc()
    key = (connection.server.pid, connection.key)
    house.sessions[key] = connection
    try:
        connection.begin()
        await connection.over
    finally:
        connection.finish()
        del house.sessions[key]
        SESSIONS.dec()


async def cancelled(house: House, pid: int, secret: bytes) -> bool:
    """End what a session runs, by its key; return whether there is such a session in this process."""
    connection = house.sessions.get((pid, secret))
    if connection is not None and not connection.give_up():
        await upstream.cancel(connection.server)
    return connection is not None


async def _cancel(house: House, request: CancelRequest) -> None:
    if not await cancelled(house, request.pid, request.secret) and house.others is not None:
        await house.others.cancel(request)


async def _open(house: House, link: Link, request: Startup, binding: bytes | None) -> Connection | None:
    """Name the client and log in for it; None when it was refused, which it has been told then."""
    role = request.parameters["user"]
    name = request.parameters.get("database") or role
    database = house.databases.get(name) or house.databases.get("*")
    if request.negotiates:
        link.send(backend.negotiate(min(request.minor, 2) if request.minor != 1 else 0, request.options))
    if request.parameters.get("replication", "false").lower() not in ("false", "off", "no", "0"):
        _refuse(link, "28000", "replication connections do not go through the gateway")
        return None
    if database is None:
        _refuse(link, "3D000", f'database "{name}" is not served by this gateway')
        return None
    if len(house.sessions) >= house.connections_max:
        _refuse(link, "53300", "the gateway has as many sessions as gateway.connections_max allows")
        return None
    opened = _opened(link, database, role, name, request)
    proven = await _proven(house, link, database, opened, binding)
    if proven is None:
        return None
    opened = replace(
        opened,
        role=proven.role,
        auth_method=proven.method,
        token=proven.token,
        certificate=proven.certificate,
    )
    secret = proven.secret
    audience = _audience(house, opened)
    if audience is not None and audience != opened.role:
        opened = replace(opened, role=audience, user=proven.role)
        password = database.roles.password(audience) if database.roles is not None else None
        if password is None:
            said = f'the gateway has no password of role "{audience}", as which you are to see this database'
            _login_failed(house, link, opened, "28000", backend.error("FATAL", "28000", said))
            log.error("an audience cannot log in: its role is not in the database's roles_file", role=audience)
            return None
        secret = password
    parameters = {**request.parameters, "user": opened.role, "database": database.place.database or name}
    try:
        server = await upstream.log_in(database.place, parameters, secret)
    except Refused as refused:
        database.admission.forget(role)
        _login_failed(house, link, opened, refused.sqlstate, refused.answer)
        return None
    await _look(house, AudiencePlace(opened.cluster, opened.database, opened.role))
    connection = _joined(house, link, request, opened, server)
    if connection is not None and house.estimator is not None:
        own = {**parameters, "application_name": APPLICATION}
        connection.login = partial(
            _login_again, dataclasses.replace(database.place, hosts=(server.at,), target="any"), own, secret
        )
    return connection


async def _login_again(place: Place, parameters: dict[str, str], secret: Secret | None) -> Server:
    """Log in beside a session, at its server and as its role. Raise `NoLogin`."""
    try:
        return await upstream.log_in(place, parameters, secret)
    except Refused as refused:
        raise NoLogin(refused.sqlstate) from refused


def _audience(house: House, opened: Opened) -> str | None:
    """Return the role of the audience that a client is of; None where it is of none."""
    if house.audiences is None:
        return None
    person = house.judging.rules.name(opened, opened.application)
    return house.audiences.role_for(Who(person.principal, person.kind, person.peer_group), opened.database)


async def _look(house: House, place: AudiencePlace) -> None:
    """Look at the views of an audience whose first session begins, or of which nobody has looked for a while."""
    audiences = house.audiences
    if audiences is not None and audiences.due(place):
        house.take_views({place: await asyncio.to_thread(audiences.look, place)})


async def _proven(house: House, link: Link, database: Database, opened: Opened, binding: bytes | None) -> Proven | None:
    """Ask a client who it is; None when it is not let in, which it has been told then."""
    assert link.transport is not None
    shown = Shown(opened.role, link.transport.get_extra_info("ssl_object"), opened.at_us)
    try:
        return await prove(link, database.admission, shown, house.mock, binding)
    except ProtocolViolation:
        raise
    except Denied as denied:
        if denied.asked:
            _refuse(link, denied.sqlstate, str(denied))
            return None
        refused = replace(opened, token=denied.token)
        _login_failed(house, link, refused, denied.sqlstate, backend.error("FATAL", denied.sqlstate, str(denied)))
    except PgwitnessError as error:
        log.error("nobody can log in", error=str(error))
        said = "the gateway cannot look up who you are; its log says why"
        _login_failed(house, link, opened, "08006", backend.error("FATAL", "08006", said))
    return None


def _refuse(link: Link, sqlstate: str, message: str) -> None:
    LOGINS.labels("refused").inc()
    link.send(backend.error("FATAL", sqlstate, message))
    link.leave()


def _opened(link: Link, database: Database, role: str, name: str, request: Startup) -> Opened:
    assert link.transport is not None
    peer = link.transport.get_extra_info("peername")
    known = isinstance(peer, tuple)
    return Opened(
        session=0,
        at_us=now().us,
        cluster=database.cluster,
        instance=database.place.instance,
        role=role,
        database=database.place.database or name,
        application=request.parameters.get("application_name", ""),
        client_addr=peer[0] if known else None,
        client_port=peer[1] if known else None,
        encrypted=link.transport.get_extra_info("ssl_object") is not None,
    )


def _login_failed(house: House, link: Link, opened: Opened, sqlstate: str, answer: bytes) -> None:
    """Write down a refused login, and say so to the client."""
    LOGINS.labels("refused").inc()
    try:
        house.write(replace(opened, session=next(house.numbers), at_us=now().us, sqlstate=sqlstate))
    except PgwitnessError as error:
        log.error("a refused login cannot be written down", error=str(error))
    link.send(answer)
    link.leave()


def _joined(house: House, link: Link, request: Startup, opened: Opened, server: Server) -> Connection | None:
    """Write down the session, and tell the client that it has begun."""
    number = next(house.numbers)
    record = replace(
        opened,
        session=number,
        at_us=now().us,
        instance=upstream.named(server.at),
        pid=server.backend_pid,
        backend_start_us=server.backend_start_us,
        server_port=server.port,
    )
    named = request.parameters.get("database") or record.role
    intent = option(request.parameters.get("options", ""))
    judge = house.judging.session(record, named if named in house.databases else "*", intent)
    session = Session(number, server.settings, judge, house.ledger)
    if house.mark_key:
        session.mark = partial(guarding.mark_of, house.mark_key, record)
    try:
        house.write(record)
    except PgwitnessError as error:
        server.link.close()
        log.error("a session is refused, for it cannot be written down", error=str(error))
        _refuse(link, "53100", "the gateway cannot write down what is run, and lets nobody in")
        return None
    LOGINS.labels("accepted").inc()
    key = secrets.token_bytes(SECRET_BYTES[2 if request.minor >= 2 else 0])
    link.send(
        backend.authentication(0)
        + backend.parameter_status(server.settings)
        + backend.key_data(server.pid, key)
        + b"".join(server.notices)
        + backend.ready("I")
    )
    return Connection(house, session, link, server, key, record, judge)
