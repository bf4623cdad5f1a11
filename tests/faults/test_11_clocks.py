"""Fault 11: clocks that are an hour off, and messages that are shuffled, late and repeated. The order is that of (boot id, sequence), whatever a clock says."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.support.broker import Broker
from tests.support.command import virtflow
from tests.support.exporter_process import ExporterProcess
from tests.support.figures import figure
from tests.support.history import Writer, fleet_samples, produce, stored_keys, wait_for_samples, writing
from tests.support.processors import CODEC, Bus, Processors, eventually, snapshot
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import HOURLY
from virtflow.runtime.settings import History
from virtflow.schemas.records import NodeSnapshot, VmMetrics
from virtflow.schemas.topics import METRICS

ROW = 11
HOUR = 3_600.0
SKEWS = {"ahead": HOUR, "behind": -HOUR, "right": 0.0}
VMS = 3
ROUNDS = 40
SECONDS = 120.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture
def bus(broker: Broker) -> Bus:
    bus = Bus(broker, partitions=2)
    bus.create_topics()
    return bus


def round_of(node: str, sequence: int, *, boot: str = "first", skew: float | None = None) -> NodeSnapshot:
    """A round whose host's clock is off by as much as its node's is, or by ``skew``."""
    off = SKEWS[node] if skew is None else skew
    return replace(snapshot(node, sequence, VMS, boot_id=boot), interval=600.0, collected=time.time() + off)


def shuffled(dice: random.Random) -> list[NodeSnapshot]:
    """The rounds of all nodes: neighbours change places, some come twice, some come long after."""
    found = []
    for node in SKEWS:
        rounds = [round_of(node, sequence) for sequence in range(ROUNDS)]
        late = dice.sample(rounds[: ROUNDS // 2], 5)
        mixed = sorted(rounds, key=lambda one: one.sequence + dice.uniform(0.0, 4.0))
        found += [*mixed, *dice.sample(rounds, 5), *late]
    return found


def values(exporter: ExporterProcess) -> dict[str, tuple[str, float]]:
    """Of each VM its name and CPU time, by which its sequence is known."""
    found = {}
    for (name, labels), value in exporter.series().items():
        if name == "vm_cpu_seconds_total":
            label = dict(labels)
            found[label["uuid"]] = (label["name"], value)
    return found


def test_the_newest_by_boot_and_sequence_is_shown(bus: Bus, tmp_path: Path) -> None:
    dice = random.Random(11)  # noqa: S311, an order, not a secret
    with Processors(bus, tmp_path / "processors") as processors, ExporterProcess(tmp_path, bus.broker.address, bus.prefix) as exporter:
        sent = shuffled(dice)
        bus.produce((one.node, CODEC.encode(one)) for one in sent)
        bus.wait_until_committed(SECONDS)
        newest = {vm.uuid: (vm.name, float(ROUNDS - 1 + k)) for node in SKEWS for k, vm in enumerate(round_of(node, 0).vms)}
        exporter.wait_until(lambda: values(exporter) == newest, SECONDS, "the newest of each")
        # A duplicate has no visible effect, nor has anything of a run that has ended: the next run's clock may even have been set back.
        again = [round_of(node, 0, boot="second", skew=-2 * SKEWS[node]) for node in SKEWS]
        bus.produce((one.node, CODEC.encode(one)) for one in again)
        bus.wait_until_committed(SECONDS)
        first = {vm.uuid: (vm.name, float(k)) for one in again for k, vm in enumerate(one.vms)}
        exporter.wait_until(lambda: values(exporter) == first, SECONDS, "the next run of each")
        repeated = [*again, *dice.sample(sent, 40)]
        bus.produce((one.node, CODEC.encode(one)) for one in repeated)
        bus.wait_until_committed(SECONDS)
        taken = exporter.value("virtflow_exporter_records_total", topic="vm.metrics")
        assert values(exporter) == first
        # Past the processors as well: a restarted one repeats what it had not committed.
        samples = bus.records(METRICS, VmMetrics)
        bus.produce(((one.uuid, CODEC.encode(one)) for one in samples), METRICS)
        exporter.wait_until(
            lambda: (exporter.value("virtflow_exporter_records_total", topic="vm.metrics") or 0) >= (taken or 0) + len(samples),
            SECONDS,
            "all repeats taken",
        )
        assert values(exporter) == first
        skipped = processors.value("virtflow_processors_duplicates_total")
        assert processors.terminate() == 0
    passed = Counter((one.node, one.boot_id, one.sequence) for one in samples)
    for node in SKEWS:
        order = list(dict.fromkeys(one.sequence for one in samples if one.node == node and one.boot_id == "first"))
        assert order == sorted(order)
        assert order[-1] == ROUNDS - 1
    assert set(passed.values()) == {VMS}
    assert skipped == len(sent) + len(again) + len(repeated) - len(passed)
    figure(ROW, "messages shuffled, late or repeated", int(skipped))


def hourly(history: Path) -> Counter[tuple[str, float]]:
    """How many samples the roll-up has of each VM in each hour."""
    rows: list[dict[str, Any]] = (
        Store(History(path=str(history))).open(HOURLY).dataset().to_table(["time", "uuid", "kind", "samples"]).to_pylist()
    )
    found: Counter[tuple[str, float]] = Counter()
    for row in rows:
        if row["kind"] == "vm":
            found[row["uuid"], row["time"].timestamp()] += row["samples"]
    return found


def test_the_future_moves_no_watermark(bus: Bus, tmp_path: Path) -> None:
    """Samples of an hour ahead are stored and rolled up first; those of the right time that come after them count as if there had been none."""
    history = tmp_path / "history"
    env = {"VIRTFLOW_TOPICS_PREFIX": bus.prefix, "VIRTFLOW_HISTORY_GROUP": bus.prefix}
    writer = Writer(bus.broker.address, history, tmp_path, env)
    hour = float(int(time.time() // HOUR) * HOUR) - 2 * HOUR
    right = list(fleet_samples(1, 4, range(60), start=hour))
    ahead = [replace(one, node="ahead", uuid=one.uuid[:-4] + "ffff", collected=one.collected + HOUR) for one in right[:40]]
    dice = random.Random(12)  # noqa: S311, an order, not a secret
    late = dice.sample(right, len(right))
    parts = [ahead, late[:100], late[100:] + late[:50] + ahead[:20]]
    expected: Counter[tuple[str, float]] = Counter()
    stored = 0
    with writing(writer):
        for part in parts:
            produce(bus.broker.address, bus.prefix + METRICS.name, part)
            fresh = {(one.uuid, one.node, one.sequence): one for one in part}
            expected_before = set(map(tuple, stored_keys(history))) if stored else set()
            new = [one for one in fresh.values() if (one.uuid, one.node, one.boot_id, one.sequence) not in expected_before]
            stored += len(new)
            expected.update((one.uuid, one.collected // HOUR * HOUR) for one in new)
            wait_for_samples(history, stored, SECONDS, writer)
            done = virtflow("history", "compact", "--history", str(history), env={"VIRTFLOW_HISTORY_RAW_DAYS": "3650"}, seconds=SECONDS)
            assert done.returncode == 0, done.stderr
            eventually("the roll-up", lambda: hourly(history) == expected, 10.0)
        assert writer.stop() == 0
    assert set(stored_keys(history).values()) == {1}
    assert stored_keys(history).total() == len(right) + len(ahead)
    figure(ROW, "samples after others of an hour ahead, all rolled up", len(right))
