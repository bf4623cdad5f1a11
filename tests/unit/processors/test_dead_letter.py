"""A dead letter's headers, and the share of them at which processing stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtflow.processors.dead_letter import Message, TooManyUndecodableError, Window, dead_letter
from virtflow.schemas.errors import Reason, UndecodableError
from virtflow.schemas.topics import DEAD_LETTERS

DEFECT = "defect"

MESSAGE = Message(topic="vm.snapshots", partition=3, offset=42, key=b"node-1", value=b"\x00garbage", timestamp=1000.0)


def test_a_dead_letter_keeps_the_original_and_says_where_it_came_from() -> None:
    letter = dead_letter(MESSAGE, UndecodableError(Reason.TRUNCATED, "ends early"), 1_795_476_243.7)
    assert (letter.topic, letter.key, letter.value) == (DEAD_LETTERS, b"node-1", b"\x00garbage")
    assert dict(letter.headers) == {
        "topic": b"vm.snapshots",
        "partition": b"3",
        "offset": b"42",
        "reason": b"truncated",
        "detail": b"ends early",
        "time": b"1795476243.700",
        "size": b"8",
    }


def test_our_own_failure_is_a_reason_too() -> None:
    """A message that makes our code fail must not stop the stream indefinitely: it is kept with the failure's name."""
    headers = dict(dead_letter(MESSAGE, ZeroDivisionError("by zero"), 0.0).headers)
    assert (headers["reason"], headers["detail"]) == (DEFECT.encode(), b"ZeroDivisionError: by zero")


def test_what_no_topic_would_take_is_cut_and_its_size_told() -> None:
    large = Message("t", 0, 0, b"k" * 50_000, b"v" * 10_000_000, 0.0)
    letter = dead_letter(large, UndecodableError(Reason.TOO_LARGE, "10 MB"), 0.0)
    assert len(letter.key) + len(letter.value) < 1_000_000
    assert dict(letter.headers)["size"] == b"10000000"


def test_a_few_undecodable_messages_do_not_stop_processing() -> None:
    window = Window(100, 0.5)
    for number in range(10_000):
        window.note(MESSAGE, undecodable=number % 10 == 0)


def test_a_burst_at_the_start_is_measured_against_the_whole_window() -> None:
    """Ten bad messages of ten are no reason to stop when a window holds a hundred."""
    window = Window(100, 0.5)
    for _ in range(49):
        window.note(MESSAGE, undecodable=True)
    with pytest.raises(TooManyUndecodableError):
        window.note(MESSAGE, undecodable=True)


def test_the_share_is_taken_over_the_last_messages_only() -> None:
    """Old failures leave the window; the message one too many is named."""
    window = Window(10, 0.5)
    for undecodable in [True] * 4 + [False] * 10 + [True] * 4:
        window.note(MESSAGE, undecodable=undecodable)
    with pytest.raises(TooManyUndecodableError, match=r"5 of the last 10 .* vm\.snapshots\[3\] offset 42"):
        window.note(MESSAGE, undecodable=True)


def test_every_reason_is_explained() -> None:
    """An operator who meets a reason finds it on the page."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "processors.md").read_text()
    assert [reason for reason in (*Reason, DEFECT) if f"`{reason}`" not in page] == []
