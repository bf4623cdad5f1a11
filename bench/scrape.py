"""A million series in one exporter: memory, the first scrape after a start, scrapes plain, gzipped, five at once, and under load."""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka import Producer

from bench.centre_processes import Centre, Load, Part
from bench.centre_scrapes import fetched, series_in
from bench.part import Asked, figure, origin
from tests.support.broker import Broker
from tests.support.patient_producer import produce_patiently
from tools.documents import table
from virtflow.processors.normalise import normalise_snapshot
from virtflow.producer.simulator.service import Fleet, SimulatedNode
from virtflow.schemas.avro.codec import Codec

SERIES: Final = 1_000_000
NODES, VMS = 334, 50
"""16,700 VMs: a few more series than a million."""
ROUNDS: Final = 3
"""Different values of each VM: one to start with, the others arrive again and again."""
INTERVAL_SECONDS: Final = 60.0
REPEATS: Final = 7
AT_ONCE: Final = 5
PER_SECOND: Final = 3_000
SLICE_SECONDS: Final = 0.05
READY_SECONDS: Final = 300.0
GOALS: Final = {"seconds": 1.0, "bytes_per_series": 1_500.0}

Message = tuple[bytes, bytes]


class Samples:
    """Encoded samples of a simulated fleet, one list per round, and where they go."""

    def __init__(self, brokers: str, nodes: int, vms: int) -> None:
        """Makes them, which takes some seconds."""
        codec, began = Codec(), float(int(time.time()))
        fleet = Fleet(nodes=nodes, vms=vms, interval_seconds=INTERVAL_SECONDS, inventory_seconds=1e9, seed=1)
        each = [SimulatedNode(fleet, f"node-{number}", "boot") for number in range(nodes)]
        self._producer = Producer(
            {"bootstrap.servers": brokers, "partitioner": "murmur2_random", "compression.type": "zstd", "linger.ms": 20}
        )
        self._codec = codec
        self._rounds = [
            [(vm.uuid.encode(), vm) for node in each for vm in normalise_snapshot(node.round_at(number, began + number)).metrics]
            for number in range(ROUNDS)
        ]
        self._sequence = 0

    def send_round(self) -> int:
        """One sample of every VM; how many."""
        sent = 0
        for key, value in self._messages():
            produce_patiently(self._producer, "vm.metrics", value, key)
            sent += 1
        self._producer.flush()
        return sent

    def _messages(self) -> Iterator[Message]:
        """The next round, in an order of its own and as if collected now."""
        self._sequence += 1
        for key, vm in self._rounds[self._sequence % ROUNDS]:
            yield key, self._codec.encode(msgspec.structs.replace(vm, sequence=self._sequence, collected=time.time()))

    @contextmanager
    def arriving(self, per_second: float, rounds: int = 1) -> Iterator[None]:
        """So many samples arrive every second meanwhile, at most ``rounds`` of every VM; they are made before, so that making them takes nobody's CPU."""
        ready = [message for _ in range(rounds) for message in self._messages()]
        over = threading.Event()
        thread = threading.Thread(target=self._pace, args=(ready, per_second, over.is_set))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _pace(self, ready: list[Message], per_second: float, over: Callable[[], bool]) -> None:
        began, sent = time.monotonic(), 0
        while not over() and sent < len(ready):
            due = min(len(ready), int((time.monotonic() - began) * per_second))
            for key, value in ready[sent:due]:
                produce_patiently(self._producer, "vm.metrics", value, key)
            sent = due
            self._producer.poll(SLICE_SECONDS)


def timed(part: Part, *, packed: bool, repeats: int = REPEATS) -> tuple[list[float], list[float], int]:
    """Seconds and CPU seconds of some scrapes, and the size of the last."""
    seconds, cpu, size = [], [], 0
    for _ in range(repeats):
        before = part.cpu_seconds()
        spent, wire = fetched(part.url, packed=packed)
        seconds.append(spent)
        cpu.append(part.cpu_seconds() - before)
        size = len(wire)
        time.sleep(0.3)
    return seconds, cpu, size


def at_once(part: Part, count: int) -> list[float]:
    """How long each of so many scrapes took that were asked for at the same moment."""
    with ThreadPoolExecutor(count) as pool:
        return [seconds for seconds, _ in pool.map(lambda _: fetched(part.url), range(count))]


@contextmanager
def started(centre: Centre, name: str = "", **more: object) -> Iterator[tuple[Part, float]]:
    """An exporter that has read back, and how many seconds that took from its start; ``more`` are settings by their variables."""
    began = time.monotonic()
    settings = {"EXPORTER_READ_BACK_SECONDS": 3600, "EXPORTER_REQUEST_TIMEOUT_SECONDS": 60, **more}
    with centre.service("exporter", name, settings) as part:
        ready = part.url.removesuffix("/metrics") + "/readyz"
        while not _answers(ready):
            if time.monotonic() - began > READY_SECONDS:
                raise TimeoutError("the exporter has not read back")
            time.sleep(0.05)
        yield part, time.monotonic() - began


def _answers(url: str) -> bool:
    try:
        fetched(url)
    except OSError:
        return False
    return True


def measure(folder: Path, nodes: int = NODES, vms: int = VMS) -> dict[str, Any]:
    """All of it, on one exporter."""
    with Broker(folder / "broker") as broker:
        centre = Centre(folder, broker, Load(nodes, vms, INTERVAL_SECONDS, 0.0))
        samples = Samples(broker.address, nodes, vms)
        sent = samples.send_round()
        with started(centre) as (part, read_back):
            print(f"{sent} VMs read back in {read_back:.1f} s", file=sys.stderr)
            first_seconds, text = fetched(part.url, packed=False)
            return {"vms": sent, "read_back_seconds": read_back, "first_seconds": first_seconds} | _scrapes(part, samples, text)


def _scrapes(part: Part, samples: Samples, text: bytes) -> dict[str, Any]:
    plain, plain_cpu, _ = timed(part, packed=False)
    packed, packed_cpu, size = timed(part, packed=True)
    many = [max(at_once(part, AT_ONCE)) for _ in range(REPEATS)]
    with samples.arriving(PER_SECOND):
        time.sleep(1.0)
        busy, _, _ = timed(part, packed=True, repeats=5)
    series = series_in(text)
    return {
        "series": series,
        "text_bytes": len(text),
        "gzip_bytes": size,
        "bytes_per_series": part.resident_bytes() / series,
        "plain": {"seconds": plain, "cpu_seconds": plain_cpu},
        "gzip": {"seconds": packed, "cpu_seconds": packed_cpu},
        "at_once": {"count": AT_ONCE, "seconds": many},
        "busy": {"per_second": PER_SECOND, "seconds": busy, "median_seconds": statistics.median(busy)},
        "goals": GOALS,
    }


def run(asked: Asked) -> dict[str, Any]:
    """See ``bench.part``."""
    return measure(asked.folder)


def section(found: dict[str, Any]) -> list[str]:
    """See ``bench.part``."""
    goals, busy, many = found["goals"], found["busy"], found["at_once"]
    rows = [
        ("first scrape after the start, text", f"{found['first_seconds']:.2f}", ""),
        ("text", figure(found["plain"]["seconds"], 2), figure(found["plain"]["cpu_seconds"], 2)),
        ("gzip", figure(found["gzip"]["seconds"], 2), figure(found["gzip"]["cpu_seconds"], 2)),
        (f"{many['count']} at once, gzip: the longest", figure(many["seconds"], 2), ""),
        (f"gzip, while {busy['per_second']} samples arrive every second", figure(busy["seconds"], 2), ""),
    ]
    return [
        "## A million series",
        origin(found, "scripts/bench scrape"),
        (
            f"{found['series']} series of {found['vms']} VMs in one exporter, {found['text_bytes'] / 1e6:.0f} MB of text, "
            f"{found['gzip_bytes'] / 1e6:.0f} MB gzipped; the client on the same machine. Goal: {goals['seconds']:g} s."
        ),
        table(("scrape", "seconds", "exporter's CPU, s"), rows),
        (
            f"**{found['bytes_per_series']:.0f} bytes** of resident memory per series after all of that, the answers on their way to clients "
            f"included (goal: {goals['bytes_per_series']:.0f}). From the start of the process until all VMs were read back: {found['read_back_seconds']:.1f} s."
        ),
    ]
