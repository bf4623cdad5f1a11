"""The exporter while its broker is away: at start, later, and back again."""

from __future__ import annotations

import time
from pathlib import Path

from tests.support.broker import Broker
from tests.support.exporter_process import ExporterProcess
from tests.support.topic_writer import TopicWriter
from tests.support.vm_samples import sample, uuid
from virtflow.schemas.topics import METRICS

SECONDS = 30.0


def shown(exporter: ExporterProcess, number: int) -> bool:
    return exporter.value("vm_state", uuid=uuid(number)) == 1.0


def health_seconds(exporter: ExporterProcess) -> float:
    """The quickest of three answers: one that waits for the broker does so each time."""
    took: list[float] = []
    for _ in range(3):
        started = time.monotonic()
        assert exporter.status("/healthz") == 200
        took.append(time.monotonic() - started)
    return min(took)


def test_waits_for_its_broker(tmp_path: Path) -> None:
    """Serves and says what it waits for, once; goes on by itself within seconds; health answers throughout."""
    broker = Broker(tmp_path / "broker")
    with broker:
        writer = TopicWriter(broker.address)
        writer.write(METRICS, sample(1, 1, interval=60.0))
        broker.stop()
        with ExporterProcess(tmp_path, broker.address, writer.prefix) as exporter:
            exporter.wait_until(lambda: any("do not answer" in line for line in exporter.lines("warning")), SECONDS, "the warning")
            assert exporter.status("/readyz") == 503
            assert health_seconds(exporter) < 1.0
            broker.start()
            exporter.wait_until_ready(SECONDS)
            assert shown(exporter, 1)

            writer.write(METRICS, sample(3, 1, interval=2.0))
            exporter.wait_until(lambda: shown(exporter, 3), SECONDS, "the VM that will fall silent")
            broker.kill()
            killed = time.monotonic()
            exporter.wait_until(lambda: not shown(exporter, 3), SECONDS, "its end")
            assert health_seconds(exporter) < 1.0
            exporter.wait_until(lambda: exporter.status("/readyz") == 503, SECONDS, "it is not ready without its broker")
            broker.start()
            writer.write(METRICS, sample(2, 1, interval=60.0))
            exporter.wait_until(lambda: shown(exporter, 2), SECONDS, "what came after the outage")
            exporter.wait_until_ready(SECONDS)
            minutes = 1 + (time.monotonic() - killed) // 60
            assert sum("do not answer" in line for line in exporter.lines("warning")) <= 1 + minutes
