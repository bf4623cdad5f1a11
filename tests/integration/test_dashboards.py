"""Every query of every dashboard, asked of a real Prometheus that scrapes the pipeline while simulated VMs work and migrate."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.broker import DIES_WITH_US, Broker
from tests.support.command import PROGRAM, environment
from tests.support.exporter_process import ExporterProcess
from tests.support.history import Writer, writing
from tests.support.processors import Bus, Processors, eventually
from tests.support.prometheus import Prometheus

DASHBOARDS = sorted((Path(__file__).resolve().parents[2] / "deploy" / "grafana").glob("*.json"))
SECONDS = 150.0
"""Each leg of a simulated VM's tour is a minute, and the tours begin at different times: all that can happen has happened by then."""
STEP_SECONDS = 1.0
LOOK_SECONDS = 2.0
CALM = re.compile(
    r"virtflow_node_up\{[^}]*\} == 0"
    r"|virtflow_node_drops_total|node:drops:rate5m|virtflow_processors_dead_letters_total"
    r"|virtflow_(?:processors|history)_replaced_offsets_total|virtflow_processors_missing_records_total"
    r"|virtflow_processors_node_undecodable_total|virtflow_exporter_skipped_records_total"
    r"|virtflow_node_vms_(?:skipped|not_probed)|virtflow_node_journal_events"
    r"|vm_conflict == 1"
    r"|vm_guest_agent_info\{uuid"
)
"""What is empty in calm: nobody silent, nothing dropped, no VM stuck or claimed twice, nothing wrong with the VM that is looked at,
and no journal, which only a real producer has."""
VM = "vm_guest_load1 and on (uuid) vm_guest_ip_address_info and on (uuid) vm_guest_memory_total_bytes and on (uuid) vm_state == 1"
"""One that runs, whose guest's agent answers, and that stays where it is."""


class Query(NamedTuple):
    """What a panel or a variable asks."""

    place: str
    promql: str


def queries(uuid: str) -> list[Query]:
    """All of them, with Grafana's variables filled in; a fallback to 0, which is never empty, is left out."""
    found = []
    for file in DASHBOARDS:
        board = json.loads(file.read_text())
        asked = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel.get("targets", [])]
        asked += [(f"${one['name']}", inner(one["query"]["query"])) for one in board["templating"]["list"]]
        found += [Query(f"{file.stem}: {title}", filled(promql, uuid)) for title, promql in asked]
    return found


def inner(query: str) -> str:
    """What Grafana's function of a variable looks at."""
    return re.sub(r"^(?:label_values|query_result)\((.+?)(?:, *\w+)?\)$", r"\1", query)


def filled(promql: str, uuid: str) -> str:
    """With the variables' values, and without its fallback."""
    for name, value in (("$node", ".*"), ("$uuid", uuid), ("$__rate_interval", "15s")):
        promql = promql.replace(name, value)
    return promql.replace(" or vector(0)", "")


@contextmanager
def simulator(bus: Bus, log: Path) -> Iterator[None]:
    """Simulated hypervisors whose VMs migrate."""
    own = {
        "VIRTFLOW_SIMULATE_NODES": "3",
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


@pytest.fixture(scope="module")
def prometheus(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
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
        targets = {
            "virtflow": [f"127.0.0.1:{exporter.port}"],
            "virtflow-processors": [processors.address],
            "virtflow-history": [f"127.0.0.1:{history.port}"],
        }
        yield stack.enter_context(Prometheus(folder / "prometheus", targets))


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


def test_the_calm_is_calm(prometheus: Prometheus) -> None:
    """What is left out above is empty indeed, so that nothing is left out that has become something, and no other alert fires."""
    now = time.time()
    noisy = {one for one in queries("") if CALM.search(one.promql) and prometheus.query_range(one.promql, now - 30.0, now, STEP_SECONDS)}
    assert noisy <= {one for one in noisy if prometheus.query(f"({one.promql}) > 0") == []}
    assert prometheus.firing() <= {"VirtflowMigrationFailed", "VirtflowMigrationNotConverging"}
