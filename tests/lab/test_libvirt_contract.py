"""What the in-memory libvirt is built on holds on real daemons: the suite that also runs on it, in the layer contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.lab import Lab
from tests.support.lab_release import releases
from tests.support.libvirt_contract import answers, daemon, guests, stuck
from tests.support.libvirt_contract.host import Host
from tests.support.libvirt_contract.lab_host import LabHost
from tests.support.libvirt_contract.lab_pair import LabPair


@pytest.fixture(scope="module", params=releases(every_run=True))
def running(request: pytest.FixtureRequest) -> Iterator[LabHost]:
    """One host of each release, with VMs for all tests."""
    with Lab(nodes=1, release=request.param) as lab:
        yield LabHost(lab.nodes[0])


@pytest.fixture
def host(running: LabHost) -> Iterator[Host]:
    """The host, calm again after each test."""
    yield running
    running.calm()


@pytest.fixture(scope="module", params=releases())
def together(request: pytest.FixtureRequest) -> Iterator[LabPair]:
    """Two hosts of the usual release, and a guest for all tests; with ``--long`` of each release: agents and migrations differ less by it."""
    with Lab(nodes=2, release=request.param) as lab:
        pair = LabPair(lab)
        yield pair
        pair.close()


@pytest.fixture
def pair(together: LabPair) -> Iterator[guests.Pair]:
    """The pair, calm again after each test."""
    yield together
    together.calm()


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
