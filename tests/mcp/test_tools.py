"""What an agent is given by each tool, and what stands in the evidence of its calls: the SDK's own client, on stdio."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

from collectors.gateway.spool.records import Closed
from tests.mcp.conftest import World

PURPOSE = "TICKET-12: why it is late"


@asynccontextmanager
async def agent(world: World, **more: Any) -> AsyncIterator[Client]:
    """An agent's host, which has started the tools as a process of its own."""
    arguments = ["-m", "pgwitness", "mcp", "--config", str(world.folder / "pgwitness.toml")]
    async with Client(StdioServerParameters(command=sys.executable, args=arguments), **more) as client:
        yield client


async def ask(client: Client, sql: str, **more: Any) -> dict[str, Any]:
    """Call `query`; what comes must be an answer."""
    result = await client.call_tool("query", {"sql": sql, "purpose": PURPOSE, **more})
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


async def refused(client: Client, sql: str, tool: str = "query", **more: Any) -> str:
    """Call a tool; what comes must be an error, whose text is returned."""
    result = await client.call_tool(tool, {"sql": sql, "purpose": PURPOSE, **more})
    assert result.is_error, result.structured_content
    return str(result.content[0].text)  # type: ignore[union-attr]


@pytest.mark.anyio
async def test_a_conversation(world: World) -> None:
    """Rows with their types, what is cut, refusals that say what to do; in the evidence agent and person."""
    async with agent(world) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert {"query", "explain", "describe", "my_limits"} <= set(tools)
        found = await ask(client, "SELECT id, body, id > 1, 1.50, NULL FROM ticket WHERE id <= $1", parameters=[2])
        assert found["rows"] == [[1, "ticket 1", False, "1.50", None], [2, "ticket 2", True, "1.50", None]]
        assert [column["type"] for column in found["columns"]][:4] == ["integer", "text", "boolean", "numeric"]
        assert (found["command"], found["cut"]) == ("SELECT 2", "")

        many = await ask(client, "SELECT * FROM ticket")
        assert len(many["rows"]) == 50
        assert "only the first 50 rows" in many["cut"]
        # The cancel that stopped it has not met this one.
        assert (await ask(client, "SELECT count(*) FROM ticket WHERE id <= 1000"))["rows"] == [[1000]]

        said = await refused(client, "DELETE FROM ticket")
        assert "refused by policy no_delete" in said
        assert "HINT: Delete by key, or ask the owner." in said
        assert "SQLSTATE: 42501" in said
        done = await ask(client, "DELETE FROM ticket WHERE id BETWEEN 901 AND 1000 RETURNING body")
        assert (len(done["rows"]), done["command"]) == (50, "DELETE 100")
        assert "ran to its end" in done["cut"]
        assert world.rows("SELECT count(*) FROM ticket WHERE id <= 1000") == [(900,)]

        assert "Seq Scan" in str(
            (await client.call_tool("explain", {"sql": "SELECT * FROM ticket", "purpose": PURPOSE})).content
        )
        assert "syntax error" in await refused(client, "ANALYZE DELETE FROM ticket WHERE id = 1", tool="explain")

    begun = world.begun("SELECT id, body, id >")
    assert len(begun) == 1
    assert begun[0].intent == PURPOSE
    assert begun[0].said.tags["tool"] == "query"
    assert begun[0].said.tags["conversation_id"]
    session = world.opened(begun[0].session)
    assert session.role == "triage_role"
    assert session.token is not None
    assert (session.token.verdict, session.token.claims["sub"]) == ("verified", "maria")
    assert session.token.claims["actors"] == ["triage"]


@pytest.mark.anyio
async def test_what_there_is(world: World) -> None:
    """Relations that can be read with comments, columns of one, the policies that decide; nothing of what is hidden."""
    async with agent(world) as client:
        listed = (await client.call_tool("describe", {})).structured_content
        assert listed is not None
        assert listed["rows"] == [["public", "ticket", "table", "What customers wrote"]]
        columns = (await client.call_tool("describe", {"relation": "ticket"})).structured_content
        assert columns is not None
        assert [row[:3] for row in columns["rows"]] == [["id", "integer", True], ["body", "text", True]]
        assert (await client.call_tool("describe", {"relation": "hidden"})).is_error
        limits = (await client.call_tool("my_limits", {})).structured_content
        assert limits is not None
        assert limits["databases"] == [world.gateway.database, "other"]
        assert [(one["policy"], one["effect"]) for one in limits["policies"]] == [("no_delete", "deny")]
        schema = await client.read_resource(f"pgwitness://{world.gateway.database}/schema")
        assert schema.contents[0].text == "public.ticket (table): What customers wrote"  # type: ignore[union-attr]
        policies = await client.read_resource("pgwitness://policies")
        assert policies.contents[0].text.startswith("no_delete (deny): ")  # type: ignore[union-attr]


@pytest.mark.anyio
async def test_calls_do_not_reach_into_each_other(world: World) -> None:
    """No transaction lasts, several statements are none, COPY is refused, and each time the next call works."""
    async with agent(world) as client:
        begun = await ask(client, "BEGIN")
        assert "rolled back" in begun["notices"][0]
        assert "multiple commands" in await refused(client, "SELECT 1; SELECT 2")
        assert "division by zero" in await refused(client, "SELECT 1/0")
        assert "COPY" in await refused(client, "COPY ticket TO STDOUT")
        assert "COPY" in await refused(client, "COPY ticket FROM STDIN")
        assert "longer than 2 seconds" in await refused(client, "SELECT pg_sleep(60)")
        assert "code zero" in await refused(client, "SELECT '\0'")
        assert "there is no database nowhere" in await refused(client, "SELECT 1", database="nowhere")
        assert "does not open database other" in await refused(client, "SELECT 1", database="other")
        assert (await ask(client, "SELECT 1 -- and a comment"))["rows"] == [[1]]
        assert (await ask(client, "SELECT repeat('x', 5000)"))[
            "cut"
        ] == "1 values longer than 4,000 characters are cut."
        assert (await ask(client, "INSERT INTO ticket VALUES (5000, $1)", parameters=["ü"]))["command"] == "INSERT 0 1"
        assert world.rows("SELECT body FROM ticket WHERE id = 5000") == [("ü",)]


@pytest.mark.anyio
async def test_a_session_that_was_ended_is_opened_anew(world: World) -> None:
    """What was ended between two calls is noticed before the second; in the midst of one the agent is told."""
    ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgwitness mcp'"
    async with agent(world) as client:
        assert (await ask(client, "SELECT 1"))["rows"] == [[1]]
        before = len(world.gateway.records())
        assert world.rows(ends) == [(True,)]
        world.gateway.until(lambda found: any(isinstance(one, Closed) for one in found[before:]))
        assert (await ask(client, "SELECT 2"))["rows"] == [[2]]


@pytest.mark.anyio
async def test_a_token_that_no_longer_holds(world: World) -> None:
    """Says so, with what to do; a new one in the file is taken up."""
    place = world.folder / "agent.jwt"
    before = place.read_text()
    async with agent(world) as client:
        try:
            place.write_text(world.issuer.token(exp=1))
            assert "expired" in await refused(client, "SELECT 1")
            place.write_text("")
            assert "is empty" in await refused(client, "SELECT 1")
        finally:
            place.write_text(before)
        assert (await ask(client, "SELECT 1"))["rows"] == [[1]]


@pytest.fixture
def anyio_backend() -> str:
    """These run on asyncio, as psycopg does."""
    return "asyncio"


def test_the_driver_can_do_what_is_asked() -> None:
    """Rows come in chunks, and a cancel is encrypted as the session is (libpq 17)."""
    assert psycopg.capabilities.has_stream_chunked()
    assert psycopg.capabilities.has_cancel_safe()
