"""Which answer is shown: ordered by the begin of its call, each at most once, never an older time over a newer one."""

from __future__ import annotations

import math

import pytest

from virtflow.producer.records.merge import Exported, answered, newest, of_info, of_vcpus, reading
from virtflow.producer.types import Answer, Verdict, Vm

UUID = "96d39f50-15c8-409f-9a7f-d2f9b5cba981"
FINE = Verdict(responsive=True, probed=True)
RUNNING = Vm(UUID, "a", {"state.state": 1})


def monitor(began: float, cpu_time: int) -> Answer:
    data: dict[str, object] = {"cpu.time": cpu_time, "cpu.user": 1, "balloon.rss": 5, "vcpu.0.time": cpu_time, "vcpu.0.wait": 3}
    return Answer(data, began, 1000 + began)


def fill(began: float, cpu_time: int) -> Answer:
    return Answer({"cpu.time": cpu_time, "vcpu.0.time": cpu_time, "balloon.current": 9}, began, 1000 + began)


def test_a_monitor_answer_in_time_needs_no_fill() -> None:
    shown = Exported()
    assert not shown.needs_fill(RUNNING, monitor(1, 10))
    found = reading(RUNNING, monitor(1, 10), None, FINE, shown)
    assert (found.data["cpu.time"], found.monitor_collected) == (10, 1001)


def test_without_an_answer_the_fill_shows() -> None:
    shown = Exported()
    assert shown.needs_fill(RUNNING, None)
    found = reading(RUNNING, None, fill(1, 10), FINE, shown)
    assert found.data["cpu.time"] == 10
    assert math.isnan(found.monitor_collected)


def test_a_late_answer_is_shown_once_and_takes_no_time_back() -> None:
    shown = Exported()
    reading(RUNNING, None, fill(5, 50), FINE, shown)
    late = monitor(4, 40)
    assert shown.needs_fill(RUNNING, late)
    found = reading(RUNNING, late, fill(6, 60), FINE, shown)
    assert (found.data["cpu.time"], found.data["vcpu.0.time"], found.data["vcpu.0.wait"], found.monitor_collected) == (60, 60, 3, 1004)
    again = reading(RUNNING, late, fill(7, 70), FINE, shown)
    assert "cpu.user" not in again.data
    assert math.isnan(again.monitor_collected)


def test_a_late_answer_without_a_new_fill_shows_no_older_times() -> None:
    shown = Exported()
    reading(RUNNING, None, fill(5, 50), FINE, shown)
    found = reading(RUNNING, monitor(4, 40), None, FINE, shown)
    assert "cpu.time" not in found.data
    assert "vcpu.0.time" not in found.data
    assert found.data["cpu.user"] == 1


def test_an_answer_older_than_the_one_shown_is_dropped() -> None:
    shown = Exported()
    reading(RUNNING, monitor(5, 50), None, FINE, shown)
    assert not shown.usable(UUID, monitor(4, 40))
    assert "cpu.time" not in reading(RUNNING, monitor(4, 40), None, FINE, shown).data


def test_a_vm_that_went_is_forgotten() -> None:
    shown = Exported()
    reading(RUNNING, monitor(5, 50), fill(6, 60), FINE, shown)
    shown.keep({})
    assert (shown.monitor, shown.fill) == ({}, {})


@pytest.mark.parametrize(
    ("data", "expected"),
    [({"cpu.time": 1, "balloon.current": 1}, False), ({"balloon.rss": 1}, True), ({"block.12.rd.reqs": 0}, True), ({}, False)],
)
def test_only_a_call_that_held_the_job_lock_proves_life(data: dict[str, object], expected: bool) -> None:  # noqa: FBT001
    assert answered(data) is expected


def test_a_vm_that_is_shut_off_is_not_asked_again_for_its_cpu_time() -> None:
    off = Vm(UUID, "a", {"state.state": 5})
    assert not Exported().needs_fill(off, Answer({"balloon.current": 1}, 1, 1))
    assert Exported().needs_fill(off, None)


def test_the_fill_has_the_bulk_call_s_keys() -> None:
    info = (1, 2048, 1024, 2, 77)
    assert of_info(info, running=True) == {"balloon.maximum": 2048, "balloon.current": 1024, "vcpu.current": 2, "cpu.time": 77}
    assert "cpu.time" not in of_info(info, running=False)
    assert of_vcpus([(0, 1, 33, 0), (3, 2, 44, -1)]) == {"vcpu.0.state": 1, "vcpu.0.time": 33, "vcpu.3.state": 2, "vcpu.3.time": 44}


def test_of_two_answers_the_one_asked_later_counts_whatever_came_last() -> None:
    early, late = monitor(1, 10), monitor(2, 20)
    assert newest({"a": early}, {"a": late, "b": early}) == {"a": late, "b": early}
    assert newest({"a": late}, {"a": early}) == {"a": late}
