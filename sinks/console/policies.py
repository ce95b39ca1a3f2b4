"""The pages on policies: what each says, whether its tests hold, and what it did in the last month.

They are read from `policies.path` of the console's own host, as the workers read theirs; who keeps them apart sees a
difference in what they find. What policies did comes from the lake.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import yaml

from detectors.policy.policies import Bundle
from detectors.policy.policy import Policy
from pgwitness.core.errors import ConfigurationError
from sinks.console.reader import Reader, Row

DAYS = 30
SHOWN = 100
_DID = """
SELECT coalesce(policy, detector) AS policy, count(*) AS findings, sum("count")::BIGINT AS times,
    count(*) FILTER (mode = 'staged') AS staged, count(*) FILTER (suppressed_by IS NOT NULL) AS suppressed,
    count(*) FILTER (ocsf->>'$.unmapped.resolution.as' = 'true-positive') AS right,
    count(*) FILTER (ocsf->>'$.unmapped.resolution.as' = 'false-positive') AS wrong, max(last_seen) AS last_seen
FROM findings WHERE dt >= $1::DATE GROUP BY ALL ORDER BY findings DESC, policy"""
_WOULD = """
SELECT policy, count(*) AS would_stop FROM (
    SELECT unnest((detail->'$.decision.staged')::VARCHAR[]) AS policy FROM events
    WHERE dt >= $1::DATE AND kind = 'statement' AND (detail->'$.decision.staged') IS NOT NULL
) GROUP BY ALL"""
_FOUND = f"""
SELECT uid, message, title, severity, status, mode, "count", last_seen, suppressed_by FROM findings
WHERE dt >= $1::DATE AND policy = $2 ORDER BY last_seen DESC, uid LIMIT {SHOWN}"""
_DAYS_OF = """
SELECT coalesce(last_seen, "time")::DATE AS day, count(*) AS findings FROM findings
WHERE dt >= $1::DATE AND policy = $2 GROUP BY ALL"""
_NOTHING = {"findings": 0, "times": 0, "staged": 0, "suppressed": 0, "right": 0, "wrong": 0, "last_seen": None}
_NO_STOPS = {"would_stop": 0}


@dataclass(frozen=True)
class Kept:
    """The policies as they are kept, and by the id of each the tests that fail."""

    bundle: Bundle
    failures: Mapping[str, Sequence[str]]
    path: Path

    def text_of(self, policy: Policy) -> str:
        """Return a policy as it is written, with its comments where its file can be read."""
        try:
            parts = re.split(r"(?m)^---[ \t]*$", Path(policy.origin).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            parts = []
        for part in parts:
            if re.search(rf"(?m)^id:[ \t]*{re.escape(policy.id)}[ \t]*$", part):
                return part.strip() + "\n"
        return yaml.safe_dump(msgspec.to_builtins(policy.document), sort_keys=False, allow_unicode=True)


def read(path: Path) -> Kept:
    """Read the policies and run their tests, which takes a third of a second. Raise `ConfigurationError`."""
    bundle = Bundle.load(path)
    failures: dict[str, list[str]] = {}
    for failure in bundle.run_tests():
        failures.setdefault(failure.policy, []).append(f"{failure.test}: {failure.problem}")
    return Kept(bundle, failures, path)


class Folder:
    """Where policies are kept: they are read again when a file of them is another."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[list[tuple[str, int, int]], Kept] | None = None

    def read(self) -> Kept:
        """Return the policies. Raise as `read` does; then they are read the next time."""
        files = self._path.rglob("*") if self._path.is_dir() else [self._path]
        found = sorted((str(file), *_stamp(file)) for file in files)
        if self._read is None or self._read[0] != found:
            self._read = None
            self._read = (found, read(self._path))
        return self._read[1]


def _stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:  # it has just gone
        return 0, 0
    return status.st_mtime_ns, status.st_size


def listed(reader: Reader, kept: Kept | None, at: datetime) -> list[Row]:
    """List the policies with what each did; those that found most first, and what is no policy of these, too."""
    did = {str(row["policy"] or ""): row for row in reader.rows(_DID, _since(at))}
    would = {str(row["policy"]): _stops(row) for row in reader.rows(_WOULD, _since(at))}
    found = []
    for policy in kept.bundle.policies.values() if kept is not None else ():
        document = policy.document
        facts: dict[str, Any] = {"id": policy.id, "title": document.title, "severity": document.severity}
        facts |= {"mode": document.mode, "effect": document.effect, "tests": len(document.tests)}
        failures = kept.failures.get(policy.id, ()) if kept is not None else ()
        found.append({**facts, "failed": len(failures), **_NOTHING, **_NO_STOPS, **would.pop(policy.id, {}),
                      **did.pop(policy.id, {})})  # fmt: skip
    others = [{"id": name, "title": "", "severity": "", "mode": "", "effect": "", "tests": None, "failed": 0, **row,
               **would.get(name, _NO_STOPS)} for name, row in did.items()]  # fmt: skip
    return sorted(found + others, key=lambda row: (-row["findings"], row["id"]))


def history(reader: Reader, policy: str, at: datetime) -> tuple[list[Row], list[str], list[int]]:
    """Give what a policy found lately, and how much of it on each day of the month."""
    since = _since(at)
    counts = {row["day"]: int(row["findings"]) for row in reader.rows(_DAYS_OF, since, policy)}
    days = [(at - timedelta(days=n)).astimezone(UTC).date() for n in reversed(range(DAYS))]
    return reader.rows(_FOUND, since, policy), [day.isoformat() for day in days], [counts.get(day, 0) for day in days]


def changes(before: str, after: str) -> list[tuple[str, str]]:
    """Compare a policy with its change, line by line: `+`, `-` or nothing, and the line."""
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return [(line[:1].strip(), line[2:]) for line in lines if line[:1] != "?"]


def one(kept: Kept, policy: str) -> Policy | None:
    """Return a policy by its id."""
    return kept.bundle.policies.get(policy)


def kept_or_why(read_them: Any) -> tuple[Kept | None, str]:
    """Read the policies; where they cannot be, say why."""
    try:
        return read_them(), ""
    except ConfigurationError as error:
        return None, str(error)


def _stops(row: Row) -> Row:
    return {"would_stop": int(row["would_stop"])}


def _since(at: datetime) -> Any:
    return at.astimezone(UTC).date() - timedelta(days=DAYS)
