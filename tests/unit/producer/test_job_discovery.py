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
        asked = [discovery.next_round(vms, None, 0.0) for _ in range(rounds)]
        assert sorted(uuid for share in asked for uuid in share) == sorted(one.uuid for one in vms)
        assert max(map(len, asked)) < 2 * len(vms) / rounds + 1


def test_a_vm_that_does_not_run_is_not_asked() -> None:
    """It has no job that copies its disks, or its own events announce it."""
    vms = [vm(1), vm(2, BLOCKED), vm(3, PAUSED), vm(4, SHUT_OFF), Vm("x", "x", {})]
    assert JobDiscovery(1.0, 1.0).next_round(vms, None, 0.0) == [vms[0].uuid, vms[1].uuid]


def test_nobody_is_asked_where_it_is_off() -> None:
    assert not [
        uuid
        for discovery in [JobDiscovery(0.0, 1.0)]
        for saved in (None, {"vm-1": 1.0}, {"vm-1": 2.0})
        for uuid in discovery.next_round([vm(1)], saved, 0.0)
    ]


def test_a_vm_is_asked_when_its_status_was_saved_and_no_other_time() -> None:
    vms, discovery = [vm(1), vm(2)], JobDiscovery(1.0, 1.0)
    saved = {"vm-1": 100.0, "vm-2": 100.0}
    assert discovery.next_round(vms, saved, 110.0) == [vms[0].uuid, vms[1].uuid], "what began before is not known"
    assert discovery.next_round(vms, saved, 120.0) == []
    assert discovery.next_round(vms, saved | {"vm-2": 121.0}, 130.0) == [vms[1].uuid]
    assert discovery.next_round(vms, saved | {"vm-2": 121.0}, 140.0) == []


def test_a_status_that_has_just_been_saved_is_looked_at_twice() -> None:
    """Its job may be there a moment later."""
    vms, discovery = [vm(1)], JobDiscovery(1.0, 10.0)
    assert [bool(discovery.next_round(vms, {"vm-1": 99.5}, at)) for at in (100.0, 110.0, 120.0)] == [True, True, False]
    assert [bool(discovery.next_round(vms, {"vm-1": 129.01}, at)) for at in (130.0, 140.0, 150.0)] == [True, True, False]
    assert [bool(discovery.next_round(vms, {"vm-1": 159.0}, at)) for at in (160.0, 170.0)] == [True, False], "a second is long enough"
    assert [bool(discovery.next_round(vms, {"vm-1": 500.0}, at)) for at in (180.0, 190.0)] == [True, False], "by a clock that was set back"


def test_a_vm_without_a_file_has_its_turn() -> None:
    vms, discovery = [vm(1), vm(2)], JobDiscovery(1.0, 1.0)
    asked = [discovery.next_round(vms, {"vm-1": 100.0}, 200.0) for _ in range(2)]
    assert asked == [[vms[0].uuid, vms[1].uuid], [vms[1].uuid]]
