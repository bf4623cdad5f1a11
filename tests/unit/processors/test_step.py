"""One message in, its results out."""

from __future__ import annotations

import pytest

from virtflow.processors.dead_letters.dead_letter import Message
from virtflow.processors.dedup import Orders
from virtflow.processors.handlers import Outcome, outcome_of
from virtflow.schemas.avro.codec import Codec, R
from virtflow.schemas.errors import Reason, UndecodableError
from virtflow.schemas.records import NodeHealth, NodeSnapshot, NodeStatus, VmInventory, VmMetrics, VmSnapshot
from virtflow.schemas.states import SHUT_OFF, SHUT_OFF_MIGRATED
from virtflow.schemas.topics import INVENTORY, METRICS, NODES, Topic

CODEC = Codec()
A, B = "d4e232be-ede6-48cb-9c15-42cde320a1fc", "00000000-0000-4000-8000-000000000001"


def snapshot(sequence: int = 0, part: int = 0, *vms: VmSnapshot) -> NodeSnapshot:
    return NodeSnapshot(
        node="n", boot_id="b", sequence=sequence, part=part, collected=1_795_476_243.0, interval=5.0, health=NodeHealth(up=1), vms=list(vms)
    )


def step(record: NodeSnapshot, orders: Orders) -> Outcome:
    return outcome_of(Message("vm.snapshots", 0, 0, b"n", CODEC.encode(record), 0.0), CODEC, orders)


def results(outcome: Outcome, topic: Topic, record: type[R]) -> list[tuple[bytes, R]]:
    return [(r.key, CODEC.decode(r.value, record)) for r in outcome.results if r.topic is topic]


def test_each_vm_becomes_a_message_keyed_by_its_uuid() -> None:
    outcome = step(snapshot(3, 0, VmSnapshot(uuid=A, cpu_time=2_000_000_000), VmSnapshot(uuid=B)), Orders())
    found = results(outcome, METRICS, VmMetrics)
    assert [key for key, _ in found] == [A.encode(), B.encode()]
    assert found[0][1].cpu_seconds_total == 2.0
    assert outcome.vm_samples == 2


def test_the_nodes_status_is_sent_once_a_round() -> None:
    orders = Orders()
    first, second = step(snapshot(3, 0), orders), step(snapshot(3, 1), orders)
    ((key, status),) = results(first, NODES, NodeStatus)
    assert (key, status.node, status.sequence, status.interval, status.health.up) == (b"n", "n", 3, 5.0, 1)
    assert results(second, NODES, NodeStatus) == []


def test_a_definition_that_a_migration_left_behind_tells_no_inventory() -> None:
    """The topic keeps one inventory of a VM: that of the node which has it."""
    left = VmSnapshot(uuid=A, state_state=SHUT_OFF, state_reason=SHUT_OFF_MIGRATED, inventory=[VmInventory(uuid=A)])
    stopped = VmSnapshot(uuid=B, state_state=SHUT_OFF, state_reason=1, inventory=[VmInventory(uuid=B)])
    found = results(step(snapshot(3, 1, left, stopped), Orders()), INVENTORY, VmInventory)
    assert [key for key, _ in found] == [B.encode()]


def test_an_inventory_is_whose_snapshot_it_came_in() -> None:
    """What an inventory says of its owner and its age can't be trusted; the snapshot around it says it."""
    forged = VmInventory(uuid=B, name="web", node="other", sequence=99, title="a title")
    outcome = step(snapshot(3, 1, VmSnapshot(uuid=A, inventory=[forged]), VmSnapshot(uuid=B)), Orders())
    ((key, found),) = results(outcome, INVENTORY, VmInventory)
    assert (key, found.uuid, found.node, found.boot_id, found.sequence, found.part) == (A.encode(), A, "n", "b", 3, 1)
    assert found.title == "a title"


def test_a_duplicate_has_no_results() -> None:
    orders = Orders()
    step(snapshot(3), orders)
    assert step(snapshot(3), orders) == Outcome([], "n", duplicate=True)


def test_what_is_no_snapshot_is_refused_with_its_reason() -> None:
    message = Message("vm.snapshots", 0, 0, b"", CODEC.encode(VmMetrics(uuid=A)), 0.0)
    with pytest.raises(UndecodableError) as caught:
        outcome_of(message, CODEC, Orders())
    assert caught.value.reason is Reason.WRONG_RECORD
