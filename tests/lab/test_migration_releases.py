"""A VM moves from the oldest libvirt to a newer one, and is followed through the whole pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.lab import GuestSpec, Lab
from tests.support.lab_guest import make_disk
from tests.support.lab_migration import CompletedJob, Migrating, with_own_disks
from tests.support.lab_pipeline import Pipeline
from tests.support.lab_release import RELEASES as KNOWN
from tests.support.lab_release import releases
from tests.support.record_tap import RecordTap
from virtflow.schemas.records import VmMigration
from virtflow.schemas.topics import MIGRATIONS

OLDEST = next(iter(KNOWN))
RELEASES = [name for name in releases(every_run=True) if name != OLDEST]


@pytest.mark.parametrize("options", [(), ("--copy-storage-all",)], ids=["shared disks", "disks of its own"])
def test_a_vm_moves_to_a_newer_release(release: str, options: tuple[str, ...], tmp_path: Path) -> None:
    """One migration with libvirt's own final numbers, and the VM goes on at its destination with all of its metrics."""
    with Lab(releases=(OLDEST, release)) as lab, Pipeline(lab, tmp_path) as pipeline:
        source, destination = lab.nodes
        guest = source.start_guest(GuestSpec("web-1"))
        if options:
            make_disk(with_own_disks(lab, destination) / f"{guest.uuid}-0.img")
        pipeline.await_scrape(lambda seen: seen.value("vm_info", uuid=guest.uuid, node=source.name) == 1, "the VM is shown at its source")
        completed = CompletedJob(source, guest, tmp_path / "event.log")
        with RecordTap(pipeline.broker.address, MIGRATIONS, VmMigration) as tap:
            Migrating.begin(guest, source, destination, options=options).succeed()
            # The source may tell the end before the destination's producer has told that the VM runs there: that is told once more.
            told = tap.await_record(
                lambda one: one.uuid == guest.uuid and one.result == "completed" and one.destination != "", "the migration is told"
            )
        assert (told.source, told.destination) == (source.name, destination.name)
        final = completed.statistics()
        seen = pipeline.await_scrape(
            lambda seen: (
                seen.value("vm_info", uuid=guest.uuid, node=destination.name) == 1
                and seen.value("vm_block_read_bytes_total", uuid=guest.uuid, device="vda") is not None
                and seen.value("vm_migration_memory_processed_bytes", uuid=guest.uuid) == final["memory_processed"]
            ),
            "the VM is shown at its destination, with libvirt's final numbers",
        )
        assert seen.value("vm_info", uuid=guest.uuid, node=source.name) is None
        assert seen.value("vm_state", uuid=guest.uuid) == 1
