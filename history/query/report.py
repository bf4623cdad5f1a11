"""Monthly reports: who used what, and how full it is. From ``hourly``, or from ``daily`` where the month's hours are gone.

Whose a VM's hour is, is what the inventory said at that time: a bill of March uses March's owner. An hour in which the owner changes is
split by time, from its first to its last sample: of what was before the VM began or after it ended nobody pays a part. Owners are told
apart by their ids, and shown by their names. Peaks are those of the group as a whole: the hour in which all its VMs together used most.
What each column means is on the page docs/history.md.
"""

from __future__ import annotations

import calendar
import time
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from virtflow.history.maintenance.kept import Tell
from virtflow.history.maintenance.rollup import DAY_SECONDS
from virtflow.history.maintenance.rows import JITTER
from virtflow.history.query.filesystems import Filling, filesystems, filling
from virtflow.history.query.lives import lives_in
from virtflow.history.query.range import AskedError
from virtflow.history.query.resolution import DAYS, HOURS, Tier
from virtflow.history.query.sql import Query
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import INVENTORY_ROWS
from virtflow.runtime.settings import History
from virtflow.schemas.projects import PROJECT_IDS, PROJECT_NAMES

BY: Final = {"project": "project_id", "owner": "owner_id", "node": "node", "vm": "uuid"}
"""What a row of a report is, and the column that tells one from another."""
FILESYSTEM: Final = "filesystem"
"""What else a row of a capacity report may be."""
KINDS: Final = ("usage", "capacity")
PORTION_SECONDS: Final = 4 * DAY_SECONDS
_NAMES: Final[dict[str, tuple[str, ...]]] = {"project": ("project",), "owner": ("owner",), "node": (), "vm": ("name", "project", "node")}
_MOST: Final = 2**63 - 1024
"""The largest double that is a whole number of 64 bits."""

_OWNERS: Final = """
    told AS (
        SELECT uuid, time, sequence, coalesce({project_ids}, '') AS project_id,
            coalesce({project_names}, '') AS project, coalesce(user_id, "user", '') AS owner_id,
            coalesce("user", user_id, '') AS owner
        FROM inventory
    ),
    changes AS (
        SELECT * FROM told
        QUALIFY (project_id, project, owner_id, owner)
            IS DISTINCT FROM lag((project_id, project, owner_id, owner)) OVER (PARTITION BY uuid ORDER BY time, sequence)
    ),
    spans AS (
        SELECT uuid, project_id, project, owner_id, owner, sequence,
            CASE WHEN row_number() OVER all_spans = 1 THEN '-infinity'::TIMESTAMPTZ ELSE time END AS since,
            coalesce(lead(time) OVER all_spans, 'infinity'::TIMESTAMPTZ) AS until
        FROM changes WINDOW all_spans AS (PARTITION BY uuid ORDER BY time, sequence)
    ),
    owners AS (
        SELECT *, lag(until) OVER (PARTITION BY {span_of} ORDER BY since, sequence) AS before_until FROM spans
    )"""

_PERIODS: Final = """
    periods AS (
        SELECT uuid, time, time + INTERVAL {seconds} SECOND AS over, max(name) AS name, max(node) FILTER (kind = 'vm') AS node,
            max(covered_seconds) FILTER (kind = 'vm') AS covered,
            coalesce(min(first_time) FILTER (kind = 'vm'), time) AS first, coalesce(max(last_time) FILTER (kind = 'vm'), over) AS last,
            coalesce(max(covered_seconds / samples) FILTER (kind = 'vm'), 0) AS stands,
            sum(vm_state_running_minutes + vm_state_blocked_minutes + vm_state_shutting_down_minutes) * 60 AS running,
            sum(vm_state_paused_minutes + vm_state_suspended_minutes) * 60 AS paused,
            sum(vm_state_shut_off_minutes + vm_state_crashed_minutes + vm_state_no_state_minutes) * 60 AS shut_off,
            sum(vm_cpu_seconds_total_increase) AS cpu,
            sum(vm_cpu_seconds_total_rate) AS cores,
            sum(vm_vcpus_current_avg) AS vcpus,
            sum(vm_memory_balloon_current_bytes_avg) AS memory,
            sum(vm_memory_balloon_current_bytes_known_seconds) AS memory_known,
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
    bounded AS (
        SELECT *, CASE WHEN first <= time + to_microseconds(round(stands * {jitter} * 1e6)::BIGINT) THEN time ELSE first END AS begins,
            CASE WHEN last + to_microseconds(round(stands * {jitter} * 1e6)::BIGINT) >= over THEN over
                ELSE last + to_microseconds(greatest(round(stands * 1e6)::BIGINT, 1)) END AS ends
        FROM periods
    ),
    owned AS (
        SELECT bounded.*, coalesce(project_id, '') AS project_id, coalesce(project, '') AS project, coalesce(owner_id, '') AS owner_id,
            coalesce(owner, '') AS owner, coalesce(shut_off / nullif(covered, 0), 0) AS off,
            before_until IS NULL OR before_until <= begins AS counts,
            coalesce(epoch(least(until, ends) - greatest(since, begins)) / epoch(ends - begins), 1) AS share
        FROM bounded LEFT JOIN owners ON bounded.uuid = owners.uuid AND since < ends AND until > begins
    )"""

_USAGE_PERIODS: Final = """
        SELECT {key}, {names_of_period} time, {vms} AS vms, sum(covered * share) AS covered, sum(running * share) AS running,
            sum(paused * share) AS paused, sum(shut_off * share) AS shut_off, sum(cpu * share) AS cpu, sum(cores * share) AS cores,
            sum(memory * memory_known * (1 - off) * share) AS memory, sum(memory * memory_known * off * share) AS memory_off,
            sum(memory_known * share) AS memory_known, sum(block_read * share) AS block_read, sum(block_written * share) AS block_written,
            sum(received * share) AS received, sum(transmitted * share) AS transmitted
        FROM owned GROUP BY {key}, time"""

_LIVED: Final = {
    "project_id": "SELECT coalesce(project_id, '') AS project_id, {overlap} FROM lives LEFT JOIN owners USING (uuid) GROUP BY 1",
    "owner_id": "SELECT coalesce(owner_id, '') AS owner_id, {overlap} FROM lives LEFT JOIN owners USING (uuid) GROUP BY 1",
    "uuid": "SELECT uuid, epoch(ends - begins) AS lived FROM lives",
    "node": "SELECT node, sum(epoch(ends - begins) * share) AS lived FROM lives JOIN places USING (uuid) GROUP BY node",
}
_OVERLAP: Final = "sum(greatest(epoch(least(coalesce(until, ends), ends) - greatest(coalesce(since, begins), begins)), 0)) AS lived"

_USAGE: Final = """
    SELECT {key}, {names} max(vms) AS vms, any_value(lived) / 3600 AS lived_hours, sum(covered) / 3600 AS covered_hours,
        least(sum(covered) / any_value(lived), 1) AS coverage,
        sum(running) / 3600 AS running_hours, sum(paused) / 3600 AS paused_hours, sum(shut_off) / 3600 AS shut_off_hours,
        sum(cpu) / 3600 AS cpu_hours, sum(memory) / 3600 / 1073741824 AS memory_gib_hours,
        sum(memory_off) / 3600 / 1073741824 AS shut_off_memory_gib_hours, least(coalesce(sum(memory_known), 0) / sum(covered), 1) AS memory_coverage,
        {bytes},
        max(cores) AS cpu_cores_peak, quantile_cont(cores, 0.95) AS cpu_cores_p95
    FROM together LEFT JOIN lived USING ({key}) GROUP BY {key} ORDER BY cpu_hours DESC NULLS LAST, {key}"""
_BYTES: Final = {
    "block_read": "block_read_bytes",
    "block_written": "block_write_bytes",
    "received": "network_receive_bytes",
    "transmitted": "network_transmit_bytes",
}

_CAPACITY_PERIODS: Final = """
        SELECT {key}, {names_of_period} time, {vms} AS vms, sum(vcpus * share) AS vcpus, sum(memory * share) AS memory,
            sum(resident * share) AS resident, sum(cores * share) AS cores, sum(disk * share) AS disk, sum(allocated * share) AS allocated
        FROM owned GROUP BY {key}, time"""

_CAPACITY: Final = """
    SELECT {key}, {names} max(vms) AS vms, avg(vcpus) AS vcpus_avg, max(vcpus) AS vcpus_peak,
        avg(cores) AS cpu_cores_avg, max(cores) AS cpu_cores_peak, quantile_cont(cores, 0.95) AS cpu_cores_p95,
        avg(memory) / 1073741824 AS memory_gib_avg, max(memory) / 1073741824 AS memory_gib_peak,
        max(resident) / 1073741824 AS resident_gib_peak, quantile_cont(resident, 0.95) / 1073741824 AS resident_gib_p95,
        arg_max(disk, time)::DOUBLE / 1073741824 AS disk_gib_last, arg_max(allocated, time)::DOUBLE / 1073741824 AS allocated_gib_last,
        (arg_max(allocated, time) - arg_min(allocated, time))::DOUBLE / 1073741824 AS allocated_gib_growth
    FROM together GROUP BY {key} ORDER BY vcpus_avg DESC NULLS LAST, {key}"""


@dataclass(frozen=True, slots=True)
class Report:
    """What is asked: ``usage`` or ``capacity``, a month as ``2026-03`` (UTC), and by what: one of ``BY``, of capacity also ``FILESYSTEM``."""

    kind: str
    month: str
    by: str


def report(store: Store, settings: History, asked: Report, tell: Tell = lambda *_: None) -> pa.Table:
    """The report's rows, largest first; ``tell`` is told of progress. Raises ``AskedError`` for a month that is none, ``QueryError`` beyond the limits."""
    tier = _tier(settings, asked)
    with _asking(store, settings, tier.table.name) as query:
        return _rows(query, store, tier, asked, tell)


def capacity(store: Store, settings: History, asked: Report, tell: Tell = lambda *_: None) -> tuple[pa.Table, list[Filling]]:
    """A capacity report's rows as of ``report``, and the filesystems to warn of: of one state of the tables, which are opened once."""
    tier = _tier(settings, asked)
    with _asking(store, settings, tier.table.name) as query:
        rows = _rows(query, store, tier, asked, tell)
        of_filesystems = rows if asked.by == FILESYSTEM else filesystems(query, tier, month_bounds(asked.month))
    return rows, filling(of_filesystems)


def _tier(settings: History, asked: Report) -> Tier:
    """The finest roll-up that still has the whole month."""
    return HOURS if month_bounds(asked.month)[0] >= time.time() - settings.hourly_days * DAY_SECONDS else DAYS


def _rows(query: Query, store: Store, tier: Tier, asked: Report, tell: Tell) -> pa.Table:
    start, end = month_bounds(asked.month)
    if asked.by == FILESYSTEM:
        return filesystems(query, tier, (start, end))
    words = _words(asked.by) | {"seconds": str(tier.seconds), "table": tier.table.name, "jitter": str(JITTER)}
    owners = "WITH " + _OWNERS.format(**words)
    of_periods, of_all = (_USAGE_PERIODS, _USAGE) if asked.kind == "usage" else (_CAPACITY_PERIODS, _CAPACITY)
    sql = f"{owners}, {_PERIODS.format(**words)} {of_periods.format(**words)}"
    # A few days at a time: what an hour needs is in that hour, and memory stays bounded however long the month.
    parts = []
    for done, at in enumerate(range(start, end, PORTION_SECONDS)):
        tell("days", done * PORTION_SECONDS // DAY_SECONDS, (end - start) // DAY_SECONDS)
        parts.append(query.run(sql, [at * 1_000_000, min(at + PORTION_SECONDS, end) * 1_000_000]))
    query.add("together", pa.concat_tables(parts))
    if asked.kind == "usage":
        lives, places = lives_in(store, query, tier.table.name, (start, end))
        query.add("lives", lives)
        query.add("places", places)
        query.add("lived", query.run(f"{owners} {_LIVED[words['key']].format(overlap=_OVERLAP)}"))
    return query.run(of_all.format(**words))


def _words(by: str) -> dict[str, str]:
    """The words of the queries that depend on what a row is."""
    # Not least(), which gives the limit where the sum is not known.
    whole = (f"CASE WHEN sum({name}) > {_MOST} THEN {_MOST} ELSE sum({name}) END::BIGINT AS {column}" for name, column in _BYTES.items())
    return {
        "key": BY[by],
        "project_ids": ", ".join(PROJECT_IDS),
        "project_names": ", ".join(PROJECT_NAMES),
        # Around a change of its owner a VM has several rows of one period: that of the first span in it counts the VM.
        "vms": "1" if by == "vm" else "count_if(counts)",
        "span_of": f"uuid, {BY[by]}" if by in {"project", "owner"} else "uuid",
        "names_of_period": "".join(f"arg_max({name}, share) AS {name}, " for name in _NAMES[by]),
        "names": "".join(f"arg_max({name}, time) AS {name}, " for name in _NAMES[by]),
        "bytes": ", ".join(whole),
    }


def _asking(store: Store, settings: History, table: str) -> Query:
    """A connection to a roll-up and to the inventory, empty where there is none."""
    told = store.exists(INVENTORY_ROWS)
    query = Query(store, settings, [table, INVENTORY_ROWS.name] if told else [table])
    if not told:
        query.add(INVENTORY_ROWS.name, INVENTORY_ROWS.schema.empty_table())
    return query


def month_bounds(month: str) -> tuple[int, int]:
    """The first second of a month and of the next one."""
    try:
        moment = time.strptime(month, "%Y-%m")
    except ValueError as error:
        raise AskedError(f"{month!r} is no month; write it as 2026-03") from error
    after = (moment.tm_year + moment.tm_mon // 12, moment.tm_mon % 12 + 1)
    return calendar.timegm(moment), calendar.timegm((*after, 1, 0, 0, 0))
