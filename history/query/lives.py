"""When VMs lived in a month: from the first to the last that is known of them, reported in between or not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.query.sql import Query
from virtflow.history.storage.delta import Store
from virtflow.history.storage.errors import translated
from virtflow.history.storage.table_schemas import DAILY

_SEEN: Final = """
    SELECT uuid, min(first_time) AS begins, max(last_time) AS ends, coalesce(arg_max(covered_seconds / samples, time), 0) AS stands
    FROM {table} WHERE kind = 'vm' AND time >= make_timestamptz(?) AND time < make_timestamptz(?) GROUP BY uuid"""
_PLACES: Final = """
    SELECT uuid, node, sum(covered_seconds) / nullif(sum(sum(covered_seconds)) OVER (PARTITION BY uuid), 0) AS share
    FROM {table} WHERE kind = 'vm' AND time >= make_timestamptz(?) AND time < make_timestamptz(?) GROUP BY uuid, node"""

_LIVES: Final = """
    SELECT uuid, CASE WHEN uuid IN (SELECT uuid FROM earlier) THEN make_timestamptz($1) ELSE begins END AS begins,
        CASE WHEN uuid IN (SELECT uuid FROM later) THEN make_timestamptz($2)
            ELSE least(ends + to_microseconds(round(stands * 1e6)::BIGINT), make_timestamptz($2)) END AS ends
    FROM seen"""


def lives_in(store: Store, query: Query, table: str, month: tuple[int, int]) -> tuple[pa.Table, pa.Table]:
    """Each VM's life in a month (uuid, begins, ends), and its nodes with their shares of the time that is covered.

    Who was known before the month lives from its beginning on, and who was known after it until its end.
    """
    bounds = [edge * 1_000_000 for edge in month]
    seen = query.run(_SEEN.format(table=table), bounds)
    uuids = seen.column("uuid").combine_chunks()
    day = [datetime.fromtimestamp(edge, UTC).date() for edge in month]
    query.add("seen", seen)
    query.add("earlier", _known(store, uuids, pc.field("day") < day[0], day[0] - timedelta(days=1)))
    query.add("later", _known(store, uuids, pc.field("day") >= day[1], day[1]))
    return query.run(_LIVES, bounds), query.run(_PLACES.format(table=table), bounds)


def _known(store: Store, uuids: pa.Array, when: Any, likely: Any) -> pa.Table:  # noqa: ANN401, an Arrow expression and a day
    """Which of the VMs are known on days: most are on the ``likely`` one, the others are looked for in all."""
    if not store.exists(DAILY):
        return pa.table({"uuid": uuids.slice(0, 0)})
    with translated(str(store)):
        days = store.open(DAILY).dataset()
        of_vms = pc.field("kind") == "vm"
        near = days.to_table(columns=["uuid"], filter=of_vms & (pc.field("day") == likely)).column("uuid").combine_chunks()
        left = uuids.filter(pc.invert(pc.is_in(uuids, near)))
        far = days.to_table(columns=["uuid"], filter=of_vms & when & pc.field("uuid").isin(left)).column("uuid").combine_chunks()
    return pa.table({"uuid": pa.concat_arrays([near, far])})
