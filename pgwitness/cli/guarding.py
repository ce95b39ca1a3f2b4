"""What the guard of a database is made of: policies, configuration, and who logs in as which role."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collectors.guard.install import Guard
from collectors.guard.wanted import Config as GuardConfig
from collectors.guard.wanted import Login
from detectors.policy.policies import Bundle
from pgwitness.core.errors import ConfigurationError
from streams.identity.identities import NOBODY, Facts, Identities, Named

if TYPE_CHECKING:
    from pgwitness.core.config import Config


def guard_of(config: Config, key: bytes | None) -> Guard:
    """Make the guard of a configuration. Raise `ConfigurationError` where policies or identities cannot be used."""
    file = config.identities.file
    try:
        identities = Identities.parse(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {error}") from error

    def settings(cluster: str) -> GuardConfig:
        labels = dict(sorted(config.clusters[cluster].labels.items()))
        guard = config.guard
        return GuardConfig(cluster=cluster, labels=labels, on_unknown=guard.on_unknown, on_error=guard.on_error)

    return Guard(
        bundle=Bundle.load(config.policies.path),
        login=lambda cluster, database, role: login_of(identities, cluster, database, role),
        config=settings,
        key=key,
    )


_OF_ROLE = frozenset({"cluster", "database", "role"})


def login_of(identities: Identities, cluster: str, database: str, role: str) -> Login:
    """Say who logs in as a role, as far as cluster, database and role tell.

    Tokens, comments and certificates are not seen here, so whom they would name is who the role says. An application's
    name is what a client says, and an address may be a gateway's: where rules decide by these, it is open which of
    them names a session; what they all say alike holds nevertheless.
    """
    facts = Facts(cluster, database, role, None, None, comment=())
    possible: list[Named] = []
    uses: set[str] = set()
    for rule in identities.rules:
        matches = rule.matches(facts)
        if matches is False:
            continue
        possible.append(rule.name(facts))
        uses |= rule.used - _OF_ROLE
        if matches:
            break
    else:
        possible.append(NOBODY)

    def told(values: set[str]) -> str | None:
        return values.pop() if len(values) == 1 else None

    return Login(
        role,
        None if uses else told({one.principal or "" for one in possible}),
        told({one.kind for one in possible}),
        None if uses else told({one.on_behalf_of or "" for one in possible}),
        None if uses else told({one.peer_group or "" for one in possible}),
    )
