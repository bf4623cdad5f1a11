"""KubeVirt's part, played: its resources, reduced to what is read, and what its controllers make of a set of VMs."""

from __future__ import annotations

import time
from typing import Any, Final

from tests.support.kubernetes.lab import MERGE, KubernetesLab

Json = dict[str, Any]

API: Final = "/apis/kubevirt.io/v1/namespaces/{}"
POOLS: Final = "/apis/pool.kubevirt.io/v1beta1/namespaces/{}/virtualmachinepools"
ANYTHING: Final = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
SCALED: Final = {
    "type": "object",
    "properties": {
        "spec": {**ANYTHING, "properties": {"replicas": {"type": "integer"}}},
        "status": {**ANYTHING, "properties": {"replicas": {"type": "integer"}, "labelSelector": {"type": "string"}}},
    },
}
SCALE: Final = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.labelSelector",
}


def definitions() -> list[Json]:
    """The CustomResourceDefinitions."""
    scaled: tuple[Json, Json] = SCALED, {"status": {}, "scale": SCALE}
    return [
        _definition("kubevirt.io", "v1", "VirtualMachineInstance", ANYTHING, {"status": {}}),
        _definition("kubevirt.io", "v1", "VirtualMachine", ANYTHING, {}),
        _definition("kubevirt.io", "v1", "VirtualMachineInstanceReplicaSet", *scaled),
        _definition("pool.kubevirt.io", "v1beta1", "VirtualMachinePool", *scaled),
    ]


def _definition(group: str, version: str, kind: str, schema: Json, subresources: Json) -> Json:
    names = {"plural": f"{kind.lower()}s", "singular": kind.lower(), "kind": kind}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, "subresources": subresources}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [served]},
    }


class Virt:
    """Sets, pools and their VMs in a namespace; a VM runs as soon as it is made, long ago as far as its status says."""

    def __init__(self, lab: KubernetesLab, namespace: str) -> None:
        """Makes the resources, where they are not there yet, and the namespace."""
        self._lab = lab
        self.namespace = namespace
        self._api = API.format(namespace)
        if lab.status("/apis/kubevirt.io/v1") != 200:
            for definition in definitions():
                lab.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
        # Each is refused for a moment (404, then 429) until the API server has made its storage.
        served = [
            f"/apis/{one['spec']['group']}/{one['spec']['versions'][0]['name']}/{one['spec']['names']['plural']}" for one in definitions()
        ]
        lab.wait_until(lambda: all(lab.status(path) == 200 for path in served), 30.0, "KubeVirt's resources are served")
        lab.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})

    def make_set(self, name: str, replicas: int) -> None:
        """A VirtualMachineInstanceReplicaSet without VMs; ``follow`` makes them."""
        spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}}
        self._make(f"{self._api}/virtualmachineinstancereplicasets", "kubevirt.io/v1", "VirtualMachineInstanceReplicaSet", name, spec=spec)

    def make_pool(self, name: str, replicas: int) -> None:
        """A VirtualMachinePool with its machines and their VMs."""
        path = POOLS.format(self.namespace)
        made = self._make(path, "pool.kubevirt.io/v1beta1", "VirtualMachinePool", name, spec={"replicas": replicas})
        for number in range(replicas):
            machine = self._make(
                f"{self._api}/virtualmachines", "kubevirt.io/v1", "VirtualMachine", f"{name}-{number}", owner=made, spec={"running": True}
            )
            self.make_vm(f"{name}-{number}", {"app": name}, machine)

    def make_vm(self, name: str, labels: dict[str, str], owner: Json | None = None) -> None:
        """A VirtualMachineInstance and its pod, both running."""
        path = f"{self._api}/virtualmachineinstances"
        made = self._make(path, "kubevirt.io/v1", "VirtualMachineInstance", name, labels=labels, owner=owner)
        running = [{"phase": "Running", "phaseTransitionTimestamp": "2020-01-01T00:00:00Z"}]
        self._patch(f"{path}/{name}/status", {"status": {"phase": "Running", "nodeName": "n1", "phaseTransitionTimestamps": running}})
        self.make_pod(f"virt-launcher-{name}", made, labels)

    def make_pod(self, name: str, instance: Json, labels: dict[str, str], phase: str = "Running") -> None:
        """A virt-launcher pod."""
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        all_labels = {**labels, "kubevirt.io": "virt-launcher"}
        spec = {"containers": [{"name": "compute", "image": "virt-launcher"}], "nodeName": "n1", "automountServiceAccountToken": False}
        self._make(path, "v1", "Pod", name, labels=all_labels, owner=instance, spec=spec)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        ready = [{"type": "Ready", "status": "True", "lastTransitionTime": now}]
        self._patch(f"{path}/{name}/status", {"status": {"phase": phase, "startTime": now, "conditions": ready}})

    def instance(self, name: str) -> Json:
        """A VirtualMachineInstance as it is."""
        found: Json = self._lab.get(f"{self._api}/virtualmachineinstances/{name}")
        return found

    def follow(self, name: str) -> int:
        """Makes and deletes VMs until the set has as many as it should, as its controller would; how many that is."""
        path = f"{self._api}/virtualmachineinstancereplicasets/{name}"
        found = self._lab.get(path)
        wanted = int(found["spec"]["replicas"])
        have = {one["metadata"]["name"] for one in self._lab.get(f"{self._api}/virtualmachineinstances")["items"]}
        names = {f"{name}-{number}" for number in range(wanted)}
        for one in sorted(names - have):
            self.make_vm(one, {"app": name}, found)
        for one in sorted(each for each in have - names if each.startswith(f"{name}-")):
            self._lab.call("DELETE", f"/api/v1/namespaces/{self.namespace}/pods/virt-launcher-{one}?gracePeriodSeconds=0")
            self._lab.call("DELETE", f"{self._api}/virtualmachineinstances/{one}")
        status = {"replicas": wanted, "readyReplicas": wanted, "labelSelector": f"app={name}"}
        self._patch(f"{path}/status", {"status": status})
        return wanted

    def _make(  # noqa: PLR0913, an object's parts
        self,
        path: str,
        version: str,
        kind: str,
        name: str,
        *,
        labels: Json | None = None,
        owner: Json | None = None,
        spec: Json | None = None,
    ) -> Json:
        metadata: Json = {"name": name, "labels": labels or {}}
        if owner is not None:
            reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "controller": True}
            metadata["ownerReferences"] = [{**reference, "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}]
        made: Json = self._lab.call("POST", path, {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec or {}})
        return made

    def _patch(self, path: str, body: Json) -> None:
        self._lab.call("PATCH", path, body, kind=MERGE)
