"""VMs whose QEMU does not answer: which calls wait, for how long, for whom, and what ends it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import libvirt

from tests.support.libvirt_contract.answers import NOWAIT, stats_of
from tests.support.libvirt_contract.host import HANGING_SECONDS, PROMPT_SECONDS, Attempt, Host, error_of, hanging, promptly

SAFE: Final = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_INTERFACE
MONITOR: Final = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL | libvirt.VIR_DOMAIN_STATS_BALLOON | libvirt.VIR_DOMAIN_STATS_VCPU | libvirt.VIR_DOMAIN_STATS_BLOCK
)
LOCK_SECONDS: Final = 30.0
XML_TAKES_JOB: Final = (11, 0, 0)
SLOTS: Final = 5


def ends_at_the_lock(attempt: Attempt) -> bool:
    """Whether it waited for as long as a job lock is waited for."""
    return attempt.ends_within(LOCK_SECONDS + PROMPT_SECONDS) and attempt.seconds >= LOCK_SECONDS - 1.0


def occupied(host: Host, handles: Sequence[Any]) -> list[int]:
    """Of which of these VMs libvirt says that a call is in them, once it does so of one: on a busy machine that may take a moment."""
    for _ in range(int(PROMPT_SECONDS * 10)):
        if found := [place for place, vm in enumerate(handles) if vm.controlInfo()[0] == libvirt.VIR_DOMAIN_CONTROL_OCCUPIED]:
            return found
        host.let_pass(0.1)
    return []


class StuckVms:
    """One after the other: each test's VMs go on at its end."""

    def test_what_never_waits_does_not_at_the_first_touch(self, host: Host) -> None:
        host.freeze(*host.vms)
        connection = host.connect()
        for known in host.vms:
            vm = promptly(host, lambda: connection.lookupByUUIDString(known.uuid))  # noqa: B023, called at once
            assert promptly(host, vm.controlInfo) == [libvirt.VIR_DOMAIN_CONTROL_OK, 0, 0], "nobody has touched it"
            for call in (vm.state, vm.info, vm.vcpus, vm.jobStats, vm.XMLDesc):
                assert promptly(host, call)
        assert len(promptly(host, connection.listAllDomains)) == len(host.vms) + 1
        groups = SAFE | libvirt.VIR_DOMAIN_STATS_PERF | libvirt.VIR_DOMAIN_STATS_MEMORY
        assert len(promptly(host, lambda: connection.getAllDomainStats(groups, NOWAIT))) == len(host.vms) + 1
        assert host.hung_calls() == 0

    def test_the_first_call_that_asks_qemu_hangs_until_the_vm_goes_on(self, host: Host) -> None:
        stuck = host.vms[0]
        host.freeze(stuck)
        vm, other = (host.connect().lookupByUUIDString(stuck.uuid) for _ in range(2))
        call = hanging(host, vm.memoryStats)
        state, _, first = other.controlInfo()
        assert state == libvirt.VIR_DOMAIN_CONTROL_OCCUPIED
        host.let_pass(1.0)
        assert other.controlInfo()[2] - first >= 900
        assert not call.ends_within(0.0)
        assert host.hung_calls() == 1
        host.thaw(stuck)
        assert call.ends_within(PROMPT_SECONDS)
        assert "actual" in call.result()
        assert other.controlInfo() == [libvirt.VIR_DOMAIN_CONTROL_OK, 0, 0]
        assert host.hung_calls() == 0

    def test_nowait_does_not_help_the_first_who_asks(self, host: Host) -> None:
        """It hangs in the first stuck VM and never gets to the next."""
        stuck = host.vms[:2]
        host.freeze(*stuck)
        connection, other = host.connect(), host.connect()
        call = hanging(host, lambda: connection.getAllDomainStats(SAFE | MONITOR, NOWAIT))
        assert len(occupied(host, [other.lookupByUUIDString(vm.uuid) for vm in stuck])) == 1
        host.thaw(*stuck)
        assert call.ends_within(PROMPT_SECONDS)
        assert len(call.result()) == len(host.vms) + 1

    def test_a_call_goes_on_from_a_vm_that_recovers_into_the_next_one_that_is_stuck(self, host: Host) -> None:
        """Although it does not wait for VMs that somebody else holds. The VM that has recovered is free meanwhile."""
        stuck = host.vms[:2]
        host.freeze(*stuck)
        connection, other = host.connect(), host.connect()
        call = hanging(host, lambda: connection.getAllDomainStats(SAFE | MONITOR, NOWAIT))
        handles = [other.lookupByUUIDString(vm.uuid) for vm in stuck]
        (first,) = occupied(host, handles)
        host.thaw(stuck[first])
        assert not call.ends_within(1.0)
        assert occupied(host, handles) == [1 - first]
        assert handles[first].controlInfo() == [libvirt.VIR_DOMAIN_CONTROL_OK, 0, 0]
        assert promptly(host, handles[first].memoryStats)
        assert host.hung_calls() == 1
        host.thaw(stuck[1 - first])
        assert call.ends_within(PROMPT_SECONDS)
        assert len(call.result()) == len(host.vms) + 1

    def test_nowait_tells_of_a_vm_that_somebody_else_holds_what_the_daemon_knows(self, host: Host) -> None:
        stuck, healthy = host.vms[:2]
        host.freeze(stuck)
        connection, other = host.connect(), host.connect()
        hanging(host, connection.lookupByUUIDString(stuck.uuid).memoryStats)
        found = promptly(host, lambda: other.getAllDomainStats(SAFE | MONITOR, NOWAIT))
        held, fine = stats_of(found, stuck), stats_of(found, healthy)
        missing = {"balloon.rss", "block.0.rd.reqs", "block.0.capacity", "cpu.haltpoll.success.time"}
        assert missing <= fine.keys()
        assert not missing & held.keys()
        known = {
            "state.state",
            "cpu.time",
            "balloon.current",
            "vcpu.0.time",
            "vcpu.0.delay",
            "net.0.rx.bytes",
            "block.count",
            "block.0.name",
        }
        assert known <= held.keys()

    def test_behind_a_held_lock_calls_wait_for_thirty_seconds(self, host: Host) -> None:
        """Then a bulk call goes on without the VM's QEMU, without an error; others fail. From 11.0 on the XML waits as well, and comes then."""
        stuck = host.vms[0]
        host.freeze(stuck)
        hanging(host, host.connect().lookupByUUIDString(stuck.uuid).memoryStats)
        connection = host.connect()
        vm = connection.lookupByUUIDString(stuck.uuid)
        refused = [host.attempt(call) for call in (vm.memoryStats, vm.jobStats)]
        bulk = host.attempt(lambda: connection.getAllDomainStats(SAFE | MONITOR, 0))
        description = host.attempt(vm.XMLDesc)
        never = host.connect().lookupByUUIDString(stuck.uuid)
        for call in (never.state, never.info, never.vcpus, never.controlInfo):
            assert promptly(host, call)
        assert description.ends_within(PROMPT_SECONDS) is (host.version < XML_TAKES_JOB)
        for attempt in refused:
            assert ends_at_the_lock(attempt)
            assert error_of(host, attempt.result) == libvirt.VIR_ERR_OPERATION_TIMEOUT
        assert ends_at_the_lock(bulk)
        assert "balloon.rss" not in stats_of(bulk.result(), stuck)
        assert "balloon.rss" in stats_of(bulk.result(), host.vms[1])
        assert description.ends_within(PROMPT_SECONDS)
        assert stuck.uuid in description.result()
        assert (description.seconds >= LOCK_SECONDS - 1.0) is (host.version >= XML_TAKES_JOB)

    def test_five_hung_calls_freeze_their_connection_and_no_other(self, host: Host) -> None:
        stuck = host.vms[:SLOTS]
        host.freeze(*stuck)
        connection, other = host.connect(), host.connect()
        calls = [host.attempt(connection.lookupByUUIDString(vm.uuid).memoryStats) for vm in stuck]
        host.let_pass(HANGING_SECONDS)
        listing = hanging(host, connection.listAllDomains)
        assert promptly(host, other.listAllDomains)
        host.thaw(stuck[0])
        assert listing.ends_within(PROMPT_SECONDS)
        assert [call.ends_within(0.0) for call in calls[1:]] == [False] * 4

    def test_hung_calls_on_every_worker_leave_only_the_short_requests(self, host: Host) -> None:
        """For every client of the host, until one of the VMs goes on."""
        stuck, healthy = host.vms[:SLOTS], host.vms[SLOTS]
        host.limit_workers(SLOTS, 2)
        try:
            host.freeze(*stuck)
            holding = [host.connect().lookupByUUIDString(vm.uuid) for vm in stuck]
            calls = [host.attempt(vm.memoryStats) for vm in holding]
            host.let_pass(HANGING_SECONDS)
            connection = host.connect()
            vm = promptly(host, lambda: connection.lookupByUUIDString(healthy.uuid))
            for call in (
                connection.getLibVersion,
                connection.getHostname,
                connection.listAllDomains,
                vm.state,
                vm.controlInfo,
                vm.isActive,
            ):
                promptly(host, call)
            waiting = [hanging(host, call) for call in (vm.info, vm.vcpus, vm.XMLDesc, vm.memoryStats)]
            bulk = hanging(host, lambda: host.connect().getAllDomainStats(SAFE, NOWAIT))
            host.thaw(stuck[0])
            assert all(attempt.ends_within(PROMPT_SECONDS) for attempt in (*waiting, bulk))
            assert [call.ends_within(0.0) for call in calls[1:]] == [False] * 4
        finally:
            host.thaw(*stuck)
            host.limit_workers(20, 5)

    def test_closing_the_connection_frees_nothing(self, host: Host) -> None:
        stuck = host.vms[0]
        host.freeze(stuck)
        connection = host.connect()
        call = hanging(host, connection.lookupByUUIDString(stuck.uuid).memoryStats)
        connection.close()
        assert error_of(host, connection.isAlive) == libvirt.VIR_ERR_INVALID_CONN
        host.let_pass(1.0)
        assert host.hung_calls() == 1
        assert not call.ends_within(0.0)
        host.thaw(stuck)
        assert call.ends_within(PROMPT_SECONDS)

    def test_the_end_of_the_vm_ends_the_call(self, host: Host) -> None:
        doomed = host.create()
        host.freeze(doomed)
        call = hanging(host, host.connect().lookupByUUIDString(doomed.uuid).memoryStats)
        host.destroy(doomed)
        assert call.ends_within(PROMPT_SECONDS)
        assert host.hung_calls() == 0
