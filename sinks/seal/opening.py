"""The seal that a configuration describes: its sealer, its anchors, and the keys with which it is checked."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from pgwitness.core.config import Config, S3Path
from pgwitness.core.errors import ConfigurationError, NotInOrder
from sinks.lake.opening import lake_store
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder, Store
from sinks.seal import anchors, keys, place
from sinks.seal.anchoring import Anchoring
from sinks.seal.anchors.timestamp import certificates
from sinks.seal.sealer import Sealer
from sinks.seal.tlog.note import PublicKey, public_key

KEY_BYTES_MAX = 10_000


class Opened(NamedTuple):
    """The sealer of a configuration, and its anchors."""

    sealer: Sealer
    anchoring: Anchoring


def open_sealer(config: Config, clock_us: Callable[[], int] = lambda: time.time_ns() // 1_000) -> Opened:
    """Return sealer and anchors. Raise `ConfigurationError` when it has no key, or its memory would lie in the lake."""
    lake, memory = config.lake.path, config.seal.state_path
    if isinstance(lake, Path) and memory.resolve().is_relative_to(lake.resolve()):
        raise ConfigurationError(
            f"seal.state_path {memory} lies in the lake, which may be put back from a copy: name a folder elsewhere"
        )
    signer = keys.signer(config)
    seal, kept = seal_store(config), Folder(memory, Files())
    anchoring = Anchoring(anchors.make(config), seal, kept, config.seal.anchor_every, clock_us)
    return Opened(Sealer(lake_store(config), seal, kept, signer, anchoring.known), anchoring)


@contextmanager
def alone(config: Config) -> Iterator[None]:
    """Be the only sealer of this memory: two at once could put an older checkpoint over a newer one.

    Raise `ConfigurationError` when the memory cannot be written, `NotInOrder` when another one runs.
    """
    memory = config.seal.state_path
    try:
        Files().make_folder(memory)
        file = (memory / "lock").open("wb")
    except OSError as error:
        raise ConfigurationError(
            f"seal.state_path {memory} cannot be written ({error.strerror}): give it to the sealer's user"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise NotInOrder(f"another sealer has its memory in {memory}: one is enough") from None
        yield


def seal_store(config: Config) -> Store:
    """Return where the seal lies: in the lake, or in the folder that `seal.path` names. Nothing is opened yet."""
    lake = config.lake.path
    if isinstance(lake, S3Path) and config.seal.path is None:
        from sinks.lake.storage.objects import Objects

        return Objects(lake / place.FOLDER, config.lake.s3)
    return place.seal_store(config.seal.path or place.folder_of(config.lake.folder))


def checking_key(config: Config, given: str | None = None) -> PublicKey:
    """Return the key to check with: what was given (a key, or its file), else what the configuration has.

    Raise `ConfigurationError` when there is none.
    """
    if given is not None:
        return _given(given)
    known = keys.known_key(config)
    if known is not None:
        return known
    path = keys.key_file(config)
    if path is not None and path.exists():
        return keys.read_key(path).public()
    raise ConfigurationError(
        "no public key to check with: name one with --key, as `pgwitness seal init` printed it, or set seal.public_key"
    )


def trusted_certificates(config: Config, given: Path | None = None) -> tuple[x509.Certificate, ...]:
    """Return the certificates that time stamps are checked with: those that were given, else the configuration's."""
    paths = [given] if given is not None else [one.certificates for one in config.seal.anchors.values()]
    return tuple(found for path in paths if path is not None for found in certificates(path))


def _given(text: str) -> PublicKey:
    try:
        if "+" not in text or Path(text).exists():
            with Path(text).open(encoding="utf-8") as file:
                text = file.read(KEY_BYTES_MAX)
        return public_key(text)
    except OSError as error:
        raise ConfigurationError(f"--key {text}: {error.strerror}; name a public key or its file") from error
    except ValueError as error:
        raise ConfigurationError(f"--key: {error}") from error


def is_sealed(config: Config) -> bool:
    """Say whether the lake is to be sealed, or has a seal."""
    wanted = config.seal.key or config.seal.sign_command or config.seal.public_key or config.lake.signing_key_file
    path = config.lake.path
    return bool(wanted) or (isinstance(path, Path) and place.folder_of(path, config.seal.path).exists())


def sealed_to(config: Config) -> int:
    """Return the last entry of the lake that is sealed, -1 for none; the signature is checked where the key is known.

    Raise `ValueError`, `OSError` and `NotInOrder` as `sinks.seal.place.sealed_to`, which holds it against the lake.
    """
    return place.sealed_to(seal_store(config), keys.known_key(config), lake_store(config))
