"""The short lane against the session itself: what is compiled does the same, or nothing.

Two sessions take the same reads, of texts and messages at random, in any division, with errors and nonsense in between:
one with the short lane, one without. After each read what goes on to either side, what is written down, and what the
session counts have to be the same. `python -m tests.gateway.short SESSIONS [SEED]` compares so many.
"""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from collectors.gateway.judging.judge import Judging, Rules
from collectors.gateway.session.actions import Actions, Moment
from collectors.gateway.session.session import Session
from collectors.gateway.spool.ledger import Lines
from collectors.gateway.spool.records import Opened, Record
from collectors.gateway.wire.frames import frame
from collectors.gateway.wire.native import Native, native
from collectors.log.interpretation.texts import decides, quick_shape
from pgwitness.core.privacy import tokenizer
from pgwitness.core.sql.intent import given
from pgwitness.core.sql.statements import facts
from tests.collectors.fuzz import mutated
from tests.gateway.test_refusals import policy, rules

STEPS = 40
DENIED = "DELETE FROM victim"
OPENED = Opened(
    session=7,
    at_us=1,
    cluster="shop",
    instance="db:5432",
    role="ada",
    database="shop",
    auth_method="x",
    application="a",
)
_NONCE = re.compile(rb"(?<=pgwitness refused )[0-9a-f]{16}")
PIECES = (
    "SELECT", "select", "x", "t1", "a$b", "E", "e", "n", "B", "U&", "LIMIT", "limit", "FETCH first", "next", "0", "1",
    "12", "1.5", "1.", ".5", "1e5", "0x1F", "12ab", "007", "$1", "$2x", "$$", "$a$", "'a'", "''", "'it''s'", "'1=1'",
    "'a\\b'", "'intent'", "'INTENT x'", "'reset'", "'", '"', '"n"', "\"q'q\"", "\\", "é", "\0", "--", "/*", "*/", "-",
    "/", "*", "=", "<>", "!=", "<", "(", ")", ",", ";", ".", "::", " ", "  ", "\n", "\t", " ", " ", "&", "@", "[1]",
)  # fmt: skip
SHAPES = (
    "SELECT {n} FROM t WHERE a = {n} AND b = {s}", "UPDATE t SET a = a + {n} WHERE b = {n};", "SELECT {s}", "BEGIN",
    "INSERT INTO t (a, b) VALUES ({n}, {s}), ({n}, {s})", "SELECT * FROM t WHERE b LIKE {s}", "COMMIT", "END;",
    "SELECT a FROM t LIMIT {n}", "SELECT 1 WHERE {n} = {n}", "SELECT f({s}, $1) + {n}", "SET a = {s}", "ROLLBACK",
    "DELETE FROM victim WHERE id = {n}", DENIED, "PREPARE p AS SELECT {n}", "EXECUTE p", "DO $$ BEGIN END $$", "",
    "SELECT set_config('pgwitness.intent', {s}, false)", "SELECT {n} /* route='{n}' */", "SELECT {n}; SELECT {s}",
    "SET LOCAL pgwitness.intent = {s}", "DECLARE c CURSOR FOR SELECT {n}", "SELECT query_to_xml({s}, true, true, '')",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT {n}'", "SELECT a FROM \"T\" WHERE x = {n}", "SELECT 1e{n}",
)  # fmt: skip


def jumble(chance: random.Random) -> bytes:
    """Put pieces of SQL together, of which most make none."""
    return "".join(chance.choice(PIECES) for _ in range(chance.randint(1, 12))).encode()


def written(chance: random.Random, odd: float = 0.3) -> bytes:
    """Write a statement with other literals each time; `odd` is how often it is no ordinary one."""
    text = chance.choice(SHAPES[:5] if chance.random() >= odd else SHAPES)
    while "{" in text:
        number = str(chance.choice((0, 1, 7, 12345, "1.5", "0")))
        string = (
            "'b'"
            if chance.random() >= odd
            else chance.choice(("'a'", "'it''s'", "'%'", "'intent'", "''", "'1=1'", "'SELECT 1'", "'pgwitness.intent'"))
        )
        text = text.replace("{n}", number, 1) if "{n}" in text else text.replace("{s}", string, 1)
    return text.encode()


def compare_shape(compiled: Native, text: bytes) -> bool:
    """Hold a shape to the one that Python finds, and to what makes it one; return whether there is one."""
    found = compiled.shape(text)
    if found is None:
        return False
    plain = text.decode("ascii")
    assert found == (quick_shape(plain) or "none").encode(), plain
    assert not decides(plain), plain
    assert "*/" not in plain
    assert "\\" not in plain
    # Of what gives an intent by a literal, none has a shape; what gives it otherwise is never one of many.
    assert given(plain) is None or facts(plain).utility, plain
    return True


@dataclass
class Twin:
    """A session, and the records of both lanes in their order."""

    session: Session
    lines: Lines
    took: Counter[str] = field(default_factory=Counter)

    def of_client(self, data: bytes, now: Moment) -> tuple[bytes, bytes, str | None]:
        """Give a read of the client; return what goes to either side, and why it has ended."""
        lane = self.session.lane
        if lane is not None and lane.client(data, now.us, now.ns):
            self.took["client"] += 1
            return data, b"", None
        return self._done(self.session.client(data, now))

    def of_server(self, data: bytes, now: Moment) -> tuple[bytes, bytes, str | None]:
        """Give a read of the server."""
        lane = self.session.lane
        if lane is not None and lane.server(data, now.us, now.ns):
            self.took["server"] += 1
            return b"", data, None
        return self._done(self.session.server(data, now))

    def _done(self, done: Actions) -> tuple[bytes, bytes, str | None]:
        self.keep(done.records)
        return (
            _NONCE.sub(b"", b"".join(done.to_server)),
            b"".join(done.to_client),
            None if done.close is None else str(done.close),
        )

    def keep(self, records: list[Record]) -> None:
        """Write records down."""
        self.lines.add(msgspec.json.Encoder().encode_lines(records), 0)

    def state(self) -> tuple[object, ...]:
        """Return what it counts, and what has been written down since the last time."""
        one = self.session
        return one.status, one.statements, one._transaction, one.waiting > 0, self.lines.take()[0]


def decided() -> Rules:
    """What both sessions decide by: one statement is denied."""
    return rules(policy())


def twins(compiled: Native, deciding: Rules) -> tuple[Twin, Twin]:
    """Make both."""
    made = []
    for ledger in (compiled.ledger(), None):
        judging = Judging(tokenizer(b"k" * 32), deciding)
        settings = {"application_name": "a", "client_encoding": "UTF8", "standard_conforming_strings": "on"}
        session = Session(7, settings, judging.session(OPENED), ledger)
        made.append(Twin(session, ledger if ledger is not None else Lines()))  # type: ignore[arg-type]
    return made[0], made[1]


def asked(chance: random.Random, odd: float) -> tuple[bytes, list[str]]:
    """Choose what a client sends, and what is to be answered of it."""
    which, name = chance.random() * (0.75 + odd), chance.choice((b"", b"", b"s"))
    portal = chance.choice((b"", b"", b"", b"p"))
    query = frame(b"Q", written(chance, odd) + b"\0")
    parse = frame(b"P", name + b"\0" + written(chance, odd) + b"\0" + chance.choice((b"\0\0", b"\0\1\0\0\0\x17")))
    bind = frame(b"B", portal + b"\0" + name + b"\0" + chance.choice((b"\0" * 6, b"\0\0\0\1\0\0\0\1" + b"7\0\0")))
    describe = frame(b"D", b"P" + portal + b"\0")
    execute = frame(b"E", portal + b"\0" + chance.choice((b"\0\0\0\0", b"\0\0\0\0", b"\0\0\0\1")))
    sync = frame(b"S")
    if which < 0.4:
        return query, ["Q"]
    if which < 0.6:
        described = chance.random() < 0.5
        sent = bind + (describe if described else b"") + execute + sync
        return sent, ["B", *(["D"] if described else []), "E", "S"]
    if which < 0.75:
        return parse + bind + describe + execute + sync, ["P", "B", "D", "E", "S"]
    if which < 0.8:
        return parse + sync, ["P", "S"]
    if which < 0.85:
        return frame(b"C", chance.choice((b"S", b"P")) + name + b"\0") + sync, ["C", "S"]
    if which < 0.9:
        return query + query, ["Q", "Q"]
    if which < 0.95:
        return bind + execute + frame(b"H"), ["B", "E"]
    return chance.choice((sync, frame(b"X"), execute + sync, frame(b"F", b"\0\0\0\1" + b"\0" * 6))), ["S"]


def answered(chance: random.Random, odd: float, kind: str, status: str) -> bytes:
    """Choose what the server says to a message."""
    rows = frame(b"D", b"\0\1\0\0\0\1" + b"7") * chance.choice((0, 1, 1, 3))
    tag = chance.choice(
        (b"SELECT 1", b"INSERT 0 5", b"BEGIN", b"COMMIT", b"ROLLBACK", b"UPDATE 12", b"SELECT 12345678901234567890")
    )
    strange = chance.random() < odd
    complete = chance.choice((frame(b"I"), frame(b"s"))) if strange else frame(b"C", tag + b"\0")
    told = (b"", frame(b"N", b"SNOTICE\0\0"), frame(b"S", b"application_name\0b\0"))[chance.randrange(3) * strange]
    ready = frame(b"Z", status.encode())
    if chance.random() < odd / 4:
        return frame(b"E", b"SERROR\0C22012\0Mno\0\0") + (ready if kind in "QS" else b"")
    described = chance.choice((frame(b"T", b"\0\1" + b"x\0" + b"\0" * 18), frame(b"n")))
    return told + {
        "Q": frame(b"T", b"\0\1" + b"x\0" + b"\0" * 18) + rows + complete + ready,
        "P": frame(b"1"), "B": frame(b"2"), "C": frame(b"3"), "D": described, "E": rows + complete, "S": ready,
    }[kind]  # fmt: skip


def converse(compiled: Native, deciding: Rules, chance: random.Random) -> Counter[str]:
    """Let a client and a server talk through both sessions; return what the short lane took."""
    one, other = twins(compiled, deciding)
    us, ns = 1_700_000_000_000_000, 5_000_000
    status, odd = "I", chance.choice((0.01, 0.05, 0.25))
    one.session.server(b"", Moment(us, ns))  # nothing: it is at rest from the beginning on
    for _ in range(STEPS):
        sent, kinds = asked(chance, odd)
        status = chance.choice((status, status, "I", "T", "E" if chance.random() < odd else "I"))
        answer = b"".join(answered(chance, odd, kind, status) for kind in kinds)
        for side, data in (("of_client", sent), ("of_server", answer)):
            if chance.random() < odd / 10:
                data = mutated(chance, [data])
            cuts = sorted(
                chance.randint(0, len(data)) for _ in range(chance.choice((0, 1, 2)) * (chance.random() < odd))
            )
            for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
                us += chance.choice((0, 1, 999, 1_000_000))
                ns += chance.choice((0, 1, 999_999, 1_234_000_000))
                now = Moment(us, ns)
                did = [getattr(twin, side)(data[begin:end], now) for twin in (one, other)]
                assert did[0] == did[1], (side, data[begin:end])
                assert one.state() == other.state(), (side, data[begin:end])
                if did[0][2] is not None:
                    break
            else:
                continue
            break
        else:
            continue
        break
    for twin in (one, other):
        twin.keep(twin.session.lost(Moment(us, ns)))
    assert one.state() == other.state()
    return one.took


def compare(compiled: Native, sessions: int, seed: int) -> Counter[str]:
    """Compare so many sessions; a failure names the seed and the session."""
    took: Counter[str] = Counter()
    deciding = decided()
    for number in range(sessions):
        try:
            took += converse(compiled, deciding, random.Random(seed * 1_000_003 + number))
        except Exception as error:
            raise AssertionError(f"seed {seed}, session {number}") from error
    return took


if __name__ == "__main__":
    library = native()
    assert library is not None, "nothing is compiled"
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    print(compare(library, int(sys.argv[1]), first))
    texts = random.Random(first)
    shaped = sum(
        compare_shape(library, jumble(texts) if at % 2 else written(texts)) for at in range(100 * int(sys.argv[1]))
    )
    print(f"{shaped} shapes of {100 * int(sys.argv[1])} texts")
