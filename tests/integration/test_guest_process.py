"""The helper process and its supervisor, for real, on libvirt's own test driver: it needs no hypervisor, and has leases and balloons."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.lab_process import await_true
from virtflow.producer.agent.supervisor import GuestAgents
from virtflow.producer.hung_calls.budget import CallBudget
from virtflow.runtime.settings import Guest, Libvirt, Settings
from virtflow.schemas.guest import GuestReason

WAIT_SECONDS = 30.0
DOMAIN = """<domain type='test'><name>{name}</name><uuid>{uuid}</uuid><memory>65536</memory><vcpu>1</vcpu><os><type>hvm</type></os>
<devices><interface type='network'><source network='default'/></interface><memballoon model='virtio'>{balloon}</memballoon></devices>
</domain>"""
NETWORK = "<network><name>default</name><bridge name='virbr0'/><ip address='192.168.122.1' netmask='255.255.255.0'/></network>"


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A host of the test driver with two VMs; the first one's balloon has no period."""
    balloons = {"lacks-1": "", "has-1": "<stats period='3'/>"}
    domains = "".join(DOMAIN.format(name=name, uuid=uuid4(), balloon=balloon) for name, balloon in balloons.items())
    path = tmp_path / "host.xml"
    path.write_text(f"<node>{domains}{NETWORK}</node>")
    return f"test://{path}"


def settings(uri: str, **guest: object) -> Settings:
    given: dict[str, object] = {"enabled": True, "cycle_seconds": 1.0, "restart_maximum_seconds": 0.2, "hang_seconds": 3.0}
    return Settings(libvirt=Libvirt(uri=uri), guest=Guest(**(given | guest)))  # type: ignore[arg-type]  # fields of different types


@contextmanager
def running(settings: Settings) -> Iterator[GuestAgents]:
    guests = GuestAgents(settings, CallBudget(3), random.Random(1))  # noqa: S311, a test's
    guests.start()
    try:
        yield guests
    finally:
        guests.close()
        assert guests.pid == 0


def await_process(guests: GuestAgents, other_than: int = 0) -> int:
    await_true(lambda: guests.pid not in {0, other_than} and guests.health().up == 1, WAIT_SECONDS, "the process is up")
    return guests.pid


def exists(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_without_an_agent_the_leases_are_told(uri: str) -> None:
    """Each VM has its reason, and the address that libvirt gave it."""
    with running(settings(uri)) as guests:
        await_true(lambda: len(guests.samples()) == 2 and all(s.address_source for s in guests.samples().values()), WAIT_SECONDS, "leases")
        for sample in guests.samples().values():
            assert (sample.agent_up, sample.reason, sample.address_source) == (0, GuestReason.NO_CHANNEL, "lease")
            assert sample.interfaces[0].addresses[0].address.startswith("192.168.122.")
        assert set(guests.health().calls) == {"answered"}


def test_only_those_that_are_named_are_asked(uri: str) -> None:
    """Naming VMs is enough to have them asked, and nobody else."""
    with running(settings(uri, enabled=False, names=["has-*"])) as guests:
        await_true(lambda: bool(guests.samples()), WAIT_SECONDS, "the one that is meant")
        calls = guests.health().calls.get("answered", 0)
        await_true(lambda: guests.health().calls.get("answered", 0) >= calls + 4, WAIT_SECONDS, "two more cycles")
        assert len(guests.samples()) == 1


def test_a_period_is_given_to_those_that_lack_one(uri: str) -> None:
    """Once, and told."""
    with running(settings(uri, enabled=False, balloon_period_seconds=5)) as guests:
        await_true(lambda: guests.health().periods_set == 1, WAIT_SECONDS, "the period is set")
        calls = guests.health().calls.get("answered", 0)
        await_true(lambda: guests.health().calls.get("answered", 0) >= calls + 4, WAIT_SECONDS, "two more cycles")
        assert guests.health().periods_set == 1
        assert guests.samples() == {}


@pytest.mark.parametrize(("number", "why"), [(signal.SIGKILL, "killed"), (signal.SIGSEGV, "killed"), (signal.SIGSTOP, "hung")])
def test_another_one_takes_over(uri: str, number: signal.Signals, why: str) -> None:
    """Killed, crashed or hung: what was known stays while it is fresh, and is known again."""
    with running(settings(uri)) as guests:
        await_true(lambda: len(guests.samples()) == 2, WAIT_SECONDS, "samples")
        process = await_process(guests)
        os.kill(process, number)
        await_process(guests, process)
        assert guests.health().restarts == {why: 1}
        assert not exists(process)
        await_true(lambda: len(guests.samples()) == 2, WAIT_SECONDS, "samples")


def test_what_is_too_old_vanishes(uri: str) -> None:
    """A process that hangs for longer than three cycles leaves nothing that could be taken for a guest's word."""
    with running(settings(uri, hang_seconds=60.0)) as guests:
        await_true(lambda: len(guests.samples()) == 2, WAIT_SECONDS, "samples")
        os.kill(guests.pid, signal.SIGSTOP)
        await_true(lambda: guests.samples() == {}, WAIT_SECONDS, "nothing is known")
        os.kill(guests.pid, signal.SIGCONT)
        await_true(lambda: len(guests.samples()) == 2, WAIT_SECONDS, "samples")


def test_memory_is_limited(uri: str) -> None:
    """The limit holds for the process; one that has nothing left ends, and another takes over."""
    wanted = settings(uri)
    with running(wanted) as guests:
        process = await_process(guests)
        assert resource.prlimit(process, resource.RLIMIT_AS) == (wanted.guest.memory_bytes,) * 2
        used = int(Path(f"/proc/{process}/statm").read_text().split()[0]) * resource.getpagesize()
        assert used < wanted.guest.memory_bytes
        resource.prlimit(process, resource.RLIMIT_AS, (used, used))
        await_process(guests, process)
        assert sum(guests.health().restarts.values()) == 1


def test_a_daemon_that_is_not_there_is_tried_again(tmp_path: Path) -> None:
    """After each pause, by a process of its own."""
    with running(settings(f"qemu:///system?socket={tmp_path}/none")) as guests:
        await_true(lambda: guests.health().restarts.get("libvirt", 0) >= 3, WAIT_SECONDS, "three attempts")
        assert guests.health().up == 0


PARENT = """
import sys, threading
from virtflow.producer.agent.supervisor import GuestAgents
from virtflow.producer.hung_calls.budget import CallBudget
from virtflow.runtime.settings import Guest, Libvirt, Settings
guests = GuestAgents(Settings(libvirt=Libvirt(uri=sys.argv[1]), guest=Guest(enabled=True)), CallBudget(3))
guests.start()
while not guests.health().up:
    threading.Event().wait(0.01)
print(guests.pid, flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_it_ends_with_the_producer(uri: str, stopped: bool) -> None:  # noqa: FBT001, drawn from the parameters
    """However that ends, and even while it is stopped itself."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen([sys.executable, "-c", PARENT, uri], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        process = int(parent.stdout.readline())
        if stopped:
            os.kill(process, signal.SIGSTOP)
        parent.kill()
    await_true(lambda: not exists(process), WAIT_SECONDS, "it is gone")


def test_killed_twenty_times_it_leaves_nothing_behind(uri: str) -> None:
    """No process, no descriptor; and what was known is known again."""
    with running(settings(uri, restart_maximum_seconds=0.1)) as guests:
        process = await_process(guests)
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        seen = {process}
        for _ in range(20):
            os.kill(process, signal.SIGKILL)
            process = await_process(guests, process)
            seen.add(process)
        await_true(lambda: len(guests.samples()) == 2, WAIT_SECONDS, "samples")
        assert guests.health().restarts == {"killed": 20}
        assert [pid for pid in seen - {process} if exists(pid)] == []
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
