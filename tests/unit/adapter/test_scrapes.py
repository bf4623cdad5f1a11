"""Samples from what scrapes have stored: each sample once, at its own time, and none that is too old."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Final

import pytest

from tests.support.vm_samples import WALL, uuid
from virtflow.adapter.prometheus.client import Series
from virtflow.adapter.prometheus.scrapes import Clock, samples_of, scraped_reader
from virtflow.adapter.prometheus.view import Directory, ScrapedFleet
from virtflow.adapter.samples.values import Value, value_of
from virtflow.adapter.samples.window import Sample
from virtflow.schemas.catalogue.scaling import BY_SCALING_NAME

INTERVAL: Final = 10.0
INTERVALS: Final = {"n1": INTERVAL, "n2": INTERVAL}
WINDOW: Final = 60.0


class Scrapes:
    """What an exporter showed of VM 1 at each scrape, and when its samples were taken; seconds since the first scrape."""

    def __init__(self) -> None:
        """Nothing was scraped."""
        self.points: dict[tuple[tuple[str, str], ...], list[tuple[float, str]]] = {}

    def add(self, at: float, taken: float, *, node: str = "n1", monitor: float | None = None, instance: str = "a", **rows: float) -> None:
        """A scrape that shows a sample; a row's device stands behind its name and two underscores."""
        shown = {"vm_sample_age_seconds": at - taken, "vm_monitor_age_seconds": at - (taken if monitor is None else monitor), **rows}
        for name, value in shown.items():
            metric, _, device = name.partition("__")
            self._point(at, value, __name__=metric, instance=instance, **({"device": device} if device else {}))
        self._point(at, 1.0, __name__="vm_info", node=node, instance=instance, platform="kubevirt")

    def _point(self, at: float, value: float, **labels: str) -> None:
        key = tuple(sorted({"uuid": uuid(1), **labels}.items()))
        self.points.setdefault(key, []).append((WALL + at, repr(value)))

    def samples(self, at: float, **intervals: float) -> Sequence[Sample]:
        """As they are seen at a time; the observer's clock says the same seconds."""
        series = [Series(dict(key), values) for key, values in self.points.items()]
        return samples_of(series, intervals or INTERVALS, Clock(at, WALL + at), WINDOW).get(uuid(1), ())

    def value(self, metric: str, at: float) -> Value | None:
        """The VM's value at a time."""
        return value_of(BY_SCALING_NAME[metric], self.samples(at), {}, at, lambda _: True, scraped_reader)


def even(*, scrapes: int = 8, every: float = 5.0, cores: float = 0.5) -> Scrapes:
    """Scrapes that are more frequent than samples, by an exporter whose answers take different times."""
    found = Scrapes()
    for number in range(scrapes):
        at = number * every
        taken = at // INTERVAL * INTERVAL
        found.add(at + 0.1 * (number % 3), taken, vm_cpu_seconds_total=100 + cores * taken, vm_vcpus_current=2)
    return found


def test_a_sample_is_there_once_however_often_it_was_scraped() -> None:
    samples = even().samples(35.0)
    assert [round(sample.record.collected - WALL) for sample in samples] == [0, 10, 20, 30]
    assert [sample.record.sequence for sample in samples] == [round(WALL / INTERVAL) + number for number in range(4)]


def test_a_rate_is_over_the_samples_own_times() -> None:
    """Whatever times the scrapes had."""
    value = even(every=7.0).value("vm_cpu_cores", 42.0 + 7.0)
    assert value is not None
    assert value.amount == pytest.approx(0.5)
    assert value.taken == pytest.approx(WALL + 40.0)
    ratio = even().value("vm_cpu_usage_ratio", 36.0)
    assert ratio is not None
    assert ratio.amount == pytest.approx(0.25)


@pytest.mark.parametrize(("at", "known"), [(59.0, True), (61.0, False)])
def test_a_sample_older_than_three_intervals_is_none(at: float, *, known: bool) -> None:
    """Although Prometheus has it, and although a counter that stands still could be taken for 0."""
    assert (even().value("vm_cpu_cores", at) is not None) is known
    assert (even().value("vm_vcpus_current", at) is not None) is known


def test_a_stale_sample_that_is_scraped_again_and_again_grows_old() -> None:
    """The exporter goes on showing it for a while: the scrapes are new, and the sample is not."""
    found = even()
    for at in range(40, 65, 5):
        found.add(at, 30.0, vm_cpu_seconds_total=115.0)
    assert found.value("vm_cpu_cores", 59.0) is not None
    assert found.value("vm_cpu_cores", 61.0) is None


def test_a_node_whose_clock_is_ahead_is_no_longer_alive_than_others() -> None:
    """Its samples seem to come from the future; the scrape that showed one first bounds its age."""
    found = Scrapes()
    for number in range(4):
        found.add(number * 10.0, number * 10.0 + 3600.0, vm_cpu_seconds_total=number)
    assert found.value("vm_cpu_cores", 40.0) is not None
    assert found.value("vm_cpu_cores", 61.0) is None


def test_a_migration_is_no_spike_and_no_gap() -> None:
    """The source's rate holds until the destination has two samples."""
    found = even(scrapes=6)
    found.add(30.0, 30.0, node="n2", vm_cpu_seconds_total=5000.0)
    value = found.value("vm_cpu_cores", 31.0)
    assert value is not None
    assert value.amount == pytest.approx(0.5)
    found.add(40.0, 40.0, node="n2", vm_cpu_seconds_total=5002.0)
    after = found.value("vm_cpu_cores", 41.0)
    assert after is not None
    assert after.amount == pytest.approx(0.2)


def test_of_two_exporters_the_later_one_adds_nothing() -> None:
    found = even(every=10.0, scrapes=4)
    for number in range(4):
        found.add(number * 10.0 + 2.0, (number - 1) * 10.0, instance="b", vm_cpu_seconds_total=100 + 0.5 * (number - 1) * 10.0)
    value = found.value("vm_cpu_cores", 33.0)
    assert value is not None
    assert value.amount == pytest.approx(0.5)
    assert len(found.samples(33.0)) == 4


def test_devices_are_told_apart_by_their_label_alone() -> None:
    """Not by those of the target."""
    found = Scrapes()
    for number in range(3):
        found.add(number * 10.0, number * 10.0, vm_block_read_bytes_total__vda=100.0 * number, vm_block_read_bytes_total__vdb=50.0 * number,
                  vm_block_write_bytes_total__vda=0.0, vm_block_write_bytes_total__vdb=0.0)  # fmt: skip
    value = found.value("vm_block_bytes_per_second", 21.0)
    assert value is not None
    assert value.amount == pytest.approx(15.0)


def test_a_sample_without_the_monitor_groups_says_so() -> None:
    """Their age goes on from the last one that had them."""
    found = Scrapes()
    found.add(0.0, 0.0)
    found.add(10.0, 10.0, monitor=0.0)
    assert [isnan(sample.record.monitor_collected) for sample in found.samples(11.0)] == [False, True]


@pytest.mark.parametrize("intervals", [{"n3": 10.0}, {"n1": float("nan")}])
def test_without_its_nodes_interval_a_vm_has_no_samples(intervals: dict[str, float]) -> None:
    assert not even().samples(35.0, **intervals)


def info(number: int, **labels: str) -> Series:
    """A VM's series of vm_info."""
    return Series({"__name__": "vm_info", "uuid": uuid(number), "name": f"vm-{number}", "node": "n1", **labels}, value=(WALL, "1"))


def test_the_directory_finds_vms_by_place_and_field() -> None:
    directory = Directory("project")
    directory.replace(
        [info(1, platform="kubevirt", namespace="shop", platform_name="web-1"), info(2, platform="openstack", project="shop")],
        {},
        frozenset(),
    )
    fleet = ScrapedFleet(directory, {})
    assert fleet.instance("shop", "web-1") == uuid(1)
    assert fleet.instance("shop", "") == fleet.instance("shop", "web-2") == ""
    assert list(fleet.plain("shop")) == [uuid(2)]
    assert list(fleet.plain("")) == []
    assert fleet.labels(uuid(2))["project"] == "shop"
    assert list(fleet.asked) == [uuid(1)]


def test_a_vm_that_is_missing_with_its_node_is_silent_and_another_one_has_gone() -> None:
    """So that a namespace's sum does not become smaller because nobody knows."""
    directory = Directory("project")
    both = [info(1, project="shop"), info(2, project="shop", node="n2")]
    directory.replace(both, {}, frozenset())
    directory.replace([], {}, frozenset({"n2"}))
    fleet = ScrapedFleet(directory, {})
    assert list(fleet.plain("shop")) == [uuid(2)]
    assert fleet.silent(uuid(2))
    assert not fleet.silent(uuid(1))
    directory.replace([], {}, frozenset())
    assert not list(fleet.plain("shop"))
