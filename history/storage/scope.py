"""What one tenant may see: a condition on each table's rows, put on every read below everything that asks.

A tenant is a project: its platform's id, else KubeVirt's namespace, else the project's name. A VM is its owner's from the inventory's word
on, the first word also before it. A row of a roll-up is its owner's where its whole period is. A VM that the inventory does not know is
nobody's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.storage.table_schemas import COUNTERS, DAILY, HOURLY, Table
from virtflow.schemas.projects import PROJECT_IDS

PERIOD_SECONDS: Final = {HOURLY.name: 3_600, DAILY.name: 86_400}
MOMENTS: Final = {COUNTERS.name: ("last_time", "claim_time", "time")}
"""The columns that say of when a row is, the first that is there, where that is not ``time`` alone: counters go on from hour to hour."""
COLUMNS: Final = ("uuid", "time", *PROJECT_IDS)
_MICROSECONDS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Owned:
    """A VM in a time: from (None: always) and up to (None: still), in microseconds since 1970."""

    uuid: str
    start: int | None
    end: int | None


def owned_by(tenant: str, inventory: pa.Table) -> list[Owned]:
    """What is a tenant's, from the inventory's rows with ``COLUMNS``."""
    found: list[Owned] = []
    rows = inventory.sort_by([("uuid", "ascending"), ("time", "ascending")])
    uuids = rows.column("uuid").to_pylist()
    owners = zip(*(rows.column(name).to_pylist() for name in PROJECT_IDS), strict=True)
    times = rows.column("time").cast(pa.int64()).to_pylist()
    for at, (uuid, words) in enumerate(zip(uuids, owners, strict=True)):
        if next(filter(None, words), "") != tenant:
            continue
        first = at == 0 or uuids[at - 1] != uuid
        last = at + 1 == len(uuids) or uuids[at + 1] != uuid
        start, end = None if first else times[at], None if last else times[at + 1]
        if found and found[-1].uuid == uuid and found[-1].end == start:
            start, _ = found.pop().start, None
        found.append(Owned(uuid, start, end))
    return found


def columns_of(table: Table) -> list[str]:
    """The columns that ``touched`` looks at."""
    return ["uuid", *MOMENTS.get(table.name, ("time",))]


def touched(table: Table, owned: Sequence[Owned]) -> Any:  # noqa: ANN401, an Arrow expression
    """The rows of a table that tell anything of what is owned, those of a roll-up's period that it shares included.

    A row of ``counters`` is of the time of its last sample, whichever later hour it stands for.
    """
    _, *moments = columns_of(table)
    moment = pc.coalesce(*(pc.field(name) for name in moments)) if len(moments) > 1 else pc.field(moments[0])
    always = [each.uuid for each in owned if each.start is None and each.end is None]
    wanted = pc.field("uuid").isin(pa.array(always, pa.string()))
    period = PERIOD_SECONDS.get(table.name, 0) * _MICROSECONDS
    for each in owned:
        if each.start is None and each.end is None:
            continue
        part = pc.field("uuid") == each.uuid
        if each.start is not None:
            part &= moment > _moment(each.start - max(period, 1))
        if each.end is not None:
            part &= moment < _moment(each.end)
        wanted |= part
    return wanted


def condition(table: Table, owned: Sequence[Owned]) -> Any:  # noqa: ANN401, an Arrow expression
    """The rows of a table that are the tenant's."""
    if "uuid" not in table.schema.names:
        return pc.scalar(value=False)
    always = [each.uuid for each in owned if each.start is None and each.end is None]
    wanted = pc.field("uuid").isin(pa.array(always, pa.string()))
    period = PERIOD_SECONDS.get(table.name, 0) * _MICROSECONDS
    for each in owned:
        if each.start is None and each.end is None:
            continue
        part = pc.field("uuid") == each.uuid
        if each.start is not None:
            part &= pc.field("time") >= _moment(each.start)
        if each.end is not None:
            part &= pc.field("time") < _moment(each.end - max(period, 1) + 1)
        wanted |= part
    return wanted


def _moment(microseconds: int) -> pa.Scalar:
    return pa.scalar(microseconds).cast(pa.timestamp("us", tz="UTC"))
