"""Follows vm.metrics with nothing of virtflow but its schema files: vm_metrics.py BROKERS SCHEMAS_FOLDER [COUNT]."""

import io
import json
import pathlib
import sys

import fastavro
from confluent_kafka import Consumer

brokers, folder, count = sys.argv[1], pathlib.Path(sys.argv[2]), int((sys.argv + ["0"])[3])
schemas = {}
for file in folder.rglob("*.avsc"):
    schema = fastavro.parse_schema(json.loads(file.read_text()), named_schemas={})
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    schemas[bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))] = schema

consumer = Consumer({"bootstrap.servers": brokers, "group.id": "vm-metrics-example", "auto.offset.reset": "earliest"})
consumer.subscribe(["vm.metrics"])
seen = 0
while not count or seen < count:
    message = consumer.poll(1.0)
    if message is None or message.error():
        continue
    value = message.value()
    sample = fastavro.schemaless_reader(io.BytesIO(value[10:]), schemas[value[2:10]], None)
    print(sample["uuid"], sample["name"], sample["cpu_seconds_total"], [disk["device"] for disk in sample["blocks"]], flush=True)
    seen += 1
consumer.close()
