"""All policies of an installation as one checked and hashed `Bundle`.

The bundle's SHA-256 is over what the policies mean, not over comments or file names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from detectors.policy.calendars import NONE as NO_CALENDARS
from detectors.policy.calendars import Calendar, Calendars
from detectors.policy.document import Document
from detectors.policy.files import packaged_files, parse, read_calendars, read_folder
from detectors.policy.plan import Plan
from detectors.policy.policy import Failure, Policy
from detectors.vocabulary import KINDS
from pgwitness.core.errors import ConfigurationError


class Bundle:
    """All policies of an installation, by kind; `sha256` names exactly this set of meanings."""

    def __init__(self, policies: list[Policy], calendars: Calendars = NO_CALENDARS) -> None:
        """Put policies together; raise `ConfigurationError` when two have the same id."""
        self.calendars = calendars
        self.policies: dict[str, Policy] = {}
        for policy in sorted(policies, key=lambda p: p.id):
            if other := self.policies.get(policy.id):
                raise ConfigurationError(f"{policy.place}: the id is used in {other.origin} too; ids are unique")
            self.policies[policy.id] = policy
        self.sha256 = hashlib.sha256(self.canonical().encode("utf-8", "backslashreplace")).hexdigest()
        self.by_kind: dict[str, tuple[Policy, ...]] = {
            kind: tuple(p for p in self.policies.values() if kind in p.document.kinds) for kind in KINDS
        }

    @classmethod
    def load(cls, path: Path) -> Bundle:
        """Read one file, or every `*.yaml` and `*.yml` below a folder. Raise `ConfigurationError`."""
        calendars = read_calendars(path)
        policies: list[Policy] = []
        for file, text in read_folder(path):
            policies += parse(text, str(file), calendars)
        return cls(policies, calendars)

    @classmethod
    @cache
    def packaged(cls) -> Bundle:
        """Return the policies that come with pgwitness; the same bundle each time, which takes a third of a second to
        make."""
        return cls([policy for name, text in packaged_files().items() for policy in parse(text, name)])

    def run_tests(self) -> list[Failure]:
        """Run the tests that stand in the policies; an empty list says that all hold."""
        cases = ((policy, case) for policy in self.policies.values() for case in policy.document.tests)
        return [failure for policy, case in cases if (failure := policy.run_case(case)) is not None]

    def plans(self) -> Iterator[Plan]:
        """List what policies ask of several actions together."""
        return (policy.plan for policy in self.policies.values() if policy.plan is not None)

    def canonical(self) -> str:
        """Write the policies as the text that the hash is of; `from_canonical` reads it again."""
        documents: Any = [msgspec.to_builtins(policy.document) for policy in self.policies.values()]
        for document in documents:
            if document["approve"] is None:  # so that what was known before it has the hash that it had
                del document["approve"]
            else:
                for name in ("count", "sample"):
                    if not document["approve"][name]:
                        del document["approve"][name]
        if self.calendars.names:
            documents = {"policies": documents, "calendars": msgspec.to_builtins(self.calendars.written)}
        return json.dumps(documents, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)

    @classmethod
    def from_canonical(cls, text: str) -> Bundle:
        """Make a bundle from its canonical text. Raise `ConfigurationError` when this release cannot use it."""
        try:
            found = msgspec.json.decode(text, type=list[Document] | _Recorded)
            recorded = found if isinstance(found, _Recorded) else _Recorded(found)
            calendars = Calendars(recorded.calendars)
        except (msgspec.DecodeError, UnicodeEncodeError, ValueError) as error:
            raise ConfigurationError(f"recorded policies: {error}") from None
        return cls([Policy(document, "recorded policies", calendars) for document in recorded.policies], calendars)


class _Recorded(Struct, frozen=True):
    """A bundle with calendars, as it is recorded."""

    policies: list[Document]
    calendars: dict[str, Calendar] = {}
