"""What libvirt tells of VMs on a KVM host, which no lab without KVM shows: made here after the sources, for recordings, tests and bench.

Sources: the statistics of KVM's vCPUs and VMs are the kernel's descriptors for x86 (``kvm_vcpu_stats_desc``, ``kvm_vm_stats_desc`` and the
generic ones; libvirt leaves histograms out), their ending is libvirt's word for the kind (``sum``, ``cur``, ``max``). The other fields are
those of ``virsh domstats``' manual page and of libvirt's release notes up to 12.4.

    python -m tests.support.kvm_host    writes tests/golden/data/kvm-recording.jsonl again
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

RECORDING: Final = Path(__file__).resolve().parent.parent / "golden" / "data" / "kvm-recording.jsonl"
BEGAN: Final = 1_795_476_243.5
VMS: Final = (("kvm-large", "5f0b4a6e-0f57-4d0c-9a43-6d0f6f2a8b01", 8), ("kvm-small", "5f0b4a6e-0f57-4d0c-9a43-6d0f6f2a8b02", 2))
"""Name, UUID and vCPUs of the recording's VMs."""

VCPU_SUMS: Final = (
    "halt_successful_poll",
    "halt_attempted_poll",
    "halt_poll_invalid",
    "halt_wakeup",
    "halt_poll_success_ns",
    "halt_poll_fail_ns",
    "halt_wait_ns",
    "pf_taken",
    "pf_fixed",
    "pf_emulate",
    "pf_spurious",
    "pf_fast",
    "pf_mmio_spte_created",
    "pf_guest",
    "tlb_flush",
    "invlpg",
    "exits",
    "io_exits",
    "mmio_exits",
    "signal_exits",
    "irq_window_exits",
    "nmi_window_exits",
    "l1d_flush",
    "halt_exits",
    "request_irq_exits",
    "irq_exits",
    "host_state_reload",
    "fpu_reload",
    "insn_emulation",
    "insn_emulation_fail",
    "hypercalls",
    "irq_injections",
    "nmi_injections",
    "req_event",
    "nested_run",
    "directed_yield_attempted",
    "directed_yield_successful",
    "preemption_reported",
    "preemption_other",
    "notify_window_exits",
    "of_a_kernel_to_come",
)
VCPU_FLAGS: Final = ("guest_mode", "blocking")
"""Booleans: a vCPU has 43 statistics in all."""
VM_SUMS: Final = (
    "remote_tlb_flush",
    "remote_tlb_flush_requests",
    "mmu_shadow_zapped",
    "mmu_pte_write",
    "mmu_pde_zapped",
    "mmu_flooded",
    "mmu_recycled",
    "mmu_cache_miss",
)
VM_CURRENT: Final = ("mmu_unsync", "pages_4k", "pages_2m", "pages_1g", "nx_lpage_splits")
VM_PEAKS: Final = ("max_mmu_rmap_size", "max_mmu_page_hash_collisions")
PERF: Final = (
    "cmt",
    "mbmt",
    "mbml",
    "cpu_cycles",
    "instructions",
    "cache_references",
    "cache_misses",
    "branch_instructions",
    "branch_misses",
    "bus_cycles",
    "stalled_cycles_frontend",
    "stalled_cycles_backend",
    "ref_cpu_cycles",
    "cpu_clock",
    "task_clock",
    "page_faults",
    "context_switches",
    "cpu_migrations",
    "page_faults_min",
    "page_faults_maj",
    "alignment_faults",
    "emulation_faults",
)

Fields = dict[str, object]


def answer(vcpus: int = 8, *, kvm: bool = True, later: bool = True) -> Fields:
    """All groups of one running VM with a disk and a network device, in libvirt's order.

    Without ``kvm`` the fields that only KVM brings are left out; ``later`` has those that came after libvirt 9.0, and of groups that are
    not asked for by default.
    """
    fields: Fields = {"state.state": 1, "state.reason": 1}
    fields |= _cpu(later=later) | _balloon()
    fields |= {"vcpu.current": vcpus, "vcpu.maximum": vcpus}
    for number in range(vcpus):
        fields |= _vcpu(number, kvm=kvm)
    fields |= {"net.count": 1, "net.0.name": "vnet0"}
    words = "rx.bytes rx.pkts rx.errs rx.drop tx.bytes tx.pkts tx.errs tx.drop"
    fields |= {f"net.0.{word}": 100 + n for n, word in enumerate(words.split())}
    fields |= _block(0, "vda", later=later)
    if later:
        fields |= _other_groups(kvm=kvm)
    return fields


def _cpu(*, later: bool) -> Fields:
    fields: Fields = {"cpu.time": 90_000_000_000, "cpu.user": 60_000_000_000, "cpu.system": 30_000_000_000, "cpu.cache.monitor.count": 0}
    fields |= {"cpu.haltpoll.success.time": 7_250_000_000, "cpu.haltpoll.fail.time": 1_500_000_000}
    if later:
        fields |= {"cpu.cache.monitor.count": 1, "cpu.cache.monitor.0.name": "vcpus_0-7", "cpu.cache.monitor.0.vcpus": "0-7"}
        fields |= {"cpu.cache.monitor.0.bank.count": 1, "cpu.cache.monitor.0.bank.0.id": 0, "cpu.cache.monitor.0.bank.0.bytes": 9_371_648}
        fields |= {"cpu.energy.monitor.count": 1, "cpu.energy.monitor.0.name": "vcpus_0-7", "cpu.energy.monitor.0.vcpus": "0-7"}
        fields |= {"cpu.energy.monitor.0.pkg.count": 1, "cpu.energy.monitor.0.pkg.0.id": 0}
        fields |= {"cpu.energy.monitor.0.pkg.0.core.energy": 1234.5, "cpu.energy.monitor.0.pkg.0.activity": 0.75}
    return fields


def _balloon() -> Fields:
    names = "current maximum swap_in swap_out major_fault minor_fault unused available usable"
    fields: Fields = {f"balloon.{name}": 1_000 + n for n, name in enumerate(names.split())}
    return fields | {"balloon.last-update": 1_795_476_240, "balloon.rss": 2_097_152}


def _vcpu(number: int, *, kvm: bool) -> Fields:
    prefix = f"vcpu.{number}"
    fields: Fields = {f"{prefix}.state": 1, f"{prefix}.time": 11_000_000_000 + number, f"{prefix}.wait": 0, f"{prefix}.delay": 5_000_000}
    if kvm:
        fields |= {f"{prefix}.{name}.sum": 1_000_000 * number + place for place, name in enumerate(VCPU_SUMS, 1)}
        fields |= {f"{prefix}.{name}.cur": name == "blocking" for name in VCPU_FLAGS}
    else:
        fields[f"{prefix}.halted"] = False
    return fields


def _block(number: int, name: str, *, later: bool) -> Fields:
    prefix = f"block.{number}"
    fields: Fields = {"block.count": number + 1, f"{prefix}.name": name, f"{prefix}.path": f"/var/lib/libvirt/images/{name}.qcow2"}
    words = "rd.reqs rd.bytes rd.times wr.reqs wr.bytes wr.times fl.reqs fl.times allocation capacity physical"
    fields |= {f"{prefix}.{word}": 10_000 + n for n, word in enumerate(words.split())}
    if later:
        fields |= {f"{prefix}.backingIndex": 1, f"{prefix}.errors": 0, f"{prefix}.limits.request_alignment": 512}
        fields |= {f"{prefix}.limits.discard_max": 2_147_483_136, f"{prefix}.timed_group.count": 1, f"{prefix}.timed_group.0.interval": 60}
        fields |= {f"{prefix}.timed_group.0.{way}_latency_{what}": 42_000 for way in ("rd", "wr", "fl") for what in ("min", "max", "avg")}
        fields |= {f"{prefix}.timed_group.0.{way}_queue_depth_avg": 0.25 for way in ("rd", "wr")}
        fields |= _histogram(prefix)
    return fields


def _histogram(prefix: str) -> Fields:
    fields: Fields = {}
    for way in ("read", "write", "flush", "zone"):
        of = f"{prefix}.latency_histogram.{way}.bin"
        fields[f"{of}.count"] = 3
        for place, start in enumerate((0, 100_000, 1_000_000)):
            fields |= {f"{of}.{place}.start": start, f"{of}.{place}.value": 7 * place}
    return fields


def _other_groups(*, kvm: bool) -> Fields:
    fields: Fields = {"memory.bandwidth.monitor.count": 1, "memory.bandwidth.monitor.0.name": "vcpus_0-7"}
    fields |= {
        "memory.bandwidth.monitor.0.vcpus": "0-7",
        "memory.bandwidth.monitor.0.node.count": 1,
        "memory.bandwidth.monitor.0.node.0.id": 0,
    }
    fields |= {f"memory.bandwidth.monitor.0.node.0.bytes.{which}": 123_456_789 for which in ("local", "total")}
    fields |= {"iothread.count": 2} | {
        f"iothread.{n}.{word}": 32_768 for n in (1, 7) for word in ("poll-max-ns", "poll-grow", "poll-shrink")
    }
    fields |= {f"perf.{event}": 1_000 for event in PERF}
    fields |= {
        "dirtyrate.calc_status": 2,
        "dirtyrate.calc_start_time": 8_000,
        "dirtyrate.calc_period": 1,
        "dirtyrate.calc_mode": "dirty-ring",
    }
    fields |= {"dirtyrate.megabytes_per_second": 4, "dirtyrate.vcpu.0.megabytes_per_second": 4}
    if kvm:
        fields |= {f"vm.{name}.sum": 10 for name in VM_SUMS} | {f"vm.{name}.cur": 20 for name in VM_CURRENT}
        fields |= {f"vm.{name}.max": 30 for name in VM_PEAKS}
    return fields


def lines() -> Iterator[str]:
    """The recording: one line per VM."""
    for name, uuid, vcpus in VMS:
        yield json.dumps({"t": BEGAN, "node": "kvm-1", "kind": "stats", "vm": name, "uuid": uuid, "data": answer(vcpus)})


if __name__ == "__main__":
    RECORDING.write_text("".join(f"{line}\n" for line in lines()))
