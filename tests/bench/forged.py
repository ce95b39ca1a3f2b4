"""What strangers' messages cost the collector: microseconds of processor a message, the share of ten thousand a second.

Any role may write them. The messages go through the assembler and the judge as they come from the server, without the
reading of the connection. In a transaction each: what such a transaction costs when it holds nothing of ours is taken
off. Limit: ten thousand a second take a tenth of the processor.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from collectors.beacon import mac
from collectors.beacon.keyring import Key, Keyring
from collectors.wal.held import Held
from collectors.wal.keyreads import KeyReads
from collectors.wal.messages import HEARTBEAT_PREFIX, Messages
from collectors.wal.plan import Masking, TableFacts
from collectors.wal.transaction import Assembler, Place, Xids
from pgwitness.config import Privacy
from pgwitness.privacy import tokenizer
from tests.collectors import wal_messages as write

MESSAGES = 20_000
SHARE_MAX = 0.10
A_SECOND = 10_000
KEY = b"k" * 32


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
    judge = Messages("77", "shop", KeyReads(lambda: [Key(key=KEY, number=1)], Keyring()), lambda *_: None, lambda: None)
    return Assembler(
        Place("77", 1, "shop"), Masking(Privacy(), tokenizer(KEY)), judge, lambda *_: TableFacts(), output,
        Held(Path("/nonexistent"), 1 << 20, 0), Xids(10), lambda: 1,
    )  # fmt: skip


def _cost_us(messages: list[bytes], count: int) -> tuple[float, int]:
    """Give microseconds of processor a message, and how many events were sent."""
    output = _Output()
    assembler = _assembler(output)
    began = time.process_time()
    for _ in range(count):
        for message in messages:
            assembler.feed(message, 25)
    return (time.process_time() - began) / count * 1e6, output.parts


def run(scale: float = 1.0) -> dict[str, Any]:
    """Measure each prefix, in a transaction and outside of one, small and of a megabyte."""
    count = max(2_000, int(MESSAGES * scale))
    found: dict[str, Any] = {}
    frame = bytes(25)
    beacon = b"c" * 32 + b"7\x1fann\x1fann\x1fpsql\x1f\x1f" + b"0" * 64 + b'["session/1","77","shop"]'
    for prefix in (mac.PREFIX, mac.DDL_PREFIX, mac.CONTROL_PREFIX, "pgwitness.silenced", HEARTBEAT_PREFIX):
        content = beacon if prefix == mac.PREFIX else b"c" * 32 + b'["ddl/1","77","shop",7]'
        outside = [frame + write.message(prefix, content, transactional=False)]
        inside = [frame + write.begin(300, 7), frame + write.message(prefix, content), frame + write.commit(300)]
        large = [frame + write.message(prefix, b"x" * 1024 * 1024, transactional=False)]
        for name, messages, times in (("outside", outside, count), ("inside", inside, count), ("large", large, 50)):
            cost, sent = _cost_us(messages, times)
            found[f"{prefix} {name}"] = {
                "us": round(cost, 2), "share": round(cost * A_SECOND / 1e6, 3), "events_sent": sent,
            }  # fmt: skip
    plain, _ = _cost_us([frame + write.begin(300, 7), frame + write.commit(300)], count)
    worst = max(
        value["us"] - (plain if name.endswith("inside") else 0)
        for name, value in found.items()
        if not name.endswith("large")
    )
    share = worst * A_SECOND / 1e6
    checks = [
        {
            "what": "ten thousand forged messages a second, share of a processor",
            "figure": f"{share:.3f}",
            "limit": f"{SHARE_MAX}",
            "holds": share <= SHARE_MAX,
        }
    ]
    return {"messages": found, "transaction_us": round(plain, 2), "checks": checks}


if __name__ == "__main__":
    for name, value in run().items():
        print(name, value)
