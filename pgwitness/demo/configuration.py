"""The configuration of a system on one machine that shows what it sees at once: short intervals, ports of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pgwitness.demo.servers import Broker, Postgres, free_port

TEMPLATE = """\
# {title}
[kafka]
bootstrap = "{bootstrap}"

[topics]
raw_partitions = 1
event_partitions = 2

[clusters.shop]
dsn = "postgresql://pgwitness@127.0.0.1:{port}/postgres"
databases = ["shop"]
stats_interval = "1s"
sessions_interval = "250ms"
posture_interval = "1s"

[privacy]
key_file = "privacy.key"
clear = [{clear}]

[lake]
path = "lake"
flush_interval = "{flush_interval}"

[collectors]
state_path = "state"
heartbeat_interval = "2s"

[worker]
grace = "1s"
session_timeout = "6s"
checkpoint_interval = "5s"
data_path = "state/worker"

[http]
collect_port = {collect_port}
worker_port = {worker_port}
console_port = {console_port}
gateway_port = {gateway_port}

"""


def write(
    place: Path,
    postgres: Postgres,
    broker: Broker,
    *,
    title: str,
    clear: Sequence[str],
    flush_interval: str,
    more: str,
) -> Path:
    """Write `pgwitness.toml` for a database `shop` into a folder, and give its path.

    `clear` are the columns whose texts stay readable, `more` is TOML that follows.
    """
    path = place / "pgwitness.toml"
    common = TEMPLATE.format(
        title=title,
        bootstrap=broker.bootstrap,
        port=postgres.port,
        clear=", ".join(f'"{column}"' for column in clear),
        flush_interval=flush_interval,
        collect_port=free_port(),
        worker_port=free_port(),
        console_port=free_port(),
        gateway_port=free_port(),
    )
    path.write_text(common + more)
    return path
