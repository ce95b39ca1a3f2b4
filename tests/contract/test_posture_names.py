"""Who changed what no event trigger sees: snapshots find it, the server's log names who it was, or nobody is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from collectors.installation.sql import key_templates
from pgwitness.demo.servers import Broker, Postgres
from tests.collectors.log_server import SETTINGS, TIMEZONE, pattern
from tests.conftest import DEBIAN_BIN, leave_out, write_config
from tests.contract.system import System
from tests.contract.test_reconciliation import PGAUDIT as LIBRARY
from tests.contract.test_reconciliation import WITHOUT_PGAUDIT

IDENTITIES = """\
rules:
  - match: {role: "p_*"}
    principal: "{role}"
    kind: human
"""
PGAUDIT = "pgaudit"
LOGS = {"every statement": ("none", "0", "strong"), "ddl": ("ddl", "-1", "weak"), PGAUDIT: ("none", "-1", "weak")}
"""log_statement, log_min_duration_statement, and how sure a name is: `ddl` and pgAudit tell of no ROLLBACK."""
AUDITING = {"pgaudit.log": "ddl, role, misc", "pgaudit.log_catalog": "off"}
SETUP = """
CREATE ROLE p_ada SUPERUSER LOGIN;
CREATE ROLE p_bob SUPERUSER LOGIN;
CREATE TABLE plain (id int);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER touch AFTER INSERT ON plain FOR EACH STATEMENT EXECUTE FUNCTION nothing();
CREATE FUNCTION silently(text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE $1; END';
"""


@pytest.fixture(
    params=[
        pytest.param((18, "every statement"), id="18-every statement"),
        *(pytest.param((15, log), id=f"15-{log}", marks=pytest.mark.debian) for log in ("ddl", PGAUDIT)),
    ]
)
def logged(request: pytest.FixtureRequest, servers_path: Path) -> Iterator[tuple[Postgres, str, bool]]:
    """A server that writes jsonlog, how sure its names are, and whether functions hide nothing from it."""
    version, log = request.param
    binaries = None if version == 18 else DEBIAN_BIN
    if binaries is not None and not (binaries / "postgres").exists():
        leave_out(f"PostgreSQL 15 is not installed in {DEBIAN_BIN} (Debian: apt-get install postgresql-15)")
    statements, duration, certainty = LOGS[log]
    settings = {
        **SETTINGS, "log_destination": "jsonlog", "log_directory": "log",
        "log_statement": statements, "log_min_duration_statement": duration,
    }  # fmt: skip
    if log == PGAUDIT:
        if not LIBRARY.exists():
            leave_out(WITHOUT_PGAUDIT)
        settings |= {**AUDITING, "shared_preload_libraries": f"pg_stat_statements,{LIBRARY}"}
    with Postgres(servers_path / f"posture{version}{log[:3]}", bin=binaries, settings=settings) as server:
        yield server, certainty, log == PGAUDIT


class People:
    """Ada and Bob at work, and what the lake says of it."""

    def __init__(self, system: System, server: Postgres) -> None:
        self.system = system
        self.sessions = {
            name: psycopg.connect(server.dsn(name), autocommit=True, application_name="psql")
            for name in ("p_ada", "p_bob")
        }

    def close(self) -> None:
        """End their sessions."""
        for session in self.sessions.values():
            session.close()

    def did(self, who: str, *statements: str) -> None:
        """Let one of them run statements, each by itself."""
        for text in statements:
            self.sessions[who].execute(text.encode())

    def told(self, object_type: str, name: str, change: str) -> tuple[Any, ...]:
        """Wait until a change has landed, and give who it is said to be of."""
        question = (
            "SELECT principal, binding, certainty, role, pid, detail FROM posture WHERE"
            f" json_extract_string(detail, '$.object_type') = '{object_type}'"
            f" AND json_extract_string(detail, '$.name') = '{name}' AND operation = '{change}'"
        )
        rows = self.system.landed(question, lambda found: found != [])
        assert len(rows) == 1
        return rows[0]


@pytest.mark.timeout(600)
def test_the_log_names_who_changed_what_only_snapshots_see(
    logged: tuple[Postgres, str, bool],
    embedded_broker: Broker,
    tmp_path: Path,
    topic_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Roles, memberships, settings, databases, grants and triggers: each by its statement's session; no wrong name."""
    server, certainty, audited = logged
    # However slow this machine is: what is read is decided at once, so that a longer grace is only more patience.
    monkeypatch.setenv("PGWITNESS_WORKER__GRACE", "30s")
    log = f'[clusters.shop.log]\npath = "{pattern(server, "jsonlog")}"\ntimezone = "{TIMEZONE}"\ninterval = "50ms"\n'
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(SETUP)
    config = write_config(
        tmp_path, embedded_broker.bootstrap, server.dsn("pgwitness"), ["postgres"], prefix=topic_prefix,
        cluster_extra=log,
    )  # fmt: skip
    config.identities.file.write_text(IDENTITIES)
    with System(tmp_path, config, server.dsn()) as system:
        system.prepare()
        without_event_triggers(server)
        system.collect("sessions", "log").ready()
        system.worker().ready()
        system.landed("SELECT count(*) FROM posture WHERE operation = 'found'", some)
        with psycopg.connect(server.dsn("p_bob"), application_name="first") as bob:
            bob.execute("CREATE TEMPORARY TABLE first (id int)")
        system.landed("SELECT count(*) FROM statements WHERE application = 'first'", some)
        people = People(system, server)
        try:
            named(people, certainty)
            unnamed(people, "p_bob" if audited else None)
        finally:
            people.close()
        alerts = [json.loads(text) for (text,) in system.query("SELECT ocsf FROM alerts WHERE policy = 'superuser'")]
        actors = {alert["message"].partition(" of ")[0]: alert["evidences"][0]["actor"]["user"] for alert in alerts}
        assert {what: user["name"] for what, user in actors.items()} == {
            "The role metrics": "p_ada", "The membership metrics IN pg_read_all_data": "p_bob",
        }  # fmt: skip
        assert [daemon.stop() for daemon in system.daemons] == [0, 0]


def some(rows: list[tuple[Any, ...]]) -> bool:
    """Say whether a count is above none."""
    return rows != [] and rows[0][0] > 0


def without_event_triggers(server: Postgres) -> None:
    """As on a managed service where none may be made."""
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(key_templates.RELEASE.encode())
        names = [name for (name,) in admin.execute("SELECT evtname FROM pg_event_trigger").fetchall()]
        for name in names:
            admin.execute(f'DROP EVENT TRIGGER "{name}"'.encode())


ROUNDS: list[list[tuple[str, list[str], tuple[str, str, str]]]] = [
    [
        ("p_ada", ["CREATE ROLE metrics LOGIN SUPERUSER PASSWORD 'x'"], ("role", "metrics", "added")),
        ("p_bob", ["ALTER SYSTEM SET work_mem = '6MB'", "SELECT pg_reload_conf()"], ("setting", "work_mem", "added")),
        ("p_ada", ["CREATE DATABASE side"], ("database", "side", "added")),
        ("p_bob", ["ALTER TABLE public.plain DISABLE TRIGGER touch"], ("trigger", "public.plain.touch", "changed")),
        ("p_ada", ["GRANT SELECT ON public.plain TO PUBLIC"], ("grant", "public.plain", "added")),
        ("p_bob", ["BEGIN", "CREATE ROLE later", "COMMIT"], ("role", "later", "added")),
    ],
    [
        ("p_bob", ["GRANT pg_read_all_data TO metrics"], ("membership", "metrics IN pg_read_all_data", "added")),
        ("p_ada", ["ALTER ROLE metrics SET work_mem = '5MB'"], ("role_setting", "metrics IN ALL", "added")),
        ("p_bob", ["GRANT CONNECT ON DATABASE side TO metrics"], ("grant", "database side", "added")),
    ],
    [
        ("p_ada", ["ALTER ROLE metrics NOSUPERUSER"], ("role", "metrics", "changed")),
        ("p_bob", ["DROP DATABASE side"], ("database", "side", "removed")),
    ],
]  # fmt: skip
"""Who runs what, and what snapshots find of it; all of a round at once."""


def named(people: People, certainty: str) -> None:
    """What one of them did is said to be theirs, and so is the statement that says it."""
    whose: dict[str, str] = {}
    for steps in ROUNDS:
        for who, statements, _ in steps:
            people.did(who, *statements)
        for who, _, change in steps:
            principal, binding, sure, role, pid, detail = people.told(*change)
            said = (change, principal, binding, sure, role, pid)
            assert said == (change, who, "log", certainty, who, people.sessions[who].info.backend_pid), detail
            found = json.loads(detail)
            assert found["join"] == "statement"
            (statement,) = found["statements"]
            whose[statement] = who
    # A log that tells of no end leaves a statement's outcome open: it comes some seconds after what it names.
    ids = ", ".join(f"'{statement}'" for statement in whose)
    question = f"SELECT event_id, principal FROM statements WHERE event_id IN ({ids})"
    assert dict(people.system.landed(question, lambda rows: len(rows) == len(whose))) == whose


def unnamed(people: People, inside: str | None) -> None:
    """What the log does not say, or says of two, has no name; pgAudit sees `inside` functions. Never who only tried."""
    people.did("p_bob", "SELECT silently('CREATE ROLE hidden')")
    assert people.told("role", "hidden", "added")[0] == inside
    with pytest.raises(psycopg.errors.DuplicateObject):
        people.did("p_ada", "CREATE ROLE hidden")
    people.did("p_bob", "SELECT silently('ALTER ROLE hidden CREATEDB')", "ALTER ROLE hidden CONNECTION LIMIT 3")
    principal, *_, detail = people.told("role", "hidden", "changed")
    assert principal in (None, "p_bob"), detail
