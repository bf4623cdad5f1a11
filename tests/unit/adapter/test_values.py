"""The value of a metric of a VM and of several."""

from __future__ import annotations

import pytest

from tests.support.vm_samples import INTERVAL, WALL, sample
from tests.support.vm_windows import at, counting
from virtflow.adapter.samples.series import reader_of
from virtflow.adapter.samples.values import Value, together, unheard, value_of
from virtflow.adapter.samples.window import Sample
from virtflow.adapter.selectors import EVERYTHING, selector_of
from virtflow.schemas.catalogue.scaling import BY_SCALING_NAME, SCALING_METRICS, ScalingMetric
from virtflow.schemas.fields import BlockMetrics, KvmMetrics, NetworkMetrics, VcpuMetrics
from virtflow.schemas.records import GuestFilesystemMetrics, GuestMetrics

NAN = float("nan")
OWN = {"uuid": "u", "name": "web-1", "namespace": "shop"}


def value(name: str, samples: list[Sample], selector: str = "") -> Value | None:
    wanted = selector_of(selector) if selector else EVERYTHING
    return value_of(BY_SCALING_NAME[name], samples, OWN, samples[-1].arrived, wanted.matches)


def amount(name: str, samples: list[Sample], selector: str = "") -> float | None:
    found = value(name, samples, selector)
    return None if found is None else found.amount


def disks(sequence: int, **written: int) -> Sample:
    blocks = [BlockMetrics(device=name, read_bytes_total=0, write_bytes_total=value) for name, value in written.items()]
    return at(sequence, blocks=blocks)


def test_a_gauge_is_as_it_is() -> None:
    assert value("vm_memory_rss_bytes", [at(3, memory_rss_bytes=4096)]) == Value(4096.0, WALL + 3 * INTERVAL)


def test_a_counter_is_its_rate_with_its_window() -> None:
    assert value("vm_cpu_cores", counting([0.0, 20.0, 30.0])) == Value(1.5, WALL + 2 * INTERVAL, 2 * INTERVAL)


def test_cpu_usage_is_a_share_of_the_virtual_cpus() -> None:
    found = value("vm_cpu_usage_ratio", counting([0.0, 15.0], vcpus_current=2))
    assert found is not None
    assert (found.dividend, found.divisor, found.amount) == (1.5, 2.0, 0.75)


def test_steal_is_a_share_of_all_virtual_cpus() -> None:
    samples = [at(n, vcpus_current=4, vcpus=[VcpuMetrics(vcpu=v, delay_seconds_total=n * 5.0) for v in range(4)]) for n in range(2)]
    assert amount("vm_cpu_steal_ratio", samples) == 0.5
    assert amount("vm_vcpu_delay_cores", samples) == 2.0
    assert amount("vm_vcpu_delay_cores", samples, "vcpu in (0,1)") == 1.0


def test_guest_memory_is_what_linux_calls_used() -> None:
    assert amount("vm_guest_memory_used_ratio", [at(0, guest_memory_total_bytes=1000, guest_memory_usable_bytes=250)]) == 0.75


def test_a_part_that_is_absent_is_no_zero() -> None:
    assert amount("vm_guest_memory_used_ratio", [at(0, guest_memory_total_bytes=1000)]) is None
    assert amount("vm_guest_memory_used_ratio", [at(0, guest_memory_total_bytes=0, guest_memory_usable_bytes=0)]) is None
    assert amount("vm_cpu_usage_ratio", counting([0.0, 5.0], vcpus_current=-1)) is None


def test_devices_are_added_up_unless_one_is_chosen() -> None:
    samples = [disks(0, vda=0, vdb=0), disks(1, vda=100, vdb=300)]
    assert amount("vm_block_bytes_per_second", samples) == 40.0
    assert amount("vm_block_bytes_per_second", samples, "device=vdb") == 30.0
    assert amount("vm_block_bytes_per_second", samples, "device!=vdb") == 10.0
    assert amount("vm_block_bytes_per_second", samples, "device=vdc") is None


def test_a_selector_sees_the_vms_own_labels() -> None:
    samples = counting([0.0, 5.0])
    assert amount("vm_cpu_cores", samples, "name=web-1,namespace in (shop)") == 0.5
    assert amount("vm_cpu_cores", samples, "name=web-2") is None
    assert amount("vm_cpu_cores", samples, "device") is None


def test_a_counter_of_two_fields_is_their_sum() -> None:
    samples = [at(n, cpu_haltpoll_success_seconds_total=n * 1.0, cpu_haltpoll_fail_seconds_total=n * 3.0) for n in range(2)]
    assert amount("vm_cpu_haltpoll_cores", samples) == pytest.approx(0.4)
    assert amount("vm_cpu_haltpoll_cores", samples, "result=fail") == pytest.approx(0.3)


def test_what_the_agent_says_has_the_agents_time() -> None:
    guest = GuestMetrics(taken=WALL - 30, load1=1.25, filesystems=[GuestFilesystemMetrics(mountpoint="/", size_bytes=7, free_bytes=2)])
    assert value("vm_guest_load1", [at(0, guest=[guest])]) == Value(1.25, WALL - 30)
    assert amount("vm_guest_filesystem_free_bytes", [at(0, guest=[guest])]) == 2.0


@pytest.mark.parametrize("metric", SCALING_METRICS, ids=lambda metric: metric.name)
def test_every_metric_can_be_read(metric: ScalingMetric) -> None:
    """Each row has a reader, and a full sample has a value of it."""
    assert value_of(metric, full(), OWN, INTERVAL, EVERYTHING.matches) is not None


def full() -> list[Sample]:
    """Two samples in which every number is set and no counter falls."""
    from msgspec import structs

    def devices(kind: type, **key: object) -> list[object]:
        return [kind(**key, **{f.name: 7 for f in structs.fields(kind) if f.name not in key})]

    guest = GuestMetrics(
        taken=WALL,
        agent_up=1,
        cpus=2,
        load1=1.0,
        load5=1.0,
        load15=1.0,
        filesystems=[GuestFilesystemMetrics(mountpoint="/", size_bytes=9, free_bytes=3)],
    )
    record = sample()
    numbers = {f.name: 7 for f in structs.fields(record) if f.name.endswith(("_total", "_bytes", "_current", "_maximum", "_devices"))}
    numbers |= {"responsive": 1, "monitor_probed": 1}
    lists = {
        "vcpus": devices(VcpuMetrics, vcpu=0),
        "networks": devices(NetworkMetrics, device="n"),
        "blocks": devices(BlockMetrics, device="b"),
        "kvm": devices(KvmMetrics, vcpu=0),
        "guest": [guest],
    }
    return [at(sequence, **numbers, **lists) for sequence in range(2)]


def test_several_vms_are_a_sum_and_the_oldest_of_their_times() -> None:
    cores = BY_SCALING_NAME["vm_cpu_cores"]
    values = [Value(1.0, 100.0, 20.0), Value(2.0, 90.0, 30.0)]
    assert together(cores, values) == Value(3.0, 90.0, 30.0)
    assert together(cores, []) is None


def test_a_silent_vm_counts_as_the_average() -> None:
    cores = BY_SCALING_NAME["vm_cpu_cores"]
    found = together(cores, [Value(1.0, 100.0), Value(2.0, 100.0)], silent=2)
    assert found is not None
    assert found.amount == 6.0


def test_a_ratio_of_several_vms_is_weighted() -> None:
    """A VM with eight CPUs weighs more than one with a single one, and a silent one changes nothing."""
    ratio = BY_SCALING_NAME["vm_cpu_usage_ratio"]
    found = together(ratio, [Value(8.0, 100.0, 10.0, 8.0), Value(0.0, 100.0, 10.0, 1.0)], silent=5)
    assert found is not None
    assert found.amount == pytest.approx(8 / 9)


def test_who_should_have_a_value() -> None:
    cores, network = BY_SCALING_NAME["vm_cpu_cores"], BY_SCALING_NAME["vm_network_bytes_per_second"]
    now = 3 * INTERVAL
    new = [at(3, cpu_seconds_total=1.0)]
    stuck = [at(sequence, cpu_seconds_total=NAN, monitor_collected=NAN) for sequence in range(4)]
    without = [at(sequence, networks=[]) for sequence in range(4)]
    resetting = counting([4.0, 3.0, 2.0, 1.0])
    assert not unheard(cores, new, now)
    assert unheard(cores, stuck, now)
    assert unheard(cores, resetting, now)
    assert unheard(cores, [], now)
    assert not unheard(network, without, now)
    assert not unheard(BY_SCALING_NAME["vm_guest_load1"], without, now)


def test_a_row_is_read_by_one_reader() -> None:
    (row,) = BY_SCALING_NAME["vm_cpu_cores"].add
    assert reader_of(row) is reader_of(row)
