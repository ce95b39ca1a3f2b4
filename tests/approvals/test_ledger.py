"""What counts of the records of `approvals`: forged, replayed and self-made approvals do not, whoever writes them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest

from pgwitness.approvals import records
from pgwitness.approvals.deciding import decide, drafted, signed
from pgwitness.approvals.ledger import LIFETIME_US_MAX, REQUESTS_MAX
from pgwitness.core.errors import NotInOrder
from tests.approvals.signing import (
    GATEWAY,
    KEYS,
    MINUTE_US,
    OTHER_GATEWAY,
    STRANGER,
    T0,
    TRUST,
    Book,
    by,
    claim,
    decision,
    ended,
    request,
)

ASKED = records.sign(request(), GATEWAY)
OWN = request(principal="ada", kind="human", on_behalf_of=None)
APPROVED = by("ada", decision())
LATE = T0 + 16 * MINUTE_US


def changed(value: bytes, change: Callable[[dict[str, str]], object]) -> bytes:
    """Alter what was signed and keep the signature."""
    envelope = json.loads(value)
    content = json.loads(envelope["signed"])
    change(content)
    envelope["signed"] = json.dumps(content)
    return json.dumps(envelope).encode()


def outer(value: bytes, **more: object) -> bytes:
    """Alter the envelope."""
    return json.dumps(json.loads(value) | more).encode()


def resigned(value: bytes, domain: bytes) -> bytes:
    """Sign a decision of ada's as something else."""
    envelope = json.loads(value)
    signature = KEYS["ada"].sign(domain + envelope["signed"].encode())
    return outer(value, signature=base64.b64encode(signature).decode())


SIGNED_ELSEWHERE = request("r2", digest="d2")
TRIES: list[tuple[str, tuple[bytes, ...], bytes | None, str, int | None]] = [
    ("nothing", (ASKED,), None, "not_a_record", None),
    ("no JSON", (ASKED,), b"approve r1", "not_a_record", None),
    ("an array", (ASKED,), b"[]", "not_a_record", None),
    ("too long", (ASKED,), b" " * 300_000, "not_a_record", None),
    ("deep", (ASKED,), b"[" * 100_000, "not_a_record", None),
    ("unsigned", (ASKED,), outer(APPROVED, signature=""), "not_a_record", None),
    ("half a signature", (ASKED,), outer(APPROVED, signature="AAAA"), "not_a_record", None),
    ("no base64", (ASKED,), outer(APPROVED, signature="%" * 88), "not_a_record", None),
    ("another schema", (ASKED,), outer(APPROVED, schema=2), "not_a_record", None),
    ("a lone surrogate", (ASKED,), APPROVED.replace(b"seen", b"\\\\ud800"), "not_a_record", None),
    ("zeros for a signature", (ASKED,), outer(APPROVED, signature="A" * 86 + "=="), "wrong_signature", None),
    ("a stranger's key", (ASKED,), records.sign(decision(), STRANGER), "wrong_signature", None),
    ("a gateway's key", (ASKED,), records.sign(decision(), GATEWAY), "wrong_signature", None),
    ("another approver's key", (ASKED,), by("bob", decision("ada")), "wrong_signature", None),
    ("another key's id", (ASKED,), outer(APPROVED, key="0" * 16), "wrong_signature", None),
    ("signed as a verdict", (ASKED,), resigned(APPROVED, b"pgwitness verdict 1\n"), "wrong_signature", None),
    ("signed without a domain", (ASKED,), resigned(APPROVED, b""), "wrong_signature", None),
    ("altered who", (ASKED,), changed(APPROVED, lambda c: c.update(who="bob")), "wrong_signature", None),
    ("altered why", (ASKED,), changed(APPROVED, lambda c: c.update(why="x")), "wrong_signature", None),
    ("altered time", (ASKED,), changed(APPROVED, lambda c: c.update(at_us=T0)), "wrong_signature", None),  # type: ignore[call-overload]
    ("an unlisted approver", (ASKED,), records.sign(decision("mallory"), STRANGER), "not_an_approver", None),
    ("nobody", (ASKED,), records.sign(decision(""), STRANGER), "not_an_approver", None),
    ("denied turned round", (ASKED,),
     changed(by("ada", decision(word="deny")), lambda c: c.update(word="approve")), "wrong_signature", None),
    ("a request that is not there", (), APPROVED, "unknown_request", None),
    ("replayed on another request", (records.sign(request(digest="d2"), GATEWAY),), APPROVED, "another_request", None),
    ("with more rows asked for", (records.sign(request(rows=99), GATEWAY),), APPROVED, "another_request", None),
    ("for another statement", (ASKED, records.sign(SIGNED_ELSEWHERE, GATEWAY)),
     by("ada", decision(of=SIGNED_ELSEWHERE, request="r1")), "another_request", None),
    ("for another principal", (records.sign(request(principal="eve"), GATEWAY),), APPROVED, "another_request", None),
    ("for another database", (records.sign(request(database="pay"), GATEWAY),), APPROVED, "another_request", None),
    ("one's own", (records.sign(OWN, GATEWAY),), by("ada", decision(of=OWN)), "own_request", None),
    ("one's agent's", (records.sign(request(on_behalf_of="ada"), GATEWAY),),
     by("ada", decision(of=request(on_behalf_of="ada"))), "own_request", None),
    ("on behalf of who asks", (records.sign(request(principal="maria", on_behalf_of=None), GATEWAY),),
     by("helper", decision("helper", of=request(principal="maria", on_behalf_of=None))), "own_request", None),
    ("on behalf of whose agent asks", (ASKED,), by("helper", decision("helper")), "own_request", None),
    ("not in the group", (ASKED,), by("eve", decision("eve")), "not_in_group", None),
    ("in no group", (ASKED,), by("root", decision("root")), "not_in_group", None),
    ("the glass of who has none", (ASKED,), by("ada", decision(break_glass=True)), "no_break_glass", None),
    ("without a reason", (ASKED,), by("ada", decision(why=" ")), "no_reason", None),
    ("twice by one", (records.sign(request(needed=2), GATEWAY), by("ada", decision(of=request(needed=2)))),
     by("ada", decision(of=request(needed=2), why="again")), "repeated", None),
    ("one key, two names", (records.sign(request(needed=2), GATEWAY), by("ada", decision(of=request(needed=2)))),
     by("ada", decision("twin", of=request(needed=2))), "repeated", None),
    ("replayed as it was", (records.sign(request(needed=2), GATEWAY), by("ada", decision(of=request(needed=2)))),
     by("ada", decision(of=request(needed=2))), "repeated", None),
    ("after the end", (ASKED,), APPROVED, "expired", LATE),
    ("after it was withdrawn", (ASKED, records.sign(ended(), GATEWAY)), APPROVED, "expired", None),
    ("after it was denied", (ASKED, by("bob", decision("bob", word="deny"))), APPROVED, "settled", None),
    ("after it was approved", (ASKED, by("bob", decision("bob"))), APPROVED, "settled", None),
    ("after it was used", (ASKED, APPROVED, records.sign(claim(), GATEWAY)), by("bob", decision("bob")),
     "settled", None),
    ("dated before the request", (ASKED,), by("ada", decision(at_us=T0 - 3_600_000_000)), "time", None),
    ("dated tomorrow", (ASKED,), by("ada", decision(at_us=T0 + 86_400_000_000)), "time", None),
    ("a request of a stranger", (), records.sign(request(), STRANGER), "not_a_gateway", None),
    ("a request of an approver", (), records.sign(request(), KEYS["ada"]), "not_a_gateway", None),
    ("the same request again", (ASKED,), records.sign(request(rows=1000), OTHER_GATEWAY), "known", None),
    ("a request for ever", (), records.sign(request(expires_us=T0 + 2 * LIFETIME_US_MAX), GATEWAY), "too_long", None),
    ("a request nobody has to approve", (), records.sign(request(needed=0), GATEWAY), "time", None),
    ("a claim of a stranger", (ASKED, APPROVED), records.sign(claim(), STRANGER), "not_a_gateway", None),
    ("a claim of what is open", (ASKED,), records.sign(claim(), GATEWAY), "not_approved", None),
    ("a claim of what was denied", (ASKED, by("ada", decision(word="deny"))), records.sign(claim(), GATEWAY),
     "not_approved", None),
    ("a second claim", (ASKED, APPROVED, records.sign(claim(), GATEWAY)), records.sign(claim("n2"), OTHER_GATEWAY),
     "used", None),
    ("a claim replayed", (ASKED, APPROVED, records.sign(claim(), GATEWAY)), records.sign(claim(), GATEWAY),
     "used", None),
    ("a claim too late", (ASKED, APPROVED), records.sign(claim(), GATEWAY), "expired", T0 + 30 * MINUTE_US),
    ("an end by a stranger", (ASKED,), records.sign(ended(), STRANGER), "not_a_gateway", None),
    ("an end of what was used", (ASKED, APPROVED, records.sign(claim(), GATEWAY)), records.sign(ended(), GATEWAY),
     "settled", None),
]  # fmt: skip


@pytest.mark.parametrize(("before", "value", "refused", "at_us"), [one[1:] for one in TRIES], ids=[o[0] for o in TRIES])
def test_a_record_that_does_not_count_changes_nothing(
    before: tuple[bytes, ...], value: bytes | None, refused: str, at_us: int | None
) -> None:
    """It is refused with its reason, and every request stands as it stood."""
    book = Book(*before)
    stood = {name: (one.state(T0 + MINUTE_US), len(one.decisions), one.claim) for name, one in
            book.ledger.requests.items()}  # fmt: skip
    assert book.take(value, at_us) == refused
    for name, was in stood.items():
        one = book.ledger.requests[name]
        assert (one.state(T0 + MINUTE_US), len(one.decisions), one.claim) == was
    assert not any(one.state(T0 + MINUTE_US) == "approved" for one in book.ledger.requests.values()) or (
        APPROVED in before or len(before) > 1
    )


def test_what_counts() -> None:
    """One approval, n of m, a denial of what was approved, break-glass: each as the request asks for."""
    book = Book(ASKED)
    assert (book.state(), book.ledger.requests["r1"].missing) == ("open", 1)
    assert book.take(APPROVED) is None
    assert book.state() == "approved"
    assert book.take(by("bob", decision("bob", word="deny"))) is None
    assert book.state() == "denied"

    two = request(needed=2)
    book = Book(records.sign(two, GATEWAY), by("ada", decision(of=two)))
    assert (book.state(), book.ledger.requests["r1"].missing) == ("open", 1)
    assert book.take(by("bob", decision("bob", of=two))) is None
    assert book.state() == "approved"
    assert book.take(records.sign(claim(), OTHER_GATEWAY)) is None
    assert book.state() == "used"
    assert book.ledger.requests["r1"].claim == claim()

    book = Book(records.sign(two, GATEWAY))
    assert book.take(by("root", decision("root", of=two, break_glass=True))) is None
    assert book.state() == "approved"
    assert book.ledger.requests["r1"].broken_glass


def test_time_ends_what_is_open_and_what_was_approved() -> None:
    """What nobody decided on expires, and so does an approval that nobody used."""
    book = Book(ASKED)
    assert book.state(at_us=LATE) == "expired"
    book = Book(ASKED, APPROVED)
    assert book.state(at_us=T0 + 10 * MINUTE_US) == "approved"
    assert book.state(at_us=LATE) == "expired"


def test_only_so_many_requests_are_kept() -> None:
    """The oldest goes; what is decided on it then is refused."""
    book = Book()
    value = records.sign(request("r0"), GATEWAY)
    assert book.take(value) is None
    first = book.ledger.requests["r0"]
    book.ledger.requests = {"r0": first} | {f"f{n}": first for n in range(REQUESTS_MAX - 1)}
    assert book.take(ASKED) is None
    assert "r0" not in book.ledger.requests
    assert book.take(by("ada", decision(of=request("r0")))) == "unknown_request"


def test_deciding_says_beforehand_what_would_not_count() -> None:
    """With a key at hand, and signed elsewhere: the sentence instead of a record that is refused."""
    book = Book(ASKED)
    standing = book.ledger.requests["r1"]
    now_us = T0 + MINUTE_US
    value = decide(standing, "approve", "seen", who="ada", key=KEYS["ada"], trust=TRUST, now_us=now_us)
    text = records.text_of(drafted(standing, "approve", "seen", "bob", TRUST, now_us))
    signature = base64.b64encode(KEYS["bob"].sign(records.DOMAIN + text.encode())).decode()
    elsewhere = signed(book.ledger, TRUST, text, signature, "bob", now_us)
    with pytest.raises(NotInOrder, match="not signed by the key"):
        signed(book.ledger, TRUST, text, signature, "ada", now_us)
    for who, why, said in (("helper", "x", "their agent"), ("eve", "x", "other groups"), ("ada", "", "say why")):
        with pytest.raises(NotInOrder, match=said):
            drafted(standing, "approve", why, who, TRUST, now_us)
    assert Book(ASKED).take(elsewhere) is None
    assert book.take(value) is None
    with pytest.raises(NotInOrder, match="decided on already"):
        signed(book.ledger, TRUST, text, signature, "bob", now_us)


def test_what_another_gateway_may_have_run_runs_no_more() -> None:
    """A gateway that knows other approvers claims what is not approved here: it is used up all the same."""
    book = Book(ASKED)
    assert book.take(records.sign(claim("theirs"), OTHER_GATEWAY)) == "not_approved"
    assert book.state() == "open"
    assert book.take(APPROVED) is None
    assert book.state() == "used"
    assert book.take(records.sign(claim("ours"), GATEWAY)) == "used"
    forged = Book(ASKED)
    assert forged.take(records.sign(claim("forged"), STRANGER)) == "not_a_gateway"
    assert forged.take(APPROVED) is None
    assert forged.take(records.sign(claim("ours"), GATEWAY)) is None
