"""A VM that is stuck is destroyed, as its operator does, and started again: from then on it is a VM as any other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.simulated_host import SimulatedHost
from tests.support.simulated_rounds import flagged, whole

Make = Callable[..., SimulatedHost]
STUCK, ANOTHER = 2, 5
"""Of eight VMs."""


@pytest.mark.parametrize("processes", [True, False], ids=["process table", "none"])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside another stuck one"])
def test_it_is_skipped_no_longer(make: Make, processes: bool, alone: bool) -> None:  # noqa: FBT001, parameters
    """However long it was stuck, and so however long the pause between two probes of it is."""
    host = make(processes=processes).start()
    host.rounds(3)
    others = set() if alone else {host.uuids[ANOTHER]}
    host.daemon.freeze(host.uuids[STUCK], *others)
    assert host.rounds(12)[-1].hung_calls.vms_skipped == 1 + len(others)
    host.daemon.destroy(host.uuids[STUCK])
    found = host.rounds(3)
    assert [one.hung_calls.vms_skipped for one in found[1:]] == [len(others)] * 2
    assert all(flagged(one) == others for one in found)
    host.daemon.start(host.uuids[STUCK])
    assert whole(host.round()) == set(host.uuids) - others
