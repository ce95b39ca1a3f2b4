"""Deliveries: what is sent where, how it is written, and targets on servers of the standard library."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import resource
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from detectors.alerts.verdicts import public_text
from pgwitness.approvals import records as approval_records
from pgwitness.approvals.records import Estimate
from pgwitness.core.config import Approvals, Config, Delivery, Respond, RespondCluster
from pgwitness.core.contracts.alert_target import AlertTarget, NotTaken, Refused
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.units import Duration
from pgwitness.core.webhooks import signed
from sinks.deliveries import render, requests, routing, targets
from sinks.deliveries.respond import Act, answered, decide
from sinks.deliveries.routing import Held, Item, Limit
from tests.approvals import signing
from tests.detectors.test_alert import GOLDEN, conforms

ALERT: dict[str, Any] = json.loads(GOLDEN.read_text())
FILE = Delivery(kind="file", path=Path("x"))


def item(**changes: Any) -> Item:
    """The golden alert as a delivery."""
    read = routing.read(json.dumps(ALERT | changes).encode())
    assert read is not None
    return read


HOSTILE = '</b>*x* <!channel> "]\\ \n\r<1> & {}\u202e'


# -- what is sent ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "alert", "expected"),
    [
        ({}, {}, True),
        ({"severity": "critical"}, {}, False),
        ({"severity": "high"}, {}, True),
        ({"clusters": ["sh*"]}, {}, True),
        ({"clusters": ["billing"]}, {}, False),
        ({"policies": ["mass_*", "x"]}, {}, True),
        ({"policies": ["drop_*"]}, {}, False),
        ({"closed": False}, {"activity_id": 3}, False),
        ({}, {"activity_id": 3}, True),
        ({}, {"unmapped": {"mode": "staged"}}, False),
        ({"staged": True}, {"unmapped": {"mode": "staged"}}, True),
        ({"policies": ["digest"]}, {"unmapped": {"detector": "digest"}}, True),
    ],
)
def test_filters(settings: dict[str, Any], alert: dict[str, Any], expected: bool) -> None:
    """Severity, cluster, policy, staged and closed; all of them must let it through."""
    assert routing.wanted(item(**alert), replace(FILE, **settings)) is expected


@pytest.mark.parametrize("value", [None, b"", b"[]", b"\xff", b"{}", b'{"metadata":{"uid":5}}', b'{"metadata":5}'])
def test_what_is_no_alert_is_none(value: bytes | None) -> None:
    """Reading is total."""
    assert routing.read(value) is None


def test_an_alert_of_nonsense_is_still_written() -> None:
    """Every part of the wrong type is taken as absent, in every form."""
    odd = routing.read(
        b'{"metadata":{"uid":"u"},"time":"x","severity_id":[],"finding_info":3,"unmapped":[],"count":{}}'
    )
    assert odd is not None
    for written in (render.body(odd), render.slack(odd), render.syslog(odd, "h", "text"), render.line(odd)):
        assert written


def test_the_limit_lets_a_burst_through_and_fills_up_again() -> None:
    """Sixty a minute are sixty at once, then one a second."""
    limit = Limit(60, 0.0)
    assert [limit.take(0.0) for _ in range(61)] == [True] * 60 + [False]
    assert [limit.take(1.0), limit.take(1.0), limit.take(0.5), limit.take(2.0)] == [True, False, False, True]


def test_a_burst_is_never_larger_than_a_minutes_worth() -> None:
    """A quiet week saves nothing up; a clock that goes back takes nothing away, and a rate below one is one."""
    limit = Limit(3, 0.0)
    assert [limit.take(604_800.0) for _ in range(4)] == [True, True, True, False]
    assert [limit.take(604_700.0), limit.take(604_719.9), limit.take(604_720.0)] == [False, False, True]
    assert [Limit(0, 0.0).take(0.0), Limit(-5, 0.0).take(0.0)] == [True, True]


def test_nothing_held_back_is_never_due() -> None:
    """A summary is of something; it comes a minute after the first that was held back, with the latest time."""
    held = Held(0.0)
    assert not held.due(1e9)
    for time_ms, severity_id in ((7, 2), (9, 4), (8, 3)):
        held.add(item(time=time_ms, severity_id=severity_id))
    summary = held.summary()
    assert (summary.time_ms, summary.severity_id, summary.data["held_back"]) == (9, 4, 3)


def test_a_summary_tells_what_was_held_back_and_has_a_name_of_its_own() -> None:
    """All are counted, the worst are shown, and the same alerts make the same summary."""
    held = [Held(0.0), Held(5.0)]
    for each in held:
        for number in range(30):
            each.add(item(metadata={"uid": f"u{number}"}, severity_id=5 if number == 20 else 2))
    summary = held[0].summary()
    assert summary == held[1].summary()
    assert (summary.uid, summary.severity_id) == ("summary-u0-u29", 5)
    assert summary.data["by_severity"] == {"Critical": 1, "Low": 29}
    assert len(summary.data["worst"]) == 10
    assert summary.data["worst"][0]["uid"] == "u20"
    assert (held[0].due(59.9), held[0].due(60.0)) == (False, True)
    for written in (render.slack(summary), render.body(summary), render.line(summary)):
        assert b"30 more alerts" in written or json.loads(written)["data"]["held_back"] == 30


# -- how it is written -------------------------------------------------------------------------------------------


def test_a_webhook_is_signed_as_standard_webhooks_says() -> None:
    """The receiver can check id, time and body with the shared secret, by the standard's own rule."""
    body = render.body(item())
    (signature,) = signed(body, "uid-1", 1_700_000_000, b"secret").values()
    expected = hmac.new(b"secret", b"uid-1.1700000000." + body, hashlib.sha256).digest()
    assert signature == "v1," + base64.b64encode(expected).decode()
    told = json.loads(body)
    assert (told["type"], told["data"], told["id"]) == ("alert", ALERT, ALERT["metadata"]["uid"])


def asked_for(**more: Any) -> Any:
    """What is delivered of a request for approval, and what reads it."""
    config = Config(
        approvals=Approvals(
            gateways=[public_text(signing.GATEWAY.public_key())],
            console_url="https://console.example",
            link_key_file=more.pop("file"),
        )
    )
    return requests.reader(config, "chat"), signing.request(**more)


def texts(node: Any, found: list[str]) -> list[str]:
    """All values of a message under `text`, but for those of its own structure."""
    if isinstance(node, list):
        for each in node:
            texts(each, found)
    elif isinstance(node, dict):
        if node.get("type") in ("plain_text", "TextRun"):
            found.append(node["text"])
        else:
            for name, each in node.items():
                assert not (name == "text" and isinstance(each, str) and HOSTILE[:20] in each)
                texts(each, found)
    return found


def test_a_request_for_approval_is_told_with_a_link(tmp_path: Path) -> None:
    """In Block Kit and as an Adaptive Card, what its asker chose as plain text; only what a gateway signed is told."""
    file = tmp_path / "link.key"
    file.write_bytes(b"k" * 32)
    file.chmod(0o600)
    odd = HOSTILE + " <!channel> *bold* [x](https://evil.example) \x1b[2J \u202e"
    hostile = dict.fromkeys(("principal", "on_behalf_of", "statement", "intent", "message", "database"), odd)
    read, request = asked_for(file=file, **hostile, relations=[odd], estimate=Estimate(counted=4, more=True))
    now_us = request.at_us + 1
    found = read(approval_records.sign(request, signing.GATEWAY), now_us)
    assert found is not None
    assert found.data["link"].startswith("https://console.example/approvals/r1/from/")
    slack = json.loads(render.slack(found))
    teams = json.loads(render.teams(found))
    card = teams["attachments"][0]["content"]
    assert slack["blocks"][-2]["elements"][0]["url"] == found.data["link"] == card["actions"][0]["url"]
    assert "*" not in slack["text"]
    assert "<" not in slack["text"]
    for message in (slack, card):
        said = texts(message, [])
        assert any("more than 4 counted; more than 10 are undone" in text for text in said)
        assert any("<!channel> *bold*" in text for text in said)
        assert not any("\x1b" in text or "\u202e" in text for text in said)
        assert not any(len(text) > 3_000 for text in said)
    assert json.loads(render.body(found))["data"]["request"]["request"] == "r1"
    decided = approval_records.sign(signing.decision(of=request), signing.KEYS["ada"])
    forged = approval_records.sign(request, signing.STRANGER)
    assert [read(value, now_us) for value in (decided, forged, b"{}", None)] == [None] * 4
    assert read(approval_records.sign(request, signing.GATEWAY), request.expires_us) is None
    with pytest.raises(ConfigurationError, match="link_key_file"):
        asked_for(file=None)


def test_slack_shows_text_and_never_markup() -> None:
    """What a client put into a name stays a name: blocks are plain text, the fallback is escaped."""
    message = json.loads(render.slack(item(message=HOSTILE)))
    assert "<!channel>" not in message["text"]
    assert "&lt;!channel&gt;" in message["text"]
    (attachment,) = message["attachments"]
    texts = [block.get("text") or block["elements"][0] for block in attachment["blocks"]]
    assert {text["type"] for text in texts} == {"plain_text"}
    assert "Policy: mass_change" in texts[1]["text"]
    assert len(json.loads(render.slack(item(message="x" * 50_000)))["text"]) < 3_000


def test_syslog_is_rfc_5424_whatever_is_in_it() -> None:
    """Priority, time, structured data that nobody can break out of, and the alert as JSON or as a sentence."""
    message = render.syslog(item(), "db host", "json")
    head, _, body = message.partition(b"\xef\xbb\xbf")
    assert head.startswith(b"<107>1 2026-09-21T14:13:40.040Z dbhost pgwitness - alert [alert@32473 uid=")
    assert b'policy="mass_change" principal="support-agent" cluster="shop"' in head
    assert json.loads(body) == ALERT
    hostile = render.syslog(item(unmapped={"principal": HOSTILE}, message=HOSTILE), "h", "text")
    assert b"\n" not in hostile
    assert rb'principal="</b>*x* <!channel> \"\]\\  ' in hostile
    short = render.syslog(item(message="é" * 5_000), "h", "json", 2_000)
    assert len(short) in (1_999, 2_000)
    assert short.decode().endswith("é")


# -- where it goes -----------------------------------------------------------------------------------------------


class _Hooks(BaseHTTPRequestHandler):
    """Answers with what the test asks for, and keeps what came."""

    answers: list[tuple[int, dict[str, str]]]
    got: list[tuple[dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.got.append((dict(self.headers.items()), body))
        status, headers = self.answers.pop(0) if self.answers else (200, {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name the base class has
        """Keep quiet."""


@contextmanager
def hooks(*answers: int | tuple[int, dict[str, str]]) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """A web server that gives these answers and then 200; gives its address and what it got."""
    got: list[tuple[dict[str, str], bytes]] = []
    given = [(answer, {}) if isinstance(answer, int) else answer for answer in answers]
    handler = type("Hooks", (_Hooks,), {"answers": given, "got": got})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def send(target: AlertTarget[Any], *items: Item) -> None:
    """Send some, then let go."""

    async def all_of_them() -> None:
        try:
            for each in items:
                await target.send(each)
        finally:
            await target.close()

    asyncio.run(all_of_them())


def test_a_webhook_posts_signed_json(tmp_path: Path) -> None:
    """The body, its name and its signature arrive; the secret is read from its file."""
    (tmp_path / "secret").write_text("s3cret\n")
    with hooks() as (url, got):
        (tmp_path / "url").write_text(url + "\n")
        settings = Delivery(kind="webhook", url_file=tmp_path / "url", secret_file=tmp_path / "secret")
        send(targets.make("soc", settings), item(), item())
    (headers, body), again = got
    lower = {name.lower(): value for name, value in headers.items()}
    expected = signed(body, lower["webhook-id"], int(lower["webhook-timestamp"]), b"s3cret")
    assert lower["webhook-signature"] == expected["webhook-signature"]
    assert lower["webhook-id"] == ALERT["metadata"]["uid"]
    assert again[1] == body


@pytest.mark.parametrize(
    ("answer", "kind", "after_s"),
    [
        (500, NotTaken, 0.0),
        (408, NotTaken, 0.0),
        ((429, {"retry-after": "7"}), NotTaken, 7.0),
        ((503, {"retry-after": "99999"}), NotTaken, 300.0),
        (400, Refused, None),
        (404, Refused, None),
        ((302, {"location": "http://127.0.0.1:1/"}), Refused, None),
    ],
)
def test_a_webhooks_answers(answer: Any, kind: type[Exception], after_s: float | None) -> None:
    """What may pass is tried again, when the server asks for it; what will not is refused, redirects too."""
    with hooks(answer) as (url, _), pytest.raises(kind) as raised:
        send(targets.make("soc", Delivery(kind="webhook", url=url)), item())
    assert getattr(raised.value, "after_s", None) == after_s


def test_an_address_that_is_a_secret_stays_one() -> None:
    """A server that is gone is an error without the URL in it."""
    with pytest.raises(NotTaken) as raised:
        send(targets.make("chat", Delivery(kind="slack", url="http://127.0.0.1:9/T0/SECRET")), item())
    assert "SECRET" not in str(raised.value)


@contextmanager
def syslog_server(context: ssl.SSLContext | None = None, hang_up_after: int = 0) -> Iterator[tuple[str, list[bytes]]]:
    """A server that takes octet-counted messages, and hangs up after so many; gives its address and what came."""
    got: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            try:
                while digits := self._digits():
                    got.append(self.rfile.read(int(digits)))
                    if len(got) == hang_up_after:
                        return
            except OSError:
                return

        def _digits(self) -> bytes:
            digits = b""
            while (one := self.rfile.read(1)) not in (b" ", b""):
                digits += one
            return digits

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

        def get_request(self) -> tuple[Any, Any]:
            connection, address = super().get_request()
            return (context.wrap_socket(connection, server_side=True) if context else connection), address

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def wait_for(got: list[Any], number: int) -> None:
    """Wait until so many came."""
    deadline = threading.Event()
    for _ in range(1_000):
        if len(got) >= number:
            return
        deadline.wait(0.01)
    pytest.fail(f"{len(got)} of {number} came within 10 s")


def test_syslog_over_tcp_keeps_its_connection_and_finds_it_gone() -> None:
    """Messages are framed by their length; after the server hung up the next one goes over a new connection."""
    with syslog_server(hang_up_after=2) as (address, got):
        target = targets.make("siem", Delivery(kind="syslog", address=address, transport="tcp", format="text"))

        async def talk() -> None:
            await target.send(item())
            await target.send(item())
            await asyncio.to_thread(wait_for, got, 2)
            stream = target._stream  # type: ignore[attr-defined]
            assert await asyncio.wait_for(stream[0].read(), 10) == b""
            await target.send(item())
            await asyncio.to_thread(wait_for, got, 3)
            await target.close()

        asyncio.run(talk())
    assert got[0] == got[1] == got[2]
    assert got[0].startswith(b"<107>1 ")


def test_syslog_over_tls_knows_its_server(tmp_path: Path) -> None:
    """The server's certificate is checked against the authority that is configured; another one is not spoken to."""
    authority, chain = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    with syslog_server(context) as (address, got):
        settings = Delivery(kind="syslog", address=address, ca_file=authority, timeout=Duration(5.0))
        send(targets.make("siem", settings), item())
        wait_for(got, 1)
        with pytest.raises(NotTaken):
            send(targets.make("siem", replace(settings, ca_file=None)), item())
    assert json.loads(got[0].partition(b"\xef\xbb\xbf")[2]) == ALERT
    assert len(got) == 1


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 that is its own authority."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "siem")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, None)
    )
    authority, chain = folder / "ca.pem", folder / "chain.pem"
    authority.write_bytes(made.public_bytes(Encoding.PEM))
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain.write_bytes(secret + made.public_bytes(Encoding.PEM))
    return authority, chain


def test_syslog_over_udp_is_one_datagram() -> None:
    """Short enough to arrive whole; JSON that would not fit becomes its sentence."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        send(targets.make("siem", Delivery(kind="syslog", address=address, transport="udp")), item())
        message = server.recv(65_536)
    assert len(message) <= render.UDP_BYTES_MAX
    assert b"Many rows changed in one transaction: The AI agent support-agent (for maria) deleted 412 rows" in message


def test_a_file_survives_rotation(tmp_path: Path) -> None:
    """Each alert is a line; a file that was moved away is made anew under its name."""
    path = tmp_path / "alerts.jsonl"
    target = targets.make("archive", Delivery(kind="file", path=path))

    async def rotate() -> None:
        await target.send(item(count=1))
        path.rename(tmp_path / "alerts.1")
        await target.send(item(count=2))
        path.unlink()
        await target.send(item(count=3))
        await target.send(item(count=4))
        await target.close()

    asyncio.run(rotate())
    assert [json.loads(line)["count"] for line in path.read_text().splitlines()] == [3, 4]
    assert json.loads((tmp_path / "alerts.1").read_text())["count"] == 1
    with pytest.raises(NotTaken, match="alerts"):
        send(targets.make("archive", Delivery(kind="file", path=tmp_path / "none" / "alerts")), item())


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """What it took of a line is cut off again; a line of which a killed daemon left half does not spoil the next."""
    path = tmp_path / "alerts.jsonl"
    path.write_text('{"half": ')
    target = targets.make("archive", Delivery(kind="file", path=path))
    send(target, item(count=1))
    size, limits = path.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
    try:
        with pytest.raises(NotTaken, match="alerts"):
            send(target, item(count=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.stat().st_size == size
    send(target, item(count=3))
    assert [json.loads(line)["count"] for line in path.read_text().splitlines()[1:]] == [1, 3]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (Delivery(kind="webhook"), "url"),
        (Delivery(kind="webhook", url="ftp://x"), "url"),
        (Delivery(kind="slack", url_file=Path("/nowhere")), "url_file"),
        (Delivery(kind="webhook", url="http://x", secret_file=Path("/dev/null")), "empty"),
        (Delivery(kind="syslog"), "address"),
        (Delivery(kind="syslog", address="host"), "address"),
        (Delivery(kind="syslog", address="h:1", ca_file=Path("/nowhere")), "ca_file"),
        (Delivery(kind="file"), "path"),
        (Delivery(kind="file", path=Path("x"), tries=0), "tries"),
        (Delivery(kind="file", path=Path("x"), rate=0), "rate"),
    ],
)
def test_a_target_that_cannot_work_says_what_is_missing(settings: Delivery, problem: str) -> None:
    """At the start, naming the target and the key."""
    with pytest.raises(ConfigurationError, match=rf"deliveries\.soc.*{problem}"):
        targets.make("soc", settings)


# -- the responder's decision ------------------------------------------------------------------------------------

NOW_MS = ALERT["time"] + 1_000
RESPOND = Respond(enabled=True, clusters={"shop": RespondCluster(dsn="postgresql://x")})
OURS = ALERT["unmapped"] | {"respond": "terminate"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Act("terminate", "shop", 4_711, 0x6AB13A80, "shop_app")),
        ({"respond": "cancel"}, Act("cancel", "shop", 4_711, 0x6AB13A80, "shop_app")),
        ({"respond": None}, None),
        ({"respond": "shoot"}, "unknown_response"),
        ({"certainty": "weak"}, "not_certain"),
        ({"pid": None}, "no_backend"),
        ({"session_start": None}, "no_backend"),
        ({"cluster": "billing"}, "cluster_not_configured"),
        ({"response": {"outcome": "done"}}, None),
    ],
)
def test_the_responder_acts_only_on_what_is_certain(changes: dict[str, Any], expected: object) -> None:
    """Anything less than a known session of a configured cluster is left alone, and said."""
    assert decide(item(unmapped=OURS | changes), RESPOND, NOW_MS) == expected


def test_the_responder_leaves_old_quiet_and_closed_alerts_alone() -> None:
    """A replay of the topic, a staged policy or a Close ends nobody."""
    assert decide(item(unmapped=OURS), RESPOND, ALERT["time"] + 31_000) == "too_old"
    assert decide(item(unmapped=OURS), RESPOND, ALERT["time"] - 60_000) == "too_old"
    assert decide(item(unmapped=OURS, is_alert=False), RESPOND, NOW_MS) == "no_alarm"
    assert decide(item(unmapped=OURS, activity_id=3), RESPOND, NOW_MS) is None


def test_an_alert_that_was_answered_is_valid_and_asks_for_nothing_more() -> None:
    """The update says what was done, fits the standard, and is not acted on again."""
    act = Act("terminate", "shop", 4_711, 1, "shop_app")
    told = answered(ALERT | {"unmapped": OURS}, act, "done", NOW_MS)
    assert conforms(told)
    assert (told["status"], told["comment"]) == ("In Progress", "Backend 4711 was ended.")
    again = routing.read(json.dumps(told).encode())
    assert again is not None
    assert decide(again, RESPOND, NOW_MS) is None
