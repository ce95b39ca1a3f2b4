"""What each command of a long list leaves in the WAL: its event with objects and relations, and never a forgery.

`ddl_matrix.tsv` has a command a line, and behind a tab what is told of it: the tag, then type and identity of each
object made or of the first one dropped, in brackets the relation it belongs to. Nothing behind the tab: PostgreSQL
fires no event trigger, or nothing happened. The commands between two empty lines run in their order in one database.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import psycopg
import pytest

from collectors.beacon.keyring import Keyring
from collectors.installation import source
from collectors.wal.beacons import ddl
from collectors.wal.beacons.keyreads import KeyReads
from collectors.wal.beacons.messages import Messages, Unread
from collectors.wal.decoding.pgoutput import LogicalMessage
from pgwitness.core.events import Beacon, Ddl, DdlObject, Forgery
from pgwitness.demo.servers import Postgres
from tests.collectors.beacon_wal import Source, opened
from tests.conftest import fresh_database

GROUPS = (Path(__file__).parent / "ddl_matrix.tsv").read_text().split("\n\n")
SETUP = """
CREATE ROLE own; CREATE SCHEMA s1; CREATE SCHEMA s2; CREATE TABLE t (i int); CREATE TABLE s1.e1 (i int PRIMARY KEY);
CREATE FUNCTION fn() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION et0() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
"""
MARK = "mark"
Said = Beacon | Ddl | Forgery | Unread


def lines(group: str, version: int) -> list[tuple[str, list[str]]]:
    """Give the commands of a group for a version, each with what is told of it."""
    found = []
    for line in group.strip("\n").split("\n"):
        command, _, expected = line.partition("\t")
        since, plus, rest = command.partition("+ ")
        if plus and since.isdigit():
            command, expected = rest, expected if version >= int(since) else ""
        found.append((command, [item for item in expected.split("; ") if item]))
    return found


def run(shop: Source, commands: list[str]) -> dict[int, list[Said]]:
    """Run the commands, and give what the collector makes of the messages of each."""
    admin = shop.admin
    for number, command in enumerate(commands):
        admin.execute("SELECT pg_logical_emit_message(true, %s, %s)", [MARK, str(number)])
        for name, value in (("host", admin.info.host), ("port", admin.info.port), ("database", shop.database)):
            command = command.replace(f"{{{name}}}", str(value))
        try:
            admin.execute(command.encode())
        except psycopg.Error as error:
            pytest.fail(f"{command}: {error}")
    keys = [msgspec.structs.replace(key, made_lsn=0) for key in source.load_keys(admin) or ()]
    judge = Messages(shop.system_id, shop.database, KeyReads(lambda: keys, Keyring()), lambda *_: None, lambda: None)
    told: dict[int, list[Said]] = {}
    number = -1
    for message in shop.messages():
        if message.prefix == MARK:
            number = int(message.content)
            continue
        said = judge.message(LogicalMessage(True, 1, message.prefix, message.content), message.xid & 0xFFFFFFFF)
        here = told.setdefault(number, [])
        if isinstance(said, Ddl) and here and isinstance(here[-1], Ddl) and ddl.continues(here[-1], said):
            here[-1] = ddl.joined(here[-1], said)
        elif said is not None:
            here.append(said)
    return told


def written(command: Ddl) -> str:
    """Write a command as the list does."""

    def named(item: DdlObject) -> str:
        return f"{item.type} {item.identity}" + (f" ({item.relation})" if item.relation else "")

    return f"{command.tag}: {', '.join(map(named, command.objects or command.dropped[:1]))}".strip()


@pytest.mark.parametrize("group", range(len(GROUPS)))
def test_every_command_is_told(postgres: Postgres, group: int) -> None:
    """Each has its event, in its order, with what it was about; what else is told are the beacons of new tables."""
    with fresh_database(postgres) as dsn, opened(dsn) as shop:
        expected = lines(GROUPS[group], shop.admin.info.server_version // 10_000)
        shop.admin.execute(SETUP)
        shop.admin.execute(f"GRANT CREATE ON DATABASE {shop.database} TO app".encode())
        told = run(shop, [command for command, _ in expected])
    wrong = []
    for number, (command, events) in enumerate(expected):
        here = told.get(number, [])
        # A table that is made with rows has a beacon for them.
        filled = any(event.startswith(("CREATE TABLE AS", "SELECT INTO")) for event in events)
        strange = [said for said in here if not isinstance(said, Ddl) and not (filled and isinstance(said, Beacon))]
        found = iter([written(said) for said in here if isinstance(said, Ddl)])
        if strange or not all(event.strip() in found for event in events) or (here and not events):
            wrong.append((command, events, strange or [written(said) for said in here if isinstance(said, Ddl)]))
    assert wrong == []
