"""The normaliser against any snapshot that decodes: it never fails, invents nothing, and its results encode."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.strategies import records
from virtflow.processors.inventory import inventories_of, status_of
from virtflow.processors.normalise import normalise_snapshot
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.catalogue.metrics import of_libvirt
from virtflow.schemas.catalogue.types import Scope
from virtflow.schemas.ranges import is_uuid
from virtflow.schemas.records import NodeSnapshot, NodeStatus, VmInventory, VmMetrics

CODEC = Codec()
SNAPSHOTS: st.SearchStrategy[NodeSnapshot] = records(NodeSnapshot)


@settings(max_examples=50)
@given(SNAPSHOTS)
def test_whatever_decodes_normalises_and_encodes(snapshot: NodeSnapshot) -> None:
    """Every VM with a uuid has a sample, and every sample survives the codec: no bit flip upstream stops the stream."""
    result = normalise_snapshot(snapshot)
    assert [vm.uuid for vm in result.metrics] == [vm.uuid for vm in snapshot.vms if is_uuid(vm.uuid)]
    for sample in result.metrics:
        CODEC.decode(CODEC.encode(sample), VmMetrics)
    for inventory in inventories_of(snapshot):
        CODEC.decode(CODEC.encode(inventory), VmInventory)
    CODEC.decode(CODEC.encode(status_of(snapshot)), NodeStatus)


@settings(max_examples=50)
@given(SNAPSHOTS)
def test_nothing_is_invented_and_nothing_is_below_zero(snapshot: NodeSnapshot) -> None:
    """A named value is there only where libvirt reported one, and it is absent or not negative."""
    sampled = {vm.uuid: vm for vm in reversed(snapshot.vms)}
    for sample in normalise_snapshot(snapshot).metrics:
        for metric, source in of_libvirt(Scope.VM):
            value, raw = getattr(sample, metric.field), getattr(sampled[sample.uuid], source.attribute)
            absent = math.isnan(value) or value == -1
            assert absent or value >= 0
            assert raw >= 0 or absent or sum(vm.uuid == sample.uuid for vm in snapshot.vms) > 1


@settings(max_examples=50)
@given(SNAPSHOTS)
def test_no_device_is_there_twice(snapshot: NodeSnapshot) -> None:
    """Two devices of one name would be two series of one identity."""
    for sample in normalise_snapshot(snapshot).metrics:
        for keys in (
            [d.device for d in sample.networks],
            [d.device for d in sample.blocks],
            [v.vcpu for v in sample.vcpus],
            [v.vcpu for v in sample.kvm],
        ):
            assert len(set(keys)) == len(keys)
