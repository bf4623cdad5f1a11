"""The events' journal: nothing that was written is lost, and nothing that is wrong with it stops anything."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtflow.producer.publishing import journal
from virtflow.producer.publishing.journal import Entry, Journal

BROKEN = "journal_broken"
FULL = "journal_full"
NEWER = "journal_newer"
TRUNCATED = "journal_truncated"
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
    return [entry.message for entries in found.left_behind() for entry in entries]


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
    for entries in second.left_behind():
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
    assert f"{first:012d}{SUFFIX}" not in {path.name for path in segments(folder)}


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


@given(st.integers(1, 340), st.binary(max_size=8))
def test_a_damaged_end_costs_what_follows_only(tmp_path_factory: pytest.TempPathFactory, cut: int, garbage: bytes) -> None:
    """Truncated anywhere, or with garbage behind: what is whole before is replayed, the damage is counted once, the file goes."""
    folder = tmp_path_factory.mktemp("damaged")
    messages = [b"%d" % number * 20 for number in range(10)]
    first = opened(folder)
    write(first, *messages)
    first.close()
    path = segments(folder)[0]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - cut] + garbage)
    second = opened(folder)
    found = replayed(second)
    assert found == messages[: len(found)]
    whole = data[: len(data) - cut] + garbage
    assert second.problems.total() <= 1
    assert second.problems[TRUNCATED] == (len(found) < 10 and not _ends_cleanly(whole, len(found), messages))
    assert second.append(b"uuid", b"on") is not None


def _ends_cleanly(data: bytes, count: int, messages: list[bytes]) -> bool:
    size = len(journal.HEADER) + sum(journal.ENTRY.size + 4 + len(message) for message in messages[:count])
    return len(data) == size or not data


def test_a_flipped_bit_is_damage(folder: Path) -> None:
    first = opened(folder)
    write(first, b"a" * 50, b"b" * 50)
    first.close()
    path = segments(folder)[0]
    data = bytearray(path.read_bytes())
    data[-60] ^= 1
    path.write_bytes(data)
    second = opened(folder)
    assert replayed(second) == [b"a" * 50]
    assert second.problems == {TRUNCATED: 1}


def test_a_newer_version_is_set_aside(folder: Path) -> None:
    """After a downgrade the newer release's events stay for it; ours are replayed."""
    first = opened(folder)
    write(first, b"ours")
    first.close()
    (folder / f"{99:012d}{SUFFIX}").write_bytes(journal.MAGIC + struct.pack(">H", journal.VERSION + 1) + b"whatever")
    second = opened(folder)
    assert replayed(second) == [b"ours"]
    assert second.problems == {NEWER: 1}
    assert [path.name for path in folder.glob("*.newer")] == [f"{99:012d}{SUFFIX}.newer"]
    assert write(second, b"on")


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
