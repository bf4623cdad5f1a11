"""Fault 9: a member of each group joins or leaves every three seconds. Nothing is lost, the lag is gone afterwards, and /metrics shows all of it throughout."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from tests.support.broker import Broker
from tests.support.criteria import Criteria
from tests.support.exporter_process import ExporterProcess
from tests.support.figures import figure
from tests.support.history import Writer, wait_for_samples, writing
from tests.support.long import length
from tests.support.processors import Bus, Processors, eventually
from tests.support.snapshot_stream import SnapshotStream
from tests.support.steady_scrapes import SteadyScrapes
from virtflow.schemas.records import VmMetrics
from virtflow.schemas.topics import METRICS

ROW = 9
STORM_SECONDS = length(8.0, 300.0)
PAUSE_SECONDS = length(1.0, 3.0)
LAG_SECONDS = 60.0
INTERVAL_SECONDS = 10.0


def test_nothing_is_lost_and_nobody_sees_it(tmp_path: Path, criteria: Criteria) -> None:
    with Broker(tmp_path / "broker") as broker:
        bus = Bus(broker, partitions=4)
        bus.create_topics()
        history = tmp_path / "history"
        more = {"VIRTFLOW_TOPICS_PREFIX": bus.prefix, "VIRTFLOW_HISTORY_GROUP": bus.prefix}
        (tmp_path / "other").mkdir()
        writers = [Writer(broker.address, history, folder, more) for folder in (tmp_path, tmp_path / "other")]
        processors = [Processors(bus, tmp_path / "processors", instance=name) for name in ("stays", "comes")]
        exporter = ExporterProcess(tmp_path, broker.address, bus.prefix)
        stream = SnapshotStream(bus, nodes=6, interval=INTERVAL_SECONDS)
        with processors[0], writing(writers[0]), exporter, stream:
            exporter.wait_until(lambda: exporter.value("virtflow_exporter_vms") == 6 * stream.vms, LAG_SECONDS, "all VMs")
            wait_for_samples(history, 1, LAG_SECONDS, writers[0])
            criteria.baseline()
            with SteadyScrapes(exporter, 6 * stream.vms) as scrapes:
                changes = storm(processors[1], writers[1])
            acknowledged = stream.end()
            began = time.monotonic()
            bus.wait_until_committed(LAG_SECONDS)
            figure(ROW, "lag gone after", round(time.monotonic() - began, 1), "s")
            stored = wait_for_samples(history, len(acknowledged) * stream.vms, LAG_SECONDS, writers[0])
            eventually("a lag of 0", lambda: writers[0].value('virtflow_history_lag_messages{table="samples"}') == 0, LAG_SECONDS)
            criteria.settled(row=ROW)
            assert processors[0].terminate() == 0
            assert writers[0].stop() == 0
        assert Counter((node, sequence) for _, node, _, sequence in stored) == Counter(dict.fromkeys(acknowledged, stream.vms))
        assert set(stored.values()) == {1}
        samples = {(sample.node, sample.sequence) for sample in bus.records(METRICS, VmMetrics)}
        assert samples == set(acknowledged)
        figure(ROW, "changes of each group", changes)
        figure(ROW, "scrapes during the storm, all whole", scrapes.scrapes)
        figure(ROW, "samples stored, each once", stored.total())


def storm(processors: Processors, writer: Writer) -> int:
    """Members come and go; how often each did."""
    ends = time.monotonic() + STORM_SECONDS
    changes = 0
    with processors, writing(writer):
        while time.monotonic() < ends:
            time.sleep(PAUSE_SECONDS)
            assert processors.terminate() == 0
            assert writer.stop() == 0
            changes += 2
            time.sleep(PAUSE_SECONDS)
            writer.start()
            processors.start()
            writer.until(lambda: writer.ready() == "ready", LAG_SECONDS)
        assert processors.terminate() == 0
        assert writer.stop() == 0
    return changes + 2
