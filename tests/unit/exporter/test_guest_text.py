"""The lines of what only the guest knows: its words are escaped, what it stops telling vanishes, what stays is not rendered again."""

from __future__ import annotations

import pytest

from tests.support.guest_samples import TAKEN, WORDS, told
from tests.support.vm_samples import WALL, fleet, sample, series_of, text_of, uuid
from virtflow.exporter.render.vm import VmText
from virtflow.exporter.selection import NAMES
from virtflow.schemas.catalogue.guest_agent import AGENT_METRICS
from virtflow.schemas.records import GuestAddressMetrics, GuestFilesystemMetrics, GuestMetrics, VmMetrics

TEXT = VmText(NAMES)
ID = f'uuid="{uuid(1)}",name="vm-1"'
STATES: tuple[list[GuestMetrics], ...] = (
    [],
    [told()],
    [GuestMetrics(agent_up=0, reason="timeout")],
    [told(cpus=4, load1=float("nan"), hostname="other")],
    [told(filesystems=[], addresses=[])],
    [told(address_source="lease")],
    [told(agent_up=0, reason="disconnected", filesystems=told().filesystems[:1])],
)


def rendered(record: VmMetrics) -> dict[str, str]:
    lines = TEXT.lines(record, ID, None, ())
    return {metric.name: line for metric, line in zip(TEXT.families, lines, strict=True) if line}


def test_everything_told_has_its_lines() -> None:
    """Numbers, a series for each filesystem and address, words as labels."""
    lines = rendered(sample(guest=[told()]))
    assert lines["vm_guest_cpus"] == f"vm_guest_cpus{{{ID}}} 2\n"
    assert lines["vm_guest_load15"] == f"vm_guest_load15{{{ID}}} 0.125\n"
    assert lines["vm_guest_filesystem_free_bytes"] == (
        f'vm_guest_filesystem_free_bytes{{{ID},mountpoint="/",fstype="ext4",device="vda1"}} 4294967296\n'
        f'vm_guest_filesystem_free_bytes{{{ID},mountpoint="/srv/data",fstype="xfs",device=""}} 0\n'
    )
    assert lines["vm_guest_ip_address_info"].splitlines()[1] == (
        f'vm_guest_ip_address_info{{{ID},interface="eth0",address="2001:db8::7",family="ipv6",source="agent"}} 1'
    )
    labels = ",".join(f'{name}="{value}"' for name, value in WORDS.items())
    assert lines["vm_guest_info"] == f"vm_guest_info{{{ID},{labels}}} 1\n"
    assert "vm_guest_agent_info" not in lines


def test_every_row_of_the_catalogue_is_rendered() -> None:
    """By the sample's lines, or at the scrape."""
    names = set(rendered(sample(guest=[told(agent_up=0, reason="timeout")]))) | {"vm_guest_age_seconds"}
    assert {metric.name for metric in AGENT_METRICS} <= names


def test_an_agent_that_does_not_answer_says_why_and_nothing_else() -> None:
    lines = rendered(sample(guest=[GuestMetrics(agent_up=0, reason="timeout")]))
    told_of = {name: line for name, line in lines.items() if name in {metric.name for metric in AGENT_METRICS}}
    assert told_of == {
        "vm_guest_agent_up": f"vm_guest_agent_up{{{ID}}} 0\n",
        "vm_guest_agent_info": f'vm_guest_agent_info{{{ID},reason="timeout"}} 1\n',
    }


@pytest.mark.parametrize("before", STATES)
@pytest.mark.parametrize("after", STATES)
def test_from_any_state_to_any_other(before: list[GuestMetrics], after: list[GuestMetrics]) -> None:
    """What is kept of the lines and what is rendered again is never seen in the result."""
    first, second = sample(guest=before), sample(guest=after)
    lines = TEXT.lines(second, ID, first, TEXT.lines(first, ID, None, ()))
    assert lines == TEXT.lines(second, ID, None, ())


def test_the_same_answer_is_not_rendered_again() -> None:
    """A guest's part is in every sample and changes once a minute: the strings are the very same objects."""
    first, second = sample(guest=[told()]), sample(guest=[told()])
    lines = TEXT.lines(first, ID, None, ())
    again = TEXT.lines(second, ID, first, lines)
    assert all(old is new for old, new in zip(lines, again, strict=True))


def test_a_hostile_guests_words_stay_labels() -> None:
    """Quotes, newlines, and what closes a series are escaped; two series of one identity are one."""
    evil = 'x"} 1\nvm_state{uuid="forged'
    twins = [GuestFilesystemMetrics(mountpoint="/\ud800", size_bytes=1), GuestFilesystemMetrics(mountpoint="/\udfff", size_bytes=2)]
    addresses = [GuestAddressMetrics(interface=evil, address="192.0.2.1", family="ipv4")] * 2
    vms = fleet()
    vms.take_metrics(sample(guest=[told(hostname=evil, reason=evil, filesystems=twins, addresses=addresses)]), 0.0)
    series = series_of(vms)
    assert not any("forged" in name for name in series if name.startswith("vm_state"))
    assert sum(name.startswith("vm_guest_filesystem_size_bytes") for name in series) == 1
    assert sum(name.startswith("vm_guest_ip_address_info") for name in series) == 1


def test_the_age_is_that_of_the_answer_at_the_scrape() -> None:
    """It grows until the next answer, and is gone with the data."""
    vms = fleet()
    age = f"vm_guest_age_seconds{{{ID}}}"
    vms.take_metrics(sample(guest=[told()]), 0.0)
    assert series_of(vms, 1.0, TAKEN + 12.5)[age] == "12.500"
    vms.take_metrics(sample(sequence=1, guest=[GuestMetrics(agent_up=0, reason="timeout")]), 1.0)
    assert age not in series_of(vms, 2.0, TAKEN + 13.5)
    vms.take_metrics(sample(sequence=2), 2.0)
    assert "vm_guest_agent" not in text_of(vms, 3.0, WALL)


def test_metrics_that_are_left_out_are_not_rendered() -> None:
    """A selection without the guest's lists costs nothing and shows nothing of them."""
    text = VmText(NAMES - {metric.name for metric in AGENT_METRICS if metric.name != "vm_guest_cpus"})
    lines = text.lines(sample(guest=[told(agent_up=0, reason="timeout")]), ID, None, ())
    assert [line for line in lines if "vm_guest_" in line and "memory" not in line] == [f"vm_guest_cpus{{{ID}}} 2\n"]
