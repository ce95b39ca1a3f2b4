"""How a configuration is read: one TOML file, its includes, and `PGWITNESS_*` from the environment.

`load` returns a frozen `Config` or raises a `ConfigurationError` that names the file and the key. Relative paths
are relative to the file that names them. A secret is never a value on a command line: it comes from a file
(`*_file`, `PGPASSFILE`) or from the environment (`PGWITNESS_KAFKA__SASL__PASSWORD`).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import msgspec
from msgspec import Struct

from pgwitness.core.config import explaining
from pgwitness.core.config.librdkafka import PROPERTIES
from pgwitness.core.config.places import is_s3, place
from pgwitness.core.config.tables import Config
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.topics import OURSELVES
from pgwitness.core.units import Duration, Size

ENVIRONMENT_PREFIX = "PGWITNESS_"
_PATH_KEYS = {
    ("privacy", "key_file"),
    ("privacy", "subject_key_file"),
    ("lake", "path"),
    ("lake", "signing_key_file"),
    ("approvals", "key_file"),
    ("seal", "key"),
    ("seal", "path"),
    ("seal", "state_path"),
    ("identities", "file"),
    ("identities", "claims_keys"),
    ("policies", "path"),
    ("triage", "suppressions"),
    ("collectors", "state_path"),
    ("worker", "data_path"),
    ("console", "users_file"),
    ("mcp", "token_file"),
}


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """Read a configuration with its includes and the environment's overrides.

    Raises `ConfigurationError` naming the file and the key.
    """
    origins: dict[tuple[str, ...], Path] = {}
    from_environment: dict[tuple[str, ...], str] = {}
    tree = _read(path, origins)
    for pattern in tree.get("include", []) if isinstance(tree.get("include"), list) else []:
        for extra in _included(path, str(pattern)):
            _merge(tree, _read(extra, origins), extra, ())
    _override(tree, environment, from_environment)
    _absolute(tree, origins, path)
    _kafka(tree, origins, path, from_environment)
    try:
        config = msgspec.convert(tree, Config, dec_hook=_convert)
    except msgspec.ValidationError as error:
        raise ConfigurationError(explaining.invalid(error, origins, path, from_environment)) from error
    for name in ("", OURSELVES):
        if name in config.clusters:
            raise ConfigurationError(
                f"{origins.get(('clusters', name), path)}: clusters.{name}: "
                "what pgwitness tells of itself has this name; choose another one"
            )
    return config


def _included(main: Path, pattern: str) -> list[Path]:
    """List the files of a pattern; a file's name without one must be there."""
    absolute = Path(pattern).is_absolute()
    found = sorted(Path("/").glob(pattern.lstrip("/")) if absolute else main.parent.glob(pattern))
    if not found and not any(letter in pattern for letter in "*?["):
        raise ConfigurationError(f"{main}: include: there is no {pattern}; correct the name or remove it")
    return found


def _read(path: Path, origins: dict[tuple[str, ...], Path]) -> dict[str, Any]:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path}: no such file; `pgwitness init` writes one, `--config PATH` names another"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from error
    _remember(tree, path, (), origins)
    return tree


def _remember(tree: dict[str, Any], path: Path, at: tuple[str, ...], origins: dict[tuple[str, ...], Path]) -> None:
    for key, value in tree.items():
        origins[(*at, key)] = path
        if isinstance(value, dict):
            _remember(value, path, (*at, key), origins)


def _merge(tree: dict[str, Any], extra: dict[str, Any], path: Path, at: tuple[str, ...]) -> None:
    for key, value in extra.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value, path, (*at, key))
        elif key in tree:
            raise ConfigurationError(f"{path}: {'.'.join((*at, key))} is set in another file already; keep one of them")
        else:
            tree[key] = value


def _override(
    tree: dict[str, Any], environment: Mapping[str, str], from_environment: dict[tuple[str, ...], str]
) -> None:
    """`PGWITNESS_LAKE__PATH=/srv/lake` sets `lake.path`; two underscores go one table down."""
    for name, value in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or "__" not in name:
            continue
        *tables, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        at = tree
        for table in tables:
            at = at.setdefault(table, {})
            if not isinstance(at, dict):
                raise ConfigurationError(f"environment {name}: {table!r} is not a table of the configuration")
        from_environment[*tables, key] = name
        # A number as one writes it; `007` is a text, such as a password.
        at[key] = int(value) if value.isdecimal() and str(int(value)) == value else value


def _absolute(tree: dict[str, Any], origins: dict[tuple[str, ...], Path], main: Path) -> None:
    """Make paths absolute, each relative to the file that names it; defaults are relative to the main file."""
    for section, key in _PATH_KEYS:
        table = tree.setdefault(section, {})
        if not isinstance(table, dict):
            continue
        default = next((f.default for f in msgspec.structs.fields(_section(section)) if f.name == key), None)
        value = table.get(key, default)
        if isinstance(value, str | Path) and str(value) and not (section == "lake" and is_s3(value)):
            table[key] = str((origins.get((section, key), main).parent / Path(value).expanduser()).resolve())
    _absolute_logs(tree, origins, main)
    _absolute_named(tree.get("deliveries"), ("deliveries",), origins, main)
    _absolute_named(tree.get("lake"), ("lake",), origins, main)
    seal = tree.get("seal")
    _absolute_named(seal.get("anchors") if isinstance(seal, dict) else None, ("seal", "anchors"), origins, main)
    gateway = tree.setdefault("gateway", {})
    if isinstance(gateway, dict):
        if isinstance(spool := gateway.setdefault("spool", {}), dict):
            spool.setdefault("path", "./state/gateway")
        _absolute_named(gateway, ("gateway",), origins, main)
        databases = gateway.get("databases")
        _absolute_named(databases, ("gateway", "databases"), origins, main)
        for name, database in databases.items() if isinstance(databases, dict) else ():
            if isinstance(database, dict):
                _absolute_named(database, ("gateway", "databases", name), origins, main)
    _absolute_named(tree.get("console"), ("console",), origins, main)
    _absolute_named(tree.get("mcp"), ("mcp",), origins, main)
    respond = tree.get("respond")
    _absolute_named(respond.get("clusters") if isinstance(respond, dict) else None, _RESPOND, origins, main)


_RESPOND = ("respond", "clusters")
_TLS_KEYS = ("cert_file", "key_file", "client_ca_file")
_NAMED_PATH_KEYS = (
    "url_file",
    "secret_file",
    "authorization_file",
    "ca_file",
    "path",
    "password_file",
    "certificates",
    "users_file",
    "client_secret_file",
    "roles_file",
    "keys",
    *_TLS_KEYS,
)


def _absolute_named(tables: object, at: tuple[str, ...], origins: dict[tuple[str, ...], Path], main: Path) -> None:
    """Make the paths in tables that have names of their own absolute."""
    for name, table in tables.items() if isinstance(tables, dict) else ():
        for key in _NAMED_PATH_KEYS if isinstance(table, dict) else ():
            if isinstance(value := table.get(key), str):
                origin = origins.get((*at, name, key), main)
                table[key] = str((origin.parent / Path(value).expanduser()).resolve())


def _absolute_logs(tree: dict[str, Any], origins: dict[tuple[str, ...], Path], main: Path) -> None:
    """Make the patterns of log files absolute; links in them stay, since a log's folder may be moved."""
    clusters = tree.get("clusters")
    for name, cluster in clusters.items() if isinstance(clusters, dict) else ():
        log = cluster.get("log") if isinstance(cluster, dict) else None
        if not isinstance(log, dict) or log.get("from", "file") != "file":
            continue
        if isinstance(log.get("path"), str) and log["path"]:
            origin = origins.get(("clusters", name, "log", "path"), main)
            log["path"] = str(origin.parent.absolute() / Path(log["path"]).expanduser())


def _section(name: str) -> type[Struct]:
    kind = next(f.type for f in msgspec.structs.fields(Config) if f.name == name)
    assert isinstance(kind, type)
    assert issubclass(kind, Struct)
    return kind


def _kafka(
    tree: dict[str, Any],
    origins: dict[tuple[str, ...], Path],
    main: Path,
    from_environment: Mapping[tuple[str, ...], str],
) -> None:
    """Put what is not ours in `[kafka]` into `settings`, flattened, with `*_file` keys read from their files."""
    table = tree.get("kafka")
    if not isinstance(table, dict):
        return
    kept = {key: table.pop(key) for key in ("bootstrap", "prefix") if key in table}
    settings: dict[str, str] = {}
    for at, value in _flatten(table, ()):
        key = ".".join(at)
        where = explaining.place(("kafka", *at), origins, main, from_environment)
        named = origins.get(("kafka", *at)) or main
        if key.removesuffix("_file") not in PROPERTIES or key in explaining.OURS:
            raise ConfigurationError(explaining.unknown_to_kafka(key, where))
        if not isinstance(value, str | int | float):
            raise ConfigurationError(f"{where}: kafka.{key}: must be a text, a number, true or false")
        if key.endswith("_file"):
            source = named.parent / Path(str(value)).expanduser()
            try:
                settings[key.removesuffix("_file")] = source.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"{where}: kafka.{key}: {error}; name a file that can be read") from error
        elif key.startswith("ssl.") and key.endswith(".location") and value != "probe":
            settings[key] = str((named.parent / Path(str(value)).expanduser()).resolve())
            if not Path(settings[key]).exists():
                raise ConfigurationError(f"{where}: kafka.{key}: there is no {settings[key]}; correct the path")
        else:
            settings[key] = str(value).lower() if isinstance(value, bool) else str(value)
    tree["kafka"] = kept | {"settings": settings}


def _flatten(table: dict[str, Any], at: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    flat: list[tuple[tuple[str, ...], Any]] = []
    for key, value in table.items():
        flat += _flatten(value, (*at, key)) if isinstance(value, dict) else [((*at, key), value)]
    return flat


def _convert(kind: type, value: object) -> object:
    if kind is PurePath:
        return place(value)
    if kind is Path:
        if not isinstance(value, str) or not value:
            raise ValueError(f"must be a path, that is a text in quotes; got {value!r}")
        return Path(value)
    if issubclass(kind, Duration | Size):
        return kind.parse(value)
    raise NotImplementedError(kind)
