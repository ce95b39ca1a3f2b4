"""Verification of beacons, by values: total on hostile bytes, exact about where a message belongs."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.beacon import mac
from pgwitness.events import Beacon

KEY = bytes(range(32))
PAYLOAD: list[Any] = ["beacon/1", "77", "shop", (5 << 32) + 7, 12, 34, "app", "clerk", "till", "10.0.0.1", 4711, None]
WHERE: dict[str, Any] = {"system_id": "77", "database": "shop", "xid32": 7}


def signed(payload: Any, key: bytes = KEY) -> bytes:
    """Sign as the database does: two pads and nested SHA-256 (RFC 2104)."""
    text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    inner, outer = (bytes(byte ^ pad for byte in key.ljust(64, b"\0")) for pad in (0x36, 0x5C))
    return hashlib.sha256(outer + hashlib.sha256(inner + text).digest()).digest() + text


def reason(content: bytes, **where: Any) -> str:
    """Verify and give the reason why not."""
    with pytest.raises(mac.Forged) as caught:
        mac.verify(content, KEY, **{**WHERE, **where})
    return caught.value.reason


def test_genuine_message_verifies() -> None:
    """What the database wrote for this transaction becomes a Beacon with the 64 bits of its xid."""
    assert mac.verify(signed(PAYLOAD), KEY, **WHERE) == Beacon(
        session_user="app",
        role="clerk",
        pid=12,
        backend_start_us=34,
        xid=(5 << 32) + 7,
        application="till",
        client_addr="10.0.0.1",
        client_port=4711,
    )


@pytest.mark.parametrize(
    ("said", "method"),
    [([], None), ([None], "trust"), (["scram-sha-256:app"], "scram-sha-256"), (["cert:CN=a:b"], "cert"), ([""], None)],
)
def test_how_the_session_authenticated(said: list[str | None], method: str | None) -> None:
    """The method is read from what the server says; before PostgreSQL 16 it says nothing."""
    assert mac.verify(signed([*PAYLOAD, None, *said]), KEY, **WHERE).auth_method == method


def test_reasons() -> None:
    """Each way of not belonging has its own reason."""
    assert reason(signed(PAYLOAD, key=bytes(32))) == "mac"
    assert reason(signed(PAYLOAD), xid32=8) == "xid"
    assert reason(signed(PAYLOAD), database="billing") == "database"
    assert reason(signed(PAYLOAD), system_id="78") == "system_id"
    assert reason(signed(["beacon/2", *PAYLOAD[1:]])) == "kind"
    assert reason(signed(["control/1", "77", "shop", 7, "pause", "ann"])) == "kind"
    assert reason(b"I am the CFO") == "malformed"
    assert reason(b"") == "malformed"


def test_control_and_beacon_do_not_pass_as_each_other() -> None:
    """A genuine message of one kind is a forgery under the other's prefix."""
    control = signed(["control/1", "77", "shop", 7, "pause", "ann"])
    assert mac.verify_control(control, KEY, **WHERE).operation == "pause"
    with pytest.raises(mac.Forged):
        mac.verify_control(signed(PAYLOAD), KEY, **WHERE)


def test_every_byte_is_covered() -> None:
    """Changing any single byte of a genuine message makes it a forgery."""
    genuine = signed(PAYLOAD)
    for place in range(len(genuine)):
        changed = genuine[:place] + bytes([genuine[place] ^ 1]) + genuine[place + 1 :]
        with pytest.raises(mac.Forged):
            mac.verify(changed, KEY, **WHERE)


@given(st.binary(max_size=200))
def test_hostile_bytes_are_only_forged(content: bytes) -> None:
    """Any bytes, signed or not, are refused with a reason and with no other error."""
    for message in (content, signed(content), bytes(32) + content):
        with pytest.raises(mac.Forged):
            mac.verify(message, KEY, **WHERE)


def test_deep_nesting_is_only_forged() -> None:
    """Ten thousand brackets do not exhaust the stack."""
    assert reason(signed(b"[" * 10_000)) == "kind"
    assert reason(bytes(32) + b"[" * 10_000) == "malformed"


def test_claims_of_a_forgery_are_cut() -> None:
    """What a forgery says of itself is quoted, but not at any length."""
    payload = [*PAYLOAD[:6], "cfo" * 1000, *PAYLOAD[7:]]
    with pytest.raises(mac.Forged) as caught:
        mac.verify(signed(payload, key=bytes(32)), KEY, **WHERE)
    assert caught.value.claims["session_user"] == ("cfo" * 1000)[: mac.CLAIM_CHARACTERS_MAX]


def test_repetitions_are_told() -> None:
    """Two beacons of the same session and role are the same whatever their place; another role is not."""
    beacon = mac.verify(signed(PAYLOAD), KEY, **WHERE)
    other = mac.verify(signed([*PAYLOAD[:7], "app", *PAYLOAD[8:]]), KEY, **WHERE)
    assert mac.same_session(beacon, mac.verify(signed(PAYLOAD), KEY, **WHERE))
    assert not mac.same_session(beacon, other)
