"""``virtflow snapshot``: one sample of this host's VMs, printed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from virtflow.cli.output.say import say, say_data, say_json
from virtflow.cli.output.table import print_table, printable
from virtflow.cli.parts import part
from virtflow.cli.switches import settings_switches
from virtflow.runtime import log
from virtflow.runtime.settings import Settings

if TYPE_CHECKING:
    from virtflow.cli.host.sample import Sample

FORMATS = ("table", "prom", "json")


@click.command()
@settings_switches(
    "libvirt.uri", "libvirt.discover", "producer.kvm_statistics", "exporter.include", "exporter.exclude", "exporter.vm_labels"
)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="How to write it: for people or for programs."
)
@click.option("--record", metavar="FILE", type=click.Path(path_type=Path), help="Also append what libvirt said to this recording.")
@click.option("--replay", metavar="FILE", type=click.Path(path_type=Path), help="Take the newest sample of each VM in a recording.")
def snapshot(settings: Settings, *, form: str, record: Path | None, replay: Path | None) -> None:
    """Print one sample of this host's VMs, or of a recording's, and exit.

    A recording is JSON lines, one per VM and round, with libvirt's own keys and values.

    \b
    Examples:
      virtflow snapshot
      virtflow snapshot --connect qemu:///session --format json | jq '.vms[].name'
      virtflow snapshot --record vms.jsonl
      virtflow snapshot --replay vms.jsonl --format prom
    """  # noqa: D301, click's own mark for lines that are kept
    if record is not None and replay is not None:
        raise click.UsageError("--record writes what libvirt says and --replay reads a recording instead: give one of them")
    log.setup("error", settings.log.format)
    samples, formats = part("virtflow.cli.host.sample", "producer"), part("virtflow.cli.host.sample_format", "producer")
    names = _chosen(settings, formats.NAMES)
    sample = (
        samples.sample_recording(replay, kvm=settings.producer.kvm_statistics)
        if replay is not None
        else samples.sample_libvirt(settings, record)
    )
    if sample.broken_lines:
        say(f"virtflow: recording {replay}: {sample.broken_lines} broken lines skipped", err=True)
    if form == "prom":
        now = sample.collected if replay is not None else time.time()
        # The format is UTF-8, whatever the locale is.
        say_data(formats.exposition_of(sample, names, settings.exporter, now).encode())
    elif form == "json":
        say_json(formats.object_of(sample))
    else:
        _print_table(sample, formats)
    if sample.stuck:
        # A thread is in a call to libvirt that does not return; the interpreter's own end would wait for its connection.
        sys.stdout.flush()
        os._exit(0)


def _chosen(settings: Settings, names: frozenset[str]) -> Collection[str]:
    include, exclude = settings.exporter.include, settings.exporter.exclude
    if not include and not exclude:
        return names
    chosen: frozenset[str] = part("virtflow.exporter.selection", "exporter").chosen(include, exclude)
    return names & chosen


def _print_table(sample: Sample, formats: Any) -> None:  # noqa: ANN401, a module
    rows = formats.rows(sample)
    if rows:
        print_table(formats.HEAD, rows, formats.RIGHT)
    at = datetime.fromtimestamp(sample.collected, UTC).isoformat(" ", "seconds")
    say(f"{len(rows)} VM{'' if len(rows) == 1 else 's'}, node {printable(sample.node)}, {at}")
