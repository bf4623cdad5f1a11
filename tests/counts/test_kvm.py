"""Fields that a KVM host reports and nobody wants cost next to nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from tests.support.kvm_host import answer
from tests.support.torn import by_instruction
from virtflow.producer.records.vm_snapshot import WALK_ROUNDS, Reading, Tally, vm_snapshot
from virtflow.schemas.records import VmSnapshot

ALLOWED = 1.2
LOOK_STEPS = 3
"""Instructions of the interpreter that take as long as one field in a walk by code in C: 4 ns and 12 ns, measured on CPython 3.11."""
UUID = "5f0b4a6e-0f57-4d0c-9a43-6d0f6f2a8b01"
VCPUS = pytest.mark.parametrize("vcpus", [1, 2, 8, 64])
LATER = pytest.mark.parametrize("later", [False, True], ids=["libvirt 9.0", "libvirt 12.4, all groups"])


class Answer(dict[str, object]):
    """An answer of libvirt's that counts how many of its fields are looked at, by name or in a walk over all of them."""

    looks = 0

    def __getitem__(self, key: str) -> object:
        """One field."""
        self.looks += 1
        return super().__getitem__(key)

    def get(self, key: str, default: object = None) -> object:
        self.looks += 1
        return super().get(key, default)

    def __iter__(self) -> Iterator[str]:
        """A walk over all."""
        self.looks += len(self)
        return super().__iter__()

    def keys(self) -> Any:  # noqa: ANN401, a view
        self.looks += len(self)
        return super().keys()

    def values(self) -> Any:  # noqa: ANN401, a view
        self.looks += len(self)
        return super().values()

    def items(self) -> Any:  # noqa: ANN401, a view
        self.looks += len(self)
        return super().items()


def instructions(work: Callable[[], object]) -> int:
    """Instructions of the interpreter while ``work`` runs, but for those of this file."""
    count = 0

    def seen(_frame: FrameType, event: str, _argument: object) -> Any:  # noqa: ANN401, a trace function returns one
        nonlocal count
        count += event == "opcode"
        return seen

    def entered(frame: FrameType, _event: str, _argument: object) -> Any:  # noqa: ANN401, as above
        if frame.f_code.co_filename == __file__:
            return None
        by_instruction(frame, seen)
        return seen

    before = sys.gettrace()
    by_instruction(sys._getframe(), None)
    sys.settrace(entered)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def steps(data: dict[str, object]) -> tuple[int, int]:
    """Steps of cleaning one VM in ten rounds after its first one, and the most fields that one of these rounds looked at.

    A step is an instruction of the interpreter; a field that is looked at takes as long as some of them.
    """
    tally, text = Tally(), json.dumps(data)
    vm_snapshot(Reading(UUID, "kvm", json.loads(text)), tally)
    count, looks = 0, []
    for _ in range(WALK_ROUNDS):
        fields = Answer(json.loads(text))
        reading = Reading(UUID, "kvm", fields)
        count += instructions(lambda reading=reading: vm_snapshot(reading, tally))  # type: ignore[misc]
        looks.append(fields.looks)
    assert tally.unknown_fields == 0
    return count + LOOK_STEPS * sum(looks), max(looks)


@VCPUS
@LATER
def test_kvms_fields_cost_at_most_a_fifth_more(vcpus: int, later: bool) -> None:  # noqa: FBT001, a parameter
    """With them an answer has up to eight times as many fields."""
    whole, plain = answer(vcpus, later=later), answer(vcpus, kvm=False, later=False)
    assert len(whole) >= len(plain) + 42 * vcpus
    (dear, most), (cheap, _) = steps(whole), steps(plain)
    assert dear <= ALLOWED * cheap
    assert most >= len(whole)  # the round that walks over all of them is among those that were counted


@VCPUS
def test_all_fields_are_walked_over_in_one_of_ten_rounds(vcpus: int) -> None:
    """The first one, the eleventh, and so on; the others look at those that are wanted."""
    tally, data, walked = Tally(), answer(vcpus), list[int]()
    for number in range(3 * WALK_ROUNDS):
        fields = Answer(json.loads(json.dumps(data)))
        vm_snapshot(Reading(UUID, "kvm", fields), tally)
        if fields.looks >= len(fields):
            walked.append(number)
    assert walked == [0, 10, 20]


def test_with_the_group_kvm_its_values_are_there_in_each_round() -> None:
    """New ones each time, whether the fields were walked over or not."""
    tally, data = Tally(), answer(2)

    def cleaned(number: int) -> VmSnapshot:
        return vm_snapshot(Reading(UUID, "kvm", data | {"vcpu.1.exits.sum": number, "cpu.haltpoll.fail.time": number}), tally, kvm=True)

    found = [cleaned(number) for number in range(2 * WALK_ROUNDS)]
    assert [[vcpu.number for vcpu in vm.kvm] for vm in found] == [[0, 1]] * 20
    assert [vm.kvm[1].exits_sum for vm in found] == list(range(20))
    assert [vm.cpu_haltpoll_fail_time for vm in found] == list(range(20))
