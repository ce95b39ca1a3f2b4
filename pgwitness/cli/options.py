"""The options that commands share, and how a command gets its configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from pgwitness.cli import signals

if TYPE_CHECKING:
    from pgwitness.core.config import Config

P = ParamSpec("P")
R = TypeVar("R")

DEBUG = "pgwitness.debug"
LEVELS = ["debug", "info", "warning", "error"]


def _debug(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    ctx.meta[DEBUG] = ctx.meta.get(DEBUG, False) or value
    return value


def common(function: Callable[P, R]) -> Callable[P, R]:
    """Add what every command takes: `--config`, `--log-level` and `--debug`."""
    function = click.option(
        "--debug", is_flag=True, expose_value=False, callback=_debug, help="Show the traceback of an error."
    )(function)
    function = click.option(
        "--log-level",
        type=click.Choice(LEVELS),
        default="info",
        show_default=True,
        expose_value=False,
        callback=_logs,
        help="What to log; logs go to stderr.",
    )(function)
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("pgwitness.toml"),
        show_default=True,
        help="The configuration.",
    )(function)


def _logs(ctx: click.Context, _: click.Parameter, value: str) -> str:
    from pgwitness.core.runtime import logs

    if not ctx.resilient_parsing:
        (logs.own if signals.watching() else logs.configure)(value)
    return value


def json_option(function: Callable[P, R]) -> Callable[P, R]:
    """Add `--json`: a list of objects, one a row, and nothing else on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of objects, one a row.")(function)


def cluster_option(function: Callable[P, R]) -> Callable[P, R]:
    """Add `--cluster NAME`, which may be given several times."""
    return click.option(
        "--cluster", "clusters", multiple=True, metavar="NAME", help="Only this cluster; may be repeated."
    )(function)


def http_options(function: Callable[P, R]) -> Callable[P, R]:
    """Add where a daemon serves `/metrics`, `/livez` and `/readyz`."""
    function = click.option(
        "--port", type=click.IntRange(0, 65535), help="Port of /metrics, /livez and /readyz; 0 takes a free one."
    )(function)
    return click.option("--http", "host", metavar="HOST", help="Address to serve /metrics, /livez and /readyz on.")(
        function
    )


def configuration(path: Path, clusters: tuple[str, ...] = ()) -> Config:
    """Load the configuration, narrowed to the named clusters.

    Raises `ConfigurationError` naming the file and the key, or the clusters there are.
    """
    import msgspec

    from pgwitness.core.config import load

    config = load(path)
    if clusters:
        config = msgspec.structs.replace(config, clusters={name: config.cluster(name) for name in clusters})
    return config
