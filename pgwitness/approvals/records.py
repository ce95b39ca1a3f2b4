"""Records of the topic `approvals`: a request, a decision, a claim, an end; each signed (Ed25519). Pure.

A record is a JSON object as one of `feedback` is: `signed` is the content as JSON text, `key` the id of the key, and
`signature` is over exactly those bytes. Requests, claims and ends are a gateway's, decisions an approver's. Whoever can
write to the topic, and has neither key, can say nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from detectors.alerts.verdicts import Envelope, key_id

DOMAIN: Final = b"pgwitness approval 1\n"
"""What is signed begins with this, so that a signature under anything else is none under one of these."""
BYTES_MAX: Final = 256 * 1024
SIGNATURE_BYTES: Final = 64

Word = Literal["approve", "deny"]
End = Literal["expired", "withdrawn"]


class _Record(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="record"):
    """What every record has: the request's id, and when it was signed (microseconds since the epoch)."""

    request: str
    at_us: int


class Value(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A constant or parameter of a statement, as an approver may see it: `name` is its place in the statement (`$3`).

    `column` is what it is compared with or assigned to, where that is known; `shown` is what the column's mask leaves
    of it, empty where no more than its type and its `length` (characters as they were written, or bytes) may be seen.
    """

    name: str
    type: str
    length: int
    column: str = ""
    shown: str = ""


class Estimate(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a statement would do, as far as it was found out before: `planned` rows by EXPLAIN, `counted` by a trial.

    `more` says that there are more rows than were counted. `sample` are a few of the rows as they are before, by their
    columns, and `values` what the statement's constants and parameters are, both masked as the lake masks.
    `why_not` says why something is not known that was wanted, `caveat` what it may not be taken for.
    """

    planned: int | None = None
    counted: int | None = None
    more: bool = False
    values: list[Value] = []
    columns: list[str] = []
    sample: list[list[str | None]] = []
    why_not: str = ""
    caveat: str = ""


class Request(_Record, frozen=True, kw_only=True, tag="request"):
    """Somebody wants to run a statement that a policy lets run only when it is approved.

    `statement` has no literals; `digest` is a keyed hash of the text as it came with its parameters: what is approved
    is exactly that. `rows` is the most that it may update and delete. `groups` are those whose members may decide,
    `needed` how many of them have to approve, before `expires_us`; it is run within `use_us` of the last of them.
    """

    cluster: str
    instance: str
    database: str
    role: str
    digest: str
    rows: int
    groups: list[str]
    expires_us: int
    needed: int = 1
    use_us: int = 600_000_000
    principal: str | None = None
    kind: str = "unknown"
    on_behalf_of: str | None = None
    client_addr: str | None = None
    application: str = ""
    session: str = ""
    """The session at the gateway: the gateway's instance and the session's number there."""
    held: bool = False
    """Whether its client waits for the decision."""
    intent: str = ""
    statement: str | None = None
    fingerprint: str | None = None
    operations: list[str] = []
    relations: list[str] = []
    columns: list[str] = []
    where: str = ""
    policies: list[str] = []
    message: str = ""
    why: str = ""
    bundle: str = ""
    estimate: Estimate = Estimate()


class Decision(_Record, frozen=True, kw_only=True, tag="decision"):
    """An approver's word. `of` is the SHA-256 of the request's signed text: no other request can take its place."""

    of: str
    word: Word
    who: str
    why: str
    break_glass: bool = False
    """Approved by one alone, whatever the policy asks for; an alert of its own."""


class Claim(_Record, frozen=True, kw_only=True, tag="claim"):
    """A gateway is about to run what was approved. Of several the first in the topic holds; `nonce` names it."""

    nonce: str
    session: str = ""


class Ended(_Record, frozen=True, kw_only=True, tag="ended"):
    """A request has come to its end unused: its time was over, or whoever asked has gone away."""

    end: End


Record = Request | Decision | Claim | Ended


class Signed(Struct, frozen=True):
    """A record as it was read: its content and what it was signed with, which is not checked yet."""

    record: Record
    text: str
    key: str
    signature: bytes

    @property
    def sha256(self) -> str:
        """Name the content."""
        return sha256(self.text)

    def is_by(self, key: Ed25519PublicKey) -> bool:
        """Return whether a key signed it."""
        if self.key != key_id(key):
            return False
        try:
            key.verify(self.signature, DOMAIN + self.text.encode())
        except InvalidSignature:
            return False
        return True


def text_of(record: Record) -> str:
    """Write what is signed of a record."""
    return msgspec.json.encode(record).decode()


def sha256(text: str) -> str:
    """Return the SHA-256 of a signed text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def sign(record: Record, key: Ed25519PrivateKey) -> bytes:
    """Make the record that goes to the topic."""
    text = text_of(record)
    return enveloped(text, base64.b64encode(key.sign(DOMAIN + text.encode())).decode(), key.public_key())


def enveloped(text: str, signature: str, key: Ed25519PublicKey) -> bytes:
    """Make the record of a text that was signed elsewhere, as by a browser; the ledger says whether it was."""
    return msgspec.json.encode(Envelope(schema=1, signed=text, key=key_id(key), signature=signature))


def read(value: bytes | None) -> Signed | None:
    """Read a record; None where it is none. Total on any bytes."""
    if value is None or len(value) > BYTES_MAX:
        return None
    try:
        envelope = msgspec.json.decode(value, type=Envelope)
        record = msgspec.json.decode(envelope.signed, type=Record)
        signature = base64.b64decode(envelope.signature, validate=True)
        envelope.signed.encode()
    except (ValueError, UnicodeError, RecursionError, binascii.Error):
        return None
    if envelope.schema != 1 or len(signature) != SIGNATURE_BYTES:
        return None
    return Signed(record, envelope.signed, envelope.key, signature)
