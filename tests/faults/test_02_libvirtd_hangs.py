"""Fault 2: libvirtd stops answering for a minute, before a producer connects to it and while one is connected."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.lab import Guest, Lab, await_true
from tests.support.lab_pipeline import INTERVAL_SECONDS, Pipeline
from tests.support.lab_tap import Tap
from virtflow.schemas.records import NodeSnapshot

HANG_SECONDS = 60.0
WAY_SECONDS = 0.5
"""From the end of a round to its arrival at the test."""
CONNECT_TIMEOUT_SECONDS = 5.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two nodes: one hangs while its producer is connected, the other before."""
    with Lab(nodes=2) as lab:
        yield lab


@pytest.fixture(scope="module")
def guests(lab: Lab) -> list[list[Guest]]:
    """Two VMs on each node, by node."""
    return [node.load_paused(2, node.name) for node in lab.nodes]


def test_heartbeats_say_so_all_the_time_and_recovery_takes_two_intervals(lab: Lab, guests: list[list[Guest]], tmp_path: Path) -> None:
    """A snapshot with up = 0 every interval; connecting is given up at its deadline; two intervals after it goes on all VMs are there."""
    settings = {"VIRTFLOW_LIBVIRT_CONNECT_TIMEOUT_SECONDS": str(CONNECT_TIMEOUT_SECONDS)}
    with Pipeline(lab, tmp_path, settings, whole=False) as pipeline, Tap(pipeline.broker.address) as tap:
        connected, fresh = pipeline.producers
        connected.start()
        tap.await_snapshot(connected.name, lambda snapshot: snapshot.health.up == 1 and len(snapshot.vms) == 2, 0.0)
        for node in lab.nodes:
            node.pause_libvirtd()
        paused = time.time()
        fresh.start()
        await_true(lambda: time.time() - paused >= HANG_SECONDS, HANG_SECONDS + 1, "a minute has passed")
        for node in lab.nodes:
            node.resume_libvirtd()
        back = time.time()
        for producer, of_node in zip(pipeline.producers, guests, strict=True):
            uuids = {guest.uuid for guest in of_node}
            arrival = tap.await_snapshot(producer.name, partial(all_up, uuids=uuids), back)
            assert arrival.time - back <= 2 * INTERVAL_SECONDS + WAY_SECONDS, producer.name
            heartbeats = [
                one for one in tap.of(producer.name) if paused + INTERVAL_SECONDS < one.snapshot.collected < back - INTERVAL_SECONDS
            ]
            assert {one.snapshot.health.up for one in heartbeats} == {0}, producer.name
            times = [one.snapshot.collected for one in heartbeats]
            assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 1.5 * INTERVAL_SECONDS, producer.name
            assert times[-1] - times[0] > HANG_SECONDS * 0.8, producer.name
            assert f"no answer within {CONNECT_TIMEOUT_SECONDS:g} s" in producer.log.read_text()
            assert producer.stop() == 0


def all_up(snapshot: NodeSnapshot, uuids: set[str]) -> bool:
    """Whether the round has libvirt's answer about just these VMs."""
    return snapshot.health.up == 1 and {vm.uuid for vm in snapshot.vms} == uuids
