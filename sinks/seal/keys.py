"""The sealer's key: a file that only its user reads, or a command that signs (a KMS, an HSM).

A command gets the bytes to sign on its standard input and prints the 64 bytes of the Ed25519 signature, raw or in
base64. What it prints is checked with the public key before it is used.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct

from pgwitness.core.config import Config
from pgwitness.core.errors import ConfigurationError, Retry, Stop
from sinks.lake.log import chain
from sinks.seal.tlog import note
from sinks.seal.tlog.note import PrivateKey, PublicKey

SIGNATURE_BYTES = 64
SEED_BYTES = 32
OTHERS = 0o077
COMMAND_S_MAX = 60.0


class Signer(Struct, frozen=True):
    """What signs: `sign` gives the signature of a text. Raises `Retry` when it cannot at the moment."""

    public: PublicKey
    sign: Callable[[bytes], bytes]


def origin_of(lake_id: str) -> str:
    """Name the log of a lake, if nobody names it otherwise."""
    return f"pgwitness.local/lake/{lake_id}"


def key_file(config: Config) -> Path | None:
    """Give the file of the private key: `seal.key`, else `lake.signing_key_file`."""
    return config.seal.key or config.lake.signing_key_file


def make_key(path: Path, name: str) -> PublicKey:
    """Make a key and its file, which must not be there yet. Raise `ConfigurationError` when it cannot be made."""
    if not note.is_name(name):
        raise ConfigurationError(f"{name!r} cannot be the name of a key: no spaces, no plus sign, not empty")
    key = PrivateKey(name, secrets.token_bytes(SEED_BYTES))
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(key.text() + "\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise ConfigurationError(
            f"{path} is there already: a lake keeps its key. To begin with another one, move the file away"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{path} could not be written ({error.strerror}): make its folder first") from error
    return key.public()


def signer(config: Config) -> Signer:
    """Give what the configuration signs with. Raise `ConfigurationError` when there is nothing, or others read it."""
    expected = known_key(config)
    if config.seal.sign_command:
        if expected is None:
            raise ConfigurationError("seal.sign_command needs seal.public_key, with which signatures are checked")
        public = expected
        return Signer(public, lambda text: run_command(config.seal.sign_command, public, text))
    path = key_file(config)
    if path is None:
        raise ConfigurationError(
            "the sealer has no key: set seal.key to its file (`pgwitness seal init` makes one), or seal.sign_command"
        )
    key = read_key(path)
    if expected is not None and expected != key.public():
        raise ConfigurationError(f"{path} is not the private key of seal.public_key: correct one of them")
    return Signer(key.public(), key.sign)


def read_key(path: Path) -> PrivateKey:
    """Read a private key. Raise `ConfigurationError` when it is none, or when others than its user may read it."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"the key {path} could not be read ({error}); `pgwitness seal init` makes one, as the sealer's user"
        ) from error
    if mode & OTHERS:
        raise ConfigurationError(f"others may read the key {path}: chmod 600 {path}")
    try:
        return note.private_key(text)
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def known_key(config: Config) -> PublicKey | None:
    """Give the public key that the configuration names, None when it names none."""
    if not config.seal.public_key:
        return None
    try:
        return note.public_key(config.seal.public_key)
    except ValueError as error:
        raise ConfigurationError(f"seal.public_key: {error}") from error


def run_command(command: Sequence[str], public: PublicKey, text: bytes) -> bytes:
    """Have a command sign. Raise `Retry` when it fails, `Stop` when it signs with another key."""
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own command
            list(command), input=text, capture_output=True, timeout=COMMAND_S_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Retry(f"seal.sign_command did not sign ({error}): the next round tries again") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[:500]
        raise Retry(f"seal.sign_command ended with {done.returncode} ({said}): the next round tries again")
    signature = done.stdout
    if len(signature) != SIGNATURE_BYTES:
        signature = note.decoded(done.stdout.decode(errors="replace").strip()) or b""
    try:
        Ed25519PublicKey.from_public_bytes(public.public).verify(signature, text)
    except InvalidSignature:
        raise Stop(
            "seal.sign_command did not print an Ed25519 signature of what it was given (64 bytes, raw or in base64) by "
            f"the key seal.public_key ({public.name}): correct one of them"
        ) from None
    return signature


def lake_id(entry: bytes) -> str:
    """Read the lake's id out of entry 0."""
    begin = chain.decode(entry, 0)
    return begin.lake if isinstance(begin, chain.Begin) else ""
