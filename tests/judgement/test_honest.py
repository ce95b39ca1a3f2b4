"""Honest programs, seen by the log and the WAL together: nothing of Critical, of High what is true of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from detectors.judge import Judge
from detectors.policy.policies import Bundle
from detectors.sensitive import Sensitive
from pgwitness.core.config import Config
from pgwitness.core.events import RawEvent, Statement, Tick, Transaction
from pgwitness.demo.servers import Broker, Postgres
from streams.fold.fold import Fold
from streams.identity.identities import Identities
from tests.collectors.log_server import files
from tests.collectors.raw_topic import bench
from tests.collectors.wal_source import CLEAR, MARK, Source
from tests.judgement.honest import COMMANDS, COMMANDS_MAY, PROGRAMS
from tests.judgement.running import execute
from tests.outcomes import sessions
from tests.streams.records import batch, read

RULES = """rules:
- {match: {role: dumper}, principal: dumper, kind: human}
- {match: {role: '*'}, principal: '{role}', kind: service}
"""
DATABASE = "honest"


def test_honest_work_is_left_alone(
    server: Postgres, tmp_path: Path, embedded_broker: Broker, config_factory: Callable[..., Config]
) -> None:
    """Of each program at most one alert of High a run, of a policy that is true of it."""
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {DATABASE}".encode())
        for role in sorted({program.role for program in PROGRAMS.values()} | COMMANDS.keys()):
            admin.execute(f"CREATE ROLE {role} LOGIN SUPERUSER".encode())
    dsn = server.dsn().rsplit("/", 1)[0] + f"/{DATABASE}"
    config = config_factory(tmp_path, embedded_broker.bootstrap, dsn, extra=CLEAR)
    with bench(config) as made, Source(dsn, made) as source:
        source.create(MARK)
        with source.running():
            source.streaming()
            for name, program in PROGRAMS.items():
                for run in program.runs:
                    connection = pq.PGconn.connect(
                        make_conninfo(dsn, user=program.role, application_name=program.application or name).encode()
                    )
                    assert connection.status == pq.ConnStatus.OK, connection.error_message
                    for text in run:
                        execute(connection, text)
                    connection.finish()
            for role, commands in COMMANDS.items():
                for command in commands:
                    run_command(server, role, command.format(scratch=tmp_path))
            transactions = source.until_marked()
        source.sql.execute("SELECT 1 AS all_was_honest")
    seen = sessions.lines(files(server, "jsonlog"), DATABASE, "all_was_honest")
    roles = {program.role for program in PROGRAMS.values()} | COMMANDS.keys()  # and not who installs, by hand
    mine = [event for event in seen if getattr(event, "database", None) == DATABASE or role_of(event) in COMMANDS]
    told = judged([*transactions, *mine])
    wrong = {key: messages for key, messages in told.items() if key[0] in roles and len(messages) > may(*key)}
    assert wrong == {}
    assert {("deploy", "drop_table"), *COMMANDS_MAY} <= told.keys()


def run_command(server: Postgres, role: str, command: str) -> None:
    """Run one of PostgreSQL's own programs as a role."""
    host, port = server.dsn().rpartition("@")[2].partition("/")[0].split(":")
    environment = {**os.environ, "PGHOST": host, "PGPORT": port, "PGUSER": role, "PGDATABASE": DATABASE}
    program, *arguments = command.split()
    subprocess.run([server.psql_bin / program, *arguments], env=environment, check=True, capture_output=True)


def role_of(event: RawEvent) -> str | None:
    """Return the role that a line of the log is of."""
    return getattr(event, "role", None)


def may(role: str, policy: str) -> int:
    """How many alerts of a policy are true of what a role's programs did: one a run."""
    if (role, policy) in COMMANDS_MAY:
        return COMMANDS_MAY[role, policy]
    programs = [program for program in PROGRAMS.values() if program.role == role]
    return sum(len(program.runs) for program in programs if policy in program.may)


def judged(events: list[RawEvent]) -> dict[tuple[str, str], list[str]]:
    """Fold and judge events in the order of their times; return findings of High and Critical by who and policy."""
    fold = Fold(0, Identities.parse(RULES), 2_000_000)
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None, sensitive=Sensitive(["public.shop_person.nick"]))
    settings = {"log_statement": "all", "log_min_duration_statement": "0", "log_min_messages": "warning"}
    records = [batch(*[sessions.setting(*pair) for pair in settings.items()], source="sessions")]
    records += [
        batch(event, source="wal" if isinstance(event, Transaction) else "log") for event in sorted(events, key=when)
    ]
    records.append(batch(Tick(captured_at_us=max(event.captured_at_us for event in events) + 60_000_000), source="log"))
    told: dict[tuple[str, str], dict[str, str]] = {}
    for offset, record in enumerate(records):
        for event in fold.apply(offset, read(record)):
            for alert in judge.judge(event).alerts:
                if alert.severity in ("high", "critical"):
                    found = told.setdefault((alert.action.principal, str(alert.policy)), {})
                    found[alert.uid] = alert.message
    return {key: list(messages.values()) for key, messages in told.items()}


def when(event: RawEvent) -> int:
    """The server's own time of an event."""
    if isinstance(event, Transaction):
        return event.committed_at_us
    return event.occurred_at_us if isinstance(event, Statement) else event.captured_at_us
