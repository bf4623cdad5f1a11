"""What a guest's agent told on its way into the metrics: what can't be true costs itself, counted, and nothing else."""

from __future__ import annotations

import math
from typing import Any

import pytest
from msgspec import structs

from tests.support.guest_samples import TAKEN, sampled, told
from virtflow.processors.guest_agent import family_of, guests
from virtflow.processors.normalise import normalise_snapshot
from virtflow.schemas.guest import GuestReason
from virtflow.schemas.records import (
    GuestAddress,
    GuestFilesystem,
    GuestInterface,
    GuestMetrics,
    GuestSample,
    NodeSnapshot,
    VmSnapshot,
)

ADDRESSES = 16
FILESYSTEMS = 32
INTERFACES = 32
LARGEST_BYTES = 1 << 60
TEXT_LENGTH = 128

UUID = "d4e232be-ede6-48cb-9c15-42cde320a1fc"


def named(sample: GuestSample) -> tuple[GuestMetrics, list[str]]:
    """The metrics, and the names of what was dropped."""
    snapshot = NodeSnapshot(node="n", boot_id="b", sequence=0, collected=TAKEN, interval=10.0, vms=[VmSnapshot(uuid=UUID, guest=[sample])])
    result = normalise_snapshot(snapshot)
    return result.metrics[0].guest[0], result.dropped.values


def test_a_whole_answer_is_whole() -> None:
    """Used becomes free, addresses stand by interface, every word stays."""
    assert named(sampled()) == (told(), [])


def test_without_a_guest_part_there_is_none() -> None:
    """A VM whose agent is not asked says nothing of it, not that it is down."""
    assert guests([], lambda _, absent: absent) == []


def test_nothing_told_is_nothing_shown() -> None:
    """Only how the agent stands; absent stays absent and is not counted as dropped."""
    found, dropped = named(GuestSample(agent_up=0, reason=GuestReason.TIMEOUT))
    assert (found.agent_up, found.reason, dropped) == (0, "timeout", [])
    values = structs.asdict(found)
    for name in ("taken", "load1", "load5", "load15", "addresses_taken"):
        assert math.isnan(values[name])
    assert {values[name] for name in ("cpus", "cut", "dropped")} == {-1}
    assert (found.filesystems, found.addresses) == ([], [])


@pytest.mark.parametrize(
    ("fields", "metric"),
    [
        ({"cpus": -2}, "vm_guest_cpus"),
        ({"cpus": 2**63 - 1}, "vm_guest_cpus"),
        ({"agent_up": 2}, "vm_guest_agent_up"),
        ({"cut": -5}, "vm_guest_values_cut"),
        ({"dropped": 2**61}, "vm_guest_values_dropped"),
        ({"load1": -0.5}, "vm_guest_load1"),
        ({"load5": math.inf}, "vm_guest_load5"),
        ({"load15": 1e12}, "vm_guest_load15"),
        ({"taken": 0.0}, "vm_guest_age_seconds"),
        ({"addresses_taken": 1e300}, "vm_guest_age_seconds"),
        ({"reason": "a\nb"}, "vm_guest_agent_info"),
        ({"address_source": "the tenant"}, "vm_guest_ip_address_info"),
    ],
)
def test_a_value_that_cannot_be_costs_itself(fields: dict[str, Any], metric: str) -> None:
    """It is absent and counted once; everything else of the answer stays."""
    found, dropped = named(sampled(**fields))
    assert dropped == [metric]
    kept = {name: value for name, value in structs.asdict(found).items() if name not in fields}
    assert kept == {name: value for name, value in structs.asdict(told()).items() if name not in fields}
    for name in fields:
        value = getattr(found, name)
        assert value in {-1, ""} or math.isnan(value)


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "\u202etxt", "\u0085", "x" * (TEXT_LENGTH + 1), "\ud800"])
def test_a_text_that_cannot_be_shown_is_dropped(text: str) -> None:
    """Whatever word it is of: the node has cleaned it, or it is a stranger's."""
    for name in ("hostname", "os_id", "os_pretty_name", "os_kernel_release"):
        found, dropped = named(sampled(**{name: text}))
        assert (getattr(found, name), dropped) == ("", ["vm_guest_info"])


@pytest.mark.parametrize(("total", "used"), [(5, 6), (-2, 0), (10, -1), (2**61, 1), (LARGEST_BYTES + 1, 0), (2**63 - 1, 2**63 - 1)])
def test_untrue_sizes_are_dropped(total: int, used: int) -> None:
    """0 <= used <= total <= 2^60, or there is neither size nor free space."""
    found, dropped = named(sampled(filesystems=[GuestFilesystem(mountpoint="/", fstype="ext4", total_bytes=total, used_bytes=used)]))
    assert [(one.size_bytes, one.free_bytes) for one in found.filesystems] == [(-1, -1)]
    assert dropped == ["vm_guest_filesystem_size_bytes", "vm_guest_filesystem_free_bytes"]


@pytest.mark.parametrize(("total", "used", "free"), [(0, 0, 0), (LARGEST_BYTES, 0, LARGEST_BYTES), (7, 7, 0)])
def test_the_bounds_themselves_are_true(total: int, used: int, free: int) -> None:
    found, dropped = named(sampled(filesystems=[GuestFilesystem(mountpoint="/", total_bytes=total, used_bytes=used)]))
    assert [(one.size_bytes, one.free_bytes) for one in found.filesystems] == [(total, free)]
    assert dropped == []


def test_a_filesystem_needs_a_name_of_its_own() -> None:
    """Nameless, repeated and unprintable ones would be series of no or the same identity: the first of a name counts."""
    names = ["/", "", "/", "/\u202e", "/srv"]
    found, dropped = named(sampled(filesystems=[GuestFilesystem(mountpoint=name, total_bytes=9, used_bytes=1) for name in names]))
    assert [one.mountpoint for one in found.filesystems] == ["/", "/srv"]
    assert dropped == ["vm_guest_filesystem_size_bytes"] * 3


@pytest.mark.parametrize(
    "address",
    ["", "192.0.2.256", "192.0.2.07", "2001:DB8::1", "2001:db8:0::1", "fe80::1%eth0", " 192.0.2.1", "1", "x" * 4_000_000],
)
def test_an_address_that_is_none_in_canonical_form_is_dropped(address: str) -> None:
    found, dropped = named(sampled(interfaces=[GuestInterface(name="eth0", addresses=[GuestAddress(address=address, family="ipv4")])]))
    assert (found.addresses, dropped) == ([], ["vm_guest_ip_address_info"])


def test_the_family_follows_from_the_address() -> None:
    """Whatever the sample calls it; a prefix that its family does not have is absent."""
    addresses = [GuestAddress(address="192.0.2.7", family="ipv6", prefix=64), GuestAddress(address="::1", family="", prefix=128)]
    found, dropped = named(sampled(interfaces=[GuestInterface(name="eth0", addresses=addresses)]))
    assert [(one.family, one.prefix) for one in found.addresses] == [("ipv4", -1), ("ipv6", 128)]
    assert dropped == []
    assert [family_of(text) for text in ("192.0.2.7", "2001:db8::7", "no")] == ["ipv4", "ipv6", ""]


def test_lists_end_at_their_limits() -> None:
    """More than the limits is left out and counted once a list."""
    many = [GuestAddress(address=f"198.51.100.{number}", family="ipv4") for number in range(ADDRESSES + 5)]
    found, dropped = named(
        sampled(
            filesystems=[GuestFilesystem(mountpoint=f"/{number}") for number in range(FILESYSTEMS + 5)],
            interfaces=[GuestInterface(name=f"eth{number}", addresses=many[:1]) for number in range(INTERFACES + 5)],
        )
    )
    assert (len(found.filesystems), len(found.addresses)) == (FILESYSTEMS, INTERFACES)
    assert sorted(dropped) == ["vm_guest_filesystem_size_bytes", "vm_guest_ip_address_info"]
    found, dropped = named(sampled(interfaces=[GuestInterface(name="eth0", addresses=many)]))
    assert (len(found.addresses), dropped) == (ADDRESSES, ["vm_guest_ip_address_info"])


def test_more_than_one_guest_part_is_one() -> None:
    """A VM has one guest: what follows the first is skipped."""
    assert len(guests([sampled(), sampled()], lambda _, absent: absent)) == 1
