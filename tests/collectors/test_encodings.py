"""Databases in LATIN1 and without an encoding (SQL_ASCII): the application never fails, and evidence is readable."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from collectors.beacon import mac
from collectors.beacon.encodings import codec_of
from collectors.beacon.verifier import BeaconVerifier
from collectors.installation import install, source
from collectors.texts import read_texts
from pgwitness.core.events import Beacon
from pgwitness.demo.servers import Postgres
from tests.collectors.beacon_wal import Source
from tests.conftest import fresh_database

CAFE = b"caf\xe9"
RIGHT = {"LATIN1": "caf\u00e9", "SQL_ASCII": "caf\\xe9"}


class Encoded(Source):
    """A shop in another encoding than UTF-8."""

    def __init__(self, dsn: str, encoding: str) -> None:
        self.encoding = encoding
        super().__init__(dsn, beacon=False)
        read_texts(self.admin)
        row = self.admin.execute("SELECT (pg_control_system()).system_identifier::text, current_database()").fetchone()
        assert row is not None
        self.system_id, self.database = row
        report = install.install(self.admin)
        assert report.complete, report.left

    def verify(self, message: object) -> Beacon:
        """Verify a message as the collector of such a database does."""
        key = source.load_key(self.admin)
        assert key is not None
        verifier = BeaconVerifier(key, system_id=self.system_id, database=self.database, codec=codec_of(self.encoding))
        return verifier.verify(message.content, xid32=message.xid & 0xFFFFFFFF)  # type: ignore[attr-defined]


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def shop(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[Encoded]:
    """A small shop in each encoding, on PostgreSQL 18 and 15."""
    with fresh_database(postgres) as other:
        name = f"{other.rpartition('/')[2]}_{request.param.lower()}"
        with psycopg.connect(other, autocommit=True) as admin:
            admin.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LOCALE 'C'").format(
                    sql.Identifier(name), request.param
                )
            )
        made = Encoded(make_conninfo(other, dbname=name), request.param)
        try:
            yield made
        finally:
            assert install.uninstall(made.admin).complete
            made.admin.execute("SELECT pg_drop_replication_slot(%s)", [made.slot])
            made.admin.execute(b'DROP OWNED BY "' + CAFE + b'"; DROP ROLE "' + CAFE + b'"')
            made.close()
            with psycopg.connect(other, autocommit=True) as admin:
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_names_claims_and_statements_are_read(shop: Encoded) -> None:
    """A role, a claim, a table and a statement with a letter that is no UTF-8 are written, verified and named."""
    shop.admin.execute(
        b'CREATE ROLE "' + CAFE + b'"; GRANT "' + CAFE + b'" TO app; GRANT ALL ON orders TO "' + CAFE + b'"'
    )
    app = shop.client(client_encoding=shop.encoding)
    app.execute(b"SET pgwitness.claim = 'on behalf of " + CAFE + b"'")
    app.execute(b'SET ROLE "' + CAFE + b'"')
    app.execute(b"INSERT INTO orders VALUES (1, '" + CAFE + b"')")
    app.execute("RESET ROLE")
    app.execute(b'CREATE TABLE "t' + CAFE + b'" (id int PRIMARY KEY)')
    app.execute(b'INSERT INTO "t' + CAFE + b'" VALUES (1)')
    right = RIGHT[shop.encoding]
    said = shop.beacons()
    assert {(b.session_user, b.role, b.claim) for b in said} == {
        ("app", right, f"on behalf of {right}"), ("app", "app", f"on behalf of {right}")
    }  # fmt: skip
    key = source.load_key(shop.admin)
    assert key is not None
    commands = [
        mac.verify_ddl(
            m.content, key, system_id=shop.system_id, database=shop.database, xid32=m.xid & 0xFFFFFFFF,
            codec=codec_of(shop.encoding),
        )
        for m in shop.messages() if m.prefix == mac.DDL_PREFIX
    ]  # fmt: skip
    (made,) = [command for command in commands if command.tag == "CREATE TABLE"]
    assert made.statement == f'CREATE TABLE "t{right}" (id int PRIMARY KEY)'
    assert {table.beacon for table in install.status(shop.admin).tables} == {"installed"}
    assert install.rotate_key(shop.admin).complete
    app.execute(b"UPDATE orders SET note = '" + CAFE * 2 + b"'")
    assert shop.verify([m for m in shop.messages() if m.prefix == mac.PREFIX][-1]).session_user == "app"
