"""Migrations that run already when a producer starts: none is missed, whoever was there to hear of its begin."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.lab import Guest, GuestSpec, Lab
from tests.support.lab_migration import CompletedJob, Migrating, job_info
from tests.support.lab_pipeline import Pipeline
from tests.support.record_tap import RecordTap
from virtflow.processors.migrations.job_stats import job_numbers
from virtflow.schemas.records import VmMigration
from virtflow.schemas.topics import MIGRATIONS

SLOW_MBPS = 4
MOVING = 3
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def guests(lab: Lab) -> list[Guest]:
    """VMs that will migrate, among others that stand still."""
    source = lab.nodes[0]
    source.load_paused(5)
    found = [source.start_guest(GuestSpec(f"calm-{number}", memory_mib=128, balloon_mib=112), wait=False) for number in range(MOVING)]
    for guest in found:
        source.await_up(guest)
    return found


@pytest.fixture(scope="module")
def pipeline(lab: Lab, guests: list[Guest], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The centre alone; producers are started by the test."""
    del guests
    with Pipeline(lab, tmp_path_factory.mktemp("pipeline"), whole=False) as pipeline:
        pipeline.processors.start()
        pipeline.exporter.start()
        yield pipeline


def test_every_running_migration_is_found(lab: Lab, guests: list[Guest], pipeline: Pipeline, tmp_path: Path) -> None:
    """Several are under way before any producer runs: each is told as running, with libvirt's numbers, and then as it ended."""
    source, destination = lab.nodes
    began = time.time()
    with RecordTap(pipeline.broker.address, MIGRATIONS, VmMigration) as tap, ExitStack() as ends:
        completed = {guest.uuid: CompletedJob(source, guest, tmp_path / f"{guest.uuid}.log") for guest in guests}
        moving = [Migrating.begin(guest, source, destination, SLOW_MBPS) for guest in guests]
        for migrating in moving:
            ends.callback(migrating.process.kill)
        while any(job_info(source, guest).get("memory_processed", 0) < MEBIBYTE for guest in guests):
            assert all(migrating.runs for migrating in moving)
        for producer in pipeline.producers:
            producer.start()
        for guest in guests:
            found = tap.await_record(
                lambda one, guest=guest: one.uuid == guest.uuid and one.memory_processed_bytes > MEBIBYTE,  # type: ignore[misc]
                f"{guest.name} is found",
            )
            assert (found.result, found.source) == ("running", source.name)
            assert began - 1 < found.started_timestamp_seconds < time.time()
        for guest, migrating in zip(guests, moving, strict=True):
            assert migrating.runs, "it was found while it ran"
            source.virsh("migrate-setspeed", guest.uuid, "1000")
        for guest, migrating in zip(guests, moving, strict=True):
            migrating.succeed()
            end = tap.await_record(lambda one, guest=guest: one.uuid == guest.uuid and one.type == "completed", f"{guest.name} ends")  # type: ignore[misc]
            numbers = job_numbers(completed[guest.uuid].statistics(), completed=True)
            assert {name: getattr(end, name) for name in numbers if name != "expected_downtime_seconds"} == {
                name: value for name, value in numbers.items() if name != "expected_downtime_seconds"
            }
            assert (end.result, end.source) == ("completed", source.name)
        assert len({one.id for one in tap.records()}) == MOVING
