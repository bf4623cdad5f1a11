"""Fault 19: connections to the TLS port that never say hello. Scrapes are unaffected."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.certificates import Authority
from tests.support.exporter_process import ExporterProcess
from tests.support.long import length
from tests.support.topic_writer import TopicWriter
from tests.support.vm_samples import sample
from virtflow.schemas.topics import METRICS

VMS = 100
IDLE = length(200, 2_000)
CONNECTIONS = 256


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExporterProcess]:
    """An exporter with TLS and as many places as by default."""
    folder = tmp_path_factory.mktemp("exporter")
    authority = Authority(folder)
    pair = authority.server()
    config = folder / "web.yml"
    config.write_text(f"tls_server_config:\n  cert_file: {pair.certificate}\n  key_file: {pair.key}\n")
    with Broker(tmp_path_factory.mktemp("broker")) as broker:
        writer = TopicWriter(broker.address)
        writer.write(METRICS, *(sample(number, 1, interval=3_600.0) for number in range(VMS)))
        process = ExporterProcess(folder, broker.address, writer.prefix, {"WEB_CONFIG_FILE": config, "EXPORTER_CONNECTIONS": CONNECTIONS})
        process.context = authority.trusting()
        with process as running:
            running.wait_until(lambda: running.value("virtflow_exporter_vms") == VMS, 30.0, "all VMs")
            yield running


def scraped(exporter: ExporterProcess) -> None:
    """A whole scrape by a new connection, and health."""
    assert sum(name == "vm_info" or name.startswith("vm_") for name, _ in exporter.series()) >= VMS
    assert exporter.status("/healthz") == 200


def connect(exporter: ExporterProcess, stack: ExitStack, said: bytes = b"") -> None:
    one = stack.enter_context(socket.create_connection(("127.0.0.1", exporter.port)))
    one.sendall(said)


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01", b"GET /metrics HTTP/1.1\r\n\r\n"], ids=["nothing", "half a hello", "plain HTTP"])
def test_scrapes_go_on_beside_idle_connections(exporter: ExporterProcess, said: bytes) -> None:
    """Before, between and after them each scrape is answered in full, and there are never more connections than places."""
    with ExitStack() as stack:
        for number in range(IDLE):
            connect(exporter, stack, said)
            if number % (IDLE // 5) == 0:
                scraped(exporter)
        scraped(exporter)
        open_now = exporter.value("virtflow_web_connections")
        assert open_now is not None
        assert open_now <= CONNECTIONS
    exporter.wait_until(lambda: exporter.value("virtflow_web_connections") == 1.0, 10.0, "only the one who asks is left")


def test_a_scrape_that_is_connected_stays_so(exporter: ExporterProcess) -> None:
    """A client that keeps its connection is never closed for those that say nothing."""
    with ExitStack() as stack:
        plain = stack.enter_context(socket.create_connection(("127.0.0.1", exporter.port)))
        assert exporter.context is not None
        kept = stack.enter_context(exporter.context.wrap_socket(plain, server_hostname="127.0.0.1"))
        _ask(kept)
        for _ in range(CONNECTIONS + IDLE):
            connect(exporter, stack)
        _ask(kept)


def _ask(kept: ssl.SSLSocket) -> None:
    kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    told = b""
    while b"ok\n" not in told:
        part = kept.recv(65_536)
        assert part, "the connection was closed"
        told += part


def test_descriptors_return_to_their_baseline(exporter: ExporterProcess) -> None:
    descriptors = Path(f"/proc/{exporter.pid}/fd")
    before = len(list(descriptors.iterdir()))
    with ExitStack() as stack:
        for _ in range(IDLE):
            connect(exporter, stack)
        scraped(exporter)
    exporter.wait_until(lambda: len(list(descriptors.iterdir())) <= before + 2, 10.0, "descriptors given back")
