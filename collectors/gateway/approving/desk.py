"""Where a gateway asks for approvals and uses them: one reader of the topic `approvals`, for all of its sessions.

A person's statement waits here; an agent's is refused with the id of its request, and runs when it comes again and is
approved. Before it runs the gateway claims the approval in the topic and waits until it has read its own claim back: of
two gateways that claim one approval the broker's order decides, so that neither of them needs to know of the other. A
gateway that is killed between claim and run has used the approval up: it ran once at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, Protocol

import structlog
from msgspec.structs import replace
from prometheus_client import Counter, Gauge

from detectors.alerts.verdicts import private_key
from detectors.gatekeeper import Verdict
from pgwitness.approvals import records
from pgwitness.approvals.ledger import REQUESTS_MAX, Ledger, Refusal, Standing, Trust
from pgwitness.approvals.records import Claim, End, Ended, Estimate, Record, Request
from pgwitness.approvals.topic import ApprovalsTopic
from pgwitness.core.config import Config
from pgwitness.core.errors import ConfigurationError, PgwitnessError, Unreachable
from pgwitness.core.runtime.backoff import pause_s

_IN_FULL: Final = "write each table with its schema, so that what is approved is what runs"
_TOO_LONG: Final = "it is too long to be shown to whoever would approve it"
_LATER: Final = "approvals cannot be asked for at the moment; the gateway's log says why"
CLAIM_S: Final = 15.0
"""How long a claim may take to be read back."""
READY_S: Final = 5.0
LOOK_S: Final = 1.0
SWEEP_S: Final = 1.0
PAUSE_S_MAX: Final = 5.0
LATE_US: Final = 30_000_000
"""After which another gateway says that a request has expired, where the one that asked does not."""

REQUESTS = Counter("pgwitness_gateway_approvals", "Statements that needed approval, by what came of them.", ["outcome"])
WAITING = Gauge("pgwitness_gateway_approvals_waiting", "Statements that are held until somebody decides.")

log = structlog.get_logger("gateway")


class Client(Protocol):
    """Who waits: is told what for."""

    def tell(self, message: str, hint: str) -> None:
        """Tell the client, while its statement waits."""


class Desk:
    """Asks, waits and claims for the sessions of one process. `start` begins to read; close it afterwards."""

    def __init__(self, config: Config) -> None:
        """Raise `ConfigurationError` where the gateway's own key, or anybody's, cannot be used."""
        file = config.approvals.key_file
        if file is None:
            raise ConfigurationError("approvals.key_file: the key of the gateway; `pgwitness alerts key` makes one")
        try:
            self._key = private_key(file.read_bytes())
        except OSError as error:
            raise ConfigurationError(f"approvals.key_file: {file}: {error.strerror}") from error
        self._config = config
        self._trust = Trust.of(config)
        self._ledger = Ledger(self._trust)
        self._lock = threading.Lock()
        self._claims: dict[str, Refusal | None] = {}
        """Claims of this process that were read back, by their nonces; with a reason where they do not hold."""
        self._claiming: set[str] = set()
        self._own: set[str] = set()
        """Requests of this process."""
        self._swept: set[str] = set()
        self._floor_us = 0
        """What was asked for before is not used any more: of it something is missing on the topic."""
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()
        self.trouble: str | None = "the topic of approvals is not read to its end yet"
        self._writer: ApprovalsTopic | None = None
        self.leaving = False
        """Whether the gateway ends: whoever waits can come again and go on waiting for the same request."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="approvals", daemon=True)

    def start(self) -> None:
        """Begin to read the topic."""
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join(10.0)

    # -- the sessions' side ------------------------------------------------------------------------------------

    async def settle(
        self, request: Request, verdict: Verdict, client: Client, estimate: Callable[[], Awaitable[Estimate]]
    ) -> Verdict:
        """Return what is to become of a statement: the same verdict with the approval by which it runs, or a refusal.

        Never raises but for being cancelled, by which the request is given up. What the statement would do is found
        out by `estimate` when it is asked for the first time.
        """
        assert verdict.terms is not None
        try:
            if not await self._readable():
                return _refused(verdict, f"{self.trouble}; try again", "broker")
            if request.principal is None:
                return _refused(verdict, "who asks cannot be named, so nobody can approve it", "unnamed")
            if not request.held and not all("." in name for name in request.relations):
                return _refused(verdict, _IN_FULL, "path")
            standing = self._known(request)
            if standing is None:
                if not self._fits(request):
                    return _refused(verdict, _TOO_LONG, "too_long")
                asked = replace(request, estimate=await estimate())
                if not self._fits(asked):
                    asked = replace(request, estimate=Estimate(why_not="what was found out is too long to be told"))
                standing = await self._ask(asked)
            if request.held:
                return await self._hold(standing, verdict, client)
            return await self._answer(standing, verdict)
        except PgwitnessError as error:
            log.error("an approval cannot be asked for", error=str(error))
            return _refused(verdict, _LATER, "broker")

    async def _hold(self, standing: Standing, verdict: Verdict, client: Client) -> Verdict:
        """Wait until it is decided, or the time is over."""
        request = standing.request
        client.tell(
            f"waiting for approval {request.request}: {_whom(standing)}; until {_clock(standing.usable_until_us)}",
            f"`pgwitness approvals approve {request.request}` lets it run; cancel it to give it up.",
        )
        WAITING.inc()
        try:
            while self._state(standing) == "open":
                await self._change(min(LOOK_S, max(0.0, (request.expires_us - _now_us()) / 1e6)) + 0.01)
        except asyncio.CancelledError:
            if not self.leaving:
                self._later(request.request, "withdrawn")
                REQUESTS.labels("withdrawn").inc()
            raise
        finally:
            WAITING.dec()
        return await self._answer(standing, verdict)

    async def _answer(self, standing: Standing, verdict: Verdict) -> Verdict:
        """Use an approval that is there; else say what there is."""
        request, state = standing.request, self._state(standing)
        verdict = replace(verdict, approval=request.request)
        if state == "approved":
            return await self._use(standing, verdict)
        if state == "open":
            hint = (
                f"When it is approved (`pgwitness approvals approve {request.request}`), send exactly this again, "
                f"before {_clock(standing.usable_until_us)}."
            )
            return _refused(verdict, f"approval {request.request} is waited for: {_whom(standing)}", "asked", hint)
        if state == "denied":
            denied = next(one for one in standing.decisions if one.word == "deny")
            return _refused(verdict, f"request {request.request} was denied by {denied.who}: {denied.why}", "denied")
        if state == "expired":
            if request.request in self._own:
                await self._append(request.request, Ended(request=request.request, at_us=_now_us(), end="expired"))
                self._swept.add(request.request)
            return _refused(verdict, f"nobody has decided on request {request.request} in time", "expired")
        return _refused(verdict, f"request {request.request} is {state} already", state)

    async def _use(self, standing: Standing, verdict: Verdict) -> Verdict:
        """Claim an approval, and return what it lets run once the claim was read back."""
        request, nonce = standing.request, secrets.token_hex(8)
        self._claiming.add(nonce)
        try:
            await self._append(
                request.request,
                Claim(request=request.request, at_us=_now_us(), nonce=nonce, session=request.session),
            )
            deadline = time.monotonic() + CLAIM_S
            while nonce not in self._claims:
                if time.monotonic() > deadline:
                    return _refused(verdict, f"whether approval {request.request} could be used is not known", "broker")
                await self._change(LOOK_S)
            refused = self._claims.pop(nonce)
        finally:
            self._claiming.discard(nonce)
        if refused is not None:
            return _refused(verdict, f"approval {request.request} cannot be used: it is {refused}", refused)
        REQUESTS.labels("run").inc()
        rows = request.rows if verdict.rows is None else min(request.rows, verdict.rows)
        answered = None if verdict.answered is None else min(rows, verdict.answered)
        return replace(verdict, approval=request.request, rows=rows, answered=answered)

    async def _ask(self, request: Request) -> Standing:
        """Write a request down, and return how it stands when it was read back."""
        self._own.add(request.request)
        await self._append(request.request, request)
        REQUESTS.labels("asked").inc()
        deadline = time.monotonic() + CLAIM_S
        while (standing := self._standing(request.request)) is None:
            if time.monotonic() > deadline:
                raise Unreachable("a request was written, and is not read back")
            await self._change(LOOK_S)
        return standing

    def _known(self, wanted: Request) -> Standing | None:
        """Return a request for just this that somebody may still use or decide on, or has denied a while ago."""
        now_us, found = _now_us(), None
        with self._lock:
            for standing in self._ledger.requests.values():
                if _same(standing.request, wanted) and standing.request.at_us >= self._floor_us:
                    state = standing.state(now_us)
                    if state == "approved":
                        return standing
                    recent = state == "denied" and not wanted.held and now_us < standing.request.expires_us
                    if state == "open" or recent:
                        found = standing
        return found

    def _standing(self, request_id: str) -> Standing | None:
        with self._lock:
            return self._ledger.requests.get(request_id)

    def _state(self, standing: Standing) -> str:
        """Return how a request stands, in the ledger that holds now."""
        return (self._standing(standing.request.request) or standing).state(_now_us())

    def _fits(self, request: Request) -> bool:
        """Return whether others read a request: one that is longer is no record to anybody."""
        return len(records.sign(request, self._key)) <= records.BYTES_MAX

    async def _append(self, request_id: str, record: Record) -> None:
        await asyncio.to_thread(self._write, request_id, record)

    def _later(self, request_id: str, end: End) -> None:
        """Write an end down while whoever asked has gone already."""
        ended = Ended(request=request_id, at_us=_now_us(), end=end)
        threading.Thread(target=self._try, args=(request_id, ended), daemon=True).start()

    def _try(self, request_id: str, record: Record) -> None:
        with contextlib.suppress(PgwitnessError):  # it expires all the same
            self._write(request_id, record)

    def _write(self, request_id: str, record: Record) -> None:
        with self._lock:
            if self._writer is None:
                self._writer = ApprovalsTopic(self._config)
            writer = self._writer
        writer.append(request_id, records.sign(record, self._key))

    async def _readable(self) -> bool:
        deadline = time.monotonic() + READY_S
        while self.trouble is not None and time.monotonic() < deadline:
            await self._change(0.1)
        return self.trouble is None

    async def _change(self, timeout_s: float) -> None:
        """Wait until something was read, or for so long."""
        loop = asyncio.get_running_loop()
        waiter = (loop, loop.create_future())
        with self._lock:
            self._waiters.add(waiter)
        try:
            await asyncio.wait([waiter[1]], timeout=timeout_s)
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    # -- the reader's side -------------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            topic = ApprovalsTopic(self._config)
            try:
                self._read(topic)
            except Unreachable as error:
                self.trouble = str(error)
                log.warning("approvals cannot be read", error=str(error))
            except Exception:
                self.trouble = "approvals cannot be read; the gateway's log says why"
                log.exception("unexpected error; approvals are read again from their beginning")
            finally:
                topic.close()
            failures += 1
            self._stop.wait(pause_s(failures, PAUSE_S_MAX))
        if self._writer is not None:
            self._writer.close()

    def _read(self, topic: ApprovalsTopic) -> None:
        ledger, first = Ledger(self._trust), True
        sweep_s = time.monotonic()
        while not self._stop.is_set():
            found = topic.poll()
            if found is not None and first:
                first = False
                if found.offset > 0:
                    self._lost("records stood before the first one")
            if found is not None:
                with self._lock:
                    taken = ledger.take(found.value, found.offset, found.at_us)
                    record = taken.signed.record if taken.signed is not None else None
                    if isinstance(record, Claim) and record.nonce in self._claiming:
                        held = taken.standing is not None and taken.standing.claim == record
                        self._claims.setdefault(record.nonce, None if held else taken.refused)
                if taken.refused is not None:
                    log.warning("approval_refused", offset=found.offset, reason=taken.refused)
            if topic.at_end and self._ledger is not ledger:
                with self._lock:
                    self._replace(ledger)
                self.trouble = None
            if found is not None or self.trouble is None:
                self._wake()
            if self.trouble is None and time.monotonic() - sweep_s >= SWEEP_S:
                sweep_s = time.monotonic()
                self._sweep()

    def _replace(self, ledger: Ledger) -> None:
        """Go on by what was read anew; where that lacks what was known, its claims may be gone, too."""
        known, found = self._ledger.requests, ledger.requests
        now_us = _now_us()
        if len(found) < REQUESTS_MAX and any(
            name not in found or (one.claim is not None and found[name].claim is None)
            for name, one in known.items()
            if now_us <= one.usable_until_us
        ):
            self._lost("requests that were known are gone")
        self._ledger = ledger

    def _lost(self, why: str) -> None:
        """Use nothing any more that was asked for before now: what was run by it may run again unseen."""
        self._floor_us = _now_us()
        log.error(
            "approvals_lost", why=why, hint="the topic was truncated or made anew; what waits has to be asked anew"
        )

    def _wake(self) -> None:
        with self._lock:
            waiters = list(self._waiters)
        for loop, waiter in waiters:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(_done, waiter)

    def _sweep(self) -> None:
        """Write down what has expired: of one's own requests at once, of others' where nobody does."""
        now_us = _now_us()
        with self._lock:
            late = [
                name
                for name, one in self._ledger.requests.items()
                if one.ended is None
                and name not in self._swept
                and one.state(now_us) == "expired"
                and (name in self._own or now_us > one.usable_until_us + LATE_US)
            ]
        for name in late:
            self._swept.add(name)
            self._try(name, Ended(request=name, at_us=now_us, end="expired"))
            REQUESTS.labels("expired").inc()


def _done(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _same(one: Request, other: Request) -> bool:
    return (
        one.digest == other.digest
        and (one.principal, one.on_behalf_of) == (other.principal, other.on_behalf_of)
        and (one.cluster, one.database, one.role) == (other.cluster, other.database, other.role)
        and (one.groups, one.needed) == (other.groups, other.needed)
        # Without its schema a name means what the session's search_path and temporary tables make of it.
        and (one.session == other.session or all("." in name for name in other.relations))
    )


def _refused(verdict: Verdict, why: str, outcome: str, hint: str | None = None) -> Verdict:
    REQUESTS.labels(outcome).inc()
    message = f"refused: {why} ({verdict.message})"
    return replace(verdict, effect="deny", message=message, hint=hint or verdict.hint)


def _whom(standing: Standing) -> str:
    request = standing.request
    have = "has" if standing.missing == 1 else "have"
    return f"{standing.missing} of {' or '.join(request.groups)} {have} to approve"


def _clock(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _now_us() -> int:
    return time.time_ns() // 1000
