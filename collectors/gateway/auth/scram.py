"""SCRAM-SHA-256 with an end at the gateway (RFC 5802, RFC 7677, RFC 5929; PostgreSQL's manual, 55.3): pure.

The gateway is the server of one exchange and the client of another. It proves to the client that it has the server's
own verifier, and takes from the client's proof the ClientKey, which is what a login upstream takes: no password passes.
A name that has no verifier fails like a wrong password, after the same exchange.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from binascii import Error as NoBase64
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509

PLAIN: Final = "SCRAM-SHA-256"
PLUS: Final = "SCRAM-SHA-256-PLUS"
BINDING: Final = "tls-server-end-point"
_VERIFIER: Final = re.compile(r"SCRAM-SHA-256\$(\d{1,9}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")
MESSAGE_CHARS_MAX: Final = 4_096
ITERATIONS: Final = 4_096
"""PostgreSQL's own number for a new password (`scram_iterations`)."""
ITERATIONS_MAX: Final = 1_000_000
"""More a server may not ask for: the gateway would calculate and serve nobody."""


class ScramError(Exception):
    """The exchange cannot go on; `denied` where the reason is that the proof is wrong, or that there is nobody."""

    def __init__(self, message: str, *, denied: bool = False) -> None:
        super().__init__(message)
        self.denied = denied


@dataclass(frozen=True)
class Verifier:
    """What a server keeps of a password (`pg_authid.rolpassword`)."""

    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Read a verifier as PostgreSQL writes it. Raise `ValueError` for anything else; the text is not quoted."""
        found = _VERIFIER.fullmatch(text)
        if found is None:
            raise ValueError("no verifier of SCRAM-SHA-256")
        iterations, salt, stored, server = found.groups()
        made = cls(int(iterations), b64decode(salt), b64decode(stored), b64decode(server))
        if not made.iterations or len(made.stored_key) != 32 or len(made.server_key) != 32:
            raise ValueError("no verifier of SCRAM-SHA-256")
        return made

    @classmethod
    def of(cls, password: str, salt: bytes, iterations: int = ITERATIONS) -> Verifier:
        """Make the verifier of a password. Raise `ValueError` for one that has to be prepared first (RFC 4013)."""
        return Password(password).keys(salt, iterations).verifier

    def text(self) -> str:
        """Write it as PostgreSQL does."""
        salt, stored, server = (b64encode(value).decode() for value in (self.salt, self.stored_key, self.server_key))
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"

    @classmethod
    def nobody(cls, name: str, secret: bytes) -> Verifier:
        """Make up a verifier that no password fits, the same one for the same name."""
        salt = hmac.digest(secret, name.encode(), "sha256")[:16]
        return cls(ITERATIONS, salt, hmac.digest(secret, b"stored" + salt, "sha256"), bytes(32))


@dataclass(frozen=True)
class Keys:
    """What a login upstream needs: whoever has these can log in as the role."""

    verifier: Verifier
    client_key: bytes = field(repr=False)


class Password:
    """A password that the gateway has itself, and the keys that follow from it, as long as their salt is the same."""

    def __init__(self, text: str) -> None:
        if not text or not text.isascii() or not text.isprintable():
            raise ValueError("a password has to be of printable ASCII characters")
        self._text = text
        self._keys: Keys | None = None

    def keys(self, salt: bytes, iterations: int) -> Keys:
        """Derive the keys (RFC 5802, section 3); the last ones are remembered, for this takes milliseconds."""
        known = self._keys
        if known is not None and (known.verifier.salt, known.verifier.iterations) == (salt, iterations):
            return known
        salted = hashlib.pbkdf2_hmac("sha256", self._text.encode(), salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        verifier = Verifier(iterations, salt, hashlib.sha256(client_key).digest(), server_key)
        self._keys = Keys(verifier, client_key)
        return self._keys


Secret = Keys | Password
"""What a login upstream proves itself with."""


class ServerExchange:
    """The server's part. `binding` is the channel's data where the client came by TLS; `nonce` is random."""

    def __init__(self, verifier: Verifier | None, name: str, secret: bytes, nonce: str, binding: bytes | None) -> None:
        self._known = verifier is not None
        self._verifier = verifier or Verifier.nobody(name, secret)
        self._nonce = nonce
        self._binding = binding
        self._header = ""
        self._first_bare = ""
        self._server_first = ""

    @property
    def mechanisms(self) -> list[str]:
        """What is offered, the best first."""
        return [PLUS, PLAIN] if self._binding is not None else [PLAIN]

    def first(self, mechanism: str, message: bytes) -> bytes:
        """Answer the client's first message. Raise `ScramError`."""
        if mechanism not in self.mechanisms:
            raise ScramError("client selected an invalid SASL authentication mechanism")
        text = _text(message)
        flag, _, rest = text.partition(",")
        authzid, _, bare = rest.partition(",")
        self._check_flag(flag, mechanism)
        if authzid:
            raise ScramError("client uses authorization identity, but it is not supported")
        if bare.startswith("m="):
            raise ScramError("client requires an unsupported SCRAM extension")
        said = _attributes(bare)
        nonce = said.get("r", "")
        if "n" not in said or not nonce or not nonce.isascii() or not nonce.isprintable():
            raise ScramError("malformed SCRAM message: a name and a nonce are missing")
        self._header, self._first_bare = f"{flag},{authzid},", bare
        self._nonce = nonce + self._nonce
        salt = b64encode(self._verifier.salt).decode()
        self._server_first = f"r={self._nonce},s={salt},i={self._verifier.iterations}"
        return self._server_first.encode()

    def _check_flag(self, flag: str, mechanism: str) -> None:
        if mechanism == PLUS:
            if flag != f"p={BINDING}":
                raise ScramError("client selected SCRAM-SHA-256-PLUS, but the message does not bind the channel so")
        elif flag == "y":
            if self._binding is not None:
                raise ScramError(
                    "SCRAM channel binding negotiation error: the client supports it and thinks the server does not"
                )
        elif flag != "n":
            raise ScramError("client selected SCRAM-SHA-256 without channel binding, but the message includes it")

    def final(self, message: bytes) -> tuple[bytes, Keys]:
        """Answer the client's last message; return what the login upstream needs too. Raise `ScramError`."""
        text = _text(message)
        without, separator, proof_text = text.rpartition(",p=")
        said = _attributes(without)
        expected = self._header.encode() + (self._binding or b"" if self._header.startswith("p=") else b"")
        if not separator or said.get("c") != b64encode(expected).decode():
            raise ScramError("SCRAM channel binding check failed")
        if not hmac.compare_digest(said.get("r", "").encode(), self._nonce.encode()):
            raise ScramError("malformed SCRAM message: the nonce does not match")
        proof = _decoded(proof_text)
        signed = f"{self._first_bare},{self._server_first},{without}".encode()
        signature = hmac.digest(self._verifier.stored_key, signed, "sha256")
        if len(proof) != len(signature):
            raise ScramError("malformed SCRAM message: the proof")
        client_key = _xor(proof, signature)
        right = hmac.compare_digest(hashlib.sha256(client_key).digest(), self._verifier.stored_key)
        if not right or not self._known:
            raise ScramError("the proof does not fit", denied=True)
        ending = b"v=" + b64encode(hmac.digest(self._verifier.server_key, signed, "sha256"))
        return ending, Keys(self._verifier, client_key)


class ClientExchange:
    """The client's part, with a password or with keys instead of one."""

    def __init__(self, secret: Secret, nonce: str) -> None:
        self._secret = secret
        self._bare = f"n=,r={nonce}"
        self._nonce = nonce
        self._signature = b""

    def first(self) -> bytes:
        """Write the first message."""
        return b"n,," + self._bare.encode()

    def final(self, message: bytes) -> bytes:
        """Answer the server's first message. Raise `ScramError`, above all where the role's password has changed."""
        text = _text(message)
        said = _attributes(text)
        if not said.get("r", "").startswith(self._nonce) or said.get("r") == self._nonce:
            raise ScramError("the server's nonce does not continue ours")
        keys = self._keys(said)
        verifier = keys.verifier
        if _decoded(said.get("s", "")) != verifier.salt or said.get("i") != str(verifier.iterations):
            raise ScramError(
                "the server has another verifier than the gateway: the password has changed; connect again"
            )
        without = f"c=biws,r={said['r']}"
        signed = f"{self._bare},{text},{without}".encode()
        proof = _xor(keys.client_key, hmac.digest(verifier.stored_key, signed, "sha256"))
        self._signature = b"v=" + b64encode(hmac.digest(verifier.server_key, signed, "sha256"))
        return f"{without},p={b64encode(proof).decode()}".encode()

    def _keys(self, said: dict[str, str]) -> Keys:
        if isinstance(self._secret, Keys):
            return self._secret
        iterations = said.get("i", "")
        if not iterations.isdecimal() or not 1 <= int(iterations[:9]) <= ITERATIONS_MAX or len(iterations) > 9:
            raise ScramError(f"the server asks for {iterations[:20]!r} iterations; {ITERATIONS_MAX} at most")
        return self._secret.keys(_decoded(said.get("s", "")), int(iterations))

    def ended(self, message: bytes) -> None:
        """Check the server's last message: it has the verifier too. Raise `ScramError`."""
        if not hmac.compare_digest(message, self._signature) or not self._signature:
            raise ScramError("the server's signature does not fit")


def endpoint(certificate_der: bytes) -> bytes:
    """Return what `tls-server-end-point` binds to: a hash of the certificate by its own signature's (RFC 5929, 4.1)."""
    certificate = x509.load_der_x509_certificate(certificate_der)
    algorithm = certificate.signature_hash_algorithm
    name = algorithm.name if algorithm is not None else "sha256"
    return hashlib.new("sha256" if name in ("md5", "sha1") else name, certificate_der).digest()


def _text(message: bytes) -> str:
    try:
        text = message.decode()
    except UnicodeDecodeError:
        raise ScramError("malformed SCRAM message: no text") from None
    if len(text) > MESSAGE_CHARS_MAX or "\0" in text:
        raise ScramError("malformed SCRAM message")
    return text


def _attributes(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(","):
        name, separator, value = part.partition("=")
        if not separator or len(name) != 1 or name in found:
            raise ScramError("malformed SCRAM message: an attribute")
        found[name] = value
    return found


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (NoBase64, ValueError):
        raise ScramError("malformed SCRAM message: no base64") from None


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
