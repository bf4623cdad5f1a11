"""The inventories of a snapshot's VMs, and the status of its node."""

from __future__ import annotations

from msgspec.structs import replace

from virtflow.schemas.ownership import LEFT_STATES
from virtflow.schemas.ranges import is_uuid
from virtflow.schemas.records import NodeSnapshot, NodeStatus, VmInventory


def inventories_of(snapshot: NodeSnapshot) -> list[VmInventory]:
    """The inventories that came with ``snapshot``: the producer sends a VM's when it is first seen, has changed or is due again.

    VM, node and position are those of the snapshot, not those in the inventory itself. The definition that a migration leaves on its
    source does not describe the VM any more: its inventory must not replace the one of the VM's node.
    """
    return [
        replace(
            inventory,
            uuid=vm.uuid,
            node=snapshot.node,
            boot_id=snapshot.boot_id,
            sequence=snapshot.sequence,
            part=snapshot.part,
            collected=snapshot.collected,
        )
        for vm in snapshot.vms
        for inventory in vm.inventory[:1]
        if is_uuid(vm.uuid) and (vm.state_state, vm.state_reason) not in LEFT_STATES
    ]


def status_of(snapshot: NodeSnapshot) -> NodeStatus:
    """The node's own health in this round."""
    return NodeStatus(
        node=snapshot.node,
        boot_id=snapshot.boot_id,
        sequence=snapshot.sequence,
        part=snapshot.part,
        collected=snapshot.collected,
        interval=snapshot.interval,
        health=snapshot.health,
    )
