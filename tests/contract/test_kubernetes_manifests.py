"""The plain manifests: commands and settings that virtflow knows, the least rights, and what alerts and docs/kubernetes.md say of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support.command_line import parse_command_line
from tests.support.kubernetes.manifests import CHART, MANIFESTS, ROOT, containers, named, objects, pods, settings
from tools.helm.manifests import DIGEST, digest
from virtflow.runtime.config_files import SECTIONS
from virtflow.runtime.configuration import load, rows
from virtflow.runtime.version import version
from virtflow.schemas.catalogue.scaling import BY_SCALING_NAME

FILES: Final = sorted(MANIFESTS.glob("*.yaml"))
EXAMPLES: Final = sorted((MANIFESTS / "examples").glob("*.yaml"))
ALL: Final = [one for file in FILES for one in objects(file.read_text())]
CONTAINERS: Final = list(containers(ALL))
PRODUCERS: Final = frozenset({"virtflow-producer", "virtflow-producer-libvirt"})
CAPABILITIES: Final = {"virtflow-producer": ["SYS_PTRACE", "DAC_OVERRIDE"]}
"""What a container may have at all; all others have none."""
COMPONENTS: Final = ("producer.kubevirt", "producer.libvirt", "processors", "exporter", "history.writer", "history.server", "adapter")
JOBS: Final = {"virtflow-exporter": "virtflow", "virtflow-processors": "virtflow-processors", "virtflow-history": "virtflow-history",
               "virtflow-history-server": "virtflow-history-serve", "virtflow-adapter": "virtflow-adapter"}  # fmt: skip


def each_container() -> pytest.MarkDecorator:
    """The test once for each container."""
    return pytest.mark.parametrize(("workload", "container"), CONTAINERS, ids=[one["metadata"]["name"] for one, _ in CONTAINERS])


def test_they_were_rendered_from_this_chart() -> None:
    """Helm itself compares them with ``--long``; this test only sees that the chart was not changed since."""
    assert DIGEST.read_text().split()[0] == digest(), "run scripts/render-kubernetes"


def test_the_charts_schema_and_defaults_have_the_same_names() -> None:
    """Each value has a default, and each default is a value."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    del values["settings"]
    assert value_names(values) == {name for name in schema_names(schema) if name.split(".")[0] not in {"settings", "global", "enabled"}} - {
        f"{component}.resources.claims" for component in COMPONENTS
    }


def value_names(values: dict[str, Any], before: str = "") -> set[str]:
    """Paths of all values, those of a map that Kubernetes or the user defines not followed."""
    open_maps = {"nodeSelector", "affinity", "podAnnotations", "requests", "limits", "labels", "endpoint"}
    found = set()
    for name, value in values.items():
        closed = isinstance(value, dict) and name not in open_maps
        found |= value_names(value, f"{before}{name}.") if closed else {f"{before}{name}"}
    return found


def schema_names(schema: dict[str, Any], before: str = "") -> set[str]:
    """Paths of all values that a schema names."""
    found = set()
    for name, one in schema["properties"].items():
        found |= schema_names(one, f"{before}{name}.") if "properties" in one else {f"{before}{name}"}
    return found


def test_every_part_is_there() -> None:
    """One workload for each."""
    names = {workload["metadata"]["name"] for workload, _ in CONTAINERS}
    assert names == {*PRODUCERS, *JOBS}


@each_container()
def test_commands_and_settings_are_ours(workload: dict[str, Any], container: dict[str, Any]) -> None:
    """Every variable is a setting that the part reads, with a value that it takes; ports are those that it listens on."""
    assert parse_command_line(container["args"]) == " ".join(["virtflow", *container["args"]])
    part = container["args"][0]
    given = settings(container)
    known = {row.variable: row for row in rows() if row.section in SECTIONS[part]}
    assert set(given) - set(known) == set()
    read = load(None, given)
    assert read.kafka.bootstrap_servers == "kafka:9092"
    listened = {value.rpartition(":")[2] for name, value in given.items() if name.endswith("LISTEN")}
    assert {str(port["containerPort"]) for port in container.get("ports", [])} == listened
    assert bool(listened) is (workload["metadata"]["name"] not in PRODUCERS)


@each_container()
def test_rights_are_the_least(workload: dict[str, Any], container: dict[str, Any]) -> None:
    """Not privileged, a read-only root, the runtime's own filter of system calls, and capabilities for KubeVirt's nodes alone."""
    name, pod = workload["metadata"]["name"], workload["spec"]["template"]["spec"]
    rights = container["securityContext"]
    assert not rights.get("privileged", False)
    assert (rights["allowPrivilegeEscalation"], rights["readOnlyRootFilesystem"]) == (False, True)
    assert rights["capabilities"]["drop"] == ["ALL"]
    assert rights["capabilities"].get("add", []) == CAPABILITIES.get(name, [])
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["securityContext"].get("runAsNonRoot", False) is (name != "virtflow-producer")
    assert pod.get("hostPID", False) is (name in PRODUCERS)
    assert not {"hostNetwork", "hostIPC"} & set(pod)
    assert pod["automountServiceAccountToken"] is (name == "virtflow-adapter")
    assert "memory" in container["resources"]["limits"]


def test_hosts_files_are_the_journal_and_libvirts_sockets() -> None:
    """Of the node; the sockets can't be changed, and the one that may write is not the producer's user's."""
    paths = {
        workload["metadata"]["name"]: [volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume]
        for workload, pod in pods(ALL)
    }
    assert {name: found for name, found in paths.items() if found} == {
        "virtflow-producer": ["/var/lib/virtflow"],
        "virtflow-producer-libvirt": ["/var/lib/virtflow", "/run/libvirt"],
    }
    (container,) = named(ALL, "DaemonSet", "virtflow-producer-libvirt")["spec"]["template"]["spec"]["containers"]
    assert {"name": "libvirt", "mountPath": "/run/libvirt", "readOnly": True} in container["volumeMounts"]


def test_images_have_this_version() -> None:
    """A manifest of a release runs that release."""
    assert {container["image"] for _, container in CONTAINERS} == {f"virtflow-producer:{version()}", f"virtflow-centre:{version()}"}
    chart = yaml.safe_load((ROOT / "deploy" / "helm" / "virtflow" / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version(), version())


def test_the_adapter_is_never_away_by_intent() -> None:
    """Two replicas on different nodes where there are some; updates and drained nodes leave one."""
    deployment, budget = named(ALL, "Deployment", "virtflow-adapter"), named(ALL, "PodDisruptionBudget", "virtflow-adapter")
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert "podAntiAffinity" in deployment["spec"]["template"]["spec"]["affinity"]
    assert budget["spec"]["minAvailable"] == 1
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]


def test_alerts_are_those_of_prometheus() -> None:
    """The PrometheusRule holds the groups of the rule files, and each job of the monitors is one that rules ask by name."""
    groups = [group for name in ("rules", "alerts") for group in _groups(name)]
    assert named(ALL, "PrometheusRule", "virtflow-rules")["spec"]["groups"] == groups
    monitors = [one for one in ALL if one["kind"] == "ServiceMonitor"]
    jobs = {}
    for one in monitors:
        (endpoint,) = one["spec"]["endpoints"]
        assert endpoint["honorLabels"] is True, "a VM's namespace would be the exporter's"
        assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": JOBS[one["metadata"]["name"]]}]
        jobs[one["metadata"]["name"]] = JOBS[one["metadata"]["name"]]
        assert (
            one["spec"]["selector"]["matchLabels"].items() <= named(ALL, "Service", one["metadata"]["name"])["metadata"]["labels"].items()
        )
    assert jobs == JOBS


def _groups(name: str) -> list[Any]:
    found: list[Any] = yaml.safe_load((ROOT / "deploy" / "prometheus" / f"{name}.yml").read_text())["groups"]
    return found


def test_every_part_has_its_network_policy() -> None:
    """Which lets nothing in that the part does not serve."""
    policies = {one["metadata"]["name"]: one["spec"] for one in ALL if one["kind"] == "NetworkPolicy"}
    assert set(policies) == {*PRODUCERS, *JOBS}
    for workload, container in CONTAINERS:
        name = workload["metadata"]["name"]
        opened = {port["port"] for rule in policies[name]["ingress"] for port in rule["ports"]}
        assert opened == {port["name"] for port in container.get("ports", [])}
        assert policies[name]["podSelector"] == workload["spec"]["selector"]


def test_services_and_monitors_find_their_pods() -> None:
    """By the labels of the pods that listen."""
    labels = {workload["metadata"]["name"]: workload["spec"]["template"]["metadata"]["labels"] for workload, _ in CONTAINERS}
    services = [one for one in ALL if one["kind"] == "Service"]
    assert {one["metadata"]["name"] for one in services} == set(JOBS)
    for one in services:
        assert one["spec"]["selector"] == labels[one["metadata"]["name"]]


def test_the_page_names_every_right_of_the_adapter() -> None:
    """And no other one: the table of docs/helm.md."""
    rows = re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|", (ROOT / "docs" / "helm.md").read_text(), re.MULTILINE)
    rules = named(ALL, "ClusterRole", "virtflow-adapter")["rules"]
    assert [(name, re.findall(r"\w+", verbs)) for name, verbs in rows] == [(rule["resources"][0], rule["verbs"]) for rule in rules]
    assert all(len(rule["resources"]) == 1 for rule in rules)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda path: path.stem)
def test_examples_scale_by_metrics_that_there_are(file: Path) -> None:
    """Whose target fits: a ratio is an average already."""
    (scaler,) = objects(file.read_text())
    for metric in scaler["spec"]["metrics"]:
        name, target = metric["object"]["metric"]["name"], metric["object"]["target"]
        assert name in BY_SCALING_NAME
        assert target["type"] == ("Value" if name.endswith("_ratio") else "AverageValue")
        assert metric["object"]["describedObject"] == scaler["spec"]["scaleTargetRef"]
