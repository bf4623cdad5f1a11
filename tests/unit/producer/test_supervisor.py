"""The producer's side of the guest-agent helper process, on scripted processes: every way in which one ends, and what follows."""

from __future__ import annotations

import logging
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.scripted_helper import ScriptedHelper, Scripts
from virtflow.producer.agent import supervisor
from virtflow.producer.agent.ipc import AGENT, Answered, Beat, Command, Ended, Happened, Listed, Up
from virtflow.producer.agent.supervisor import GuestAgents
from virtflow.producer.hung_calls.budget import CallBudget
from virtflow.producer.records.guest_devices import Look
from virtflow.runtime.settings import Guest, Settings
from virtflow.schemas.guest import GuestReason
from virtflow.schemas.records import GuestSample

A = "01c4627c-7455-4be4-b014-9523f6d7e739"
CONNECTED = Look("connected", balloon=True, period_seconds=10)
WITHOUT_PERIOD = Look("connected", balloon=True, period_seconds=0)
TICK_SECONDS = 0.01
LONG_SECONDS = 10.0
"""After which a test that waits is taken to hang."""


class Agents:
    """A supervisor and its scripted processes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **guest: object) -> None:
        """Started; pauses between processes are short."""
        self.scripts = Scripts(monkeypatch)
        chosen: dict[str, Any] = {"enabled": True, "restart_maximum_seconds": 0.1, "hang_seconds": LONG_SECONDS, **guest}
        settings = Settings(guest=Guest(**chosen))
        self.budget = CallBudget(3)
        self.agents = GuestAgents(settings, self.budget, random.Random(1), once=True)  # noqa: S311, a test's
        self._closed = False
        self.agents.start()

    def close(self, seconds: float = 0.2) -> None:
        """End it, once."""
        if not self._closed:
            self._closed = True
            self.agents.close(seconds)

    def up(self, number: int = 1, commands: tuple[Command, ...] = tuple(Command)) -> ScriptedHelper:
        """The helper of that number, connected to libvirt, with one VM listed."""
        helper = self.scripts.started(number)
        helper.send(Up(list(commands)))
        helper.send(Answered(helper.asked(Command.LIST).number, time.time(), 0.1, vms=[Listed(A, "web-1", running=True)]))
        return helper

    def asked(self, look: Look = CONNECTED, number: int = 1) -> ScriptedHelper:
        """A helper whose agent is about to be asked for its first command."""
        helper = self.up(number)
        helper.send(Answered(helper.asked(Command.LOOK).number, time.time(), 0.1, look=look))
        return helper


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Agents]]:
    """Makes supervisors with these settings of the section ``guest``; closes them."""
    monkeypatch.setattr(supervisor, "TICK_SECONDS", TICK_SECONDS)
    monkeypatch.setattr(supervisor, "END_SECONDS", 0.2)
    monkeypatch.setattr(supervisor, "resident_bytes", lambda _pid: 0)
    made: list[Agents] = []

    def make(**guest: object) -> Agents:
        made.append(Agents(monkeypatch, **guest))
        return made[-1]

    yield make
    for one in made:
        one.close()


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait for what the supervisor's thread is about to do."""
    until = time.monotonic() + LONG_SECONDS
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.002)


def test_an_agent_s_answers_become_a_sample(agents: Callable[..., Agents]) -> None:
    """One VM's whole turn: its XML, each command of the agent, and the sample is there; nothing is lost."""
    host = agents()
    helper = host.asked()
    assert helper.start is not None
    assert helper.start.timeout_seconds == 2
    for command in (*AGENT, Command.MEMORY, Command.LEASE, Command.ARP):
        asked = helper.next_ask()
        assert asked.command is command
        told = GuestSample(cut=0, dropped=0, hostname="h") if command is Command.HOSTNAME else GuestSample(cut=0, dropped=0)
        helper.send(Answered(asked.number, time.time(), 0.1, sample=told, balloon_driver=True))
    assert host.agents.settled.wait(LONG_SECONDS)
    assert host.agents.samples()[A].hostname == "h"
    health = host.agents.health()
    assert (health.up, health.lost, health.restarts, health.vms) == (1, 0, {}, {"up": 1})
    assert (host.agents.pid, [vm.name for vm in host.agents.vms()], host.agents.problem) == (helper.pid, ["web-1"], "")


def test_events_reach_the_schedule(agents: Callable[..., Agents]) -> None:
    """The agent's end is told at once, without a call."""
    host = agents()
    helper = host.asked()
    helper.asked(Command.OS)
    helper.send(Beat())
    helper.send(Happened(A, "agent", 2))
    eventually(lambda: host.agents.health().vms == {GuestReason.DISCONNECTED: 1}, "the VM is disconnected")


def test_a_process_that_never_reaches_libvirt_is_the_problem_in_its_own_words(agents: Callable[..., Agents]) -> None:
    host = agents()
    helper = host.scripts.started(1)
    helper.send(Ended("libvirt", "no such\x1bsocket"))
    helper.end(1)
    assert host.agents.settled.wait(LONG_SECONDS)
    assert host.agents.problem == "no such\ufffdsocket"
    assert host.agents.health().restarts == {"libvirt": 1}
    host.up(2)
    eventually(lambda: host.agents.problem == "", "the next one is up")


@pytest.mark.parametrize(
    ("code", "frame", "why", "suspect"),
    [
        (-signal.SIGKILL, None, "killed", False),
        (-signal.SIGTERM, None, "killed", False),
        (-signal.SIGSEGV, None, "killed", True),
        (1, None, "ended", True),
        (1, Ended("libvirt", "lost"), "libvirt", True),
        (1, Ended("memory", "MemoryError"), "memory", True),
        (1, Ended("defect", "KeyError"), "defect", True),
    ],
)
def test_who_was_asked_when_the_process_died_is_a_suspect_unless_it_was_killed(
    agents: Callable[..., Agents], code: int, frame: Ended | None, why: str, *, suspect: bool
) -> None:
    """A suspect is left alone; what was asked of another is asked again. The call goes on in libvirtd: it counts as lost."""
    host = agents()
    helper = host.asked()
    helper.asked(Command.OS)
    if frame is not None:
        helper.send(frame)
    helper.end(code)
    eventually(lambda: host.agents.health().restarts == {why: 1}, f"it counts as {why}")
    assert host.agents.lost == 1
    assert (host.agents.health().vms.get(GuestReason.SUSPECT) == 1) is suspect
    assert host.scripts.started(2).start is not helper.start


def test_bytes_that_are_no_frame_end_the_process(agents: Callable[..., Agents]) -> None:
    host = agents()
    helper = host.asked()
    helper.asked(Command.OS)
    helper.send_bytes(b"\xff\xff\xff\xff and so on")
    assert helper.ended() == -signal.SIGKILL
    eventually(lambda: host.agents.health().restarts == {"broken": 1}, "it counts as broken")
    assert host.agents.health().vms == {GuestReason.SUSPECT: 1}


def test_a_silent_process_is_killed_and_nobody_is_to_blame(agents: Callable[..., Agents]) -> None:
    host = agents(hang_seconds=0.2)
    helper = host.asked()
    helper.asked(Command.OS)
    assert helper.ended() == -signal.SIGKILL
    eventually(lambda: host.agents.health().restarts.get("hung") == 1, "it counts as hung")
    assert GuestReason.SUSPECT not in host.agents.health().vms


def test_a_process_that_grows_too_large_is_killed(agents: Callable[..., Agents], monkeypatch: pytest.MonkeyPatch) -> None:
    host = agents()
    helper = host.asked()
    helper.asked(Command.OS)
    monkeypatch.setattr(supervisor, "resident_bytes", lambda _pid: host.agents._settings.guest.memory_bytes + 1)
    assert helper.ended() == -signal.SIGKILL
    eventually(lambda: host.agents.health().restarts.get("memory", 0) >= 1, "it counts as memory")
    assert host.agents.health().vms == {GuestReason.SUSPECT: 1}


def test_a_process_that_does_not_read_is_killed(agents: Callable[..., Agents], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_life: object, _data: bytes) -> None:
        raise BlockingIOError

    host = agents()
    helper = host.scripts.started(1)
    monkeypatch.setattr(supervisor._Life, "write", full)
    helper.send(Up(list(Command)))
    assert helper.ended() == -signal.SIGKILL
    eventually(lambda: host.agents.health().restarts.get("hung", 0) >= 1, "it counts as hung")


def test_a_process_that_is_gone_says_why_by_the_other_pipe(agents: Callable[..., Agents], monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_life: object, _data: bytes) -> None:
        raise BrokenPipeError

    host = agents()
    helper = host.scripts.started(1)
    monkeypatch.setattr(supervisor._Life, "write", gone)
    helper.send(Up(list(Command)))
    helper.send(Ended("memory", "MemoryError"))
    helper.end(1)
    eventually(lambda: host.agents.health().restarts == {"memory": 1}, "its own word is what counts")


def test_the_process_ends_with_the_producer(agents: Callable[..., Agents]) -> None:
    host = agents()
    helper = host.up()
    host.close()
    assert helper.ended() == 0
    assert host.agents.pid == 0


def test_a_process_that_does_not_end_with_the_producer_is_killed(agents: Callable[..., Agents]) -> None:
    host = agents()
    helper = host.up()
    helper.stubborn = True
    host.close(1.0)
    assert helper.ended() == -signal.SIGKILL


def test_a_supervisor_that_was_never_started_closes() -> None:
    GuestAgents(Settings(), CallBudget(3), random.Random(1)).close(0.1)  # noqa: S311, a test's


def test_failing_agents_and_new_periods_are_logged_once(agents: Callable[..., Agents], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    host = agents(balloon_period_seconds=5)
    helper = host.asked(WITHOUT_PERIOD)
    for _ in range(len(AGENT) + 2):
        asked = helper.next_ask()
        reason = GuestReason.MALFORMED if asked.command is Command.OS else None
        helper.send(Answered(asked.number, time.time(), 0.1, reason=reason))
    eventually(lambda: host.agents.health().periods_set == 1, "the period is set")
    eventually(lambda: "new: web-1: malformed" in caplog.text, "the failure is said")
    assert caplog.text.count(f"VM web-1 ({A})") == 1
