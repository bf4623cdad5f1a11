"""Fault 26: the release before and this one, part by part: upgraded in the order of docs/upgrade.md, and taken back in the reverse one.

Each part runs as the release's own program, beside the others as they are at that moment. With ``--long`` alone: it takes two minutes, and
a history of commits that reaches back to the release.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.support.broker import Broker
from tests.support.earlier_release import EarlierRelease
from tests.support.exporter_process import ExporterProcess
from tests.support.figures import figure
from tests.support.history import Writer, key_of, stored_keys, wait_for_samples
from tests.support.processors import Bus, Processors
from tests.support.simulated_producer import SimulatedProducer
from virtflow.schemas.records import VmMetrics
from virtflow.schemas.topics import DEAD_LETTERS, INVENTORY, METRICS, MIGRATIONS, NODES

ROW: Final = 26
ORDER: Final = ("processors", "exporter", "history", "producer")
"""Of an upgrade, as docs/upgrade.md says."""
VMS: Final = 5
SECONDS: Final = 120.0
STORED: Final = 'virtflow_history_records_total{table="samples"}'


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> EarlierRelease:
    return EarlierRelease(tmp_path_factory.mktemp("before"))


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    """A broker, because a topic's settings are those of the release that made it."""
    with Broker(tmp_path / "broker") as broker:
        yield Bus(broker, partitions=2)


class Parts:
    """One of each part, in the release that it was last put to."""

    def __init__(self, bus: Bus, folder: Path, stack: ExitStack) -> None:
        """Nothing runs yet; what runs ends with the stack."""
        self._bus, self._folder, self._stack = bus, folder, stack
        self._run = 0
        self.history = folder / "history"
        self.processors: Processors
        self.exporter: ExporterProcess
        self.writer: Writer
        self.producer: SimulatedProducer

    def start(self, part: str, inside: tuple[str, ...] = ()) -> None:
        """Start a part of another release: on the state, the group and the folders that the one before left."""
        bus, self._run = self._bus, self._run + 1
        logs = self._folder / f"{self._run}-{part}"
        logs.mkdir()
        if part == "processors":
            self.processors = self._stack.enter_context(Processors(bus, logs, inside=inside))
        elif part == "exporter":
            self.exporter = self._stack.enter_context(ExporterProcess(logs, bus.broker.address, bus.prefix, inside=inside))
        elif part == "history":
            group = {"VIRTFLOW_TOPICS_PREFIX": bus.prefix, "VIRTFLOW_HISTORY_GROUP": f"{bus.prefix}history"}
            self.writer = Writer(bus.broker.address, self.history, logs, group, inside=inside)
            self._stack.callback(self._end_writer, self.writer)
            self.writer.start()
            self.writer.until(lambda: self.writer.ready() == "ready", SECONDS)
        else:
            self.producer = self._stack.enter_context(
                SimulatedProducer(bus.environment(), self._folder / "producer", vms=VMS, inside=inside)
            )

    @staticmethod
    def _end_writer(writer: Writer) -> None:
        if writer.process is not None:
            writer.kill()

    def stop(self, part: str) -> int:
        """End a part as its unit does; its exit code."""
        if part == "processors":
            return self.processors.terminate()
        if part == "exporter":
            return self.exporter.stop()
        return self.writer.stop() if part == "history" else self.producer.stop()

    def go_on(self) -> set[str]:
        """Return once all VMs have newer samples at the exporter, and more are stored; the names of the exporter's metrics of VMs."""
        since, stored = time.time(), self.writer.value(STORED)

        def taken() -> list[float]:
            ages = [value for (name, _), value in self.exporter.series().items() if name == "vm_sample_age_seconds"]
            return [time.time() - age for age in ages]

        self.exporter.wait_until(lambda: len(found := taken()) == VMS and min(found) > since, SECONDS, "newer samples of all VMs")
        self.writer.until(lambda: self.writer.value(STORED) >= stored + VMS, SECONDS)
        return {name for name, _ in self.exporter.series() if name.startswith("vm_")}


def test_each_part_is_upgraded_and_taken_back(before: EarlierRelease, bus: Bus, tmp_path: Path) -> None:
    """After each step samples go on; at the end nothing was refused, and every sample is stored, once."""
    made = before.run(
        "-m",
        "virtflow.cli.main",
        "topics",
        "create",
        "--bootstrap-servers",
        bus.broker.address,
        "--topic-prefix",
        bus.prefix,
        "--partitions",
        "2",
    )
    assert made.returncode == 0, made.stderr
    with ExitStack() as stack:
        parts = Parts(bus, tmp_path, stack)
        for part in ORDER:
            parts.start(part, before.inside)
        shown = [parts.go_on()]
        steps = [*((part, ()) for part in ORDER), *((part, before.inside) for part in reversed(ORDER))]
        for part, inside in steps:
            assert parts.stop(part) == 0, part
            parts.start(part, inside)
            shown.append(parts.go_on())
        old, new, back = shown[0], shown[len(ORDER)], shown[-1]
        assert old - new == set(), "a metric that was released is gone"
        assert back == old
        for topic in (METRICS, INVENTORY, NODES, MIGRATIONS):
            assert not parts.exporter.value("virtflow_exporter_undecodable_total", topic=topic.name)
        assert parts.stop("producer") == 0
        bus.wait_until_committed()
        samples = {key_of(sample) for sample in bus.records(METRICS, VmMetrics)}
        stored = wait_for_samples(parts.history, len(samples), SECONDS, parts.writer)
        assert parts.stop("history") == 0
        assert stored_keys(parts.history) == stored
    assert not bus.read(DEAD_LETTERS)
    assert dict(stored) == dict.fromkeys(samples, 1)
    figure(ROW, "samples over an upgrade and its way back, each stored once", len(samples))
    figure(ROW, "parts that ran as the release before and as this one, one after another", len(steps))


def test_settings_that_the_release_before_does_not_know(before: EarlierRelease, tmp_path: Path) -> None:
    """Are named by its own check, so that whoever goes back sees what to take out."""
    file = tmp_path / "virtflow.toml"
    file.write_text('[log]\nlevel = "debug"\nsetting_of_tomorrow = 1\n')
    done = before.run("-m", "virtflow.cli.main", "check", "--for", "producer", "--config", str(file))
    assert done.returncode == 1
    assert "log.setting_of_tomorrow" in done.stdout
    assert "there is no such setting" in done.stdout
