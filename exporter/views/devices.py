"""One VM with everything that is known of it: devices with their rates, inventory, guest, migration, the last hour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import nan
from typing import Final

from virtflow.exporter.views.counters import BLOCKS, CPU, NETWORKS, VCPUS, Growth
from virtflow.exporter.views.fleet_view import Seen
from virtflow.exporter.views.migrations import migration_row
from virtflow.exporter.views.ring import COLUMNS
from virtflow.exporter.views.rows import Address, Disk, Filesystem, Interface, Vcpu, VmDetail
from virtflow.exporter.views.totals import latency, plus
from virtflow.exporter.views.values import known
from virtflow.exporter.views.vms import Moment, hour_end, hour_of, vm_fields
from virtflow.schemas import records
from virtflow.schemas.fields import VcpuMetrics
from virtflow.schemas.records import VmInventory, VmMigration

VCPU_STATES: Final = ("offline", "running", "blocked")
INVENTORY: Final = ("project_id", "user", "user_id", "platform", "namespace", "platform_name", "machine_type")
NO_INVENTORY: Final = VmInventory(uuid="")


def vm_detail(seen: Seen, moment: Moment, migration: VmMigration | None) -> VmDetail:
    """Everything; the rates of devices are those between the last two samples."""
    record, inventory, rates = seen.record, seen.inventory or NO_INVENTORY, seen.rates()
    guest = record.guest[0] if record.guest else None
    return VmDetail(
        **vm_fields(seen, moment),
        **{field: getattr(inventory, field) for field in INVENTORY},
        cpu_system_cores=known(rates[CPU][""][1]) if rates[CPU] else None,
        memory_resident_bytes=known(record.memory_rss_bytes),
        memory_maximum_bytes=known(record.memory_balloon_maximum_bytes),
        interval_seconds=known(record.interval),
        virtual_cpus=[_vcpu(vcpu, rates[VCPUS]) for vcpu in record.vcpus],
        disks=_disks(seen, inventory.disks, rates[BLOCKS]),
        interfaces=_interfaces(seen, inventory.nics, rates[NETWORKS]),
        hostname=guest.hostname if guest else "",
        os=(guest.os_pretty_name or guest.os_name) if guest else "",
        agent_up=bool(guest.agent_up) if guest and guest.agent_up >= 0 else None,
        load1=known(guest.load1) if guest else None,
        filesystems=[_filesystem(one) for one in guest.filesystems] if guest else [],
        addresses=[Address(interface=one.interface, address=one.address, prefix=known(one.prefix)) for one in guest.addresses]
        if guest
        else [],
        migration=migration_row(migration, moment.wall) if migration else None,
        hour={column: hour_of(seen, moment, column) for column in COLUMNS},
        hour_end=hour_end(moment),
    )


def _vcpu(vcpu: VcpuMetrics, rates: Growth) -> Vcpu:
    used, steal, _ = rates.get(vcpu.vcpu, (nan, nan, nan))
    word = VCPU_STATES[vcpu.state] if 0 <= vcpu.state < len(VCPU_STATES) else ""
    return Vcpu(vcpu=vcpu.vcpu, state=word, cpu_ratio=known(used), steal_ratio=known(steal))


def _disks(seen: Seen, described: Iterable[records.Disk], rates: Growth) -> list[Disk]:
    about = {disk.device: disk for disk in described}
    nothing = records.Disk()
    found = []
    for block in seen.record.blocks:
        read, written, reads, writes, flushes, reading, writing, flushing = rates.get(block.device, _unknown(BLOCKS.fields))
        found.append(
            Disk(
                device=block.device,
                source=about.get(block.device, nothing).source,
                bus=about.get(block.device, nothing).bus,
                capacity_bytes=known(block.capacity_bytes),
                allocation_bytes=known(block.allocation_bytes),
                read_bytes_per_second=known(read),
                write_bytes_per_second=known(written),
                read_requests_per_second=known(reads),
                write_requests_per_second=known(writes),
                flush_requests_per_second=known(flushes),
                read_latency_seconds=known(latency(reading, reads)),
                write_latency_seconds=known(latency(writing, writes)),
                flush_latency_seconds=known(latency(flushing, flushes)),
            )
        )
    return found


def _interfaces(seen: Seen, described: Iterable[records.Nic], rates: Growth) -> list[Interface]:
    about = {nic.device: nic for nic in described}
    nothing = records.Nic()
    found = []
    for network in seen.record.networks:
        received, sent, packets_in, packets_out, dropped_in, dropped_out, errors_in, errors_out = rates.get(
            network.device, _unknown(NETWORKS.fields)
        )
        nic = about.get(network.device, nothing)
        found.append(
            Interface(
                device=network.device,
                mac=nic.mac,
                model=nic.model,
                source=nic.source,
                receive_bytes_per_second=known(received),
                transmit_bytes_per_second=known(sent),
                receive_packets_per_second=known(packets_in),
                transmit_packets_per_second=known(packets_out),
                dropped_packets_per_second=known(plus(dropped_in, dropped_out)),
                error_packets_per_second=known(plus(errors_in, errors_out)),
            )
        )
    return found


def _unknown(fields: Sequence[str]) -> tuple[float, ...]:
    return (nan,) * len(fields)


def _filesystem(one: records.GuestFilesystemMetrics) -> Filesystem:
    return Filesystem(mountpoint=one.mountpoint, fstype=one.fstype, size_bytes=known(one.size_bytes), free_bytes=known(one.free_bytes))
