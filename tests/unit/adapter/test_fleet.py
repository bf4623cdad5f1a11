"""The fleet with its windows, and what Kubernetes calls a VM."""

from __future__ import annotations

from tests.support.vm_samples import INTERVAL, WALL, inventory, sample, status, uuid
from virtflow.adapter.samples.fleet import RecentFleet
from virtflow.schemas.records import VmInventory, VmMigration


def kubevirt(number: int, name: str, namespace: str = "shop", sequence: int = 0) -> VmInventory:
    return inventory(number, sequence, platform="kubevirt", namespace=namespace, platform_name=name)


def fleet(namespace_field: str = "") -> RecentFleet:
    return RecentFleet(60.0, namespace_field)


def sequences(vms: RecentFleet, number: int = 1) -> list[int]:
    return [one.record.sequence for one in vms.samples(uuid(number))]


def test_samples_are_kept_in_order_and_vanish_together() -> None:
    vms = fleet()
    for number in (0, 1, 1, 3, 2):
        vms.take_metrics(sample(sequence=number), number * INTERVAL)
    assert sequences(vms) == [0, 1, 3]
    vms.expire(3 * INTERVAL + 3 * INTERVAL)
    assert sequences(vms) == []


def test_only_the_authoritative_nodes_samples_are_kept() -> None:
    """A VM that arrives at another node is no sample of it; once it was handed over, the old node's are none."""
    vms = fleet()
    vms.take_metrics(sample(sequence=0), 0.0)
    vms.take_metrics(sample(sequence=0, node="node-2", boot_id="b", state=3, state_reason=2, collected=WALL + 5), 5.0)
    vms.take_metrics(sample(sequence=1), 10.0)
    over = VmMigration(uuid=uuid(1), source="node-1", destination="node-2", revision=1, result="completed",
                       paused_timestamp_seconds=WALL + 11, resumed_timestamp_seconds=WALL + 12)  # fmt: skip
    vms.take_metrics(sample(sequence=1, node="node-2", boot_id="b", collected=WALL + 15, interval=INTERVAL), 15.0)
    vms.take_migration(over, 16.0)
    vms.take_metrics(sample(sequence=2, node="node-2", boot_id="b", collected=WALL + 25), 25.0)
    assert [one.record.node for one in vms.samples(uuid(1))] == ["node-1", "node-1", "node-2", "node-2"]


def test_a_migration_that_is_known_late_brings_the_other_nodes_sample() -> None:
    vms = fleet()
    vms.take_metrics(sample(sequence=5, collected=WALL + 50), 50.0)
    vms.take_metrics(sample(node="node-2", boot_id="b", collected=WALL + 40, monitor_collected=WALL + 40), 51.0)
    assert [one.record.node for one in vms.samples(uuid(1))] == ["node-1"]
    over = VmMigration(uuid=uuid(1), source="node-1", destination="node-2", revision=1, result="completed",
                       paused_timestamp_seconds=WALL + 60, resumed_timestamp_seconds=WALL + 30)  # fmt: skip
    vms.take_migration(over, 52.0)
    assert [one.record.node for one in vms.samples(uuid(1))] == ["node-1", "node-2"]


def test_kubernetes_names_lead_to_vms() -> None:
    vms = fleet()
    for number in (1, 2, 3):
        vms.take_metrics(sample(number), 0.0)
    vms.take_inventory(kubevirt(1, "web-1"), 0.0)
    vms.take_inventory(kubevirt(2, "web-1", "test"), 0.0)
    vms.take_inventory(inventory(3), 0.0)
    assert vms.instance("shop", "web-1") == uuid(1)
    assert vms.instance("test", "web-1") == uuid(2)
    assert vms.instance("shop", "web-2") == ""
    assert vms.instance("openstack", "vm-3") == ""


def test_a_name_that_was_used_before_means_the_vm_that_is_reported() -> None:
    """An instance made again may have another UUID; of two that are reported the one that was sampled last."""
    vms = fleet()
    vms.take_inventory(kubevirt(1, "web-1"), 0.0)
    vms.take_inventory(kubevirt(2, "web-1"), 0.0)
    assert vms.instance("shop", "web-1") == ""
    vms.take_metrics(sample(1, collected=WALL), 0.0)
    assert vms.instance("shop", "web-1") == uuid(1)
    vms.take_metrics(sample(2, collected=WALL + 5), 5.0)
    assert vms.instance("shop", "web-1") == uuid(2)


def test_a_renamed_or_forgotten_vm_leaves_its_name() -> None:
    vms = fleet()
    vms.take_metrics(sample(1), 0.0)
    vms.take_inventory(kubevirt(1, "web-1"), 0.0)
    vms.take_inventory(kubevirt(1, "web-9", sequence=1), 0.0)
    assert (vms.instance("shop", "web-1"), vms.instance("shop", "web-9")) == ("", uuid(1))
    vms.forget_inventory(uuid(1))
    assert vms.instance("shop", "web-9") == ""
    assert not vms._at


def test_other_vms_have_a_namespace_by_a_field_of_their_inventory() -> None:
    vms = fleet("project")
    vms.take_inventory(inventory(1, project="shop"), 0.0)
    vms.take_inventory(inventory(2, project="bank"), 0.0)
    vms.take_inventory(kubevirt(3, "web-1"), 0.0)
    assert list(vms.plain("shop")) == [uuid(1)]
    assert list(fleet().plain("shop")) == []


def test_labels_are_the_vms_and_its_inventorys() -> None:
    vms = fleet()
    vms.take_metrics(sample(1, node="node-7"), 0.0)
    assert vms.labels(uuid(1)) == {"uuid": uuid(1), "name": "vm-1", "node": "node-7"}
    vms.take_inventory(kubevirt(1, "web-1"), 0.0)
    found = vms.labels(uuid(1))
    assert (found["namespace"], found["platform_name"], found["node"]) == ("shop", "web-1", "node-7")
    assert vms.labels(uuid(2)) == {}


def test_a_vm_is_silent_with_its_node_and_gone_without() -> None:
    """A node that is heard of and does not report a VM any more does not have it."""
    vms = fleet()
    for number, node in ((1, "node-1"), (2, "node-2")):
        vms.take_metrics(sample(number, node=node), 0.0)
        vms.take_node(status(node), 0.0)
    vms.take_node(status("node-2", sequence=1), 25.0)
    assert not vms.silent(uuid(1))
    vms.expire(3 * INTERVAL)
    assert vms.silent(uuid(1))
    assert not vms.silent(uuid(2))
    assert not vms.silent(uuid(3))


def test_nothing_is_kept_for_ever() -> None:
    vms = fleet("project")
    vms.take_metrics(sample(1), 0.0)
    vms.take_inventory(inventory(1, project="shop"), 0.0)
    vms.take_inventory(inventory(2, project="shop"), 0.0)
    vms.expire(30.0)
    vms.expire(30.0 + 3_600.0)
    assert (vms._windows, vms._places, vms._at, vms._unrendered) == ({}, {}, {}, {})
