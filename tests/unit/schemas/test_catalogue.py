"""The catalogue's rows keep the naming rules, whatever is added."""

from __future__ import annotations

import re

import pytest

from virtflow.schemas.catalogue.guest_agent import INFO_LABELS
from virtflow.schemas.catalogue.metrics import BY_NAME, IGNORED_FIELDS, INVENTORY_LABELS, METRICS, of_libvirt
from virtflow.schemas.catalogue.types import Conversion, Derived, Group, Guest, Health, Job, Libvirt, Metric, Own, Scope, Split, Tier, Type
from virtflow.schemas.records import GuestAddressMetrics, GuestFilesystemMetrics, GuestMetrics, VmInventory, VmMetrics

ROWS = [pytest.param(metric, id=metric.name) for metric in METRICS]


@pytest.mark.parametrize("metric", ROWS)
def test_name_follows_the_rules(metric: Metric) -> None:
    """Prefix by group, ``_total`` for counters only, the unit last."""
    assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name)
    assert metric.name.startswith("vm_" if metric.of_vm else "virtflow_")
    assert metric.name.endswith("_total") == (metric.type is Type.COUNTER)
    if metric.unit:
        stem = metric.name.removesuffix("_total")
        assert stem.endswith(f"_{metric.unit}")
    for word in ("milliseconds", "kib", "percent", "_ns", "_ms"):
        assert word not in metric.name


@pytest.mark.parametrize("metric", ROWS)
def test_help_is_a_sentence(metric: Metric) -> None:
    """Help says what the value is, in one sentence on one line."""
    assert metric.help.endswith(".")
    assert "\n" not in metric.help
    assert metric.help[0].isupper()


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(METRICS)


def test_every_group_has_rows() -> None:
    assert {metric.group for metric in METRICS} == set(Group)


@pytest.mark.parametrize("metric", ROWS)
def test_labels_fit_the_group(metric: Metric) -> None:
    """A VM's counter never carries the node: a VM that migrates keeps its series."""
    assert not {"uuid", "name"} & set(metric.labels)
    if metric.group is Group.NODE:
        assert metric.labels[0] == "node"
    elif metric.group is not Group.PIPELINE and metric.name != "vm_info":
        assert "node" not in metric.labels


@pytest.mark.parametrize("metric", ROWS)
def test_source_fits_the_group(metric: Metric) -> None:
    """A VM's value comes from libvirt, from its agent, or is derived; a node's travels in its health; a service counts its own."""
    match metric.group:
        case Group.NODE:
            assert isinstance(metric.source, Health | Derived)
        case Group.PIPELINE:
            assert isinstance(metric.source, Own)
        case _:
            assert isinstance(metric.source, Libvirt | Split | Job | Guest | Derived)


@pytest.mark.parametrize(
    ("field", "scope", "attribute", "tier"),
    [
        ("cpu.time", Scope.VM, "cpu_time", Tier.MONITOR),
        ("state.reason", Scope.VM, "state_reason", Tier.SAFE),
        ("net.count", Scope.VM, "net_count", Tier.SAFE),
        ("net.N.rx.bytes", Scope.NETWORK, "rx_bytes", Tier.SAFE),
        ("block.N.fl.times", Scope.BLOCK, "fl_times", Tier.MONITOR),
        ("vcpu.N.delay", Scope.VCPU, "delay", Tier.MONITOR),
        ("vcpu.N.exits.sum", Scope.KVM, "exits_sum", Tier.MONITOR),
        ("balloon.last-update", Scope.VM, "balloon_last_update", Tier.MONITOR),
    ],
)
def test_libvirt_field_is_read(field: str, scope: Scope, attribute: str, tier: Tier) -> None:
    """Scope, attribute and tier follow from libvirt's own name."""
    source = Libvirt(field)
    assert (source.scope, source.attribute, source.tier) == (scope, attribute, tier)


def test_seconds_are_doubles_and_bytes_are_longs() -> None:
    """The record's type follows from the conversion."""
    fields = VmMetrics.__annotations__ | VmMetrics.__mro__[1].__annotations__
    for metric, source in of_libvirt(Scope.VM):
        assert fields[metric.field] == ("float" if source.conversion is Conversion.NANOSECONDS else "int")


def test_info_labels_are_inventory_fields() -> None:
    assert set(INVENTORY_LABELS) <= set(VmInventory.__struct_fields__)
    assert set(INFO_LABELS) <= set(GuestMetrics.__struct_fields__)


@pytest.mark.parametrize("metric", [row for row in ROWS if isinstance(row.values[0].source, Guest)])  # type: ignore[union-attr]
def test_what_the_agent_tells_has_a_field(metric: Metric) -> None:
    """A row names a field of the record or of the list it is told in."""
    assert isinstance(metric.source, Guest)
    listed = {"filesystems": GuestFilesystemMetrics, "addresses": GuestAddressMetrics, "": GuestMetrics}[metric.source.each]
    assert metric.source.attribute in {*listed.__struct_fields__, ""}
    assert metric.source.attribute or metric.labels


def test_no_field_is_both_known_and_passed_by() -> None:
    known = {source.field for scope in Scope for _, source in of_libvirt(scope)}
    assert not known & set(IGNORED_FIELDS)


def test_values_of_one_family_have_a_name_each() -> None:
    """A ``Split`` row's fields are columns and fields of records of their own, and the row's label is what tells them apart."""
    rows = [(row, source) for scope in Scope for row, source in of_libvirt(scope)]
    assert len({row.column for row, _ in rows}) == len(rows)
    for metric in METRICS:
        if isinstance(metric.source, Split):
            mine = [row for row, _ in rows if row.name == metric.name]
            assert [row.variant for row in mine] == [(metric.labels[-1], word) for word, _ in metric.source.fields]
            assert {row.labels for row in mine} == {metric.labels}
    assert {row.column for row, _ in rows if row.name == "vm_cpu_haltpoll_seconds_total"} == {
        "vm_cpu_haltpoll_success_seconds_total",
        "vm_cpu_haltpoll_fail_seconds_total",
    }
