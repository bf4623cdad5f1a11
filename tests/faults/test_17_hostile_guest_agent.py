"""Fault 17: guests whose agents answer slowly, falsely, endlessly or never, alone and five at a time among twenty VMs."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from tests.support import agent_program as speech
from tests.support.agent_program import AgentProgram, Speech
from tests.support.figures import figure
from tests.support.lab import Guest, GuestSpec, Lab, Node
from tests.support.lab_pipeline import INTERVAL_SECONDS, Pipeline
from tests.support.lab_process import LabError, await_true, children_of
from tests.support.lab_release import releases
from tests.support.lab_scrape import Scrape, Watch
from tests.support.lab_tap import Arrival, Tap
from tests.support.long import length
from tests.support.prometheus import check_metrics
from tests.support.stuck_vms import CAP, assert_monitors_late_once, assert_safe_groups_on_time
from virtflow.schemas.text import is_printable

ADDRESSES = 16
FILESYSTEMS = 32
INTERFACES = 32
LARGEST_BYTES = 1 << 60
TEXT_LENGTH = 128

RELEASES = releases()
VMS = 20
HOSTILE = 5
CYCLE_SECONDS = 4.0
HOSTILE_SECONDS = 2 * CYCLE_SECONDS
WAY_SECONDS = 2 * INTERVAL_SECONDS + 1.0
"""From an answer to the scrape that shows it: the next round, and the pipeline."""
TWO_CYCLES = 2 * CYCLE_SECONDS + WAY_SECONDS
ASKED_SECONDS = 60.0
HEARD_SECONDS = 5.0
IN_FLIGHT = 2
MEMORY_BYTES = 167_772_160
LINE_SECONDS = 59.0

MODES: dict[str, Speech] = {
    "silent": speech.silent,
    "slow_1_9_s": speech.slow(1.9),
    "slow_2_1_s": speech.slow(2.1),
    "slow_a_minute": speech.slow(60.0),
    "wrong_types": speech.WRONG_TYPES,
    "broken_json": speech.broken,
    "huge_host_name": speech.HUGE_NAME,
    "250_interfaces": speech.SOME,
    "10000_interfaces": speech.MANY,
    "untrue_numbers": speech.UNTRUE_NUMBERS,
    "endless": speech.endless,
    "answer_to_another_request": speech.another,
    "old_version": speech.outdated,
}
ANEW = {"broken_json", "endless", "old_version"}
"""After the first two libvirt has hung up, and talks to the agent again once that has opened its channel anew; a newer version starts again."""
ALONE = length(("endless",), tuple(MODES))
CASES = [*((mode, HOSTILE) for mode in MODES), *((mode, 1) for mode in ALONE)]
"""What one agent does five do as well; with ``--long`` each mode is tried with one too."""
STARTS = 5
"""More than the turns that an agent has meanwhile, one in half a cycle."""


@dataclass(frozen=True, slots=True)
class Host:
    """A node with VMs of which some have agents that the test speaks for, and the pipeline that samples them."""

    node: Node
    pipeline: Pipeline
    vms: Sequence[Guest]
    hostile: Sequence[Guest]
    agents: Sequence[AgentProgram]


@pytest.fixture(scope="module")
def host(release: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Twenty VMs; five of them have booted and have agents, which are honest at first."""
    settings = {"VIRTFLOW_GUEST_ENABLED": "true", "VIRTFLOW_GUEST_CYCLE_SECONDS": str(CYCLE_SECONDS)}
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(1, release))
        node = lab.nodes[0]
        hostile = [node.start_guest(GuestSpec(f"tenant-{number}", agent="relay"), wait=False) for number in range(HOSTILE)]
        others = node.load_paused(VMS - HOSTILE)
        for guest in hostile:
            node.await_up(guest)
        agents = [stack.enter_context(AgentProgram(guest.uuid, node.disks)) for guest in hostile]
        pipeline = stack.enter_context(Pipeline(lab, tmp_path_factory.mktemp("pipeline"), settings))
        host = Host(node, pipeline, [*hostile, *others], hostile, agents)
        pipeline.await_scrape(lambda seen: all(behaves(seen, guest) for guest in hostile), "every agent has answered")
        yield host


def behaves(seen: Scrape, guest: Guest) -> bool:
    """Whether the scrape shows an honest agent's fresh answer."""
    age = seen.value("vm_guest_age_seconds", uuid=guest.uuid)
    return (
        seen.value("vm_guest_agent_up", uuid=guest.uuid) == 1
        and seen.value("vm_guest_info", uuid=guest.uuid, hostname="honest") == 1
        and age is not None
        and age < TWO_CYCLES
    )


def behave(host: Host, agents: Sequence[AgentProgram], *, anew: bool) -> None:
    """The agents are honest again; ``anew``: as programs that were started again, their channels closed and opened again."""
    for guest, agent in zip(host.hostile, agents, strict=False):
        if not anew:
            agent.speech = speech.HONEST
            continue
        agent.restart(speech.HONEST)
        # After an endless answer libvirt 11.3 with QEMU 10 hears the agent once its channel has been opened a second time.
        if not is_heard(host.node, guest):
            agent.restart(speech.HONEST)
            assert is_heard(host.node, guest)


def is_heard(node: Node, guest: Guest) -> bool:
    """Whether libvirt gets an answer from the guest's agent, for a client that is not virtflow."""

    def answers() -> bool:
        try:
            node.virsh("qemu-agent-command", guest.uuid, '{"execute":"guest-get-host-name"}', "--timeout", "2")
        except LabError:  # the agent's channel is being opened
            return False
        return True

    try:
        await_true(answers, HEARD_SECONDS, "libvirt hears the agent")
    except LabError:
        return False
    return True


def assert_calls_bounded(rounds: Sequence[Arrival]) -> None:
    """By the producer's own count, in every round: calls under way, and calls lost on the host."""
    for one in rounds:
        health = one.snapshot.health
        assert 0 <= health.guest_calls_in_flight <= IN_FLIGHT
        assert health.guest_calls_lost <= IN_FLIGHT
        assert health.hung_calls <= CAP


def assert_clean(seen: Scrape, guest: Guest) -> None:
    """What is shown of the guest: few series, short printable words, sizes that can be true."""
    counts: Counter[str] = Counter()
    for (name, labels), value in seen.of_vm(guest.uuid).items():
        counts[name] += 1
        for _, text in labels:
            assert len(text) <= TEXT_LENGTH
            assert is_printable(text)
        if name.startswith("vm_guest_filesystem_"):
            assert 0 <= value <= LARGEST_BYTES
    assert counts["vm_guest_filesystem_size_bytes"] <= FILESYSTEMS
    assert counts["vm_guest_ip_address_info"] <= INTERFACES * ADDRESSES
    assert counts["vm_guest_info"] <= 1


def assert_a_line_a_minute(log: Path) -> None:
    """Of all that was wrong with agents since the producer started."""
    times = [datetime.fromisoformat(line.split()[0]) for line in log.read_text().splitlines() if "agents do not answer" in line]
    assert all((later - earlier).total_seconds() >= LINE_SECONDS for earlier, later in itertools.pairwise(times))


def resident_bytes(pid: int) -> int:
    """A process's resident memory; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


@contextmanager
def watched(host: Host) -> Iterator[None]:
    """What holds for the others while agents misbehave: samples on time, calls and memory bounded, few lines, clean scrapes."""
    producer = host.pipeline.producers[0]
    (apart,) = children_of(producer.process.pid)
    with Tap(host.pipeline.broker.address) as tap, Watch(host.pipeline.address) as watch:
        watch.await_scrapes(1)
        begin = time.time()
        yield
        end = time.time()
        assert resident_bytes(apart) < MEMORY_BYTES
        figure(17, "memory of the helper process after the agent's worst", resident_bytes(apart) / (1 << 20), "MiB")
        assert resident_bytes(producer.process.pid) < MEMORY_BYTES
    rounds = [one for one in tap.of(host.node.name, begin) if one.snapshot.collected < end]
    assert_safe_groups_on_time(rounds, host.vms)
    assert_monitors_late_once(rounds, host.vms)
    assert_calls_bounded(rounds)
    for seen in watch.scrapes:
        for guest in host.hostile:
            assert_clean(seen, guest)
    check_metrics(watch.scrapes[-1].text)
    assert_a_line_a_minute(producer.log)
    assert children_of(producer.process.pid) == [apart], "the helper process had to be started again"


def await_all_behave(host: Host) -> None:
    """Within two cycles every agent's honest answer is shown."""
    host.pipeline.await_scrape(lambda seen: all(behaves(seen, guest) for guest in host.hostile), "all agents' answers", TWO_CYCLES)


@pytest.mark.parametrize(("mode", "count"), CASES, ids=[f"{mode}-{'five' if count > 1 else 'alone'}" for mode, count in CASES])
def test_a_hostile_agent_costs_nobody_else_anything(host: Host, mode: str, count: int) -> None:
    """Whatever it answers; and once it behaves it is shown again within two cycles."""
    agents = host.agents[:count]
    with watched(host):
        begin, before = time.monotonic(), [len(agent.requests) for agent in agents]
        for agent in agents:
            agent.speech = MODES[mode]
        await_true(lambda: all(len(agent.requests) > n for agent, n in zip(agents, before, strict=True)), ASKED_SECONDS, "each is asked")
        await_true(lambda: time.monotonic() - begin >= HOSTILE_SECONDS, HOSTILE_SECONDS + 1.0, "some cycles have passed")
    behave(host, agents, anew=mode in ANEW)
    await_all_behave(host)
    assert not host.node.libvirtd.ended


def test_an_agent_that_starts_again_and_again_costs_nobody_else_anything(host: Host) -> None:
    """Its channel opens and closes all the time; it is not asked at each of its starts."""
    agent = host.agents[0]
    with watched(host):
        begin, before, starts = time.monotonic(), sum(agent.commands().values()), 0
        while time.monotonic() - begin < HOSTILE_SECONDS or starts < STARTS:
            agent.restart(speech.HONEST)
            starts += 1
        took = time.monotonic() - begin
    assert starts >= STARTS
    assert sum(agent.commands().values()) - before <= (took / CYCLE_SECONDS * 2 + 1) * len(speech.TRUTH)
    await_all_behave(host)
