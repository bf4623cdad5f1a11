"""What the producer's unit tests begin with: a host with an in-memory libvirt."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.memory_libvirt import BOOKWORM, TRIXIE
from tests.support.simulated_host import SimulatedHost
from tests.support.simulated_rounds import each_made


@pytest.fixture(params=[BOOKWORM, TRIXIE], ids=["9.0", "11.3"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SimulatedHost]]:
    """What makes the test's host, with libvirt of each release."""
    yield from each_made(SimulatedHost, monkeypatch, request.param)
