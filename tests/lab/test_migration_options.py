"""A migration shorter than a sampling interval, and the options for ephemeral metrics through a restart of every part in turn."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from math import isnan
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.exporter_process import ExporterProcess
from tests.support.lab import Guest, GuestSpec, Lab, Node
from tests.support.lab_migration import CompletedJob, Migrating
from tests.support.lab_pipeline import Pipeline
from tests.support.record_tap import RecordTap
from virtflow.processors.migrations.job_stats import job_numbers
from virtflow.schemas.catalogue.migration import MIGRATION_METRICS
from virtflow.schemas.records import VmMigration
from virtflow.schemas.topics import MIGRATIONS

INTERVAL_SECONDS = 10.0
SHORT_SECONDS = 2.0
TRIES = 6
SOON_SECONDS = 5.0
RECOVER_SECONDS = 90.0
ABSENT = -1.0


class Chosen(NamedTuple):
    """The options of an exporter."""

    always_export: bool
    keep_last: bool


COMBINATIONS = [Chosen(*both) for both in itertools.product((False, True), repeat=2)]
NAMES = {metric.name for metric in MIGRATION_METRICS} - {"vm_migration_info"}

Shown = dict[str, float]


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Guest:
    """A guest that hardly writes to its memory, so that it moves at once."""
    return lab.nodes[0].start_guest(GuestSpec("swift-1", memory_mib=96, balloon_mib=96))


@pytest.fixture(scope="module")
def pipeline(lab: Lab, guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The pipeline with a sampling interval of ten seconds."""
    del guest
    settings = {"VIRTFLOW_PRODUCER_INTERVAL_SECONDS": str(INTERVAL_SECONDS)}
    with Pipeline(lab, tmp_path_factory.mktemp("pipeline"), settings) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def exporters(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Chosen, ExporterProcess]]:
    """An exporter with each combination of the options, all on the same topics."""
    with ExitStack() as stack:
        found = {}
        for chosen in COMBINATIONS:
            options = {f"EXPORTER_{name.upper()}": str(value).lower() for name, value in chosen._asdict().items()}
            options["EXPORTER_ABSENT_VALUE"] = f"{ABSENT:g}"
            folder = tmp_path_factory.mktemp("exporter")
            found[chosen] = stack.enter_context(ExporterProcess(folder, pipeline.broker.address, "", options))
        for exporter in found.values():
            exporter.wait_until_ready()
        yield found


def shown(exporter: ExporterProcess, guest: Guest) -> Shown:
    """The guest's migration metrics, those with words left out."""
    found = {name: exporter.value(name, uuid=guest.uuid) for name in NAMES}
    return {name: value for name, value in found.items() if value is not None}


def expected(end: VmMigration | None, *, always: bool, active: float = 0.0) -> Shown:
    """What is to be shown of a migration, or of none."""
    fields = {name: getattr(end, name.removeprefix("vm_migration_"), ABSENT) for name in NAMES} if end else {}
    present = {name: value for name, value in fields.items() if value >= 0 and not isnan(value)}
    if end or always:
        present["vm_migration_active"] = active
    return {name: present.get(name, ABSENT) for name in NAMES} if always else present


def await_shown(exporters: dict[Chosen, ExporterProcess], guest: Guest, wanted: dict[Chosen, Shown], seconds: float) -> None:
    """Each exporter shows what is wanted of it."""
    for options, exporter in exporters.items():
        exporter.wait_until(partial(shows, exporter, guest, wanted[options]), seconds, f"the metrics of {options}")


def shows(exporter: ExporterProcess, guest: Guest, wanted: Shown) -> bool:
    return shown(exporter, guest) == wanted


def migrates(exporter: ExporterProcess, guest: Guest, since: float) -> bool:
    """Whether a migration runs whose source has told when it began; the destination alone does not know that."""
    started = exporter.value("vm_migration_started_timestamp_seconds", uuid=guest.uuid)
    return exporter.value("vm_migration_active", uuid=guest.uuid) == 1 and started is not None and started > since


def short_migration(pipeline: Pipeline, guest: Guest, nodes: tuple[Node, Node], folder: Path) -> VmMigration:
    """The record of a migration that took less than two seconds, its numbers being libvirt's own final ones; a busy machine needs tries."""
    with RecordTap(pipeline.broker.address, MIGRATIONS, VmMigration) as tap:
        for attempt in range(TRIES):
            source, destination = nodes if attempt % 2 == 0 else nodes[::-1]
            completed, began = CompletedJob(source, guest, folder / f"event-{attempt}.log"), time.time()
            Migrating.begin(guest, source, destination).succeed()
            end = tap.await_record(partial(ended_since, since=began), "the migration ends")
            numbers = {name: value for name, value in job_numbers(completed.statistics(), completed=True).items() if not isnan(value)}
            assert {name: getattr(end, name) for name in numbers} == numbers
            assert (end.source, end.destination) == (source.name, destination.name)
            if end.elapsed_seconds < SHORT_SECONDS:
                return end
    raise AssertionError(f"none of {TRIES} migrations took less than {SHORT_SECONDS} s")


def ended_since(one: VmMigration, since: float) -> bool:
    """Whether it has ended and both sides have told all they have to tell, in whatever order."""
    return one.type == "completed" and one.ended_timestamp_seconds > since and not isnan(one.resumed_timestamp_seconds)


def test_short_migration_and_the_options_through_restarts(
    lab: Lab, guest: Guest, pipeline: Pipeline, exporters: dict[Chosen, ExporterProcess], tmp_path: Path
) -> None:
    """Shorter than two seconds between two samples: all final numbers are there; and then each option keeps its promise."""
    first, second = lab.nodes
    nothing = {options: expected(None, always=options.always_export) for options in COMBINATIONS}
    await_shown(exporters, guest, nothing, 3 * INTERVAL_SECONDS)
    end = short_migration(pipeline, guest, (first, second), tmp_path)
    second, first = (first, second) if end.source == second.name else (second, first)
    last = {options: expected(end, always=options.always_export) for options in COMBINATIONS}
    await_shown(exporters, guest, last, SOON_SECONDS)
    kept = {options: last[options] if options.keep_last else nothing[options] for options in COMBINATIONS}

    for service in (*pipeline.producers, pipeline.processors):
        service.kill()
        service.start()
    pipeline.broker.restart()
    for exporter in exporters.values():
        exporter.stop(signal.SIGKILL)
        exporter.start()
        exporter.wait_until_ready()
    await_shown(exporters, guest, kept, RECOVER_SECONDS)

    began = time.time()
    migrating = Migrating.begin(guest, second, first, mbps=4)
    for options, exporter in exporters.items():
        exporter.wait_until(partial(migrates, exporter, guest, began - SHORT_SECONDS), 30.0, f"the next one with {options}")
        assert exporter.value("vm_migration_downtime_seconds", uuid=guest.uuid) == (ABSENT if options.always_export else None)
    second.virsh("migrate-setspeed", guest.uuid, "1000")
    migrating.succeed()
