"""Rounds are split below the limit, and nothing is lost or doubled by it."""

from __future__ import annotations

import pytest

from virtflow.producer.publishing.split import messages
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.fields import BlockSample
from virtflow.schemas.records import Disk, NodeHealth, NodeSnapshot, VmInventory, VmSnapshot

CODEC = Codec()


def snapshot(vms: int, *, source: str = "", disks: int = 0) -> NodeSnapshot:
    def one(index: int) -> VmSnapshot:
        uuid = f"00000000-0000-4000-8000-{index:012d}"
        inventory = [VmInventory(uuid=uuid, disks=[Disk(device=f"vd{disk}", source=source) for disk in range(disks)])] if disks else []
        return VmSnapshot(uuid=uuid, cpu_time=2**62, blocks=[BlockSample(name="vda", rd_bytes=2**62)], inventory=inventory)

    return NodeSnapshot(
        node="n", boot_id="b", sequence=3, collected=1.7e9, interval=10.0, health=NodeHealth(up=1), vms=[one(i) for i in range(vms)]
    )


@pytest.mark.parametrize(("vms", "disks", "source"), [(0, 0, ""), (1, 0, ""), (10, 0, ""), (6000, 0, ""), (300, 20, "/" * 1000)])
def test_every_message_fits_and_all_vms_are_in_one(vms: int, disks: int, source: str) -> None:
    whole = snapshot(vms, disks=disks, source=source)
    sent = messages(whole, CODEC.encode)
    parts = [CODEC.decode(message, NodeSnapshot) for message in sent]
    assert all(len(message) <= 512 * 1024 for message in sent)
    assert [part.part for part in parts] == list(range(len(parts)))
    assert {part.parts for part in parts} == {len(parts)}
    assert [vm.uuid for part in parts for vm in part.vms] == [vm.uuid for vm in whole.vms]
    assert all(part.health.up == 1 for part in parts)


def test_estimates_that_are_too_low_are_found_out() -> None:
    """The limit is what is measured, not what is estimated."""
    sent = messages(snapshot(200), CODEC.encode, limit=2000)
    assert all(len(message) <= 2000 for message in sent)


def test_a_single_vm_is_never_cut() -> None:
    assert len(messages(snapshot(2), CODEC.encode, limit=10)) == 2
