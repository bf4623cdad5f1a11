"""What ``virtflow doctor --guest-agent`` says: why a guest's data are missing, VM by VM, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from virtflow.cli.checks.findings import Finding, bad, good
from virtflow.runtime.settings import Guest
from virtflow.schemas.guest import GuestReason

SHOWN: Final = 20
"""VMs that are named one by one; the rest is counted."""
CHANNEL: Final = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"

_WORDS: Final[dict[str, tuple[str, str]]] = {
    GuestReason.NO_CHANNEL: ("it has no channel for an agent", f"add {CHANNEL} to the devices in its XML and start it anew"),
    GuestReason.DISCONNECTED: (
        "nobody in the guest listens on the agent's channel",
        "install and start qemu-guest-agent in the guest (`systemctl enable --now qemu-guest-agent`)",
    ),
    GuestReason.TIMEOUT: (
        "its agent does not answer in time",
        "restart the agent in the guest; a guest that is only slow needs a longer guest.timeout_seconds",
    ),
    GuestReason.BLOCKED: ("its agent knows or allows none of the commands", "fix block-rpcs or allow-rpcs in the guest's qemu-ga.conf"),
    GuestReason.MALFORMED: (
        "its agent's answers can't be understood",
        "see who listens on the channel in the guest: QEMU's own agent should",
    ),
    GuestReason.BUSY: (
        "somebody else's call to its agent, or to its monitor, is under way",
        "look for it with `virsh domjobinfo` and for backups that freeze filesystems",
    ),
    GuestReason.FAILED: ("libvirt refuses the call", "run as a user that may write to libvirt (root, or group libvirt)"),
    GuestReason.SUSPECT: ("libvirt went away while its agent was asked", "leave it out: see docs/guest-agent.md"),
    GuestReason.CAPPED: (
        "it was not asked: calls are lost on this host, and no more may be",
        "fix the stuck VMs first: docs/stuck-vms.md",
    ),
    GuestReason.WAITING: ("its turn did not come in time", "raise guest.calls_per_minute, or ask fewer VMs (guest.names)"),
}


def findings(vms: Iterable[Any], problem: str, guest: Guest) -> Iterator[Finding]:
    """What is missing of each VM that may be asked (the producer's ``Vm``); ``problem`` says why none could be."""
    if problem:
        yield bad("guest agents", "process", problem, "see whether this user may write to libvirt: `virsh -c URI list` without --readonly")
        return
    running = [vm for vm in vms if vm.running]
    wrong = [finding for vm in running for finding in _of_vm(vm)]
    yield from wrong[:SHOWN]
    if len(wrong) > SHOWN:
        yield bad("guests", str(len(wrong) - SHOWN), "more findings about guests", "--json shows what is named; mend those first")
    up = sum(not vm.reason for vm in running)
    yield good("guest agents", f"{up} of {len(running)}", f"answered everything within {guest.timeout_seconds} s a command")


def _of_vm(vm: Any) -> Iterator[Finding]:  # noqa: ANN401, the producer's Vm
    if vm.reason and vm.reason != GuestReason.NOT_RUNNING:
        told, fix = _WORDS.get(vm.reason, (vm.reason, "see docs/guest-agent.md"))
        yield bad("guest", vm.name, told, fix)
    elif vm.blocked:
        commands = ", ".join(sorted(vm.blocked))
        yield bad("guest", vm.name, f"its agent does not know or allow: {commands}", "bring the agent up to date, or mend its qemu-ga.conf")
    if vm.look is None:
        return
    if not vm.look.balloon:
        yield bad("guest", vm.name, "it has no balloon, so vm_guest_memory_* is missing", "add <memballoon model='virtio'/> to its XML")
    elif vm.balloon_driver is False:
        told = "the guest has no driver for its balloon, so vm_guest_memory_* is missing"
        yield bad("guest", vm.name, told, "load virtio_balloon in the guest (Windows: install the virtio-win drivers)")
