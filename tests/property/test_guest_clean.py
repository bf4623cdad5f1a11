"""What a hostile guest says, whatever it is, becomes a bounded record that is printable, true and canonical."""

from __future__ import annotations

import ipaddress
import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from virtflow.producer.agent.answers import address_of_interfaces, cpus_of, merged, sample_of
from virtflow.producer.agent.ipc import FRAME_BYTES, Answered, Reader, encoded
from virtflow.producer.records.guest_devices import look_of
from virtflow.schemas.guest import AddressSource
from virtflow.schemas.records import GuestSample
from virtflow.schemas.text import is_printable

ADDRESSES = 16
FILESYSTEMS = 32
INTERFACES = 32
LARGEST_BYTES = 1 << 60
TEXT_LENGTH = 128

TEXT = st.text(st.characters(exclude_categories=()), max_size=300)
ANYTHING = st.one_of(
    TEXT,
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.booleans(),
    st.none(),
    st.binary(max_size=8),
    st.ip_addresses().map(str),
    st.sampled_from(["", "/", "fe80::1%eth0", "::ffff:192.0.2.1", "0.0.0.0", "224.0.0.1", "127.0.0.1", "1.2.3", "52:54:00:AA:00:01"]),  # noqa: S104
)
INDEX = st.one_of(st.integers(0, 60).map(str), st.sampled_from(["", "-1", "00", "\u0662", "9999999", "count", "1.1"]))
KEYS = st.one_of(
    st.sampled_from(["os.id", "os.pretty-name", "os.version-id", "hostname", "load.1m", "load.15m", "fs.count", "if.count"]),
    st.builds("fs.{}.{}".format, INDEX, st.sampled_from(["mountpoint", "fstype", "total-bytes", "used-bytes", "name"])),
    st.builds("if.{}.{}".format, INDEX, st.sampled_from(["name", "hwaddr", "addr.count"])),
    st.builds("if.{}.addr.{}.{}".format, INDEX, INDEX, st.sampled_from(["addr", "prefix", "type"])),
    TEXT,
)
INFO = st.dictionaries(KEYS, ANYTHING, max_size=200)
LEASES = st.dictionaries(
    TEXT,
    st.one_of(
        ANYTHING,
        st.fixed_dictionaries(
            {
                "hwaddr": ANYTHING,
                "addrs": st.one_of(
                    ANYTHING,
                    st.lists(
                        st.one_of(ANYTHING, st.fixed_dictionaries({"addr": ANYTHING, "prefix": ANYTHING, "type": ANYTHING})), max_size=40
                    ),
                ),
            }
        ),
    ),
    max_size=50,
)


def texts(sample: GuestSample) -> list[str]:
    own = [value for value in (getattr(sample, name) for name in sample.__struct_fields__) if isinstance(value, str)]
    own += [text for one in sample.filesystems for text in (one.mountpoint, one.fstype, one.device)]
    return own + [text for one in sample.interfaces for text in (one.name, one.mac)]


def assert_clean(sample: GuestSample) -> None:
    assert all(is_printable(text) and len(text) <= TEXT_LENGTH for text in texts(sample))
    assert len(sample.filesystems) <= FILESYSTEMS
    assert len(sample.interfaces) <= INTERFACES
    assert len({one.mountpoint for one in sample.filesystems} - {""}) == len(sample.filesystems)
    named = [one.device for one in sample.filesystems if one.device]
    assert len(set(named)) == len(named)
    assert len({one.name for one in sample.interfaces} - {""}) == len(sample.interfaces)
    for one in sample.filesystems:
        assert (one.total_bytes, one.used_bytes) == (-1, -1) or 0 <= one.used_bytes <= one.total_bytes <= LARGEST_BYTES
    for interface in sample.interfaces:
        assert len(interface.addresses) <= ADDRESSES
        assert len({address.address for address in interface.addresses}) == len(interface.addresses)
        for address in interface.addresses:
            parsed = ipaddress.ip_address(address.address)
            assert (str(parsed), f"ipv{parsed.version}") == (address.address, address.family)
            assert -1 <= address.prefix <= parsed.max_prefixlen
            assert not parsed.is_loopback
    assert all(math.isnan(load) or load >= 0 for load in (sample.load1, sample.load5, sample.load15))
    assert sample.cut >= 0
    assert sample.dropped >= 0
    assert len(encoded(Answered(1, 0.0, 0.0, sample=sample))) < FRAME_BYTES // 16


@settings(deadline=None, max_examples=300)
@given(INFO, st.booleans())
def test_an_agents_answer(info: dict[str, Any], pseudo: bool) -> None:  # noqa: FBT001, drawn
    """Every kind of value under every key."""
    assert_clean(sample_of(info, pseudo=pseudo))


@settings(deadline=None)
@given(LEASES, st.sampled_from(list(AddressSource)))
def test_addresses_of_libvirt(found: dict[str, Any], source: AddressSource) -> None:
    """Leases and the ARP table hold what guests sent."""
    assert_clean(address_of_interfaces(found, source))


@settings(deadline=None)
@given(st.lists(st.one_of(INFO.map(sample_of), ANYTHING.map(cpus_of)), max_size=6))
def test_the_parts_of_a_turn_together(parts: list[GuestSample]) -> None:
    """Nothing becomes more by joining, and what was left out adds up."""
    whole = merged(parts)
    assert_clean(whole)
    assert whole.cut == sum(part.cut for part in parts)
    assert whole.dropped == sum(part.dropped for part in parts)


@settings(deadline=None)
@given(st.lists(st.one_of(INFO.map(sample_of)), max_size=4), st.integers(1, 64))
def test_frames_arrive_however_they_are_cut(samples: list[GuestSample], size: int) -> None:
    """Whole and in order."""
    sent = [Answered(number, 1.0, 0.5, sample=sample) for number, sample in enumerate(samples)]
    data, reader = b"".join(map(encoded, sent)), Reader(of_process=True)
    got = [frame for begin in range(0, len(data), size) for frame in reader.frames(data[begin : begin + size])]
    assert list(map(repr, got)) == list(map(repr, sent))


@given(TEXT, st.sampled_from(["<domain><metadata>{}</metadata></domain>", "<domain>{}", "{}"]))
def test_xml_that_says_anything_is_looked_at(text: str, around: str) -> None:
    """It is libvirt's, but may hold what a guest's owner wrote."""
    look = look_of(around.format(text))
    assert all(is_printable(namespace) for namespace in look.metadata)
