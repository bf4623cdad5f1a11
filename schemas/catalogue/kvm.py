"""The catalogue's rows about KVM's own statistics of each vCPU. Carried only where ``producer.kvm_statistics`` asks for them.

Source: the kernel's descriptors of a vCPU's statistics (``kvm_vcpu_stats_desc``), which libvirt reports since 8.9 with the group VCPU.
What a kernel or an architecture does not count is absent.
"""

from __future__ import annotations

from typing import Final

from virtflow.schemas.catalogue.types import Conversion, Group, Libvirt, Metric, Split, Type

_VCPU: Final = ("vcpu",)


def _row(name: str, text: str, source: Libvirt | Split, unit: str = "") -> Metric:
    labels = (*_VCPU, source.label) if isinstance(source, Split) else _VCPU
    return Metric(f"vm_vcpu_kvm_{name}", Type.COUNTER, unit, text, Group.KVM, source, labels)


KVM_METRICS: Final = (
    _row("exits_total", "Times the virtual CPU has left guest mode, for any reason.", Libvirt("vcpu.N.exits.sum")),
    _row("halt_exits_total", "Exits because the guest had nothing to do (HLT).", Libvirt("vcpu.N.halt_exits.sum")),
    _row("io_exits_total", "Exits to userspace for an access to an I/O port.", Libvirt("vcpu.N.io_exits.sum")),
    _row("mmio_exits_total", "Exits to userspace for an access to memory-mapped I/O.", Libvirt("vcpu.N.mmio_exits.sum")),
    _row(
        "haltpoll_seconds_total",
        "Host CPU time spent polling after the virtual CPU halted, by whether an event came meanwhile.",
        Split(
            "result",
            (
                ("success", Libvirt("vcpu.N.halt_poll_success_ns.sum", Conversion.NANOSECONDS)),
                ("fail", Libvirt("vcpu.N.halt_poll_fail_ns.sum", Conversion.NANOSECONDS)),
            ),
        ),
        "seconds",
    ),
    _row(
        "preemptions_total",
        "Times the host has taken the CPU from the virtual CPU, by whether the guest could be told so.",
        Split(
            "kind",
            (("reported", Libvirt("vcpu.N.preemption_reported.sum")), ("other", Libvirt("vcpu.N.preemption_other.sum"))),
        ),
    ),
)
