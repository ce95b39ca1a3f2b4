"""The kit that needs no cluster to be checked: rules, dashboards, the chart's values and what its manifests run.

helm, kubeconform and promtool look at the same files in `make kit`.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from deploy.grafana import dashboards
from detectors.policy.files import packaged_files
from pgwitness.core.config import load
from streams.identity.identities import Identities
from tests.deploy.test_deploy import commands_in, metrics, refuse

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "helm" / "pgwitness"
RULES = DEPLOY / "prometheus" / "rules.yaml"
RUNBOOK = DEPLOY / "runbook.md"
OTHERS = {"up"}
SUFFIX = re.compile(r"_(bucket|count|sum)$")


def manifests() -> list[dict[str, Any]]:
    """Read the plain manifests."""
    text = (DEPLOY / "kubernetes" / "pgwitness.yaml").read_text()
    return [document for document in yaml.safe_load_all(text) if document]


def pods() -> dict[str, dict[str, Any]]:
    """List the pods that the manifests make, by the name of what makes them."""
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in manifests()
        if "template" in one.get("spec", {})
    }


@pytest.fixture(scope="module")
def served() -> set[str]:
    """The metrics that daemons serve."""
    return metrics()


def named(expression: str) -> set[str]:
    """List the metrics that an expression asks for."""
    return {SUFFIX.sub("", name) for name in re.findall(r"\bpgwitness_[a-z0-9_]+", expression)}


def test_rules_ask_for_metrics_that_are_served_and_name_a_place_in_the_runbook(served: set[str]) -> None:
    """Of each alert: its metrics, its heading in the runbook, the commands it tells to run."""
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in RUNBOOK.read_text().splitlines()
        if line.startswith("## ")
    }
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 15
    for rule in rules:
        assert named(rule["expr"]) <= served, rule["alert"]
        assert named(rule["expr"]) or "up{" in rule["expr"], rule["alert"]
        place = rule["annotations"]["runbook"].removeprefix("deploy/runbook.md#")
        assert place in headings, rule["alert"]
        for line in commands_in(rule["annotations"]["description"]):
            assert refuse(shlex.split(line)[1:]) is None, line


def test_each_metric_that_must_stay_zero_has_a_rule() -> None:
    """What the runbook wants somebody to look at as soon as it is not 0 wakes somebody."""
    wanted = set(re.findall(r"^\| `(pgwitness_[a-z_]+)`[^|]*\|[^|]*\| it is not 0", RUNBOOK.read_text(), re.MULTILINE))
    assert len(wanted) > 3
    assert wanted - named(RULES.read_text()) == set()


@pytest.mark.parametrize("name", sorted(dashboards.DASHBOARDS))
def test_dashboards_are_what_their_program_writes(name: str, served: set[str]) -> None:
    """They ask for metrics that are served; no panel lies over another."""
    text = (DEPLOY / "grafana" / f"{name}.json").read_text()
    assert text == dashboards.written(name), "run `python deploy/grafana/dashboards.py`"
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(text)["panels"]:
        for target in panel.get("targets", []):
            assert named(target["expr"]), panel["title"]
            assert named(target["expr"]) <= served, panel["title"]
        at = panel["gridPos"]
        places = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not places & taken, panel["title"]
        assert at["x"] + at["w"] <= dashboards.WIDTH
        taken |= places


def test_values_are_what_their_schema_says() -> None:
    """The defaults, and everything switched on; what is unknown is refused."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema.validate(values, schema)
    everything = yaml.safe_load((DEPLOY / "kubernetes" / "everything.yaml").read_text())
    assert everything.keys() <= values.keys()
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**values, "wroker": {}}, schema)
    documented = set(schema["properties"]) - {"global"}
    assert documented == values.keys()


def test_the_charts_configuration_loads(tmp_path: Path) -> None:
    """By the program, with its identities."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    (tmp_path / "pgwitness.toml").write_text(values["config"])
    config = load(tmp_path / "pgwitness.toml", {})
    assert list(config.clusters) == list(values["collect"]["clusters"])
    Identities.parse(values["identities"])
    for path in (config.collectors.state_path, config.worker.data_path, config.gateway.spool.path):
        assert path.is_relative_to("/var/lib/pgwitness"), path


def test_pods_run_commands_that_exist_and_may_do_little() -> None:
    """Each daemon's words are the program's; nobody is root, nothing is written but where it belongs."""
    found = pods()
    assert {"pgwitness-worker", "pgwitness-collect-shop", "pgwitness-compact", "pgwitness-topics"} <= found.keys()
    for name, pod in found.items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not pod["automountServiceAccountToken"], name
        for container in (*pod["containers"], *pod["initContainers"]):
            confined = container["securityContext"]
            assert confined["readOnlyRootFilesystem"], name
            assert not confined["allowPrivilegeEscalation"], name
            assert confined["capabilities"] == {"drop": ["ALL"]}, name
            assert "memory" in container["resources"]["limits"], name
        (container,) = pod["containers"]
        assert refuse([str(word) for word in container["args"]]) is None, name
        mounted = {volume["name"] for volume in pod["volumes"]}
        for mount in container["volumeMounts"]:
            assert mount["name"] in mounted or (mount["name"] == "state" and name != "pgwitness-compact"), name


def test_manifests_have_the_packaged_policies_and_the_charts_configuration() -> None:
    """What is in them as text is what is in the package now."""
    held = {one["metadata"]["name"]: one["data"] for one in manifests() if one["kind"] == "ConfigMap"}
    assert held["pgwitness-policies"] == packaged_files(), "ACCEPT=1 make kit writes them"
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert held["pgwitness"] == {"pgwitness.toml": values["config"], "identities.yaml": values["identities"]}


def test_probes_ask_the_port_that_the_daemon_serves() -> None:
    """The ports are those of `[http]`, where the configuration does not say otherwise."""
    http = load(DEPLOY / "compose" / "pgwitness.toml", {}).http
    ports = {"collect": http.collect_port, "worker": http.worker_port, "lake": http.compact_port}
    for name, pod in pods().items():
        (container,) = pod["containers"]
        if (word := container["args"][0]) in ports:
            assert container["ports"][0] == {"name": "metrics", "containerPort": ports[word]}, name


def test_each_daemon_has_a_unit() -> None:
    """What the chart can run, systemd can, and Compose but for the tools for agents."""
    units = {path.stem.removeprefix("pgwitness-").rstrip("@") for path in (DEPLOY / "systemd").glob("*.service")}
    wanted = {"collect", "worker", "gateway", "deliver", "seal", "compact", "retain", "console", "mcp"}
    assert units == wanted
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert wanted - {"mcp"} <= services.keys()
    assert wanted <= yaml.safe_load((CHART / "values.yaml").read_text()).keys()
