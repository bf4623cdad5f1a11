"""One host alone: ``virtflow node`` on either side of a real migration, each with the options, through a restart of both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import GuestSpec, Lab
from tests.support.lab_migration import CompletedJob, Migrating
from tests.support.lab_node_alone import NodeAlone

OPTIONS = ("--interval", "1", "--log-level", "error")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two nodes."""
    with Lab(nodes=2) as lab:
        yield lab


def test_either_side_tells_what_it_hears_and_keeps_it(lab: Lab, tmp_path: Path) -> None:
    """The source has all numbers and keeps them beyond its own restart; the destination tells that the VM came."""
    source, destination = lab.nodes
    guest = source.start_guest(GuestSpec("swift-1", memory_mib=96, balloon_mib=96))
    still = source.load_paused(1)[0]
    here = NodeAlone(source, tmp_path, *OPTIONS, "--keep-last", "--always-export")
    there = NodeAlone(destination, tmp_path, *OPTIONS, "--keep-last")
    here.await_value(0, "vm_migration_active", uuid=guest.uuid)
    there.await_value(1, "virtflow_node_up")
    completed = CompletedJob(source, guest, tmp_path / "event.log")
    Migrating.begin(guest, source, destination).succeed()
    final = completed.statistics()
    seen = there.await_value(1, "vm_migration_info", uuid=guest.uuid, destination=destination.name)
    assert seen.value("vm_migration_resumed_timestamp_seconds", uuid=guest.uuid) is not None
    Migrating.begin(guest, destination, source).succeed()
    # The source of the first one is the destination of the second: its numbers are the other side's.
    back = there.await_value(final["memory_total"], "vm_migration_memory_total_bytes", uuid=guest.uuid)
    assert back.value("vm_migration_active", uuid=guest.uuid) in {0.0, None}
    for alone in (here, there):
        alone.kill()
        alone.start()
    kept = here.await_value(0, "vm_migration_active", uuid=still.uuid)
    absent = kept.value("vm_migration_downtime_seconds", uuid=still.uuid)
    assert absent is not None
    assert absent != absent  # noqa: PLR0124, NaN is not itself
    here.await_value(1, "vm_migration_info", uuid=guest.uuid, destination=source.name)
