"""One moment, four faces: the page, the API, `virtflow top` and `/metrics` have the same values of the same VMs and nodes."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import pytest

from tests.support.command import virtflow
from tests.support.fleet_samples import HOSTILE, busy, described, lasting, node_of
from tests.support.served_exporter import exporter_of, get, served
from tests.support.vm_samples import INTERVAL, status, uuid
from virtflow.exporter.page import columns
from virtflow.exporter.page.formats import shown
from virtflow.exporter.page.vm_page import CHARTS, FACTS, value_at

NUMBERS: Final = (3, 7, 39, 51)
"""VMs of two nodes; VM 7 has a name that is no HTML."""
AGES: Final = re.compile("age|elapsed")
SAMPLE: Final = re.compile(r"^(\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)


class Moment(NamedTuple):
    """An exporter whose fleet stands still, and its ``/metrics`` one sampling interval before."""

    url: str
    before: str

    def api(self, path: str) -> Any:  # noqa: ANN401, JSON
        return json.loads(get(f"{self.url}/api/v1/{path}")[2])

    def text(self, path: str) -> str:
        return get(f"{self.url}{path}")[2].decode()


def ready(vms: list[dict[str, Any]], number: int) -> bool:
    """Whether all VMs have been looked at in a round."""
    known = [vm for vm in vms if vm["collected"] == busy(3, number).collected and (number == 0 or vm["cpu_cores"] is not None)]
    return len(known) == len(NUMBERS)


@pytest.fixture(scope="module")
def moment() -> Iterator[Moment]:
    exporter = exporter_of()

    def round_of(number: int) -> list[Any]:
        vms = [busy(n, number, **({"name": HOSTILE} if n == 7 else {})) for n in NUMBERS]
        return lasting([*(status(node_of(n), number) for n in NUMBERS), *vms])

    exporter.take([described(n) for n in NUMBERS])
    with served(exporter) as url:
        seen = Moment(url, "")
        for number in (0, 1):
            exporter.take(round_of(number))
            # A VM is listed once it has been looked at, and has rates once that was so twice.
            while not ready(seen.api("vms")["items"], number):
                pass
            if number == 0:
                seen = Moment(url, get(f"{url}/metrics")[2].decode())
        yield seen


def total(text: str, name: str, number: int) -> float:
    """The sum of a metric over a VM's devices, as Prometheus would read it."""
    found = [float(value) for metric, labels, value in SAMPLE.findall(text) if metric == name and f'uuid="{uuid(number)}"' in labels]
    assert found, name
    return sum(found)


RATES: Final = (
    ("cpu_cores", ("vm_cpu_seconds_total",)),
    ("steal_cores", ("vm_vcpu_delay_seconds_total",)),
    ("disk_read_bytes_per_second", ("vm_block_read_bytes_total",)),
    ("disk_write_bytes_per_second", ("vm_block_write_bytes_total",)),
    ("disk_read_requests_per_second", ("vm_block_read_requests_total",)),
    ("disk_write_requests_per_second", ("vm_block_write_requests_total",)),
    ("network_receive_bytes_per_second", ("vm_network_receive_bytes_total",)),
    ("network_transmit_bytes_per_second", ("vm_network_transmit_bytes_total",)),
    ("network_receive_packets_per_second", ("vm_network_receive_packets_total",)),
    ("network_transmit_packets_per_second", ("vm_network_transmit_packets_total",)),
    ("network_dropped_packets_per_second", ("vm_network_receive_packets_dropped_total", "vm_network_transmit_packets_dropped_total")),
)
"""A field of the API, and the counters whose growth per second it is."""
SUMS: Final = (
    "vms",
    "nodes",
    "states",
    "cpu_cores",
    "memory_used_bytes",
    "disk_read_bytes_per_second",
    "network_receive_bytes_per_second",
    "top",
)
GAUGES: Final = (
    ("memory_used_bytes", "vm_memory_rss_bytes"),
    ("memory_bytes", "vm_memory_balloon_current_bytes"),
    ("vcpus", "vm_vcpus_current"),
)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_api_has_the_values_of_metrics(moment: Moment, number: int) -> None:
    """Gauges as they are, of counters the growth between the two scrapes, latencies the seconds by the requests."""
    vm, now = moment.api(f"vms/{uuid(number)}"), moment.text("/metrics")

    def growth(*names: str) -> float:
        return sum(total(now, name, number) - total(moment.before, name, number) for name in names)

    for field, name in GAUGES:
        assert vm[field] == total(now, name, number), field
    for field, counters in RATES:
        assert vm[field] == pytest.approx(growth(*counters) / INTERVAL, abs=1e-9), field
    assert vm["disk_read_latency_seconds"] == pytest.approx(growth("vm_block_read_seconds_total") / growth("vm_block_read_requests_total"))
    assert vm["disk_write_latency_seconds"] == pytest.approx(
        growth("vm_block_write_seconds_total") / growth("vm_block_write_requests_total")
    )


@pytest.mark.parametrize("number", NUMBERS)
def test_the_page_has_the_values_of_the_api(moment: Moment, number: int) -> None:
    """Every fact and every value beside a chart; every cell of the row in the list; the name as it is."""
    vm, text = moment.api(f"vms/{uuid(number)}"), moment.text(f"/vms/{uuid(number)}")
    said = {field: html.unescape(value) for field, value in re.findall(r'data-value="([\w.]+)"[^>]*>([^<]*)<', text)}
    for path, _, form in [*FACTS, *((now, "", form) for _, _, form, now in CHARTS)]:
        if not AGES.search(path):
            assert said[path] == shown(form, value_at(vm, path)), path
    assert html.unescape(re.findall(r"<h1><bdi>(.*?)</bdi>", text)[0]) == vm["name"]
    row = re.findall(rf'<tr data-key="{uuid(number)}"[^>]*>(.*?)</tr>', moment.text("/vms"))[0]
    cells = [html.unescape(re.sub(r"<svg.*?</svg>|<[^>]+>", "", cell)) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]
    for column, cell in zip(columns.VMS, cells, strict=True):
        form = {"bar": "percent", "state": "word", "vm": "text", "node": "text", "project": "text"}.get(column.format, column.format)
        if column.format != "spark" and not AGES.search(column.field):
            assert cell == shown(form, vm[column.field]), column.field


def test_top_has_the_values_of_the_api(moment: Moment) -> None:
    """As JSON field by field, and in the table for people the same digits as the page."""
    api = {vm["uuid"]: vm for vm in moment.api("vms")["items"]}
    told = json.loads(virtflow("top", "--once", "--json", "--url", moment.url, "--sort", "name").stdout)
    assert {vm["uuid"] for vm in told["vms"]["items"]} == set(api)
    for vm in told["vms"]["items"]:
        assert {field: vm[field] for field in vm if not AGES.search(field) and field != "history"} == {
            field: value for field, value in api[vm["uuid"]].items() if not AGES.search(field) and field != "history"
        }
    assert {field: told["fleet"][field] for field in SUMS} == {field: moment.api("fleet")[field] for field in SUMS}
    lines = virtflow("top", "--once", "--url", moment.url, "--sort", "name").stdout
    for vm in api.values():
        assert re.search(rf"{re.escape(vm['name'])} +running +{re.escape(shown('cores', vm['cpu_cores']))} ", lines), vm["name"]


def test_a_node_is_the_sum_of_its_vms(moment: Moment) -> None:
    """On its page, in the API and from the metrics."""
    now = moment.text("/metrics")
    for node, numbers in (("node-1", (3, 7, 39)), ("node-2", (51,))):
        row, text = moment.api(f"nodes/{node}"), moment.text(f"/nodes/{node}")
        cores = sum(total(now, "vm_cpu_seconds_total", n) - total(moment.before, "vm_cpu_seconds_total", n) for n in numbers) / INTERVAL
        assert row["cpu_cores"] == pytest.approx(cores)
        assert row["memory_used_bytes"] == sum(total(now, "vm_memory_rss_bytes", n) for n in numbers)
        assert row["vms"] == len(numbers)
        for field, form in (("cpu_cores", "cores"), ("memory_used_bytes", "size"), ("vms", "count")):
            assert f'data-value="{field}" data-format="{form}">{shown(form, row[field])}<' in text
