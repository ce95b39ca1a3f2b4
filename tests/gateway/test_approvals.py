"""What has to be approved runs when it was, once, and as it was approved; with real keys, broker and servers."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace
from psycopg import errors, sql

from collectors.gateway.approving.desk import Desk
from collectors.gateway.approving.estimating import Estimator
from collectors.gateway.judging.judge import Person, Rules
from collectors.gateway.spool.records import Begun, Ended
from collectors.guard import install as guarding
from collectors.guard.install import Guard
from collectors.guard.mark import key_of
from collectors.guard.wanted import Config as GuardConfig
from collectors.guard.wanted import Login
from detectors.alerts.verdicts import private_key, private_pem, public_text
from detectors.gatekeeper import Gatekeeper
from detectors.policy.files import parse
from detectors.policy.policies import Bundle
from detectors.sensitive import Sensitive
from pgwitness.approvals import records
from pgwitness.approvals.deciding import decide
from pgwitness.approvals.ledger import Ledger, Standing, Trust
from pgwitness.approvals.records import Estimate, Word
from pgwitness.approvals.topic import ApprovalsTopic
from pgwitness.core.config import Approvals, Approver, Config, Mask
from pgwitness.core.privacy import tokenizer
from pgwitness.demo.servers import Broker
from streams.kafka import admin
from tests.approvals import signing
from tests.gateway.conftest import DEADLINE_S, Running, running

POLICY = """
id: bulk
title: Deletes of many rows are looked at
description: Somebody else has looked at it first.
severity: high
kinds: [statement]
when: '"delete" in statement.operations'
effect: approve
max_rows: 10
approve: {by: [dba], within: WITHIN, use_within: 5m, count: true, sample: 2}
message: "{who} wants to delete in {where}"
runbook: Ask.
tests:
  - {name: a, match: true, action: {statement: {operations: [delete]}}}
  - {name: b, match: false, action: {statement: {operations: [select]}}}
"""
_numbers = itertools.count(1)


class Office:
    """An approver, and gateways that ask: what a test needs of both."""

    def __init__(self, config: Config, key: Ed25519PrivateKey) -> None:
        self.config, self.key, self.trust = config, key, Trust.of(config)

    def ledger(self) -> Ledger:
        """Read the topic."""
        ledger, topic = Ledger(self.trust), ApprovalsTopic(self.config)
        with closing(topic):
            for read in topic.to_end():
                ledger.take(read.value, read.offset, read.at_us)
        return ledger

    def until(self, reached: Callable[[Ledger], Standing | None]) -> Standing:
        """Wait for a request to stand as it should."""
        deadline = time.monotonic() + DEADLINE_S
        while (found := reached(self.ledger())) is None:
            assert time.monotonic() < deadline
        return found

    def open(self) -> Standing:
        """Wait for a request that is open."""
        return self.until(lambda ledger: next(iter(ledger.open(time.time_ns() // 1000)), None))

    def say(self, standing: Standing, word: Word = "approve", why: str = "seen", who: str = "ada") -> None:
        """Decide."""
        value = decide(standing, word, why, who=who, key=self.key, trust=self.trust, now_us=time.time_ns() // 1000)
        with closing(ApprovalsTopic(self.config)) as topic:
            topic.append(standing.request.request, value)


def rules(kind: str, within: str = "5m", principal: str = "helper") -> Rules:
    """What is decided for a principal of a kind."""
    policies = list(parse(POLICY.replace("WITHIN", within), "test"))
    person = Person(principal, kind, "maria" if kind == "agent" else None)  # type: ignore[arg-type]
    return Rules(Gatekeeper(Bundle(policies), Sensitive([])), lambda _opened, _application: person)


@pytest.fixture
def office(tmp_path: Path, embedded_broker: Broker, config_factory: Callable[..., Config]) -> Office:
    """A topic of its own, a gateway's key and an approver."""
    key, own = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    file = tmp_path / "gateway.key"
    file.write_bytes(private_pem(own))
    config = config_factory(tmp_path, embedded_broker.bootstrap, "postgresql://localhost/shop")
    approvers = {"ada": Approver(key=public_text(key.public_key()), groups=["dba"])}
    config = replace(config, approvals=Approvals(key_file=file), approvers=approvers)
    admin.apply(config)
    return Office(config, key)


@contextmanager
def asking(folder: Path, dsn: str, office: Office, kind: str, **more: str) -> Iterator[Running]:
    """Run a gateway that asks, in front of a table with thirty rows."""
    folder.mkdir()
    with ExitStack() as stack:
        one = stack.enter_context(running(folder, dsn, rules=rules(kind, **more)))
        desk = one.house.desk = Desk(office.config)
        one.house.estimator = Estimator(office.config.privacy, tokenizer(b"k" * 32))
        desk.start()
        stack.callback(desk.close)
        yield one


def table(dsn: str, *owners: str) -> None:
    """Make the table, for the role of each gateway."""
    with psycopg.connect(dsn, autocommit=True) as admin_of:
        admin_of.execute("CREATE TABLE IF NOT EXISTS victim (id int PRIMARY KEY, word text)")
        admin_of.execute("INSERT INTO victim SELECT n, 'x' FROM generate_series(1, 30) AS n ON CONFLICT DO NOTHING")
        for owner in owners:
            admin_of.execute(sql.SQL("GRANT ALL ON victim TO {}").format(sql.Identifier(owner)))


def left(dsn: str) -> int:
    """Count the rows that are left."""
    with psycopg.connect(dsn) as admin_of:
        row = admin_of.execute("SELECT count(*) FROM victim").fetchone()
        assert row is not None
        return int(row[0])


class Waiting(threading.Thread):
    """A client that runs a statement, and may have to wait for it."""

    def __init__(self, dsn: str, text: str, values: list[object] | None = None, *, simple: bool = False) -> None:
        super().__init__()
        factory = psycopg.ClientCursor if simple else psycopg.Cursor
        self.client = psycopg.connect(dsn, autocommit=True, cursor_factory=factory)
        self.notices: list[str] = []
        self.client.add_notice_handler(lambda said: self.notices.append(str(said.message_primary)))
        self.text, self.values = text, values
        self.rows: int | None = None
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        """Run it."""
        try:
            self.rows = self.client.execute(self.text, self.values).rowcount  # type: ignore[call-overload]
        except psycopg.Error as error:
            self.error = error

    def ended(self) -> Waiting:
        """Wait for its end."""
        self.join(DEADLINE_S)
        assert not self.is_alive()
        self.client.close()
        return self


DELETE = "DELETE FROM public.victim WHERE id <= 3"


@pytest.mark.parametrize("simple", [True, False])
def test_a_persons_statement_is_held_until_it_is_approved(
    tmp_path: Path, database: str, office: Office, simple: bool
) -> None:
    """A notice says for whom it waits; approved it runs, is counted with its transaction, and the session goes on."""
    with asking(tmp_path / "one", database, office, "human") as gateway:
        table(database, gateway.role)
        waiting = Waiting(gateway.dsn(), "DELETE FROM victim WHERE id <= %s", [3], simple=simple)
        standing = office.open()
        assert left(database) == 30
        request = standing.request
        assert (request.principal, request.held, request.rows, request.relations) == ("helper", True, 10, ["victim"])
        assert "3" not in (request.statement or "")
        office.say(standing)
        waiting.ended()
        assert (waiting.rows, waiting.error) == (3, None)
        assert f"waiting for approval {request.request}: 1 of dba has to approve" in waiting.notices[0]
        assert left(database) == 27
        assert office.ledger().requests[request.request].state(time.time_ns() // 1000) == "used"
        ((begun, ended),) = [(begun, ended) for begun, ended in gateway.statements() if begun.verdict is not None]
        assert begun.verdict is not None
        assert (begun.verdict.effect, begun.verdict.approval) == ("approve", request.request)
        assert ended.changed is not None
        assert (ended.outcome, ended.rows, ended.changed.rows) == ("success", 3, 3)
        assert (ended.changed.xid or 0) > 0


@pytest.mark.parametrize("simple", [True, False])
def test_what_was_approved_passes_the_guard_in_the_database(
    tmp_path: Path, database18: str, office: Office, simple: bool
) -> None:
    """Past the gateway it is refused; approved at it, it carries a mark that the guard believes, and no other does."""
    guard = Guard(
        bundle=Bundle(list(parse(POLICY.replace("WITHIN", "5m"), "test"))),
        login=lambda _cluster, _database, role: Login(role),
        config=lambda cluster: GuardConfig(cluster=cluster),
        key=bytes(32),
    )
    with asking(tmp_path / "one", database18, office, "human") as gateway:
        table(database18, gateway.role)
        with psycopg.connect(database18) as admin_of:
            assert not guarding.install(admin_of, "shop", guard).left
        gateway.house.mark_key = key_of(bytes(32))
        with (
            psycopg.connect(database18, user=gateway.role, password=gateway.password) as direct,
            pytest.raises(errors.InsufficientPrivilege, match="policy bulk"),
        ):
            direct.execute(DELETE)
        waiting = Waiting(gateway.dsn(), "DELETE FROM victim WHERE id <= %s", [3], simple=simple)
        office.say(office.open())
        waiting.ended()
        assert (waiting.rows, waiting.error) == (3, None)
        assert left(database18) == 27
        with psycopg.connect(database18) as admin_of:
            guarding.uninstall(admin_of, guard)


def test_an_agents_statement_is_refused_and_runs_once_when_it_comes_again(
    tmp_path: Path, database18: str, office: Office
) -> None:
    """Refused with the id, and again with the same; approved it runs; a third time it is another request."""
    with asking(tmp_path / "one", database18, office, "agent") as gateway:
        table(database18, gateway.role)
        with psycopg.connect(gateway.dsn(), autocommit=True) as client:
            for _ in range(2):
                with pytest.raises(errors.InsufficientPrivilege, match="is waited for: 1 of dba") as raised:
                    client.execute(DELETE)
                assert "approvals approve" in (raised.value.diag.message_hint or "")
            with pytest.raises(errors.InsufficientPrivilege, match="with its schema"):
                client.execute("DELETE FROM victim WHERE id <= 3")
            standing = office.open()
            assert standing.request.request in str(raised.value)
            assert len(office.ledger().requests) == 1
            office.say(standing)
            with pytest.raises(errors.InsufficientPrivilege, match="is waited for"):
                client.execute("DELETE FROM public.victim WHERE id <= 4")  # another literal is another statement
            while (deleted := attempt(client, DELETE)) is None:
                pass  # until the gateway has read the decision
            assert (deleted, left(database18)) == (3, 27)
            with pytest.raises(errors.InsufficientPrivilege, match="is waited for") as raised:
                client.execute(DELETE)
            assert standing.request.request not in str(raised.value)


def attempt(client: psycopg.Connection, text: str, values: list[object] | None = None) -> int | None:
    """Run a statement; None where it waits for approval."""
    with suppress(errors.InsufficientPrivilege):
        return client.execute(text, values).rowcount  # type: ignore[call-overload, no-any-return]
    return None


def test_values_and_principal_are_part_of_what_is_approved(tmp_path: Path, database18: str, office: Office) -> None:
    """Bound in whatever order of messages: an approval of one value lets no other one through, and nobody else."""
    with (
        asking(tmp_path / "one", database18, office, "agent") as gateway,
        asking(tmp_path / "two", database18, office, "agent", principal="other") as others,
    ):
        table(database18, gateway.role, others.role)
        text = "DELETE FROM public.victim WHERE id <= %s"
        with psycopg.connect(gateway.dsn()) as client, psycopg.connect(others.dsn(), autocommit=True) as other:
            client.autocommit = True
            assert attempt(client, text, [2]) is None
            office.say(office.open())
            deadline = time.monotonic() + DEADLINE_S
            assert attempt(client, text, [30]) is None
            assert attempt(other, text, [2]) is None
            while (deleted := attempt(client, text, [2])) is None:
                assert time.monotonic() < deadline
            assert (deleted, left(database18)) == (2, 28)
            with pytest.raises(errors.InsufficientPrivilege, match="not by a name"):
                _each(client, "PREPARE gone AS DELETE FROM public.victim", "EXECUTE gone")
        assert left(database18) == 28


def _each(client: psycopg.Connection, *texts: str) -> None:
    for text in texts:
        client.execute(text)  # type: ignore[call-overload]


def test_more_rows_than_approved_are_undone(tmp_path: Path, database18: str, office: Office) -> None:
    """The approval is used up all the same."""
    with asking(tmp_path / "one", database18, office, "human") as gateway:
        table(database18, gateway.role)
        waiting = Waiting(gateway.dsn(), "DELETE FROM victim")
        standing = office.open()
        office.say(standing)
        waiting.ended()
        assert "it changed 30 rows, and 10 is the most" in str(waiting.error)
        assert left(database18) == 30
        assert office.ledger().requests[standing.request.request].claim is not None


def test_denied_cancelled_and_expired(tmp_path: Path, database18: str, office: Office) -> None:
    """Each ends the wait with a sentence, and the session goes on."""
    with asking(tmp_path / "one", database18, office, "human", within="3s") as gateway:
        table(database18, gateway.role)
        waiting = Waiting(gateway.dsn(), DELETE)
        office.say(office.open(), "deny", "not on a Friday")
        assert "was denied by ada: not on a Friday" in str(waiting.ended().error)

        waiting = Waiting(gateway.dsn(), DELETE)
        standing = office.open()
        waiting.client.cancel_safe()  # `cancel` keeps the interpreter, in which the gateway runs
        assert "canceled while it waited" in str(waiting.ended().error)
        assert withdrawn(office, standing.request.request)

        waiting = Waiting(gateway.dsn(), DELETE)
        standing = office.open()
        assert "nobody has decided" in str(waiting.ended().error)
        ended = office.ledger().requests[standing.request.request].ended
        assert ended is not None
        assert ended.end == "expired"
        assert left(database18) == 30


def withdrawn(office: Office, request: str) -> Standing:
    """Wait until a request is withdrawn."""
    return office.until(lambda ledger: one if (one := ledger.requests[request]).ended is not None else None)


def test_who_goes_away_withdraws_the_request(tmp_path: Path, database18: str, office: Office) -> None:
    """And what was in the pipeline behind it does not run."""
    with asking(tmp_path / "one", database18, office, "human") as gateway:
        table(database18, gateway.role)
        waiting = Waiting(gateway.dsn(), DELETE)
        standing = office.open()
        sock = socket.socket(fileno=waiting.client.pgconn.socket)
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.detach()
        found = withdrawn(office, standing.request.request)
        assert found.ended is not None
        assert found.ended.end == "withdrawn"
        waiting.join(DEADLINE_S)
        assert left(database18) == 30


def test_what_stands_behind_a_statement_that_waits_keeps_its_order(
    tmp_path: Path, database18: str, office: Office
) -> None:
    """In a pipeline all before it has run, nothing behind it has; then all does, in order."""
    with asking(tmp_path / "one", database18, office, "human") as gateway:
        table(database18, gateway.role)
        done: list[str] = []

        def work() -> None:
            with psycopg.connect(gateway.dsn(), autocommit=True) as client, client.pipeline():
                first = client.execute("SELECT count(*) FROM victim")
                gone = client.execute(DELETE)
                last = client.execute("SELECT count(*) FROM victim")
                done.extend([str(first.fetchone()), str(gone.rowcount), str(last.fetchone())])

        thread = threading.Thread(target=work)
        thread.start()
        office.say(office.open())
        thread.join(DEADLINE_S)
        assert done == ["(30,)", "3", "(27,)"]


def test_what_is_approved_answers_no_more_rows_than_were_approved(
    tmp_path: Path, database18: str, office: Office
) -> None:
    """More is cut, and what the statement changed is undone; as many as were approved are told and counted."""
    text = "WITH gone AS (DELETE FROM victim WHERE id < 3 RETURNING 1) SELECT n FROM generate_series(1, {}) AS n"
    with asking(tmp_path / "one", database18, office, "human") as gateway:
        table(database18, gateway.role)
        for simple in (False, True):
            waiting = Waiting(gateway.dsn(), text.format(30), simple=simple)
            office.say(office.open())
            assert "it answers more than 10 rows" in str(waiting.ended().error)
            assert left(database18) == 30
        waiting = Waiting(gateway.dsn(), text.format(10))
        office.say(office.open())
        assert waiting.ended().rows == 10
        assert left(database18) == 28


def test_two_gateways_use_an_approval_once(tmp_path: Path, database18: str, office: Office) -> None:
    """Asked at one, approved, sent to both at once: it runs at one of them, once."""
    with (
        asking(tmp_path / "one", database18, office, "agent") as one,
        asking(tmp_path / "two", database18, office, "agent") as two,
    ):
        table(database18, one.role, two.role)
        role = sql.Identifier(one.role)
        with psycopg.connect(database18, autocommit=True) as admin_of:
            admin_of.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, one.password))
        with ExitStack() as stack:
            dsns = [one.dsn(), two.dsn(user=one.role, password=one.password)]
            clients = [stack.enter_context(psycopg.connect(dsn, autocommit=True)) for dsn in dsns]
            for round_ in range(3):
                text = f"UPDATE public.victim SET word = word || '{round_}' WHERE id = 1"
                text = f"WITH gone AS (DELETE FROM public.victim WHERE id = 30 - {round_} RETURNING 1) {text}"
                assert attempt(clients[0], text) is None
                standing = office.open()
                office.say(standing)
                ran: list[int] = []
                deadline = time.monotonic() + DEADLINE_S
                while not ran:
                    assert time.monotonic() < deadline
                    ran = together(clients, text)
                assert ran == [1]
                withdraw_open(office)
        with psycopg.connect(database18) as admin_of:
            assert admin_of.execute("SELECT word FROM victim WHERE id = 1").fetchone() == ("x012",)


def together(clients: list[psycopg.Connection], text: str) -> list[int]:
    """Run a statement on all connections at once; return the rows of those where it ran."""
    barrier, ran = threading.Barrier(len(clients)), list[int]()

    def work(client: psycopg.Connection) -> None:
        barrier.wait()
        if (rows := attempt(client, text)) is not None:
            ran.append(rows)

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    return ran


def withdraw_open(office: Office) -> None:
    """Deny what the loser of a race has asked for anew."""
    for standing in office.ledger().open(time.time_ns() // 1000):
        office.say(standing, "deny", "once is enough")


def test_a_request_outlives_its_gateway(tmp_path: Path, database18: str, office: Office) -> None:
    """What a person asked for at one gateway that ended is approved, and runs when it comes to the next."""
    with asking(tmp_path / "one", database18, office, "human") as gateway:
        table(database18, gateway.role)
        assert gateway.house.desk is not None
        gateway.house.desk.leaving = True
        waiting = Waiting(gateway.dsn(), DELETE)
        standing = office.open()
        role, password = gateway.role, gateway.password
    assert waiting.ended().error is not None
    office.say(standing)
    with asking(tmp_path / "two", database18, office, "human") as gateway:
        again = Waiting(gateway.dsn(user=role, password=password), DELETE).ended()
        assert (again.rows, again.error) == (3, None)
    assert list(office.ledger().requests) == [standing.request.request]


def test_without_a_desk_it_is_refused(tmp_path: Path, database18: str) -> None:
    """A gateway that cannot ask lets nothing through that would have to be approved."""
    with running(tmp_path, database18, rules=rules("human")) as gateway:
        table(database18, gateway.role)
        with psycopg.connect(gateway.dsn(), autocommit=True) as client:
            with pytest.raises(errors.InsufficientPrivilege, match=r"no \[approvals\]"):
                client.execute(DELETE)
            assert left(database18) == 30
        records_of = gateway.statements()
        assert [begun.verdict.effect for begun, _ in records_of if begun.verdict is not None] == ["deny"]


def test_records_carry_no_literal(tmp_path: Path, database18: str, office: Office) -> None:
    """Neither the topic nor the spool has a value of the statement."""
    with asking(tmp_path / "one", database18, office, "agent") as gateway:
        table(database18, gateway.role)
        with psycopg.connect(gateway.dsn(), autocommit=True) as client:
            assert attempt(client, "DELETE FROM public.victim WHERE word = 'hunter2'") is None
        texts = [str(one) for one in gateway.records()]
        with closing(ApprovalsTopic(office.config)) as topic:
            texts += [json.dumps(str(read.value)) for read in topic.to_end()]
        assert texts
        assert not any("hunter2" in text for text in texts)
        assert any(isinstance(one, Begun) for one in gateway.records())
        assert any(isinstance(one, Ended) for one in gateway.records())
        assert records.read(b"") is None


def shown(office: Office, client: psycopg.Connection, text: str, values: list[object] | None = None) -> Estimate:
    """What an approver sees of a statement beforehand; it is denied then."""
    assert attempt(client, text, values) is None
    standing = office.open()
    office.say(standing, "deny", "only looked at")
    return standing.request.estimate


def test_an_approver_sees_beforehand_what_a_statement_would_do(tmp_path: Path, database18: str, office: Office) -> None:
    """How many rows, some of them, and its values, each masked as its column is; and nothing is done for that."""
    office.config = replace(
        office.config, privacy=replace(office.config.privacy, clear=["public.victim.word"], mask=[Mask(column="*.pin")])
    )
    token = tokenizer(b"k" * 32)
    with asking(tmp_path / "one", database18, office, "agent") as gateway:
        table(database18, gateway.role)
        with psycopg.connect(database18, autocommit=True) as admin_of:
            admin_of.execute("ALTER TABLE victim ADD email text DEFAULT 'ada@example.org', ADD pin int DEFAULT 4711")
            admin_of.execute("CREATE TABLE audit (id int)")
            admin_of.execute(
                "CREATE FUNCTION noisy(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS"
                " $$ INSERT INTO public.audit VALUES ($1); SELECT true $$"
            )
            admin_of.execute(sql.SQL("GRANT ALL ON audit TO {}").format(sql.Identifier(gateway.role)))
        with psycopg.connect(gateway.dsn(), autocommit=True) as client:
            found = shown(
                office,
                client,
                "DELETE FROM public.victim AS v WHERE v.id <= %s AND v.email = 'ada@example.org' AND v.pin = 4711"
                " AND v.word = 'x' AND length(v.word) < 77 -- why not",
                [12],
            )
            assert (found.counted, found.more, found.why_not) == (12, False, "")
            assert (found.planned or 0) >= 0
            assert found.columns == ["id", "word", "email", "pin"]
            assert found.sample == [
                [str(n), "x", token(b"ada@example.org").decode(), token(b"4711").decode()] for n in (1, 2)
            ]
            values = {one.name: (one.column, one.shown) for one in found.values}
            assert values == {
                "$1": ("public.victim.id", "12"),
                "$2": ("public.victim.email", token(b"ada@example.org").decode()),
                "$3": ("public.victim.pin", token(b"4711").decode()),
                "$4": ("public.victim.word", "x"),
                "$5": ("public.victim.word", "77"),
            }
            # The count is bounded by time, what has effects or code of somebody's own is not run, and it says so.
            slow = shown(office, client, "DELETE FROM public.victim WHERE id = 1 AND pg_sleep(5) IS NOT NULL")
            assert (slow.counted, slow.sample, slow.why_not) == (None, [], "it calls functions that may have effects")
            lying = shown(office, client, "DELETE FROM public.victim WHERE public.noisy(1)")
            assert (lying.planned, lying.counted) == (None, None)
            assert "not PostgreSQL's own" in lying.why_not
            with psycopg.connect(database18) as lock:
                lock.execute("LOCK TABLE victim")
                locked = shown(office, client, "DELETE FROM public.victim WHERE id = 2")
            assert "holds a lock" in locked.why_not
            many = shown(office, client, "WITH d AS (DELETE FROM public.victim RETURNING 1) DELETE FROM public.audit")
            assert many.counted is None
            assert "more than one table" in many.why_not
            nothing = shown(office, client, "DELETE FROM public.missing WHERE email = 'hunter2'")
            assert (nothing.values[0].shown, nothing.values[0].length) == ("", 7)
            assert nothing.why_not == "the server says 42P01"
        assert left(database18) == 30
        with psycopg.connect(database18) as admin_of:
            assert admin_of.execute("SELECT count(*) FROM audit").fetchone() == (0,)


def test_names_without_a_schema_are_approved_for_their_session(tmp_path: Path, database18: str, office: Office) -> None:
    """Under another search_path they are other tables: who comes again in another session has to ask again."""
    text = "DELETE FROM victim WHERE id <= 3"
    with asking(tmp_path / "one", database18, office, "human") as gateway:
        table(database18, gateway.role)
        with psycopg.connect(database18, autocommit=True) as admin_of:
            admin_of.execute("CREATE SCHEMA other")
            admin_of.execute("CREATE TABLE other.victim AS SELECT generate_series(1, 3) AS id")
            role = sql.Identifier(gateway.role)
            admin_of.execute(sql.SQL("GRANT ALL ON SCHEMA other TO {0}; GRANT ALL ON other.victim TO {0}").format(role))
        assert gateway.house.desk is not None
        gateway.house.desk.leaving = True
        first = Waiting(gateway.dsn(), text)
        standing = office.open()
        assert "temporary table" in standing.request.estimate.caveat
        assert standing.request.estimate.counted == 3
        own, password = gateway.role, gateway.password
    first.ended()
    office.say(standing)
    with asking(tmp_path / "two", database18, office, "human") as gateway:
        for options in ("-csearch_path=other", "-csearch_path=public"):
            again = Waiting(gateway.dsn(user=own, password=password, options=f"'{options}'"), text)
            asked = office.open()
            assert asked.request.request != standing.request.request
            office.say(asked, "deny", "not that one")
            assert again.ended().error is not None
    assert left(database18) == 30


def test_what_may_have_been_used_on_a_lost_topic_is_not_used_again(office: Office) -> None:
    """A topic that was truncated or made anew may lack claims: what was asked for before has to be asked anew."""
    now_us = time.time_ns() // 1000
    file = office.config.approvals.key_file
    assert file is not None
    own = private_key(file.read_bytes())
    request = signing.request(at_us=now_us, expires_us=now_us + 600_000_000)
    asked = records.sign(request, own)
    word = signing.decision(of=request, at_us=now_us)
    said = records.sign(word, office.key)
    used = records.sign(signing.claim(at_us=now_us), own)

    def after(*values: bytes) -> Ledger:
        ledger = Ledger(office.trust)
        for offset, value in enumerate(values):
            assert ledger.take(value, offset, now_us).refused is None
        return ledger

    desk = Desk(office.config)
    desk._replace(after(asked, said))
    assert desk._known(request) is not None
    desk._replace(after(asked, said))
    assert desk._known(request) is not None
    desk._replace(after(asked, said, used))
    desk._replace(after(asked, said))
    assert desk._known(request) is None
    assert not desk._fits(signing.request(statement="x" * 300_000))
