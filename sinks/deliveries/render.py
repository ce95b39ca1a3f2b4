"""How a delivery is written: webhook, Slack, Teams, syslog (RFC 5424) and JSON lines. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from sinks.deliveries import requests
from sinks.deliveries.routing import Item, iso, part

_json = msgspec.json.Encoder().encode

FACILITY = 13
"""Log audit (RFC 5424, table 1)."""
_SYSLOG_SEVERITY = {0: 6, 1: 6, 2: 5, 3: 4, 4: 3, 5: 2, 6: 1}
_COLOURS = {1: "#8a8a8a", 2: "#3f88c5", 3: "#e0a100", 4: "#d1495b", 5: "#9b0000"}
SLACK_TEXT_MAX = 2_800
TEAMS_BYTES_MAX, TEAMS_CUT = 28 * 1024, 400
"""What a message of Teams may have, and to how many characters each of a dozen texts is cut to fit."""
UDP_BYTES_MAX = 2_000
"""What RFC 5426 lets one hope a datagram carries; a longer message is cut."""
_ENTERPRISE = 32473
"""The enterprise number kept for documentation (RFC 5612): pgwitness has none of its own."""


def body(item: Item) -> bytes:
    """Write the generic webhook's body: type, timestamp and data, as Standard Webhooks names them."""
    return _json({"type": item.type, "id": item.uid, "timestamp": iso(item.time_ms), "data": item.data})


def slack(item: Item) -> bytes:
    """Write a message for a Slack-compatible incoming webhook; what a client chose is plain text, never markup."""
    if item.type == requests.TYPE:
        return _slack_approval(item)
    lines = [f"{name}: {value}" for name, value in _facts(item).items()]
    if item.type == "summary":
        lines = [f"• {each['text']}" for each in item.data["worst"]]
    blocks = [_block(f"{item.title}\n{item.text}"), *([_block("\n".join(lines))] if lines else [])]
    blocks.append({"type": "context", "elements": [_plain(f"pgwitness {item.uid}")]})
    fallback = f"{item.title}: {item.text}".replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    colour = _COLOURS.get(item.severity_id, "#8a8a8a")
    return _json({"text": fallback[:SLACK_TEXT_MAX], "attachments": [{"color": colour, "blocks": blocks}]})


def _slack_approval(item: Item) -> bytes:
    """Write a request for approval: what its asker chose is plain text; the notification has none of it."""
    at, command = requests.opening(item.data)
    facts = item.data["facts"]
    blocks: list[dict[str, Any]] = [{"type": "header", "text": _plain(item.title)}]
    blocks += [_block(f"{name}: {text}") for name, text in facts.items()]
    if at:
        opens = {"type": "button", "text": _plain("Look at it"), "url": at, "action_id": "open"}
        blocks.append({"type": "actions", "elements": [opens]})
    blocks.append({"type": "context", "elements": [_plain(command)]})
    return _json({"text": f"{item.title} ({item.uid})", "blocks": blocks, "unfurl_links": False})


def teams(item: Item) -> bytes:
    """Write an Adaptive Card (1.4) as a workflow of Teams takes it; texts are runs, which know no markup.

    Where it would be longer than Teams takes, each of its texts is cut.
    """
    whole = _teams(item, SLACK_TEXT_MAX)
    return whole if len(whole) <= TEAMS_BYTES_MAX else _teams(item, TEAMS_CUT)


def _teams(item: Item, text_max: int) -> bytes:
    facts = item.data["facts"] if item.type == requests.TYPE else _facts(item)
    if item.type == "summary":
        facts = {str(place): each["text"] for place, each in enumerate(item.data["worst"], 1)}
    body = [_run(item.title[:text_max], size="Large", weight="Bolder"), _run(item.text[:text_max])]
    body += [_run(f"{name}: {text}"[:text_max]) for name, text in facts.items()]
    body.append(_run(f"pgwitness {item.uid}", size="Small", isSubtle=True))
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
    }
    at = requests.opening(item.data)[0] if item.type == requests.TYPE else ""
    if at:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Look at it", "url": at}]
    kind = "application/vnd.microsoft.card.adaptive"
    return _json({"type": "message", "attachments": [{"contentType": kind, "contentUrl": None, "content": card}]})


def _run(text: str, **more: object) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": _shown(text), **more}]}


def _facts(item: Item) -> dict[str, str]:
    ours = part(item.data, "unmapped")
    facts = {
        "Cluster": ours.get("cluster"),
        "Policy": ours.get("policy") or ours.get("detector"),
        "State": item.data.get("activity_name"),
        "Count": item.data.get("count"),
        "Runbook": ours.get("runbook"),
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _block(text: str) -> dict[str, Any]:
    return {"type": "section", "text": _plain(text)}


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": _shown(text), "emoji": False}


def _shown(text: str) -> str:
    return plain(text[:SLACK_TEXT_MAX])


def plain(text: str) -> str:
    """Leave nothing in a text that is no printable character and no end of a line."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def syslog(item: Item, hostname: str, form: str, bytes_max: int | None = None) -> bytes:
    """Write an RFC 5424 message: what is asked for most as structured data, the alert as JSON or its sentence."""
    ours = part(item.data, "unmapped")
    pri = FACILITY * 8 + _SYSLOG_SEVERITY.get(item.severity_id, 5)
    pairs = {
        "uid": item.uid,
        "severity": item.data.get("severity"),
        "policy": ours.get("policy") or ours.get("detector"),
        "principal": ours.get("principal"),
        "cluster": ours.get("cluster"),
        "count": item.data.get("count"),
        "activity": item.data.get("activity_name"),
    }
    data = "".join(f' {key}="{_param(value)}"' for key, value in pairs.items() if value is not None)
    host = _ascii(hostname)[:255] or "-"
    head = f"<{pri}>1 {iso(item.time_ms)} {host} pgwitness - {item.type} [alert@{_ENTERPRISE}{data}] "
    sentence = "".join(c if c.isprintable() else " " for c in f"{item.title}: {item.text}")
    message = _json(item.data) if form == "json" else sentence.encode("utf-8", "replace")
    whole = head.encode("utf-8", "replace") + b"\xef\xbb\xbf" + message
    if bytes_max is None or len(whole) <= bytes_max:
        return whole
    # JSON that is cut is no JSON: the sentence stands for it, whole letters only.
    whole = head.encode("utf-8", "replace") + b"\xef\xbb\xbf" + sentence.encode("utf-8", "replace")
    return whole[:bytes_max].decode("utf-8", "ignore").encode()


def framed(message: bytes) -> bytes:
    """Frame a message for a stream by octet counting (RFC 6587, 3.4.1; RFC 5425)."""
    return b"%d %s" % (len(message), message)


def line(item: Item) -> bytes:
    """Write one line of a file: the alert as it stands on the topic, or a summary in the webhook's form."""
    return (_json(item.data) if item.type == "alert" else body(item)) + b"\n"


def _param(value: object) -> str:
    """Escape a parameter's value (RFC 5424, 6.3.3)."""
    text = "".join(c if c.isprintable() else " " for c in str(value))[:200]
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def _ascii(text: str) -> str:
    return "".join(c for c in text if "!" <= c <= "~")
