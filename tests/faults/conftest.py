"""What the faults of hypervisors begin with: nodes, VMs and the pipeline, made once per test file.

A file says what it needs by NODES (one), VMS (none), SETTINGS (none: more environment variables of all services),
RELEASES (the usual one).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support import lab_migration
from tests.support.criteria import Criteria
from tests.support.lab import Guest, Lab
from tests.support.lab_params import on_each_release
from tests.support.lab_pipeline import Pipeline

LONG: Final = frozenset({"test_23_bad_network.py", "test_26_release_before.py"})
"""A bad network stays bad for minutes, and what is timed by it needs a machine that does little else; the release before is in no shallow clone."""


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leaves them out without ``--long``, unless they are named on the command line; None leaves the decision to others."""
    from tests.support import long  # not above: a conftest may be imported before the option is read

    return True if collection_path.name in LONG and not long.LONG else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests run on the releases that their file names."""
    on_each_release(metafunc)


@pytest.fixture(autouse=True)
def migrations_end() -> Iterator[None]:
    """What a test has begun ends with it, also when it fails."""
    yield
    lab_migration.end_all()


@pytest.fixture
def criteria() -> Iterator[Criteria]:
    """The general criteria of every row, asserted of all services that the test starts itself: a test that names it is held to them."""
    with Criteria() as watching:
        yield watching
    assert not watching.violations()


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, release: str) -> Iterator[Lab]:
    """The file's nodes."""
    with Lab(getattr(request.module, "NODES", 1), release) as lab:
        yield lab


@pytest.fixture(scope="module")
def guests(request: pytest.FixtureRequest, lab: Lab) -> list[Guest]:
    """The file's VMs, without a system and paused, all on the first node."""
    return lab.nodes[0].load_paused(request.module.VMS)


@pytest.fixture(scope="module")
def pipeline(request: pytest.FixtureRequest, lab: Lab, guests: list[Guest], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The whole pipeline, once it shows all VMs."""
    with Pipeline(lab, tmp_path_factory.mktemp("pipeline"), getattr(request.module, "SETTINGS", None)) as pipeline:
        pipeline.await_scrape(lambda seen: seen.uuids() == {guest.uuid for guest in guests}, "all VMs are shown")
        yield pipeline
