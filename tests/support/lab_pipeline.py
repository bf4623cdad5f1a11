"""The whole way on real parts: broker, a producer on each node of a lab, processors and exporter, as their own processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.broker import Broker, free_ports
from tests.support.lab import Lab, Node
from tests.support.lab_process import LabError, Process, await_true, run
from tests.support.lab_scrape import Scrape, scrape, try_scrape

VIRTFLOW = str(Path(sys.executable).with_name("virtflow"))
INTERVAL_SECONDS = 2.0
"""With which a round stays within its time while hypervisors, guests and the whole pipeline share two cores."""
START_SECONDS = 60.0

Start = Callable[[], Process]


class Service:
    """One of virtflow's services, which can be stopped, killed and started again."""

    def __init__(self, name: str, log: Path, start: Start) -> None:
        """``start`` makes its process; nothing runs before ``start()``."""
        self.name = name
        self.log = log
        self._start = start
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        """Its running process; LabError with the end of its log when there is none."""
        if self._process is None or self._process.ended:
            raise LabError(f"{self.name} does not run: {self.log.read_text(errors='replace')[-3000:]}")
        return self._process

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and not self._process.ended

    def start(self) -> None:
        """Start it; it may not answer yet."""
        self._process = self._start()

    def stop(self) -> int:
        """End it as systemd does, by SIGTERM; its exit status."""
        status = self.process.stop()
        self._process = None
        return status

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self._process = None

    def close(self) -> None:
        """End it if it runs."""
        if self._process is not None:
            self._process.kill()


class Pipeline:
    """Producers on a lab's nodes, a broker they all reach, one processors and one exporter."""

    def __init__(self, lab: Lab, folder: Path, settings: Mapping[str, str] | None = None, *, whole: bool = True) -> None:
        """Bring everything up and wait until the exporter shows every node; ``settings`` are more environment variables.

        Without ``whole`` only the broker and its topics are there, for a test of producers that it starts itself.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.broker = Broker(folder / "broker", host=lab.network.address(254))
        own, self.address = (f"127.0.0.1:{port}" for port in free_ports(2))
        self.environment = {
            "VIRTFLOW_KAFKA_BOOTSTRAP_SERVERS": self.broker.address,
            "VIRTFLOW_PRODUCER_INTERVAL_SECONDS": str(INTERVAL_SECONDS),
            "VIRTFLOW_TOPICS_PARTITIONS": "2",
            "VIRTFLOW_PROCESSORS_LISTEN": own,
            "VIRTFLOW_EXPORTER_LISTEN": self.address,
            **(settings or {}),
        }
        self.processors_address = own
        self.own_settings: dict[str, Mapping[str, str]] = {}
        """More environment variables of one node's producer, by node; they count from its next start."""
        self.producers = [self._on(node) for node in lab.nodes]
        self.processors = self._here("processors")
        self.exporter = self._here("exporter")
        try:
            self._start_broker()
            if whole:
                self.start_services()
        except BaseException:
            self.close()
            raise

    def _start_broker(self) -> None:
        self.broker.start()
        run(["env", *(f"{key}={value}" for key, value in self.environment.items()), VIRTFLOW, "topics", "create"])

    def start_services(self) -> None:
        """Start all services and wait until the exporter shows every node."""
        for service in self.services:
            service.start()
        self.await_scrape(
            lambda seen: all(seen.value("virtflow_node_up", node=one.name) == 1.0 for one in self.producers), "every node is up"
        )

    @property
    def services(self) -> list[Service]:
        """All of virtflow's, producers first; a producer is called like its node."""
        return [*self.producers, self.processors, self.exporter]

    def scrape(self) -> Scrape:
        """What the exporter shows now."""
        return scrape(self.address)

    def await_scrape(self, condition: Callable[[Scrape], bool], what: str, timeout_seconds: float = START_SECONDS) -> Scrape:
        """Scrape until ``condition`` holds; that scrape. LabError naming ``what`` and the services' logs when it never does."""
        found: list[Scrape] = []

        def holds() -> bool:
            seen = try_scrape(self.address)
            if seen is not None and condition(seen):
                found.append(seen)
            return bool(found)

        try:
            await_true(holds, timeout_seconds, what)
        except LabError as error:
            tails = "\n".join(f"--- {one.name}\n{one.log.read_text(errors='replace')[-1500:]}" for one in self.services if one.log.exists())
            raise LabError(f"{error}\n{tails}") from error
        return found[0]

    def close(self) -> None:
        """End everything."""
        for service in self.services:
            service.close()
        self.broker.close()

    def __enter__(self) -> Self:
        """Nothing more: the pipeline runs since it was made."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End everything."""
        self.close()

    def _on(self, node: Node) -> Service:
        log = self.folder / f"producer-{node.name}.log"
        environment = {"VIRTFLOW_PRODUCER_JOURNAL_FOLDER": str(self.folder / f"journal-{node.name}"), **self.environment}

        def start() -> Process:
            return node.spawn([VIRTFLOW, "producer"], log, {**environment, **self.own_settings.get(node.name, {})})

        return Service(node.name, log, start)

    def _here(self, name: str) -> Service:
        log = self.folder / f"{name}.log"
        return Service(name, log, lambda: Process([VIRTFLOW, name], log, self.environment))
