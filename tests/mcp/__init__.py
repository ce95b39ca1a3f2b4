"""The tools for AI agents, by clients of MCP, through a gateway in front of a real server."""
