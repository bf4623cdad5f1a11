"""`virtflow history range`: one metric of some VMs over time, from the tier that fits."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.maintenance.authority import OWNERSHIP, judge, without
from virtflow.history.maintenance.kept import between
from virtflow.history.maintenance.rollup import HOUR_SECONDS, periods_of
from virtflow.history.query.resolution import RAW, Tier, step_for, tier_for
from virtflow.history.query.sql import Query
from virtflow.history.storage.delta import Store
from virtflow.history.storage.errors import translated
from virtflow.history.storage.table_schemas import COLUMN_OF, SAMPLES, TIME, Column, values_of_device
from virtflow.runtime.settings import History
from virtflow.schemas.catalogue.types import Rollup
from virtflow.schemas.errors import InputError

KEY: Final = ("time", "uuid", "name", "device")
RUN: Final = ("boot_id", "sequence")
"""What tells a node's samples apart."""


class AskedError(InputError):
    """Something that was asked for is not there: a metric, a VM, a range; the text names it."""


@dataclass(frozen=True, slots=True)
class Range:
    """What is asked: a metric, VMs by uuid or name, from and to in Unix seconds, and the step (None: a fitting one; 0: every sample)."""

    metric: str
    vms: tuple[str, ...]
    start: float
    end: float
    step_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The points, with the columns time, uuid, name, device (of filesystems mountpoint, fstype and device) and the values; and what they are of."""

    points: pa.Table
    tier: Tier
    step_seconds: float


def column_of(metric: str) -> Column:
    """The column of a metric; raises ``AskedError`` where the history has none."""
    if metric not in COLUMN_OF:
        near = [name for name in COLUMN_OF if metric.removesuffix("_total") in name][:3]
        raise AskedError(
            f"{metric} is no metric of the history; {'did you mean ' + ', '.join(near) if near else 'see `virtflow metrics list`'}"
        )
    return COLUMN_OF[metric]


def series(store: Store, settings: History, asked: Range) -> Answer:
    """The points of a range; a step without a sample has none."""
    column = column_of(asked.metric)
    if asked.end <= asked.start:
        raise AskedError("the range ends before it begins: --from must be before --to")
    step = asked.step_seconds if asked.step_seconds is not None else step_for(asked.end - asked.start)
    tier = tier_for(step, asked.start, time.time(), settings)
    uuids = uuids_of(store, settings, asked.vms)
    if tier is RAW:
        return Answer(_labelled(_raw(store, column, uuids, asked, step), column), tier, step)
    step = max(step, tier.seconds)
    return Answer(_labelled(_rolled(store, column, tier, (uuids, asked, step)), column), tier, step)


def _labelled(points: pa.Table, column: Column) -> pa.Table:
    """The points with a column for each label of devices that have several."""
    labels = column.metric.labels
    if column.kind == "vm" or len(labels) == 1:
        return points
    place = points.schema.get_field_index("device")
    values = [values_of_device(labels, device) for device in points.column(place).to_pylist()]
    points = points.remove_column(place)
    for number, label in enumerate(labels):
        points = points.add_column(place + number, label, pa.array([each[label] for each in values], pa.string()))
    return points


def uuids_of(store: Store, settings: History, vms: Sequence[str]) -> list[str]:
    """The UUIDs of VMs that were named by UUID or by a name that they have had at any time; raises ``AskedError`` where there is no VM of a name."""
    found = [vm for vm in vms if _is_uuid(vm)]
    for vm in vms:
        if _is_uuid(vm):
            continue
        matching = _of_name(store, settings, vm)
        if not matching:
            raise AskedError(f"the history knows no VM named {vm!r}; name it as it was, or by its UUID")
        found += matching
    return found


def _of_name(store: Store, settings: History, name: str) -> list[str]:
    """Every VM that has had the name: each table may know of others. Samples, which are many, are asked where nobody else knows one."""
    with Query(store, settings) as query:
        for tables in (("inventory", "hourly", "daily"), ("samples",)):
            parts = [f"SELECT uuid FROM {table} WHERE name = $1" for table in tables if table in query.names]  # noqa: S608, our own tables
            found: list[str] = query.run(f"{' UNION '.join(parts)} ORDER BY uuid", [name]).column(0).to_pylist() if parts else []
            if found:
                return found
    return []


def _raw(store: Store, column: Column, uuids: list[str], asked: Range, step: float) -> pa.Table:
    """Every sample of a node where the VM speaks, or what each step makes of them."""
    start = asked.start - (HOUR_SECONDS if step else 0)
    wanted = between("time", start, asked.end) & pc.field("uuid").isin(uuids)
    columns = dict.fromkeys([*KEY, "node", column.name, *([*RUN, "interval_seconds"] if step else ())])
    with translated(str(store)):
        opened = store.open(SAMPLES)
        of_kind = opened.within(start, asked.end, column.kind)
        condition = wanted & (pc.field("kind") == column.kind)
        samples = of_kind.to_table(columns=list(columns), filter=condition)
        starts = None
        if len(samples.column("node").unique()) > 1:
            if not step:  # which samples count is asked where several nodes have some, so rarely that to read again costs less
                samples = of_kind.to_table(columns=list(dict.fromkeys([*columns, *RUN])), filter=condition)
            vms = opened.within(start, asked.end, "vm").to_table(columns=list(OWNERSHIP), filter=wanted & (pc.field("kind") == "vm"))
            judged = judge(vms)
            samples, starts = without(samples, vms.take(pa.array(judged.muted))), judged.starts
    order = [(name, "ascending") for name in ("uuid", "device", "time")]
    if not step:
        points = samples.filter(samples.column(column.name).is_valid()).select([*KEY, column.name])
        points = points.set_column(len(KEY), column.name, points.column(column.name).cast(column.number))
        return points.rename_columns([*KEY, "value"]).sort_by(order)
    points = periods_of(column, samples, step, starts)
    return points.filter(pc.greater_equal(points.column("time"), between_start(asked.start, step))).sort_by(order)


def between_start(start: float, step: float) -> Any:  # noqa: ANN401, an Arrow scalar
    """The beginning of the step that ``start`` lies in."""
    return pa.scalar(int(start // step * step * 1_000_000)).cast(pa.timestamp("us", tz="UTC"))


def _rolled(store: Store, column: Column, tier: Tier, asked_for: tuple[list[str], Range, float]) -> pa.Table:
    """Rows of a roll-up, several of them as one where the step is longer."""
    uuids, asked, step = asked_for
    start = asked.start // tier.seconds * tier.seconds
    wanted = (pc.field("kind") == column.kind) & pc.field("uuid").isin(uuids) & between("time", start, asked.end)
    sources = [name for name, _ in column.rolled() if column.rollup is Rollup.LAST or not name.endswith("_last")]
    with translated(str(store)):
        of_kind = store.open(tier.table).within(start, asked.end, column.kind)
        rows = of_kind.to_table(columns=[*KEY, "samples", "covered_seconds", *sources], filter=wanted)
    rows = rows.sort_by([(name, "ascending") for name in ("uuid", "device", "time")])
    names = [name.removeprefix(f"{column.name}_") for name in sources]
    rows = rows.rename_columns([*KEY, "samples", "coverage", *names])
    rows = rows.set_column(5, "coverage", pc.divide(rows.column("coverage"), float(step)))
    if "rate" in names:
        rates = pc.multiply(rows.column("rate"), tier.seconds / step)
        rows = rows.set_column(rows.schema.get_field_index("rate"), "rate", rates)
    return rows if step == tier.seconds else _together(rows, step, names)


def _together(rows: pa.Table, step: float, names: list[str]) -> pa.Table:
    """Rows by longer steps: averages weigh by the time they are known for, increases and minutes add up."""
    span = int(step * 1_000_000)
    micros = rows.column("time").cast(pa.int64())
    rows = rows.set_column(0, "time", pc.multiply(pc.divide(micros, span), span).cast(TIME))
    how = {"avg": "sum", "min": "min", "max": "max", "last": "last"}
    if "avg" in names:
        weighed = pc.multiply(rows.column("avg"), rows.column("known_seconds"))
        rows = rows.set_column(rows.schema.get_field_index("avg"), "avg", weighed)
    chosen = [("name", "last"), ("samples", "sum"), ("coverage", "sum"), *((name, how.get(name, "sum")) for name in names)]
    joined = rows.group_by(["uuid", "device", "time"], use_threads=False).aggregate(chosen)
    joined = joined.rename_columns([name.removesuffix(f"_{dict(chosen).get(name.rpartition('_')[0], '')}") for name in joined.schema.names])
    if "avg" in names:
        average = pc.divide(joined.column("avg"), joined.column("known_seconds"))
        joined = joined.set_column(joined.schema.get_field_index("avg"), "avg", average)
    return joined.select([*KEY, "samples", "coverage", *names])


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
