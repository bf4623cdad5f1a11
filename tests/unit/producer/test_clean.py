"""libvirt's answers and their traps, as tables: what is absent stays absent, what can't be true is left out, devices go by name."""

from __future__ import annotations

import gc
import math
from typing import Any

import msgspec
import pytest

from tests.support.kvm_host import VCPU_FLAGS, VCPU_SUMS, answer
from virtflow.producer.records import vm_snapshot as module
from virtflow.producer.records.vm_snapshot import Reading, Tally, device_names, vm_snapshot
from virtflow.schemas.catalogue.metrics import IGNORED_FIELDS, of_libvirt
from virtflow.schemas.catalogue.types import Scope
from virtflow.schemas.records import VmSnapshot
from virtflow.schemas.text import printable

LONG_MAX = 2**63 - 1

UUID = "96d39f50-15c8-409f-9a7f-d2f9b5cba981"


def cleaned(data: dict[str, object], name: str = "web-1", *, kvm: bool = False) -> tuple[VmSnapshot, Tally]:
    tally = Tally()
    return vm_snapshot(Reading(UUID, name, data), tally, kvm=kvm), tally


@pytest.mark.parametrize(("scope", "field"), [(scope, source.field) for scope in Scope for _, source in of_libvirt(scope)])
def test_every_field_of_the_catalogue_arrives_under_its_name(scope: Scope, field: str) -> None:
    """A row of the catalogue needs nothing more to be sampled."""
    attribute = next(source.attribute for _, source in of_libvirt(scope) if source.field == field)
    prefix = field.split(".", maxsplit=1)[0]
    named: dict[str, object] = {f"{prefix}.12.name": "dev"} if scope in {Scope.NETWORK, Scope.BLOCK} else {}
    vm, tally = cleaned({**named, field.replace("N", "12"): 7}, kvm=True)
    holders: dict[Scope, list[Any]] = {
        Scope.VM: [vm],
        Scope.VCPU: vm.vcpus,
        Scope.NETWORK: vm.networks,
        Scope.BLOCK: vm.blocks,
        Scope.KVM: vm.kvm,
    }
    assert [getattr(record, attribute) for record in holders[scope]] == [7]
    assert tally == Tally()


def test_nothing_said_is_absent_and_never_zero() -> None:
    vm, tally = cleaned({})
    numbers = {name: getattr(vm, name) for name in vm.__struct_fields__ if isinstance(getattr(vm, name), int)}
    assert set(numbers.values()) == {-1}
    assert math.isnan(vm.monitor_collected)
    assert tally == Tally()


@pytest.mark.parametrize("value", [-1, LONG_MAX + 1, 2**64 - 1, 1.5, "7", None, True, [1], math.nan])
def test_a_value_that_can_not_be_costs_that_field_and_is_counted(value: object) -> None:
    vm, tally = cleaned({"cpu.time": value, "cpu.user": 5})
    assert (vm.cpu_time, vm.cpu_user) == (-1, 5)
    assert tally.drops == {"out_of_range": 1}


def test_zero_and_the_largest_value_are_values() -> None:
    vm, _ = cleaned({"cpu.time": LONG_MAX, "cpu.user": 0})
    assert (vm.cpu_time, vm.cpu_user) == (LONG_MAX, 0)


@pytest.mark.parametrize("field", [field.replace("N", "3").replace("*", "any.thing") for field in IGNORED_FIELDS])
def test_known_fields_that_are_no_metric_are_passed_by_uncounted(field: str) -> None:
    _, tally = cleaned({field: 1})
    assert tally == Tally()


@pytest.mark.parametrize(
    "key",
    [
        "cpu.future",
        "block.0.rd.future",
        "net.x.rx.bytes",
        "vcpu.-1.time",
        "block.1234567890.rd.reqs",
        "vcpu.99999999999999999999.time",
        "",
        ".",
        "..",
        "block",
        "block.0",
        "block.0.",
        "vcpu..time",
        "vcpu.0..sum",
        "vcpu.0.exits",
        "vcpu.0.exits.avg",
        "vcpu.x.exits.sum",
        "vcpuX0.exits.sum",
        "iothread",
    ],
)
def test_unknown_fields_are_counted_and_cost_nothing(key: str) -> None:
    vm, tally = cleaned({key: 1, "cpu.time": 2})
    assert (vm.cpu_time, tally.unknown_fields, vm.blocks, vm.vcpus) == (2, 1, [], [])


def test_the_parse_of_a_key_is_remembered_with_its_index() -> None:
    """Two indices of one field are two devices, also the second time."""
    data: dict[str, object] = {"block.0.name": "vda", "block.0.rd.reqs": 1, "block.10.name": "vdb", "block.10.rd.reqs": 2}
    for _ in range(2):
        vm, _ = cleaned(data)
        assert [(block.name, block.rd_reqs) for block in vm.blocks] == [("vda", 1), ("vdb", 2)]


DEVICES: list[tuple[str, dict[str, object], list[tuple[object, int]]]] = [
    ("indices swap between samples", {"block.1.name": "vda", "block.1.rd.reqs": 5, "block.0.name": "vdb"}, [("vdb", -1), ("vda", 5)]),
    ("count is an upper bound", {"net.count": 2, "net.1.name": "vnet1", "net.1.rx.bytes": 3}, [("vnet1", 3)]),
    ("three digits", {"block.count": 1, "block.123.name": "sdzz", "block.123.rd.reqs": 1}, [("sdzz", 1)]),
    (
        "a backing chain repeats the name: the first is the guest's view",
        {"block.0.name": "vda", "block.0.rd.reqs": 9, "block.1.name": "vda", "block.1.rd.reqs": 1, "block.1.backingIndex": 2},
        [("vda", 9)],
    ),
    ("one field missing costs only itself", {"block.0.name": "sr0", "block.0.rd.reqs": 0}, [("sr0", 0)]),
    ("user-mode NICs have no name", {"net.0.rx.bytes": 5, "net.1.name": "vnet0", "net.1.rx.bytes": 6}, [("vnet0", 6)]),
    ("an empty name is none", {"block.0.name": "", "block.0.rd.reqs": 5}, []),
    ("a name that is no text is none", {"block.0.name": 5, "block.0.rd.reqs": 5}, []),
]


@pytest.mark.parametrize(("data", "expected"), [case[1:] for case in DEVICES], ids=[case[0] for case in DEVICES])
def test_devices_go_by_their_name(data: dict[str, object], expected: list[tuple[object, int]]) -> None:
    vm, _ = cleaned(data)
    found = [(block.name, block.rd_reqs) for block in vm.blocks] + [(nic.name, nic.rx_bytes) for nic in vm.networks]
    assert found == expected


def test_a_device_without_a_name_is_counted() -> None:
    _, tally = cleaned({"net.0.rx.bytes": 5, "block.0.rd.reqs": 1})
    assert tally.drops == {"unnamed_device": 2}


def test_vcpus_keep_their_numbers_over_holes() -> None:
    vm, _ = cleaned({"vcpu.current": 2, "vcpu.maximum": 12, "vcpu.0.time": 1, "vcpu.11.time": 2, "vcpu.11.state": 1})
    assert [(vcpu.number, vcpu.time, vcpu.state) for vcpu in vm.vcpus] == [(0, 1, -1), (11, 2, 1)]
    assert (vm.vcpu_current, vm.vcpu_maximum) == (2, 12)


@pytest.mark.parametrize(("state", "cpu_time"), [(1, 5), (3, 5), (4, 5), (5, -1), (6, 5), (99, 5)])
def test_a_vm_that_is_shut_off_reports_no_cpu_time(state: int, cpu_time: int) -> None:
    vm, _ = cleaned({"state.state": state, "cpu.time": 5, "cpu.user": 5, "cpu.system": 5, "balloon.current": 7})
    assert (vm.cpu_time, vm.state_state, vm.balloon_current) == (cpu_time, state, 7)


def test_the_balloons_last_update_0_means_never() -> None:
    """The guest's driver has told nothing yet: no time, and no value that can't be."""
    vm, tally = cleaned({"balloon.last-update": 0, "balloon.current": 0})
    assert (vm.balloon_last_update, vm.balloon_current, tally) == (-1, 0, Tally())
    assert cleaned({"balloon.last-update": 1})[0].balloon_last_update == 1


@pytest.mark.parametrize("later", [False, True], ids=["libvirt 9.0", "libvirt 12.4, all groups"])
def test_a_kvm_host_reports_nothing_unknown(later: bool) -> None:  # noqa: FBT001, a parameter
    """Whatever KVM counts, and whichever of libvirt's versions tells it."""
    data = answer(8, later=later)
    assert len(VCPU_SUMS) + len(VCPU_FLAGS) == 43
    assert sum(key.startswith("vcpu.0.") for key in data) == 4 + 43
    vm, tally = cleaned(data)
    assert tally == Tally()
    assert (vm.cpu_haltpoll_success_time, vm.cpu_haltpoll_fail_time) == (7_250_000_000, 1_500_000_000)
    assert vm.kvm == []


def test_kvms_own_statistics_are_carried_on_request() -> None:
    vm, tally = cleaned(answer(2), kvm=True)
    assert tally == Tally()
    assert [one.number for one in vm.kvm] == [0, 1]
    data = answer(2)
    assert vm.kvm[1].exits_sum == data["vcpu.1.exits.sum"]
    assert vm.kvm[1].preemption_other_sum == data["vcpu.1.preemption_other.sum"]
    plain, _ = cleaned(answer(2))
    assert msgspec.structs.replace(vm, kvm=[]) == plain


def test_the_shape_of_an_answer_is_all_of_its_keys() -> None:
    """Answers with as many keys, and those with the same keys in another order, are each read as what they are."""
    one: dict[str, object] = {"cpu.time": 1, "cpu.user": 2, "block.0.path": 3}
    other: dict[str, object] = {"cpu.time": 4, "cpu.user": 5, "cpu.system": 6}
    for _ in range(2):
        assert cleaned(one)[0].cpu_system == -1
        assert cleaned(other)[0].cpu_system == 6
        assert cleaned(dict(reversed(other.items())))[0].cpu_system == 6
        assert cleaned({"cpu.future": 1, "cpu.user": 2})[1].unknown_fields == 1


def test_an_answer_is_read_as_what_it_is_between_two_walks() -> None:
    """A field that is new, gone, or in the place of a wanted one is noticed at once."""
    tally = Tally()

    def read(data: dict[str, object]) -> tuple[int, int, int]:
        before = tally.unknown_fields
        vm = vm_snapshot(Reading(UUID, "web-1", data), tally)
        return vm.cpu_time, vm.cpu_user, tally.unknown_fields - before

    one: dict[str, object] = {"cpu.time": 1, "vm.pages.cur": 3}
    assert [read(one), read(one)] == [(1, -1, 0)] * 2
    assert read(one | {"cpu.user": 2}) == (1, 2, 0)
    assert read(one | {"cpu.future": 2}) == (1, -1, 1)
    assert read({"cpu.user": 2, "cpu.future": 3}) == (-1, 2, 1)
    assert read({"cpu.time": 4, "cpu.future": 3}) == (4, -1, 1)
    assert read({"cpu.time": 4}) == (4, -1, 0)


def test_an_unknown_field_in_the_place_of_an_unwanted_one_is_counted_within_ten_rounds() -> None:
    """Between two walks over all fields nothing tells the two answers apart. Once known, it counts in every round."""
    tally, counted = Tally(), list[int]()
    vm_snapshot(Reading(UUID, "web-1", {"cpu.time": 1, "vm.pages.cur": 3}), tally)
    for _ in range(12):
        vm_snapshot(Reading(UUID, "web-1", {"cpu.time": 1, "vm": 3}), tally)
        counted.append(tally.unknown_fields)
    assert counted == [0] * 9 + [1, 2, 3]


def test_each_vm_has_a_shape_of_its_own() -> None:
    """And another VM's answer with as many fields is walked over by itself."""
    tally = Tally()
    vm_snapshot(Reading(UUID, "web-1", {"cpu.time": 1, "vm.pages.cur": 3}), tally)
    vm_snapshot(Reading("another", "web-2", {"cpu.time": 1, "cpu.user": 2, "vm.pages.cur": 3}), tally)
    assert vm_snapshot(Reading("a third", "web-3", {"cpu.time": 1, "cpu.user": 5}), tally).cpu_user == 5
    assert vm_snapshot(Reading(UUID, "web-1", {"cpu.time": 1, "vm.pages.cur": 3}), tally).cpu_user == -1
    assert tally.unknown_fields == 0


def test_the_shapes_of_few_vms_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """VMs that come and go take no memory without end."""
    monkeypatch.setattr(module, "CACHED_VMS", 4)
    tally = Tally()
    for number in range(20):
        assert vm_snapshot(Reading(str(number), "vm", {"cpu.time": number}), tally).cpu_time == number
        assert 1 <= len(tally.recent) <= 4


def test_what_is_remembered_of_vms_keeps_no_shape_that_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """VMs of many shapes that come and go take no memory without end either."""
    monkeypatch.setattr(module, "CACHED_SHAPES", 4)
    monkeypatch.setattr(module, "_shapes", shapes := dict[object, object]())
    tally = Tally()
    before = {id(one) for one in gc.get_objects() if isinstance(one, module._Shape)}
    for number in range(20):
        data: dict[str, object] = {"cpu.time": number, f"vcpu.{number}.time": 3}
        for _ in range(2):
            assert [vcpu.number for vcpu in vm_snapshot(Reading(str(number), "vm", data), tally).vcpus] == [number]
    kept = [one for one in gc.get_objects() if isinstance(one, module._Shape) and id(one) not in before]
    assert len(tally.recent) == 20
    assert 1 <= len(kept) == len(shapes) <= 4
    assert vm_snapshot(Reading("0", "vm", {"cpu.time": 7, "vcpu.0.time": 8}), tally).vcpus[0].time == 8


def test_few_shapes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields that come and go at random take no memory without end."""
    monkeypatch.setattr(module, "CACHED_SHAPES", 4)
    monkeypatch.setattr(module, "_shapes", {})
    for number in range(20):
        assert cleaned({f"vcpu.{number}.time": number})[0].vcpus[0].time == number
        assert len(module._shapes) <= 4


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("web-1", "web-1"),
        ("tab\there", "tab\ufffdhere"),
        ("line\u0085end", "line\ufffdend"),
        ("right\u202eleft", "right\ufffdleft"),
        ("lone\ud800surrogate", "lone\ufffdsurrogate"),
        ('quote" back\\slash {brace} %s', 'quote" back\\slash {brace} %s'),
        ("-leading", "-leading"),
        ("96d39f50-15c8-409f-9a7f-d2f9b5cba981", "96d39f50-15c8-409f-9a7f-d2f9b5cba981"),
        ("ünïcödé 机", "ünïcödé 机"),
        ("no-break\u00a0 and ideographic\u3000space", "no-break\u00a0 and ideographic\u3000space"),
        ("\U0001f469\u200d\U0001f4bb", "\U0001f469\u200d\U0001f4bb"),
        ("x" * 300, "x" * 256),
        ("\u202e" * 4_000_000, "\ufffd" * 256),
    ],
)
def test_names_become_printable(name: str, shown: str) -> None:
    vm, _ = cleaned({}, name)
    assert vm.name == shown == printable(name)
    assert vm.name.encode()


def test_device_names_tell_disks_from_nics() -> None:
    one, _ = cleaned({"block.0.name": "a"})
    other, _ = cleaned({"net.0.name": "a"})
    assert device_names(one) != device_names(other)
