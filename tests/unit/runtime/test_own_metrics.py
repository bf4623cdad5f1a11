"""A service's own metrics have exactly the catalogue's names, types and help."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from virtflow.runtime.own_metrics import OwnMetrics, rows_of
from virtflow.schemas.catalogue.types import Type


@pytest.mark.parametrize("service", ["exporter", "processors"])
def test_every_row_of_the_service_is_there_under_its_own_name(service: str) -> None:
    """No ``_created`` series, no doubled ``_total``, nothing of other services."""
    metrics = OwnMetrics(service)
    for row in rows_of(service):
        metric = metrics.counter(row.name) if row.type is Type.COUNTER else metrics.gauge(row.name)
        if row.labels:
            metric.labels(**dict.fromkeys(row.labels, "x")).inc()
        else:
            metric.inc()
    text = metrics.render().decode()
    expected = {(row.name, row.type.value, row.help) for row in rows_of(service)}
    lines = text.splitlines()
    helps = dict(line.removeprefix("# HELP ").split(" ", 1) for line in lines if line.startswith("# HELP "))
    types = dict(line.removeprefix("# TYPE ").split(" ", 1) for line in lines if line.startswith("# TYPE "))
    assert {(name, types[name], helps[name]) for name in helps} == expected
    samples = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    assert samples == {row.name for row in rows_of(service)}


def test_a_name_of_another_service_is_refused() -> None:
    """A wrong name shows when the service is built."""
    with pytest.raises(LookupError):
        OwnMetrics("exporter").counter("virtflow_processors_messages_total")


def test_only_the_wanted_names_are_rendered() -> None:
    """Selection by name, down to nothing."""
    metrics = OwnMetrics("exporter")
    metrics.counter("virtflow_exporter_scrapes_total").inc(3)
    text = metrics.render({"virtflow_exporter_scrapes_total", "vm_state"}).decode()
    assert text.splitlines()[1:] == ["# TYPE virtflow_exporter_scrapes_total counter", "virtflow_exporter_scrapes_total 3.0"]
    assert metrics.render({"vm_state"}) == b""


def test_a_value_can_be_read_back() -> None:
    """Labelled and not, counted and not."""
    metrics = OwnMetrics("exporter")
    metrics.counter("virtflow_exporter_records_total").labels(topic="vm.metrics").inc(2)
    assert metrics.value("virtflow_exporter_records_total", "vm.metrics") == 2.0
    assert metrics.value("virtflow_exporter_records_total", "vm.nodes") == 0.0
    assert metrics.value("virtflow_exporter_scrapes_total") == 0.0
