"""Monthly reports: who used what, and how full it is. From ``hourly``, or from ``daily`` where the month's hours are gone.

Whose a VM's hour is, is what the inventory said at the end of that hour: a bill of March uses March's owner. Peaks are those of the
group as a whole: the hour in which all its VMs together used most.
"""

from __future__ import annotations

import calendar
import time
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from virtflow.history.maintenance.kept import Tell
from virtflow.history.maintenance.rollup import DAY_SECONDS
from virtflow.history.query.range import AskedError
from virtflow.history.query.resolution import DAYS, HOURS
from virtflow.history.query.sql import Query
from virtflow.history.storage.delta import Store
from virtflow.runtime.settings import History

BY: Final = {"project": "project", "owner": "owner", "node": "node", "vm": "vm"}
KINDS: Final = ("usage", "capacity")
PORTION_SECONDS: Final = 4 * DAY_SECONDS

_OWNERS: Final = """
    owners AS (
        SELECT uuid, time, coalesce(project, project_id, namespace, '') AS project, coalesce("user", user_id, '') AS owner
        FROM inventory
    ),
    firsts AS (SELECT uuid, arg_min(project, time) AS project, arg_min(owner, time) AS owner FROM owners GROUP BY uuid)"""

_PERIODS: Final = """
    periods AS (
        SELECT uuid, time, time + INTERVAL ({seconds} - 1) SECOND AS until, max(name) AS name, max(node) FILTER (kind = 'vm') AS node,
            max(covered_seconds) AS covered,
            sum(vm_cpu_seconds_total_increase) AS cpu,
            sum(vm_vcpus_current_avg) AS vcpus,
            sum(vm_memory_balloon_current_bytes_avg) AS memory,
            sum(vm_memory_rss_bytes_avg) AS resident,
            sum(vm_block_read_bytes_total_increase) AS block_read,
            sum(vm_block_write_bytes_total_increase) AS block_written,
            sum(vm_network_receive_bytes_total_increase) AS received,
            sum(vm_network_transmit_bytes_total_increase) AS transmitted,
            sum(vm_block_capacity_bytes_max) AS disk,
            sum(vm_block_allocation_bytes_max) AS allocated
        FROM {table} WHERE time >= make_timestamptz(?) AND time < make_timestamptz(?)
        GROUP BY uuid, time
    ),
    owned AS (
        SELECT periods.*, coalesce(owners.project, firsts.project, '') AS project, coalesce(owners.owner, firsts.owner, '') AS owner
        FROM periods
        ASOF LEFT JOIN owners ON periods.uuid = owners.uuid AND periods.until >= owners.time
        LEFT JOIN firsts ON periods.uuid = firsts.uuid
    )"""

_USAGE_PERIODS: Final = """
        SELECT {key} AS {by}, {extra} time, count(*) AS vms, sum(covered) AS covered, sum(cpu) AS cpu, sum(memory * covered) AS memory,
            sum(cpu / {seconds}) AS cores, sum(block_read) AS block_read, sum(block_written) AS block_written,
            sum(received) AS received, sum(transmitted) AS transmitted
        FROM owned GROUP BY ALL"""

_USAGE: Final = """
    SELECT {by}, {names} max(vms) AS vms, sum(covered) / 3600 AS vm_hours, sum(cpu) / 3600 AS cpu_hours,
        sum(memory)::DOUBLE / 3600 / 1073741824 AS memory_gib_hours,
        sum(block_read)::BIGINT AS block_read_bytes, sum(block_written)::BIGINT AS block_write_bytes,
        sum(received)::BIGINT AS network_receive_bytes, sum(transmitted)::BIGINT AS network_transmit_bytes,
        max(cores) AS cpu_cores_peak, quantile_cont(cores, 0.95) AS cpu_cores_p95,
        sum(covered) / ({month} * max(vms)) AS coverage
    FROM together GROUP BY {by} ORDER BY cpu_hours DESC NULLS LAST, {by}"""

_CAPACITY_PERIODS: Final = """
        SELECT {key} AS {by}, {extra} time, count(*) AS vms, sum(vcpus) AS vcpus, sum(memory) AS memory, sum(resident) AS resident,
            sum(cpu / {seconds}) AS cores, sum(disk) AS disk, sum(allocated) AS allocated
        FROM owned GROUP BY ALL"""

_CAPACITY: Final = """
    SELECT {by}, {names} max(vms) AS vms, avg(vcpus) AS vcpus_avg, max(vcpus) AS vcpus_peak,
        avg(cores) AS cpu_cores_avg, max(cores) AS cpu_cores_peak, quantile_cont(cores, 0.95) AS cpu_cores_p95,
        avg(memory) / 1073741824 AS memory_gib_avg, max(memory) / 1073741824 AS memory_gib_peak,
        max(resident) / 1073741824 AS resident_gib_peak, quantile_cont(resident, 0.95) / 1073741824 AS resident_gib_p95,
        arg_max(disk, time)::DOUBLE / 1073741824 AS disk_gib_last, arg_max(allocated, time)::DOUBLE / 1073741824 AS allocated_gib_last,
        (arg_max(allocated, time) - arg_min(allocated, time))::DOUBLE / 1073741824 AS allocated_gib_growth
    FROM together GROUP BY {by} ORDER BY vcpus_avg DESC NULLS LAST, {by}"""


@dataclass(frozen=True, slots=True)
class Report:
    """What is asked: ``usage`` or ``capacity``, a month as ``2026-03`` (UTC), and by what."""

    kind: str
    month: str
    by: str


def report(store: Store, settings: History, asked: Report, tell: Tell = lambda *_: None) -> pa.Table:
    """The report's rows, largest first; ``tell`` is told of progress. Raises ``AskedError`` for a month that is none, ``QueryError`` beyond the limits."""
    start, end = month_bounds(asked.month)
    tier = HOURS if start >= time.time() - settings.hourly_days * DAY_SECONDS else DAYS
    by_vm = asked.by == "vm"
    words = {
        "by": "uuid" if by_vm else asked.by,
        "key": "uuid" if by_vm else asked.by,
        "extra": "max(name) AS name, max(project) AS project, max(node) AS node," if by_vm else "",
        "names": "arg_max(name, time) AS name, arg_max(project, time) AS project, arg_max(node, time) AS node," if by_vm else "",
        "seconds": tier.seconds,
        "table": tier.table.name,
        "month": end - start,
    }
    of_periods, of_all = (_USAGE_PERIODS, _USAGE) if asked.kind == "usage" else (_CAPACITY_PERIODS, _CAPACITY)
    sql = "WITH " + ",".join(part.format(**words) for part in (_OWNERS, _PERIODS)) + of_periods.format(**words)
    with Query(store, settings, [tier.table.name, "inventory"]) as query:
        # A few days at a time: what an hour needs is in that hour, and memory stays bounded however long the month.
        bounds = range(start, end, PORTION_SECONDS)
        parts = []
        for done, at in enumerate(bounds):
            tell("days", done * PORTION_SECONDS // DAY_SECONDS, (end - start) // DAY_SECONDS)
            parts.append(query.run(sql, [at * 1_000_000, min(at + PORTION_SECONDS, end) * 1_000_000]))
        query.add("together", pa.concat_tables(parts))
        return query.run(of_all.format(**words))


def month_bounds(month: str) -> tuple[int, int]:
    """The first second of a month and of the next one."""
    try:
        moment = time.strptime(month, "%Y-%m")
    except ValueError as error:
        raise AskedError(f"{month!r} is no month; write it as 2026-03") from error
    after = (moment.tm_year + moment.tm_mon // 12, moment.tm_mon % 12 + 1)
    return calendar.timegm(moment), calendar.timegm((*after, 1, 0, 0, 0))
