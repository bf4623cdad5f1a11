"""What agents, XML and libvirt's errors say, as what is made of it."""

from __future__ import annotations

import struct

import msgspec
import pytest

from virtflow.producer.agent.answers import address_of_interfaces, cpus_of, merged, sample_of
from virtflow.producer.agent.cache import Held, Part
from virtflow.producer.agent.failure_reasons import reason_of, reason_of_nothing
from virtflow.producer.agent.ipc import Command, Reader, Start, encoded
from virtflow.producer.records.guest_devices import Look, look_of
from virtflow.runtime.process.frames import BrokenFrameError
from virtflow.schemas.guest import AddressSource, GuestReason
from virtflow.schemas.records import GuestAddress, GuestFilesystem, GuestInterface, GuestSample

FRAME_BYTES = 4 << 20

ANSWER: dict[str, object] = {
    "os.id": "debian",
    "os.pretty-name": "Debian GNU/Linux 12 (bookworm)",
    "os.version-id": "12",
    "os.kernel-release": "6.1.0",
    "os.machine": "x86_64",
    "hostname": "web-1",
    "load.1m": 0.5,
    "load.5m": 0.25,
    "load.15m": 0.125,
    "fs.count": 3,
    "fs.0.name": "vda1",
    "fs.0.mountpoint": "/",
    "fs.0.fstype": "ext4",
    "fs.0.total-bytes": 100,
    "fs.0.used-bytes": 40,
    "fs.1.mountpoint": "/run",
    "fs.1.fstype": "tmpfs",
    "fs.1.total-bytes": 10,
    "fs.1.used-bytes": 0,
    "fs.2.mountpoint": "/old",
    "fs.2.fstype": "xfs",
    "if.count": 2,
    "if.0.name": "lo",
    "if.0.addr.count": 1,
    "if.0.addr.0.type": "ipv4",
    "if.0.addr.0.addr": "127.0.0.1",
    "if.0.addr.0.prefix": 8,
    "if.1.name": "eth0",
    "if.1.hwaddr": "52:54:00:AA:00:01",
    "if.1.addr.0.addr": "192.0.2.7",
    "if.1.addr.0.prefix": 24,
    "if.1.addr.1.addr": "2001:DB8:0:0::7",
    "if.1.addr.1.prefix": 64,
    "if.1.addr.2.addr": "fe80::1%eth0",
    "if.1.addr.3.addr": "192.0.2.7",
}
SAMPLE = GuestSample(
    cut=0,
    dropped=0,
    os_id="debian",
    os_pretty_name="Debian GNU/Linux 12 (bookworm)",
    os_version_id="12",
    os_kernel_release="6.1.0",
    os_machine="x86_64",
    hostname="web-1",
    load1=0.5,
    load5=0.25,
    load15=0.125,
    filesystems=[
        GuestFilesystem(mountpoint="/", fstype="ext4", total_bytes=100, used_bytes=40, device="vda1"),
        GuestFilesystem(mountpoint="/old", fstype="xfs"),
    ],
    interfaces=[
        GuestInterface(name="lo"),
        GuestInterface(
            name="eth0",
            mac="52:54:00:aa:00:01",
            addresses=[
                GuestAddress(address="192.0.2.7", family="ipv4", prefix=24),
                GuestAddress(address="2001:db8::7", family="ipv6", prefix=64),
                GuestAddress(address="fe80::1", family="ipv6"),
            ],
        ),
    ],
    address_source="agent",
)


def test_an_honest_answer() -> None:
    """Under the record's names; addresses canonical, once each, and none that reaches only the guest itself."""
    assert sample_of(ANSWER) == SAMPLE
    assert [one.mountpoint for one in sample_of(ANSWER, pseudo=True).filesystems] == ["/", "/run", "/old"]


@pytest.mark.parametrize(
    ("total", "used"), [(100, 101), (-1, -1), (2**60 + 1, 0), (2**63, 2**63), ("100", 1), (True, False), (100, None), (1.5, 1)]
)
def test_sizes_that_can_not_be_true(total: object, used: object) -> None:
    """Cost their filesystem, which is counted."""
    sample = sample_of({"fs.0.mountpoint": "/", "fs.0.total-bytes": total, "fs.0.used-bytes": used})
    assert (sample.filesystems, sample.dropped) == ([], 1)


def test_a_host_name_of_three_megabytes() -> None:
    """Is cut, and what can't be shown is replaced."""
    sample = sample_of({"hostname": 'a"\n\\\u202e\x1b[31m\u0085\ud800' * 300_000})
    assert len(sample.hostname) == 128
    assert sample.hostname.startswith('a"\ufffd\\\ufffd\ufffd[31m\ufffd\ufffd')
    assert sample.cut == 1


def test_too_much_is_cut_and_counted() -> None:
    """Of filesystems, interfaces, and an interface's addresses."""
    info: dict[str, object] = {f"fs.{n}.mountpoint": f"/{n}" for n in range(40)}
    info |= {f"if.{n}.name": f"eth{n}" for n in range(10_000)}
    info |= {f"if.{n}.addr.0.addr": "192.0.2.1" for n in range(1, 10_000)}
    info |= {f"if.0.addr.{n}.addr": f"10.0.0.{n}" for n in range(20)}
    sample = sample_of(info)
    assert (len(sample.filesystems), len(sample.interfaces), len(sample.interfaces[0].addresses)) == (32, 32, 16)
    assert sample.cut == 8 + 9968 + 4


def test_interfaces_without_an_address_take_no_place_of_others() -> None:
    """A container host tells hundreds before the one that counts; those that show nothing are not told as cut."""
    info: dict[str, object] = {f"if.{n}.name": f"veth{n}" for n in range(500)}
    info |= {"if.500.name": "eth0", "if.500.addr.0.addr": "192.0.2.1", "if.501.name": "eth1", "if.501.addr.0.addr": "192.0.2.2"}
    sample = sample_of(info)
    assert [one.name for one in sample.interfaces[-3:]] == ["veth29", "eth0", "eth1"]
    assert (len(sample.interfaces), sample.cut) == (32, 0)


def test_interfaces_that_nobody_else_reaches_take_no_place_of_others() -> None:
    """The virtual ones of containers have a link-local address each; a network card that was plugged in later comes behind them."""
    info: dict[str, object] = {f"if.{n}.name": f"veth{n}" for n in range(40)}
    info |= {f"if.{n}.addr.0.addr": f"fe80::{n + 1:x}" if n % 2 else "169.254.0.1" for n in range(40)}
    info |= {"if.40.name": "eth1", "if.40.addr.0.addr": "fe80::ff", "if.40.addr.1.addr": "192.0.2.1", "if.41.name": "veth41"}
    sample = sample_of(info)
    assert [one.name for one in sample.interfaces] == [*(f"veth{n}" for n in range(31)), "eth1"]
    assert sample.cut == 9


def mounted(*mountpoints: str, device: str = "vda1", **more: object) -> dict[str, object]:
    info: dict[str, object] = dict(more)
    for n, mountpoint in enumerate(mountpoints):
        info |= {f"fs.{n}.name": device, f"fs.{n}.mountpoint": mountpoint, f"fs.{n}.fstype": "ext4"}
        info |= {f"fs.{n}.total-bytes": 100, f"fs.{n}.used-bytes": 40 + n}
    return info


def test_bind_mounts_of_one_disk_are_one_filesystem() -> None:
    """Under its shortest mountpoint, with its device; without a device's name each mountpoint is a filesystem."""
    binds = mounted("/srv/www/data", "/data", "/export/data")
    assert [(one.mountpoint, one.device, one.used_bytes) for one in sample_of(binds).filesystems] == [("/data", "vda1", 41)]
    other = {"fs.7.name": "vdb", "fs.7.mountpoint": "/other", "fs.7.fstype": "xfs"}
    assert [one.device for one in sample_of(binds | other).filesystems] == ["vda1", "vdb"]
    assert len(sample_of(mounted("/a", "/b", device="")).filesystems) == 2
    assert sample_of(binds).cut == sample_of(binds).dropped == 0


POD = "/var/lib/kubelet/pods/5f0b4a6e-0f57-4d0c-9a43-6d0f6f2a8b01"


@pytest.mark.parametrize(
    "mountpoint",
    [
        f"{POD}/volumes/kubernetes.io~csi/pvc-1/mount",
        f"{POD}/volume-subpaths/config/app/0",
        "/var/snap/microk8s/common/var/lib/kubelet/pods/1/volumes/x",
        "/run/containerd/io.containerd.runtime.v2.task/k8s.io/abc/rootfs",
        "/run/k3s/containerd/io.containerd.grpc.v1.cri/sandboxes/abc/shm",
        "/var/run/docker/netns/abc",
        "/var/lib/docker/overlay2/abc/merged",
        "/var/lib/docker/containers/abc/mounts/shm",
        "/var/lib/containers/storage/overlay/abc/merged",
    ],
)
def test_mountpoints_of_containers_are_left_out(mountpoint: str) -> None:
    """Each pod would be a series of its own; a setting shows them. They do not stand for the disk they are of either."""
    info = mounted(mountpoint, "/a/longer/mountpoint/than/all/of/the/others/" + "x" * 80)
    assert [one.mountpoint for one in sample_of(info).filesystems] == [info["fs.1.mountpoint"]]
    assert sample_of(info).cut == 0
    assert [one.mountpoint for one in sample_of(info, containers=True).filesystems] == [mountpoint]


@pytest.mark.parametrize(
    "mountpoint",
    [
        "/var/lib/docker",
        "/var/lib/containerd",
        "/var/lib/kubelet",
        "/var/lib/containers/storage",
        "/var/lib/docker/volumes/db/_data",
        "/srv/pods/a",
    ],
)
def test_disks_that_containers_live_on_are_shown(mountpoint: str) -> None:
    assert [one.mountpoint for one in sample_of(mounted(mountpoint)).filesystems] == [mountpoint]


def test_other_parts() -> None:
    """CPUs, and addresses that libvirt tells by itself."""
    assert (cpus_of(4).cpus, cpus_of(0).cpus, cpus_of(2**40).dropped, cpus_of("4").cpus) == (4, -1, 1, -1)
    lease = {"vnet0": {"addrs": [{"addr": "192.0.2.9", "prefix": 24, "type": 0}], "hwaddr": "52:54:00:00:00:09"}}
    told = address_of_interfaces(lease, AddressSource.LEASE)
    assert (told.address_source, told.interfaces[0].name, told.interfaces[0].addresses[0].address) == ("lease", "vnet0", "192.0.2.9")
    assert address_of_interfaces({"vnet0": {"addrs": None, "hwaddr": None}}, AddressSource.ARP).address_source == ""
    assert merged([sample_of({"hostname": "a"}), cpus_of(2)]) == GuestSample(cut=0, dropped=0, hostname="a", cpus=2)


CHANNEL = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'{}/></channel>"


@pytest.mark.parametrize(
    ("xml", "look"),
    [
        (f"<domain><devices>{CHANNEL.format(' state=' + repr('connected'))}</devices></domain>", Look("connected")),
        (f"<domain><devices>{CHANNEL.format('')}</devices></domain>", Look("disconnected")),
        ("<domain><devices><channel><target name='other' state='connected'/></channel></devices></domain>", Look()),
        ("<domain><devices><memballoon model='none'><stats period='5'/></memballoon></devices></domain>", Look()),
        ("<domain><devices><memballoon model='virtio'/></devices></domain>", Look(balloon=True)),
        ("<domain><devices><memballoon model='virtio'><stats period='5'/></memballoon></devices></domain>", Look("", True, 5)),  # noqa: FBT003
        ("<domain><devices><memballoon><stats period='x'/></memballoon></devices></domain>", Look(balloon=True)),
        ("<domain><metadata><a:b xmlns:a='urn:x'/></metadata></domain>", Look(metadata=["urn:x"])),
        ("<domain>", Look()),
        ("<domain>\ud800</domain>", Look()),
    ],
)
def test_looks(xml: str, look: Look) -> None:
    """What can't be read allows nothing."""
    assert look_of(xml) == look


@pytest.mark.parametrize(
    ("number", "text", "seconds", "reason"),
    [
        (86, "Guest agent is not responding: QEMU guest agent is not connected", 0.0, GuestReason.DISCONNECTED),
        (86, "Guest agent is not responding: Guest agent not available for now", 2.0, GuestReason.TIMEOUT),
        (112, "guest agent didn't respond to command within '2' seconds", 2.0, GuestReason.TIMEOUT),
        (68, "Timed out during operation: cannot acquire state change lock", 30.0, GuestReason.BUSY),
        (1, "unable to execute QEMU agent command 'guest-get-osinfo': The command has been disabled", 0.1, GuestReason.BLOCKED),
        (
            1,
            "unable to execute QEMU agent command 'guest-get-osinfo': The command guest-get-osinfo has not been found",
            0.1,
            GuestReason.BLOCKED,
        ),
        (1, "internal error: guest-get-osinfo reply was missing return data", 0.1, GuestReason.MALFORMED),
        (97, "guest agent replied with wrong id", 0.1, GuestReason.MALFORMED),
        (42, "Domain not found", 0.0, GuestReason.NOT_RUNNING),
        (55, "Requested operation is not valid: domain is not running", 0.0, GuestReason.NOT_RUNNING),
        (3, "this function is not supported by the connection driver", 0.0, GuestReason.BLOCKED),
        (29, "operation forbidden", 0.0, GuestReason.FAILED),
        (0, "", 0.0, GuestReason.FAILED),
    ],
)
def test_why_a_call_brought_nothing(number: int, text: str, seconds: float, reason: GuestReason) -> None:
    """By libvirt's number; by its words only where that leaves it open."""
    assert reason_of(number, text, seconds, 2.0) is reason


def test_an_answer_of_nothing_is_a_wait_in_vain() -> None:
    """Libvirt says so of an agent that is in step and then falls silent; one that says nothing at once has answered badly."""
    assert reason_of_nothing(2.0, 2.0) is GuestReason.TIMEOUT
    assert reason_of_nothing(0.01, 2.0) is GuestReason.MALFORMED


def test_each_answer_ages_by_itself() -> None:
    """The oldest tells the age of all that is shown; what is too old is gone, and the rest stays."""
    held = Held(bound=100.0)
    held.keep("vm", Command.HOSTNAME, Part(GuestSample(cut=1, dropped=0, hostname="h"), started=1000.0, at=0.0))
    held.keep("vm", Command.CPUS, Part(GuestSample(cut=0, dropped=2, cpus=2), started=1050.0, at=50.0))
    held.note("vm", 60.0, up=1, reason="")
    told = held.samples(60.0)["vm"]
    assert (told.hostname, told.cpus, told.taken, told.cut, told.dropped, told.agent_up) == ("h", 2, 1000.0, 1, 2, 1)
    told = held.samples(101.0)["vm"]
    assert (told.hostname, told.cpus, told.taken, told.cut) == ("", 2, 1050.0, 0)
    held.note("vm", 140.0, up=0, reason="timeout")
    told = held.samples(160.0)["vm"]
    assert (told.cpus, told.taken == told.taken, told.cut, told.agent_up, told.reason) == (-1, False, -1, 0, "timeout")
    assert held.samples(241.0) == {}


def test_the_agents_addresses_come_before_libvirts() -> None:
    """As long as they are fresh."""
    held = Held(bound=100.0)
    held.keep("vm", Command.INTERFACES, Part(sample_of({"if.0.name": "eth0", "if.0.addr.0.addr": "192.0.2.1"}), started=1000.0, at=0.0))
    lease = address_of_interfaces({"vnet0": {"addrs": [{"addr": "192.0.2.2"}]}}, AddressSource.LEASE)
    held.keep("vm", Command.LEASE, Part(lease, started=1090.0, at=90.0))
    held.note("vm", 90.0, up=0, reason="timeout")
    assert held.samples(95.0)["vm"].address_source == "agent"
    told = held.samples(150.0)["vm"]
    assert (told.address_source, told.addresses_taken, [one.name for one in told.interfaces]) == ("lease", 1090.0, ["vnet0"])
    held.renew("vm")
    assert held.samples(150.0)["vm"].interfaces == []


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", FRAME_BYTES + 1),
        struct.pack(">I", 3) + b"abc",
        struct.pack(">I", 0),
        encoded(Start("uri", 1, 1, 1.0, 1, 1, 0, pseudo_filesystems=False)),
    ],
    ids=["too large", "no MessagePack", "empty", "not the process's"],
)
def test_bytes_that_are_no_frame(data: bytes) -> None:
    """Are refused, whatever they are."""
    with pytest.raises(BrokenFrameError):
        list(Reader(of_process=True).frames(data))


def test_a_frame_is_bounded_where_it_is_made() -> None:
    """Nothing larger is sent."""
    with pytest.raises(BrokenFrameError):
        encoded(Start("u" * FRAME_BYTES, 1, 1, 1.0, 1, 1, 0, pseudo_filesystems=False))
    assert msgspec.msgpack.decode(encoded(Start("u", 1, 1, 1.0, 1, 1, 0, pseudo_filesystems=False))[4:])["uri"] == "u"
