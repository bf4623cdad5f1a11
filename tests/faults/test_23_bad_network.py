"""Fault 23: the network loses 5 %, takes 300 ms more, is cut for two minutes.

A producer and one of two processors are behind it: as row 5, and what a processor does with partitions that are no longer its own has no
effect.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bad_network import BadNetwork
from tests.support.broker import Broker
from tests.support.criteria import Criteria
from tests.support.exporter_process import ExporterProcess
from tests.support.figures import figure
from tests.support.history import Writer, wait_for_samples, writing
from tests.support.long import length
from tests.support.outage import SECONDS, assert_events, assert_rounds, assert_sampled, drains, events_of, identities, rounds_of
from tests.support.processors import Bus, Processors, eventually
from tests.support.simulated_producer import SimulatedProducer
from tests.support.snapshot_stream import SnapshotStream
from tests.support.steady_scrapes import SteadyScrapes
from virtflow.schemas.records import NodeSnapshot, VmMetrics
from virtflow.schemas.topics import METRICS, SNAPSHOTS

ROW = 23
CUT_SECONDS = length(16.0, 120.0)
"""Longer than a group waits for a member: its partitions go to the other one."""
BAD_SECONDS = length(5.0, 120.0)
KEPT = 8
INTERVAL = 1.0
"""Longer than a message and its acknowledgement are on their way."""
LOSS, DELAY_SECONDS = 0.05, 0.3
NODES, VMS = 4, 8
SILENT_SECONDS = 4.0
SILENT = 'virtflow_processors_broker_answer_age_seconds{topic="vm.snapshots"}'


@pytest.fixture
def network(tmp_path: Path) -> Iterator[BadNetwork]:
    with BadNetwork(tmp_path / "network") as network:
        yield network


@pytest.fixture
def bus(network: BadNetwork, tmp_path: Path) -> Iterator[Bus]:
    with Broker(tmp_path / "broker", host=network.near) as broker:
        bus = Bus(broker, partitions=2)
        bus.create_topics()
        yield bus


def test_a_producer_behind_it(bus: Bus, network: BadNetwork, tmp_path: Path, criteria: Criteria) -> None:
    producer = SimulatedProducer(bus.environment(), tmp_path, interval=INTERVAL, ring_rounds=KEPT, inside=network.inside)
    with producer:
        eventually("rounds and events", lambda: bool(rounds_of(bus, producer) and events_of(bus, producer)), SECONDS)
        criteria.baseline()
        network.set(loss=LOSS, delay=DELAY_SECONDS)
        lasts(BAD_SECONDS)
        network.cut()
        lasts(CUT_SECONDS)
        network.mend()
        drains(bus, producer, ROW)
        criteria.settled(row=ROW)
        assert producer.stop() == 0
    assert_events(bus, producer, ROW)
    assert_rounds(bus, producer, ROW, KEPT)
    assert_sampled(bus, producer, ROW)


def test_no_partition_has_two_owners(bus: Bus, network: BadNetwork, tmp_path: Path, criteria: Criteria) -> None:
    """The one behind the link is cut off until its partitions are the other's, and comes back.

    Nothing is lost, nothing is stored twice, and every reader sees each VM's values in order.
    """
    history = tmp_path / "history"
    env = {"VIRTFLOW_TOPICS_PREFIX": bus.prefix, "VIRTFLOW_HISTORY_GROUP": bus.prefix}
    writer = Writer(bus.broker.address, history, tmp_path, env)
    here = Processors(bus, tmp_path / "here", instance="here")
    there = Processors(bus, tmp_path / "there", instance="there", host=network.pages, inside=network.inside)
    exporter = ExporterProcess(tmp_path, bus.broker.address, bus.prefix)
    stream = SnapshotStream(bus, nodes=NODES, vms=VMS // NODES)
    with here, there, writing(writer), exporter, stream:
        eventually("both have work", lambda: all(one.value("virtflow_processors_messages_total") > 0 for one in (here, there)), SECONDS)
        exporter.wait_until(lambda: exporter.value("virtflow_exporter_vms") == VMS, SECONDS, "all VMs")
        wait_for_samples(history, 1, SECONDS, writer)
        criteria.baseline()
        with SteadyScrapes(exporter, VMS) as scrapes:
            network.set(loss=LOSS, delay=DELAY_SECONDS)
            lasts(BAD_SECONDS)
            network.cut()
            criteria.tells("a broker out of reach", lambda: there.value(SILENT) > SILENT_SECONDS, row=ROW, seconds=SECONDS)
            lasts(CUT_SECONDS)
            network.mend()
            eventually("it has work again", Working(there), SECONDS)
        acknowledged = stream.end()
        bus.wait_until_committed(SECONDS)
        stored = wait_for_samples(history, len(acknowledged) * stream.vms, SECONDS, writer)
        last = max(sequence for _, sequence in acknowledged)
        exporter.wait_until(lambda: set(values(exporter)) == {last, last + 1.0}, SECONDS, "the newest of every VM")
        criteria.settled(row=ROW)
        assert here.terminate() == 0
        assert there.terminate() == 0
        assert writer.stop() == 0
    assert set(stored.values()) == {1}
    assert {(node, sequence) for _, node, _, sequence in stored} == set(acknowledged)
    samples = bus.records(METRICS, VmMetrics)
    wanted = {(vm.uuid, one.boot_id, one.sequence) for one in bus.records(SNAPSHOTS, NodeSnapshot) for vm in one.vms}
    assert identities(samples) == wanted
    figure(ROW, "samples stored, each once", stored.total())
    figure(ROW, "scrapes meanwhile, with every VM and no value that goes back", scrapes.scrapes)
    figure(ROW, "samples written again by two owners", len(samples) - len(wanted))


def lasts(seconds: float) -> None:
    """A fault lasts as long as the row says."""
    time.sleep(seconds)


class Working:
    """Whether a processor takes messages: more than at the last look."""

    def __init__(self, processors: Processors) -> None:
        """Not looked at yet."""
        self._processors = processors
        self._before = float("inf")

    def __call__(self) -> bool:
        """Looks."""
        before, self._before = self._before, self._processors.value("virtflow_processors_messages_total")
        return self._before > before


def values(exporter: ExporterProcess) -> list[float]:
    """The CPU time of each VM that is shown, by which its sequence is known."""
    return [value for (name, _), value in exporter.series().items() if name == "vm_cpu_seconds_total"]
