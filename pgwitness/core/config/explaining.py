"""What is wrong with a configuration, for whoever wrote it: file, line and key, and what was probably meant. Pure."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
from msgspec import Struct

from pgwitness.core.config.librdkafka import PROPERTIES
from pgwitness.core.config.tables import Config

LATER = frozenset({"audiences"})
"""Tables that documents speak of and that this version does not know yet."""
OURS = {"bootstrap.servers": "bootstrap", "metadata.broker.list": "bootstrap"}
"""Settings of the Kafka client that `[kafka]` has under a name of its own."""
_AT = re.compile(r"(.*?)(?: - at `\$?\.?(.*?)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_EXPECTED = re.compile(r"Expected `(.*?)`(?:, got `(.*?)`)?")
_TYPES = {"str": "a text in quotes", "int": "a whole number", "float": "a number", "bool": "true or false"}
_TYPES |= {"array": "a list", "object": "a table", "null": "nothing"}

Keys = tuple[str, ...]
Origins = Mapping[Keys, Path]


def invalid(error: msgspec.ValidationError, origins: Origins, main: Path, environment: Mapping[Keys, str]) -> str:
    """Turn a validation error into `FILE: line N: KEY: what is wrong`; `environment` names what came from there."""
    match = _AT.fullmatch(str(error))
    assert match is not None
    message, dotted = match[1], match[2] or ""
    keys = tuple(part.strip(".") for part in re.findall(r"\[[^\]]*\]|[^.\[]+", dotted))
    keys = _named(keys, origins)
    if unknown := _UNKNOWN.fullmatch(message):
        return _unknown(keys, unknown[1], origins, main, environment)
    if expected := _EXPECTED.fullmatch(message):
        wanted = " or ".join(_TYPES.get(word, word) for word in expected[1].split(" | ") if word != "null")
        message = f"must be {wanted}" + (f", not {_TYPES.get(expected[2], expected[2])}" if expected[2] else "")
    return f"{place(keys, origins, main, environment)}: {'.'.join(keys) or 'configuration'}: {message}"


def _unknown(keys: Keys, name: str, origins: Origins, main: Path, environment: Mapping[Keys, str]) -> str:
    where = place((*keys, name), origins, main, environment)
    full = ".".join((*keys, name))
    if not keys and name in LATER:
        return f"{where}: {full}: this version of pgwitness has no [{name}]; remove the table, or update pgwitness"
    return f"{where}: {full}: there is no such key{meant(name, _fields(keys), keys)}"


def unknown_to_kafka(name: str, where: str) -> str:
    """Say that the Kafka client has no such setting, and which is meant."""
    if name in OURS:
        return f"{where}: kafka.{name}: its name here is kafka.{OURS[name]}"
    known = [*PROPERTIES, *(f"{name}_file" for name in PROPERTIES if "password" in name), "bootstrap", "prefix"]
    return f"{where}: kafka.{name}: the Kafka client has no such setting{meant(name, known, ('kafka',))}"


def meant(name: str, known: Iterable[str], keys: Keys = ()) -> str:
    """Say what was probably meant, or what there is."""
    known = sorted(known)
    near = get_close_matches(name.lower().replace("-", "_"), known, 1, 0.7) or get_close_matches(name, known, 1, 0.6)
    if near:
        return f"; did you mean {'.'.join((*keys, near[0]))}?"
    listed = ", ".join(known) if len(known) <= 20 else "docs/reference/configuration.md lists them"
    return f"; there {'is' if len(known) == 1 else 'are'}: {listed}" if known else ""


def place(keys: Keys, origins: Origins, main: Path, environment: Mapping[Keys, str]) -> str:
    """Say where a key stands: the variable of the environment, or the file and its line."""
    if keys in environment:
        return f"environment {environment[keys]}"
    file = next((origins[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in origins), main)
    number = _line(file, keys)
    return f"{file}: line {number}" if number is not None else str(file)


def _line(file: Path, keys: Keys) -> int | None:
    """Find the line that a key stands on; none where it is written in a way of its own."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    table: Keys = ()
    for number, line in enumerate(lines, 1):
        if header := re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]", line):
            table = _parts(header[1])
            if table[: len(keys)] == keys:
                return number
        elif assigned := re.match(r"\s*([A-Za-z0-9_\-.\"' ]+?)\s*=", line):
            at = (*table, *_parts(assigned[1]))
            if at == keys or ".".join(at) == ".".join(keys) or (at == keys[: len(at)] and "{" in line):
                return number
    return None


def _parts(dotted: str) -> Keys:
    found = re.findall(r'"([^"]*)"|\'([^\']*)\'|([^.\s"\']+)', dotted)
    return tuple("".join(part) for part in found)


def _fields(keys: Keys) -> list[str]:
    """List the keys that a table may have."""
    kind: Any = Config
    for key in keys:
        kind = _inner(kind, key)
        if kind is None:
            return []
    if not (isinstance(kind, type) and issubclass(kind, Struct)):
        return []
    return [name for name in (one.encode_name for one in msgspec.structs.fields(kind)) if name != "settings"]


def _inner(kind: Any, key: str) -> Any:
    """Give the type behind a key: a field's, or that of a mapping's values or a list's items."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        kind = next((one.type for one in msgspec.structs.fields(kind) if one.encode_name == key), None)
        if get_origin(kind) is types.UnionType:
            kind = next((one for one in get_args(kind) if one is not type(None)), None)
        return kind
    return get_args(kind)[-1] if get_origin(kind) in (dict, list) else None


def _named(keys: Keys, origins: Origins) -> Keys:
    """Msgspec writes `[...]` for any key of a mapping; where only one name can be meant, say it."""
    named: list[str] = []
    for key in keys:
        if key == "[...]":
            candidates = {
                path[len(named)] for path in origins if path[: len(named)] == tuple(named) and len(path) > len(named)
            }
            key = candidates.pop() if len(candidates) == 1 else "*"
        named.append(key)
    return tuple(named)
