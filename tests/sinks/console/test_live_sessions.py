"""Who is at the gateway now, in the console: shown as it is, and ended by whom and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from pgwitness.core.runtime import control
from pgwitness.demo.servers import Postgres
from sinks.console import app
from tests.gateway.conftest import Running, running
from tests.sinks.console.conftest import World, document, token
from tests.sinks.console.test_pages import words


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, postgres18: Postgres) -> Iterator[Running]:
    """A gateway."""
    with running(tmp_path_factory.mktemp("live"), postgres18.dsn()) as found:
        yield found


@pytest.fixture
def world(make_world: Callable[..., World], gateway: Running) -> World:
    """A console on its host."""
    return make_world(gateway=gateway.spool.folder.parent / "control")


def test_a_session_is_shown_and_ended(world: World, gateway: Running) -> None:
    """Whose it is, and what it runs; its client hears by whom it was ended and why, and so does the evidence."""
    with psycopg.connect(gateway.dsn(), application_name="<b>report</b>", autocommit=True) as client:
        client.execute("SELECT 'a secret'")
        browser = world.visit("reviewer")
        page = browser.get("/sessions")
        assert "<b>report</b>" in words(document(page))
        assert "a secret" not in page.text
        (session,) = [option.get("value") for option in document(page).iter("option")]
        form = {"csrf": token(page), "session": session, "reason": "it runs wild"}
        assert browser.post("/sessions", data=form | {"reason": " "}).status_code == 422
        assert browser.post("/sessions", data=form | {"session": "none"}).status_code == 422
        assert browser.post("/sessions", data=form).headers["location"] == "/sessions?ended=yes"
        with pytest.raises(psycopg.OperationalError, match=r"reviewer.*it runs wild"):
            client.execute("SELECT 1")
    told = [what for operation, _, what in world.records.told if operation == "console_session_end"]
    assert told[-1] == {
        "page": "session, end", "outcome": "success", "session": session, "reason": "it runs wild",
    }  # fmt: skip
    assert [what["outcome"] for what in told] == ["failure", "failure", "success"]


def test_who_may_not_end_one_is_not_asked_to(world: World) -> None:
    """An analyst looks on; a viewer sees no statements."""
    browser = world.visit("analyst")
    page = browser.get("/sessions")
    assert "End a session" not in page.text
    assert browser.post("/sessions", data={"csrf": token(page), "session": "x", "reason": "y"}).status_code == 403
    assert world.visit("viewer").get("/sessions").status_code == 403
    assert world.visit("viewer").get("/sessions/live").status_code == 403


def test_the_page_changes_by_itself(
    make_world: Callable[..., World], gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its feed gives what the page shows."""
    left = iter([False, True, True])
    world = make_world(stop=lambda: next(left), gateway=gateway.spool.folder.parent / "control")
    monkeypatch.setattr(app, "LIVE_S", 0.0)
    answer = world.visit("analyst").get("/sessions/live")
    assert answer.text.startswith("event: sessions\ndata: ")


def test_without_a_gateway_it_says_so(make_world: Callable[..., World], tmp_path: Path) -> None:
    """With where it was looked for."""
    answer = make_world(gateway=tmp_path).visit("analyst").get("/sessions")
    assert answer.status_code == 503
    assert "no gateway answers" in words(document(answer))
    assert control.sockets(tmp_path) == []
