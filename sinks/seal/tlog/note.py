"""Signed notes with Ed25519 (C2SP signed-note v1.0.0): text, a blank line, and lines with signatures. Pure.

Keys are written as Go's `golang.org/x/mod/sumdb/note` writes them, so that its tools read them: a public key is
`NAME+ID+BASE64`, a private one `PRIVATE+KEY+NAME+ID+BASE64`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

ED25519 = b"\x01"
"""The type of signature, as signed-note numbers them."""
NOTE_BYTES_MAX = 1_000_000
SIGNATURES_MAX = 64
_PRIVATE = "PRIVATE+KEY+"
_NAME = re.compile(r"[^\s+\x00-\x1f]+")
_DASH = "— "


class NotSigned(ValueError):
    """A note is none, is not signed by the key, or its signature does not fit."""


class PublicKey(Struct, frozen=True):
    """A key that checks notes: the name and id that its signatures carry, and the 32 bytes of Ed25519."""

    name: str
    key_id: bytes
    public: bytes

    def text(self) -> str:
        """Write the key as one word (a *vkey*)."""
        return f"{self.name}+{self.key_id.hex()}+{_base64(ED25519 + self.public)}"


class PrivateKey(Struct, frozen=True):
    """A key that signs notes; `seed` is its secret."""

    name: str
    seed: bytes

    def text(self) -> str:
        """Write the key as one word, which is a secret."""
        return f"{_PRIVATE}{self.name}+{self.public().key_id.hex()}+{_base64(ED25519 + self.seed)}"

    def public(self) -> PublicKey:
        """Give the key that checks what this one signs."""
        public = Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()
        return PublicKey(self.name, key_id(self.name, public), public)

    def sign(self, text: bytes) -> bytes:
        """Sign a note's text: the 64 bytes of the signature."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(text)


def key_id(name: str, public: bytes) -> bytes:
    """Give the four bytes by which signatures name their key."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4]


def is_name(text: str) -> bool:
    """Say whether a key can have this name: no spaces, no plus, nothing unprintable."""
    return _NAME.fullmatch(text) is not None


def public_key(text: str) -> PublicKey:
    """Read a public key. Raise `ValueError` when it is none, saying how one looks."""
    name, key = _parts(text.strip())
    found = PublicKey(name, key_id(name, key), key)
    if found.text() != text.strip():
        raise ValueError("the public key is damaged: its id is not that of name and key")
    return found


def private_key(text: str) -> PrivateKey:
    """Read a private key. Raise `ValueError` when it is none; the text never repeats it."""
    if not text.strip().startswith(_PRIVATE):
        raise ValueError("not a private key: one begins with PRIVATE+KEY+")
    name, seed = _parts(text.strip().removeprefix(_PRIVATE))
    found = PrivateKey(name, seed)
    if found.text() != text.strip():
        raise ValueError("the private key is damaged: its id is not that of name and key")
    return found


def signed(text: bytes, key: PublicKey, signature: bytes) -> bytes:
    """Put a text and the signature that a key made of it together as a note."""
    return text + f"\n{_DASH}{key.name} {_base64(key.key_id + signature)}\n".encode()


def opened(content: bytes, key: PublicKey) -> bytes:
    """Give a note's text if this key signed it. Raise `NotSigned` otherwise, saying why."""
    text, lines = _taken_apart(content)
    mine = [signature for name, signature in lines if name == key.name and signature[:4] == key.key_id]
    if not mine:
        names = ", ".join(sorted({name for name, _ in lines}))
        raise NotSigned(f"it is not signed by {key.name} with the key {key.key_id.hex()}, but by {names or 'nobody'}")
    for signature in mine:
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(signature[4:], text)
        except InvalidSignature:
            raise NotSigned(f"the signature of {key.name} does not fit its text: it was altered") from None
    return text


def _taken_apart(content: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    if len(content) > NOTE_BYTES_MAX:
        raise NotSigned(f"not a signed note: longer than {NOTE_BYTES_MAX} bytes")
    try:
        whole = content.decode()
    except UnicodeDecodeError:
        raise NotSigned("not a signed note: not UTF-8") from None
    text, blank, block = whole.rpartition("\n\n")
    if not blank or not block.endswith("\n") or any(letter < " " and letter != "\n" for letter in whole):
        raise NotSigned("not a signed note: a text, a blank line, and lines with signatures")
    lines = block.removesuffix("\n").split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise NotSigned(f"not a signed note: more than {SIGNATURES_MAX} signatures")
    return (text + "\n").encode(), [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes]:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    found = decoded(encoded)
    if not line.startswith(_DASH) or not space or not is_name(name) or found is None or len(found) < 5:
        raise NotSigned("not a signed note: a line of its signatures is none")
    return name, found


def _parts(text: str) -> tuple[str, bytes]:
    name, _, rest = text.partition("+")
    _, _, encoded = rest.partition("+")
    key = decoded(encoded)
    if not is_name(name) or key is None or len(key) != 33 or key[:1] != ED25519:
        raise ValueError("not an Ed25519 key of a signed note, which is NAME+ID+BASE64")
    return name, key[1:]


def decoded(text: str) -> bytes | None:
    """Read base64 as it is written here; None when it is otherwise, so that nothing has two spellings."""
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return found if _base64(found) == text else None


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
