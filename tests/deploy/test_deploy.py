"""The files in deploy/ parse, and every command, setting and metric in them exists."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import yaml

from detectors.policy.policies import Bundle
from pgwitness.cli import main
from pgwitness.core.config import ENVIRONMENT_PREFIX, Config, load
from tests.conftest import leave_out

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
RUNBOOK = DEPLOY / "runbook.md"
PACKAGES = ("pgwitness", "collectors", "streams", "detectors", "sinks")


def refuse(words: list[str]) -> str | None:
    """Say why the command line would refuse these words as a usage error, none when it would not."""
    command: click.Command = main
    context = click.Context(main, info_name="pgwitness")
    while isinstance(command, click.Group) and words and not (command.invoke_without_command and words[0][0] == "-"):
        found = command.get_command(context, words[0])
        if found is None:
            return f"there is no command {words[0]!r}"
        context = click.Context(found, parent=context, info_name=words[0])
        command, words = found, words[1:]
    try:
        values, rest, _ = command.make_parser(context).parse_args(list(words))
        if rest:
            return f"unexpected {rest}"
        for parameter in command.params:
            value = values.get(parameter.name or "")
            if isinstance(value, str | tuple | list):  # what was not given is none of these
                parameter.type_cast_value(context, value)
    except click.UsageError as error:
        return error.format_message()
    return None


def compose() -> dict[str, Any]:
    """Read compose.yaml."""
    document = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert isinstance(document, dict)
    return document


def setting_exists(path: list[str]) -> bool:
    """Say whether a setting is one of the configuration's, by its tables and its name."""
    kind: Any = Config
    for name in path:
        if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
            return False
        field = next((f for f in msgspec.structs.fields(kind) if f.encode_name == name), None)
        if field is None:
            return False
        kind = field.type
    return True


def test_the_checker_of_commands_refuses_what_does_not_exist() -> None:
    """The check behind these tests can fail: an unknown command, option or collector is refused."""
    assert refuse(["worker"]) is None
    assert refuse(["wroker"]) is not None
    assert refuse(["worker", "--fast"]) is not None
    assert refuse(["collect", "everything"]) is not None
    assert setting_exists(["lake", "path"])
    assert not setting_exists(["lake", "depth"])


def test_compose_runs_commands_that_exist() -> None:
    """Every service on pgwitness's image runs a command of the program, and waits for services that are there."""
    services = compose()["services"]
    ours = {name: service for name, service in services.items() if service.get("image") == "pgwitness"}
    assert {"collect", "worker", "install", "topics"} <= ours.keys()
    for name, service in ours.items():
        assert refuse([str(word) for word in service["command"]]) is None, name
        assert service["read_only"], name
    for service in services.values():
        assert set(service.get("depends_on", {})) <= services.keys()


def test_compose_names_volumes_secrets_and_files_that_are_there() -> None:
    """What a service mounts is declared or lies in the repository."""
    document = compose()
    for name, service in document["services"].items():
        for secret in service.get("secrets", []):
            assert (secret if isinstance(secret, str) else secret["source"]) in document["secrets"], name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            known = source in document["volumes"] or (DEPLOY / source).exists()
            assert known, f"{name}: {source}"
    text = (DEPLOY / "compose" / "example.env").read_text()
    for secret in document["secrets"].values():
        assert f"{secret['environment']}=" in text


def test_compose_configuration_loads() -> None:
    """The configuration that Compose mounts is accepted by the program, and so are its identities."""
    from streams.identity.identities import Identities

    config = load(DEPLOY / "compose" / "pgwitness.toml", {})
    assert list(config.clusters) == ["main"]
    assert config.gateway.databases["*"].cluster == "main"
    Identities.parse(config.identities.file.read_text())
    state = Path("/var/lib/pgwitness")
    paths = (config.lake.path, config.privacy.key_file, config.collectors.state_path, config.worker.data_path)
    for path in (*paths, config.gateway.spool.path):
        assert path.is_relative_to(state), f"{path} would not outlive the container"


def test_compose_asks_each_daemon_at_its_own_port_and_opens_what_it_serves() -> None:
    """A healthcheck asks the port of `[http]`; what is opened is listened on; who keeps to itself writes no lake."""
    config = load(DEPLOY / "compose" / "pgwitness.toml", {})
    services = compose()["services"]
    ports = {
        "collect": config.http.collect_port,
        "worker": config.http.worker_port,
        "gateway": config.http.gateway_port,
    }
    for name, port in ports.items():
        assert f"127.0.0.1:{port}/readyz" in services[name]["healthcheck"]["test"][-1], name
    for name, listen in (("gateway", config.gateway.listen), ("console", config.console.listen)):
        port = listen.rpartition(":")[2]
        assert services[name]["ports"] == [f"127.0.0.1:{port}:{port}"]
    for name in ("console", "seal"):
        assert "evidence:/var/lib/pgwitness:ro" in services[name]["volumes"], name
    assert config.console.users_file.is_relative_to("/var/lib/pgwitness-console")


def test_compose_gives_the_first_start_a_script_that_parses() -> None:
    """The script of the first start is valid for sh, and can be executed."""
    script = DEPLOY / "compose" / "first-start.sh"
    assert script.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_the_image_is_built_from_files_that_are_there() -> None:
    """Everything the Dockerfile copies exists and passes its .dockerignore; it does not run as root."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    copied = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    assert set(PACKAGES) <= set(copied)
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in allowed, name
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert not users[-1].startswith(("root", "0"))


def test_what_the_image_leaves_out_is_not_missed(tmp_path: Path) -> None:
    """What slim.sh takes out of an environment is gone, and everything that the daemons import is still there."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python3*/site-packages")
    for found in Path(sysconfig.get_path("purelib")).iterdir():
        if found.name == "pyarrow":
            shutil.copytree(found, packages / "pyarrow")
        else:
            (packages / found.name).symlink_to(found)
    subprocess.run(["sh", DEPLOY / "slim.sh", environment], check=True)
    assert not any(packages.glob("pyarrow/libarrow_flight*"))
    assert not (packages / "pyarrow" / "tests").exists()
    assert Path(sysconfig.get_path("purelib"), "pyarrow", "tests").exists()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_run_commands_that_exist(unit: Path) -> None:
    """A unit's ExecStart is a command of the program with options it has."""
    starts = [line for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
    assert len(starts) == 1
    program, *words = shlex.split(starts[0].removeprefix("ExecStart=").replace("%i", "shop"))
    assert Path(program).name == "pgwitness"
    assert refuse(words) is None


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_accepted_by_systemd_and_hardened(unit: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing, and rates the exposure 2.0 or better."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        leave_out("systemd-analyze is not installed (Debian: apt-get install systemd)")
    # The program is not installed where the unit expects it; every other word stays.
    text = unit.read_text().replace("/opt/pgwitness/bin/pgwitness", shutil.which("true") or "/bin/true")
    copy = tmp_path / unit.name.replace("@.", "@shop.")
    copy.write_text(text)
    verify = subprocess.run(
        [str(analyze), "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    # Where systemd is not the init, the tool says so on stderr; what it says of a unit names the unit.
    assert (verify.returncode, unit.stem.split("@")[0] in verify.stderr) == (0, False), verify.stderr
    rating = subprocess.run(
        [str(analyze), "security", "--offline=true", "--threshold=20", "--no-pager", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rating.returncode == 0, rating.stdout[-300:] + rating.stderr


def test_the_jars_for_kafka_are_pinned() -> None:
    """Every dependency and plug-in of the pom has one version, and Kafka's is a 4."""
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    tree = ElementTree.parse(DEPLOY / "kafka" / "pom.xml")
    versions = {}
    for kind in ("dependency", "plugin"):
        for element in tree.iterfind(f".//m:{kind}", space):
            versions[element.findtext("m:artifactId", None, space)] = element.findtext("m:version", "", space)
    assert re.fullmatch(r"4\.\d+\.\d+", versions["kafka_2.13"])
    assert all(re.fullmatch(r"[\d.]+", version) for version in versions.values()), versions


def commands_in(text: str) -> list[str]:
    """Find the command lines of pgwitness in a text: in backticks, and in lines of code blocks."""
    found = re.findall(r"`(pgwitness [^`]+)`", text)
    for block in re.findall(r"```(?:sh|console)?\n(.*?)```", text, re.DOTALL):
        found += [line.removeprefix("$ ").strip() for line in block.splitlines() if "pgwitness " in line]
    return [line[line.index("pgwitness ") :] for line in found]


def test_the_runbooks_commands_exist() -> None:
    """Every command in the runbook is one that the program takes."""
    commands = [line for line in commands_in(RUNBOOK.read_text()) if not line.startswith("pgwitness -")]
    assert len(commands) > 10
    wrong = {line: why for line in commands if (why := refuse(shlex.split(line, comments=True)[1:])) is not None}
    assert wrong == {}


def test_the_runbooks_settings_exist() -> None:
    """Every setting that the runbook names is one of the configuration."""
    text = RUNBOOK.read_text()
    tables = {field.encode_name for field in msgspec.structs.fields(Config)} - {"clusters", "kafka"}
    named = [name.split(".") for name in re.findall(r"`([a-z]+\.[a-z_.]+)`", text)]
    settings = [path for path in named if path[0] in tables and path[-1] not in ("toml", "yaml", "py", "key")]
    assert settings
    assert [path for path in settings if not setting_exists(path)] == []
    for name in re.findall(rf"{ENVIRONMENT_PREFIX}([A-Z_]+__[A-Z_]+)", text):
        assert setting_exists(name.lower().split("__")), name


def test_the_runbook_explains_every_metric() -> None:
    """Each metric that a daemon serves stands in the runbook, and each that stands there is served."""
    served = metrics()
    named = set(re.findall(r"`(pgwitness_[a-z0-9_]+)", RUNBOOK.read_text()))
    assert served - named == set()
    assert named - served == set()


def metrics() -> set[str]:
    """Import everything and list the metrics that are defined, as Prometheus shows them.

    In a process of its own, so that importing everything changes nothing for other tests.
    """
    program = (
        "import importlib, pkgutil\n"
        "from prometheus_client import REGISTRY\n"
        f"for name in {PACKAGES!r}:\n"
        "    package = importlib.import_module(name)\n"
        "    for module in pkgutil.walk_packages(package.__path__, name + '.'):\n"
        "        if not module.name.endswith('__main__'):\n"
        "            importlib.import_module(module.name)\n"
        "for family in REGISTRY.collect():\n"
        "    print(family.name + ('_total' if family.type == 'counter' else ''))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split() if name.startswith("pgwitness_")}


def test_the_runbook_explains_every_reason_of_a_dead_letter_and_a_gap() -> None:
    """Each reason that the code can give for a dead letter or a gap stands in the runbook."""
    text = RUNBOOK.read_text()
    reasons: set[str] = set()
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            source = file.read_text()
            reasons |= set(re.findall(r'DeadLetter\(\s*"([a-z_]+)"', source))
            reasons |= set(re.findall(r'Gap\([^"]*?reason="([a-z_]+)"', source))
            reasons |= set(re.findall(r'\b(?:_?gap|Loss)\(\s*"([a-z_]+)"', source))
            tells_gaps = re.search(r"\b(?:_?gap|Gap|Loss)\(", source) is not None  # others have reasons of their own
            for line in re.findall(r"^ +reason = (.*)", source, re.MULTILINE) if tells_gaps else ():
                reasons |= set(re.findall(r'"([a-z_]+)"', line))
    assert {"not_a_batch", "wrong_shape", "slot_lost"} <= reasons
    gaps = (ROOT / "docs" / "reference" / "events.md").read_text().partition("slot_lost")[2]
    reasons |= set(re.findall(r"^\| `([a-z_]+)` \|", gaps, re.MULTILINE))
    assert {reason for reason in reasons if f"`{reason}`" not in text} == set()


def test_the_runbook_knows_every_finding() -> None:
    """Each packaged policy and each detector of the code stands in the table of findings; nothing else does."""
    table = RUNBOOK.read_text().partition("## Findings")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    source = "".join(file.read_text() for file in (ROOT / "detectors").rglob("*.py"))
    detectors = set(re.findall(r'detector=f?"([a-z_]+)', source)) - {"policy"}
    assert {"behaviour", "behaviour_group", "digest"} <= detectors
    assert named == {*Bundle.packaged().policies, *detectors}


def test_the_documents_say_what_was_not_run() -> None:
    """Whoever relies on the image or the compose file learns that the tests cannot run them."""
    assert "not run" in (DEPLOY / "README.md").read_text()


def test_configurations_in_deploy_are_toml() -> None:
    """Every TOML file in deploy/ parses."""
    files = list(DEPLOY.rglob("*.toml"))
    assert files
    for file in files:
        tomllib.loads(file.read_text())
