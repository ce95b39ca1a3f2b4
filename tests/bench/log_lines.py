"""How many messages of the server's log one core reads, interprets and encodes: `python -m tests.bench.log_lines`.

Eight sessions run ten statements with literals of their own in each, as an application does that sends text: every
text is different, and without `compute_query_id` nothing says which belong together. A second run has a comment of
its own behind each, as tracing writes it. Measured from bytes to encoded events, without disk and broker; then through
the whole collector, from a file and from a topic (`log_collected`).
"""

from __future__ import annotations

import json
import time
from typing import Any

from collectors.log.interpretation.interpret import Interpreter
from collectors.log.reading import formats
from pgwitness.core.config import Log
from pgwitness.core.events import encode_event
from pgwitness.core.privacy import tokenizer
from tests.bench.log_collected import WAYS, collected

LINES = 60_000
CHUNK = 1024 * 1024
LIMIT_PER_S = 50_000
PREFIX = "%m [%p] %q%u@%d/%a %r %c %l %x %Q %e "
STATEMENTS = [
    "SELECT id, status FROM orders WHERE customer_id = {0} AND status = 'open-{0}'",
    "UPDATE orders SET status = 'paid', note = 'number {0}' WHERE id = {0}",
    "INSERT INTO order_lines (order_id, article, amount) VALUES ({0}, 'article {0}', {0}.50)",
    "DELETE FROM carts WHERE session = 's{0}' AND created_at < '2026-01-01'",
    "SELECT o.id, l.amount FROM orders o JOIN order_lines l ON l.order_id = o.id WHERE o.id = {0}",
    "SELECT count(*) FROM orders WHERE created_at > '2026-01-{0}'",
    "UPDATE customers SET email = 'somebody{0}@example.org' WHERE id = {0}",
    "SELECT * FROM articles WHERE name ILIKE '%{0}%' ORDER BY price LIMIT 20",
    "INSERT INTO events (kind, payload) VALUES ('click', '{{\"n\": {0}}}')",
    "SELECT balance FROM accounts WHERE id = {0} FOR UPDATE",
]


COMMENT = " /*traceparent='00-5bd66ef5095369c7b0d1f8f4bd33716a-{0:016x}-01'*/"


def messages(number: int, comment: str = "") -> dict[str, bytes]:
    """Make the same messages in each format, each statement with a comment behind it."""
    made: dict[str, list[str]] = {"jsonlog": [], "csvlog": [], "stderr": []}
    for place in range(number):
        pid, statement = 4_000 + place % 8, place % len(STATEMENTS)
        at = f"2026-11-22 21:{place // 60_000 % 60:02d}:{place // 1_000 % 60:02d}.{place % 1_000:03d} UTC"
        text = f"duration: 0.{place % 1_000:03d} ms  statement: " + (STATEMENTS[statement] + comment).format(place)
        session, query_id, xid = f"6b03625b.{pid:x}", 0, place if statement % 2 else 0
        line = {
            "timestamp": at, "user": "app", "dbname": "shop", "pid": pid, "remote_host": "10.0.0.7",
            "remote_port": 50_000 + pid, "session_id": session, "line_num": place, "ps": "SELECT",
            "session_start": "2026-11-22 20:00:00 UTC", "vxid": f"3/{place}", "txid": xid, "error_severity": "LOG",
            "message": text, "application_name": "shop-web", "backend_type": "client backend", "query_id": query_id,
        }  # fmt: skip
        made["jsonlog"].append(json.dumps(line))
        quoted = text.replace('"', '""')
        made["csvlog"].append(
            f'{at},"app","shop",{pid},"10.0.0.7:{50_000 + pid}",{session},{place},"SELECT",2026-11-22 20:00:00 UTC,'
            f'3/{place},{xid},LOG,00000,"{quoted}",,,,,,,,,"shop-web","client backend",,{query_id}'
        )
        made["stderr"].append(
            f"{at} [{pid}] app@shop/shop-web 10.0.0.7({50_000 + pid}) {session} {place} {xid} {query_id} 00000 "
            f"LOG:  {text}"
        )
    return {name: ("\n".join(lines) + "\n").encode() for name, lines in made.items()}


def read(log_format: Any, data: bytes) -> tuple[int, float, int]:
    """Read a log once; gives its events, the seconds of processor time, and how many statements were parsed."""
    make, parser = formats(Log(format=log_format, line_prefix=PREFIX))
    splitter = make()
    interpreter = Interpreter(tokenizer(b"k" * 32), log_format)
    events = offset = 0
    begin = time.process_time()
    for start in range(0, len(data), CHUNK):
        pieces = splitter.feed(data[start : start + CHUNK])
        if start + CHUNK >= len(data):
            pieces += splitter.idle()
        for piece in pieces:
            for event in interpreter.read(parser.parse(piece.data), "log", offset, 1):
                encode_event(event)
                events += 1
            offset += piece.length
    return events, time.process_time() - begin, interpreter.texts.parsed


def run(scale: float = 1.0) -> dict[str, Any]:
    """Measure each format three times and take the best."""
    number = max(2_000, int(LINES * scale))
    results: dict[str, Any] = {"checks": []}
    texts = {**messages(number), "jsonlog with comments": messages(number // 2, COMMENT)["jsonlog"]}
    for name, data in texts.items():
        lines = data.count(b"\n")
        best = 0.0
        parsed = 0
        for _ in range(3):
            events, seconds, parsed = read(name.split()[0], data)
            assert events == lines, (name, events)
            best = max(best, lines / seconds)
        results[name] = {"messages_per_s": round(best), "parsed": parsed, "bytes_per_message": len(data) // lines}
        if "comments" in name:
            continue
        results["checks"].append(
            {
                "what": f"log: messages of {name} a second on one core",
                "figure": f"{best:,.0f}",
                "limit": f"at least {LIMIT_PER_S:,}",
                "holds": best >= LIMIT_PER_S,
            }
        )
    results["collected"] = collected(texts["jsonlog"])
    for way, figures in results["collected"].items():
        if way == WAYS[-1]:
            continue  # what interleaving costs, beside it
        results["checks"].append(
            {
                "what": f"log: lines a second of processor time through the whole collector, {way}",
                "figure": f"{figures['lines_per_cpu_s']:,.0f}",
                "limit": f"at least {LIMIT_PER_S:,}",
                "holds": figures["lines_per_cpu_s"] >= LIMIT_PER_S,
            }
        )
    return results


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
