"""What strangers' messages cost the collector: microseconds of processor a message, the share of ten thousand a second.

Any role may write them. The messages go through the assembler and the judge as they come from the server, without the
reading of the connection; in a transaction of its own, its begin and commit are counted with it. Forms that are refused
latest are among them: well formed, with the right cluster, database and transaction, or with the introduction of a real
session. A row with its beacon in a transaction of its own is measured beside them, as the processor's pace changes.
Limit: ten thousand a second take a tenth of the processor.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from collectors.beacon import mac
from collectors.beacon.keyring import Key, Keyring
from collectors.wal.assembly.held import Held
from collectors.wal.assembly.transaction import Assembler
from collectors.wal.beacons.keyreads import KeyReads, Stand
from collectors.wal.beacons.messages import HEARTBEAT_PREFIX, Messages
from collectors.wal.decoding.place import Place, Xids
from collectors.wal.decoding.plan import Masking, TableFacts
from pgwitness.core.config import Privacy
from pgwitness.core.privacy import tokenizer
from tests.collectors import wal_messages as write

MESSAGES = 20_000
RUNS = 40
"""Of so many short runs the least counts: on cores that others use, too, most of them are disturbed."""
SHARE_MAX = 0.10
A_SECOND = 10_000
KEY = b"k" * 32
XID = 7
FRAME = bytes(25)


class _Output:
    """Counts what would be sent."""

    def __init__(self) -> None:
        self.parts = 0

    def part(self, event: bytes, rows: int, done_lsn: int | None) -> None:
        self.parts += 1

    def nothing(self, done_lsn: int) -> None:
        pass

    def aside(self, reason: str, detail: dict[str, object]) -> None:
        self.parts += 1


def _assembler(output: _Output) -> Assembler:
    keys = KeyReads(lambda: [Key(key=KEY, number=1)], Keyring(), stand=lambda: Stand(1000))
    judge = Messages("77", "shop", keys, lambda *_: None, lambda: None)
    return Assembler(
        Place("77", 1, "shop"), Masking(Privacy(), tokenizer(KEY)), judge, lambda *_: TableFacts(("id",), beacon=True),
        output, Held(Path("/nonexistent"), 1 << 20, 0), Xids(10), lambda: 1,
    )  # fmt: skip


def _introduction() -> bytes:
    said = b'["session/1", "77", "shop", 12, 1700000000000000, "stranger", "10.0.0.9", 40000, null, null]'
    return mac.mac(KEY, said).hex().encode() + said


def forms() -> dict[str, tuple[str, bytes]]:
    """Give each form of message: its prefix and content."""
    said = b"7\x1fstranger\x1fnone\x1fpsql\x1f\x1f16400\x1fINSERT\x1f1\x1f0\x1f0\x1f"
    stranger = b'["session/1", "77", "shop", 12, 1700000000000000, "cfo", "10.0.0.9", 40000, null, null]'
    ddl = b'["ddl/1", "77", "shop", 7, 12, 1700000000000000, "cfo", "cfo", "psql", "10.0.0.9", 40000, null, null, '
    return {
        "beacon, not of its form": (mac.PREFIX, b"I am the CFO" * 10),
        "beacon of no session": (mac.PREFIX, b"c" * 64 + said + b"d" * 64 + stranger),
        "beacon of a real session": (mac.PREFIX, b"c" * 64 + said + _introduction()),
        "beacon without a code": (mac.PREFIX, b"0" * 64 + said + b"0" * 64 + stranger),
        "ddl": (mac.DDL_PREFIX, b"c" * 64 + ddl + b"x" * 200),
        "ddl, earlier form": (mac.DDL_PREFIX, b"\xff" * 32 + ddl + b"x" * 200),
        "control": (mac.CONTROL_PREFIX, b"c" * 64 + b'["control/1", "77", "shop", 7, "uninstall", "cfo"]'),
        "silenced": ("pgwitness.silenced", b"54001\x1fcfo\x1fnone\x1f16400\x1fINSERT"),
        "heartbeat": (HEARTBEAT_PREFIX, b"a" * 32),
        "a prefix like ours": ("pgwitness.beacon2", b"c" * 200),
    }  # fmt: skip


def _cost_us(messages: list[bytes], count: int, each: int = 1) -> tuple[float, int]:
    """Give microseconds of processor a message of `each`, and how many events were sent."""
    output = _Output()
    assembler = _assembler(output)
    for message in _honest():
        assembler.feed(message, 25)
    sent, least = output.parts, float("inf")
    times = max(1, count // RUNS)
    for _ in range(RUNS):
        began = time.process_time()
        for _ in range(times):
            for message in messages:
                assembler.feed(message, 25)
        least = min(least, (time.process_time() - began) / times)
    return least / each * 1e6, output.parts - sent


def _honest() -> list[bytes]:
    """Give a transaction with a row and its beacon."""
    said = b"7\x1fstranger\x1fnone\x1fpsql\x1f\x1f"
    one, other = _secret()
    code = mac.hashlib.sha256(b"".join((one, b"\x1f", said, b"\x1f", other))).hexdigest().encode()
    row = write.insert(16400, [b"1", b"2"])
    table = write.relation(16400, "till", [("id", write.INT, True), ("v", write.INT, False)])
    beacon = write.message(mac.PREFIX, code + said + _introduction())
    return [FRAME + one for one in (write.begin(300, XID), table, row, beacon, write.commit(300))]


def _secret() -> tuple[bytes, bytes]:
    tag = bytes.fromhex(_introduction()[:64].decode())
    digest = mac.mac(KEY, b"secret/1" + tag)
    one, other = (int.from_bytes(digest[n : n + 8], "big", signed=True) for n in (0, 8))
    return b"%d" % one, b"%d" % other


def run(scale: float = 1.0) -> dict[str, Any]:
    """Measure each form, outside of a transaction, in one of its own, a hundred in one, and of a megabyte."""
    count = max(2_000, int(MESSAGES * scale))
    found: dict[str, Any] = {}
    begin, commit = FRAME + write.begin(300, XID), FRAME + write.commit(300)
    worst = ("", 0.0)
    for name, (prefix, content) in forms().items():
        one = FRAME + write.message(prefix, content)
        ways = {
            "outside": ([FRAME + write.message(prefix, content, transactional=False)], count, 1),
            "alone": ([begin, one, commit], count, 1),
            "many": ([begin, *[one] * 100, commit], count // 100, 100),
            "large": ([begin, FRAME + write.message(prefix, content + b"x" * 1024 * 1024), commit], 50, 1),
        }
        for way, (messages, times, each) in ways.items():
            cost, sent = _cost_us(messages, times, each)
            found[f"{name}: {way}"] = {
                "us": round(cost, 2), "share": round(cost * A_SECOND / 1e6, 3), "events_sent": sent,
            }  # fmt: skip
            if way != "large" and cost > worst[1]:
                worst = (f"{name}: {way}", cost)
    plain = _cost_us([begin, commit], count)[0]
    row = _cost_us([message for n, message in enumerate(_honest()) if n != 1], count)[0]
    share = worst[1] * A_SECOND / 1e6
    checks = [
        {
            "what": f"ten thousand forged messages a second, share of a processor ({worst[0]})",
            "figure": f"{share:.3f}",
            "limit": f"{SHARE_MAX}",
            "holds": share <= SHARE_MAX,
        }
    ]
    return {"messages": found, "transaction_us": round(plain, 2), "honest_us": round(row, 2), "checks": checks}


if __name__ == "__main__":
    for name, value in run().items():
        if isinstance(value, dict):
            for form, cost in value.items():
                print(f"{form:40}", cost)
        else:
            print(name, value)
