"""A guest that runs: what its agent's calls do, and what a migration announces on both sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import libvirt
import pytest

from tests.support.libvirt_contract.host import HANGING_SECONDS, PROMPT_SECONDS, Attempt, Known

TIMEOUT_SECONDS: Final = 2
MIGRATION_SECONDS: Final = 90.0
SHUTDOWN_ANNOUNCED: Final = (11, 3, 0)
"""From here on (QEMU 10.0) the end of the source's QEMU is announced, too."""
SYNCHRONISE_SECONDS: Final = 5.0
COMMAND_FAILED: Final = {libvirt.VIR_ERR_AGENT_UNRESPONSIVE, 112}
"""What versions say of an agent that took a command and did not answer it: 112 since 11.3 at the latest, which the oldest binding does not name."""
HOSTNAME: Final = libvirt.VIR_DOMAIN_GUEST_INFO_HOSTNAME
LIFECYCLE, ITERATION, COMPLETED = (
    libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
    libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION,
    libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED,
)
Told = list[tuple[Any, ...]]


class Pair(Protocol):
    """Two hosts and a guest under load, on the first of them unless it has migrated."""

    guest: Known
    version: tuple[int, int, int]

    def connect(self, host: int, *, writing: bool = False) -> Any:  # noqa: ANN401, the binding has no types
        """A new connection to the first (0) or second (1) host."""

    def attempt(self, call: Callable[[], Any]) -> Attempt:
        """Begin a call."""

    def await_true(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Let time pass until ``condition`` holds."""

    def speak(self, speech: str) -> None:
        """What the agent does from now on: ``away``, ``honest``, ``silent``, ``mute`` (from the first command on), ``broken`` (answers no JSON)."""

    def migrate(self) -> None:
        """Begin to move the guest to the second host, slowly enough to be watched."""

    def hurry(self) -> None:
        """Let a migration end soon."""

    def cancel(self) -> None:
        """Abort it."""


class Agents:
    """Calls to a guest's agent, with a response timeout."""

    @staticmethod
    def vm(pair: Pair) -> Any:  # noqa: ANN401, the binding has no types
        """The guest by a connection that may write."""
        vm = pair.connect(0, writing=True).lookupByUUIDString(pair.guest.uuid)
        vm.agentSetResponseTimeout(TIMEOUT_SECONDS)
        return vm

    @staticmethod
    def code(attempt: Attempt) -> int:
        """The error that a call ended with."""
        with pytest.raises(libvirt.libvirtError) as caught:
            attempt.result()
        return int(caught.value.get_error_code())

    @staticmethod
    def nothing_or_unresponsive(attempt: Attempt) -> bool:
        """What ``guestInfo`` does after it has waited in vain: both have been seen on the same version."""
        try:
            return bool(attempt.result() == {})
        except libvirt.libvirtError as error:
            return bool(error.get_error_code() == libvirt.VIR_ERR_AGENT_UNRESPONSIVE)

    def test_an_agent_that_is_not_there_is_refused_at_once(self, pair: Pair) -> None:
        pair.speak("away")
        vm = self.vm(pair)
        for call in (lambda: vm.guestInfo(HOSTNAME), lambda: vm.vcpusFlags(libvirt.VIR_DOMAIN_VCPU_GUEST)):
            attempt = pair.attempt(call)
            assert attempt.ends_within(HANGING_SECONDS)
            assert self.code(attempt) == libvirt.VIR_ERR_AGENT_UNRESPONSIVE

    def test_an_agent_that_answers_tells_what_was_asked_for(self, pair: Pair) -> None:
        pair.speak("honest")
        vm = self.vm(pair)
        assert vm.guestInfo(HOSTNAME) == {"hostname": "honest"}
        assert vm.vcpusFlags(libvirt.VIR_DOMAIN_VCPU_GUEST) == 2
        assert vm.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT).keys() == {"eth0"}

    def test_a_silent_agent_is_given_up_at_the_timeout_and_holds_up_nothing_else(self, pair: Pair) -> None:
        """``guestInfo`` says nothing then, with an error or without one; others say that it does not respond."""
        pair.speak("silent")
        vm, other = self.vm(pair), pair.connect(0).lookupByUUIDString(pair.guest.uuid)
        info = pair.attempt(lambda: vm.guestInfo(HOSTNAME))
        assert not info.ends_within(TIMEOUT_SECONDS / 2)
        beside = pair.attempt(other.memoryStats)
        assert beside.ends_within(TIMEOUT_SECONDS / 4)
        assert info.ends_within(PROMPT_SECONDS)
        assert self.nothing_or_unresponsive(info)
        cpus = pair.attempt(lambda: vm.vcpusFlags(libvirt.VIR_DOMAIN_VCPU_GUEST))
        assert not cpus.ends_within(TIMEOUT_SECONDS / 2)
        assert cpus.ends_within(PROMPT_SECONDS)
        assert self.code(cpus) == libvirt.VIR_ERR_AGENT_UNRESPONSIVE

    def test_without_a_timeout_a_silent_agent_is_still_given_up_after_five_seconds(self, pair: Pair) -> None:
        """Libvirt first gets in step with the agent, which has a limit of its own."""
        pair.speak("silent")
        vm = self.vm(pair)
        vm.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK)
        call = pair.attempt(lambda: vm.vcpusFlags(libvirt.VIR_DOMAIN_VCPU_GUEST))
        assert not call.ends_within(SYNCHRONISE_SECONDS - 1.0)
        assert call.ends_within(PROMPT_SECONDS)
        assert self.code(call) == libvirt.VIR_ERR_AGENT_UNRESPONSIVE

    def test_an_agent_that_falls_silent_after_that_hangs_a_caller_without_a_timeout(self, pair: Pair) -> None:
        """With one it is given up at that, and its end ends the call."""
        pair.speak("mute")
        vm = self.vm(pair)
        limited = pair.attempt(lambda: vm.vcpusFlags(libvirt.VIR_DOMAIN_VCPU_GUEST))
        assert not limited.ends_within(TIMEOUT_SECONDS / 2)
        assert limited.ends_within(PROMPT_SECONDS)
        assert self.code(limited) in COMMAND_FAILED
        pair.speak("mute")
        vm.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK)
        endless = pair.attempt(lambda: vm.vcpusFlags(libvirt.VIR_DOMAIN_VCPU_GUEST))
        assert not endless.ends_within(SYNCHRONISE_SECONDS + TIMEOUT_SECONDS)
        pair.speak("away")
        assert endless.ends_within(PROMPT_SECONDS)
        assert self.code(endless) in COMMAND_FAILED

    def test_an_answer_that_is_no_json_is_an_internal_error(self, pair: Pair) -> None:
        pair.speak("broken")
        vm = self.vm(pair)
        attempt = pair.attempt(lambda: vm.vcpusFlags(libvirt.VIR_DOMAIN_VCPU_GUEST))
        assert attempt.ends_within(PROMPT_SECONDS)
        assert self.code(attempt) == libvirt.VIR_ERR_INTERNAL_ERROR


class Migrations:
    """One migration that is cancelled and one that succeeds."""

    def test_a_cancelled_migration_ends_at_the_destination_and_is_silent_at_the_source(self, pair: Pair) -> None:
        there, here = listen(pair, 1), listen(pair, 0)
        vm = pair.connect(0).lookupByUUIDString(pair.guest.uuid)
        pair.migrate()
        pair.await_true(lambda: ("iteration", 1) in here, MIGRATION_SECONDS, "memory is being sent")
        pair.cancel()
        pair.await_true(lambda: vm.jobStats() == {"type": libvirt.VIR_DOMAIN_JOB_NONE}, MIGRATION_SECONDS, "the job is over")
        pair.await_true(lambda: ("lifecycle", 5, 5) in there, MIGRATION_SECONDS, "the destination gives up")
        assert {kind for kind, *_ in here} == {"iteration"}
        assert vm.state()[0] == libvirt.VIR_DOMAIN_RUNNING
        assert pair.connect(1).listAllDomains() == []

    def test_a_migration_is_announced_on_both_sides_in_order(self, pair: Pair) -> None:
        there, here = listen(pair, 1), listen(pair, 0)
        vm, destination = pair.connect(0).lookupByUUIDString(pair.guest.uuid), pair.connect(1)
        pair.migrate()
        pair.await_true(lambda: vm.jobStats().get("type") == libvirt.VIR_DOMAIN_JOB_UNBOUNDED, MIGRATION_SECONDS, "the job is seen")
        begun = vm.jobStats()
        assert begun["operation"] == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
        pair.await_true(lambda: ("iteration", 1) in here, MIGRATION_SECONDS, "memory is being sent")
        pair.await_true(lambda: vm.jobStats().get("memory_iteration", 0) >= 1, MIGRATION_SECONDS, "the first pass")
        running = vm.jobStats()
        assert running["time_elapsed"] > begun["time_elapsed"]
        assert {"data_total", "memory_page_size", "downtime"} <= running.keys()
        incoming = destination.lookupByUUIDString(pair.guest.uuid)
        assert incoming.state() == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION]
        with pytest.raises(libvirt.libvirtError) as caught:
            incoming.jobStats()
        assert caught.value.get_error_code() == libvirt.VIR_ERR_OPERATION_UNSUPPORTED
        pair.hurry()
        pair.await_true(lambda: bool(here) and here[-1][0] == "completed", MIGRATION_SECONDS, "the job is completed")
        self._ended(pair, here, there)

    @staticmethod
    def _ended(pair: Pair, here: Told, there: Told) -> None:
        order = [told for told in here if told[0] == "lifecycle"]
        between = [("lifecycle", 6, 2)] if pair.version >= SHUTDOWN_ANNOUNCED else []
        assert order == [("lifecycle", 3, 1), *between, ("lifecycle", 5, 3)]
        assert here.index(("iteration", 1)) < here.index(("lifecycle", 3, 1)) < here.index(("lifecycle", 5, 3)) < len(here) - 1
        statistics = here[-1][1]
        assert {"time_elapsed", "downtime", "memory_iteration", "data_processed"} <= statistics.keys()
        told = [told for told in there if told[0] == "lifecycle"]
        assert [told[1:] for told in told] == [(2, 1), (0, 0), (4, 1)]
        moved = pair.connect(1).lookupByUUIDString(pair.guest.uuid)
        assert moved.state() == [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_MIGRATED]
        with pytest.raises(libvirt.libvirtError) as caught:
            pair.connect(0).lookupByUUIDString(pair.guest.uuid)
        assert caught.value.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN


def listen(pair: Pair, host: int) -> Told:
    """What a host announces of the guest, as it comes: life-cycle events, iterations, the completed job's statistics."""
    seen: Told = []
    connection = pair.connect(host)

    def registered(event: int, word: str) -> None:
        connection.domainEventRegisterAny(None, event, lambda _connection, _vm, *told: seen.append((word, *told[:-1])), None)

    registered(LIFECYCLE, "lifecycle")
    registered(ITERATION, "iteration")
    registered(COMPLETED, "completed")
    return seen
