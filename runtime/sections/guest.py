"""Settings of asking the guests' agents."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct, field

from virtflow.runtime.sections.rows import Seconds, row


class Guest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The guests' agents, asked by a process of its own (docs/guest-agent.md). Nothing is asked by default."""

    enabled: Annotated[
        bool,
        row(
            "Ask the guests' agents, in a helper process with a connection that may write; of all VMs, unless some are named.",
            "--guest-agent",
        ),
    ] = False
    names: Annotated[list[str], row("VMs whose agents are asked, by patterns of their names: web-*. Naming any VM enables asking it.")] = (
        field(default_factory=list)
    )
    uuids: Annotated[list[str], row("VMs whose agents are asked, by UUID.")] = field(default_factory=list)
    metadata: Annotated[list[str], row("VMs whose agents are asked: those with metadata of one of these XML namespaces.")] = field(
        default_factory=list
    )
    cycle_seconds: Annotated[Seconds, row("How often an agent is asked.", ge=1, le=86400)] = 60.0
    timeout_seconds: Annotated[int, row("How long libvirt waits for an agent's answer.", ge=1, le=60)] = 2
    calls_per_minute: Annotated[
        int, row("Calls to libvirt that asking may take in any minute on this host; a VM takes about seven a cycle.", ge=1, le=100000)
    ] = 1200
    calls_in_flight: Annotated[int, row("VMs that are asked at a time on this host, each by one call.", ge=1, le=4)] = 2
    pseudo_filesystems: Annotated[bool, row("Also show filesystems that are on no disk: tmpfs, proc and the like.")] = False
    container_filesystems: Annotated[
        bool,
        row("Also show filesystems that are mounted for containers: below kubelet's pods, and containerd's, CRI-O's and Docker's own."),
    ] = False
    balloon_period_seconds: Annotated[
        int,
        row(
            "Give running VMs that have no statistics period of their balloon this one, by the same process; 0: change nothing.",
            "--set-balloon-period",
            ge=0,
            le=86400,
        ),
    ] = 0
    memory_bytes: Annotated[int, row("Address space that the helper process may take.", ge=134_217_728, le=2**40)] = 167_772_160
    hang_seconds: Annotated[Seconds, row("Silence after which the helper process is killed.", ge=1, le=600)] = 10.0
    restart_maximum_seconds: Annotated[Seconds, row("Longest pause before the helper process is started again.", ge=0.1, le=3600)] = 60.0
