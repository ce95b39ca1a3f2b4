"""What the gateway decides by, as it stands in files: policies and identities, read again when they have changed.

What cannot be used is reported, and what was read before goes on to hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import psycopg
import structlog

from collectors.connection import conninfo
from collectors.gateway.judging.catalogue import Catalogue, read
from collectors.gateway.judging.judge import Namer, Rules
from detectors.gatekeeper import Gatekeeper, Labels
from detectors.policy.calendars import FILES
from detectors.policy.files import policy_files
from detectors.policy.policies import Bundle
from detectors.sensitive import Sensitive
from pgwitness.core.config import Config
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.runtime.watchedfile import Refusal, WatchedFile

Namers = Callable[[str, str], Namer]
"""Makes of the text of a file, and its name, what names a session. Raises `ConfigurationError`."""

LOOK_S: Final = 30.0
"""How old what is known of views and functions may be; what sessions of the gateway make is known at once."""

log = structlog.get_logger("gateway")


class WatchedRules:
    """The policies and identities of a configuration."""

    def __init__(self, config: Config, namers: Namers) -> None:
        self._config = config
        path, identities = config.policies.path, config.identities.file
        self._sensitive = Sensitive.of(config.privacy)

        def policies() -> Gatekeeper:
            return Gatekeeper(Bundle.load(path), self._sensitive, Labels(config.labels))

        def names() -> Namer:
            try:
                return namers(identities.read_text(encoding="utf-8"), str(identities))
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"{identities}: cannot be read: {error}") from error

        def files() -> list[Path]:
            calendars = [file for name in FILES if (file := path / name).exists()] if path.is_dir() else []
            return [*policy_files(path), *calendars]

        self._policies = WatchedFile(
            path,
            policies,
            initial=Gatekeeper(Bundle([]), self._sensitive),
            files=files,
            settle=True,
            refused=_still_holds,
        )
        self._names = WatchedFile(
            identities, names, initial=Rules(self._policies.last).name, settle=True, refused=_still_holds
        )

        self._catalogues: dict[tuple[str, str], Catalogue] = {}
        self._due_s = 0.0

    def load(self) -> Rules:
        """Read both. Raise `ConfigurationError` when either cannot be used."""
        self._policies.load()
        self._names.load()
        return self._made()

    def poll(self) -> Rules | None:
        """Return what holds from now on, where that has changed; else None."""
        before = (self._policies.last, self._names.last)
        try:
            now = (self._policies.poll(), self._names.poll())
        except ConfigurationError as error:  # the folder is gone, or empty, for a moment
            log.error("what was read before still holds", error=str(error))
            return None
        unchanged = all(one is other for one, other in zip(before, now, strict=True))
        if not self._looked_behind() and unchanged:
            return None
        if not unchanged:
            log.info("decides by other policies or identities from now on", bundle=self._policies.last.sha256)
        return self._made()

    def _looked_behind(self) -> bool:
        """Look at what stands behind names, every `LOOK_S`; return whether it has changed.

        What cannot be read stays as it was known.
        """
        if not len(self._policies.last) or time.monotonic() < self._due_s:
            return False
        changed = False
        served = {one.cluster for one in self._config.gateway.databases.values()}
        for name in sorted(served & self._config.clusters.keys()):
            cluster = self._config.clusters[name]
            for database in cluster.databases:
                try:
                    with psycopg.connect(
                        conninfo(cluster, None, database, "pgwitness gateway"), autocommit=True
                    ) as one:
                        found = read(one)
                except psycopg.Error as error:
                    log.warning("what stands behind names is not read", database=database, reason=type(error).__name__)
                    continue
                changed = changed or found != self._catalogues.get((name, database))
                self._catalogues[name, database] = found
        self._due_s = time.monotonic() + LOOK_S
        return changed

    def _made(self) -> Rules:
        config = self._config
        return Rules(
            self._policies.last,
            self._names.last,
            {name: cluster.labels for name, cluster in config.clusters.items()},
            dict(self._catalogues),
            {name: msgspec.to_builtins(one.unparsable) for name, one in config.gateway.databases.items()},
        )


def _still_holds(refusal: Refusal) -> None:
    log.error("what was read before still holds", error=refusal.error)
