"""Fault 18: half requests, slow readers and a storm of scrapes at /metrics."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from tests.support.broker import Broker
from tests.support.exporter_process import ExporterProcess
from tests.support.figures import figure
from tests.support.topic_writer import TopicWriter
from tests.support.vm_samples import sample
from virtflow.schemas.topics import METRICS

VMS = 2_000
CONNECTIONS = 256
SCRAPE_SECONDS = 2.0
HEALTH_SECONDS = 1.0
REQUEST_TIMEOUT_SECONDS = 5.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="module")
def exporter(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExporterProcess]:
    """An exporter of 2,000 VMs: its answer is larger than any socket's buffers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8_192)), hard))
    writer = TopicWriter(broker.address)
    writer.write(METRICS, *(sample(number, 1, interval=3_600.0) for number in range(VMS)))
    settings = {"EXPORTER_CONNECTIONS": CONNECTIONS, "EXPORTER_REQUEST_TIMEOUT_SECONDS": REQUEST_TIMEOUT_SECONDS}
    with ExporterProcess(tmp_path_factory.mktemp("exporter"), broker.address, writer.prefix, settings) as running:
        running.wait_until_ready()
        running.wait_until(lambda: running.value("virtflow_exporter_vms") == VMS, 30.0, "all VMs")
        yield running
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def scrape(exporter: ExporterProcess, path: str = "/metrics") -> tuple[int, float, int]:
    """Status, seconds and bytes of a request on a connection of its own; status 0 when it was cut off."""
    started = time.monotonic()
    try:
        async with (
            ClientSession(connector=TCPConnector(force_close=True), timeout=ClientTimeout(total=30)) as client,
            client.get(f"http://127.0.0.1:{exporter.port}{path}") as answer,
        ):
            body = await answer.read()
            return answer.status, time.monotonic() - started, len(body)
    except (ClientError, OSError):
        return 0, time.monotonic() - started, 0


async def scraped(exporter: ExporterProcess) -> None:
    """Scrapes as Prometheus would; in time, and in full."""
    status, seconds, size = await scrape(exporter)
    assert status == 200
    assert seconds < SCRAPE_SECONDS
    figure(18, "a normal scrape meanwhile", seconds, "s")
    assert size > VMS * 1_000
    status, seconds, _ = await scrape(exporter, "/healthz")
    assert status == 200
    assert seconds < HEALTH_SECONDS


@asynccontextmanager
async def clients(exporter: ExporterProcess, count: int, said: bytes) -> AsyncIterator[list[socket.socket]]:
    """So many connections that said something and read nothing."""
    loop = asyncio.get_running_loop()
    sockets = []
    try:
        for _ in range(count):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            one.setblocking(False)  # noqa: FBT003, the socket's own way
            sockets.append(one)
            await loop.sock_connect(one, ("127.0.0.1", exporter.port))
            try:
                await loop.sock_sendall(one, said)
            except ConnectionError:
                continue
        yield sockets
    finally:
        for one in sockets:
            one.close()


def open_connections(exporter: ExporterProcess) -> float:
    return exporter.value("virtflow_web_connections") or 0.0


async def ended(one: socket.socket) -> bytes:
    """All that a client is told until its connection is closed."""
    loop = asyncio.get_running_loop()
    told = b""
    try:
        while part := await loop.sock_recv(one, 65_536):
            told += part
    except ConnectionError:
        return told
    return told


def test_half_requests(exporter: ExporterProcess) -> None:
    """2,000 of them: scrapes go on, connections are capped, excess is told 503 and the rest 408."""

    async def scenario() -> None:
        async with clients(exporter, 2_000, b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ") as halves:
            for _ in range(3):
                await scraped(exporter)
            assert open_connections(exporter) <= CONNECTIONS
            figure(18, "connections at most, of 2,000 half requests", open_connections(exporter))
            told = await asyncio.wait_for(asyncio.gather(*map(ended, halves)), 3 * REQUEST_TIMEOUT_SECONDS)
        statuses = Counter(answer[9:12] for answer in told)
        assert set(statuses) <= {b"503", b"408", b""}
        assert statuses[b"503"] >= 1_000
        assert statuses[b"408"] > 0
        figure(18, "half requests that are refused with 503", statuses[b"503"])

    asyncio.run(scenario())


def test_slow_readers(exporter: ExporterProcess) -> None:
    """As many as there are places: they are dropped for those who read, and in the end by their time."""

    async def scenario() -> None:
        async with clients(exporter, 2 * CONNECTIONS, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"):
            deadline = time.monotonic() + REQUEST_TIMEOUT_SECONDS
            while (await scrape(exporter))[0] != 200:
                assert time.monotonic() < deadline, "no scrape gets in"
            for _ in range(3):
                await scraped(exporter)
            exporter.wait_until(lambda: open_connections(exporter) < CONNECTIONS / 4, 3 * REQUEST_TIMEOUT_SECONDS, "slow readers dropped")

    asyncio.run(scenario())


def test_a_storm_of_scrapes(exporter: ExporterProcess) -> None:
    """500 at once: each is answered in full or with 503, and the next one finds room and is in time."""

    async def scenario() -> None:
        answers = await asyncio.gather(*(scrape(exporter) for _ in range(500)))
        statuses = Counter(status for status, _, _ in answers)
        assert set(statuses) <= {200, 503}
        assert statuses[200] >= CONNECTIONS // 2
        figure(18, "scrapes of 500 at once that are answered in full", statuses[200])
        assert {size for status, _, size in answers if status == 200 and size < VMS * 1_000} == set()
        await scraped(exporter)

    asyncio.run(scenario())


def test_descriptors_return_to_their_baseline(exporter: ExporterProcess) -> None:
    """Nothing of the clients stays behind."""
    descriptors = Path(f"/proc/{exporter.pid}/fd")
    before = len(list(descriptors.iterdir()))

    async def scenario() -> None:
        async with clients(exporter, 200, b"GET /metrics HTTP/1.1\r\n"):
            await scraped(exporter)

    asyncio.run(scenario())
    exporter.wait_until(lambda: len(list(descriptors.iterdir())) <= before + 2, 10.0, "descriptors given back")
