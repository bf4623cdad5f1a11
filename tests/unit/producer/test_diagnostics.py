"""What the doctor finds out when some questions are slow: the others' answers stand. A connection is played by hand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from virtflow.producer.hypervisor.connection import Opener
from virtflow.producer.hypervisor.diagnostics import ExaminedVm, examine
from virtflow.producer.hypervisor.qemu_processes import Processes
from virtflow.runtime.settings import Libvirt, Settings

A, B = "01c4627c-7455-4be4-b014-9523f6d7e739", "00000000-0000-4000-8000-000000000001"
SETTINGS = Settings(libvirt=Libvirt(connect_timeout_seconds=1.0))
XML = "<domain><devices><disk device='disk'><source file='/vms/a.qcow2'/></disk></devices></domain>"


class Domain:
    """A VM that is running."""

    def __init__(self, connection: Connection, uuid: str) -> None:
        """Of a connection."""
        self._connection, self._uuid = connection, uuid

    def UUIDString(self) -> str:  # noqa: N802, libvirt's name
        return self._uuid

    def name(self) -> str:
        return f"vm-{self._uuid[:2]}"

    def ID(self) -> int:  # noqa: N802, libvirt's name
        return 1

    def controlInfo(self) -> list[int]:  # noqa: N802, libvirt's name
        return [libvirt.VIR_DOMAIN_CONTROL_OCCUPIED, 0, 5000] if self._uuid in self._connection.occupied else [0, 0, 0]

    def XMLDesc(self, flags: int) -> str:  # noqa: N802, libvirt's name
        assert flags == 0
        self._connection.read.append(self._uuid)
        return XML


class Connection:
    """A libvirt of some version; ``slow`` questions are answered once the test ends."""

    def __init__(self, version: int, slow: set[str] | None = None, occupied: set[str] | None = None) -> None:
        """Two VMs run."""
        self.version, self.slow, self.occupied = version, slow or set(), occupied or set()
        self.over = threading.Event()
        self.read: list[str] = []

    def _wait(self, what: str) -> None:
        if what in self.slow:
            self.over.wait()

    def getLibVersion(self) -> int:  # noqa: N802, libvirt's name
        return self.version

    def getVersion(self) -> int:  # noqa: N802, libvirt's name
        self._wait("version")
        return 10_000_002

    def setKeepAlive(self, seconds: int, count: int) -> None:  # noqa: N802, libvirt's name
        del seconds, count

    def isAlive(self) -> bool:  # noqa: N802, libvirt's name
        return True

    def domainEventRegisterAny(self, *arguments: Any) -> int:  # noqa: ANN401, N802, libvirt's name
        del arguments
        return 1

    def domainEventDeregisterAny(self, callback: int) -> None:  # noqa: N802, libvirt's name
        assert callback == 1

    def getAllDomainStats(self, groups: int, flags: int) -> list[tuple[Domain, dict[str, object]]]:  # noqa: N802, libvirt's name
        del flags
        self._wait("list")
        if groups & libvirt.VIR_DOMAIN_STATS_INTERFACE:
            self._wait("interfaces")
        return [(Domain(self, uuid), {"state.state": 1}) for uuid in (A, B)]

    def lookupByUUIDString(self, uuid: str) -> Domain:  # noqa: N802, libvirt's name
        return Domain(self, uuid)

    def close(self) -> None:
        """Nothing is open."""


def examined(connection: Connection, tmp_path: Path) -> Any:  # noqa: ANN401, what is found
    return examine(SETTINGS, Processes(tmp_path), Opener(SETTINGS.libvirt, lambda _: connection))


@pytest.fixture
def connections() -> Iterator[list[Connection]]:
    """What is appended gets its answers at the end."""
    made: list[Connection] = []
    yield made
    for connection in made:
        connection.over.set()


def test_an_open_vswitch_that_is_slow_is_no_libvirtd_without_workers(connections: list[Connection], tmp_path: Path) -> None:
    """Libvirt asks it for the numbers of vhost-user NICs, which the doctor has no use for."""
    connections.append(Connection(11_003_000, slow={"interfaces"}))
    found = examined(connections[0], tmp_path)
    assert (found.problem, len(found.vms)) == ("", 2)


def test_a_slow_look_at_qemu_costs_only_its_version(connections: list[Connection], tmp_path: Path) -> None:
    """Before a VM was ever started libvirt asks QEMU what it can do, which takes seconds: that is no libvirtd without workers."""
    connections.append(Connection(11_003_000, slow={"version"}))
    found = examined(connections[0], tmp_path)
    assert (found.problem, found.libvirt_version, found.hypervisor_version, len(found.vms)) == ("", "11.3.0", "", 2)
    assert all(vm.storage == ("/vms/a.qcow2",) for vm in found.vms)


def test_a_list_that_is_not_answered_is_said(connections: list[Connection], tmp_path: Path) -> None:
    connections.append(Connection(11_003_000, slow={"list"}))
    found = examined(connections[0], tmp_path)
    assert found.problem == "connected, but a list of VMs is not answered within 1 s: all of libvirtd's workers may be taken"


@pytest.mark.parametrize(("version", "read"), [(9_000_000, [A, B]), (11_003_000, [B])])
def test_xml_of_a_stuck_vm_is_read_where_that_never_waits(
    connections: list[Connection], tmp_path: Path, version: int, read: list[str]
) -> None:
    connections.append(Connection(version, occupied={A}))
    found = examined(connections[0], tmp_path)
    assert connections[0].read == read
    assert [vm.uuid for vm in found.vms if vm.stuck] == [A]
    assert found.hypervisor_version == "10.0.2"


def test_a_call_of_a_second_hangs_in_a_vm_and_a_shorter_one_is_just_there() -> None:
    """Every collector is in a VM for some milliseconds."""
    assert [ExaminedVm(A, "vm-01", running=True, occupied_seconds=seconds).stuck for seconds in (0.0, 0.999, 1.0)] == [False, False, True]
