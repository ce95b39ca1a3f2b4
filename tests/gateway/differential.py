"""Sessions at random on a real server: what the evidence calls committed is what the tables hold, text by text.

Each session sends messages in any order and in any division, reads its answers or does not, and ends as it likes. Of
every table the rows that are there are those of statements that the fold calls a success; where it does not know they
may be there or not. A statement that ran unseen, or under another's text, is a row too many.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import sys
import tempfile
from collections import Counter
from pathlib import Path

import psycopg

from collectors.gateway.spool.shipping import Shipment
from collectors.gateway.spool.spool import Reader
from collectors.gateway.wire.frames import frame
from pgwitness.core.events import RawBatch
from pgwitness.demo.servers import FAST_AND_FORGETFUL, Postgres
from streams.fold.fold import Fold
from streams.identity.identities import Identities
from tests.gateway.conftest import Running, running
from tests.streams.folding import GRACE_US
from tests.streams.records import batch, tick

TABLES = 12
EVERY = 10
MESSAGES_MAX = 40
ROWS_MAX = 4
"""What a COPY brings at most."""
_TABLE = re.compile(r"INSERT INTO ran_(\d+)|COPY ran_(\d+)")
_CONTROL = (
    "BEGIN",
    "BEGIN",
    "COMMIT",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "RELEASE s",
    "COMMIT AND CHAIN",
)


def insert(chance: random.Random) -> str:
    """Write a row somewhere."""
    return f"INSERT INTO ran_{chance.randrange(TABLES)} DEFAULT VALUES"


def text(chance: random.Random) -> str:
    """Choose one statement."""
    which = chance.random()
    if which < 0.55:
        return insert(chance)
    if which < 0.85:
        return chance.choice(_CONTROL)
    return chance.choice(("SELECT 1 / 0", "SELECT absent", "SELECT 1", "nonsense", ""))


def message(chance: random.Random) -> bytes:
    """Choose one message, or a few that belong together."""
    which, name = chance.random(), chance.choice((b"", b"a", b"b"))
    if which < 0.25:
        texts = [text(chance) for _ in range(chance.choice((1, 1, 1, 2, 3)))]
        return frame(b"Q", ";".join(texts).encode() + b"\0")
    if which < 0.40:
        return frame(b"P", name + b"\0" + text(chance).encode() + b"\0\0\0")
    if which < 0.55:
        return frame(b"B", chance.choice((b"", b"p")) + b"\0" + name + b"\0" + b"\0" * 6)
    if which < 0.70:
        return frame(b"E", chance.choice((b"", b"p")) + b"\0" + b"\0\0\0" + chance.choice((b"\0", b"\1")))
    if which < 0.85:
        return frame(b"S")
    if which < 0.88:
        return frame(b"C", chance.choice((b"S", b"P")) + name + b"\0")
    if which < 0.91:
        return frame(b"D", chance.choice((b"S", b"P")) + name + b"\0")
    if which < 0.94:
        return frame(b"H")
    copy = f"COPY ran_{chance.randrange(TABLES)} FROM STDIN".encode() + b"\0"
    rows = b"".join(frame(b"d", b"1\n") for _ in range(chance.randrange(4)))
    end = chance.choice((frame(b"c"), frame(b"c"), frame(b"f", b"no\0"), frame(b"d", b"x\n") + frame(b"c")))
    if which < 0.97:
        return frame(b"Q", copy) + rows + end
    sync = chance.choice((b"", frame(b"S")))
    return (
        frame(b"P", b"\0" + copy + b"\0\0")
        + frame(b"B", b"\0" * 8)
        + frame(b"E", b"\0" * 5)
        + sync
        + rows
        + end
        + frame(b"S")
    )


def converse(gateway: Running, chance: random.Random) -> None:
    """Let one session run to its end."""
    client = psycopg.connect(gateway.dsn(), autocommit=True)
    bare = socket.fromfd(client.fileno(), socket.AF_INET, socket.SOCK_STREAM)
    bare.settimeout(0.02)
    with contextlib.suppress(ConnectionError, OSError):
        for _ in range(chance.randrange(1, MESSAGES_MAX)):
            data = b"".join(message(chance) for _ in range(chance.choice((1, 1, 1, 2, 4, 8))))
            at = chance.randrange(len(data) + 1)
            for part in (data[:at], data[at:]):
                bare.sendall(part)
            if chance.random() < 0.7:
                with contextlib.suppress(TimeoutError):
                    bare.recv(65536)
        if chance.random() < 0.5:
            bare.sendall(frame(b"S"))
            with contextlib.suppress(TimeoutError):
                while bare.recv(65536):
                    pass
        if chance.random() < 0.5:
            bare.sendall(frame(b"X"))
    bare.close()
    client.close()


def told(gateway: Running) -> tuple[Counter[int], Counter[int]]:
    """Count by table the rows that the evidence calls committed, and those of which it does not know."""
    shipment = Shipment("spool")
    sure, unknown = Counter[int](), Counter[int]()
    fold = Fold(0, Identities.parse("rules: []\n"), GRACE_US)
    raw: list[RawBatch] = []
    for place, record in Reader(gateway.spool.folder, 0).read(gateway.spool.end):
        raw += [batch(event, source="gateway") for _, _, event in shipment.take(place, record)]
    events = [event for offset, one in enumerate([*raw, batch(tick(1))]) for event in fold.apply(offset, one)]
    for event in events:
        if event.kind != "statement" or event.outcome not in ("success", "unknown"):
            continue
        into = sure if event.outcome == "success" else unknown
        for inserted, copied in _TABLE.findall(event.statement or ""):
            rows = ROWS_MAX if event.row_count is None and event.outcome == "unknown" else event.row_count or 0
            into[int(inserted or copied)] += 1 if inserted else rows
    return sure, unknown


DENIED = 0
"""The table into which nothing comes where writes to it are denied."""
RULES = f"""
id: limited
title: t
description: d
severity: low
kinds: [statement]
when: statement.operations.exists(o, o in ["insert", "copy_from"]) && relations.exists(r, r.endsWith("1"))
effect: limit
max_rows: 1000000
message: m
runbook: r
tests:
  - {{name: a, match: true, action: {{relations: [t1], statement: {{operations: [insert]}}}}}}
  - {{name: b, match: false, action: {{statement: {{operations: [select]}}}}}}
---
id: denied
title: t
description: d
severity: low
kinds: [statement]
when: '"public.ran_{DENIED}" in relations'
effect: deny
message: m
runbook: r
tests:
  - {{name: a, match: true, action: {{relations: [public.ran_{DENIED}]}}}}
  - {{name: b, match: false, action: {{relations: [public.t]}}}}
"""
"""What decides in sessions that are refused now and then: some statements run under a limit that they keep."""


def compare(dsn: str, gateway: Running, sessions: int, seed: int) -> None:
    """Run sessions one after the other; raise `AssertionError` for the first whose evidence is not what is there."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        for table in range(TABLES):
            admin.execute(f"CREATE TABLE ran_{table} (n int)")
            admin.execute(f"GRANT ALL ON ran_{table} TO {gateway.role}")
        for number in range(1, sessions + 1):
            converse(gateway, random.Random(seed * 1_000_003 + number))
            if number % EVERY and number != sessions:
                continue
            gateway.statements(number)
            _settled(admin, gateway.role)
            sure, unknown = told(gateway)
            for table in range(TABLES):
                row = admin.execute(f"SELECT count(*) FROM ran_{table}").fetchone()
                assert row is not None
                here = f"seed {seed}, session {number} or one of the nine before, table {table}"
                assert sure[table] <= row[0] <= sure[table] + unknown[table], (
                    here,
                    row[0],
                    sure[table],
                    unknown[table],
                )


def _settled(admin: psycopg.Connection, role: str) -> None:
    """Wait until the server has ended every session of a role."""
    while admin.execute("SELECT 1 FROM pg_stat_activity WHERE usename = %s", [role]).fetchone():
        pass


def main(sessions: int, seed: int) -> None:
    """Compare on a server of its own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        with Postgres(Path(folder) / "server", settings=FAST_AND_FORGETFUL) as server:
            with psycopg.connect(server.dsn(), autocommit=True) as admin:
                admin.execute("CREATE DATABASE app")
            with running(Path(folder), server.dsn(dbname="app")) as gateway:
                compare(server.dsn(dbname="app"), gateway, sessions, seed)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    print(f"{sys.argv[1]} sessions: the evidence is what is there")
