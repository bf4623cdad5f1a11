"""Real guests with the real agent: what is shown is what the guest itself says; and without the option nobody asks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import pytest

from tests.lab.guest_truth import LOADS, loads, of_itself, shown, tells_loads
from tests.support.agent_program import AgentProgram
from tests.support.lab import Guest, GuestSpec, Lab, LabError, Node
from tests.support.lab_pipeline import INTERVAL_SECONDS, Pipeline
from tests.support.lab_release import RELEASES as KNOWN
from tests.support.lab_release import releases
from tests.support.lab_scrape import Scrape
from tests.support.lab_shell import GuestShell
from tests.support.prometheus import check_metrics

RELEASES = releases()
CYCLE_SECONDS = 2.0
WAY_SECONDS = 2 * INTERVAL_SECONDS + 1.0
"""From an answer to the scrape that shows it: the next round, and the pipeline."""
TWO_CYCLES = 2 * CYCLE_SECONDS + WAY_SECONDS
AGE_CYCLES = 3
ROUNDING = 0.01
"""/proc/loadavg has two digits."""
ASKING: Mapping[str, str] = {"VIRTFLOW_GUEST_ENABLED": "true", "VIRTFLOW_GUEST_CYCLE_SECONDS": str(CYCLE_SECONDS)}
ODD_MOUNTPOINT = '/srv/a "quoted" {place}'
MOVING = ("vm_guest_filesystem_free_bytes", frozenset({("mountpoint", "/mnt"), ("fstype", "ext2"), ("device", "vda")}))
"""The guest's load writes there all the time."""


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Guest:
    """A guest with the real agent, on the first node."""
    return lab.nodes[0].start_guest(GuestSpec("told-1", agent="real", vcpus=2, disks=2, nics=2))


@pytest.fixture(scope="module")
def mute(lab: Lab) -> Guest:
    """A guest on the second node whose channel leads to the test."""
    return lab.nodes[1].start_guest(GuestSpec("mute-1", agent="relay"))


@pytest.fixture(scope="module")
def shell(lab: Lab, guest: Guest) -> Iterator[GuestShell]:
    """A shell in the guest, with a second filesystem that nobody writes to."""
    with GuestShell(guest.uuid, lab.nodes[0].disks) as shell:
        # The guest's load writes to what is not mounted, now and then just between the two.
        mount = f"mke2fs /dev/vdb > /dev/null && mount -t ext2 /dev/vdb '{ODD_MOUNTPOINT}' && break"
        shell.run(f"mkdir -p '{ODD_MOUNTPOINT}'; for try in 1 2 3 4 5; do {mount}; done; grep -q ^/dev/vdb /proc/mounts")
        yield shell


@pytest.fixture(scope="module")
def pipeline(lab: Lab, guest: Guest, mute: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The pipeline; the first node's producer asks agents, the second one's does not."""
    assert guest.uuid != mute.uuid
    with Pipeline(lab, tmp_path_factory.mktemp("pipeline"), whole=False) as pipeline:
        pipeline.own_settings[lab.nodes[0].name] = ASKING
        pipeline.start_services()
        yield pipeline


def await_truth(pipeline: Pipeline, guest: Guest, shell: GuestShell, seconds: float = TWO_CYCLES) -> Scrape:
    """Wait until what is shown of the guest is what it says itself, but for what changes all the time."""

    def same(seen: Scrape) -> bool:
        told = of_itself(shell)
        there = shown(seen, guest.uuid)
        told.pop(MOVING)
        return there.pop(MOVING, 0.0) > 0 and there == told

    try:
        return pipeline.await_scrape(same, "what is shown is what the guest says", seconds)
    except LabError as error:
        told, there = of_itself(shell), shown(pipeline.scrape(), guest.uuid)
        raise AssertionError(f"only the guest says {told.items() - there.items()}, only shown {there.items() - told.items()}") from error


def test_every_metric_is_what_the_guest_says(pipeline: Pipeline, guest: Guest, shell: GuestShell) -> None:
    """CPUs, filesystems, addresses, system and host name: nothing is missing, nothing is added; the exposition is clean."""
    seen = await_truth(pipeline, guest, shell, 30.0)
    assert seen.value("vm_guest_agent_up", uuid=guest.uuid) == 1
    assert (seen.value("vm_guest_values_cut", uuid=guest.uuid), seen.value("vm_guest_values_dropped", uuid=guest.uuid)) == (0, 0)
    age = seen.value("vm_guest_age_seconds", uuid=guest.uuid)
    assert age is not None
    assert age < TWO_CYCLES
    check_metrics(seen.text)


def test_free_space_lies_between_what_the_guest_said_before_and_after(pipeline: Pipeline, guest: Guest, shell: GuestShell) -> None:
    """On the filesystem that its load writes to."""
    told = [of_itself(shell)[MOVING] for _ in range(20)]
    seen = shown(pipeline.scrape(), guest.uuid)[MOVING]
    assert min(told) - 65_536 <= seen <= max(told) + 65_536


def test_load_averages_are_shown_where_they_are_told(lab: Lab, pipeline: Pipeline, guest: Guest, shell: GuestShell) -> None:
    """Between what the guest said over the last cycles and says now."""
    node = lab.nodes[0]
    if not tells_loads(shell, KNOWN[node.hypervisor.release].libvirt):
        assert [pipeline.scrape().value(name, uuid=guest.uuid) for name in LOADS] == [None] * len(LOADS)
        return
    told: list[tuple[float, ...]] = []

    def between(seen: Scrape) -> bool:
        told.append(loads(shell))
        values = [seen.value(name, uuid=guest.uuid) for name in LOADS]
        pairs = list(zip(values, zip(*told, strict=True), strict=True))
        return all(value is not None and min(past) - ROUNDING <= value <= max(past) + ROUNDING for value, past in pairs)

    pipeline.await_scrape(between, "the load averages are the guest's", 30.0)


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        ("hostname renamed", "hostname lab-guest"),
        ("echo 0 > /sys/devices/system/cpu/cpu1/online", "echo 1 > /sys/devices/system/cpu/cpu1/online"),
        ("ip addr add 192.0.2.77/24 dev eth1 && ip addr add 2001:db8::77/64 dev eth1", "ip addr flush dev eth1"),
        (f"dd if=/dev/zero of='{ODD_MOUNTPOINT}/full' bs=1M count=20", f"rm '{ODD_MOUNTPOINT}/full'"),
    ],
    ids=["hostname", "cpu", "address", "space"],
)
def test_a_change_in_the_guest_is_shown_within_two_cycles(
    pipeline: Pipeline, guest: Guest, shell: GuestShell, change: str, undo: str
) -> None:
    """And its end too."""
    before = of_itself(shell)
    shell.run(change)
    assert {key: value for key, value in of_itself(shell).items() if key != MOVING} != {
        key: value for key, value in before.items() if key != MOVING
    }
    await_truth(pipeline, guest, shell)
    shell.run(undo)
    await_truth(pipeline, guest, shell)


def test_when_the_agent_ends_its_data_vanish_and_come_back(pipeline: Pipeline, guest: Guest, shell: GuestShell) -> None:
    """It is told at once that nobody listens; what was told goes after three cycles; the VM's other metrics stay; back within two cycles."""
    await_truth(pipeline, guest, shell)
    shell.run("killall qemu-ga")
    pipeline.await_scrape(
        lambda seen: seen.value("vm_guest_agent_info", uuid=guest.uuid, reason="disconnected") == 1, "the agent is gone", TWO_CYCLES
    )
    gone = pipeline.await_scrape(
        lambda seen: (
            not {name for name, _ in shown(seen, guest.uuid)} & {"vm_guest_info", "vm_guest_filesystem_size_bytes", "vm_guest_cpus"}
        ),
        "its data vanish",
        AGE_CYCLES * CYCLE_SECONDS + WAY_SECONDS,
    )
    assert gone.value("vm_guest_age_seconds", uuid=guest.uuid) is None
    assert gone.value("vm_guest_agent_up", uuid=guest.uuid) == 0
    assert gone.value("vm_cpu_seconds_total", uuid=guest.uuid) is not None
    shell.run("qemu-ga -d -m virtio-serial -p /dev/virtio-ports/org.qemu.guest_agent.0")
    await_truth(pipeline, guest, shell)


def writers(node: Node) -> list[str]:
    """What libvirtd says of those clients on its unix sockets that may write."""
    listed = [line.split() for line in node.virt_admin("srv-clients-list", "libvirtd").splitlines()]
    numbers = [words[0] for words in listed if words and words[0].isdecimal() and "unix" in words]
    told = [node.virt_admin("client-info", "libvirtd", number) for number in numbers]
    return [text for text in told if re.search(r"^readonly\s*:\s*no$", text, re.MULTILINE)]


def test_without_the_option_no_agent_is_asked_and_nobody_may_write(lab: Lab, pipeline: Pipeline, mute: Guest) -> None:
    """Counted at the channel, over rounds that bring everything else; with the option the same count is not zero."""
    node, producer = lab.nodes[1], pipeline.producers[1]

    def rounds(seen: Scrape) -> float:
        return seen.value("virtflow_node_rounds_total", node=node.name) or 0.0

    with AgentProgram(mute.uuid, node.disks) as agent:
        pipeline.await_scrape(lambda seen: seen.value("vm_block_read_bytes_total", uuid=mute.uuid, device="vda") is not None, "samples")
        enough = rounds(pipeline.scrape()) + 5
        seen = pipeline.await_scrape(lambda seen: rounds(seen) >= enough, "five rounds")
        assert (agent.requests, writers(node)) == ([], [])
        assert shown(seen, mute.uuid) == {}
        assert seen.value("vm_guest_agent_up", uuid=mute.uuid) is None
        producer.stop()
        pipeline.own_settings[node.name] = ASKING
        producer.start()
        pipeline.await_scrape(lambda seen: seen.value("vm_guest_info", uuid=mute.uuid, hostname="honest") == 1, "the agent is asked")
        assert agent.commands()["guest-get-host-name"] > 0
        assert len(writers(node)) == 1
