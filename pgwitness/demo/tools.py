"""An AI agent at the tools of `pgwitness mcp`: its host starts them, and the SDK's own client speaks with them."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

from pgwitness.core.errors import NotInOrder
from pgwitness.demo.doors import CERTIFICATE, Doors
from pgwitness.demo.servers import LOOPBACK
from pgwitness.demo.shop import STUDY_AGENT

CONFIG, TOKEN = "study-agent.toml", "study-agent.jwt"
PURPOSE = "STUDY-7: which towns order most"
WAIT_S = 60.0
SETTINGS = """\
# What the tools of study-agent need: no more than the agent may know.
[mcp]
gateway = "host={host} port={port} sslmode=verify-full sslrootcert={certificate}"
user = "agent_study"
databases = ["shop"]
token_file = "{token}"

[policies]
path = "policies"
"""


@dataclass
class Told:
    """What an agent was told by the tools: the policies that hold for it, rows, and a refusal with what to do."""

    policies: list[str] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    refusal: str = ""
    after: list[list[Any]] = field(default_factory=list)
    """Rows of what it asked instead."""


def furnish(place: Path, doors: Doors) -> Path:
    """Write the configuration of the tools."""
    path = place / CONFIG
    path.write_text(SETTINGS.format(host=LOOPBACK, port=doors.port, certificate=place / CERTIFICATE, token=TOKEN))
    return path


def log_in(config: Path, doors: Doors) -> None:
    """Give the tools the agent's token, as whoever renews it does."""
    token = config.parent / TOKEN
    token.touch(mode=0o600)
    token.write_text(doors.helpdesk.login(STUDY_AGENT))


def converse(config: Path, allowed: str, refused: str, instead: str) -> Told:
    """Let the agent ask what it may do, then for something, for what is refused, and for something else instead.

    Raise `NotInOrder` where the tools do otherwise.
    """
    return asyncio.run(asyncio.wait_for(_converse(config, allowed, refused, instead), WAIT_S))


async def _converse(config: Path, allowed: str, refused: str, instead: str) -> Told:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    command = ["-m", "pgwitness", "mcp", "--config", str(config)]
    told = Told()
    async with Client(StdioServerParameters(command=sys.executable, args=command, env=environment)) as client:
        limits = await _answer(client, "my_limits", {})
        told.policies = [f"{one['policy']} ({one['effect']})" for one in limits["policies"]]
        told.rows = (await _answer(client, "query", _query(allowed)))["rows"]
        result = await client.call_tool("query", _query(refused))
        if not result.is_error:
            raise NotInOrder(f"the gateway let {STUDY_AGENT.name} do what it is to refuse: {refused}")
        told.refusal = _text(result)
        told.after = (await _answer(client, "query", _query(instead)))["rows"]
    return told


def _query(text: str) -> dict[str, Any]:
    return {"sql": text, "purpose": PURPOSE}


async def _answer(client: Client, tool: str, given: dict[str, Any]) -> dict[str, Any]:
    result = await client.call_tool(tool, given)
    if result.is_error or result.structured_content is None:
        raise NotInOrder(f"{tool} failed: {_text(result)}")
    answer: dict[str, Any] = result.structured_content
    return answer


def _text(result: Any) -> str:
    return "\n".join(str(one.text) for one in result.content)
