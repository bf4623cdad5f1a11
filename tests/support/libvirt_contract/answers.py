"""What libvirt tells when nothing hangs, and its errors."""

from __future__ import annotations

from typing import Any, Final

import libvirt
import pytest

from tests.support.libvirt_contract.host import Host, Known, error_of

NOWAIT: Final = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
STATE: Final = libvirt.VIR_DOMAIN_STATS_STATE
PAUSED_AT_START: Final = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER)
GROUPS: Final = {
    "STATE": {"state.state", "state.reason"},
    "CPU_TOTAL": {"cpu.time", "cpu.user", "cpu.system", "cpu.haltpoll.success.time"},
    "BALLOON": {"balloon.current", "balloon.maximum", "balloon.last-update", "balloon.rss"},
    "VCPU": {"vcpu.current", "vcpu.maximum", "vcpu.0.state", "vcpu.0.time", "vcpu.0.delay", "vcpu.1.wait"},
    "INTERFACE": {"net.count", "net.0.name", "net.0.rx.bytes", "net.0.tx.drop"},
    "BLOCK": {"block.count", "block.0.name", "block.0.path", "block.0.rd.reqs", "block.0.fl.times", "block.0.capacity"},
    "DIRTYRATE": {"dirtyrate.calc_status"},
    "PERF": set(),
    "MEMORY": set(),
}
"""Fields of each group that a paused VM has on every version."""


def stats_of(records: list[tuple[Any, dict[str, Any]]], vm: Known) -> dict[str, Any]:
    """The VM's part of a bulk answer."""
    found = [data for domain, data in records if domain.UUIDString() == vm.uuid]
    assert len(found) == 1
    return found[0]


class Answers:
    """Calls that wait for nothing."""

    def test_the_daemon_names_its_version(self, host: Host) -> None:
        connection = host.connect()
        first, second, third = host.version
        assert connection.getLibVersion() == first * 1_000_000 + second * 1000 + third
        assert connection.getVersion() > 7_000_000
        assert connection.getHostname()
        assert connection.isAlive() == 1

    def test_every_vm_is_listed(self, host: Host) -> None:
        listed = host.connect().listAllDomains()
        assert {(vm.UUIDString(), vm.name()) for vm in listed} == {(vm.uuid, vm.name) for vm in (*host.vms, host.off)}
        assert {vm.UUIDString() for vm in listed if vm.ID() < 0} == {host.off.uuid}
        assert host.connect().listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_RUNNING) == []

    def test_a_vm_tells_of_itself(self, host: Host) -> None:
        vm = host.connect().lookupByUUIDString(host.vms[0].uuid)
        assert (vm.name(), vm.UUIDString(), vm.isActive()) == (host.vms[0].name, host.vms[0].uuid, 1)
        assert tuple(vm.state()) == PAUSED_AT_START
        state, maximum, current, vcpus, time = vm.info()
        assert (state, maximum, current, vcpus, time > 0) == (PAUSED_AT_START[0], 16384, 16384, 2, True)
        told, places = vm.vcpus()
        assert ([vcpu[:2] for vcpu in told], len(places)) == ([(0, 1), (1, 1)], 2)
        assert vm.controlInfo() == [libvirt.VIR_DOMAIN_CONTROL_OK, 0, 0]
        assert vm.jobStats() == {"type": libvirt.VIR_DOMAIN_JOB_NONE}
        assert {"actual", "rss", "last_update"} <= vm.memoryStats().keys()
        assert f"<uuid>{host.vms[0].uuid}</uuid>" in vm.XMLDesc(0)

    @pytest.mark.parametrize("group", GROUPS)
    def test_a_group_has_its_fields_and_no_others(self, host: Host, group: str) -> None:
        number = getattr(libvirt, f"VIR_DOMAIN_STATS_{group}")
        found = stats_of(host.connect().getAllDomainStats(number, NOWAIT), host.vms[0])
        assert GROUPS[group] <= found.keys()
        assert {key.split(".")[0] for key in found} == {key.split(".")[0] for key in GROUPS[group]}

    def test_a_vm_that_is_shut_off_tells_little(self, host: Host) -> None:
        """Its bulk answer has a CPU time all the same, which is not its own."""
        connection = host.connect()
        vm = connection.lookupByUUIDString(host.off.uuid)
        assert (vm.ID(), vm.isActive(), vm.state()[0]) == (-1, 0, libvirt.VIR_DOMAIN_SHUTOFF)
        assert vm.info() == [libvirt.VIR_DOMAIN_SHUTOFF, 16384, 16384, 2, 0]
        refused = [error_of(host, call) for call in (vm.vcpus, vm.controlInfo, vm.jobStats, vm.memoryStats)]
        assert refused == [libvirt.VIR_ERR_OPERATION_INVALID] * 4
        assert host.off.uuid in vm.XMLDesc(0)
        found = stats_of(connection.getAllDomainStats(0, NOWAIT), host.off)
        assert found["state.state"] == libvirt.VIR_DOMAIN_SHUTOFF
        assert found["cpu.time"] > 0
        assert {key for key in found if key.startswith(("vcpu.", "net."))} == {"vcpu.current", "vcpu.maximum"}

    def test_what_does_not_exist_is_refused(self, host: Host) -> None:
        connection = host.connect()
        stats = connection.domainListGetStats
        vm = connection.lookupByUUIDString(host.vms[0].uuid)
        unknown, enforce = 1 << 30, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ENFORCE_STATS
        nobody = "00000000-0000-4000-8000-000000000001"
        assert error_of(host, lambda: connection.lookupByUUIDString(nobody)) == libvirt.VIR_ERR_NO_DOMAIN
        assert error_of(host, lambda: stats([], STATE)) == libvirt.VIR_ERR_INVALID_ARG
        assert error_of(host, lambda: stats([vm], unknown, enforce)) == libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED
        assert [data for _, data in stats([vm], unknown)] == [{}]

    def test_a_vm_asked_for_twice_is_told_twice(self, host: Host) -> None:
        connection = host.connect()
        first, second = (connection.lookupByUUIDString(vm.uuid) for vm in host.vms[:2])
        told = connection.domainListGetStats([second, first, second], STATE)
        assert [domain.UUIDString() for domain, _ in told] == [domain.UUIDString() for domain in (second, first, second)]

    def test_a_read_only_connection_writes_nothing_and_asks_no_agent(self, host: Host) -> None:
        vm = host.connect().lookupByUUIDString(host.vms[0].uuid)
        calls = (
            lambda: vm.guestInfo(0),
            lambda: vm.agentSetResponseTimeout(2),
            lambda: vm.vcpusFlags(libvirt.VIR_DOMAIN_VCPU_GUEST),
            lambda: vm.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT),
            lambda: vm.setMemoryStatsPeriod(1, libvirt.VIR_DOMAIN_AFFECT_LIVE),
        )
        assert [error_of(host, call) for call in calls] == [libvirt.VIR_ERR_OPERATION_DENIED] * len(calls)
        leases = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE
        assert error_of(host, lambda: vm.interfaceAddresses(leases)) in {0, libvirt.VIR_ERR_NO_CONNECT}, "a host may have no network driver"

    def test_an_agent_is_asked_only_in_a_vm_that_runs(self, host: Host) -> None:
        """A paused one counts as not running; one that runs without a channel for an agent says so."""
        vm = host.connect(writing=True).lookupByUUIDString(host.vms[0].uuid)
        assert vm.agentSetResponseTimeout(2) == 0
        assert error_of(host, lambda: vm.guestInfo(0)) == libvirt.VIR_ERR_OPERATION_INVALID
        assert error_of(host, lambda: vm.vcpusFlags(libvirt.VIR_DOMAIN_VCPU_GUEST)) == libvirt.VIR_ERR_OPERATION_INVALID
        host.resume(host.vms[0])
        try:
            assert error_of(host, lambda: vm.guestInfo(0)) == libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED
            assert error_of(host, lambda: vm.vcpusFlags(libvirt.VIR_DOMAIN_VCPU_GUEST)) == libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED
        finally:
            host.suspend(host.vms[0])

    def test_a_vm_that_has_gone_is_left_out_of_lists_and_refused_alone(self, host: Host) -> None:
        connection = host.connect()
        fresh = host.create()
        vm, other = connection.lookupByUUIDString(fresh.uuid), connection.lookupByUUIDString(host.vms[0].uuid)
        host.destroy(fresh)
        assert (vm.name(), vm.UUIDString(), vm.ID() >= 0) == (fresh.name, fresh.uuid, True)
        calls = (vm.state, vm.info, vm.vcpus, vm.controlInfo, vm.jobStats, vm.memoryStats, vm.isActive, vm.XMLDesc)
        assert [error_of(host, call) for call in calls] == [libvirt.VIR_ERR_NO_DOMAIN] * len(calls)
        assert [domain.UUIDString() for domain, _ in connection.domainListGetStats([vm, other], STATE)] == [host.vms[0].uuid]
        assert connection.domainListGetStats([vm], STATE) == []
        assert fresh.uuid not in {domain.UUIDString() for domain, _ in connection.getAllDomainStats(STATE)}
