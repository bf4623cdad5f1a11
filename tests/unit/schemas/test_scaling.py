"""The adapter's names: the rule, and what is listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from virtflow.schemas.catalogue.metrics import BY_NAME, METRICS
from virtflow.schemas.catalogue.scaling import BY_SCALING_NAME, COMBINED, SCALING_METRICS, VM_LABELS, scaling_name
from virtflow.schemas.catalogue.types import Group, Type

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ("vm_cpu_seconds_total", "vm_cpu_cores"),
        ("vm_cpu_user_seconds_total", "vm_cpu_user_cores"),
        ("vm_vcpu_delay_seconds_total", "vm_vcpu_delay_cores"),
        ("vm_vcpu_kvm_exits_total", "vm_vcpu_kvm_exits_per_second"),
        ("vm_network_receive_bytes_total", "vm_network_receive_bytes_per_second"),
        ("vm_block_read_requests_total", "vm_block_read_requests_per_second"),
        ("vm_block_read_seconds_total", "vm_block_read_seconds_per_second"),
        ("vm_memory_rss_bytes", "vm_memory_rss_bytes"),
        ("vm_guest_load1", "vm_guest_load1"),
    ],
)
def test_the_rule(row: str, name: str) -> None:
    assert scaling_name(BY_NAME[row]) == name
    assert BY_SCALING_NAME[name].add == (BY_NAME[row],)


def test_names_are_different_and_fit_into_a_path() -> None:
    assert len(BY_SCALING_NAME) == len(SCALING_METRICS) > 60
    assert all(re.fullmatch(r"vm_[a-z0-9_]+", name) for name in BY_SCALING_NAME)


def test_what_has_no_sum_is_left_out() -> None:
    """States, times and texts; migrations, nodes and services."""
    left = {"vm_state", "vm_state_reason", "vm_vcpu_state", "vm_info", "vm_guest_memory_updated_timestamp_seconds", "vm_guest_info"}
    assert not left & BY_SCALING_NAME.keys()
    assert {row.group for metric in SCALING_METRICS for row in metric.add} == {
        Group.CORE,
        Group.HYPERVISOR,
        Group.KVM,
        Group.GUEST,
        Group.VM,
    }


def test_every_counter_of_a_vm_has_its_rate() -> None:
    counters = [row for row in METRICS if row.of_vm and row.type is Type.COUNTER and row.group is not Group.MIGRATION]
    assert counters
    assert all(scaling_name(row) in BY_SCALING_NAME for row in counters)


def test_combined_metrics_keep_the_labels_that_all_of_their_parts_have() -> None:
    kept = {metric.name: set.intersection(*(set(row.labels) for row in metric.add + metric.subtract + metric.per)) for metric in COMBINED}
    assert {metric.name: set(metric.labels) for metric in COMBINED} == kept
    assert kept["vm_network_bytes_per_second"] == {"device"}
    assert kept["vm_cpu_steal_ratio"] == set()


def test_no_label_of_a_series_hides_one_of_the_vm() -> None:
    assert not [metric.name for metric in SCALING_METRICS if set(metric.labels) & set(VM_LABELS)]


def test_the_ratios_are_those_of_the_recording_rules() -> None:
    rules = (ROOT / "deploy" / "prometheus" / "rules.yml").read_text()
    assert "rate(vm_cpu_seconds_total[1m]) / (vm_vcpus_current > 0)" in rules
    assert "1 - vm_guest_memory_usable_bytes / (vm_guest_memory_total_bytes > 0)" in rules
