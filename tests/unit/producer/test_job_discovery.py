"""Which VMs are asked for a job that no event announces."""

from __future__ import annotations

from uuid import UUID

import pytest

from virtflow.producer.hung_calls.job_discovery import JobDiscovery
from virtflow.producer.types import Vm
from virtflow.schemas.states import BLOCKED, PAUSED, RUNNING, SHUT_OFF


def vm(number: int, state: int = RUNNING) -> Vm:
    return Vm(str(UUID(int=number * 0x9E3779B97F4A7C15)), f"vm-{number}", {"state.state": state})


@pytest.mark.parametrize(("every", "interval", "rounds"), [(30.0, 10.0, 3), (30.0, 7.0, 4), (5.0, 10.0, 1), (10.0, 10.0, 1)])
def test_each_running_vm_is_asked_once_within_the_time(every: float, interval: float, rounds: int) -> None:
    """Again and again, and never all in one round where there are several."""
    vms = [vm(number) for number in range(200)]
    discovery = JobDiscovery(every, interval)
    for _ in range(2):
        asked = [discovery.next_round(vms) for _ in range(rounds)]
        assert sorted(uuid for share in asked for uuid in share) == sorted(one.uuid for one in vms)
        assert max(map(len, asked)) < 2 * len(vms) / rounds + 1


def test_a_vm_that_does_not_run_is_not_asked() -> None:
    """It has no job that copies its disks, or its own events announce it."""
    vms = [vm(1), vm(2, BLOCKED), vm(3, PAUSED), vm(4, SHUT_OFF), Vm("x", "x", {})]
    assert JobDiscovery(1.0, 1.0).next_round(vms) == [vms[0].uuid, vms[1].uuid]


def test_nobody_is_asked_where_it_is_off() -> None:
    assert not [uuid for discovery in [JobDiscovery(0.0, 1.0)] for _ in range(3) for uuid in discovery.next_round([vm(1)])]
