"""The whole expected exposition of a small fleet, word for word. ``VIRTFLOW_WRITE_GOLDEN=1`` writes it again, to be read before it is committed."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.prometheus import check_metrics
from tests.support.vm_samples import WALL, everything, fleet, inventory, sample, status, text_of
from virtflow.exporter.fleet import Fleet
from virtflow.schemas.catalogue.metrics import METRICS
from virtflow.schemas.catalogue.types import Group, Type

GOLDEN = Path(__file__).with_name("data") / "exposition.prom"
NAN = float("nan")


def small_fleet() -> Fleet:
    """A VM with everything, one without its monitor groups, one that has vanished, a node that is up and one that is silent."""
    vms = fleet()
    vms.take_metrics(sample(3), 70.0)
    vms.take_node(status("node-silent"), 65.0)
    vms.take_metrics(everything(), 100.0)
    vms.take_inventory(inventory(), 100.0)
    vms.take_metrics(sample(2, monitor_collected=WALL), 90.0)
    bare = sample(
        2, 1, state=3, state_reason=5, vcpus=[], blocks=[], monitor_collected=NAN, memory_rss_bytes=-1, guest_memory_free_bytes=-1
    )
    vms.take_metrics(bare, 100.0)
    vms.take_node(status(), 100.0)
    return vms


def test_the_exposition_is_the_expected_one() -> None:
    """Every name, help, type, label and value, their order and their spelling."""
    text = text_of(small_fleet(), 101.0, WALL + 11.5)
    if os.environ.get("VIRTFLOW_WRITE_GOLDEN"):
        GOLDEN.write_text(text, "utf-8")
    assert text == GOLDEN.read_text("utf-8")


def test_prometheus_reads_the_expected_exposition() -> None:
    """With promtool and with the reference parser, every family under the catalogue's name, type and help."""
    text = GOLDEN.read_text("utf-8")
    check_metrics(text)
    rows = {row.name.removesuffix("_total") if row.type is Type.COUNTER else row.name: row for row in METRICS}
    families = list(text_string_to_metric_families(text))
    for family in families:
        row = rows[family.name]
        assert (family.type, family.documentation) == (row.type.value, row.help)
        for one in family.samples:
            first = ("uuid", "name") if row.of_vm else ()
            assert tuple(one.labels) == first + row.labels
    named = {family.name for family in families}
    assert named >= {name for name, row in rows.items() if row.group in {Group.CORE, Group.HYPERVISOR, Group.KVM, Group.GUEST, Group.VM}}
