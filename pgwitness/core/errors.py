"""The errors of pgwitness, sorted by what happens next: retry, dead letter, pause or stop.

A message of `Retry`, `NewerSchema`, `Stop` and `ConfigurationError` says what is wrong and, where it can, what to do.
The command line turns the classes into exit codes (`docs/reference/commands.md`): `Unreachable` is 3,
`ConfigurationError` is 2, `NotInOrder` is 1.
"""

from __future__ import annotations


class PgwitnessError(Exception):
    """Base of every error that pgwitness raises on purpose; its text is meant for the operator."""


class Retry(PgwitnessError):
    """Something outside is not there at the moment; a daemon tries again with back-off."""


class Unreachable(Retry):
    """A database or broker could not be reached; a command ends with exit code 3, a daemon retries."""


class Superseded(Retry):
    """Another worker has landed this range of a partition; what is buffered is dropped and read again from the lake."""


class DeadLetter(PgwitnessError):
    """One record cannot be read; it goes to the topic of dead letters and the stream goes on.

    `reason` is one of the short words listed in `docs/reference/topics.md`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NewerSchema(PgwitnessError):
    """A batch of a schema version this program does not know: the partition pauses until the program is updated."""

    def __init__(self, version: int, known: int) -> None:
        super().__init__(
            f"batch of schema version {version}, this program reads up to {known}: "
            "update pgwitness on this host; the partition waits and loses nothing"
        )
        self.version = version


class Stop(PgwitnessError):
    """Going on would lose or falsify evidence; the daemon ends and says what to do."""


class ConfigurationError(PgwitnessError):
    """The configuration cannot be used; the text names the file and the key. Exit code 2."""


class NotInOrder(PgwitnessError):
    """A check found something that is not in order. Exit code 1."""
