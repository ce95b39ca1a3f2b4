"""What a person does with a request: puts a decision together, signs it, and hears beforehand why it would not count.

`decide` is for a key at hand; a page that has its reader sign in the browser shows `records.text_of(drafted(...))` and
sends `signed(...)` on. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from detectors.alerts.verdicts import public_text
from pgwitness.approvals import records
from pgwitness.approvals.ledger import Ledger, Refusal, Standing, Trust, why_not
from pgwitness.approvals.records import Decision, Word
from pgwitness.core.config import Approver
from pgwitness.core.errors import NotInOrder

SENTENCES: Mapping[Refusal, str] = {
    "own_request": "nobody approves what they, their agent or somebody that they act for has asked for",
    "not_in_group": "the request is for members of other groups; `groups` of it says which",
    "no_break_glass": "[approvers.NAME] has no break_glass = true, or this is no approval",
    "no_reason": "say why; an empty reason is refused",
    "repeated": "you have decided so already",
    "settled": "it is decided on already",
    "expired": "its time is over, or whoever asked has gone away",
    "wrong_signature": "it is not signed by the key that [approvers.NAME] has",
    "not_an_approver": "no [approvers.NAME] of the configuration is that person",
    "another_request": "it was signed for another request",
    "unknown_request": "there is no such request",
}


def approver_of(approvers: Mapping[str, Approver], key: Ed25519PrivateKey) -> str:
    """Return whose key it is. Raise `NotInOrder` where it is nobody's."""
    text = public_text(key.public_key())
    for name, approver in approvers.items():
        if approver.key == text:
            return name
    raise NotInOrder(f'no [approvers.NAME] has this key; add one with key = "{text}"')


def drafted(
    standing: Standing, word: Word, why: str, who: str, trust: Trust, now_us: int, *, break_glass: bool = False
) -> Decision:
    """Put a decision together. Raise `NotInOrder` with the reason why it would not count."""
    decision = Decision(
        request=standing.request.request,
        at_us=now_us,
        of=standing.sha256,
        word=word,
        who=who,
        why=why,
        break_glass=break_glass,
    )
    refused = "not_an_approver" if who not in trust.approvers else why_not(standing, decision, trust.approvers, now_us)
    if refused is not None:
        raise NotInOrder(f"this would not count: {sentence(refused)}")
    return decision


def decide(
    standing: Standing,
    word: Word,
    why: str,
    *,
    who: str,
    key: Ed25519PrivateKey,
    trust: Trust,
    now_us: int,
    break_glass: bool = False,
) -> bytes:
    """Make the record of a decision. Raise `NotInOrder` with the reason why it would not count."""
    decision = drafted(standing, word, why, who, trust, now_us, break_glass=break_glass)
    return records.sign(decision, key)


def signed(ledger: Ledger, trust: Trust, text: str, signature: str, who: str, now_us: int) -> bytes:
    """Make the record of a decision that was signed elsewhere. Raise `NotInOrder` where it would not count."""
    if who not in trust.approvers:
        raise NotInOrder(f"this would not count: {sentence('not_an_approver')}")
    _, public = trust.approvers[who]
    value = records.enveloped(text, signature, public)
    read = records.read(value)
    if read is None or not isinstance(read.record, Decision) or read.record.who != who or not read.is_by(public):
        raise NotInOrder(f"this would not count: {sentence('wrong_signature')}")
    standing = ledger.requests.get(read.record.request)
    if standing is None:
        raise NotInOrder(f"this would not count: {sentence('unknown_request')}")
    if read.record.of != standing.sha256:
        raise NotInOrder(f"this would not count: {sentence('another_request')}")
    refused = why_not(standing, read.record, trust.approvers, now_us)
    if refused is not None:
        raise NotInOrder(f"this would not count: {sentence(refused)}")
    return value


def sentence(refused: Refusal) -> str:
    """Say why a record is refused."""
    return SENTENCES.get(refused, refused)
