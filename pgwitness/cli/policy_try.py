"""What `pgwitness policy try` reads and prints.

`pgwitness.cli.trying` makes the actions, `detectors.trial` asks the policies about them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec import Struct

from collectors.log.interpretation.texts import Texts
from detectors.gatekeeper import Gatekeeper, Labels, Verdict
from detectors.policy.explain import Part, lacking
from detectors.policy.policies import Bundle
from detectors.sensitive import Sensitive
from detectors.trial import Opinion, Trial, decisive
from detectors.wording import number
from detectors.wording import show as shown
from pgwitness.cli.output import emit, say
from pgwitness.cli.trying import KINDS, Given, Tried, Trying, field_of, outcomes
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.printable import visible
from pgwitness.core.privacy import tokenizer
from streams.identity.identities import Identities

if TYPE_CHECKING:
    from pgwitness.core.config import Config

SEEN = (
    *("operation", "relations", "columns", "sensitive", "rows", "statement.where", "statement.operations"),
    *("statement.functions", "statement.settings", "statement.objects", "statement.defines"),
    *("statement.whole", "statement.written"),
    *("principal.name", "principal.kind", "principal.on_behalf_of", "principal.peer_group", "role", "outcome"),
)
"""What is shown of an action, where there is anything."""
MARKS = {"yes": "yes", "no": "no "}


class Judged(Struct, frozen=True):
    """One action and what every policy of its kind says of it."""

    tried: Tried
    opinions: list[Opinion]
    gateway: Verdict | None = None
    """What the gateway would decide on the statement before it runs; of other actions None."""

    @property
    def decided(self) -> list[Opinion]:
        """Give what speaks against it."""
        return list(decisive(self.opinions))


def given(config: Config, stated: Mapping[str, Any]) -> Given:
    """Check what the command line states: the fields of `Given`, the time as text `at`. Raise `ConfigurationError`."""
    from pgwitness.core.moments import when

    for word, known in [(stated["outcome"], outcomes()), *((kind, KINDS) for kind in stated["kinds"])]:
        if word is not None and word not in known:
            raise ConfigurationError(f"{word!r} is none of {', '.join(known)}")
    name = stated["cluster"] or next(iter(config.clusters), "")
    settings = config.clusters.get(name)
    databases = settings.databases if settings is not None else []
    now_us = time.time_ns() // 1000
    rest = {option: value for option, value in stated.items() if option != "at"} | {
        "cluster": name,
        "database": stated["database"] or (databases[0] if databases else ""),
        "fields": dict(field_of(text) for text in stated["fields"]),
    }
    return Given(**rest, at_us=when(stated["at"], now_us) if stated["at"] is not None else now_us)


def run(config: Config, given: Given, sql: str, policies: Path | None, identities: Path | None) -> list[Judged]:
    """Judge the text. Raises `ConfigurationError` when policies or identities cannot be used."""
    bundle = Bundle.load(policies or config.policies.path)
    file = identities or config.identities.file
    try:
        known = Identities.parse(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {error}; --identities names another") from error
    cluster = config.clusters.get(given.cluster)
    labels = dict(sorted(cluster.labels.items())) if cluster is not None else {}
    trying = Trying(given, known, labels, Sensitive.of(config.privacy))
    trial = Trial(bundle)
    gatekeeper = Gatekeeper(bundle, Sensitive.of(config.privacy), Labels(config.labels))
    refuses = _refuses(config, given.cluster)
    return [
        Judged(tried, trial.ask(tried.action), _gateway(gatekeeper, tried, refuses)) for tried in trying.actions(sql)
    ]


def _gateway(gatekeeper: Gatekeeper, tried: Tried, refuses: frozenset[str]) -> Verdict | None:
    """Ask as the gateway would, by the same functions."""
    from collectors.gateway.judging.judge import reading_of, verdict_on

    action = tried.action
    if action.kind != "statement":
        return None
    reading = reading_of(Texts(tokenizer(bytes(32))), tried.text)
    return verdict_on(gatekeeper, action, reading, action.principal_kind in refuses, action.occurred_at_us)[0]


def _refuses(config: Config, cluster: str) -> frozenset[str]:
    """Return the kinds of principals whose statements a gateway of the cluster refuses where it cannot read them."""
    from pgwitness.core.config.gateway import GatewayUnparsable

    served = [one.unparsable for one in config.gateway.databases.values() if one.cluster == cluster]
    table = msgspec.to_builtins(served[0] if served else GatewayUnparsable())
    return frozenset(kind for kind, does in table.items() if does == "refuse")


def show(judged: list[Judged], *, every: bool, as_json: bool) -> None:
    """Print the verdicts: for a program everything, for a person what matters."""
    if as_json:
        emit([_row(each, every) for each in judged], as_json=True)
        return
    for each in judged:
        for line in _lines(each, every):
            click.echo(visible(line))
    found = [opinion for each in judged for opinion in each.decided]
    verdict = f"{number(len(found), 'finding')} against it" if found else "nothing against it"
    say(f"{number(len({each.tried.number for each in judged}), 'statement')}, {verdict}")


def _row(judged: Judged, every: bool) -> dict[str, Any]:
    tried = judged.tried
    return {
        "number": tried.number,
        "statement": tried.text,
        "kind": tried.action.kind,
        "action": msgspec.to_builtins(tried.action),
        "assumed": tried.assumed,
        "gateway": msgspec.to_builtins(judged.gateway),
        "decided": [opinion.policy for opinion in judged.decided],
        "policies": [msgspec.to_builtins(each) for each in judged.opinions if every or each.says != "no"],
    }


def _lines(judged: Judged, every: bool) -> Iterator[str]:
    tried = judged.tried
    yield f"{tried.number}  {shown(tried.text)}"
    yield f"   as seen by: {tried.action.kind}"
    yield "   seen: " + "; ".join(_seen(tried))
    yield "   assumed: " + "; ".join(tried.assumed)
    if judged.gateway is not None and judged.gateway.message:
        yield f"   gateway: {judged.gateway.message}"
    if judged.gateway is not None and judged.gateway.staged:
        yield f"   gateway: staged, would be stopped by {', '.join(judged.gateway.staged)}"
    for opinion in judged.opinions:
        if every or opinion.says != "no":
            yield from _opinion(opinion)
    yield ""


def _seen(tried: Tried) -> Iterator[str]:
    from detectors.vocabulary import SCHEMA

    for name in SEEN:
        value = getattr(tried.action, SCHEMA[name].attribute)
        if value not in ("", [], 0):
            yield f"{name} {shown(value)}"


_WORDS = {"match": "MATCH", "failed": "FAILED", "counts": "counts", "near": "nearly", "no": "no"}


def _opinion(opinion: Opinion) -> Iterator[str]:
    staged = ", staged" if opinion.mode == "staged" else ""
    yield f"   {_WORDS[opinion.says]}  {opinion.policy} ({opinion.severity}, {opinion.effect}{staged})"
    for text in (opinion.message, opinion.note):
        if text:
            yield f"      {text}"
    for why in opinion.why:
        missing = lacking(why) if opinion.says == "near" else None
        yield from _part(missing or why, 2)


def _part(part: Part, depth: int) -> Iterator[str]:
    read = "   (" + ", ".join(f"{name} is {value}" for name, value in part.read.items()) + ")" if part.read else ""
    mark = MARKS.get(part.holds, f"cannot be decided ({part.holds})")
    text = part.joined if part.parts else part.text
    yield f"{'   ' * depth}{mark}  {text}{read}"
    for inner in part.parts:
        yield from _part(inner, depth + 1)
