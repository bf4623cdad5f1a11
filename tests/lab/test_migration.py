"""Live migrations between two real hypervisors, followed through the whole pipeline."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan
from pathlib import Path

import pytest

from tests.support.lab import Guest, GuestSpec, Lab, Node
from tests.support.lab_migration import FIELDS, GROWTH_SECONDS, CompletedJob, JobWatch, Migrating, compare, job_info
from tests.support.lab_pipeline import INTERVAL_SECONDS, Pipeline
from tests.support.lab_release import releases
from tests.support.lab_scrape import Scrape, Watch
from tests.support.record_tap import RecordTap
from virtflow.processors.migrations.job_stats import job_numbers
from virtflow.schemas.records import VmMigration
from virtflow.schemas.topics import MIGRATIONS

RELEASES = releases()
SLOW_MBPS = 10
AGE_SECONDS = 1.5
"""A scrape's numbers are no older, so that they differ from libvirt's of the same moment by no more than their growth in that time."""
FRESH_SHARE = 0.9
"""Of how many scrapes that holds on a machine that carries all of this; none is older than twice that."""
SLACK_SECONDS = 1.0
"""Two cores carry two hypervisors, their guests, a broker and this test."""
VCPU_LIMIT = 2.5
"""CPU seconds per second that the one-vCPU guest's QEMU can truly use: its vCPU, its main loop, and the thread that migrates."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What every test here needs."""

    lab: Lab
    pipeline: Pipeline
    tap: RecordTap[VmMigration]
    guest: Guest

    @property
    def ends(self) -> tuple[Node, Node]:
        """The node where the guest runs, and the other one."""
        first, second = self.lab.nodes
        return (first, second) if self.guest.uuid in first.virsh("list", "--uuid") else (second, first)

    def settled(self) -> tuple[Node, Node]:
        """As ``ends``, once ``/metrics`` shows the guest where it runs: the hand-over before is over, and what it drops has dropped."""
        here, there = self.ends
        self.pipeline.await_scrape(
            lambda seen: seen.value("vm_info", uuid=self.guest.uuid, node=here.name) == 1, f"/metrics shows the guest on {here.name}"
        )
        return here, there

    def ended(self, since: float, uuid: str = "") -> VmMigration:
        """The guest's first migration that ended after ``since``, once both sides have told all they have to tell of it."""
        return self.tap.await_record(
            lambda one: (
                one.uuid == (uuid or self.guest.uuid)
                and one.result != "running"
                and one.ended_timestamp_seconds > since
                and (one.result != "completed" or (one.type == "completed" and not isnan(one.resumed_timestamp_seconds)))
            ),
            f"a migration ends after {since}",
        )

    def shown(self, end: VmMigration, seconds: float = 5.0) -> Scrape:
        """A scrape that shows that end."""
        return self.pipeline.await_scrape(
            lambda seen: (
                seen.value("vm_migration_info", uuid=end.uuid, result=end.result) == 1
                and seen.value("vm_migration_ended_timestamp_seconds", uuid=end.uuid) == end.ended_timestamp_seconds
            ),
            f"/metrics shows {end.result}",
            seconds,
        )


@pytest.fixture(scope="module")
def parts(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """The pipeline around one guest that writes to its memory all the time."""
    guest = lab.nodes[0].start_guest(GuestSpec("busy-1", dirty_mib=24))
    settings = {"VIRTFLOW_LIBVIRT_MIGRATION_STATUS": "true"}
    with (
        Pipeline(lab, tmp_path_factory.mktemp("pipeline"), settings) as pipeline,
        RecordTap(pipeline.broker.address, MIGRATIONS, VmMigration) as tap,
    ):
        yield Parts(lab, pipeline, tap, guest)


def test_numbers_are_libvirts_own_while_it_runs_and_when_it_has_ended(parts: Parts, tmp_path: Path) -> None:
    """Every number equals ``virsh domjobinfo`` of that moment; the final ones the completed statistics, which other clients still get."""
    source, destination = parts.ends
    completed = CompletedJob(source, parts.guest, tmp_path / "event.log")
    begin = time.time()
    with Watch(parts.pipeline.address) as watch, JobWatch(source, parts.guest) as jobs:
        Migrating.begin(parts.guest, source, destination, SLOW_MBPS).succeed()
        end = parts.ended(begin)
        watch.await_scrapes(2)
    running = [seen for seen in watch.scrapes if seen.value("vm_migration_active", uuid=parts.guest.uuid) == 1]
    assert len(running) > 10
    wrong = [line for seen in running for line in compare(seen, jobs, parts.guest)]
    assert not wrong, "\n".join(wrong[:20])
    ages = sorted(
        seen.time - (seen.value("vm_migration_updated_timestamp_seconds", uuid=parts.guest.uuid) or seen.time) for seen in running
    )
    assert sum(age <= AGE_SECONDS for age in ages) >= FRESH_SHARE * len(ages), ages
    assert ages[-1] <= 2 * AGE_SECONDS, ages
    final = completed.statistics()
    expected = {name: value for name, value in job_numbers(final, completed=True).items() if not isnan(value)}
    assert {name: getattr(end, name) for name in expected} == expected
    assert end.result == "completed"
    assert (end.source, end.destination) == (source.name, destination.name)
    seen = parts.shown(end)
    for name, field in FIELDS.items():
        if field.field in final:
            assert seen.value(name, uuid=parts.guest.uuid) == expected[name.removeprefix("vm_migration_")], name
    assert seen.value("vm_migration_downtime_seconds", uuid=parts.guest.uuid) == final["downtime"] / 1000
    assert seen.value("vm_migration_expected_downtime_seconds", uuid=parts.guest.uuid) is None
    # The statistics are consumed by the first reader: that was neither of ours.
    assert job_info(destination, parts.guest, "--completed")["memory_processed"] == final["memory_processed"]


def test_a_cancelled_one(parts: Parts) -> None:
    """Aborted by its operator: cancelled, and the VM goes on where it was, with the same series."""
    source, destination = parts.settled()
    begin = time.time()
    with Watch(parts.pipeline.address) as watch:
        migrating = Migrating.begin(parts.guest, source, destination, SLOW_MBPS)
        await_running(parts, begin)
        source.virsh("domjobabort", parts.guest.uuid)
        assert "cancel" in migrating.end()
        end = parts.ended(begin)
        watch.await_scrapes(10)
    assert (end.result, end.source, end.destination) == ("cancelled", source.name, destination.name)
    parts.shown(end)
    assert watch.drops("vm_cpu_seconds_total", uuid=parts.guest.uuid) == 0


def test_a_failed_one(parts: Parts) -> None:
    """The destination's QEMU dies: failed, and the VM goes on where it was."""
    source, destination = parts.ends
    begin = time.time()
    migrating = Migrating.begin(parts.guest, source, destination, SLOW_MBPS)
    await_running(parts, begin)
    os.kill(destination.qemu_pid(parts.guest), signal.SIGKILL)
    assert migrating.end()
    end = parts.ended(begin)
    assert (end.result, end.source, end.destination) == ("failed", source.name, destination.name)
    parts.shown(end)


def await_running(parts: Parts, since: float) -> VmMigration:
    """The migration has moved some memory; it is none of those that have ended, one of which may have begun just before ``since``."""
    ended = {one.id for one in parts.tap.records() if one.result != "running"}
    return parts.tap.await_record(
        lambda one: one.id not in ended and one.started_timestamp_seconds > since - 1 and one.memory_processed_bytes > 1 << 20,
        "the migration moves memory",
    )


def test_a_post_copy_one(parts: Parts) -> None:
    """Switched over before all memory is there: completed, told as post-copy, the destination speaks at once."""
    source, destination = parts.ends
    begin = time.time()
    migrating = Migrating.begin(parts.guest, source, destination, SLOW_MBPS, ["--postcopy"])
    await_running(parts, begin)
    source.virsh("migrate-postcopy", parts.guest.uuid)
    migrating.succeed()
    end = parts.ended(begin)
    assert (end.result, end.kind, end.source, end.destination) == ("completed", "post_copy", source.name, destination.name)
    assert end.paused_timestamp_seconds <= end.resumed_timestamp_seconds <= end.ended_timestamp_seconds + GROWTH_SECONDS
    parts.shown(end)


def test_there_and_back_five_times(parts: Parts) -> None:
    """Ten migrations in a row: ten records, one series at every scrape, no gap beyond a hand-over, no rate above the truth."""
    uuid = parts.guest.uuid
    ends: list[str] = []
    parts.settled()
    with Watch(parts.pipeline.address) as watch:
        watch.await_scrapes(5)
        for _ in range(10):
            source, destination = parts.ends
            begin = time.time()
            Migrating.begin(parts.guest, source, destination).succeed()
            end = parts.ended(begin)
            assert (end.result, end.source, end.destination) == ("completed", source.name, destination.name)
            parts.shown(end)
            watch.await_scrapes(2)  # so that each end is seen before the next migration takes its place
            ends.append(end.id)
        watch.await_scrapes(15)
    assert len(set(ends)) == 10
    assert watch.longest_gap("vm_state", uuid=uuid) <= 2 * INTERVAL_SECONDS + SLACK_SECONDS
    assert watch.longest_gap("vm_cpu_seconds_total", uuid=uuid) <= 2 * INTERVAL_SECONDS + SLACK_SECONDS
    assert {value for _, value in watch.values("vm_conflict", uuid=uuid)} == {0}
    shown = [value for _, value in watch.values("vm_cpu_seconds_total", uuid=uuid)]
    assert watch.drops("vm_cpu_seconds_total", uuid=uuid) <= 10, f"a value of the host before came again: {shown}"
    assert fastest(list(watch.values("vm_cpu_seconds_total", uuid=uuid))) <= VCPU_LIMIT


def fastest(samples: list[tuple[float, float]], window_seconds: float = 5.0) -> float:
    """The highest ``rate()`` a Prometheus could see over the window: a fall is a reset, after which all counts anew."""
    highest = 0.0
    for start, (begin, _) in enumerate(samples):
        within = [one for one in samples[start:] if one[0] - begin <= window_seconds]
        grown = sum(later - earlier if later >= earlier else later for (_, earlier), (_, later) in itertools.pairwise(within))
        if within[-1][0] - begin >= window_seconds * 0.8:
            highest = max(highest, grown / (within[-1][0] - begin))
    return highest


def test_five_at_once(parts: Parts) -> None:
    """Five VMs move at the same time, each with its own record and result."""
    source, destination = parts.ends
    guests = [source.start_guest(GuestSpec(f"idle-{number}", memory_mib=128, balloon_mib=112), wait=False) for number in range(4)]
    for guest in guests:
        source.await_up(guest)
    begin = time.time()
    moved = [*guests, parts.guest]
    with Watch(parts.pipeline.address):
        running = [Migrating.begin(guest, source, destination, SLOW_MBPS * 2) for guest in moved]
        for migrating in running:
            migrating.succeed()
        ends = [parts.ended(begin, guest.uuid) for guest in moved]
    assert {(end.result, end.source, end.destination) for end in ends} == {("completed", source.name, destination.name)}
    assert len({end.id for end in ends}) == 5
    for guest in guests:
        destination.delete(guest)


def test_a_save_is_no_migration(parts: Parts, tmp_path: Path) -> None:
    """A save has passes, a job and completed statistics as well; none of that becomes a migration.

    One VM's events are followed in their order: what the save made is known by the time a real migration is.
    """
    source, destination = parts.ends
    known = {one.id for one in parts.tap.records() if one.uuid == parts.guest.uuid}
    source.virsh("save", parts.guest.uuid, str(tmp_path / "state"))
    source.virsh("restore", str(tmp_path / "state"))
    begin = time.time()
    Migrating.begin(parts.guest, source, destination).succeed()
    end = parts.ended(begin)
    assert end.result == "completed"
    assert {one.id for one in parts.tap.records() if one.uuid == parts.guest.uuid} == {*known, end.id}
