"""The lab's fixtures: real hypervisors, made once per test file, with a guest under load or paused VMs on the first.

A file says what it needs by NODES (two), VMS (paused ones; none), RELEASES (the usual one).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import lab_migration
from tests.support.lab import Guest, GuestSpec, Lab, Node, await_true
from tests.support.lab_params import on_each_release
from tests.support.stuck_vms import HANGING_SECONDS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests run on the releases that their file names."""
    on_each_release(metafunc)


@pytest.fixture(autouse=True)
def migrations_end() -> Iterator[None]:
    """What a test has begun ends with it, also when it fails."""
    yield
    lab_migration.end_all()


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, release: str) -> Iterator[Lab]:
    """The file's nodes, without VMs."""
    with Lab(nodes=getattr(request.module, "NODES", 2), release=release) as lab:
        yield lab


@pytest.fixture(scope="module")
def node(lab: Lab) -> Node:
    """The first node."""
    return lab.nodes[0]


@pytest.fixture(scope="module")
def all_guests(request: pytest.FixtureRequest, node: Node) -> list[Guest]:
    """The file's VMs, without a system and paused."""
    return node.load_paused(request.module.VMS)


@pytest.fixture
def guests(node: Node, all_guests: list[Guest]) -> Iterator[list[Guest]]:
    """All VMs, none of them frozen before and after the test."""
    yield all_guests
    node.thaw(*all_guests)
    await_true(lambda: node.hung_calls() == 0, HANGING_SECONDS, "libvirtd holds no call any more")


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Guest:
    """A guest under load on the first node, with two disks and two NICs."""
    return lab.nodes[0].start_guest(GuestSpec("web-1", disks=2, nics=2))
