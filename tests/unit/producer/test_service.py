"""The grid of rounds: late ones are made up for or left out, never stacked."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import pytest

from virtflow.producer.records.node_health import Outgoing
from virtflow.producer.records.vm_snapshot import Reading
from virtflow.producer.service import Beside, SnapshotBuilder, beside, rounds, skipped
from virtflow.producer.source import Round
from virtflow.runtime.lifecycle import Stop
from virtflow.runtime.settings import Producer, Settings
from virtflow.schemas.catalogue.types import ABSENT_LONG
from virtflow.schemas.records import NodeSnapshot, VmSnapshot


@pytest.mark.parametrize(
    ("took", "left_out"), [(0.0, 0), (0.8, 0), (1.0, 0), (1.2, 0), (1.5, 0), (1.6, 1), (2.4, 1), (2.5, 1), (2.6, 2), (60.0, 59)]
)
def test_a_round_that_is_half_an_interval_late_begins_at_once_and_later_ones_fall_out(took: float, left_out: int) -> None:
    assert skipped(took * 10.0, 10.0) == left_out


def test_a_host_that_is_renamed_is_one_node_until_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its events have the name of the start as well."""
    monkeypatch.setattr("socket.gethostname", lambda: "old")
    builder = SnapshotBuilder(Settings())
    names = [builder.node_snapshot(Round(1_795_476_243.0, up=True), Beside()).node]
    monkeypatch.setattr("socket.gethostname", lambda: "new")
    names.append(builder.node_snapshot(Round(1_795_476_253.0, up=True), Beside()).node)
    names.append(SnapshotBuilder(Settings()).node_snapshot(Round(1_795_476_263.0, up=True), Beside()).node)
    assert names == ["old", "old", "new"]


@pytest.mark.parametrize(("setting", "recorded", "name"), [("set", "recorded", "set"), ("", "recorded", "recorded"), ("", "", "host")])
def test_the_setting_then_the_recording_then_the_host_name_the_node(
    setting: str, recorded: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "host")
    builder = SnapshotBuilder(Settings(producer=Producer(node=setting)))
    assert builder.node_snapshot(Round(1_795_476_243.0, up=True, node=recorded), Beside()).node == name


class Played:
    """A ``Source`` and the sink of its rounds: libvirt is away in the first one, and the last one is followed by the end."""

    def __init__(self, stop: Stop, count: int) -> None:
        """So many rounds."""
        readings = tuple(Reading(f"00000000-0000-4000-8000-{number:012}", f"vm-{number}", {"state.state": 1}, 0.0) for number in range(3))
        self._rounds = iter([Round(1.0, up=False), *(Round(float(second), up=True, readings=readings) for second in range(2, count + 1))])
        self._stop, self._left = stop, count
        self.snapshots: list[NodeSnapshot] = []

    def round(self) -> Round:
        """The next one."""
        return next(self._rounds)

    def offer(self, snapshot: NodeSnapshot) -> None:
        """Keep it."""
        self.snapshots.append(snapshot)
        if len(self.snapshots) == self._left:
            self._stop.set()

    def outgoing(self) -> Outgoing:
        """Nothing waits."""
        return Outgoing()

    def wait(self, until: float) -> None:
        """Nothing happens between rounds."""
        time.sleep(max(0.0, until - time.monotonic()))

    def learn(self, vms: Sequence[VmSnapshot]) -> None:
        """Nothing is learnt."""

    def interrupt(self) -> None:
        """It never waits."""

    def close(self, seconds: float) -> bool:  # noqa: ARG002, the protocol's
        """Nothing is open."""
        return True


def test_a_producer_says_once_that_it_samples_and_how_many_vms(caplog: pytest.LogCaptureFixture) -> None:
    """Not before libvirt has answered, and not in each round."""
    stop = Stop()
    played = Played(stop, 4)
    with caplog.at_level("INFO"):
        rounds(Settings(producer=Producer(node="host-1", interval_seconds=0.5)), played, stop, played)
    assert [seen.health.up for seen in played.snapshots] == [False, True, True, True]
    assert [one.getMessage() for one in caplog.records if "samples" in one.getMessage()] == ["samples 3 VMs of host-1 every 0.5 s"]


def test_what_the_process_takes_is_handed_in() -> None:
    """The builder reads no clock and no file; without the numbers they are absent."""
    builder, found = SnapshotBuilder(Settings(producer=Producer(node="node"))), Round(1_795_476_243.0, up=True)
    health = builder.node_snapshot(found, Beside(cpu_seconds=1.5, resident_bytes=4096)).health
    assert (health.cpu_seconds_total, health.resident_memory_bytes) == (1.5, 4096)
    health = builder.node_snapshot(found, Beside()).health
    assert math.isnan(health.cpu_seconds_total)
    assert health.resident_memory_bytes == ABSENT_LONG
    now = beside(Outgoing())
    assert 0 < now.cpu_seconds <= time.process_time()
    assert now.resident_bytes > 1 << 20
