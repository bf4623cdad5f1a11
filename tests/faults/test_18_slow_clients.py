"""Fault 18: half requests, slow readers and a storm of scrapes at /metrics, in plain HTTP and over TLS."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from tests.support.broker import Broker
from tests.support.certificates import Authority
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


@pytest.fixture(scope="module", params=["http", "https"])
def exporter(broker: Broker, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[ExporterProcess]:
    """An exporter of 2,000 VMs: its answer is larger than any socket's buffers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8_192)), hard))
    writer = TopicWriter(broker.address)
    writer.write(METRICS, *(sample(number, 1, interval=3_600.0) for number in range(VMS)))
    settings: dict[str, object] = {"EXPORTER_CONNECTIONS": CONNECTIONS, "EXPORTER_REQUEST_TIMEOUT_SECONDS": REQUEST_TIMEOUT_SECONDS}
    folder = tmp_path_factory.mktemp("exporter")
    context = None
    if request.param == "https":
        context, settings["WEB_CONFIG_FILE"] = tls_files(folder)
    process = ExporterProcess(folder, broker.address, writer.prefix, settings)
    process.context = context
    with process as running:
        running.wait_until_ready()
        running.wait_until(lambda: running.value("virtflow_exporter_vms") == VMS, 30.0, "all VMs")
        yield running
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def tls_files(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A client's context, and a web configuration whose certificate it trusts."""
    authority = Authority(folder)
    pair = authority.server()
    file = folder / "web.yml"
    file.write_text(f"tls_server_config:\n  cert_file: {pair.certificate}\n  key_file: {pair.key}\n")
    return authority.trusting(), file


async def scrape(exporter: ExporterProcess, path: str = "/metrics") -> tuple[int, float, int]:
    """Status, seconds and bytes of a request on a connection of its own; status 0 when it was cut off."""
    started = time.monotonic()
    try:
        async with (
            ClientSession(
                # A connection that is given up after its answer would wait for the server to close, and outlive the event loop.
                connector=TCPConnector(ssl=exporter.context or True),
                timeout=ClientTimeout(total=30),
            ) as client,
            client.get(f"{exporter.url}{path}") as answer,
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


class Client:
    """A connection, in plain text or TLS, that reads nothing before it is asked to."""

    def __init__(self) -> None:
        """Not connected yet."""
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self.socket.setblocking(False)  # noqa: FBT003, the socket's own way
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None

    async def connect(self, exporter: ExporterProcess, said: bytes) -> None:
        """Connects and says something."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, ("127.0.0.1", exporter.port))
        with suppress(ConnectionError):
            if exporter.context is not None:
                await self._shake(exporter.context)
            await loop.sock_sendall(self.socket, self._sealed(said))

    async def _shake(self, context: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await loop.sock_sendall(self.socket, self._outgoing.read())
                part = await loop.sock_recv(self.socket, 65_536)
                if not part:
                    raise ConnectionError from None
                self._incoming.write(part)
            else:
                return

    def _sealed(self, said: bytes) -> bytes:
        if self._tls is None:
            return said
        self._tls.write(said)
        return self._outgoing.read()

    async def told(self) -> bytes:
        """All that it is told until its connection is closed."""
        loop = asyncio.get_running_loop()
        raw = b""
        with suppress(ConnectionError):
            while part := await loop.sock_recv(self.socket, 65_536):
                raw += part
        if self._tls is None:
            return raw
        self._incoming.write(raw)
        told = b""
        with suppress(ssl.SSLError):
            while part := self._tls.read(65_536):
                told += part
        return told


@asynccontextmanager
async def clients(exporter: ExporterProcess, count: int, said: bytes) -> AsyncIterator[list[Client]]:
    """So many connections that said something and read nothing."""
    found: list[Client] = []
    try:
        for _ in range(count):
            one = Client()
            found.append(one)
            await one.connect(exporter, said)
        yield found
    finally:
        for one in found:
            one.socket.close()


def open_connections(exporter: ExporterProcess) -> float:
    return exporter.value("virtflow_web_connections") or 0.0


def test_half_requests(exporter: ExporterProcess) -> None:
    """2,000 of them: scrapes go on, connections are capped, excess is told 503 and the rest 408."""

    async def scenario() -> None:
        async with clients(exporter, 2_000, b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ") as halves:
            for _ in range(3):
                await scraped(exporter)
            assert open_connections(exporter) <= CONNECTIONS
            figure(18, "connections at most, of 2,000 half requests", open_connections(exporter))
            told = await asyncio.wait_for(asyncio.gather(*(half.told() for half in halves)), 3 * REQUEST_TIMEOUT_SECONDS)
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
    """500 at once: each is answered in full or with 503, and the next one finds room and is in time.

    Over TLS those without a place are closed in the middle of their handshake, where nothing can be said yet.
    """
    refused = {503} if exporter.context is None else {503, 0}

    async def scenario() -> None:
        answers = await asyncio.gather(*(scrape(exporter) for _ in range(500)))
        statuses = Counter(status for status, _, _ in answers)
        assert set(statuses) <= {200, *refused}
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
