"""Which calls are believed safe on which version."""

from __future__ import annotations

import libvirt
import pytest

from tests.support.lab_release import RELEASES
from virtflow.producer.hypervisor.call_safety import MEASURED, TABLE, LibvirtCall, fill_may_wait, may_wait, stats_groups

OLD, NEW = MEASURED[0] - 1, MEASURED[-1] + 1


@pytest.mark.parametrize(
    ("version", "waits"),
    [
        (9_000_000, False),
        (9_001_000, True),
        (10_010_000, True),
        (11_000_000, True),
        (11_003_000, True),
        (0, True),
        (OLD, True),
        (NEW, True),
    ],
)
def test_xml_may_wait_on_every_version_newer_than_9_0(version: int, waits: bool) -> None:  # noqa: FBT001, drawn from the parameters
    """On 9.0 it was seen not to, on 11.3 to wait: between them nothing was measured."""
    assert may_wait(LibvirtCall.XML, version) is waits


@pytest.mark.parametrize("version", [0, OLD, NEW])
def test_on_an_unknown_version_nothing_is_safe_that_ever_took_a_job(version: int) -> None:
    safe = {call for call in LibvirtCall if not may_wait(call, version)}
    assert safe == {
        LibvirtCall.LIST,
        LibvirtCall.LOOKUP,
        LibvirtCall.CONTROL_INFO,
        LibvirtCall.STATE,
        LibvirtCall.VCPUS,
        LibvirtCall.GROUP_STATE,
        LibvirtCall.GROUP_INTERFACE,
    }
    assert stats_groups(version).safe == libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_INTERFACE
    assert fill_may_wait(version)


def test_the_versions_of_the_table_are_those_of_the_lab() -> None:
    """Outside of them no call is believed safe that ever took a job."""
    versions = [tuple(map(int, release.libvirt.split("."))) for release in RELEASES.values()]
    assert [divmod(number // 1_000, 1_000) for number in MEASURED] == versions


def test_what_a_round_rests_on_never_took_a_job() -> None:
    """Listing, health checks and the groups of state and network."""
    calls = (LibvirtCall.LIST, LibvirtCall.LOOKUP, LibvirtCall.CONTROL_INFO, LibvirtCall.GROUP_STATE, LibvirtCall.GROUP_INTERFACE)
    assert not any(TABLE[call].ever_took_job for call in calls)


def test_the_groups_of_a_host() -> None:
    groups = stats_groups(9_000_000)
    assert groups.safe == libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_INTERFACE
    assert groups.safe & groups.monitor == 0
    assert groups.interfaces_safe


def test_with_vhost_user_nics_the_interfaces_may_wait() -> None:
    """Libvirt asks Open vSwitch for their numbers while it holds the VM's lock."""
    groups = stats_groups(9_000_000, vhost_user=True)
    assert groups.safe == libvirt.VIR_DOMAIN_STATS_STATE
    assert groups.everything == stats_groups(9_000_000).everything
    assert not groups.interfaces_safe
