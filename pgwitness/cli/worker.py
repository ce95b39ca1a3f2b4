"""`pgwitness worker`: attribute, judge, land. Here the rooms are put together: streams, detectors and sinks."""

from __future__ import annotations

from pathlib import Path

import click

from pgwitness.cli.options import common, configuration, http_options
from pgwitness.core.errors import Retry

RETRY_S = 2.0


@click.command(short_help="Run the worker: attribute, judge, land.")
@http_options
@common
def worker(host: str | None, port: int | None, config_path: Path) -> None:
    """Run the worker until asked to stop: topic `raw` becomes named events, verdicts, alerts and the lake.

    Start more of them for more throughput: Kafka divides the partitions among the workers of one group.
    """
    config = configuration(config_path)
    config.kafka.client()  # what it lacks is said at once, not tried again and again

    import structlog

    from detectors.judge import Judge
    from pgwitness.cli.daemon import daemon
    from pgwitness.cli.signals import finish
    from sinks.registry import open_store
    from streams.faust.worker import run
    from streams.worker.policy_file import PolicyFile

    log = structlog.get_logger("worker")
    policy_file = PolicyFile(config.policies.path)
    policy_file.load()

    def judge() -> Judge:
        return Judge.from_config(policy_file.last, config)

    store = open_store(config)
    topic = config.kafka.topic("events")
    partitions = [(topic, number) for number in range(config.topics.event_partitions)]
    bind = config.http.worker_port if port is None else port
    with daemon("worker", host or config.http.host, bind) as (stop, health):
        while not stop.is_set():
            try:
                store.prepare(partitions)
                break
            except Retry as error:
                log.warning("lake_not_ready", error=str(error))
                stop.wait(RETRY_S)
        code = run(config, store, judge, health, stop, policy_file=policy_file)
    finish(code)
