"""Fault 16: VM names and titles that libvirt accepts and nobody should trust."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.broker import Broker
from tests.support.exporter_process import ExporterProcess
from tests.support.figures import figure
from tests.support.prometheus import check_metrics
from tests.support.served_exporter import exporter_of, get, served
from tests.support.topic_writer import TopicWriter
from tests.support.vm_samples import inventory, sample, uuid
from virtflow.schemas.topics import INVENTORY, METRICS

LABEL_BYTES = 1_024

NAMES = (
    "tab\there",
    'say "quote"',
    "back\\slash",
    "{braces}",
    "%s%n%d",
    "-rf",
    "\u202egnitirw",
    "next\u0085line",
    "line\u2028separator",
    uuid(1),
    "ends in a backslash\\",
    'closed"} 1\nvm_state{name="forged',
    "\x1b[31mred",
    "emoji \U0001f4a3",
    "combining e\u0301\u0301\u0301",
    "z" * 255,
)
"""What libvirt accepts as a name (measured), and what an encoder may trip over."""

LARGEST_TITLE = "t" * 900_000
"""What fits into a message; the producer sends far less of a title of 3.9 MB."""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        yield running


def names_by_uuid(text: str) -> dict[str, str]:
    samples = [one for family in text_string_to_metric_families(text) if family.name == "vm_state" for one in family.samples]
    return {one.labels["uuid"]: one.labels["name"] for one in samples}


def test_the_scrape_parses_in_full(broker: Broker, tmp_path: Path) -> None:
    """Every VM is there under its own name; titles are bounded; promtool has nothing to say."""
    writer = TopicWriter(broker.address)
    expected = {uuid(number): name for number, name in enumerate(NAMES, 100)}
    for number, name in enumerate(NAMES, 100):
        writer.write(METRICS, sample(number, 1, name=name, interval=600.0))
        writer.write(INVENTORY, inventory(number, name=name, title=name, project=name, flavor=name))
    writer.write(METRICS, sample(1, 1, interval=600.0))
    writer.write(INVENTORY, inventory(1, title=LARGEST_TITLE))
    with ExporterProcess(tmp_path, broker.address, writer.prefix) as exporter:
        exporter.wait_until_ready()
        exporter.wait_until(lambda: exporter.value("vm_state", uuid=uuid(1)) is not None, 20.0, "the VM with the title")
        text = exporter.get()
        check_metrics(text)
        assert names_by_uuid(text) == expected | {uuid(1): "vm-1"}
        (title,) = [dict(labels)["title"] for (name, labels) in exporter.series() if name == "vm_info" and ("uuid", uuid(1)) in labels]
        assert len(title.encode()) == LABEL_BYTES
        assert LARGEST_TITLE.startswith(title.partition("…")[0])
        assert exporter.value("virtflow_exporter_vms") == len(expected) + 1
        figure(16, "hostile names, all shown as they are", len(expected))
        assert exporter.status("/") == 200


def test_what_has_no_place_in_utf_8_costs_nobody_anything() -> None:
    """A lone surrogate, as one host alone may meet it: replaced, the other VMs untouched."""
    exporter = exporter_of()
    exporter.take([sample(1), sample(2, name="\ud800bad\udfff"), inventory(2, title="\ud800"), sample(3)])
    with served(exporter) as url:
        text = get(f"{url}/metrics")[2].decode()
    check_metrics(text)
    assert names_by_uuid(text) == {uuid(1): "vm-1", uuid(2): "\ufffdbad\ufffd", uuid(3): "vm-3"}
