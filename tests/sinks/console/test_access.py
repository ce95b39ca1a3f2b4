"""Who may look: logging in, sessions, forms of others, rights, and that all of it is written down."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from pgwitness.core.config import Console
from pgwitness.core.config.serving import ServerTls
from pgwitness.core.errors import ConfigurationError
from sinks.console import app, server, users
from sinks.console.http import HEADERS, place
from sinks.console.pages import PAGES
from sinks.console.reader import Cached
from sinks.console.roles import RIGHTS
from tests.sinks.console.conftest import PASSWORD, ROLES, UID, World, document, log_in, token

EVERY_PATH = [(page.method, page.path.replace("{uid}", UID).replace("{id}", "drop_table")) for page in PAGES]


@pytest.mark.parametrize(("method", "path"), EVERY_PATH)
def test_nobody_sees_a_page_without_logging_in(world: World, method: str, path: str) -> None:
    """Also with a cookie that somebody made up; nothing is looked at then."""
    browser = world.browser()
    browser.cookies.set("pgwitness", "made-up")
    answer = browser.request(method, path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login")
    assert world.records.told == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_sees_its_pages_and_no_others(world: World, role: str) -> None:
    """Each page asks for its right; what was refused is evidence, too."""
    browser = world.visit(role)
    csrf = token(browser.get("/"))
    for page in PAGES:
        path = page.path.replace("{uid}", UID).replace("{id}", "drop_table")
        answer = browser.request(page.method, path, data={"csrf": csrf} if page.method == "POST" else None)
        if page.right in RIGHTS[role]:
            assert answer.status_code in (200, 303, 404, 422, 503), path
        else:
            assert answer.status_code == 403, path
            assert world.records.told[-1][0] == "console_refused"
        shown = document(answer) if answer.headers["content-type"].startswith("text/html") else None
        assert shown is not None or answer.status_code != 200


def test_what_is_looked_at_is_written_down_with_name_and_address(world: World) -> None:
    """Before it is shown, and the name that was tried where somebody was not let in."""
    browser = world.browser("198.51.100.4")
    assert log_in(browser, "viewer", "wrong password!").status_code == 403
    log_in(browser, "viewer")
    browser.get(f"/alerts/{UID}")
    assert [(operation, who.name, who.address) for operation, who, _ in world.records.told] == [
        ("console_login", "viewer", "198.51.100.4"),
        ("console_login", "viewer", "198.51.100.4"),
        ("console_look", "viewer", "198.51.100.4"),
    ]
    assert [what["outcome"] for _, _, what in world.records.told] == ["denied", "success", "success"]
    assert world.records.told[-1][2]["uid"] == UID


def test_what_cannot_be_written_down_is_not_shown(make_world: Callable[..., World]) -> None:
    """Unless the configuration says that it may."""
    world = make_world()
    browser = world.visit("viewer")
    world.records.broken = True
    answer = browser.get("/")
    assert answer.status_code == 503
    assert "Critical" not in answer.text
    assert log_in(world.browser(), "viewer").status_code == 503
    lenient = make_world(unrecorded="answer")
    lenient.records.broken = True
    assert lenient.visit("viewer").get("/").status_code == 200


def name_of(browser: TestClient) -> str:
    """Give the name of the session that a browser was given last."""
    return [cookie.value or "" for cookie in browser.cookies.jar if cookie.name == "pgwitness"][-1]


def test_a_session_has_a_new_name_after_logging_in(world: World) -> None:
    """A name that somebody planted is not taken on, and the one from before ends."""
    browser = world.browser()
    browser.cookies.set("pgwitness", "planted")
    log_in(browser, "viewer")
    planted = world.browser()
    planted.cookies.set("pgwitness", "planted")
    assert planted.get("/").status_code == 303
    first = name_of(browser)
    form = {"csrf": token(world.browser().get("/login")), "name": "viewer", "password": PASSWORD}
    cookies = f"pgwitness={first}; pgwitness-login={form['csrf']}"
    answer = world.browser().post("/login", data=form, headers={"cookie": cookies})
    assert answer.cookies["pgwitness"] not in (first, "planted")
    before = world.browser()
    before.cookies.set("pgwitness", first)
    assert before.get("/").status_code == 303


def test_a_session_ends_by_idleness_age_logging_out_and_its_users_removal(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    """Whatever the browser still has."""
    file = tmp_path / "users.json"
    user = users.User(name="ada", roles=["viewer"], password=users.hashed(PASSWORD))
    users.change(file, lambda _: {"ada": user})
    world = make_world(users_file=file)
    idle, old, out, gone = (world.visit("ada") for _ in range(4))
    assert out.post("/logout", data={"csrf": token(out.get("/"))}).status_code == 303
    assert out.get("/").status_code == 303
    world.now_s[0] += 1_799
    assert old.get("/").status_code == gone.get("/").status_code == 200
    world.now_s[0] += 2
    assert idle.get("/").status_code == 303
    users.change(file, lambda _: {})
    assert gone.get("/").status_code == 303
    users.change(file, lambda _: {"ada": user})
    for _ in range(16):
        world.now_s[0] += 1_700
        old.get("/")
    assert world.now_s[0] > 1_000 + 8 * 3_600 - 1_800
    world.now_s[0] += 1_700
    assert old.get("/").status_code == 303


@pytest.mark.parametrize(("method", "path"), [one for one in EVERY_PATH if one[0] == "POST"] + [("POST", "/logout")])
def test_a_form_of_another_site_does_nothing(world: World, method: str, path: str) -> None:
    """Without the session's token, with another's, from another origin, and as something that is no form."""
    browser, other = world.visit("reviewer"), world.visit("reviewer")
    csrf, foreign = token(browser.get("/")), token(other.get("/"))
    assert csrf != foreign
    before = len(world.records.told)
    tries = [
        browser.post(path, data={}),
        browser.post(path, data={"csrf": foreign}),
        browser.post(path, data={"csrf": csrf}, headers={"origin": "https://evil.example"}),
        browser.post(path, data={"csrf": csrf}, headers={"origin": "null"}),
        browser.post(path, data={"csrf": csrf}, headers={"sec-fetch-site": "cross-site"}),
        browser.post(path, json={"csrf": csrf}),
        browser.post(path, content=f"csrf={csrf}", headers={"content-type": "text/plain"}),
        browser.post(
            path, content=f"csrf=x&csrf={csrf}", headers={"content-type": "application/x-www-form-urlencoded"}
        ),
    ]
    assert {answer.status_code for answer in tries} <= {400, 403, 415}
    told = world.records.told[before:]
    assert {operation for operation, _, _ in told} <= {"console_refused"}
    assert len(told) == (0 if path == "/logout" else len(tries))
    assert browser.get("/").status_code == 200


def test_a_login_form_of_another_site_logs_nobody_in(world: World) -> None:
    """Nor does one without the cookie that came with the form."""
    form = {"csrf": token(world.browser().get("/login")), "name": "viewer", "password": PASSWORD}
    browser = world.browser()
    assert browser.post("/login", data=form).status_code == 403
    assert "pgwitness" not in browser.cookies
    form["csrf"] = token(browser.get("/login"))
    assert browser.post("/login", data=form, headers={"origin": "https://evil.example"}).status_code == 403
    assert "pgwitness" not in browser.cookies


def test_guessing_is_slowed_down(world: World) -> None:
    """Five tries for a name from an address; then the right password has to wait, too, and ever longer after each try.

    Nobody keeps the name's owner out by that, who comes from elsewhere; and that it began is evidence, once.
    """
    for n in range(5):
        assert log_in(world.browser(), "viewer", f"guess number {n}").status_code == 403
    for wait_s in (300, 600, 1_200):
        for _ in range(3):
            assert log_in(world.browser(), "viewer").status_code == 429
        assert log_in(world.browser("192.0.2.99"), "viewer").status_code == 303
        world.now_s[0] += wait_s - 1
        assert log_in(world.browser(), "viewer").status_code == 429
        world.now_s[0] += 2
        assert log_in(world.browser(), "viewer", "another guess").status_code == 403
    assert [what["why"] for _, _, what in world.records.told if "why" in what] == ["too many tries"] * 3
    world.now_s[0] += 2_401
    assert log_in(world.browser(), "viewer").status_code == 303
    assert log_in(world.browser(), "viewer", "a guess").status_code == 403
    assert log_in(world.browser(), "viewer").status_code == 303


def test_after_logging_in_nobody_is_sent_elsewhere(world: World) -> None:
    """What is no path of ours is the beginning."""
    for elsewhere in (
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "/a\r\nset-cookie: x",
        "javascript:1",
    ):
        assert log_in(world.browser(), "viewer", after=elsewhere).headers["location"] == "/"
        assert place(elsewhere) == "/"
    assert log_in(world.browser(), "viewer", after=f"/alerts/{UID}").headers["location"] == f"/alerts/{UID}"


def test_every_answer_has_the_headers(world: World) -> None:
    """Of pages, refusals and redirects; pages are not kept by anybody in between."""
    browser = world.visit("viewer")
    for path in ("/", "/login", "/none", "/alerts?state=none", "/now/none"):
        answer = browser.get(path)
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
        assert answer.headers["cache-control"] == "no-store"
    assert "unsafe" not in HEADERS["content-security-policy"]
    assert "server" not in browser.get("/").headers


def test_cookies_are_for_the_browser_alone(make_world: Callable[..., World]) -> None:
    """And never go over an unencrypted connection where there is an encrypted one."""
    plain, secure = make_world(), make_world(proxies=["10.0.0.5"])
    for world, flags in ((plain, {"httponly", "path=/"}), (secure, {"httponly", "path=/", "secure"})):
        for line in world.browser("10.0.0.5").get("/login").headers.get_list("set-cookie"):
            assert flags <= {part.strip().lower() for part in line.split(";")}
    assert secure.browser("10.0.0.5").get("/login").headers["set-cookie"].startswith("__Host-")
    assert "strict-transport-security" in secure.browser("10.0.0.5").get("/login").headers


def test_an_address_is_a_known_proxys_word_or_the_peers(make_world: Callable[..., World]) -> None:
    """What anybody else says of where a request comes from is not believed, nor the first address in a chain."""
    world = make_world(
        proxies=["10.0.0.5", "10.0.0.6"], tls=ServerTls(cert_file=Path("unread"), key_file=Path("unread"))
    )
    chain, lines = ["1.1.1.1, 203.0.113.80"], ["1.1.1.1", "203.0.113.80"]  # a proxy may add a line of its own
    for peer, addresses, expected in (
        ("10.0.0.5", chain, "203.0.113.80"),
        ("10.0.0.5", lines, "203.0.113.80"),
        ("10.0.0.5", ["1.1.1.1, 203.0.113.80, 10.0.0.6"], "203.0.113.80"),  # one behind another
        ("10.0.0.5", ["1.1.1.1, unknown, 10.0.0.6"], "10.0.0.5"),
        ("192.0.2.1", chain, "192.0.2.1"),
    ):
        browser = world.browser(peer)
        form = {"csrf": token(browser.get("/login")), "name": "nobody", "password": "x"}
        cookie = browser.get("/login").headers["set-cookie"].partition(";")[0]
        form["csrf"] = cookie.partition("=")[2]
        said = [("x-forwarded-for", one) for one in addresses]
        browser.post("/login", data=form, headers=[("cookie", cookie), *said])
        assert world.records.told[-1][1].address == expected


def test_hashes_match_their_password_alone() -> None:
    """Hashes that ask for too much, and what is none, match nothing."""
    stored = users.hashed(PASSWORD)
    assert users.matches(PASSWORD, stored)
    assert not users.matches(PASSWORD + " ", stored)
    assert users.hashed(PASSWORD) != stored
    for broken in ("", "scrypt$x", stored.replace("32768", str(2**30)), stored.replace("scrypt", "md5"), "a$b$c$d$e$f"):
        assert not users.matches(PASSWORD, broken)


def test_a_file_of_users_is_refused_that_others_can_read(tmp_path: Path) -> None:
    """And one with a role that there is not, and what is no such file; the hashes are not in what is said."""
    file = tmp_path / "users.json"
    users.change(file, lambda _: {"a": users.User(name="a", roles=["viewer"], password=users.hashed(PASSWORD))})
    assert set(users.read(file)) == {"a"}
    file.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        users.read(file)
    file.chmod(0o600)
    file.write_text(file.read_text().replace("viewer", "root"))
    with pytest.raises(ConfigurationError, match="no role 'root'"):
        users.read(file)
    file.write_text('{"users": [{"password": "secret"')
    with pytest.raises(ConfigurationError) as refused:
        users.read(file)
    assert "secret" not in str(refused.value)


def test_a_console_is_not_served_in_clear_to_others() -> None:
    """Without a certificate, or somebody in front who has one, passwords would go over the network."""
    for elsewhere in ("0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:0"):
        with pytest.raises(ConfigurationError, match="in clear"):
            server.listen(Console(listen=elsewhere))
    with pytest.raises(ConfigurationError, match="cannot be served"):
        server.listen(Console(listen="127.0.0.1:99999"))
    with server.listen(Console(listen="127.0.0.1:0")) as bound:
        assert bound.getsockname()[0] == "127.0.0.1"


def test_a_session_ends_with_its_password(make_world: Callable[..., World], tmp_path: Path) -> None:
    """Whoever stole a session, or a password, has nothing more of it once there is a new one."""
    file = tmp_path / "users.json"

    def give(password: str) -> None:
        user = users.User(name="ada", roles=["viewer"], password=users.hashed(password))
        users.change(file, lambda _: {"ada": user})

    give(PASSWORD)
    world = make_world(users_file=file)
    stolen = world.visit("ada")
    assert stolen.get("/").status_code == 200
    give(PASSWORD + " of today")
    assert stolen.get("/").status_code == 303
    assert log_in(world.browser(), "ada", PASSWORD + " of today").status_code == 303


def test_an_account_does_not_help_to_guess_at_others(world: World) -> None:
    """Logging in oneself forgives no failures of the address, and counts as none."""
    for n in range(19):
        assert log_in(world.browser(), f"somebody {n}", "a guess").status_code == 403
        assert log_in(world.browser(), "viewer").status_code == 303
    assert log_in(world.browser(), "somebody else", "a guess").status_code == 403
    assert log_in(world.browser(), "reviewer").status_code == 429


def test_two_who_change_the_users_at_once_lose_nobody(tmp_path: Path) -> None:
    """One change follows after the other."""
    file = tmp_path / "users.json"

    def add(number: int) -> None:
        name = f"käthe {number}"
        user = users.User(name=name, roles=["viewer"], password="")
        users.change(file, lambda known: {**known, name: user})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert len(users.read(file)) == 40
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_link_with_a_name_is_there_after_logging_in(world: World) -> None:
    """With what is escaped in it."""
    browser = world.browser()
    where = browser.get("/people?name=Maria%20L%26B").headers["location"]
    wanted = re.search(r'name="next" value="([^"]*)"', browser.get(where).text)
    assert wanted is not None
    assert wanted[1] == "/people?name=Maria%20L%26B"


def test_live_feeds_of_a_session_are_few_also_when_they_come_at_once(make_world: Callable[..., World]) -> None:
    """They are counted before anything waits, and no more once they ended."""
    world = make_world(stop=lambda: True)
    cookies = {"cookie": f"pgwitness={name_of(world.visit('viewer'))}"}
    written, record = threading.Event(), world.records.record

    def slowly(*told: Any) -> None:
        written.wait(5)
        record(*told)

    world.records.record = slowly  # type: ignore[method-assign]

    async def come(number: int) -> list[int]:
        transport = httpx2.ASGITransport(world.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8432", headers=cookies) as client:
            feeds = [asyncio.ensure_future(client.get("/now/live")) for _ in range(number)]
            for refused in range(number - app.STREAMS_A_SESSION):
                while sum(feed.done() for feed in feeds) <= refused and not written.is_set():
                    await asyncio.wait([feed for feed in feeds if not feed.done()], return_when="FIRST_COMPLETED")
            written.set()
            return [answer.status_code for answer in await asyncio.gather(*feeds)]

    assert sorted(asyncio.run(come(12))) == [200] * 4 + [429] * 8
    assert asyncio.run(come(4)) == [200] * 4


def test_nobody_comes_past_the_server_that_encrypts(make_world: Callable[..., World]) -> None:
    """Where nothing here does; this machine's own may, and what is no address is none of a server in front."""
    world = make_world(proxies=["10.0.0.5", "2001:DB8::5"])
    for peer, status in (("10.0.0.5", 200), ("2001:db8::5", 200), ("127.0.0.1", 200), ("10.0.0.6", 403)):
        answer = world.browser(peer).get("/login")
        assert (answer.status_code, "set-cookie" in answer.headers) == (status, status == 200)
    for none in ("10.0.0.0/8", "proxy.example", ""):
        with pytest.raises(ConfigurationError, match=r"console\.proxies"):
            server.listen(Console(listen="0.0.0.0:0", proxies=[none]))


def test_what_was_looked_for_in_vain_is_written_down(world: World) -> None:
    """Which alert, whom, and what somebody had no right to."""
    analyst, viewer = world.visit("analyst"), world.visit("viewer")
    assert analyst.get(f"/alerts/{'0' * 32}").status_code == 404
    assert analyst.get("/people?name=the%20chief").status_code == 404
    assert viewer.get("/people?name=the%20chief").status_code == 403
    assert [what for _, _, what in world.records.told[-3:]] == [
        {"page": "alert", "uid": "0" * 32, "outcome": "failure"},
        {"page": "people", "principal": "the chief", "outcome": "failure"},
        {"page": "people", "principal": "the chief", "outcome": "denied"},
    ]


def test_who_waits_for_what_all_share_takes_no_threads(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which all pages together have forty: one is at it, the others wait beside."""
    cookies = {"cookie": f"pgwitness={name_of(world.visit('viewer'))}"}
    inside: set[int] = set()
    most, get = [0], Cached.get

    def watched(cached: Cached[Any]) -> Any:
        inside.add(threading.get_ident())
        most[0] = max(most[0], len(inside))
        try:
            return get(cached)
        finally:
            inside.discard(threading.get_ident())

    monkeypatch.setattr(Cached, "get", watched)

    async def look() -> list[int]:
        transport = httpx2.ASGITransport(world.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8432", headers=cookies) as client:
            return [answer.status_code for answer in await asyncio.gather(*(client.get("/") for _ in range(8)))]

    assert asyncio.run(look()) == [200] * 8
    assert most == [1]
