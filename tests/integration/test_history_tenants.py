"""Tenants: every read, label and SQL view has the rows of one project and no others, whatever is asked."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.history_tenants import ROUNDS, events_of, migrations_of, owner_of, project_of, tenants_of, write_happened, write_tenants
from tests.support.long import length
from virtflow.history.query.limits import QueryError
from virtflow.history.query.sql import Query
from virtflow.history.remote_read.protocol.counted import ProtocolError
from virtflow.history.remote_read.protocol.wire import Asked, Hints, Match, Matcher
from virtflow.history.remote_read.reading.allowance import LimitError
from virtflow.history.remote_read.reading.labels import NAMES
from virtflow.history.remote_read.reading.reader import Reader, UnknownLabelError
from virtflow.history.storage.delta import Store
from virtflow.runtime.settings import Exporter, History, Settings
from virtflow.schemas.records import VmMetrics

START = float(int(time.time()) // 3_600 * 3_600 - 3 * 3_600)
END = START + ROUNDS * 60
TABLES = ("samples", "hourly", "daily", "inventory", "events", "migrations")
VIEWS = ("vms", "vcpus", "networks", "blocks", "filesystems", "filesystems_hourly", "filesystems_daily")
KNOWN = (*TABLES, *VIEWS)
PERIODS = {"hourly": 3_600, "filesystems_hourly": 3_600, "daily": 86_400, "filesystems_daily": 86_400}
"""Seconds of a row; those of other tables are of a moment."""
READS = length(800, 8_000)
SELECTS = length(200, 2_000)


class Written:
    def __init__(self, path: Path) -> None:
        """Writes everything."""
        self.path = path
        self.samples, self.inventories = write_tenants(path, START)
        write_happened(path, self.samples)
        self.tenants = tenants_of(self.inventories)

    def reader(self, tenant: str) -> Reader:
        settings = Settings(history=History(path=str(self.path)), exporter=Exporter(vm_labels=["name", "project", "project_id"]))
        return Reader(Store(settings.history, tenant), settings)

    def visible(self, tenant: str) -> set[str]:
        """UUIDs that the tenant has had at any time, by the records alone."""
        return {s.uuid for s in self.samples if owner_of(self.inventories, s.uuid, s.collected) == tenant}

    def is_of(self, tenant: str, uuid: str, at: float, seconds: float = 0.0) -> bool:
        """Whether a VM was the tenant's at a time, and for so long, by the records alone."""
        within = [each for each in self.inventories if each.uuid == uuid and at < each.collected < at + seconds]
        return owner_of(self.inventories, uuid, at) == tenant and all(project_of(each) == tenant for each in within)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("tenants") / "history")


def everything(reader: Reader, name: str = "vm_state") -> dict[str, list[int]]:
    asked = Asked(int(START * 1000), int(END * 1000), (Matcher(Match.EQUAL, "__name__", name),))
    found: dict[str, list[int]] = {}
    for series in reader.read(asked):
        labels = dict(series.labels)
        found.setdefault(labels["uuid"], []).extend(
            int(at)
            for at, value in zip(series.times, series.values, strict=True)
            if value == value  # noqa: PLR0124, no marks
        )
    return {uuid: sorted(times) for uuid, times in found.items()}


def test_each_sees_its_samples_and_all_of_them(written: Written) -> None:
    """A VM that changed hands is seen by each of its owners in their own time; one without inventory by nobody."""
    seen_in_all = 0
    for tenant in written.tenants:
        truth: dict[str, list[int]] = {}
        for sample in written.samples:
            if owner_of(written.inventories, sample.uuid, sample.collected) == tenant:
                truth.setdefault(sample.uuid, []).append(int(sample.collected * 1000))
        assert everything(written.reader(tenant)) == {uuid: sorted(times) for uuid, times in truth.items()}
        seen_in_all += sum(len(times) for times in truth.values())
    nobodys = {s.uuid for s in written.samples} - {i.uuid for i in written.inventories}
    assert nobodys
    assert seen_in_all == sum(s.uuid not in nobodys for s in written.samples)
    assert not everything(written.reader("nosuch"))


@pytest.mark.parametrize(("table", "records"), [("events", events_of), ("migrations", migrations_of)])
def test_each_sees_what_happened_to_its_vms(written: Written, table: str, records: Callable[[list[VmMetrics]], list[Any]]) -> None:
    """In the time in which they were its own."""
    told = [(record.uuid, record.time if table == "events" else record.updated_timestamp_seconds) for record in records(written.samples)]
    for tenant in written.tenants:
        with Query(Store(History(path=str(written.path)), tenant), History()) as query:
            rows = query.run(f"SELECT uuid, epoch_us(time) AS at FROM {table}").to_pylist()  # noqa: S608, the test's own
        truth = [(uuid, round(at * 1e6)) for uuid, at in told if written.is_of(tenant, uuid, at)]
        assert sorted((row["uuid"], row["at"]) for row in rows) == sorted(truth) != []


def test_an_hour_in_which_the_owner_changed_is_nobodys(written: Written) -> None:
    """A roll-up's row can't be divided: neither owner learns of the other's use."""
    moved = written.inventories[-1]
    rows = {}
    for tenant in written.tenants:
        with Query(Store(History(path=str(written.path)), tenant), History()) as query:
            sql = "SELECT epoch(time) AS t FROM hourly WHERE kind = 'vm' AND uuid = ?"
            rows[tenant] = {int(t) for t in query.run(sql, [moved.uuid]).column("t").to_pylist()}
    assert int(moved.collected // 3_600 * 3_600) not in set().union(*rows.values())
    assert int(START) in rows[owner_of(written.inventories, moved.uuid, START)]


def random_read(rng: random.Random, written: Written) -> Asked:
    uuids = sorted({sample.uuid for sample in written.samples})
    values = [*uuids, *(s.name for s in written.samples[:8]), *written.tenants, ".*", ".+", "", "(", "[0-9a-f-]+", "vda", "running", "x|.*"]
    labels = ["uuid", "name", "project", "project_id", "device", "state", "node", "__name__", "vcpu", "job"]
    matchers = [Matcher(rng.choice(list(Match)), rng.choice(labels), rng.choice(values)) for _ in range(rng.randrange(4))]
    matchers.append(Matcher(Match.EQUAL, "__name__", rng.choice(NAMES)))
    start = int((START + rng.uniform(-7_200, 7_200)) * 1000)
    end = start + int(rng.expovariate(1 / 3_600) * 1000)
    if rng.random() < 0.02:
        start, end = -(2**63) + rng.randrange(10**6), 2**62
    hints = Hints(rng.choice([0, 60_000, 3_600_000]), rng.choice(["", "rate"]), start, end, rng.choice([0, 300_000, 7_200_000]))
    return Asked(start, end, tuple(matchers), rng.choice([None, hints]))


def test_fuzzed_reads_leak_nothing(written: Written) -> None:
    rng = random.Random(7)  # noqa: S311, the same queries every time
    readers = {tenant: (written.reader(tenant), written.visible(tenant)) for tenant in written.tenants}
    answered = 0
    for _ in range(READS):
        tenant = rng.choice(written.tenants)
        reader, visible = readers[tenant]
        try:
            found = reader.read(random_read(rng, written))
        except (LimitError, UnknownLabelError, ProtocolError, OverflowError):
            continue
        answered += bool(found)
        for series in found:
            labels = dict(series.labels)
            assert labels["uuid"] in visible
            # At its end a row of a roll-up says what it was; a mark (not a number) says that there is nothing more.
            times = [int(at) / 1000 for at, value in zip(series.times, series.values, strict=True) if value == value]  # noqa: PLR0124
            assert all(written.is_of(tenant, labels["uuid"], at) or written.is_of(tenant, labels["uuid"], at - 0.001) for at in times)
            assert tenant in {labels.get("project_id", tenant), labels.get("project", tenant)}
    assert answered > READS // 20


def test_labels_are_the_tenants(written: Written) -> None:
    for tenant in written.tenants:
        reader, visible = written.reader(tenant), written.visible(tenant)
        assert set(reader.values("uuid", 0, END)) == visible != set()
        owned = [i for i in written.inventories if project_of(i) == tenant]
        assert set(reader.values("project", 0, END)) == {i.project for i in owned} - {""}
        assert set(reader.values("name", 0, END)) == {i.name for i in owned}


def random_select(rng: random.Random) -> str:
    table = rng.choice(KNOWN)
    other = rng.choice(["samples", "inventory", "hourly", "events", "migrations"])
    where = rng.choice(
        ["", "WHERE true", "WHERE uuid IS NOT NULL OR 1 = 1", "WHERE uuid LIKE '%' OR project = 'project-1'", "WHERE NOT (uuid = '')"]
    )
    what, of_other = (f"uuid, epoch_us(time) AS at, '{name}' AS source" for name in (table, other))
    nothing = "0 AS at, 'samples' AS source"
    return rng.choice(
        [
            f"SELECT DISTINCT {what} FROM {table} {where}",  # noqa: S608, the test's own
            f"SELECT {what} FROM {table} UNION ALL SELECT {of_other} FROM {other}",  # noqa: S608
            f"SELECT o.uuid, epoch_us(o.time) AS at, '{other}' AS source FROM {table} AS t FULL JOIN {other} AS o ON t.uuid <> o.uuid LIMIT 500",  # noqa: S608
            f"WITH RECURSIVE x AS (SELECT {of_other} FROM {other}) SELECT DISTINCT * FROM x {rng.choice(['', 'ORDER BY 1'])}",  # noqa: S608
            f"SELECT {what} FROM (SELECT * FROM {table} ORDER BY random() LIMIT 50)",  # noqa: S608
            f"SELECT max(uuid) AS uuid, epoch_us(time) AS at, '{table}' AS source FROM {table} GROUP BY time {rng.choice(['', 'HAVING count(*) > 0'])} LIMIT 300",  # noqa: S608
            f"SELECT view_definition AS uuid, {nothing} FROM information_schema.views WHERE false",  # noqa: S608
            f"SELECT {what} FROM main.{table} WHERE EXISTS (SELECT 1 FROM {other})",  # noqa: S608
            f"SELECT table_name AS uuid, {nothing} FROM information_schema.tables WHERE table_name NOT IN {KNOWN}",  # noqa: S608
            f"SELECT {what} FROM read_parquet('{table}/*/*.parquet')",  # noqa: S608
        ]
    )


def test_fuzzed_selects_leak_nothing(written: Written) -> None:
    rng = random.Random(8)  # noqa: S311, the same queries every time
    answered, sources = 0, set[str]()
    queries = {tenant: Query(Store(History(path=str(written.path)), tenant), History()) for tenant in written.tenants}
    for _ in range(SELECTS):
        tenant = rng.choice(written.tenants)
        with suppress(QueryError):
            found = queries[tenant].run(random_select(rng)).group_by(["uuid", "at", "source"]).aggregate([]).to_pylist()
            answered += bool(found)
            sources |= {row["source"] for row in found}
            leaked = [
                row
                for row in found
                if row["uuid"] and not written.is_of(tenant, row["uuid"], row["at"] / 1e6, PERIODS.get(row["source"], 0))
            ]
            assert not leaked
    for query in queries.values():
        query.close()
    assert answered > SELECTS // 2
    assert sources >= {*TABLES, *VIEWS}
