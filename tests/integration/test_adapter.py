"""The adapter with a real API server: what it says of VMs, to whom, and that it never stands in the cluster's way."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.broker import Broker
from tests.support.doc_blocks import all_blocks
from tests.support.exporter_process import ExporterProcess
from tests.support.kubernetes.adapter import MANIFEST, AdapterProcess, external, manifest
from tests.support.kubernetes.certificates import Certificate
from tests.support.kubernetes.lab import KubernetesLab
from tests.support.kubernetes.virt import Virt
from tests.support.topic_writer import TopicWriter
from tests.support.vm_samples import WALL, inventory, sample, uuid
from virtflow.schemas.fields import BlockMetrics, NetworkMetrics
from virtflow.schemas.records import VmMetrics
from virtflow.schemas.topics import INVENTORY, METRICS

CUSTOM: Final = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop"
OLDER: Final = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/shop"
EXTERNAL: Final = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop"
SETS: Final = "virtualmachineinstancereplicasets.kubevirt.io"
POOLS: Final = "virtualmachinepools.pool.kubevirt.io"
INTERVAL: Final = 2.0
SECONDS: Final = 30.0
UNKNOWN: Final = frozenset({404, 503})
"""Statuses of what has no value, or none yet."""
VMS: Final = {"web-0": 1, "web-1": 2, "web-2": 3, "db-0": 4, "db-1": 5}
"""The VMs by name, a set and a pool of them, with the numbers of their samples: as many tenths of a CPU they use."""


def used(number: int, sequence: int, **fields: object) -> VmMetrics:
    """A sample of a VM in an even life, on a node whose clock is its own: values are fresh by their arrival, rates by these times."""
    grown = sequence * INTERVAL
    given: dict[str, Any] = {
        "interval": INTERVAL,
        "collected": WALL + grown,
        "monitor_collected": WALL + grown,
        "cpu_seconds_total": 100.0 + number * grown / 10,
        "vcpus_current": 1,
        "memory_rss_bytes": number * 2**20,
        "guest_memory_total_bytes": 1000,
        "guest_memory_usable_bytes": 250,
        "networks": [NetworkMetrics(device="vnet0", receive_bytes_total=int(100 * grown), transmit_bytes_total=int(50 * grown))],
        "blocks": [BlockMetrics(device=name, read_bytes_total=int(1000 * grown), write_bytes_total=0) for name in ("vda", "vdb")],
    }
    return sample(number, sequence, **{**given, **fields})


class Cloud:
    """A cluster, its VMs, their samples on a broker, and an adapter that is registered."""

    def __init__(self, lab: KubernetesLab, virt: Virt, writer: TopicWriter, adapter: AdapterProcess) -> None:
        """No round has been sampled yet."""
        self.lab, self.virt, self.writer, self.adapter = lab, virt, writer, adapter
        self.sequence = 0
        """That of the newest round."""

    def sample(self, *names: str, rounds: int = 1) -> None:
        """The next rounds of these VMs, of all where none is named."""
        for _ in range(rounds):
            self.sequence += 1
            for name in names or VMS:
                self.writer.offer(METRICS, used(VMS[name], self.sequence))
        self.writer.flush()

    def ask(self, path: str, user: Certificate | None = None) -> dict[str, Any]:
        """The answer, through the API server."""
        found: dict[str, Any] = self.lab.get(path, user)
        return found

    def values(self, path: str) -> dict[str, str]:
        """Quantities by the names of the objects; empty where nothing is found."""
        try:
            return {item["describedObject"]["name"]: item["value"] for item in self.ask(path)["items"]}
        except urllib.error.HTTPError as error:
            with error:
                if error.code in UNKNOWN:
                    return {}
            raise

    def await_value(self, path: str, name: str, value: str) -> None:
        """Samples until an object has a value."""

        def there() -> bool:
            self.sample()
            return self.values(path).get(name) == value

        self.lab.wait_until(there, SECONDS, f"{name} of {path} is {value}")

    def refusal(self, path: str, user: Certificate | None = None) -> tuple[int, str]:
        """Status and message of a request that is refused."""
        with pytest.raises(urllib.error.HTTPError) as refused:
            self.ask(path, user)
        with refused.value as error:
            return error.code, json.loads(error.read())["message"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesLab]:
    with KubernetesLab(tmp_path_factory.mktemp("kubernetes")) as running:
        yield running


@pytest.fixture(scope="module")
def cloud(lab: KubernetesLab, broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A set web of three VMs and a pool db of two."""
    virt, writer = Virt(lab, "shop"), TopicWriter(broker.address)
    virt.make_set("web", 3)
    virt.follow("web")
    virt.make_pool("db", 2)
    for name, number in VMS.items():
        writer.offer(INVENTORY, inventory(number, platform="kubevirt", namespace="shop", platform_name=name))
    writer.flush()
    folder = tmp_path_factory.mktemp("adapter")
    adapter = AdapterProcess(folder, broker.address, writer.prefix, lab, {"ADAPTER_EXTERNAL": "true"})
    documents = manifest(lab, adapter.api_port)
    lab.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [*documents, external(documents[-1])]}))
    with adapter:
        adapter.wait_until_ready()
        running = Cloud(lab, virt, writer, adapter)
        groups = (CUSTOM, OLDER, EXTERNAL)
        lab.wait_until(lambda: all(lab.status(path.split("/namespaces")[0]) == 200 for path in groups), SECONDS, "the APIs are registered")
        running.await_value(f"{CUSTOM}/{SETS}/web/vm_cpu_cores", "web", "600m")
        yield running


def test_discovery_lists_every_metric(cloud: Cloud) -> None:
    """As kubectl sees it, in both versions."""
    for version in ("v1beta1", "v1beta2"):
        names = {one["name"] for one in cloud.ask(f"/apis/custom.metrics.k8s.io/{version}")["resources"]}
        assert {"pods/vm_cpu_cores", f"{SETS}/vm_cpu_usage_ratio", "namespaces/vm_block_bytes_per_second"} <= names
    services = [
        one for one in cloud.ask("/apis/apiregistration.k8s.io/v1/apiservices")["items"] if "metrics" in one["spec"].get("group", "")
    ]
    available = [one["status"] for service in services for one in service["status"]["conditions"] if one["type"] == "Available"]
    assert available == ["True"] * 3


def test_kubectl_gets_what_metrics_says_of_the_same_moment(cloud: Cloud, broker: Broker, tmp_path: Path) -> None:
    """Gauges are the exporter's values; rates are the growth of its counters between two samples, by the samples' own times."""
    name, labels = "web-1", {"uuid": uuid(VMS["web-1"])}
    path = f"{CUSTOM}/virtualmachineinstances.kubevirt.io/{name}"
    rows = {"vm_cpu_cores": "vm_cpu_seconds_total", "vm_network_receive_bytes_per_second": "vm_network_receive_bytes_total"}
    with ExporterProcess(tmp_path, broker.address, cloud.writer.prefix) as exporter:
        exporter.wait_until_ready()

        def newest() -> dict[str, float | None]:
            """The exporter's counters after one more round."""
            cloud.sample()
            cpu = used(VMS[name], cloud.sequence).cpu_seconds_total
            exporter.wait_until(lambda: exporter.value("vm_cpu_seconds_total", **labels) == cpu, SECONDS, "the newest sample")
            return {row: exporter.value(row, **labels) for row in rows.values()}

        assert quantity_of(cloud, f"{path}/vm_memory_rss_bytes") == exporter.value("vm_memory_rss_bytes", **labels)
        before, began = newest(), cloud.sequence
        cloud.sample(rounds=3)
        after, seconds = newest(), (cloud.sequence - began) * INTERVAL
        for metric, row in rows.items():
            assert (first := before[row]) is not None
            assert (last := after[row]) is not None
            assert quantity_of(cloud, f"{path}/{metric}") == pytest.approx((last - first) / seconds)


def quantity_of(cloud: Cloud, path: str) -> float:
    """What kubectl shows of a single object, as a number."""
    (item,) = json.loads(cloud.lab.kubectl("get", "--raw", path))["items"]
    text = item["value"]
    return float(text.removesuffix("m")) / (1000 if text.endswith("m") else 1)


def test_objects(cloud: Cloud) -> None:
    """Pods, instances, set, pool and namespace, one and several, by both versions."""
    cloud.sample()
    assert cloud.values(f"{CUSTOM}/pods/*/vm_cpu_cores?labelSelector=app%3Dweb") == {
        "virt-launcher-web-0": "100m",
        "virt-launcher-web-1": "200m",
        "virt-launcher-web-2": "300m",
    }
    assert cloud.values(f"{CUSTOM}/pods/%2A/vm_cpu_cores?labelSelector=app%20notin%20(web)") == {
        "virt-launcher-db-0": "400m",
        "virt-launcher-db-1": "500m",
    }
    assert cloud.values(f"{OLDER}/{SETS}/web/vm_cpu_cores") == {"web": "600m"}
    assert cloud.values(f"{CUSTOM}/{SETS}/web/vm_cpu_usage_ratio") == {"web": "200m"}
    assert cloud.values(f"{CUSTOM}/{POOLS}/db/vm_cpu_cores") == {"db": "900m"}
    assert cloud.values(f"{CUSTOM}/metrics/vm_cpu_cores") == {"shop": "1500m"}
    assert cloud.values(f"{CUSTOM}/{SETS}/web/vm_block_bytes_per_second?metricLabelSelector=device%3Dvda") == {"web": "3000"}
    assert cloud.values(f"{CUSTOM}/virtualmachineinstances.kubevirt.io/db-1/vm_guest_memory_used_ratio") == {"db-1": "750m"}
    (item,) = cloud.ask(f"{EXTERNAL}/vm_cpu_cores?labelSelector=platform_name%20in%20(web-0,db-1)")["items"]
    assert item["value"] == "600m"


def test_what_a_finished_migration_leaves_is_no_pod_of_the_vm(cloud: Cloud) -> None:
    cloud.virt.make_pod("virt-launcher-web-0-old", cloud.virt.instance("web-0"), {"app": "web"}, phase="Succeeded")
    cloud.lab.wait_until(lambda: cloud.adapter.value("virtflow_adapter_objects", resource="pods") == 6, SECONDS, "the pod is known")
    cloud.sample()
    assert set(cloud.values(f"{CUSTOM}/pods/*/vm_cpu_cores?labelSelector=app%3Dweb")) == {f"virt-launcher-web-{n}" for n in range(3)}


def test_only_who_may_is_answered(cloud: Cloud) -> None:
    """The API server refuses who has no right; the adapter refuses who does not come through it."""
    jane, path = cloud.lab.user("jane"), f"{CUSTOM}/pods/*/vm_cpu_cores"
    assert cloud.refusal(path, jane)[0] == 403
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "jane"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "virtflow-metrics-reader"},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    cloud.lab.call("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings", binding)
    cloud.sample()
    cloud.lab.wait_until(lambda: cloud.lab.status(path, jane) == 200, SECONDS, "jane may")
    assert cloud.refusal(path.replace("/shop/", "/bank/"), jane)[0] == 403
    assert direct(cloud, path, None, "jane") == 401
    assert direct(cloud, path, cloud.lab.front_proxy, "john") == 403
    assert direct(cloud, path, cloud.lab.front_proxy, "jane") == 200
    assert direct(cloud, "/apis/custom.metrics.k8s.io/v1beta2", None, "jane") == 401


def direct(cloud: Cloud, path: str, client: Certificate | None, user: str) -> int:
    """The status of a request that goes past the API server."""
    context = ssl.create_default_context(cafile=str(cloud.lab.adapters.own.certificate))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    request = urllib.request.Request(f"https://127.0.0.1:{cloud.adapter.api_port}{path}", headers={"X-Remote-User": user})
    try:
        with urllib.request.urlopen(request, timeout=10.0, context=context) as answer:  # noqa: S310, our own
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_silent_producer_is_no_zero(cloud: Cloud) -> None:
    """Its VMs have no value, their set and namespace neither; the others go on."""
    path = f"{CUSTOM}/{SETS}/web/vm_cpu_cores"

    def only_the_pool() -> bool:
        cloud.sample("db-0", "db-1")
        return "no fresh value" in cloud.refusal(path)[1] if not cloud.values(path) else False

    cloud.lab.wait_until(only_the_pool, SECONDS, "the set's value is gone")
    assert set(cloud.values(f"{CUSTOM}/pods/*/vm_cpu_cores")) == {"virt-launcher-db-0", "virt-launcher-db-1"}
    assert cloud.values(f"{CUSTOM}/{POOLS}/db/vm_cpu_cores") == {"db": "900m"}
    assert "3 of 5 VMs have no fresh value" in cloud.refusal(f"{CUSTOM}/metrics/vm_cpu_cores")[1]
    cloud.await_value(path, "web", "600m")


def test_objects_change_while_the_adapter_runs(cloud: Cloud) -> None:
    """And while the API server was away: what was known stays, discovery is answered, the watches go on."""
    cloud.sample()
    cloud.lab.stop_api_server()
    assert direct(cloud, "/apis/custom.metrics.k8s.io/v1beta1", cloud.lab.front_proxy, "jane") == 200
    cloud.lab.start_api_server()
    path = f"{CUSTOM}/pods/*/vm_cpu_cores?labelSelector=app%3Dlate"
    cloud.virt.make_vm("late-0", {"app": "late"})
    number = 9
    cloud.writer.write(INVENTORY, inventory(number, platform="kubevirt", namespace="shop", platform_name="late-0"))
    for sequence in range(3):
        cloud.writer.write(METRICS, used(number, sequence))
    cloud.lab.wait_until(lambda: set(cloud.values(path)) == {"virt-launcher-late-0"}, SECONDS, "the new VM")
    cloud.lab.call("DELETE", "/apis/kubevirt.io/v1/namespaces/shop/virtualmachineinstances/late-0")
    cloud.lab.wait_until(lambda: not cloud.values(path), SECONDS, "it is gone")


def test_the_api_server_takes_what_is_shipped(cloud: Cloud) -> None:
    """Every field of the manifest, and of the autoscaler that docs/kubernetes.md shows."""

    def tried(text: str) -> str:
        return cloud.lab.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)

    assert "deployment.apps/virtflow-adapter created" in tried(MANIFEST.read_text().replace("CA_BUNDLE", ""))
    (block,) = (one for one in all_blocks() if one.page == "docs/kubernetes.md" and one.language == "yaml")
    assert "horizontalpodautoscaler.autoscaling/web created" in tried(block.text)


def test_a_dead_source_keeps_no_namespace_alive(lab: KubernetesLab, cloud: Cloud, broker: Broker, tmp_path: Path) -> None:
    """An adapter without a broker: discovery is there, values are refused as unknown, and namespaces are deleted."""
    cloud.adapter.stop()
    settings = {"ADAPTER_API_LISTEN": f"127.0.0.1:{cloud.adapter.api_port}", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    with AdapterProcess(tmp_path, broker.address, cloud.writer.prefix, lab, settings) as adapter:
        adapter.wait_until(lambda: "front proxy" not in adapter.reason(), SECONDS, "the front proxy is known")
        lab.start_controllers("namespace-controller")
        lab.wait_until(lambda: lab.status("/apis/custom.metrics.k8s.io/v1beta2") == 200, SECONDS, "discovery")
        assert cloud.refusal(f"{CUSTOM}/pods/*/vm_cpu_cores")[0] == 503
        lab.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "short-lived"}})
        lab.call("DELETE", "/api/v1/namespaces/short-lived")
        lab.wait_until(
            lambda: lab.status("/api/v1/namespaces/short-lived") == 404, SECONDS, "the namespace is gone", "kube-controller-manager"
        )
        began = time.monotonic()
        assert adapter.stop() == 0
        assert time.monotonic() - began < 10.0
    cloud.adapter.start()
    cloud.adapter.wait_until_ready()
