"""What a guard is to do in one database: the policies it can hold somebody to, and for whom they can matter; pure.

`detectors.gatekeeper` decides the same at the gateway. There it has the text of a statement; here there is what the
statement does, whatever its text: operations and relations of triggers and event triggers, and who the session is by
its login role alone, for an application's name is what a client says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal

from msgspec import Struct

from collectors.guard.expressions import UNKNOWN, Facts, Sql, Value, compiled
from collectors.guard.names import OPERATIONS
from detectors.actions import Action
from detectors.policy.occurring import TAGS
from detectors.policy.policies import Bundle
from detectors.policy.policy import Policy
from detectors.policy.syntax import Node
from detectors.vocabulary import SCHEMA as LANGUAGE

EFFECTS: Final = ("deny", "approve", "limit", "warn")
_SEVERITIES: Final = ("critical", "high", "medium", "low", "info")
_WORDS: Final = {
    "SELECT INTO": "create_table_as",
    "REFRESH MATERIALIZED VIEW": "refresh_mat_view",
    "SECURITY LABEL": "sec_label",
    "CREATE FOREIGN DATA WRAPPER": "create_fdw",
    "ALTER FOREIGN DATA WRAPPER": "alter_fdw",
    "DROP FOREIGN DATA WRAPPER": "drop_fdw",
    "CREATE SERVER": "create_foreign_server",
    "ALTER SERVER": "alter_foreign_server",
    "DROP SERVER": "drop_foreign_server",
}
"""Command tags whose word is not the tag in lower case."""


def word(tag: str) -> str:
    """Return the word that policies have for what a command tag says."""
    return _WORDS.get(tag, tag.lower().replace(" ", "_"))


DDL_WORDS: Final = frozenset({word(tag) for tag in TAGS} | {"drop_column", "import_foreign_schema"})
SEEN: Final = frozenset({*OPERATIONS, *DDL_WORDS})
"""Every operation that a trigger or an event trigger sees."""

_SEEN_BY_WHAT_THEY_DO: Final = frozenset({"call", "copy_from", "do", "do_unreadable", "execute", "merge"})

_UNSEEN: Final = frozenset({
    "columns", "sensitive", "statement.text", "statement.where", "statement.functions", "statement.settings",
    "statement.objects", "statement.defines", "statement.whole", "statement.returning", "statement.labels",
    "statement.fingerprint", "read_before", "instance", "binding", "assurance", "auth_method", "session",
    "claim.verified", "claim.age", "claim.left", "claim.fields", "clock", "during",
})  # fmt: skip
"""Names of which a trigger knows nothing, and the gateway, or evidence, does."""

RUN_TIME: Final[Facts] = {
    "operation": Sql("the_operations[1]"),
    "statement.operations": Sql("the_operations"),
    "relations": Sql("the_relations"),
    "statement.written": Sql("the_written"),
    "principal.name": Sql("the_principal"),
    "principal.kind": Sql("the_kind"),
    "principal.on_behalf_of": Sql("the_person"),
    "principal.peer_group": Sql("the_group"),
    "role": Sql("the_role"),
    "effective_role": Sql("the_effective_role"),
    "application": Sql("current_setting('application_name')"),
    "client_addr": Sql("coalesce(host(inet_client_addr()), '')"),
    "database": Sql("current_database()::text"),
    "intent": Sql("coalesce(current_setting('pgwitness.intent', true), '')"),
    "hour": Sql("extract(hour FROM now() AT TIME ZONE 'UTC')::int"),
    "weekday": Sql("(extract(isodow FROM now() AT TIME ZONE 'UTC')::int - 1)"),
    "statement.utility": Sql("the_utility"),
}
"""Names of the language as the guard's function has them."""


class Login(Struct, frozen=True):
    """A role and who logs in as it, by `identities.yaml`; None is what the role alone does not tell."""

    role: str
    principal: str | None = ""
    kind: str | None = "unknown"
    on_behalf_of: str | None = ""
    peer_group: str | None = ""


class Config(Struct, frozen=True, kw_only=True):
    """How a guard is to be: `[guard]`, and what it knows of the cluster."""

    cluster: str
    labels: Mapping[str, str] = {}
    on_unknown: Literal["pass", "refuse"] = "pass"
    on_error: Literal["pass", "refuse"] = "refuse"


class Uncovered(Struct, frozen=True):
    """What the guard cannot hold anybody to, of one policy, and why."""

    policy: str
    why: str


class Wanted:
    """What the policies of a bundle ask of a guard."""

    def __init__(self, bundle: Bundle, logins: Iterable[Login], config: Config) -> None:
        self.config = config
        self.bundle = bundle.sha256
        self.logins = sorted(logins, key=lambda login: login.role)
        self.fixed = _fixed(config)
        deciding = [policy for policy in bundle.policies.values() if concerns(policy)]
        self.uncovered = [found for policy in deciding for found in self._uncovered(policy)]
        unable = {found.policy for found in self.uncovered if found.why.startswith(_NOTHING)}
        self.policies = sorted((policy for policy in deciding if policy.id not in unable), key=gravest)
        """Those that it can hold somebody to, the gravest first."""

    def condition(self, policy: Policy) -> Value:
        """Return the policy's condition with the names that the guard's function has."""
        return compiled(_tree(policy), {**self.fixed, **RUN_TIME})

    @property
    def counts(self) -> bool:
        """Whether rows have to be counted: a policy limits them, or an approval may."""
        return any(policy.document.effect in ("limit", "approve") for policy in self.policies)

    def operations(self) -> list[str]:
        """List the operations on tables that some policy may have something against, whoever does them."""
        return [one for one in OPERATIONS if any(self._may(policy, [one], None) for policy in self.policies)]

    def exempt(self, *operations: str) -> list[str]:
        """List the roles against whose doing any of these no policy can have anything."""
        free: dict[Login, bool] = {}
        found = []
        for login in self.logins:
            one = Login("", login.principal, login.kind, login.on_behalf_of, login.peer_group)
            key = login if self._asks_role() else one
            if key not in free:
                free[key] = not any(self._may(policy, operations, login) for policy in self.policies)
            if free[key]:
                found.append(login.role)
        return found

    def _asks_role(self) -> bool:
        return any(policy.paths & {"role", "effective_role"} for policy in self.policies)

    def _may(self, policy: Policy, operations: Iterable[str], login: Login | None) -> bool:
        """Say whether a policy may hold of one of these operations, by somebody; unknown counts if it refuses."""
        facts = {**self.fixed, **RUN_TIME, **(_of(login) if login is not None else {})}
        if login is not None and compiled(_tree(policy), facts) is False:
            return False
        return any(self._holds(policy, facts | _does(one)) for one in operations)

    def _holds(self, policy: Policy, facts: Facts) -> bool:
        found = compiled(_tree(policy), facts)
        return isinstance(found, Sql) or found is True or (found is UNKNOWN and self.config.on_unknown == "refuse")

    def _uncovered(self, policy: Policy) -> Iterator[Uncovered]:
        facts = {**self.fixed, **RUN_TIME}
        asked = sorted(policy.paths & _UNSEEN)
        if not any(self._holds(policy, facts | _does(one)) for one in sorted(SEEN)):
            hangs = f"it hangs on {', '.join(asked)}" if asked else f"it is about {_about(policy)}"
            yield Uncovered(policy.id, f"{_NOTHING}: {hangs}, which no trigger sees")
            return
        words = sorted(_words(_tree(policy)) - SEEN - _SEEN_BY_WHAT_THEY_DO)
        if words:
            yield Uncovered(policy.id, f"in part: no trigger sees {', '.join(words)}")
        if asked:
            yield Uncovered(policy.id, f"in part: it also asks for {', '.join(asked)}, which no trigger sees")


_NOTHING: Final = "not at all"


def concerns(policy: Policy) -> bool:
    """Return whether a policy decides on statements before they run, or would if it were not staged.

    One with `effect: approve` that does not say who approves holds nothing up, here as at the gateway.
    """
    document = policy.document
    waits = document.effect != "approve" or document.approve is not None
    return document.effect in EFFECTS and waits and policy.plan is None and "statement" in document.kinds


def gravest(policy: Policy) -> tuple[int, str]:
    """Return what policies are ordered by, the gravest first."""
    return _SEVERITIES.index(policy.document.severity), policy.id


def _tree(policy: Policy) -> Node:
    return policy.conditions[0].tree


def _fixed(config: Config) -> dict[str, Value]:
    """Return what is the same for every action here: what the gateway does not know of one before it ran, either."""
    empty = Action(kind="statement", operation="", calls=1, rows_known=False, asked=True)
    found: dict[str, Value] = {}
    for name, field in LANGUAGE.items():
        value = getattr(empty, field.attribute)
        found[name] = UNKNOWN if name in _UNSEEN else tuple(value) if isinstance(value, list) else value
    return found | {"cluster": config.cluster, "labels": dict(config.labels)}


def _of(login: Login) -> dict[str, Value]:
    named = {
        "principal.name": login.principal,
        "principal.kind": login.kind,
        "principal.on_behalf_of": login.on_behalf_of,
        "principal.peer_group": login.peer_group,
    }
    return {"role": login.role, **{name: UNKNOWN if value is None else value for name, value in named.items()}}


def _does(operation: str) -> dict[str, Value]:
    return {
        "operation": operation,
        "statement.operations": (operation,),
        "statement.utility": operation not in ("insert", "update", "delete"),
    }


def _words(node: Node) -> set[str]:
    """Collect the operations that a condition names."""
    from detectors.policy.occurring import statement_words

    found = {node.value} if node.kind == "literal" and isinstance(node.value, str) else set()
    found &= statement_words()
    for arg in node.args:
        found |= _words(arg)
    return found


def _about(policy: Policy) -> str:
    words = sorted(_words(_tree(policy)))
    return ", ".join(words[:5]) if words else "what is no write and no change of a table's definition"
