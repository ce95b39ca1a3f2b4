"""Where a lake is: a folder, which is a `Path`, or a bucket of an object storage, which is an `S3Path`."""

from __future__ import annotations

import re
from pathlib import Path, PurePath, PurePosixPath

SCHEME = "s3://"
_WHOLE = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_=-][A-Za-z0-9_.=-]*)*/?")


class S3Path(PurePosixPath):
    """The place of a lake in a bucket, or of an object in it: `s3://bucket/prefix`. Names only: nothing is opened."""

    __slots__ = ()

    def __str__(self) -> str:
        """Give it as it is configured."""
        return SCHEME + "/".join(self.parts[1:])

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self.parts[1]

    @property
    def prefix(self) -> str:
        """What the keys of all objects begin with, without a slash at either end; empty where nothing does."""
        return "/".join(self.parts[2:])


def is_s3(value: object) -> bool:
    """Say whether a setting names a bucket."""
    return isinstance(value, str) and value.startswith(SCHEME)


def place(value: object) -> PurePath:
    """Read a folder's path or a bucket's. Raise `ValueError` when it is neither."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"must be a path, that is a text in quotes; got {value!r}")
    if not is_s3(value):
        return Path(value)
    if _WHOLE.fullmatch(value) is None:
        raise ValueError(
            f"must be s3://BUCKET/PREFIX, of letters, digits, '.', '_', '=' and '-', no part of it beginning with a "
            f"dot; got {value!r}"
        )
    return S3Path(value)
