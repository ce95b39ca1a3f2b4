"""The audiences of a configuration at the gateway, and what is known of their views; reads databases.

What is known may be out of date for `LOOK_S`: a view that is new is not rewritten to until then, one that is gone is an
error of the server.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

import psycopg
import structlog

from collectors.connection import conninfo
from collectors.gateway.masking.source import read
from collectors.gateway.masking.views import Views
from collectors.masking.names import check, role_of
from pgwitness.core.config import Audience, Config
from pgwitness.core.config.gateway import AudienceMatch
from pgwitness.core.errors import PgwitnessError

LOOK_S: Final = 30.0

log = structlog.get_logger("gateway")


class Place(NamedTuple):
    """Where an audience reads: a cluster, a database of it as its server names it, and the audience's role there."""

    cluster: str
    database: str
    role: str


class Who(NamedTuple):
    """Who comes, by `identities.yaml`; `kind` is the principal's."""

    principal: str | None
    kind: str
    peer_group: str | None


Connect = Callable[[Place], psycopg.Connection[tuple[Any, ...]]]


class Audiences:
    """The audiences by role, and their views by place, as far as somebody has come for them."""

    def __init__(self, audiences: dict[str, Audience], connect: Connect) -> None:
        """`connect` opens a connection that may read the catalogue. Raise `ConfigurationError`."""
        check(audiences)
        self._by_role = {role_of(name, one): one for name, one in audiences.items()}
        self._connect = connect
        self.known: dict[Place, Views] = {}
        self._due_s: dict[Place, float] = {}

    @classmethod
    def of(cls, config: Config) -> Audiences:
        """Give the audiences of a configuration, whose clusters' own connections read the catalogue."""

        def connect(place: Place) -> psycopg.Connection[tuple[Any, ...]]:
            cluster = config.clusters[place.cluster]
            return psycopg.connect(conninfo(cluster, None, place.database, "pgwitness gateway"), autocommit=True)

        return cls(config.masks, connect)

    def role_for(self, who: Who, database: str) -> str | None:
        """Return the role of the first audience that somebody is of; None for who is of none."""
        for role, audience in self._by_role.items():
            here = not audience.databases or database in audience.databases
            if here and audience.match is not None and _fits(audience.match, who):
                return role
        return None

    def due(self, place: Place) -> bool:
        """Say whether the views at a place are to be looked at: somebody reads them, rewritten, and it is time."""
        audience = self._by_role.get(place.role)
        if audience is None or not audience.rewrite:
            return False
        if audience.databases and place.database not in audience.databases:
            return False
        return time.monotonic() >= self._due_s.get(place, 0.0)

    def look(self, place: Place) -> Views | None:
        """Read the views at a place; None where that fails: what was known of them stays. Blocks."""
        self._due_s[place] = time.monotonic() + LOOK_S
        try:
            with self._connect(place) as connection:
                return read(connection, place.role)
        except (psycopg.Error, PgwitnessError) as error:
            log.warning(
                "the views of an audience are not read; names that are written with a schema are errors of the server",
                role=place.role,
                database=place.database,
                reason=type(error).__name__,
            )
            return None

    def take(self, place: Place, views: Views | None) -> bool:
        """Take up what was read; return whether it is another than was known."""
        if views is None or views == self.known.get(place):
            return False
        self.known[place] = views
        return True

    def poll(self) -> dict[Place, Views | None]:
        """Read again what is due of the places that are known. Blocks."""
        return {place: self.look(place) for place in list(self.known) if self.due(place)}


def _fits(match: AudienceMatch, who: Who) -> bool:
    return (
        (match.kind is None or who.kind in match.kind)
        and _named(match.principal, who.principal)
        and _named(match.peer_group, who.peer_group)
    )


def _named(globs: str | list[str] | None, name: str | None) -> bool:
    if globs is None:
        return True
    return any(fnmatchcase(name or "", glob) for glob in ([globs] if isinstance(globs, str) else globs))
