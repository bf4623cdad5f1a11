"""What ``virtflow check`` and ``virtflow doctor`` find out where ``libvirt.discover`` names many daemons: each is asked by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from virtflow.cli.checks.findings import Finding, bad, good, warn
from virtflow.cli.parts import part
from virtflow.runtime.settings import Settings

SHOWN: Final = 20
"""Daemons that are named one by one; the rest is counted."""
TURN_SECONDS: Final = 0.2
AT_ONCE: Final = 16
"""Daemons that are examined at a time."""
RIGHTS: Final = "give the container hostPID, SYS_PTRACE and DAC_OVERRIDE, or mount the kubelet's folder of pods: docs/kubernetes.md"


@dataclass(frozen=True, slots=True)
class Reached:
    """What one daemon's connection brought: the number of its VMs, or why there is none."""

    path: str
    vms: int = 0
    problem: str = ""


def search(settings: Settings) -> tuple[list[Any], list[Finding]]:
    """The sockets that are found (the producer's ``DaemonSocket``), and what is wrong where there are none, or too many."""
    found = part("virtflow.producer.daemons.sockets", "producer").scan(settings.libvirt.discover)
    shown = ", ".join(settings.libvirt.discover)
    if found.left_out:
        told = f"{found.left_out} sockets more than the {len(found.sockets)} that are used"
        return list(found.sockets), [bad("libvirt daemons", shown, told, "make the patterns more specific")]
    if found.sockets:
        return list(found.sockets), []
    if found.denied:
        told = f"no daemon is found, and {found.denied} places are not for this user to see"
        return [], [bad("libvirt daemons", shown, told, RIGHTS)]
    told = "no daemon is found: no VM runs here, or the patterns lead elsewhere"
    return [], [warn("libvirt daemons", shown, told, "start a VM, or compare the patterns with its pod's: docs/kubernetes.md")]


def findings(settings: Settings, read: Any) -> Iterator[Finding]:  # noqa: ANN401, a query of the producer's
    """Connects to every daemon as the producer does, all at the same time; ``read`` is asked of each."""
    sockets, wrong = search(settings)
    yield from wrong
    if not sockets:
        return
    reached = _reach(settings, sockets, read)
    yield from unreached([(one.path, one.problem) for one in reached if one.problem])
    answer = [one for one in reached if not one.problem]
    if answer:
        vms = sum(one.vms for one in answer)
        told = f"{len(answer)} of {len(reached)} answer, {vms} VM{'' if vms == 1 else 's'}, statistics readable"
        yield good("libvirt daemons", ", ".join(settings.libvirt.discover), told)


def unreached(problems: list[tuple[str, str]]) -> Iterator[Finding]:
    """Findings about daemons that do not answer, each with its path and why."""
    fix = "look at its pod: `kubectl get pods -A -o wide --field-selector spec.nodeName=NODE`; its VM is shown as not responsive"
    for path, problem in problems[:SHOWN]:
        yield bad("libvirt daemon", path, problem, fix)
    if len(problems) > SHOWN:
        yield bad("libvirt daemons", str(len(problems) - SHOWN), "more do not answer", fix)


def openers(settings: Settings, sockets: list[Any]) -> list[Any]:
    """For each socket how the producer connects to it (its ``Opener``)."""
    connection = part("virtflow.producer.hypervisor.connection", "producer")
    connector = part("virtflow.producer.daemons.connector", "producer").Connector
    return [connection.Opener(settings.libvirt, connector(socket).connect) for socket in sockets]


def _reach(settings: Settings, sockets: list[Any], read: Any) -> list[Reached]:  # noqa: ANN401, as above
    worker = part("virtflow.producer.hypervisor.connection", "producer").Worker
    messages = part("virtflow.producer.hypervisor.messages", "producer")
    box = part("virtflow.producer.hypervisor.mailbox", "producer").Inbox()
    workers = [worker(number, "check", opener, box) for number, opener in enumerate(openers(settings, sockets))]
    limit = settings.libvirt.connect_timeout_seconds
    found: dict[int, Reached] = {}
    until = time.monotonic() + limit
    while len(found) < len(workers) and (now := time.monotonic()) < until:
        match box.take(min(until, now + TURN_SECONDS)):
            case messages.Opened(worker=number):
                workers[number].submit(number, read)
            case messages.OpenFailed(worker=number, error=error):
                found[number] = Reached(sockets[number].path, problem=error)
            case messages.Returned(call=number, result=result, error=error):
                path = sockets[number].path
                found[number] = Reached(path, result[0]) if error is None else Reached(path, problem=str(error))
            case _:
                pass
    for one in workers:
        one.retire()
    silent = Reached("", problem=f"no answer within {limit:g} s")
    return [found.get(number) or Reached(socket.path, problem=silent.problem) for number, socket in enumerate(sockets)]


def examine(settings: Settings) -> tuple[Any, list[Finding]]:
    """Examine every daemon: what was found as if of one (the producer's ``Examined``), and findings about those that do not answer."""
    sockets, found = search(settings)
    diagnostics = part("virtflow.producer.hypervisor.diagnostics", "producer")
    processes = diagnostics.process_table(settings)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        each = list(pool.map(lambda opener: diagnostics.examine(settings, processes, opener), openers(settings, sockets)))
    found += unreached([(socket.path, one.problem) for socket, one in zip(sockets, each, strict=True) if one.problem])
    together = diagnostics.Examined(f"{len(sockets)} daemons")
    for one in each:
        if not one.problem:
            together.add(one)
    return together, found
