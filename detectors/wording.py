"""The sentence an alert says to a person: a policy's message, filled in with the action.

Total: any template and any action give one printable line. What a client could have chosen is shortened, and cannot
put a line break or a control character into it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping

from msgspec import Struct

from detectors.actions import UNDONE, Action
from detectors.vocabulary import SCHEMA

PLACE = re.compile(r"\{([^{}]*)\}")
VALUE_MAX = 200
"""Characters of one value in a message; a list shows its first five items."""
FAR_US = 4_000_000_000_000_000
SEEN = ("seen.count", "seen.values", "seen.span")
OBJECTS = frozenset(
    {"schema", "database", "role", "owned_by", "extension", "publication", "subscription", "event_trigger"}
)
VERBS = re.compile(r"[a-z ,]+\|[a-z ,]+")
"""What was done and what one does: `dropped|drop`."""
NOUN = re.compile(r"[a-z]+( [a-z]+)*")


class Seen(Struct, frozen=True):
    """What a threshold or sequence found: how many, which different values, from when to when, and the evidence."""

    count: int
    first_us: int
    last_us: int
    event_ids: tuple[str, ...]
    values: tuple[str, ...] = ()


def known_place(name: str, *, correlates: bool = False) -> bool:
    """Return whether a message may name this; a number may bring its noun (`rows:row`)."""
    name, counted, noun = name.partition(":")
    if name == "done":
        return VERBS.fullmatch(noun) is not None
    if counted:
        number = name == "seen.count" or (name in SCHEMA and SCHEMA[name].type == "int")
        return number and NOUN.fullmatch(noun) is not None and known_place(name, correlates=correlates)
    if name in _PHRASES or name in SCHEMA or (correlates and name in SEEN):
        return True
    return name.rpartition(".")[0] in ("labels", "detail", "object.before", "object.after")


def who(action: Action) -> str:
    """Name the one who acted, as a sentence would; of a refused login, who claimed a name without proving it."""
    if action.operation == "login_failed" and not action.principal:
        return f"somebody at {place(action)} who claimed the name {claimed(action)}"
    kind = {"agent": "the AI agent ", "service": "the service "}.get(action.principal_kind, "")
    if action.principal:
        name = kind + action.principal
    else:
        name = f"somebody with the role {action.role}" if action.role else "somebody unknown"
    return f"{name} (for {action.on_behalf_of})" if action.on_behalf_of else name


def place(action: Action) -> str:
    """Return where a client is."""
    return show(action.client_addr) if action.client_addr else "an address that is not known"


def claimed(action: Action) -> str:
    """Write a name that somebody claimed so that it can be taken for nothing else."""
    return f"«{show(action.role).replace('«', '‹').replace('»', '›')}»"


def what(action: Action) -> object:
    """Name what was acted on: relations, else the object of a posture, else the database."""
    return action.relations or action.object_name or _named(action) or action.database


def _named(action: Action) -> list[str]:
    """Return the objects that a statement about no table names: `schema audit`, `database shop`."""
    named = [name for name in action.objects if name.partition(" ")[0] in OBJECTS]
    return [f"all that {name[9:]} owns" if name.startswith("owned_by ") else name for name in named]


def where(action: Action) -> str:
    """Name the database and its cluster, or the cluster where it is of no single database."""
    cluster = f"cluster {action.cluster or '?'}"
    return f"database {action.database} of {cluster}" if action.database else cluster


def done(action: Action, past: str, verb: str) -> str:
    """Return `past` of what was done; of what was not, that it was tried, and of what nobody knows, that it was
    asked."""
    if action.outcome in UNDONE:
        return f"tried to {verb}"
    if action.asked:
        return f"asked to {verb}"
    if action.kind in ("statement", "query_stats") and (action.outcome != "success" or _may_change_nothing(action)):
        return f"asked to {verb}"
    return past


def _may_change_nothing(action: Action) -> bool:
    """Return whether a statement succeeds also where there is nothing to do, and nothing proves that there was."""
    if action.effect:
        return False
    conditional = "attribute if_not_exists" in action.objects or "attribute if_exists" in action.objects
    return conditional or "change_owner" in action.operations


def read(action: Action) -> str:
    """Return the verb of a read: one that failed may have given rows before, or none."""
    return {"denied": "tried to read", "failure": "may have read"}.get(action.outcome, "read")


def unless_failed(action: Action) -> str:
    """Go on to say that a read failed; nothing where it is not known to have."""
    return "; the statement failed" if action.outcome == "failure" else ""


def whether(action: Action) -> str:
    """Go on to say what came of it; nothing where it was done."""
    if action.kind not in ("statement", "query_stats") or action.asked:
        return ""
    if action.outcome == "success":
        return "; whether that changed anything is not known" if _may_change_nothing(action) else ""
    return {
        "failure": "; it failed",
        "denied": f"; {_refused(action)}",
        "rolled_back": "; it was rolled back",
        "pending": "; its transaction is still open",
    }.get(action.outcome, "; whether it was done is not known")


def did(action: Action) -> str:
    """Return what was done to how many rows, with its verb, or what was tried."""
    rows, relations = rows_of(action, "row"), show(what(action))
    if action.outcome in UNDONE:
        rows = rows_of(action, "row") if action.rows else "rows"
    phrases = {
        "insert": f"{done(action, 'added', 'add')} {rows} to {relations}",
        "update": f"{done(action, 'updated', 'update')} {rows} of {relations}",
        "delete": f"{done(action, 'deleted', 'delete')} {rows} from {relations}",
        "truncate": f"{done(action, 'emptied', 'empty')} {relations}",
        "select": f"{read(action)} {rows} of {relations}",
    }
    return phrases.get(action.operation) or (
        f"{done(action, 'ran', 'run')} {show(action.operation)} on {relations} ({rows})"
    )


def share(action: Action) -> str:
    """Return how much of a relation went, of how many rows, and when these were counted."""
    verb = {"delete": "deleted", "update": "wrote over", "truncate": "emptied"}.get(action.operation, "changed")
    if action.operation == "delete" and action.share_replaced:
        verb = "replaced"
    if not action.share_known:
        return did(action)
    counted = time.strftime("%H:%M", time.gmtime(max(0, min(action.share_counted_at_us, FAR_US)) / 1_000_000))
    much = f"{action.share_rows:,} of about {number(action.share_of, 'row')} ({counted})"
    span = {"24h": " within a day", "30d": " within a month", "24h by all": " within a day, together with others"}
    return f"{verb} {much} of {show(what(action))}{span.get(action.share_window, '')}"


def rows_of(action: Action, noun: str) -> str:
    """Return how many rows, or that nobody counted them."""
    return number(action.rows, noun) if action.rows_known else f"an unknown number of {noun}s"


def result(action: Action) -> str:
    """Return whether it worked."""
    if action.asked:
        return "it has not run"
    return {
        "success": "it succeeded",
        "failure": "it failed",
        "denied": _refused(action),
        "rolled_back": "it was rolled back",
        "pending": "its transaction is still open",
    }.get(action.outcome, "whether it succeeded is not known")


def _refused(action: Action) -> str:
    decision = action.detail.get("decision")
    if isinstance(decision, Mapping) and decision.get("by") == "guard":
        return "the guard in the database refused it"
    by_gateway = isinstance(decision, Mapping) and decision.get("effect") != "staged"
    return f"the {'gateway' if by_gateway else 'server'} refused it"


def decided(action: Action) -> str:
    """Name the policies by which the gateway, or the guard, decided on a statement."""
    decision = action.detail.get("decision")
    policies = decision.get("policies") if isinstance(decision, Mapping) else None
    if not isinstance(policies, list) or not policies:
        return "a policy that is not known"
    return f"the {'policy' if len(policies) == 1 else 'policies'} {show(policies)}"


def statement(action: Action) -> str:
    """Return the statement, or what is known of one whose text is not; of posture how the object changed."""
    if action.kind == "posture":
        return f"{action.object_type} {show(action.object_name)} was {action.change or 'changed'}"
    names = [name.removeprefix("attribute ") for name in action.objects]
    return show(action.statement or (names and f"a statement about {show(names)}") or "its text is not known")


def setting(action: Action) -> str:
    """Return the setting that was changed, and to what."""
    if action.kind == "posture":
        return f"{show(action.object_name)} is now {show(action.after.get('value'))}"
    return show(action.settings)


def reason(action: Action) -> str:
    """Return what happened, of which the name is a word such as `slot_lost`."""
    return show(action.operation.replace("stats_", "statistics_").replace("_", " "))


def gained(action: Action) -> str:
    """Go on to say which powers an object gained, if that is known."""
    return f"; it gained {show(action.gained)}" if action.gained else ""


_PHRASES: dict[str, Callable[[Action], object]] = {
    "who": who,
    "what": what,
    "where": where,
    "did": did,
    "share": share,
    "result": result,
    "whether": whether,
    "read": read,
    "unless_failed": unless_failed,
    "claimed": claimed,
    "statement": statement,
    "setting": setting,
    "reason": reason,
    "gained": gained,
    "decided": decided,
}


def render(template: str, action: Action, seen: Seen | None = None) -> str:
    """Fill a message; a value that is not there reads `?`. A sentence that begins with our own words is capitalized."""

    def value(match: re.Match[str]) -> str:
        name, counted, noun = match[1].partition(":")
        if name == "done":
            return done(action, *noun.split("|", 1))
        if counted:
            if name == "seen.count":
                return f"? {noun}s" if seen is None else number(seen.count, noun)
            if name == "rows":
                return rows_of(action, noun)
            return number(getattr(action, SCHEMA[name].attribute), noun)
        if phrase := _PHRASES.get(name):
            said = phrase(action)
            return said if said == "" else show(said)
        if field := SCHEMA.get(name):
            return show(getattr(action, field.attribute))
        if name in SEEN:
            return "?" if seen is None else _seen(name, seen)
        group, _, key = name.partition(".")
        holder = SCHEMA.get(group) or SCHEMA.get(".".join(name.split(".")[:2]))
        inside = getattr(action, holder.attribute) if holder else None
        if not isinstance(inside, Mapping):
            return "?"
        found = inside.get(name.rsplit(".", 1)[-1] if holder else key)
        return "none" if found == [] else show(found)

    return capitalized(PLACE.sub(value, template), ours=not template.startswith("{"))


def capitalized(text: str, *, ours: bool = False) -> str:
    """Begin a sentence with a capital letter, but never change a name that stands there."""
    ours = ours or text.startswith(("the AI agent ", "the service ", "somebody "))
    return text[:1].upper() + text[1:] if ours else text


def number(value: int, noun: str) -> str:
    """Write a number with its noun: `1 row`, `2,000 rows`."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def show(value: object) -> str:
    """Write a value for a person: short, printable, on one line."""
    if value is None or value in ("", [], {}, ()):
        return "?"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        listed = ", ".join(show(item) for item in value[:5])
        return f"{listed} and {len(value) - 5} more" if len(value) > 5 else listed
    text = value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
    text = "".join(c if c.isprintable() else " " for c in text[:VALUE_MAX])
    return text + "…" if len(text) == VALUE_MAX else text


def span(duration_us: int) -> str:
    """Write how long something took in the unit that fits."""
    seconds = max(0, duration_us) / 1_000_000
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return number(round(seconds), "second")


def _seen(name: str, seen: Seen) -> str:
    if name == "seen.count":
        return show(seen.count)
    return show(seen.values) if name == "seen.values" else span(seen.last_us - seen.first_us)
