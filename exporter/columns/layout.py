"""Which fields of a sample are kept in columns, and how they become series: worked out from what is exported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, get_type_hints

from msgspec import Struct

from virtflow.exporter.render.lines import Plan
from virtflow.exporter.render.vm import STATE_INFO, Devices, VmText
from virtflow.schemas.avro.cursors import Step, Wanted, steps_of
from virtflow.schemas.avro.schema import Schema
from virtflow.schemas.records import VmMetrics

WORDS: Final = ("uuid", "name", "node", "boot_id")
"""What names a sample's VM and its place, in the order of the schema: one piece of the message, equal for all samples of a VM in a run."""
STATES: Final = ("state", "state_reason", "responsive")
"""What changes rarely and says more than a number when it does."""
TIMES: Final = ("collected", "interval", "monitor_collected")
GUEST: Final = "guest"
_TYPES: Final[dict[type, str]] = {int: "long", float: "double", str: "string"}

Types = Mapping[str, str]
"""The types of fields by name: ``long``, ``double`` or ``string``."""


@dataclass(frozen=True, slots=True)
class Family:
    """One family: the start of its lines, and for each of its values the field and what stands between labels and value."""

    prefix: str
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of a VM's devices: how they are rendered, the types of their numbers, and their families by place."""

    devices: Devices
    numbers: Types
    families: Mapping[int, Family]

    @property
    def named(self) -> bool:
        """Whether a text tells one device from another, else a number does."""
        return self.devices.label == "device"


class Layout:
    """What is kept and rendered of the families that one exporter exports."""

    def __init__(self, text: VmText) -> None:
        """``text`` renders the same families row by row."""
        hints = get_type_hints(VmMetrics)
        self.families: Final = _families([text.values, text.split])
        self.state_info_at: Final = text.at.get(STATE_INFO, -1)
        self.numbers: Final = _numbers(VmMetrics, self.families.values())
        self.kinds: Final = tuple(_kind(devices, hints[devices.attribute].__args__[0]) for devices in text.devices)
        own: dict[str, str] = dict.fromkeys((*STATES, "sequence", "part"), "long") | dict.fromkeys(TIMES, "double")
        kinds = {kind.devices.attribute: {**kind.numbers, kind.devices.label: "string" if kind.named else "long"} for kind in self.kinds}
        self.wanted: Final[Wanted] = {**self.numbers, **own, **dict.fromkeys(WORDS, "string"), **kinds, GUEST: {}}

    def steps(self, schema: Schema) -> tuple[Step, ...] | None:
        """How to read messages of a schema; None where only rows can be read: texts that nobody compares may be no texts."""
        steps = steps_of(schema, self.wanted)
        if steps is None or any(step.has_texts and not step.kept for step in steps):
            return None
        names = [step.name for step in steps]
        first = names.index(WORDS[0]) if WORDS[0] in names else len(names)
        whole = tuple(names[first : first + len(WORDS)]) == WORDS and {"sequence", *TIMES} <= set(names)
        return steps if whole and len(set(names)) == len(names) else None


def _families(plans: Iterable[Plan]) -> dict[int, Family]:
    found: dict[int, Family] = {}
    for plan in plans:
        for place, field, prefix, ending in zip(plan.families, plan.fields, plan.prefixes, plan.endings, strict=True):
            at = plan.at[place]
            found[at] = Family(prefix, (*(found[at].values if at in found else ()), (field, ending)))
    return found


def _numbers(record: type[Struct], families: Iterable[Family]) -> dict[str, str]:
    hints = get_type_hints(record)
    return {field: _TYPES[hints[field]] for family in families for field, _ in family.values}


def _kind(devices: Devices, record: type[Struct]) -> Kind:
    families = _families([devices.plan])
    return Kind(devices, _numbers(record, families.values()), families)
