"""The metrics of the Kubernetes API adapter: what a HorizontalPodAutoscaler may scale by, made from the catalogue's rows by one rule.

- A gauge keeps its name and value.
- A counter becomes its rate: ``_total`` becomes ``_per_second``. CPU time per second is a number of CPUs: ``_seconds_total`` of the
  counters ``vm_cpu_*`` and ``vm_vcpu_*`` becomes ``_cores``.
- The few rows of ``COMBINED`` are sums and ratios of those.

What has no meaningful sum (a state, a time, a text) is left out: the rows that the history does not average either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from virtflow.schemas.catalogue.metrics import BY_NAME, INVENTORY_LABELS, METRICS
from virtflow.schemas.catalogue.types import Group, Metric, Rollup, Split, Type

VM_LABELS: Final = ("uuid", "name", *INVENTORY_LABELS)
"""Labels that every series has: the VM's own, and the fields of its inventory."""
CPU_PREFIXES: Final = ("vm_cpu_", "vm_vcpu_")
"""Counters of seconds with these names count CPU time."""
_SECONDS, _TOTAL = "_seconds_total", "_total"


@dataclass(frozen=True, slots=True)
class ScalingMetric:
    """One metric: the sum of the values of ``add`` less those of ``subtract``, divided by that of ``per`` where there is one.

    A counter's value is its rate. ``labels`` are those of its series beyond ``VM_LABELS``.
    """

    name: str
    unit: str
    help: str
    add: tuple[Metric, ...]
    subtract: tuple[Metric, ...] = ()
    per: tuple[Metric, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def ratio(self) -> bool:
        """Whether the value of several VMs is their average, weighted by the divisors, and not their sum."""
        return bool(self.per)


def scaling_name(metric: Metric) -> str:
    """The adapter's name of a catalogue row: the rule."""
    if metric.type is not Type.COUNTER:
        return metric.name
    if metric.name.startswith(CPU_PREFIXES) and metric.name.endswith(_SECONDS):
        return metric.name.removesuffix(_SECONDS) + "_cores"
    return metric.name.removesuffix(_TOTAL) + "_per_second"


def _unit(metric: Metric) -> str:
    if metric.type is not Type.COUNTER:
        return metric.unit
    return "cores" if scaling_name(metric).endswith("_cores") else f"{metric.unit or 'events'}/s"


def _about(metric: Metric) -> str:
    if metric.type is not Type.COUNTER:
        return metric.help
    return f"Rate of {metric.name}: {metric.help}"


def _scales(metric: Metric) -> bool:
    """Whether the row is a value of a VM that can be added up."""
    if not metric.of_vm or metric.group is Group.MIGRATION:
        return False
    return isinstance(metric.source, Split) or metric.rollup in {Rollup.SPREAD, Rollup.INCREASE}


def _rows(*names: str) -> tuple[Metric, ...]:
    return tuple(BY_NAME[name] for name in names)


_DEVICE: Final = ("device",)
COMBINED: Final = (
    ScalingMetric(
        "vm_cpu_usage_ratio",
        "ratio",
        "CPU time used, as a share of what the VM's virtual CPUs can use.",
        _rows("vm_cpu_seconds_total"),
        per=_rows("vm_vcpus_current"),
    ),
    ScalingMetric(
        "vm_cpu_steal_ratio",
        "ratio",
        "Time the virtual CPUs were ready and waited for a CPU of the host, as a share of what they can use.",
        _rows("vm_vcpu_delay_seconds_total"),
        per=_rows("vm_vcpus_current"),
    ),
    ScalingMetric(
        "vm_guest_memory_used_ratio",
        "ratio",
        "Memory the guest can't hand out without swapping, as a share of what its kernel manages (Linux' view).",
        _rows("vm_guest_memory_total_bytes"),
        subtract=_rows("vm_guest_memory_usable_bytes"),
        per=_rows("vm_guest_memory_total_bytes"),
    ),
    ScalingMetric(
        "vm_network_bytes_per_second",
        "bytes/s",
        "Bytes received and transmitted by the VM's network devices.",
        _rows("vm_network_receive_bytes_total", "vm_network_transmit_bytes_total"),
        labels=_DEVICE,
    ),
    ScalingMetric(
        "vm_network_packets_per_second",
        "events/s",
        "Packets received and transmitted by the VM's network devices.",
        _rows("vm_network_receive_packets_total", "vm_network_transmit_packets_total"),
        labels=_DEVICE,
    ),
    ScalingMetric(
        "vm_block_bytes_per_second",
        "bytes/s",
        "Bytes read from and written to the VM's block devices.",
        _rows("vm_block_read_bytes_total", "vm_block_write_bytes_total"),
        labels=_DEVICE,
    ),
    ScalingMetric(
        "vm_block_requests_per_second",
        "events/s",
        "Read and write requests completed by the VM's block devices.",
        _rows("vm_block_read_requests_total", "vm_block_write_requests_total"),
        labels=_DEVICE,
    ),
)
"""Ratios and sums that people scale by; the ratios are those of the recording rules (deploy/prometheus/rules.yml)."""

SCALING_METRICS: Final = COMBINED + tuple(
    ScalingMetric(scaling_name(row), _unit(row), _about(row), (row,), labels=row.labels) for row in METRICS if _scales(row)
)
"""Every metric that the adapter lists, whether or not a VM has it now."""

BY_SCALING_NAME: Final = {metric.name: metric for metric in SCALING_METRICS}
