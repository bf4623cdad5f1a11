"""A sample's lines: what is absent has none, labels can hold anything, and what did not change is not rendered again."""

from __future__ import annotations

import re

import pytest

from tests.support.guest_samples import told
from tests.support.vm_samples import inventory, sample, uuid
from virtflow.exporter.render.lines import quoted
from virtflow.exporter.render.vm import VmText
from virtflow.exporter.selection import NAMES
from virtflow.schemas.errors import SettingError
from virtflow.schemas.fields import KvmMetrics, NetworkMetrics
from virtflow.schemas.records import GuestFilesystemMetrics, VmMetrics

LABEL_BYTES = 1_024

TEXT = VmText(NAMES)
ID = f'uuid="{uuid(1)}",name="vm-1"'


def rendered(record: VmMetrics, text: VmText = TEXT) -> dict[str, str]:
    lines = text.lines(record, text.identity(record, None), None, ())
    return {metric.name: line for metric, line in zip(text.families, lines, strict=True) if line}


def test_values_become_lines() -> None:
    """Integers as they are, doubles in the shortest form that reads back the same, devices in the sample's order."""
    lines = rendered(sample())
    assert lines["vm_cpu_seconds_total"] == f"vm_cpu_seconds_total{{{ID}}} 12.5\n"
    assert lines["vm_memory_rss_bytes"] == f"vm_memory_rss_bytes{{{ID}}} 536870912\n"
    assert lines["vm_vcpu_state"] == f'vm_vcpu_state{{{ID},vcpu="0"}} 1\nvm_vcpu_state{{{ID},vcpu="3"}} 2\n'
    assert lines["vm_network_receive_bytes_total"] == f'vm_network_receive_bytes_total{{{ID},device="vnet0"}} 100\n'
    assert lines["vm_state_info"] == f'vm_state_info{{{ID},state="running",reason="booted"}} 1\n'


def test_what_was_not_reported_has_no_line() -> None:
    """Absent is absent, per device too; 0 is a value."""
    lines = rendered(sample())
    assert "vm_cpu_user_seconds_total" not in lines
    assert lines["vm_vcpu_seconds_total"] == f'vm_vcpu_seconds_total{{{ID},vcpu="0"}} 6.25\n'
    assert lines["vm_block_capacity_bytes"].count("\n") == 1
    assert lines["vm_block_read_bytes_total"].endswith('device="sda"} 0\n')
    assert rendered(VmMetrics(uuid=uuid(1))) == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -1.0])
def test_what_is_no_amount_has_no_line(value: float) -> None:
    assert "vm_cpu_seconds_total" not in rendered(sample(cpu_seconds_total=value))


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [(1, 1, ("running", "booted")), (3, 5, ("paused", "io_error")), (9, 42, ("9", "42")), (1, -1, ("running", ""))],
)
def test_states_in_words(state: int, reason: int, words: tuple[str, str]) -> None:
    """A number that libvirt has added since passes through as itself."""
    line = rendered(sample(state=state, state_reason=reason))["vm_state_info"]
    assert line == f'vm_state_info{{{ID},state="{words[0]}",reason="{words[1]}"}} 1\n'


def test_only_what_changed_is_rendered_again() -> None:
    """The other strings are the very same objects."""
    before, after = sample(sequence=0), sample(sequence=1)
    first = TEXT.lines(before, ID, None, ())
    second = TEXT.lines(after, ID, before, first)
    changed = {metric.name for metric, old, new in zip(TEXT.families, first, second, strict=True) if old is not new}
    assert changed == {"vm_cpu_seconds_total", "vm_network_receive_bytes_total"}
    assert second == TEXT.lines(after, ID, None, ())


def test_a_value_that_stops_loses_its_line() -> None:
    """Monitor values of a sample without them vanish, they are not repeated."""
    before, after = sample(), sample(sequence=1, guest_memory_free_bytes=-1, blocks=[], vcpus=[])
    lines = TEXT.lines(after, ID, before, TEXT.lines(before, ID, None, ()))
    assert lines == TEXT.lines(after, ID, None, ())


def test_devices_come_and_go_and_move() -> None:
    """Devices are told by name; their order is nobody's business."""
    one, two = NetworkMetrics(device="vnet0", receive_bytes_total=1), NetworkMetrics(device="vnet1", receive_bytes_total=2)
    samples = [sample(networks=list(networks)) for networks in ([one], [one, two], [two, one], [two], [])]
    for before in samples:
        rendered_before = TEXT.lines(before, ID, None, ())
        for after in samples:
            assert TEXT.lines(after, ID, before, rendered_before) == TEXT.lines(after, ID, None, ())


def test_two_devices_of_one_name_are_one_series() -> None:
    """The last counts, also where only the escaped names are the same."""
    twins = [NetworkMetrics(device="\ud800", receive_bytes_total=1), NetworkMetrics(device="\udfff", receive_bytes_total=2)]
    line = rendered(sample(networks=twins))["vm_network_receive_bytes_total"]
    assert line == f'vm_network_receive_bytes_total{{{ID},device="\ufffd"}} 2\n'


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        ('a"b', 'a\\"b'),
        ("a\\b", "a\\\\b"),
        ("a\nb", "a\\nb"),
        ("\ud83d", "\ufffd"),
        ("a\0b", "a\ufffdb"),
        ("\u202eevil", "\u202eevil"),
        ("tab\t", "tab\t"),
    ],
)
def test_label_values_are_escaped_and_bounded(raw: str, written: str) -> None:
    assert quoted(raw) == written


@pytest.mark.parametrize("limit", [64, 200, LABEL_BYTES])
@pytest.mark.parametrize("character", ["x", '"', "\0", "\ud800", "é", "世", "\U0001f600"])
def test_a_long_value_is_cut_at_its_bytes(character: str, limit: int) -> None:
    """As Prometheus counts them; what fits is whole, what does not ends in a mark, and two with one begin stay two."""
    of_one = len(("\ufffd" if character in "\0\ud800" else character).encode())
    fits = limit // of_one
    assert unescaped(quoted(character * fits, limit)) == shown(character) * fits
    one, other = quoted(character * 4_000, limit), quoted(character * 4_000 + "!", limit)
    for written in (one, other):
        assert limit - 4 < len(unescaped(written).encode()) <= limit
        assert "…" in written
    assert one != other
    assert one == quoted(character * 4_000, limit)


def unescaped(written: str) -> str:
    return written.replace('\\"', '"')


def shown(character: str) -> str:
    return "\ufffd" if character in "\0\ud800" else character


def test_a_limit_holds_for_every_label_but_the_identity() -> None:
    """Of VMs, their devices, guests and inventory; the uuid is shorter than the least limit."""
    long, limit = "x" * 256, 64
    text = VmText(NAMES, ("name", "project"), limit)
    filesystem = GuestFilesystemMetrics(mountpoint=f"/{long}", fstype=long, device=long, size_bytes=2, free_bytes=1)
    record = sample(name=long, networks=[NetworkMetrics(device=long, receive_bytes_total=1)], guest=[told(filesystems=[filesystem])])
    about = inventory(project=long, title=long)
    identity = text.identity(record, about)
    lines = [*text.lines(record, identity, None, ()), text.info(record, identity, about)]
    values = re.findall(r'="([^"]*)"', "".join(lines))
    assert max(len(value.encode()) for value in values) == limit
    assert f'uuid="{uuid(1)}"' in identity


def test_values_of_one_family_differ_in_a_label() -> None:
    """One that is absent has no line; the label stands behind the VM's or device's own."""
    lines = rendered(sample(cpu_haltpoll_success_seconds_total=1.5, cpu_haltpoll_fail_seconds_total=0.25))
    name = "vm_cpu_haltpoll_seconds_total"
    assert lines[name] == f'{name}{{{ID},result="success"}} 1.5\n{name}{{{ID},result="fail"}} 0.25\n'
    assert rendered(sample(cpu_haltpoll_fail_seconds_total=0.0))[name] == f'{name}{{{ID},result="fail"}} 0.0\n'
    name = "vm_vcpu_kvm_preemptions_total"
    kvm = [KvmMetrics(vcpu=number, preemptions_reported_total=number, preemptions_other_total=7) for number in (0, 3)]
    wanted = [
        f'{name}{{{ID},vcpu="{number}",kind="{kind}"}} {value}\n'
        for number in (0, 3)
        for kind, value in (("reported", number), ("other", 7))
    ]
    assert rendered(sample(kvm=kvm))[name] == "".join(wanted)


def test_values_of_one_family_change_alone() -> None:
    """Rendering what changed is rendering all."""
    before, after = (sample(cpu_haltpoll_success_seconds_total=1.5, cpu_haltpoll_fail_seconds_total=fail) for fail in (0.25, 0.5))
    assert TEXT.lines(after, ID, before, TEXT.lines(before, ID, None, ())) == TEXT.lines(after, ID, None, ())


def test_labels_can_be_chosen() -> None:
    """The name can be switched off, fields of the inventory on; they are not told twice in vm_info."""
    text = VmText(NAMES, ("project", "flavor"))
    identity = text.identity(sample(), inventory())
    assert identity == f'uuid="{uuid(1)}",project="shop",flavor="m1.small"'
    assert text.identity(sample(), None) == f'uuid="{uuid(1)}",project="",flavor=""'
    info = text.info(sample(), identity, inventory())
    assert info.count("project=") == 1
    assert info.count("flavor=") == 1
    assert 'node="node-1"' in info


def test_the_node_of_vm_info_is_the_one_that_speaks() -> None:
    """An inventory from before a migration does not send joins to the wrong node."""
    assert 'node="node-2"' in TEXT.info(sample(node="node-2"), ID, inventory(node="node-1"))


def test_an_unknown_label_is_refused() -> None:
    with pytest.raises(SettingError, match="vm_labels"):
        VmText(NAMES, ("uuid",))


def test_only_chosen_metrics_are_rendered() -> None:
    """Down to one, and to none."""
    assert set(rendered(sample(), VmText({"vm_vcpu_state"}))) == {"vm_vcpu_state"}
    assert rendered(sample(), VmText(())) == {}
