"""What OCSF 1.8.0 says of an event, as the published release does: `problems` lists what does not conform.

The schema is the release's own export, which the package ocsf-json-schema carries (Apache-2.0); it is made into a JSON
Schema with closed objects, required attributes, types, enumerations and at-least-one rules, with the profiles that the
event names. Beyond that: the version is the release's, no attribute is a deprecated one, a caption is the one of its
number, the type is class and activity, and an observable names a place where its value stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

VERSION = "1.8.0"
CLASSES = {2004: "detection_finding", 3002: "authentication", 6005: "datastore_activity"}
OTHER = "99"
"""The number of what has no number of its own; its caption is the producer's."""


def problems(event: dict[str, Any], class_uid: int) -> list[str]:
    """List in words where an event is not what the release says; none when it conforms."""
    release = _release()
    found = [
        f"{'.'.join(map(str, error.absolute_path)) or 'the event'}: {error.message[:200]}"
        for error in _validator(class_uid, tuple(event.get("metadata", {}).get("profiles", []))).iter_errors(event)
    ]
    found += _inside(release, release["classes"][CLASSES[class_uid]], event, "")
    if event.get("type_uid") != class_uid * 100 + event.get("activity_id", 0):
        found.append("type_uid is not class_uid * 100 + activity_id")
    if event.get("metadata", {}).get("version") != VERSION:
        found.append(f"metadata.version is not {VERSION}")
    for observable in event.get("observables", []):
        if observable.get("value") not in _at(event, observable["name"]):
            found.append(f"observable {observable['name']}: its value does not stand there")
    return found


def without_nulls(value: Any) -> Any:
    """Give a row of SQL as an event: what is null is not there, nor is an object of nothing else."""
    if isinstance(value, dict):
        kept = {key: without_nulls(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item is not None and item != {}}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


@cache
def _release() -> dict[str, Any]:
    release: dict[str, Any] = get_ocsf_schema(VERSION)
    assert release["version"] == VERSION
    return release


@cache
def _validator(class_uid: int, profiles: tuple[str, ...]) -> jsonschema.Draft202012Validator:
    schema = OcsfJsonSchemaEmbedded(_release()).get_class_schema(CLASSES[class_uid], list(profiles))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def _inside(release: dict[str, Any], described: dict[str, Any], value: dict[str, Any], path: str) -> Iterator[str]:
    """Look at an object and everything in it for deprecated names and captions that are another number's."""
    attributes = described.get("attributes", {})
    for name, item in value.items():
        known = attributes.get(name)
        if known is None:
            continue
        if "@deprecated" in known:
            yield f"{path}{name} is deprecated since {known['@deprecated']['since']}"
        number = str(item) if not known.get("is_array") else OTHER
        caption = known.get("enum", {}).get(number, {}).get("caption")
        said = value.get(known.get("sibling", ""))
        if caption is not None and said is not None and number != OTHER and said != caption:
            yield f"{path}{name} {item} is {caption!r}, not {said!r}"
        if known.get("type") == "object_t":
            for each in item if isinstance(item, list) else [item]:
                if isinstance(each, dict):
                    yield from _inside(release, release["objects"][known["object_type"]], each, f"{path}{name}.")


def _at(event: Any, name: str) -> list[Any]:
    """Give what stands at a place such as `evidences[0].actor.user.name`."""
    here = event
    for step in re.findall(r"[^.\[\]]+", name):
        try:
            here = here[int(step)] if isinstance(here, list) else here[step]
        except (LookupError, TypeError, ValueError):
            return []
    return [here]
