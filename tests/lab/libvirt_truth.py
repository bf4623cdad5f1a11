"""What the metrics of a VM must be, from what ``virsh domstats`` says: written by hand from the units of libvirt, not from the catalogue."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.support.lab_scrape import Series

NANOSECOND = 1e-9
KIBIBYTE = 1024.0

VM: dict[str, tuple[str, float]] = {
    "cpu.time": ("vm_cpu_seconds_total", NANOSECOND),
    "cpu.user": ("vm_cpu_user_seconds_total", NANOSECOND),
    "cpu.system": ("vm_cpu_system_seconds_total", NANOSECOND),
    "state.state": ("vm_state", 1),
    "state.reason": ("vm_state_reason", 1),
    "balloon.current": ("vm_memory_balloon_current_bytes", KIBIBYTE),
    "balloon.maximum": ("vm_memory_balloon_maximum_bytes", KIBIBYTE),
    "balloon.rss": ("vm_memory_rss_bytes", KIBIBYTE),
    "balloon.available": ("vm_guest_memory_total_bytes", KIBIBYTE),
    "balloon.unused": ("vm_guest_memory_free_bytes", KIBIBYTE),
    "balloon.usable": ("vm_guest_memory_usable_bytes", KIBIBYTE),
    "balloon.disk_caches": ("vm_guest_memory_disk_caches_bytes", KIBIBYTE),
    "balloon.swap_in": ("vm_guest_memory_swap_in_bytes_total", KIBIBYTE),
    "balloon.swap_out": ("vm_guest_memory_swap_out_bytes_total", KIBIBYTE),
    "balloon.major_fault": ("vm_guest_memory_major_faults_total", 1),
    "balloon.minor_fault": ("vm_guest_memory_minor_faults_total", 1),
    "balloon.hugetlb_pgalloc": ("vm_guest_memory_hugetlb_allocations_total", 1),
    "balloon.hugetlb_pgfail": ("vm_guest_memory_hugetlb_failures_total", 1),
    "balloon.last-update": ("vm_guest_memory_updated_timestamp_seconds", 1),
    "vcpu.current": ("vm_vcpus_current", 1),
    "vcpu.maximum": ("vm_vcpus_maximum", 1),
    "net.count": ("vm_network_devices", 1),
    "block.count": ("vm_block_devices", 1),
}
DEVICE: dict[str, dict[str, tuple[str, float]]] = {
    "vcpu": {
        "state": ("vm_vcpu_state", 1),
        "time": ("vm_vcpu_seconds_total", NANOSECOND),
        "wait": ("vm_vcpu_wait_seconds_total", NANOSECOND),
        "delay": ("vm_vcpu_delay_seconds_total", NANOSECOND),
    },
    "net": {
        "rx.bytes": ("vm_network_receive_bytes_total", 1),
        "rx.pkts": ("vm_network_receive_packets_total", 1),
        "rx.errs": ("vm_network_receive_errors_total", 1),
        "rx.drop": ("vm_network_receive_packets_dropped_total", 1),
        "tx.bytes": ("vm_network_transmit_bytes_total", 1),
        "tx.pkts": ("vm_network_transmit_packets_total", 1),
        "tx.errs": ("vm_network_transmit_errors_total", 1),
        "tx.drop": ("vm_network_transmit_packets_dropped_total", 1),
    },
    "block": {
        "rd.reqs": ("vm_block_read_requests_total", 1),
        "rd.bytes": ("vm_block_read_bytes_total", 1),
        "rd.times": ("vm_block_read_seconds_total", NANOSECOND),
        "wr.reqs": ("vm_block_write_requests_total", 1),
        "wr.bytes": ("vm_block_write_bytes_total", 1),
        "wr.times": ("vm_block_write_seconds_total", NANOSECOND),
        "fl.reqs": ("vm_block_flush_requests_total", 1),
        "fl.times": ("vm_block_flush_seconds_total", NANOSECOND),
        "allocation": ("vm_block_allocation_bytes", 1),
        "capacity": ("vm_block_capacity_bytes", 1),
        "physical": ("vm_block_physical_bytes", 1),
        "threshold": ("vm_block_threshold_bytes", 1),
    },
}
WORDS: dict[tuple[int, int], tuple[str, str]] = {
    (1, 1): ("running", "booted"),
    (1, 2): ("running", "migrated"),
    (1, 5): ("running", "unpaused"),
    (3, 1): ("paused", "user"),
    (5, 0): ("shut_off", "unknown"),
    (5, 2): ("shut_off", "destroyed"),
}
SHUT_OFF = "5"

HALTPOLL = {"cpu.haltpoll.success.time": "success", "cpu.haltpoll.fail.time": "fail"}
NOT_OF_LIBVIRT = {"vm_info", "vm_sample_age_seconds", "vm_monitor_age_seconds", "vm_responsive", "vm_monitor_probed", "vm_conflict"}
"""What virtflow says of the VM and its sample by itself."""


def truth(stats: Mapping[str, str]) -> dict[Series, float]:
    """The series a VM must have, with their values, when libvirt says ``stats``; labels without uuid and name."""
    series: dict[Series, float] = {}
    for key, value in stats.items():
        if key.startswith("cpu.") and stats["state.state"] == SHUT_OFF:
            continue  # libvirt reports its own CPU time for a VM that does not run
        if key == "balloon.last-update" and value == "0":
            continue  # never
        if key in HALTPOLL:
            series["vm_cpu_haltpoll_seconds_total", frozenset({("result", HALTPOLL[key])})] = int(value) * NANOSECOND
            continue
        if key in VM:
            name, factor = VM[key]
            series[name, frozenset[tuple[str, str]]()] = int(value) * factor
            continue
        kind, _, rest = key.partition(".")
        index, _, field = rest.partition(".")
        if field in DEVICE.get(kind, {}):
            name, factor = DEVICE[kind][field]
            label = ("vcpu", index) if kind == "vcpu" else ("device", stats[f"{kind}.{index}.name"])
            series[name, frozenset({label})] = int(value) * factor
    state, reason = WORDS[int(stats["state.state"]), int(stats["state.reason"])]
    series["vm_state_info", frozenset({("state", state), ("reason", reason)})] = 1.0
    return series


@dataclass
class Envelope:
    """The least and the greatest that libvirt said of each series over some time."""

    least: dict[Series, float]
    greatest: dict[Series, float]

    @classmethod
    def of(cls, answers: Iterable[Mapping[str, str]]) -> Envelope:
        """Of some answers of ``virsh domstats`` about one VM."""
        envelope = cls({}, {})
        for series in map(truth, answers):
            for key, value in series.items():
                envelope.least[key] = min(value, envelope.least.get(key, math.inf))
                envelope.greatest[key] = max(value, envelope.greatest.get(key, -math.inf))
        return envelope

    def complaints(self, shown: Mapping[Series, float], gauge_slack: float) -> list[str]:
        """What is wrong with the shown series of the VM: missing, not libvirt's, or outside of what libvirt said meanwhile.

        Counters have no slack; a gauge may lie outside by the part ``gauge_slack`` of its value, for what it was between two answers.
        """
        wrong = [f"missing: {name}{dict(labels)}" for name, labels in self.least.keys() - shown.keys()]
        for key, value in shown.items():
            name, labels = key
            if name in NOT_OF_LIBVIRT:
                continue
            if key not in self.least:
                wrong.append(f"not libvirt's: {name}{dict(labels)} = {value}")
                continue
            slack = 0.0 if name.endswith("_total") else gauge_slack * abs(value)
            rounding = 1e-9 * abs(value)
            least, greatest = self.least[key] - slack - rounding, self.greatest[key] + slack + rounding
            if not least <= value <= greatest:
                wrong.append(f"wrong: {name}{dict(labels)} = {value}, libvirt said {self.least[key]} to {self.greatest[key]}")
        return sorted(wrong)
