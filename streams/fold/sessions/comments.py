"""What a comment behind a statement asserts: an agent, for whom it acts, a trace; pure.

Such a comment is the client's own word. It names the agent (`detail.agent`) and can be matched by a rule, which then
names an `asserted` principal; it names nobody by itself. Where it contradicts something stronger, that is a finding.
"""

from __future__ import annotations

from msgspec.structs import replace

from pgwitness.core.events import Assurance
from streams.fold.memory.attribution import Attribution, Corroborated
from streams.identity.claims import parent_of
from streams.identity.identities import Facts, Identities, Named

_AGENT = (
    ("agent", "name"), ("agent_instance", "instance"), ("model", "model"), ("tool", "tool"),
    ("conversation_id", "conversation"), ("traceparent", "traceparent"),
)  # fmt: skip
_CHAIN = ("on_behalf_of", "client", "agent", "service")
_STRONGER: tuple[Assurance, ...] = ("verified", "role_only")

Tags = dict[str, str]


def name(facts: Facts, tags: tuple[tuple[str, str], ...], identities: Identities) -> Named:
    """Name the session of a statement: a comment renames neither a person nor who is verified without it."""
    asked = tuple(pair for pair in tags if pair[0] in identities.tags)
    named = identities.name(replace(facts, comment=asked))
    if not named.commented:
        return named
    without = identities.name(replace(facts, comment=()))
    if without.kind == "human" or without.assurance == "verified":
        return without
    said = dict(tags).get("on_behalf_of")
    return named if named.on_behalf_of or said is None else replace(named, on_behalf_of=said)


def delegation(tags: Tags) -> list[str]:
    """List who acts for whom, as the comment has it: person, client, agent, service."""
    return [tags[key] for key in _CHAIN if key in tags]


def agent(tags: Tags) -> dict[str, object] | None:
    """Tell of the agent in the words that a verified claim uses; None where the comment says nothing of one."""
    found: dict[str, object] = {name: tags[key] for key, name in _AGENT if key in tags}
    links = delegation(tags)
    if links:
        found["delegation"] = links
    return {"said_by": "comment", **found} if found else None


def trace_id(tags: Tags) -> str | None:
    """Return the trace that the comment belongs to."""
    return parent_of(tags.get("traceparent", ""))


def corroborated(attribution: Attribution) -> Corroborated | None:
    """Keep of an attribution what a comment could contradict; None where nothing is stronger than a comment."""
    if attribution.principal is None or attribution.assurance not in _STRONGER:
        return None
    claimed = attribution.agent if attribution.agent is not None and attribution.agent.get("said_by") == "claim" else {}
    links = claimed.get("delegation")
    names = [str(link) for link in links] if isinstance(links, list) else []
    if "name" in claimed:
        names.append(str(claimed["name"]))
    return Corroborated(attribution.principal, attribution.principal_kind, attribution.on_behalf_of, tuple(names))


def contradiction(tags: Tags, stronger: Corroborated | None) -> list[str]:
    """List the tags that cannot be true if stronger evidence is: another agent, or another person it acts for.

    A service or a person may run an agent of its own under its role; an agent is no other agent. A person acts for
    nobody else, and who acts for somebody by stronger evidence does not act for another.
    """
    if stronger is None:
        return []
    names = {stronger.principal, stronger.on_behalf_of, *stronger.names}
    found = []
    if stronger.kind == "agent" and tags.get("agent", stronger.principal) not in names:
        found.append("agent")
    is_known = stronger.on_behalf_of is not None or stronger.kind == "human"
    if is_known and tags.get("on_behalf_of", stronger.principal) not in names:
        found.append("on_behalf_of")
    return found
