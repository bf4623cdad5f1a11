"""From Kafka to Prometheus, Telegraf's way and ours: both read the same values at the same time and are scraped alike."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from scripts.bench_part import Asked, origin
from scripts.centre_processes import Centre, Load, Part, Watch, running
from scripts.centre_scrapes import Scrape, scrape, wait_for_vms
from scripts.documents import table
from scripts.rivals_telegraf import CENTRE, VERSION, NotBuiltError, telegraf
from tests.support.broker import Broker, free_ports

NODES, VMS = 20, 50
MOST_SECONDS: Final = 90.0
WARM_SECONDS: Final = 20.0
SCRAPE_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 30.0
LINES: Final = "telegraf.lines"
GOAL: Final = 5.0

CONFIG: Final = """
[agent]
  interval = "1s"
  flush_interval = "1s"
  metric_batch_size = 5000
  metric_buffer_limit = 200000
  omit_hostname = true
  quiet = true

[[inputs.kafka_consumer]]
  brokers = ["{brokers}"]
  kafka_version = "2.8.0"
  topics = ["{topic}"]
  consumer_group = "telegraf"
  offset = "newest"
  max_undelivered_messages = 20000
  data_format = "influx"

[[outputs.prometheus_client]]
  listen = "127.0.0.1:{port}"
  write_timeout = "60s"
  metric_version = 2
  expiration_interval = "15s"
  collectors_exclude = ["gocollector", "process"]
"""


@contextmanager
def rival(centre: Centre, program: Path) -> Iterator[Part]:
    """Telegraf between the lines' topic and its own /metrics."""
    (port,) = free_ports(1)
    config = centre.folder / "telegraf.conf"
    config.write_text(CONFIG.format(brokers=centre.address, topic=LINES, port=port))
    with running(centre.folder, "telegraf", [str(program), "--config", str(config)], {}, f"http://127.0.0.1:{port}/metrics") as part:
        yield part


def measure(load: Load, folder: Path, program: Path) -> dict[str, Any]:
    """Both under the same load at once."""
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(folder / "broker"))
        centre = Centre(folder, broker, load)
        admin = AdminClient({"bootstrap.servers": broker.address})
        admin.create_topics([NewTopic(LINES, load.partitions, 1)])[LINES].result(ANSWER_SECONDS)
        ours = stack.enter_context(centre.service("exporter"))
        processors = stack.enter_context(centre.service("processors"))
        translator = [sys.executable, "-m", "scripts.telegraf_lines", broker.address, "vm.metrics", LINES]
        root = str(Path(__file__).resolve().parent.parent)
        paths = {"PYTHONPATH": f"{root}/.types:{root}"}
        stack.enter_context(running(folder, "lines", translator, paths))
        theirs = stack.enter_context(rival(centre, program))
        stack.enter_context(centre.service("simulate"))
        wait_for_vms([ours.url], load.nodes * load.vms)
        time.sleep(WARM_SECONDS)
        watch = Watch([ours, theirs, processors])
        seen: dict[str, list[Scrape]] = {ours.name: [], theirs.name: []}
        while watch.elapsed < load.seconds:
            began = time.monotonic()
            for part in (ours, theirs):
                seen[part.name].append(scrape(part.url))
            watch.look()
            time.sleep(max(0.0, load.scrape_seconds - (time.monotonic() - began)))
        samples, elapsed, cpu, memory = watch.samples(), watch.elapsed, watch.cpu_seconds(), watch.memory_mib()
    return {
        "seconds": round(load.seconds),
        "samples_per_second": round(samples / elapsed),
        "scrape_every_seconds": load.scrape_seconds,
        "telegraf": VERSION,
        "goal": GOAL,
        "rows": [_row(name, cpu[name] / samples, memory[name], scrapes) for name, scrapes in seen.items()],
    }


def _row(name: str, seconds: float, memory: list[int], scrapes: list[Scrape]) -> dict[str, Any]:
    return {
        "name": name,
        "cpu_microseconds_per_vm_sample": round(seconds * 1e6, 1),
        "memory_mib": memory,
        "series": scrapes[-1].series,
        "scrape_median_seconds": round(statistics.median(one.seconds for one in scrapes), 3),
    }


def run(asked: Asked) -> dict[str, Any]:
    """See ``bench_part``; where Telegraf can't be built, the reason."""
    load = Load(NODES, VMS, 1.0, min(asked.seconds, MOST_SECONDS), SCRAPE_SECONDS)
    try:
        program = telegraf(CENTRE)
    except NotBuiltError as error:
        return {"seconds": round(load.seconds), "telegraf": VERSION, "not_built": str(error)}
    return measure(load, asked.folder, program)


def section(found: dict[str, Any]) -> list[str]:
    """See ``bench_part``."""
    title = [
        "## From Kafka to Prometheus: Telegraf beside the exporter",
        origin(found, f"scripts/bench telegraf --seconds {found['seconds']}"),
    ]
    if "not_built" in found:
        return [*title, f"Telegraf {found['telegraf']} could not be built: {found['not_built']}"]
    ours, theirs = found["rows"]
    ratio = theirs["cpu_microseconds_per_vm_sample"] / ours["cpu_microseconds_per_vm_sample"]
    rows = [
        (
            each["name"],
            f"{each['cpu_microseconds_per_vm_sample']:.0f}",
            ", ".join(map(str, each["memory_mib"])),
            str(each["series"]),
            f"{each['scrape_median_seconds']:.3f}",
        )
        for each in (ours, theirs)
    ]
    return [
        *title,
        (
            f"{found['samples_per_second']} VM-samples a second for {found['seconds']} s, read by both at the same time from the same broker, both "
            f"scraped with gzip every {found['scrape_every_seconds']:g} s. Telegraf {found['telegraf']}, built with no more than its Kafka input, "
            "its line protocol and its Prometheus output, reads the same values of libvirt in that protocol, all lines of a VM's sample in one message "
            "(its own Kafka output would send one per line). The exporter shows besides ages, inventory, nodes and itself."
        ),
        table(("from Kafka to /metrics", "CPU µs per VM-sample", "memory MiB: begin, middle, end", "series", "scrape, median s"), rows),
        f"Telegraf costs **{ratio:.1f} times** as much CPU per VM-sample (goal: {found['goal']:g}).",
    ]
