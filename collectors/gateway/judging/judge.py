"""What a statement is judged by: its text as the server will read it, freed of its literals, and the policies.

A text is read once, whoever sends it (`Judging`). What is decided on it holds for all sessions of which the policies
see the same facts (`_Scope`), until the policies, the identities or the minute change: a statement that is known costs
one look-up. Texts that differ in literals only are decided on once too, where no literal matters: where one does
(a DO block, a setting, `LIKE`), `collectors.log.interpretation.texts` says so by what it keeps of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from collectors.gateway.judging.catalogue import EMPTY, Catalogue, last_of
from collectors.gateway.judging.learned import Learned
from collectors.gateway.judging.rates import Rates
from collectors.gateway.judging.relations import followed, running
from collectors.gateway.masking.answering import masked
from collectors.gateway.masking.audiences import Place
from collectors.gateway.masking.silent import refusal
from collectors.gateway.masking.views import Views
from collectors.gateway.session.actions import Decision, Reading
from collectors.gateway.session.short import Ground, said
from collectors.gateway.spool.records import Opened, Said
from collectors.gateway.wire import lexing
from collectors.gateway.wire.lexing import Settings, Surety
from collectors.gateway.wire.native import native
from collectors.log.interpretation.texts import Texts
from detectors.actions import Action
from detectors.gatekeeper import Gatekeeper, Verdict
from detectors.policy.policies import Bundle
from detectors.sensitive import Sensitive
from pgwitness.core.events import Assurance, Parsed, PrincipalKind
from pgwitness.core.privacy import Tokenizer
from pgwitness.core.sql.intent import given
from pgwitness.core.sql.lessons import Lesson, teaches
from pgwitness.core.sql.statements import CUT, HANDLES_MAX, NAMES_MAX, StatementFacts, facts
from pgwitness.core.sql.tree.calls import TOGETHER, runs_text
from pgwitness.core.sql.tree.facts import Handle, Made

KNOWN_MAX: Final = 16_384
KNOWN_BYTES_MAX: Final = 2_048
"""Decisions that are remembered of all texts in all scopes, and how long such a text may be."""
SCOPES_MAX: Final = 10_000
TEXT_BYTES_MAX: Final = 1024 * 1024
"""A longer text is kept as its hash: to free it of its literals would hold up every other session."""
MINUTE_US: Final = 60_000_000
FOREVER_US: Final = 1 << 62
UNPARSED: Final = StatementFacts(None, "")
LARGE_OBJECTS: Final = {
    715: "lo_create", 764: "lo_import", 765: "lo_export", 767: "lo_import", 952: "lo_open", 953: "lo_close",
    954: "loread", 955: "lowrite", 956: "lo_lseek", 957: "lo_creat", 958: "lo_tell", 964: "lo_unlink",
    1004: "lo_truncate", 3170: "lo_lseek64", 3171: "lo_tell64", 3172: "lo_truncate64",
}  # fmt: skip
"""What libpq's functions for large objects call by their number (`pg_proc.dat`); these never change."""

_TWO_WAYS: Final = "What the server may read otherwise than it was judged is refused for everybody."
_ONE_WAY: Final = (
    "Set client_encoding to UTF8 and standard_conforming_strings to on; wait for the answer to what is before it."
)

_STATISTICS: Final = frozenset(
    {"pg_stats", "pg_statistic", "pg_stats_ext", "pg_stats_ext_exprs", "pg_statistic_ext_data"}
)
"""Relations of the system in which values of others stand: the most common of each column, and bounds."""

Doubtful = Literal["refuse", "pass"]


class Person(Struct, frozen=True):
    """Who a session is, by `identities.yaml`."""

    principal: str | None = None
    kind: PrincipalKind = "unknown"
    on_behalf_of: str | None = None
    peer_group: str | None = None
    assurance: Assurance = "none"
    agent: bytes = b""
    """What a verified token says of an agent, as `detail.agent` has it, in JSON."""


NOBODY: Final = Person()
Namer = Callable[[Opened, str], Person]
"""Names a session by its facts and by the name that its application gives itself now."""


class Rules(NamedTuple):
    """What is decided by: policies, identities, labels of clusters, and what becomes of what nobody can read."""

    gatekeeper: Gatekeeper
    name: Namer = lambda _opened, _application: NOBODY
    labels: Mapping[str, Mapping[str, str]] = {}
    catalogues: Mapping[tuple[str, str], Catalogue] = {}
    """By cluster and database."""
    unparsable: Mapping[str, Mapping[str, Doubtful]] = {}
    """By database as the gateway names it, and by kind of principal."""


REFUSED_KINDS: Final = frozenset({"agent", "unknown"})
"""Whose statements are refused where they cannot be read, unless the configuration says otherwise."""


class _Said(NamedTuple):
    """What a session says that it is for, and which labels what it has read carries."""

    intent: str = ""
    read: frozenset[str] = frozenset()


class _Scope:
    """Sessions of which the policies see the same facts, and what was decided for them."""

    def __init__(
        self, whose: Action, settings: Settings, refuses: bool, until_us: int, views: Views | None = None
    ) -> None:
        self.whose, self.settings, self.refuses, self.until_us = whose, settings, refuses, until_us
        self.views = views
        """What an audience of masks reads in place of tables; None for everybody else."""
        self.known: dict[bytes | tuple[Surety, bytes], Decision] = {}
        """By text; of one that is read as settings are that may have changed, with how far they hold."""
        self.alike: dict[str, Decision] = {}
        """By the text without literals, where no literal matters."""
        self.shapes: dict[bytes, tuple[Decision, bytes]] = {}
        """By the shape of a text, where no literal matters and nothing is against it (`Judging._admit`)."""
        self.before: dict[bytes | tuple[Surety, bytes], Decision] = {}
        """What was known before there was no room: what is asked for again is known again."""

    def age(self) -> None:
        """Keep what was decided since this was called last, and of what was before only what is asked for again."""
        self.before = dict(self.known)
        self.known.clear()  # sessions hold on to it
        self.alike.clear()
        self.shapes.clear()


class Judging:
    """Judges statements of all sessions."""

    def __init__(self, token: Tokenizer, rules: Rules | None = None) -> None:
        self.token = token
        self._texts = Texts(token)
        self.rules = rules or Rules(Gatekeeper(Bundle([]), Sensitive([])))
        self.epoch = 0
        """Counts the rules: what was decided under others does not hold."""
        self.ahead: Mapping[tuple[bytes, Settings], Reading] = {}
        """What is about to be judged and was read already (`collectors.gateway.judging.ahead`)."""
        self.views: Mapping[Place, Views] = {}
        """What audiences of masks read, by place; whoever changes it adopts the rules anew."""
        self.rates = Rates()
        self._scopes: dict[tuple[object, ...], _Scope] = {}
        self._remembered = 0
        self._learned: dict[tuple[str, str], Learned] = {}
        self._catalogues: dict[tuple[str, str], Catalogue] = {}
        """What is known of databases, what was learned among it; worked out when it is asked for."""
        self.told: Callable[[str, str, Lesson], None] | None = None
        compiled = native()
        self._shape = None if compiled is None else compiled.shape

    def adopt(self, rules: Rules) -> None:
        """Go on by other rules, in every session, from the next statement on."""
        self.rules = rules
        self.epoch += 1
        self._catalogues.clear()
        self._scopes.clear()
        self._remembered = 0

    def catalogue(self, cluster: str, database: str) -> Catalogue:
        """Return what is known of a database, what its sessions have made among it."""
        key = (cluster, database)
        known = self._catalogues.get(key)
        if known is None:
            known = self.rules.catalogues.get(key, EMPTY)
            learned = self._learned.get(key)
            self._catalogues[key] = known = known if learned is None else learned.onto(known)
        return known

    def learn(self, cluster: str, database: str, lesson: Lesson, *, own: bool = True) -> None:
        """Take up what a session makes, of this process or another; whether that succeeds is not waited for.

        `told` hears of what was made in this process.
        """
        if self._learned.setdefault((cluster, database), Learned()).take(lesson):
            if own and self.told is not None:
                self.told(cluster, database, lesson)
            self.adopt(self.rules)

    def forget_learned(self) -> None:
        """Know nothing any more of what sessions have made."""
        self._learned.clear()
        self.adopt(self.rules)

    def session(self, opened: Opened, named: str = "", intent: str = "") -> SessionJudge:
        """Return the judge of one session; `named` is what the gateway calls its database."""
        return SessionJudge(self, opened, named, intent)

    def scope(
        self, opened: Opened, named: str, application: str, settings: Settings, said: _Said, at_us: int
    ) -> _Scope:
        """Return where the decisions for a session hold at a time."""
        rules = self.rules
        person = rules.name(opened, application)
        until_us = (at_us // MINUTE_US + 1) * MINUTE_US if rules.gatekeeper.timed else FOREVER_US
        intent = said.intent if rules.gatekeeper.intent else ""
        read = said.read if rules.gatekeeper.taint else frozenset[str]()
        key = (
            intent, read, person, opened.cluster, opened.instance, opened.database, named, opened.role, application,
            opened.client_addr, opened.auth_method, settings, until_us,
        )  # fmt: skip
        found = self._scopes.get(key)
        if found is None:
            if len(self._scopes) >= SCOPES_MAX:
                self._begin_anew()
            refuses = rules.unparsable.get(named, {}).get(
                person.kind, "refuse" if person.kind in REFUSED_KINDS else "pass"
            )
            labels = rules.labels.get(opened.cluster, {})
            whose = _whose(person, opened, application, labels)
            whose.intent, whose.read_before = intent, sorted(read)
            views = self.views.get(Place(opened.cluster, opened.database, opened.role)) if self.views else None
            found = self._scopes[key] = _Scope(whose, settings, refuses == "refuse", until_us, views)
        return found

    def _begin_anew(self) -> None:
        """Forget all scopes; sessions enter theirs anew."""
        self.epoch += 1
        self._scopes.clear()
        self._remembered = 0

    def _make_room(self) -> None:
        """Keep of what was decided what is asked for again."""
        for scope in self._scopes.values():
            scope.age()
        self._remembered = 0

    def decide(self, scope: _Scope, text: bytes, at_us: int, surety: Surety = "sure") -> Decision:
        """Decide on a text that is not known in a scope, and remember it."""
        key = text if surety == "sure" else (surety, text)
        if (before := scope.before.get(key)) is not None:
            self._remember(scope, key, before)
            self._admit(scope, text, before)
            return before
        settings = scope.settings._replace(surety=surety)
        reading = (self.ahead and self.ahead.get((text, settings))) or self.read(text, settings)
        said = reading.said
        alike = None
        if (
            said.statement is not None
            and said.parsed is None
            and not said.tags
            and not reading.known.utility
            and reading.doubt is None
            and reading.intent is None
            and not said.statement.endswith(CUT)
        ):
            alike = said.statement
        decision = scope.alike.get(alike) if alike is not None else None
        if decision is None:
            decision = self.judge(scope, reading, at_us)
        found = decision
        if scope.views is not None and reading.doubt is None:
            decision = self._masked(decision, reading.forward or text, settings, scope.views)
            if decision.forward is None:
                decision = decision._replace(forward=reading.forward)
        elif decision.forward != reading.forward:
            decision = decision._replace(forward=reading.forward)
        if len(text) <= KNOWN_BYTES_MAX:
            self._remember(scope, key, decision)
            if alike is not None:
                scope.alike[alike] = found
            self._admit(scope, text, decision)
        return decision

    def _masked(self, decision: Decision, text: bytes, settings: Settings, views: Views) -> Decision:
        """Let an audience's statement read its views; refuse one that they would answer wrongly, and not say so."""
        found, forward = masked(text, settings, views)
        decision = decision._replace(forward=forward, masked=found)
        if found is not None and found.silent is not None and not decision.denied:
            decision = decision._replace(verdict=refusal(found.silent, views, self.rules.gatekeeper.sha256))
        return decision

    def _admit(self, scope: _Scope, text: bytes, decision: Decision) -> None:
        """Let the short lane decide on texts of the same shape, where all of them are the same statement."""
        shape = self._shape(text) if self._shape is not None and decision.plain else None
        if shape is None:
            return
        if b"\0" in shape and (scope.views is not None or not self._texts.knows(shape.decode())):
            return
        scope.shapes[shape] = (decision, said(decision))

    def by_shape(self, scope: _Scope, text: bytes) -> Decision | None:
        """Return what was decided on texts of the same shape in a scope."""
        shape = self._shape(text) if self._shape is not None else None
        known = scope.shapes.get(shape) if shape is not None else None
        return None if known is None else known[0]

    def _remember(self, scope: _Scope, key: bytes | tuple[Surety, bytes], decision: Decision) -> None:
        if self._remembered >= KNOWN_MAX // 2:
            self._make_room()
        self._remembered += 1
        scope.known[key] = decision

    def judge(self, scope: _Scope, reading: Reading, at_us: int) -> Decision:
        """Decide on a statement that was read."""
        catalogue = self.catalogue(scope.whose.cluster, scope.whose.database)
        learned = self._learned.get((scope.whose.cluster, scope.whose.database))
        made = learned.functions.keys() if learned is not None else frozenset[Made]()
        verdict, marks = verdict_on(self.rules.gatekeeper, scope.whose, reading, scope.refuses, at_us, catalogue, made)
        return Decision(reading.said, verdict, reading.known.handles, reading, scope, marks)

    def read(self, text: bytes, settings: Settings) -> Reading:
        """Read a text as the server does, or what is to be sent in its place where that could be read otherwise."""
        doubt, two_ways = f"it is longer than {TEXT_BYTES_MAX >> 20} MiB", False
        if len(text) <= TEXT_BYTES_MAX:
            lexed = lexing.read(text, settings)
            if lexed.doubt is None:
                return reading_of(self._texts, lexed.text)._replace(forward=lexed.forward)
            doubt, two_ways = lexed.doubt, True
        elif not lexing.neutral(text):
            two_ways = not (settings.surety == "sure" and settings.standard_strings)
        return Reading(Said(hash=self.token(text).decode()), UNPARSED, doubt, None, two_ways)


def verdict_on(
    gatekeeper: Gatekeeper,
    whose: Action,
    reading: Reading,
    refuses: bool,
    at_us: int,
    catalogue: Catalogue = EMPTY,
    made: Set[Made] = frozenset(),
) -> tuple[Verdict | None, frozenset[str] | None]:
    """Return what is decided on a statement that was read, and how it marks its session (`Decision.marks`).

    `made` are functions that sessions have made: one of them that puts its text together is not known.
    """
    marks = frozenset[str]() if reading.intent is not None or teaches(reading.known) else None
    if not len(gatekeeper):
        return None, marks
    known, ran, whole = followed(reading.known, catalogue)
    if reading.doubt is None and (doubt := _doubt(reading.known, ran, made, whole, catalogue)) is not None:
        reading = reading._replace(doubt=doubt)
    if reading.doubt is None and gatekeeper.labelled and not _STATISTICS.isdisjoint(map(last_of, known.relations)):
        reading = reading._replace(doubt="it reads statistics of the planner, which hold values of any column")
    action = gatekeeper.action(whose, known, at_us)
    if (intent := reading.said.tags.get("intent")) is not None:
        action.intent = intent
    verdict = gatekeeper.ask(action)
    if reading.doubt is not None and (verdict is None or verdict.effect != "deny"):
        if reading.two_ways:
            verdict = replace(gatekeeper.unreadable(whose, reading.doubt), why=_TWO_WAYS, hint=_ONE_WAY)
        elif refuses:
            verdict = gatekeeper.unreadable(whose, reading.doubt)
    return verdict, frozenset(action.reads) if action.reads else marks


def _doubt(
    known: StatementFacts, ran: Sequence[Made], made: Set[Made], whole: bool, catalogue: Catalogue
) -> str | None:
    """Return why it is not known what the functions do that a statement runs, `ran`; None where it is."""
    if any(
        body.given or ("execute_dynamic" in body.operations and (body in made or body in known.made)) for body in ran
    ):
        return TOGETHER
    if not whole:
        return "it runs more functions than are followed"
    called = (*known.functions, *(name for body in (*known.attached, *ran) for name in body.functions))
    return "it calls a function that is not known, for too many were made" if catalogue.unknown(called) else None


def reading_of(texts: Texts, text: str) -> Reading:
    """Read a text: free it of its literals, and find out what it does."""
    found = texts.read(text)
    said = Said(found.statement, found.hash, found.parsed, dict(found.tags))
    intent = given(text)
    if found.statement is not None and found.parsed is None and not found.statement.endswith(CUT):
        known = facts(found.statement, freed=True, wary=True)
        # What evidence says of a utility statement may be the same with other literals, and what it does not.
        if not known.utility and not runs_text(known.functions):
            return Reading(said, known, _more(known), intent)
    known = facts(text, wary=True)
    return Reading(said, known, known.parse_error or _dynamic(known) or _more(known), intent)


def _more(known: StatementFacts) -> str | None:
    """Return why a text may do more than is known of it: of what it names only so much is kept."""
    kept = (known.relations, known.columns, known.functions, known.settings, known.objects, known.made, known.perhaps)
    few = (known.handles, known.attached, known.stands, known.made)
    if any(len(each) >= HANDLES_MAX for each in few) or any(len(names) >= NAMES_MAX for names in kept):
        return "it names more than can be kept"
    return None


def _dynamic(known: StatementFacts) -> str | None:
    """Return why a DO block may do what its text does not show."""
    return TOGETHER if "execute_dynamic" in known.operations else None


class SessionJudge:
    """Decides on the statements of one session."""

    def __init__(self, judging: Judging, opened: Opened, named: str, intent: str) -> None:
        self._judging, self._opened, self._named = judging, opened, named
        self._application = opened.application
        self._settings = Settings()
        self._epoch = -1
        self._scope = _Scope(Action(kind="statement"), self._settings, True, 0)
        self._known = self._scope.known
        self.scopes = 0
        self.intent = intent
        self._lasting = intent
        """The intent behind the transaction that is open."""
        self._read: frozenset[str] = frozenset()

    @property
    def settings(self) -> Settings:
        """How the server reads a text by now."""
        return self._settings

    def whose(self, at_us: int) -> Action:
        """Return the facts of the session, as policies see them."""
        if self._epoch != self._judging.epoch or at_us >= self._scope.until_us:
            self._enter(at_us)
        return self._scope.whose

    def reported(self, name: str, value: str) -> None:
        """Take a setting as the server reports it."""
        if name == "client_encoding":
            self._settings = self._settings._replace(encoding=value)
        elif name == "standard_conforming_strings":
            self._settings = self._settings._replace(standard_strings=value == "on")
        elif name == "server_encoding":
            self._settings = self._settings._replace(server_encoding=value)
        elif name == "application_name":
            self._application = value
        else:
            return
        self._epoch = -1

    def decide(self, text: bytes, at_us: int, surety: Surety = "sure") -> Decision:
        """Decide on a statement; `surety` is how far the settings hold that were reported."""
        if self._epoch != self._judging.epoch or at_us >= self._scope.until_us:
            self._enter(at_us)
        if surety != "sure" and lexing.neutral(text):
            surety = "sure"  # it is read alike by all of them
        decision = self._known.get(text if surety == "sure" else (surety, text))
        if decision is None and surety == "sure":
            decision = self._judging.by_shape(self._scope, text)
        return self._judging.decide(self._scope, text, at_us, surety) if decision is None else decision

    def ground(self, at_us: int) -> Ground | None:
        """Return where decisions hold now; None where the next statement has to find out, or its transaction's end."""
        scope = self._scope
        if self.intent is not self._lasting or self._epoch != self._judging.epoch or at_us >= scope.until_us:
            return None
        return Ground(self._judging, self._epoch, scope, scope.until_us, scope.shapes, self.scopes > 1)

    def ran(self, decision: Decision) -> None:
        """Take up that a statement is forwarded whose `marks` are not None."""
        if decision.marks and not decision.marks <= self._read:
            self._read |= decision.marks
            self._epoch = -1
        if decision.reading is not None and teaches(decision.reading.known):
            self._judging.learn(self._opened.cluster, self._opened.database, Lesson.of(decision.reading.known))
        intent = decision.reading.intent if decision.reading is not None else None
        if intent is not None:
            self.intent = intent.text
            if not intent.local:
                self._lasting = intent.text
            self._epoch = -1

    def ended(self) -> None:
        """Take up that no transaction is open."""
        if self.intent is not self._lasting:
            self.intent = self._lasting
            self._epoch = -1

    def again(self, decision: Decision, at_us: int) -> Decision:
        """Decide anew where an earlier decision does not hold any more; else return that."""
        if self._epoch != self._judging.epoch or at_us >= self._scope.until_us:
            self._enter(at_us)
        if decision.scope is self._scope:
            return decision
        if decision.reading is None:
            return self.behind(decision, None, at_us)
        return self._judging.judge(self._scope, decision.reading, at_us)._replace(masked=decision.masked)

    def behind(self, decision: Decision, targets: Sequence[Handle] | None, at_us: int) -> Decision:
        """Decide on a statement that runs what names stand for, by what that is; None is not known."""
        if self._epoch != self._judging.epoch or at_us >= self._scope.until_us:
            self._enter(at_us)
        known = decision.reading.known if decision.reading is not None else UNPARSED
        doubt = decision.reading.doubt if decision.reading is not None else None
        if targets is None:
            doubt = doubt or "it runs what a name stands for that was given unseen"
        reading = Reading(decision.said, running(known, targets or ()), doubt)
        return self._judging.judge(self._scope, reading, at_us)

    def function(self, oid: int, at_us: int) -> Decision:
        """Decide on a function call of the protocol."""
        if self._epoch != self._judging.epoch or at_us >= self._scope.until_us:
            self._enter(at_us)
        name = LARGE_OBJECTS.get(oid, f"oid {oid}")
        said = Said(parsed=Parsed(operations=["select"], functions=[name]))
        known = replace(UNPARSED, operations=("select",), functions=(name,))
        doubt = None if oid in LARGE_OBJECTS else "it calls a function by its number, of which nothing is known"
        return self._judging.judge(self._scope, Reading(said, known, doubt), at_us)

    def admitted(self, decision: Decision, at_us: int) -> Decision:
        """Count a statement whose rate is limited, which is about to run; refuse one too many."""
        if decision.verdict is None or not decision.verdict.rates:
            return decision
        whose = self._scope.whose
        who = (whose.cluster, whose.principal or f"role {whose.role}")
        verdict = self._judging.rates.admitted(decision.verdict, who, at_us)
        return decision if verdict is decision.verdict else decision._replace(verdict=verdict, forward=None)

    def _enter(self, at_us: int) -> None:
        judging = self._judging
        said = _Said(self.intent, self._read)
        scope = judging.scope(self._opened, self._named, self._application, self._settings, said, at_us)
        self.scopes += scope is not self._scope
        self._scope, self._known, self._epoch = scope, scope.known, judging.epoch


def _whose(person: Person, opened: Opened, application: str, labels: Mapping[str, str]) -> Action:
    return Action(
        kind="statement",
        principal=person.principal or "",
        principal_kind=person.kind,
        on_behalf_of=person.on_behalf_of or "",
        peer_group=person.peer_group or "",
        binding="gateway",
        certainty="exact",
        assurance=person.assurance,
        role=opened.role,
        application=application,
        client_addr="" if opened.client_addr in (None, "local") else str(opened.client_addr),
        auth_method=opened.auth_method or "",
        cluster=opened.cluster,
        instance=opened.instance,
        database=opened.database,
        labels=labels,
        detail={"agent": msgspec.json.decode(person.agent)} if person.agent else {},
    )
