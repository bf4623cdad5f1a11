"""A real HorizontalPodAutoscaler scales a set of VMs by what they do, and leaves it alone while nobody knows what they do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from tests.support.broker import Broker
from tests.support.kubernetes.adapter import AdapterProcess, manifest
from tests.support.kubernetes.lab import KubernetesLab
from tests.support.kubernetes.virt import API, Virt
from tests.support.topic_writer import TopicWriter
from tests.support.vm_samples import WALL, inventory, sample
from virtflow.schemas.topics import INVENTORY, METRICS

SET: Final = f"{API.format('shop')}/virtualmachineinstancereplicasets/web"
HPA: Final = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers"
INTERVAL: Final = 2.0
SECONDS: Final = 60.0
CORES_A_VM: Final = "500m"
SETTLED: Final = 30
"""Rounds without a change after which the rates are those of the present load: a VM's window still has its load from before the others came."""
QUIET_LOOKS: Final = 5
"""Syncs of the autoscaler without metrics, during which nothing may change."""


class Fleet:
    """The set's VMs share a total load; their node's clock goes on by an interval each round."""

    def __init__(self, virt: Virt, writer: TopicWriter) -> None:
        """No VM has been sampled yet."""
        self._virt, self._writer = virt, writer
        self._used: dict[int, float] = {}
        self._sequence = 0
        self.total = 1.0
        self.quiet = False

    def round(self) -> int:
        """KubeVirt follows the set, and unless it is quiet every VM is sampled; how many VMs there should be."""
        wanted = self._virt.follow("web")
        self._sequence += 1
        for number in range(wanted):
            if number not in self._used:
                self._writer.write(INVENTORY, inventory(number, platform="kubevirt", namespace="shop", platform_name=f"web-{number}"))
            self._used[number] = self._used.get(number, 0.0) + INTERVAL * self.total / wanted
            moment = WALL + self._sequence * INTERVAL
            fields = {"collected": moment, "monitor_collected": moment, "interval": INTERVAL, "cpu_seconds_total": self._used[number]}
            if not self.quiet:
                self._writer.offer(METRICS, sample(number, self._sequence, **fields))
        self._writer.flush()
        return wanted

    def until(self, condition: Callable[[int], bool], what: str) -> int:
        """Rounds until a condition of the number of VMs is met."""
        deadline = time.monotonic() + SECONDS
        while not condition(wanted := self.round()):
            assert time.monotonic() < deadline, f"not after {SECONDS} s: {what}; there are {wanted}"
            time.sleep(0.2)
        return wanted

    def settle(self, count: int) -> None:
        """Rounds until there have been so many VMs for a while."""
        same = 0

        def settled(wanted: int) -> bool:
            nonlocal same
            same = same + 1 if wanted == count else 0
            return same >= SETTLED

        self.until(settled, f"the load of {count} VMs")


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesLab]:
    with KubernetesLab(tmp_path_factory.mktemp("kubernetes")) as running:
        yield running


def test_scales_by_the_vms_load_and_not_by_silence(lab: KubernetesLab, broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Half a CPU a VM: 1 makes 2 of them, 2 make 4; silence changes nothing, and 0.5 makes 1."""
    virt, writer = Virt(lab, "shop"), TopicWriter(broker.address)
    virt.make_set("web", 2)
    fleet = Fleet(virt, writer)
    fleet.round()
    folder = tmp_path_factory.mktemp("adapter")
    with AdapterProcess(folder, broker.address, writer.prefix, lab, {"ADAPTER_WINDOW_SECONDS": 4}) as adapter:
        lab.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifest(lab, adapter.api_port)}))
        adapter.wait_until_ready()
        lab.start_controllers("horizontal-pod-autoscaler-controller")
        lab.call("POST", HPA, autoscaler())
        fleet.until(lambda _: active(lab) == "True", "the autoscaler has the metric")
        fleet.settle(2)
        fleet.total = 2.0
        fleet.settle(4)
        fleet.quiet = True
        fleet.until(lambda wanted: wanted == 4 and active(lab) == "False", "the autoscaler misses the metric")
        for _ in range(QUIET_LOOKS):
            seen = looks(lab)
            assert fleet.until(lambda _, seen=seen: looks(lab) > seen, "another look of the autoscaler") == 4  # type: ignore[misc]
        fleet.quiet, fleet.total = False, 0.5
        fleet.until(lambda wanted: wanted == 1, "the load of one VM")


def autoscaler() -> dict[str, Any]:
    """By the CPUs that the set's VMs use together."""
    target = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceReplicaSet", "name": "web"}
    described = {
        "metric": {"name": "vm_cpu_cores"},
        "describedObject": target,
        "target": {"type": "AverageValue", "averageValue": CORES_A_VM},
    }
    at_once = {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 900, "periodSeconds": 1}]}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": target,
            "minReplicas": 1,
            "maxReplicas": 10,
            "metrics": [{"type": "Object", "object": described}],
            "behavior": {"scaleUp": at_once, "scaleDown": {**at_once, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 1}]}},
        },
    }


def active(lab: KubernetesLab) -> str:
    """Whether the autoscaler has what it needs: True, False, or nothing yet."""
    conditions = lab.get(f"{HPA}/web").get("status", {}).get("conditions", [])
    return next((one["status"] for one in conditions if one["type"] == "ScalingActive"), "")


def looks(lab: KubernetesLab) -> int:
    """How often the autoscaler has said that it misses its metric."""
    events = lab.get("/api/v1/namespaces/shop/events?fieldSelector=reason%3DFailedGetObjectMetric")["items"]
    return sum(int(one.get("count") or 1) for one in events)
