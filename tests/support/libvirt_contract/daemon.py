"""A daemon that stands still or is started again, and the events of its VMs."""

from __future__ import annotations

from typing import Any, Final

import libvirt

from tests.support.libvirt_contract.host import HANGING_SECONDS, PROMPT_SECONDS, Host, error_of, hanging, promptly

KEEPALIVE_SECONDS: Final = (4.0, 8.0)
"""Between which 2 s x 2 notice a daemon that stands still."""
LOST: Final = {libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_SYSTEM_ERROR}
LIFECYCLE: Final = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE


def closings(connection: Any) -> list[int]:  # noqa: ANN401, the binding has no types
    """The reasons for which the connection was lost, as they come."""
    seen: list[int] = []
    connection.registerCloseCallback(lambda _connection, reason, _opaque: seen.append(reason), None)
    return seen


def heard(connection: Any) -> list[tuple[str, int, int]]:  # noqa: ANN401, the binding has no types
    """The VMs' life-cycle events, as they come."""
    seen: list[tuple[str, int, int]] = []
    connection.domainEventRegisterAny(None, LIFECYCLE, lambda _, vm, event, detail, __: seen.append((vm.UUIDString(), event, detail)), None)
    return seen


class DaemonFaults:
    """libvirtd itself."""

    def test_a_daemon_that_stands_still_answers_nobody_until_it_goes_on(self, host: Host) -> None:
        """Keepalive ends the connections that were there; a new one is never refused, it waits."""
        connection = host.connect()
        lost = closings(connection)
        host.pause_daemon()
        try:
            call = hanging(host, connection.getLibVersion)
            opening = hanging(host, lambda: host.libvirt.openReadOnly(host.uri))
            assert call.ends_within(KEEPALIVE_SECONDS[1])
            assert call.seconds >= KEEPALIVE_SECONDS[0] - HANGING_SECONDS
            assert error_of(host, call.result) == libvirt.VIR_ERR_INTERNAL_ERROR
            assert connection.isAlive() == 0
            assert error_of(host, connection.getLibVersion) == libvirt.VIR_ERR_INTERNAL_ERROR
            assert not opening.ends_within(0.0)
        finally:
            host.resume_daemon()
        assert opening.ends_within(PROMPT_SECONDS)
        assert promptly(host, opening.result().listAllDomains)
        assert lost == [libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE]

    def test_a_short_pause_costs_no_connection(self, host: Host) -> None:
        connection = host.connect()
        host.pause_daemon()
        call = hanging(host, connection.getLibVersion)
        host.resume_daemon()
        assert call.ends_within(PROMPT_SECONDS)
        host.let_pass(KEEPALIVE_SECONDS[1])
        assert connection.isAlive() == 1

    def test_a_restart_ends_every_connection_with_its_calls_and_callbacks(self, host: Host) -> None:
        stuck = host.create()
        host.freeze(stuck)
        connection, idle = host.connect(), host.connect()
        lost, seen = closings(idle), heard(idle)
        call = hanging(host, connection.lookupByUUIDString(stuck.uuid).memoryStats)
        host.restart_daemon()
        assert call.ends_within(PROMPT_SECONDS)
        assert error_of(host, call.result) in LOST
        host.let_pass(0.5)
        assert (connection.isAlive(), idle.isAlive()) == (0, 0)
        assert error_of(host, idle.getLibVersion) in LOST
        assert lost == [libvirt.VIR_CONNECT_CLOSE_REASON_EOF]
        host.destroy(stuck)
        host.let_pass(0.5)
        assert seen == []

    def test_a_stuck_vm_is_held_by_the_daemon_that_was_started_again(self, host: Host) -> None:
        """By its own attempt to reach it: no worker is taken, and what never waits answers."""
        stuck = host.vms[0]
        host.freeze(stuck)
        host.restart_daemon()
        connection = host.connect()
        vm = connection.lookupByUUIDString(stuck.uuid)
        assert promptly(host, vm.controlInfo)[0] == libvirt.VIR_DOMAIN_CONTROL_OCCUPIED
        assert host.hung_calls() == 0
        for call in (vm.state, vm.info):
            assert promptly(host, call)
        assert len(promptly(host, lambda: connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE))) == len(host.vms) + 1
        host.thaw(stuck)
        host.let_pass(1.0)
        assert vm.controlInfo() == [libvirt.VIR_DOMAIN_CONTROL_OK, 0, 0]


class Events:
    """What happens to VMs, told by the event loop's thread."""

    def test_a_vm_s_life_is_told_in_order(self, host: Host) -> None:
        seen = heard(host.connect())
        fresh = host.create()
        host.resume(fresh)
        host.suspend(fresh)
        host.destroy(fresh)
        host.let_pass(0.5)
        told = [(event, detail) for uuid, event, detail in seen if uuid == fresh.uuid]
        assert told == [
            (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_BOOTED),
            (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED),
            (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_UNPAUSED),
            (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED),
            (libvirt.VIR_DOMAIN_EVENT_SHUTDOWN, libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_HOST),
            (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED),
        ]

    def test_a_persistent_vm_boots_and_is_shut_off_again(self, host: Host) -> None:
        seen = heard(host.connect())
        host.start(host.off)
        host.destroy(host.off)
        host.let_pass(0.5)
        assert [(event, detail) for _, event, detail in seen] == [
            (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_UNPAUSED),
            (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_BOOTED),
            (libvirt.VIR_DOMAIN_EVENT_SHUTDOWN, libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_HOST),
            (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED),
        ]

    def test_a_callback_runs_in_the_event_loop_s_thread(self, host: Host) -> None:
        threads: list[int] = []
        host.connect().domainEventRegisterAny(None, LIFECYCLE, lambda *_: threads.append(host.thread()), None)
        host.resume(host.vms[0])
        host.suspend(host.vms[0])
        host.let_pass(0.5)
        assert len(threads) == 2
        assert len({*threads, host.thread()}) == 2

    def test_a_closed_connection_tells_on_until_its_callbacks_are_deregistered(self, host: Host) -> None:
        """Each callback keeps the connection open."""
        forgetful, careful = host.connect(), host.connect()
        told, told_no_more = heard(forgetful), heard(careful)
        careful.domainEventDeregisterAny(0)
        assert forgetful.close() > 0
        assert careful.close() == 0
        host.resume(host.vms[0])
        host.suspend(host.vms[0])
        host.let_pass(0.5)
        assert (len(told), len(told_no_more)) == (2, 0)
