"""libvirt's answer for one VM to the record's fields: pure, table-driven, and distrustful.

The table comes from the catalogue. Devices are keyed by the name libvirt gives them, never by their index, which changes between
samples. What libvirt did not say stays absent; what can't be true counts as not said; what the catalogue does not know is counted
and skipped, because new versions of libvirt bring new fields.

On a KVM host libvirt reports some 400 fields of a VM with eight vCPUs, of which 80 are wanted. The fields of an answer, their *shape*, are
nearly always those of an answer before. So what is wanted of a shape is worked out once and remembered, and the other fields cost no step
of the interpreter.

To find an answer's shape takes a walk over all its fields, which of a VM with 64 vCPUs are 3000 and cost more than the 300 that are wanted.
So a VM's fields are walked over in one of ``WALK_ROUNDS`` rounds. In the others its answer has the shape that it had before, unless it
has another number of fields, or lacks one that is wanted.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, NamedTuple

from msgspec import Struct

from virtflow.schemas.catalogue.metrics import IGNORED_FIELDS, of_libvirt
from virtflow.schemas.catalogue.types import LONG_MAX, SCOPE_OF_PREFIX, Scope
from virtflow.schemas.fields import BlockSample, KvmSample, NetworkSample, VcpuSample
from virtflow.schemas.records import NAN, GuestSample, VmInventory, VmSnapshot
from virtflow.schemas.states import SHUT_OFF
from virtflow.schemas.text import printable

INDEX_DIGITS: Final = 9
CACHED_KEYS: Final = 65_536
"""Keys whose parse is remembered; a host with more devices than that parses the rest again each time."""
CACHED_SHAPES: Final = 1_024
"""Shapes that are remembered, some 1.5 KiB each with a few vCPUs, 15 KiB with 64 and the group kvm; beyond that many all are forgotten and learned again."""
WALK_ROUNDS: Final = 10
"""Rounds of which one walks over all fields of a VM. For so many, new fields in the place of as many that are not wanted are not noticed."""
CACHED_VMS: Final = 16_384
"""VMs whose last shape is remembered, some 250 bytes each; beyond that many all are forgotten, and their next answers walked over."""


class Reading(Struct, frozen=True, gc=False):
    """What libvirt said of one VM in one round, under libvirt's own keys.

    ``monitor_collected`` is the start (Unix seconds) of the call that brought the monitor groups, NaN when none did.
    """

    uuid: str
    name: str
    data: dict[str, object]
    monitor_collected: float = NAN


class _Kind:
    """What a key of libvirt's is to us: an index into the groups below, or one of the two that have none."""

    VM, VCPU, NETWORK, BLOCK, KVM, IGNORED, UNKNOWN = range(7)


class _Slot(NamedTuple):
    kind: int
    number: int
    attribute: str


class _Shape(NamedTuple):
    """What is made of an answer with these keys: the values to ``pick``, the slot of each, and how many keys are not known."""

    pick: Callable[[dict[str, object]], tuple[object, ...]]
    slots: tuple[_Slot, ...]
    unknown_fields: int


_ShapeKey = tuple[int, bool]
"""A hash of all keys of an answer, and whether KVM's own statistics are wanted of it."""


class _Recent:
    """Which shape a VM's last answers had, and in how many rounds to come it is taken without a walk over all fields.

    The shape itself is in ``_shapes`` alone, whose size is bounded: of VMs that have gone nothing large is kept.
    """

    __slots__ = ("rounds", "shape")

    def __init__(self, shape: _ShapeKey, rounds: int) -> None:
        """In so many."""
        self.shape = shape
        self.rounds = rounds


@dataclass(slots=True)
class Tally:
    """What was skipped, counted since the producer started: drops by reason, and fields the catalogue does not know.

    ``recent`` is what one round remembers for the next ones: which shape each VM had last, by UUID, number of fields, and whether KVM's are wanted.
    """

    unknown_fields: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    recent: dict[tuple[str, int, bool], _Recent] = field(default_factory=dict, repr=False, compare=False)


_KIND_OF_SCOPE: Final = {
    Scope.VM: _Kind.VM,
    Scope.VCPU: _Kind.VCPU,
    Scope.NETWORK: _Kind.NETWORK,
    Scope.BLOCK: _Kind.BLOCK,
    Scope.KVM: _Kind.KVM,
}
_NAME: Final = "name"
_TABLE: Final = {source.field: _Slot(_KIND_OF_SCOPE[scope], -1, source.attribute) for scope in Scope for _, source in of_libvirt(scope)} | {
    f"{prefix}.N.name": _Slot(_KIND_OF_SCOPE[scope], -1, _NAME) for prefix, scope in SCOPE_OF_PREFIX.items() if scope is not Scope.VCPU
}
_IGNORED: Final = re.compile("|".join(re.escape(name).replace(r"\*", ".+") for name in IGNORED_FIELDS))

_Fields = dict[str, Any]
"""A record's fields on their way into it; checked one by one, because what libvirt says has no type."""

_CPU: Final = tuple(source.attribute for _, source in of_libvirt(Scope.VM) if source.field.startswith("cpu."))

_Devices = defaultdict[int, _Fields]
"""The devices of one kind by libvirt's index."""

_slots: dict[str, _Slot] = {}
_shapes: dict[_ShapeKey, _Shape] = {}


def vm_snapshot(
    reading: Reading, tally: Tally, inventory: VmInventory | None = None, guest: GuestSample | None = None, *, kvm: bool = False
) -> VmSnapshot:
    """The VM's record of this round, in libvirt's own units, with what the guest said; what had to be left out is added to ``tally``.

    ``kvm`` says whether KVM's own statistics of the vCPUs are wanted.
    """
    fields: _Fields = {}
    groups: tuple[_Devices, ...] = (defaultdict(dict), defaultdict(dict), defaultdict(dict), defaultdict(dict), defaultdict(dict))
    shape, values = _picked(reading, tally, kvm=kvm)
    tally.unknown_fields += shape.unknown_fields
    # Some eighty values of each VM pass here in each round: one check and one assignment for each.
    for (kind, number, attribute), value in zip(shape.slots, values, strict=False):
        if (type(value) is int and 0 <= value <= LONG_MAX) or attribute is _NAME:
            if kind:
                groups[kind][number][attribute] = value
            else:
                fields[attribute] = value
        else:
            tally.drops["out_of_range"] += 1
    _leave_out_untrue(fields)
    return VmSnapshot(
        uuid=reading.uuid,
        name=printable(reading.name),
        monitor_collected=reading.monitor_collected,
        vcpus=[VcpuSample(number=number, **groups[_Kind.VCPU][number]) for number in sorted(groups[_Kind.VCPU])],
        networks=[NetworkSample(**device) for device in _named(groups[_Kind.NETWORK], tally)],
        blocks=[BlockSample(**device) for device in _named(groups[_Kind.BLOCK], tally)],
        inventory=[] if inventory is None else [inventory],
        guest=[] if guest is None else [guest],
        kvm=[KvmSample(number=number, **device) for number, device in sorted(groups[_Kind.KVM].items())] if kvm else [],
        **fields,
    )


def device_names(snapshot: VmSnapshot) -> tuple[str, ...]:
    """The names of the VM's devices: when they change, its XML has changed."""
    return (*(b.name for b in snapshot.blocks), "", *(n.name for n in snapshot.networks))


def _leave_out_untrue(fields: _Fields) -> None:
    """Leaves out numbers that are none: CPU times of a VM that is shut off are not the VM's (measured on 9.0), update 0 means never."""
    if fields.get("state_state") == SHUT_OFF:
        for attribute in _CPU:
            fields.pop(attribute, None)
    if fields.get("balloon_last_update") == 0:
        del fields["balloon_last_update"]


def _named(devices: Mapping[int, _Fields], tally: Tally) -> list[_Fields]:
    """The devices that have a name, each name once: with a backing chain its layers repeat it, the first being the guest's view."""
    found: dict[str, _Fields] = {}
    for number in sorted(devices):
        device = devices[number]
        name = device.get(_NAME)
        if not isinstance(name, str) or not name:
            tally.drops["unnamed_device"] += 1
            continue
        shown = device[_NAME] = printable(name)
        found.setdefault(shown, device)
    return list(found.values())


def _picked(reading: Reading, tally: Tally, *, kvm: bool) -> tuple[_Shape, tuple[object, ...]]:
    """The shape of an answer and its values that are wanted: without a look at the other fields, in all but one of ``WALK_ROUNDS`` rounds."""
    data, recent = reading.data, tally.recent
    known = reading.uuid, len(data), kvm
    last = recent.get(known)
    if last is not None and last.rounds and (shape := _shapes.get(last.shape)) is not None:
        with suppress(KeyError):  # a wanted field is gone, and another one has come
            values = shape.pick(data)
            last.rounds -= 1
            return shape, values
    if len(recent) >= CACHED_VMS:
        recent.clear()
    keys = tuple(data)
    key = hash(keys), kvm
    shape = _shapes.get(key) or _learn_shape(keys, key)
    recent[known] = _Recent(key, WALK_ROUNDS - 1)
    return shape, shape.pick(data)


def _learn_shape(keys: tuple[str, ...], known: _ShapeKey) -> _Shape:
    """What is wanted of an answer, by its keys and their order.

    Known by a hash of all keys, which is 64 bits wide and seeded at random: two shapes of one hash don't occur, and comparing the keys
    one by one would cost several times as much.
    """
    last = _Kind.KVM if known[1] else _Kind.BLOCK
    slots = [(sys.intern(key), _slots.get(key) or _learn(key)) for key in keys]
    wanted = [(key, slot) for key, slot in slots if slot.kind <= last]
    unknown = sum(slot.kind == _Kind.UNKNOWN for _, slot in slots)
    shape = _Shape(_picker(tuple(key for key, _ in wanted)), tuple(slot for _, slot in wanted), unknown)
    if len(_shapes) >= CACHED_SHAPES:
        _shapes.clear()
    _shapes[known] = shape
    return shape


def _picker(keys: tuple[str, ...]) -> Callable[[dict[str, object]], tuple[object, ...]]:
    """Reads the values of the keys as a tuple, however many there are."""
    if len(keys) > 1:
        return itemgetter(*keys)
    return lambda data: tuple(data[key] for key in keys)


def _learn(key: str) -> _Slot:
    """Parses a key once: ``block.0.rd.reqs`` is attribute ``rd_reqs`` of block 0."""
    parts = key.split(".", 2)
    slot = _TABLE.get(key)
    if slot is None and len(parts) == 3 and parts[1].isdecimal() and len(parts[1]) <= INDEX_DIGITS:  # noqa: PLR2004, prefix, index, rest
        general = f"{parts[0]}.N.{parts[2]}"
        known = _TABLE.get(general)
        slot = _Slot(known.kind, int(parts[1]), known.attribute) if known else _skipped(general)
    slot = slot or _skipped(key)
    if len(_slots) < CACHED_KEYS:
        _slots[key] = slot
    return slot


def _skipped(field_name: str) -> _Slot:
    return _Slot(_Kind.IGNORED if _IGNORED.fullmatch(field_name) else _Kind.UNKNOWN, -1, "")
