"""How much memory is left: by control groups of both versions and by the machine, and when that is too little."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest

from virtflow.runtime.memory import RESERVE_BYTES, Memory, Pressure, release

MIB = 1 << 20
STAT_2 = "anon 1\ninactive_file 100\nactive_file 20\nslab_reclaimable 3\n"
STAT_1 = "rss 1\ntotal_inactive_file 100\ntotal_active_file 20\nslab_reclaimable 3\n"


def machine(root: Path, groups: str, available_kib: int = 1_000_000) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    (root / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:  {available_kib} kB\n")
    return root


def group(folder: Path, limit: str, used: int, *, version: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, text in zip(names, (limit, str(used)), strict=True):
        (folder / name).write_text(f"{text}\n")
    (folder / "memory.stat").write_text(STAT_2 if version == 2 else STAT_1)


def test_files_that_the_kernel_can_take_back_are_no_usage(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/a/b\n")
    group(root / "sys/fs/cgroup/a/b", "10000", 4000, version=2)
    assert Memory(root).room() == 10000 - 4000 + 123


def test_the_least_of_all_groups_above_counts(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/a/b\n")
    group(root / "sys/fs/cgroup/a/b", "max", 4000, version=2)
    group(root / "sys/fs/cgroup/a", "6000", 5000, version=2)
    assert Memory(root).room() == 6000 - 5000 + 123


def test_groups_of_version_one(tmp_path: Path) -> None:
    root = machine(tmp_path, "4:memory:/a\n3:cpu:/\n0::/\n")
    group(root / "sys/fs/cgroup/memory", "9223372036854771712", 1, version=1)
    group(root / "sys/fs/cgroup/memory/a", "10000", 4000, version=1)
    assert Memory(root).room() == 10000 - 4000 + 120


def test_a_container_that_sees_its_own_group_as_the_first(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/system.slice/of-the-host\n")
    group(root / "sys/fs/cgroup", "10000", 4000, version=2)
    assert Memory(root).room() == 10000 - 4000 + 123


def test_without_limit_it_is_what_the_machine_has(tmp_path: Path) -> None:
    assert Memory(machine(tmp_path, "0::/\n", available_kib=7)).room() == 7 * 1024


def test_where_nothing_says_there_is_no_limit(tmp_path: Path) -> None:
    assert Memory(tmp_path).room() == inf


def test_of_this_machine() -> None:
    assert 0 < Memory().room() < inf
    release()


class Room:
    """Memory that is left, and what was given back."""

    def __init__(self, left: float) -> None:
        """``left`` bytes."""
        self.left = left
        self.now = 0.0
        self.releases = 0
        self.releasable = 0.0

    def release(self) -> None:
        self.releases += 1
        self.left += self.releasable

    def pressure(self) -> Pressure:
        return Pressure(lambda: self.left, self.release, lambda: self.now)

    def look(self, pressure: Pressure) -> bool:
        self.now += 2.0
        return pressure.look()


def test_it_is_short_until_a_quarter_more_than_the_reserve_is_free() -> None:
    room = Room(RESERVE_BYTES)
    pressure = room.pressure()
    shorts = []
    for left in (1.0, 0.9, 1.2, 1.25, 1.0):
        room.left = left * RESERVE_BYTES
        shorts.append(room.look(pressure))
    assert shorts == [False, True, True, False, False]


def test_what_can_be_given_back_is_before_it_is_short() -> None:
    room = Room(RESERVE_BYTES / 2)
    room.releasable = RESERVE_BYTES
    pressure = room.pressure()
    assert not room.look(pressure)
    assert (room.releases, pressure.problem) == (1, "")


def test_the_problem_says_how_much_is_left() -> None:
    room = Room(RESERVE_BYTES / 2)
    pressure = room.pressure()
    assert room.look(pressure)
    assert "memory is short, 4 MiB are left" in pressure.problem


def test_the_kernel_is_asked_and_memory_given_back_now_and_then() -> None:
    """Not for each message: many come within a moment."""
    room = Room(0)
    pressure = room.pressure()
    assert [pressure.look() for _ in range(3)] == [True] * 3
    assert room.releases == 1
    room.left = 3 * RESERVE_BYTES
    assert pressure.look()
    room.now = 0.1
    assert not pressure.look()


@pytest.mark.parametrize("text", ["", "4:memory\n", "nonsense"])
def test_groups_that_nobody_understands(text: str, tmp_path: Path) -> None:
    assert Memory(machine(tmp_path, text, available_kib=7)).room() == 7 * 1024
