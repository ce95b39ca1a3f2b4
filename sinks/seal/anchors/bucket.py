"""Puts checkpoints into a bucket of S3 whose objects are locked for a time, so that nobody can remove them. A shell.

The lock is the bucket's own default retention: whoever may write objects, but not change that, cannot take one back.
S3 takes such an object only with a checksum in a header that obstore does not send; boto3 does.
"""

from __future__ import annotations

from typing import Any

from pgwitness.core.config import Anchor, Config
from pgwitness.core.config.places import S3Path, is_s3, place
from pgwitness.core.errors import ConfigurationError, Retry
from sinks.seal.anchors.given import Given, notes

RETRIES = 2


def make_bucket(where: str, settings: Anchor, config: Config) -> Bucket:
    """Make the anchor."""
    try:
        path = place(settings.bucket)
    except ValueError as error:
        raise ConfigurationError(f"{where}.bucket: {error}") from error
    if not is_s3(settings.bucket) or not isinstance(path, S3Path):
        raise ConfigurationError(f"{where}.bucket: must be s3://BUCKET/PREFIX; got {settings.bucket!r}")
    return Bucket(path, settings)


class Bucket:
    """Objects of one line each, named by time and size."""

    suffix = ""

    def __init__(self, path: S3Path, settings: Anchor) -> None:
        self._path = path
        self._settings = settings
        self._client: Any = None

    def put(self, given: Given) -> bytes:
        """Make an object; one that is there from before is the same, and stays as a version of its own."""
        name = f"{given.at_us:017d}-{given.size:012d}.json"
        self._asked(
            "put_object", Key=f"{self._folder}{name}", Body=given.line(), ChecksumAlgorithm="SHA256",
            ContentType="application/json",
        )  # fmt: skip
        return b""

    def newest(self) -> bytes | None:
        """Read the object that was made last."""
        newest, after = "", ""
        while True:
            found = self._asked("list_objects_v2", Prefix=self._folder, StartAfter=after)
            names = [one["Key"] for one in found.get("Contents", [])]
            newest = max([newest, *(name for name in names if name.endswith(".json"))])
            if not found.get("IsTruncated") or not names:
                break
            after = names[-1]
        if not newest:
            return None
        content = self._asked("get_object", Key=newest)["Body"].read()
        known = notes(content)
        return known[0] if known else None

    @property
    def _folder(self) -> str:
        return f"{self._path.prefix}/" if self._path.prefix else ""

    def _asked(self, operation: str, **arguments: Any) -> Any:
        """Ask S3. Raise `Retry` when it refuses or does not answer."""
        import boto3
        from botocore.config import Config as Options
        from botocore.exceptions import BotoCoreError, ClientError

        timeout_s = float(self._settings.timeout)
        options = Options(
            connect_timeout=timeout_s, read_timeout=timeout_s, retries={"total_max_attempts": RETRIES},
            s3={"addressing_style": "path"} if self._settings.endpoint else None,
        )  # fmt: skip
        try:
            if self._client is None:
                self._client = boto3.client(
                    "s3", endpoint_url=self._settings.endpoint, region_name=self._settings.region, config=options
                )
            return getattr(self._client, operation)(Bucket=self._path.bucket, **arguments)
        except (BotoCoreError, ClientError, OSError) as error:
            raise Retry(f"{self._path}: {error}") from error
