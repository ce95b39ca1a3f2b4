"""The request for a statement that has to be approved, of what the gateway knows of it and its session; pure."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

from collectors.gateway.session.actions import Asked
from collectors.gateway.spool.records import Opened
from detectors.actions import Action
from pgwitness.approvals.records import Request
from pgwitness.core.privacy import Tokenizer

READ_BY: Final = (
    *("client_encoding", "standard_conforming_strings", "DateStyle", "TimeZone", "IntervalStyle"),
    "search_path",  # of functions and operators, too; servers report it from PostgreSQL 18 on
)
"""Settings by which the server reads a text: under others the same bytes are another statement."""
NAMES_MAX: Final = 100
INTENT_CHARS_MAX: Final = 2_000
APPLICATION_CHARS_MAX: Final = 200


def request_of(
    asked: Asked, whose: Action, opened: Opened, settings: Mapping[str, str], token: Tokenizer, now_us: int
) -> Request:
    """Make the request; `whose` has the facts of the session that policies see."""
    verdict, reading = asked.decision.verdict, asked.decision.reading
    assert verdict is not None
    assert verdict.terms is not None
    terms, said = verdict.terms, asked.decision.said
    known = reading.known if reading is not None else None
    parsed = said.parsed
    read_by = "\0".join(settings.get(name, "") for name in READ_BY).encode()
    return Request(
        request=secrets.token_hex(6),
        at_us=now_us,
        cluster=opened.cluster,
        instance=opened.instance,
        database=opened.database,
        role=opened.role,
        digest=token(b"approval\0" + read_by + b"\0" + asked.exact).decode(),
        rows=verdict.rows or 0,
        groups=list(terms.groups),
        needed=terms.needed,
        expires_us=now_us + terms.wait_us,
        use_us=terms.use_us,
        principal=whose.principal or None,
        kind=whose.principal_kind,
        on_behalf_of=whose.on_behalf_of or None,
        client_addr=opened.client_addr,
        application=whose.application[:APPLICATION_CHARS_MAX],
        session=f"{opened.instance}/{opened.pid}/{opened.backend_start_us}",
        held=whose.principal_kind == "human",
        intent=(said.tags.get("intent") or whose.intent)[:INTENT_CHARS_MAX],
        statement=said.statement,
        fingerprint=known.fingerprint if known is not None else None,
        operations=list(parsed.operations if parsed is not None else known.operations if known is not None else ()),
        relations=list(known.relations[:NAMES_MAX] if known is not None else ()),
        columns=list(known.columns[:NAMES_MAX] if known is not None else ()),
        where=known.where if known is not None else "",
        policies=list(verdict.policies),
        message=verdict.message,
        why=verdict.why,
        bundle=verdict.bundle,
    )
