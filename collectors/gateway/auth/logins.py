"""As which role somebody logs in at the server who has shown a token or a certificate: pure but for the roles' file.

The first login of the configuration that fits decides. Its role may hold `{sub}`, `{actor}` and `{name}`, which were
verified; what comes of it has to stand in the roles' file: a claim opens no role that the gateway was not given. The
name that the client gives opens nothing: it chooses among what its claims open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from collectors.gateway.auth.rolefile import Roles
from collectors.gateway.auth.scram import Password
from pgwitness.core.config.gateway import GatewayLogin


class Logins:
    """The logins of a database."""

    def __init__(self, logins: Sequence[GatewayLogin], roles: Roles) -> None:
        self._logins = tuple(logins)
        self._roles = roles

    def find(self, user: str, claims: Mapping[str, str], names: Sequence[str] = ()) -> tuple[str, Password] | None:
        """Return a role and its password, None where nothing fits or the gateway may not be that role.

        `claims` are a verified token's, by path; `names` those of a verified certificate, the common name first.
        """
        for login in self._logins:
            name = next((name for name in names or ("",) if _fits(login.name, name)), None)
            if name is None or not _fits(login.user, user):
                continue
            if not all(path in claims and _fits(globs, claims[path]) for path, globs in login.claim.items()):
                continue
            said = {"name": name, "sub": claims.get("sub", ""), "actor": claims.get("actor", "")}
            role = _filled(login.role, said)
            password = self._roles.password(role)
            return (role, password) if password is not None else None
        return None


def _fits(globs: str | list[str], value: str) -> bool:
    return any(fnmatchcase(value, glob) for glob in ([globs] if isinstance(globs, str) else globs))


def _filled(role: str, said: Mapping[str, str]) -> str:
    """Fill a role's name in one pass: what is put in is not looked through again."""
    made, rest = "", role
    while rest:
        before, brace, after = rest.partition("{")
        name, end, behind = after.partition("}")
        made += before
        if not brace:
            break
        if end and name in said:
            made, rest = made + said[name], behind
        else:
            made, rest = made + brace, after
    return made
