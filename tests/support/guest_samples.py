"""What a guest's agent tells, as the pipeline's records: a whole answer, and nothing but a reason."""

from __future__ import annotations

from typing import Any, Final

from virtflow.schemas.records import (
    GuestAddress,
    GuestAddressMetrics,
    GuestFilesystem,
    GuestFilesystemMetrics,
    GuestInterface,
    GuestMetrics,
    GuestSample,
)

TAKEN: Final = 1_700_000_000.0
WORDS: Final = {
    "hostname": "db.example",
    "os_id": "debian",
    "os_name": "Debian GNU/Linux",
    "os_pretty_name": "Debian GNU/Linux 12 (bookworm)",
    "os_version": "12 (bookworm)",
    "os_version_id": "12",
    "os_kernel_release": "6.1.0-18-cloud-amd64",
    "os_machine": "x86_64",
}
NUMBERS: Final = {"agent_up": 1, "cut": 3, "dropped": 2, "cpus": 2, "load1": 0.5, "load5": 0.25, "load15": 0.125}


def told(**fields: Any) -> GuestMetrics:  # noqa: ANN401, any field of the record
    """All that an agent can tell, in base units, of two filesystems and three addresses."""
    given: dict[str, Any] = {
        **WORDS,
        **NUMBERS,
        "taken": TAKEN,
        "filesystems": [
            GuestFilesystemMetrics(mountpoint="/", fstype="ext4", size_bytes=2**33, free_bytes=2**32, device="vda1"),
            GuestFilesystemMetrics(mountpoint="/srv/data", fstype="xfs", size_bytes=2**40, free_bytes=0),
        ],
        "addresses": [
            GuestAddressMetrics(interface="eth0", address="192.0.2.7", family="ipv4", prefix=24, mac="52:54:00:00:00:01"),
            GuestAddressMetrics(interface="eth0", address="2001:db8::7", family="ipv6", prefix=64, mac="52:54:00:00:00:01"),
            GuestAddressMetrics(interface="eth1", address="198.51.100.7", family="ipv4", prefix=24),
        ],
        "address_source": "agent",
        "addresses_taken": TAKEN,
    }
    return GuestMetrics(**(given | fields))


def sampled(**fields: Any) -> GuestSample:  # noqa: ANN401, any field of the record
    """The same as a producer sends it."""
    given: dict[str, Any] = {
        **WORDS,
        **NUMBERS,
        "taken": TAKEN,
        "filesystems": [
            GuestFilesystem(mountpoint="/", fstype="ext4", total_bytes=2**33, used_bytes=2**32, device="vda1"),
            GuestFilesystem(mountpoint="/srv/data", fstype="xfs", total_bytes=2**40, used_bytes=2**40),
        ],
        "interfaces": [
            GuestInterface(
                name="eth0",
                mac="52:54:00:00:00:01",
                addresses=[
                    GuestAddress(address="192.0.2.7", family="ipv4", prefix=24),
                    GuestAddress(address="2001:db8::7", family="ipv6", prefix=64),
                ],
            ),
            GuestInterface(name="eth1", addresses=[GuestAddress(address="198.51.100.7", family="ipv4", prefix=24)]),
        ],
        "address_source": "agent",
        "addresses_taken": TAKEN,
    }
    return GuestSample(**(given | fields))
