"""The answer to a query, from the fleet's samples and the Kubernetes objects. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from virtflow.adapter.objects import Object, Objects, Resource
from virtflow.adapter.quantity import quantity
from virtflow.adapter.requests import ALL, CUSTOM, EXTERNAL, NAMESPACES, Kind, Query, Reason, RefusedError
from virtflow.adapter.samples.series import Reader
from virtflow.adapter.samples.values import Value, together, unheard, value_of
from virtflow.adapter.samples.window import Sample
from virtflow.schemas.catalogue.types import Metric

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Moment:
    """Now: seconds of the monotonic clock that samples arrived by, and Unix seconds."""

    now: float
    wall: float


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of the answers: how long a new VM may be without a value, and the share of a set's VMs that must have one."""

    new_seconds: float
    share: float


class Fleet(Protocol):
    """The VMs with their newest samples."""

    reader: Callable[[Metric], Reader]
    """How a row is read from a sample."""

    def expire(self, now: float) -> None:
        """Drops what is too old."""
        ...

    def samples(self, uuid: str) -> Sequence[Sample]:
        """The VM's newest samples, oldest first; none where it is not reported now."""
        ...

    def labels(self, uuid: str) -> dict[str, str]:
        """The labels that all series of a VM have."""
        ...

    def instance(self, namespace: str, name: str) -> str:
        """The UUID of the KubeVirt VM of that name, "" where none is reported."""
        ...

    def plain(self, namespace: str) -> Iterator[str]:
        """The UUIDs of the VMs in a namespace that are not KubeVirt's."""
        ...

    def silent(self, uuid: str) -> bool:
        """Whether a VM is not reported any more because its node is not heard of."""
        ...


class Answers:
    """Answers queries. Belongs to the thread that feeds the fleet and the objects."""

    def __init__(self, fleet: Fleet, objects: Objects, rules: Rules) -> None:
        """Both are read at each answer."""
        self._fleet = fleet
        self._objects = objects
        self._rules = rules

    def answer(self, query: Query, moment: Moment) -> Json:
        """The list of values as the API has it; raises ``RefusedError`` where a single object has none."""
        self._fleet.expire(moment.now)
        if query.kind is None:
            return _list(EXTERNAL, query.version, "ExternalMetricValueList", [self._external(query, moment)])
        found = list(self._items(query, query.kind, moment))
        if not found and query.name != ALL:
            what = f"{query.kind.name} {query.namespace}/{query.name}"
            raise RefusedError(Reason.NOT_FOUND, f"{query.metric.name} of {what}: no fresh value")
        return _list(CUSTOM, query.version, "MetricValueList", found)

    def _items(self, query: Query, kind: Kind, moment: Moment) -> Iterator[Json]:
        for name, value in self._values(query, kind, moment):
            if value is not None:
                yield _item(query, kind, name, value)

    def _values(self, query: Query, kind: Kind, moment: Moment) -> Iterator[tuple[str, Value | None]]:
        """The objects of a query by name, each with its value."""
        if kind.watched is None:
            yield query.namespace, self._of_several(query, *self._namespace(query, moment))
            return
        for found in self._chosen(query, kind.watched):
            if kind.watched in {Resource.PODS, Resource.INSTANCES}:
                instance = self._objects.instance_of(found) if kind.watched is Resource.PODS else found
                yield found.metadata.name, self._of_instance(query, moment, instance)
            else:
                members = self._objects.members(kind.watched, found.key)
                yield found.metadata.name, self._of_several(query, *self._instances(query, moment, members))

    def _chosen(self, query: Query, resource: Resource) -> Iterable[Object]:
        if query.name == ALL:
            return [one for one in self._objects.within(resource, query.namespace) if query.labels.matches(one.metadata.labels)]
        one = self._objects.get(resource, (query.namespace, query.name))
        return [one] if one is not None else []

    def _of_instance(self, query: Query, moment: Moment, instance: Object | None) -> Value | None:
        return self._of_vm(query, moment, self._fleet.instance(*instance.key)) if instance is not None else None

    def _of_vm(self, query: Query, moment: Moment, uuid: str) -> Value | None:
        samples = self._fleet.samples(uuid)
        if not samples:
            return None
        return value_of(query.metric, samples, self._fleet.labels(uuid), moment.now, query.series.matches, self._fleet.reader)

    def _instances(self, query: Query, moment: Moment, members: Iterable[Object]) -> tuple[list[Value], int]:
        """The values of instances, and how many run without one."""
        values, silent = [], 0
        for member in members:
            uuid = self._fleet.instance(*member.key)
            if (value := self._of_vm(query, moment, uuid)) is not None:
                values.append(value)
            elif moment.wall - member.running_since() > self._rules.new_seconds:
                silent += self._unheard(query, moment, uuid)
        return values, silent

    def _namespace(self, query: Query, moment: Moment) -> tuple[list[Value], int]:
        """The values of all VMs of a namespace: KubeVirt's, and others that name it."""
        values, silent = self._instances(query, moment, self._objects.within(Resource.INSTANCES, query.namespace))
        for uuid in self._fleet.plain(query.namespace):
            if (value := self._of_vm(query, moment, uuid)) is not None:
                values.append(value)
            elif self._fleet.silent(uuid) or self._fleet.samples(uuid):
                silent += self._unheard(query, moment, uuid)
        return values, silent

    def _unheard(self, query: Query, moment: Moment, uuid: str) -> bool:
        """Whether a VM that runs should have a value; a VM that is not reported at all should."""
        samples = self._fleet.samples(uuid) if uuid else ()
        return unheard(query.metric, samples, moment.now, self._fleet.reader)

    def _of_several(self, query: Query, values: Sequence[Value], silent: int) -> Value | None:
        """The value of several VMs; of too few of them that have one there is none, and a query for a single object says why."""
        count = len(values) + silent
        if silent and len(values) < self._rules.share * count:
            if query.name == ALL:
                return None
            raise RefusedError(
                Reason.NOT_FOUND, f"{query.metric.name}: {silent} of {count} VMs have no fresh value, so the whole is unknown"
            )
        return together(query.metric, values, silent)

    def _external(self, query: Query, moment: Moment) -> Json:
        value = self._of_several(query, *self._namespace(query, moment))
        if value is None:
            raise RefusedError(Reason.NOT_FOUND, f"{query.metric.name} of namespace {query.namespace}: no fresh value")
        item: Json = {"metricName": query.metric.name, "metricLabels": {"namespace": query.namespace}, **_measured(value)}
        if "windowSeconds" in item:
            item["window"] = item.pop("windowSeconds")
        return item


def _list(group: str, version: str, kind: str, items: list[Json]) -> Json:
    return {"kind": kind, "apiVersion": f"{group}/{version}", "metadata": {}, "items": items}


def _item(query: Query, kind: Kind, name: str, value: Value) -> Json:
    described = {"kind": kind.kind, "name": name, "apiVersion": kind.api_version}
    if kind is not NAMESPACES:
        described["namespace"] = query.namespace
    metric: Json = {"metricName": query.metric.name} if query.version == "v1beta1" else {"metric": {"name": query.metric.name}}
    return {"describedObject": described, **metric, **_measured(value)}


def _measured(value: Value) -> Json:
    """Amount, time and window; a value of a moment has no window."""
    taken = datetime.fromtimestamp(value.taken, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    measured: Json = {"timestamp": taken, "value": quantity(value.amount)}
    return measured | ({"windowSeconds": round(value.seconds)} if value.seconds else {})
