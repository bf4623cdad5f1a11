"""The events' journal: nothing that was written is lost, and nothing that is wrong with it stops anything."""

from __future__ import annotations

import fcntl
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from virtflow.producer.publishing.journal import Entry, Journal
from virtflow.producer.publishing.journal_records import VERSION, header_of

BROKEN = "journal_broken"
DAMAGED = "journal_damaged"
FULL = "journal_full"
OTHER_VERSION = "journal_other_version"
SEGMENT_BYTES = 1 << 20
SUFFIX = ".events"

ROOT = Path(__file__).parents[3]
LIMIT = 8 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def opened(folder: Path, limit: int = LIMIT) -> Journal:
    found = Journal(folder, limit)
    found.open()
    return found


def replayed(found: Journal) -> list[bytes]:
    messages: list[bytes] = []
    while entries := found.left_behind():
        messages += [entry.message for entry in entries]
    return messages


def write(found: Journal, *messages: bytes) -> list[Entry]:
    entries = [found.append(b"uuid", message) for message in messages]
    return [entry for entry in entries if entry is not None]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def test_what_was_not_delivered_comes_again(folder: Path) -> None:
    """The next run gets what this one wrote and did not deliver, in order; delivered whole segments are gone."""
    first = opened(folder)
    entries = write(first, b"one", b"two", b"three")
    first.delivered(entries[1])
    assert (first.waiting, first.usable) == (2, True)
    first.close()
    second = opened(folder)
    assert replayed(second) == [b"one", b"two", b"three"]
    assert second.problems == {}


def test_all_delivered_leaves_nothing(folder: Path) -> None:
    first = opened(folder)
    for entry in write(first, b"one", b"two"):
        first.delivered(entry)
    first.close()
    assert segments(folder) == []
    assert replayed(opened(folder)) == []


def test_what_was_delivered_is_not_sent_again_after_a_kill(folder: Path) -> None:
    """As soon as nothing waits the newest segment is empty: a producer that is killed in peace repeats nothing."""
    first = opened(folder)
    for entry in write(first, b"one", b"two"):
        first.delivered(entry)
    write(first, b"three")
    killed = folder.parent / "killed"
    killed.mkdir()
    for path in segments(folder):
        (killed / path.name).write_bytes(path.read_bytes())
    assert replayed(opened(killed)) == [b"three"]


def test_a_replayed_segment_goes_when_it_is_delivered(folder: Path) -> None:
    first = opened(folder)
    write(first, b"one", b"two")
    first.close()
    second = opened(folder)
    while entries := second.left_behind():
        for entry in entries:
            second.delivered(entry)
    assert segments(folder) == []


def test_segments_stay_small_and_go_one_by_one(folder: Path) -> None:
    """Three segments of events; those of the first one delivered, its file is gone."""
    found = opened(folder)
    entries = write(found, *(b"x" * 1000 for _ in range(3 * SEGMENT_BYTES // 1000)))
    assert len(segments(folder)) >= 3
    first = entries[0].segment
    before = found.size_bytes
    for entry in entries:
        if entry.segment == first:
            found.delivered(entry)
    assert before - found.size_bytes >= SEGMENT_BYTES * 0.9
    assert not list(folder.glob(f"{first:012d}*"))


def test_full_takes_no_more_until_something_is_delivered(folder: Path) -> None:
    """The bound holds on the bytes of the disk; what does not fit is counted."""
    found = opened(folder, limit=2 * SEGMENT_BYTES)
    taken = []
    while (entry := found.append(b"uuid", b"x" * 10_000)) is not None:
        taken.append(entry)
    assert sum(path.stat().st_size for path in segments(folder)) == found.size_bytes <= 2 * SEGMENT_BYTES
    assert found.problems == {FULL: 1}
    assert "is full" in found.trouble
    for entry in taken[: len(taken) // 2 + 5]:
        found.delivered(entry)
    assert found.append(b"uuid", b"again") is not None
    assert found.trouble == ""


KILLED = """
import os, signal, sys
from pathlib import Path
from virtflow.producer.publishing.journal import Journal
journal = Journal(Path(sys.argv[1]), 1 << 20)
journal.open()
for number in range(100):
    journal.append(b"uuid", b"%d" % number)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_nothing(folder: Path) -> None:
    """Without any fsync: the kernel has what was written."""
    subprocess.run([sys.executable, "-c", KILLED, str(folder)], env={"PYTHONPATH": str(ROOT / ".types")}, check=False)
    assert replayed(opened(folder)) == [b"%d" % number for number in range(100)]


def test_a_flipped_bit_costs_the_event_it_hit_and_no_other(folder: Path) -> None:
    """Of 1,000 events 999 are replayed; one is counted and named."""
    messages = [b"%d" % number * 20 for number in range(1000)]
    first = opened(folder)
    write(first, *messages)
    first.close()
    (path,) = segments(folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 10] ^= 0x10
    path.write_bytes(data)
    second = opened(folder)
    found = replayed(second)
    assert len(found) == 999
    assert found == [message for message in messages if message in found]
    assert second.problems == {DAMAGED: 1}
    assert second.trouble == f"journal segment {path} is damaged: 1 of its events are lost"
    assert second.append(b"uuid", b"on") is not None


@pytest.mark.parametrize("bit", range(8 * len(header_of(VERSION))))
def test_a_flipped_bit_in_the_header_costs_nothing(folder: Path, bit: int) -> None:
    """The version's, too: the segment is not taken for one of another version."""
    first = opened(folder)
    write(first, b"one", b"two")
    first.close()
    (path,) = segments(folder)
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    second = opened(folder)
    assert replayed(second) == [b"one", b"two"]
    assert second.problems == {}


def test_a_segment_without_a_whole_event_goes(folder: Path) -> None:
    """Its loss is counted once: the next run does not find it again."""
    first = opened(folder)
    write(first, b"one")
    first.close()
    (path,) = segments(folder)
    path.write_bytes(path.read_bytes()[:-1])
    second = opened(folder)
    assert (replayed(second), second.problems) == ([], {DAMAGED: 1})
    second.close()
    third = opened(folder)
    assert (replayed(third), third.problems) == ([], {})


def test_a_newer_version_is_quarantined(folder: Path) -> None:
    """After a downgrade the newer release's events stay for it; ours are replayed."""
    first = opened(folder)
    write(first, b"ours")
    first.close()
    newer = folder / f"{99:012d}-00000000{SUFFIX}"
    newer.write_bytes(header_of(VERSION + 1) + b"whatever")
    second = opened(folder)
    assert replayed(second) == [b"ours"]
    assert second.problems == {OTHER_VERSION: 1}
    assert newer.with_name(newer.name + ".other-version").read_bytes().endswith(b"whatever")
    assert write(second, b"on")


def test_a_segment_of_the_first_version_is_quarantined_with_a_clear_message(folder: Path) -> None:
    folder.mkdir()
    old = folder / f"{1:012d}{SUFFIX}"
    old.write_bytes(b"virtflow events " + struct.pack(">H", 1) + b"entries")
    found = opened(folder)
    assert write(found, b"ours")
    assert replayed(found) == []
    assert found.problems == {OTHER_VERSION: 1}
    assert found.trouble == f"journal segment {old} is of version 1, not 2: its events are not sent, it is kept as {old.name}.other-version"
    assert not old.exists()


def test_a_folder_that_is_none_is_counted(tmp_path: Path) -> None:
    """A path that can't be a folder: every event is refused and counted, nothing is raised."""
    (tmp_path / "file").write_text("")
    found = opened(tmp_path / "file" / "journal")
    assert not found.usable
    assert found.append(b"uuid", b"x") is None
    assert found.problems == {BROKEN: 2}
    found.close()


def test_two_producers_never_share_one(folder: Path) -> None:
    first = opened(folder)
    second = opened(folder)
    assert (first.usable, second.usable) == (True, False)
    first.close()
    third = opened(folder)
    assert third.usable


def test_a_journal_that_is_locked_can_be_opened_again(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """However often it is tried, the log says it once, and once that it is over; nothing is counted as given up."""
    caplog.set_level("INFO")
    folder.mkdir()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = Journal(folder, LIMIT)
        for _ in range(3):
            found.open()
            assert (found.usable, found.locked) == (False, True)
    found.open()
    assert (found.usable, found.locked, found.problems) == (True, False, {})
    assert [record.getMessage() for record in caplog.records] == [
        f"journal {folder} can't be used, and is tried again: another process has its lock",
        f"journal {folder} is used from now on",
    ]


def test_a_folder_that_can_be_made_later_is_used_then(tmp_path: Path) -> None:
    """A file system that is mounted late: the failure is counted once, and what an earlier run left is found."""
    earlier = opened(tmp_path / "elsewhere")
    write(earlier, b"left")
    earlier.close()
    (tmp_path / "late").write_text("")
    found = Journal(tmp_path / "late" / "journal", LIMIT)
    for _ in range(3):
        found.open()
    assert (found.usable, found.locked, found.problems) == (False, False, {BROKEN: 1})
    (tmp_path / "late").unlink()
    (tmp_path / "late").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "late" / "journal")
    found.open()
    assert replayed(found) == [b"left"]
