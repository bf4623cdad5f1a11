"""libvirt's answer for one VM to the record's fields: pure, table-driven, and distrustful.

The table comes from the catalogue. Devices are keyed by the name libvirt gives them, never by their index, which changes between
samples. What libvirt did not say stays absent; what can't be true counts as not said; what the catalogue does not know is counted
and passed by, because new versions of libvirt bring new fields.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from msgspec import Struct

from virtflow.schemas.catalogue.metrics import IGNORED_FIELDS, of_libvirt
from virtflow.schemas.catalogue.types import LONG_MAX, SCOPE_OF_PREFIX, Scope
from virtflow.schemas.fields import BlockSample, NetworkSample, VcpuSample
from virtflow.schemas.ranges import NAME_LENGTH
from virtflow.schemas.records import NAN, GuestSample, VmInventory, VmSnapshot
from virtflow.schemas.states import SHUT_OFF

REPLACEMENT: Final = "\ufffd"
INDEX_DIGITS: Final = 9
CACHED_KEYS: Final = 65_536
"""Keys whose parse is remembered; a host with more devices than that parses the rest anew each time."""


class Reading(Struct, frozen=True, gc=False):
    """What libvirt said of one VM in one round, under libvirt's own keys.

    ``monitor_collected`` is the start (Unix seconds) of the call that brought the monitor groups, NaN when none did.
    """

    uuid: str
    name: str
    data: dict[str, object]
    monitor_collected: float = NAN


@dataclass(slots=True)
class Tally:
    """What was passed by, counted since the producer started: drops by reason, and fields the catalogue does not know."""

    unknown_fields: int = 0
    drops: Counter[str] = field(default_factory=Counter)


class _Kind:
    """What a key of libvirt's is to us: an index into the groups below, or one of the two that have none."""

    VM, VCPU, NETWORK, BLOCK, IGNORED, UNKNOWN = range(6)


_LAST: Final = _Kind.BLOCK
"""VM itself is 0, devices of some kind are up to this, the rest is passed by."""


class _Slot(NamedTuple):
    kind: int
    number: int
    attribute: str


_KIND_OF_SCOPE: Final = {Scope.VM: _Kind.VM, Scope.VCPU: _Kind.VCPU, Scope.NETWORK: _Kind.NETWORK, Scope.BLOCK: _Kind.BLOCK}
_NAME: Final = "name"
_TABLE: Final = {source.field: _Slot(_KIND_OF_SCOPE[scope], -1, source.attribute) for scope in Scope for _, source in of_libvirt(scope)} | {
    f"{prefix}.N.name": _Slot(_KIND_OF_SCOPE[scope], -1, _NAME) for prefix, scope in SCOPE_OF_PREFIX.items() if scope is not Scope.VCPU
}
_IGNORED: Final = frozenset(IGNORED_FIELDS)

_Fields = dict[str, Any]
"""A record's fields on their way into it; checked one by one, because what libvirt says has no type."""

_Devices = defaultdict[int, _Fields]
"""The devices of one kind by libvirt's index."""

_slots: dict[str, _Slot] = {}


def vm_snapshot(reading: Reading, tally: Tally, inventory: VmInventory | None = None, guest: GuestSample | None = None) -> VmSnapshot:
    """The VM's record of this round, in libvirt's own units, with what the guest said; what had to be left out is added to ``tally``."""
    fields: _Fields = {}
    groups: tuple[_Devices, ...] = (defaultdict(dict), defaultdict(dict), defaultdict(dict), defaultdict(dict))
    known = _slots.get
    # Some sixty values of each VM pass here in each round: one look-up, one check and one assignment for each.
    for key, value in reading.data.items():
        kind, number, attribute = known(key) or _learn(key)
        if kind > _LAST:
            tally.unknown_fields += kind == _Kind.UNKNOWN
        elif (type(value) is int and 0 <= value <= LONG_MAX) or attribute is _NAME:
            if kind:
                groups[kind][number][attribute] = value
            else:
                fields[attribute] = value
        else:
            tally.drops["out_of_range"] += 1
    if fields.get("state_state") == SHUT_OFF:
        _leave_out_foreign_cpu(fields)
    return VmSnapshot(
        uuid=reading.uuid,
        name=printable(reading.name),
        monitor_collected=reading.monitor_collected,
        vcpus=[VcpuSample(number=number, **groups[_Kind.VCPU][number]) for number in sorted(groups[_Kind.VCPU])],
        networks=[NetworkSample(**device) for device in _named(groups[_Kind.NETWORK], tally)],
        blocks=[BlockSample(**device) for device in _named(groups[_Kind.BLOCK], tally)],
        inventory=[] if inventory is None else [inventory],
        guest=[] if guest is None else [guest],
        **fields,
    )


def printable(text: str, limit: int = NAME_LENGTH) -> str:
    """``text`` with what can't be shown (control, format and surrogate characters) replaced, at most ``limit`` characters."""
    if len(text) > limit:
        text = text[:limit]
    return text if text.isprintable() else "".join(c if c.isprintable() else REPLACEMENT for c in text)


def device_names(snapshot: VmSnapshot) -> tuple[str, ...]:
    """The names of the VM's devices: when they change, its XML has changed."""
    return (*(b.name for b in snapshot.blocks), "", *(n.name for n in snapshot.networks))


def _leave_out_foreign_cpu(fields: _Fields) -> None:
    """For a VM that is shut off libvirt reports some other CPU times than the VM's (measured on 9.0)."""
    for attribute in ("cpu_time", "cpu_user", "cpu_system"):
        fields.pop(attribute, None)


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


def _learn(key: str) -> _Slot:
    """Parses a key once: ``block.0.rd.reqs`` is attribute ``rd_reqs`` of block 0."""
    parts = key.split(".", 2)
    slot = _TABLE.get(key)
    if slot is None and len(parts) == 3 and parts[1].isdecimal() and len(parts[1]) <= INDEX_DIGITS:  # noqa: PLR2004, prefix, index, rest
        general = f"{parts[0]}.N.{parts[2]}"
        known = _TABLE.get(general)
        slot = _Slot(known.kind, int(parts[1]), known.attribute) if known else _passed_by(general)
    slot = slot or _passed_by(key)
    if len(_slots) < CACHED_KEYS:
        _slots[key] = slot
    return slot


def _passed_by(field_name: str) -> _Slot:
    return _Slot(_Kind.IGNORED if field_name in _IGNORED else _Kind.UNKNOWN, -1, "")
