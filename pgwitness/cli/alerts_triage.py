"""`pgwitness alerts resolve`, `key` and `suppressions`: a person's word on alerts, and what it suppresses."""

from __future__ import annotations

import os
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pgwitness.cli.options import common, configuration, json_option
from pgwitness.cli.output import emit, say
from pgwitness.core.errors import ConfigurationError, NotInOrder, Unreachable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from detectors.alerts.verdicts import Word
    from pgwitness.core.config import Config

PREFIX_MIN = 6
SEND_S = 10.0
SCOPES = ["same-finding", "policy-and-principal", "policy-and-relation", "policy-and-cluster"]


@click.command(short_help="Say whether an alert was right; signed.")
@click.argument("uid")
@click.option(
    "--as", "word", type=click.Choice(["true-positive", "false-positive"]), required=True, help="What the alert was."
)
@click.option("--reason", required=True, help="Why; who reads the evidence later must understand it.")
@click.option(
    "--scope",
    type=click.Choice(SCOPES),
    default="same-finding",
    show_default=True,
    help="How far a false positive goes: what it suppresses.",
)
@click.option("--expires", default="30d", show_default=True, help="For how long the verdict holds, such as 12h or 30d.")
@click.option("--promote", is_flag=True, help="Until then, let unusual behaviour of this principal alarm on its own.")
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("reviewer.key"),
    show_default=True,
    envvar="PGWITNESS_REVIEWER_KEY_FILE",
    help="The reviewer's private key; `pgwitness alerts key` makes one.",
)
@json_option
@common
def resolve(
    uid: str,
    word: Word,
    reason: str,
    scope: str,
    expires: str,
    promote: bool,
    key_file: Path,
    as_json: bool,
    config_path: Path,
) -> None:
    """Decide on the alert UID (or the beginning of its uid): a signed verdict goes to the topic `feedback`.

    The worker closes the finding. Of a false positive, what --scope says is suppressed until the verdict expires: it is
    still judged, counted and landed, and the habits of its principal learn it.
    """
    config = configuration(config_path)
    from detectors.alerts import verdicts
    from pgwitness.cli import kafka

    private, who = _reviewer(config, key_file)
    lasts_us = verdicts.lasting_us(reason, scope, expires, who, config.reviewers[who])
    kafka.reach(config)
    alert = find(config, uid)
    now_us = time.time_ns() // 1000
    verdict = verdicts.decide(
        alert, word, reason, scope=scope, promote=promote, who=who, now_us=now_us, lasts_us=lasts_us
    )
    value = verdicts.sign(verdict, private)
    checked = verdicts.check(value, config.reviewers, now_us)
    if checked.refused is not None:
        raise NotInOrder(f"the worker would refuse this verdict: {checked.refused}; docs/how-to/triage-alerts.md")
    send(config, verdict.uid, value)
    row = {
        "verdict": checked.id,
        "uid": verdict.uid,
        "as": word,
        "who": who,
        "scope": scope,
        "match": verdict.match,
        "expires": _when(verdict.expires_us),
    }
    emit([row], as_json=as_json)
    if not as_json:
        say("written to the topic feedback; the worker takes it within a second")


@click.command(short_help="Make a reviewer's key.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default=Path("reviewer.key"))
@json_option
@common
def key(file: Path, as_json: bool, config_path: Path) -> None:
    """Make a reviewer's key in FILE, or read the one that is there, and print its public half for [reviewers.NAME].

    The file is the reviewer's own: it stays with the person, not on the worker's host.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from detectors.alerts import verdicts

    try:
        private = Ed25519PrivateKey.generate()
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as target:
            target.write(verdicts.private_pem(private))
        state = "written"
    except FileExistsError:
        private = private_of(file)
        state = "kept"
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be written: {error.strerror}; choose another place") from error
    public = private.public_key()
    text = verdicts.public_text(public)
    emit([{"file": str(file), "state": state, "key": text, "id": verdicts.key_id(public)}], as_json=as_json)
    if not as_json:
        say(f'in the workers\' configuration:\n\n[reviewers.NAME]\nkey = "{text}"')


@click.command(short_help="List what is suppressed, until when and why.")
@json_option
@common
def suppressions(as_json: bool, config_path: Path) -> None:
    """List suppressions, maintenance windows and the verdicts that suppress findings.

    Exits 1 when an entry of the file has expired, or the file cannot be used: remove or renew it.
    """
    config = configuration(config_path)
    from pgwitness.cli import kafka

    now_us = time.time_ns() // 1000
    rows = file_rows(config, now_us)
    late = [row for row in rows if row["state"] == "expired"]
    from detectors.alerts import verdicts

    for record in kafka.read(config, config.kafka.topic("feedback")):
        checked = verdicts.check(record.value, config.reviewers, record.time_ms * 1000)
        for rule in verdicts.rules(checked):
            rows.append(_rule_row(rule, now_us))
    emit(rows, as_json=as_json, empty="nothing is suppressed")
    if late:
        raise NotInOrder(f"{len(late)} entries of {config.triage.suppressions} have expired: remove or renew them")


def file_rows(config: Config, now_us: int) -> list[dict[str, object]]:
    """Give a row for each entry of the suppressions' file. Raises `ConfigurationError` when it cannot be used."""
    from detectors.alerts.suppressions import Suppressions

    path = config.triage.suppressions
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from error
    return [_rule_row(rule, now_us) for rule in Suppressions.parse(text, str(path)).rules]


def _rule_row(rule: Any, now_us: int) -> dict[str, object]:
    state = "in force" if rule.holds(now_us) else "expired" if rule.until_us <= now_us else "waiting"
    return {
        "id": rule.id,
        "state": state,
        "effect": rule.effect,
        "match": rule.match,
        "until": _when(rule.until_us),
        "owner": rule.owner,
        "reason": rule.reason,
    }


def _reviewer(config: Config, file: Path) -> tuple[Ed25519PrivateKey, str]:
    from detectors.alerts import verdicts

    private = private_of(file)
    text = verdicts.public_text(private.public_key())
    for name, reviewer in config.reviewers.items():
        if reviewer.key == text:
            return private, name
    raise ConfigurationError(f'{file}: no [reviewers.NAME] has this key; add one with key = "{text}"')


def private_of(file: Path) -> Ed25519PrivateKey:
    """Read a private key that only its owner can. Raise `ConfigurationError`."""
    from detectors.alerts import verdicts

    try:
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise ConfigurationError(f"{file}: others than its owner can read the key; chmod 600 it")
        pem = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{file}: cannot be read: {error.strerror}; `pgwitness alerts key` makes one, --key names another"
        ) from error
    try:
        return verdicts.private_key(pem)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from None


def find(config: Config, uid: str) -> dict[str, Any]:
    """Give the alert as it was last emitted; the lake's where the topic has it no more, or no broker answers.

    Raise `NotInOrder` where neither has it, and `Unreachable`.
    """
    from pgwitness.cli import kafka

    if len(uid) < PREFIX_MIN or not uid.isalnum():
        raise ConfigurationError(f"UID: at least the first {PREFIX_MIN} letters of an alert's uid")
    found: dict[str, dict[str, Any]] = {}
    away: Unreachable | None = None
    try:
        for record in kafka.read(config, config.kafka.topic("alerts")):
            if record.key is not None and record.key.decode(errors="replace").startswith(uid):
                found[record.key.decode(errors="replace")] = kafka.parse(record.value)
    except Unreachable as error:
        away, found = error, {}
    if not found:
        found = _landed(config, uid)
    if not found and away is not None:
        raise away
    if len(found) > 1:
        raise ConfigurationError(f"UID: {uid} is the beginning of {len(found)} alerts; write more of it")
    for alert in found.values():
        if isinstance(alert.get("unmapped"), dict) and isinstance(alert.get("finding_info"), dict):
            return alert
    raise NotInOrder(f"no alert {uid}: not on the topic, and not in the lake; `pgwitness alerts` lists those there are")


def _landed(config: Config, uid: str) -> dict[str, dict[str, Any]]:
    from pgwitness.cli import kafka
    from sinks.lake.opening import lake_store
    from sinks.sql import catalogue

    try:
        with catalogue.connect(lake_store(config)) as connection:
            query = 'SELECT uid, ocsf FROM alerts WHERE starts_with(uid, ?) ORDER BY "count"'
            rows = connection.execute(query, [uid]).fetchall()
    except (NotInOrder, Unreachable):  # the lake may be on another host
        return {}
    return {name: kafka.parse(ocsf.encode()) for name, ocsf in rows}


def send(config: Config, uid: str, value: bytes) -> None:
    """Put the record of a verdict on the topic. Raise `Unreachable` when the broker does not take it."""
    from confluent_kafka import KafkaError, Producer

    from pgwitness.core.runtime.logs import LIBRDKAFKA
    from streams.kafka import admin

    admin.reach(config)
    errors: list[KafkaError] = []
    producer = Producer({**config.kafka.client(), "acks": "all", "log_level": "0", "logger": LIBRDKAFKA})
    producer.produce(
        config.kafka.topic("feedback"),
        value,
        uid.encode(),
        0,
        on_delivery=lambda error, _: errors.append(error) if error is not None else None,
    )
    if producer.flush(SEND_S) or errors:
        why = errors[0].str() if errors else f"no answer within {SEND_S:.0f} s"
        raise Unreachable(f"the verdict was not taken: {why}; is the broker up, may you write to feedback?")


def _when(time_us: int) -> str:
    try:
        return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return "never"
