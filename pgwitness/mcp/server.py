"""The tools and resources that agents see, and whose call each is."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ToolError
from mcp.types import ToolAnnotations
from prometheus_client import Counter, Gauge
from pydantic import Field
from typing_extensions import TypedDict

from pgwitness import __version__
from pgwitness.approvals.following import Following
from pgwitness.approvals.ledger import Ledger
from pgwitness.core.config import Config
from pgwitness.core.errors import ConfigurationError, PgwitnessError
from pgwitness.mcp.answers import Answer, Cell
from pgwitness.mcp.limits import Limit, limits
from pgwitness.mcp.sessions import Failed, Sessions
from pgwitness.mcp.tokens import Caller, Exchange, Refused, Verifier, caller, from_file

calls = Counter("pgwitness_mcp_calls", "Calls of tools, by what came of them", ["tool", "outcome"])
conversations = Gauge("pgwitness_mcp_conversations", "Conversations with a session at the gateway")

INSTRUCTIONS: Final = """\
PostgreSQL through pgwitness's gateway. You act as an agent for a person: both stand beside every statement in the
evidence, with the purpose that you give. Say truly what a statement is for. One statement a call; a transaction does
not last from one call to the next. What a policy refuses comes back as an error that says why and what would be
allowed: do that, or ask the person you act for; do not look for a way around. `my_limits` tells before."""

Sql = Annotated[str, Field(description="One SQL statement; $1, $2 for parameters", min_length=1, max_length=100_000)]
Purpose = Annotated[
    str, Field(description="What it is for, as the person would say: 'TICKET-12: refund'", min_length=3, max_length=200)
]
Database = Annotated[str, Field(description="The database; empty for the first that `my_limits` names")]
Parameters = Annotated[list[Cell], Field(description="Values of $1, $2 …")]
Request = Annotated[str, Field(description="The request's id, as `request_approval` or an error of `query` names it")]
Relation = Annotated[str, Field(description="A relation, with or without its schema; empty lists all that can be read")]

RELATIONS: Final = """\
SELECT n.nspname AS schema, c.relname AS relation,
       CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view'
            WHEN 'm' THEN 'materialized view' ELSE 'foreign table' END AS kind,
       pg_catalog.obj_description(c.oid, 'pg_class') AS comment
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
   AND n.nspname NOT LIKE 'pg\\_%' AND NOT c.relispartition
   AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
   AND pg_catalog.has_any_column_privilege(c.oid, 'SELECT')
 ORDER BY 1, 2"""
COLUMNS: Final = """\
SELECT a.attname AS column, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS not_null,
       pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS default_value,
       (SELECT pg_catalog.string_agg(pg_catalog.pg_get_constraintdef(o.oid), '; ')
          FROM pg_catalog.pg_constraint AS o
         WHERE o.conrelid = a.attrelid AND o.contype IN ('p', 'u', 'f') AND a.attnum = ANY (o.conkey)) AS keys,
       pg_catalog.col_description(a.attrelid, a.attnum) AS comment
  FROM pg_catalog.pg_attribute AS a
  LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
   AND pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT')
 ORDER BY a.attnum"""
READ_ONLY: Final = "25006"
"""SQLSTATE of a statement that would have changed something where nothing may be."""
_REQUEST: Final = re.compile(r"approval ([0-9a-f]{12}) is waited for")
LOOKING: Final = "look at the schema"


class Limits(TypedDict):
    """What holds for whoever calls: databases, how much an answer has, and the policies that decide."""

    databases: list[str]
    rows: int
    bytes: int
    seconds: float
    policies: list[Limit]


class Asked(TypedDict):
    """What came of asking for an approval: the request's id, empty where none is needed, and what to do."""

    request: str
    said: str


class Status(TypedDict):
    """How a request stands, who decided what, and until when (UTC) it can be decided on, or used once approved."""

    state: str
    decisions: list[str]
    until: str


class Tools:
    """What the tools do; `who` says whose token a call comes with."""

    def __init__(self, config: Config, who: Callable[[], Caller]) -> None:
        self._config = config
        self._who = who
        self.sessions = Sessions(config.mcp)
        self._exchange = Exchange(config.mcp.exchange) if config.mcp.exchange is not None else None
        self._here = secrets.token_hex(8)
        self._following = Following(config) if config.approvals.gateways else None

    async def close(self) -> None:
        """End all sessions, and what follows the topic of approvals."""
        await self.sessions.close()
        if self._following is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._following.close)

    async def query(
        self, sql: Sql, purpose: Purpose, ctx: Context, parameters: Parameters | None = None, database: Database = ""
    ) -> Answer:
        """Run one statement and return its rows, as many as fit; `cut` says what is missing.

        Statements that change data run too, where policies and the database let you; each is committed by itself.
        """
        return await self._counted("query", ctx, database, sql, purpose, parameters)

    async def explain(self, sql: Sql, purpose: Purpose, ctx: Context, database: Database = "") -> Answer:
        """Show the plan by which PostgreSQL would run a statement, with estimates of rows; it does not run."""
        return await self._counted("explain", ctx, database, f"EXPLAIN (FORMAT TEXT) {sql}", purpose)

    async def describe(self, ctx: Context, relation: Relation = "", database: Database = "") -> Answer:
        """List the tables and views that you can read, or the columns of one with types, keys and comments."""
        if not relation:
            return await self._counted("describe", ctx, database, RELATIONS, LOOKING)
        answer = await self._counted("describe", ctx, database, COLUMNS, LOOKING, [relation])
        if not answer["rows"]:
            raise ToolError(
                f"there is no relation {relation} that you can read; describe without one lists those there are"
            )
        return answer

    async def request_approval(
        self, sql: Sql, purpose: Purpose, ctx: Context, parameters: Parameters | None = None, database: Database = ""
    ) -> Asked:
        """Ask for the approval of a statement without running it. When it is approved, `query` runs exactly it, once.

        Exactly: the same text, parameters and purpose, in the same conversation.
        """
        try:
            await self._call("query", ctx, database, sql, purpose, parameters, dry=True)
        except ToolError as error:
            failed = error.__cause__
            asked = _REQUEST.search(str(error))
            if asked is not None:
                calls.labels("request_approval", "answered").inc()
                return Asked(request=asked[1], said=str(error))
            if not isinstance(failed, Failed) or failed.sqlstate != READ_ONLY:
                calls.labels("request_approval", "refused").inc()
                raise
        calls.labels("request_approval", "answered").inc()
        return Asked(request="", said="No policy asks for an approval of it, and nothing was done: use `query`.")

    def approval_status(self, request: Request) -> Status:
        """Tell how a request for approval stands: open, approved, denied, used, expired, and who said what."""
        if self._following is None:
            raise ToolError("this server does not know how requests stand: send the statement again with `query`")
        try:
            return self._following.look(lambda ledger: _status(ledger, request))
        except PgwitnessError as error:
            raise ToolError(str(error)) from error

    def my_limits(self) -> Limits:
        """Tell what holds for you: databases, sizes of answers, and the policies by which statements are refused."""
        # No coroutine: reading policies takes a third of a second, and the SDK gives what is none a thread.
        config = self._config.mcp
        return Limits(
            databases=config.databases,
            rows=config.rows,
            bytes=int(config.answer),
            seconds=float(config.timeout),
            policies=self._policies(),
        )

    def policies_text(self) -> str:
        """Return the policies that decide, to be read."""
        return "\n\n".join(_paragraph(one) for one in self._policies())

    async def schema_text(self, database: str, ctx: Context) -> str:
        """Return the relations of a database that the caller can read, one a line."""
        try:
            answer = await self._call("schema", ctx, database, RELATIONS, LOOKING)
        except ToolError as error:
            raise ResourceError(str(error)) from error
        lines = [
            f"{schema}.{relation} ({kind})" + (f": {comment}" if comment else "")
            for schema, relation, kind, comment in answer["rows"]
        ]
        return "\n".join([*lines, *([answer["cut"]] if answer["cut"] else [])])

    def _policies(self) -> list[Limit]:
        try:
            return limits(self._config.policies.path)
        except ConfigurationError as error:
            raise ToolError(str(error)) from error

    async def _counted(
        self, tool: str, ctx: Context, database: str, sql: str, purpose: str, parameters: list[Cell] | None = None
    ) -> Answer:
        try:
            answer = await self._call(tool, ctx, database, sql, purpose, parameters)
        except ToolError:
            calls.labels(tool, "refused").inc()
            raise
        calls.labels(tool, "answered").inc()
        return answer

    async def _call(
        self,
        tool: str,
        ctx: Context,
        database: str,
        sql: str,
        purpose: str,
        parameters: list[Cell] | None = None,
        *,
        dry: bool = False,
    ) -> Answer:
        known = self._config.mcp.databases
        database = database or known[0]
        if database not in known:
            raise ToolError(f"there is no database {database}; there is: {', '.join(known)}")
        if "\0" in sql or "\0" in purpose:
            raise ToolError("a text of PostgreSQL cannot hold a character of code zero")
        try:
            who = self._who()
            token = who.token
            if self._exchange is not None:
                token = await self._exchange.token(token, self._audience(database))
            session = await self.sessions.of(who.key, conversation(ctx, self._here), database)
            conversations.set(len(self.sessions))
            return await session.run(token, sql, purpose, tool, parameters, dry=dry)
        except (Failed, Refused) as error:
            raise ToolError(str(error)) from error

    def _audience(self, database: str) -> str:
        assert self._config.mcp.exchange is not None
        served = self._config.gateway.databases
        at = served.get(database, served.get("*"))
        template = self._config.mcp.exchange.audience
        return template.replace("{cluster}", at.cluster if at is not None else "").replace("{database}", database)


def conversation(ctx: Context[Any, Any], here: str) -> str:
    """Say to which conversation a call belongs, as the agent's host has it; never as the agent itself would.

    That is the transport's session, or `conversation_id` of the call's `_meta`, or on stdio this process, `here`. A
    host that names none has one conversation for each agent and person.
    """
    request = ctx.request_context
    headers = getattr(request.request, "headers", None)
    if headers is not None and (session := headers.get("mcp-session-id")):
        return str(session)[:128]
    meta = request.meta or {}
    if isinstance(given := meta.get("conversation_id"), str) and given:
        return given[:128]
    return here if headers is None else ""


def served(config: Config, verifier: Verifier | None = None) -> tuple[MCPServer[Any], Tools]:
    """Make the server, for HTTP with who judges its clients' tokens, without for stdio. Raise `ConfigurationError`."""
    if not config.mcp.databases:
        raise ConfigurationError("mcp.databases: name the databases that agents may ask, as the gateway has them")
    if verifier is None:
        path = config.mcp.token_file
        if path is None:
            raise ConfigurationError("mcp.token_file: on stdio the agent's token stands in a file; name it")
        tools = Tools(config, lambda: from_file(path))
        server: MCPServer[Any] = MCPServer("pgwitness", version=__version__, instructions=INSTRUCTIONS)
    else:
        tools = Tools(config, _shown)
        assert config.mcp.token is not None
        server = MCPServer(
            "pgwitness",
            version=__version__,
            instructions=INSTRUCTIONS,
            token_verifier=verifier,
            auth=AuthSettings(
                # As texts, since pydantic's own type would put a slash behind an issuer that has none: another issuer.
                issuer_url=config.mcp.token.issuer,  # type: ignore[arg-type]
                resource_server_url=config.mcp.url,  # type: ignore[arg-type]
                validate_token_resource=False,  # the verifier has judged the audience
            ),
        )
    _register(server, tools, config.mcp.databases)
    return server, tools


def _register(server: MCPServer[Any], tools: Tools, databases: list[str]) -> None:
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    changes = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False)
    server.add_tool(tools.query, annotations=changes, structured_output=True)
    server.add_tool(tools.request_approval, annotations=changes, structured_output=True)
    for tool in (tools.explain, tools.describe, tools.approval_status, tools.my_limits):
        server.add_tool(tool, annotations=reads, structured_output=True)

    def policies() -> str:
        return tools.policies_text()

    server.resource("pgwitness://policies", description="The policies by which statements are refused")(policies)

    async def schema(database: str, ctx: Context) -> str:
        return await tools.schema_text(database, ctx)

    server.resource("pgwitness://{database}/schema", description=f"What you can read of {', '.join(databases)}")(schema)


def _status(ledger: Ledger, request: str) -> Status:
    standing = ledger.requests.get(request)
    if standing is None:
        raise ToolError(f"there is no request {request}")
    now_us = time.time_ns() // 1000
    until_us = standing.request.expires_us if standing.approved_us is None else standing.usable_until_us
    said = {"approve": "approved", "deny": "denied"}
    return Status(
        state=standing.state(now_us),
        decisions=[f"{said[one.word]} by {one.who}: {one.why}" for one in standing.decisions],
        until=datetime.fromtimestamp(until_us / 1e6, UTC).isoformat(timespec="seconds"),
    )


def _paragraph(one: Limit) -> str:
    most = "" if one["max_rows"] is None else f", {one['max_rows']} rows at most"
    said = f"{one['title']}. {one['description']} {one['hint']}"
    return f"{one['policy']} ({one['effect']}{most}): {said}".rstrip()


def _shown() -> Caller:
    found = get_access_token()
    if found is None:
        raise Refused("this call shows no token")
    return caller(found.token)
