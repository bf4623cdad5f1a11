"""Parts of the pipeline end and come back; nobody lends a hand, what is lost is counted, and no scrape shows anything twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.support.lab import Guest, Lab, await_true
from tests.support.lab_pipeline import INTERVAL_SECONDS, Pipeline, Service
from tests.support.lab_scrape import Scrape, Watch, fetch
from tests.support.lab_tap import Tap

VMS = 3
RING_ROUNDS = 5
OUTAGE_SECONDS = 30.0
THREE_INTERVALS = 3 * INTERVAL_SECONDS
RECOVERY_SECONDS = 120.0


@pytest.fixture(scope="module")
def guests(lab: Lab) -> list[list[Guest]]:
    """Some VMs on each node, by node."""
    return [node.load_paused(VMS, node.name) for node in lab.nodes]


@pytest.fixture(scope="module")
def pipeline(lab: Lab, guests: list[list[Guest]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The pipeline, with a ring that is shorter than the outage so that rounds must be dropped."""
    settings = {"VIRTFLOW_PRODUCER_RING_ROUNDS": str(RING_ROUNDS)}
    with Pipeline(lab, tmp_path_factory.mktemp("pipeline"), settings) as pipeline:
        pipeline.await_scrape(lambda seen: all_fresh(seen, guests), "every VM is shown")
        yield pipeline


def all_fresh(seen: Scrape, guests: list[list[Guest]]) -> bool:
    """Whether every VM is there with a sample of the last two intervals."""
    ages = [seen.value("vm_sample_age_seconds", uuid=guest.uuid) for of_node in guests for guest in of_node]
    return all(age is not None and age <= 2 * INTERVAL_SECONDS for age in ages)


def await_ready(address: str) -> None:
    """Wait until the service at ``address`` calls itself ready."""

    def ready() -> bool:
        try:
            fetch(f"http://{address}/readyz")
        except OSError:
            return False
        return True

    await_true(ready, RECOVERY_SECONDS, f"http://{address}/readyz answers 200")


def await_recovery(pipeline: Pipeline, watch: Watch, guests: list[list[Guest]]) -> None:
    """Wait until every VM is fresh again by a sample that was taken from now on, and see it twice."""
    back = time.time()

    def sampled_since(seen: Scrape) -> bool:
        ages = [seen.value("vm_sample_age_seconds", uuid=guest.uuid) for of_node in guests for guest in of_node]
        return all(age is not None and seen.time - age > back for age in ages) and all_fresh(seen, guests)

    pipeline.await_scrape(sampled_since, "every VM is fresh again", RECOVERY_SECONDS)
    watch.await_scrapes(2)


def assert_no_gap(watch: Watch, guests: list[Guest], cause_seconds: float) -> None:
    """No VM was missing for more than three intervals beyond the cause's own time."""
    for guest in guests:
        assert watch.longest_gap("vm_state", uuid=guest.uuid) <= THREE_INTERVALS + cause_seconds, guest.name


def test_a_restarted_libvirtd_costs_only_its_own_node_a_moment(lab: Lab, pipeline: Pipeline, guests: list[list[Guest]]) -> None:
    """The producer reconnects by itself, each of its two connections once; the other node's VMs never notice."""
    with Watch(pipeline.address) as watch:
        watch.await_scrapes(2)
        before = watch.scrapes[-1].value("virtflow_node_reconnects_total", node="node1")
        start = time.monotonic()
        lab.nodes[0].restart_libvirtd()
        cause = time.monotonic() - start
        assert before is not None
        pipeline.await_scrape(
            lambda seen: seen.value("virtflow_node_reconnects_total", node="node1") == before + 2,
            "both connections are open again",
            RECOVERY_SECONDS,
        )
        await_recovery(pipeline, watch, guests)
    assert watch.scrapes[-1].value("virtflow_node_reconnects_total", node="node1") == before + 2
    assert_no_gap(watch, guests[0], cause)
    assert_no_gap(watch, guests[1], 0.0)


def test_a_stopped_broker_costs_the_oldest_rounds_and_they_are_counted(pipeline: Pipeline, guests: list[list[Guest]]) -> None:
    """Sampling goes on without the broker; the ring's rounds arrive afterwards, and each one missing is counted."""
    with Watch(pipeline.address) as watch, Tap(pipeline.broker.address) as tap:
        watch.await_scrapes(2)
        rounds = watch.scrapes[-1].value("virtflow_node_rounds_total", node="node1")
        start = time.monotonic()
        pipeline.broker.stop()
        await_true(lambda: time.monotonic() - start >= OUTAGE_SECONDS, OUTAGE_SECONDS + 1, "the time without broker")
        assert fetch(f"http://{pipeline.address}/healthz")
        pipeline.broker.start()
        cause = time.monotonic() - start
        await_recovery(pipeline, watch, guests)
        last = watch.scrapes[-1]
        assert rounds is not None
        for producer in pipeline.producers:
            sampled = last.value("virtflow_node_rounds_total", node=producer.name)
            assert sampled is not None
            assert sampled - rounds >= OUTAGE_SECONDS / INTERVAL_SECONDS - 2, "sampling went on"
            pipeline.await_scrape(
                partial(all_counted, tap=tap, node=producer.name),
                "each missing round is counted as dropped, and no other",
                RECOVERY_SECONDS,
            )
            assert tap.missing_rounds(producer.name) >= OUTAGE_SECONDS / INTERVAL_SECONDS - RING_ROUNDS - 5
    assert_no_gap(watch, [guest for of_node in guests for guest in of_node], cause)


def all_counted(seen: Scrape, tap: Tap, node: str) -> bool:
    """Whether the node has counted just those rounds as dropped that never came."""
    drops = [value for (name, labels), value in seen.series.items() if name == "virtflow_node_drops_total" and ("node", node) in labels]
    return sum(drops) == tap.missing_rounds(node)


def test_killed_processors_take_up_where_they_were(pipeline: Pipeline, guests: list[list[Guest]]) -> None:
    """SIGKILL and a start by the service manager: the VMs are fresh again, no counter falls, nothing comes twice."""
    with Watch(pipeline.address) as watch:
        watch.await_scrapes(2)
        cause = down(pipeline.processors, pipeline.processors_address, kill=True)
        await_recovery(pipeline, watch, guests)
    for guest in (guest for of_node in guests for guest in of_node):
        assert watch.drops("vm_cpu_seconds_total", uuid=guest.uuid) == 0
    assert_no_gap(watch, [guest for of_node in guests for guest in of_node], cause)


def test_a_restarted_exporter_has_every_vm_in_its_first_ready_scrape(pipeline: Pipeline, guests: list[list[Guest]]) -> None:
    """It reads back before it calls itself ready, so a restart leaves no hole in a graph."""
    with Watch(pipeline.address) as watch:
        watch.await_scrapes(2)
        cause = down(pipeline.exporter, pipeline.address, kill=False)
        assert pipeline.scrape().uuids() == {guest.uuid for of_node in guests for guest in of_node}
        await_recovery(pipeline, watch, guests)
    assert_no_gap(watch, [guest for of_node in guests for guest in of_node], cause)


def test_a_killed_producer_starts_a_new_run_that_is_newer(pipeline: Pipeline, guests: list[list[Guest]]) -> None:
    """The new run's rounds begin at 0 and are taken as newer than the old run's; the other node's VMs never notice."""
    with Watch(pipeline.address) as watch:
        watch.await_scrapes(2)
        start = time.monotonic()
        pipeline.producers[0].kill()
        pipeline.producers[0].start()
        pipeline.await_scrape(
            lambda seen: (seen.value("virtflow_node_rounds_total", node="node1") or 1e9) < 5, "rounds of the new run", RECOVERY_SECONDS
        )
        cause = time.monotonic() - start
        await_recovery(pipeline, watch, guests)
    assert_no_gap(watch, guests[0], cause)
    assert_no_gap(watch, guests[1], 0.0)


def down(service: Service, address: str, *, kill: bool) -> float:
    """End a service and start it again; the seconds until it is ready."""
    start = time.monotonic()
    if kill:
        service.kill()
    else:
        assert service.stop() == 0
    service.start()
    await_ready(address)
    return time.monotonic() - start
