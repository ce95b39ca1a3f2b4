"""The reference is complete: what the code has, the documentation names."""

from __future__ import annotations

import importlib
import pkgutil
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import prometheus_client
import pytest

from pgwitness.cli import main
from pgwitness.core.config import Anchor, Audience, Cluster, Config, Delivery, Log, RespondCluster, Reviewer, Slot
from pgwitness.core.config.gateway import GatewayDatabase, GatewaySpool, GatewayTls, GatewayToken, GatewayUnparsable
from pgwitness.core.config.judging import Approver
from pgwitness.core.config.serving import ConsoleOpenid, McpExchange, ServerTls
from pgwitness.core.topics import topics
from pgwitness.core.units import Duration, Size

ROOT = Path(__file__).parent.parent.parent
REFERENCE = ROOT / "docs" / "reference"
TABLES: dict[str, type[msgspec.Struct]] = {
    **{
        name: type(value)
        for name, value in msgspec.structs.asdict(Config()).items()
        if isinstance(value, msgspec.Struct)
    },
    "clusters.NAME": Cluster,
    "clusters.NAME.slot": Slot,
    "clusters.NAME.log": Log,
    "reviewers.NAME": Reviewer,
    "approvers.NAME": Approver,
    "deliveries.NAME": Delivery,
    "seal.anchors.NAME": Anchor,
    "console.tls": ServerTls,
    "console.openid": ConsoleOpenid,
    "gateway.tls": GatewayTls,
    "gateway.spool": GatewaySpool,
    "gateway.databases.NAME": GatewayDatabase,
    "gateway.databases.NAME.token": GatewayToken,
    "gateway.databases.NAME.unparsable": GatewayUnparsable,
    "mcp.tls": ServerTls,
    "mcp.token": GatewayToken,
    "mcp.exchange": McpExchange,
    "respond.clusters.NAME": RespondCluster,
    "masks.NAME": Audience,
}
COMMON = {"--config", "--debug", "--log-level", "--json", "--help"}
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def page(name: str) -> str:
    """Read a page of the reference."""
    return (REFERENCE / name).read_text(encoding="utf-8")


def commands(group: click.Group = main, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """List every command with its words."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield " ".join((*words, name)), command


def settings(kind: type[msgspec.Struct], path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """List every setting of the configuration: its table and its key."""
    for found in msgspec.structs.fields(kind):
        parts = [part for part in (found.type, *typing.get_args(found.type)) if isinstance(part, type)]
        tables = [part for part in parts if issubclass(part, msgspec.Struct)]
        for table in tables:
            yield from settings(table, (*path, found.encode_name))
        if not tables:
            yield ".".join(path), found.encode_name


@pytest.mark.parametrize(
    ("words", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_and_option_is_documented(words: str, command: click.Command) -> None:
    """Each command has a heading, and each of its options stands in its section."""
    text = page("commands.md")
    heading = f"## `pgwitness {words}`"
    assert heading in text
    section = text.split(heading, 1)[1].split("\n## ", 1)[0]
    options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    assert sorted(option for option in options - COMMON if option not in section) == []
    assert sorted(option for option in COMMON if option not in text) == []


def test_no_command_is_documented_that_is_not_there() -> None:
    """Each heading of a command is a command."""
    documented = set(re.findall(r"^## `pgwitness ([^`]+)`", page("commands.md"), re.MULTILINE))
    assert documented == {words for words, _ in commands()}


def test_every_setting_is_documented_with_its_table() -> None:
    """Each table of the configuration has a heading, and each key a line."""
    text = page("configuration.md")
    listed = list(settings(Config))
    assert ("clusters.slot", "on_max_lag") in listed
    assert [
        (table, key) for table, key in listed if not {f"`{key}`", f"`{table}.{key}`"} & set(CODE.findall(text))
    ] == []
    for table in msgspec.structs.asdict(Config()):
        assert f"[{table}" in text or f"`{table}`" in text, table


def test_documented_defaults_are_those_of_the_code() -> None:
    """Each default in a table of the page is the one that holds, whatever unit it is written in."""
    wrong = []
    sections = re.split(r"^##+ ", page("configuration.md"), flags=re.MULTILINE)
    for section in sections:
        for table in re.findall(r"`\[([a-zA-Z.]+)\]`", section.splitlines()[0] if section else ""):
            kind = TABLES[table]
            defaults = {found.encode_name: found.default for found in msgspec.structs.fields(kind)}
            for key, written in re.findall(r"^\| `(?:[a-z]+\.)?([a-z_]+)` \| `([^`]+)` \|", section, re.MULTILINE):
                if key in defaults and not same(defaults[key], written):
                    wrong.append((table, key, written, defaults[key]))
    assert wrong == []


def same(default: object, written: str) -> bool:
    """Say whether a default is what the page says; a list or a mapping has no default of its own there."""
    if isinstance(default, Duration | Size):
        return default == type(default).parse(written)
    if isinstance(default, bool):
        return written == str(default).lower()
    if isinstance(default, Path):
        return default == Path(written)
    return written in ("[]", "{}") or str(default) == written


def test_the_template_names_every_table() -> None:
    """What `pgwitness init` writes shows every table of the configuration."""
    template = (ROOT / "pgwitness" / "cli" / "templates" / "pgwitness.toml").read_text(encoding="utf-8")
    for table in msgspec.structs.asdict(Config()):
        assert f"[{table}" in template or f"{table} =" in template, table


def test_every_metric_is_documented_and_every_documented_one_is_there() -> None:
    """The page of metrics and the program's registry have the same names."""
    for room in ("collectors", "streams", "sinks", "detectors", "pgwitness"):
        package = importlib.import_module(room)
        for module in pkgutil.walk_packages(package.__path__, f"{room}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    there = {found.name for found in prometheus_client.REGISTRY.collect() if found.name.startswith("pgwitness_")}
    documented = set(re.findall(r"^\| `(pgwitness_[a-z_]+)`", page("metrics.md"), re.MULTILINE))
    assert documented == there


def test_every_topic_is_documented() -> None:
    """Each topic has its line."""
    text = page("topics.md")
    assert [topic.name for topic in topics() if f"| `{topic.name}` |" not in text] == []


def test_every_reason_for_a_dead_letter_is_documented() -> None:
    """Each reason that the code gives has its line."""
    sources = [path for room in ("pgwitness", "streams", "sinks") for path in (ROOT / room).rglob("*.py")]
    pattern = re.compile(r'DeadLetter\(\s*"([a-z_]+)"')
    reasons = {reason for path in sources for reason in pattern.findall(path.read_text(encoding="utf-8"))}
    assert reasons
    assert sorted(reason for reason in reasons if f"`{reason}`" not in page("topics.md")) == []


def test_every_reason_for_a_gap_is_documented() -> None:
    """Each reason of a gap that the collectors and the worker give has its line."""
    pattern = re.compile(
        r'(?:Loss\(\s*|\bgap\(\s*|_gap\(\s*|reason=|reason = |"reason": |conditions\[)"([a-z]+_[a-z_]+)"'
    )
    sources = [path for room in ("collectors", "streams") for path in (ROOT / room).rglob("*.py")]
    reasons = {reason for path in sources for reason in pattern.findall(path.read_text(encoding="utf-8"))}
    assert {"slot_lost", "stats_reset"} <= reasons
    assert sorted(reason for reason in reasons if f"`{reason}`" not in page("events.md")) == []


def test_every_link_leads_somewhere() -> None:
    """Relative links of the documentation lead to files."""
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{path.relative_to(ROOT)}: {link}"
        for path in pages
        for link in LINK.findall(path.read_text(encoding="utf-8"))
        if "://" not in link and not (path.parent / link).exists()
    ]
    assert broken == []
