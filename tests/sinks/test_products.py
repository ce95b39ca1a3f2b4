"""The page on SIEMs, pagers and chats is run: each block, against a receiver that checks what is documented."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import threading
import tomllib
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from pgwitness.core.config import Delivery, load
from pgwitness.core.contracts.alert_target import NotTaken, Refused
from pgwitness.core.errors import ConfigurationError
from sinks.deliveries import products, routing, targets
from tests.sinks.test_deliveries import ALERT, HOSTILE, item, send

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "send-to-a-siem.md"
BLOCKS = {
    name: (block, tomllib.loads(block)["deliveries"][name])
    for block in re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for name in tomllib.loads(block)["deliveries"]
}
SECRET = "c2VjcmV0OnNlY3JldA=="
Answer = tuple[int, dict[str, Any]]
Request = tuple[str, str, dict[str, str], bytes]


def splunk(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
    """As its HTTP Event Collector, with indexer acknowledgement on: a channel is wanted, and events with their time."""
    if headers.get("authorization") != f"Splunk {SECRET}":
        return 403, {"text": "Invalid token", "code": 4}
    if "x-splunk-request-channel" not in headers:
        return 400, {"text": "Data channel is missing", "code": 10}
    uuid.UUID(headers["x-splunk-request-channel"])
    event = json.loads(body)
    assert (method, path) == ("POST", "/services/collector/event")
    assert event.keys() <= {"time", "host", "source", "sourcetype", "index", "fields", "event"}
    assert isinstance(event["time"], float)
    assert event["event"].keys() & {"finding_info", "worst"}
    return 200, {"text": "Success", "code": 0, "ackId": 0}


def documents(scheme: str, index: str) -> Callable[..., Answer]:
    """As a data stream: a document of an id is created once, and has its time."""
    known: set[str] = set()

    def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if headers.get("authorization") != f"{scheme} {SECRET}":
            return 401, {"error": {"type": "security_exception"}, "status": 401}
        found = re.fullmatch(rf"/{re.escape(index)}/_create/([^/?]+)", path)
        assert found is not None, path
        assert method in ("PUT", "POST")
        assert len(found[1].encode()) <= 512
        document = json.loads(body)
        assert datetime.fromisoformat(document["@timestamp"]).tzinfo is not None
        assert document["event"]["id"] == unquote(found[1])
        if found[1] in known:
            return 409, {"error": {"type": "version_conflict_engine_exception"}, "status": 409}
        known.add(found[1])
        return 201, {"result": "created"}

    return answer


def datadog(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
    """As its log intake: at most a thousand logs and 5 MB, a key of its own header."""
    if headers.get("dd-api-key") != SECRET:
        return 403, {"errors": [{"title": "Forbidden", "status": "403"}]}
    logs = json.loads(body)
    assert (method, path, headers["content-type"]) == ("POST", "/api/v2/logs", "application/json")
    assert len(logs) <= 1_000
    assert len(body) <= 5_000_000
    for log in logs:
        assert isinstance(log["message"], str)
        assert all(re.fullmatch(r"[a-z]+:[\w\-./]+", tag) for tag in log.get("ddtags", "a:b").split(","))
    return 202, {}


def pagerduty(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
    """As its Events API v2: 512 KB, what is required, and how long and of which values it may be."""
    event = json.loads(body)
    assert (method, path, headers["content-type"]) == ("POST", "/v2/enqueue", "application/json")
    if event["routing_key"] != SECRET:
        return 400, {"status": "invalid event", "errors": ["'routing_key' is invalid"]}
    assert len(body) <= 512 * 1024
    assert event["event_action"] in ("trigger", "resolve")
    assert 0 < len(event["dedup_key"]) <= 255
    assert 0 < len(event["payload"]["summary"]) <= 1024
    assert event["payload"]["source"]
    assert event["payload"]["severity"] in ("critical", "error", "warning", "info")
    datetime.fromisoformat(event["payload"]["timestamp"])
    return 202, {"status": "success", "dedup_key": event["dedup_key"]}


def slack(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
    """As an incoming webhook: a text, and blocks of known types with texts of at most 3,000 characters."""
    message = json.loads(body)
    assert (method, headers["content-type"], bool(message["text"])) == ("POST", "application/json", True)
    for block in (block for one in message["attachments"] for block in one["blocks"]):
        assert block["type"] in ("section", "context")
        for text in [block["text"]] if block["type"] == "section" else block["elements"]:
            assert text["type"] == "plain_text"
            assert 0 < len(text["text"]) <= 3_000
    return 200, {}


def teams(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
    """As a workflow's webhook: a message of at most 28 KB with one Adaptive Card, whose runs of text have no markup."""
    message = json.loads(body)
    assert (method, headers["content-type"], message["type"]) == ("POST", "application/json", "message")
    assert len(body) <= 28 * 1024
    (attachment,) = message["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert {block["type"] for block in card["body"]} == {"RichTextBlock"}
    assert all(run["type"] == "TextRun" and run["text"] for block in card["body"] for run in block["inlines"])
    return 202, {}


def panther(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
    """As a source that is authenticated by a bearer's header."""
    if headers.get("authorization") != SECRET:
        return 401, {}
    assert json.loads(body)["data"].keys() & {"finding_info", "worst"}
    return 200, {}


RECEIVERS: dict[str, Callable[..., Answer]] = {
    "splunk": splunk,
    "elastic": documents("ApiKey", "logs-pgwitness.alerts-default"),
    "opensearch": documents("Basic", "pgwitness-alerts"),
    "datadog": datadog,
    "pager": pagerduty,
    "slack": slack,
    "teams": teams,
    "panther": panther,
}
KEYED = ["splunk", "elastic", "opensearch", "datadog", "pager", "panther"]


@contextmanager
def receiving(answer: Callable[..., Answer], *first: int) -> Iterator[tuple[str, list[Request], list[str]]]:
    """Serve a receiver, which gives these answers first; gives its address, what it got, and what was wrong with it."""
    got: list[Request] = []
    wrong: list[str] = []
    answers = list(first)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            got.append((self.command, self.path, headers, body))
            status, said = 500, {}
            try:
                status, said = (answers.pop(0), {}) if answers else answer(*got[-1])
            except Exception as error:
                wrong.append(f"{type(error).__name__}: {error}")
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            if status == 429:
                self.send_header("retry-after", "7")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got, wrong
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def configured(name: str, folder: Path, base: str, secret: str = SECRET) -> Delivery:
    """Load a block of the page as it stands, but for the receiver's host; its files are written beside it."""
    block, table = BLOCKS[name]
    block = re.sub(r'url = "https://[^/"]+', f'url = "{base}', block)
    for key in ("secret_file", "authorization_file"):
        if key in table:
            (folder / table[key]).write_text(f"{secret}\n")
    if "url_file" in table:
        (folder / table["url_file"]).write_text(f"{base}/T0/B0/secret\n")
    (folder / "pgwitness.toml").write_text(f'[kafka]\nbootstrap = "localhost:1"\n{block}')
    return load(folder / "pgwitness.toml", {}).deliveries[name]


def test_every_block_of_the_page_is_one_of_these() -> None:
    """A product that the page shows has a receiver; syslog has tests of its own."""
    assert BLOCKS.keys() == RECEIVERS.keys() | {"sentinel"}
    assert BLOCKS["sentinel"][1]["kind"] == "syslog"
    assert {table["kind"] for _, table in BLOCKS.values()} >= targets.TARGETS.keys() - {"file"}


@pytest.mark.parametrize("name", RECEIVERS)
def test_what_the_page_shows_is_taken(name: str, tmp_path: Path) -> None:
    """An alert, its update, its end, a hostile one, a long one, a summary; and one a second time."""
    held = routing.Held(0.0)
    long = "\U0001f600" * 100_000
    for _ in range(12):
        held.add(item(message=long))
    items = [
        item(),
        item(activity_id=2, count=2, metadata={**ALERT["metadata"], "uid": "second/../?&#"}),
        item(activity_id=3, count=2, metadata={**ALERT["metadata"], "uid": "third"}),
        item(message=HOSTILE, metadata={**ALERT["metadata"], "uid": "fourth"}),
        item(
            message=long, finding_info={"title": long, "uid": "x" * 900}, metadata={**ALERT["metadata"], "uid": "fifth"}
        ),
        item(),
        held.summary(),
    ]
    with receiving(RECEIVERS[name]) as (base, got, wrong):
        send(targets.make(name, configured(name, tmp_path, base)), *items)
    assert wrong == []
    assert len(got) == len(items)
    assert name != "slack" or "<!channel>" not in json.loads(got[3][3])["text"]


@pytest.mark.parametrize("name", KEYED)
def test_a_wrong_key_is_refused_and_in_no_words(name: str, tmp_path: Path) -> None:
    """The alert is set aside at once; the reason has the status, and nothing of the key."""
    with receiving(RECEIVERS[name]) as (base, _, wrong):
        settings = configured(name, tmp_path, base, secret="another")
        with pytest.raises(Refused, match=r"HTTP 40[013]") as raised:
            send(targets.make(name, settings), item())
    assert wrong == []
    assert "another" not in str(raised.value)


@pytest.mark.parametrize("name", RECEIVERS)
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_product_is_asked_again(name: str, status: int, tmp_path: Path) -> None:
    """It has not taken it, says when to come again, and takes it then."""
    with receiving(RECEIVERS[name], status) as (base, _, wrong):
        settings = configured(name, tmp_path, base)
        with pytest.raises(NotTaken) as raised:
            send(targets.make(name, settings), item(metadata={**ALERT["metadata"], "uid": f"busy-{status}"}))
        send(targets.make(name, settings), item(metadata={**ALERT["metadata"], "uid": f"busy-{status}"}))
    assert raised.value.after_s == (7.0 if status == 429 else 0.0)
    assert wrong == []


@pytest.mark.parametrize("name", [name for name in KEYED if name != "panther"])
def test_a_product_without_its_key_is_named(name: str) -> None:
    """The error names the setting."""
    kind = BLOCKS[name][1]["kind"]
    with pytest.raises(ConfigurationError, match=rf"deliveries\.x\.secret_file: {kind}"):
        targets.make("x", Delivery(kind=kind, url="https://x.example"))


def test_pagerduty_gets_one_alert_a_finding() -> None:
    """Updates have the key of the first, and the end resolves it."""
    events = [json.loads(products.pagerduty(item(activity_id=number), "k")) for number in (1, 2, 3)]
    assert [event["event_action"] for event in events] == ["trigger", "trigger", "resolve"]
    assert {event["dedup_key"] for event in events} == {ALERT["finding_info"]["uid"]}


def test_the_pages_command_makes_what_opensearch_is_sent(tmp_path: Path) -> None:
    """Its base64 is that of user and password."""
    (command,) = re.findall(r"^printf .*$", PAGE.read_text(), re.MULTILINE)
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert base64.b64decode((tmp_path / "opensearch.key").read_text()) == b"pgwitness:the-password"
    assert (tmp_path / "opensearch.key").stat().st_mode & 0o077 == 0
