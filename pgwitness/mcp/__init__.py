"""Tools for AI agents by MCP: each call is a statement through the gateway, as the agent and for its person.

`tokens` says who calls, `sessions` holds a session at the gateway for each conversation, `answers` bounds what comes
back, `limits` tells what is refused before it is asked, `server` has the tools, `serving` the two transports. Nothing
here decides what an agent may do: the gateway does, and it judges what arrives there, whoever sent it.
"""
