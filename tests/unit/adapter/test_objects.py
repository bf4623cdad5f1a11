"""Which VMs belong to which objects of Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from virtflow.adapter.objects import Object, Objects, Resource


def made(name: str, *owners: tuple[str, str], **parts: Any) -> Object:  # noqa: ANN401, JSON
    """An object of namespace shop as JSON would bring it."""
    references = [{"apiVersion": "v1", "kind": kind, "name": owner, "uid": "u", "controller": True} for kind, owner in owners]
    metadata = {"name": name, "namespace": "shop", "ownerReferences": references, **parts.pop("metadata", {})}
    return msgspec.json.decode(msgspec.json.encode({"kind": "Any", "metadata": metadata, **parts}), type=Object)


def known(**objects: list[Object]) -> Objects:
    found = Objects()
    for resource, each in objects.items():
        for one in each:
            found.put(Resource[resource], one)
    return found


def pod(name: str, instance: str = "web-1", phase: str = "Running", node: str = "n1") -> Object:
    return made(name, ("VirtualMachineInstance", instance), spec={"nodeName": node}, status={"phase": phase})


def instance(name: str, *owners: tuple[str, str], metadata: Mapping[str, object] | None = None, **status: object) -> Object:
    return made(name, *owners, metadata=metadata or {}, status={"phase": "Running", "nodeName": "n1", **status})


def names(objects: list[Object]) -> set[str]:
    return {one.metadata.name for one in objects}


def test_a_pod_leads_to_its_instance() -> None:
    web = instance("web-1")
    objects = known(INSTANCES=[web])
    assert objects.instance_of(pod("launcher")) is web
    annotated = made("launcher", metadata={"annotations": {"kubevirt.io/domain": "web-1"}}, spec={"nodeName": "n1"})
    assert objects.instance_of(annotated) is web
    assert objects.instance_of(pod("launcher", instance="other")) is None


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_an_ended_pod_leads_nowhere(phase: str) -> None:
    """What finished migrations leave would count the VM twice."""
    assert known(INSTANCES=[instance("web-1")]).instance_of(pod("launcher", phase=phase)) is None


def test_of_two_pods_the_one_on_the_instances_node_has_the_vm() -> None:
    """During a migration the target's pod runs already."""
    objects = known(INSTANCES=[instance("web-1", nodeName="n2")])
    assert objects.instance_of(pod("source", node="n1")) is None
    assert objects.instance_of(pod("waiting", node="", phase="Pending")) is None
    assert objects.instance_of(pod("target", node="n2")) is not None


def test_a_set_has_its_instances() -> None:
    owner = ("VirtualMachineInstanceReplicaSet", "web")
    objects = known(INSTANCES=[instance("web-1", owner), instance("web-2", owner), instance("db-1", (owner[0], "db")), instance("lone")])
    assert names(objects.members(Resource.SETS, ("shop", "web"))) == {"web-1", "web-2"}
    assert names(objects.members(Resource.SETS, ("other", "web"))) == set()


def test_a_pool_has_the_instances_of_its_machines() -> None:
    pool, machine = ("VirtualMachinePool", "web"), ("VirtualMachine", "web-0")
    objects = known(
        MACHINES=[made("web-0", pool), made("lone")], INSTANCES=[instance("web-0", machine), instance("lone", (machine[0], "lone"))]
    )
    assert names(objects.members(Resource.POOLS, ("shop", "web"))) == {"web-0"}


def test_since_when_an_instance_runs() -> None:
    created = {"creationTimestamp": "2026-01-01T00:00:00Z"}
    moments = [
        {"phase": "Scheduled", "phaseTransitionTimestamp": "2026-01-01T00:00:10Z"},
        {"phase": "Running", "phaseTransitionTimestamp": "2026-01-01T00:00:20Z"},
    ]
    start = 1_767_225_600.0
    assert made("a", metadata=created, status={"phase": "Running"}).running_since() == start
    assert made("a", metadata=created, status={"phase": "Running", "phaseTransitionTimestamps": moments}).running_since() == start + 20
    assert made("a", metadata=created, status={"phase": "Scheduled"}).running_since() == float("inf")


def test_objects_come_change_and_go() -> None:
    objects = known(INSTANCES=[instance("a"), instance("b")])
    objects.put(Resource.INSTANCES, instance("a", phase="Failed"))
    objects.drop(Resource.INSTANCES, instance("b"))
    objects.drop(Resource.INSTANCES, instance("never"))
    assert [one.status.phase for one in objects.within(Resource.INSTANCES, "shop")] == ["Failed"]
    objects.replace(Resource.INSTANCES, {})
    assert objects.count(Resource.INSTANCES) == 0


def test_nulls_are_as_good_as_nothing() -> None:
    found = msgspec.json.decode(
        b'{"metadata":{"name":"a","creationTimestamp":null},"status":{"phaseTransitionTimestamps":null}}', type=Object
    )
    assert found.running_since() == float("inf")
