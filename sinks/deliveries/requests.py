"""Requests for approval as deliveries: which records of the topic `approvals` are told of, and in which words. Pure.

Told is what a gateway has signed and somebody can still decide on. Everything in it that its asker chose is text in the
messages, never markup: Block Kit's `plain_text`, Adaptive Cards' `TextRun`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from pgwitness.approvals import records
from pgwitness.approvals.ledger import Trust
from pgwitness.approvals.links import KEY_BYTES_MIN, link
from pgwitness.approvals.records import Request
from pgwitness.core.config import Config
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.secretfile import secret
from sinks.deliveries.routing import Item

TYPE = "approval"
SEVERITY = 4
"""High, as OCSF counts: somebody waits."""
FACT_CHARS_MAX = 900


def reader(config: Config, target: str) -> Callable[[bytes | None, int], Item | None]:
    """Return what makes an item of a record, at a time. Raise `ConfigurationError` where links cannot be signed."""
    trust, settings = Trust.of(config), config.approvals
    if not trust.gateways:
        raise ConfigurationError(
            f"deliveries.{target}.approvals: approvals.gateways lists no gateway's key, so no request is believed"
        )
    key = b""
    if settings.console_url:
        if settings.link_key_file is None:
            raise ConfigurationError("approvals.link_key_file: what links of approvals.console_url are signed with")
        key = secret(settings.link_key_file, "approvals.link_key_file")
        if len(key) < KEY_BYTES_MIN:
            raise ConfigurationError(f"approvals.link_key_file: at least {KEY_BYTES_MIN} bytes")

    def read(value: bytes | None, now_us: int) -> Item | None:
        signed = records.read(value)
        if signed is None or not isinstance(signed.record, Request):
            return None
        request = signed.record
        if request.expires_us <= now_us or not any(signed.is_by(one) for one in trust.gateways):
            return None
        at = link(settings.console_url, request.request, request.expires_us, key, target) if key else ""
        return item(request, at)

    return read


def item(request: Request, at: str) -> Item:
    """Make what is delivered of a request; `at` is where it is looked at."""
    who = request.principal or f"role {request.role}"
    asks = f"{who}, for {request.on_behalf_of}," if request.on_behalf_of else who
    ours = {"cluster": request.cluster, "policy": request.policies[0] if request.policies else "", "kind": TYPE}
    return Item(
        uid=f"approval-{request.request}",
        type=TYPE,
        time_ms=request.at_us // 1000,
        severity_id=SEVERITY,
        title="A statement waits for approval",
        text=f"{asks} wants to run a statement in {request.database}",
        data={
            "request": msgspec.to_builtins(request),
            "link": at,
            "unmapped": ours,
            "facts": facts(request),
            "severity": "High",
        },
    )


def facts(request: Request) -> dict[str, str]:
    """Say what a message shows, by its headings."""
    found, rows = request.estimate, "not known"
    if found.counted is not None:
        rows = f"{'more than ' if found.more else ''}{found.counted} counted"
    elif found.planned is not None:
        rows = f"about {found.planned} by the plan"
    until = datetime.fromtimestamp(request.expires_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M UTC")
    said = {
        "Statement": request.statement or "its literals could not be taken out",
        "Who": f"{request.principal or request.role} ({request.kind})",
        "For": request.on_behalf_of or "",
        "Intent": request.intent,
        "Where": f"{request.database} in {request.cluster}: {', '.join(request.relations)}",
        "Rows": f"{rows}; more than {request.rows} are undone",
        "Because of": ", ".join(request.policies),
        "Decide": f"{request.needed} of {' or '.join(request.groups)}, until {until}",
    }
    return {name: text[:FACT_CHARS_MAX] for name, text in said.items() if text}


def opening(data: Mapping[str, Any]) -> tuple[str, str]:
    """Return the link of an item and the command that shows it, for messages."""
    request = str(data["request"]["request"])
    return str(data.get("link") or ""), f"pgwitness approvals show {request}"
