"""The catalogue's rows about a VM: what libvirt's bulk statistics say, and what is told of the VM and of its sample.

Sources of the libvirt fields and units: libvirt's ``virConnectGetAllDomainStats`` reference and ``virsh domstats``.
"""

from __future__ import annotations

from typing import Final

from virtflow.schemas.catalogue.types import Conversion, Derived, Group, Libvirt, Metric, Rollup, Scope, Split, Type

_C, _G = Type.COUNTER, Type.GAUGE
_NS, _KIB = Conversion.NANOSECONDS, Conversion.KIBIBYTES
_DEVICE, _VCPU = ("device",), ("vcpu",)


def _core(name: str, kind: Type, unit: str, text: str, source: Libvirt) -> Metric:
    labels = () if source.scope is Scope.VM else _DEVICE
    return Metric(name, kind, unit, text, Group.CORE, source, labels)


_CPU = (
    _core("vm_cpu_seconds_total", _C, "seconds", "CPU time the VM has used.", Libvirt("cpu.time", _NS)),
    _core(
        "vm_cpu_user_seconds_total",
        _C,
        "seconds",
        "CPU time the VM has used in user mode of the host.",
        Libvirt("cpu.user", _NS),
    ),
    _core(
        "vm_cpu_system_seconds_total",
        _C,
        "seconds",
        "CPU time the VM has used in kernel mode of the host.",
        Libvirt("cpu.system", _NS),
    ),
)
_NETWORK = tuple(
    _core(f"vm_network_{word}_{what}_total", _C, unit, f"{text} by the VM's network device.", Libvirt(f"net.N.{tag}.{key}"))
    for word, tag, verb in (("receive", "rx", "received"), ("transmit", "tx", "transmitted"))
    for what, key, unit, text in (
        ("bytes", "bytes", "bytes", f"Bytes {verb}"),
        ("packets", "pkts", "", f"Packets {verb}"),
        ("errors", "errs", "", f"Errors while packets were {verb}"),
        ("packets_dropped", "drop", "", f"Packets dropped instead of being {verb}"),
    )
)
_REQUESTS = tuple(
    _core(f"vm_block_{word}_{what}_total", _C, unit, f"{text} the VM's block device.", Libvirt(f"block.N.{tag}.{key}", how))
    for word, tag, noun, past in (("read", "rd", "Read", "read from"), ("write", "wr", "Write", "written to"))
    for what, key, unit, text, how in (
        ("requests", "reqs", "", f"{noun} requests completed by", Conversion.NONE),
        ("bytes", "bytes", "bytes", f"Bytes {past}", Conversion.NONE),
        ("seconds", "times", "seconds", f"Time spent in {noun.lower()} requests of", _NS),
    )
)
_FLUSH = (
    _core("vm_block_flush_requests_total", _C, "", "Flush requests completed by the VM's block device.", Libvirt("block.N.fl.reqs")),
    _core(
        "vm_block_flush_seconds_total",
        _C,
        "seconds",
        "Time spent in flush requests of the VM's block device.",
        Libvirt("block.N.fl.times", _NS),
    ),
)
_SIZES = tuple(
    _core(f"vm_block_{what}_bytes", _G, "bytes", text, Libvirt(f"block.N.{what}"))
    for what, text in (
        ("allocation", "Highest offset written to the image since the VM started, or its allocated size."),
        ("capacity", "Size of the VM's block device as the guest sees it."),
        ("physical", "Size of the container of the image on the host."),
        ("threshold", "Offset whose crossing libvirt will announce, where one was set."),
    )
)
CORE_METRICS: Final = _CPU + _NETWORK + _REQUESTS + _FLUSH + _SIZES


def _hypervisor(
    name: str,
    kind: Type,
    unit: str,
    text: str,
    source: Libvirt | Split | Derived,
    labels: tuple[str, ...] = (),
    rolls: Rollup | None = None,
) -> Metric:
    return Metric(name, kind, unit, text, Group.HYPERVISOR, source, labels, rolls=rolls)


HYPERVISOR_METRICS: Final = (
    _hypervisor("vm_state", _G, "", "State of the VM as libvirt's number.", Libvirt("state.state"), rolls=Rollup.STATES),
    _hypervisor(
        "vm_state_reason",
        _G,
        "",
        "Reason of the state as libvirt's number; its meaning depends on the state.",
        Libvirt("state.reason"),
        rolls=Rollup.LAST,
    ),
    _hypervisor(
        "vm_state_info",
        _G,
        "",
        "State of the VM and its reason in words; always 1.",
        Derived("words for state.state and state.reason"),
        ("state", "reason"),
    ),
    _hypervisor(
        "vm_cpu_haltpoll_seconds_total",
        _C,
        "seconds",
        "Host CPU time spent polling after the VM's virtual CPUs halted, by whether an event came meanwhile.",
        Split(
            "result",
            (("success", Libvirt("cpu.haltpoll.success.time", _NS)), ("fail", Libvirt("cpu.haltpoll.fail.time", _NS))),
        ),
        ("result",),
    ),
    _hypervisor(
        "vm_memory_balloon_current_bytes",
        _G,
        "bytes",
        "Memory the balloon leaves to the VM.",
        Libvirt("balloon.current", _KIB),
    ),
    _hypervisor(
        "vm_memory_balloon_maximum_bytes",
        _G,
        "bytes",
        "Memory the VM may have at most.",
        Libvirt("balloon.maximum", _KIB),
    ),
    _hypervisor("vm_memory_rss_bytes", _G, "bytes", "Resident memory of the VM's process on the host.", Libvirt("balloon.rss", _KIB)),
    _hypervisor("vm_vcpus_current", _G, "", "Virtual CPUs the VM has.", Libvirt("vcpu.current")),
    _hypervisor("vm_vcpus_maximum", _G, "", "Virtual CPUs the VM may have at most.", Libvirt("vcpu.maximum")),
    _hypervisor(
        "vm_vcpu_state",
        _G,
        "",
        "State of the virtual CPU: 0 offline, 1 running, 2 blocked.",
        Libvirt("vcpu.N.state"),
        _VCPU,
        Rollup.STATES,
    ),
    _hypervisor("vm_vcpu_seconds_total", _C, "seconds", "CPU time the virtual CPU has used.", Libvirt("vcpu.N.time", _NS), _VCPU),
    _hypervisor(
        "vm_vcpu_wait_seconds_total",
        _C,
        "seconds",
        "Time the virtual CPU's thread has waited, as the host's scheduler counts it.",
        Libvirt("vcpu.N.wait", _NS),
        _VCPU,
    ),
    _hypervisor(
        "vm_vcpu_delay_seconds_total",
        _C,
        "seconds",
        "Time the virtual CPU was ready and waited for a CPU of the host (steal).",
        Libvirt("vcpu.N.delay", _NS),
        _VCPU,
    ),
    _hypervisor("vm_network_devices", _G, "", "Network devices of the VM.", Libvirt("net.count")),
    _hypervisor("vm_block_devices", _G, "", "Block devices of the VM.", Libvirt("block.count")),
)


def _guest(name: str, kind: Type, unit: str, text: str, source: Libvirt, rolls: Rollup | None = None) -> Metric:
    return Metric(name, kind, unit, text, Group.GUEST, source, rolls=rolls)


GUEST_METRICS: Final = (
    _guest(
        "vm_guest_memory_total_bytes",
        _G,
        "bytes",
        "Memory the guest's kernel manages, told by the balloon driver.",
        Libvirt("balloon.available", _KIB),
    ),
    _guest("vm_guest_memory_free_bytes", _G, "bytes", "Memory the guest does not use at all.", Libvirt("balloon.unused", _KIB)),
    _guest(
        "vm_guest_memory_usable_bytes",
        _G,
        "bytes",
        "Memory the guest can hand out without swapping.",
        Libvirt("balloon.usable", _KIB),
    ),
    _guest(
        "vm_guest_memory_disk_caches_bytes",
        _G,
        "bytes",
        "Memory the guest uses for disk caches it can give back at once.",
        Libvirt("balloon.disk_caches", _KIB),
    ),
    _guest(
        "vm_guest_memory_swap_in_bytes_total",
        _C,
        "bytes",
        "Bytes the guest has swapped in.",
        Libvirt("balloon.swap_in", _KIB),
    ),
    _guest(
        "vm_guest_memory_swap_out_bytes_total",
        _C,
        "bytes",
        "Bytes the guest has swapped out.",
        Libvirt("balloon.swap_out", _KIB),
    ),
    _guest(
        "vm_guest_memory_major_faults_total",
        _C,
        "",
        "Page faults of the guest that needed its disk.",
        Libvirt("balloon.major_fault"),
    ),
    _guest("vm_guest_memory_minor_faults_total", _C, "", "Page faults of the guest that needed no disk.", Libvirt("balloon.minor_fault")),
    _guest(
        "vm_guest_memory_hugetlb_allocations_total",
        _C,
        "",
        "Huge pages the guest has allocated.",
        Libvirt("balloon.hugetlb_pgalloc"),
    ),
    _guest(
        "vm_guest_memory_hugetlb_failures_total",
        _C,
        "",
        "Huge pages the guest asked for and did not get.",
        Libvirt("balloon.hugetlb_pgfail"),
    ),
    _guest(
        "vm_guest_memory_updated_timestamp_seconds",
        _G,
        "seconds",
        "When the guest's balloon driver last told its memory statistics, in Unix time.",
        Libvirt("balloon.last-update"),
        Rollup.LAST,
    ),
)


INVENTORY_LABELS: Final = (
    "node",
    "title",
    "machine_type",
    "platform",
    "project",
    "project_id",
    "user",
    "user_id",
    "flavor",
    "namespace",
    "platform_name",
)
"""Labels of ``vm_info`` beyond uuid and name: the fields of ``VmInventory`` of the same names. ``namespace`` is Kubernetes' for KubeVirt;
``platform_name`` is what the owner's platform calls the VM (not ``instance``, which is Prometheus' own label of a target)."""


def _about(name: str, unit: str, text: str, how: str, labels: tuple[str, ...] = ()) -> Metric:
    return Metric(name, _G, unit, text, Group.VM, Derived(how), labels)


VM_METRICS: Final = (
    _about(
        "vm_info",
        "",
        "Where the VM runs and what its owner's platform calls it, for joins; always 1.",
        "the newest VmInventory of the VM",
        INVENTORY_LABELS,
    ),
    _about("vm_sample_age_seconds", "seconds", "Age of the VM's newest sample.", "scrape time less VmMetrics.collected"),
    _about(
        "vm_monitor_age_seconds",
        "seconds",
        "Age of the VM's newest sample of the groups that can hang.",
        "scrape time less the start of the newest monitor call that answered for the VM",
    ),
    _about(
        "vm_conflict",
        "",
        "Whether two nodes claim to run the VM for longer than a hand-over takes.",
        "the nodes' newest samples of the VM (schemas/ownership.py)",
    ),
)
