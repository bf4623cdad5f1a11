"""A real host of the lab, for the suite."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import libvirt

from tests.support.lab import Node
from tests.support.lab_process import LabError, await_true
from tests.support.libvirt_contract.host import PROMPT_SECONDS, Known
from virtflow.producer.hypervisor.connection import start_event_loop

OFF_XML = (
    "<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>16</memory><vcpu>2</vcpu>"
    "<os><type arch='x86_64' machine='pc'>hvm</type></os></domain>"
)


class LabAttempt:
    """A call in a thread."""

    def __init__(self, call: Callable[[], Any]) -> None:
        """Begin."""
        self._call, self._begin, self._seconds = call, time.monotonic(), 0.0
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except libvirt.libvirtError as error:
            self._error = error
        self._seconds = time.monotonic() - self._begin

    def ends_within(self, seconds: float) -> bool:
        """In real time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def seconds(self) -> float:
        """Real ones."""
        return self._seconds

    def result(self) -> Any:  # noqa: ANN401, whatever the call returns
        """What the call returned or raised."""
        if self._error is not None:
            raise self._error
        return self._result


class LabHost:
    """A ``Host`` with a real libvirtd."""

    libvirt = libvirt

    def __init__(self, node: Node, vms: int = 8) -> None:
        """Start the VMs on a node that has none."""
        start_event_loop()
        self._node = node
        self.uri = node.socket_uri
        self._guests = {guest.uuid: guest for guest in node.load_paused(vms, "vm")}
        self.vms = tuple(Known(guest.name, guest.uuid) for guest in self._guests.values())
        self.off = Known("off", str(uuid4()))
        node.define(self.off.uuid, OFF_XML.format(name=self.off.name, uuid=self.off.uuid))
        self._connections: list[Any] = []
        number = self.connect().getLibVersion()
        self.version = (number // 1_000_000, number // 1000 % 1000, number % 1000)

    def calm(self) -> None:
        """After a test: everything goes on, and nothing that it opened stays."""
        self._node.resume_libvirtd()
        self.thaw(*self.vms)
        await_true(lambda: self._node.hung_calls() == 0, PROMPT_SECONDS, "all calls come back")
        for connection in self._connections:
            try:
                connection.close()
            except libvirt.libvirtError:  # closed by the test
                continue
        self._connections.clear()

    def connect(self, *, writing: bool = False) -> Any:  # noqa: ANN401, the binding has no types
        """See ``Host``."""
        connection = libvirt.open(self.uri) if writing else libvirt.openReadOnly(self.uri)
        connection.setKeepAlive(2, 2)
        self._connections.append(connection)
        return connection

    def attempt(self, call: Callable[[], Any]) -> LabAttempt:
        """See ``Host``."""
        return LabAttempt(call)

    def thread(self) -> int:
        """See ``Host``."""
        return threading.get_ident()

    def let_pass(self, seconds: float) -> None:
        """See ``Host``."""
        time.sleep(seconds)

    def freeze(self, *vms: Known) -> None:
        """See ``Host``."""
        self._node.freeze(*(self._guests[vm.uuid] for vm in vms))

    def thaw(self, *vms: Known) -> None:
        """See ``Host``."""
        self._node.thaw(*(self._guests[vm.uuid] for vm in vms))

    def create(self) -> Known:
        """See ``Host``."""
        guest = self._node.load_paused(1, f"fresh-{len(self._guests)}")[0]
        self._guests[guest.uuid] = guest
        return Known(guest.name, guest.uuid)

    def destroy(self, vm: Known) -> None:
        """See ``Host``."""
        try:
            self._node.virsh("destroy", vm.uuid)
        except LabError:  # a daemon that could not reach it ends it as well, and then knows of none
            if vm.uuid in self._node.virsh("list", "--uuid"):
                raise

    def resume(self, vm: Known) -> None:
        """See ``Host``."""
        self._node.virsh("resume", vm.uuid)

    def suspend(self, vm: Known) -> None:
        """See ``Host``."""
        self._node.virsh("suspend", vm.uuid)

    def start(self, vm: Known) -> None:
        """See ``Host``."""
        self._node.virsh("start", vm.uuid)

    def pause_daemon(self) -> None:
        """See ``Host``."""
        self._node.pause_libvirtd()

    def resume_daemon(self) -> None:
        """See ``Host``."""
        self._node.resume_libvirtd()

    def restart_daemon(self) -> None:
        """See ``Host``."""
        self._node.restart_libvirtd()

    def limit_workers(self, workers: int, priority: int) -> None:
        """See ``Host``."""
        number = ["--min-workers", "2", "--max-workers", str(workers), "--priority-workers", str(priority)]
        self._node.virt_admin("srv-threadpool-set", self._node.hypervisor.daemon, *number)

    def hung_calls(self) -> int:
        """See ``Host``."""
        return self._node.hung_calls()
