"""Every query of every dashboard, asked of a real Prometheus that scrapes the pipeline while simulated VMs work and migrate."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.alertmanager import Alertmanager, alertmanager
from tests.support.broker import DIES_WITH_US, Broker
from tests.support.command import PROGRAM, environment
from tests.support.dashboards import FILES, Query, filled
from tests.support.dashboards import queries as queries_of
from tests.support.exporter_process import ExporterProcess
from tests.support.history import Writer, wait_for_samples, writing
from tests.support.history_serving import serving
from tests.support.processors import Bus, Processors, eventually
from tests.support.prometheus import Prometheus
from virtflow.history.remote_read.protocol.wire import Asked, Match, Matcher

SECONDS = 150.0
"""Each leg of a simulated VM's tour is a minute, and the tours begin at different times: all that can happen has happened by then."""
STEP_SECONDS = 1.0
LOOK_SECONDS = 2.0
SEED = 9
"""One whose fleet has VMs that are paused and shut off throughout."""
NODES = 3
CALM = re.compile(
    r"virtflow_node_up\{[^}]*\} == 0"
    r"|virtflow_node_drops_total|node:drops:rate5m|virtflow_processors_dead_letters_total"
    r"|virtflow_(?:processors|history)_(?:replaced_offsets|missing_records)_total"
    r"|virtflow_processors_node_undecodable_total|virtflow_exporter_skipped_records_total"
    r"|virtflow_node_vms_(?:skipped|not_probed)\{[^}]*\} > 0|virtflow_node_journal_events"
    r"|vm_conflict == 1|vm_responsive == 0"
    r'|reason(?:=|!)~"crashed\|failed\|daemon'
    r"|vm_guest_agent_info\{uuid"
)
"""What is empty in calm: nobody silent, nothing dropped, no VM stopped, stuck or claimed twice, nothing wrong with the VM that is looked at,
and no journal, which only a real producer has."""
VM = "vm_guest_load1 and on (uuid) vm_guest_ip_address_info and on (uuid) vm_guest_memory_total_bytes and on (uuid) vm_state == 1"
"""One that runs, whose guest's agent answers, and that stays where it is."""


def queries(uuid: str) -> list[Query]:
    """All of them, with Grafana's variables filled in; a fallback to 0, which is never empty, is left out."""
    values = {
        "node": ".*",
        "project": ".*",
        "uuid": uuid,
        "__rate_interval": "15s",
        "__interval": "15s",
        "__range": "2m",
        "__range_s": "120",
    }
    asked = [query for file in FILES for query in queries_of(file)]
    return [query._replace(promql=filled(query.promql, values).replace(" or vector(0)", "")) for query in asked]


@contextmanager
def simulator(bus: Bus, log: Path) -> Iterator[None]:
    """Simulated hypervisors whose VMs migrate."""
    own = {
        "VIRTFLOW_SIMULATE_SEED": str(SEED),
        "VIRTFLOW_SIMULATE_NODES": str(NODES),
        "VIRTFLOW_SIMULATE_VMS": "4",
        "VIRTFLOW_SIMULATE_MIGRATIONS": "12",
        "VIRTFLOW_SIMULATE_GUESTS": "true",
        "VIRTFLOW_PRODUCER_INTERVAL_SECONDS": "1",
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*DIES_WITH_US, str(PROGRAM), "simulate"], env=environment({**bus.environment(), **own}), stdout=output, stderr=output
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(30.0)


HOST = f"""
node_uname_info{{nodename="sim-{SEED}-0"}} 1
node_cpu_seconds_total{{cpu="0",mode="idle"}} 1000
node_cpu_seconds_total{{cpu="1",mode="idle"}} 1000
node_memory_MemTotal_bytes 64e9
"""
"""What node_exporter says on the first hypervisor, as far as rules ask it."""


@contextmanager
def host_metrics() -> Iterator[str]:
    """A page in the place of node_exporter's, which would tell of this machine: its HOST:PORT."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(HOST.encode())

        def log_message(self, *_: object) -> None:
            """Nothing is written."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def operators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    """Alertmanager with the example route."""
    with alertmanager(tmp_path_factory.mktemp("alertmanager")) as started:
        yield started


@pytest.fixture(scope="module")
def prometheus(broker: Broker, operators: Alertmanager, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus on a whole pipeline."""
    folder, bus = tmp_path_factory.mktemp("dashboards"), Bus(broker)
    bus.create_topics()
    with ExitStack() as stack:
        processors = stack.enter_context(Processors(bus, folder))
        exporter = stack.enter_context(ExporterProcess(folder, broker.address, bus.prefix))
        stack.enter_context(simulator(bus, folder / "simulate.log"))
        exporter.wait_until_ready()
        own = {"VIRTFLOW_TOPICS_PREFIX": bus.prefix, "VIRTFLOW_HISTORY_GROUP": bus.prefix}
        history = Writer(broker.address, folder / "history", folder, own)
        stack.enter_context(writing(history))
        wait_for_samples(folder / "history", 1, 60.0, history)
        server = stack.enter_context(serving(folder / "history", folder))
        assert server.read(Asked(0, 1, (Matcher(Match.EQUAL, "__name__", "vm_state"),)))[0] == 200
        targets = {
            "virtflow": [f"127.0.0.1:{exporter.port}"],
            "virtflow-processors": [processors.address],
            "virtflow-history": [f"127.0.0.1:{history.port}", f"127.0.0.1:{server.port}"],
            "node": [stack.enter_context(host_metrics())],
        }
        started = Prometheus(folder / "prometheus", targets)
        started.alertmanagers.append(operators.address)
        yield stack.enter_context(started)


def test_every_query_of_every_dashboard_finds_something(prometheus: Prometheus) -> None:
    """At some moment of the simulated fleet's life, but for what is empty in calm; and a migration that fails is told by its alert."""
    began = time.time()
    uuid = prometheus.wait_for(f"{VM} unless on (uuid) vm_migration_active", 60.0)[0].labels["uuid"]
    left = {query for query in queries(uuid) if not CALM.search(query.promql)}
    while left and time.time() - began < SECONDS:
        time.sleep(LOOK_SECONDS)
        left = {one for one in left if not prometheus.query_range(one.promql, began, time.time(), STEP_SECONDS)}
    assert not left
    eventually("a migration fails and is told", lambda: "VirtflowMigrationFailed" in prometheus.firing(), SECONDS)


def test_an_alert_reaches_its_receiver(prometheus: Prometheus, operators: Alertmanager) -> None:
    """From Prometheus to Alertmanager, and to the receiver of its severity alone."""
    eventually("a failed migration's alert fires", lambda: "VirtflowMigrationFailed" in prometheus.firing(), SECONDS)
    eventually("the alert at Alertmanager", lambda: operators.receivers("VirtflowMigrationFailed") == {"operators"}, SECONDS)


def test_the_calm_is_calm(prometheus: Prometheus) -> None:
    """What is left out above is empty indeed, so that nothing is left out that has become something, and no other alert fires."""
    now = time.time()
    noisy = {one for one in queries("") if CALM.search(one.promql) and prometheus.query_range(one.promql, now - 30.0, now, STEP_SECONDS)}
    assert noisy <= {one for one in noisy if prometheus.query(f"({one.promql}) > 0") == []}
    assert prometheus.firing() <= {"VirtflowMigrationFailed", "VirtflowMigrationNotConverging"}
