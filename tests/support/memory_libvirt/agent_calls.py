"""Calls to a guest's agent: a lock of their own beside the VM's job, a response timeout, and whatever the guest makes of the question."""

from __future__ import annotations

from typing import Any, Final

import libvirt

from tests.support.memory_libvirt.clock import FOREVER
from tests.support.memory_libvirt.daemon import LOCK_SECONDS, Daemon
from tests.support.memory_libvirt.errors import error, lock_timeout, not_running
from tests.support.memory_libvirt.requests import Request
from tests.support.memory_libvirt.vm import Agent, Vm

SYNCHRONISE_SECONDS: Final = 5.0
"""How long libvirt tries to get in step with an agent at most."""
PATIENCE: Final = {
    libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK: FOREVER,
    libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_DEFAULT: SYNCHRONISE_SECONDS,
}
KEYS: Final = {
    libvirt.VIR_DOMAIN_GUEST_INFO_USERS: "user.",
    libvirt.VIR_DOMAIN_GUEST_INFO_OS: "os.",
    libvirt.VIR_DOMAIN_GUEST_INFO_TIMEZONE: "timezone.",
    libvirt.VIR_DOMAIN_GUEST_INFO_HOSTNAME: "hostname",
    libvirt.VIR_DOMAIN_GUEST_INFO_FILESYSTEM: "fs.",
    libvirt.VIR_DOMAIN_GUEST_INFO_DISKS: "disk.",
    libvirt.VIR_DOMAIN_GUEST_INFO_INTERFACES: "if.",
    1 << 7: "load.",
}
"""The types of ``guestInfo`` and how their fields begin."""


def guest_info(daemon: Daemon, request: Request, vm: Vm, types: int) -> dict[str, Any]:
    """What the agent tells of these types (0: of all); nothing when it does not answer in time."""
    prefixes = tuple(prefix for kind, prefix in KEYS.items() if not types or types & kind)
    if not _await(daemon, request, vm, "guestInfo"):
        return {}
    return {key: value for key, value in _agent(vm).answer.items() if key.startswith(prefixes)}


def asked(daemon: Daemon, request: Request, vm: Vm, key: str, default: Any) -> Any:  # noqa: ANN401, whatever the guest says
    """One thing that the agent tells; error 86 when it does not answer in time."""
    if not _await(daemon, request, vm, key):
        raise error(libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "Guest agent is not responding: Guest agent not available for now")
    return _agent(vm).answer.get(key, default)


def _agent(vm: Vm) -> Agent:
    """The agent's channel; the error that says that there is none, or nobody at its other end."""
    if vm.state != libvirt.VIR_DOMAIN_RUNNING:
        raise not_running()
    if vm.agent is None:
        raise error(libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, "argument unsupported: QEMU guest agent is not configured")
    if not vm.agent.connected:
        raise error(libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "Guest agent is not responding: QEMU guest agent is not connected")
    return vm.agent


def _await(daemon: Daemon, request: Request, vm: Vm, what: str) -> bool:
    """Whether the agent answers in time; raises what it answers with where that is a failure."""
    agent = _agent(vm)
    if not daemon.wait(request, lambda: agent.held is None, daemon.clock.now + LOCK_SECONDS):
        raise lock_timeout((agent.held or request).procedure)
    agent.held = request
    agent.asked.append(what)
    patience = PATIENCE.get(agent.timeout, float(agent.timeout))
    until = daemon.clock.now + (patience if agent.synchronises else min(patience, SYNCHRONISE_SECONDS))
    try:
        answered = _waited(daemon, request, vm, until)
    finally:
        if request.socket.lost and daemon.clock.now < until:
            request.orphan = True  # it goes on in the daemon, with its worker
            daemon.clock.at(until, lambda: _end(daemon, request, agent))
        else:
            agent.held = None
            daemon.clock.changed()
    if answered and agent.failure is not None:
        raise agent.failure
    return answered


def _end(daemon: Daemon, request: Request, agent: Agent) -> None:
    if request in daemon.serving:
        daemon.serving.remove(request)
    agent.held = None


def _waited(daemon: Daemon, request: Request, vm: Vm, until: float) -> bool:
    agent, begin = _agent(vm), daemon.clock.now

    def answers() -> bool:
        return vm.gone or not agent.connected or (not vm.stopped and daemon.clock.now - begin >= agent.seconds)

    if agent.seconds != FOREVER:
        daemon.clock.at(begin + agent.seconds, daemon.clock.changed)
    answered = daemon.wait(request, answers, until)
    _agent(vm)
    return answered
