"""A migration that copies disks first and leaves the VM defined on its source, through the whole pipeline."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import Guest, GuestSpec, Lab
from tests.support.lab_guest import DISK_BYTES
from tests.support.lab_migration import KEEP, JobWatch, Migrating, compare, with_own_disks
from tests.support.lab_pipeline import INTERVAL_SECONDS, Pipeline
from tests.support.lab_release import releases
from tests.support.lab_scrape import Scrape, Watch
from virtflow.schemas.states import PAUSED, RUNNING, SHUT_OFF, SHUT_OFF_MIGRATED

RELEASES = releases(every_run=True)
MBPS = 4
DISK_DATA_BYTES = 40 << 20
"""What the disk's copy has to send: about ten seconds at MBPS."""
DISCOVERY_SECONDS = 3600.0
"""Which is too late: the status file tells."""
SLACK_SECONDS = 2.0
DISK_METRICS = ("vm_migration_disk_total_bytes", "vm_migration_disk_processed_bytes", "vm_migration_disk_remaining_bytes")


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Guest:
    """A guest with data on its disk, and a file of that size where it will be on the second node, whose disks are its own."""
    first, second = lab.nodes
    there = with_own_disks(lab, second)
    guest = first.start_guest(GuestSpec("stateful-1", memory_mib=128, balloon_mib=112))
    name = f"{guest.uuid}-0.img"
    with (first.disks / name).open("r+b") as disk:
        disk.write(os.urandom(DISK_DATA_BYTES))
    with (there / name).open("wb") as disk:
        disk.truncate(DISK_BYTES)
    return guest


@pytest.fixture(scope="module")
def pipeline(lab: Lab, guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The pipeline, which looks for jobs that no event announces where libvirt has saved a VM's status."""
    del guest
    settings = {"VIRTFLOW_PRODUCER_JOB_DISCOVERY_SECONDS": str(DISCOVERY_SECONDS)}
    with Pipeline(lab, tmp_path_factory.mktemp("pipeline"), settings) as pipeline:
        yield pipeline


def copying(seen: Scrape, guest: Guest) -> bool:
    """Whether a scrape shows that disks are being copied, before any memory is sent."""
    remaining = seen.value("vm_migration_disk_remaining_bytes", uuid=guest.uuid)
    return bool(remaining) and not seen.value("vm_migration_memory_processed_bytes", uuid=guest.uuid)


def test_disks_are_followed_and_the_definition_left_behind_is_never_shown(lab: Lab, guest: Guest, pipeline: Pipeline) -> None:
    """The disks' numbers are libvirt's own of the same moment; then no scrape shows the VM shut off, and its counters change once.

    The destination's producer is away during the hand-over, so the source is sampled several times before the destination is.
    """
    source, destination = lab.nodes
    uuid = guest.uuid
    pipeline.await_scrape(lambda seen: seen.value("vm_info", uuid=uuid, node=source.name) == 1, "the guest on its source")
    with Watch(pipeline.address) as watch, JobWatch(source, guest) as jobs:
        began = time.time()
        migrating = Migrating.begin(guest, source, destination, MBPS, ["--copy-storage-all", KEEP])
        pipeline.await_scrape(lambda seen: bool(seen.value("vm_migration_memory_processed_bytes", uuid=uuid)), "the disks are copied")
        pipeline.producers[1].stop()
        source.virsh("migrate-setspeed", uuid, "1000")
        migrating.succeed()
        left = source.domstats(guest, "state")
        watch.await_scrapes(int(2 * INTERVAL_SECONDS / watch.pause_seconds))
        ages = [value for _, value in watch.values("vm_sample_age_seconds", uuid=uuid)]
        pipeline.producers[1].start()
        pipeline.await_scrape(lambda seen: seen.value("vm_info", uuid=uuid, node=destination.name) == 1, "the guest on its destination")
        watch.await_scrapes(int(3 * INTERVAL_SECONDS / watch.pause_seconds))
    assert (int(left["state.state"]), int(left["state.reason"])) == (SHUT_OFF, SHUT_OFF_MIGRATED), "the source lists it"

    disks = [seen for seen in watch.scrapes if copying(seen, guest)]
    assert len(disks) > 10
    assert disks[0].time - began < 2 * INTERVAL_SECONDS + SLACK_SECONDS
    assert all(seen.value("vm_migration_active", uuid=uuid) == 1 for seen in disks)
    wrong = [line for seen in disks for line in compare(seen, jobs, guest)]
    assert not wrong, "\n".join(wrong[:20])
    numbers = [[seen.value(name, uuid=uuid) or 0.0 for name in DISK_METRICS] for seen in disks]
    assert all(total >= DISK_BYTES and processed + remaining == total for total, processed, remaining in numbers)
    assert len({processed for _, processed, _ in numbers}) > 2, "it goes on"

    assert {value for _, value in watch.values("vm_state", uuid=uuid)} <= {RUNNING, PAUSED}
    assert max(ages) > INTERVAL_SECONDS, "the source's last sample stays"
    assert watch.drops("vm_cpu_seconds_total", uuid=uuid) == 1


def test_what_is_shown_of_it_afterwards(lab: Lab, guest: Guest, pipeline: Pipeline) -> None:
    """Shut off where it was shut off; nothing when it is removed there, though the source still lists it; and back when it runs there."""
    source, destination = lab.nodes
    uuid = guest.uuid
    destination.destroy(guest)
    pipeline.await_scrape(lambda seen: seen.value("vm_state", uuid=uuid) == SHUT_OFF, "the guest is shut off")
    assert pipeline.scrape().value("vm_info", uuid=uuid, node=destination.name) == 1
    with Watch(pipeline.address) as watch:
        destination.virsh("undefine", uuid)
        pipeline.await_scrape(lambda seen: uuid not in seen.uuids(), "the guest is gone")
        source.restart_libvirtd()
        assert source.domstats(guest, "state")["state.reason"] == "0", "the daemon has forgotten why it is shut off"
        watch.await_scrapes(int(5 * INTERVAL_SECONDS / watch.pause_seconds))
    assert uuid not in watch.scrapes[-1].uuids()
    assert not any(seen.value("vm_info", uuid=uuid, node=source.name) for seen in watch.scrapes)
    source.virsh("start", uuid)
    pipeline.await_scrape(lambda seen: seen.value("vm_state", uuid=uuid) == RUNNING, "the guest runs again")
    source.destroy(guest)
    pipeline.await_scrape(
        lambda seen: seen.value("vm_state", uuid=uuid) == SHUT_OFF and seen.value("vm_info", uuid=uuid, node=source.name) == 1,
        "it is shut off",
    )


def test_a_quiet_job_poller_is_not_in_the_log(pipeline: Pipeline) -> None:
    """Asking for jobs that are not there is no problem to report; the log is there, since each service says that it has started."""
    for producer in pipeline.producers:
        text = Path(producer.log).read_text(errors="replace")
        assert "job" not in text.lower(), text[-2000:]
