"""A dead letter's content and headers."""

from __future__ import annotations

from pathlib import Path

from virtflow.processors.dead_letters.dead_letter import Message, dead_letter
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


def test_every_reason_is_explained() -> None:
    """An operator who meets a reason finds it on the page."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "processors.md").read_text()
    assert [reason for reason in (*Reason, DEFECT) if f"`{reason}`" not in page] == []
