"""``virtflow doctor``: what is wrong with this host's libvirt, in plain words, and what to do about it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from virtflow.cli.checks import daemons, doctor_agents, host
from virtflow.cli.checks.check import line, mark
from virtflow.cli.checks.findings import Finding, bad, good
from virtflow.cli.checks.probes import is_bad_uri
from virtflow.cli.output.say import say, say_json
from virtflow.cli.parts import part
from virtflow.cli.switches import json_switch, settings_switches
from virtflow.runtime.settings import Settings

SHOWN = 20
"""VMs that are named one by one; the rest is counted."""
GUESTS_SECONDS = 60.0
"""How long the guests' agents may take in all."""
SLOW_SECONDS = 2.0
"""A list of all VMs that takes longer means that libvirtd hardly gets to anything."""


@click.command()
@settings_switches("libvirt.uri", "libvirt.discover", "guest.enabled")
@json_switch
def doctor(settings: Settings, *, as_json: bool) -> int:
    """Look at this host and say in plain words what is wrong with its libvirt and its VMs, and what to do.

    It asks no VM's monitor: however much hangs, it leaves no hung call behind and takes a few seconds. With --guest-agent it also asks each guest's
    agent once, as the producer would, and says why a guest's data are missing. Exit code 1 when something is wrong.

    \b
    Examples:
      virtflow doctor
      virtflow doctor --guest-agent
      virtflow doctor --connect qemu:///system --json | jq '.findings[] | select(.ok | not)'
    """  # noqa: D301, click's own mark for lines that are kept
    logging.getLogger("virtflow.producer").setLevel(logging.CRITICAL)
    if settings.libvirt.discover:
        examined, unanswered = daemons.examine(settings)
        found = [*unanswered, *of_daemons(examined), *host.clock_findings()]
    else:
        examined = part("virtflow.producer.hypervisor.diagnostics", "producer").examine(settings)
        found = [*findings(examined, settings), *host.findings(settings), *_guests(settings, examined.problem)]
    wrong = sum(not finding.ok for finding in found)
    if as_json:
        vms = [asdict(vm) | {"stuck": vm.stuck} for vm in examined.vms if vm.stuck]
        say_json({"ok": not wrong, "findings": [asdict(finding) for finding in found], "stuck": vms})
    else:
        for finding in found:
            say(line(finding), mark=mark(finding))
        say("", f"{wrong} of {len(found)} wrong" if wrong else f"all {len(found)} fine")
    return int(wrong > 0)


def _guests(settings: Settings, problem: str) -> Iterator[Finding]:
    """Findings about the guest agents, where they are to be asked and libvirt is reachable."""
    if problem or not part("virtflow.producer.agent.selection", "producer").asks(settings.guest):
        return
    budget = part("virtflow.producer.hung_calls.budget", "producer").CallBudget(settings.producer.hung_calls_max)
    guests = part("virtflow.producer.agent.supervisor", "producer").GuestAgents(settings, budget, once=True)
    guests.start()
    try:
        guests.settled.wait(GUESTS_SECONDS)
        vms, why = guests.vms(), guests.problem
    finally:
        guests.close()
    yield from doctor_agents.findings(vms, why, settings.guest)


def findings(examined: Any, settings: Settings) -> Iterator[Finding]:  # noqa: ANN401, the producer's Examined
    """Findings of the libvirt diagnosis."""
    if examined.problem:
        yield bad("libvirt", examined.uri, examined.problem, _fix(examined.problem))
        return
    yield _late(examined, settings) or _answering(examined)
    yield from _events(examined)
    yield from _hung_calls(examined, settings)
    yield from _stuck(examined)
    yield _processes(examined)
    yield _balloons(examined)


def of_daemons(examined: Any) -> Iterator[Finding]:  # noqa: ANN401, the producer's Examined of several daemons
    """Findings about the VMs of all daemons that answer; nothing where there are none."""
    if not examined.vms:
        return
    yield _answering(examined)
    yield from _events(examined)
    yield from _stuck(examined)
    yield _processes(examined)
    yield _balloons(examined)


def _fix(problem: str) -> str:
    if "Permission denied" in problem or "uthenticat" in problem or "polkit" in problem:
        return "add this user to group libvirt, or run the command as the producer's user"
    if "not answered" in problem or "no answer" in problem:
        return "find what hangs first (`ps -eo pid,stat,wchan:20,args | grep qemu`); restarting libvirtd frees its workers, and VMs run on"
    if is_bad_uri(problem):
        return "name a libvirt URI with --connect, for example qemu:///system"
    return "start libvirtd (`systemctl start libvirtd`), or name another hypervisor with --connect"


def _listed(examined: Any) -> str:  # noqa: ANN401
    return f"libvirt {examined.libvirt_version}, {len(examined.vms)} VMs, listed in {examined.seconds:.2f} s"


def _late(examined: Any, settings: Settings) -> Finding | None:  # noqa: ANN401
    interval, share = settings.producer.interval_seconds, settings.producer.deadline_ratio
    if examined.seconds <= interval * share:
        return None
    told = f"{_listed(examined)}: not within a round ({share:g} of {interval:g} s)"
    return bad("libvirt", examined.uri, told, "choose a longer producer.interval_seconds: not every round has VMs")


def _answering(examined: Any) -> Finding:  # noqa: ANN401
    told = _listed(examined)
    if examined.seconds <= SLOW_SECONDS:
        return good("libvirt", examined.uri, told)
    return bad("libvirt", examined.uri, told, "libvirtd is busy: look for clients that ask too often (`virt-admin client-list libvirtd`)")


def _events(examined: Any) -> Iterator[Finding]:  # noqa: ANN401
    agreed, wanted = examined.event_kinds, examined.event_kinds_wanted
    if agreed:
        yield good("events", examined.uri, f"{agreed} of {wanted} kinds are announced")
    else:
        fix = "libvirt is too old or not a hypervisor's: changes of VMs are seen by the next rounds only"
        yield bad("events", examined.uri, "no kind of event is announced", fix)


def _hung_calls(examined: Any, settings: Settings) -> Iterator[Finding]:  # noqa: ANN401
    held = [vm for vm in examined.vms if vm.held]
    cap, workers = settings.producer.hung_calls_max, host.daemon_limits(settings.libvirt.uri).max_workers
    if not held:
        yield good("hung calls", "0", f"none of libvirtd's {workers} workers is held by one; virtflow has {cap} at most")
        return
    fix = "repair the storage below or end those VMs: each frees its call. Do not restart collectors: each restart can add a hung call"
    free = max(0, workers - len(held))
    told = f"in VMs that do not answer, of any client; {free} of libvirtd's {workers} workers are left, and without one no client gets an answer"
    yield bad("hung calls", str(len(held)), told, fix)


def _stuck(examined: Any) -> Iterator[Finding]:  # noqa: ANN401
    stuck = [vm for vm in examined.vms if vm.stuck]
    for vm in stuck[:SHOWN]:
        yield bad("VM", vm.name, _symptom(vm), f"look at its storage: {', '.join(vm.storage) or 'none in its XML'}; docs/stuck-vms.md")
    if len(stuck) > SHOWN:
        yield bad("VMs", str(len(stuck) - SHOWN), "more do not answer", "--json names them all")
    if not stuck:
        yield good("VMs", str(len(examined.vms)), "none is seen not to answer")


def _symptom(vm: Any) -> str:  # noqa: ANN401, the producer's ExaminedVm
    told = []
    if vm.held:
        told.append(f"a call has been held in it for {vm.occupied_seconds:.0f} s")
    match vm.process:
        case "D":
            told.append("its QEMU waits for storage (state D)")
        case "T" | "t":
            told.append(f"its QEMU is stopped (state {vm.process}): somebody sent it SIGSTOP or traces it")
        case _:
            pass
    return ", ".join(told)


def _processes(examined: Any) -> Finding:  # noqa: ANN401
    running = [vm for vm in examined.vms if vm.running]
    seen = sum(vm.process != "" for vm in running)
    if seen == len(running):
        return good("process table", "/proc", f"{seen} QEMU processes are seen: stuck VMs are told apart without losing a call")
    told = f"{len(running) - seen} of {len(running)} QEMU processes are not seen: telling stuck VMs apart costs a call for each"
    return bad(
        "process table", "/proc", told, "run on the host itself (a container needs its PID namespace), without hidepid for this user"
    )


def _balloons(examined: Any) -> Finding:  # noqa: ANN401
    lacking = [vm.name for vm in examined.vms if vm.running and vm.lacks_statistics_period]
    if not lacking:
        return good("balloon", "statistics period", "set for every VM that runs")
    names = ", ".join(lacking[:5]) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")  # noqa: PLR2004, as shown before
    fix = "`virsh dommemstat VM --period 10 --live --config`, or <stats period='10'/> in the VM's <memballoon>; `virtflow producer --set-balloon-period 10` does it for all that run"
    return bad("balloon", f"{len(lacking)} VMs", f"no statistics period, so vm_guest_memory_* is missing or frozen: {names}", fix)
