"""Record anew what `test_golden` replays: `python -m tests.golden.record`; two minutes, and everything written changes.

`shop.xz` is the topic `raw` of the demo, `policies.xz` are the packaged policies of that day. `stream.xz` are the
messages of a replication stream as the server sent them, `postgres.{json,csv,stderr}.xz` the log of the same server in
its three formats: of work that has every kind of change, rolled back, in parts, of tables without keys, with DDL,
forged messages and errors.
"""

from __future__ import annotations

import contextlib
import lzma
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import msgspec
import psycopg
from confluent_kafka import Consumer

from collectors.installation import install, source
from detectors.policy.policies import Bundle
from pgwitness.demo.servers import FAST_AND_FORGETFUL, Postgres
from tests.bench.log_lines import PREFIX
from tests.golden.replay import HERE, Record, Stream

WORK = [
    "CREATE TABLE orders (id int PRIMARY KEY, note text, email text, total numeric(10, 2), made timestamptz)",
    "CREATE TABLE notes (note text, tags text[], facts jsonb)",
    "CREATE TABLE days (day int PRIMARY KEY, what text) PARTITION BY RANGE (day)",
    "CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (100)",
    "CREATE ROLE app LOGIN",
    "GRANT ALL ON orders, notes, days, days_1 TO app",
    "INSERT INTO orders"
    " SELECT n, 'note ' || n, n || '@example.org', n * 1.5, '2026-01-01' FROM generate_series(1, 400) n",
    "SET ROLE app",
    "UPDATE orders SET note = repeat('x', 9000) WHERE id = 3",
    "UPDATE orders SET total = 0 WHERE id <= 5",
    "UPDATE orders SET id = 1000 WHERE id = 7",
    "DELETE FROM orders WHERE id BETWEEN 20 AND 40",
    "INSERT INTO notes VALUES ('a ''quoted'' word', '{a,b}', '{\"card\": \"4111\"}'), (NULL, NULL, NULL)",
    "INSERT INTO days VALUES (1, 'one'), (2, 'zwei')",
    "BEGIN; INSERT INTO days VALUES (3, 'three'); SAVEPOINT s; DELETE FROM days; ROLLBACK TO s; COMMIT",
    "BEGIN; DELETE FROM orders; ROLLBACK",
    "INSERT INTO orders (id) VALUES (1)",
    "SELECT * FROM nowhere WHERE secret = 'hunter2'",
    "SELECT pg_logical_emit_message(true, 'pgwitness.beacon', repeat('c', 64) || 'I am the CFO')",
    "DECLARE c CURSOR WITH HOLD FOR SELECT email FROM orders; FETCH 10 FROM c; CLOSE c",
    "PREPARE p (int) AS UPDATE orders SET note = 'n' WHERE id = $1; EXECUTE p(50)",
    "COPY orders TO '/dev/null'",
    "TRUNCATE days",
    "RESET ROLE",
    "ALTER TABLE notes ADD COLUMN since date DEFAULT now()",
    "GRANT SELECT ON orders TO PUBLIC",
    "ALTER TABLE orders RENAME TO bestellungen",
    "INSERT INTO bestellungen VALUES (2000, 'nach der Umbenennung', 'ä@example.org', 1, now())",
    "DROP TABLE notes",
]


def shop(into: Path) -> None:
    """Run the demo, and write down its topic `raw`."""
    folder = into / "shop"
    demo = subprocess.Popen([Path(sys.executable).with_name("pgwitness"), "demo", "--dir", folder])
    settings = folder / "pgwitness.toml"
    while not settings.exists() and demo.poll() is None:
        time.sleep(0.2)
    consumer = Consumer(
        {
            "bootstrap.servers": tomllib.loads(settings.read_text())["kafka"]["bootstrap"],
            "group.id": "golden",
            "auto.offset.reset": "earliest",
            "topic.metadata.refresh.interval.ms": 500,
            "log_level": 0,
        }
    )
    consumer.subscribe(["^.*raw$"])
    records = []
    while demo.poll() is None:
        message = consumer.poll(0.2)
        if message is not None and not message.error():
            records.append(Record(message.offset(), message.timestamp()[1] * 1000, message.value() or b""))
    if demo.returncode:
        raise SystemExit("the demo failed: nothing was recorded")
    consumer.close()
    save("shop.xz", msgspec.msgpack.encode(records))
    save("identities.xz", (folder / "identities.yaml").read_bytes())
    save("policies.xz", Bundle.packaged().canonical().encode())


def server(into: Path) -> None:
    """Do the work on a server of its own, and write down its stream and its log."""
    settings = {
        **FAST_AND_FORGETFUL,
        "logging_collector": "on",
        "log_destination": "stderr,csvlog,jsonlog",
        "log_statement": "all",
        "log_min_duration_statement": "0",
        "log_line_prefix": PREFIX,
        "log_directory": "log",
        "log_filename": "postgres.log",
        "log_connections": "on",
        "log_disconnections": "on",
        "log_error_verbosity": "verbose",
    }
    with Postgres(into / "server", settings=settings) as postgres:
        with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
            install.install(admin)
            query = "SELECT system_identifier::text FROM pg_control_system()"
            system_id = str(admin.execute(query).fetchone()[0])  # type: ignore[index]
            admin.execute("CREATE PUBLICATION golden FOR ALL TABLES")
            admin.execute("SELECT pg_create_logical_replication_slot('golden', 'pgoutput')")
            for statement in WORK:
                with contextlib.suppress(psycopg.Error):
                    admin.execute(statement)  # type: ignore[arg-type]
            key = source.load_key(admin)
            rows = admin.execute(
                "SELECT lsn - '0/0', data FROM pg_logical_slot_get_binary_changes('golden', NULL, NULL,"
                " 'proto_version', '1', 'publication_names', 'golden', 'messages', 'true')"
            ).fetchall()
        logs = sorted((postgres.place / "log").iterdir())
        contents = {log.suffix: log.read_bytes() for log in logs}
    messages = [(int(lsn), bytes(data)) for lsn, data in rows]
    save("stream.xz", msgspec.msgpack.encode(Stream(system_id, "postgres", key or b"", messages)))
    for suffix, name in ((".json", "jsonlog"), (".csv", "csvlog"), (".log", "stderr")):
        save(f"{name}.xz", contents[suffix])


def save(name: str, content: bytes) -> None:
    """Write a recording, packed."""
    (HERE / "recorded" / name).write_bytes(lzma.compress(content))


def main() -> None:
    """Record everything, and write down what is made of it now."""
    (HERE / "recorded").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        shop(Path(folder))
        server(Path(folder))
    subprocess.run([sys.executable, "-m", "tests.golden.replay", "--accept"], check=True)


if __name__ == "__main__":
    main()
