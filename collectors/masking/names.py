"""What masking calls its objects in a database, and how it knows them again."""

from __future__ import annotations

from collectors.installation.sql.templates import OWNER_OF_MASKS, SCHEMA_OF_MASKS
from pgwitness.core.config import Audience
from pgwitness.core.errors import ConfigurationError

OWNER = OWNER_OF_MASKS
"""The role that owns the views: it owns no table of the application, and has neither BYPASSRLS nor superuser."""
SCHEMA = SCHEMA_OF_MASKS
PADS = f"{SCHEMA}.pads"
"""The table of the two pads of HMAC (RFC 2104), under the key of the lake's tokens; its owner alone reads it."""
MARK = "pgwitness masks: "
"""What the comments of roles, schemas and views of ours begin with."""
NAME_BYTES_MAX = 63


def quoted(name: str) -> str:
    """Write a name in SQL, a word of SQL's own or not."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Write a text as a constant of SQL."""
    escaped = value.replace("'", "''")
    return f"E'{escaped.replace(chr(92), chr(92) * 2)}'" if "\\" in value else f"'{escaped}'"


def view_schema(audience: Audience, schema: str) -> str:
    """Name the schema of an audience's views over a schema. Raise `ConfigurationError` where it is too long."""
    name = f"{audience.prefix}{schema}"
    if len(name.encode()) > NAME_BYTES_MAX:
        raise ConfigurationError(f"masks.*.prefix: {name} is longer than {NAME_BYTES_MAX} bytes; choose a shorter one")
    return name


def role_of(name: str, audience: Audience) -> str:
    """Name the login role of an audience."""
    return audience.role or name


def check(audiences: dict[str, Audience]) -> None:
    """Hold audiences against each other. Raise `ConfigurationError` where two would share a role or a schema."""
    roles: dict[str, str] = {}
    schemas: dict[str, str] = {}
    for name, audience in audiences.items():
        role = role_of(name, audience)
        if role == OWNER:
            raise ConfigurationError(f"masks.{name}.role: {OWNER} owns the views; choose another one")
        if (other := roles.setdefault(role, name)) != name:
            raise ConfigurationError(f"masks.{name}.role: {role} is the role of masks.{other} too; give each its own")
        for schema in audience.schemas:
            views = view_schema(audience, schema)
            if views in (*audience.schemas, SCHEMA):
                raise ConfigurationError(f"masks.{name}.prefix: {views} is another schema's name; choose another one")
            if (other := schemas.setdefault(views, name)) != name:
                raise ConfigurationError(
                    f"masks.{name}.prefix: {views} is the schema of masks.{other} too; give each a prefix of its own"
                )
