"""The wire: any division into reads gives the same messages, and any bytes give messages or a sentence."""

from __future__ import annotations

import hashlib
import hmac
import itertools
from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.gateway.auth.scram import PLAIN, PLUS, ClientExchange, Keys, ScramError, ServerExchange, Verifier
from collectors.gateway.session.actions import Moment
from collectors.gateway.session.coming import Coming
from collectors.gateway.session.sent import Sent
from collectors.gateway.session.session import Session
from collectors.gateway.spool.records import Begun, Ended, Said
from collectors.gateway.wire import backend, frontend, startup
from collectors.gateway.wire.frames import Frames, Message, Piece, frame, joined
from collectors.gateway.wire.violation import ProtocolViolation
from tests.gateway.passing import judged

FRONTEND = st.sampled_from([bytes((kind,)) for kind in frontend.WANTED.known])
STREAM = st.lists(st.tuples(FRONTEND, st.binary(max_size=40)), max_size=12)
CUTS = st.lists(st.integers(0, 400), max_size=12)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Divide bytes at some places."""
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def messages(pieces: list[Piece]) -> list[tuple[int, bytes]]:
    """What was cut out."""
    return [(piece.type, piece.frame) for piece in pieces if isinstance(piece, Message)]


@given(STREAM, CUTS)
def test_any_division_gives_the_same(stream: list[tuple[bytes, bytes]], places: list[int]) -> None:
    """However a stream is read, the same messages come out, and nothing is lost, added or moved."""
    data = b"".join(frame(kind, body) for kind, body in stream)
    whole = Frames(frontend.WANTED, "frontend").feed(data)
    walker = Frames(frontend.WANTED, "frontend")
    parts = [piece for read in cut(data, places) for piece in walker.feed(read)]
    assert joined(parts) == joined(whole) == data
    assert messages(parts) == messages(whole)
    wanted = frontend.WANTED.whole.keys() | frontend.WANTED.heads.keys()
    assert [kind for kind, _ in messages(whole)] == [kind[0] for kind, _ in stream if kind[0] in wanted]
    assert walker.between


def walked(walker: Frames, reads: list[bytes]) -> str | None:
    """Walk over what was read; the SQLSTATE of the violation that ended it."""
    try:
        for read in reads:
            walker.feed(read)
    except ProtocolViolation as error:
        return error.sqlstate
    return None


@given(st.binary(max_size=200), CUTS)
def test_any_bytes_give_messages_or_a_sentence(data: bytes, places: list[int]) -> None:
    """Bytes that are no messages are a violation with an SQLSTATE, whichever side they come from."""
    for wanted in (frontend.WANTED, backend.WANTED):
        assert walked(Frames(wanted, "frontend"), cut(data, places)) in (None, "08P01", "54000")


@given(st.binary(max_size=200))
def test_startup_is_total(body: bytes) -> None:
    """Whatever a client begins with is a request or a violation."""
    packet = (len(body) + 4).to_bytes(4, "big") + body
    try:
        request = startup.decode(packet)
    except ProtocolViolation:
        return
    if isinstance(request, startup.Startup):
        assert request.parameters["user"]


@given(st.dictionaries(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1), st.text("xyz")))
def test_startup_comes_back(parameters: dict[str, str]) -> None:
    """What is written is read again, but for the options of the protocol itself."""
    asked = {"user": "ada", **{name: value for name, value in parameters.items() if name != "user"}}
    request = startup.decode(startup.startup_packet(asked, 2))
    assert isinstance(request, startup.Startup)
    assert request.minor == 2
    assert request.parameters == {name: value for name, value in asked.items() if not name.startswith("_pq_.")}


def test_cancel_keys_of_both_lengths() -> None:
    """Keys to cancel by have four bytes, or thirty-two."""
    for secret in (b"k" * 4, b"k" * 32):
        assert startup.decode(startup.cancel_request(7, secret)) == startup.CancelRequest(7, secret)


def test_a_long_statement_is_refused() -> None:
    """A message that is longer than the gateway takes is a violation before it is read."""
    with pytest.raises(ProtocolViolation) as raised:
        Frames(frontend.WANTED, "frontend").feed(b"Q" + (frontend.TEXT_BYTES_MAX + 5).to_bytes(4, "big"))
    assert raised.value.sqlstate == "54000"


# -- the session ---------------------------------------------------------------------------------------------------

NOW = Moment(1_000, 1_000)
MESSAGES = [
    frame(b"Q", b"SELECT 1\0"), frame(b"P", b"s\0SELECT 2\0\0\0"), frame(b"P", b"\0SELECT 3\0\0\0"), frame(b"S"),
    frame(b"B", b"\0s\0\0\0\0\0\0\0"), frame(b"E", b"\0\0\0\0\0"), frame(b"D", b"P\0"), frame(b"C", b"Ss\0"),
    frame(b"H"), frame(b"c"), frame(b"d", b"x"), frame(b"F", b"\0\0\0\1" + b"\0" * 6),
]  # fmt: skip
ANSWERS = [
    frame(b"1"), frame(b"2"), frame(b"3"), frame(b"C", b"SELECT 1\0"), frame(b"Z", b"I"), frame(b"Z", b"T"),
    frame(b"E", b"SERROR\0C42P01\0\0"), frame(b"s"), frame(b"I"), frame(b"D", b"\0\0"), frame(b"G", b"\0\0\0"),
    frame(b"n"), frame(b"T", b"\0\0"), frame(b"S", b"application_name\0x\0"),
]  # fmt: skip


@given(st.lists(st.one_of(st.sampled_from(MESSAGES), st.sampled_from(ANSWERS).map(lambda one: (one,)))))
def test_a_session_is_total(steps: list[bytes | tuple[bytes]]) -> None:
    """Whatever either side sends in whatever order: each statement ends once at most, and bytes pass unchanged."""
    session = Session(1, {}, judged)
    begun: list[int] = []
    ended: list[int] = []
    for step in steps:
        done = session.server(step[0], NOW) if isinstance(step, tuple) else session.client(step, NOW)
        begun += [one.number for one in done.records if isinstance(one, Begun)]
        ended += [one.number for one in done.records if isinstance(one, Ended)]
        if done.close is not None:
            break
        assert b"".join(done.to_client if isinstance(step, tuple) else done.to_server) == (
            step[0] if isinstance(step, tuple) else step
        )
    ended += [one.number for one in session.lost(NOW) if isinstance(one, Ended)]
    assert begun == list(range(1, len(begun) + 1))
    assert sorted(ended) == begun


def test_names_hold_only_when_the_server_says_so() -> None:
    """A Parse that fails renames nothing: what runs next under the name is what it stood for before."""
    session = Session(1, {}, judged)
    run = frame(b"B", b"\0s\0\0\0\0\0\0\0") + frame(b"E", b"\0\0\0\0\0") + frame(b"S")
    session.client(frame(b"P", b"s\0SELECT 2\0\0\0") + frame(b"S"), NOW)
    session.server(frame(b"1") + frame(b"Z", b"I"), NOW)
    session.client(frame(b"P", b"s\0DROP TABLE t\0\0\0") + frame(b"S") + run, NOW)
    done = session.server(frame(b"E", b"C42P05\0\0") + frame(b"Z", b"I"), NOW)
    done = session.server(frame(b"2") + frame(b"C", b"SELECT 1\0") + frame(b"Z", b"I"), NOW)
    (ended,) = done.records
    assert isinstance(ended, Ended)
    assert ended.said == Said("SELECT 2")


def test_a_sync_during_a_copy_is_passed_over() -> None:
    """Libpq sends Sync behind an Execute that turns out to be a COPY: the server does not answer that one."""
    session = Session(1, {}, judged)
    session.client(
        frame(b"P", b"\0COPY t FROM STDIN\0\0\0")
        + frame(b"B", b"\0\0\0\0\0\0\0\0")
        + frame(b"E", b"\0" * 5)
        + frame(b"S"),
        NOW,
    )
    session.server(frame(b"1") + frame(b"2") + frame(b"G", b"\0\0\0"), NOW)
    session.client(frame(b"d", b"1\n") + frame(b"c") + frame(b"S"), NOW)
    done = session.server(frame(b"C", b"COPY 1\0") + frame(b"Z", b"I"), NOW)
    assert done.close is None
    assert [(one.outcome, one.rows) for one in done.records if isinstance(one, Ended)] == [("success", 1)]
    assert session.waiting == 0


# -- SCRAM ---------------------------------------------------------------------------------------------------------


def verifier(password: bytes, salt: bytes = b"s" * 16) -> Verifier:
    """What a server keeps of a password."""
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, 4096)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    keys = (
        b64encode(salt).decode(),
        b64encode(stored).decode(),
        b64encode(hmac.digest(salted, b"Server Key", "sha256")),
    )
    return Verifier.parse(f"SCRAM-SHA-256$4096:{keys[0]}${keys[1]}:{keys[2].decode()}")


def proof(
    password: bytes, known: Verifier, exchange: ServerExchange, gs2: str, binding: bytes = b""
) -> tuple[bytes, Keys]:
    """Log in as a client with a password does, by RFC 5802's own words."""
    server_first = exchange.first(PLUS if gs2.startswith("p") else PLAIN, f"{gs2}n=,r=client".encode()).decode()
    nonce = server_first.split(",")[0]
    salted = hashlib.pbkdf2_hmac("sha256", password, known.salt, known.iterations)
    key = hmac.digest(salted, b"Client Key", "sha256")
    without = f"c={b64encode(gs2.encode() + binding).decode()},{nonce}"
    signed = f"n=,r=client,{server_first},{without}".encode()
    signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
    shown = b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
    return exchange.final(f"{without},p={shown}".encode())


def test_the_key_that_a_proof_holds_logs_in_elsewhere() -> None:
    """What a client proves here opens the same role's login at a server with the same verifier."""
    known = verifier(b"secret")
    _, keys = proof(b"secret", known, ServerExchange(known, "ada", b"x", "server", None), "n,,")
    upstream = ServerExchange(known, "ada", b"x", "other", None)
    client = ClientExchange(keys, "gateway")
    last, _ = upstream.final(client.final(upstream.first(PLAIN, client.first())))
    client.ended(last)


def test_wrong_passwords_and_unknown_names_fail_alike() -> None:
    """Neither is let in, and neither can be told from the other by the exchange."""
    known = verifier(b"secret")
    for one in (known, None):
        exchange = ServerExchange(one, "ada", b"x", "server", None)
        with pytest.raises(ScramError) as raised:
            proof(b"guess", known if one else Verifier.nobody("ada", b"x"), exchange, "n,,")
        assert raised.value.denied


def test_channels_are_bound() -> None:
    """PLUS takes the certificate's hash and no other; a client that was told there is no PLUS finds out."""
    known, binding = verifier(b"secret"), b"h" * 32
    proof(b"secret", known, ServerExchange(known, "ada", b"x", "s", binding), "p=tls-server-end-point,,", binding)
    with pytest.raises(ScramError, match="binding"):
        proof(b"secret", known, ServerExchange(known, "ada", b"x", "s", binding), "p=tls-server-end-point,,", b"o" * 32)
    with pytest.raises(ScramError, match="negotiation"):
        proof(b"secret", known, ServerExchange(known, "ada", b"x", "s", binding), "y,,")


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_scram_is_total(first: bytes, final: bytes) -> None:
    """Whatever a client says, nobody is let in by it."""
    exchange = ServerExchange(verifier(b"secret"), "ada", b"x", "server", None)
    with pytest.raises(ScramError):
        (exchange.first(PLAIN, first), exchange.final(final))


def test_a_signature_is_checked() -> None:
    """A server that does not have the verifier is not believed."""
    known = verifier(b"secret")
    _, keys = proof(b"secret", known, ServerExchange(known, "ada", b"x", "server", None), "n,,")
    client = ClientExchange(keys, "g")
    client.final(ServerExchange(known, "ada", b"x", "o", None).first(PLAIN, client.first()))
    with pytest.raises(ScramError):
        client.ended(b"v=" + b64encode(bytes(32)))
    assert b64decode("AA==") == b"\0"


def test_mutated_conversations() -> None:
    """A hundred thousand messages, mutated and at cross purposes: violations, and every statement ends once."""
    from tests.gateway.fuzz import fuzz

    fuzz(100_000, 1)


def test_an_error_of_any_message_undoes_what_ran_before_it() -> None:
    """A Parse that fails in a pipeline takes back the statement before it, though that one was complete."""
    session = Session(1, {}, judged)
    pipeline = frame(b"P", b"\0INSERT\0\0\0") + frame(b"B", b"\0\0" + b"\0" * 6) + frame(b"E", b"\0" * 5)
    session.client(pipeline + frame(b"P", b"a\0nonsense\0\0\0") + frame(b"S"), NOW)
    answers = frame(b"1") + frame(b"2") + frame(b"C", b"INSERT 0 1\0") + frame(b"E", b"C42601\0\0") + frame(b"Z", b"I")
    (ended,) = session.server(answers, NOW).records
    assert isinstance(ended, Ended)
    assert (ended.outcome, ended.rows) == ("rolled_back", 1)


def test_a_long_pipeline_asks_for_its_names_at_once() -> None:
    """Of names to come the last counts, a Close among them, and what is behind another name is not looked at."""
    coming: Coming[Sent] = Coming()
    a, b, closes = Sent(frontend.PARSE, b"a"), Sent(frontend.BIND, b"a"), Sent(frontend.CLOSE, b"a", statement=b"S")
    for sent in (a, b, closes):
        coming.append(sent)
    assert list(coming.of(frontend.PARSE, b"a")) == [a, closes]
    assert list(coming.of(frontend.BIND, b"a")) == [b]
    coming.popleft()
    assert list(coming.of(frontend.PARSE, b"a")) == [closes]
    assert (coming.first(), list(coming), len(coming)) == (b, [b, closes], 2)
    coming.popleft()
    assert coming.of(frontend.BIND, b"a") == ()
