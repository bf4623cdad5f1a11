"""Translates ``vm.metrics`` into Telegraf's own line protocol: the same values, cut into lines as its libvirt input cuts them.

``python -m bench.telegraf_lines BROKERS FROM TO_SAMPLES TO_LINES`` runs until it is ended. Telegraf's Kafka output sends a message
for each line (``Write`` in its plugins/outputs/kafka, which has no option for more): so do we to ``TO_LINES``. To ``TO_SAMPLES`` goes
what spares a reader most: one message with all lines of a VM's sample.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from operator import attrgetter
from typing import Final

from confluent_kafka import Consumer, Producer
from msgspec import Struct

from tests.support.patient_producer import produce_patiently
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.catalogue.metrics import of_libvirt
from virtflow.schemas.catalogue.types import Scope
from virtflow.schemas.records import VmMetrics

BATCH: Final = 500
READ_SECONDS: Final = 0.2
DEVICES: Final = ((Scope.VCPU, "vcpus", "vcpu"), (Scope.NETWORK, "networks", "device"), (Scope.BLOCK, "blocks", "device"))
MEASUREMENT: Final = "vm"
"""Telegraf joins it and a field's name by an underscore: the catalogue's names come out again."""

OURS: Final = "monitor"
"""The producer's own word of a VM's monitor: nothing that libvirt, or Telegraf, tells."""

Fields = list[tuple[str, str]]


def _groups(scope: Scope) -> list[Fields]:
    """The names and fields of a record's lines: one line for each of libvirt's groups (``state.``, ``cpu.``, ``balloon.`` ...)."""
    groups: dict[str, Fields] = {}
    for metric, source in of_libvirt(scope):
        group = source.field.partition(".")[0]
        if group != OURS:
            groups.setdefault(group, []).append((metric.column.removeprefix(f"{MEASUREMENT}_"), metric.field))
    return list(groups.values())


_GROUPS: Final = {scope: _groups(scope) for scope in Scope}


def lines_of(sample: VmMetrics) -> list[str]:
    """A VM's sample: a line for each of libvirt's groups and for each device, absent values left out."""
    tags = f"{MEASUREMENT},uuid={sample.uuid},name={_tag(sample.name)}"
    at = round(sample.collected * 1e9)
    lines = list(_lines(tags, Scope.VM, sample, at))
    for scope, listed, label in DEVICES:
        for one in attrgetter(listed)(sample):
            lines += _lines(f"{tags},{label}={_tag(str(getattr(one, label)))}", scope, one, at)
    return lines


def _lines(tags: str, scope: Scope, record: Struct, at: int) -> Iterator[str]:
    for group in _GROUPS[scope]:
        if fields := ",".join(_fields(group, record)):
            yield f"{tags} {fields} {at}\n"


def _fields(group: Fields, record: Struct) -> Iterator[str]:
    for name, field in group:
        value = getattr(record, field)
        if value >= 0:
            yield f"{name}={value}i" if isinstance(value, int) else f"{name}={value!r}"


def _tag(text: str) -> str:
    return text.replace("\\", "\\\\").replace(" ", "\\ ").replace(",", "\\,").replace("=", "\\=")


def main(brokers: str, source: str, samples: str, lines: str) -> None:
    """Translates until the process is ended."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "lines", "auto.offset.reset": "earliest"})
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 20, "compression.type": "zstd", "partitioner": "murmur2_random"})
    codec = Codec()
    consumer.subscribe([source])
    while True:
        for message in consumer.consume(BATCH, READ_SECONDS):
            if message.error() is None:
                each = [line.encode() for line in lines_of(codec.decode(message.value(), VmMetrics))]
                produce_patiently(producer, samples, b"".join(each), message.key())
                for line in each:
                    produce_patiently(producer, lines, line, message.key())
        producer.poll(0)


if __name__ == "__main__":
    main(*sys.argv[1:5])
