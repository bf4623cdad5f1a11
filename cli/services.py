"""The services as commands: each imports its part when it is called, sets up log and signals, and runs until it is told to stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from virtflow.cli.parts import part
from virtflow.cli.switches import EPHEMERAL, GUEST, KAFKA, LOG, WEB, settings_switches
from virtflow.runtime import log
from virtflow.runtime.kafka.clients import unusable
from virtflow.runtime.lifecycle import Stop, collect_seldom, dump_stacks_on_signal
from virtflow.runtime.settings import Settings


def serve(module: str, extra: str, settings: Settings) -> None:
    """Runs a service until SIGTERM, SIGINT or its own end."""
    log.setup(settings.log.level, settings.log.format)
    stop = Stop().on_signals()
    dump_stacks_on_signal()
    if extra != "producer":  # which lives in one heap by what starts it, and loads nothing that it has no need of
        from virtflow.runtime.memory import one_heap

        one_heap()  # before libraries begin threads
    service = part(module, extra)
    if extra != "producer":
        collect_seldom()
    with kafka_errors_told(settings, extra):
        service.run(settings, stop)


@contextmanager
def kafka_errors_told(settings: Settings, extra: str) -> Iterator[None]:
    """An error of the Kafka client leaves as ``EnvironmentProblemError`` or ``SettingError``, which say what to do."""
    client = part("virtflow.runtime.kafka.librdkafka", extra)
    try:
        yield
    except client.KafkaException as error:
        if error.args[0].name() != "_INVALID_ARG":
            raise part("virtflow.runtime.kafka.broker_problem", extra).broker_problem(settings.kafka, [], error.args[0]) from error
        raise unusable(settings.kafka, error.args[0].str()) from error


@click.command()
@settings_switches(
    "libvirt.uri",
    "libvirt.discover",
    *KAFKA,
    "topics.prefix",
    "producer.interval_seconds",
    "producer.node",
    "producer.kvm_statistics",
    *GUEST,
    *LOG,
)
def producer(settings: Settings) -> None:
    """Sample this hypervisor's VMs and send the snapshots to Kafka. Opens no port.

    \b
    Examples:
      virtflow producer --bootstrap-servers kafka1:9092,kafka2:9092
      virtflow producer --connect qemu:///system --interval 5 --node rack1-host7
      virtflow producer --guest-agent --set-balloon-period 10
    """  # noqa: D301, click's own mark for lines that are kept
    serve("virtflow.producer.service", "producer", settings)


@click.command()
@settings_switches(*KAFKA, "topics.prefix", "processors.listen", *WEB, *LOG)
def processors(settings: Settings) -> None:
    """Turn snapshots into named metrics in base units: vm.snapshots in; vm.metrics, vm.inventory and vm.nodes out.

    Run as many as there are partitions; each takes its share.

    \b
    Examples:
      virtflow processors --bootstrap-servers kafka1:9092
      virtflow processors --config ./processors.toml --listen 127.0.0.1:9179
    """  # noqa: D301, click's own mark for lines that are kept
    serve("virtflow.processors.service", "processors", settings)


@click.command()
@settings_switches(
    *KAFKA,
    "topics.prefix",
    "exporter.listen",
    *WEB,
    "exporter.shard",
    "exporter.include",
    "exporter.exclude",
    "exporter.vm_labels",
    "exporter.fleet_page",
    "exporter.history_url",
    "exporter.targets",
    *EPHEMERAL,
    *LOG,
)
def exporter(settings: Settings) -> None:
    """Serve the fleet's /metrics to Prometheus, the fleet page at /, its JSON API at /api/v1, /healthz and /readyz.

    \b
    Examples:
      virtflow exporter --bootstrap-servers kafka1:9092 --listen 0.0.0.0:9177 --web-config /etc/virtflow/web.yml
      virtflow exporter --exclude guest,vm_vcpu_wait_seconds_total
      virtflow exporter --keep-last --always-export --absent-value -1
      virtflow exporter --shard 1/2 --targets exporter-1:9177,exporter-2:9177
    """  # noqa: D301, click's own mark for lines that are kept
    serve("virtflow.exporter.service", "exporter", settings)


@click.command()
@settings_switches(
    *KAFKA,
    "topics.prefix",
    "adapter.api_listen",
    "adapter.listen",
    *WEB,
    "adapter.tls_certificate_file",
    "adapter.tls_key_file",
    "adapter.kubernetes_url",
    "adapter.prometheus_url",
    "adapter.window_seconds",
    "adapter.external",
    *LOG,
)
def adapter(settings: Settings) -> None:
    """Serve VMs' metrics to Kubernetes' HorizontalPodAutoscaler: custom.metrics.k8s.io and, on request, external.metrics.k8s.io.

    \b
    Examples:
      virtflow adapter --bootstrap-servers kafka1:9092 --api-listen 0.0.0.0:6443
      virtflow adapter --window 120 --external
      virtflow adapter --prometheus-url http://prometheus.monitoring:9090
    """  # noqa: D301, click's own mark for lines that are kept
    serve("virtflow.adapter.service", "adapter", settings)


@click.command()
@settings_switches(
    "simulate.nodes",
    "simulate.vms",
    "producer.interval_seconds",
    "simulate.seed",
    "simulate.migrations",
    "simulate.guests",
    "simulate.stuck",
    *KAFKA,
    "topics.prefix",
    *LOG,
)
def simulate(settings: Settings) -> None:
    """Act as many hypervisors: send snapshots of VMs that do not exist, with load, reboots, migrations, and VMs made and deleted.

    \b
    Examples:
      virtflow simulate --nodes 10 --vms 100 --interval 1
      virtflow simulate --nodes 2 --vms 5 --interval 5 --seed 7 --bootstrap-servers localhost:9092
    """  # noqa: D301, click's own mark for lines that are kept
    serve("virtflow.producer.simulator.service", "producer", settings)
