"""The adapter's command with Prometheus as its source, registered with a real API server; no broker is there for it."""

from __future__ import annotations

import json
import urllib.error
from pathlib import Path
from typing import Final

from tests.integration.test_adapter_prometheus import INTERVAL, Fleet
from tests.support.broker import Broker
from tests.support.exporter_process import ExporterProcess
from tests.support.kubernetes.adapter import AdapterProcess, manifest
from tests.support.kubernetes.lab import KubernetesLab
from tests.support.kubernetes.virt import Virt
from tests.support.prometheus import Prometheus
from tests.support.topic_writer import TopicWriter

API: Final = "/apis/custom.metrics.k8s.io/v1beta2"
PODS: Final = f"{API}/namespaces/shop/pods/*/vm_cpu_cores"
SECONDS: Final = 60.0


def test_kubernetes_has_the_values_of_prometheus(broker: Broker, tmp_path: Path) -> None:
    """By pod, as with Kafka; without Prometheus values are unknown, and discovery is answered."""
    writer = TopicWriter(broker.address)
    with (
        ExporterProcess(tmp_path, broker.address, writer.prefix) as exporter,
        Prometheus(tmp_path / "prometheus", {"virtflow": [f"127.0.0.1:{exporter.port}"]}, interval_seconds=INTERVAL / 3) as prometheus,
        KubernetesLab(tmp_path / "kubernetes") as lab,
    ):
        virt, fleet = Virt(lab, "shop"), Fleet(writer)
        for number in (1, 2):
            virt.make_vm(f"web-{number}", {"app": "web"})
        settings = {"ADAPTER_PROMETHEUS_URL": prometheus.url, "ADAPTER_WINDOW_SECONDS": 10, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
        adapter = AdapterProcess(tmp_path, broker.address, writer.prefix, lab, settings)
        lab.kubectl(
            "apply",
            "--validate=false",
            "-f",
            "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifest(lab, adapter.api_port)}),
        )
        with adapter:

            def both() -> bool:
                fleet.round(1, 2)
                return names(lab) == {"virt-launcher-web-1", "virt-launcher-web-2"}

            lab.wait_until(both, SECONDS, "both pods have a value")
            adapter.wait_until(lambda: adapter.value("virtflow_adapter_vms") == 2, SECONDS, "both VMs are counted")
            prometheus.stop()
            lab.wait_until(lambda: lab.status(PODS) == 503, SECONDS, "nobody knows the values")
            assert lab.status(API) == 200
            assert adapter.stop() == 0


def names(lab: KubernetesLab) -> set[str]:
    """The pods that have a value."""
    try:
        return {item["describedObject"]["name"] for item in lab.get(PODS)["items"]}
    except urllib.error.HTTPError as error:
        with error:
            return set()
