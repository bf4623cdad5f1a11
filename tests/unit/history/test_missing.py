"""A device ends where its VM is sampled without it, as in a Prometheus' own storage; not where the VM itself is silent."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.support.history_lives import Kept, vm_uuid
from virtflow.history.remote_read.protocol.wire import Asked, Match, Matcher
from virtflow.history.remote_read.reading.reader import Reader
from virtflow.runtime.settings import Settings
from virtflow.schemas.fields import BlockMetrics
from virtflow.schemas.records import VmMetrics
from virtflow.schemas.states import PAUSED, PAUSED_MIGRATION, RUNNING

START = 1_790_000_000 // 3_600 * 3_600
METRIC = "vm_block_read_bytes_total"


def sample(vm: int, at: int, disks: str, node: str = "here", state: tuple[int, int] = (RUNNING, 1)) -> VmMetrics:
    """A sample at ten seconds' interval of a VM with these disks, a letter each."""
    return VmMetrics(
        uuid=vm_uuid(vm),
        name=f"vm-{vm}",
        node=node,
        boot_id=node,
        sequence=at,
        collected=float(START + at),
        interval=10.0,
        state=state[0],
        state_reason=state[1],
        blocks=[BlockMetrics(device=f"vd{disk}", read_bytes_total=at) for disk in disks],
    )


def read(path: Path, samples: list[VmMetrics], until: int = 600, vm: int | None = None) -> dict[str, list[float]]:
    """Of each disk when it has values, and when it ends (negative)."""
    history = Kept(path)
    history.write(samples)
    matchers = [Matcher(Match.EQUAL, "__name__", METRIC), *([Matcher(Match.EQUAL, "name", f"vm-{vm}")] if vm else [])]
    found = Reader(history.store, Settings(history=history.settings)).read(Asked(START * 1000, (START + until) * 1000, tuple(matchers)))
    times = {dict(series.labels)["name"] + dict(series.labels)["device"]: series for series in found}
    return {
        name.removeprefix("vm-"): [
            -at if math.isnan(value) else at for at, value in zip((s.times / 1000 - START).tolist(), s.values.tolist(), strict=True)
        ]
        for name, s in times.items()
    }


def test_another_disk_shows_when(tmp_path: Path) -> None:
    """Unplugged and plugged in again: it ends between."""
    disks = {0: "ab", 10: "ab", 20: "a", 30: "ab", 40: "a", 50: "a"}
    assert read(tmp_path, [sample(1, at, named) for at, named in disks.items()]) == {
        "1vda": [0, 10, 20, 30, 40, 50, -80],
        "1vdb": [0, 10, -20, 30, -40],
    }


@pytest.mark.parametrize("asked", [None, 1])
def test_the_only_disk_ends_with_the_vm_s_next_sample(tmp_path: Path, asked: int | None) -> None:
    """Its kind has no other device; also where another VM is asked for with it."""
    samples = [sample(1, at, "a" if at < 20 or at == 40 else "") for at in range(0, 60, 10)]
    found = read(tmp_path, [*samples, *(sample(2, at + 3, "a") for at in range(0, 60, 10))], vm=asked)
    assert found.pop("1vda") == [0, 10, -20, 40, -50]
    assert found == ({} if asked else {"2vda": [3, 13, 23, 33, 43, 53, -83]})


def test_a_vm_that_is_silent_ends_after_three_intervals(tmp_path: Path) -> None:
    """It is gone with all its disks, for a while and for good; a sample after that time does not make it end later."""
    samples = [sample(1, at, "ab" if at < 200 else "") for at in (0, 10, 100, 110, 200)]
    assert read(tmp_path, samples) == {"1vda": [0, 10, -40, 100, 110, -140], "1vdb": [0, 10, -40, 100, 110, -140]}


def test_what_is_asked_for_no_more_has_not_ended(tmp_path: Path) -> None:
    samples = [sample(1, at, "a" if at < 30 else "") for at in range(0, 60, 10)]
    assert read(tmp_path, samples, until=29) == {"1vda": [0, 10, 20]}


def test_a_node_where_the_vm_only_arrives_ends_nothing(tmp_path: Path) -> None:
    """Its samples, without any disk, are not the VM's; those of the node where it runs are."""
    samples = [sample(1, at, "a" if at < 40 else "") for at in range(0, 60, 10)]
    arriving = [sample(1, at, "", "there", (PAUSED, PAUSED_MIGRATION)) for at in range(4, 64, 10)]
    assert read(tmp_path, [*samples, *arriving]) == {"1vda": [0, 10, 20, 30, -40]}
