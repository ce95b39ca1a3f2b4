"""Apache Kafka 4 in KRaft mode, one node, from the jars that `make kafka` copies into deploy/kafka/lib.

Its data outlives a restart and a kill, unlike the embedded broker's: what happens when a broker goes down is
tested on it. It listens on 127.0.0.1 only and ends with the process that started it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pgwitness.core.errors import Unreachable
from pgwitness.demo.servers import LOOPBACK, Process, Server, answers, free_port

CLUSTER_ID = "cGd3aXRuZXNzLXRlc3RzMQ"
"""Sixteen bytes in base64, as Kafka writes a UUID: asking its own tool for one takes seconds."""
AUTHORIZER = """\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=false
"""
JARS = Path(__file__).parents[2] / "deploy" / "kafka" / "lib"


def missing() -> str | None:
    """Say what is missing to run Apache Kafka here, none when nothing is."""
    if shutil.which("java") is None:
        return "Java 17 or newer"
    if not (JARS / ".complete").exists():
        return "its jars (run `make kafka`)"
    return None


@contextmanager
def _once(name: str) -> Iterator[Path]:
    """Give the place of something beside the jars that is made once and used by all processes; one at a time."""
    with (JARS / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield JARS / name


@dataclass(frozen=True)
class Secured:
    """What a listener with TLS and SASL needs: a PEM file with its key and certificate, and whom it lets in.

    `users` are names with passwords; they may come by SCRAM-SHA-512 and by PLAIN. With `authorizer` they may do nothing
    but what ACLs allow them; on the listener `plain` everything is allowed.
    """

    keystore: Path
    users: Mapping[str, str]
    authorizer: bool = False


class Kafka(Server):
    """One Apache Kafka node; `data` is its folder, made when it is empty. The port is kept over restarts.

    With `secured` clients get in by TLS and SASL alone; `plain` is then a listener for the node's own use.
    """

    def __init__(self, data: Path, port: int = 0, secured: Secured | None = None) -> None:
        self.data = data.absolute()
        self.port = port or free_port()
        self.plain = f"{LOOPBACK}:{free_port() if secured is not None else self.port}"
        self._secured = secured
        self.controller_port = free_port()
        self.log = self.data / "kafka.log"
        self._process = Process(f"Kafka on port {self.port}", self.log)

    @property
    def bootstrap(self) -> str:
        """The address that clients connect to first."""
        return f"{LOOPBACK}:{self.port}"

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Format the data's folder if it is new, start the broker and wait until it answers.

        Raises `Unreachable` with the end of its log.
        """
        if self.running:
            return
        properties = self._configure()
        if not (self.data / "logs" / "meta.properties").exists():
            self._format(properties)
        self._process.start(
            [*self._java(), "-Xms128m", "-Xmx512m", "kafka.Kafka", str(properties)],
            lambda: answers(self.plain),
            environment=os.environ,
        )

    def stop(self) -> None:
        """End the broker as an operator would: it closes its logs."""
        self._process.stop()

    def _java(self) -> list[str]:
        java = shutil.which("java")
        if java is None:
            raise Unreachable("Apache Kafka needs Java 17 or newer")
        # It runs for seconds or minutes: to compile better takes longer than it gains.
        return [
            java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
            "-cp", f"{JARS}/*", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        ]  # fmt: skip

    def _configure(self) -> Path:
        self.data.mkdir(parents=True, exist_ok=True)
        properties = self.data / "server.properties"
        properties.write_text(
            f"""\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={LOOPBACK}:{self.controller_port}
{self._listeners()}controller.listener.names=CONTROLLER
log.dirs={self.data / "logs"}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
"""
        )
        return properties

    def _listeners(self) -> str:
        own = f"PLAINTEXT://{self.plain},CONTROLLER://{LOOPBACK}:{self.controller_port}"
        if self._secured is None:
            return f"listeners={own}\nadvertised.listeners={own}\n"
        every = f"{own},SASL_SSL://{self.bootstrap}"
        module = "org.apache.kafka.common.security"
        users = " ".join(f'user_{name}="{password}"' for name, password in self._secured.users.items())
        listener = "listener.name.sasl_ssl"
        return (
            (AUTHORIZER if self._secured.authorizer else "")
            + f"""\
listeners={every}
advertised.listeners={every}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
inter.broker.listener.name=PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location={self._secured.keystore}
sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
{listener}.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;
{listener}.plain.sasl.jaas.config={module}.plain.PlainLoginModule required {users};
"""
        )

    def _format(self, properties: Path) -> None:
        """Format the data's folder: without accounts it is what was formatted once, which takes Java seconds."""
        if self._secured is not None:
            self._run_format(properties)
            return
        with _once("formatted") as made:
            if not made.exists():
                self._run_format(properties)
                shutil.copytree(self.data / "logs", made)
                return
        shutil.copytree(made, self.data / "logs")

    def _run_format(self, properties: Path) -> None:
        tool = [*self._java(), "kafka.tools.StorageTool"]
        scram = [
            f"--add-scram=SCRAM-SHA-512=[name={name},password={password}]"
            for name, password in (self._secured.users if self._secured is not None else {}).items()
        ]
        done = subprocess.run(
            [*tool, "format", "--standalone", "-t", CLUSTER_ID, "-c", str(properties), *scram],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Unreachable(f"Kafka's storage could not be formatted: {done.stdout}{done.stderr}")
