"""Settings of sampling on a hypervisor."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from virtflow.runtime.sections.rows import Seconds, row


class Producer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sampling on a hypervisor."""

    node: Annotated[str, row("Name of this node in all records; the host name when empty.", "--node")] = ""
    interval_seconds: Annotated[Seconds, row("Sampling interval.", "--interval", ge=0.1, le=3600)] = 10.0
    deadline_ratio: Annotated[float, row("Part of the interval after which a round is sent with what has arrived.", ge=0.1, le=0.95)] = 0.8
    inventory_seconds: Annotated[Seconds, row("How often the inventory of an unchanged VM is read and sent again.", ge=10, le=86400)] = (
        300.0
    )
    hung_calls_max: Annotated[
        int,
        row(
            "Calls to libvirt that may hang at a time on this host; each holds one of libvirtd's workers (20) until its VM recovers. Above 5 other clients of libvirt suffer.",
            ge=1,
            le=15,
        ),
    ] = 3
    probe_maximum_seconds: Annotated[Seconds, row("Longest pause between attempts to ask a VM that does not answer.", ge=1, le=86400)] = (
        300.0
    )
    kvm_statistics: Annotated[
        bool,
        row("Also carry what KVM itself counts of each virtual CPU: exits, halt polling, preemptions (metrics of the group kvm).", "--kvm"),
    ] = False
    job_seconds: Annotated[Seconds, row("How often the running job of a VM is polled.", ge=0.1, le=3600)] = 1.0
    job_discovery_seconds: Annotated[
        Seconds,
        row(
            "How often each running VM is asked for a job that no event announces, such as a migration that copies disks first, where the files in "
            "/run/libvirt/qemu, which change when a job begins, can't be seen. 0: never, and the files are not looked at.",
            ge=0,
            le=86400,
        ),
    ] = 30.0
    journal_folder: Annotated[str, row("Folder for events that the broker does not have yet.")] = "/var/lib/virtflow/producer/journal"
    journal_bytes: Annotated[int, row("Bytes that the journal of events may take on disk.", ge=65_536, le=2**40)] = 67_108_864
    journal_sync: Annotated[
        Literal["always", "second", "never"],
        row(
            "When events are forced to the disk: before each is sent, once a second, or whenever the system does. A killed process loses none."
        ),
    ] = "second"
    ring_rounds: Annotated[int, row("Rounds kept in memory while the broker is away; the oldest are dropped.", ge=1, le=10000)] = 60
