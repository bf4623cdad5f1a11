"""The Kubernetes objects that metrics are about, and the VMs that belong to each. Pure.

A VM is known to Kubernetes as a VirtualMachineInstance; its virt-launcher pod, its set and its pool lead to it by owner references.
Sources: KubeVirt's API reference; a pod of a finished migration stays as Succeeded, and one of a running migration waits beside the old one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

from msgspec import UNSET, Struct, UnsetType, field


class Resource(StrEnum):
    """The resources that are watched, as their paths name them."""

    PODS = "pods"
    INSTANCES = "virtualmachineinstances"
    MACHINES = "virtualmachines"
    SETS = "virtualmachineinstancereplicasets"
    POOLS = "virtualmachinepools"


RUNNING: Final = "Running"
ENDED: Final = frozenset({"Succeeded", "Failed"})
INSTANCE_KIND: Final = "VirtualMachineInstance"
OWNER_KINDS: Final = {Resource.SETS: "VirtualMachineInstanceReplicaSet", Resource.POOLS: "VirtualMachinePool"}
MACHINE_KIND: Final = "VirtualMachine"
DOMAIN: Final = "kubevirt.io/domain"
"""Annotation of a virt-launcher pod with the name of its VirtualMachineInstance."""

Key = tuple[str, str]
"""Namespace and name."""


class Owner(Struct, frozen=True, gc=False):
    """A reference to the object that owns another one."""

    kind: str = ""
    name: str = ""
    uid: str = ""


class Metadata(Struct, frozen=True, gc=False, rename="camel"):
    """What is read of an object's metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    owner_references: list[Owner] = field(default_factory=list)


class Transition(Struct, frozen=True, gc=False, rename="camel"):
    """When an instance entered a phase."""

    phase: str = ""
    phase_transition_timestamp: datetime | None = None


class Spec(Struct, frozen=True, gc=False, rename="camel"):
    """What is read of a pod's specification."""

    node_name: str = ""


class Status(Struct, frozen=True, gc=False, rename="camel"):
    """What is read of the status of pods and instances."""

    phase: str = ""
    node_name: str = ""
    phase_transition_timestamps: list[Transition] | UnsetType | None = UNSET


class Object(Struct, frozen=True, gc=False):
    """An object of any of the resources; other fields are skipped."""

    metadata: Metadata = field(default_factory=Metadata)
    spec: Spec = field(default_factory=Spec)
    status: Status = field(default_factory=Status)

    @property
    def key(self) -> Key:
        """Its namespace and name."""
        return self.metadata.namespace, self.metadata.name

    def owner(self, kind: str) -> str:
        """The name of the object of a kind that owns it, "" where there is none."""
        return next((owner.name for owner in self.metadata.owner_references if owner.kind == kind), "")

    def running_since(self) -> float:
        """Unix seconds since when an instance runs; infinity where it does not run."""
        if self.status.phase != RUNNING:
            return float("inf")
        moments = [one.phase_transition_timestamp for one in self.status.phase_transition_timestamps or [] if one.phase == RUNNING]
        moment = moments[-1] if moments else self.metadata.creation_timestamp
        return moment.timestamp() if moment is not None else float("-inf")


class Objects:
    """All objects of the resources by namespace and name. One thread writes and reads them."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._known: dict[Resource, dict[Key, Object]] = {resource: {} for resource in Resource}

    def replace(self, resource: Resource, objects: Mapping[Key, Object]) -> None:
        """Takes a whole list in place of what was known."""
        self._known[resource] = dict(objects)

    def put(self, resource: Resource, found: Object) -> None:
        """Takes a new or changed object."""
        self._known[resource][found.key] = found

    def drop(self, resource: Resource, gone: Object) -> None:
        """Drops a deleted object."""
        self._known[resource].pop(gone.key, None)

    def count(self, resource: Resource) -> int:
        """How many objects of a resource are known."""
        return len(self._known[resource])

    def get(self, resource: Resource, key: Key) -> Object | None:
        """An object, None where there is none."""
        return self._known[resource].get(key)

    def within(self, resource: Resource, namespace: str) -> Iterator[Object]:
        """The objects of a resource in a namespace."""
        return (found for key, found in self._known[resource].items() if key[0] == namespace)

    def instance_of(self, pod: Object) -> Object | None:
        """The instance that a virt-launcher pod runs; None for an ended pod, and for one that does not run its instance (yet, or any more).

        Of several pods of an instance, which a migration makes, it is the one on the instance's own node.
        """
        name = pod.owner(INSTANCE_KIND) or pod.metadata.annotations.get(DOMAIN, "")
        instance = self.get(Resource.INSTANCES, (pod.metadata.namespace, name))
        if instance is None or pod.status.phase in ENDED:
            return None
        return instance if instance.status.node_name in {"", pod.spec.node_name} else None

    def members(self, resource: Resource, key: Key) -> list[Object]:
        """The instances of a set or a pool."""
        namespace, name = key
        kind = OWNER_KINDS[resource]
        return [found for found in self.within(Resource.INSTANCES, namespace) if self._owned(found, kind) == name]

    def _owned(self, instance: Object, kind: str) -> str:
        """The name of the set or pool of an instance; a pool owns it by way of a VirtualMachine."""
        if name := instance.owner(kind):
            return name
        machine = self.get(Resource.MACHINES, (instance.metadata.namespace, instance.owner(MACHINE_KIND)))
        return machine.owner(kind) if machine is not None else ""
