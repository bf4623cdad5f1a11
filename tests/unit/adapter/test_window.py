"""What is kept of a VM: enough for a rate, however short or long its interval is."""

from __future__ import annotations

from tests.support.vm_samples import sample
from virtflow.adapter.samples.window import Window
from virtflow.schemas.records import VmMetrics

NAN = float("nan")


def sequences(window: Window) -> list[int]:
    return [one.record.sequence for one in window.samples]


def filled(count: int, interval: float, seconds: float = 60.0) -> Window:
    """A window after so many rounds."""
    window = Window()
    for number in range(count):
        window.add(sample(sequence=number, interval=interval), number * interval, seconds)
    return window


def test_samples_leave_when_they_are_older_than_the_window() -> None:
    assert sequences(filled(10, 10.0)) == [3, 4, 5, 6, 7, 8, 9]


def test_a_long_interval_has_three_of_it() -> None:
    assert sequences(filled(9, 300.0)) == [5, 6, 7, 8]


def test_a_short_interval_takes_no_more_room() -> None:
    """Spread over the window, the newest one always there."""
    for count in (600, 601, 607):
        window = filled(count, 0.1)
        assert len(window.samples) <= 8
        assert window.samples[-1].record.sequence == count - 1
        assert window.samples[-1].arrived - window.samples[0].arrived > 45.0


def test_the_last_sample_before_a_migration_stays() -> None:
    """It ends the stretch that the rate is made of."""
    window = Window()
    for number, node in enumerate(["a", "a", "b", "b", "b"]):
        window.add(sample(sequence=number, interval=1.0, node=node), float(number), 60.0)
    assert sequences(window) == [0, 1, 2, 4]


def test_the_last_answer_of_the_monitor_stays() -> None:
    window = Window()
    for number, monitor in enumerate([0.0, 1.0, NAN, NAN]):
        window.add(sample(sequence=number, interval=1.0, monitor_collected=monitor), float(number), 60.0)
    assert sequences(window) == [0, 1, 3]


def test_a_sample_is_added_once() -> None:
    window, record = Window(), sample()
    for _ in range(2):
        window.add(record, 20.0, 60.0)
    assert len(window.samples) == 1


def test_kept_records_are_the_samples_themselves() -> None:
    record: VmMetrics = sample()
    window = Window()
    window.add(record, 0.0, 60.0)
    assert window.samples[0].record is record
