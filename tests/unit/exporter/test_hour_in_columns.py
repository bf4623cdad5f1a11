"""The hour of VMs in columns: the points and rates that they would have as single records, without a sample being read."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import nan
from typing import Any

import pytest
from msgspec.structs import replace

from tests.support.exporter_intake import Served, few_are_many, sent
from tests.support.fleet_samples import busy, described, updated
from tests.support.vm_samples import INTERVAL, WALL, uuid
from virtflow.exporter.views.fleet_view import FleetView
from virtflow.exporter.views.ring import COLUMNS
from virtflow.schemas.records import Record, VmMetrics

VMS = 6
MINUTES = 5
ROUNDS = 6
"""Samples a minute."""


@pytest.fixture(autouse=True)
def _few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    few_are_many(monkeypatch)


def sample(number: int, round_: int, what: str) -> VmMetrics:
    """A sample in which something is unusual."""
    whole = busy(number, round_)
    blocks = whole.blocks
    fields: dict[str, dict[str, Any]] = {
        "another disk": {"blocks": [*blocks, replace(blocks[0], device="vdb")]},
        "no disk": {"blocks": []},
        "another network": {"networks": [replace(whole.networks[0], device="tap0")]},
        "absent": {"cpu_seconds_total": nan, "memory_rss_bytes": -1},
        "guest memory": {"guest_memory_total_bytes": 1 << 30, "guest_memory_usable_bytes": 1 << 28},
        "frozen": {
            "guest_memory_total_bytes": 1 << 30,
            "guest_memory_usable_bytes": 1 << 28,
            "guest_memory_updated_timestamp_seconds": int(WALL) - 1_000,
        },
        "began again": {"cpu_seconds_total": 1.0 + round_, "networks": [], "vcpus": whole.vcpus[:1]},
        "other node": {"node": "node-elsewhere", "boot_id": "another"},
        "other run": {"boot_id": f"boot-{round_ // 12}"},
        "stuck": {"responsive": 0, "monitor_collected": nan, "blocks": [], "vcpus": [], "cpu_seconds_total": nan},
        "paused": {"state": 3, "state_reason": 1},
    }
    return busy(number, round_, **fields.get(what, {}))


UNUSUAL = (
    "another disk",
    "no disk",
    "another network",
    "absent",
    "guest memory",
    "frozen",
    "began again",
    "other node",
    "other run",
    "paused",
)


class Both:
    """The same messages to a fleet in columns and to one of records, and a view of each."""

    def __init__(self) -> None:
        """Nothing is taken yet."""
        self.served = Served(together=True), Served(together=False)
        self.views = [FleetView(one.fleet) for one in self.served]

    def take(self, now: float, *records: Record) -> None:
        for one in self.served:
            one.now = now
            one.take(*map(sent, records))

    def record(self, now: float) -> None:
        for view in self.views:
            for _ in view.recording(now):
                pass

    def look(self, now: float) -> None:
        for view in self.views:
            updated(view, now)

    def hours(self, minute: int) -> list[dict[str, Any]]:
        """Of each view the hours of all VMs."""
        return [
            {seen.uuid: {name: seen.ring.column(name, minute) for name in COLUMNS} for seen in view.vms() if seen.ring is not None}
            for view in self.views
        ]


def same(one: list[float | None], other: list[float | None]) -> bool:
    """Values of an hour: the same ones are unknown, and the others are equal but for the last digits."""
    return [a is None for a in one] == [b is None for b in other] and all(
        a == pytest.approx(b, rel=1e-6) for a, b in zip(one, other, strict=True) if b is not None
    )


def chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311, chance is all it is


def run(whats: Sequence[str], choose: random.Random) -> Both:
    """Some minutes of samples; what is unusual lasts for a while."""
    both = Both()
    both.take(0.0, *(described(number) for number in range(VMS)))
    now = dict.fromkeys(range(VMS), "")
    for round_ in range(MINUTES * ROUNDS):
        at = round_ * INTERVAL
        for number in now:
            if choose.random() < 0.15:
                now[number] = choose.choice(["", *whats])
        heard = [number for number in now if choose.random() < 0.95]
        both.take(at, *(sample(number, round_, now[number]) for number in heard))
        if (round_ + 1) % ROUNDS == 0:
            both.record(at + 1)
    return both


def test_no_sample_is_read_for_the_hour() -> None:
    """But once in each VM's life in columns."""
    both, before = Both(), 0
    columns = both.served[0]
    for round_ in range(4 * ROUNDS):
        both.take(round_ * INTERVAL, *(busy(number, round_) for number in range(VMS)))
        if round_ == 2 * ROUNDS:
            before = columns.codec.decoded
        if round_ % ROUNDS == 0:
            both.record(round_ * INTERVAL)
    assert columns.in_columns() == VMS
    assert columns.codec.decoded == before


def test_points_are_those_of_records() -> None:
    both = run([], chance(1))
    columns, rows = both.hours(MINUTES - 1)
    assert len(columns) == VMS
    assert same(columns[uuid(3)]["receive_bytes"][-2:], [4096.0, 4096.0])
    for vm, hour in rows.items():
        for name, values in hour.items():
            assert same(columns[vm][name][-MINUTES:], values[-MINUTES:]), (vm, name)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_unusual_is_the_same_in_both(seed: int) -> None:
    """Other devices, absent values, new processes, nodes and runs, hung monitors, and samples that do not come."""
    choose = chance(seed)
    both = run(choose.sample(UNUSUAL, 3), choose)
    columns, rows = both.hours(MINUTES - 1)
    assert set(columns) == set(rows)
    for vm, hour in rows.items():
        for name, values in hour.items():
            assert same(columns[vm][name][-MINUTES:], values[-MINUTES:]), (vm, name)


@pytest.mark.parametrize("seed", range(4))
def test_a_hung_monitor_costs_a_point_at_most(seed: int) -> None:
    """Where the counters of a minute ago are unknown, so is the point; whatever is known is the same."""
    both = run(["stuck"], chance(seed))
    columns, rows = both.hours(MINUTES - 1)
    known = 0
    for vm, hour in rows.items():
        for name, values in hour.items():
            pairs = [(a, b) for a, b in zip(columns[vm][name], values, strict=True) if a is not None]
            assert same([a for a, _ in pairs], [b for _, b in pairs]), (vm, name)
            known += len(pairs)
    assert known > VMS * len(COLUMNS)


def test_rates_after_minutes_without_a_look_are_of_the_last_minute() -> None:
    """Not of all the time since somebody looked."""
    both = Both()
    for round_ in range(4 * ROUNDS + 2):
        # From the third minute on it reads twice as fast.
        rate = 1 if round_ < 2 * ROUNDS else 2
        read = 10_000 * (round_ if rate == 1 else 2 * ROUNDS + 2 * (round_ - 2 * ROUNDS))
        block = replace(busy(3, round_).blocks[0], read_bytes_total=read)
        both.take(round_ * INTERVAL, busy(3, round_, blocks=[block]))
        if round_ == 0:
            both.look(0.0)
        if round_ and round_ % ROUNDS == 0:
            both.record(round_ * INTERVAL)
    both.look((4 * ROUNDS + 1) * INTERVAL)
    for view in both.views:
        seen = view.vm(uuid(3))
        assert seen is not None
        assert seen.totals.read_bytes == pytest.approx(2_000.0)
        assert seen.totals.window_seconds == INTERVAL
        assert list(seen.rates().values())[2]["vda"][0] == pytest.approx(2_000.0)
