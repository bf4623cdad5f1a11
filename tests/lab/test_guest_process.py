"""The process that asks the guests' agents, on real guests: killed, hung and starved it costs nobody anything but its own data."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

from tests.support.lab import Guest, GuestSpec, Lab, Node, await_true
from tests.support.lab_pipeline import VIRTFLOW
from tests.support.long import length
from virtflow.producer.hung_calls.budget import CallBudget
from virtflow.producer.records.node_health import Outgoing
from virtflow.producer.sampler import Sampler
from virtflow.producer.service import guest_agents, rounds
from virtflow.runtime.lifecycle import Stop
from virtflow.runtime.settings import Guest as GuestSettings
from virtflow.runtime.settings import Libvirt, Producer, Settings
from virtflow.schemas.records import GuestSample, NodeSnapshot, VmSnapshot

INTERVAL: Final = 0.5
CYCLE: Final = 1.0
KILLS: Final = length(8, 20)
"""After five the pause is the longest one."""
WAIT_SECONDS: Final = 60.0
HANG_SECONDS: Final = 5.0
LONGEST_PAUSE: Final = 2.0
AGE_SECONDS: Final = 3 * CYCLE


class Asking:
    """A producer without a bus, in this process, that has the guests' agents asked: its snapshots as they come."""

    def __init__(self, node: Node, **guest: object) -> None:
        """Nothing runs yet; ``guest`` are settings of asking."""
        settings: dict[str, object] = {
            "enabled": True,
            "cycle_seconds": CYCLE,
            "hang_seconds": HANG_SECONDS,
            "restart_maximum_seconds": LONGEST_PAUSE,
        }
        self.settings = Settings(
            libvirt=Libvirt(uri=node.socket_uri),
            producer=Producer(interval_seconds=INTERVAL),
            guest=GuestSettings(**(settings | guest)),  # type: ignore[arg-type]  # fields of different types
        )
        self.snapshots: list[NodeSnapshot] = []

    def __enter__(self) -> Self:
        """Begin."""
        budget = CallBudget(self.settings.producer.hung_calls_max)
        found = guest_agents(self.settings, budget)
        assert found is not None
        self.guests = found
        self._source = Sampler(self.settings, budget=budget)
        self._stop = Stop()
        self._thread = threading.Thread(target=rounds, args=(self.settings, self._source, self._stop, self, found), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End."""
        self._stop.set()
        self._thread.join()
        self.guests.close()
        self._source.close(2.0)

    def offer(self, snapshot: NodeSnapshot) -> None:
        """Keep a snapshot."""
        self.snapshots.append(snapshot)

    def outgoing(self) -> Outgoing:
        """Nothing waits."""
        return Outgoing()

    def vm(self, guest: Guest) -> VmSnapshot | None:
        """The VM in the newest snapshot."""
        return next((vm for vm in self.snapshots[-1].vms if vm.uuid == guest.uuid), None) if self.snapshots else None

    def told(self, guest: Guest) -> GuestSample | None:
        """What the newest snapshot says of the guest."""
        vm = self.vm(guest)
        return vm.guest[0] if vm is not None and vm.guest else None

    def await_told(self, guest: Guest, wanted: Callable[[GuestSample | None], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
        """Until the newest snapshot says what is wanted of the guest."""
        await_true(lambda: wanted(self.told(guest)), seconds, what)

    def await_up(self, guest: Guest, seconds: float = WAIT_SECONDS) -> None:
        """Until the guest's agent is up and what it told is there."""
        self.await_told(guest, lambda told: told is not None and told.agent_up == 1 and told.hostname != "", "the agent is up", seconds)

    def await_process(self, other_than: int = 0) -> int:
        """The id of a process that libvirt has answered, and that is not the one of before."""
        await_true(lambda: self.guests.pid not in {0, other_than} and self.guests.health().up == 1, WAIT_SECONDS, "the process is up")
        return self.guests.pid

    def assert_undisturbed(self, since: int) -> None:
        """No round from number ``since`` on was left out, each had every VM's monitor groups, and few were late: on a busy machine some are."""
        seen = self.snapshots[since:]
        assert len(seen) > 1
        assert {snapshot.health.up for snapshot in seen} == {1}
        first, last = seen[0].health, seen[-1].health
        assert last.rounds_skipped_total == first.rounds_skipped_total
        assert last.rounds_late_total - first.rounds_late_total <= len(seen) // 10
        assert [s.sequence for s in seen if any(vm.state_state == 1 and vm.monitor_collected != vm.monitor_collected for vm in s.vms)] == []


@pytest.fixture(scope="module")
def node(lab: Lab) -> Node:
    """The node that all guests are on."""
    return lab.nodes[0]


@pytest.fixture(scope="module")
def guest(node: Node) -> Guest:
    """A guest with the real agent."""
    return node.start_guest(GuestSpec("agent-1", agent="real"))


@pytest.fixture
def asking(node: Node, guest: Guest) -> Iterator[Asking]:
    """A producer that has the guest's agent asked, and has its answer."""
    with Asking(node) as asking:
        asking.await_up(guest)
        yield asking


def test_killed_again_and_again(asking: Asking, node: Node, guest: Guest) -> None:
    """Sampling goes on in time; each end is followed by another process after a pause that grows; then all is as before."""
    begin, process = len(asking.snapshots), asking.await_process()
    for _ in range(KILLS):
        os.kill(process, signal.SIGKILL)
        process = asking.await_process(process)
    asking.await_up(guest)
    assert asking.guests.health().restarts == {"killed": KILLS}
    asking.assert_undisturbed(begin)
    assert max(snapshot.health.hung_calls for snapshot in asking.snapshots) < asking.settings.producer.hung_calls_max
    await_true(lambda: node.hung_calls() == 0, WAIT_SECONDS, "libvirtd's workers are free")


def test_hung_its_data_vanish_and_another_takes_over(asking: Asking, guest: Guest) -> None:
    """Stopped, it says nothing: what it told is too old after three cycles, long before it is killed."""
    begin, process = len(asking.snapshots), asking.await_process()
    os.kill(process, signal.SIGSTOP)
    asking.await_told(guest, lambda told: told is None, "its data vanish", AGE_SECONDS + 4 * INTERVAL)
    assert asking.guests.pid == process
    asking.await_process(process)
    asking.await_up(guest)
    assert asking.guests.health().restarts == {"hung": 1}
    asking.assert_undisturbed(begin)


def test_it_may_take_only_so_much_memory(asking: Asking, guest: Guest) -> None:
    """Its address space is limited; when nothing is left of it, it ends and another takes over."""
    begin, process = len(asking.snapshots), asking.await_process()
    assert resource.prlimit(process, resource.RLIMIT_AS)[0] == asking.settings.guest.memory_bytes
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[0])
    used = pages * resource.getpagesize()
    assert used < asking.settings.guest.memory_bytes
    resource.prlimit(process, resource.RLIMIT_AS, (used, used))
    asking.await_process(process)
    asking.await_up(guest)
    assert sum(asking.guests.health().restarts.values()) == 1
    asking.assert_undisturbed(begin)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["restarted", "killed"])
def test_survives_the_daemon(asking: Asking, node: Node, guest: Guest, number: signal.Signals) -> None:
    """The daemon dies, and is back: so are the process and what it asks."""
    asking.await_process()
    node.libvirtd.signal(number)
    await_true(lambda: asking.guests.health().up == 0, WAIT_SECONDS, "the process has seen it")
    node.stop_libvirtd()
    node.start_libvirtd()
    asking.await_up(guest)
    assert asking.guests.health().restarts["libvirt"] >= 1


def test_gives_a_period_to_those_that_lack_one(node: Node, guest: Guest) -> None:
    """And to no other; no agent is asked for it."""
    lacking = node.start_guest(GuestSpec("agent-2", statistics_period_seconds=0))
    with Asking(node, enabled=False, balloon_period_seconds=7) as asking:
        await_true(lambda: "<stats period='7'/>" in node.virsh("dumpxml", lacking.uuid), WAIT_SECONDS, "the period is set")
        await_true(lambda: asking.snapshots[-1].health.guest_balloon_periods_set_total == 1, WAIT_SECONDS, "it is told")
        assert set(asking.guests.health().calls) <= {"answered", "busy"}  # on a busy machine a call of ours may hold the VM's lock
        assert all(not vm.guest for vm in asking.snapshots[-1].vms)
    assert "<stats period='1'/>" in node.virsh("dumpxml", guest.uuid)
    assert "<stats period" not in node.virsh("dumpxml", "--inactive", lacking.uuid)
    node.delete(lacking)


def test_the_doctor_says_of_each_guest_why_its_data_are_missing(node: Node, guest: Guest) -> None:
    """One has no channel; of the other everything is there, its balloon's driver included."""
    bare = node.start_guest(GuestSpec("bare-1"), wait=False)
    done = subprocess.run(
        [VIRTFLOW, "doctor", "--guest-agent", "--json", "--connect", node.socket_uri], capture_output=True, text=True, check=False
    )
    told = {(one["thing"], one["value"]): one["detail"] for one in json.loads(done.stdout)["findings"]}
    assert "no channel" in told["guest", bare.name]
    assert ("guest", guest.name) not in told
    assert ("guest agents", "1 of 2") in told
    node.delete(bare)
