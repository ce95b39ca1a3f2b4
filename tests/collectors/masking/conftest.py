"""Fixtures of masking: a database with an audience that reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from collectors.installation.install import Report
from collectors.masking import install
from collectors.masking.install import Masks, Status
from collectors.masking.treatment import Kind
from pgwitness.core.config import Audience, AudienceColumn, Mask, Privacy

KEY = bytes(range(32))


PRIVACY = Privacy(mask=[Mask(column="*.secret")])


def audience(rules: dict[str, Kind], *, unnamed: str = "masked", prefix: str = "mask_") -> Audience:
    """Make an audience of rules by column."""
    columns = [AudienceColumn(column=column, as_=how) for column, how in rules.items()]
    return Audience(columns=columns, unnamed=unnamed, prefix=prefix)  # type: ignore[arg-type]


class Masked:
    """A database, its superuser, and who reads it through masks."""

    def __init__(self, dsn: str, admin: psycopg.Connection[Any]) -> None:
        self.dsn = dsn
        self.admin = admin

    def masks(self, rules: dict[str, Kind], *, unnamed: str = "masked", role: str = "support") -> Masks:
        """Give one audience with rules by column."""
        return Masks(audiences={role: audience(rules, unnamed=unnamed)}, privacy=PRIVACY, key=KEY)

    def install(self, masks: Masks) -> Report:
        """Install masks as the superuser."""
        with psycopg.connect(self.dsn) as connection:
            return install.install(connection, masks)

    def uninstall(self, masks: Masks) -> Report:
        """Remove them."""
        with psycopg.connect(self.dsn) as connection:
            return install.uninstall(connection, masks)

    def status(self, masks: Masks) -> list[Status]:
        """Show how they stand."""
        with psycopg.connect(self.dsn) as connection:
            return install.status(connection, masks)

    @contextmanager
    def reader(self, role: str = "support") -> Iterator[psycopg.Connection[Any]]:
        """Log in as the audience; nobody asks for a password here."""
        with psycopg.connect(self.dsn, user=role, autocommit=True) as connection:
            yield connection

    def sees(self, query: str, role: str = "support") -> list[tuple[Any, ...]]:
        """Ask as the audience."""
        with self.reader(role) as connection:
            return connection.execute(query.encode()).fetchall()

    def denied(self, query: str, role: str = "support") -> str:
        """Ask as the audience for what it must not get; gives the error."""
        with self.reader(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege) as error:
            connection.execute(query.encode())
        return str(error.value)


@pytest.fixture
def masked(database: str) -> Iterator[Masked]:
    """A fresh database on each PostgreSQL in turn."""
    with psycopg.connect(database, autocommit=True) as admin:
        yield Masked(database, admin)


@pytest.fixture
def masked18(database18: str) -> Iterator[Masked]:
    """A fresh database on PostgreSQL 18."""
    with psycopg.connect(database18, autocommit=True) as admin:
        yield Masked(database18, admin)
