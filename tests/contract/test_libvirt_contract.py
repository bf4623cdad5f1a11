"""The in-memory libvirt does what the real ones do: the suite that also runs on real daemons, in the layer lab."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.libvirt_contract import answers, daemon, guests, stuck
from tests.support.libvirt_contract.host import Host
from tests.support.libvirt_contract.memory_host import MemoryHost
from tests.support.libvirt_contract.memory_pair import MemoryPair
from tests.support.memory_libvirt import BOOKWORM, TRIXIE


@pytest.fixture(params=[BOOKWORM, TRIXIE], ids=["bookworm", "trixie"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A host of its own for each test, as it was measured on each release."""
    host = MemoryHost(request.param)
    yield host
    host.close()


@pytest.fixture(params=[BOOKWORM, TRIXIE], ids=["bookworm", "trixie"])
def pair(request: pytest.FixtureRequest) -> Iterator[guests.Pair]:
    """Two hosts and a guest."""
    pair = MemoryPair(request.param)
    yield pair
    pair.close()


class TestAnswers(answers.Answers):
    """Without trouble."""


class TestStuckVms(stuck.StuckVms):
    """With VMs whose QEMU does not answer."""


class TestDaemonFaults(daemon.DaemonFaults):
    """With a daemon that stands still or restarts."""


class TestEvents(daemon.Events):
    """With VMs that come and go."""


class TestAgents(guests.Agents):
    """With a guest's agent."""


class TestMigrations(guests.Migrations):
    """From one host to the other."""
