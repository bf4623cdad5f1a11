"""The values that one sample holds of a catalogue row, and when they were taken. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from operator import attrgetter
from typing import Any, Final, NamedTuple

from virtflow.schemas.catalogue.metrics import of_libvirt
from virtflow.schemas.catalogue.types import Guest, Libvirt, Metric, Scope, Tier
from virtflow.schemas.records import NAN, VmMetrics

Labels = tuple[tuple[str, str], ...]
"""Names and values of a series' labels beyond the VM's own; identifies the series among those of a row."""

_DEVICES: Final[dict[Scope, tuple[str, str]]] = {
    Scope.VCPU: ("vcpus", "vcpu"),
    Scope.NETWORK: ("networks", "device"),
    Scope.BLOCK: ("blocks", "device"),
    Scope.KVM: ("kvm", "vcpu"),
}
"""The records of a VM's devices: their field in ``VmMetrics``, and the label (and field) that identifies a device."""


class Reader(NamedTuple):
    """How a row is read: ``taken`` returns Unix seconds (NaN: not in this sample), ``series`` its values, absent ones left out."""

    taken: Callable[[VmMetrics], float]
    series: Callable[[VmMetrics], dict[Labels, float]]


@cache
def reader_of(row: Metric) -> Reader:
    """The reader of a catalogue row that has a value in ``VmMetrics``."""
    if isinstance(row.source, Guest):
        return _of_guest(row, row.source)
    fields = _fields(row)
    (source, *_) = (source for _, _, source in fields)
    taken = attrgetter("collected" if source.tier is Tier.SAFE else "monitor_collected")
    if source.scope is Scope.VM:
        return Reader(taken, lambda record: _present((variant, getattr(record, field)) for variant, field, _ in fields))
    listed, label = _DEVICES[source.scope]
    each, key = attrgetter(listed), attrgetter(label)

    def of_devices(record: VmMetrics) -> dict[Labels, float]:
        return _present(
            (((label, str(key(device))), *variant), getattr(device, field)) for device in each(record) for variant, field, _ in fields
        )

    return Reader(taken, of_devices)


def _fields(row: Metric) -> tuple[tuple[Labels, str, Libvirt], ...]:
    """Each field of libvirt that the row is made of: the labels that tell it apart, and its name in the record."""
    return tuple(
        ((one.variant,) if one.variant else (), one.field, source)
        for scope in Scope
        for one, source in of_libvirt(scope)
        if one.name == row.name
    )


def _of_guest(row: Metric, source: Guest) -> Reader:
    def taken(record: VmMetrics) -> float:
        return record.guest[0].taken if record.guest else NAN

    def series(record: VmMetrics) -> dict[Labels, float]:
        if not record.guest:
            return {}
        if not source.each:
            return _present([((), getattr(record.guest[0], source.attribute))])
        return _present(
            (tuple((label, str(getattr(one, label))) for label in row.labels), getattr(one, source.attribute))
            for one in getattr(record.guest[0], source.each)
        )

    return Reader(taken, series)


def _present(values: Iterable[tuple[Labels, Any]]) -> dict[Labels, float]:
    """The values without the absent ones: -1 and NaN."""
    return {labels: float(value) for labels, value in values if value >= 0}
