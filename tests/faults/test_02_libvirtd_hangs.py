"""Fault 2: libvirtd stops answering, before a producer connects to it and while one is connected; for a minute with ``--long``."""

from __future__ import annotations

import time
from pathlib import Path

from tests.support.figures import figure
from tests.support.lab import Lab
from tests.support.lab_pipeline import INTERVAL_SECONDS, Pipeline
from tests.support.lab_release import releases
from tests.support.lab_tap import Tap
from tests.support.long import length
from virtflow.schemas.records import NodeSnapshot

RELEASES = releases()
NODES = 2
HANG_ROUNDS = length(10, 30)
"""With as many calls lost as may be lost."""
HANGING_SECONDS = 180.0
TWO_ROUNDS = 2
CAP = 3
CONNECT_TIMEOUT_SECONDS = length(2.0, 5.0)


def test_heartbeats_say_so_all_the_time_and_recovery_takes_two_intervals(lab: Lab, tmp_path: Path) -> None:
    """A round with up = 0 every interval; connecting is given up at its deadline, and counts; two rounds after the hang all VMs are there."""
    settings = {"VIRTFLOW_LIBVIRT_CONNECT_TIMEOUT_SECONDS": str(CONNECT_TIMEOUT_SECONDS)}
    uuids = {node.name: {guest.uuid for guest in node.load_paused(2, node.name)} for node in lab.nodes}

    def all_up(snapshot: NodeSnapshot) -> bool:
        return snapshot.health.up == 1 and {vm.uuid for vm in snapshot.vms} == uuids[snapshot.node]

    with Pipeline(lab, tmp_path, settings, whole=False) as pipeline, Tap(pipeline.broker.address) as tap:
        connected, fresh = pipeline.producers
        connected.start()
        tap.await_snapshot(connected.name, all_up, 0.0)
        for node in lab.nodes:
            node.pause_libvirtd()
        paused = time.time()
        fresh.start()
        for producer in pipeline.producers:
            name = producer.name
            full = tap.await_snapshot(name, lambda seen: seen.health.hung_calls == CAP, paused, HANGING_SECONDS).snapshot
            tap.await_snapshot(name, lambda seen, last=full.sequence + HANG_ROUNDS: seen.sequence >= last, paused, HANGING_SECONDS)  # type: ignore[misc]
        for node in lab.nodes:
            node.resume_libvirtd()
        back = time.time()
        for producer in pipeline.producers:
            rounds = tap.await_rounds(producer.name, all_up, back)
            assert rounds <= TWO_ROUNDS, producer.name
            during = [one.snapshot for one in tap.of(producer.name, paused) if one.snapshot.collected < back - INTERVAL_SECONDS]
            assert_heartbeats(during)
            assert len(during) >= HANG_ROUNDS
            figure(2, f"{producer.name}: heartbeats in a row while it hangs", len(during))
            figure(2, f"{producer.name}: rounds until all VMs are back", rounds)
            assert f"no answer within {CONNECT_TIMEOUT_SECONDS:g} s" in producer.log.read_text()
            tap.await_snapshot(producer.name, lambda seen: all_up(seen) and seen.health.hung_calls == 0, back)
            assert producer.stop() == 0


def assert_heartbeats(during: list[NodeSnapshot]) -> None:
    """No round was left out, each says that libvirt is away, and the openings that hang are counted up to the cap and not beyond."""
    sequences = [snapshot.sequence for snapshot in during]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    assert during[-1].health.rounds_skipped_total == during[0].health.rounds_skipped_total
    ups = [snapshot.health.up for snapshot in during]
    assert sum(ups) <= TWO_ROUNDS, "a round under way at the pause may still have had its answer"
    assert ups == sorted(ups, reverse=True)
    assert max(snapshot.health.hung_calls for snapshot in during) == CAP
