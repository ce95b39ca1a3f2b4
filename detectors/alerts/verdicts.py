"""Verdicts: what a reviewer says of an alert, signed with the reviewer's own key (Ed25519).

A record of the topic `feedback` is a JSON object: `signed` is the verdict as JSON text, `key` the id of the key, and
`signature` is over exactly those bytes. `check` says what of it can be believed: only what a listed reviewer signed,
within the scopes and the time that the configuration gives them. Whoever can write to the topic, and is no reviewer,
can say nothing. Pure: keys and times are arguments.
"""

from __future__ import annotations

import base64
import binascii
import glob
import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from msgspec import Struct

from detectors.alerts.suppressions import MATCHES, Rule
from pgwitness.core.config import Reviewer
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.units import Duration

DOMAIN = b"pgwitness verdict 1\n"
"""What is signed begins with this, so that a signature under anything else is none under a verdict."""
KEY_PREFIX = "ed25519:"
BYTES_MAX = 64 * 1024
SCOPES = ("same-finding", "policy-and-principal", "policy-and-relation", "policy-and-cluster")

Word = Literal["true-positive", "false-positive"]


class Verdict(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a reviewer decided: `who`, `why`, when (`decided_us`), on the alert `uid`.

    A false positive suppresses what `match` names, compared as it stands, before `expires_us`; `learn` is the action
    that the habits of its principal then take in. With `promote` the principal's habits alone are an alert until then.
    """

    uid: str
    verdict: Word
    scope: str
    match: dict[str, str]
    why: str
    who: str
    decided_us: int
    expires_us: int
    cluster: str = ""
    title: str = ""
    promote: bool = False
    learn: dict[str, Any] = {}


class Envelope(Struct, frozen=True, kw_only=True):
    """A record of the topic."""

    schema: int
    signed: str
    key: str = ""
    signature: str = ""


class Checked(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a record: the verdict, or the reason why it is refused and what it claims."""

    id: str
    verdict: Verdict | None = None
    refused: str | None = None
    claims: Verdict | None = None
    authenticated: str = ""


def sign(verdict: Verdict, key: Ed25519PrivateKey) -> bytes:
    """Make the record of a verdict."""
    text = msgspec.json.encode(verdict).decode()
    signature = base64.b64encode(key.sign(DOMAIN + text.encode())).decode()
    return msgspec.json.encode(Envelope(schema=1, signed=text, key=key_id(key.public_key()), signature=signature))


def check(value: bytes | None, reviewers: Mapping[str, Reviewer], at_us: int) -> Checked:
    """Return what a record of `feedback`, written at `at_us`, proves; total on any bytes and any configuration."""
    identity = hashlib.blake2b(value or b"", digest_size=12).hexdigest()
    if value is None or len(value) > BYTES_MAX:
        return Checked(id=identity, refused="not_a_verdict")
    try:
        envelope = msgspec.json.decode(value, type=Envelope)
        verdict = msgspec.json.decode(envelope.signed, type=Verdict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Checked(id=identity, refused="not_a_verdict")
    # The verdict's name is that of its content: signed again or sent again, it is the same one.
    identity = hashlib.blake2b(envelope.signed.encode("utf-8", "backslashreplace"), digest_size=12).hexdigest()
    refused = _refused(envelope, verdict, reviewers.get(verdict.who), at_us)
    if refused is not None:
        return Checked(id=identity, refused=refused, claims=verdict)
    return Checked(id=identity, verdict=verdict, authenticated=f"{KEY_PREFIX}{envelope.key}")


def _refused(envelope: Envelope, verdict: Verdict, reviewer: Reviewer | None, at_us: int) -> str | None:
    if not envelope.signature:
        return "unsigned"
    if reviewer is None:
        return "unlisted"
    try:
        public = public_key(reviewer.key)
        signature = base64.b64decode(envelope.signature, validate=True)
        public.verify(signature, DOMAIN + envelope.signed.encode("utf-8", "backslashreplace"))
    except (InvalidSignature, ValueError, binascii.Error, ConfigurationError):
        return "wrong_signature"
    if envelope.key != key_id(public):
        return "wrong_signature"
    if not verdict.why.strip():
        return "no_reason"
    wanted = _SCOPE_MATCH.get(verdict.scope)
    if wanted is None or verdict.scope not in (reviewer.scopes or SCOPES):
        return "scope"
    if set(verdict.match) != wanted or not all(verdict.match.values()):
        return "scope"
    if verdict.expires_us <= at_us:
        return "expired"
    if verdict.expires_us - verdict.decided_us > int(reviewer.longest * 1_000_000):
        return "too_long"
    return None


_SCOPE_MATCH: dict[str, set[str]] = {
    "same-finding": {"finding"},
    "policy-and-principal": {"policy", "principal"},
    "policy-and-relation": {"policy", "relation"},
    "policy-and-cluster": {"policy", "cluster"},
}


def rules(checked: Checked) -> list[Rule]:
    """Return what a believed verdict has the judge do; names in it stand for themselves, `*` too."""
    verdict = checked.verdict
    if verdict is None:
        return []
    found = []

    def rule(match: Mapping[str, str], effect: Literal["quiet", "promote"]) -> Rule:
        return Rule(
            id=f"verdict:{checked.id}",
            match={name: [glob.escape(text)] for name, text in sorted(match.items()) if name in MATCHES},
            from_us=0,
            until_us=verdict.expires_us,
            reason=verdict.why,
            owner=verdict.who,
            effect=effect,
        )

    if verdict.verdict == "false-positive":
        found.append(rule(verdict.match, "quiet"))
    if verdict.promote and isinstance(who := verdict.learn.get("principal"), str) and who:
        found.append(rule({"principal": who}, "promote"))
    return found


def match_of(alert: Mapping[str, Any], scope: str) -> dict[str, str]:
    """Take what a scope needs out of an alert as the topic carries it.

    Raise `ConfigurationError` when the alert does not have it.
    """
    ours = alert.get("unmapped")
    facts: Mapping[str, Any] = ours if isinstance(ours, dict) else {}
    relations = facts.get("relations")
    values = {
        "finding": facts.get("finding_key"),
        "policy": str(facts.get("detector") or "").removeprefix("policy:"),
        "principal": facts.get("principal"),
        "relation": relations[0] if isinstance(relations, list) and len(relations) == 1 else None,
        "cluster": facts.get("cluster"),
    }
    match: dict[str, str] = {}
    for name in sorted(_SCOPE_MATCH[scope]):
        value = values[name]
        if not isinstance(value, str) or not value:
            raise ConfigurationError(
                f"--scope {scope}: this alert names no {name}, or several; --scope same-finding always can"
            )
        match[name] = value
    return match


def lasting_us(why: str, scope: str, expires: str, who: str, reviewer: Reviewer) -> int:
    """Return for how long a verdict is to hold, of a text such as `30d`, where its reviewer may give it.

    Raise `ConfigurationError` that names the option of `pgwitness alerts resolve` that does not go.
    """
    try:
        lasts_us = int(Duration.parse(expires) * 1_000_000)
    except ValueError as error:
        raise ConfigurationError(f"--expires: {error}") from None
    if not 0 < lasts_us <= int(reviewer.longest * 1_000_000):
        raise ConfigurationError(f"--expires: longer than nothing and at most reviewers.{who}.longest")
    if scope not in (reviewer.scopes or SCOPES):
        raise ConfigurationError(
            f"--scope {scope}: reviewers.{who}.scopes allows {', '.join(reviewer.scopes or SCOPES)}"
        )
    if not why.strip():
        raise ConfigurationError("--reason: say why; an empty reason is refused")
    return lasts_us


def decide(
    alert: Mapping[str, Any], word: Word, why: str, *, scope: str, promote: bool, who: str, now_us: int, lasts_us: int
) -> Verdict:
    """Make a verdict on an alert as the topic carries it. Raise `ConfigurationError` as `lasting_us` does."""
    ours, finding = alert.get("unmapped"), alert.get("finding_info")
    facts: Mapping[str, Any] = ours if isinstance(ours, dict) else {}
    info: Mapping[str, Any] = finding if isinstance(finding, dict) else {}
    if facts.get("detector") in ("digest", "behaviour_group"):
        raise ConfigurationError("UID: this alert stands for others: decide on those that it lists under `members`")
    if promote and not facts.get("principal"):
        raise ConfigurationError("--promote: this alert names no principal whose behaviour could be promoted")
    return Verdict(
        uid=str(info.get("uid") or ""),
        verdict=word,
        scope=scope,
        match=match_of(alert, scope),
        why=why,
        who=who,
        decided_us=now_us,
        expires_us=now_us + lasts_us,
        cluster=str(facts.get("cluster") or ""),
        title=str(info.get("title") or ""),
        promote=promote,
        learn=learned(alert),
    )


def signed(text: str, signature: str, reviewer: Reviewer) -> bytes:
    """Make the record of a verdict that a reviewer has signed elsewhere; `check` says whether they did."""
    key = key_id(public_key(reviewer.key))
    return msgspec.json.encode(Envelope(schema=1, signed=text, key=key, signature=signature))


def learned(alert: Mapping[str, Any]) -> dict[str, Any]:
    """Take out of an alert what the habits of its principal can learn from."""
    ours = alert.get("unmapped")
    facts: Mapping[str, Any] = ours if isinstance(ours, dict) else {}
    names = ("principal", "role", "cluster", "peer_group", "operation", "relations", "rows", "client_addr")
    return {name: facts[name] for name in (*names, "application") if facts.get(name) not in (None, [], "")}


def public_key(text: str) -> Ed25519PublicKey:
    """Read a public key as the configuration carries it. Raise `ConfigurationError`."""
    try:
        if not text.startswith(KEY_PREFIX):
            raise ValueError(text)
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text.removeprefix(KEY_PREFIX), validate=True))
    except (ValueError, binascii.Error):
        raise ConfigurationError(
            f"a reviewer's key is {KEY_PREFIX} and 32 bytes in base64, as `pgwitness alerts key` prints it"
        ) from None


def public_text(key: Ed25519PublicKey) -> str:
    """Write a public key for the configuration."""
    return KEY_PREFIX + base64.b64encode(_raw(key)).decode()


def key_id(key: Ed25519PublicKey) -> str:
    """Name a public key: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(_raw(key)).hexdigest()[:16]


def private_key(pem: bytes) -> Ed25519PrivateKey:
    """Read a reviewer's private key. Raise `ConfigurationError`."""
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"no private key in PEM without a password: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError("a reviewer's key is an Ed25519 key; `pgwitness alerts key FILE` makes one")
    return key


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """Write a private key as PEM (PKCS 8)."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
