"""The console as an ASGI application: who is asking, may they, was it written down, and only then the page.

`_guarded` does these in one place for every page, so that none can leave one out; a page is a function of an `Asked`
that returns an `Answer`. Pages are in `sinks.console.pages`; logging in and out, assets and the live feed are here.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pgwitness.core.config import Console
from pgwitness.core.errors import NotInOrder, PgwitnessError, Unreachable
from sinks.console import http, live_sessions, now, policies, rendering, report_pages
from sinks.console.approving import Requests
from sinks.console.asked import Answer, Asked, Links, Page, Shared
from sinks.console.asking import Asker
from sinks.console.http import Refused
from sinks.console.openid import CALLBACK, Provider
from sinks.console.pages import PAGES
from sinks.console.reader import Busy, Cached, Reader
from sinks.console.roles import Right, rights
from sinks.console.sessions import FAILURES_MAX, FAILURES_OF_ADDRESS_MAX, Session, Sessions, Throttle
from sinks.console.users import Users
from sinks.console.witness import Feedback, Visitor, Witness

LIVE_S = 5.0
STREAMS_MAX, STREAMS_A_SESSION = 400, 4
POLICIES_S = 30.0
"""How long what was read of the policies is shown before their files are looked at again."""
LOGINS_AT_ONCE = 2
"""Each takes 32 MiB while a password is held against its hash."""

OVER = "You are logged in no more, and this page does not change any more: load it again."

log = structlog.get_logger("console")


@dataclass
class Context:
    """What the application works with. `stop` ends live feeds."""

    config: Console
    reader: Reader
    asking: Asker
    users: Users
    witness: Witness
    seal: Callable[[], now.Seal]
    feedback: Feedback
    policies: Path
    requests: Requests
    gateway: Path
    link_key: bytes = b""
    """What links of messages are signed with; empty where there are none."""
    provider: Provider | None = None
    clock: Callable[[], float] = time.monotonic
    stop: Callable[[], bool] = lambda: False
    streams: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Live:
    """A part of a page that changes by itself: who may see it, its template, and under which name what fills it.

    What `gather` gives is the same object as long as nothing is looked at anew: it is written for all viewers once.
    """

    name: str
    right: Right
    template: str
    value: str
    gather: Callable[[], object]


class _Feed(StreamingResponse):
    """A live feed; `left` is called once, however it ends, also when nothing of it was sent."""

    def __init__(self, content: AsyncIterator[str], left: Callable[[], None]) -> None:
        super().__init__(content, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self.left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.left()


class Application:
    """Answers requests."""

    def __init__(self, context: Context) -> None:
        config = context.config
        self.context = context
        self.proxies = http.addresses(config.proxies)
        self.secure = config.tls is not None or bool(self.proxies)
        prefix = "__Host-" if self.secure else ""
        self.cookie, self.login_cookie = f"{prefix}pgwitness", f"{prefix}pgwitness-login"
        self.state_cookie = f"{prefix}pgwitness-state"
        self.sessions = Sessions(config.session_lifetime, config.session_idle, context.clock)
        self.throttle = Throttle(context.clock)
        self._gathering, self._providing = asyncio.Lock(), asyncio.Semaphore(LOGINS_AT_ONCE)
        self._written: dict[str, tuple[object, str]] = {}
        self._hashing = asyncio.Semaphore(LOGINS_AT_ONCE)
        facts = Cached(lambda: now.gather(context.reader, context.seal, datetime.now(UTC), self._waiting), LIVE_S * 0.8)
        kept = Cached(policies.Folder(context.policies).read, POLICIES_S)
        self.shared = Shared(
            context.reader,
            context.asking,
            facts,
            self.sessions,
            config,
            context.feedback,
            kept,
            context.requests,
            context.gateway,
            Links(context.link_key),
        )

    def routes(self) -> list[Route]:
        """List every path there is."""
        guarded = [
            Route(page.path, self._guarded(page), methods=[page.method], name=f"{page.method} {page.path}")
            for page in PAGES
        ]
        return [
            *guarded,
            *(Route(f"/{live.name}/live", self._living(live), methods=["GET"]) for live in self._lives()),
            Route("/login", self._login_form, methods=["GET"]),
            Route("/login", self._login, methods=["POST"]),
            Route("/login/with", self._with_provider, methods=["GET"]),
            Route(CALLBACK, self._from_provider, methods=["GET"]),
            Route("/logout", self._logout, methods=["POST"]),
            Route("/assets/{name}", self._asset, methods=["GET"]),
        ]

    def _waiting(self) -> int | None:
        """Count what waits for approval; None where that cannot be known now, or nobody's requests are believed."""
        try:
            return self.context.requests.look(lambda ledger: len(ledger.open(time.time_ns() // 1000)))
        except PgwitnessError:
            return None

    # Who is asking.

    def _visitor(self, request: Request, name: str) -> Visitor:
        return Visitor(name, http.address(request, self.proxies))

    def _session(self, request: Request, *, touch: bool = True) -> Session | None:
        """Return the session of a request, None when there is none, or its user was removed or has another password."""
        name = request.cookies.get(self.cookie, "")
        session = self.sessions.get(name, touch=touch) if name else None
        if session is not None and session.roles is None:
            user = self.context.users.get(session.user)
            if user is None or user.password != session.credential:
                self.sessions.end(name)
                return None
        return session

    def _asked(self, request: Request, session: Session, values: dict[str, str]) -> Asked:
        user = self.context.users.get(session.user) if session.roles is None else None
        roles = session.roles or (user.roles if user is not None else ())
        return Asked(
            visitor=self._visitor(request, session.user),
            rights=rights(roles),
            session=session,
            values=values,
            shared=self.shared,
        )

    # Pages.

    def _guarded(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            session = self._session(request)
            if session is None:
                return self._to_login(request)
            values = {**request.query_params, **{k: str(v) for k, v in request.path_params.items()}}
            if page.method == "POST":
                try:
                    values |= await self._form(request, session)
                except Refused as refused:
                    why = {"page": page.name, "outcome": "denied", "why": refused.sentence}
                    await self._record("console_refused", self._visitor(request, session.user), why)
                    raise
            asked = self._asked(request, session, values)
            if page.right not in asked.rights:
                what = {"page": page.name, **page.about(asked), "outcome": "denied"}
                await self._record("console_refused", asked.visitor, what)
                raise Refused(403, "Your roles do not include this page.")
            return await self._answer(page, asked)

        return endpoint

    async def _form(self, request: Request, session: Session) -> dict[str, str]:
        """Read a form of ours. Raise `Refused` for what another site has sent, or is of another login."""
        http.from_here(request.headers)
        values = await http.form(request)
        if not session.wrote(values.pop("csrf", "")):
            raise Refused(403, "This form is of another login. Go back, load the page again, and repeat it.")
        return values

    async def _answer(self, page: Page, asked: Asked) -> Response:
        """Make a page, write down that it was looked at, and only then give it."""
        try:
            async with self._gathering if page.shared else nullcontext():
                answer = await run_in_threadpool(page.make, asked)
        except BaseException:
            what = {"page": page.name, **page.about(asked), "outcome": "failure"}
            await self._record(page.operation, asked.visitor, what)
            raise
        if answer.query is not None:
            await self._recorded(lambda: self.context.witness.asked(answer.query or "", asked.visitor, answer.outcome))
        else:
            await self._record(
                page.operation, asked.visitor, {"page": page.name, "outcome": answer.outcome, **answer.what}
            )
        return self._response(answer, asked)

    def _response(self, answer: Answer, asked: Asked) -> Response:
        if answer.redirect is not None:
            return RedirectResponse(answer.redirect, status_code=303)
        if answer.file is not None:
            name, media_type, content = answer.file
            headers = {"content-disposition": f'attachment; filename="{name}"'}
            return Response(content, media_type=media_type, headers=headers)
        if answer.document is not None:
            return HTMLResponse(answer.document, headers={"content-security-policy": report_pages.POLICY})
        frame = {
            "user": asked.visitor.name,
            "rights": asked.rights,
            "csrf": asked.session.csrf,
            "here": answer.template,
        }
        return HTMLResponse(rendering.render(answer.template, {**frame, **answer.values}), status_code=answer.status)

    async def _record(self, operation: str, visitor: Visitor, what: dict[str, Any]) -> None:
        await self._recorded(lambda: self.context.witness.record(operation, visitor, what))

    async def _recorded(self, write: Callable[[], None]) -> None:
        """Write something down. Raise `Refused` where that is not possible and has to be."""
        try:
            await run_in_threadpool(write)
        except PgwitnessError as error:
            log.error("not written down as evidence", error=str(error))
            if self.context.config.unrecorded == "refuse":
                raise Refused(
                    503,
                    "What is looked at here is evidence, and that cannot be written down at this moment: the broker "
                    "does not answer. So nothing is shown. Try again in a while.",
                ) from error

    # What lives.

    def _lives(self) -> list[Live]:
        """List what changes by itself on pages: everybody is shown the same."""
        here = Cached(lambda: live_sessions.listed(self.context.gateway), LIVE_S * 0.8)
        return [
            Live("now", "now", "_now.html", "facts", self.shared.now.get),
            Live("sessions", "evidence", "_sessions.html", "sessions", here.get),
        ]

    def _living(self, live: Live) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            return await self._live(request, live)

        return endpoint

    async def _live(self, request: Request, live: Live) -> Response:
        session = self._session(request)
        if session is None:
            return Response(status_code=401)
        asked = self._asked(request, session, {})
        streams = self.context.streams
        if live.right not in asked.rights:
            raise Refused(403, "Your roles do not include this page.")
        if sum(streams.values()) >= STREAMS_MAX or streams.get(session.public, 0) >= STREAMS_A_SESSION:
            raise Refused(429, "Too many pages are open at once.")
        streams[session.public] = (
            streams.get(session.public, 0) + 1
        )  # before anything waits, or many would pass at once
        feed = _Feed(self._feed(request, session, live), lambda: self._left(session.public))
        try:
            await self._record("console_look", asked.visitor, {"page": f"{live.name}, live", "outcome": "success"})
        except BaseException:
            feed.left()
            raise
        return feed

    def _left(self, public: str) -> None:
        streams = self.context.streams
        streams[public] -= 1
        if not streams[public]:
            del streams[public]

    async def _feed(self, request: Request, session: Session, live: Live) -> AsyncIterator[str]:
        """Give the changing part of the page whenever it is another one; being open is no sign of life."""
        before = ""
        while not self.context.stop():
            if self._session(request, touch=False) is not session:
                # Whoever looks at it must not take what stands there for how it is now.
                yield _event(live.name, rendering.render("_trouble.html", {"sentence": OVER}))
                return
            try:
                html = await self._drawn(live)
            except PgwitnessError as error:
                html = rendering.render("_trouble.html", {"sentence": str(error)})
            yield ": alive\n\n" if html == before else _event(live.name, html)
            before = html
            await asyncio.sleep(LIVE_S)

    async def _drawn(self, live: Live) -> str:
        """Give what a feed shows. Feeds wait for each other here, and not each in one of the few threads."""
        async with self._gathering:
            return await run_in_threadpool(self._draw, live)

    def _draw(self, live: Live) -> str:
        """Write what a feed shows, unless it is written already; one at a time."""
        found = live.gather()
        of, html = self._written.get(live.name, (None, ""))
        if of is not found:
            html = rendering.render(live.template, {live.value: found})
            self._written[live.name] = (found, html)
        return html

    # Logging in and out.

    def _to_login(self, request: Request) -> Response:
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        wanted = http.place(wanted) if request.method == "GET" else "/"
        return RedirectResponse(
            "/login" + (f"?next={quote(wanted, safe='/')}" if wanted != "/" else ""), status_code=303
        )

    async def _login_form(self, request: Request) -> Response:
        if self._session(request) is not None:
            return RedirectResponse("/", status_code=303)
        return self._show_login(http.place(request.query_params.get("next", "/")), 200, "")

    def _show_login(self, wanted: str, status: int, sentence: str) -> Response:
        token = secrets.token_urlsafe(24)
        provider = urlsplit(self.context.provider.config.issuer).netloc if self.context.provider is not None else ""
        page = rendering.render(
            "login.html", {"csrf": token, "next": wanted, "sentence": sentence, "provider": provider}
        )
        response = HTMLResponse(page, status_code=status)
        self._set(response, self.login_cookie, token, "strict")
        return response

    async def _login(self, request: Request) -> Response:
        http.from_here(request.headers)
        values = await http.form(request)
        name, wanted = values.get("name", ""), http.place(values.get("next", "/"))
        if not self._is_own_form(request, values):
            return self._show_login(wanted, 403, "Log in once more: this form was too old.")
        visitor = self._visitor(request, name[:200])
        both, address = f"{visitor.address} {name[:200]}", visitor.address
        limits = {both: FAILURES_MAX, address: FAILURES_OF_ADDRESS_MAX}
        if not self.throttle.allows(limits):
            if self.throttle.is_first_refusal(limits):
                await self._record("console_login", visitor, {"outcome": "denied", "why": "too many tries"})
            return self._show_login(wanted, 429, "Too many tries from where you are. Wait a while.")
        self.throttle.failed(limits)  # until it has succeeded, so that tries at the same time count, too
        async with self._hashing:
            user = await run_in_threadpool(self.context.users.check, name, values.get("password", ""))
        outcome = "denied" if user is None else "success"
        await self._record("console_login", visitor, {"outcome": outcome})
        if user is None:
            return self._show_login(wanted, 403, "No user has this name and password.")
        self.throttle.succeeded(both)
        self.throttle.taken_back(address)  # or whoever has an account could guess on between logins of their own
        return self._let_in(request, user.name, wanted, None, user.password)

    def _is_own_form(self, request: Request, values: dict[str, str]) -> bool:
        """Say whether a form for logging in is the one that this browser was given."""
        token = request.cookies.get(self.login_cookie, "")
        return bool(token) and hmac.compare_digest(token.encode(), values.get("csrf", "").encode("utf-8", "replace"))

    def _let_in(
        self, request: Request, name: str, wanted: str, roles: tuple[str, ...] | None, credential: str = ""
    ) -> Response:
        """Begin a session; the one that the browser had before ends."""
        self.sessions.end(request.cookies.get(self.cookie, ""))
        session_name, _ = self.sessions.begin(name, self._visitor(request, name).address, roles, credential)
        response = RedirectResponse(wanted, status_code=303)
        self._set(response, self.cookie, session_name, "lax")  # strict would log nobody in who follows a link in a mail
        for spent in (self.login_cookie, self.state_cookie):
            response.delete_cookie(spent, path="/", secure=self.secure, httponly=True)
        return response

    async def _with_provider(self, request: Request) -> Response:
        """Send a browser to the provider, with a state that it has to come back with.

        It is a link and no form: of a form browsers hold redirects, too, against the policy of the page.
        """
        if self.context.provider is None:
            raise HTTPException(404)
        wanted = http.place(request.query_params.get("next", "/"))
        async with self._providing:  # a provider that does not answer holds up nobody but those who want it
            address, state = await run_in_threadpool(self.context.provider.begin, wanted)
        response = RedirectResponse(address, status_code=303)
        self._set(response, self.state_cookie, state, "lax")  # the provider sends the browser back from elsewhere
        return response

    async def _from_provider(self, request: Request) -> Response:
        """Take somebody in whom the provider vouches for."""
        provider, given = self.context.provider, request.query_params
        if provider is None:
            raise HTTPException(404)
        state, kept = given.get("state", ""), request.cookies.get(self.state_cookie, "")
        begun = provider.take(state) if kept and hmac.compare_digest(kept.encode(), state.encode()) else None
        if begun is None or not given.get("code"):
            return self._show_login("/", 403, "The provider did not log you in, or that took too long. Try again.")
        try:
            async with self._providing:
                identity = await run_in_threadpool(provider.finish, given["code"], begun)
        except NotInOrder as error:
            await self._record(
                "console_login", self._visitor(request, "unknown"), {"outcome": "denied", "why": str(error)}
            )
            return self._show_login(begun.next, 403, "You were not logged in: the provider's answer is not believed.")
        visitor = self._visitor(request, identity.name)
        taken = self.context.users.get(identity.name) is not None
        outcome = "success" if identity.roles and not taken else "denied"
        what = {"issuer": provider.config.issuer, "subject": identity.subject, "outcome": outcome}
        await self._record("console_login", visitor, what)
        if taken:
            return self._show_login(begun.next, 403, "A user of the console's own has this name.")
        if not identity.roles:
            return self._show_login(begun.next, 403, "No group of yours has a role here: console.openid.roles.")
        return self._let_in(request, identity.name, begun.next, identity.roles)

    async def _logout(self, request: Request) -> Response:
        session = self._session(request)
        response = RedirectResponse("/login", status_code=303)
        if session is None:
            return response
        http.from_here(request.headers)
        if not session.wrote((await http.form(request)).get("csrf", "")):
            raise Refused(403, "This form is of another login.")
        self.sessions.end(request.cookies.get(self.cookie, ""))
        response.delete_cookie(self.cookie, path="/", secure=self.secure, httponly=True)
        await self._record("console_logout", self._visitor(request, session.user), {"outcome": "success"})
        return response

    def _set(self, response: Response, name: str, value: str, same_site: Any) -> None:
        response.set_cookie(name, value, path="/", secure=self.secure, httponly=True, samesite=same_site)

    # What is the same for everybody.

    async def _asset(self, request: Request) -> Response:
        path = f"/assets/{request.path_params['name']}"
        for asset in rendering.ASSETS.values():
            if asset.path == path:
                headers = {"cache-control": "public, max-age=31536000, immutable"}
                return Response(asset.content, media_type=asset.media_type, headers=headers)
        raise HTTPException(404)


def _event(name: str, html: str) -> str:
    lines = "".join(f"data: {line}\n" for line in html.splitlines())
    return f"event: {name}\n{lines}\n"


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _trouble(error.status, error.sentence)


async def _in_words(_: Request, error: Exception) -> Response:
    status = 503 if isinstance(error, Unreachable | Busy) else 422
    return _trouble(status, str(error))


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _trouble(error.status_code, "There is no such page." if error.status_code == 404 else error.detail)


async def _unforeseen(request: Request, error: Exception) -> Response:
    log.error("a page failed", path=request.url.path, exc_info=error)
    return _trouble(500, "This was not foreseen; the console's log says more.")


def _trouble(status: int, sentence: str) -> Response:
    return HTMLResponse(rendering.render("error.html", {"sentence": sentence}), status_code=status)


def application(context: Context) -> ASGIApp:
    """Make the application."""
    console = Application(context)
    handlers: dict[Any, Any] = {
        Refused: _refused, PgwitnessError: _in_words, HTTPException: _http, Exception: _unforeseen,
    }  # fmt: skip
    app = Starlette(routes=console.routes(), exception_handlers=handlers)
    only = console.proxies if console.proxies and context.config.tls is None else None
    return http.Secured(app, secure=console.secure, only=only)
