"""A lake in a bucket of S3, or of another storage that speaks its protocol: the same operations as on a folder.

`create` is a PUT with `If-None-Match: *`, of which one caller wins; without an answer it raises `Refused`, and nobody
knows whether the object is there: whoever asks then reads it, as `sinks.lake.log.protocol` does. An object is durable,
and in every list, when its PUT is answered. There are no folders to make and nothing is renamed.
"""

from __future__ import annotations

import io
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import IO, TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError
from obstore.store import S3Store

from pgwitness.core.config import S3, S3Path
from pgwitness.core.errors import ConfigurationError, Stop
from sinks.lake.storage.files import PRIVATE
from sinks.lake.storage.refusals import Refused, refusal
from sinks.lake.storage.store import Grows

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

CONNECT_S, REQUEST_S, RETRY_S, RETRIES = 3.0, 30.0, 10.0, 3
"""How long a connection and one request may take, and for how long, and how often, a request is tried again.

Short, since a worker waits meanwhile, and the broker for it: it tries again by itself, and tells why.
"""
READ_BYTES = 1024**2
"""What an open object reads ahead."""
PART_BYTES = 16 * 1024**2
"""What one request sends of a file that is longer than two of them: so much goes through within `REQUEST_S`."""


class Objects:
    """A lake in a bucket, at `path`. Every operation raises `Refused`, an `OSError` that says what to do."""

    def __init__(self, path: S3Path, settings: S3 | None = None, **options: Any) -> None:
        """Open nothing yet; `options` are obstore's own, for tests."""
        self.path = path
        self.settings = settings or S3()
        self.options = options
        self._bucket: S3Store | None = None
        self._exclusive = False

    @property
    def root(self) -> str:
        """What `views.sql` puts before names."""
        return f"{self.path}/"

    @property
    def bucket(self) -> S3Store:
        """The connection. Raise `ConfigurationError` when it cannot be made of the settings."""
        if self._bucket is None:
            self._bucket = _connect(self.path, self.settings, self.options)
        return self._bucket

    def prepare(self) -> None:
        """Look whether objects can be made exclusively. Raise `Stop` where they are written over instead."""
        if self._exclusive:
            return
        probe = f"{PRIVATE}/probe-{uuid.uuid4().hex}"
        self.create(probe, b"1\n")  # without an answer it was tried again, and may have met itself
        if self.create(probe, b"2\n") or self.read(probe) != b"1\n":
            raise Stop(
                f"{self.path}: this storage writes over an object that `If-None-Match: *` protects, so that two "
                "workers could lose each other's evidence: update it, or put the lake on one that keeps to it"
            )
        self.remove(probe)
        self._exclusive = True

    def sweep(self) -> None:
        """Do nothing: an object is never there in half."""

    def create(self, name: str, content: bytes) -> bool:
        """Make an object whole, if its name is free; False when it was taken."""
        with self._sentences():
            try:
                obstore.put(self.bucket, name, content, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    def put(self, name: str, content: bytes) -> None:
        """Write an object under a name that nobody else has; what a crash leaves of it is in no entry."""
        long = len(content) > 2 * PART_BYTES
        with self._sentences():
            obstore.put(self.bucket, name, content, use_multipart=long, chunk_size=PART_BYTES, max_concurrency=2)

    def begin(self, name: str) -> Grows:
        """Begin an object that is too large for memory, under a name that nobody else has."""
        return _Growing(self, name)

    def upload(self, name: str, file: IO[bytes]) -> None:
        """Write an object of what stands in a file of this host."""
        with self._sentences():
            obstore.put(self.bucket, name, file, chunk_size=PART_BYTES, max_concurrency=2)

    def replace(self, name: str, content: bytes) -> None:
        """Write an object over whatever has its name."""
        self.put(name, content)

    def read(self, name: str) -> bytes | None:
        """Give what an object holds, None when there is none."""
        with suppress(FileNotFoundError), self._sentences():
            return bytes(obstore.get(self.bucket, name).bytes())
        return None

    def read_at_most(self, name: str, bytes_max: int) -> bytes | None:
        """Give what an object holds, or so many bytes of one that is longer; None when there is none."""
        with suppress(FileNotFoundError), self._sentences():
            found = obstore.get(self.bucket, name)
            if found.meta["size"] <= bytes_max:
                return bytes(found.bytes())
            return self.read_range(name, 0, bytes_max)
        return None

    def open(self, name: str) -> IO[bytes]:
        """Open an object for reading from any place. Raise `FileNotFoundError` when there is none."""
        with self._sentences():
            length = obstore.head(self.bucket, name)["size"]
        return io.BufferedReader(_Reading(self, name, length), READ_BYTES)

    def written_us(self, name: str) -> int | None:
        """Give when an object was written last, None when there is none."""
        with suppress(FileNotFoundError), self._sentences():
            return _us(obstore.head(self.bucket, name)["last_modified"])
        return None

    def has(self, name: str) -> bool:
        """Say whether there is an object of this name."""
        if self.written_us(name) is not None:
            return True
        self.names(PRIVATE)  # an answer without a body does not say that there is no bucket
        return False

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """Give a part of an object. Raise `FileNotFoundError` when there is none."""
        with self._sentences():
            return bytes(obstore.get_range(self.bucket, name, start=start, length=length))

    def names(self, folder: str) -> list[str]:
        """List what is right below a folder, in order; nothing when nothing is."""
        with self._sentences():
            found = obstore.list_with_delimiter(self.bucket, folder)
        paths = [*found["common_prefixes"], *(one["path"] for one in found["objects"])]
        return sorted({path.rpartition("/")[2] for path in paths})

    def walk(self, folder: str) -> Iterator[tuple[str, int]]:
        """Give all objects below a folder by their names, with when each was written (µs), in no order."""
        with self._sentences():
            for several in obstore.list(self.bucket, folder, chunk_size=1_000):
                yield from ((one["path"], _us(one["last_modified"])) for one in several)

    def remove(self, name: str) -> None:
        """Remove an object; one that is gone is fine."""
        with suppress(FileNotFoundError), self._sentences():
            obstore.delete(self.bucket, name)

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """Turn what the storage answers, or does not answer, into sentences. That an object is not there stays."""
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise refusal(str(error), self.path) from error
            raise
        except PermissionDeniedError as error:
            raise refusal(str(error), self.path) from error
        except (BaseError, OSError) as error:
            if isinstance(error, Refused):
                raise
            raise refusal(str(error), self.path) from error


class _Growing:
    """An object that waits on this host's disk until it is whole."""

    def __init__(self, store: Objects, name: str) -> None:
        self._store, self._name = store, name
        self._file = tempfile.TemporaryFile()  # noqa: SIM115

    def write(self, content: bytes) -> None:
        self._file.write(content)

    def finish(self) -> None:
        with self._file:
            self._file.seek(0)
            self._store.upload(self._name, self._file)

    def abandon(self) -> None:
        self._file.close()


class _Reading(io.RawIOBase):
    """An object that is read by ranges."""

    def __init__(self, store: Objects, name: str, length: int) -> None:
        self._store, self._name, self._length, self._at = store, name, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, to: int, whence: int = io.SEEK_SET) -> int:
        self._at = to + (0, self._at, self._length)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, into: Any) -> int:
        wanted = min(len(into), max(0, self._length - self._at))
        if wanted:
            into[:wanted] = self._store.read_range(self._name, self._at, wanted)
        self._at += wanted
        return wanted


def _us(time: datetime) -> int:
    return int(time.timestamp() * 1_000_000)


def _connect(path: S3Path, settings: S3, options: dict[str, Any]) -> S3Store:
    endpoint = settings.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    named: dict[str, Any] = {"checksum_algorithm": "sha256"}
    if endpoint:
        named["endpoint"] = endpoint
    if settings.region:
        named["region"] = settings.region
    client: ClientConfig = {
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "timeout": timedelta(seconds=REQUEST_S),
        "allow_http": bool(endpoint and endpoint.startswith("http://")),
        "user_agent": "pgwitness",
    }
    if settings.ca_file is not None:
        try:
            client["root_certificate"] = settings.ca_file.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"lake.s3.ca_file: {error}; name a file that can be read") from error
    retry: RetryConfig = {
        "max_retries": RETRIES,
        "retry_timeout": timedelta(seconds=RETRY_S),
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
    }
    if "AWS_PROFILE" in os.environ and "AWS_ACCESS_KEY_ID" not in os.environ:
        named["credential_provider"] = _profile()
    try:
        return S3Store(
            path.bucket,
            prefix=path.prefix or None,
            **({"client_options": client, "retry_config": retry} | named | options),
        )
    except BaseError as error:
        raise ConfigurationError(f"lake.s3: {error}") from error


def _profile() -> Any:
    """Give what reads a profile of `~/.aws`, which the storage's client does not."""
    try:
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ModuleNotFoundError:
        raise ConfigurationError(
            "AWS_PROFILE: profiles are read by boto3, which is not installed: `pip install boto3`, or put the "
            'credentials into the environment (`eval "$(aws configure export-credentials --format env)"`)'
        ) from None
    try:
        return Boto3CredentialProvider()
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(f"AWS_PROFILE: {error}") from error
