"""Follows vm.metrics with nothing of virtflow but its schema files: vm_metrics.py BROKERS SCHEMAS_FOLDER [COUNT].

Reads both framings; for that of a schema registry set SCHEMA_REGISTRY_URL.
"""

import io
import json
import os
import pathlib
import struct
import sys
import urllib.request

import fastavro
from confluent_kafka import Consumer

brokers, folder, count = sys.argv[1], pathlib.Path(sys.argv[2]), int((sys.argv + ["0"])[3])
by_fingerprint, by_id = {}, {}
for file in folder.rglob("*.avsc"):
    schema = fastavro.parse_schema(json.loads(file.read_text()), named_schemas={})
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    by_fingerprint[bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))] = schema


def registered(number):
    """The schema of a registry's id, asked for once."""
    if number not in by_id:
        with urllib.request.urlopen(f"{os.environ['SCHEMA_REGISTRY_URL']}/schemas/ids/{number}", timeout=10) as reply:
            by_id[number] = fastavro.parse_schema(json.loads(json.load(reply)["schema"]), named_schemas={})
    return by_id[number]


def decoded(value):
    """The record in a message: its header says which schema it was written with."""
    if value[:2] == b"\xc3\x01":
        return fastavro.schemaless_reader(io.BytesIO(value[10:]), by_fingerprint[value[2:10]], None)
    magic, number = struct.unpack(">BI", value[:5])
    if magic != 0:
        raise ValueError(f"neither framing: {value[:5].hex()}")
    return fastavro.schemaless_reader(io.BytesIO(value[5:]), registered(number), None)


consumer = Consumer({"bootstrap.servers": brokers, "group.id": "vm-metrics-example", "auto.offset.reset": "earliest"})
consumer.subscribe(["vm.metrics"])
seen = 0
while not count or seen < count:
    message = consumer.poll(1.0)
    if message is None or message.error():
        continue
    sample = decoded(message.value())
    print(sample["uuid"], sample["name"], sample["cpu_seconds_total"], [disk["device"] for disk in sample["blocks"]], flush=True)
    seen += 1
consumer.close()
