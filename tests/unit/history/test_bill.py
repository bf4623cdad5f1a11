"""A month's bill of eleven VMs whose use is known by construction: each cell is exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.history_lives import record, store_rolled, vm_uuid
from tests.support.history_truth import SECOND, Seen
from virtflow.history.query.report import Report, report
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import INVENTORY_ROWS
from virtflow.history.writer.dedup import Changes
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History
from virtflow.schemas.records import VmInventory, VmMetrics

MONTH = "2026-03"
START = 1_772_323_200
DAYS = 31
HOURS = 24 * DAYS
H, D = 3_600, 86_400
STEP = 600
"""Seconds between samples."""
LATE, TWIN = 0.25, 7
"""How long after the full second samples are, and how long after it those of a second node."""
GIB = 2.0**30
RUNNING, PAUSED, OFF = (1, 1), (3, 1), (5, 1)


@dataclass(frozen=True)
class Vm:
    """A VM that uses ``cores`` while it runs and has ``gib`` of memory; ``state`` and ``node`` at each second of the month.

    ``zero`` is when its counter began at 0, by second; there is no sample where ``silent``, none of the monitor's where ``hung``.
    """

    cores: float
    gib: int
    first: int = -D
    last: int = DAYS * D + D
    owners: tuple[tuple[int, str, str], ...] = ((-D, "id-1", "admin"),)
    state: Callable[[int], tuple[int, int]] = lambda _: RUNNING
    node: Callable[[int], str] = lambda _: "n1"
    zero: Callable[[int], int] = lambda _: -30 * D
    silent: Callable[[int], bool] = lambda _: False
    hung: Callable[[int], bool] = lambda _: False
    twin: range = field(default=range(0))

    def samples(self, vm: str) -> Iterator[VmMetrics]:
        """What its nodes report."""
        ran = 0
        for at in range(self.first, self.last, STEP):
            anew = at == self.first or self.zero(at) != self.zero(at - STEP)
            ran = at - self.zero(at) if anew else ran + STEP * (self.state(at) == RUNNING)
            if not self.silent(at):
                yield self._sample(vm, at, (self.node(at), ran * self.cores, self.state(at)))
            if at in self.twin:
                yield self._sample(vm, at + TWIN, ("n3", 1e6 + (at - self.twin.start) * 0.25, RUNNING))

    def _sample(self, vm: str, at: int, told: tuple[str, float, tuple[int, int]]) -> VmMetrics:
        node, cpu, state = told
        monitored = not self.hung(at)
        values = {"vm_memory_balloon_current_bytes": self.gib * GIB} if monitored else {}
        if monitored and state != OFF:
            values["vm_cpu_seconds_total"] = cpu
        seen = Seen(round((START + at + LATE) * SECOND), node, node, at + D, float(STEP), *state, monitored, {("vm", ""): values})
        return record(vm, seen, f"vm-{vm[:4]}")


VMS: dict[str, Vm] = {
    "whole": Vm(1.0, 4),
    "created": Vm(0.5, 8, first=9 * D + 12 * H, zero=lambda _: 9 * D + 12 * H),
    "off": Vm(0.5, 2, owners=((-D, "id-2", "admin"),), state=lambda at: OFF if 5 * D <= at < 10 * D else RUNNING),
    "undefined": Vm(1.0, 1, last=19 * D, owners=((-D, "id-2", "admin"),)),
    "migrated": Vm(
        1.0,
        1,
        owners=((-D, "b", "blue"),),
        node=lambda at: "n2" if at >= 14 * D else "n1",
        zero=lambda at: 14 * D - STEP if at >= 14 * D else -9 * D,
    ),
    "rebooted": Vm(1.0, 1, owners=((-D, "b", "blue"),), zero=lambda at: 6 * D - STEP if at >= 6 * D else -9 * D),
    "owner changed": Vm(1.0, 1, owners=((-D, "c", "cyan"), (15 * D + 12 * H + 1_800, "d", "dark"))),
    "monitor silent": Vm(1.0, 4, owners=((-D, "e", "e"),), hung=lambda at: 11 * D <= at < 11 * D + 10 * H),
    "hypervisor gone": Vm(1.0, 4, owners=((-D, "e", "e"),), silent=lambda at: 19 * D <= at < 21 * D),
    "paused": Vm(1.0, 1, owners=((-D, "f", "f"),), state=lambda at: PAUSED if 3 * D <= at < 4 * D else RUNNING),
    "twice": Vm(1.0, 1, owners=((-D, "f", "f"),), twin=range(8 * D, 8 * D + 5 * H)),
}
UUIDS = {name: vm_uuid(number) for number, name in enumerate(VMS)}
STEP_HOURS = STEP / H
KEYS = {"project": "project_id", "owner": "owner_id", "node": "node", "vm": "uuid"}


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, History]:
    """The month's roll-ups, with a day before and after it, and the inventory."""
    settings = History(path=str(tmp_path_factory.mktemp("bill")), hourly_days=36_500)
    store = Store(settings)
    store_rolled(store, [sample for name, vm in VMS.items() for sample in vm.samples(UUIDS[name])])
    writer = TableWriter(store.make(INVENTORY_ROWS), Changes())
    writer.begin(["p"])
    told = [(name, *owner) for name, vm in VMS.items() for owner in vm.owners]
    for offset, (name, at, project_id, project) in enumerate(told):
        inventory = VmInventory(uuid=UUIDS[name], name=name, node="n", collected=float(START + at), project_id=project_id, project=project)
        writer.take("p", offset, inventory)
    writer.commit()
    return store, settings


Rows = dict[str, dict[str, Any]]


def usage(month: tuple[Store, History], by: str, key: str) -> Rows:
    """The usage report's rows."""
    return {row[key]: row for row in report(*month, Report("usage", MONTH, by)).to_pylist()}


@pytest.fixture(scope="module")
def used(month: tuple[Store, History]) -> dict[str, Rows]:
    """The month's usage reports, by what a row is."""
    return {by: usage(month, by, key) for by, key in KEYS.items()}


CREATED = HOURS - 9 * 24 - 12
USED: dict[str, dict[str, float]] = {
    "whole": {"cpu_hours": HOURS, "running_hours": HOURS, "memory_gib_hours": 4 * HOURS},
    "created": {
        "lived_hours": CREATED - LATE / H,
        "covered_hours": CREATED,
        "running_hours": CREATED,
        "cpu_hours": (CREATED - STEP_HOURS) / 2,
        "memory_gib_hours": 8 * CREATED,
    },
    "off": {
        "running_hours": HOURS - 120,
        "shut_off_hours": 120,
        "cpu_hours": (HOURS - 120) / 2,
        "memory_gib_hours": 2 * (HOURS - 120),
        "shut_off_memory_gib_hours": 240,
    },
    "undefined": {
        "lived_hours": 19 * 24 + LATE / H,
        "covered_hours": 19 * 24,
        "coverage": 19 * 24 / (19 * 24 + LATE / H),
        "running_hours": 19 * 24,
        "cpu_hours": 19 * 24,
        "memory_gib_hours": 19 * 24,
    },
    "migrated": {"cpu_hours": HOURS, "running_hours": HOURS, "memory_gib_hours": HOURS},
    "rebooted": {"cpu_hours": HOURS, "running_hours": HOURS, "memory_gib_hours": HOURS},
    "owner changed": {"cpu_hours": HOURS, "running_hours": HOURS, "memory_gib_hours": HOURS},
    "monitor silent": {
        "cpu_hours": HOURS,
        "running_hours": HOURS,
        "memory_gib_hours": 4 * (HOURS - 10),
        "memory_coverage": (HOURS - 10) / HOURS,
    },
    "hypervisor gone": {
        "covered_hours": HOURS - 48,
        "coverage": (HOURS - 48) / HOURS,
        "running_hours": HOURS - 48,
        "cpu_hours": HOURS,
        "memory_gib_hours": 4 * (HOURS - 48),
    },
    "paused": {"cpu_hours": HOURS - 24, "running_hours": HOURS - 24, "paused_hours": 24, "memory_gib_hours": HOURS},
    "twice": {
        "cpu_hours": HOURS + (5 - STEP_HOURS) / 4,
        "cpu_cores_peak": 1.25 * H / (H + TWIN),
        "running_hours": HOURS,
        "memory_gib_hours": HOURS,
    },
}


@pytest.mark.parametrize("name", VMS)
def test_each_vm_s_bill_is_exact(used: dict[str, Rows], name: str) -> None:
    """What each used, for how long it lived, and for how much of that it was reported."""
    row = used["vm"][UUIDS[name]]
    usual = {
        "lived_hours": HOURS,
        "covered_hours": HOURS,
        "coverage": 1.0,
        "paused_hours": 0.0,
        "shut_off_hours": 0.0,
        "memory_coverage": 1.0,
    }
    right = usual | {"shut_off_memory_gib_hours": 0.0, "cpu_cores_peak": VMS[name].cores} | USED[name]
    assert {cell: row[cell] for cell in right} == pytest.approx(right, rel=1e-9, abs=1e-9)


def test_owners_are_told_apart_by_their_ids(used: dict[str, Rows]) -> None:
    """Two domains have a project "admin" each; the hour in which a VM changes its owner is split."""
    rows = used["project"]
    assert [rows[key]["project"] for key in ("id-1", "id-2")] == ["admin", "admin"]
    of = {
        "id-1": ("whole", "created"),
        "id-2": ("off", "undefined"),
        "b": ("migrated", "rebooted"),
        "e": ("monitor silent", "hypervisor gone"),
    }
    for key, names in of.items():
        assert rows[key]["cpu_hours"] == pytest.approx(sum(USED[name]["cpu_hours"] for name in names), rel=1e-9)
    assert rows["c"]["cpu_hours"] == pytest.approx(15 * 24 + 12.5)
    assert rows["d"]["lived_hours"] == rows["d"]["covered_hours"] == pytest.approx(HOURS - 15 * 24 - 12.5)
    assert {round(row["coverage"], 6) for key, row in rows.items() if key != "e"} == {1.0}


def test_nodes_share_what_ran_on_them(used: dict[str, Rows]) -> None:
    """Whatever the report is by, it is the same use."""
    total = sum(used["cpu_hours"] for used in USED.values())
    for by in ("node", "owner", "project"):
        rows = used[by]
        assert sum(row["cpu_hours"] for row in rows.values()) == pytest.approx(total, rel=1e-9)
        assert sum(row["lived_hours"] for row in rows.values()) == pytest.approx(9 * HOURS + CREATED + 19 * 24, rel=1e-9)
    assert used["node"]["n2"]["cpu_hours"] == pytest.approx(HOURS - 14 * 24)


def test_a_history_without_an_inventory_is_billed_to_nobody(tmp_path: Path) -> None:
    settings = History(path=str(tmp_path), hourly_days=36_500)
    store = Store(settings)
    store_rolled(store, list(VMS["created"].samples(UUIDS["created"])))
    (row,) = report(store, settings, Report("usage", MONTH, "project")).to_pylist()
    assert (row["project_id"], row["lived_hours"]) == ("", pytest.approx(CREATED - LATE / H))


SPANS = [(30, 60, 45), (0, 20, 40), (15, 60, 10), (30, 45, 36)]
"""Minutes: from when to when a VM was, and when the inventory says that another owner has it."""


@pytest.mark.parametrize("hourly_days", [36_500, 1], ids=["hours", "days"])
@pytest.mark.parametrize(("first", "last", "change"), SPANS)
def test_an_owner_is_billed_for_no_time_in_which_the_vm_was_not(
    tmp_path: Path, hourly_days: int, first: int, last: int, change: int
) -> None:
    """The hour in which it began or ended is split by the time in which it was, and no owner has more of it than it lived."""
    settings = History(path=str(tmp_path), hourly_days=hourly_days)
    store = Store(settings)
    told = {("vm", ""): {"vm_memory_balloon_current_bytes": GIB}}
    seen = [Seen((START + at) * SECOND, "n", "r", at + 1, 60.0, *RUNNING, told=told) for at in range(first * 60, last * 60, 60)]
    store_rolled(store, [record(vm_uuid(1), each) for each in seen])
    writer = TableWriter(store.make(INVENTORY_ROWS), Changes())
    writer.begin(["p"])
    for offset, (at, project) in enumerate([(first - 20, "old"), (change, "new")]):
        writer.take("p", offset, VmInventory(uuid=vm_uuid(1), node="n", collected=float(START + at * 60), project_id=project))
    writer.commit()
    right = {
        project: hours / 60 for project, hours in (("old", min(change, last) - first), ("new", last - max(change, first))) if hours > 0
    }
    rows = usage((store, settings), "project", "project_id")
    for cell in ("lived_hours", "covered_hours", "running_hours", "memory_gib_hours"):
        assert {key: row[cell] for key, row in rows.items()} == pytest.approx(right, rel=1e-9), cell


def test_a_vm_counts_once_an_hour_whatever_its_owners(tmp_path: Path) -> None:
    """Of one hour in which it went from p1 to p2 and back, in p1 to another user, and was renamed: one VM of each of them."""
    settings = History(path=str(tmp_path), hourly_days=36_500)
    store = Store(settings)
    vms = (vm_uuid(1), vm_uuid(2))
    at = [START + minutes * 60 for minutes in (0, 10, 20, 30, 40, 50)]
    store_rolled(store, [record(vm, Seen(round(second * SECOND), "n", "r", second, 600.0, *RUNNING)) for vm in vms for second in at])
    owners = [("p1", "u1"), ("p2", "u1"), ("p1", "u1"), ("p1", "u2"), ("p1", "u1"), ("p1", "u1")]
    writer = TableWriter(store.make(INVENTORY_ROWS), Changes())
    writer.begin(["p"])
    told = [(vms[0], second, *owner, f"title {second}") for second, owner in zip(at, owners, strict=True)]
    for offset, (vm, second, project, user, title) in enumerate([*told, (vms[1], at[0], "p1", "u1", "")]):
        inventory = VmInventory(uuid=vm, node="n", collected=float(second + 60), project_id=project, user_id=user, title=title)
        writer.take("p", offset, inventory)
    writer.commit()
    counted = {by: {row[key]: row["vms"] for row in usage((store, settings), by, key).values()} for by, key in KEYS.items()}
    assert counted == {"project": {"p1": 2, "p2": 1}, "owner": {"u1": 2, "u2": 1}, "node": {"n": 2}, "vm": dict.fromkeys(vms, 1)}


@pytest.mark.parametrize("by", KEYS)
def test_what_is_not_known_is_no_number(tmp_path: Path, by: str) -> None:
    """A VM that was shut off throughout has no devices and tells no memory: its bytes are not known, and least of all 2^63."""
    settings = History(path=str(tmp_path), hourly_days=36_500)
    store = Store(settings)
    store_rolled(store, [record(vm_uuid(1), Seen((START + at) * SECOND, "n", "r", at + 1, 600.0, *OFF)) for at in range(0, H, STEP)])
    (row,) = report(store, settings, Report("usage", MONTH, by)).to_pylist()
    unknown = ("cpu_hours", "memory_gib_hours", "block_read_bytes", "block_write_bytes", "network_receive_bytes", "network_transmit_bytes")
    assert {name: row[name] for name in unknown} == dict.fromkeys(unknown)
    assert (row["shut_off_hours"], row["memory_coverage"]) == (1.0, 0.0)
