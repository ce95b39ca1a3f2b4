"""Whatever way a statement takes, what a policy denies is not done; honest work that looks alike is not refused."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from collectors.gateway.judging.catalogue import read
from collectors.gateway.judging.judge import Person, Rules
from detectors.gatekeeper import Gatekeeper, Labels
from detectors.policy.files import parse
from detectors.policy.policies import Bundle
from detectors.sensitive import Sensitive
from pgwitness.demo.servers import Postgres
from tests.conftest import fresh_database
from tests.gateway.conftest import Running, running
from tests.gateway.evasions import HONEST, MADE_BEFORE, SETUP, WAYS
from tests.gateway.test_refusals import policy

TAKES_ALL = (
    '\'("delete" in statement.operations && statement.where in ["none", "useless"])'
    ' || statement.operations.exists(o, o in ["truncate", "drop_table", "drop_schema", "drop_owned"])\''
)
SECRETS = '\'"untrusted" in read_before && "secret" in statement.labels\''
LABELS = Labels({"secret": ["public.cards.number"], "untrusted": ["public.log.line"]})
SECRET = "4111-2222"
READ = "!"
"""Stands for reading what strangers wrote; behind that secrets are denied."""


def denying() -> Rules:
    """Policies that deny to take all rows and to read secrets, with those of the package that deny."""
    policies = [
        *parse(policy("takes_all", TAKES_ALL), "test"),
        *parse(
            policy("secrets", SECRETS).replace(
                "statement: {operations: [delete], where: none}",
                "read_before: [untrusted], statement: {labels: [secret]}",
            ),
            "test",
        ),
        *(each for each in Bundle.packaged().policies.values() if each.document.effect == "deny"),
    ]
    gatekeeper = Gatekeeper(Bundle(policies), Sensitive([]), LABELS)
    return Rules(gatekeeper, lambda _opened, _application: Person("helper", "agent"))


class Tried:
    """A way that was tried: what was refused, and what its client has seen."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.failed: list[str] = []
        self.seen: list[str] = []


class Tries:
    """Tries ways through one gateway; each finds the database as it was."""

    def __init__(self, gateway: Running, dsn: str, folder: Path) -> None:
        self.gateway, self.admin, self.folder = gateway, psycopg.connect(dsn, autocommit=True), folder
        self.rules = gateway.house.judging.rules
        self.admin.execute(sql.SQL("ALTER ROLE {} SUPERUSER").format(sql.Identifier(gateway.role)))
        self.number = 0

    def tried(self, steps: tuple[str, ...]) -> tuple[Tried, bool]:
        """Go a way; say whether what is denied was done."""
        self.number += 1
        marker = self.folder / f"marker{self.number}"
        self._anew()
        tried = Tried()
        words = {"{role}": self.gateway.role, "{marker}": str(marker)}
        for word, stands_for in words.items():
            steps = tuple(step.replace(word, stands_for) for step in steps)
        if READ not in steps:
            steps = (READ, *steps)
        for step in steps:
            if step.startswith("a:"):
                self.admin.execute(step[2:].encode())
        known = {("shop", self.gateway.database): read(self.admin)}
        self.gateway.house.judging.forget_learned()
        self.gateway.house.judging.adopt(self.rules._replace(catalogues=known))
        with psycopg.connect(self.gateway.dsn(), autocommit=True) as client:
            client.add_notice_handler(lambda notice: tried.seen.append(str(notice.message_primary)))
            for step in steps:
                if not step.startswith("a:"):
                    _step(client, step, tried)
        return tried, self._harmed(marker) or any(SECRET in each for each in tried.seen)

    def _anew(self) -> None:
        self.admin.execute("SELECT evtname FROM pg_event_trigger")
        self.admin.execute("DROP EVENT TRIGGER IF EXISTS e")
        self.admin.execute("DROP SCHEMA IF EXISTS public, s, p2 CASCADE")
        self.admin.execute("CREATE SCHEMA public")
        self.admin.execute(SETUP.encode())

    def _harmed(self, marker: Path) -> bool:
        if marker.exists():
            return True
        table = self.admin.execute("SELECT to_regclass('public.victim') IS NOT NULL").fetchone()
        if table != (True,):
            return True
        found = self.admin.execute("SELECT count(*) FROM public.victim WHERE id <= 5").fetchone()
        return found is None or found[0] < 5


def _step(client: psycopg.Connection, step: str, tried: Tried) -> None:
    """Send one text, and take up all that comes back."""
    pgconn = client.pgconn
    step = "SELECT line FROM public.log" if step == READ else step
    if step.startswith("x:"):
        results = [pgconn.exec_params(step[2:].encode(), [b"true"])]
    elif step.startswith("x1:"):
        value, _, text = step[3:].partition(":")
        results = [pgconn.exec_params(text.encode(), [value.encode()])]
    elif step.startswith("p:"):
        results = [pgconn.prepare(b"named", step[2:].encode())]
    elif step.startswith("b:"):
        results = [pgconn.prepare(b"", step[2:].encode()), pgconn.exec_params(b"SELECT 1", [])]
    else:
        results = _simple(client, step.removeprefix("t:"), tried)
    for result in results:
        if result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
            said = result.error_message.decode(errors="replace")
            code = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE)
            (tried.refused if code == b"42501" else tried.failed).append(f"{step}: {said}")
            tried.seen.append(said)
        for row in range(result.ntuples):
            tried.seen += [str(result.get_value(row, column)) for column in range(result.nfields)]


def _simple(client: psycopg.Connection, text: str, tried: Tried) -> list[psycopg.pq.PGresult]:
    pgconn = client.pgconn
    result = pgconn.exec_(text.encode())
    if result.status == psycopg.pq.ExecStatus.COPY_OUT:
        while (row := pgconn.get_copy_data(0))[0] > 0:
            tried.seen.append(bytes(row[1]).decode())
    elif result.status == psycopg.pq.ExecStatus.COPY_IN:
        pgconn.put_copy_end()
    else:
        return [result]
    end = pgconn.get_result()
    assert pgconn.get_result() is None
    return [result] if end is None else [result, end]


@pytest.fixture(scope="module")
def tries(postgres18: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tries]:
    """A gateway that denies, before a database that is made anew for each way."""
    folder = tmp_path_factory.mktemp("ways")
    folder.chmod(0o777)
    with fresh_database(postgres18) as dsn, running(folder, dsn, rules=denying()) as one:
        tries = Tries(one, dsn, folder)
        try:
            yield tries
        finally:
            tries.admin.close()


@pytest.mark.parametrize("name", WAYS)
def test_no_way_leads_round(tries: Tries, name: str) -> None:
    """What is denied is refused before it runs, and the server has not done it."""
    steps = WAYS[name]
    tried, harmed = tries.tried((*steps[:-1], READ, steps[-1]) if name in MADE_BEFORE else steps)
    assert not harmed, (name, tried.refused, tried.failed)
    assert tried.refused, (name, tried.failed)


@pytest.mark.parametrize("name", HONEST)
def test_what_looks_alike_passes(tries: Tries, name: str) -> None:
    """Honest work is not refused, and does what it should."""
    tried, _ = tries.tried(HONEST[name])
    assert not tried.refused, tried.refused
    assert not tried.failed, tried.failed


@pytest.mark.parametrize("how", ["--inserts", "--schema-only"])
def test_a_dump_passes(tries: Tries, postgres18: Postgres, how: str) -> None:
    """What pg_dump sends is not refused: a cursor of one name for each table, and the catalogue in every way."""
    tries.tried(("a:CREATE VIEW shown AS SELECT id FROM cards",))
    for number in range(20):
        columns = ", ".join(f"c{n} int" for n in range(number + 1))
        tries.admin.execute(f"CREATE TABLE public.t{number} ({columns})".encode())
    command = [str(postgres18.bin / "pg_dump"), how, "-d", tries.gateway.dsn()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("CREATE TABLE public.t") == 20
