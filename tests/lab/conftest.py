"""The lab's fixtures: two real hypervisors per test file, with one guest under load on the first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import lab_migration
from tests.support.lab import Guest, GuestSpec, Lab
from tests.support.lab_params import on_each_release


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests run on the releases that their file names."""
    on_each_release(metafunc)


@pytest.fixture(autouse=True)
def migrations_end() -> Iterator[None]:
    """What a test has begun ends with it, also when it fails."""
    yield
    lab_migration.end_all()


@pytest.fixture(scope="module")
def lab(release: str) -> Iterator[Lab]:
    """Two nodes without VMs."""
    with Lab(nodes=2, release=release) as lab:
        yield lab


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Guest:
    """A guest under load on the first node, with two disks and two NICs."""
    return lab.nodes[0].start_guest(GuestSpec("web-1", disks=2, nics=2))
