"""Approvals under kills: `python -m tests.chaos.approvals [--requests N] [--kills N]`; a thousand and fifty as it is.

Two gateways, whose approver decides at random, are killed again and again while an agent's clients ask, and come again.
Meanwhile somebody who can write to the topic forges, replays and makes up records of every kind. Afterwards the books
are held against each other: every statement that ran was approved, none ran twice, none is used up twice, nothing that
was forged counts; and the worker lands each record of the topic as evidence, once.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace
from psycopg import errors

from detectors.alerts.verdicts import private_pem, public_text
from pgwitness.approvals import records
from pgwitness.approvals.deciding import decide
from pgwitness.approvals.ledger import Ledger, Standing, Trust
from pgwitness.approvals.records import Claim, Decision, Ended, Request, Signed
from pgwitness.approvals.topic import ApprovalsTopic
from pgwitness.core.config import Config, load
from pgwitness.core.errors import NotInOrder, PgwitnessError, Unreachable
from pgwitness.demo.servers import LOOPBACK, Broker, Postgres, free_port, wait_for
from pgwitness.demo.servers.process import kill_all
from sinks.sql import catalogue
from tests.bench.latency import daemon, pgwitness

ROLE, PASSWORD = "helper", "not-a-secret"
CLIENTS = 16
FORGED = 50
WITHIN_S = 10
READY_S_MAX, LANDED_S_MAX = 120.0, 300.0
POLICY = f"""
id: bulk
title: Deletes are looked at
description: Somebody else has looked at it first.
severity: high
kinds: [statement]
when: '"delete" in statement.operations'
effect: approve
max_rows: 10
approve: {{by: [dba], within: {WITHIN_S}s, use_within: {WITHIN_S}s, count: true, sample: 1}}
message: "{{who}} wants to delete"
runbook: Ask.
tests:
  - {{name: a, match: true, action: {{statement: {{operations: [delete]}}}}}}
  - {{name: b, match: false, action: {{statement: {{operations: [select]}}}}}}
"""
IDENTITIES = "rules:\n  - {id: bot, match: {role: helper}, principal: bot, kind: agent, on_behalf_of: maria}\n"


@dataclass
class Books:
    """What came of it all."""

    requests: int = 0
    ran: int = 0
    twice: int = 0
    unapproved: int = 0
    denied: int = 0
    expired: int = 0
    unused: int = 0
    """Claimed, and the gateway was killed before it ran or told of it."""
    kills: int = 0
    records: int = 0
    decisions: int = 0
    doubled: int = 0
    forged: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """Of what was forged, by the reason why it does not count."""
    estimated: int = 0
    """Requests that say how many rows the planner expects."""
    problems: list[str] = field(default_factory=list)


class World:
    """Servers, two gateways and an approver."""

    def __init__(self, root: Path, server: Postgres, broker: Broker) -> None:
        self.server = server
        self.key, self.maria = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self.forged: set[bytes] = set()
        own = Ed25519PrivateKey.generate()
        self.places = [root / "one", root / "two"]
        self.ports = [free_port() for _ in self.places]
        self.processes: list[psutil.Popen | None] = [None for _ in self.places]
        for place, port in zip(self.places, self.ports, strict=True):
            pgwitness(root, "init", str(place))
            (place / "privacy.key").write_bytes((self.places[0] / "privacy.key").read_bytes())
            (place / "gateway.key").write_bytes(private_pem(own))
            (place / "policies" / "bulk.yaml").write_text(POLICY)
            (place / "identities.yaml").write_text(IDENTITIES)
            (place / "pgwitness.toml").write_text(
                f'[kafka]\nbootstrap = "{broker.bootstrap}"\n[clusters.shop]\ndsn = "{server.dsn()}"\n'
                f'databases = ["postgres"]\n[gateway]\nlisten = "{LOOPBACK}:{port}"\n'
                f'[gateway.databases."*"]\ncluster = "shop"\n'
                f'upstream = "host={LOOPBACK} port={server.port} sslmode=disable"\n'
                f'[approvals]\nkey_file = "gateway.key"\n'
                f'[approvers.ada]\nkey = "{public_text(self.key.public_key())}"\ngroups = ["dba"]\n'
                f'[approvers.maria]\nkey = "{public_text(self.maria.public_key())}"\ngroups = ["dba"]\n'
            )
        self.config: Config = load(self.places[0] / "pgwitness.toml")
        self.trust = Trust.of(self.config)
        pgwitness(self.places[0], "topics", "apply")
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
            admin.execute("CREATE TABLE victim (id int PRIMARY KEY)")
            admin.execute("CREATE TABLE ran (id int, at timestamptz DEFAULT clock_timestamp())")
            admin.execute("GRANT ALL ON victim, ran TO helper")
        self.over = threading.Event()

    def start(self, number: int) -> None:
        """Start a gateway."""
        self.processes[number] = daemon(self.places[number], "gateway", "--port", "0")

    def kill(self, number: int) -> None:
        """Kill a gateway and what it has started, at once."""
        process = self.processes[number]
        if process is not None:
            kill_all(process)

    def answers(self, number: int) -> bool:
        """Return whether a gateway lets clients in."""
        with suppress(psycopg.OperationalError), psycopg.connect(self.dsn(number)):
            return True
        return False

    def dsn(self, number: int) -> str:
        """Where clients connect."""
        at = f"host={LOOPBACK} port={self.ports[number]} dbname=postgres sslmode=disable connect_timeout=5"
        return f"{at} user={ROLE} password={PASSWORD}"

    def approve(self, odds: random.Random) -> None:
        """Decide on what is open, at random: approve most, deny some, let some expire."""
        ledger, left = Ledger(self.trust), set[str]()
        with closing(ApprovalsTopic(self.config)) as topic:
            while not self.over.is_set():
                if (read := topic.poll()) is not None:
                    ledger.take(read.value, read.offset, read.at_us)
                    continue
                for standing in ledger.open(time.time_ns() // 1000):
                    request = standing.request.request
                    if request in left:
                        continue
                    left.add(request)
                    chance = odds.random()
                    if chance < 0.1:
                        continue
                    with suppress(NotInOrder):
                        word = "approve" if chance < 0.85 else "deny"
                        now_us = time.time_ns() // 1000
                        made = decide(
                            standing,
                            "approve" if word == "approve" else "deny",
                            "chaos",
                            who="ada",
                            key=self.key,
                            trust=self.trust,
                            now_us=now_us,
                        )
                        topic.append(request, made)
                        if odds.random() < 0.1:
                            topic.append(request, made)  # somebody replays it

    def forgery(self, kind: int, one: Standing, other: Standing, said: bytes, stranger: Ed25519PrivateKey) -> bytes:
        """Make a record about a request that counts for nothing."""
        request, at_us = one.request.request, time.time_ns() // 1000
        word = Decision(request=request, at_us=at_us, of=one.sha256, word="approve", who="ada", why="forged")
        own = replace(word, who="maria")
        match kind:
            case 0:  # by another key than ada's
                return records.sign(word, stranger)
            case 1:  # by whom the agent acts for
                return records.sign(own, self.maria)
            case 2:  # signed for another request
                return records.sign(replace(word, of=other.sha256), self.key)
            case 3:  # by the agent itself
                return records.sign(replace(word, who="bot"), stranger)
            case 4:  # said once, and again
                return said + b" "
            case 5:  # alone, without that right
                return records.sign(replace(own, break_glass=True), self.maria)
            case 6:  # a request of nobody's gateway
                return records.sign(replace(one.request, request=f"{at_us:012x}"), stranger)
            case 7:
                return records.sign(Claim(request=request, at_us=at_us, nonce="n"), stranger)
            case 8:  # an approver is no gateway
                return records.sign(Ended(request=request, at_us=at_us, end="withdrawn"), self.key)
            case _:  # altered behind its signature
                return records.sign(word, self.key).replace(b"forged", b"seen")

    def forge(self, odds: random.Random, tries: int = FORGED) -> None:
        """Write what nobody who may decide has written, of every kind in turn, while requests are open."""
        stranger = Ed25519PrivateKey.generate()
        ledger, said = Ledger(self.trust), list[bytes]()
        with closing(ApprovalsTopic(self.config)) as topic:
            while len(self.forged) < tries and not self.over.is_set():
                if (read := topic.poll()) is not None:
                    taken = ledger.take(read.value, read.offset, read.at_us)
                    if read.value and taken.refused is None and isinstance(taken.signed, Signed):
                        said += [read.value] if isinstance(taken.signed.record, Decision) else []
                    continue
                now_us = time.time_ns() // 1000
                opened = ledger.open(now_us)
                if len(opened) < 2 or not said:
                    continue
                one, other = odds.sample(opened, 2)
                value = self.forgery(len(self.forged) % 10, one, other, odds.choice(said), stranger)
                self.forged.add(value)
                topic.append(one.request.request, value)


def client(world: World, numbers: list[int], odds: random.Random) -> None:
    """Ask for statements one by one, at either gateway, until each ran, was denied, or was tried long enough."""
    for number in numbers:
        text = (
            f"WITH gone AS (DELETE FROM public.victim WHERE id = {number} RETURNING id)"
            f" INSERT INTO public.ran SELECT {number} FROM (SELECT count(*) FROM gone) AS n /* intent='{number}' */"
        )
        deadline = time.monotonic() + WITHIN_S * 1.5
        while time.monotonic() < deadline:
            try:
                with psycopg.connect(world.dsn(odds.randrange(2)), autocommit=True) as one:
                    one.execute(text)  # type: ignore[call-overload]
                    if odds.random() < 0.9:
                        break  # else it is sent again, and must be asked for again
            except errors.InsufficientPrivilege as error:
                if "was denied" in str(error):
                    break
            except psycopg.OperationalError:
                pass
            time.sleep(odds.random() * 0.3)


def run(root: Path, server: Postgres, broker: Broker, requests: int, kills: int, seed: int = 1) -> Books:
    """Let it happen, and hold the books against each other."""
    odds, books = random.Random(seed), Books()
    world = World(root, server, broker)
    for number in range(2):
        world.start(number)
    try:
        wait_for(lambda: all(world.answers(number) for number in range(2)), READY_S_MAX, "the gateways")
        approver = threading.Thread(target=world.approve, args=(random.Random(seed + 1),))
        shares = [list(range(requests))[part::CLIENTS] for part in range(CLIENTS)]
        clients = [
            threading.Thread(target=client, args=(world, share, random.Random(seed + 2 + part)))
            for part, share in enumerate(shares)
        ]
        forger = threading.Thread(target=world.forge, args=(random.Random(seed + 1_000),))
        for thread in (approver, forger, *clients):
            thread.start()
        while books.kills < kills or any(thread.is_alive() for thread in clients):
            time.sleep(odds.uniform(0.2, 2.0))
            if books.kills < kills:
                number = odds.randrange(2)
                world.kill(number)
                world.start(number)
                books.kills += 1
                wait_for(lambda number=number: world.answers(number), READY_S_MAX, "a gateway")  # type: ignore[misc]
        world.over.set()
        approver.join()
        forger.join()
        _count(world, books)
        _land(world, books)
    finally:
        world.over.set()
        for number in range(2):
            world.kill(number)
    return books


def _count(world: World, books: Books) -> None:
    """Hold what ran against the topic."""
    ledger, used = Ledger(world.trust), Counter[str]()
    now_us = time.time_ns() // 1000
    with closing(ApprovalsTopic(world.config)) as topic:
        for read in topic.to_end():
            books.records += 1
            taken = ledger.take(read.value, read.offset, read.at_us)
            if taken.signed is not None and isinstance(taken.signed.record, Request) and taken.refused is None:
                books.requests += 1
                books.estimated += taken.signed.record.estimate.planned is not None
            if read.value in world.forged:
                books.forged += 1
                reason = taken.refused or "taken"
                books.refused[reason] = books.refused.get(reason, 0) + 1
                if taken.refused is None:
                    books.problems.append(f"what was forged counts, at {read.offset}")
    for standing in ledger.requests.values():
        state = standing.state(now_us)
        books.denied += state == "denied"
        books.expired += state == "expired"
        if standing.claim is not None:
            used[standing.request.intent] += 1
            if not any(one.word == "approve" for one in standing.decisions):
                books.problems.append(f"{standing.request.request} was used without an approval")
    with psycopg.connect(world.server.dsn()) as admin:
        ran = Counter(str(number) for (number,) in admin.execute("SELECT id FROM ran"))
    books.ran = ran.total()
    for number, times in ran.items():
        if times > used[number]:
            books.twice += used[number] > 0
            books.unapproved += used[number] == 0
            books.problems.append(f"statement {number} ran {times} times by {used[number]} approvals")
    books.unused = used.total() - books.ran


def _land(world: World, books: Books) -> None:
    """Let a worker land what stands in the topic, each record once; started again in the midst of it."""
    place = world.places[0]
    query = (
        "SELECT count(*), count(DISTINCT event_id) FROM decisions WHERE operation LIKE 'approval%'"
        " AND (detail->>'$.offset')::BIGINT < " + str(books.records)
    )

    def landed() -> bool:
        with suppress(PgwitnessError), catalogue.connect(world.config.lake.path) as lake:
            row = lake.execute(query).fetchone()
            if row is not None:
                books.decisions, books.doubled = row[1], row[0] - row[1]
        return books.decisions >= books.records

    process = daemon(place, "worker", "--port", "0")
    try:
        wait_for(landed, LANDED_S_MAX, "the evidence", every_s=1.0)
        kill_all(process)
        process = daemon(place, "worker", "--port", "0")
        wait_for(landed, LANDED_S_MAX, "the evidence", every_s=1.0)
    except Unreachable as error:
        said = (place / "worker.log").read_text(errors="replace").splitlines()[-20:]
        books.problems += [str(error), *said]
    finally:
        kill_all(process)
    if books.doubled or books.decisions != books.records:
        books.problems.append(f"{books.records} records became {books.decisions} decisions and {books.doubled} twice")


def main() -> int:
    """Run it, print the books, and return 1 where they do not agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    # Of so many statements some find no gateway in their time, so that a thousand are asked for.
    parser.add_argument("--requests", type=int, default=1_100)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="approvals-") as folder, ExitStack() as stack:
        root = Path(folder)
        root.chmod(0o711)
        server = stack.enter_context(Postgres(root / "postgres", settings={"fsync": "off", "max_connections": "200"}))
        broker = stack.enter_context(Broker(root / "broker"))
        books: Any = run(root, server, broker, given.requests, given.kills, given.seed)
    print(json.dumps(books.__dict__))
    return 1 if books.problems else 0


if __name__ == "__main__":
    sys.exit(main())
