"""A broker that is gone while no record comes: each service that reads topics reports it, and stops being ready."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tests.support.broker import Broker
from tests.support.exporter_process import ExporterProcess
from tests.support.history import Writer, writing
from tests.support.pages import page
from tests.support.processors import Bus, Processors, eventually

SECONDS = 60.0
SILENCE_SECONDS = 6.0
"""``kafka.silence_seconds``: more than two pauses between a service's questions to the broker, so that one late answer is no silence."""
ANSWERS = 3
TOPICS = {
    "processors": {"vm.snapshots", "vm.events"},
    "exporter": {"vm.metrics", "vm.inventory", "vm.migrations", "vm.nodes"},
    "history": {"vm.metrics", "vm.inventory", "vm.migrations", "vm.events"},
}


class Service(NamedTuple):
    """A service that runs, and where its pages are."""

    name: str
    address: str

    def page(self, path: str) -> tuple[int, str]:
        """Status and text; status 0 where nobody answers."""
        return page(self.address, path)

    def ages(self) -> dict[str, float]:
        """Seconds since the brokers last answered, by topic."""
        found = re.findall(
            rf'^virtflow_{self.name}_broker_answer_age_seconds{{topic="(.*)"}} (.+)$', self.page("/metrics")[1], re.MULTILINE
        )
        return {topic: float(value) for topic, value in found}

    def ready(self) -> bool:
        """Whether it says so."""
        return self.page("/readyz")[0] == 200

    def silent(self) -> bool:
        """Whether it says that the brokers do not answer, and for how long."""
        status, words = self.page("/readyz")
        return status == 503 and "no answer from the brokers" in words and min(self.ages().values()) > SILENCE_SECONDS


def answers(service: Service) -> Callable[[], bool]:
    """Whether the age has fallen so many times since the first call: the broker answers again and again, though no record comes."""
    seen: list[float] = []

    def enough() -> bool:
        seen.append(max(service.ages().values()))
        return sum(later < earlier for earlier, later in pairwise(seen)) >= ANSWERS

    return enough


def eventually_all(services: list[Service], what: str, happened: Callable[[Service], Callable[[], bool]]) -> None:
    """Wait until it has happened to each, watching all of them at once."""
    left = {service.name: happened(service) for service in services}

    def happened_to_all() -> bool:
        for name in [name for name, has in left.items() if has()]:
            del left[name]
        return not left

    eventually(f"{what} ({', '.join(service.name for service in services)})", happened_to_all, SECONDS)


def test_idle_topics_with_a_broker_and_without_one_are_told_apart(tmp_path: Path) -> None:
    """Ready while the broker answers, not ready while it is stopped or frozen, and ready again; health answers throughout."""
    with Broker(tmp_path / "broker") as broker:
        bus = Bus(broker)
        bus.create_topics()
        silence = str(SILENCE_SECONDS)
        own = {"VIRTFLOW_TOPICS_PREFIX": bus.prefix, "VIRTFLOW_KAFKA_SILENCE_SECONDS": silence}
        writer = Writer(broker.address, tmp_path / "history", tmp_path, own)
        with (
            Processors(bus, tmp_path, kafka_silence_seconds=silence) as processors,
            ExporterProcess(tmp_path, broker.address, bus.prefix, {"KAFKA_SILENCE_SECONDS": silence}) as exporter,
            writing(writer),
        ):
            services = [
                Service("processors", processors.address),
                Service("exporter", f"127.0.0.1:{exporter.port}"),
                Service("history", f"127.0.0.1:{writer.port}"),
            ]
            for service in services:
                eventually(f"{service.name} is ready", service.ready, SECONDS)
                assert service.ages().keys() == TOPICS[service.name]
            eventually_all(services, "each hears of the broker", answers)
            assert all(service.ready() for service in services)
            for away, back in ((broker.stop, broker.start), (broker.pause, broker.resume)):
                away()
                for service in services:
                    eventually(f"{service.name} reports the silence", service.silent, SECONDS)
                    assert service.page("/healthz")[0] == 200
                back()
                for service in services:
                    eventually(f"{service.name} is ready again", service.ready, SECONDS)
                eventually_all(services, "each hears of the broker again", answers)
