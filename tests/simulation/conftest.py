"""What holds for simulated worlds: one CPU for each test process."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.schedule import number_of


@pytest.fixture(scope="module", autouse=True)
def _one_cpu() -> Iterator[None]:
    """One thread of a world runs at a time: handing on between two CPUs costs more than the work in between."""
    before = os.sched_getaffinity(0)
    cpus = sorted(before)
    os.sched_setaffinity(0, {cpus[number_of(os.environ.get("PYTEST_XDIST_WORKER", "gw0")) % len(cpus)]})
    yield
    os.sched_setaffinity(0, before)
