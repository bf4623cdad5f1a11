"""The fleet as scrapes show it, for one query. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from virtflow.adapter.prometheus.client import Series
from virtflow.adapter.prometheus.scrapes import scraped_reader
from virtflow.adapter.samples.fleet import KUBEVIRT
from virtflow.adapter.samples.series import Reader
from virtflow.adapter.samples.window import Sample
from virtflow.schemas.catalogue.scaling import VM_LABELS
from virtflow.schemas.catalogue.types import Metric

Place = tuple[str, str]
"""A Kubernetes namespace and name; VMs that are not KubeVirt's have no name."""


class Directory:
    """Which VMs there are, where, and on which nodes, as Prometheus said last."""

    def __init__(self, namespace_field: str = "") -> None:
        """``namespace_field`` is the label of ``vm_info`` with the namespace of VMs that are not KubeVirt's; "" for none."""
        self._field = namespace_field
        self._at: dict[Place, dict[str, None]] = {}
        self.labels: dict[str, dict[str, str]] = {}
        self.intervals: dict[str, float] = {}
        self.gone: set[str] = set()
        """VMs that are not KubeVirt's, and are missing because their node is silent."""

    def replace(self, infos: Iterable[Series], intervals: Mapping[str, float], silent: frozenset[str]) -> None:
        """Takes what is shown now: ``vm_info``, the nodes' intervals, and the nodes that are silent."""
        before, labels = self.labels, {}
        for info in infos:
            if uuid := info.metric.get("uuid", ""):
                labels[uuid] = {name: info.metric.get(name, "") for name in VM_LABELS}
        self.gone = {uuid for uuid, was in before.items() if uuid not in labels and self._plain(was) and was["node"] in silent}
        labels |= {uuid: before[uuid] for uuid in self.gone}
        self.labels = labels
        self.intervals = dict(intervals)
        self._at = {}
        for uuid, shown in labels.items():
            place = (shown[self._field], "") if self._plain(shown) else (shown["namespace"], shown["platform_name"])
            self._at.setdefault(place, {})[uuid] = None

    def _plain(self, shown: Mapping[str, str]) -> bool:
        """Whether a VM is in a namespace by a field of its inventory."""
        return shown["platform"] != KUBEVIRT and bool(self._field)

    def at(self, namespace: str, name: str = "") -> Iterator[str]:
        """The VMs of a place."""
        return iter(self._at.get((namespace, name), ()) if namespace else ())


class ScrapedFleet:
    """Answers what ``RecentFleet`` answers, from samples that were fetched for one query. ``asked`` are the VMs whose samples were wanted."""

    reader: Callable[[Metric], Reader] = staticmethod(scraped_reader)

    def __init__(self, directory: Directory, samples: Mapping[str, Sequence[Sample]]) -> None:
        """The directory may change while an answer is fetched; it does not while one is made."""
        self._directory = directory
        self._samples = samples
        self.asked: dict[str, None] = {}

    def expire(self, now: float) -> None:
        """Nothing is kept."""

    def samples(self, uuid: str) -> Sequence[Sample]:
        """The VM's newest samples, oldest first."""
        self.asked[uuid] = None
        return self._samples.get(uuid, ())

    def labels(self, uuid: str) -> dict[str, str]:
        """The labels that all series of a VM have."""
        return self._directory.labels.get(uuid, {})

    def instance(self, namespace: str, name: str) -> str:
        """The UUID of the KubeVirt VM of that name, "" where none is shown; of two the one that was sampled last."""
        found = list(self._directory.at(namespace, name)) if name else []
        for uuid in found:
            self.asked[uuid] = None
        return max(found, key=self._newest, default="")

    def plain(self, namespace: str) -> Iterator[str]:
        """The UUIDs of the VMs in a namespace that are not KubeVirt's."""
        return self._directory.at(namespace)

    def silent(self, uuid: str) -> bool:
        """Whether a VM is missing because its node is not heard of."""
        return uuid in self._directory.gone

    def _newest(self, uuid: str) -> float:
        samples = self._samples.get(uuid, ())
        return samples[-1].arrived if samples else float("-inf")
