"""What the doctor says of guests whose data are missing."""

from __future__ import annotations

import pytest

from virtflow.cli.checks.doctor_agents import findings
from virtflow.producer.agent.ipc import Command
from virtflow.producer.agent.poll_cycle import Vm
from virtflow.producer.records.guest_devices import Look
from virtflow.runtime.settings import Guest
from virtflow.schemas.guest import GuestReason

SHOWN = 20

LOOK = Look("connected", balloon=True, period_seconds=10)


def vm(**changes: object) -> Vm:
    given: dict[str, object] = {"reason": "", "look": LOOK, "running": True, "balloon_driver": True}
    return Vm("u-1", "web-1", due=0.0, **(given | changes))  # type: ignore[arg-type]  # fields of different types


def wrong(*vms: Vm, problem: str = "") -> list[str]:
    return [f"{one.thing} {one.value}: {one.detail}; {one.fix}" for one in findings(vms, problem, Guest(enabled=True)) if not one.ok]


def test_a_guest_that_tells_everything() -> None:
    """Nothing is wrong, and one that does not run has nothing to tell."""
    assert wrong(vm(), vm(reason=GuestReason.NOT_RUNNING, running=False)) == []
    assert [one.value for one in findings([vm(), vm(reason=GuestReason.TIMEOUT)], "", Guest()) if one.ok] == ["1 of 2"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reason": GuestReason.NO_CHANNEL}, "no channel"),
        ({"reason": GuestReason.DISCONNECTED}, "systemctl enable --now qemu-guest-agent"),
        ({"reason": GuestReason.TIMEOUT}, "does not answer in time"),
        ({"reason": GuestReason.BLOCKED}, "qemu-ga.conf"),
        ({"blocked": {Command.FILESYSTEMS, Command.CPUS}}, "does not know or allow: cpus, filesystems"),
        ({"reason": GuestReason.MALFORMED}, "can't be understood"),
        ({"look": Look("connected")}, "it has no balloon"),
        ({"balloon_driver": False}, "no driver for its balloon"),
    ],
)
def test_each_reason_has_its_words_and_its_fix(changes: dict[str, object], words: str) -> None:
    """For the VM by name."""
    (told,) = wrong(vm(**changes))
    assert told.startswith("guest web-1: ")
    assert words in told


def test_every_reason_has_words_of_its_own() -> None:
    """None is shown as the bare word."""
    for reason in set(GuestReason) - {GuestReason.NOT_RUNNING}:
        (told,) = wrong(vm(reason=reason))
        assert f": {reason.value};" not in told


def test_many_are_counted_and_a_process_that_can_not_begin_is_all_there_is() -> None:
    """So that the answer fits on a screen."""
    assert len(wrong(*[vm(reason=GuestReason.TIMEOUT)] * 50)) == SHOWN + 1
    assert wrong(vm(), problem="Permission denied")[0].startswith("guest agents process: Permission denied")
