"""A daemon that takes longer to list its VMs than a round lasts, each time: its VMs come less often, and do not stay away."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from tests.support.simulated_host import SimulatedHost, statistics_wait

Make = Callable[..., SimulatedHost]
VMS = 8
INTERVAL = 2.0
ROUNDS = 30
MOST_DARK = 3
"""Rounds in a row: as many as the list takes, and the one in which it began."""


@pytest.mark.parametrize("seconds", [1.9, 3.0, 5.0])
def test_its_vms_are_listed_again_and_again(make: Make, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    statistics_wait(monkeypatch, lambda _vm, _groups: seconds / VMS)
    host = make(vms=VMS).start(interval=INTERVAL)
    found = host.rounds(ROUNDS)
    dark = [len(list(run)) for up, run in itertools.groupby(one.up for one in found) if not up]
    assert max(dark) <= MOST_DARK
    assert {len(one.readings) for one in found if one.up} == {VMS}
    times = [one.collected for one in found]
    assert times == sorted(set(times))
