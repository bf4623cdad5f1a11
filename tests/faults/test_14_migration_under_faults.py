"""Faults 13 and 14 with a real live migration, while one part after another fails in the middle of it.

Nothing is lost and nothing told twice: one record from begin to end with libvirt's own final numbers, one series at every scrape,
counters that fall only where a new process began, and no rate above the truth. The broker is away for half an hour with ``--long``.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from math import isnan
from pathlib import Path
from typing import Self

import pytest

from tests.support.figures import figure
from tests.support.lab import Guest, GuestSpec, Lab, Node
from tests.support.lab_migration import CompletedJob, Migrating
from tests.support.lab_pipeline import INTERVAL_SECONDS, Pipeline, Service
from tests.support.lab_scrape import Watch
from tests.support.long import length
from tests.support.record_tap import RecordTap
from virtflow.processors.migrations.job_stats import job_numbers
from virtflow.processors.migrations.transitions import END_NOT_REPORTED
from virtflow.schemas.records import VmMigration
from virtflow.schemas.topics import MIGRATIONS

SLOW_MBPS = 10
SLOWEST_MBPS = 1
"""So slow that it can't end by itself, however much the guest is slowed down."""
MEBIBYTE = 1 << 20
OUTAGE_SECONDS = length(20.0, 1800.0)
RECOVERY_SECONDS = 60.0
END_SECONDS = OUTAGE_SECONDS + 120.0
CPU_LIMIT = 2.5
"""CPU seconds per second that the one-vCPU guest's QEMU can truly use."""
SLACK_SECONDS = 1.5


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two nodes."""
    with Lab(nodes=2) as lab:
        yield lab


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Guest:
    """A guest that writes to its memory all the time, so that moving it takes a while."""
    return lab.nodes[0].start_guest(GuestSpec("busy-1", dirty_mib=24))


@pytest.fixture(scope="module")
def pipeline(lab: Lab, guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The pipeline on both nodes."""
    del guest
    with Pipeline(lab, tmp_path_factory.mktemp("pipeline")) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def earlier() -> list[str]:
    """The ids of the migrations so far: there are never more."""
    return []


class Story:
    """What vm.migrations tells while a migration goes on."""

    def __init__(self, pipeline: Pipeline, earlier: list[str]) -> None:
        """Begin to listen; ``earlier`` are the ids of the migrations so far, and are added to."""
        self.earlier = earlier
        self.migrations = RecordTap(pipeline.broker.address, MIGRATIONS, VmMigration)

    def __enter__(self) -> Self:
        """Listens since it was made."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.migrations.close()

    def moved(self, since: float, mebibytes: int) -> VmMigration:
        """The migration has moved so much memory."""
        return self.migrations.await_record(
            lambda one: one.started_timestamp_seconds > since - 1 and one.memory_processed_bytes > mebibytes * MEBIBYTE,
            f"{mebibytes} MiB move",
        )

    def updated(self, since: float) -> VmMigration:
        """The first numbers that were taken after a moment."""
        return self.migrations.await_record(lambda one: one.updated_timestamp_seconds > since, "newer numbers", RECOVERY_SECONDS)

    def check(self, since: float, final: dict[str, int], source: Node, destination: Node) -> VmMigration:
        """The migration that began after ``since`` has ended as it should have, once, with these final numbers."""
        end = self.migrations.await_record(
            lambda one: one.started_timestamp_seconds > since - 1 and one.type == "completed" and one.destination != "",
            "the final numbers",
            RECOVERY_SECONDS,
        )
        numbers = {name: value for name, value in job_numbers(final, completed=True).items() if not isnan(value)}
        assert {name: getattr(end, name) for name in numbers} == numbers
        assert (end.result, end.source, end.destination) == ("completed", source.name, destination.name)
        self.earlier.append(end.id)
        assert {one.id for one in self.migrations.records()} == set(self.earlier)
        return end


def ends(lab: Lab, guest: Guest) -> tuple[Node, Node]:
    """Where the guest is, and the other node."""
    first, second = lab.nodes
    return (first, second) if guest.uuid in first.virsh("list", "--uuid") else (second, first)


def check_series(watch: Watch, guest: Guest, resets: int) -> None:
    """One series at every scrape (the watch raises otherwise), at most so many falls, and no rate above the truth."""
    samples = list(watch.values("vm_cpu_seconds_total", uuid=guest.uuid))
    assert all(value >= 0 for _, value in samples)
    drops = watch.drops("vm_cpu_seconds_total", uuid=guest.uuid)
    assert drops <= resets
    figure(14, "scrapes of a migration that is disturbed, one series in each", len(watch.scrapes))
    figure(14, "times that its counter dropped", drops)
    for (begin, earlier), (end, later) in itertools.pairwise(samples):
        grown = later - earlier if later >= earlier else later
        assert grown <= CPU_LIMIT * (end - begin + INTERVAL_SECONDS), f"{earlier} at {begin} became {later} at {end}"


def restarted(service: Service) -> None:
    """Killed, and started again as systemd would."""
    service.kill()
    service.start()


@pytest.mark.parametrize("part", ["source", "destination", "processors", "exporter"])
def test_a_part_is_killed_in_the_middle(lab: Lab, guest: Guest, pipeline: Pipeline, earlier: list[str], tmp_path: Path, part: str) -> None:  # noqa: PLR0913, PLR0917, fixtures
    """SIGKILL of the producer on either side, the processors, or the exporter; the migration's record goes on."""
    source, destination = ends(lab, guest)
    by_name = {service.name: service for service in pipeline.services}
    service = by_name.get(part) or by_name[{"source": source.name, "destination": destination.name}[part]]
    completed, began = CompletedJob(source, guest, tmp_path / "event.log"), time.time()
    with Story(pipeline, earlier) as story, Watch(pipeline.address) as watch:
        migrating = Migrating.begin(guest, source, destination, SLOW_MBPS)
        before = story.moved(began, 4)
        restarted(service)
        hasten(source, guest, migrating, lambda: story.moved(began, 40))
        end = story.check(began, completed.statistics(), source, destination)
        assert end.id == before.id
        shown(pipeline, end)
        watch.await_scrapes(10)
    if part in {"processors", "destination"}:
        return  # their restart keeps samples away for longer than a series stays
    check_series(watch, guest, resets=1)


def hasten(source: Node, guest: Guest, migrating: Migrating, reached: Callable[[], object]) -> None:
    """Once it has come that far, let it end."""
    reached()
    if migrating.runs:
        source.virsh("migrate-setspeed", guest.uuid, "1000")
    migrating.succeed()


def shown(pipeline: Pipeline, end: VmMigration) -> None:
    """The exporter shows that end, with its numbers."""
    seen = pipeline.await_scrape(
        lambda one: one.value("vm_migration_ended_timestamp_seconds", uuid=end.uuid) == end.ended_timestamp_seconds, "the end is shown"
    )
    assert seen.value("vm_migration_downtime_seconds", uuid=end.uuid) == end.downtime_seconds
    assert seen.value("vm_migration_memory_processed_bytes", uuid=end.uuid) == end.memory_processed_bytes


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_what_may_only_read_is_not_told_why(lab: Lab, guest: Guest, pipeline: Pipeline, earlier: list[str], how: str) -> None:
    """By default: neither a cancelled migration nor one whose destination dies is called what it may not be; the VM is its source's."""
    source, destination = ends(lab, guest)
    began = time.time()
    with Story(pipeline, earlier) as story:
        migrating = Migrating.begin(guest, source, destination, SLOW_MBPS)
        before = story.moved(began, 4)
        if how == "cancelled":
            source.virsh("domjobabort", guest.uuid)
        else:
            os.kill(destination.qemu_pid(guest), signal.SIGKILL)
        assert migrating.end()
        end = story.migrations.await_record(lambda one: one.id == before.id and one.result != "running", "it ends", RECOVERY_SECONDS)
        assert (end.result, end.reason) == ("incomplete", END_NOT_REPORTED)
        earlier.append(end.id)
        assert ends(lab, guest) == (source, destination)


@pytest.mark.parametrize("end", ["within", "after"])
def test_the_broker_is_away(lab: Lab, guest: Guest, pipeline: Pipeline, earlier: list[str], tmp_path: Path, end: str) -> None:  # noqa: PLR0913, PLR0917, fixtures
    """It comes back long after the migration's end, or long before: the journals tell what happened, in any order between them."""
    source, destination = ends(lab, guest)
    completed, began = CompletedJob(source, guest, tmp_path / "event.log", END_SECONDS), time.time()
    with Story(pipeline, earlier) as story:
        migrating = Migrating.begin(guest, source, destination, SLOWEST_MBPS)
        before = story.moved(began, 4)
        pipeline.broker.stop()
        stopped = time.time()
        if end == "within":
            hasten(source, guest, migrating, lambda: None)
        while time.time() - stopped < OUTAGE_SECONDS:
            assert all(not service.process.ended for service in pipeline.services)
            assert migrating.runs is (end == "after")
            time.sleep(INTERVAL_SECONDS)
        pipeline.broker.start()
        if end == "after":
            goes_on = story.updated(stopped + OUTAGE_SECONDS)
            assert (goes_on.id, goes_on.result) == (before.id, "running")
            hasten(source, guest, migrating, lambda: None)
        last = story.check(began, completed.statistics(), source, destination)
        assert last.id == before.id
        shown(pipeline, last)
