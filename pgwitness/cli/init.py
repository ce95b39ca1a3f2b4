"""`pgwitness init`: a commented configuration to start from. It never overwrites a file."""

from __future__ import annotations

import secrets
from importlib.resources import files
from pathlib import Path

import click

from pgwitness.cli.options import common, json_option
from pgwitness.cli.output import emit
from pgwitness.core.errors import ConfigurationError


@click.command(short_help="Write a configuration to start from.")
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path, file_okay=False), default=Path())
@json_option
@common
def init(folder: Path, as_json: bool, config_path: Path) -> None:
    """Write pgwitness.toml, identities.yaml, policies/ and a masking key into DIR; what is there already stays."""
    emit(write(folder), as_json=as_json)


def write(folder: Path) -> list[dict[str, object]]:
    """Write what is missing in a folder; gives a row for each file, saying whether it is new.

    Raises `ConfigurationError` when the folder cannot be written to.
    """
    from detectors.policy.files import packaged_files
    from pgwitness.core.privacy import KEY_BYTES, write_key

    templates = files("pgwitness.cli") / "templates"
    texts = {name: (templates / name).read_text(encoding="utf-8") for name in ("pgwitness.toml", "identities.yaml")}
    texts |= {f"policies/{name}": content for name, content in packaged_files().items()}
    rows: list[dict[str, object]] = []
    try:
        (folder / "policies").mkdir(parents=True, exist_ok=True)
        for name, content in texts.items():
            rows.append({"file": str(folder / name), "state": _create(folder / name, content)})
        key = folder / "privacy.key"
        try:
            write_key(key, secrets.token_bytes(KEY_BYTES))
            rows.append({"file": str(key), "state": "written"})
        except FileExistsError:
            rows.append({"file": str(key), "state": "kept"})
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or folder}: cannot be written: {error.strerror}; choose another folder"
        ) from error
    return rows


def _create(path: Path, content: str) -> str:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        return "kept"
    return "written"
