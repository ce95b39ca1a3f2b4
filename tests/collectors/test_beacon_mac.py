"""Verification of beacons, by values: total on hostile bytes, exact about where a message belongs."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.beacon import mac, verifier
from collectors.beacon.verifier import BeaconVerifier
from pgwitness.core.events import Beacon, Token

KEY = bytes(range(32))
SESSION: list[Any] = ["session/1", "77", "shop", 12, 34, "app", "10.0.0.1", 4711, None]
SAID = [str((5 << 32) + 7), "app", "clerk", "till", ""]
WHERE: dict[str, Any] = {"system_id": "77", "database": "shop", "xid32": 7}


def hmac(key: bytes, text: bytes) -> bytes:
    """Compute the MAC as the database does: two pads and nested SHA-256 (RFC 2104)."""
    inner, outer = (bytes(byte ^ pad for byte in key.ljust(64, b"\0")) for pad in (0x36, 0x5C))
    return hashlib.sha256(outer + hashlib.sha256(inner + text).digest()).digest()


def signed(payload: Any, key: bytes = KEY) -> bytes:
    """Sign as the database does what is neither beacon nor introduction."""
    text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return hmac(key, text) + text


def spoken(said: list[str] = SAID, session: Any = SESSION, key: bytes = KEY, secret_of: Any = None) -> bytes:
    """Make a beacon as the database does; with `secret_of`, under the secret of that other session."""
    tag, text = hmac(key, payload(session)), "\x1f".join([*said, ""]).encode()
    one, other = struct.unpack(">qq", hmac(key, b"secret/1" + hmac(key, payload(secret_of or session)))[:16])
    code = hashlib.sha256(f"{one}\x1f".encode() + text + f"\x1f{other}".encode()).digest()
    return code + text + tag.hex().encode() + payload(session)


def payload(session: Any) -> bytes:
    """Write a session's introduction without its MAC."""
    return session if isinstance(session, bytes) else json.dumps(session).encode()


def verified(content: bytes, **where: Any) -> Beacon:
    """Verify a message as the collector does."""
    place = {**WHERE, **where}
    xid32 = place.pop("xid32")
    return BeaconVerifier(KEY, **place).verify(content, xid32=xid32)


def reason(content: bytes, **where: Any) -> str:
    """Verify and give the reason why not."""
    with pytest.raises(mac.Forged) as caught:
        verified(content, **where)
    return caught.value.reason


def test_genuine_message_verifies() -> None:
    """What the database wrote for this transaction becomes a Beacon with the 64 bits of its xid."""
    assert verified(spoken()) == Beacon(
        session_user="app",
        role="clerk",
        pid=12,
        backend_start_us=34,
        xid=(5 << 32) + 7,
        application="till",
        client_addr="10.0.0.1",
        client_port=4711,
        auth_method="trust",
    )


def test_role_in_force_and_login() -> None:
    """Without SET ROLE the session's user is in force, who logged in is another one after SET SESSION AUTHORIZATION."""
    beacon = verified(spoken([SAID[0], "ann", "none", "till", ""]))
    assert (beacon.session_user, beacon.role) == ("app", "ann")


@pytest.mark.parametrize(
    ("said", "method"),
    [([], None), ([None], "trust"), (["scram-sha-256:app"], "scram-sha-256"), (["cert:CN=a:b"], "cert"), ([""], None)],
)
def test_how_the_session_authenticated(said: list[str | None], method: str | None) -> None:
    """The method is read from what the server says; before PostgreSQL 16 it says nothing."""
    assert verified(spoken(session=[*SESSION[:8], *said])).auth_method == method


@pytest.mark.parametrize(
    ("names", "login", "role"),
    [
        (["a\x1fb", "none"], "a\x1fb", "a\x1fb"),
        (["a\x1fb", "clerk"], "a\x1fb", "clerk"),
        (["app", "x\x1fy\x1fz"], "app", "x\x1fy\x1fz"),
        (["\x1f", "\x1f"], "\x1f", "\x1f"),
    ],
)
@pytest.mark.parametrize("wrote", [[], ["16400", "INSERT", "1", "0", "0"]])
def test_a_role_may_hold_the_separator_in_its_name(names: list[str], login: str, role: str, wrote: list[str]) -> None:
    """Whoever makes such a role is known by it, and forges nothing."""
    beacon = verified(spoken([SAID[0], *names, "till", "", *wrote], session=[*SESSION[:5], login, *SESSION[6:]]))
    assert (beacon.session_user, beacon.role, beacon.application) == (login, role, "till")


def test_claim_and_token_are_told_apart() -> None:
    """What the client claims and its token travel in one field; the token goes to its judge only."""
    tokens: list[str] = []

    def judge(token: str) -> Token:
        tokens.append(token)
        return Token("no_keys", "")

    message = spoken([*SAID[:4], "for ann\x1eey.J.x"])
    beacon = BeaconVerifier(KEY, system_id="77", database="shop").verify(message, xid32=7, judge=judge)
    assert (beacon.claim, beacon.token, tokens) == ("for ann", Token("no_keys", ""), ["ey.J.x"])


def test_reasons() -> None:
    """Each way of not belonging has its own reason."""
    assert reason(spoken(key=bytes(32))) == "mac"
    assert reason(spoken(), xid32=8) == "xid"
    assert reason(spoken(), database="billing") == "database"
    assert reason(spoken(), system_id="78") == "system_id"
    assert reason(spoken(session=["ddl/1", *SESSION[1:]])) == "kind"
    assert reason(spoken(session=["control/1"])) == "kind"
    assert reason(signed(["control/1", "77", "shop", 7, "pause", "ann"])) == "malformed"
    assert reason(b"I am the CFO") == "malformed"
    assert reason(b"") == "malformed"


@pytest.mark.parametrize("xid", ["", "-7", "7 ", "7.0", "٧", "9" * 19, "x"])
def test_what_is_no_transaction_id_is_malformed(xid: str) -> None:
    """Only decimal digits that fit into 64 bits are a transaction id, also where int() would take more."""
    assert reason(spoken([xid, *SAID[1:]])) == "malformed"


@pytest.mark.parametrize("said", [SAID[:4], [], [*SAID, *["x"] * 200]])
def test_fields_do_not_shift(said: list[str]) -> None:
    """A message with a field too few, or more than names can hold, is refused whole."""
    assert reason(spoken(said)) == "malformed"


def test_a_separator_in_a_name_moves_nobody_into_another_session() -> None:
    """Who logged in is what the introduction says, whatever name the session took since: no login, no application."""
    beacon = verified(spoken([SAID[0], "app\x1fcfo", *SAID[2:]]))
    assert (beacon.session_user, beacon.application, beacon.pid) == ("app", "till", 12)


def test_another_sessions_secret_does_not_do() -> None:
    """A genuine introduction under the secret of another session is no beacon."""
    other = [*SESSION[:3], 13, *SESSION[4:]]
    assert reason(spoken(secret_of=other)) == "mac"
    assert reason(spoken(session=other, secret_of=SESSION)) == "mac"


def test_remembered_sessions_are_bounded_and_change_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many sessions there are, a few are remembered, and one that was forgotten verifies again."""
    monkeypatch.setattr(verifier, "SESSIONS_MAX", 3)
    judge = BeaconVerifier(KEY, system_id="77", database="shop")
    for _ in range(2):
        for pid in range(10):
            message = spoken(session=[*SESSION[:3], pid, *SESSION[4:]])
            assert judge.verify(message, xid32=7).pid == pid
            with pytest.raises(mac.Forged):
                judge.verify(bytes(32) + message[32:], xid32=7)
            assert len(judge._known) <= 3


def test_control_and_beacon_do_not_pass_as_each_other() -> None:
    """A genuine message of one kind is a forgery under the other's prefix."""
    control = signed(["control/1", "77", "shop", 7, "pause", "ann"])
    assert mac.verify_control(control, KEY, **WHERE).operation == "pause"
    with pytest.raises(mac.Forged):
        mac.verify_control(spoken(), KEY, **WHERE)


def test_every_byte_is_covered() -> None:
    """Changing any single byte of a genuine message makes it a forgery."""
    genuine = spoken()
    for place in range(len(genuine)):
        changed = genuine[:place] + bytes([genuine[place] ^ 1]) + genuine[place + 1 :]
        with pytest.raises(mac.Forged):
            verified(changed)


@given(st.binary(max_size=200))
def test_hostile_bytes_are_only_forged(content: bytes) -> None:
    """Any bytes, signed or not, are refused with a reason and with no other error."""
    genuine = spoken()
    for message in (
        content,
        signed(content),
        spoken(session=content),
        genuine[:-20] + content,
        genuine + content + b"x",
    ):
        with pytest.raises((mac.Forged, mac.Unreadable)):
            verified(message)


@pytest.mark.parametrize("session", [["session/2", *SESSION[1:]], ["session/1"], {}, b"[" * 10_000])
def test_a_genuine_introduction_that_is_not_understood_is_no_forgery(session: Any) -> None:
    """Only our function can have signed it: nobody is accused."""
    with pytest.raises(mac.Unreadable):
        verified(spoken(session=session))


def test_deep_nesting_is_only_forged() -> None:
    """Ten thousand brackets do not exhaust the stack."""
    assert reason(spoken(session=b"[" * 10_000, key=bytes(32))) == "mac"
    with pytest.raises(mac.Unreadable):
        mac.verify_control(signed(b"[" * 10_000), KEY, **WHERE)


def test_claims_of_a_forgery_are_cut() -> None:
    """What a forgery says of itself is quoted, but not at any length."""
    with pytest.raises(mac.Forged) as caught:
        verified(spoken([SAID[0], "cfo" * 1000, *SAID[2:]], key=bytes(32)))
    assert caught.value.claims["session_user"] == ("cfo" * 1000)[: mac.CLAIM_CHARACTERS_MAX]
    assert caught.value.claims["pid"] == 12


def test_repetitions_are_told() -> None:
    """Two beacons of the same session and role are the same whatever their place; another role is not."""
    assert mac.same_session(verified(spoken()), verified(spoken()))
    assert not mac.same_session(verified(spoken()), verified(spoken([*SAID[:2], "app", *SAID[3:]])))
