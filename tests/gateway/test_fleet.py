"""Several processes on one port are one gateway: cancelled, seen, ended, counted and mended as one."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from collectors.gateway.fleet import Family, Summed
from pgwitness.core.config import Config
from pgwitness.core.runtime import control
from pgwitness.demo.servers import Broker
from tests.contract.system import Daemon, System
from tests.gateway.conftest import DEADLINE_S
from tests.gateway.test_evidence import free_port
from tests.gateway.test_refusals import policy

CONFIG = """
[gateway]
listen = "127.0.0.1:{port}"
processes = 2
[gateway.databases."*"]
cluster = "shop"
upstream = "host={host} port={server} sslmode=disable"
"""


class Served:
    """A gateway of two processes, and how to come to it."""

    def __init__(self, system: System, daemon: Daemon, dsn: str) -> None:
        self.system, self.daemon, self.dsn = system, daemon, dsn
        self.folder = system.directory / "state" / "gateway"

    def processes(self) -> dict[int, list[str]]:
        """The applications that each process serves."""
        found: dict[int, list[str]] = {0: [], 1: []}
        for session in control.sessions(self.folder / "control"):
            found[session.process].append(session.application)
        return found

    def connect(self, name: str) -> psycopg.Connection:
        """Connect under a name."""
        return psycopg.connect(f"{self.dsn} application_name={name}", autocommit=True)

    def in_both(self, stack: ExitStack) -> tuple[psycopg.Connection, psycopg.Connection]:
        """Connect until there is a session in each process."""
        clients: dict[str, psycopg.Connection] = {}
        deadline = time.monotonic() + DEADLINE_S
        while not all((found := self._found(clients)).values()):
            assert time.monotonic() < deadline, found
            name = f"client_{len(clients)}"
            clients[name] = stack.enter_context(self.connect(name))
        return clients[found[0][0]], clients[found[1][0]]

    def _found(self, clients: dict[str, psycopg.Connection]) -> dict[int, list[str]]:
        return {number: [name for name in names if name in clients] for number, names in self.processes().items()}

    def metric(self, name: str) -> float:
        """A metric, added up by the gateway."""
        found = re.search(rf"^{re.escape(name)} ([0-9.e+]+)$", self.daemon.get("/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else 0.0

    def pid(self, number: int) -> int:
        """The process that writes a spool."""
        folder = self.folder if number == 0 else self.folder / str(number)
        inode = (folder / "lock").stat().st_ino
        for process in psutil.process_iter(["pid"]):
            try:
                if any(
                    Path(one.path).stat().st_ino == inode for one in process.open_files() if one.path.endswith("lock")
                ):
                    return process.pid
            except (psutil.Error, OSError):
                continue
        raise AssertionError(f"nobody writes the spool {folder}")


def until(reached: Callable[[], bool], what: str) -> None:
    """Wait for something."""
    deadline = time.monotonic() + DEADLINE_S
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_several_processes_are_one_gateway(
    tmp_path: Path, database18: str, embedded_broker: Broker, config_factory: Callable[..., Config]
) -> None:
    """Cancels find their session, functions are known everywhere, a killed one is mended, and SIGTERM drains all."""
    given, port = conninfo_to_dict(database18), free_port()
    name = str(given["dbname"])
    role = f"ada_{name}"
    with psycopg.connect(database18, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
        admin.execute(f"GRANT ALL ON SCHEMA public TO {role}")
        admin.execute("CREATE TABLE victim (id int)")
    extra = CONFIG.format(port=port, host=given["host"], server=given["port"])
    config = config_factory(tmp_path, embedded_broker.bootstrap, database18, [name], extra=extra)
    (config.policies.path / "no_delete.yaml").write_text(policy(when='"\\"delete\\" in statement.operations"'))
    dsn = f"host=127.0.0.1 port={port} dbname={name} user={role} password=secret sslmode=disable"
    with System(tmp_path, config, database18) as system:
        system.command("topics", "apply")
        served = Served(system, system.daemon("gateway", "--port", "0", name="gateway").ready(), dsn)
        with ExitStack() as stack:
            pair = served.in_both(stack)
            _cancelled(pair)
            _known(pair)
            _counted(served)
            _killed(served, pair)
        _drained(served)
        _fewer(served, extra)


def _cancelled(pair: tuple[psycopg.Connection, ...]) -> None:
    """Whichever process a cancel comes to, it finds the session."""
    for client in pair * 4:
        timer = threading.Timer(0.1, client.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            client.execute("SELECT pg_sleep(60)")
        timer.join()


def _known(pair: tuple[psycopg.Connection, ...]) -> None:
    """What a session of one process makes is judged in the other at once."""
    for n, (maker, caller) in enumerate((pair, pair[::-1])):
        maker.execute(f"CREATE FUNCTION wipe_{n}() RETURNS void LANGUAGE sql AS 'DELETE FROM victim'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no_delete"):
            caller.execute(f"SELECT wipe_{n}()")


def _counted(served: Served) -> None:
    """Metrics are those of both, and health too."""
    sessions = sum(map(len, served.processes().values()))
    until(lambda: served.metric("pgwitness_gateway_sessions") == sessions, "sessions added up")
    until(lambda: served.metric('pgwitness_gateway_decisions_total{effect="deny"}') == 2, "decisions added up")
    assert served.metric("pgwitness_gateway_process_starts_total") == 2
    served.daemon.ready()


def _killed(served: Served, pair: tuple[psycopg.Connection, ...]) -> None:
    """The other's sessions go on, it is started anew, and what was on its spool is shipped."""
    said: list[str] = []
    client, other = pair[1], pair[0]

    def run() -> None:
        try:
            client.execute("SELECT pg_sleep(60)")
        except psycopg.Error as error:
            said.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: any(one.state == "active" for one in control.sessions(served.folder / "control")), "it runs")
    before = served.metric("pgwitness_gateway_statements_total")
    os.kill(served.pid(1), signal.SIGKILL)
    thread.join(DEADLINE_S)
    assert said
    assert other.execute("SELECT 7").fetchone() == (7,)
    until(
        lambda: served.daemon.get("/readyz")[0] == 503 or served.metric("pgwitness_gateway_process_starts_total") > 2,
        "seen",
    )
    served.daemon.ready()
    with ExitStack() as stack:
        served.in_both(stack)
    assert served.metric("pgwitness_gateway_statements_total") >= before
    until(lambda: _shipped(served.system) == ["unknown"], "what it ran is told")


def _shipped(system: System) -> list[str]:
    """What came of the statement that ran when its process was killed."""
    events = [event for record in system.records("raw") for event in record["events"]]
    slept = [event for event in events if "pg_sleep" in str(event.get("statement"))]
    outcomes = [str(event.get("outcome", "unknown")) for event in slept]
    return [outcome for outcome in outcomes if outcome not in ("failure", "success")]


def _drained(served: Served) -> None:
    """What runs comes to its end, then the client is told; all processes are gone."""
    with ExitStack() as stack:
        pair = served.in_both(stack)
        rows: list[object] = []
        threads = [
            threading.Thread(target=lambda one=client: rows.append(one.execute("SELECT pg_sleep(1), 7").fetchone()))
            for client in pair
        ]
        for thread in threads:
            thread.start()
        busy = control.sessions(served.folder / "control")
        until(lambda: sum(one.state == "active" for one in control.sessions(served.folder / "control")) == 2, str(busy))
        assert served.daemon.stop() == 0
        for thread in threads:
            thread.join(DEADLINE_S)
        assert [row[1] for row in rows if isinstance(row, tuple)] == [7, 7]
        with pytest.raises(psycopg.OperationalError, match="the gateway is shutting down"):
            pair[0].execute("SELECT 1")


def _fewer(served: Served, extra: str) -> None:
    """With one process less, the spool of the other is shipped and goes; its sessions are known no more."""
    path = served.system.directory / "pgwitness.toml"
    path.write_text(path.read_text().replace("processes = 2", "processes = 1"))
    assert (served.folder / "1").is_dir()
    daemon = served.system.daemon("gateway", "--port", "0", name="gateway").ready()
    until(lambda: not (served.folder / "1").exists(), "the spool is shipped")
    assert daemon.stop() == 0


def test_what_processes_have_counted_adds_up() -> None:
    """Counters of a process that is gone stay, its gauges do not, and labels stay apart."""
    summed = Summed()

    def family(kind: str, name: str, **values: float) -> Family:
        return Family(name, kind, "", [(name, {"by": label}, value) for label, value in values.items()])

    def sums() -> dict[tuple[str, str], float]:
        return {(each.name, each.labels["by"]): each.value for one in summed.collect() for each in one.samples}

    summed.took(0, [family("counter", "a", x=1, y=2), family("gauge", "g", x=5)])
    summed.took(1, [family("counter", "a", x=10), family("gauge", "g", x=6)])
    assert sums() == {("a", "x"): 11, ("a", "y"): 2, ("g", "x"): 11}
    summed.ended(1)
    summed.took(1, [family("counter", "a", x=3)])
    assert sums() == {("a", "x"): 14, ("a", "y"): 2, ("g", "x"): 5}
    summed.ended(1)
    summed.ended(1)
    assert sums() == {("a", "x"): 14, ("a", "y"): 2, ("g", "x"): 5}
