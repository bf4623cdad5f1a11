"""Credentials that are replaced while clients use them are noticed once they can be used, and each client goes on with another one."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import faust
import pytest
from msgspec.structs import replace

from tests.support.certificates import Authority, Pair
from tests.support.history import key_of, stored_keys
from tests.support.lab_process import await_true
from tests.support.memory_kafka import Cluster
from tests.support.memory_writer import PARTITIONS, put, samples, writing
from tests.support.publishing import cluster_of_producers, events, happened, rounds, snapshot
from tests.support.vm_samples import sample
from virtflow.exporter.assignment import Clients
from virtflow.exporter.clocks import Clocks
from virtflow.exporter.consumer import Feed
from virtflow.exporter.service import Exporter
from virtflow.history.writer import source
from virtflow.processors import delivery
from virtflow.processors.app import credentials_of, use_credentials
from virtflow.processors.dead_letters.dead_letter import Result
from virtflow.processors.delivery import Delivery
from virtflow.processors.metrics import Tally
from virtflow.producer.publishing import events as event_publishing
from virtflow.producer.publishing import snapshots as round_publishing
from virtflow.producer.publishing.events import EventPublisher
from virtflow.producer.publishing.snapshots import Publisher
from virtflow.runtime.kafka import credentials
from virtflow.runtime.kafka.clients import client_settings, consumer_settings
from virtflow.runtime.kafka.credentials import LOOK_SECONDS, Credentials
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import Kafka, Producer, Settings
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.topics import INVENTORY, METRICS, MIGRATIONS, NODES, TOPICS

SECONDS = 60.0


def write(path: Path, text: str) -> None:
    """Replaces a file, as who renews credentials does."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("old\n")
    return path


@pytest.fixture
def with_password(secret: Path, tmp_path: Path) -> Settings:
    kafka = Kafka(security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", sasl_username="u", sasl_password_file=str(secret))
    return Settings(kafka=kafka, producer=Producer(journal_folder=str(tmp_path / "journal"), ring_rounds=4, interval_seconds=1.0))


class TestNotice:
    """When a change is reported; the clock is the test's."""

    now = 0.0

    def look(self, watched: Credentials) -> bool:
        self.now += LOOK_SECONDS
        return watched.renewed()

    def watched(self, kafka: Kafka) -> Credentials:
        return Credentials(kafka, lambda: self.now)

    def test_a_new_password_once(self, with_password: Settings, secret: Path) -> None:
        watched = self.watched(with_password.kafka)
        assert not self.look(watched)
        write(secret, "new\n")
        assert not watched.renewed()
        assert [self.look(watched), self.look(watched)] == [True, False]

    def test_a_file_that_is_away_is_waited_for(self, with_password: Settings, secret: Path, caplog: pytest.LogCaptureFixture) -> None:
        watched = self.watched(with_password.kafka)
        secret.unlink()
        assert not self.look(watched)
        assert "were changed and can't be used, those before stay" in caplog.text
        write(secret, "new\n")
        assert self.look(watched)

    def test_a_certificate_waits_for_its_key(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path / "tls")
        pair, fresh = authority.issue("client", "localhost"), authority.issue("fresh", "localhost")
        watched = self.watched(certified(authority, pair))
        fresh.certificate.replace(pair.certificate)
        assert not self.look(watched)
        fresh.key.replace(pair.key)
        assert [self.look(watched), self.look(watched)] == [True, False]

    def test_files_that_the_protocol_has_no_use_for(self, secret: Path) -> None:
        watched = self.watched(Kafka(sasl_password_file=str(secret)))
        write(secret, "new\n")
        assert not self.look(watched)

    def test_what_can_not_be_built_this_moment_is_built_later(self, with_password: Settings, secret: Path) -> None:
        watched = self.watched(with_password.kafka)
        write(secret, "new\n")
        gone = replace(with_password, kafka=replace(with_password.kafka, sasl_password_file="/no/such/file"))  # noqa: S106, a path
        self.now += LOOK_SECONDS
        assert watched.fresh(lambda: client_settings(gone)) is None
        self.now += LOOK_SECONDS
        settings = watched.fresh(lambda: client_settings(with_password))
        assert settings is not None
        assert settings["sasl.password"] == "new"


def certified(authority: Authority, pair: Pair) -> Kafka:
    certificate, key = str(pair.certificate), str(pair.key)
    return Kafka(security_protocol="SSL", tls_certificate_file=certificate, tls_key_file=key, tls_ca_file=str(authority.file))


def test_the_processors_trust_no_authority_that_was_replaced(tmp_path: Path) -> None:
    """Connections as aiokafka makes them, to servers whose certificates are of the authority before and of the new one."""
    before, after = (Authority(tmp_path / name) for name in ("before", "after"))
    file = tmp_path / "authorities.pem"
    file.write_text(before.file.read_text())
    kafka = Kafka(security_protocol="SSL", tls_ca_file=str(file))
    _, given = credentials_of(Settings(kafka=kafka))
    context, app = given.context, faust.App("unused", broker_credentials=given)
    config: Any = app.conf

    async def trusted(authority: Authority) -> bool:
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        pair = authority.server()
        serving.load_cert_chain(pair.certificate, pair.key)
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=serving) as server:
            try:
                _, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=context)
            except ssl.SSLCertVerificationError:
                return False
            writer.close()
            return True

    assert [asyncio.run(trusted(one)) for one in (before, after)] == [True, False]
    write(file, after.file.read_text())
    use_credentials(app, kafka)
    assert config.broker_credentials.context is context
    assert [asyncio.run(trusted(one)) for one in (before, after)] == [False, True]


@pytest.fixture(params=[True, False], ids=["broker answers", "broker refuses the old ones"])
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Files are looked at all the time. A client that can't deliver is given up at once where the broker does not answer it."""
    monkeypatch.setattr(credentials, "LOOK_SECONDS", 0.0)
    for module in (delivery, event_publishing, round_publishing):
        monkeypatch.setattr(module, "RETIRE_SECONDS", inf if request.param else 0.0)
    cluster = cluster_of_producers()
    cluster.create(METRICS.name)
    if not request.param:
        cluster.stop()
    return cluster


def awaits_replacement(cluster: Cluster, secret: Path, passwords: list[str]) -> None:
    """Changes the password, waits for the client that has it, and has the broker answer."""
    write(secret, "new\n")
    await_true(lambda: passwords[-1] == "new", SECONDS, "a client with the new password")
    if not cluster.running:
        cluster.start()


def making(cluster: Cluster, passwords: list[str]) -> Callable[[dict[str, object]], object]:
    """Builds producers and notes their passwords."""

    def make(config: dict[str, object]) -> object:
        passwords.append(str(config["sasl.password"]))
        return cluster.producer({**config, "message.timeout.ms": 0})

    return make


def test_rounds_go_on_with_another_client(cluster: Cluster, with_password: Settings, secret: Path) -> None:
    passwords: list[str] = []
    publisher = Publisher(with_password, making(cluster, passwords), retry_seconds=0.01)
    publisher.offer(snapshot(0))
    awaits_replacement(cluster, secret, passwords)
    publisher.offer(snapshot(1))
    assert publisher.close(SECONDS) == 0
    assert rounds(cluster) == [(0, 0), (1, 0)]
    assert passwords == ["old", "new"]


def test_events_go_on_with_another_client(cluster: Cluster, with_password: Settings, secret: Path) -> None:
    passwords: list[str] = []
    publisher = EventPublisher(with_password, "node-1", making(cluster, passwords))
    for number in range(5):
        publisher.offer(happened(number))
    await_true(lambda: passwords == ["old"], SECONDS, "the first client")
    write(secret, "new\n")
    publisher.offer(happened(5))
    awaits_replacement(cluster, secret, passwords)
    publisher.offer(happened(6))
    assert publisher.close(SECONDS) == 0
    assert events(cluster) == list(range(7))


def test_results_go_on_with_another_client(cluster: Cluster, with_password: Settings, secret: Path) -> None:
    passwords: list[str] = []
    watched = Credentials(with_password.kafka)
    make = making(cluster, passwords)
    renewed = lambda: watched.fresh(lambda: client_settings(with_password))  # noqa: E731, a name for it
    made = Delivery(client_settings(with_password), lambda topic: topic.name, Tally(OwnMetrics("processors")), make, renewed=renewed)
    made.start()
    results = [Result(METRICS, b"%d" % number, b"x") for number in range(20)]
    delivering = threading.Thread(target=lambda: asyncio.run(made.deliver(results)))
    delivering.start()
    awaits_replacement(cluster, secret, passwords)
    delivering.join(SECONDS)
    asyncio.run(made.deliver([Result(METRICS, b"20", b"x")]))
    made.close()
    keys = [record.key or b"" for record in cluster.topics[METRICS.name].logs[0].records]
    assert sorted(keys) == sorted(b"%d" % number for number in range(21))
    assert passwords == ["old", "new"]


def test_the_feed_reads_on_where_it_was(with_password: Settings, secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "LOOK_SECONDS", 0.0)
    cluster = Cluster.with_topics(METRICS, INVENTORY, MIGRATIONS, NODES)
    exporter = Exporter(with_password)
    settings = consumer_settings(with_password, "g"), client_settings(with_password)
    clients = Clients(*settings, cluster.consumer, cluster.admin)
    feed = Feed(with_password, exporter.fleet, Codec(), exporter.metrics, Clocks(time.monotonic, time.time), clients=clients)

    def send(sequence: int) -> None:
        one = sample(1, sequence, collected=time.time(), monitor_collected=time.time(), interval=600.0)
        cluster.write(METRICS.name, one.uuid.encode(), Codec().encode(one), 0, None)

    def shown() -> list[int]:
        return [vm.exported.sequence for vm in exporter.fleet.vms() if vm.exported is not None]

    async def until(true: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not true():
            assert time.monotonic() < deadline, what
            await asyncio.sleep(0.005)

    async def run() -> None:
        task = asyncio.create_task(feed.run())
        send(1)
        await until(lambda: shown() == [1], "the first sample")
        [first] = cluster.consumers
        write(secret, "new\n")
        await until(lambda: cluster.consumers != [first] and len(cluster.consumers) == 1, "another client")
        send(2)
        await until(lambda: shown() == [2], "the next sample")
        assert exporter.metrics.value("virtflow_exporter_records_total", METRICS.name) == 2
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def test_the_history_goes_on_with_another_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is stored before; nothing is lost, nothing twice."""
    changed = threading.Event()

    class Once:
        """Files that were replaced when the test says so."""

        def __init__(self, kafka: Kafka) -> None:
            """Of these settings, whatever they are."""
            del kafka

        def renewed(self) -> bool:
            if was := changed.is_set():
                changed.clear()
            return was

    monkeypatch.setattr(source, "Credentials", Once)
    cluster, given, path = Cluster.with_topics(*TOPICS), samples(range(6)), tmp_path / "history"
    with writing(cluster, path) as writer:
        put(cluster, METRICS, *given[:12])
        writer.until(lambda: writer.counted("records_total", "samples") == 12, "the first ones")
        first = writer.consumer
        changed.set()
        writer.until(lambda: writer.consumer is not first and writer.has(PARTITIONS), "another client")
        put(cluster, METRICS, *given[12:])
        writer.until(lambda: stored_keys(path).total() == len(given), "all of them")
    assert writer.error is None
    assert stored_keys(path) == Counter(map(key_of, given))
