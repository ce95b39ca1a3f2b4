"""Where the demo's scenes play, and what is kept of them for the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from pgwitness.core.errors import NotInOrder
from pgwitness.demo.clients import Psycopg
from pgwitness.demo.doors import Doors
from pgwitness.demo.shop import Principal
from pgwitness.demo.workload import Ledger

if TYPE_CHECKING:
    from pgwitness.demo.tools import Told


@dataclass(frozen=True)
class Refusal:
    """What somebody was told whom the gateway, or the guard in the database, refused something."""

    who: Principal
    asked: str
    told: str
    detail: str
    hint: str
    where: str = "at the gateway"


@dataclass(frozen=True)
class Stage:
    """Where scenes play: the doors, the program psql, the ledger for what they commit, and what was refused.

    `config` is what commands are given, `tools` the configuration of the agent that works by MCP, `told` what it was
    told.
    """

    doors: Doors
    psql: Path
    ledger: Ledger
    config: Path
    tools: Path
    refusals: list[Refusal] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)

    def refuse(self, client: Psycopg, who: Principal, statement: str, where: str = "at the gateway") -> None:
        """Ask for something that is to be refused. Raise `NotInOrder` when it is not."""
        try:
            client.alone(statement)
        except psycopg.errors.InsufficientPrivilege as error:
            said = error.diag
            told = (said.message_primary or "", said.message_detail or "", said.message_hint or "")
            self.refusals.append(Refusal(who, statement, *told, where))
            return
        raise NotInOrder(f"{who.name} was let do what is to be refused: {statement}")
