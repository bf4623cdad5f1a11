"""Years of roll-ups of a few VMs, made of a seed: what the readers of the history are judged against."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.maintenance.kept import Kept
from virtflow.history.maintenance.rollup import days_of
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import DAILY, HOURLY, SAMPLES, TIME
from virtflow.runtime.settings import History
from virtflow.schemas.states import STATES

HOUR: Final = 3_600
DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Hour:
    """One VM's hour as it is meant to be: its beginning, what its CPU counter grew by, and its resident memory."""

    start: int
    cpu_seconds: float
    resident_bytes: float


def vm_uuid(number: int) -> str:
    """The UUID of the VM of that number."""
    return str(uuid.UUID(int=Random(number).getrandbits(128), version=4))  # noqa: S311, an identity, not a secret


def hours_of_vm(number: int, first: int, last: int, *, gap: tuple[int, int] = (0, 0)) -> list[Hour]:
    """The hours of a VM from ``first`` to before ``last`` (Unix seconds), without those of ``gap``."""
    dice = Random(f"{number}")  # noqa: S311, a load, not a secret
    hours = []
    for start in range(first // HOUR * HOUR, last, HOUR):
        load = 0.5 + 0.4 * math.sin(start / DAY * math.tau) + dice.uniform(-0.1, 0.1)
        if not gap[0] <= start < gap[1]:
            hours.append(Hour(start, HOUR * load, 2.0**30 * (1 + load)))
    return hours


def hourly_rows(number: int, hours: list[Hour]) -> pa.Table:
    """Hours as rows of ``hourly``: samples every ten seconds, counters that never began again."""
    count = len(hours)
    total, totals = 0.0, []
    for hour in hours:
        total += hour.cpu_seconds
        totals.append(total)
    times = pa.array([hour.start * 1_000_000 for hour in hours], pa.int64()).cast(TIME)
    columns = {
        "day": pa.array([hour.start // DAY for hour in hours], pa.int32()).cast(pa.date32()),
        "time": times,
        "first_time": times,
        "last_time": pc.add(times, pa.scalar(timedelta(seconds=HOUR - 10))).cast(TIME),
        "uuid": pa.repeat(pa.scalar(vm_uuid(number)), count),
        "kind": pa.repeat(pa.scalar("vm"), count),
        "device": pa.repeat(pa.scalar(""), count),
        "name": pa.repeat(pa.scalar(f"vm-{number}"), count),
        "node": pa.repeat(pa.scalar(f"node-{number % 2}"), count),
        "nodes": pa.repeat(pa.scalar(1), count),
        "samples": pa.repeat(pa.scalar(360), count),
        "monitor_samples": pa.repeat(pa.scalar(360), count),
        "covered_seconds": pa.repeat(pa.scalar(float(HOUR)), count),
        "coverage": pa.repeat(pa.scalar(1.0), count),
        "monitor_covered_seconds": pa.repeat(pa.scalar(float(HOUR)), count),
        "monitor_coverage": pa.repeat(pa.scalar(1.0), count),
        "vm_cpu_seconds_total_increase": pa.array([hour.cpu_seconds for hour in hours]),
        "vm_cpu_seconds_total_rate": pa.array([hour.cpu_seconds / HOUR for hour in hours]),
        "vm_cpu_seconds_total_last": pa.array(totals),
        "vm_memory_rss_bytes_avg": pa.array([hour.resident_bytes for hour in hours]),
        "vm_memory_rss_bytes_min": pa.array([int(hour.resident_bytes * 0.9) for hour in hours]),
        "vm_memory_rss_bytes_max": pa.array([int(hour.resident_bytes * 1.1) for hour in hours]),
        "vm_vcpus_current_avg": pa.repeat(pa.scalar(2.0), count),
        "vm_memory_balloon_current_bytes_avg": pa.repeat(pa.scalar(2.0**32), count),
        **dict.fromkeys((f"vm_state_{word}_minutes" for word in STATES), pa.repeat(pa.scalar(0.0), count)),
        "vm_state_running_minutes": pa.repeat(pa.scalar(60.0), count),
        "vm_state_last": pa.repeat(pa.scalar(1), count),
        "vm_state_reason_last": pa.repeat(pa.scalar(1), count),
    }
    columns |= {
        f"{name.removesuffix('_avg')}_known_seconds": pa.repeat(pa.scalar(float(HOUR)), count)
        for name in list(columns)
        if name.endswith("_avg")
    }
    filled = [columns[field.name] if field.name in columns else pa.nulls(count, field.type) for field in HOURLY.schema]
    return pa.table(filled, schema=HOURLY.schema)


def write_years(path: Path, vms: dict[int, list[Hour]], *, hours_since: int = 0) -> Store:
    """Writes hours, and the days made of them, as the upkeep would have left them; the tables are there, raw samples are none.

    Hours from before ``hours_since`` (Unix seconds) are kept as days only.
    """
    store = Store(History(path=str(path)))
    store.make(SAMPLES)
    hourly, daily = Kept(store.make(HOURLY)), Kept(store.make(DAILY))
    rows = pa.concat_tables([hourly_rows(number, hours) for number, hours in vms.items()])
    recent = rows.filter(pc.greater_equal(rows.column("time"), pa.scalar(hours_since * 1_000_000, pa.int64()).cast(TIME)))
    for kept, table in ((hourly, recent), (daily, days_of("vm", rows))):
        days: list[date] = table.column("day").unique().to_pylist()
        added = []
        for day in days:
            of_day = table.filter(pc.equal(table.column("day"), pa.scalar(day)))
            ordered = of_day.sort_by([("uuid", "ascending"), ("time", "ascending")])
            added.append(kept.opened.write_file(day.isoformat(), [ordered], compact=True))
        kept.commit(added, [])
    return store
