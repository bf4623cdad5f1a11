"""The collectors that ``bench.node`` compares: how each is started, and how to see what it has of the VMs."""

from __future__ import annotations

import re
import sys
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from bench.rivals import COLLECTD
from bench.rivals_telegraf import NotBuiltError, telegraf
from scripts.debian_programs import Missing, debian_program
from tests.support.lab import Node
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.records import NodeSnapshot

PORT: Final = 9300
SCRAPE_SECONDS: Final = 60.0
ROUND_MILLISECONDS: Final = 500
"""Messages that are younger than the newest by less are of the same round."""
TELEGRAF_TOPIC: Final = "telegraf"
TELEGRAF_PLUGINS: Final = ("inputs.libvirt", "outputs.kafka", "outputs.prometheus_client", "serializers.influx")
EXPORTER: Final = "prometheus-libvirt-exporter"
FLOOR: Final = "one bulk call"
"""A loop around the call that brings all groups of all VMs, in the same language and binding: what libvirtd's part can't go below."""

_LOOP: Final = """
import libvirt, sys, time
connection = libvirt.openReadOnly("qemu:///system")
groups = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_INTERFACE | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
groups |= libvirt.VIR_DOMAIN_STATS_BALLOON | libvirt.VIR_DOMAIN_STATS_VCPU | libvirt.VIR_DOMAIN_STATS_BLOCK
due = time.monotonic()
while True:
    found = connection.getAllDomainStats(groups, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)
    print(sum(len(data) for _, data in found), flush=True)
    due += float(sys.argv[1])
    time.sleep(max(0.0, due - time.monotonic()))
"""

_TELEGRAF: Final = """
[agent]
  interval = "{interval}s"
  flush_interval = "{interval}s"
  round_interval = false
  omit_hostname = true
[[inputs.libvirt]]
  libvirt_uri = "qemu+unix:///system?socket=/run/libvirt/libvirt-sock"
  statistics_groups = ["state", "cpu_total", "balloon", "vcpu", "interface", "block"]
"""
_TO_PROMETHEUS: Final = """
[[outputs.prometheus_client]]
  listen = ":{port}"
  collectors_exclude = ["gocollector", "process"]
"""
_TO_KAFKA: Final = """
[[outputs.kafka]]
  brokers = ["{broker}"]
  topic = "{topic}"
  compression_codec = 4
  required_acks = -1
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the collectors run: a hypervisor, a broker's address, a folder for files, and the interval to sample at."""

    node: Node
    broker: str
    folder: Path
    interval_seconds: float


class Watch(Protocol):
    """What shows a collector's values."""

    def arrived(self) -> bool:
        """Whether values of VMs are there."""

    def sample(self) -> float:
        """Take what is there now; how many values of all VMs it holds."""

    def moments(self) -> set[str]:
        """What tells the samples that were seen apart, as far as anything does."""

    def close(self) -> None:
        """Let go of it."""


@dataclass(frozen=True, slots=True)
class Collector:
    """A program that collects the VMs of its host.

    ``package`` names what is installed for it, "" for what is no product. ``pulled``: it samples when it is scraped. ``settles``: its
    first rounds cost more than the others.
    """

    name: str
    command: Callable[[Place], list[str]]
    watch: Callable[[Place], Watch]
    package: str = ""
    pulled: bool = False
    settles: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


class Scraped:
    """A collector with an address for Prometheus."""

    def __init__(self, place: Place, value: str) -> None:
        """``value`` is the pattern of a line with a VM's value."""
        self._url = f"http://{place.node.address}:{PORT}/metrics"
        self._value = re.compile(value, re.MULTILINE)

    def arrived(self) -> bool:
        """See ``Watch``."""
        try:
            return self.sample() > 0
        except OSError:
            return False

    def sample(self) -> float:
        """A scrape."""
        with urllib.request.urlopen(self._url, timeout=SCRAPE_SECONDS) as answer:  # noqa: S310, an address of the lab
            return len(self._value.findall(answer.read().decode()))

    def moments(self) -> set[str]:
        """Nothing does: a scrape on the collector's own interval can't tell a sample that is missing from one that is about to come."""
        return set()

    def close(self) -> None:
        """Nothing is held."""


class Topic:
    """A collector that produces to a topic of one message a round, or of one a VM and more."""

    def __init__(self, place: Place, name: str, count: Callable[[bytes], float]) -> None:
        """``count`` tells the values in a message. Only what comes from now on is looked at."""
        self._consumer = Consumer({"bootstrap.servers": place.broker, "group.id": "bench", "enable.auto.commit": False})
        partitions = self._consumer.list_topics(name, 10.0).topics[name].partitions
        ends = {number: self._consumer.get_watermark_offsets(TopicPartition(name, number), 10.0)[1] for number in partitions}
        self._consumer.assign([TopicPartition(name, number, end) for number, end in ends.items()])
        self._count = count
        self._found = 0.0
        self._newest = 0
        self._moments: set[str] = set()

    def arrived(self) -> bool:
        """See ``Watch``: the first round is there."""
        return self._read(0.02) > 0

    def sample(self) -> float:
        """The values of the round that came with the interval before this call."""
        found = self._read(0.0)
        self._found = found or self._found
        return self._found

    def _read(self, seconds: float) -> float:
        found = [(message.timestamp()[1], message.value() or b"") for message in self._consumer.consume(50_000, seconds)]
        newest = max((milliseconds for milliseconds, _ in found), default=0)
        for milliseconds in sorted(milliseconds for milliseconds, _ in found):
            if milliseconds > self._newest + ROUND_MILLISECONDS:
                self._moments.add(str(milliseconds))
                self._newest = milliseconds
        return sum((self._count(value) for milliseconds, value in found if milliseconds > newest - ROUND_MILLISECONDS), 0.0)

    def moments(self) -> set[str]:
        """See ``Watch``."""
        return self._moments

    def close(self) -> None:
        """See ``Watch``."""
        self._consumer.close()


class Printed:
    """The floor, which prints how many values it has after each call."""

    def __init__(self, place: Place) -> None:
        """Reads its output from the end that it has now."""
        self._log = place.folder / f"{FLOOR.replace(' ', '-')}.log"
        self._from = self._log.stat().st_size if self._log.exists() else 0
        self._moments: set[str] = set()

    def arrived(self) -> bool:
        """See ``Watch``."""
        return self.sample() > 0

    def sample(self) -> float:
        """See ``Watch``."""
        if not self._log.exists():
            return 0.0
        lines = self._log.read_text()[self._from :].split("\n")[:-1]
        self._moments = {str(number) for number in range(len(lines))}
        return float(lines[-1]) if lines else 0.0

    def moments(self) -> set[str]:
        """See ``Watch``."""
        return self._moments

    def close(self) -> None:
        """Nothing is held."""


def collectors(place: Place) -> tuple[list[Collector], dict[str, str]]:
    """Those that are to be had, and why the others are not."""
    program = str(Path(sys.executable).with_name("virtflow"))
    interval = f"{place.interval_seconds:g}"
    every = {"VIRTFLOW_PRODUCER_INTERVAL_SECONDS": interval, "VIRTFLOW_PRODUCER_NODE": "bench"}
    kafka = every | {"VIRTFLOW_KAFKA_BOOTSTRAP_SERVERS": place.broker}
    found = [
        Collector(FLOOR, lambda place: [sys.executable, "-c", _LOOP, f"{place.interval_seconds:g}"], Printed),
        Collector(
            "virtflow producer", lambda _: [program, "producer"], _snapshots, package="virtflow[producer]", settles=True, environment=kafka
        ),
        Collector(
            "virtflow node",
            lambda _: [program, "node", "--listen", f"0.0.0.0:{PORT}"],
            lambda place: Scraped(place, r"^vm_"),
            package="virtflow[producer,exporter]",
            settles=True,
            environment=every,
        ),
    ]
    failures = {}
    for make in (_exporter, _collectd, _telegraf):
        try:
            found += make(place)
        except (Missing, NotBuiltError) as error:
            failures[make.__name__.strip("_")] = str(error)
    return found, failures


def _exporter(place: Place) -> list[Collector]:
    del place
    program = debian_program(EXPORTER)
    watch = r"^libvirt_domain_"
    return [
        Collector(
            EXPORTER,
            lambda _: [program, f"--web.listen-address=:{PORT}"],
            lambda place: Scraped(place, watch),
            package=EXPORTER,
            pulled=True,
        )
    ]


def _collectd(place: Place) -> list[Collector]:
    del place
    program = debian_program("collectd")

    def command(place: Place) -> list[str]:
        path = place.folder / "collectd.conf"
        path.write_text(COLLECTD.format(interval=place.interval_seconds, folder=place.folder, port=PORT))
        return [program, "-f", "-C", str(path)]

    return [Collector("collectd", command, lambda place: Scraped(place, r"^collectd_virt_"), package="collectd-core")]


def _telegraf(place: Place) -> list[Collector]:
    program = str(telegraf(TELEGRAF_PLUGINS))
    admin = AdminClient({"bootstrap.servers": place.broker})
    if TELEGRAF_TOPIC not in admin.list_topics(timeout=30.0).topics:
        admin.create_topics([NewTopic(TELEGRAF_TOPIC, 1, 1)])[TELEGRAF_TOPIC].result(30.0)

    def command(name: str, output: str) -> Callable[[Place], list[str]]:
        def made(place: Place) -> list[str]:
            path = place.folder / f"{name}.conf"
            text = _TELEGRAF + output
            path.write_text(text.format(interval=place.interval_seconds, port=PORT, broker=place.broker, topic=TELEGRAF_TOPIC))
            return [program, "--config", str(path)]

        return made

    return [
        Collector(
            "telegraf to Prometheus",
            command("scraped", _TO_PROMETHEUS),
            lambda place: Scraped(place, r"^libvirt_"),
            package=program,
        ),
        Collector(
            "telegraf to Kafka", command("kafka", _TO_KAFKA), lambda place: Topic(place, TELEGRAF_TOPIC, _influx_values), package=program
        ),
    ]


def _snapshots(place: Place) -> Topic:
    return Topic(place, "vm.snapshots", snapshot_values())


def snapshot_values() -> Callable[[bytes], float]:
    """What counts the values of VMs in a message of ``vm.snapshots``."""
    codec = Codec()

    def count(message: bytes) -> float:
        snapshot = codec.decode(message, NodeSnapshot)
        return float(sum(_numbers(msgspec.to_builtins(vm)) for vm in snapshot.vms))

    return count


def _numbers(data: Any) -> int:  # noqa: ANN401, plain data
    """How many numbers of libvirt's a VM's record holds: what is absent is -1."""
    if isinstance(data, dict):
        return sum(_numbers(value) for key, value in data.items() if key not in {"inventory", "monitor_collected", "number"})
    if isinstance(data, list):
        return sum(map(_numbers, data))
    return int(isinstance(data, int) and data != -1)


def _influx_values(message: bytes) -> float:
    """Numbers among the fields of lines in Influx's protocol: after the tags, and no strings."""
    lines = [line.replace(b"\\ ", b"_").split(b" ") for line in message.splitlines()]
    return float(sum(len(re.findall(rb"=-?[0-9]", words[1])) for words in lines if len(words) > 1))
