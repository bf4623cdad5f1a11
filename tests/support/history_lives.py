"""Lives of VMs for the history: as records that a writer stores, and as samples that the truth is worked out from."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tests.support.history_truth import HOUR, SECOND, Metrics, Seen
from virtflow.history.maintenance.authority import judge, without
from virtflow.history.maintenance.counters import counters_after, processes_of
from virtflow.history.maintenance.kept import Kept as Upkept
from virtflow.history.maintenance.rollup import days_of, hours_of
from virtflow.history.maintenance.rows import Rows
from virtflow.history.maintenance.run import maintain
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import COLUMN_OF, COLUMNS, DAILY, HOURLY, KINDS, SAMPLES
from virtflow.history.writer.dedup import Sequences
from virtflow.history.writer.rows.sample_rows import sample_rows
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History
from virtflow.schemas.catalogue.types import Guest
from virtflow.schemas.fields import BlockMetrics, NetworkMetrics, VcpuMetrics
from virtflow.schemas.records import GuestFilesystemMetrics, GuestMetrics, VmMetrics

METRICS: Final = Metrics(
    {column.name: column.rollup.value for column in COLUMNS},
    frozenset(column.name for column in COLUMNS if column.of_guest),
)
FIELD: Final = {column.name: column.metric.field for column in COLUMNS}
_DEVICES: Final[dict[str, tuple[str, type[Any], str]]] = {
    "vcpu": ("vcpus", VcpuMetrics, "vcpu"),
    "network": ("networks", NetworkMetrics, "device"),
    "block": ("blocks", BlockMetrics, "device"),
}


_NETWORK: Final = ("vm_network_receive_bytes_total", "vm_network_transmit_bytes_total")
_BLOCK: Final = ("vm_block_read_bytes_total", "vm_block_write_bytes_total")
FOREIGN: Final = 10**9
"""The counters of another VM with the same UUID begin above this, those of the VM itself never reach it."""
_CLEARLY_TWO: Final = 6
"""Samples for which two nodes must report a running VM before nobody takes it for a migration."""


def vm_uuid(number: int) -> str:
    """The UUID of the VM of that number."""
    return str(uuid.UUID(int=Random(number).getrandbits(128), version=4))  # noqa: S311, an identity, not a secret


def record(vm: str, seen: Seen, name: str = "") -> VmMetrics:
    """A sample as the processors publish it."""
    at = seen.at / SECOND
    devices: dict[str, list[Any]] = {}
    for (kind, device), told in seen.told.items():
        if kind not in {"vm", "filesystem"}:
            field, of_kind, key = _DEVICES[kind]
            made = of_kind(**{key: int(device) if kind == "vcpu" else device}, **{FIELD[metric]: value for metric, value in told.items()})
            devices.setdefault(field, []).append(made)
    of_vm = seen.told.get(("vm", ""), {})
    own: dict[str, Any] = {FIELD[metric]: value for metric, value in of_vm.items() if not _of_agent(metric)}
    guest = _guest(seen)
    return VmMetrics(
        uuid=vm,
        name=name,
        node=seen.node,
        boot_id=seen.run,
        sequence=seen.sequence,
        collected=at,
        interval=seen.interval,
        monitor_collected=at if seen.monitored else math.nan,
        guest=[] if guest == GuestMetrics() else [guest],
        **{"state": seen.state, "state_reason": seen.reason, **own, **devices},
    )


def _of_agent(metric: str) -> bool:
    return isinstance(COLUMN_OF[metric].metric.source, Guest)


def _guest(seen: Seen) -> GuestMetrics:
    """What the guest's agent told, with the filesystems, whose device is mountpoint, type and disk between tabs."""
    own: dict[str, Any] = {FIELD[metric]: value for metric, value in seen.told.get(("vm", ""), {}).items() if _of_agent(metric)}
    filesystems = []
    for (kind, device), told in seen.told.items():
        if kind == "filesystem":
            mountpoint, fstype, disk = device.split("\t")
            sizes: dict[str, Any] = {FIELD[metric]: int(value) for metric, value in told.items()}
            filesystems.append(GuestFilesystemMetrics(mountpoint=mountpoint, fstype=fstype, device=disk, **sizes))
    return GuestMetrics(filesystems=filesystems, **own)


class Kept:
    """A history in a folder, written without a broker, and without waiting for the disk."""

    def __init__(self, path: Path, **settings: Any) -> None:  # noqa: ANN401, settings of any kind
        """Makes the table of samples."""
        self.settings: Final = History(
            path=str(path), **{"raw_days": 36_500, "hourly_days": 36_500, "daily_days": 36_500, "sync": "never", **settings}
        )
        self.store: Final = Store(self.settings)
        self._samples = TableWriter(self.store.make(SAMPLES), Sequences())
        self._offset = self._samples.begin(["p"])["p"] or 0

    def write(self, records: Iterable[VmMetrics]) -> None:
        """Stores samples in one commit."""
        for each in records:
            self._samples.take("p", self._offset, each)
            self._offset += 1
        self._samples.commit()

    def maintain(self) -> None:
        """Rolls up and compacts."""
        maintain(self.settings, lambda *_: None)

    def rolled(self, commits: Iterable[Sequence[VmMetrics]]) -> None:
        """Stores samples, with upkeep after each commit."""
        for records in commits:
            self.write(records)
            self.maintain()


class _Process:
    """A QEMU process: its counters, and what it has of the host."""

    def __init__(self, dice: Random, base: int) -> None:
        """Its counters are above ``base``."""
        self.base = float(base)
        self.counters: dict[tuple[str, str, str], float] = {}
        self.memory = float(2**30 * dice.randrange(1, 64))
        self.vcpus = float(dice.randrange(1, 17))


class Life:
    """A VM's life made of a seed: samples with all that goes wrong, in whole microseconds, and the commits they come in.

    ``start`` is the beginning of the first hour; the life lies within ``hours``, and most lives fill them. Counters grow, fall at a reboot, and
    go on in a new process at a migration. Nodes' clocks are wrong by their own amounts. For some hours another VM may have the same UUID on
    another node: its counters are above ``FOREIGN`` and the VM's own below.
    """

    def __init__(self, number: int, start: int, hours: int) -> None:
        """Everything follows from ``number``."""
        self.uuid: Final = vm_uuid(number)
        self._dice: Final = Random(f"life {number}")  # noqa: S311, a life, not a secret
        dice = self._dice
        self._interval = float(dice.choice((60, 120, 300, 300, 600)))
        whole = hours * 3_600 * SECOND
        self._at = start + dice.randrange(3 * 3_600 * SECOND if dice.random() < 0.8 else whole)
        self._end = start + (whole if dice.random() < 0.7 else dice.randrange(whole))
        self._skew = {node: dice.randrange(-20 * SECOND, 20 * SECOND) for node in "abc"}
        self._sequence = dict.fromkeys("abc", 0)
        self._runs = {node: f"run-{node}" for node in "abc"}
        self._node, self._disks = dice.choice("abc"), {"vda", "vdb"}
        self._process, self._other = _Process(dice, 0), _Process(dice, FOREIGN)
        self._agent = dice.random() < 0.5
        self.samples: Final[list[Seen]] = []
        self._left_behind: set[str] = set()
        self._left_at: dict[str, int] = {}
        self._ran_on: set[str] = set()
        self._not_clear: set[str] = set()
        """Nodes on which another VM can't be told from this one: from where it went back within an hour, where it was never seen to run, and
        where there was another VM before."""
        self._double = dice.random() < 0.05
        self.ambiguous = self._double
        """Whether another VM with this UUID may be taken for the VM itself after a migration: then a counter from ``FOREIGN`` on may be growth."""
        while self._at < self._end:
            getattr(self, f"_{dice.choices(*_EVENTS)[0]}")(dice.randrange(1, 40))

    def commits(self, count: int) -> list[list[VmMetrics]]:
        """The samples in commits: most in order, some hours late, some repeated."""
        dice = self._dice
        found: list[list[VmMetrics]] = [[] for _ in range(count)]
        ordered = sorted(self.samples, key=lambda sample: sample.at)
        late_from = dice.randrange(count)
        for number, each in enumerate(ordered):
            place = number * count // max(1, len(ordered))
            late = dice.random() < 0.02 or (place == late_from and dice.random() < 0.5)
            made = record(self.uuid, each, f'"{self.uuid[:4]}", "\n=1+1')
            found[min(count - 1, place + dice.randrange(count)) if late else place].append(made)
            if dice.random() < 0.02:
                found[min(count - 1, place + 1)].append(made)
        return found

    def _run(self, rounds: int, state: tuple[int, int] = (1, 1), *, monitored: bool = True) -> None:
        if state[0] == 1:
            self._ran_on.add(self._node)
        for _ in range(rounds):
            self._sample(self._node, state, monitored=monitored, grow=state[0] == 1)
            for node in sorted(self._left_behind - {self._node}):
                self._sample(node, (5, 4) if ord(node) % 2 else (5, 0), monitored=False, grow=False)
            if self._double:
                self._sample_other("c" if self._node != "c" else "a", (1, 1))
            self._at += round(self._interval * SECOND) + self._dice.randrange(-SECOND, SECOND)

    def _off(self, rounds: int) -> None:
        """Defined and shut off, then booted."""
        self._run(rounds, (5, 1), monitored=True)
        self._reboot(1)

    def _undefined(self, rounds: int) -> None:
        """Away, and with a new process after."""
        self._gap(rounds * 3)
        self._reboot(1)

    def _twice(self, rounds: int) -> None:
        """Another VM with the UUID on another node, for so short a time that it looks like a migration, or for hours, perhaps with a break."""
        dice = self._dice
        self._run(1)
        node = dice.choice([node for node in "abc" if node != self._node])
        self._left_behind.discard(node)
        self._other = _Process(dice, FOREIGN * dice.randrange(1, 4))
        state = (1, 1) if dice.random() < 0.8 else (3, 1)
        self.ambiguous |= rounds < _CLEARLY_TWO or node in self._not_clear or self._left_lately(node)
        self._not_clear.add(node)
        silent = range(_CLEARLY_TWO, _CLEARLY_TWO + dice.randrange(10)) if rounds > 3 * _CLEARLY_TWO and dice.random() < 0.3 else range(0)
        for number in range(rounds):
            if number not in silent:
                self._sample_other(node, state)
            self._run(1)
        self._run(_CLEARLY_TWO)

    def _paused(self, rounds: int) -> None:
        self._run(rounds, self._dice.choice([(3, 1), (3, 12), (3, 2), (7, 0)]))

    def _silent_monitor(self, rounds: int) -> None:
        self._run(rounds, monitored=False)

    def _gap(self, rounds: int) -> None:
        """The hypervisor is silent; the VM goes on."""
        for key in self._process.counters:
            self._process.counters[key] += self._dice.randrange(0, 50_000)
        self._at += round(rounds * self._interval * SECOND)

    def _reboot(self, rounds: int) -> None:
        for key in self._process.counters:
            self._process.counters[key] = 0.0
        self._run(min(rounds, 3))

    def _restart(self, rounds: int) -> None:
        """Another run of the producer, perhaps with another interval."""
        self._runs[self._node] += "'"
        self._interval = float(self._dice.choice((60, 300, 600)))
        self._run(rounds)

    def _replug(self, rounds: int) -> None:
        """A disk goes or comes back; a new one counts from 0, one that was only not reported goes on."""
        if "vdb" in self._disks:
            self._disks.discard("vdb")
        else:
            self._disks.add("vdb")
            if self._dice.random() < 0.5:
                for key in self._process.counters:
                    if key[1] == "vdb":
                        self._process.counters[key] = float(self._dice.randrange(1_000))
        self._run(rounds)

    def _migrate(self, rounds: int) -> None:
        """To another node: it arrives there, stands still for a moment, and leaves its definition or not."""
        source, never_ran = self._node, self._node not in self._ran_on
        target = self._dice.choice([node for node in "abc" if node != source])
        for _ in range(self._dice.randrange(4)):
            self._sample(source, self._dice.choice([(1, 1), (3, 2)]), monitored=True, grow=True)
            self._sample(target, (3, self._dice.choice([2, 11])), monitored=False, grow=False)
            self._at += round(self._interval * SECOND)
        if self._dice.random() < 0.3:
            self._gap(rounds)
        self._node = target
        self._left_behind.discard(target)
        if self._dice.random() < 0.5:
            self._left_behind.add(source)
        if never_ran or self._left_lately(target):
            self._not_clear.add(source)
        self._left_at[source] = self._at
        for key in self._process.counters:
            if key[2] not in METRICS.of_guest and self._dice.random() < 0.95:
                self._process.counters[key] = float(self._dice.randrange(10_000))
        self._run(rounds)

    def _left_lately(self, node: str) -> bool:
        """Whether a word of the node from before the VM left may still hold."""
        return self._at - self._left_at.get(node, -HOUR) < HOUR

    def _sample_other(self, node: str, state: tuple[int, int]) -> None:
        """A sample of the other VM with this UUID."""
        mine, self._process = self._process, self._other
        self._sample(node, state, monitored=True, grow=state[0] == 1)
        self._process = mine

    def _sample(self, node: str, state: tuple[int, int], *, monitored: bool, grow: bool) -> None:
        dice = self._dice
        told: dict[tuple[str, str], dict[str, float]] = {("vm", ""): {}}
        of_vm = told["vm", ""]
        of_vm["vm_network_devices"] = 1
        if monitored:
            of_vm["vm_memory_balloon_current_bytes"] = self._process.memory
            of_vm["vm_vcpus_current"] = self._process.vcpus
            of_vm["vm_cpu_seconds_total"] = self._count("vm", "", "vm_cpu_seconds_total", grow) / 1_000
            if dice.random() < 0.9:
                of_vm["vm_memory_rss_bytes"] = float(dice.randrange(1, 2**40))
                of_vm["vm_guest_memory_major_faults_total"] = self._count("vm", "", "vm_guest_memory_major_faults_total", grow)
            told["vcpu", "0"] = {"vm_vcpu_seconds_total": self._count("vcpu", "0", "vm_vcpu_seconds_total", grow) / 1_000}
        told["network", "v\u00e9th,0"] = {metric: self._count("network", "v\u00e9th,0", metric, grow) for metric in _NETWORK}
        for disk in sorted(self._disks):
            told["block", disk] = {metric: self._count("block", disk, metric, grow) for metric in _BLOCK} if monitored else {}
            told["block", disk] |= {"vm_block_capacity_bytes": 2.0**36, "vm_block_allocation_bytes": float(dice.randrange(2**36))}
        if self._agent and grow and dice.random() < 0.9:
            self._tell(told)
        self._sequence[node] += 1
        at = self._at + self._skew[node] + dice.randrange(SECOND)
        told = {series: values for series, values in told.items() if series[0] == "vm" or state[0] != 5}
        self.samples.append(Seen(at, node, self._runs[node], self._sequence[node], self._interval, *state, monitored, told))

    def _tell(self, told: dict[tuple[str, str], dict[str, float]]) -> None:
        """What the guest's agent tells; one that does not know the load, and a filesystem that comes and goes."""
        dice = self._dice
        told["vm", ""] |= {"vm_guest_cpus": dice.randrange(1, 9), "vm_guest_agent_up": dice.randrange(2)}
        if dice.random() < 0.7:
            told["vm", ""] |= {f"vm_guest_load{minutes}": dice.randrange(1_000) / 100 for minutes in (1, 5, 15)}
        for labels in ("/\text4\tvda1", "/\text4\tvdb1", "/srv/d\u00e4ta, 1\txfs\t")[: dice.randrange(1, 4)]:
            size = dice.randrange(2**60)
            sizes = {"size_bytes": size, "free_bytes": dice.randrange(size + 1)}
            told["filesystem", labels] = {f"vm_guest_filesystem_{name}": float(value) for name, value in sizes.items()}

    def _count(self, kind: str, device: str, metric: str, grow: bool) -> float:  # noqa: FBT001, a counter's own
        key = (kind, device, metric)
        known = self._process.counters.get(key)
        begun = self._process.base + self._dice.randrange(10**6) if known is None else known
        self._process.counters[key] = begun + (self._dice.randrange(60_000) if grow else 0)
        return self._process.counters[key]


_EVENTS: Final = (
    ("run", "off", "undefined", "paused", "silent_monitor", "gap", "reboot", "restart", "replug", "migrate", "twice"),
    (30, 5, 2, 5, 8, 10, 5, 5, 8, 12, 5),
)


def rolled_at_once(records: Sequence[VmMetrics]) -> tuple[list[pa.Table], list[pa.Table]]:
    """The hourly and daily rows of samples, kind by kind, worked out in one go, however many hours they are of."""
    rows = sample_rows(records)
    parts = {kind: rows.filter(pc.equal(rows.column("kind"), kind)) for kind in KINDS.values()}
    judged = judge(parts["vm"])
    muted = parts["vm"].take(pa.array(judged.muted))
    hours = [hours_of(kind, without(part, muted), None, judged.starts) for kind, part in parts.items()]
    return hours, [days_of(kind, of_kind) for kind, of_kind in zip(parts, hours, strict=True)]


def counters_of(samples: pa.Table, before: pa.Table | None = None) -> pa.Table:
    """Where the counters of kind vm stand after samples that all count."""
    rows = Rows(samples, before, processes_of(before, judge(samples, before).starts))
    return counters_after("vm", rows, np.zeros(len(rows.order), bool), 0.0)


def store_rolled(store: Store, records: Sequence[VmMetrics]) -> None:
    """Puts the roll-ups of samples into a history, as upkeep would have left them, without the samples."""
    for table, parts in zip((HOURLY, DAILY), rolled_at_once(records), strict=True):
        kept, rows = Upkept(store.make(table)), pa.concat_tables(parts)
        days = rows.column("day").unique()
        kept.commit([kept.opened.write_file(str(day), [rows.filter(pc.equal(rows.column("day"), day))]) for day in days], [])
