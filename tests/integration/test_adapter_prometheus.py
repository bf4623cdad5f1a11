"""The adapter with a real Prometheus as its source: the same rules as with Kafka, on what a real exporter has shown."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.broker import Broker
from tests.support.exporter_process import ExporterProcess
from tests.support.prometheus import Prometheus
from tests.support.topic_writer import TopicWriter
from tests.support.vm_samples import inventory, sample, status
from tests.unit.adapter.test_objects import instance, made
from virtflow.adapter.answers import Moment, Rules
from virtflow.adapter.objects import Objects, Resource
from virtflow.adapter.prometheus.source import PrometheusSource
from virtflow.adapter.requests import CUSTOM, Reason, RefusedError, query_of
from virtflow.exporter.clocks import SYSTEM
from virtflow.runtime.settings import Adapter
from virtflow.schemas.topics import INVENTORY, METRICS, NODES

SET: Final = "virtualmachineinstancereplicasets.kubevirt.io/web/vm_cpu_cores"
EACH: Final = "virtualmachineinstances.kubevirt.io/*/vm_cpu_cores"
OWNER: Final = ("VirtualMachineInstanceReplicaSet", "web")
LONG_AGO: Final = {"creationTimestamp": "2020-01-01T00:00:00Z"}
INTERVAL: Final = 1.0
SECONDS: Final = 60.0
UNITS: Final = {"n": 1e-9, "u": 1e-6, "m": 1e-3}
"""Suffixes of Kubernetes' quantities."""


class Fleet:
    """VMs web-1 and web-2, of which the second uses twice as much CPU as the first; their node samples once a second by the real clock."""

    def __init__(self, writer: TopicWriter) -> None:
        """Nothing was sampled yet."""
        self._writer = writer
        self._began = time.time()
        self._sequence = 0
        for number in (1, 2):
            writer.write(INVENTORY, inventory(number, platform="kubevirt", namespace="shop", platform_name=f"web-{number}"))

    def round(self, *numbers: int) -> None:
        """A sample of each of these VMs, when it is time."""
        now = time.time()
        if now < self._began + self._sequence * INTERVAL:
            return
        self._sequence = int((now - self._began) / INTERVAL) + 1
        at = {"collected": now, "interval": INTERVAL}
        self._writer.offer(NODES, status("node-1", self._sequence, **at))
        for number in numbers:
            used = number * (now - self._began) / 4
            self._writer.offer(METRICS, sample(number, self._sequence, monitor_collected=now, cpu_seconds_total=used, **at))
        self._writer.flush()


class Asked:
    """The source, and the objects that Kubernetes would have."""

    def __init__(self, url: str) -> None:
        """A set of both VMs, which run since long ago."""
        objects, rules = Objects(), Rules(60.0, 0.9)
        objects.put(Resource.SETS, made("web"))
        for number in (1, 2):
            objects.put(Resource.INSTANCES, instance(f"web-{number}", OWNER, metadata=LONG_AGO))
        self.source = PrometheusSource(Adapter(prometheus_url=url, window_seconds=10.0), objects, rules, SYSTEM)

    async def values(self, path: str) -> dict[str, float]:
        """Values by the names of the objects; raises ``RefusedError``."""
        query = query_of(CUSTOM, "v1beta2", f"namespaces/shop/{path}".split("/"), {})
        answer: dict[str, Any] = (await self.source.answers(query)).answer(query, Moment(SYSTEM.now(), SYSTEM.wall()))
        return {item["describedObject"]["name"]: number(item["value"]) for item in answer["items"]}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the source runs."""
        task = asyncio.create_task(self.source.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def number(quantity: str) -> float:
    """A Kubernetes quantity."""
    return float(quantity.rstrip("num")) * UNITS.get(quantity[-1], 1.0)


async def until(condition: Callable[[], Any], step: Callable[[], None], what: str) -> None:
    """Samples go on until an asynchronous condition is true."""
    deadline = time.monotonic() + SECONDS
    while not await condition():
        assert time.monotonic() < deadline, f"not after {SECONDS} s: {what}"
        step()
        await asyncio.sleep(0.1)


@pytest.fixture
def shown(broker: Broker, tmp_path: Path) -> Iterator[tuple[Fleet, Prometheus]]:
    """A Prometheus that scrapes an exporter three times a sample."""
    writer = TopicWriter(broker.address)
    with (
        ExporterProcess(tmp_path, broker.address, writer.prefix) as exporter,
        Prometheus(tmp_path / "prometheus", {"virtflow": [f"127.0.0.1:{exporter.port}"]}, interval_seconds=INTERVAL / 3) as prometheus,
    ):
        yield Fleet(writer), prometheus


def test_values_vanish_with_their_samples_and_are_never_zero(shown: tuple[Fleet, Prometheus]) -> None:
    """Both VMs have a rate; one falls silent and has none soon, then its set has none; without Prometheus nobody knows."""
    fleet, prometheus = shown
    asked = Asked(prometheus.url)
    seen: list[dict[str, float]] = []

    async def look() -> dict[str, float]:
        seen.append(await asked.values(EACH) if not asked.source.missing() else {})
        return seen[-1]

    async def both() -> bool:
        return set(await look()) == {"web-1", "web-2"}

    async def one() -> bool:
        return set(await look()) == {"web-1"}

    async def scenario() -> None:
        async with asked.running():
            await until(both, lambda: fleet.round(1, 2), "both VMs have a value")
            values = seen[-1]
            # Both are of the same scrapes, so that what these took concerns them alike.
            assert values["web-2"] / values["web-1"] == pytest.approx(2.0, rel=0.05)
            assert (await asked.values(SET))["web"] == pytest.approx(sum((await asked.values(EACH)).values()), rel=0.2)
            await until(one, lambda: fleet.round(1), "the silent VM has no value")
            with pytest.raises(RefusedError, match="1 of 2 VMs have no fresh value"):
                await asked.values(SET)
            assert all(value > 0 for values in seen for value in values.values())
            prometheus.stop()
            with pytest.raises(RefusedError, match="Prometheus does not answer") as refused:
                await asked.values(SET)
            assert refused.value.reason is Reason.UNAVAILABLE

    asyncio.run(scenario())
