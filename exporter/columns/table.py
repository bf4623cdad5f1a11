"""The newest values of the VMs whose samples differ in numbers alone, a column for each field.

A VM has a place, and its devices have places in a row, as long as its name, node, run and devices stay the same. The samples of all other
VMs are kept as records. Belongs to the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from virtflow.exporter.columns.layout import STATES, WORDS, Kind, Layout, Types
from virtflow.exporter.columns.vm import NodeSample, Vm
from virtflow.schemas.avro.cursors import Numbers
from virtflow.schemas.avro.primitives import LONG
from virtflow.schemas.records import VmMetrics

FIRST: Final = 1_024
"""Places at the beginning; each time they are all taken, there are twice as many."""
NAME_BYTES: Final = 16
"""The longest name of a device that is compared in columns: Linux has interfaces of up to 15."""
_WORD_BYTES: Final = 8


class Places:
    """Columns that grow together."""

    def __init__(self, types: Types) -> None:
        """``types`` of the columns by name."""
        self.numbers: Final[dict[str, Numbers]] = {name: np.zeros(FIRST, _dtype(kind)) for name, kind in types.items()}
        self.size = FIRST

    def grow(self, places: int) -> None:
        """Makes room for that many places."""
        if places <= self.size:
            return
        size = max(places, 2 * self.size)
        for name, column in self.numbers.items():
            self.numbers[name] = np.concatenate([column, np.zeros(size - self.size, column.dtype)])
        self.size = size


class DeviceTable(Places):
    """The devices of one kind: of each VM the first place and their number; of each device its values, its key and its labels."""

    def __init__(self, kind: Kind) -> None:
        """Without devices."""
        keys = {_KEY_LENGTH: "long", _KEYS[0]: "word", _KEYS[1]: "word"} if kind.named else {_KEY: "long"}
        super().__init__({**{name: kind.numbers[name] for name in kind.numbers}, **keys})
        self.kind: Final = kind
        self.of_vm: Final = Places({FIRST_PLACE: "long", COUNT: "long"})
        self.labels: list[str] = []
        self._free: dict[int, list[int]] = {}

    def put(self, place: int, identity: str, devices: Sequence[Any]) -> bool:
        """Takes the devices of the VM at ``place``; False where they can't be told apart in columns."""
        of_kind = self.kind.devices
        keys = [of_kind.key(device) for device in devices]
        labels = of_kind.labels(identity, keys)
        if len(set(labels)) < len(labels) or (self.kind.named and max([_size(str(key)) for key in keys], default=0) > NAME_BYTES):
            return False
        first = self._room(len(devices))
        self.of_vm.grow(place + 1)
        self.of_vm.numbers[FIRST_PLACE][place], self.of_vm.numbers[COUNT][place] = first, len(devices)
        self.labels[first : first + len(devices)] = labels
        for at, (device, key) in enumerate(zip(devices, keys, strict=True), first):
            for name in self.kind.numbers:
                self.numbers[name][at] = getattr(device, name)
            for name, value in _key_columns(key, named=self.kind.named):
                self.numbers[name][at] = value
        return True

    def free(self, place: int) -> None:
        """Gives back the places of a VM's devices."""
        count = int(self.of_vm.numbers[COUNT][place])
        if count:
            self._free.setdefault(count, []).append(int(self.of_vm.numbers[FIRST_PLACE][place]))
            self.of_vm.numbers[COUNT][place] = 0

    def same(self, places: Numbers, keys: Mapping[str, Numbers]) -> Numbers:
        """At which of the places the device with that key is."""
        there = np.ones(len(places), bool)
        for name, values in keys.items():
            there &= self.numbers[name][places] == values
        return there

    def _room(self, count: int) -> int:
        if free := self._free.get(count):
            return free.pop()
        first = len(self.labels)
        self.labels += [""] * count
        self.grow(len(self.labels))
        return first


class Table(Places):
    """The VMs in columns."""

    def __init__(self, layout: Layout) -> None:
        """Without VMs."""
        own = dict.fromkeys((*STATES, "sequence", "part"), "long")
        super().__init__({**layout.numbers, **own, "collected": "double"})
        self.layout: Final = layout
        self.kinds: Final = tuple(DeviceTable(kind) for kind in layout.kinds)
        self.places: Final[dict[bytes, int]] = {}
        """The place of the VM that a message names, by the piece of it that has ``WORDS``."""
        self.vms: Final[list[Vm | None]] = []
        self.samples: Final[list[NodeSample | None]] = []
        self.state_infos: Final[list[str]] = []
        self._pieces: list[bytes] = []
        self._free: list[int] = []

    def put(self, vm: Vm, sample: NodeSample, record: VmMetrics, state_info: str) -> int:
        """Takes a VM whose exported sample is ``record``; its place, or -1 where its devices can't be told apart in columns."""
        place = self._free.pop() if self._free else len(self.vms)
        for done, table in enumerate(self.kinds):
            if not table.put(place, vm.identity, getattr(record, table.kind.devices.attribute)):
                for before in self.kinds[:done]:
                    before.free(place)
                if place < len(self.vms):
                    self._free.append(place)
                return -1
        if place == len(self.vms):
            self.grow(place + 1)
            self.vms.append(None)
            self.samples.append(None)
            self.state_infos.append("")
            self._pieces.append(b"")
        for name, column in self.numbers.items():
            column[place] = getattr(record, name)
        self.vms[place], self.samples[place], self.state_infos[place] = vm, sample, state_info
        self._pieces[place] = _piece(record)
        self.places[self._pieces[place]] = place
        return place

    def drop(self, place: int) -> None:
        """Forgets a VM, whose sample is a record from now on."""
        del self.places[self._pieces[place]]
        for table in self.kinds:
            table.free(place)
        self.vms[place] = self.samples[place] = None
        self.state_infos[place], self._pieces[place] = "", b""
        self._free.append(place)


FIRST_PLACE, COUNT = "first", "count"
_KEY, _KEY_LENGTH, _KEYS = "key", "key length", ("key 0", "key 1")
_DTYPES: Final = {"long": np.int64, "double": np.float64, "word": np.uint64}


def number_keys(values: Numbers) -> dict[str, Numbers]:
    """The columns that tell devices with a number apart."""
    return {_KEY: values}


def name_keys(length: Numbers, words: Iterable[Numbers]) -> dict[str, Numbers]:
    """The columns that tell devices with a name apart: its length and its first bytes, eight of them in a word."""
    return {_KEY_LENGTH: length, **dict(zip(_KEYS, words, strict=True))}


def _key_columns(key: Any, *, named: bool) -> list[tuple[str, int]]:  # noqa: ANN401, a number or a name
    if not named:
        return [(_KEY, key)]
    raw = key.encode().ljust(NAME_BYTES, b"\0")
    words = [int.from_bytes(raw[at : at + _WORD_BYTES], "little") for at in range(0, NAME_BYTES, _WORD_BYTES)]
    return [(_KEY_LENGTH, _size(key)), *zip(_KEYS, words, strict=True)]


def number_of(keys: Sequence[int]) -> object:
    """The number in a device's key columns."""
    return keys[0]


def name_of(keys: Sequence[int]) -> object:
    """The name in a device's key columns, in the order of ``_key_columns``."""
    length, *words = keys
    return b"".join(word.to_bytes(_WORD_BYTES, "little") for word in words)[:length].decode()


def _size(name: str) -> int:
    return len(name.encode())


def _piece(record: VmMetrics) -> bytes:
    """The piece of a message that names the VM, as Avro has it, from the first word's first byte on."""
    words: list[bytes] = [getattr(record, name).encode() for name in WORDS]
    return words[0] + b"".join(LONG[len(word)] + word for word in words[1:])


def _dtype(kind: str) -> type[np.generic]:
    return _DTYPES[kind]
