"""The API's answers: rows, filters, sums, one VM with its devices."""

from __future__ import annotations

import msgspec
import pytest

from tests.support.fleet_samples import GIB, HOSTILE, Taken, busy, described, lasting, migration, seen_twice, taken, updated
from tests.support.vm_samples import INTERVAL, WALL, fleet, sample, status, uuid
from virtflow.exporter.api.answers import Answers
from virtflow.exporter.api.endpoints import BY_NAME
from virtflow.exporter.api.parameters import Values, parse
from virtflow.exporter.views.fleet_view import FleetView
from virtflow.schemas.fields import BlockMetrics, VcpuMetrics
from virtflow.schemas.records import Disk, GuestFilesystemMetrics, GuestMetrics, Nic, NodeHealth

COUNT = 120
NOW = WALL + 12.0


def answers(view: FleetView) -> Answers:
    return Answers(view, "run", "0.1.0", lambda: "")


@pytest.fixture(scope="module")
def told() -> Answers:
    """120 VMs on three nodes; one is stuck, one migrates, two are paused."""
    view = seen_twice(fleet(), COUNT)
    special: list[Taken] = [
        busy(3, 2, responsive=0),
        busy(4, 2, state=3, state_reason=1),
        busy(5, 2, state=3, state_reason=5),
        migration(6),
    ]
    view.fleet.changes.open()
    taken(view.fleet, special, 2 * INTERVAL)
    return answers(updated(view, 2 * INTERVAL))


def values(name: str, **given: str) -> Values:
    return parse(BY_NAME[name].parameters, given.items())


def names(told: Answers, **given: str) -> list[str]:
    return [row.name for row in told.vms(values("vms", **given), NOW).items]


def test_a_row_has_rates_shares_ages_and_flags(told: Answers) -> None:
    (row,) = told.vms(values("vms", filter="vm-00010"), NOW).items
    assert (row.uuid, row.node, row.project, row.title, row.state, row.reason) == (
        uuid(10),
        "node-1",
        "project-3",
        "Title 10",
        "running",
        "booted",
    )
    assert row.vcpus == 2
    assert row.cpu_cores == pytest.approx(0.5)
    assert row.cpu_ratio == pytest.approx(0.25)
    assert row.steal_ratio == pytest.approx(0.025)
    assert (row.memory_used_bytes, row.memory_bytes, row.memory_source) == (GIB + 10_240, 4 * GIB, "host")
    assert row.memory_ratio == pytest.approx(0.25, abs=0.001)
    assert row.disk_read_latency_seconds == pytest.approx(0.001)
    assert row.network_transmit_bytes_per_second == pytest.approx(22 * 1024)
    assert (row.sample_age_seconds, row.monitor_age_seconds, row.rate_seconds) == (2.0, 2.0, 10.0)
    assert (row.flags, row.history) == ([], [])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"sort": "-cpu", "limit": "3"}, ["vm-00119", "vm-00079", "vm-00039"]),
        ({"sort": "cpu", "limit": "2"}, ["vm-00000", "vm-00040"]),
        ({"sort": "-network", "limit": "1"}, ["vm-00119"]),
        ({"sort": "-memory", "limit": "1"}, ["vm-00119"]),
        ({"flag": "stuck"}, ["vm-00003"]),
        ({"flag": "migrating"}, ["vm-00006"]),
        ({"state": "paused"}, ["vm-00004", "vm-00005"]),
        ({"node": "node-3", "limit": "2"}, ["vm-00100", "vm-00101"]),
        ({"project": "project-2", "limit": "2"}, ["vm-00002", "vm-00009"]),
        ({"project": f"{2:032x}", "limit": "1"}, ["vm-00002"]),
        ({"filter": "TITLE 11", "limit": "2"}, ["vm-00011", "vm-00110"]),
        ({"filter": uuid(7)}, ["vm-00007"]),
        ({"filter": "nothing like it"}, []),
    ],
)
def test_vms_are_sorted_and_chosen(told: Answers, given: dict[str, str], expected: list[str]) -> None:
    assert names(told, **given) == expected


def test_pages_count_what_there_is_and_what_was_chosen(told: Answers) -> None:
    first = told.vms(values("vms", node="node-1", limit="30"), NOW)
    assert (first.total, first.matched, len(first.items)) == (COUNT, 50, 30)
    second = told.vms(values("vms", node="node-1", limit="30", after=first.next), NOW)
    assert (len(second.items), second.next) == (20, "")
    assert second.items[0].name == "vm-00030"


def test_the_fleet_in_numbers(told: Answers) -> None:
    found = told.fleet(NOW)
    assert (found.vms, found.states, found.stuck, found.migrating, found.conflicts) == (COUNT, {"running": 118, "paused": 2}, 1, 1, 0)
    assert (found.nodes.known, found.nodes.up, found.nodes.down, found.nodes.hung) == (3, 3, 0, 0)
    assert found.cpu_cores == pytest.approx(3 * sum(range(40)) / 20)
    assert found.memory_bytes == COUNT * 4 * GIB
    assert found.vcpus == 240
    assert [top.name for top in found.top["cpu"][:2]] == ["vm-00119", "vm-00079"]
    assert found.top["network"][0].value == pytest.approx(3 * 120 * 1024)
    assert (found.projects[0].project, found.projects[0].vms) == ("project-0", 18)
    assert found.last_event == "run-4"


def test_a_change_keeps_its_time() -> None:
    """However old the fleet's own time is when somebody asks; a wall clock that is set moves all of them."""
    view = seen_twice(fleet(), 1)
    view.fleet.changes.open()
    taken(view.fleet, [busy(0, 2, responsive=0)], 2 * INTERVAL)
    told = answers(updated(view, 2 * INTERVAL))

    def at(wall: float) -> float:
        return told.events(values("events"), wall).items[0].time

    first = at(NOW)
    assert [at(NOW + late) for late in (0.4, 0.0, 0.3)] == [first] * 3
    assert at(NOW - 100.0) == first - 100.0
    assert at(NOW + 3_600.0) == first + 3_600.0


def test_a_fleet_without_anything_is_unknown_not_zero() -> None:
    found = answers(updated(FleetView(fleet()), 0.0)).fleet(WALL)
    assert (found.vms, found.cpu_cores, found.memory_used_bytes, found.top["cpu"], found.last_event) == (0, None, None, [], "")


def test_nodes_have_what_their_vms_use(told: Answers) -> None:
    found = told.nodes(values("nodes", sort="-vms"), NOW)
    assert [(row.node, row.vms, row.stuck, row.up) for row in found.items] == [
        ("node-2", 50, 0, True),
        ("node-1", 50, 1, True),
        ("node-3", 20, 0, True),
    ]
    assert found.items[2].cpu_cores == pytest.approx(sum(range(20, 40)) / 20)
    one = told.node("node-1", NOW)
    assert one is not None
    assert (one.running, one.libvirt_version) == (48, "9.0.0")
    assert told.node("nowhere", NOW) is None


def test_nodes_that_are_down_or_have_hung_calls() -> None:
    view = FleetView(fleet())
    taken(
        view.fleet,
        [status("a"), status("b", health=NodeHealth(up=0)), status("c", interval=1.0), status("d", health=NodeHealth(up=1, hung_calls=2))],
        0.0,
    )
    told = answers(updated(view, 5.0))
    assert [(row.node, row.reason) for row in told.nodes(values("nodes", state="down"), NOW).items] == [
        ("b", "no libvirt"),
        ("c", "silent"),
    ]
    assert [row.node for row in told.nodes(values("nodes", state="up"), NOW).items] == ["a", "d"]
    assert [row.node for row in told.nodes(values("nodes", state="hung"), NOW).items] == ["d"]
    assert told.fleet(NOW).nodes.hung == 1


def test_one_vm_has_its_devices_with_their_rates() -> None:
    view = seen_twice(fleet(), 30)
    guest = GuestMetrics(
        agent_up=1, hostname="h", os_pretty_name="Debian", filesystems=[GuestFilesystemMetrics(mountpoint="/", size_bytes=10, free_bytes=4)]
    )
    view.fleet.take_inventory(
        described(
            20,
            sequence=1,
            user="anna",
            disks=[Disk(device="vda", source="/images/a", bus="virtio")],
            nics=[Nic(device="vnet20", mac="52:54")],
        ),
        10.0,
    )
    view.fleet.take_metrics(busy(20, 2, guest=[guest]), 20.0)
    view.fleet.take_migration(migration(20), 20.0)
    found = answers(updated(view, 20.0)).vm(uuid(20), NOW)
    assert found is not None
    assert (found.user, found.hostname, found.os, found.agent_up) == ("anna", "h", "Debian", True)
    (disk,) = found.disks
    assert (disk.device, disk.source, disk.bus, disk.capacity_bytes) == ("vda", "/images/a", "virtio", 20 * GIB)
    assert disk.read_requests_per_second == 20.0
    assert disk.flush_latency_seconds == pytest.approx(0.01)
    (nic,) = found.interfaces
    assert (nic.mac, nic.receive_packets_per_second, nic.error_packets_per_second) == ("52:54", 10.0, 0.0)
    assert [(vcpu.vcpu, vcpu.state) for vcpu in found.virtual_cpus] == [(0, "running"), (1, "running")]
    assert found.virtual_cpus[0].cpu_ratio == pytest.approx(0.5)
    assert found.migration is not None
    assert (found.migration.progress_ratio, found.migration.converging) == (0.25, True)
    assert [one.mountpoint for one in found.filesystems] == ["/"]
    assert answers(view).vm(uuid(999), NOW) is None


def test_what_is_absent_is_null_in_json() -> None:
    """Never -1, NaN or 0."""
    view = FleetView(fleet())
    bare = sample(
        cpu_seconds_total=NAN,
        memory_rss_bytes=-1,
        vcpus_current=-1,
        guest_memory_free_bytes=-1,
        monitor_collected=NAN,
        state=-1,
        blocks=[BlockMetrics(device="vda")],
        networks=[],
        vcpus=[VcpuMetrics(vcpu=0)],
    )
    view.fleet.take_metrics(bare, 0.0)
    told = answers(updated(view, 0.0))
    row = msgspec.json.decode(msgspec.json.encode(told.vms(values("vms"), NOW)))["items"][0]
    numbers = {name: value for name, value in row.items() if value is None or isinstance(value, float | int)}
    assert {name for name, value in numbers.items() if value is not None} == {"collected", "sample_age_seconds"}
    assert row["state"] == "unknown"
    detail = msgspec.json.encode(told.vm(uuid(1), NOW)).decode()
    assert ":-1" not in detail
    assert "NaN" not in detail


NAN = float("nan")


def test_migrations_newest_first_and_by_node(told: Answers) -> None:
    view = FleetView(fleet())
    taken(view.fleet, [migration(1), migration(2, "completed", ended_timestamp_seconds=WALL + 9), migration(60, "failed")], 0.0)
    found = answers(updated(view, 0.0))
    assert [one.name for one in found.migrations(values("migrations"), NOW).items] == ["vm-00060", "vm-00002", "vm-00001"]
    assert [one.name for one in found.migrations(values("migrations", result="running"), NOW).items] == ["vm-00001"]
    assert [one.name for one in found.migrations(values("migrations", node="node-3"), NOW).items] == ["vm-00060"]
    assert found.migrations(values("migrations", filter="00002"), NOW).items[0].ended == WALL + 9
    assert told.migrations(values("migrations"), NOW).total == 1


def test_events_newest_first_or_after_an_id(told: Answers) -> None:
    newest = told.events(values("events", limit="2"), NOW)
    assert [event.kind for event in newest.items] == ["migration_started", "vm_state"]
    assert newest.next == "run-4"
    later = told.events(values("events", after="run-2"), NOW)
    assert ([event.id for event in later.items], later.lost, later.next) == (["run-3", "run-4"], False, "run-4")
    assert told.events(values("events", after="other-2"), NOW).lost
    assert [event.name for event in told.events(values("events", kind="vm_stuck"), NOW).items] == ["vm-00003"]
    assert told.events(values("events", vm=uuid(4)), NOW).items[0].after == "paused"
    assert told.events(values("events", node="node-2"), NOW).items[0].kind == "migration_started"
    assert told.events(values("events", filter="00005"), NOW).items[0].uuid == uuid(5)


def test_names_of_tenants_are_told_as_they_are() -> None:
    """The API escapes nothing but what JSON must: whoever shows a name escapes it."""
    view = FleetView(fleet())
    view.fleet.take_metrics(sample(name=HOSTILE), 0.0)
    assert answers(updated(view, 0.0)).vms(values("vms", filter="<SCRIPT>"), NOW).items[0].name == HOSTILE


@pytest.mark.parametrize(("now", "end"), [(125.0, 120.0), (120.0, 120.0), (179.75, 120.0)])
def test_an_hour_ends_with_a_minute_of_the_fleet_s_clock(now: float, end: float) -> None:
    """The newest point's time is told, in Unix seconds, wherever in a minute one asks."""
    view = FleetView(fleet())
    taken(view.fleet, lasting([busy(0, 0)]), now)
    updated(view, now)
    found = answers(view).vm(uuid(0), WALL + now)
    assert found is not None
    assert found.hour_end == WALL + end
