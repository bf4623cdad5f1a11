"""When XML is read: changes at once, the rest spread over time."""

from __future__ import annotations

import itertools
import random

from virtflow.producer.records.inventory_cache import Inventories, per_round
from virtflow.producer.types import Vm

VMS = {str(number): Vm(str(number), "a", {}) for number in range(100)}


def schedule() -> Inventories:
    found = Inventories(300.0, random.Random(1))  # noqa: S311, jitter
    for uuid in found.due(VMS, 0.0):
        found.described(uuid, "a", "<domain/>", 0.0)
    return found


def test_new_vms_are_due_at_once_and_not_again() -> None:
    assert len(Inventories(300.0).due(VMS, 0.0)) == 100
    assert schedule().due(VMS, 0.1) == []


def test_unchanged_vms_are_read_in_time_but_not_all_at_once() -> None:
    found = schedule()
    at = [len(found.due(VMS, second)) for second in range(0, 301, 10)]
    assert at[-1] == 100
    assert max(later - earlier for earlier, later in itertools.pairwise(at)) < 30


def test_a_change_makes_due() -> None:
    found = schedule()
    found.changed("5")
    found.devices("6", ("vda", ""))
    found.devices("6", ("vda", "", "vnet0"))
    found.devices("7", ("vda", ""))
    found.devices("7", ("vda", ""))
    assert sorted(found.due(VMS, 1.0)) == ["5", "6"]
    found.all_changed()
    assert len(found.due(VMS, 1.0)) == 100


def test_an_xml_that_can_not_be_read_is_counted_and_tried_again_later() -> None:
    found = schedule()
    assert found.described("1", "a", "<", 0.0) is None
    assert found.drops == {"indescribable_vm": 1}
    assert found.due(VMS, 1.0) == []


def test_vms_that_are_gone_are_forgotten() -> None:
    found = schedule()
    found.due({}, 0.0)
    found.changed("5")
    assert len(found.due(VMS, 1.0)) == 100


def test_a_round_reads_a_share() -> None:
    assert per_round(10, 10, 300) == 16
    assert per_round(3000, 10, 300) == 400
