"""A console on a lake of today in which a stranger has filled every field that a client can, and somebody to look."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import html5lib
import httpx2
import pytest
from starlette.testclient import TestClient

import detectors
from pgwitness.approvals.ledger import Ledger, Trust
from pgwitness.core.config import Config, Console, Reviewer
from pgwitness.core.config import Folder as PoliciesTable
from pgwitness.core.config import Lake as LakeTable
from pgwitness.core.config.serving import ConsoleOpenid
from pgwitness.core.errors import Unreachable
from pgwitness.core.units import Duration, Size
from sinks.console import users
from sinks.console.app import Context, application
from sinks.console.asking import Asker
from sinks.console.now import Seal
from sinks.console.openid import Provider
from sinks.console.reader import Reader
from sinks.console.witness import Feedback, Visitor
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder
from sinks.lake.writer import Lake
from tests.approvals import signing
from tests.sinks.material import ORDINARY, Finding, Judgement, change, other

PACK = Path(detectors.__path__[0]) / "pack"
HOSTILE = "</title></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}\u202e\x1b[2J"
PASSWORD = "correct horse battery"
ROLES = ("viewer", "analyst", "reviewer", "approver", "administrator")
SESSION = "db.example:5432/6ab13a80.1267"
DRAFTED = "b" * 32
"""An alert of which a policy can be drafted."""
CHANGED = {"kind": "change", "operation": "update"}
UID = "a664bb586bbac409c6617552edd76698"


@dataclass
class Records:
    """A witness that keeps what it is told, or is not to be reached."""

    told: list[tuple[str, Visitor, dict[str, object]]] = field(default_factory=list)
    broken: bool = False

    def record(self, operation: str, visitor: Visitor, what: Mapping[str, object]) -> None:
        if self.broken:
            raise Unreachable("the broker is away")
        self.told.append((operation, visitor, dict(what)))

    def asked(self, query: str, visitor: Visitor, outcome: str) -> None:
        self.record("query", visitor, {"query": query, "outcome": outcome})


def alert(uid: str, event_id: str, severity: int, text: str, **more: Any) -> Finding:
    """Make a finding whose every text is the same."""
    names = {1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical"}
    facts = {
        "principal": text, "principal_kind": "agent", "cluster": "shop", "detector": "policy:mass_change",
        "policy": text,
        "application": text, "client_addr": text, "relations": [text], "statement": text, "runbook": text,
        "certainty": "exact", "assurance": text, "query": f"SELECT '{text}'", "event_ids": [event_id],
        "reasons": [{"feature": "rows", "score": 0.93, "words": text}, {"feature": 1, "score": "x"}, text],
        "mode": "active", "finding_key": "k1", **more,
    }  # fmt: skip
    return Finding(
        uid,
        {
            "time": time.time_ns() // 10**6,
            "message": text,
            "severity_id": severity,
            "severity": names[severity],
            "status_id": 1,
            "status": "New",
            "count": 2,
            "is_alert": True,
            "activity_name": "Create",
            "finding_info": {"uid": uid, "title": text},
            "remediation": {"desc": text},
            "evidences": [{"actor": {"session": {"uid": SESSION}}}],
            "unmapped": facts,
        },
    )


STAGED = {"effect": "staged", "policies": [], "staged": ["drop_table", "mass_change"]}


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute ago: a changed row, a statement and a gap, with hostile names; an alert on the change, two others."""
    path = tmp_path_factory.mktemp("console") / "lake"
    now_us = time.time_ns() // 1000 - 60_000_000
    seen = {"occurred_at_us": now_us, "captured_at_us": now_us, "session_id": SESSION}
    who: dict[str, Any] = {"principal": HOSTILE, "role": HOSTILE, "application": HOSTILE, "client_addr": "203.0.113.9"}
    statement = {"kind": "statement", "operation": "delete", "relations": [HOSTILE], "statement": HOSTILE}
    events = [
        change(1, **seen, **who),
        change(2, [0, "u", 0, {"id": 1}, None, {"id": 1}, {"id": 1, "status": HOSTILE}], **seen, principal="maria"),
        other(3, **seen, **who, **statement, outcome="success", detail={"decision": STAGED}),
        other(4, kind="gap", operation="slot_lost", detail={"reason": HOSTILE}, **{**seen, "session_id": None}),
        other(5, kind="posture", cluster=HOSTILE, **seen),
    ]
    ids = [f"{number:032x}" for number in range(6)]
    verdicts = [
        Judgement(alerts=[alert(UID, ids[1], 4, HOSTILE, incident="i1")]),
        Judgement(alerts=[alert(DRAFTED, ids[2], 5, "Somebody dropped a table", incident="i1", **CHANGED)]),
        Judgement(alerts=[alert("c" * 32, ids[3], 2, "Staged only", mode="staged")]),
    ]
    writer = Lake(path).writer("events", 0)
    writer.resume()
    writer.append(0, events, verdicts + [ORDINARY] * (len(events) - len(verdicts)))
    writer.commit()
    return path


@pytest.fixture(scope="session")
def users_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user for each role, of the role's name."""
    path = tmp_path_factory.mktemp("users") / "users.json"
    key = hashlib.scrypt(PASSWORD.encode(), salt=b"salt", n=2, r=8, p=1, dklen=32)
    stored = f"scrypt$2$8$1${base64.b64encode(b'salt').decode()}${base64.b64encode(key).decode()}"  # no time is lost
    users.change(path, lambda _: {name: users.User(name=name, roles=[name], password=stored) for name in ROLES})
    return path


class Book:
    """Requests and what was decided on them, without a broker: what is appended is taken at once."""

    def __init__(self, trust: Trust = signing.TRUST) -> None:
        self.trust, self.ledger, self.appended = trust, Ledger(trust), 0

    def look(self, question: Callable[[Ledger], Any]) -> Any:
        return question(self.ledger)

    def append(self, request: str, value: bytes) -> None:
        self.appended += 1
        taken = self.ledger.take(value, self.appended, time.time_ns() // 1000)
        assert taken.refused is None, taken.refused


@dataclass
class World:
    """A console, what it wrote down, and a clock that a test may turn."""

    app: Any
    records: Records
    now_s: list[float]
    asker: Asker
    sent: list[tuple[str, bytes]]

    def browser(self, address: str = "192.0.2.7") -> TestClient:
        """Open a browser that nobody has logged in with."""
        return TestClient(self.app, base_url="http://127.0.0.1:8432", client=(address, 4711), follow_redirects=False)

    def visit(self, name: str) -> TestClient:
        """Open a browser and log in."""
        browser = self.browser()
        assert log_in(browser, name).status_code == 303
        return browser


@pytest.fixture(scope="session")
def asker(lake: Path) -> Iterator[Asker]:
    """A process for questions, with little memory and a second of time."""
    console = Console(query_timeout=Duration(1.0), query_memory=Size(64 * 1024**2), query_parallel=1, query_rows=3_000)
    made = Asker(Config(lake=LakeTable(path=lake), console=console, policies=PoliciesTable(path=PACK)))
    yield made
    made.close()


@pytest.fixture(scope="session")
def readers(lake: Path, asker: Asker) -> tuple[Reader, Asker]:
    """Connections to the lake, which take a second each to open."""
    store = Folder(lake, Files())
    return (
        Reader(store, connections=1, memory_limit="256MB", timeout_s=20),
        asker,
    )


@pytest.fixture(scope="session")
def make_world(readers: tuple[Reader, Asker], users_file: Path) -> Callable[..., World]:
    """Make a console with other settings."""

    def make(
        stop: Callable[[], bool] = lambda: False,
        reviewers: Mapping[str, Reviewer] | None = None,
        openid: ConsoleOpenid | None = None,
        reader: Reader | None = None,
        policies: Path = PACK,
        requests: Book | None = None,
        gateway: Path = Path("/nowhere"),
        link_key: bytes = b"",
        **settings: Any,
    ) -> World:
        records, now_s = Records(), [1_000.0]
        sent: list[tuple[str, bytes]] = []
        context = Context(
            config=Console(**({"users_file": users_file} | settings)),
            reader=reader or readers[0],
            asking=readers[1],
            users=users.Users(settings.get("users_file", users_file)),
            witness=records,
            seal=lambda: Seal(7, 9),
            policies=policies,
            requests=requests or Book(),
            gateway=gateway,
            link_key=link_key,
            feedback=Feedback(reviewers or {}, lambda uid, value: sent.append((uid, value))),
            provider=Provider(openid, lambda: now_s[0]) if openid is not None else None,
            clock=lambda: now_s[0],
            stop=stop,
        )
        return World(application(context), records, now_s, readers[1], sent)

    return make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A console as it is by default."""
    return make_world()


def token(page: httpx2.Response) -> str:
    """Find the token of a page's forms."""
    found = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert found is not None
    return found[1]


def log_in(browser: TestClient, name: str, password: str = PASSWORD, after: str = "/") -> httpx2.Response:
    """Fill in the form."""
    form = {"csrf": token(browser.get("/login")), "name": name, "password": password, "next": after}
    return browser.post("/login", data=form)


def document(page: httpx2.Response) -> Any:
    """Parse a page as a browser does, and hold it against the standard of HTML."""
    parser = html5lib.HTMLParser(html5lib.getTreeBuilder("etree"), namespaceHTMLElements=False)
    tree = parser.parse(page.text)
    assert parser.errors == [], [(fault, page.text.splitlines()[fault[0][0] - 1]) for fault in parser.errors]
    return tree
