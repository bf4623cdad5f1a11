"""An Open vSwitch that answers slowly: libvirt waits for it where it is asked for the numbers of vhost-user NICs, in the list of all VMs too."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import libvirt
import pytest

from tests.support.memory_libvirt import Vm
from tests.support.simulated_host import SimulatedHost, statistics_wait
from tests.support.simulated_rounds import whole

Make = Callable[..., SimulatedHost]
VMS = 8
SWITCH_SECONDS = 5.0
"""For each NIC that it is asked for."""
DARK_ROUNDS = 6
"""In which nobody is listed at most: while the first list waits for two NICs, at the shortest interval."""
ROUNDS = 24
UUID = "00000000-0000-4000-8000-0000000000ff"


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The switch that the daemon asks; ``slow`` says how it answers."""
    found = SimpleNamespace(slow=False)

    def seconds(vm: Vm, groups: int) -> float:
        return SWITCH_SECONDS if found.slow and groups & libvirt.VIR_DOMAIN_STATS_INTERFACE and "vhostuser" in vm.xml else 0.0

    statistics_wait(monkeypatch, seconds)
    return found


def on_the_switch(vm: Vm) -> Vm:
    """The VM, with a NIC on it."""
    vm.xml = vm.xml.replace("<interface type='bridge'>", "<interface type='vhostuser'>")
    assert "vhostuser" in vm.xml
    return vm


def assert_listed(host: SimulatedHost, vms: int) -> None:
    """After a few rounds all VMs are in each round, and those without such a NIC have all their values."""
    found = host.rounds(ROUNDS)
    assert [one.up for one in found[DARK_ROUNDS:]] == [True] * (ROUNDS - DARK_ROUNDS)
    assert {len(one.readings) for one in found[DARK_ROUNDS:]} == {vms}
    plain = {uuid for uuid, vm in host.daemon.vms.items() if "vhostuser" not in vm.xml}
    assert plain <= set().union(*map(whole, found[-3:]))


@pytest.mark.parametrize("interval", [2.0, 10.0])
@pytest.mark.parametrize("nics", [1, 2])
def test_a_new_run_lists_all_vms(make: Make, switch: SimpleNamespace, interval: float, nics: int) -> None:
    """Which VMs have such a NIC is not known before their XML has been read, and that is not before they were listed."""
    host = make(vms=VMS)
    for uuid in host.uuids[:nics]:
        on_the_switch(host.daemon.vms[uuid])
    switch.slow = True
    host.start(interval=interval)
    assert_listed(host, VMS)


def test_a_new_vm_keeps_nobody_from_being_listed(make: Make, switch: SimpleNamespace) -> None:
    """It comes to a host on which all is well."""
    host = make(vms=VMS).start(interval=2.0)
    host.rounds(3)
    switch.slow = True
    host.daemon.add(on_the_switch(Vm("fresh", UUID)))
    assert_listed(host, VMS + 1)


def test_a_list_that_was_late_once_changes_nothing_for_long(make: Make) -> None:
    """The daemon stood still and all XML had been read: interfaces are listed again with all VMs."""
    host = make(vms=VMS).start(interval=2.0)
    host.rounds(3)
    sampling = host.sampler._sampling
    assert sampling._groups.interfaces_safe
    sampling._list_late = True
    sampling._set_groups()
    assert not sampling._groups.interfaces_safe
    host.rounds(2)
    assert sampling._groups.interfaces_safe
