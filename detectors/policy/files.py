"""Files of policies and calendars: YAML in, checked policies out; docs/reference/policies.md describes the format.

Reading is strict: unknown keys are a `ConfigurationError` that names the file and the policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import msgspec
import yaml
from msgspec import Struct

from detectors.policy.calendars import FILES, Calendars, parse_calendars
from detectors.policy.calendars import NONE as NO_CALENDARS
from detectors.policy.document import Document
from detectors.policy.policy import POLICY_ID, Policy
from pgwitness.core import yamltext
from pgwitness.core.errors import ConfigurationError


def packaged_files() -> dict[str, str]:
    """Return the packaged policy files, by name, so that they can be written somewhere and changed."""
    folder = resources.files("detectors") / "pack"
    return {
        item.name: item.read_text(encoding="utf-8")
        for item in sorted(folder.iterdir(), key=lambda i: i.name)
        if item.name.endswith(".yaml")
    }


def read_folder(path: Path) -> Iterator[tuple[Path, str]]:
    """Read one file, or every `*.yaml` and `*.yml` below a folder, in order. Raise `ConfigurationError`."""
    for file in policy_files(path):
        yield file, _text_of(file)


def policy_files(path: Path) -> list[Path]:
    """List the files of policies that a path names, in order. Raise `ConfigurationError` when there is none."""
    if path.is_dir():
        found = sorted(p for suffix in ("*.yaml", "*.yml") for p in path.rglob(suffix))
        files = [file for file in found if file.name not in FILES]
    elif path.exists():
        files = [path]
    else:
        raise ConfigurationError(f"policies.path: {path} does not exist; `pgwitness init` writes the packaged ones")
    if not files:
        raise ConfigurationError(
            f"policies.path: {path} has no *.yaml and no *.yml: nothing would be judged; "
            "`pgwitness init` writes the packaged policies"
        )
    return files


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {error}") from error


def read_calendars(path: Path) -> Calendars:
    """Read the calendars in the folder of policies, or beside the one file. Raise `ConfigurationError`."""
    folder = path if path.is_dir() else path.parent
    files = [file for name in FILES if (file := folder / name).exists()]
    if len(files) > 1:
        raise ConfigurationError(f"{files[1]}: {files[0].name} is there too; one file has all calendars")
    try:
        return parse_calendars(yamltext.load(_text_of(files[0]))) if files else NO_CALENDARS
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigurationError(f"{files[0]}: {' '.join(str(error).split())}") from None


def parse(text: str, origin: str, calendars: Calendars = NO_CALENDARS) -> list[Policy]:
    """Read the policies of one file, one YAML document each. Raise `ConfigurationError` naming `origin`."""
    policies = []
    for found in _documents(text, origin, calendars):
        if isinstance(found, ConfigurationError):
            raise found
        policies.append(found)
    return policies


class PolicyProblem(Struct, frozen=True):
    """What is wrong with a policy, or with a file when `policy` is empty."""

    file: str
    policy: str
    reason: str


def lint(path: Path) -> tuple[list[Policy], list[PolicyProblem]]:
    """Check every policy of a file or folder, also behind a bad one. Raise `ConfigurationError` when there is none."""
    policies: dict[str, Policy] = {}
    problems: list[PolicyProblem] = []
    try:
        calendars = read_calendars(path)
    except ConfigurationError as error:
        name, _, reason = str(error).partition(": ")
        problems.append(PolicyProblem(name, "", reason))
        return [], problems
    for file in policy_files(path):
        for found in _of_file(file, calendars):
            if isinstance(found, ConfigurationError):
                reason = str(found).removeprefix(f"{file}: ")
                name, separator, rest = reason.partition(": ")
                named = bool(separator) and bool(POLICY_ID.fullmatch(name) or name.startswith("document "))
                problems.append(PolicyProblem(str(file), name if named else "", rest if named else reason))
            elif other := policies.get(found.id):
                problems.append(
                    PolicyProblem(str(file), found.id, f"the id is used in {other.origin} too; ids are unique")
                )
            else:
                policies[found.id] = found
    return list(policies.values()), problems


def _of_file(file: Path, calendars: Calendars) -> Iterator[Policy | ConfigurationError]:
    try:
        yield from _documents(_text_of(file), str(file), calendars)
    except ConfigurationError as error:
        yield error


def _documents(text: str, origin: str, calendars: Calendars) -> Iterator[Policy | ConfigurationError]:
    try:
        documents = [document for document in yamltext.load_all(text) if document is not None]
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        said = f"line {where.line + 1}: {getattr(error, 'problem', '')}" if where is not None else str(error)
        yield ConfigurationError(f"{origin}: not YAML: {said}")
        return
    if not documents:
        yield ConfigurationError(f"{origin}: there is no policy in it; delete the file, or write one")
    for number, document in enumerate(documents, 1):
        name = document.get("id", f"document {number}") if isinstance(document, dict) else f"document {number}"
        try:
            yield Policy(msgspec.convert(document, Document), origin, calendars)
        except msgspec.ValidationError as error:
            yield ConfigurationError(f"{origin}: {name}: {error}")
        except ConfigurationError as error:
            yield error
