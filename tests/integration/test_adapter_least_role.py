"""The adapter has the least rights: each rule of its roles is taken away from it in turn, on a real API server, and something breaks."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.broker import Broker
from tests.support.kubernetes.adapter import AdapterProcess, manifest
from tests.support.kubernetes.lab import KubernetesLab
from tests.support.kubernetes.manifests import MANIFESTS, named, objects
from tests.support.kubernetes.virt import Virt
from tests.support.topic_writer import TopicWriter
from tests.support.vm_samples import WALL, inventory, sample
from virtflow.schemas.topics import INVENTORY, METRICS

ROLES: Final = "/apis/rbac.authorization.k8s.io/v1/clusterroles/virtflow-adapter"
BINDINGS: Final = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/rolebindings"
API: Final = "/apis/custom.metrics.k8s.io/v1beta2"
VALUE: Final = f"{API}/namespaces/shop/pods/*/vm_cpu_cores"
SECONDS: Final = 60.0
INTERVAL: Final = 2.0
ROLE: Final = named(objects((MANIFESTS / "adapter.yaml").read_text()), "ClusterRole", "virtflow-adapter")
RULES: Final = [(resource, verb) for rule in ROLE["rules"] for resource in rule["resources"] for verb in rule["verbs"]]
"""Every right of the ClusterRole by itself."""


@dataclass
class Cluster:
    """A cluster with one VM, whose samples go on, and where its adapter is registered."""

    lab: KubernetesLab
    virt: Virt
    writer: TopicWriter
    broker: Broker
    port: int
    sequence: int = 0

    def adapter(self, folder: Path) -> AdapterProcess:
        """An adapter in the place that is registered."""
        settings = {"ADAPTER_API_LISTEN": f"127.0.0.1:{self.port}"}
        return AdapterProcess(folder, self.broker.address, self.writer.prefix, self.lab, settings)

    def ask(self) -> tuple[int, str]:
        """After another sample, the status of a request for the VM's value, and the message of what was refused."""
        self.sequence += 1
        moment = WALL + self.sequence * INTERVAL
        fields = {"collected": moment, "monitor_collected": moment, "interval": INTERVAL, "cpu_seconds_total": self.sequence / 10}
        self.writer.write(METRICS, sample(1, self.sequence, **fields))
        try:
            return 200, json.dumps(self.lab.get(VALUE)["items"])
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode()
            return error.code, json.loads(text)["message"] if text.startswith("{") else text

    def grant(self, without: tuple[str, str] | None = None) -> None:
        """Gives the adapter's role all rights but one."""
        role = deepcopy(ROLE)
        if without is not None:
            resource, verb = without
            for rule in role["rules"]:
                if resource in rule["resources"]:
                    rule["verbs"].remove(verb)
            role["rules"] = [rule for rule in role["rules"] if rule["verbs"]]
        self.lab.call("PUT", ROLES, role)


@pytest.fixture(scope="module")
def cluster(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with KubernetesLab(tmp_path_factory.mktemp("kubernetes")) as lab:
        virt, writer = Virt(lab, "shop"), TopicWriter(broker.address)
        virt.make_vm("web-0", {"app": "web"})
        writer.write(INVENTORY, inventory(1, platform="kubevirt", namespace="shop", platform_name="web-0"))
        port = AdapterProcess(tmp_path_factory.mktemp("port"), broker.address, writer.prefix, lab).api_port
        lab.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifest(lab, port)}))
        yield Cluster(lab, virt, writer, broker, port)


@pytest.fixture(autouse=True)
def all_rights(cluster: Cluster) -> Iterator[None]:
    """Each test begins and ends with all of them."""
    cluster.grant()
    yield
    cluster.grant()


def test_with_all_rules_it_answers(cluster: Cluster, tmp_path: Path) -> None:
    """Nothing is missing; so what the others lose is by the rule."""
    with cluster.adapter(tmp_path) as adapter:
        cluster.lab.wait_until(lambda: cluster.ask()[0] == 200, SECONDS, "a value")
        for resource in {name for name, verb in RULES if verb == "watch"}:
            adapter.wait_until(lambda name=resource: watched(adapter, name) == 1, SECONDS, f"{resource} are followed")  # type: ignore[misc]


def watched(adapter: AdapterProcess, resource: str) -> float | None:
    """Whether the adapter says that it follows a resource, whose name there has its group."""
    found = [value for (name, labels), value in adapter.series().items()
             if name == "virtflow_adapter_watched" and dict(labels)["resource"].partition(".")[0] == resource]  # fmt: skip
    return found[0] if found else None


@pytest.mark.parametrize("resource", [resource for resource, verb in RULES if verb == "list"])
def test_without_a_list_no_value_is_known(cluster: Cluster, resource: str, tmp_path: Path) -> None:
    """It can't say which VMs there are: 503 that names the resource, and discovery goes on."""
    cluster.grant(without=(resource, "list"))
    with cluster.adapter(tmp_path) as adapter:
        cluster.lab.wait_until(lambda: resource in cluster.ask()[1], SECONDS, f"{resource} are missing")
        status, message = cluster.ask()
        assert status == 503
        assert "403" in message
        assert watched(adapter, resource) == 0
        assert cluster.lab.status(API) == 200


@pytest.mark.parametrize("resource", [resource for resource, verb in RULES if verb == "watch"])
def test_without_a_watch_objects_are_listed_again_and_again(cluster: Cluster, resource: str, tmp_path: Path) -> None:
    """Values are answered, but by lists, whose number grows: virtflow_adapter_watched is 0."""
    cluster.grant(without=(resource, "watch"))
    with cluster.adapter(tmp_path) as adapter:
        cluster.lab.wait_until(lambda: cluster.ask()[0] == 200, SECONDS, "a value")
        adapter.wait_until(lambda: watched(adapter, resource) == 0 and lists(adapter, resource) > 2, SECONDS, "they are listed again")
        assert "403" in adapter.log.read_text()


def lists(adapter: AdapterProcess, resource: str) -> float:
    """How often a resource was listed."""
    return sum(value for (name, labels), value in adapter.series().items()
               if name == "virtflow_adapter_lists_total" and dict(labels)["resource"].partition(".")[0] == resource)  # fmt: skip


def test_without_access_reviews_nobody_is_answered(cluster: Cluster, tmp_path: Path) -> None:
    """Nobody gets a value whose right can't be asked for."""
    cluster.grant(without=("subjectaccessreviews", "create"))
    with cluster.adapter(tmp_path) as adapter:
        adapter.wait_until(lambda: watched(adapter, "pods") == 1, SECONDS, "objects are known")
        cluster.lab.wait_until(lambda: "subjectaccessreviews" in cluster.ask()[1], SECONDS, "the right is missing")
        assert cluster.ask()[0] == 503
        assert cluster.lab.status(API) == 200


def test_without_the_front_proxys_configmap_nobody_is_trusted(cluster: Cluster, tmp_path: Path) -> None:
    """The binding in kube-system: the adapter does not become ready, and not even discovery is answered."""
    binding = cluster.lab.get(f"{BINDINGS}/virtflow-adapter")
    cluster.lab.call("DELETE", f"{BINDINGS}/virtflow-adapter")
    try:
        with cluster.adapter(tmp_path) as adapter:
            adapter.wait_until(lambda: "can't be read" in adapter.log.read_text(), SECONDS, "the ConfigMap is refused")
            assert "front proxy" in adapter.reason()
            assert adapter.status("/readyz") == 503
            cluster.lab.wait_until(lambda: cluster.lab.status(API) == 503, SECONDS, "the API is not available")
    finally:
        kept: dict[str, Any] = {key: value for key, value in binding.items() if key != "metadata"}
        cluster.lab.call("POST", BINDINGS, {**kept, "metadata": {"name": binding["metadata"]["name"]}})


def test_every_right_was_taken_away(cluster: Cluster) -> None:
    """No right of the role is left out above, and no other one is bound to the adapter."""
    assert {verb for _, verb in RULES} == {"list", "watch", "create"}
    assert [resource for resource, verb in RULES if verb == "create"] == ["subjectaccessreviews"]
    subjects = [one for path in ("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "/apis/rbac.authorization.k8s.io/v1/rolebindings")
                for one in cluster.lab.get(path)["items"]
                if {"kind": "ServiceAccount", "name": "virtflow-adapter", "namespace": "virtflow"} in one.get("subjects", [])]  # fmt: skip
    assert sorted(one["roleRef"]["name"] for one in subjects) == ["extension-apiserver-authentication-reader", "virtflow-adapter"]
