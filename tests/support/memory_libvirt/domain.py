"""``virDomain`` of the in-memory libvirt, as far as virtflow uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import libvirt

from tests.support.memory_libvirt import agent_calls
from tests.support.memory_libvirt.errors import error, read_only
from tests.support.memory_libvirt.requests import Request
from tests.support.memory_libvirt.vm import Vm

if TYPE_CHECKING:
    from tests.support.memory_libvirt.connection import MemoryConnection


class MemoryDomain:
    """A handle: what it knows by itself is of when it was made."""

    def __init__(self, connection: MemoryConnection, uuid: str, name: str, number: int) -> None:
        """To be had from a connection."""
        self._connection = connection
        self._daemon = connection.daemon
        self._uuid, self._name, self._number = uuid, name, number

    # -- what the handle knows

    def UUIDString(self) -> str:  # noqa: N802, libvirt's name
        """The VM's UUID."""
        return self._uuid

    def name(self) -> str:
        """The VM's name."""
        return self._name

    def ID(self) -> int:  # noqa: N802, libvirt's name
        """The running VM's number; -1: it was shut off."""
        return self._number

    # -- what the daemon knows

    def state(self, flags: int = 0) -> list[int]:
        """State and reason."""
        del flags
        with self._request("remoteDispatchDomainGetState", priority=True):
            vm = self._vm()
            return [vm.state, vm.reason]

    def isActive(self) -> int:  # noqa: N802, libvirt's name
        """Whether it has a QEMU."""
        with self._request("remoteDispatchDomainIsActive", priority=True):
            return int(self._vm().active)

    def isPersistent(self) -> int:  # noqa: N802, libvirt's name
        """Whether its definition stays when it ends."""
        with self._request("remoteDispatchDomainIsPersistent", priority=True):
            return int(self._vm().persistent)

    def info(self) -> list[int]:
        """State, memory at most and now (KiB), vCPUs, CPU time (ns)."""
        with self._request("remoteDispatchDomainGetInfo"):
            vm = self._vm()
            vm.fail("info")
            told = vm.told(libvirt.VIR_DOMAIN_STATS_BALLOON | libvirt.VIR_DOMAIN_STATS_VCPU, monitor=False)
            time = vm.stats["cpu.time"] if vm.active else 0
            return [vm.state, told["balloon.maximum"], told["balloon.current"], told["vcpu.current"], time]

    def vcpus(self) -> tuple[list[tuple[int, int, int, int]], list[tuple[bool, ...]]]:
        """Number, state, CPU time (ns) and CPU of each vCPU, and where each may run."""
        with self._request("remoteDispatchDomainGetVcpus"):
            vm = self._vm()
            if not vm.active:
                text = "Requested operation is not valid: cannot retrieve vcpu information for inactive domain"
                raise error(libvirt.VIR_ERR_OPERATION_INVALID, text)
            numbers = sorted(int(key.split(".")[1]) for key in vm.stats if key.startswith("vcpu.") and key.endswith(".state"))
            found = [(n, vm.stats[f"vcpu.{n}.state"], vm.stats.get(f"vcpu.{n}.time", 0), 0) for n in numbers]
            return found, [(True, True)] * len(found)

    def controlInfo(self, flags: int = 0) -> list[int]:  # noqa: N802, libvirt's name
        """Whether a call holds the VM, and for how many milliseconds it has waited for QEMU."""
        del flags
        with self._request("remoteDispatchDomainGetControlInfo", priority=True):
            vm = self._active()
            if vm.entered is not None:
                waited = round((self._daemon.clock.now - vm.entered) * 1000)
                return [libvirt.VIR_DOMAIN_CONTROL_OCCUPIED, 0, waited]
            return [libvirt.VIR_DOMAIN_CONTROL_OK if vm.held is None else libvirt.VIR_DOMAIN_CONTROL_JOB, 0, 0]

    def XMLDesc(self, flags: int = 0) -> str:  # noqa: N802, libvirt's name
        """The VM's XML. From 11.0 on it waits for the job lock, and comes without it after 30 s (measured on 11.3)."""
        del flags
        with self._request("remoteDispatchDomainGetXMLDesc") as request:
            vm = self._vm()
            if self._daemon.release.xml_takes_job and vm.active:
                self._daemon.take_job(request, vm)
                self._daemon.give_job(request, vm)
            vm.fail("XMLDesc")
            return vm.xml

    # -- what QEMU knows

    def memoryStats(self) -> dict[str, int]:  # noqa: N802, libvirt's name
        """The balloon's statistics."""

        def ask(vm: Vm) -> dict[str, int]:
            told = {key.removeprefix("balloon.").replace("-", "_"): value for key, value in vm.stats.items() if key.startswith("balloon.")}
            told["actual"] = told.pop("current")
            del told["maximum"]
            return told

        return self._daemon.monitor(self._connection.socket, self._uuid, "remoteDispatchDomainMemoryStats", ask)

    def jobStats(self, flags: int = 0) -> dict[str, Any]:  # noqa: N802, libvirt's name
        """Statistics of the running or the completed job; QEMU is asked only where one runs."""
        with self._request("remoteDispatchDomainGetJobStats") as request:
            vm = self._active()
            vm.fail("jobStats")
            if flags & libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED:
                return self._completed(vm, keep=bool(flags & libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED))
            self._daemon.need_job(request, vm)
            try:
                return self._job(request, vm)
            finally:
                self._daemon.give_job(request, vm)

    def _job(self, request: Request, vm: Vm) -> dict[str, Any]:
        if vm.job is None:
            return {"type": libvirt.VIR_DOMAIN_JOB_NONE}
        if vm.job.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN:
            text = "Operation not supported: migration statistics are available only on the source host"
            raise error(libvirt.VIR_ERR_OPERATION_UNSUPPORTED, text)
        elapsed = {"time_elapsed": round((self._daemon.clock.now - vm.job_began) * 1000)}
        return self._daemon.ask_qemu(request, vm, lambda: {"type": 0} if vm.job is None else elapsed | vm.job)

    @staticmethod
    def _completed(vm: Vm, *, keep: bool) -> dict[str, Any]:
        completed = vm.completed or {"type": libvirt.VIR_DOMAIN_JOB_NONE}
        if not keep:
            vm.completed = None
        return completed

    # -- what the guest's agent knows, and what writes

    def agentSetResponseTimeout(self, timeout: int, flags: int = 0) -> int:  # noqa: N802, libvirt's name
        """How long the agent's calls wait from now on, whoever makes them."""
        del flags
        with self._writing("remoteDispatchDomainAgentSetResponseTimeout", "virDomainAgentSetResponseTimeout"):
            vm = self._vm()
            if vm.agent is not None:
                vm.agent.timeout = timeout
            return 0

    def guestInfo(self, types: int = 0, flags: int = 0) -> dict[str, Any]:  # noqa: N802, libvirt's name
        """What the agent says of the guest; nothing where it was waited for in vain (measured on 9.0)."""
        del flags
        with self._writing("remoteDispatchDomainGetGuestInfo", "virDomainGetGuestInfo") as request:
            return agent_calls.guest_info(self._daemon, request, self._vm(), types)

    def vcpusFlags(self, flags: int = 0) -> int:  # noqa: N802, libvirt's name
        """How many CPUs the guest has in use, by its agent's word."""
        if not flags & libvirt.VIR_DOMAIN_VCPU_GUEST:
            with self._request("remoteDispatchDomainGetVcpusFlags", priority=True):
                return int(self._vm().stats["vcpu.current"])
        with self._writing("remoteDispatchDomainGetVcpusFlags", "virDomainGetVcpusFlags") as request:
            vm = self._vm()
            if not vm.active:
                text = "invalid argument: vCPU count provided by the guest agent can only be requested for live domains"
                raise error(libvirt.VIR_ERR_INVALID_ARG, text)
            return int(agent_calls.asked(self._daemon, request, vm, "vcpu.online", 0))

    def interfaceAddresses(self, source: int, flags: int = 0) -> dict[str, Any]:  # noqa: N802, libvirt's name
        """The guest's addresses by a DHCP lease, by its agent, or by the host's ARP table."""
        del flags
        if source != libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT:
            with self._request("remoteDispatchDomainInterfaceAddresses"):
                return dict(self._active().stats.get(f"addresses.{source}", {}))
        with self._writing("remoteDispatchDomainInterfaceAddresses", "virDomainInterfaceAddresses") as request:
            return dict(agent_calls.asked(self._daemon, request, self._active(), "addresses", {}))

    def setMemoryStatsPeriod(self, period: int, flags: int = 0) -> int:  # noqa: N802, libvirt's name
        """How often QEMU asks the balloon driver for its statistics."""
        del flags
        self._may_write("virDomainSetMemoryStatsPeriod")

        def ask(vm: Vm) -> int:
            vm.xml = vm.xml.replace("<memballoon model='virtio'/>", f"<memballoon model='virtio'><stats period='{period}'/></memballoon>")
            return 0

        return self._daemon.monitor(self._connection.socket, self._uuid, "remoteDispatchDomainSetMemoryStatsPeriod", ask)

    # -- inside

    def _request(self, procedure: str, *, priority: bool = False) -> Any:  # noqa: ANN401, a context manager
        return self._daemon.serve(self._connection.socket, procedure, priority=priority)

    def _writing(self, procedure: str, function: str) -> Any:  # noqa: ANN401, a context manager
        self._may_write(function)
        return self._request(procedure)

    def _may_write(self, function: str) -> None:
        if self._connection.read_only:
            raise read_only(function)

    def _vm(self) -> Vm:
        return self._daemon.find(self._uuid, self._name)

    def _active(self) -> Vm:
        return self._daemon.active(self._uuid, self._name)
