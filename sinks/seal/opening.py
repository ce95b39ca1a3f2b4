"""The seal that a configuration describes: its sealer, its folder, and the keys with which it is checked."""

from __future__ import annotations

from pathlib import Path

from pgwitness.core.config import Config
from pgwitness.core.errors import ConfigurationError
from sinks.lake.files import Files
from sinks.lake.store import Folder
from sinks.seal import keys, place
from sinks.seal.note import PublicKey, public_key
from sinks.seal.sealer import Sealer

KEY_BYTES_MAX = 10_000


def open_sealer(config: Config) -> Sealer:
    """Return the sealer. Raise `ConfigurationError` when it has no key, or its memory would lie in the lake."""
    lake = config.lake.path
    memory = config.seal.state_path
    if memory.resolve().is_relative_to(lake.resolve()):
        raise ConfigurationError(
            f"seal.state_path {memory} lies in the lake, which may be put back from a copy: name a folder elsewhere"
        )
    signer = keys.signer(config)
    folder = place.folder_of(lake, config.seal.path)
    return Sealer(lake, Folder(lake, Files()), place.seal_store(folder), Folder(memory, Files()), signer)


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


def sealed_to(config: Config) -> int:
    """Return the last entry of the lake that is sealed, -1 for none; the signature is checked where the key is known.

    Raise `ValueError` and `OSError` as `sinks.seal.place.sealed_to`.
    """
    return place.sealed_to(place.folder_of(config.lake.path, config.seal.path), keys.known_key(config))
