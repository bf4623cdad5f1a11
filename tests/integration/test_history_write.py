"""The writer on a real broker: every topic into its table, bad records skipped, repeated ones stored once, late ones where they belong."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.support.broker import Broker
from tests.support.command import virtflow
from tests.support.history import (
    Writer,
    fleet_inventories,
    fleet_samples,
    key_of,
    produce,
    rows_of,
    stored_keys,
    wait_for_samples,
    writing,
)
from virtflow.history.storage.delta import LAYOUT_KEY, Store
from virtflow.history.storage.table_schemas import EVENT_ROWS, INVENTORY_ROWS, MIGRATION_ROWS, SAMPLES
from virtflow.runtime.settings import History
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.records import VmEvent, VmMetrics, VmMigration

NOW = float(int(time.time()) // 10 * 10)
FETCH_SECONDS = 1.0
"""A fetch that was under way has been answered by then: the broker waits for half a second at most (``fetch.wait.max.ms``)."""


def own_metric(writer: Writer, line: str) -> float:
    """A sample of the writer's own /metrics; 0 where it is not there yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{writer.port}/metrics", timeout=5) as reply:
            lines = reply.read().decode().splitlines()
    except OSError:
        return 0.0
    return next((float(each.rpartition(" ")[2]) for each in lines if each.startswith(f"{line} ")), 0.0)


def until(true: Callable[[], bool], writer: Writer, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, writer.tail
        time.sleep(0.1)


def make(broker: Broker, folder: Path, name: str, env: dict[str, str] | None = None) -> Writer:
    """Topics and a writer of the test's own on the shared broker."""
    done = virtflow("topics", "create", "--bootstrap-servers", broker.address, "--topic-prefix", f"{name}.", "--partitions", "2")
    assert done.returncode == 0, done.stderr
    own = {"VIRTFLOW_TOPICS_PREFIX": f"{name}.", "VIRTFLOW_HISTORY_GROUP": name, "VIRTFLOW_HISTORY_INSTANCE": name}
    return Writer(broker.address, folder / "history", folder, {**own, **(env or {})})


def event(sequence: int, uuid: str, **values: object) -> VmEvent:
    told = {"uuid": uuid, "node": "n", "boot_id": "b", "sequence": sequence, "time": NOW, "kind": "lifecycle", **values}
    return VmEvent(**told)  # type: ignore[arg-type]


def test_every_topic_has_its_table(broker: Broker, tmp_path: Path) -> None:
    """Samples with their devices, events, migrations by change, inventory by change; what is told twice is stored once."""
    writer = make(broker, tmp_path, "all")
    samples = list(fleet_samples(1, 6, range(4), start=NOW))
    inventories = fleet_inventories(1, 6, start=NOW)
    uuid = samples[0].uuid
    events = [event(1, uuid, event=2), event(2, uuid, kind="job", job={"memory_total": 5}), event(1, uuid, event=2)]
    begun = VmMigration(uuid=uuid, id="m", source="a", destination="b", result="running", updated_timestamp_seconds=NOW)
    migrations = [begun, begun, replace(begun, result="completed", ended_timestamp_seconds=NOW + 5)]
    moved = replace(inventories[0], project="another", collected=NOW + 60, sequence=6)
    with writing(writer):
        produce(broker.address, "all.vm.metrics", [*samples, *samples[:3]])
        produce(broker.address, "all.vm.events", events)
        produce(broker.address, "all.vm.migrations", migrations)
        produce(broker.address, "all.vm.inventory", [*inventories, *(replace(i, sequence=5) for i in inventories), moved])
        wait_for_samples(tmp_path / "history", len(samples), 30, writer)
        until(lambda: own_metric(writer, 'virtflow_history_rows_total{table="inventory"}') > len(inventories), writer)
        until(lambda: own_metric(writer, 'virtflow_history_rows_total{table="migrations"}') > 1, writer)
        until(lambda: own_metric(writer, 'virtflow_history_rows_total{table="events"}') > 1, writer)
        assert writer.stop() == 0
    rows = rows_of(tmp_path / "history", SAMPLES)
    assert Counter(row["kind"] for row in rows) == Counter(
        {
            "vm": len(samples),
            "vcpu": sum(len(sample.vcpus) for sample in samples),
            "network": sum(len(sample.networks) for sample in samples),
            "block": sum(len(sample.blocks) for sample in samples),
        }
    )
    assert [(row["sequence"], row["job"]) for row in rows_of(tmp_path / "history", EVENT_ROWS)] == [(1, None), (2, '{"memory_total":5}')]
    assert sorted(row["result"] for row in rows_of(tmp_path / "history", MIGRATION_ROWS)) == ["completed", "running"]
    told = rows_of(tmp_path / "history", INVENTORY_ROWS)
    assert len(told) == len(inventories) + 1
    assert json.loads(next(row["disks"] for row in told if row["disks"]))[0]["device"] == "vda"


def test_values_come_back_as_they_were(broker: Broker, tmp_path: Path) -> None:
    """Every value of every sample, device by device; absent is null."""
    writer = make(broker, tmp_path, "values")
    samples = list(fleet_samples(1, 5, range(2), start=NOW))
    with writing(writer):
        produce(broker.address, "values.vm.metrics", samples)
        wait_for_samples(tmp_path / "history", len(samples), 30, writer)
    rows = {(row["uuid"], row["sequence"], row["kind"], row["device"]): row for row in rows_of(tmp_path / "history", SAMPLES)}
    for sample in samples:
        row = rows[sample.uuid, sample.sequence, "vm", ""]
        assert row["time"].timestamp() == sample.collected
        cpu = row["vm_cpu_seconds_total"]
        assert cpu == (pytest.approx(Decimal(sample.cpu_seconds_total), abs=Decimal("1e-6")) if sample.cpu_seconds_total >= 0 else None)
        assert row["vm_guest_memory_free_bytes"] == (sample.guest_memory_free_bytes if sample.guest_memory_free_bytes >= 0 else None)
        for disk in sample.blocks:
            of_disk = rows[sample.uuid, sample.sequence, "block", disk.device]
            assert of_disk["vm_block_write_bytes_total"] == disk.write_bytes_total
            assert of_disk["vm_block_threshold_bytes"] is None
            assert of_disk["vm_cpu_seconds_total"] is None


def test_bad_records_are_passed_by_and_counted(broker: Broker, tmp_path: Path) -> None:
    """Poison, a clock in the future, a sample of a day that is gone: skipped, counted by reason, and never in the way."""
    writer = make(broker, tmp_path, "bad", {"VIRTFLOW_HISTORY_RAW_DAYS": "30"})
    good = list(fleet_samples(1, 4, range(2), start=NOW))
    encoded = Codec().encode(good[0])
    bad = {
        "empty": b"",
        "unknown_magic": b"\x99 no record",
        "truncated": encoded[:12],
        "trailing_bytes": encoded + b"\0",
        "unknown_schema": encoded[:2] + b"01234567" + encoded[10:],
        "wrong_record": Codec().encode(event(1, good[0].uuid)),
        "future": Codec().encode(replace(good[0], collected=NOW + 3 * 86_400)),
        "too_late": Codec().encode(replace(good[0], collected=NOW - 60 * 86_400)),
    }
    with writing(writer):
        for value in bad.values():
            produce(broker.address, "bad.vm.metrics", [value])
        produce(broker.address, "bad.vm.metrics", good)
        stored = wait_for_samples(tmp_path / "history", len(good), 30, writer)
        for reason in bad:
            name = f'virtflow_history_skipped_records_total{{reason="{reason}",table="samples"}}'
            alike = f'virtflow_history_skipped_records_total{{table="samples",reason="{reason}"}}'
            assert own_metric(writer, name) + own_metric(writer, alike) == 1.0, reason
        assert writer.stop() == 0
    assert stored == Counter(map(key_of, good))


def test_late_samples_go_where_they_belong(broker: Broker, tmp_path: Path) -> None:
    """Samples hours late are stored under their own hour, which is rolled up again, and so is the hour after it."""
    writer = make(broker, tmp_path, "late")
    hour = NOW // 3_600 * 3_600 - 4 * 3_600
    samples = [sample for sample in fleet_samples(1, 3, range(24), interval=600.0, start=hour) if sample.cpu_seconds_total >= 0]
    late = [sample for sample in samples if hour + 1_800 <= sample.collected < hour + 3_600]
    with writing(writer):
        produce(broker.address, "late.vm.metrics", [sample for sample in samples if sample not in late])
        wait_for_samples(tmp_path / "history", len(samples) - len(late), 30, writer)
        early = compacted(tmp_path / "history")
        produce(broker.address, "late.vm.metrics", late)
        wait_for_samples(tmp_path / "history", len(samples), 30, writer)
    again = compacted(tmp_path / "history")
    vm = late[0].uuid
    mine = [sample for sample in samples if sample.uuid == vm]
    grown = [(b.collected // 3_600, max(b.cpu_seconds_total - a.cpu_seconds_total, 0)) for a, b in pairwise(mine)]
    for table, late_is_there in ((early, False), (again, True)):
        counts = {row["time"].timestamp(): row["samples"] for row in table if row["uuid"] == vm and row["kind"] == "vm"}
        assert counts[hour] == (6 if late_is_there else 3)
    increases = {
        row["time"].timestamp() // 3_600: row["vm_cpu_seconds_total_increase"] for row in again if row["uuid"] == vm and row["kind"] == "vm"
    }
    if all(b.cpu_seconds_total >= a.cpu_seconds_total for a, b in pairwise(mine)):
        for at, value in increases.items():
            assert value == pytest.approx(sum(step for of_hour, step in grown if of_hour == at))


def compacted(path: Path) -> list[dict[str, Any]]:
    done = virtflow("history", "compact", "--history", str(path), env={"VIRTFLOW_HISTORY_RAW_DAYS": "3650"})
    assert done.returncode == 0, done.stderr
    from virtflow.history.storage.table_schemas import HOURLY

    return rows_of(path, HOURLY)


def test_two_writers_share_the_partitions(broker: Broker, tmp_path: Path) -> None:
    first = make(broker, tmp_path, "share")
    (tmp_path / "second").mkdir()
    env = {"VIRTFLOW_TOPICS_PREFIX": "share.", "VIRTFLOW_HISTORY_GROUP": "share"}
    second = Writer(broker.address, tmp_path / "history", tmp_path / "second", env)
    samples = list(fleet_samples(1, 30, range(6), start=NOW))
    with writing(first, second):
        until(lambda: "partitions" in first.tail and "partitions" in second.tail, first, 30)
        produce(broker.address, "share.vm.metrics", samples)
        wait_for_samples(tmp_path / "history", len(samples), 30, first)
        assert first.stop() == second.stop() == 0
    assert stored_keys(tmp_path / "history") == Counter(map(key_of, samples))


def test_a_topic_made_anew_is_read_from_its_beginning(broker: Broker, tmp_path: Path) -> None:
    """Offsets of a topic that was deleted mean nothing for the new one of its name."""
    from confluent_kafka.admin import AdminClient

    writer = make(broker, tmp_path, "anew")
    old, new = list(fleet_samples(1, 4, range(4), start=NOW)), list(fleet_samples(1, 4, range(10, 12), start=NOW))
    with writing(writer):
        produce(broker.address, "anew.vm.metrics", old)
        wait_for_samples(tmp_path / "history", len(old), 30, writer)
        assert writer.stop() == 0
        admin = AdminClient({"bootstrap.servers": broker.address})
        admin.delete_topics(["anew.vm.metrics"])["anew.vm.metrics"].result(20)
        until(lambda: "anew.vm.metrics" not in admin.list_topics(timeout=5).topics, writer)
        make(broker, tmp_path, "anew")
        produce(broker.address, "anew.vm.metrics", new)
        writer.start()
        wait_for_samples(tmp_path / "history", len(old) + len(new), 30, writer)
    assert stored_keys(tmp_path / "history") == Counter(map(key_of, old + new))


@pytest.mark.parametrize("rounds", [2, 8])
def test_a_topic_made_anew_under_a_running_writer(broker: Broker, tmp_path: Path, rounds: int) -> None:
    """With fewer records than the old one had, and with more: all are stored, once, and the writer goes on where it was when it is started again."""
    from confluent_kafka.admin import AdminClient

    name = f"running{rounds}"
    writer = make(broker, tmp_path, name, {"VIRTFLOW_KAFKA_CLIENT": "session.timeout.ms=6000,topic.metadata.refresh.interval.ms=1000"})
    old, new, last = (list(fleet_samples(1, 10, steps, start=NOW)) for steps in (range(4), range(10, 10 + rounds), range(30, 32)))
    with writing(writer):
        produce(broker.address, f"{name}.vm.metrics", old)
        wait_for_samples(tmp_path / "history", len(old), 60, writer)
        admin = AdminClient({"bootstrap.servers": broker.address})
        admin.delete_topics([f"{name}.vm.metrics"])[f"{name}.vm.metrics"].result(20)
        until(lambda: f"{name}.vm.metrics" not in admin.list_topics(timeout=5).topics, writer)
        make(broker, tmp_path, name)
        produce(broker.address, f"{name}.vm.metrics", new)
        wait_for_samples(tmp_path / "history", len(old) + len(new), 60, writer)
        assert writer.stop() == 0
        produce(broker.address, f"{name}.vm.metrics", last)
        writer.start()
        wait_for_samples(tmp_path / "history", len(old) + len(new) + len(last), 60, writer)
        assert writer.stop() == 0
    assert stored_keys(tmp_path / "history") == Counter(map(key_of, old + new + last))


def lose(broker: Broker, topic: str, lost: list[VmMetrics]) -> None:
    """Produces records that retention takes away before anybody reads them."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    produce(broker.address, topic, lost)
    admin = AdminClient({"bootstrap.servers": broker.address})
    ends = [TopicPartition(topic, partition, -1) for partition in range(2)]
    for future in admin.delete_records(ends).values():
        future.result(20)


def test_what_retention_took_away_is_counted_and_passed(broker: Broker, tmp_path: Path) -> None:
    """While the writer was away, and while it hung: it goes on with what there is, and says how many are gone."""
    writer = make(broker, tmp_path, "gone")
    before, first_lost, after, more_lost, last = (list(fleet_samples(1, 6, range(n, n + 1), start=NOW)) for n in range(5))
    missing = 'virtflow_history_missing_records_total{table="samples"}'
    with writing(writer):
        produce(broker.address, "gone.vm.metrics", before)
        wait_for_samples(tmp_path / "history", len(before), 30, writer)
        assert writer.stop() == 0
        lose(broker, "gone.vm.metrics", first_lost)
        produce(broker.address, "gone.vm.metrics", after)
        writer.start()
        wait_for_samples(tmp_path / "history", len(before + after), 30, writer)
        until(lambda: own_metric(writer, missing) == len(first_lost), writer)
        assert "gone from the broker" in writer.tail
        writer.signal(signal.SIGSTOP)
        time.sleep(FETCH_SECONDS)
        for one in more_lost:  # a fetch that is under way may bring the first of them
            produce(broker.address, "gone.vm.metrics", [one])
        lose(broker, "gone.vm.metrics", [])
        produce(broker.address, "gone.vm.metrics", last)
        writer.signal(signal.SIGCONT)
        produced = Counter(map(key_of, [*before, *first_lost, *after, *more_lost, *last]))
        until(lambda: stored_keys(tmp_path / "history").total() + own_metric(writer, missing) == produced.total(), writer, 40)
        assert own_metric(writer, missing) > len(first_lost)
        assert writer.stop() == 0
    stored = stored_keys(tmp_path / "history")
    assert stored <= produced
    assert stored >= Counter(map(key_of, before + after + last))


def test_a_table_of_a_newer_version_is_refused(broker: Broker, tmp_path: Path) -> None:
    """Clearly, and without touching it; what reads refuses it too."""
    writer = make(broker, tmp_path, "newer")
    opened = Store(History(path=str(tmp_path / "history"))).make(SAMPLES)
    opened.delta.alter.set_table_properties({LAYOUT_KEY: "99"}, raise_if_not_exists=False)
    with writing(writer):
        assert writer.process is not None
        assert writer.process.wait(30) == 1
        writer.process = None
    assert "its layout is 99, this program knows up to 1; upgrade virtflow" in writer.tail
    asked = virtflow("history", "query", "--history", str(tmp_path / "history"), "SELECT 1 FROM samples")
    assert asked.returncode == 1
    assert "upgrade virtflow" in asked.stderr


def test_a_new_metric_is_a_new_column(tmp_path: Path) -> None:
    """A table made before a metric was known gets its column; the old files read on, with nothing in it."""
    import pyarrow as pa
    from deltalake import DeltaTable

    samples: list[VmMetrics] = list(fleet_samples(1, 2, range(1), start=NOW))
    path = tmp_path / "history"
    store = Store(History(path=str(path)))
    lesser = SAMPLES.schema.remove(SAMPLES.schema.get_field_index("vm_memory_rss_bytes"))
    properties = {"delta.dataSkippingStatsColumns": "time,uuid,kind"}
    DeltaTable.create(store.table_uri(SAMPLES), lesser, partition_by=["day"], configuration=properties)
    from virtflow.history.writer.rows.sample_rows import sample_rows

    before = sample_rows(samples[:1]).drop_columns(["vm_memory_rss_bytes"])
    from deltalake import write_deltalake

    write_deltalake(store.table_uri(SAMPLES), before, mode="append")
    opened = store.make(SAMPLES)
    opened.commit(opened.write(sample_rows(samples[1:])), {})
    rows = rows_of(path, SAMPLES)
    assert {row["sequence"] for row in rows} == {0}
    assert sum(row["vm_memory_rss_bytes"] is not None for row in rows) == 1
    assert isinstance(before, pa.Table)
