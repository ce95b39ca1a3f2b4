"""Sessions that no rule of `identities.yaml` names, and for each kind of them a rule to paste. Pure.

What is taken in are sessions as they were seen, counted by their facts; they are named again by the rules as they are
now, so that a rule written a minute ago counts.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable
from ipaddress import ip_address

import yaml
from msgspec import Struct

from streams.identity.identities import Facts, Identities


class Seen(Struct, frozen=True):
    """How many sessions were seen with these facts."""

    facts: Facts
    sessions: int


class Unnamed(Struct, frozen=True):
    """Sessions that nobody names; `rule` is a line for the end of the list of rules."""

    cluster: str
    role: str | None
    application: str | None
    client_addr: str | None
    sessions: int
    rule: str


class Answer(Struct, frozen=True):
    """Who was not named, the most frequent first, and the ids of the rules that named somebody."""

    unnamed: tuple[Unnamed, ...]
    rules: frozenset[str]


def sort_out(identities: Identities, seen: Iterable[Seen]) -> Answer:
    """Name sessions by the rules, and gather those that stay without a name."""
    counts: dict[tuple[str, str | None, str | None, str | None], int] = {}
    rules: set[str] = set()
    for item in seen:
        named = identities.name(item.facts)
        if named.rule is not None:
            rules.add(named.rule)
            continue
        facts = item.facts
        key = (facts.cluster, facts.role, facts.application, facts.client_addr)
        counts[key] = counts.get(key, 0) + item.sessions
    ordered = sorted(counts.items(), key=lambda item: (-item[1], [text or "" for text in item[0]]))
    return Answer(tuple(Unnamed(*key, number, rule_for(*key[1:])) for key, number in ordered), frozenset(rules))


def rule_for(role: str | None, application: str | None, client_addr: str | None) -> str:
    """Write a rule that names just such sessions: by their application, or else by their role."""
    match: dict[str, str] = {}
    if role is not None:
        match["role"] = glob.escape(role)
    if application:
        match["application"] = glob.escape(application)
    if client_addr is not None and _usable(client_addr):
        match["client_addr"] = client_addr
    if not match:
        match["role"] = "*"
    # A name in braces would be filled in; what does not print would not stay on one line.
    names = (name for name in (application, role) if name and "{" not in name and name.isprintable())
    principal = next(names, "somebody")
    rule = {"match": match, "principal": principal, "kind": "unknown"}
    flow = yaml.safe_dump(rule, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1_000_000)
    if len(flow.strip().splitlines()) > 1:
        # What breaks a line is folded, unless it stands in double quotes.
        flow = yaml.safe_dump(rule, default_flow_style=True, default_style='"', sort_keys=False, width=1_000_000)
    return f"  - {flow.strip()}"


def _usable(address: str) -> bool:
    try:
        return address == "local" or (bool(ip_address(address)) and "%" not in address)
    except ValueError:
        return False
