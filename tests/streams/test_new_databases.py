"""A database that its role has just made is that role's own; nobody else's, and not for long."""

from __future__ import annotations

import itertools
from typing import Any

from pgwitness.core.events import Event
from streams.fold.fold import Fold
from streams.fold.schema.new_databases import NEW_US
from streams.identity.identities import Identities
from tests.streams.log_records import statement
from tests.streams.records import IDENTITIES, START_US, batch, read


class Server:
    """A fold of what one server's log tells."""

    def __init__(self) -> None:
        self.fold = Fold(3, Identities.parse(IDENTITIES), 0)
        self._offsets = itertools.count(1)

    def __call__(self, text: str, *, after_us: int = 0, **fields: Any) -> Event:
        """Fold a statement and give its event."""
        given = {"statement": text, "outcome": "success", "vxid": "3/0", "role": "ci"} | fields
        given |= {"occurred_at_us": START_US + after_us, "captured_at_us": START_US + after_us}
        record = read(batch(statement(next(self._offsets), **given), source="log"))
        (event,) = [one for one in self.fold.apply(self.fold.next_offset, record) if one.kind == "statement"]
        return event


def test_what_its_maker_does_in_a_new_database_is_marked() -> None:
    """A test runner empties tables there, and drops it in the end."""
    server = Server()
    assert "new_database" not in server("CREATE DATABASE test_shop").detail
    assert server("TRUNCATE users", database="test_shop").detail["new_database"] is True
    assert server("DROP DATABASE test_shop").detail["new_database"] is True
    assert "new_database" not in server("DROP DATABASE test_shop").detail


def test_others_and_later_actions_are_judged() -> None:
    """Another role in it, another database, an hour later, another one under its name."""
    server = Server()
    server("CREATE DATABASE test_shop")
    assert "new_database" not in server("TRUNCATE users", database="test_shop", role="app").detail
    assert "new_database" not in server("DROP DATABASE shop").detail
    assert "new_database" not in server("TRUNCATE users", database="test_shop", after_us=NEW_US + 1_000_000).detail
    server("ALTER DATABASE test_shop RENAME TO other")
    assert "new_database" not in server("TRUNCATE users", database="test_shop").detail


def test_a_database_that_could_not_be_made_is_none() -> None:
    """An error makes nothing; the mark goes on over a restart."""
    server = Server()
    server("CREATE DATABASE shop", outcome="failure", source="error", sqlstate="42P04")
    assert "new_database" not in server("DROP TABLE users", database="shop").detail
    server("CREATE DATABASE test_shop")
    server.fold = Fold.restore(server.fold.snapshot(), 0)
    assert server("DROP TABLE users", database="test_shop").detail["new_database"] is True
