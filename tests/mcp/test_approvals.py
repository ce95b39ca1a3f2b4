"""An agent asks for an approval by its tools, a person gives it, and the statement runs: exactly it, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors.gateway.approving.desk import Desk
from detectors.alerts.verdicts import public_text
from tests.gateway.test_approvals import Office, office, rules
from tests.mcp.conftest import world_of
from tests.mcp.test_tools import PURPOSE, agent, anyio_backend, ask, refused

__all__ = ["anyio_backend", "office"]
BULK = "DELETE FROM public.ticket WHERE id <= $1"


@pytest.mark.anyio
async def test_an_agent_asks_first(tmp_path: Path, database18: str, office: Office) -> None:
    """Asking runs nothing; what was approved runs once, by `query`; nothing else does by it, and its end is told."""
    folder = tmp_path / "world"
    folder.mkdir()
    more = (
        f'[kafka]\nbootstrap = "{office.config.kafka.bootstrap}"\nprefix = "{office.config.kafka.prefix}"\n'
        f'[approvals]\ngateways = ["{public_text(office.trust.gateways[0])}"]\n'
        f'[approvers.ada]\nkey = "{office.config.approvers["ada"].key}"\ngroups = ["dba"]\n'
    )
    with world_of(folder, database18, rules("agent"), more) as world:
        desk = world.gateway.house.desk = Desk(office.config)
        desk.start()
        try:
            async with agent(world) as client:
                given = {"sql": BULK, "purpose": PURPOSE, "parameters": [7]}
                asked = await client.call_tool("request_approval", given)
                assert not asked.is_error, asked.content
                assert asked.structured_content is not None
                request = asked.structured_content["request"]
                assert world.rows("SELECT count(*) FROM ticket") == [(1000,)]
                status = (await client.call_tool("approval_status", {"request": request})).structured_content
                assert status is not None
                assert (status["state"], status["decisions"]) == ("open", [])
                assert "is waited for" in await refused(client, BULK, parameters=[7])

                office.say(office.open(), why="seen with maria")
                office.until(lambda ledger: next((one for one in ledger.requests.values() if one.approved_us), None))
                assert "is waited for" in await refused(client, BULK, parameters=[8])
                assert (await ask(client, BULK, parameters=[7]))["command"] == "DELETE 7"
                assert "is waited for" in await refused(client, BULK, parameters=[7])
                status = (await client.call_tool("approval_status", {"request": request})).structured_content
                assert status is not None
                assert status["state"] == "used"
                assert status["decisions"] == ["approved by ada: seen with maria"]
                assert (await client.call_tool("approval_status", {"request": "0" * 12})).is_error

                free = {"sql": "UPDATE public.ticket SET body = 'x'", "purpose": PURPOSE}
                needless = (await client.call_tool("request_approval", free)).structured_content
                assert needless is not None
                assert needless["request"] == ""
                assert world.rows("SELECT count(*) FROM ticket WHERE body = 'x'") == [(0,)]
        finally:
            desk.close()
