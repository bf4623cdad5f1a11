"""Fault 7: the broker is killed again and again in the middle of what it takes and gives. What it has acknowledged is consumed, once, in order."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from tests.support.broker import Broker
from tests.support.criteria import Criteria
from tests.support.figures import figure
from tests.support.history import Writer, stored_keys, wait_for_samples, writing
from tests.support.long import length
from tests.support.outage import assert_ordered
from tests.support.processors import Bus, Processors
from tests.support.snapshot_stream import SnapshotStream
from virtflow.schemas.records import NodeSnapshot, VmMetrics
from virtflow.schemas.topics import METRICS, SNAPSHOTS

ROW = 7
KILLS = length(3, 10)
PAUSE_SECONDS = length(1.5, 20.0)
SECONDS = 90.0


def test_what_is_acknowledged_is_consumed_once_and_in_order(tmp_path: Path, criteria: Criteria) -> None:
    with Broker(tmp_path / "broker") as broker:
        bus = Bus(broker, partitions=2)
        bus.create_topics()
        history = tmp_path / "history"
        writer = Writer(broker.address, history, tmp_path, {"VIRTFLOW_TOPICS_PREFIX": bus.prefix, "VIRTFLOW_HISTORY_GROUP": bus.prefix})
        with Processors(bus, tmp_path / "processors") as processors, writing(writer), SnapshotStream(bus) as stream:
            wait_for_samples(history, 1, SECONDS, writer)
            criteria.baseline()
            for _ in range(KILLS):
                time.sleep(PAUSE_SECONDS)
                broker.kill()
                broker.start()
            acknowledged = stream.end()
            bus.wait_until_committed(SECONDS)
            wanted = len(acknowledged) * stream.vms
            stored = wait_for_samples(history, wanted, SECONDS, writer)
            criteria.settled(row=ROW)
            assert processors.terminate() == 0
            assert writer.stop() == 0
        assert set(acknowledged.values()) == {1}
        rounds = Counter((one.node, one.sequence) for one in bus.records(SNAPSHOTS, NodeSnapshot))
        assert rounds == acknowledged
        samples = bus.records(METRICS, VmMetrics)
        assert_ordered(samples)
        assert Counter((node, sequence) for _, node, _, sequence in stored) == Counter(dict.fromkeys(acknowledged, stream.vms))
        assert stored_keys(history) == stored
        assert set(stored.values()) == {1}
        figure(ROW, "kills of the broker", KILLS)
        figure(ROW, "rounds acknowledged", acknowledged.total())
        figure(ROW, "samples stored, each once", stored.total())
        figure(ROW, "samples produced again by the processors", len(samples) - wanted)
