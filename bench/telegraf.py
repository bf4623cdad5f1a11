"""From Kafka to Prometheus, Telegraf's way and ours: all read the same values at the same time and are scraped alike."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from bench.centre_processes import Centre, Load, Part, Watch, running
from bench.centre_scrapes import Scrape, scrape, wait_for_vms
from bench.part import Asked, origin
from bench.rivals_telegraf import CENTRE, VERSION, NotBuiltError, telegraf
from tests.support.broker import Broker, free_ports
from tools.documents import table

NODES, VMS = 20, 50
MOST_SECONDS: Final = 90.0
WARM_SECONDS: Final = 20.0
SCRAPE_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 30.0
SAMPLES, LINES = "telegraf.samples", "telegraf.lines"
RIVALS: Final = {SAMPLES: "Telegraf, a message per VM-sample", LINES: "Telegraf, a message per line"}
"""The topics, and what reads them: the form that spares it most, and that of its own Kafka output."""
UNDELIVERED: Final = {SAMPLES: 10_000, LINES: 100_000}
"""Messages that a Telegraf may have read and not shown yet: some seconds' worth, so that its input never waits for its output."""
GOAL: Final = 5.0

CONFIG: Final = """
[agent]
  interval = "1s"
  flush_interval = "1s"
  metric_batch_size = 5000
  metric_buffer_limit = 1000000
  omit_hostname = true
  quiet = true

[[inputs.kafka_consumer]]
  brokers = ["{brokers}"]
  kafka_version = "2.8.0"
  topics = ["{topic}"]
  consumer_group = "{topic}"
  offset = "newest"
  max_undelivered_messages = {undelivered}
  data_format = "influx"

[[outputs.prometheus_client]]
  listen = "127.0.0.1:{port}"
  write_timeout = "60s"
  metric_version = 2
  expiration_interval = "15s"
  collectors_exclude = ["gocollector", "process"]
"""


@contextmanager
def rival(centre: Centre, program: Path, topic: str) -> Iterator[Part]:
    """Telegraf between a topic of lines and its own /metrics."""
    (port,) = free_ports(1)
    config = centre.folder / f"{topic}.conf"
    config.write_text(CONFIG.format(brokers=centre.address, topic=topic, port=port, undelivered=UNDELIVERED[topic]))
    with running(centre.folder, topic, [str(program), "--config", str(config)], {}, f"http://127.0.0.1:{port}/metrics") as part:
        yield part


def messages(brokers: str, topic: str, partitions: int) -> tuple[int, int]:
    """How many messages a topic has had, and how many its reader, whose group has the topic's name, has acknowledged."""
    asks = Consumer({"bootstrap.servers": brokers, "group.id": topic})
    try:
        taken = asks.committed([TopicPartition(topic, number) for number in range(partitions)], ANSWER_SECONDS)
        return sum(asks.get_watermark_offsets(place, ANSWER_SECONDS)[1] for place in taken), sum(max(0, place.offset) for place in taken)
    finally:
        asks.close()


def measure(load: Load, folder: Path, program: Path) -> dict[str, Any]:
    """All of them under the same load at once."""
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(folder / "broker"))
        centre = Centre(folder, broker, load)
        admin = AdminClient({"bootstrap.servers": broker.address})
        for made in admin.create_topics([NewTopic(topic, load.partitions, 1) for topic in RIVALS]).values():
            made.result(ANSWER_SECONDS)
        ours = stack.enter_context(centre.service("exporter"))
        processors = stack.enter_context(centre.service("processors"))
        translator = [sys.executable, "-m", "bench.telegraf_lines", broker.address, "vm.metrics", SAMPLES, LINES]
        root = str(Path(__file__).resolve().parent.parent)
        stack.enter_context(running(folder, "translator", translator, {"PYTHONPATH": f"{root}/.types:{root}"}))
        read = [ours, *(stack.enter_context(rival(centre, program, topic)) for topic in RIVALS)]
        stack.enter_context(centre.service("simulate"))
        wait_for_vms([ours.url], load.nodes * load.vms)
        time.sleep(WARM_SECONDS)
        before = {topic: messages(broker.address, topic, load.partitions) for topic in RIVALS}
        watch = Watch([*read, processors])
        seen: dict[str, list[Scrape]] = {part.name: [] for part in read}
        while watch.elapsed < load.seconds:
            began = time.monotonic()
            for part in read:
                seen[part.name].append(scrape(part.url))
            watch.look()
            time.sleep(max(0.0, load.scrape_seconds - (time.monotonic() - began)))
        samples, elapsed, cpu, memory = watch.samples(), watch.elapsed, watch.cpu_seconds(), watch.memory_mib()
        after = {topic: messages(broker.address, topic, load.partitions) for topic in RIVALS}
    return {
        "seconds": round(load.seconds),
        "samples_per_second": round(samples / elapsed),
        "scrape_every_seconds": load.scrape_seconds,
        "telegraf": VERSION,
        "goal": GOAL,
        "rows": [_row(name, cpu[name] / samples, memory[name], scrapes) for name, scrapes in seen.items()],
        "messages": {
            topic: {
                "written": (after[topic][0] - before[topic][0]) / samples,
                "acknowledged": (after[topic][1] - before[topic][1]) / samples,
            }
            for topic in RIVALS
        },
    }


def _row(name: str, seconds: float, memory: list[int], scrapes: list[Scrape]) -> dict[str, Any]:
    return {
        "name": RIVALS.get(name, name),
        "cpu_microseconds_per_vm_sample": round(seconds * 1e6, 1),
        "memory_mib": memory,
        "series": scrapes[-1].series,
        "scrape_median_seconds": round(statistics.median(one.seconds for one in scrapes), 3),
    }


def run(asked: Asked) -> dict[str, Any]:
    """See ``bench.part``; where Telegraf can't be built, the reason."""
    load = Load(NODES, VMS, 1.0, min(asked.seconds, MOST_SECONDS), SCRAPE_SECONDS)
    try:
        program = telegraf(CENTRE)
    except NotBuiltError as error:
        return {"seconds": round(load.seconds), "telegraf": VERSION, "not_built": str(error)}
    return measure(load, asked.folder, program)


def section(found: dict[str, Any]) -> list[str]:
    """See ``bench.part``."""
    title = [
        "## From Kafka to Prometheus: Telegraf beside the exporter",
        origin(found, f"scripts/bench telegraf --seconds {found['seconds']}"),
    ]
    if "not_built" in found:
        return [*title, f"Telegraf {found['telegraf']} could not be built: {found['not_built']}"]
    ours, spared, own = (each["cpu_microseconds_per_vm_sample"] for each in found["rows"])
    rows = [
        (
            each["name"],
            f"{each['cpu_microseconds_per_vm_sample']:.0f}",
            ", ".join(map(str, each["memory_mib"])),
            str(each["series"]),
            f"{each['scrape_median_seconds']:.3f}",
        )
        for each in found["rows"]
    ]
    counts = "; ".join(
        f"{RIVALS[topic]}: {each['written']:.2f} written and {each['acknowledged']:.2f} acknowledged"
        for topic, each in found["messages"].items()
    )
    return [
        *title,
        (
            f"{found['samples_per_second']} VM-samples a second for {found['seconds']} s, read by all at the same time from the same broker, all "
            f"scraped with gzip every {found['scrape_every_seconds']:g} s. Telegraf {found['telegraf']}, built with no more than its Kafka input, "
            "its line protocol and its Prometheus output, reads the same values of libvirt in that protocol, a line for each of libvirt's groups and "
            "for each device as its libvirt input makes them: once as its own Kafka output sends them, a message per line, and once with all lines "
            "of a VM's sample in one message, which spares it most and which nothing of Telegraf produces. The exporter shows besides ages, "
            f"inventory, nodes and itself. Messages per VM-sample of that time: {counts}."
        ),
        table(("from Kafka to /metrics", "CPU µs per VM-sample", "memory MiB: begin, middle, end", "series", "scrape, median s"), rows),
        (
            f"Telegraf costs **{own / ours:.1f} times** as much CPU per VM-sample as the exporter with its own messages (goal: {found['goal']:g}), "
            f"{spared / ours:.1f} times with a message per VM-sample."
        ),
    ]
