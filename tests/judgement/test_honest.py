"""Honest programs, seen by the log and the WAL together: nothing of Critical, of High what is true of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from detectors.judge import Judge
from detectors.policy.policies import Bundle
from detectors.sensitive import Sensitive
from pgwitness.config import Config
from pgwitness.demo.servers import Broker, Postgres
from pgwitness.events import RawEvent, Statement, Tick, Transaction
from streams.fold.fold import Fold
from streams.identity.identities import Identities
from tests.collectors.log_server import files
from tests.collectors.raw_topic import bench
from tests.collectors.wal_source import CLEAR, MARK, Source
from tests.judgement.honest import PROGRAMS
from tests.judgement.running import execute
from tests.outcomes import sessions
from tests.streams.records import batch, read

RULES = "rules: [{match: {role: '*'}, principal: '{role}', kind: service}]"
DATABASE = "honest"


def test_honest_work_is_left_alone(
    server: Postgres, tmp_path: Path, embedded_broker: Broker, config_factory: Callable[..., Config]
) -> None:
    """Of each program at most one alert of High a run, of a policy that is true of it."""
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {DATABASE}".encode())
        for role in sorted({program.role for program in PROGRAMS.values()}):
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
            transactions = source.until_marked()
        source.sql.execute("SELECT 1 AS all_was_honest")
    seen = sessions.lines(files(server, "jsonlog"), DATABASE, "all_was_honest")
    told = judged([*transactions, *[event for event in seen if getattr(event, "database", None) == DATABASE]])
    roles = {program.role for program in PROGRAMS.values()}  # and not who installs pgwitness, by hand as it were
    wrong = {key: messages for key, messages in told.items() if key[0] in roles and len(messages) > may(*key)}
    assert wrong == {}
    assert ("deploy", "drop_table") in told


def may(role: str, policy: str) -> int:
    """How many alerts of a policy are true of what a role's programs did: one a run."""
    programs = [program for program in PROGRAMS.values() if program.role == role]
    return sum(len(program.runs) for program in programs if policy in program.may)


def judged(events: list[RawEvent]) -> dict[tuple[str, str], list[str]]:
    """Fold and judge events in the order of their times; gives messages of High and Critical by who and policy."""
    fold = Fold(0, Identities.parse(RULES), 2_000_000)
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None, sensitive=Sensitive(["public.shop_person.nick"]))
    settings = {"log_statement": "all", "log_min_duration_statement": "0", "log_min_messages": "warning"}
    records = [batch(*[sessions.setting(*pair) for pair in settings.items()], source="sessions")]
    records += [
        batch(event, source="wal" if isinstance(event, Transaction) else "log") for event in sorted(events, key=when)
    ]
    records.append(batch(Tick(captured_at_us=max(event.captured_at_us for event in events) + 60_000_000), source="log"))
    told: dict[tuple[str, str], list[str]] = {}
    for offset, record in enumerate(records):
        for event in fold.apply(offset, read(record)):
            for alert in judge.judge(event).alerts:
                if alert.severity in ("high", "critical"):
                    told.setdefault((alert.action.principal, str(alert.policy)), []).append(alert.message)
    return told


def when(event: RawEvent) -> int:
    """The server's own time of an event."""
    if isinstance(event, Transaction):
        return event.committed_at_us
    return event.occurred_at_us if isinstance(event, Statement) else event.captured_at_us
