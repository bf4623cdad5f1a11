"""The pipeline's real processes under simulated load: started, watched, ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.broker import DIES_WITH_US, Broker, free_ports
from virtflow.runtime.configuration import load
from virtflow.runtime.kafka.topic_admin import TopicAdmin

STOP_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 60.0
_OF_THE_SCHEDULER: Final = 2
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
LISTENERS: Final = {"processors": "PROCESSORS_LISTEN", "exporter": "EXPORTER_LISTEN", "history": "HISTORY_LISTEN"}
COMMANDS: Final = {"history": ("history", "write")}


@dataclass(frozen=True, slots=True)
class Load:
    """What is simulated, for how long, and how often it is scraped."""

    nodes: int
    vms: int
    interval_seconds: float
    seconds: float
    scrape_seconds: float = 5.0
    partitions: int = 6

    @property
    def per_second(self) -> float:
        """VM-samples a second."""
        return self.nodes * self.vms / self.interval_seconds


def cpu_seconds_of(pid: int) -> float:
    """CPU time of a process's threads so far, to the nanosecond: it has a clock of its own (source: clock_getcpuclockid(3), and Linux' posix-cpu-timers.c)."""
    return time.clock_gettime((~pid << 3) | _OF_THE_SCHEDULER)


class Part:
    """One process and what it has used. ``url`` is its own /metrics, "" where it has none."""

    def __init__(self, name: str, pid: int, url: str = "") -> None:
        """``pid`` is a process that runs."""
        self.name = name
        self.pid = pid
        self.url = url

    def cpu_seconds(self) -> float:
        """CPU time of its threads so far, to the nanosecond."""
        return cpu_seconds_of(self.pid)

    def resident_bytes(self) -> int:
        """Its memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE_BYTES

    def counted(self, series: str) -> float:
        """What a series of its own /metrics stands at, 0 where there is none yet."""
        with urllib.request.urlopen(self.url, timeout=ANSWER_SECONDS) as answer:  # noqa: S310, our own loopback
            lines = answer.read().decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{series} ")), 0.0)


@contextmanager
def running(folder: Path, name: str, command: Sequence[str], environment: Mapping[str, str], url: str = "") -> Iterator[Part]:
    """A command as a process of its own, ended with TERM; what it writes goes to ``NAME.log`` in ``folder``."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([*DIES_WITH_US, *command], env=os.environ | environment, cwd=folder, stdout=log, stderr=log)
    try:
        yield Part(name, process.pid, url)
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


class Centre:
    """A broker with the topics, and services beside it."""

    def __init__(self, folder: Path, broker: Broker, load_: Load) -> None:
        """Makes the topics with the load's number of partitions."""
        self.folder = folder
        self.address = broker.address
        self._storage = broker.folder / "storage"
        self._environment = {
            "VIRTFLOW_KAFKA_BOOTSTRAP_SERVERS": broker.address,
            "VIRTFLOW_TOPICS_PARTITIONS": str(load_.partitions),
            "VIRTFLOW_SIMULATE_NODES": str(load_.nodes),
            "VIRTFLOW_SIMULATE_VMS": str(load_.vms),
            "VIRTFLOW_PRODUCER_INTERVAL_SECONDS": str(load_.interval_seconds),
            "VIRTFLOW_HISTORY_PATH": str(folder / "tables"),
            "VIRTFLOW_LOG_LEVEL": "warning",
        }
        admin = TopicAdmin(load(None, self._environment))
        admin.create(admin.states(), dry_run=False)

    @contextmanager
    def service(self, command: str, name: str = "", settings: Mapping[str, object] | None = None) -> Iterator[Part]:
        """``virtflow COMMAND``; ``settings`` are variables by their names without ``VIRTFLOW_``."""
        name = name or command
        environment = self._environment | {f"VIRTFLOW_{key}": str(value) for key, value in (settings or {}).items()}
        url = ""
        if command in LISTENERS:
            (port,) = free_ports(1)
            environment[f"VIRTFLOW_{LISTENERS[command]}"] = f"127.0.0.1:{port}"
            environment.setdefault(f"VIRTFLOW_{command.upper()}_INSTANCE", name)
            url = f"http://127.0.0.1:{port}/metrics"
        if command == "exporter":
            del environment["VIRTFLOW_EXPORTER_INSTANCE"]
        words = COMMANDS.get(command, (command,))
        with running(self.folder, name, [sys.executable, "-m", "virtflow.cli.main", *words], environment, url) as part:
            yield part

    def stored_bytes(self, topic: str) -> int:
        """How much the broker's disk holds of a topic, compressed as it came."""
        return sum(segment.stat().st_size for segment in self._storage.rglob("*.log") if segment.parent.name.startswith(f"{topic}-"))


class Watch:
    """The CPU and memory of some processes from its making on."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """They run."""
        self._parts = parts
        self._samples = self._counted()
        self._before = {part.name: part.cpu_seconds() for part in parts}
        self._began = time.monotonic()
        self._memory: dict[str, list[int]] = {part.name: [] for part in parts}

    @property
    def elapsed(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self._began

    def samples(self) -> float:
        """VM-samples that have gone through the processors among them."""
        return self._counted() - self._samples

    def _counted(self) -> float:
        return sum(part.counted("virtflow_processors_vm_samples_total") for part in self._parts if part.name.startswith("processors"))

    def look(self) -> None:
        """Notes how much memory each has now."""
        for part in self._parts:
            self._memory[part.name].append(part.resident_bytes())

    def cpu_seconds(self) -> dict[str, float]:
        """What each has used."""
        return {part.name: part.cpu_seconds() - self._before[part.name] for part in self._parts}

    def memory_mib(self) -> dict[str, list[int]]:
        """Memory at the first look, at the middle one and at the last, each in MiB."""
        return {name: [round(seen[at] / 1024**2) for at in (0, len(seen) // 2, -1)] for name, seen in self._memory.items()}
