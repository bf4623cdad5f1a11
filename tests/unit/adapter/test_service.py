"""The adapter as a whole, in one process: ready when the cluster may rely on it, and gone when it is told to."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from tests.support.awaiting import until
from tests.support.broker import free_ports
from tests.support.kubernetes.certificates import Authority
from tests.support.kubernetes.double import Double, listing
from tests.support.memory_kafka import Cluster
from tests.support.vm_samples import inventory, sample, uuid
from virtflow.adapter import service as module
from virtflow.adapter.kubernetes.front_proxy import PATH
from virtflow.adapter.kubernetes.watch import WATCHED
from virtflow.adapter.service import Adapter
from virtflow.exporter.assignment import Clients
from virtflow.exporter.clocks import Clocks
from virtflow.exporter.columns.intake import Reading
from virtflow.exporter.consumer import Feed
from virtflow.runtime.kafka.acls import ADAPTER_GROUP
from virtflow.runtime.kafka.clients import client_settings, consumer_settings
from virtflow.runtime.lifecycle import Stop
from virtflow.runtime.settings import Adapter as Section
from virtflow.runtime.settings import Settings, Web
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.errors import EnvironmentProblemError
from virtflow.schemas.topics import INVENTORY, METRICS, MIGRATIONS, NODES

SECONDS: Final = 20.0


class Fed:
    """A source that says what a test wants."""

    def __init__(self) -> None:
        """Misses nothing."""
        self.words = ""

    def missing(self) -> str:
        return self.words

    async def run(self) -> None:
        await asyncio.Event().wait()


class Beside:
    """A served adapter, the cluster's double, and the clock."""

    def __init__(self, adapter: Adapter, double: Double, source: Fed, pages: str, authority: str) -> None:
        """At the start of time."""
        self.adapter, self.double, self.source, self.pages = adapter, double, source, pages
        self.authority = authority
        self.now = 0.0

    def trust(self) -> None:
        """The cluster says who its front proxy is."""
        self.double.answers[PATH] = deque([{"data": {"requestheader-client-ca-file": self.authority}}])

    async def readiness(self) -> str:
        """The text of /readyz."""
        async with ClientSession() as session, session.get(f"http://{self.pages}/readyz") as answer:
            return (await answer.text()).strip()

    async def until(self, words: str) -> None:
        """Waits until it says so."""
        deadline = time.monotonic() + SECONDS
        while words not in (found := await self.readiness()):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.01)


def serve(
    folder: Path, script: Callable[[Beside], Coroutine[Any, Any, None]], *, web_settings: Web | None = None, **section: object
) -> None:
    """Runs a script beside an adapter, and stops it."""

    async def body() -> None:
        from aiohttp import web

        certificates = Authority(folder, "ca")
        own = certificates.signed("adapter", hosts=("IP:127.0.0.1",))
        double, source, stop = Double(), Fed(), Stop()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", double.handle)
        for watched in WATCHED:
            double.answers[watched.paths[0]] = deque([listing("1")])
        async with TestServer(application) as server:
            ports = free_ports(2)
            listens = {"api_listen": f"127.0.0.1:{ports[0]}", "listen": f"127.0.0.1:{ports[1]}"}
            files = {
                "tls_certificate_file": str(own.certificate),
                "tls_key_file": str(own.key),
                "kubernetes_ca_file": "",
                "kubernetes_token_file": "",
            }
            given: dict[str, Any] = {"kubernetes_url": str(server.make_url("/")), "drain_seconds": 0.0, **listens, **files, **section}
            beside: list[Beside] = []
            adapter = Adapter(
                Settings(adapter=Section(**given), web=web_settings or Web()), Clocks(lambda: beside[0].now if beside else 0.0, time.time)
            )
            beside.append(Beside(adapter, double, source, listens["listen"], certificates.own.certificate.read_text()))
            serving = asyncio.create_task(adapter.serving(stop, source))
            try:
                while not await _listens(ports[1]):
                    assert not serving.done()
                    await asyncio.sleep(0.01)
                await script(beside[0])
            finally:
                stop.set()
                async with asyncio.timeout(SECONDS):
                    await serving

    asyncio.run(body())


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNTRUSTED_SECONDS", 0.01)
    monkeypatch.setattr(module, "FILES_SECONDS", 0.01)
    monkeypatch.setattr(module, "MEASURE_SECONDS", 0.01)


def test_ready_is_who_can_be_asked(tmp_path: Path) -> None:
    """Once it trusts the front proxy and has read back; from then on whatever becomes of the source."""

    async def script(beside: Beside) -> None:
        beside.source.words = "reading back, 2 of 3 partitions to go"
        await beside.until("the front proxy's certificate authority is not known")
        beside.trust()
        await beside.until("reading back")
        beside.source.words = ""
        await beside.until("ready")
        assert await beside.readiness() == "ready"
        beside.source.words = "no answer from the brokers"
        assert await beside.readiness() == "ready"

    serve(tmp_path, script)


def test_a_dead_source_keeps_a_new_adapter_unready_for_a_while_only(tmp_path: Path) -> None:
    """The cluster needs its discovery more than its values."""

    async def script(beside: Beside) -> None:
        beside.source.words = "no answer from the brokers"
        beside.trust()
        await beside.until("no answer from the brokers")
        beside.now = module.START_SECONDS
        assert await beside.readiness() == "ready"

    serve(tmp_path, script)


def test_a_stopping_adapter_is_not_ready_and_answers(tmp_path: Path) -> None:
    async def script(beside: Beside) -> None:
        beside.trust()
        await beside.until("ready")
        beside.adapter._api.draining = True
        assert "stopping" in await beside.readiness()

    serve(tmp_path, script)


def test_its_own_metrics_tell_how_its_sources_are(tmp_path: Path) -> None:
    async def script(beside: Beside) -> None:
        beside.trust()
        await beside.until("ready")
        value = beside.adapter.metrics.value
        await until(lambda: value("virtflow_adapter_trusted") == 1, "the front proxy")
        beside.adapter.fleet.take_metrics(sample(), 0.0)
        await until(lambda: value("virtflow_adapter_vms") == 1, "the VM")
        assert all(value("virtflow_adapter_watched", watched.resource.value) == 1 for watched in WATCHED)

    serve(tmp_path, script)


def test_its_own_metrics_are_for_whom_the_web_settings_name(tmp_path: Path) -> None:
    """Readiness is open, as at every service: a pod's probe has no password."""
    tokens = tmp_path / "tokens"
    tokens.write_text("0123456789abcdef0123456789abcdef prometheus\n")
    tokens.chmod(0o600)

    async def script(beside: Beside) -> None:
        beside.trust()
        await beside.until("ready")
        async with ClientSession() as session:
            url = f"http://{beside.pages}/metrics"
            async with session.get(url) as refused:
                assert refused.status == 401
            async with session.get(url, headers={"Authorization": "Bearer 0123456789abcdef0123456789abcdef"}) as answer:
                assert answer.status == 200
                assert "virtflow_web_config_current" in await answer.text()

    serve(tmp_path, script, web_settings=Web(tokens_file=str(tokens)))


def test_without_a_cluster_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    own = Authority(tmp_path, "ca").signed("adapter", hosts=("IP:127.0.0.1",))
    with pytest.raises(EnvironmentProblemError, match="KUBERNETES_SERVICE_HOST"):
        Adapter(Settings(adapter=Section(tls_certificate_file=str(own.certificate), tls_key_file=str(own.key))))


def test_it_reads_the_topics_as_the_exporter_does() -> None:
    """By the same feed, under its own names: samples of the window are read back, and kept by VM."""
    from virtflow.adapter.samples.fleet import RecentFleet
    from virtflow.runtime.own_metrics import OwnMetrics

    cluster, settings, metrics, fleet = Cluster(), Settings(), OwnMetrics("adapter"), RecentFleet(60.0)
    for topic in (METRICS, INVENTORY, MIGRATIONS, NODES):
        cluster.create(topic.name, 2, topic.config())
    codec = Codec()
    for sequence in range(3):
        cluster.write(METRICS.name, uuid(1).encode(), codec.encode(sample(1, sequence)))
    cluster.write(INVENTORY.name, uuid(1).encode(), codec.encode(inventory(1)))

    async def body() -> None:
        clients = Clients(consumer_settings(settings, "g"), client_settings(settings), cluster.consumer, cluster.admin)
        clocks = Clocks(time.monotonic, time.time)
        feed = Feed(settings, fleet, codec, metrics, clocks, reading=Reading("adapter", ADAPTER_GROUP, 120.0), clients=clients)
        task = asyncio.create_task(feed.run())
        await until(lambda: not feed.missing(), "read back")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(body())
    assert [one.record.sequence for one in fleet.samples(uuid(1))] == [0, 2]
    assert metrics.value("virtflow_adapter_records_total", "vm.metrics") == 3
