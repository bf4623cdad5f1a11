"""Translates ``vm.metrics`` into Telegraf's own line protocol: the same values, in the form it reads fastest.

``python -m scripts.telegraf_lines BROKERS FROM TO`` runs until it is ended. The rival is spared what its own producers do: one message
holds all lines of a VM's sample, where Telegraf's Kafka output would send a message per line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from operator import attrgetter
from typing import Final

from confluent_kafka import Consumer, Producer
from msgspec import Struct

from virtflow.schemas.codec import Codec
from virtflow.schemas.metrics import of_libvirt
from virtflow.schemas.records import VmMetrics
from virtflow.schemas.vocabulary import Scope

BATCH: Final = 500
READ_SECONDS: Final = 0.2
DEVICES: Final = ((Scope.VCPU, "vcpus", "vcpu"), (Scope.NETWORK, "networks", "device"), (Scope.BLOCK, "blocks", "device"))
MEASUREMENT: Final = "vm"
"""Telegraf joins it and a field's name by an underscore: the catalogue's names come out again."""

_FIELDS: Final = {
    scope: [(metric.name.removeprefix(f"{MEASUREMENT}_"), metric.field) for metric, _ in of_libvirt(scope)] for scope in Scope
}


def lines_of(sample: VmMetrics) -> str:
    """A VM's sample: one line for the VM, one for each device, absent values left out."""
    tags = f"{MEASUREMENT},uuid={sample.uuid},name={_tag(sample.name)}"
    at = round(sample.collected * 1e9)
    lines = [_line(tags, Scope.VM, sample, at)]
    for scope, listed, label in DEVICES:
        lines += [_line(f"{tags},{label}={_tag(str(getattr(one, label)))}", scope, one, at) for one in attrgetter(listed)(sample)]
    return "".join(lines)


def _line(tags: str, scope: Scope, record: Struct, at: int) -> str:
    fields = ",".join(_fields(scope, record))
    return f"{tags} {fields} {at}\n" if fields else ""


def _fields(scope: Scope, record: Struct) -> Iterator[str]:
    for name, field in _FIELDS[scope]:
        value = getattr(record, field)
        if value >= 0:
            yield f"{name}={value}i" if isinstance(value, int) else f"{name}={value!r}"


def _tag(text: str) -> str:
    return text.replace("\\", "\\\\").replace(" ", "\\ ").replace(",", "\\,").replace("=", "\\=")


def main(brokers: str, source: str, target: str) -> None:
    """Translates until the process is ended."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "lines", "auto.offset.reset": "earliest"})
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 20, "compression.type": "zstd", "partitioner": "murmur2_random"})
    codec = Codec()
    consumer.subscribe([source])
    while True:
        for message in consumer.consume(BATCH, READ_SECONDS):
            if message.error() is None:
                producer.produce(target, lines_of(codec.decode(message.value(), VmMetrics)).encode(), message.key())
        producer.poll(0)


if __name__ == "__main__":
    main(*sys.argv[1:4])
