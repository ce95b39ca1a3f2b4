"""Spools of processes that a gateway has no more of: what is on them is shipped, then they go."""

from __future__ import annotations

import shutil
import threading
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from collectors.context import now_us
from collectors.gateway.spool.records import Started
from collectors.gateway.spool.shipper import ShippingProcess
from collectors.gateway.spool.shipping import mend
from collectors.gateway.spool.spool import Spool
from pgwitness.core.config import Config
from pgwitness.core.contracts.collector import Task
from pgwitness.core.runtime.health import Health

WAIT_S: Final = 5.0

log = structlog.get_logger("gateway")


def folder_of(config: Config, process: int) -> Path:
    """Return the folder of a process's spool: the first one's is that of a gateway that has only one."""
    path = config.gateway.spool.path
    return path if process == 0 else path / str(process)


def leftovers(config: Config, health: Health, servers: list[tuple[str, str]]) -> dict[str, Task]:
    """Return what ships the spools of processes that there are no more, by the names of their parts."""
    found = [path for path in config.gateway.spool.path.glob("[0-9]*") if path.is_dir() and path.name.isdecimal()]
    return {
        f"spool {path.name}": partial(_emptied, f"spool {path.name}", config, health, servers, path)
        for path in sorted(found)
        if int(path.name) >= config.gateway.processes
    }


def _emptied(
    part: str,
    config: Config,
    health: Health,
    servers: list[tuple[str, str]],
    path: Path,
    stop: threading.Event,
) -> None:
    """Ship what is on a spool, and remove it when the broker has all of it."""
    if path.exists():
        spool = Spool(path, config.gateway.spool.max, config.gateway.spool.sync)
        try:
            mend(spool, config.collectors.state_path)
            spool.write([Started(session=0, at_us=now_us())])
            served = threading.Event()
            served.set()
            ShippingProcess(config, spool, health, servers).run(served)
            shipped = spool.released >= spool.end
        finally:
            spool.close()
        if shipped:
            shutil.rmtree(path)
            log.info("the spool of a process that is no more was shipped", folder=str(path))
    while not stop.is_set():
        health.ready(part)
        health.wait(part, WAIT_S, stop)
