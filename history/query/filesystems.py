"""The guests' filesystems in a month: how full each was at its end, how that grew, and when it will be full if it goes on like this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.maintenance.rollup import DAY_SECONDS
from virtflow.history.query.resolution import Tier
from virtflow.history.query.sql import FILESYSTEM_VIEWS, Query
from virtflow.schemas.projects import PROJECT_NAMES
from virtflow.schemas.text import printable

FULL_SHARE: Final = 0.9
"""A filesystem that is fuller is warned of."""
FULL_DAYS: Final = 30
"""One that is full in less is warned of."""

_REPORT: Final = """
    WITH named AS (
        SELECT uuid, arg_max(coalesce({project_names}, ''), time) AS project FROM inventory GROUP BY uuid
    ),
    told AS (
        SELECT uuid, name, node, mountpoint, fstype, device, time, vm_guest_filesystem_size_bytes_avg AS size,
            vm_guest_filesystem_free_bytes_avg AS free
        FROM {view} WHERE time >= make_timestamptz($1) AND time < make_timestamptz($2)
            AND vm_guest_filesystem_size_bytes_avg > 0 AND vm_guest_filesystem_free_bytes_avg IS NOT NULL
    ),
    together AS (
        SELECT uuid, mountpoint, fstype, device, arg_max(name, time) AS name, arg_max(node, time) AS node, max(time) AS last,
            arg_max(size, time) AS size, arg_max(free, time) AS free, arg_max(1 - free / size, time) AS used,
            arg_max(1 - free / size, time) - arg_min(1 - free / size, time) AS growth,
            CASE WHEN max(time) > min(time) THEN regr_slope(size - free, (epoch(time) * 1e6 - $1) / {day} / 1e6) END AS daily
        FROM told GROUP BY uuid, mountpoint, fstype, device
    )
    SELECT uuid, name, coalesce(project, '') AS project, node, mountpoint, fstype, device, size / 1073741824 AS size_gib,
        used AS used_share, growth AS used_share_growth, CASE WHEN daily > 0 THEN free / daily END AS days_until_full,
        last + INTERVAL {seconds} SECOND AS reported_until
    FROM together LEFT JOIN named USING (uuid)
    ORDER BY days_until_full NULLS LAST, used_share DESC, uuid, mountpoint, fstype, device"""


@dataclass(frozen=True, slots=True)
class Filling:
    """A filesystem that is nearly full or will be: whose it is, and its row of the report."""

    row: dict[str, Any]

    def __str__(self) -> str:
        """For people."""
        row, days = self.row, self.row["days_until_full"]
        whose = ", ".join(printable(word) for word in (row["fstype"], row["device"]) if word)
        when = "no growth" if days is None else f"full in {days:.1f} days"
        return (
            f"{printable(row['name'] or row['uuid'])} {printable(row['mountpoint'])} ({whose}): {row['used_share']:.1%} of {row['size_gib']:,.1f} GiB used, "
            f"{row['used_share_growth']:+.1%} in the month, {when}"
        )


def filesystems(query: Query, tier: Tier, month: tuple[int, int]) -> pa.Table:
    """A row for each filesystem that was reported in a month (first second of it and of the next), the most urgent first.

    Sizes are those of the last hour or day in which it was reported; days until full follow from the line of least squares through what was
    used, null where that does not rise.
    """
    words = {
        "view": FILESYSTEM_VIEWS[tier.table.name],
        "seconds": tier.seconds,
        "day": DAY_SECONDS,
        "project_names": ", ".join(PROJECT_NAMES),
    }
    return query.run(_REPORT.format(**words), [edge * 1_000_000 for edge in month])


def filling(rows: pa.Table) -> list[Filling]:
    """Those of the report's filesystems to warn of: nearly full, or full soon, and still reported in the last day of what is known."""
    if not rows.num_rows:
        return []
    newest = pc.max(rows.column("reported_until")).as_py().timestamp()
    return [
        Filling(row)
        for row in rows.to_pylist()
        if row["reported_until"].timestamp() > newest - DAY_SECONDS
        and (row["used_share"] > FULL_SHARE or (row["days_until_full"] is not None and row["days_until_full"] < FULL_DAYS))
    ]
