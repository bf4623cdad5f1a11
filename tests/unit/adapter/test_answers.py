"""Answers to queries: the right VMs for each object, and no value where one would be wrong."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.support.vm_samples import INTERVAL, WALL, inventory, sample, status
from tests.unit.adapter.test_objects import instance, made, pod
from virtflow.adapter.answers import Answers, Moment, Rules
from virtflow.adapter.objects import Objects, Resource
from virtflow.adapter.requests import CUSTOM, EXTERNAL, RefusedError, query_of
from virtflow.adapter.samples.fleet import RecentFleet

SETS: Final = "virtualmachineinstancereplicasets.kubevirt.io"
OWNER: Final = ("VirtualMachineInstanceReplicaSet", "web")
LONG_AGO: Final = {"creationTimestamp": "2020-01-01T00:00:00Z"}


class World:
    """VMs web-1, web-2 ... of a set, which use as many tenths of a CPU as their number says; each has its pod."""

    def __init__(self, count: int = 3, share: float = 0.9, namespace_field: str = "") -> None:
        """Two rounds have arrived."""
        self.fleet = RecentFleet(60.0, namespace_field)
        self.objects = Objects()
        self.answers = Answers(self.fleet, self.objects, Rules(60.0, share))
        self.now = INTERVAL
        self.objects.put(Resource.SETS, made("web", metadata={"labels": {"tier": "front"}}))
        for number in range(1, count + 1):
            self.fleet.take_inventory(inventory(number, platform="kubevirt", namespace="shop", platform_name=f"web-{number}"), 0.0)
            labels = {"labels": {"app": "web", "number": str(number)}, **LONG_AGO}
            self.objects.put(Resource.INSTANCES, instance(f"web-{number}", OWNER, metadata=labels))
            self.objects.put(Resource.PODS, _labelled(pod(f"launcher-{number}", f"web-{number}"), number))
            self.sample(number, 0, 1)

    def sample(self, number: int, *rounds: int, **fields: object) -> None:
        """Samples of a VM arrive."""
        for sequence in rounds:
            used = {"cpu_seconds_total": sequence * number * INTERVAL / 10, "vcpus_current": 1}
            self.fleet.take_metrics(sample(number, sequence, **{**used, **fields}), sequence * INTERVAL)
            self.now = max(self.now, sequence * INTERVAL)

    def ask(self, path: str, group: str = CUSTOM, version: str = "v1beta2", **parameters: str) -> Any:  # noqa: ANN401, JSON
        """The whole answer."""
        query = query_of(group, version, f"namespaces/shop/{path}".split("/"), parameters)
        return self.answers.answer(query, Moment(self.now, WALL + self.now))

    def values(self, path: str, **parameters: str) -> dict[str, str]:
        """Quantities by the names of the objects."""
        return {item["describedObject"]["name"]: item["value"] for item in self.ask(path, **parameters)["items"]}


def _labelled(found: Any, number: int) -> Any:  # noqa: ANN401, an object
    from msgspec.structs import replace

    return replace(found, metadata=replace(found.metadata, labels={"app": "web", "number": str(number)}))


def test_the_lists_form() -> None:
    """v1beta2 as the API's types have it; times and windows are the samples'."""
    answer = World(1).ask("pods/*/vm_cpu_cores")
    described = {"kind": "Pod", "name": "launcher-1", "apiVersion": "v1", "namespace": "shop"}
    item = {
        "describedObject": described,
        "metric": {"name": "vm_cpu_cores"},
        "timestamp": "2023-11-14T22:13:30Z",
        "value": "100m",
        "windowSeconds": 10,
    }
    assert answer == {"kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta2", "metadata": {}, "items": [item]}


def test_the_older_form() -> None:
    (item,) = World(1).ask("pods/*/vm_cpu_cores", version="v1beta1")["items"]
    assert item["metricName"] == "vm_cpu_cores"
    assert "metric" not in item


def test_a_value_of_a_moment_has_no_window() -> None:
    (item,) = World(1).ask("pods/*/vm_memory_rss_bytes")["items"]
    assert item["value"] == "536870912"
    assert "windowSeconds" not in item


def test_pods_by_name_and_by_selector() -> None:
    world = World()
    assert world.values("pods/*/vm_cpu_cores") == {"launcher-1": "100m", "launcher-2": "200m", "launcher-3": "300m"}
    assert world.values("pods/*/vm_cpu_cores", labelSelector="app=web,number notin (1,3)") == {"launcher-2": "200m"}
    assert world.values("pods/*/vm_cpu_cores", labelSelector="app=db") == {}
    assert world.values("pods/launcher-3/vm_cpu_cores") == {"launcher-3": "300m"}


def test_ended_pods_have_no_value() -> None:
    world = World(1)
    world.objects.put(Resource.PODS, pod("old", "web-1", phase="Succeeded"))
    assert world.values("pods/*/vm_cpu_cores") == {"launcher-1": "100m"}


def test_instances() -> None:
    world = World()
    assert world.values("virtualmachineinstances.kubevirt.io/*/vm_cpu_cores", labelSelector="number=2") == {"web-2": "200m"}
    assert world.values("virtualmachineinstances.kubevirt.io/web-1/vm_cpu_cores") == {"web-1": "100m"}


def test_a_set_is_the_sum_of_its_vms() -> None:
    world = World()
    assert world.values(f"{SETS}/web/vm_cpu_cores") == {"web": "600m"}
    assert world.values(f"{SETS}/*/vm_cpu_cores", labelSelector="tier=front") == {"web": "600m"}
    assert world.values(f"{SETS}/*/vm_cpu_cores", labelSelector="tier=back") == {}


def test_a_ratio_of_a_set_is_an_average() -> None:
    assert World().values(f"{SETS}/web/vm_cpu_usage_ratio") == {"web": "200m"}


def test_a_namespace_is_the_sum_of_its_vms() -> None:
    (item,) = World().ask("metrics/vm_cpu_cores")["items"]
    assert item["describedObject"] == {"kind": "Namespace", "name": "shop", "apiVersion": "v1"}
    assert item["value"] == "600m"


def test_series_are_selected() -> None:
    assert World().values("metrics/vm_cpu_cores", metricLabelSelector="name in (vm-1,vm-2)") == {"shop": "300m"}


def test_a_silent_vm_is_left_out_and_never_zero() -> None:
    """Of the pods it is missing, which the HorizontalPodAutoscaler counts with care; of the set nothing is known."""
    world = World()
    world.sample(1, 2, 3, 4)
    world.sample(2, 2, 3, 4)
    assert world.values("pods/*/vm_cpu_cores") == {"launcher-1": "100m", "launcher-2": "200m"}
    with pytest.raises(RefusedError, match="1 of 3 VMs have no fresh value"):
        world.ask(f"{SETS}/web/vm_cpu_cores")
    assert world.values(f"{SETS}/*/vm_cpu_cores") == {}
    with pytest.raises(RefusedError, match="no fresh value"):
        world.ask("pods/launcher-3/vm_cpu_cores")


def test_where_few_are_silent_they_count_as_the_average() -> None:
    world = World(share=0.5)
    world.sample(1, 2, 3, 4)
    world.sample(2, 2, 3, 4)
    assert world.values(f"{SETS}/web/vm_cpu_cores") == {"web": "450m"}


def test_a_vm_whose_monitor_is_stuck_is_silent() -> None:
    """It is reported, and its CPU is not known."""
    world = World()
    for number, fields in ((1, {}), (2, {}), (3, {"cpu_seconds_total": float("nan"), "monitor_collected": float("nan")})):
        world.sample(number, 2, 3, 4, **fields)
    with pytest.raises(RefusedError, match="1 of 3"):
        world.ask(f"{SETS}/web/vm_cpu_cores")


def test_new_and_unready_vms_do_not_keep_the_set_from_its_value() -> None:
    """One that has just started, one that waits for its node, and one with its first sample."""
    from datetime import UTC, datetime

    world = World()
    young = datetime.fromtimestamp(WALL, UTC).isoformat().replace("+00:00", "Z")
    world.objects.put(Resource.INSTANCES, instance("web-4", OWNER, metadata={"creationTimestamp": young}))
    world.objects.put(Resource.INSTANCES, instance("web-5", OWNER, metadata=LONG_AGO, phase="Scheduling"))
    world.objects.put(Resource.INSTANCES, instance("web-6", OWNER, metadata=LONG_AGO))
    world.fleet.take_inventory(inventory(6, platform="kubevirt", namespace="shop", platform_name="web-6"), 0.0)
    world.sample(6, 1)
    assert world.values(f"{SETS}/web/vm_cpu_cores") == {"web": "600m"}


def test_a_vm_without_disks_is_no_unknown() -> None:
    world = World(2)
    world.sample(1, 2, 3, 4, blocks=[])
    world.sample(2, 2, 3, 4)
    assert world.values("metrics/vm_block_capacity_bytes") == {"shop": str(2**33)}


def test_other_vms_of_a_namespace() -> None:
    """Plain libvirt VMs count where a field of their inventory names the namespace; silent with their node, gone without."""
    world = World(1, namespace_field="project")
    world.fleet.take_inventory(inventory(5, platform="openstack", project="shop"), 0.0)
    world.fleet.take_node(status("node-1"), 0.0)
    world.sample(5, 0, 1)
    assert world.values("metrics/vm_cpu_cores") == {"shop": "600m"}
    world.sample(1, 2, 3, 4)
    with pytest.raises(RefusedError, match="1 of 2"):
        world.ask("metrics/vm_cpu_cores")
    world.fleet.take_node(status("node-1", sequence=4), 4 * INTERVAL)
    assert world.values("metrics/vm_cpu_cores") == {"shop": "100m"}


def test_what_is_not_there_is_not_found() -> None:
    world = World()
    for path in ("pods/other/vm_cpu_cores", f"{SETS}/other/vm_cpu_cores", "virtualmachineinstances.kubevirt.io/other/vm_cpu_cores"):
        with pytest.raises(RefusedError, match="no fresh value"):
            world.ask(path)
    with pytest.raises(RefusedError, match="no fresh value"):
        World(0).ask("metrics/vm_cpu_cores")


def test_an_external_metric_is_one_value() -> None:
    """The HorizontalPodAutoscaler adds up what it gets, so a silent VM must not be missing from a list."""
    world = World()
    answer = world.ask("vm_cpu_cores", EXTERNAL, "v1beta1", labelSelector="name!=vm-1")
    item = {
        "metricName": "vm_cpu_cores",
        "metricLabels": {"namespace": "shop"},
        "timestamp": "2023-11-14T22:13:30Z",
        "value": "500m",
        "window": 10,
    }
    assert answer == {"kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1", "metadata": {}, "items": [item]}
    with pytest.raises(RefusedError, match="no fresh value"):
        world.ask("vm_cpu_cores", EXTERNAL, "v1beta1", labelSelector="name=vm-9")
