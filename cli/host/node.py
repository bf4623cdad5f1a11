"""``virtflow node``: serves ``/metrics`` of this host's VMs, without Kafka."""

from __future__ import annotations

import logging
import os

import click

from virtflow.cli.parts import part
from virtflow.cli.switches import EPHEMERAL, GUEST, LOG, WEB, settings_switches
from virtflow.runtime import log
from virtflow.runtime.lifecycle import Stop, dump_stacks_on_signal
from virtflow.runtime.settings import Settings


@click.command()
@settings_switches(
    "libvirt.uri",
    "libvirt.discover",
    "exporter.listen",
    *WEB,
    "producer.interval_seconds",
    "producer.node",
    "producer.kvm_statistics",
    "exporter.include",
    "exporter.exclude",
    "exporter.vm_labels",
    "exporter.fleet_page",
    "exporter.history_url",
    *EPHEMERAL,
    *GUEST,
    *LOG,
)
def node(settings: Settings) -> None:
    """Serve /metrics and the fleet page of this host's VMs, without Kafka: sampling, normalising and exporting in one process.

    \b
    Examples:
      virtflow node
      virtflow node --listen 0.0.0.0:9177 --web-config /etc/virtflow/web.yml --interval 15
      virtflow node --connect qemu:///session --exclude guest --vm-labels name,project
    """  # noqa: D301, click's own mark for lines that are kept
    log.setup(settings.log.level, settings.log.format)
    part("virtflow.producer.sampler", "producer")
    exporter = part("virtflow.exporter.service", "exporter").Exporter(settings)
    stop = Stop().on_signals()
    dump_stacks_on_signal()
    sampling = part("virtflow.node.service", "producer").Sampling(settings, exporter, stop)
    try:
        exporter.serve(stop, bound=sampling.start)
    finally:
        stop.set()
        ended = sampling.end()
    if sampling.failure is not None:
        raise sampling.failure
    if not ended:
        # A thread is in a call to libvirt that does not return; the interpreter's own end would wait for its connection.
        logging.shutdown()
        os._exit(0)
