"""Samples that are read together, in columns, become what they become one by one: the same text, events, order and counts."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.exporter_intake import Sent, Served, few_are_many, sent
from tests.support.guest_samples import told
from tests.support.vm_samples import WALL, filled, inventory, sample, status, uuid
from virtflow.schemas.catalogue.types import Scope
from virtflow.schemas.fields import BlockMetrics, KvmMetrics, NetworkMetrics, VcpuMetrics
from virtflow.schemas.records import VmMigration
from virtflow.schemas.topics import INVENTORY, METRICS, MIGRATIONS, NODES

NAN = math.nan
VMS = 4


@pytest.fixture(autouse=True)
def _few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    few_are_many(monkeypatch)


def device(name: str, sequence: int) -> NetworkMetrics:
    return NetworkMetrics(device=name, receive_bytes_total=100 + sequence, transmit_errors_total=-1)


def everything(sequence: int) -> dict[str, Any]:
    """Every number of a sample, of two devices of each kind."""
    first = 1000 * sequence
    return {
        **filled(Scope.VM, 100 + first),
        "state": 1,
        "state_reason": 2,
        "responsive": 1,
        "vcpus": [VcpuMetrics(vcpu=number, **filled(Scope.VCPU, 200 + 50 * number + first)) for number in (0, 2)],
        "networks": [NetworkMetrics(device=name, **filled(Scope.NETWORK, 400 + first)) for name in ("vnet0", "tap0123abcd-ef")],
        "blocks": [BlockMetrics(device=name, **filled(Scope.BLOCK, 600 + first)) for name in ("vda", "sdb")],
        "kvm": [KvmMetrics(vcpu=number, **filled(Scope.KVM, 800 + 50 * number + first)) for number in (0, 2)],
    }


def fields_of(what: str, sequence: int) -> dict[str, Any]:
    """The fields in which a sample differs from one with all devices."""
    return (
        everything(sequence)
        if what == "everything"
        else ODD.get(what, {}) | {"networks": [device("vnet0", sequence)]} | of_network(what, sequence)
    )


def of_network(what: str, sequence: int) -> dict[str, Any]:
    """The network devices of a sample, where they are others."""
    return {"networks": [device(name, sequence + at) for at, name in enumerate(NETWORKS[what])]} if what in NETWORKS else {}


OTHER = {"node": "node-2", "boot_id": "b2"}
ODD: dict[str, dict[str, Any]] = {
    "absent": {"cpu_seconds_total": NAN, "memory_rss_bytes": -1, "vcpus": [VcpuMetrics(vcpu=0), VcpuMetrics(vcpu=3)]},
    "odd": {"cpu_seconds_total": -0.0, "cpu_user_seconds_total": math.inf, "cpu_system_seconds_total": 1e-7, "memory_rss_bytes": 2**62},
    "no monitor": {"monitor_collected": NAN, "guest_memory_free_bytes": -1},
    "stuck": {"responsive": 0},
    "reason": {"state_reason": 5},
    "paused": {"state": 3},
    "left": {"state": 5, "state_reason": 3},
    "other node": OTHER,
    "incoming": {**OTHER, "state": 3, "state_reason": 2},
    "other run": {"boot_id": "boot-2"},
    "part": {"part": 1},
    "renamed": {"name": 'vm-\N{LATIN SMALL LETTER U WITH DIAERESIS} "x"'},
    "no state": {"state": -1, "state_reason": -1},
    "devices": {"vcpus": [VcpuMetrics(vcpu=1, seconds_total=3.5)], "blocks": []},
    "guest": {"guest": [told()]},
    "fast": {"interval": 1.0},
    "wrong": {"interval": 0.0},
}
NETWORKS = {
    "another": ["vnet1"],
    "long": ["a-name-of-a-device-that-is-long"],
    "sixteen": ["0123456789abcdef", "0123456789abcde"],
    "foreign": ["vn\N{LATIN SMALL LETTER E WITH ACUTE}t0"],
    "twice": ["vnet0", "vnet0"],
}
SAMPLES = (*["plain"] * 12, *["everything"] * 4, *ODD, *NETWORKS)
DAMAGED = ("cut", "flip", "nothing", "key")
OTHERS = ("inventory", "no inventory", "migration", "no migration", "status", "no node", *DAMAGED)


def message(what: str, number: int, sequence: int, place: int) -> Sent:
    """A message about the ``number``-th VM; ``place`` says where a damaged one is damaged."""
    if what in OTHERS:
        return damaged(what, number, sequence, place) if what in DAMAGED else another(what, number, sequence, place)
    times = {"cpu_seconds_total": 1.5 * sequence, "collected": WALL + sequence, "monitor_collected": WALL + sequence}
    return sent(sample(number, sequence, **{**times, **fields_of(what, sequence)}))


def another(what: str, number: int, sequence: int, place: int) -> Sent:
    """A message of another topic."""
    tombstones = {"no inventory": INVENTORY, "no migration": MIGRATIONS, "no node": NODES}
    if what in tombstones:
        return Sent(tombstones[what], (f"node-{number % 3}" if what == "no node" else uuid(number)).encode(), None)
    if what == "inventory":
        return sent(inventory(number, sequence, project=f"p{sequence % 2}"))
    if what == "status":
        return sent(status(f"node-{number % 3}", sequence))
    source, destination = ("node-1", "node-2")[:: 1 if sequence % 5 else -1]
    known: dict[str, Any] = {"id": str(place), "source": source, "destination": destination, "revision": sequence}
    known |= {
        "result": ("running", "completed", "failed")[sequence % 3],
        "resumed_timestamp_seconds": WALL + sequence if sequence % 2 else NAN,
    }
    return sent(VmMigration(uuid=uuid(number), **known))


def damaged(what: str, number: int, sequence: int, place: int) -> Sent:
    """A message that is none, or is not as it was sent."""
    whole = message("plain", number, sequence, place).content or b""
    at = place % len(whole)
    content = {
        "cut": whole[:at],
        "flip": whole[:at] + bytes([whole[at] ^ (1 << place % 8)]) + whole[at + 1 :],
        "nothing": None if place % 2 else b"no record",
        "key": whole,
    }
    return Sent(METRICS, b"another key" if what == "key" else uuid(number).encode(), content[what])


def both(labels: tuple[str, ...] = ("name",)) -> tuple[Served, Served]:
    return Served(together=False, labels=labels), Served(together=True, labels=labels)


def step(one: Served, other: Served, now: float, messages: list[Sent], *, read: bool) -> None:
    """The same messages at the same time to both; what can be read of them is the same."""
    for served in (one, other):
        served.now = now
        served.take(*messages)
        served.intake.settle()
    if read:
        assert other.text() == one.text()
        assert other.state() == one.state()
    else:
        assert list(other.fleet.changes.after(0)) == list(one.fleet.changes.after(0))


MESSAGES = st.tuples(st.sampled_from((*SAMPLES, *OTHERS)), st.integers(1, VMS), st.integers(0, 12), st.integers(0, 4_000))
BATCHES = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 5.0, 31.0]), st.lists(MESSAGES, max_size=12), st.booleans()), max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(BATCHES, st.sampled_from([("name",), ("name", "project")]))
def test_any_messages_in_any_order(batches: list[tuple[float, list[tuple[str, int, int, int]], bool]], labels: tuple[str, ...]) -> None:
    one, other = both(labels)
    now = 0.0
    step(one, other, now, [message("plain", number, 0, 0) for number in range(1, VMS + 1)], read=False)
    for pause, messages, read in batches:
        now += pause
        step(one, other, now, [message(*each) for each in messages], read=read)
    step(one, other, now, [], read=True)


def life(seed: int, rounds: int) -> Iterator[tuple[float, list[Sent]]]:
    """Rounds of a fleet in which most samples are plain, and now and then something happens to a VM."""
    chance = random.Random(seed)  # noqa: S311, chance is all it is
    for number in range(rounds):
        messages = []
        for vm in range(1, 30):
            for each in range(chance.choice((1, 1, 1, 3))):
                what = chance.choice(SAMPLES + OTHERS) if chance.random() < 0.04 else "everything" if vm % 3 else "plain"
                late = chance.choice((0, 0, 0, 0, 0, 0, 0, 2))
                messages.append(message(what, vm, 3 * number + each - (late if chance.random() < 0.1 else 0), chance.randrange(4_000)))
        yield 0.5 * number, messages


@pytest.mark.parametrize("seed", range(6))
def test_lives_of_a_fleet_of_which_most_is_in_columns(seed: int) -> None:
    """The columns are not idle: they hold most VMs, and few samples are read one by one."""
    one, other = both()
    kept = []
    for number, (now, messages) in enumerate(life(seed, 60)):
        step(one, other, now, messages, read=number % 3 == 0)
        kept.append(other.in_columns())
    assert sum(kept[2:]) > 0.7 * 29 * (len(kept) - 2)


def test_numbers_alone_differ_and_no_sample_is_read_by_itself() -> None:
    """After a VM's first sample, until somebody asks for a record."""
    one, other = both()
    for sequence in range(10):
        step(one, other, float(sequence), [message("everything", number, sequence, 0) for number in range(1, 6)], read=False)
    assert other.in_columns() == 5
    assert (one.codec.decoded, other.codec.decoded) == (50, 5)
    assert other.text() == one.text()
    assert other.codec.decoded == 5
    assert other.state() == one.state()
    assert other.codec.decoded == 10


def test_older_schemas_are_read_in_columns_too() -> None:
    """A released schema's samples beside the present one's, of the same VMs."""
    import io
    import json
    from pathlib import Path

    import fastavro
    import msgspec

    from virtflow.schemas.avro.codec import SINGLE_OBJECT_MAGIC, schema_fingerprint

    one, other = both()
    schema = json.loads((Path(__file__).parents[2] / "schemas" / "released" / "1" / "VmMetrics.avsc").read_text())
    parsed, header = fastavro.parse_schema(schema, named_schemas={}), SINGLE_OBJECT_MAGIC + bytes.fromhex(schema_fingerprint(schema))
    for sequence in range(6):
        out = io.BytesIO()
        record = sample(1, sequence, collected=WALL + sequence)
        fastavro.schemaless_writer(out, parsed, msgspec.to_builtins(record))
        old = Sent(sent(record).of, uuid(1).encode(), header + out.getvalue())
        step(one, other, float(sequence), [old if sequence % 2 else sent(record), message("plain", 2, sequence, 0)], read=True)
    assert other.in_columns() == 2
